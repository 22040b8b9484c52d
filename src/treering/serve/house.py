"""Several repositories, open for many who ask at once: a few threads, a desk for each of them and each repository;
and, where it is told to, processes beside them.

Knows nothing of HTTP. What is asked waits in one of two bounded queues, so that an answer that takes minutes never
stands before a search; what nobody waits for any more is taken out of it.
"""

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from treering import finding
from treering.errors import UsageError
from treering.finding import Desk
from treering.offered import OFFERS, Asked
from treering.opening import Place
from treering.serve.crew import Bench, Mate, Opening, Question
from treering.serve.lanes import Lane, Task

T = TypeVar("T")
Embedded = tuple[list[list[float]], list[int]]

QUICK = frozenset({"search", "similar", "commit", "files", "context"})
"""What is answered in some hundredths of a second; all else has threads of its own."""
SLOW_THREADS = 2
QUESTIONS = 16
"""Texts that are embedded between two looks at whether they are still wanted."""


class House:
    """The repositories of a server by their names, the first one being who is asked where no name is given. Use
    ``with``; what is asked of it is awaited.
    """

    def __init__(
        self, places: Mapping[str, Place], *, threads: int = 0, waiting: int = 256, processes: int = 0
    ) -> None:
        if not places:
            raise UsageError("there is no repository to serve", "give --repo")
        self.places = dict(places)
        self.threads, self.processes, self._waiting = threads or os.cpu_count() or 1, processes, waiting
        self.opening = Opening(places)

    def __enter__(self) -> "House":
        self.quick = Lane("quick", self.threads, self._waiting, lambda: Bench(self.opening))
        self.slow = Lane("slow", SLOW_THREADS, self._waiting, lambda: Bench(self.opening))
        self.crew = Lane("crew", self.processes, self._waiting, lambda: Mate(self.opening))
        return self

    def __exit__(self, *_: object) -> None:
        self.quick.close()
        self.slow.close()
        self.crew.close()

    @property
    def lanes(self) -> tuple[Lane[Any], ...]:
        return self.quick, self.slow, self.crew

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.places)

    def name(self, repository: str = "") -> str:
        """The repository that is meant. Raises :class:`UsageError`."""
        if repository and repository not in self.places:
            raise UsageError(f"`repository`: there is no {repository!r} here", f"repositories: {', '.join(self.names)}")
        return repository or self.names[0]

    def notes(self, repository: str) -> tuple[str, ...]:
        """What is to be said of the index as it was asked last: that it is behind, or answers by words alone."""
        return self.opening.notes.get(repository, ())

    async def answer_discreetly(self, repository: str, name: str, asked: Asked) -> object:
        """The same for who reads it elsewhere: nothing of it is private."""
        return await self.answer(repository, name, asked, discreet=True)

    async def answer(self, repository: str, name: str, asked: Asked, *, discreet: bool = False) -> object:
        """The answer of an offer. Raises what the operation raises, and :class:`Busy`."""
        repository = self.name(repository)
        question = Question(repository, name, asked, discreet)
        if self.processes and name in QUICK:
            return await self.crew.run(lambda mate, _: mate.answer(question))
        lane = self.quick if name in QUICK else self.slow
        return await lane.run(lambda bench, _: bench.answer(repository, question.answer))

    async def warm(self, repository: str) -> None:
        """Fit what the first question for files would have to wait for, where no search waits for it."""
        await self.ask(repository, lambda desk: desk.files("the first question"), slow=True)

    async def told(self, repository: str, name: str, asked: Asked, tell: Callable[[str], None]) -> object:
        """The same, told piece by piece by whoever answers; ``tell`` is called in the event loop."""
        streamed = OFFERS[name].streamed
        if streamed is None:
            raise UsageError(f"`stream`: {name} answers at once", "ask without it")
        loop, repository = asyncio.get_running_loop(), self.name(repository)

        def work(bench: Bench, task: Task[Bench, object]) -> object:
            def piece(text: str) -> None:
                with suppress(RuntimeError):
                    loop.call_soon_threadsafe(tell, text)

            opened = bench.desk(repository)
            return streamed(opened.desk, asked, piece, lambda: task.left)

        return await self.slow.run(work)

    async def ask(self, repository: str, question: Callable[[Desk], T], *, slow: bool = False) -> T:
        """What a question is answered with at a desk, by a thread of this process."""
        repository = self.name(repository)
        return await (self.slow if slow else self.quick).run(lambda bench, _: bench.answer(repository, question))

    async def embed(self, repository: str, texts: Sequence[str]) -> Embedded:
        """Unit vectors of texts by the model of a repository's index, and how many tokens it read of each."""
        place = self.places[self.name(repository)]

        def work(_: Bench, task: Task[Bench, Embedded]) -> Embedded:
            model, vectors, counts = self.opening.embedder(place), [], []
            for start in range(0, len(texts), QUESTIONS):
                if task.left:
                    break
                some, read = finding.vectors(model, texts[start : start + QUESTIONS])
                vectors += some
                counts += read
            return vectors, counts

        return await (self.quick if len(texts) <= QUESTIONS else self.slow).run(work)
