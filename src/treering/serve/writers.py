"""One loaded model of a store for all who want it written with: one thread, a bounded queue, loaded when it is first
wanted and anew when another one is. What nobody reads any more ends with the token under way.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from msgspec.structs import replace

from treering import learning
from treering.opening import Place
from treering.serve.house import Bench, Lane, Task, no_desk
from treering.types import Generated, Sampling

T = TypeVar("T")

Messages = Sequence[tuple[str, str]]
Tell = Callable[[int, str], None]
"""Gets the number of an answer and its next piece."""

WAITING = 32


class Writers:
    """Who writes with the models of these repositories. Use ``with``."""

    def __init__(self, places: Mapping[str, Place], *, waiting: int = WAITING) -> None:
        self.places = places
        self._waiting = waiting
        self._key: tuple[str, str] | None = None
        self._writer: Any = None

    def lent(self, repository: str) -> Callable[[Path], "Lent"]:
        """Who lends the models of a repository to other threads."""
        return lambda folder: Lent(self, repository, folder.name)

    def __enter__(self) -> "Writers":
        self.loop = asyncio.get_running_loop()
        self.lane = Lane("writer", 1, self._waiting, no_desk)
        return self

    def __exit__(self, *_: object) -> None:
        self.lane.close()

    @property
    def loaded(self) -> str:
        """Repository and name of the model that is loaded; empty while there is none."""
        return ":".join(self._key) if self._key else ""

    async def load(self, repository: str, model: str) -> None:
        """Have a model loaded before it is wanted."""
        await self.lane.run(lambda _, __: self.of(repository, model) and None)

    async def write(
        self, repository: str, model: str, prompts: Sequence[str | Messages], samplings: Sequence[Sampling], tell: Tell
    ) -> list[Generated]:
        """Go on from each prompt or conversation by its sampling; ``tell`` is called in the event loop. Raises what
        the model raises, and :class:`~treering.serve.house.Busy`.
        """
        loop = asyncio.get_running_loop()

        def work(_: Bench, task: Task[list[Generated]]) -> list[Generated]:
            writer, made = self.of(repository, model), []
            for number, (prompt, sampling) in enumerate(zip(prompts, samplings, strict=True)):

                def piece(text: str, number: int = number) -> None:
                    with suppress(RuntimeError):  # the loop is closed: nobody reads
                        loop.call_soon_threadsafe(tell, number, text)

                if task.left:
                    break
                begun: str | list[int]
                if isinstance(prompt, str):
                    begun = prompt
                else:
                    begun, ends = writer.chat(prompt)
                    sampling = replace(sampling, stop=(*sampling.stop, *ends))
                made.append(writer.write(begun, sampling, tell=piece, unwanted=lambda: task.left))
            return made

        return await self.lane.run(work)

    async def room(self, repository: str, model: str, messages: Messages, most: int) -> int | None:
        """How many tokens a conversation leaves beside an answer of ``most``; None where the model reads without end.
        An answer takes a quarter of what it reads at most.
        """

        def work(_: Bench, __: Task[int | None]) -> int | None:
            writer = self.of(repository, model)
            if writer.longest is None:
                return None
            return int(writer.longest - len(writer.chat(messages)[0]) - min(most, writer.longest // 4))

        return await self.lane.run(work)

    def of(self, repository: str, model: str) -> Any:
        """The loaded model; called on the lane's thread alone."""
        if self._key != (repository, model):
            self._key = self._writer = None  # the memory of one model is enough
            self._writer = learning.writer(self.places[repository], model)
            self._key = repository, model
        return self._writer


class Lent:
    """A model that others use, too: what is asked of it on a thread is done on the writer's, in turn."""

    def __init__(self, writers: Writers, repository: str, name: str) -> None:
        self._writers, self._repository, self._name = writers, repository, name

    @property
    def longest(self) -> int | None:
        """How many tokens it reads, prompt and answer together."""
        longest: int | None = self._done(lambda writer: writer.longest)
        return longest

    def encoded(self, prompt: str) -> list[int]:
        """The ids of a prompt."""
        return self._done(lambda writer: writer.encoded(prompt))

    def write(
        self,
        prompt: str,
        sampling: Sampling,
        *,
        tell: Callable[[str], None] = lambda _: None,
        unwanted: Callable[[], bool] = lambda: False,
    ) -> Generated:
        """Go on from a prompt; ``tell`` is called on the writer's thread."""
        made: Generated = self._done(lambda writer: writer.write(prompt, sampling, tell=tell, unwanted=unwanted))
        return made

    def _done(self, work: Callable[[Any], T]) -> T:
        def with_it(_: Bench, __: Task[T]) -> T:
            return work(self._writers.of(self._repository, self._name))

        return asyncio.run_coroutine_threadsafe(self._writers.lane.run(with_it), self._writers.loop).result()
