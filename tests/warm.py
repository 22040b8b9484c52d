"""Programs that want torch, begun as forks of a process that has it loaded: to load it takes longer than most of them.

What is forked is a program like any other, with its own arguments, folder, environment, signals and end. What a start
of Python does and loads is the matter of tests that start Python.
"""

import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

PATIENCE = 300.0
"""Seconds that a program may take before a test fails."""


class Started:
    """A program that was begun: what it said, and its end."""

    def __init__(self, door: socket.socket, asked: Mapping[str, object], out: IO[bytes], err: IO[bytes]) -> None:
        self._door, self._out, self._err = door, out, err
        socket.send_fds(door, [json.dumps(asked).encode()], [out.fileno(), err.fileno()])
        self.pid: int = json.loads(door.recv(100))
        self._code: int | None = None

    @property
    def stdout(self) -> str:
        return os.pread(self._out.fileno(), 1 << 30, 0).decode()

    @property
    def stderr(self) -> str:
        return os.pread(self._err.fileno(), 1 << 30, 0).decode()

    def poll(self) -> int | None:
        """Its exit code as subprocess tells it, or None while it runs."""
        if self._code is None:
            self._door.sendall(str(self.pid).encode())
            self._code = json.loads(self._door.recv(100))
        return self._code

    def wait(self) -> int:
        end = time.monotonic() + PATIENCE
        while (code := self.poll()) is None:
            assert time.monotonic() < end, f"it runs and runs\n{self.stdout}\n{self.stderr}"
            time.sleep(0.01)
        return code

    def wait_until_it_says(self, beginning: str) -> None:
        """Until a line on stderr begins so."""
        while not f"\n{self.stderr}".count(f"\n{beginning}"):
            assert self.poll() is None, self.stderr
            time.sleep(0.01)

    def send_signal(self, sent: signal.Signals) -> None:
        os.kill(self.pid, sent)


class Warm:
    """The process that has everything loaded, and waits."""

    def __init__(self, door: socket.socket) -> None:
        self._door = door

    @contextmanager
    def started(self, arguments: Sequence[str], cwd: Path | None = None, **environment: str) -> Iterator[Started]:
        """``python ARGUMENTS``: of a file, or of a module after ``-m``. At the end of the block it is ended."""
        asked = {"arguments": arguments, "cwd": str(cwd or Path.cwd()), "environment": os.environ | environment}
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            begun = Started(self._door, asked, out, err)
            try:
                yield begun
            finally:
                if begun.poll() is None:
                    begun.send_signal(signal.SIGKILL)
                    begun.wait()

    def run(
        self, arguments: Sequence[str], cwd: Path | None = None, **environment: str
    ) -> "subprocess.CompletedProcess[str]":
        """The same as :func:`subprocess.run`, with what was said."""
        with self.started(arguments, cwd, **environment) as begun:
            return subprocess.CompletedProcess(arguments, begun.wait(), begun.stdout, begun.stderr)


@contextmanager
def warmed_up(**environment: str) -> Iterator[Warm]:
    """Such a process. ``environment`` is for what libraries read when they are loaded."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        with theirs:
            waiting = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env=os.environ | environment,
            )
        try:
            yield Warm(ours)
        finally:
            ours.close()
            waiting.wait(60)


def _wait_for_work(door: socket.socket) -> dict[str, Any]:
    """Fork for each program that is asked for; only the fork comes back, with what it shall do."""
    while True:
        message, handles, _, _ = socket.recv_fds(door, 1 << 20, 2)
        if not message:
            os._exit(0)  # nothing was done here that wants an orderly end, which takes a second
        asked = json.loads(message)
        if isinstance(asked, int):
            found, status = os.waitpid(asked, os.WNOHANG)
            door.sendall(json.dumps(os.waitstatus_to_exitcode(status) if found else None).encode())
            continue
        pid = os.fork()
        if not pid:
            for handle, standard in zip(handles, (1, 2), strict=True):
                os.dup2(handle, standard)
        for handle in handles:
            os.close(handle)
        if not pid:
            door.close()
            return asked  # type: ignore[no-any-return]  # as it was sent
        door.sendall(str(pid).encode())


def _become(arguments: list[str], cwd: str, environment: dict[str, str]) -> None:
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    if arguments[0] == "-m":
        sys.argv, sys.path[0] = arguments[1:], cwd
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv, sys.path[0] = arguments, str(Path(arguments[0]).resolve().parent)
        runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    import lightning  # noqa: F401
    import peft  # noqa: F401
    from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2LMHeadModel, StoppingCriteriaList  # noqa: F401

    _become(**_wait_for_work(socket.socket(fileno=int(sys.argv[1]))))
