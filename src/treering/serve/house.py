"""Several repositories, open for many who ask at once: a few threads, a desk for each of them and each repository;
where it is told to, processes beside them; and a fleet that is searched as one.

Knows nothing of HTTP. What is asked waits in one of two bounded queues, so that an answer that takes minutes never
stands before a search; what nobody waits for any more is taken out of it.
"""

import asyncio
import copy
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from treering import finding
from treering.errors import UsageError
from treering.finding import Desk
from treering.offered import ALL, OFFERS, QUICK, Asked
from treering.opening import Place
from treering.serve.access import EVERYTHING, Sight
from treering.serve.crew import Bench, Mate, Opening, Question
from treering.serve.fleet import OPEN, Fleet, Members, Reader
from treering.serve.lanes import Lane, Task

T = TypeVar("T")
Embedded = tuple[list[list[float]], list[int]]

SLOW_THREADS = 2
QUESTIONS = 16
"""Texts that are embedded between two looks at whether they are still wanted."""


class House:
    """The repositories of a server by their names, the first one being who is asked where no name is given, and ``*``
    being all of a fleet, of which each has its name, too. Use ``with``; what is asked of it is awaited.
    """

    def __init__(
        self,
        places: Mapping[str, Place],
        *,
        threads: int = 0,
        waiting: int = 256,
        processes: int = 0,
        fleet: Fleet | None = None,
    ) -> None:
        if not places and not fleet:
            raise UsageError("there is no repository to serve", "give --repo, or --fleet")
        self.places, self.fleet, self.sight = dict(places), fleet, EVERYTHING
        self.threads, self.processes, self._waiting = threads or os.cpu_count() or 1, processes, waiting
        self.opening = Opening(places)
        self.members = Members(fleet, self.opening) if fleet else None
        self._lanes: dict[str, Lane[Any]] = {}

    def __enter__(self) -> "House":
        fleet, embedder = self.fleet, self.opening.embedder
        self._lanes["quick"] = Lane("quick", self.threads, self._waiting, lambda: Bench(self.opening))
        self._lanes["slow"] = Lane("slow", SLOW_THREADS, self._waiting, lambda: Bench(self.opening))
        self._lanes["crew"] = Lane("crew", self.processes, self._waiting, lambda: Mate(self.opening))
        if fleet:
            self._lanes["fleet"] = Lane("fleet", 1, self._waiting, lambda: Reader(fleet, embedder))
        if members := self.members:
            self._lanes["members"] = Lane("members", 1, self._waiting, lambda: Bench(members, most=OPEN))
        return self

    def __exit__(self, *_: object) -> None:
        for lane in self.lanes:
            lane.close()

    def seen(self, sight: Sight) -> "House":
        """The same house for somebody who does not see all of it: what they do not see is as if it were not there."""
        made = copy.copy(self)
        made.sight = sight
        made.places = {name: place for name, place in self.places.items() if sight.sees(name)}
        return made

    @property
    def empty(self) -> bool:
        """Whether nothing at all is seen."""
        return not self.places and not (self.fleet and self.fleet.names(self.sight))

    @property
    def quick(self) -> Lane[Bench]:
        return self._lanes["quick"]

    @property
    def slow(self) -> Lane[Bench]:
        return self._lanes["slow"]

    @property
    def crew(self) -> Lane[Mate]:
        return self._lanes["crew"]

    @property
    def lanes(self) -> tuple[Lane[Any], ...]:
        return tuple(self._lanes.values())

    @property
    def names(self) -> tuple[str, ...]:
        """What may be asked by name."""
        return (*self.places, ALL) if self.fleet else tuple(self.places)

    def name(self, repository: str = "") -> str:
        """The one repository that is meant. Raises :class:`UsageError`."""
        if repository in self.places:
            return repository
        known = f"repositories: {', '.join(self.names)}" + "; of the fleet: /v1/repositories" * bool(self.fleet)
        if repository == ALL or not (repository or self.places):
            raise UsageError("`repository`: `*` is all of a fleet: of one repository this is asked alone", known)
        if repository:
            raise UsageError(f"`repository`: there is no {repository!r} here", known)
        return next(iter(self.places))

    def meant(self, repository: str, name: str) -> str:
        """The repository that an offer is asked of, served by itself or one of a fleet, or all. Raises
        :class:`UsageError`.
        """
        if OFFERS[name].across and (repository or self.names[0]) == ALL:
            if self.fleet:
                return ALL
            raise UsageError("`repository`: no fleet is served here, which `*` is all of", "serve with --fleet")
        if self.fleet and repository not in self.places and self.fleet.holds(repository, self.sight):
            if name in QUICK:
                return repository
            raise UsageError(f"`repository`: {name} is not asked of {repository} in a fleet", "serve it by --repo")
        return self.name(repository)

    def notes(self, repository: str) -> tuple[str, ...]:
        """What is to be said of the index as it was asked last: that it is behind, or answers by words alone."""
        if self.fleet and repository == ALL:
            return self.fleet.notes.get(self.sight, ())
        if self.members and repository not in self.places:
            return self.members.notes.get(repository, ())
        return self.opening.notes.get(repository, ())

    async def ready(self) -> int:
        """How many commits of the first repository can be found, or of a fleet where there is no other."""
        if self.places:
            return await self.ask("", lambda desk: len(desk.finder.history))
        return await self._lanes["fleet"].run(lambda reader, _: reader.ready())

    async def answer_discreetly(self, repository: str, name: str, asked: Asked) -> object:
        """The same for who reads it elsewhere: nothing of it is private."""
        return await self.answer(repository, name, asked, discreet=True)

    async def answer(self, repository: str, name: str, asked: Asked, *, discreet: bool = False) -> object:
        """The answer of an offer. Raises what the operation raises, and :class:`Busy`."""
        repository = self.meant(repository, name)
        if repository == ALL:
            sight = self.sight
            return await self._lanes["fleet"].run(
                lambda reader, _: reader.answer(name, asked, sight, discreet=discreet)
            )
        question = Question(repository, name, asked, discreet)
        if repository not in self.places:
            return await self._lanes["members"].run(lambda bench, _: bench.answer(repository, question.answer))
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
            model, vectors, counts = self.opening.embedder(place.settings), [], []
            for start in range(0, len(texts), QUESTIONS):
                if task.left:
                    break
                some, read = finding.vectors(model, texts[start : start + QUESTIONS])
                vectors += some
                counts += read
            return vectors, counts

        return await (self.quick if len(texts) <= QUESTIONS else self.slow).run(work)
