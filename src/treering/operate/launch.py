"""The first program of a gate's tests, a script of its own: it binds itself to its parent's life, takes on limits, and
becomes the program it was given. Without a sandbox it stays, and ends all that its program left behind.

Nothing of treering is imported here: it starts in 20 ms.
"""

import contextlib
import ctypes
import json
import os
import resource
import signal
import sys

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
READY, STATUS = 9, 8
"""Where the program finds its two pipes: a shell knows descriptors of one digit only."""
SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGCHLD)


def main() -> None:
    told = json.loads(sys.argv[1])
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM if told["stay"] else signal.SIGKILL)
    if os.getppid() != told["parent"]:
        sys.exit(125)  # it died before it could be bound to
    for one in SIGNALS:
        signal.signal(one, signal.SIG_DFL)
    for name, place in (("ready", READY), ("status", STATUS)):  # both have numbers of two digits
        os.dup2(told[name], place)
        os.close(told[name])
    for name, most in told["limits"].items():
        kind = getattr(resource, f"RLIMIT_{name.upper()}")
        hard = resource.getrlimit(kind)[1]
        value = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (value, value))
    if told["stay"]:
        _stay(libc)
    os.execv(sys.argv[2], sys.argv[2:])  # noqa: S606  no shell is what we want


class _Over(BaseException):
    """Time is up, or the parent died."""


def _over(*_: object) -> None:
    raise _Over


def _stay(libc: ctypes.CDLL) -> None:
    """Return in a child; the parent waits for it, ends every process that came of it, and ends as it did."""
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1)  # who loses its parent becomes ours
    child = os.fork()
    if not child:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        return
    os.close(READY)
    os.close(STATUS)
    code = 128 + signal.SIGTERM
    try:
        signal.signal(signal.SIGTERM, _over)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    except _Over:
        pass
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        _end_all()
    os._exit(code if code >= 0 else 128 - code)


def _end_all() -> None:
    """Stop all that came of us until none is new, for who is stopped makes no other; then kill them."""
    stopped: set[int] = set()
    while new := set(_family()) - stopped:
        for number in new:
            with contextlib.suppress(OSError):
                os.kill(number, signal.SIGSTOP)
        stopped |= new
    for number in stopped:
        with contextlib.suppress(OSError):
            os.kill(number, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        while True:
            os.waitpid(-1, 0)


def _family() -> list[int]:
    """The living processes that came of this one."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):  # noqa: PTH208  pathlib is slow to load
        if name.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat") as file:  # noqa: PTH123
                state, parent = file.read().rpartition(")")[2].split()[:2]
                if state != "Z":
                    children.setdefault(int(parent), []).append(int(name))
    found, waiting = [], [os.getpid()]
    while waiting:
        below = children.pop(waiting.pop(), [])
        found += below
        waiting += below
    return found


if __name__ == "__main__":
    main()
