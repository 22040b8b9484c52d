"""The first program of a gate's tests, a script of its own: it binds itself to its parent's life, takes on limits, and
becomes the program it was given. Root's becomes a user that nobody is, whom the kernel holds to a number of processes
and gives no file of root's. Without a sandbox it stays, and ends all that its program left behind.

Nothing of treering is imported here: it starts in 20 ms.
"""

import contextlib
import ctypes
import json
import os
import resource
import signal
import stat
import sys

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
CLONE_NEWNS = 0x20000
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 0x40000
STAGE = "/tmp"  # noqa: S108  hidden by a mount of our own
READY, STATUS = 9, 8
"""Where the program finds its two pipes: a shell knows descriptors of one digit only."""
NOBODIES = 0x70000000
"""From here on up users have no names: one for each process that may be."""
SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGCHLD)


def main() -> None:
    told = json.loads(sys.argv[1])
    libc = ctypes.CDLL(None, use_errno=True)
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:  # noqa: PTH123
        file.write("1000")  # where memory runs out for all, this goes first
    if told["nobody"]:
        _stage(libc, told["staged"])
        user = NOBODIES + os.getpid()
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
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


def _stage(libc: ctypes.CDLL, places: list[str]) -> None:
    """Mount what may lie below folders of root's where all may go, in a view of the machine that only what is started
    here has.
    """

    def mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
        told = (source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), options.encode())
        if libc.mount(*told):
            sys.exit(f"root may not mount {target}: {os.strerror(ctypes.get_errno())}")

    if libc.unshare(CLONE_NEWNS):
        sys.exit(f"root may not have a view of its own: {os.strerror(ctypes.get_errno())}")
    mount("none", "/", "", MS_REC | MS_PRIVATE)
    opened = [os.open(place, os.O_PATH) for place in places]
    mount("none", STAGE, "tmpfs", 0, "mode=755")
    for number, handle in enumerate(opened):
        place = f"{STAGE}/{number}"
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            os.mkdir(place)  # noqa: PTH102
        else:
            os.close(os.open(place, os.O_CREAT | os.O_WRONLY))
        mount(f"/proc/self/fd/{handle}", place, "", MS_BIND | MS_REC)
        os.close(handle)


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
