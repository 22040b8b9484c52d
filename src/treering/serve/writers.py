"""One loaded model of a store for all who want it written with: one thread, a bounded queue, loaded when it is first
wanted and anew when another one is. What nobody reads any more ends with the token under way.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from msgspec.structs import replace

from treering import learning
from treering.errors import ServiceError
from treering.operations import Place
from treering.serve.house import Bench, Lane, Opened, Task
from treering.types import Generated, Sampling

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

    def __enter__(self) -> "Writers":
        self.lane = Lane("writer", 1, self._waiting, _no_desk)
        return self

    def __exit__(self, *_: object) -> None:
        self.lane.close()

    @property
    def loaded(self) -> str:
        """Repository and name of the model that is loaded; empty while there is none."""
        return ":".join(self._key) if self._key else ""

    async def load(self, repository: str, model: str) -> None:
        """Have a model loaded before it is wanted."""
        await self.lane.run(lambda _, __: self._of(repository, model) and None)

    async def write(
        self, repository: str, model: str, prompts: Sequence[str | Messages], samplings: Sequence[Sampling], tell: Tell
    ) -> list[Generated]:
        """Go on from each prompt or conversation by its sampling; ``tell`` is called in the event loop. Raises what
        the model raises, and :class:`~treering.serve.house.Busy`.
        """
        loop = asyncio.get_running_loop()

        def work(_: Bench, task: Task[list[Generated]]) -> list[Generated]:
            writer, made = self._of(repository, model), []
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

    def _of(self, repository: str, model: str) -> Any:
        if self._key != (repository, model):
            self._key = self._writer = None  # the memory of one model is enough
            self._writer = learning.writer(self.places[repository], model)
            self._key = repository, model
        return self._writer


def _no_desk(repository: str) -> Opened:
    raise ServiceError(f"a model was asked for the desk of {repository}")
