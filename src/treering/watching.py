"""The index kept up to date by itself: a watcher that is asked by hooks, and also sees what no hook tells.

The truth is where the refs lead. An index run is `treering index` in a process of its own, one at a time and at the
lowest priority: the watcher holds nothing but what it compares.
"""

import asyncio
import os
import shutil
import signal
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import msgspec

from treering import opening
from treering.config import FILE_NAME, load
from treering.errors import TreeringError
from treering.files import locked
from treering.git.moved import RefFiles
from treering.opening import Place
from treering.operate import units
from treering.operate.asked import Queue
from treering.operate.beside import Following, ran
from treering.pipeline.scrape import tips_of

TICK = 0.25
"""Seconds between two looks at the queue: one file of one folder."""
CERTAIN_SECONDS = 60.0
"""After so long git is asked where the refs lead, whatever the times of their files say."""
SOON_SECONDS = 5.0
"""After a failure nothing is tried sooner again because something has moved."""


Unit = Literal["systemd", "launchd"]


def unit(
    kind: Literal["systemd", "launchd"],
    places: Sequence[Place],
    command: Sequence[str],
    store: Path | None,
    *,
    learns: bool = False,
) -> str:
    """The text of what starts the watcher for good, with absolute paths; ``command`` starts treering."""
    words = [*command, "watch", *(["--learn"] if learns else [])]
    for place in places:
        words += ["--repo", str((place.source.worktree or place.source.git_dir).absolute())]
    if store:
        words += ["--store", str(store.absolute())]
    git = str(Path(shutil.which("git") or "/usr/bin/git").parent)
    path = os.pathsep.join(dict.fromkeys((git, "/usr/local/bin", "/usr/bin", "/bin")))
    return units.systemd(words, path) if kind == "systemd" else units.launchd(words, path, Path.home())


@dataclass(frozen=True, slots=True)
class Added:
    """What an index run added, and what it warned of."""

    commits: int
    vectors: int
    seconds: float
    warnings: tuple[str, ...] = ()


class Event(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What happened to a repository, for people and programs. ``waited`` is from the first sign to the end of the run;
    ``warnings`` are told when they change; ``at`` is for reading only.
    """

    event: Literal["watching", "indexed", "failed", "back", "ended"]
    repository: str
    at: str
    commits: int = 0
    vectors: int = 0
    seconds: float = 0.0
    waited: float = 0.0
    warnings: tuple[str, ...] = ()
    error: str = ""
    hint: str = ""


Tell = Callable[[Event], None]
Follower = Callable[[Place, Added], Coroutine[Any, Any, None]]
"""What may follow an index run, beside the next ones: see :class:`Following`. A command of ours is best started by
:func:`~treering.operate.beside.ran`.
"""


async def learn_after(place: Place, _: Added) -> None:
    """A follower: the model is brought up to date as well, at the lowest priority."""
    await worked(place, "learn", 19)


async def worked(place: Place, command: str, nice: int, *options: str) -> bytes:
    """What a command of ours printed as JSON, run on a repository in a process of its own.

    Raises an error of the kind that it ended with.
    """
    told, _ = await ran(place.command(command, "--json", *options), nice)
    return told


def watch(
    repos: Sequence[Path], store: Path | None, tell: Tell, *, once: bool = False, followers: Sequence[Follower] = ()
) -> None:
    """Keep the indexes of repositories up to date until a signal ends it; with ``once``, bring them up to date and end.

    Raises :class:`UsageError`, :class:`RepositoryError` or :class:`StoreError` where it cannot begin, and with ``once``
    what an index run failed of. Afterwards a failure is told and tried again.
    """
    places = opening.places(repos, store)
    asyncio.run(_watch(places, store, tell, once=once, followers=followers))


async def _watch(
    places: dict[str, Place], store: Path | None, tell: Tell, *, once: bool, followers: Sequence[Follower]
) -> None:
    turn, behind = asyncio.Lock(), asyncio.Lock()
    keepers = [Keeper(name, place, store, turn, behind, tell, followers) for name, place in places.items()]
    loop, own = asyncio.get_running_loop(), asyncio.current_task()
    signals = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    if own:
        for sent in signals:
            loop.add_signal_handler(sent, own.cancel)
    try:
        if once:
            for outcome in await asyncio.gather(*(keeper.once() for keeper in keepers), return_exceptions=True):
                if outcome:
                    raise outcome
        else:
            async with asyncio.TaskGroup() as group:
                for keeper in keepers:
                    group.create_task(keeper.keep())
    except asyncio.CancelledError:
        pass  # it was told to end
    except BaseExceptionGroup as several:
        raise several.exceptions[0] from None
    finally:
        for sent in signals:
            loop.remove_signal_handler(sent)
    for name in places:
        tell(Event(event="ended", repository=name, at=_now()))


def delay(failures: int, longest: float) -> float:
    """Seconds until something that failed so often in a row is tried again."""
    return float(min(2.0 ** min(failures, 30), longest))


def due(first: float, last: float, quiet: float, longest: float) -> float:
    """When an index run begins: once nothing has moved for a while, but not ever later while things go on moving."""
    return min(last + quiet, first + longest)


class _Gone(TreeringError):  # noqa: N818
    """What is watched is not there: looking again costs next to nothing."""


class Keeper:
    """One repository that is kept up to date. ``turn`` and ``behind`` are shared by all: one index run at a time, and
    one thing that follows.
    """

    def __init__(
        self, name: str, place: Place, store: Path | None, turn: asyncio.Lock, behind: asyncio.Lock, tell: Tell,
        followers: Sequence[Follower],
    ) -> None:  # fmt: skip
        self.name, self._place, self._store, self._turn, self._tell = name, place, store, turn, tell
        self._behind = behind
        self._repo = (place.source.worktree or place.source.git_dir).absolute()
        self._queue = Queue(place.folder)
        self._following = [(Following(self._say_failed), follower) for follower in followers]
        self._refs = RefFiles(place.source)
        self._seen: object = None
        self._settled: object = None
        self._looked = 0.0
        self._asked_git = 0.0
        self._indexed = ""
        """Where the refs led when the index was brought up to date last."""
        self._failures = 0
        self._said = ""
        self._warned: tuple[str, ...] = ()
        self._began = False

    async def once(self) -> None:
        """Brought up to date, once, with all that follows."""
        with self._held():
            await self._bring_up(time.monotonic())
            for following, _ in self._following:
                await following.over()

    async def keep(self) -> None:
        """Until cancelled. What fails is told once, and tried again more and more rarely."""
        try:
            while True:
                try:
                    with self._held():
                        if not self._began:
                            self._say("watching")
                        self._began = True
                        await self._held_keep()
                except (asyncio.CancelledError, BrokenPipeError):
                    raise
                except Exception as error:
                    if not self._began:
                        raise
                    self._failed(error)
                    await self._pause(gone=isinstance(error, _Gone))
        finally:
            for following, _ in self._following:
                await following.end()

    async def _held_keep(self) -> None:
        if self._said:  # it may be another repository now
            self._place = opening.place(self._repo, self._store)
        root = self._place.source.worktree
        self._refs = RefFiles(self._place.source, (root / FILE_NAME,) if root else ())
        since = time.monotonic()
        while True:
            await self._bring_up(since)
            while not await self._moved():
                await asyncio.sleep(TICK)
                self._there()
            since = time.monotonic()
            await self._quiet(since)

    @contextmanager
    def _held(self) -> Iterator[None]:
        """The one watcher of the store, inside the block."""
        self._there(held=False)
        self._queue.make()
        with locked(self._queue.lock, "treering watch", patience=1.0):
            self._number = self._queue.lock.stat().st_ino
            yield

    def _there(self, *, held: bool = True) -> None:
        """Raises :class:`_Gone` where the repository or, once it was made, its store is no more."""
        if not self._place.source.objects.is_dir() or not self._place.source.git_dir.is_dir():
            raise _Gone(f"there is no repository in {self._repo} any more", "it is watched again when it is back")
        if held:
            with suppress(OSError):
                if self._queue.lock.stat().st_ino == self._number:
                    return
        if held or (self._began and not self._place.folder.is_dir()):
            self._indexed = ""
            raise _Gone(f"the store {self._place.folder} was taken away", "`treering index` makes it again")

    async def _moved(self) -> bool:
        """Whether refs lead elsewhere than the index knows, as cheaply as that can be told."""
        asked, now = self._queue.take(), time.monotonic()
        watching = self._place.settings.watch
        if not asked and now - self._looked < watching.look_seconds:
            return False
        self._looked = now
        certain = now - self._asked_git >= CERTAIN_SECONDS
        state = self._refs.state(afresh=certain)
        still, self._seen = state == self._seen, state
        if not asked and not certain and still and state == self._settled:
            return False
        # Two changes within one tick of the file system's clock look like one: what has changed is looked at twice.
        self._settled = state if still else None
        moved = await self._tips() != self._indexed
        if asked and not moved:
            self._queue.done()
        return moved

    async def _tips(self) -> str:
        self._asked_git = time.monotonic()
        settings = load(self._place.source.worktree, os.environ)
        if settings != self._place.settings:
            self._place, self._indexed = replace(self._place, settings=settings), ""
        return await asyncio.to_thread(tips_of, self._place.source, self._place.settings)

    async def _quiet(self, first: float) -> None:
        """Wait until a burst of commits is over, or has lasted long enough."""
        watching, last = self._place.settings.watch, first
        state = self._refs.state()
        while (wait := due(first, last, watching.quiet_seconds, watching.burst_seconds) - time.monotonic()) > 0:
            await asyncio.sleep(min(wait, TICK))
            before, state = state, self._refs.state()
            if self._queue.take() or state != before:
                last = time.monotonic()

    async def _bring_up(self, since: float) -> None:
        """Have the index made up to date, and only then acknowledge what was asked for."""
        async with self._turn:
            self._queue.take()
            self._queue.begin()
            tips = await self._tips()
            added = await _indexed(self._place)
        self._indexed = tips
        self._queue.done()
        if self._said:
            self._say("back")
        self._failures, self._said = 0, ""
        waited = round(time.monotonic() - since, 2)
        warnings = () if added.warnings == self._warned else added.warnings
        self._warned = added.warnings
        self._tell(
            Event(event="indexed", repository=self.name, at=_now(), commits=added.commits, vectors=added.vectors,
                  seconds=added.seconds, waited=waited, warnings=warnings)
        )  # fmt: skip
        for following, follower in self._following:
            following.start(partial(self._follow, follower, self._place, added))

    async def _follow(self, follower: Follower, place: Place, added: Added) -> None:
        async with self._behind:
            await follower(place, added)

    async def _pause(self, *, gone: bool) -> None:
        watching = self._place.settings.watch
        if gone:
            await asyncio.sleep(watching.look_seconds)
            return
        self._failures += 1
        began, wait = time.monotonic(), delay(self._failures, watching.retry_seconds)
        state = self._refs.state()
        while (passed := time.monotonic() - began) < wait:
            await asyncio.sleep(min(TICK * 4, wait - passed))
            if passed >= SOON_SECONDS and self._refs.state() != state:
                return

    def _failed(self, error: Exception) -> None:
        """Told once, however often it happens in a row."""
        if (message := _message(error)) != self._said:
            self._said = message
            self._say_failed(error)

    def _say_failed(self, error: Exception) -> None:
        self._say("failed", _message(error), error.hint if isinstance(error, TreeringError) else "")

    def _say(self, event: Literal["watching", "failed", "back"], error: str = "", hint: str = "") -> None:
        self._tell(Event(event=event, repository=self.name, at=_now(), error=error, hint=hint))


async def _indexed(place: Place) -> Added:
    told, warnings = await ran(place.command("index", "--json"), place.settings.watch.nice)
    return replace(msgspec.json.decode(told, type=Added), warnings=tuple(warnings))


def _message(error: Exception) -> str:
    return error.message if isinstance(error, TreeringError) else f"{type(error).__name__}: {error}"


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
