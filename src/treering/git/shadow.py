"""The only module that starts a git process, and the reason it is safe to start one.

A repository's own config and attributes can run programs and change figures. So nothing but refs is ever asked of
the user's git directory, and everything else is asked of a shadow: a fresh empty repository that borrows the
source's objects through ``objects/info/alternates``. What is written to the user's is in ``writing.py``.
"""

import fcntl
import hashlib
import math
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from treering.errors import RepositoryError, StoreError
from treering.files import as_text, os_errors, replacing

REF_SECONDS = 60.0
"""How long reading refs may take; a config that includes a FIFO would wait for ever."""

SECONDS = 600.0
"""How long git may be silent about anything else. A commit's own limit is a setting."""

_SAFE = [
    "-c", "core.fsmonitor=false", "-c", "core.attributesFile=/dev/null", "-c", "core.hooksPath=/dev/null",
    "-c", "core.commitGraph=false", "-c", "safe.directory=*", "-c", "advice.graftFileDeprecated=false",
]  # fmt: skip


def environment() -> dict[str, str]:
    """The environment every git process gets: no user or system config, no network, no prompt, no locks."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "RAY_AUTH_"))}
    return kept | {
        "LC_ALL": "C",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_ALLOW_PROTOCOL": "none",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_GRAFT_FILE": os.devnull,
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_PAGER": "cat",
        # glibc gives freed memory back and asks for it again at every blob; this keeps it. A tenth of the whole time.
        "MALLOC_TRIM_THRESHOLD_": str(16 << 20),
        "MALLOC_TOP_PAD_": str(1 << 20),
    }


def _git() -> str:
    found = shutil.which("git")
    if found is None:
        raise RepositoryError("the program `git` is not on the PATH", "install git 2.37 or newer")
    return found


class GitFailed(Exception):  # noqa: N818  (it is what git did)
    """git ended with an error. Each caller says what it means."""

    def __init__(self, code: int, stderr: str) -> None:
        super().__init__(last_word(stderr) or f"git exited with {code}")
        self.code, self.said = code, stderr


def last_word(stderr: str) -> str:
    """Of all that git said before it ended, the line that says why."""
    lines = [line for line in stderr.splitlines() if line.strip()]
    fatal = [line for line in lines if line.startswith(("fatal: ", "error: ")) or "ignoring broken ref" in line]
    return (fatal or lines or [""])[-1].removeprefix("fatal: ").removeprefix("error: ")


def run_git(
    arguments: Sequence[str],
    *,
    stdin: bytes = b"",
    seconds: float | None = None,
    memory: int = 0,
    configured: bool = False,
) -> bytes:
    """Run git once and return its standard output. It gets its input once it may not have more than ``memory`` bytes
    (0: any); ``configured`` as the user's own git would be, for what is asked of the config itself. Raises
    :class:`GitFailed`.
    """
    own = {name: value for name, value in environment().items() if not name.startswith("GIT_CONFIG_")}
    with subprocess.Popen(
        [_git(), *([] if configured else _SAFE), *arguments], env=own if configured else environment(),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        try:
            if memory and sys.platform == "linux":
                with suppress(ProcessLookupError):
                    resource.prlimit(process.pid, resource.RLIMIT_DATA, (memory, memory))
            said, complaint = process.communicate(stdin, timeout=seconds)
        except subprocess.TimeoutExpired as error:
            process.kill()
            raise RepositoryError(
                f"git did not answer within {error.timeout:.0f} s",
                "look for an include of a pipe in the repository's config, or a file system that hangs",
            ) from error
        except BaseException:
            process.kill()
            raise
    broken = b"ignoring broken ref" in complaint  # git only warns, and the history would be short
    if process.returncode or broken:
        raise GitFailed(process.returncode, complaint.decode("utf-8", "replace").strip())
    return said


def talk_git(
    arguments: Sequence[str],
    *,
    protocol: str,
    config: Mapping[str, str],
    seconds: float,
    unwanted: Callable[[], bool] = lambda: False,
) -> bytes:
    """Run git once with one protocol allowed to it, to speak with another machine, and return its standard output.
    ``config`` reaches it by the environment, where no other user reads it. Once it is ``unwanted`` it is ended.

    Raises :class:`GitFailed`; where it takes longer than ``seconds``, or is unwanted, :class:`RepositoryError`.
    """
    named = {f"GIT_CONFIG_KEY_{number}": key for number, key in enumerate(config)}
    values = {f"GIT_CONFIG_VALUE_{number}": value for number, value in enumerate(config.values())}
    allowed = {
        "GIT_ALLOW_PROTOCOL": protocol, "GIT_CONFIG_COUNT": str(len(config)),
        "GIT_ASKPASS": "true", "SSH_ASKPASS_REQUIRE": "never", "GIT_SSH_COMMAND": "ssh -oBatchMode=yes",
    }  # fmt: skip
    with subprocess.Popen(
        [_git(), *_SAFE, *arguments], env=environment() | allowed | named | values, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    ) as process:  # fmt: skip
        until = time.monotonic() + seconds
        while True:
            try:
                told, complaint = process.communicate(timeout=0.2)
                break
            except subprocess.TimeoutExpired:
                if unwanted() or time.monotonic() > until:
                    with suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGKILL)  # with what it started to speak for it
                    process.communicate()
                    raise RepositoryError(
                        f"git was not done within {seconds:.0f} s", "look at the network, and run it again"
                    ) from None
    if process.returncode:
        raise GitFailed(process.returncode, complaint.decode("utf-8", "replace").strip())
    return told


@dataclass(frozen=True, slots=True)
class Source:
    """A user's repository: where it is, and what of it a shadow needs."""

    git_dir: Path
    worktree: Path | None
    objects: Path
    shallow: Path
    object_format: str
    name: str

    def ask(self, *arguments: str) -> bytes:
        """Ask the repository itself. For refs only."""
        return run_git([f"--git-dir={self.git_dir}", *arguments], seconds=REF_SECONDS)

    def origin(self) -> str:
        """The address of the remote ``origin`` by the repository's own config: its word, no more; empty without one."""
        try:
            told = self.ask("config", "--local", "--get", "remote.origin.url")
        except GitFailed:
            return ""
        return told.decode("utf-8", "replace").strip()

    def tracks(self, name: str) -> bool:
        """Whether the repository's index holds that path of its work tree, or anything in it."""
        here = ["-C", str(self.worktree), f"--git-dir={self.git_dir}", "--work-tree=."]
        return self.worktree is not None and bool(
            run_git([*here, "ls-files", "--cached", "-z", "--", f":(top,literal){name}"], seconds=REF_SECONDS)
        )

    def hooks(self) -> Path:
        """Where the user's git looks for hooks: of all work trees one folder, unless `core.hooksPath` says another."""
        here = str(self.worktree or self.git_dir)  # a relative one is meant from the top of the work tree
        asked = ["-C", here, "rev-parse", "--path-format=absolute", "--git-path", "hooks"]
        try:
            return Path(os.fsdecode(run_git(asked, seconds=REF_SECONDS, configured=True).removesuffix(b"\n")))
        except GitFailed as error:
            raise RepositoryError(f"git does not say where the hooks of {here} are", f"git says: {error}") from error

    def objects_fingerprint(self) -> str:
        """Changes when objects come or go: names and times of the folders that hold them, and the shallow file."""
        parts = [self.shallow.read_bytes() if self.shallow.is_file() else b""]
        for folder in (self.objects, self.objects / "pack"):
            with suppress(OSError), os.scandir(folder) as entries:
                parts += sorted(f"{entry.name} {entry.stat().st_mtime_ns}".encode() for entry in entries)
        return hashlib.sha256(b"\n".join(parts)).hexdigest()[:16]


def locate(path: Path) -> Source:
    """Find the repository that holds ``path``: a work tree, any folder in it, a linked worktree, a bare repository.

    Raises :class:`RepositoryError` where there is none or it may not be read.
    """
    if not path.is_dir():
        raise RepositoryError(f"there is no folder {path}", "give --repo the path of a Git repository")
    if not os.access(path, os.R_OK | os.X_OK):
        raise RepositoryError(f"no permission to read {path}", "run as the user who owns it")

    def ask(*arguments: str) -> str:
        # One path a call, and that last: a path may hold a newline.
        return os.fsdecode(run_git(["-C", str(path), "rev-parse", *arguments], seconds=REF_SECONDS).removesuffix(b"\n"))

    try:
        inside, object_format, own = ask("--is-inside-work-tree", "--show-object-format", "--absolute-git-dir").split(
            "\n", 2
        )
        git_dir = Path(own)
        worktree = Path(ask("--show-toplevel")) if inside == "true" else None
        if worktree is not None and not _holds(worktree, git_dir):
            worktree = None
        common = Path(ask("--path-format=absolute", "--git-common-dir"))  # linked work trees have one
        objects = common / "objects"
        if not os.access(objects, os.R_OK | os.X_OK):
            raise RepositoryError(f"no permission to read {objects}", "run as the user who owns it")
        return Source(
            git_dir=git_dir,
            worktree=worktree,
            objects=objects,
            shallow=common / "shallow",
            object_format=object_format,
            name=_name(worktree or git_dir),
        )
    except GitFailed as error:
        inner = path / ".git" if (path / ".git").is_dir() else path
        for part in (inner, inner / "objects", inner / "refs"):
            if part.is_dir() and not os.access(part, os.R_OK | os.X_OK):
                raise RepositoryError(f"no permission to read {part}", "run as the user who owns it") from error
        hint = "run `git init`, or give --repo another path" if "not a git" in str(error) else f"git says: {error}"
        raise RepositoryError(f"{path} is not a Git repository", hint) from error


def _holds(worktree: Path, git_dir: Path) -> bool:
    """Whether this work tree is where its own ``.git`` says; a config's ``core.worktree`` can name any folder."""
    own = worktree / ".git"
    return own.is_file() or (own.is_dir() and own.samefile(git_dir))


def _name(place: Path) -> str:
    """What people call the repository: its folder, without ``.git``, and past folders that only say "repo"."""
    return as_text(place.name.removesuffix(".git") or place.parent.name)


class Shadow:
    """An open shadow; see :func:`shadow_of`."""

    def __init__(self, git_dir: Path) -> None:
        self.git_dir = git_dir
        self.has_graph = False

    def run(self, *arguments: str, stdin: bytes = b"", memory: int = 0, seconds: float = 0.0) -> bytes:
        """Run git in it; ``seconds`` 0 are :data:`SECONDS`."""
        whole = [f"--git-dir={self.git_dir}", *arguments]
        return run_git(whole, stdin=stdin, seconds=seconds or SECONDS, memory=memory)

    def write_graph(self, path: Path, commits: Iterable[str]) -> None:
        """Make a commit-graph of some commits and all before them, from their objects, for later shadows."""
        made = self.git_dir / "objects" / "info" / "commit-graph"
        made.unlink(missing_ok=True)
        names = "".join(f"{name}\n" for name in commits)
        self.run(
            "-c",
            "core.commitGraph=true",
            "commit-graph",
            "write",
            "--no-progress",
            "--stdin-commits",
            stdin=names.encode(),
        )
        if made.is_file():  # none is made of a shallow history
            with replacing(path) as file:
                file.write(made.read_bytes())

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start a long-lived git with pipes on its three streams. The caller ends it."""
        return subprocess.Popen(
            [_git(), *_SAFE, f"--git-dir={self.git_dir}", *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(),
        )  # fmt: skip


class Watchdog(threading.Thread):
    """Kills a long-lived process that is waited for, inside ``with``, for too long."""

    def __init__(self, process: subprocess.Popen[bytes], seconds: float = SECONDS) -> None:
        super().__init__(daemon=True)
        self._process = process
        self._seconds = seconds
        self._since = math.inf
        self.bit = False
        self._over = threading.Event()
        self.start()

    def __enter__(self) -> None:
        self._since = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self._since = math.inf

    def run(self) -> None:
        while not self._over.wait(self._seconds / 10):
            if time.monotonic() - self._since > self._seconds:
                self.bit = True
                self._process.kill()
                return

    def stop(self) -> None:
        self._over.set()


@contextmanager
def shadow_of(source: Source, graph: Path | None = None) -> Iterator[Shadow]:
    """A shadow of ``source``, gone when the block ends. ``graph`` is what :meth:`Shadow.write_graph` made."""
    _sweep()
    with tempfile.TemporaryDirectory(prefix=f"{_PREFIX}{os.getpid()}-") as folder, _claimed(Path(folder)):
        git_dir = Path(folder)
        info = git_dir / "objects" / "info"
        with os_errors(git_dir):
            try:
                run_git(["init", "--quiet", "--bare", "--template=", f"--object-format={source.object_format}", folder])
            except GitFailed as error:
                raise StoreError(f"git cannot work in {git_dir}: {error}", "free some space, or set TMPDIR") from error
            info.mkdir(exist_ok=True)
        (info / "alternates").write_bytes(_quoted(os.fsencode(source.objects)) + b"\n")
        shadow = Shadow(git_dir)
        if graph and _whole(graph, source.object_format):
            (info / "commit-graph").symlink_to(graph.resolve())
            shadow.has_graph = True
        if source.shallow.is_file():
            shutil.copyfile(source.shallow, git_dir / "shallow")
        yield shadow


_PREFIX = "treering-shadow-"
_LOCK = "claimed"
_CLAIMING = 60.0
"""How many seconds a shadow that is being made may take until it is locked."""


@contextmanager
def _claimed(folder: Path) -> Iterator[None]:
    """Hold the lock that says that a shadow is in use. It goes with its process, however that ends."""
    with os_errors(folder), (folder / _LOCK).open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _sweep() -> None:
    """Remove the shadows that killed processes left behind: nobody holds their lock."""
    for left in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*-*"):
        if left.name.removeprefix(_PREFIX).partition("-")[0].isdigit():
            with suppress(OSError):
                if time.time() - left.lstat().st_mtime > _CLAIMING and not _held(left / _LOCK):
                    shutil.rmtree(left, ignore_errors=True)


def _held(lock: Path) -> bool:
    try:
        handle = os.open(lock, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    with os.fdopen(handle, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _whole(graph: Path, object_format: str) -> bool:
    """Whether a commit-graph is as it was written: its last bytes are the hash of all before them."""
    try:
        content = graph.read_bytes()
    except OSError:
        return False
    size = hashlib.new(object_format).digest_size
    return len(content) > size and hashlib.new(object_format, content[:-size]).digest() == content[-size:]


def _quoted(path: bytes) -> bytes:
    """A line of ``alternates``: git unquotes it as a C string if it begins with a quote."""
    if not set(path) & set(b'"\n\\#'):
        return path
    escaped = path.replace(b"\\", b"\\\\").replace(b'"', b'\\"').replace(b"\n", b"\\n")
    return b'"' + escaped + b'"'
