"""Webhooks of GitHub and GitLab: a delivery is on the disk before it is answered, and its work is done behind it.

The work of all deliveries that wait for a repository is one: its mirror is fetched, then its index brought up to date,
then, if that is wanted, the requests they name are commented on. It is only then that they are done; whatever ended the
server before, the next one begins with them. At the start every mirror is fetched once, for what came while there was
no server.
"""

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from treering import forging
from treering.config import ForgeSettings
from treering.errors import DataError, ServiceError, StoreError, TreeringError
from treering.forging import Delivery, Figures, Forge, Inbox, Mirror, Unverified, Waiting
from treering.opening import Place
from treering.report import Reporter
from treering.serve.answers import Refused, answered
from treering.serve.guard import Signed
from treering.serve.indexing import Indexing

T = TypeVar("T")

PATHS: dict[str, Forge] = {"/v1/webhooks/github": "github", "/v1/webhooks/gitlab": "gitlab"}
HANDS = 4
"""How many mirrors are fetched at once."""
AGAIN = (1.0, 5.0, 30.0, 120.0, 600.0)
"""After how many seconds what failed is tried again; then it has failed."""
MENDED = 5.0
"""After how many seconds an inbox that cannot be opened is tried again."""
ABSENT = (2.0, 10.0)
"""The same for a commit that the forge told of and does not give yet; then it was overwritten before it was fetched."""


class Received(msgspec.Struct, frozen=True):
    """What becomes of a delivery: it is ``accepted`` and will be worked off, was there before (``duplicate``), or is
    ``ignored``, which ``why`` explains.
    """

    state: Literal["accepted", "duplicate", "ignored"]
    event: str
    id: str
    repository: str = ""
    why: str = ""


class Taken(msgspec.Struct, frozen=True):
    """A repository whose webhooks are taken, and how its deliveries stand."""

    name: str
    served_as: str
    deliveries: Figures


class Webhooks(msgspec.Struct, frozen=True):
    repositories: list[Taken]


@dataclass(frozen=True, slots=True)
class Taking:
    """A mirror, the name it is served by, and its place."""

    mirror: Mirror
    name: str
    place: Place


def taking(mirrors: Mapping[str, Mirror], places: Mapping[str, Place]) -> dict[str, Taking]:
    """The mirrors with the names by which their places are served."""
    served = {place.source.git_dir.resolve(): name for name, place in places.items()}
    return {
        full: Taking(mirror, name, places[name])
        for full, mirror in mirrors.items()
        for name in (served[mirror.folder.resolve()],)
    }


class Receiver:
    """Takes deliveries, and works them off. All but what is told of it is called in one event loop. An inbox that
    cannot be used is tried again by each delivery, which is refused until then, and every :data:`MENDED` seconds.
    """

    def __init__(
        self,
        taken: Mapping[str, Taking],
        settings: ForgeSettings,
        indexing: Indexing,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._taken, self._settings, self._indexing, self._say = dict(taken), settings, indexing, say
        self._stop = threading.Event()
        self._inboxes: dict[str, Inbox] = {}
        self._lost: set[str] = set()
        """Whose inbox was closed for its sake: what was waiting in it may be gone."""
        self._to_keep: list[tuple[str, Delivery, asyncio.Future[bool]]] = []
        self._keeping: asyncio.Task[None] | None = None

    @property
    def signed(self) -> dict[str, Signed]:
        """What the guard must know of our paths."""
        return {
            path: Signed(partial(forging.signed, forge), self._settings.webhook_bytes) for path, forge in PATHS.items()
        }

    async def open(self) -> None:
        """Begin with what waits."""
        self._thread = ThreadPoolExecutor(1, "treering-inbox")  # SQLite's connections stay on it
        self._hands = ThreadPoolExecutor(HANDS, "treering-forge")
        self._come = {name: asyncio.Event() for name in self._taken}
        self._work = [asyncio.ensure_future(self._go_on(name)) for name in self._taken]

    async def close(self) -> None:
        """Stop the work where it is: it is begun again by the next server. What was accepted stays accepted."""
        self._stop.set()
        for task in self._work:
            task.cancel()
        await asyncio.gather(*self._work, return_exceptions=True)
        if self._keeping:
            await asyncio.gather(self._keeping, return_exceptions=True)
        await asyncio.get_running_loop().run_in_executor(self._thread, self._shut)
        self._thread.shutdown()
        self._hands.shutdown()

    async def _kept(self, name: str, work: Callable[[Inbox], T]) -> T:
        """Something with the inbox of a repository, one after the other. Raises :class:`StoreError`."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._with, name, work)

    async def _told(self, name: str, work: Callable[[Inbox], None]) -> None:
        """What came of some deliveries. An inbox that is another one meanwhile knows none of them: its own have the
        same numbers.
        """
        await self._kept(name, lambda inbox: None if name in self._lost else work(inbox))

    def _with(self, name: str, work: Callable[[Inbox], T]) -> T:
        """The inbox is opened where it is not open, or its file was taken away. After whatever goes wrong it is opened
        anew by the next who comes: once it is mended, or was deleted, all goes on.
        """
        inbox = self._inboxes.get(name)
        if inbox and inbox.gone:
            self._shut(name)
            inbox.drop_log()
            self._lost.add(name)
            inbox = None
        try:
            if not inbox:
                inbox = self._inboxes[name] = Inbox(self._taken[name].place.folder).__enter__()
            return work(inbox)
        except StoreError:
            self._shut(name)
            self._lost.add(name)
            raise

    def _shut(self, *names: str) -> None:
        """Close the inboxes named, or all."""
        for name in names or tuple(self._inboxes):
            with suppress(sqlite3.Error):
                if inbox := self._inboxes.pop(name, None):
                    inbox.__exit__(None, None, None)

    async def _apart(self, work: Callable[[], T]) -> T:
        """Something that a forge may make last, on threads that nobody else waits for."""
        return await asyncio.get_running_loop().run_in_executor(self._hands, work)

    # taking ----------------------------------------------------------------------------------------------------------

    async def receive(self, request: Request) -> Response:
        body = await request.body()
        headers = dict(request.headers)
        try:
            delivery = forging.verified(PATHS[request.url.path], headers, body, self._settings, time.time())
        except Unverified as error:
            raise Refused(401, "bad_signature", error.message, error.hint) from error
        except DataError as error:
            raise Refused(400, "no_delivery", error.message, error.hint) from error
        name = delivery.repository.lower()
        if why := self._ignored(delivery):
            return answered(Received("ignored", delivery.event, delivery.id, delivery.repository, why), 202)
        new = await self._keep(name, delivery)
        if new:
            self._come[name].set()
        state: Literal["accepted", "duplicate"] = "accepted" if new else "duplicate"
        return answered(Received(state, delivery.event, delivery.id, delivery.repository), 202)

    def _ignored(self, delivery: Delivery) -> str:
        if delivery.kind == "ping":
            return "a ping: it arrived"
        if delivery.kind == "other":
            return f"nothing is done on {delivery.event}"
        if delivery.repository.lower() not in self._taken:
            return "it is not in TREERING_FORGE_REPOSITORIES"
        if delivery.kind == "request":
            if not self._settings.comments:
                return "requests are not commented on: TREERING_FORGE_COMMENTS"
            if delivery.action not in forging.COMMENTED:
                return f"nothing is done when a request is {delivery.action or 'as it is'}"
        return ""

    async def _keep(self, name: str, delivery: Delivery) -> bool:
        """Put a delivery on the disk, together with those that came while the last were written."""
        done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._to_keep.append((name, delivery, done))
        if not self._keeping or self._keeping.done():
            self._keeping = asyncio.ensure_future(self._keep_all())
        return await done

    async def _keep_all(self) -> None:
        while self._to_keep:
            batch, self._to_keep = self._to_keep, []
            for name in dict.fromkeys(of for of, _, _ in batch):
                some = [(delivery, done) for of, delivery, done in batch if of == name]
                try:
                    new = await self._kept(name, partial(_accepted, [one for one, _ in some]))
                except Exception as error:  # noqa: BLE001  each who waits is told; the next batch is another one
                    for _, done in some:
                        if not done.done():
                            done.set_exception(error)
                    continue
                for (_, done), fresh in zip(some, new, strict=True):
                    if not done.done():
                        done.set_result(fresh)

    async def standing(self, _: Request) -> Response:
        """How the deliveries of each repository stand."""
        told = []
        for name, taking in self._taken.items():
            try:
                figures = await self._kept(name, Inbox.figures)
            except StoreError as error:
                figures = Figures(error=error.message)
            told.append(Taken(taking.mirror.name, taking.name, figures))
        return answered(Webhooks(told))

    # working ---------------------------------------------------------------------------------------------------------

    async def _go_on(self, name: str) -> None:
        come, tries, broken = self._come[name], 0, ""
        # When what came while there was no server is fetched, or tried again; None once it is there.
        catching_up: float | None = time.time()
        while True:
            come.clear()
            due: float | None
            late = done = False
            try:
                waiting, anew = await self._kept(name, partial(self._due, name))
            except TreeringError as error:  # the other repositories are served all the same
                if error.message != broken:
                    broken = error.message
                    self._say(f"webhooks of {name}: {error.message} ({error.hint})")
                due = time.time() + MENDED
            else:
                if anew:
                    catching_up, tries = time.time(), 0
                broken = ""
                late = catching_up is not None and time.time() >= catching_up
                try:
                    if waiting or late:
                        done = await self._try(name, waiting)
                    due = await self._kept(name, lambda inbox: inbox.next_due())
                except TreeringError as error:  # what came of it cannot be written: a full disk
                    self._say(f"webhooks of {name}: {error.message}")
                    due, done = time.time() + AGAIN[-1], False
            if done:
                catching_up = None
            elif late:
                catching_up = time.time() + AGAIN[min(tries, len(AGAIN) - 1)]
                tries += 1
            until = [at for at in (due, None if broken else catching_up) if at is not None]
            with suppress(TimeoutError):
                await asyncio.wait_for(come.wait(), max(0.02, min(until) - time.time()) if until else None)

    def _due(self, name: str, inbox: Inbox) -> tuple[list[Waiting], bool]:
        """What is to be done now, and whether more may have waited in an inbox that is lost."""
        anew = name in self._lost
        self._lost.discard(name)
        return inbox.due(time.time()), anew

    async def _try(self, name: str, waiting: Sequence[Waiting]) -> bool:
        """Do the work of some deliveries, and say what came of it; returns whether the mirror is indexed as it is at
        the forge.
        """
        try:
            await self._do(name, waiting)
            return True
        except Exception as error:  # noqa: BLE001  one of many independent pieces of work: it is counted as failed
            told = error.message if isinstance(error, TreeringError) else f"a bug of ours: {type(error).__name__}"
            self._say(f"webhooks of {name}: {told}")
            await self._later(name, waiting, AGAIN, told)
            return False

    async def _later(self, name: str, some: Sequence[Waiting], again: Sequence[float], told: str) -> None:
        now = time.time()
        spent = [(one.number, told) for one in some if one.tries >= len(again)]
        if spent:
            await self._told(name, partial(Inbox.settle, done=[], failed=spent))
        for tries in {one.tries for one in some if one.tries < len(again)}:
            numbers = [one.number for one in some if one.tries == tries]
            await self._told(name, partial(Inbox.postpone, numbers=numbers, due=now + again[tries], said=told))

    async def _do(self, name: str, waiting: Sequence[Waiting]) -> None:
        taking = self._taken[name]
        wanted = [one.after for one in waiting if one.after]
        fetched = await self._apart(
            partial(forging.fetch, taking.mirror, self._settings, wanted, unwanted=self._stop.is_set)
        )
        job = await self._indexing.finished(taking.name)
        if job.state != "done":
            raise ServiceError(f"the index failed: {job.error}", "GET /v1/index tells of it")
        if fetched.new + fetched.moved + fetched.gone or job.commits:
            self._say(
                f"{taking.mirror.name}: {fetched.new} refs new, {fetched.moved} moved, {fetched.gone} gone;"
                f" {job.commits} commits indexed"
            )
        early = [one for one in waiting if one.after in fetched.missing and one.after and one.tries < len(ABSENT)]
        await self._later(name, early, ABSENT, "the forge does not give that commit yet")
        requests = {one.request: one for one in waiting if one.kind == "request"}
        done = [one for one in waiting if one not in early and one.kind != "request"]
        lost = "that commit was overwritten before it could be fetched"
        came = [(one.number, lost if one.after in fetched.missing else "indexed") for one in done]
        await self._told(name, partial(Inbox.settle, done=came))
        for number in requests:
            same = [one for one in waiting if one.request == number and one.kind == "request"]
            try:
                told = partial(forging.comment, taking.place, Reporter(), number, repository=taking.mirror.name)
                await self._apart(partial(told, pause=self._pause))
                await self._told(name, partial(Inbox.settle, done=[(one.number, "commented on") for one in same]))
            except TreeringError as error:
                self._say(f"webhooks of {name}: request {number}: {error.message}")
                await self._later(name, same, AGAIN, error.message)

    def _pause(self, seconds: float) -> None:
        if self._stop.wait(seconds):
            raise ServiceError("the server ends", "the next one goes on")


def _accepted(deliveries: Sequence[Delivery], inbox: Inbox) -> list[bool]:
    return inbox.accept(deliveries, time.time())
