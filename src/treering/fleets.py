"""The operations on a fleet: many repositories, each with a store of its own, brought up to date by many processes.

What is done with one repository is what the other commands do with it; who drives it is Ray.
"""

import os
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from treering import forging, learning, opening, operations, sharing
from treering.config import VectorSettings, load
from treering.errors import NoStore, RepositoryError, ServiceError, StoreBusy, StoreError, TreeringError, UsageError
from treering.files import address, holder, locked, os_errors
from treering.git import mirror as mirroring
from treering.operate.cluster import cluster, named, spread
from treering.operate.roster import add, failed, is_address, within
from treering.operate.roster import listed as listed
from treering.report import Reporter
from treering.store import Store
from treering.store.database import ignores_itself
from treering.store.fleet import Fleet, Repository, State, mirror_of, store_of
from treering.vectors.embedder import Embedder

WAVE = 4096
"""Repositories that the driver knows of at once."""
TRIES = 3
"""How often a repository is worked on whose worker dies of it."""
PAUSES = (1.0, 4.0)
"""Seconds between the tries of what another machine, or another process, did not give."""
LOOK_SECONDS = 2.0
"""How often the size of a mirror is looked at while it is fetched."""
LARGEST = 20 << 30

Flags = Mapping[str, Mapping[str, object]]


class Orders(Struct, frozen=True):
    """What is to be done with each repository. ``run`` names the run: a try of an earlier one does not count.
    ``vectors`` are the settings of the collection that each is pushed into, if any.
    """

    fleet: str
    run: str
    flags: dict[str, dict[str, object]] = {}
    vectors: VectorSettings | None = None
    tokens: bool = False
    largest: int = LARGEST


@dataclass(frozen=True, slots=True)
class Updated:
    """What an update came to: repositories by state, and what there is of all of them now."""

    states: dict[State, int]
    commits: int
    new: int
    vectors: int
    seconds: float
    repeated: int
    """How many entries of the list named again what it named before, in the same words."""
    incomplete: list[Repository] = field(default_factory=list)
    """Those that are not complete, with the cause."""


@dataclass(frozen=True, slots=True)
class FleetStatus:
    states: dict[State, int]
    commits: int
    vectors: int
    bytes: int
    running: tuple[str, ...]
    repositories: list[Repository]


def organisation(named: str) -> list[str]:
    """The addresses of all repositories of ``github:NAME`` or ``gitlab:GROUP``."""
    return forging.organisation(named, load(None, os.environ).forge)


# the work on one ------------------------------------------------------------------------------------------------------


class Worker:
    """Works on one repository after the other. There is one in each process."""

    def __init__(self, orders: Orders) -> None:
        self.orders, self.fleet = orders, Path(orders.fleet)
        self._embedders: dict[str, Embedder] = {}
        self._stage = ""
        self._sharing = sharing.Sharing(orders.vectors) if orders.vectors else None

    def __call__(self, line: bytes) -> bytes:
        return msgspec.json.encode(self.work(msgspec.json.decode(line, type=Repository)))

    def work(self, before: Repository) -> Repository:
        """What becomes of a repository. Whatever happens to it is told and not raised."""
        started, self._stage = time.time(), "fetch"
        try:
            with self._trying(before.name) as tries:
                if tries > TRIES:
                    raise RepositoryError(
                        f"its worker died of it {TRIES} times", "look for too little memory, or index it by itself"
                    )
                done = self._worked(before)
        except TreeringError as error:
            done = failed(before, self._stage, error)
        except OSError as error:
            refused = StoreError(f"{error.filename or before.source}: {error.strerror}", "look at its permissions")
            done = failed(before, self._stage, refused)
        except Exception as error:  # noqa: BLE001  of one repository: it must not end the work on the others
            done = failed(before, self._stage, TreeringError(f"{type(error).__name__}: {error}", "this is a bug"))
        now = time.time()
        return replace(done, seconds=round(now - started, 3), finished=now)

    def _worked(self, before: Repository) -> Repository:
        report, orders = Reporter(), self.orders
        path = self._fetched(before)
        where = opening.of_fleet(path, store_of(self.fleet, before.name), orders.flags)
        if (size := _size(where.source.objects)) > orders.largest:
            raise _too_large(size, orders.largest)
        self._stage = "index"
        indexed = operations.index(where, report, embedder=lambda: self._embedder(where))
        tokens = 0
        if orders.tokens:
            self._stage = "tokens"
            tokens = learning.tokenize(where, report)[1].total_tokens
        self._stage = "index"
        model = self._embedders.get(where.settings.index.model)
        with where.store(existing=True) as store:
            partial, waiting = store.partial(), len(store.unembedded(model.fingerprint)) if model else store.count()
            missing = [f"{partial:,} commits have a partial diff: objects are missing"] if partial else []
            missing += [f"{waiting:,} commits are found by words only"] if waiting else []
            missing += ["nothing was pushed"] if waiting and self._sharing else []
            done = Repository(
                source=before.source, name=before.name, added=before.added,
                state="partial" if missing else "complete", stage="index" if missing else "", cause="; ".join(missing),
                commits=store.count(), new=_new(store, before, indexed.commits), newest=store.newest_number(),
                vectors=store.vectors(), tokens=tokens or before.tokens, bytes=_size(where.folder),
            )  # fmt: skip
        if self._sharing and not waiting:
            self._stage = "push"
            try:
                self._sharing.push(where, before.name, lambda: self._embedder(where))
            except TreeringError as error:  # what is here is complete all the same
                return replace(failed(done, self._stage, error), new=done.new)
        return done

    def _embedder(self, where: opening.Place) -> Embedder:
        name = where.settings.index.model
        if name not in self._embedders:
            self._embedders[name] = opening.embedder_of(where.settings, threads=1)()
        return self._embedders[name]

    def _fetched(self, one: Repository) -> Path:
        """Where the repository is on this machine, as it is now."""
        if not is_address(one.source):
            return Path(one.source)
        where, folder = mirroring.remote(one.source), mirror_of(self.fleet, one.name)
        first = not folder.exists()
        mirroring.make(folder, where)
        size, looked = 0, time.monotonic()

        def too_large() -> bool:
            nonlocal size, looked
            if time.monotonic() - looked > LOOK_SECONDS:
                size, looked = _size(folder), time.monotonic()
            return size > self.orders.largest

        settings = load(None, os.environ, self.orders.flags).forge
        # What did not answer last time is not waited for.
        for pause in (*(PAUSES if one.stage != "fetch" else ()), None):
            try:
                forging.fetch(forging.Mirror(one.name, where, folder), settings, unwanted=too_large)
                break
            except (ServiceError, StoreBusy, RepositoryError):
                if size > self.orders.largest:
                    if first:
                        shutil.rmtree(folder, ignore_errors=True)
                    raise _too_large(size, self.orders.largest) from None
                if pause is None:
                    raise
                time.sleep(pause)
        return folder

    @contextmanager
    def _trying(self, name: str) -> Iterator[int]:
        """Say that a worker is at it; gives how often this run has begun with it. Who dies leaves the mark."""
        mark = self.fleet / "running" / name
        run, _, tries = mark.read_text("utf-8", "replace").partition(" ") if mark.is_file() else ("", "", "")
        count = int(tries) + 1 if run == self.orders.run and tries.isdecimal() else 1
        with os_errors(mark):
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.write_text(f"{self.orders.run} {count}", "utf-8")
        try:
            yield count
        finally:
            mark.unlink(missing_ok=True)


def _unchanged(orders: Orders, before: Repository) -> bool:
    """Whether a worker would find nothing to do, as far as a few starts of git tell."""
    if before.state != "complete" or is_address(before.source) or orders.tokens or orders.vectors:
        return False
    try:
        where = opening.of_fleet(Path(before.source), store_of(Path(orders.fleet), before.name), orders.flags)
        if _size(where.source.objects) > orders.largest:
            return False
        with where.store(existing=True) as store:
            return store.count() == before.commits and operations.is_current(where, store)
    except Exception:  # noqa: BLE001  a worker finds it, too, and says so
        return False


def _new(store: Store, before: Repository, indexed: int) -> int:
    """The commits that came since the last time. Which those are a register of an earlier treering does not say: then
    those that were indexed now.
    """
    return store.count(after=before.newest) if before.newest or not before.commits else indexed


def _too_large(size: int, largest: int) -> RepositoryError:
    return RepositoryError(
        f"it has {size / 1e9:,.1f} GB, more than {largest / 1e9:,.1f}", "raise --largest, or index it by itself"
    )


def _size(folder: Path) -> int:
    total = 0
    for parent, _, files in os.walk(folder):
        for name in files:
            with suppress(OSError):  # it went meanwhile
                total += os.lstat(os.path.join(parent, name)).st_size  # noqa: PTH118  a Path each takes ten times as long
    return total


# the operations -------------------------------------------------------------------------------------------------------


def update(
    fleet: Path,
    sources: Sequence[str],
    report: Reporter,
    *,
    flags: Flags | None = None,
    workers: int = 0,
    tokens: bool = False,
    largest: int = LARGEST,
    qdrant: str = "",
    qdrant_url: str | None = None,
) -> Updated:
    """Add repositories to a fleet, and bring all of it up to date: fetched, read, indexed, with ``tokens`` tokenised,
    and with ``qdrant`` pushed into the collection of that name, which they share. What cannot be done for one is put
    down, and the others go on; run again, it does what is missing.

    Raises :class:`ServiceError` where Ray cannot be had.
    """
    started, workers = time.time(), workers or os.cpu_count() or 1
    chosen = {section: dict(values) for section, values in (flags or {}).items()}
    load(None, os.environ, chosen)  # a flag that cannot be is said once
    vectors = sharing.shared(qdrant, qdrant_url) if qdrant else None
    if workers > 1:
        chosen.setdefault("scrape", {}).setdefault("workers", 1)
    orders = Orders(
        fleet=str(fleet.absolute()), run=f"{os.getpid()}-{started:.0f}", flags=chosen, vectors=vectors, tokens=tokens,
        largest=largest,
    )  # fmt: skip
    with Fleet(fleet) as register, locked(fleet / "update.lock", "treering fleet update"), ExitStack() as stack:
        repeated = add(register, sources)
        names = register.names()
        if not names:
            wrong = next(register.repositories(), None)
            raise UsageError(
                f"the fleet in {fleet} has no repository" + (f"; {wrong.source}: {wrong.cause}" if wrong else ""),
                "name some, or give --list",
            )
        new = 0
        for one in report.track(_waves(register, orders, workers, stack), len(names), "repositories"):
            register.keep([one])
            if vectors and one.state == "complete":
                register.pushed(address(vectors.qdrant_url), qdrant, one.name)
            new += one.new
            told = f"{one.name}: {one.cause}" if one.cause else f"{one.name}: {one.commits:,} commits"
            report.detail(f"{told} ({one.seconds:.1f} s)")
        found = _status(register, ())
        incomplete = [one for one in found.repositories if one.state not in ("complete", "waiting")]
        return Updated(
            found.states, found.commits, new, found.vectors, round(time.time() - started, 3), repeated, incomplete
        )


def _waves(register: Fleet, orders: Orders, workers: int, stack: ExitStack) -> Iterator[Repository]:
    """What becomes of each; so many at once that the driver needs no more memory for many than for few. Ray is started
    for the first that has something to be done, and ends with ``stack``.
    """
    last, started = "", False
    while wave := list(register.repositories(after=last, most=WAVE)):
        last = wave[-1].source
        wave = [one for one in wave if one.name]
        if not named():  # in a cluster it is quicker to have all looked at by its workers
            with ThreadPoolExecutor(workers) as threads:
                looked = list(zip(wave, threads.map(partial(_unchanged, orders), wave), strict=True))
            yield from (replace(one, new=0, finished=time.time()) for one, unchanged in looked if unchanged)
            wave = [one for one, unchanged in looked if not unchanged]
        # What took long goes first: at the end all should have something to do.
        lines = [msgspec.json.encode(one) for one in sorted(wave, key=lambda one: -one.seconds)]
        if lines and not started:
            stack.enter_context(cluster(workers))
            started = True
        for line in spread(lines, partial(Worker, orders), workers) if lines else ():
            yield msgspec.json.decode(line, type=Repository)


def status(fleet: Path) -> FleetStatus:
    """What a fleet holds, what became of each repository, and which are being worked on. Makes nothing."""
    if not (fleet / Fleet.file).is_file():
        raise NoStore(f"there is no fleet in {fleet}", "run `treering fleet update` first")
    running, busy = fleet / "running", holder(fleet / "update.lock")  # a killed update leaves its marks
    marks = sorted(one.name for one in running.iterdir()) if busy and running.is_dir() else []
    with Fleet(fleet, reading=True) as register:
        return _status(register, tuple(marks))


def _status(register: Fleet, running: tuple[str, ...]) -> FleetStatus:
    repositories = list(register.repositories())
    states = Counter(one.state for one in repositories)
    commits, vectors, size = (
        sum(getattr(one, figure) for one in repositories) for figure in ("commits", "vectors", "bytes")
    )
    return FleetStatus(dict(states), commits, vectors, size, running, repositories)


def forget(fleet: Path, names: Sequence[str], *, leave_points: bool = False) -> list[str]:
    """Take repositories out of a fleet, with their stores and mirrors, and before that their points out of Qdrant, but
    with ``leave_points``. Returns what they were named by.

    Raises :class:`StoreError` if Qdrant does not let us, or where a repository itself lies there: then all is left in
    its place.
    """
    with Fleet(fleet) as register, locked(fleet / "update.lock", "treering fleet forget"):
        found = {name: register.named(name) for name in names}
        if unknown := [name for name, one in found.items() if one is None]:
            raise UsageError(f"the fleet has no {', '.join(unknown)}", "see `treering fleet status`")
        gone = [one for one in found.values() if one]
        folders = _folders(register, fleet, gone)
        if not leave_points:
            if halfway := next((one.name for one in gone if one.stage == "push"), ""):
                raise StoreError(
                    f"the last push of {halfway} failed: what is there of it in Qdrant is not known",
                    "run `treering fleet update` with --qdrant first, or leave its points: --leave-points",
                )
            sharing.forget(register.collections(names))
        for folder in folders:
            with os_errors(folder):
                if folder.exists():
                    shutil.rmtree(folder)
        for name in names:
            (fleet / "running" / name).unlink(missing_ok=True)
        # Last: until then it can be done again. What was a duplicate may be none any more; the next list says so.
        register.forget(
            [*(one.source for one in gone), *(one.source for one in register.repositories() if not one.name)]
        )
    return [one.source for one in gone]


def _folders(register: Fleet, fleet: Path, gone: Sequence[Repository]) -> list[Path]:
    """The stores and mirrors of some repositories. Raises :class:`StoreError` where one is not ours to delete, or a
    repository itself lies in it.
    """
    stores = [store_of(fleet, one.name) for one in gone]
    mirrors = [mirror_of(fleet, one.name) for one in gone if is_address(one.source)]
    foreign = [
        str(folder) for folder in stores if folder.is_symlink() or (folder.exists() and not ignores_itself(folder))
    ]
    foreign += [str(folder) for folder in mirrors if (folder / ".git").exists()]
    foreign += [
        one.source for one in register.repositories() if any(within(folder, one.source) for folder in stores + mirrors)
    ]
    if foreign:
        raise StoreError(f"{foreign[0]} is not the fleet's, and would be deleted", "move it out of the fleet first")
    return stores + mirrors
