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
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
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


def _stay(libc: ctypes.CDLL) -> None:
    """Return in a child; the parent waits for it, kills every process that came of it, and ends as it did."""
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1)
    child = os.fork()
    if not child:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        return
    os.close(READY)
    _, status = os.waitpid(child, 0)
    while _kill_children():
        pass
    code = os.waitstatus_to_exitcode(status)
    os._exit(code if code >= 0 else 128 - code)


def _kill_children() -> bool:
    """Kill what is a child of ours now, which makes its children ours. False once there is none."""
    own = os.getpid()
    for name in os.listdir("/proc"):  # noqa: PTH208  pathlib is slow to load
        if name.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat") as file:  # noqa: PTH123
                if int(file.read().rpartition(")")[2].split()[1]) == own:
                    os.kill(int(name), signal.SIGKILL)
    try:
        os.waitpid(-1, 0)
    except ChildProcessError:
        return False
    return True


if __name__ == "__main__":
    main()
