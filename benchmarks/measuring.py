"""What the benchmarks share: a whole process timed, the memory of it and of its descendants, plain git, a table.

Compares nothing itself and imports nothing of treering. Memory is read from /proc, so it is told on Linux only.
"""

import json
import os
import platform
import select
import signal
import subprocess
import sys
import sysconfig
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TREERING = Path(sysconfig.get_path("scripts")) / "treering"
SAMPLE_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Memory:
    """Peaks of resident memory in bytes: of the process started, of its largest single descendant, and of the sum of
    all at the worst moment seen. The sum counts a page that two of them share twice.
    """

    process: int
    largest_child: int
    together: int

    def __str__(self) -> str:
        return (
            f"{_mb(self.process)} the process, {_mb(self.largest_child)} its largest child,"
            f" {_mb(self.together)} all together at the worst moment (shared pages counted twice)"
        )


@dataclass(frozen=True, slots=True)
class Finished:
    """A process from start to end; ``cpu`` is in seconds, its children's with it."""

    seconds: float
    cpu: float
    code: int
    stdout: bytes
    stderr: bytes
    memory: Memory

    @property
    def complaint(self) -> str:
        """The last thing it said on stderr."""
        return (self.stderr.decode("utf-8", "replace").strip().splitlines() or ["no message"])[-1]


def timed(
    command: Sequence[str | Path], *, stdin: bytes = b"", discard: bool = False, watched: bool = True
) -> Finished:
    """Run a process to its end, in the environment of :func:`plain_environment`. ``discard`` sends its standard output
    to /dev/null. Watching its memory takes a little of the time; not ``watched``, its memory reads 0.
    """
    before = os.times()
    started = time.monotonic()
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL if discard else subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=plain_environment(),
    )
    watch = _Watch(process.pid)
    if watched:
        watch.start()
    stdout, stderr = process.communicate(stdin)
    seconds = time.monotonic() - started
    after = os.times()
    if watched:
        watch.ended.set()
        watch.join()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return Finished(seconds, cpu, process.returncode, stdout or b"", stderr, watch.memory)


class FailedError(Exception):
    """What was forked did not get through: why, in a line."""


def forked(work: Callable[[], object], seconds: float) -> Any:
    """What ``work`` gives, as JSON carries it, done in a fork of this process: with all that is loaded here, in memory
    of its own. It is killed after ``seconds``. What it says on stderr goes where this process's does.

    Raises :class:`FailedError`.
    """
    sys.stdout.flush()
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(reading)
        code = 1
        try:
            told = json.dumps(work())
            code = 0
        except BaseException as error:  # noqa: BLE001  # it is told by the process that waits
            traceback.print_exc()
            told = f"{type(error).__name__}: {error}".partition("\n")[0]
        with os.fdopen(writing, "w") as pipe:
            pipe.write(told)
        sys.stderr.flush()
        os._exit(code)
    os.close(writing)
    until, said, late = time.monotonic() + seconds, b"", False
    with os.fdopen(reading, "rb", buffering=0) as answers:
        while not (late := not select.select([answers], [], [], max(0.0, until - time.monotonic()))[0]):
            if not (part := answers.read(1 << 16)):
                break
            said += part
    if late:
        os.kill(pid, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if late or code:
        raise FailedError(f"not done after {seconds:.0f} s" if late else said.decode() or f"ended with {code}")
    return json.loads(said)


def plain_environment() -> dict[str, str]:
    """The environment without anything that sets git, Python or treering up, and without fetching what is missing."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "PYTHON", "TREERING_"))}
    return kept | {
        "LC_ALL": "C.UTF-8",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_OPTIONAL_LOCKS": "0",
    }


def git(where: Path, *arguments: str, stdin: bytes = b"") -> str:
    """Ask git once in a folder; a failure is the benchmark's end, with what git said."""
    done = subprocess.run(["git", "-C", where, *arguments], input=stdin, capture_output=True, env=plain_environment())
    if done.returncode:
        raise SystemExit(f"git {' '.join(arguments)}: {done.stderr.decode('utf-8', 'replace').strip()}")
    return done.stdout.decode("utf-8", "replace")


def git_dir_of(repo: Path) -> Path:
    """The directory that holds a repository's objects and branches, of a linked work tree too."""
    return Path(git(repo, "rev-parse", "--path-format=absolute", "--git-common-dir").removesuffix("\n"))


def branch_tips(repo: Path) -> bytes:
    """The commits that all branches, local and remote, and HEAD point to, one a line."""
    listed = git(repo, "for-each-ref", "--format=%(objectname)", "refs/heads", "refs/remotes").split()
    head = git(repo, "rev-list", "--max-count=1", "--ignore-missing", "HEAD", "--").split()
    return "".join(f"{tip}\n" for tip in sorted({*listed, *head})).encode()


def machine() -> dict[str, object]:
    """Where the figures were taken, and how busy it was."""
    return {
        "cores": os.cpu_count(),
        "load_before": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "git": subprocess.run(["git", "--version"], capture_output=True, text=True).stdout.split()[-1],
        "system": platform.platform(),
    }


def describe(where: dict[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in where.items())


def table(rows: Iterable[Sequence[str]]) -> str:
    """Rows of text in columns: the first column to the left, the others to the right, a line under the heading."""
    heading, *rest = rows
    widths = [max(len(row[column]) for row in (heading, *rest)) for column in range(len(heading))]
    lines = [
        "  ".join(cell.rjust(width) if column else cell.ljust(width) for column, (cell, width) in enumerate(zipped))
        for zipped in (list(zip(row, widths, strict=True)) for row in (heading, *rest))
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def markdown(rows: Iterable[Sequence[str]]) -> str:
    """The same as the documentation has it."""
    heading, *rest = ("| " + " | ".join(row) + " |" for row in rows)
    return "\n".join([heading, "|" + "---|" * (heading.count("|") - 1), *rest])


class _Watch(threading.Thread):
    """Reads the memory of a process and its descendants, again and again until told that it ended.

    The kernel keeps each process's peak (VmHWM), so only a peak in a process's last moment can be missed.
    ``getrusage`` would say more than the truth: it counts a child's time before its exec, in its parent's memory.
    """

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid = pid
        self.ended = threading.Event()
        self.memory = Memory(0, 0, 0)

    def run(self) -> None:
        while not self.ended.wait(SAMPLE_SECONDS):
            own_peak, together = _resident(self.pid)
            largest = self.memory.largest_child
            for child in descendants(self.pid):
                peak, now = _resident(child)
                largest, together = max(largest, peak), together + now
            self.memory = Memory(max(self.memory.process, own_peak), largest, max(self.memory.together, together))


def descendants(pid: int) -> Iterable[int]:
    own = _read(f"/proc/{pid}/cmdline")
    for thread in _listed(f"/proc/{pid}/task"):
        for child in _read(f"/proc/{pid}/task/{thread}/children").split():
            # Between fork and exec a child shows its parent's memory, and its command line.
            if _read(f"/proc/{child}/cmdline") != own:
                yield int(child)
            yield from descendants(int(child))


def _resident(pid: int) -> tuple[int, int]:
    """The peak and the present resident memory of a process, or zeros where it is gone."""
    fields = dict(line.partition(":")[::2] for line in _read(f"/proc/{pid}/status").splitlines())
    peak, now = (int(fields.get(name, "0").split()[0]) * 1024 for name in ("VmHWM", "VmRSS"))
    return peak, now


def _read(path: str) -> str:
    try:
        return Path(path).read_text("utf-8", "replace")
    except OSError:  # the process ended meanwhile
        return ""


def _listed(path: str) -> list[str]:
    try:
        return [entry.name for entry in Path(path).iterdir()]
    except OSError:
        return []


def _mb(size: int) -> str:
    return f"{size / 1e6:.0f} MB"
