"""What a server does for getting better: a model is brought up to date beside it, and its searches are timed."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Annotated, Literal

from msgspec import Meta

from treering import improving
from treering.improving import Learning, Tested, Trained
from treering.offered import Asked
from treering.opening import Place
from treering.serve.jobs import Jobs, Work

RECORD_SECONDS = 600.0
"""So often the searches since the last time are told as one figure."""
MOST = 50_000
"""Of more searches than these in that time the first are told."""


class LearnAsked(Asked, frozen=True, kw_only=True):
    """What ``treering learn`` is to do; what is not given is as the settings say."""

    after: Annotated[int, Meta(ge=1, le=1_000_000, description="How many new commits it waits for.")] | None = None
    minutes: Annotated[float, Meta(gt=0, le=1440, description="The wall-time budget of its training.")] | None = None
    index: Annotated[bool, Meta(description="Bring the search index up to date first.")] = False

    @property
    def options(self) -> list[str]:
        given = (("--after", self.after), ("--minutes", self.minutes))
        return [f"{name}={value}" for name, value in given if value is not None] + ["--index"] * self.index


class LearnJob(Work, kw_only=True):
    """A run of ``treering learn``, and what it told: ``promoted`` where another model answers now, and why."""

    outcome: Literal["", "waiting", "first", "promoted", "kept", "failed", "paused"] = ""
    promoted: bool = False
    verdict: str = ""
    model: str = ""
    new: int = 0
    missing: int = 0
    tested: Tested | None = None
    trained: Trained | None = None
    waited_for_power: float = 0.0


class Learners(Jobs[LearnJob]):
    """The model of each repository, brought up to date by ``treering learn``."""

    def __init__(self, places: Mapping[str, Place]) -> None:
        super().__init__(places, "learn", LearnJob, Learning)


class Searches:
    """How long searches took, by repository, since they were told last. All is called in one event loop."""

    def __init__(self, places: Mapping[str, Place]) -> None:
        self._places = places
        self._seconds: dict[str, list[float]] = {}
        self._since = time.time()

    def took(self, repository: str, seconds: float) -> None:
        told = self._seconds.setdefault(repository, [])
        if len(told) < MOST:
            told.append(seconds)

    async def tell(self) -> None:
        """Write down what was noted, and note anew."""
        noted, since = self._seconds, self._since
        self._seconds, self._since = {}, time.time()
        for repository, seconds in noted.items():
            await asyncio.to_thread(improving.record_searches, self._places[repository], since, seconds)

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Tell every so often inside the block, and once more at its end."""

        async def telling() -> None:
            while True:
                await asyncio.sleep(RECORD_SECONDS)
                await self.tell()

        task = asyncio.ensure_future(telling())
        try:
            yield
        finally:
            task.cancel()
            await self.tell()
