"""Bringing an index up to date while it is served: one process at a time, beside the server, that can be killed."""

import asyncio
import os
import secrets
import time
from collections.abc import Mapping
from typing import Literal

import msgspec

from treering.errors import TreeringError
from treering.opening import Place

PATIENCE = 10.0


class Job(msgspec.Struct, kw_only=True):
    """A run of ``treering index``; ``commits`` and ``vectors`` are what it added."""

    id: str = ""
    repository: str
    state: Literal["none", "running", "done", "failed"] = "none"
    started: str = ""
    seconds: float = 0.0
    commits: int = 0
    vectors: int = 0
    error: str = ""


class _Told(msgspec.Struct):
    commits: int
    vectors: int


class Under(TreeringError):  # noqa: N818
    """Another repository's index is being made."""


class Indexing:
    """The last job of each repository. All is called in one event loop."""

    def __init__(self, places: Mapping[str, Place]) -> None:
        self._places = places
        self._jobs: dict[str, Job] = {}
        self._running: asyncio.Task[None] | None = None

    def job(self, repository: str) -> Job:
        return self._jobs.get(repository, Job(repository=repository))

    def start(self, repository: str) -> Job:
        """Start a job, or tell of the one under way. Raises :class:`Under` while another repository has its turn."""
        if self._running and not self._running.done():
            (busy,) = (job for job in self._jobs.values() if job.state == "running")
            if busy.repository != repository:
                raise Under(f"the index of {busy.repository} is being made", "ask again when it is done")
            return busy
        job = Job(id=secrets.token_hex(8), repository=repository, state="running",
                  started=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))  # fmt: skip
        self._jobs[repository] = job
        self._running = asyncio.ensure_future(self._run(job))
        return job

    async def _run(self, job: Job) -> None:
        place, started = self._places[job.repository], time.monotonic()
        process = await asyncio.create_subprocess_exec(
            *place.command("index", "--json"),
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            env={name: value for name, value in os.environ.items() if name != "TREERING_SERVE_TOKEN"},
        )  # fmt: skip
        try:
            told, complaint = await process.communicate()
        finally:
            if process.returncode is None:  # the server ends; what was committed is kept
                process.terminate()
                await asyncio.wait_for(process.wait(), PATIENCE)
            job.seconds = round(time.monotonic() - started, 1)
            job.state, job.error = "failed", "it was interrupted"
        if process.returncode == 0:
            added = msgspec.json.decode(told, type=_Told)
            job.state, job.error, job.commits, job.vectors = "done", "", added.commits, added.vectors
        else:
            lines = [line for line in complaint.decode("utf-8", "replace").splitlines() if line.startswith("error: ")]
            job.error = (lines or [f"it ended with code {process.returncode}"])[-1].removeprefix("error: ")

    async def close(self) -> None:
        if self._running and not self._running.done():
            self._running.cancel()
            await asyncio.wait([self._running])
