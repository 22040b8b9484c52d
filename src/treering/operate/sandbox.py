"""What tests can see of this machine: a sandbox of bubblewrap's, as the arguments that make it.

The system's programs and libraries, the interpreter, and what the owner adds are there to be read. The repository's
files and the temporary folders are in memory, bounded, and gone with the last process. There is no network, no other
process, no device, no capability, no home, no variable of the owner's, and no ``.git``.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from treering.errors import NoSandbox, UsageError
from treering.operate.launch import READY, STATUS

PROGRAM = "bwrap"
OLDEST = (0, 8)
ELSEWHERE = PurePath("/repository")
"""Where the files lie if the repository has no work tree, or has it where the system is."""
_SYSTEM = ("usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32")
_ETC = (
    "alternatives", "ca-certificates", "ca-certificates.conf", "debian_version", "fonts", "ld.so.cache", "ld.so.conf",
    "ld.so.conf.d", "localtime", "magic", "mime.types", "os-release", "pki/tls/certs", "protocols", "services",
    "ssl/certs", "ssl/openssl.cnf", "timezone", "java", "java-11-openjdk", "java-17-openjdk", "java-21-openjdk",
)  # fmt: skip
"""What programs look for in /etc, and holds nothing of the machine's secrets."""
_TAKEN = frozenset(
    PurePath("/", name) for name in (*_SYSTEM, "", "etc", "proc", "dev", "sys", "tmp", "run", "var", "home", "root")
)
_SHARED_BYTES = 256 << 20
_PROC = ("sys", "sysrq-trigger", "irq", "bus", "fs", "acpi", "scsi", "kcore", "mtrr", "pressure")
"""What of /proc concerns the whole machine. A process of root's may write to some of it, whatever else it lost."""
_COMMON_PROGRAMS = ("python3", "python", "node")
_OWNERS = "name one of the PATH or of the work tree, set TREERING_GATE_COMMAND, or give it after `--`"
_HOME = "/tmp/home"  # noqa: S108  of the sandbox
_WHO = b"root:x:0:0:root:/root:/bin/sh\ngate:x:1000:1000:gate:/tmp/home:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n"
_GROUPS = b"root:x:0:\ngate:x:1000:\nnogroup:x:65534:\n"
_HOSTS = b"127.0.0.1 localhost\n::1 localhost\n"
_NAMES = b"passwd: files\ngroup: files\nhosts: files\n"
UNPACK = f'umask 022; tar -xf - || exit 99; printf r >&{READY}; exec {READY}>&- {STATUS}>&-; exec "$@" </dev/null'
"""The files come by standard input. Once they are there a byte tells, and what is asked begins."""


@dataclass(frozen=True, slots=True)
class View:
    """What is seen: where the repository's files lie, and the folders and files of the machine that may be read, as
    pairs of where they are and where they are seen.
    """

    root: PurePath
    readable: tuple[tuple[Path, PurePath], ...]
    path: str
    """Of programs, as ``PATH`` says it."""


def version() -> str:
    """What ``bwrap --version`` says. Raises :class:`NoSandbox` where there is none that does what we ask."""
    hint = "install bubblewrap 0.8 or newer (the package of that name), or trust the tests: --no-sandbox"
    found = shutil.which(PROGRAM)
    if found is None:
        raise NoSandbox("there is no sandbox for the tests: the program `bwrap` is not on the PATH", hint)
    try:
        said = subprocess.check_output([found, "--version"], text=True, timeout=60).strip()
    except (OSError, subprocess.SubprocessError) as error:
        raise NoSandbox(f"there is no sandbox for the tests: {found} does not start", hint) from error
    known = re.search(r"(\d+)\.(\d+)", said)
    if not known or (int(known[1]), int(known[2])) < OLDEST:
        raise NoSandbox(f"the sandbox for the tests, {said}, is too old", hint)
    return said


def environment(path: str, home: str = _HOME) -> dict[str, str]:
    """All the variables that tests get."""
    temporary = str(PurePath(home).parent)
    return {
        "PATH": path, "HOME": home, "TMPDIR": temporary, "LANG": "C.UTF-8", "TERM": "dumb", "USER": "gate",
        "LOGNAME": "gate", "SHELL": "/bin/sh", "CI": "true",
    }  # fmt: skip


def view(worktree: Path | None, command: Sequence[str], readable: Iterable[str], *, brought: bool = False) -> View:
    """What tests started by ``command`` are to see. ``readable`` names more of the machine; a relative path is of the
    work tree, and is seen among the repository's files. A command that was ``brought`` with the repository opens no
    more of the machine than its owner did: its program is one of the PATH by name, or lies in the work tree.

    Raises :class:`UsageError` for a path that is not there, and for a program that is nowhere, or elsewhere.
    """
    root: PurePath = ELSEWHERE if worktree is None or worktree in _TAKEN else worktree
    seen: dict[PurePath, Path] = {}
    if brought and PurePath(command[0]).is_absolute():
        raise UsageError(f"the repository's own test command names {command[0]} by a path from the root", _OWNERS)
    for entry in readable:
        source = (worktree or Path()) / Path(entry).expanduser()
        if not source.exists() or source.resolve() == Path("/"):
            raise UsageError(f"{entry} cannot be given to tests to read", "name a folder or file that is there")
        seen[PurePath(os.path.normpath(source))] = source.resolve()
    for name in (*_COMMON_PROGRAMS, *_named(command[0], worktree)):
        for place in _installation(name, worktree):
            seen.setdefault(PurePath(place), place)
    opened = [worktree.resolve() if worktree else Path("/"), *(place.resolve() for place in seen.values())]
    for place in _installation(command[0], worktree) if os.sep in command[0] else ():
        if brought and not any(place.resolve().is_relative_to(one) for one in opened):
            raise UsageError(f"{command[0]} is {place}, out of the work tree", _OWNERS)
        seen.setdefault(PurePath(place), place)
    pairs = tuple((source, target) for target, source in sorted(seen.items()) if target != root)
    made = View(root, pairs, _path(root, pairs))
    _check_program(command[0], made)
    return made


def _named(program: str, worktree: Path | None) -> Iterator[str]:
    """What is looked for on the PATH: the program, or the interpreter that a script in the work tree names so."""
    if os.sep not in program:
        yield program
    elif worktree:
        yield from (word for word in _interpreter(worktree / program) if os.sep not in word)


def _check_program(name: str, made: View) -> None:
    """One that is named by a path from the root may be the repository's own, or come with the patch."""
    if os.sep not in name:
        there = shutil.which(name, path=made.path) is not None
    elif PurePath(name).is_absolute():
        target = PurePath(os.path.normpath(name))
        there = target.is_relative_to(made.root) or (_visible(target, made) and os.access(target, os.X_OK))
    else:
        there = True
    if not there:
        outside = shutil.which(name)
        hint = f"let tests read it: --readable {outside}" if outside else "name a program that is installed"
        raise UsageError(f"there is no program {name!r} that tests could start", hint)


def _visible(target: PurePath, made: View) -> bool:
    system = [PurePath("/", name) for name in _SYSTEM]
    return any(target.is_relative_to(one) for one in (*system, *(seen for _, seen in made.readable)))


def _path(root: PurePath, pairs: Iterable[tuple[Path, PurePath]]) -> str:
    """The entries of our own PATH that tests can see, and the system's."""
    made = View(root, tuple(pairs), "")
    own = [entry for entry in os.environ.get("PATH", "").split(os.pathsep) if PurePath(entry).is_absolute()]
    system = ["/usr/local/bin", "/usr/bin", "/bin", "/usr/local/sbin", "/usr/sbin", "/sbin"]
    return os.pathsep.join(dict.fromkeys([*(one for one in own if _visible(PurePath(one), made)), *system]))


def _installation(name: str, worktree: Path | None, depth: int = 3) -> Iterator[Path]:
    """What must be read to start a program: of an interpreter all that is installed with it, of a script itself and its
    interpreter's. Of the work tree only an environment in it: its files are not those that are tested.
    """
    relative = os.sep in name and not PurePath(name).is_absolute()
    found = shutil.which(str(worktree / name) if relative and worktree else name)
    if found is None or not depth:
        return
    place = Path(os.path.abspath(found))  # noqa: PTH100  links are followed below
    for program in dict.fromkeys((place, place.resolve())):
        prefix = program.parent.parent
        if any(program.is_relative_to(f"/{system}") for system in _SYSTEM):
            continue
        if _is_installation(prefix):
            yield prefix
        elif worktree is None or not program.is_relative_to(worktree):
            yield program
        if (prefix / "pyvenv.cfg").is_file():
            yield from _installation(str((prefix / program.parent.name / "python3").resolve()), worktree, depth - 1)
    for word in _interpreter(place):
        yield from _installation(word, worktree, depth - 1)


def _is_installation(prefix: Path) -> bool:
    """Whether a folder is Python's or Node's alone: ``~`` and ``~/.local`` have a ``bin``, too, and much beside it."""
    return (
        (prefix / "pyvenv.cfg").is_file()
        or any(prefix.glob("lib/python3*/os.py"))
        or ((prefix / "bin" / "node").is_file() and (prefix / "include" / "node").is_dir())
    )


def _interpreter(script: Path) -> list[str]:
    """The programs that a script's first line names."""
    try:
        with script.open("rb") as file:
            first = file.readline(256)
    except OSError:
        return []
    if not first.startswith(b"#!"):
        return []
    words = os.fsdecode(first[2:]).split()
    return words[1:2] if words and words[0].endswith("/env") else words[:1]


def arguments(
    made: View, command: Sequence[str], *, disk: int, data: Mapping[str, int], seen_at: Mapping[Path, Path]
) -> list[str]:
    """The arguments of bubblewrap, itself the first. ``disk`` is how many bytes the repository's files, and as many the
    temporary ones, may have; ``data`` names open files that hold what :func:`files` says. ``seen_at`` is where else
    what is readable can be found, by one who may not go where it is.
    """
    most = str(disk)
    told = [
        shutil.which(PROGRAM) or PROGRAM, "--unshare-all", "--unshare-user", "--disable-userns", "--die-with-parent",
        "--new-session", "--cap-drop", "ALL", "--uid", "1000", "--gid", "1000", "--hostname", "gate", "--clearenv",
        "--json-status-fd", str(STATUS),
    ]  # fmt: skip
    for name, value in environment(made.path).items():
        told += ["--setenv", name, value]
    for name in _SYSTEM:
        place = Path("/", name)
        if place.is_symlink():
            told += ["--symlink", str(place.readlink()), str(place)]
        elif place.is_dir():
            told += ["--ro-bind", str(place), str(place)]
    for name in _ETC:
        told += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
    for target, number in data.items():
        told += ["--ro-bind-data", str(number), target]
    told += ["--proc", "/proc"]
    for name in _PROC:
        place = Path("/proc", name)
        if place.is_dir():
            told += ["--ro-bind", str(place), str(place)]
        elif place.exists():
            told += ["--ro-bind", os.devnull, str(place)]
    told += ["--dev", "/dev", "--perms", "1777", "--size", str(min(disk, _SHARED_BYTES)), "--tmpfs", "/dev/shm"]  # noqa: S108
    told += ["--remount-ro", "/dev", "--perms", "1777", "--size", most, "--tmpfs", "/tmp", "--dir", _HOME]  # noqa: S108
    binds = [(target, ["--ro-bind", str(seen_at.get(source, source))]) for source, target in made.readable]
    files = (made.root, ["--size", most, "--tmpfs"])
    for where, bind in sorted([*binds, files], key=lambda one: len(one[0].parts)):  # what holds another comes first
        told += [*bind, str(where)]
    return [*told, "--remount-ro", "/", "--chdir", str(made.root), "--", "/bin/sh", "-c", UNPACK, "sh", *command]


def files() -> dict[str, bytes]:
    """The files of /etc that tests get in place of the machine's."""
    return {"/etc/passwd": _WHO, "/etc/group": _GROUPS, "/etc/hosts": _HOSTS, "/etc/nsswitch.conf": _NAMES}
