"""All repositories of a fleet, asked as one: by one thread of the server, over stores that another one holds open, so
that they are opened anew beside the answers when a store or the list has changed. And one of them, by its name.
"""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from treering import opening
from treering.config import Settings
from treering.errors import ModelError, NoStore, StoreError, TreeringError
from treering.gathering import SIGHTS, Gathering
from treering.offered import OFFERS, Asked
from treering.opening import Place
from treering.report import Reporter
from treering.serve.access import EVERYTHING, Sight
from treering.serve.crew import Opening
from treering.store.fleet import store_of

T = TypeVar("T")

LOOKING = 20.0
"""Whether something has changed is looked at once in so many times as long as opening all stores took, and a second."""
OPEN = 8
"""So many repositories of a fleet are open at once for who asks them by name."""
PATIENCE = 0.5
"""For so many seconds the first question waits for what has changed; then what was there before answers for a while."""


class Fleet:
    """A fleet that is served: which repositories it has, and what is to be said of the answers."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.folder, self.settings = folder, settings
        self.notes: dict[Sight, tuple[str, ...]] = {}
        """Where the last answer to somebody fell short."""
        self._names: tuple[float, tuple[str, ...]] = 0.0, ()

    def stores(self) -> dict[str, Path]:
        with suppress(NoStore):
            return opening.stores_of(self.folder)
        return {}

    def holds(self, name: str, sight: Sight) -> bool:
        """Whether somebody sees a repository of that name here."""
        with suppress(StoreError, OSError):  # no name of ours, or too long for one
            return sight.sees(name) and (store_of(self.folder, name) / "treering.db").is_file()
        return False

    def names(self, sight: Sight) -> tuple[str, ...]:
        """The repositories that somebody sees, as they were a second ago or later."""
        at, names = self._names
        if not names or time.monotonic() - at > 1:
            names = tuple(self.stores())
            self._names = time.monotonic(), names
        return names if sight.whole else tuple(filter(sight.sees, names))

    def state(self) -> tuple[object, ...]:
        """Another one when a store was written, or the list has changed."""
        return tuple((name, *map(_written, _files(store))) for name, store in self.stores().items())


class Members(Opening):
    """Opens desks of repositories of a fleet, by their names there, with the models of those that are served beside."""

    def __init__(self, fleet: Fleet, beside: Opening) -> None:
        super().__init__({})
        self._fleet, self._beside = fleet, beside

    def embedder(self, settings: Settings) -> Any:
        return self._beside.embedder(settings)

    def place(self, repository: str) -> Place:
        return opening.member(self._fleet.folder, repository)


class Opened:
    """The stores of a fleet as they were at a time, open at a thread of their own: a database is for one thread."""

    def __init__(self, fleet: Fleet, embedder: Callable[[Settings], Any], sights: Sequence[Sight] = ()) -> None:
        self.sights = sights
        """Who asks: for them all is made ready."""
        self._fleet, self._embedder = fleet, embedder
        self._thread = ThreadPoolExecutor(1, "treering-fleet")
        self._gathering: Gathering | None = None
        self._names: tuple[str, ...] = ()
        self.state: tuple[object, ...] = ()
        self.at = self.took = 0.0
        self.ready: Future[None] = self._thread.submit(self._open)

    def _open(self) -> None:
        started = time.monotonic()
        fleet, embedder = self._fleet, None
        with suppress(ModelError):  # what is missing is told by those who search by words then
            embedder = self._embedder(fleet.settings)
        self.state = fleet.state()  # before they are opened: what is written meanwhile is then noticed
        stores, private = fleet.stores(), opening.private_in(fleet.folder)
        own = {name: private.get(name, fleet.settings.route.private_paths) for name in stores}
        gathering = Gathering(stores, fleet.settings, Reporter(), embedder=embedder, private=own)
        self._names = tuple(stores)
        self._gathering = gathering.__enter__()
        for sight in self.sights:
            with suppress(TreeringError):  # whoever asks is told
                gathering.finder(self._visible(sight))
        self.at = time.monotonic()
        self.took = self.at - started

    def _visible(self, sight: Sight) -> tuple[str, ...] | None:
        return None if sight.whole else tuple(filter(sight.sees, self._names))

    def ask(self, question: Callable[[Gathering, tuple[str, ...] | None], T], sight: Sight) -> T:
        def asked() -> T:
            assert self._gathering  # noqa: S101  it is ready
            visible = self._visible(sight)
            try:
                return question(self._gathering, visible)
            finally:
                self._fleet.notes[sight] = self._gathering.notes(visible)

        self.sights = (sight, *(one for one in self.sights if one != sight))[:SIGHTS]
        return self._thread.submit(asked).result()

    def close(self) -> None:
        """Once the question under way is answered."""

        def closed() -> None:
            if self._gathering:
                self._gathering.__exit__(None, None, None)

        self._thread.submit(closed)
        self._thread.shutdown(wait=False)


class Reader:
    """Who answers of a fleet: what one thread of the server works with."""

    def __init__(self, fleet: Fleet, embedder: Callable[[Settings], Any]) -> None:
        self._fleet, self._embedder = fleet, embedder
        self._now: Opened | None = None
        self._coming: Opened | None = None
        self._looked = 0.0

    def answer(self, name: str, asked: Asked, sight: Sight, *, discreet: bool) -> object:
        """The answer of an offer over all that somebody sees. Raises what the operation raises."""
        across = OFFERS[name].across
        assert across  # noqa: S101  the house asks no other
        return self._opened().ask(lambda gathering, visible: across(gathering, asked, visible, discreet), sight)

    def ready(self) -> int:
        """How many commits can be found."""
        return self._opened().ask(lambda gathering, visible: len(gathering.finder(visible).history), EVERYTHING)

    def _opened(self) -> Opened:
        """The stores as they are now; as they were while those that have changed are being opened."""
        if not self._now:
            self._now = Opened(self._fleet, self._embedder)
            try:
                self._now.ready.result()
            except Exception:
                self._now.close()
                self._now = None
                raise
            self._looked = time.monotonic()
        elif self._coming or self._changed(self._now):
            patience = 0 if self._coming else PATIENCE
            self._coming = self._coming or Opened(self._fleet, self._embedder, self._now.sights)
            try:
                self._coming.ready.result(patience)
            except NotYet:
                return self._now
            except Exception:  # noqa: BLE001  what was open still answers, and it is tried again later
                self._coming.close()
            else:
                self._now.close()
                self._now = self._coming
            self._coming, self._looked = None, time.monotonic()
        return self._now

    def _changed(self, opened: Opened) -> bool:
        if time.monotonic() - self._looked < max(1.0, LOOKING * opened.took):
            return False
        self._looked = time.monotonic()
        return self._fleet.state() != opened.state

    def close(self) -> None:
        for one in (self._now, self._coming):
            if one:
                one.close()


def _files(store: Path) -> tuple[Path, Path]:
    """The database, and its log."""
    return store / "treering.db", store / "treering.db-wal"


def _written(path: Path) -> tuple[int, int, int] | None:
    """When a file was written; None while there is nothing in it, as in the log of one that is only read."""
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_ino, found.st_mtime_ns, found.st_size) if found.st_size else None
