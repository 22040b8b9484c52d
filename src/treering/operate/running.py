"""A program that nobody trusts, started, watched and ended: what it said, how long it took, what it used.

Who is watched cannot be asked to keep to limits: the kernel holds one process to its own, and a look ten times a second
at all of them holds them to theirs together. At the end, however it comes, none of them is left.
"""

import contextlib
import fcntl
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Literal

import msgspec

from treering.operate import launch

Ended = Literal["exited", "time", "memory", "processes", "files", "stopped"]

TICK = 0.1
"""Seconds between two looks at all processes; a fifth of it once they become many."""
MORE = 512
"""How many threads more than are allowed the kernel lets them have at least: time to see them."""
UNPACKING_SECONDS = 300.0
"""How long the files may take until they are there."""
LAST_SECONDS = 10.0
"""How long the kernel may take to end what was killed."""
MOST_FILES = 250_000
"""How many files may be made: each takes memory of the kernel's."""
_PIECE = 1 << 16
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Limits:
    """What a program and all that come of it may have together: seconds, by which time of the monotonic clock they
    must be over, bytes of memory, threads; how many bytes one file may have, and how many bytes of what they say are
    kept.
    """

    seconds: float
    until: float
    memory: int
    threads: int
    disk: int
    said: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """How it went. ``code`` is None where it was ended; ``ready`` says whether the files were there and it began."""

    ended: Ended
    code: int | None
    ready: bool
    seconds: float
    memory: int
    threads: int
    said: bytes
    left_out: int


class Said:
    """The beginning and the end of what is said, whole lines of both, and how many bytes lay between."""

    def __init__(self, most: int) -> None:
        self._half = max(1, most // 2)
        self._head = bytearray()
        self._tail: deque[bytes] = deque()
        self._size = self._dropped = 0

    def add(self, piece: bytes) -> None:
        room = self._half - len(self._head)
        self._head += piece[:room]
        if rest := piece[room:] if room > 0 else piece:
            self._tail.append(rest)
            self._size += len(rest)
            while self._size - len(self._tail[0]) >= self._half:
                gone = self._tail.popleft()
                self._size -= len(gone)
                self._dropped += len(gone)

    def told(self) -> tuple[bytes, int]:
        """What is kept, and how many bytes are not."""
        tail = b"".join(self._tail)
        over = max(0, len(tail) - self._half)
        if not over + self._dropped:
            return bytes(self._head) + tail, 0
        # No line is cut: half a secret is none that is known.
        head = bytes(self._head[: self._head.rfind(b"\n") + 1])
        tail = tail[over:]
        tail = tail[tail.find(b"\n") + 1 :] if b"\n" in tail else b""
        total = len(self._head) + self._size + self._dropped
        left_out = total - len(head) - len(tail)
        return head + b"[... %d bytes ...]\n" % left_out + tail, left_out


@dataclass(slots=True)
class _Watched:
    """The processes under one, as they were at the last look, and the most that they ever had."""

    root: int = 0
    pidfd: int = -1
    memory: int = 0
    threads: int = 0
    files_before: dict[str, int] = field(default_factory=dict)

    def begin(self, root: int) -> None:
        self.root = root
        with contextlib.suppress(OSError):
            self.pidfd = os.pidfd_open(root)

    def look(self, limits: Limits, places: Sequence[PurePath]) -> Ended | None:
        """What is over its limit, if anything is."""
        family = list(_family(self.root))
        resident = sum(one.resident for one in family)
        if resident > limits.memory:  # pages that several have in common count once
            resident = sum(_proportional(one) for one in family)
        self.memory = max(self.memory, resident)
        threads = sum(one.threads for one in family)
        self.threads = max(self.threads, threads)
        if resident > limits.memory:
            return "memory"
        if threads > limits.threads:
            return "processes"
        return "files" if any(self._files(place) > MOST_FILES for place in places) else None

    def _files(self, place: PurePath) -> int:
        try:
            found = os.statvfs(f"/proc/{self.root}/root{place}")
        except OSError:
            return 0
        used = found.f_files - found.f_ffree
        return used - self.files_before.setdefault(str(place), used)

    def gone(self, seconds: float) -> bool:
        """Whether the one over all of them has ended, which it does when all others have."""
        if self.pidfd < 0:
            return True
        with selectors.DefaultSelector() as waiting:
            waiting.register(self.pidfd, selectors.EVENT_READ)
            return bool(waiting.select(seconds))

    def close(self) -> None:
        if self.pidfd >= 0:
            os.close(self.pidfd)


@dataclass(frozen=True, slots=True)
class _Process:
    number: int
    threads: int
    resident: int


def _family(root: int) -> Iterator[_Process]:
    """A process and all that came of it."""
    children: dict[int, list[int]] = {}
    known: dict[int, _Process] = {}
    for name in os.listdir("/proc") if root else ():  # noqa: PTH208  ten times a second
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:  # noqa: PTH123
                    fields = file.read().rpartition(b")")[2].split()
            except OSError:  # it has ended
                continue
            known[int(name)] = _Process(int(name), int(fields[17]), int(fields[21]) * _PAGE)
            children.setdefault(int(fields[1]), []).append(int(name))
    waiting = [root]
    while waiting:
        number = waiting.pop()
        if number in known:
            yield known[number]
        waiting += children.pop(number, ())


def _proportional(process: _Process) -> int:
    try:
        text = Path(f"/proc/{process.number}/smaps_rollup").read_bytes()
    except OSError:
        return 0
    for line in text.splitlines():
        if line.startswith(b"Pss:"):
            return int(line.split()[1]) * 1024
    return process.resident


def _own_threads() -> int:
    """How many threads the user has, whom the kernel counts all together."""
    count, own = 0, os.getuid()
    for entry in os.scandir("/proc"):
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and entry.stat().st_uid == own:
                count += len(os.listdir(f"/proc/{entry.name}/task"))  # noqa: PTH208
    return count


def run(
    command: Sequence[str],
    files: subprocess.Popen[bytes],
    limits: Limits,
    *,
    kept: Sequence[int] = (),
    staged: Sequence[Path] = (),
    apart: bool,
    places: Sequence[PurePath] = (),
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
    wanted: Callable[[], bool] = lambda: True,
) -> Outcome:
    """Run a program to its end or its limits. ``files`` writes the tar file that is its input; ``apart`` says that the
    program is a sandbox, whose first process outlives all others; ``kept`` are open files that it reads, ``staged`` the
    places that root's launcher puts where nobody may find them; ``places`` are file systems of the program's own, of
    which the number of files is watched. Once it is not ``wanted`` any more it is ended.
    """
    root = not os.getuid()
    bounds = {
        "core": 0, "data": limits.memory, "nofile": 4096,
        # The kernel counts all that a user has. More than is allowed, so that who tries is seen, not only stopped.
        "nproc": limits.threads + max(limits.threads, MORE) + (0 if root and apart else _own_threads()),
    }  # fmt: skip
    ready, told_ready = _pipe()
    status, told_status = _pipe()
    if not apart:  # a sandbox has file systems of its own
        bounds["fsize"] = limits.disk
    told = {
        "parent": os.getpid(), "ready": told_ready, "status": told_status, "limits": bounds, "stay": not apart,
        "nobody": root and apart, "staged": [str(place) for place in staged],
    }  # fmt: skip
    began = time.monotonic()
    try:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", launch.__file__, json.dumps(told), *command],
            stdin=files.stdout, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
            pass_fds=(told_ready, told_status, *kept), cwd=folder or "/",
            env={} if environment is None else dict(environment),
        )  # fmt: skip
    except BaseException:
        os.close(ready)
        os.close(status)
        raise
    finally:
        os.close(told_ready)
        os.close(told_status)
        if files.stdout:
            files.stdout.close()  # theirs alone now: if they go, the one who writes is told
    watched, said = _Watched(), Said(limits.said)
    if not apart:
        watched.begin(process.pid)
    try:
        begun, ended = _follow(process, ready, status, watched, said, limits, places, wanted, began)
    finally:
        _end(process, watched, apart=apart)
        watched.close()
        os.close(ready)
        os.close(status)
    assert process.stdout is not None  # noqa: S101  it was asked for
    with process.stdout as rest:
        os.set_blocking(rest.fileno(), False)
        until = time.monotonic() + 1.0
        with contextlib.suppress(BlockingIOError):  # without a sandbox somebody may have fled with it
            while (piece := os.read(rest.fileno(), _PIECE)) and time.monotonic() < until:
                said.add(piece)
    text, left_out = said.told()
    code = process.returncode if ended == "exited" else None
    return Outcome(
        ended,
        code,
        begun is not None,
        time.monotonic() - (begun or began),
        watched.memory,
        watched.threads,
        text,
        left_out,
    )


def high(number: int) -> int:
    """The same open file under another number, of two digits."""
    return fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, 20)


def _pipe() -> tuple[int, int]:
    """A pipe whose numbers have two digits, so that none of them is one that a shell is told."""
    made = os.pipe()
    both = high(made[0]), high(made[1])
    for end in made:
        os.close(end)
    return both


def _follow(
    process: subprocess.Popen[bytes],
    ready: int,
    status: int,
    watched: _Watched,
    said: Said,
    limits: Limits,
    places: Sequence[PurePath],
    wanted: Callable[[], bool],
    began: float,
) -> tuple[float | None, Ended]:
    """Read and look until it has ended or must: when it began, and how it ended."""
    assert process.stdout is not None  # noqa: S101
    out = process.stdout.fileno()
    begun: float | None = None
    heard = bytearray()
    next_look = began
    with selectors.DefaultSelector() as waiting:
        for pipe in (out, ready, status):
            waiting.register(pipe, selectors.EVENT_READ)
        while True:
            over = process.poll() is not None  # asked first: all that it wrote before is read then
            for key, _ in waiting.select(0 if over else TICK / 5):
                piece = os.read(key.fd, _PIECE)
                if not piece:
                    waiting.unregister(key.fd)
                elif key.fd == out:
                    said.add(piece)
                elif key.fd == ready:
                    begun = time.monotonic()
                elif not watched.root:
                    heard += piece  # in pieces, a line for what begins and one for what ends
                    if b"\n" in heard:
                        watched.begin(int(msgspec.json.decode(heard.partition(b"\n")[0])["child-pid"]))
            now = time.monotonic()
            if over:
                return begun, "exited"
            if not wanted():
                return begun, "stopped"
            if now > min(limits.until, begun + limits.seconds if begun else began + UNPACKING_SECONDS):
                # One that starves us of time to look is told by what it does.
                return begun, (watched.look(limits, places) if begun is not None else None) or "time"
            if now >= next_look and begun is not None:
                if excess := watched.look(limits, places):
                    return begun, excess
                next_look = now + TICK * (0.2 if watched.threads > limits.threads / 8 else 1)


def _end(process: subprocess.Popen[bytes], watched: _Watched, *, apart: bool) -> None:
    """Leave nobody: the first process of a sandbox takes all others with it, and without one ``launch.py`` does."""
    if not apart:
        process.terminate()
    elif watched.pidfd >= 0:
        with contextlib.suppress(OSError):
            signal.pidfd_send_signal(watched.pidfd, signal.SIGKILL)
    else:
        process.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(LAST_SECONDS)
    process.kill()
    process.wait()
    watched.gone(LAST_SECONDS)
