"""Several repositories, open for many who ask at once: a few threads, a desk for each of them and each repository.

Knows nothing of HTTP. What is asked waits in one of two bounded queues, so that an answer that takes minutes never
stands before a search; what nobody waits for any more is taken out of it.
"""

import asyncio
import io
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from treering import finding, opening
from treering.errors import BudgetError, ModelError, ServiceError, UsageError
from treering.finding import Desk
from treering.offered import OFFERS, Asked
from treering.opening import Place
from treering.report import Reporter

T = TypeVar("T")

QUICK = frozenset({"search", "similar", "commit", "files", "context"})
"""What is answered in some hundredths of a second; all else has threads of its own."""
SLOW_THREADS = 2
CLOSING_SECONDS = 10.0
REOPENING = 20.0
"""While a store is being written, a desk is open at least so many times as long as opening it took, and a second."""
QUESTIONS = 16
"""Texts that are embedded between two looks at whether they are still wanted."""


class Busy(ServiceError):  # noqa: N818
    """Everyone who answers has work and the queue is full: come back in ``seconds``."""

    def __init__(self, seconds: int = 1) -> None:
        super().__init__("too many questions are waiting", f"ask again in {seconds} s")
        self.seconds = seconds


@dataclass(eq=False, slots=True)
class Task(Generic[T]):
    """Something to do on a thread, and whoever waits for it in an event loop. ``left`` once nobody does."""

    work: Callable[["Bench", "Task[T]"], T]
    loop: asyncio.AbstractEventLoop
    done: "asyncio.Future[T]"
    left: bool = False

    def settle(self, value: T | None, error: BaseException | None) -> None:
        def tell() -> None:
            if not self.done.done():
                if error is not None:
                    self.done.set_exception(error)
                else:
                    self.done.set_result(value)  # type: ignore[arg-type]  # there is a value where there is no error

        with suppress(RuntimeError):  # the loop is closed: nobody waits
            self.loop.call_soon_threadsafe(tell)


@dataclass(slots=True)
class Opened:
    """A desk with what was said when it was opened, and how the store stood then."""

    desk: Desk
    closing: ExitStack
    notes: tuple[str, ...]
    state: tuple[object, ...]
    at: float
    took: float
    touched: int = -1


@dataclass(slots=True)
class Bench:
    """What one thread has before it: its desks, each opened by the first question to it, and anew when its index
    changed.
    """

    open: Callable[[str], Opened]
    desks: dict[str, Opened] = field(default_factory=dict)

    def desk(self, repository: str) -> Opened:
        found = self.desks.get(repository)
        if found and self._outdated(found):
            self.close(repository)
            found = None
        if not found:
            found = self.desks[repository] = self.open(repository)
        return found

    @staticmethod
    def _outdated(found: Opened) -> bool:
        if time.monotonic() - found.at < max(1.0, REOPENING * found.took):
            return False
        touched = found.desk.touched
        if touched == found.touched:
            return False
        if found.desk.state != found.state:
            return True
        found.touched = touched
        return False

    def close(self, repository: str) -> None:
        with suppress(ServiceError):
            self.desks.pop(repository).closing.close()

    def close_all(self) -> None:
        for repository in list(self.desks):
            self.close(repository)


class Lane:
    """Threads before one bounded queue."""

    def __init__(self, name: str, threads: int, waiting: int, open_desk: Callable[[str], Opened]) -> None:
        self._open, self._most = open_desk, waiting
        self._queue: deque[Task[Any]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self.busy = 0
        self._threads = [
            threading.Thread(target=self._serve, name=f"treering-{name}-{number}", daemon=True)
            for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def __len__(self) -> int:
        return len(self._queue)

    async def run(self, work: Callable[[Bench, Task[T]], T]) -> T:
        """Have something done, in turn. Raises :class:`Busy`. Who is cancelled leaves the queue."""
        loop = asyncio.get_running_loop()
        task = Task(work, loop, loop.create_future())
        with self._changed:
            if self._closed:
                raise ServiceError("the server is shutting down", "ask again when it is back")
            if len(self._queue) >= self._most:
                raise Busy
            self._queue.append(task)
            self._changed.notify()
        try:
            value: T = await task.done
            return value
        finally:
            task.left = True
            if not task.done.done() or task.done.cancelled():
                with self._changed, suppress(ValueError):
                    self._queue.remove(task)

    def _serve(self) -> None:
        bench = Bench(self._open)
        while (task := self._next()) is not None:
            try:
                task.settle(task.work(bench, task), None)
            except Exception as error:  # noqa: BLE001  one of many independent questions: whoever asked is told
                task.settle(None, error)
            finally:
                with self._changed:
                    self.busy -= 1
        bench.close_all()

    def _next(self) -> Task[Any] | None:
        with self._changed:
            while True:
                while self._queue:
                    task = self._queue.popleft()
                    if not task.left:
                        self.busy += 1
                        return task
                if self._closed:
                    return None
                self._changed.wait()

    def close(self) -> None:
        """What is waiting is still done; nothing new is taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        until = time.monotonic() + CLOSING_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))


def no_desk(repository: str) -> Opened:
    """Of a lane whose threads need no index."""
    raise ServiceError(f"nobody here has a desk of {repository}")


class House:
    """The repositories of a server by their names, the first one being who is asked where no name is given. Use
    ``with``; what is asked of it is awaited.
    """

    def __init__(self, places: Mapping[str, Place], *, threads: int = 0, waiting: int = 256) -> None:
        if not places:
            raise UsageError("there is no repository to serve", "give --repo")
        self.places = dict(places)
        self.threads, self._waiting = threads or os.cpu_count() or 1, waiting
        self._notes: dict[str, tuple[str, ...]] = {}
        self._embedders: dict[tuple[str, int], Any] = {}
        self._loading = threading.Lock()
        self.lent: Callable[[str], Callable[[Path], Any]] | None = None
        """Of a repository, who lends its models that are loaded."""

    def __enter__(self) -> "House":
        self.quick = Lane("quick", self.threads, self._waiting, self._opened)
        self.slow = Lane("slow", SLOW_THREADS, self._waiting, self._opened)
        return self

    def __exit__(self, *_: object) -> None:
        self.quick.close()
        self.slow.close()

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.places)

    def name(self, repository: str = "") -> str:
        """The repository that is meant. Raises :class:`UsageError`."""
        if repository and repository not in self.places:
            raise UsageError(f"`repository`: there is no {repository!r} here", f"repositories: {', '.join(self.names)}")
        return repository or self.names[0]

    def notes(self, repository: str) -> tuple[str, ...]:
        """What was said when the index was opened last: that it is behind, or answers by words alone."""
        return self._notes.get(repository, ())

    async def answer(self, repository: str, name: str, asked: Asked) -> object:
        """The answer of an offer. Raises what the operation raises, and :class:`Busy`."""
        return await self.ask(repository, lambda desk: OFFERS[name].answer(desk, asked), slow=name not in QUICK)

    async def told(self, repository: str, name: str, asked: Asked, tell: Callable[[str], None]) -> object:
        """The same, told piece by piece by whoever answers; ``tell`` is called in the event loop."""
        streamed = OFFERS[name].streamed
        if streamed is None:
            raise UsageError(f"`stream`: {name} answers at once", "ask without it")
        loop, repository = asyncio.get_running_loop(), self.name(repository)

        def work(bench: Bench, task: Task[object]) -> object:
            def piece(text: str) -> None:
                with suppress(RuntimeError):
                    loop.call_soon_threadsafe(tell, text)

            return streamed(bench.desk(repository).desk, asked, piece, lambda: task.left)

        return await self.slow.run(work)

    async def ask(self, repository: str, question: Callable[[Desk], T], *, slow: bool = False) -> T:
        """What a question is answered with at a desk. If it failed and the index had changed meanwhile, it is asked
        again; not what a service refused, which may have cost money.
        """
        repository = self.name(repository)

        def work(bench: Bench, _: Task[T]) -> T:
            opened = bench.desk(repository)
            try:
                return question(opened.desk)
            except (UsageError, BudgetError, ServiceError):
                raise
            except Exception:
                if opened.desk.touched == opened.touched:
                    raise
                bench.close(repository)
                return question(bench.desk(repository).desk)

        return await (self.slow if slow else self.quick).run(work)

    async def embed(self, repository: str, texts: Sequence[str]) -> tuple[list[list[float]], list[int]]:
        """Unit vectors of texts by the model of a repository's index, and how many tokens it read of each."""
        place = self.places[self.name(repository)]

        def work(_: Bench, task: Task[tuple[list[list[float]], list[int]]]) -> tuple[list[list[float]], list[int]]:
            model, vectors, counts = self._embedder(place), [], []
            for start in range(0, len(texts), QUESTIONS):
                if task.left:
                    break
                some, read = finding.vectors(model, texts[start : start + QUESTIONS])
                vectors += some
                counts += read
            return vectors, counts

        return await (self.quick if len(texts) <= QUESTIONS else self.slow).run(work)

    def _embedder(self, place: Place) -> Any:
        """The model of the vectors: one for all threads and repositories that have the same."""
        key = place.settings.index.model, place.settings.index.batch_tokens
        with self._loading:
            if key not in self._embedders:
                self._embedders[key] = opening.embedder(place)
            return self._embedders[key]

    def _opened(self, repository: str) -> Opened:
        place, said, closing = self.places[repository], io.StringIO(), ExitStack()
        started = time.monotonic()
        embedder = None
        with suppress(ModelError):  # what is missing is told by the index, which answers by words then
            embedder = self._embedder(place)
        state = finding.state(place)  # before it is opened: what is written meanwhile is then noticed
        desk = closing.enter_context(finding.desk(place, Reporter(said), embedder=embedder))
        desk.lent = self.lent(repository) if self.lent else None
        notes = tuple(line.removeprefix("warning: ") for line in said.getvalue().splitlines())
        self._notes[repository] = notes
        now = time.monotonic()
        return Opened(desk, closing, notes, state, now, now - started)
