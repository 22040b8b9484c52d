"""Who answers at the desks of several repositories: a thread of this process, or a process beside it."""

import io
import multiprocessing
import multiprocessing.process
import signal
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

from treering import finding, opening
from treering.config import Settings
from treering.errors import BudgetError, ModelError, ServiceError, StoreBusy, TreeringError, UsageError
from treering.finding import Desk
from treering.offered import OFFERS, Asked
from treering.opening import Place
from treering.report import Reporter

T = TypeVar("T")

CLOSING_SECONDS = 5.0
REOPENING = 20.0
"""While a store is being written, a desk is open at least so many times as long as opening it took, and a second."""


@dataclass(frozen=True, slots=True)
class Question:
    """An offer by its name, and what is asked of it in a repository; ``discreet`` where it is read elsewhere."""

    repository: str
    name: str
    asked: Asked
    discreet: bool = False

    def answer(self, desk: Desk) -> object:
        """The answer at a desk. Raises what the operation raises."""
        return OFFERS[self.name].answer(desk.discreet if self.discreet else desk, self.asked)


@dataclass(slots=True)
class Opened:
    """A desk with what was said when it was opened, and how the store stood then."""

    desk: Desk
    closing: ExitStack
    notes: tuple[str, ...]
    state: tuple[object, ...]
    at: float
    took: float
    touched: tuple[int | None, ...] = ()


@dataclass(slots=True)
class Bench:
    """What one thread has before it: its desks, each opened by the first question to it, and anew when its index
    changed; at ``most`` so many (0: all), those that were asked last.
    """

    opening: "Opening"
    most: int = 0
    desks: dict[str, Opened] = field(default_factory=dict)

    def desk(self, repository: str) -> Opened:
        found = self.desks.get(repository)
        if found and self._outdated(found):
            self.leave(repository)
            found = None
        if not found:
            while self.most and len(self.desks) >= self.most:
                self.leave(next(iter(self.desks)))
            found = self.opening(repository)
        self.desks.pop(repository, None)
        self.desks[repository] = found  # last
        self.opening.note(repository, found)
        return found

    @staticmethod
    def _outdated(found: Opened) -> bool:
        if found.desk.gone:
            return True
        if time.monotonic() - found.at < max(1.0, REOPENING * found.took):
            return False
        touched = found.desk.touched
        if touched == found.touched:
            return False
        if found.desk.state != found.state:
            return True
        found.touched = touched
        return False

    def answer(self, repository: str, question: Callable[[Desk], T]) -> T:
        """What a question is answered with. If it failed and the index had changed meanwhile, it is asked again; not
        what a service refused, which may have cost money.
        """
        opened = self.desk(repository)
        try:
            return opened.desk.ask(question)
        except (UsageError, BudgetError, ServiceError):
            raise
        except Exception:
            if not opened.desk.gone and opened.desk.touched == opened.touched:
                raise
            self.leave(repository)
            return self.desk(repository).desk.ask(question)

    def leave(self, repository: str) -> None:
        with suppress(ServiceError, StoreBusy):  # one that could only be read is another one now: it is not asked again
            self.desks.pop(repository).closing.close()

    def close(self) -> None:
        for repository in list(self.desks):
            self.leave(repository)


class Opening:
    """Opens desks, for many threads; an embedding model is loaded once for all that have the same, and computes by so
    many ``threads`` (0: as many as cores).
    """

    def __init__(self, places: Mapping[str, Place], threads: int = 0) -> None:
        self.places, self._threads = dict(places), threads
        self.notes: dict[str, tuple[str, ...]] = {}
        """What is to be said of the index of a repository as it was asked last."""
        self.lent: Callable[[str], Callable[[Path], Any]] | None = None
        """Of a repository, who lends its models that are loaded."""
        self.fits: dict[str, Any] = {}
        """What was fitted at a desk, for all of them: it takes seconds, and holds for long."""
        self._embedders: dict[tuple[str, int], Any] = {}
        self._loading = threading.Lock()

    def place(self, repository: str) -> Place:
        return self.places[repository]

    def embedder(self, settings: Settings) -> Any:
        """The model of the vectors. Raises :class:`ModelError`."""
        key = settings.index.model, settings.index.batch_tokens
        with self._loading:
            if key not in self._embedders:
                self._embedders[key] = opening.embedder(settings, self._threads)
            return self._embedders[key]

    def note(self, repository: str, opened: Opened) -> None:
        """Keep what is to be said of an index as it is now."""
        with suppress(TreeringError):  # the repository cannot be asked: what was said when the index was opened holds
            new = opened.desk.behind and opening.BEHIND not in opened.notes
            self.notes[repository] = (opening.BEHIND, *opened.notes) if new else opened.notes

    def __call__(self, repository: str) -> Opened:
        place, said, closing = self.place(repository), io.StringIO(), ExitStack()
        started = time.monotonic()
        embedder = None
        with suppress(ModelError):  # what is missing is told by the index, which answers by words then
            embedder = self.embedder(place.settings)
        state = finding.state(place)  # before it is opened: what is written meanwhile is then noticed
        desk = closing.enter_context(finding.desk(place, Reporter(said), embedder=embedder))
        desk.fits = self.fits
        desk.lent = self.lent(repository) if self.lent else None
        notes = tuple(line.removeprefix("warning: ") for line in said.getvalue().splitlines())
        self.notes[repository] = notes
        now = time.monotonic()
        return Opened(desk, closing, notes, state, now, now - started)


def answering(door: Connection, places: Mapping[str, Place]) -> None:
    """What a process beside the server does: answer offers, one after the other, until the door is closed."""
    for sent in (signal.SIGINT, signal.SIGTERM):  # they go to all of a group: the server decides when it is over
        signal.signal(sent, signal.SIG_IGN)
    opened = Opening(places, threads=1)  # the other cores are the other processes'
    bench = Bench(opened)
    with suppress(EOFError, OSError):
        while True:
            question, fits = door.recv()
            opened.fits.update(fits)
            value: object = None
            failed: BaseException | None = None
            try:
                value = bench.answer(question.repository, question.answer)
            except TreeringError as error:
                failed = error
            except Exception as error:  # noqa: BLE001  whoever asked is told
                failed = RuntimeError(repr(error))
            door.send((value, failed, opened.notes.get(question.repository, ())))
    bench.close()


class Mate:
    """A process that answers offers at desks of its own, for one thread; started by the first that is asked, and anew
    when it ended. Its questions and answers are pickled between the two, which are one program.
    """

    def __init__(self, opening: Opening) -> None:
        self._opening = opening
        self._told: set[str] = set()
        self._door: Connection | None = None
        self._process: multiprocessing.process.BaseProcess | None = None

    def answer(self, question: Question) -> object:
        """The answer of an offer. Raises what the operation raises."""
        for _ in range(2):
            try:
                door = self._door or self._start()
                fits = {name: fit for name, fit in self._opening.fits.copy().items() if name not in self._told}
                door.send((question, fits))
                self._told.update(fits)
                value, failed, notes = door.recv()
            except (EOFError, OSError):
                self.close()
                continue
            self._opening.notes[question.repository] = notes
            if failed is not None:
                raise failed
            return value
        raise ServiceError("the process that answers ended twice", "ask again, or serve with `--processes 0`")

    def _start(self) -> Connection:
        self._told.clear()
        fresh = multiprocessing.get_context("spawn")  # threads and models do not survive a fork
        self._door, theirs = fresh.Pipe()
        self._process = fresh.Process(target=answering, args=(theirs, self._opening.places), daemon=True)
        self._process.start()
        theirs.close()
        return self._door

    def close(self) -> None:
        if self._door and self._process:
            self._door.close()
            self._process.join(CLOSING_SECONDS)
            self._process.kill()
        self._door = self._process = None
