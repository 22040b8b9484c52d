"""Long work beside a server: a command of ours in a process of its own, one of its kind at a time."""

import asyncio
import secrets
import time
from collections.abc import Mapping
from typing import Any, Generic, Literal, TypeVar

import msgspec

from treering.errors import TreeringError
from treering.opening import Place
from treering.watching import worked

NICE = 5
"""Who asks is answered first."""


class Work(msgspec.Struct, kw_only=True):
    """A run of a command that was started here."""

    id: str = ""
    repository: str
    state: Literal["none", "running", "done", "failed"] = "none"
    started: str = ""
    seconds: float = 0.0
    error: str = ""


J = TypeVar("J", bound=Work)


class Under(TreeringError):  # noqa: N818
    """Another repository has its turn."""


class Jobs(Generic[J]):
    """The last run of ``command`` for each repository. ``told`` is what it prints, of which the job has the fields. All
    is called in one event loop.
    """

    def __init__(self, places: Mapping[str, Place], command: str, job: type[J], told: type[Any]) -> None:
        self._places, self._command, self._job, self._told = places, command, job, told
        self._jobs: dict[str, J] = {}
        self._running: asyncio.Task[None] | None = None

    def job(self, repository: str) -> J:
        return self._jobs.get(repository) or self._job(repository=repository)

    def start(self, repository: str, *options: str) -> J:
        """Start a job, or tell of the one under way. Raises :class:`Under` while another repository has its turn."""
        if self._running and not self._running.done():
            (busy,) = (job for job in self._jobs.values() if job.state == "running")
            if busy.repository != repository:  # its name is not for everyone
                problem = f"`treering {self._command}` is at work for another repository"
                raise Under(problem, "ask again when it is done")
            return busy
        job = self._job(id=secrets.token_hex(8), repository=repository, state="running",
                        started=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))  # fmt: skip
        self._jobs[repository] = job
        self._running = asyncio.ensure_future(self._run(job, options))
        return job

    async def finished(self, repository: str) -> J:
        """A job that began now or later, once it has ended; others have their turn before it."""
        while self._running and not self._running.done():
            await asyncio.wait([self._running])
        job = self.start(repository)
        if self._running:
            await asyncio.wait([self._running])
        return job

    async def _run(self, job: J, options: tuple[str, ...]) -> None:
        place, started = self._places[job.repository], time.monotonic()
        try:
            printed = await worked(place, self._command, NICE, *options)
            told = msgspec.json.decode(printed, type=self._told)
            for name in {*self._told.__struct_fields__} & {*self._job.__struct_fields__} - {*Work.__struct_fields__}:
                setattr(job, name, getattr(told, name))
            job.state = "done"
        except (TreeringError, msgspec.MsgspecError) as error:
            job.error = str(error)
        finally:
            job.seconds = round(time.monotonic() - started, 1)
            if job.state == "running":
                job.state, job.error = "failed", job.error or "it was interrupted"

    async def close(self) -> None:
        if self._running and not self._running.done():
            self._running.cancel()
            await asyncio.wait([self._running])
