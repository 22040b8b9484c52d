"""What runs beside the watcher: commands of ours in processes of their own, and what follows an index run."""

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from treering import errors
from treering.config import without_keys
from treering.errors import ServiceError, TreeringError

PATIENCE = 10.0
"""Seconds that it may take to end when it is told to."""
NEEDED = ("QDRANT_API_KEY", "HF_TOKEN")


async def ran(command: Sequence[str | Path], nice: int) -> tuple[bytes, list[str]]:
    """A command of ours, run at a priority as `nice` counts it: what it printed, and what it warned of. It gets no key
    but those of an index and of models. It is told to end where its caller is cancelled, and killed where it does not.

    Raises an error of the kind that it ended with.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            env=without_keys(os.environ, but=NEEDED),
            process_group=0,  # a terminal's Ctrl-C is for the watcher, which ends it
        )  # fmt: skip
    except OSError as error:
        raise ServiceError(f"{command[0]} cannot be started: {error.strerror}", "is memory short?") from error
    try:
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, process.pid, max(nice, os.getpriority(os.PRIO_PROCESS, 0)))
        told, said = await process.communicate()
    finally:
        if process.returncode is None:
            await _end(process)
    lines = said.decode("utf-8", "replace").splitlines()
    if process.returncode:
        raise _error(process.returncode, lines)
    return told, [line.removeprefix("warning: ") for line in lines if line.startswith("warning: ")]


async def _end(process: asyncio.subprocess.Process) -> None:
    """What it has committed is kept."""
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), PATIENCE)
    except TimeoutError:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # it, and what it started
        await process.communicate()


def _error(code: int, lines: Sequence[str]) -> TreeringError:
    """What a command said when it failed, as the error that it was."""
    kinds = {kind.exit_code: kind for kind in TreeringError.__subclasses__() if kind.__module__ == errors.__name__}
    message, hint = (
        next((line.removeprefix(mark) for line in reversed(lines) if line.startswith(mark)), "")
        for mark in ("error: ", "hint: ")
    )
    how = f"it was killed by signal {-code}" if code < 0 else f"it ended with code {code}"
    return kinds.get(code, TreeringError)(message or how, hint)


class Following:
    """What follows index runs of one repository: never twice at once, and once more after its end if there was another
    run meanwhile. A failure is told, and is not the watcher's.
    """

    def __init__(self, failed: Callable[[Exception], None]) -> None:
        self._failed = failed
        self._next: Callable[[], Coroutine[Any, Any, None]] | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self, follow: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._next = follow
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while follow := self._next:
            self._next = None
            try:
                await follow()
            except Exception as error:  # noqa: BLE001  what follows must not end the watcher
                self._failed(error)

    async def over(self) -> None:
        if self._task:
            await self._task

    async def end(self) -> None:
        if self._task and self._task.cancel():
            await asyncio.wait([self._task])
