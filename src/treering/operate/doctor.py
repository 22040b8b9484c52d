"""What can be wrong on a machine with one repository, each with the way out.

A check is a small function that looks at a :class:`Patient` and yields what it found. Adding one is a function and its
name in :data:`CHECKS`; a chapter or face that knows of more gives its own beside them.
"""

import locale
import os
import platform
import shlex
import shutil
import socket
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from treering.config import KEYS, Settings
from treering.errors import NoSandbox, TreeringError
from treering.files import holder
from treering.git.reader import Source
from treering.git.shadow import GitFailed, run_git
from treering.lm.hardware import cores, free_memory
from treering.modelpack import PACK, packed
from treering.operate import sandbox
from treering.operate.folders import WAYS_OUT
from treering.operate.locks import LOCKS
from treering.store.schema import MIGRATIONS

Severity = Literal["fine", "note", "warning", "error"]

GIT = (2, 37)
SQLITE = (3, 38)
"""The first with ``->>``, which the store asks with."""
WRITTEN = 4 << 20
SLOW_SYNC = 0.25
LITTLE_SPACE = 1 << 30
LITTLE_MEMORY = 1 << 30
NETWORK = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "lustre", "fuse.sshfs", "virtiofs"}
"""File systems over which SQLite's log is not safe: it shares memory through a file."""
SYNCED = ("Dropbox", "OneDrive", "Google Drive", "GoogleDrive", "Nextcloud", "ownCloud", "pCloud", "Mobile Documents")
EXTRAS = {
    "train": (("torch", "lightning", "transformers", "peft", "gguf"), "`run`, `train`, `evaluate`, `generate`"),
    "serve": (("fastapi", "uvicorn", "mcp", "prometheus_client"), "`serve`, `mcp`"),
    "claude": (("anthropic",), "`ask`, `brief` and `route` through Claude"),
    "qdrant": (("qdrant_client", "qdrant_edge"), "`qdrant`, and vectors.backend = qdrant or edge"),
    "st": (("sentence_transformers",), "index.model of another name"),
    "export": (("pyarrow", "fsspec"), "`dataset`, and `export` to Parquet"),
    "s3": (("s3fs",), "`dataset` to S3"),
}
PROGRAMS = {
    "node": "n8n, and llama.cpp's benchmark",
    "chromium": "the tests of the page",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. ``way_out`` is empty where nothing need be done."""

    name: str
    found: str
    severity: Severity = "fine"
    way_out: str = ""


@dataclass(frozen=True, slots=True)
class Patient:
    """What is examined. ``source`` is None, and ``refused`` says why, where there is no repository that can be read;
    ``folder`` is None where it is not known then.
    """

    repo: Path
    source: Source | None
    settings: Settings
    folder: Path | None
    refused: TreeringError | None = None


Check = Callable[[Patient], Iterator[Finding]]


def examine(patient: Patient, checks: Sequence[Check]) -> list[Finding]:
    """What every check finds. One that cannot be made is a finding itself."""
    found: list[Finding] = []
    for check in checks:
        try:
            found += check(patient)
        except (OSError, sqlite3.Error, TreeringError, GitFailed) as error:
            name = check.__name__.removeprefix("_").replace("_", " ")
            found.append(Finding(name, f"cannot be looked at: {error}", "warning", getattr(error, "hint", "")))
    return found


def _programs(_: Patient) -> Iterator[Finding]:
    yield Finding("python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    version = sqlite3.sqlite_version_info[:2]
    with closing(sqlite3.connect(":memory:")) as db:
        options = {row[0] for row in db.execute("PRAGMA compile_options")}
    if version < SQLITE:
        yield Finding("sqlite", f"{sqlite3.sqlite_version}", "error", "install a Python whose SQLite is 3.38 or newer")
    elif "THREADSAFE=0" in options:
        yield Finding("sqlite", f"{sqlite3.sqlite_version}, for one thread only", "error", "install another Python")
    else:
        yield Finding("sqlite", sqlite3.sqlite_version)
    try:
        said = run_git(["--version"], seconds=10).decode().split()[2]
    except TreeringError as error:
        yield Finding("git", error.message, "error", error.hint)
        return
    numbers = tuple(int(part) for part in said.split(".")[:2] if part.isdigit())
    yield Finding("git", said) if numbers >= GIT else Finding("git", said, "error", "install git 2.37 or newer")


def _repository(patient: Patient) -> Iterator[Finding]:
    if patient.refused or patient.source is None:
        error = patient.refused
        if error:
            yield Finding("repository", error.message, "error", error.hint)
        return
    source = patient.source
    yield Finding("repository", f"{source.name} ({source.object_format})")
    owner = source.git_dir.stat().st_uid
    if owner != os.geteuid():
        yield Finding(
            "owner",
            f"{source.git_dir} belongs to user {owner}, not to us: treering reads it, but git itself refuses",
            "note",
            f"git config --global --add safe.directory {source.worktree or source.git_dir}",
        )
    if source.shallow.is_file():
        yield Finding("history", "shallow: it ends before its beginning", "warning", "git fetch --unshallow")
    if any((source.objects / "pack").glob("*.promisor")):
        yield Finding(
            "history",
            "a partial clone: contents that were not fetched are missing from diffs",
            "warning",
            "git fetch --refetch --no-filter",
        )


def _clock(patient: Patient) -> Iterator[Finding]:
    now = time.time()
    if patient.source is None:
        return
    try:
        said = patient.source.ask(
            "for-each-ref", "--sort=-committerdate", "--count=1", "--format=%(committerdate:unix)", "refs"
        )
    except GitFailed:
        return
    newest = int(said.strip() or b"0")
    ahead = newest - now
    if ahead > 86_400:
        yield Finding(
            "clock",
            f"the newest commit is {ahead / 86_400:,.0f} days in the future",
            "warning",
            "set the clock, if it is this one that is wrong: budgets of a day follow it",
        )
    else:
        yield Finding("clock", time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(now)))


def _place(patient: Patient) -> Iterator[Finding]:
    """Where the store lies, or will: the nearest folder that is there."""
    if patient.folder is None:
        return
    folder = patient.folder
    there = next(path for path in (folder, *folder.absolute().parents) if path.is_dir())
    if not os.access(there, os.W_OK | os.X_OK):
        yield Finding("store", f"{there} may not be written: it can only be asked", "warning", "give --store another")
        return
    kind = file_system(there.resolve(), _mounts())
    if kind in NETWORK:
        yield Finding(
            "file system",
            f"{there} is on a network file system ({kind}), over which two machines would damage the index",
            "warning",
            "give --store, or set TREERING_STORE to, a local folder",
        )
    if synced := next((part for part in there.resolve().parts if part.startswith(SYNCED)), ""):
        yield Finding(
            "synced folder",
            f"the store lies in {synced}: what synchronises it copies a database that is being written",
            "warning",
            "give --store, or set TREERING_STORE to, a folder that is not synchronised",
        )
    if folder.is_dir() and folder.stat().st_mode & 0o002:
        yield Finding("store", f"anybody may write {folder}", "warning", f"chmod o-w {folder}")
    free = shutil.disk_usage(there).free
    yield Finding(
        "disk",
        f"{free / 1e9:,.1f} GB free{f' ({kind})' if kind else ''}",
        "warning" if free < LITTLE_SPACE else "fine",
        "free some space: an index takes up to a hundred kilobytes a commit" if free < LITTLE_SPACE else "",
    )
    rate, sync = speed(there)
    slow = sync > SLOW_SYNC
    yield Finding(
        "disk speed",
        f"{rate / 1e6:,.0f} MB/s, {sync * 1000:,.1f} ms to be sure of a write",
        "warning" if slow else "fine",
        "give --store a faster disk: every batch of commits waits for it" if slow else "",
    )


def speed(folder: Path) -> tuple[float, float]:
    """Bytes a second that are written and flushed, and seconds that a flush of one page takes."""
    with tempfile.TemporaryFile(dir=folder) as file:
        started = time.monotonic()
        file.write(os.urandom(WRITTEN))
        file.flush()
        os.fsync(file.fileno())
        whole = time.monotonic() - started
        started = time.monotonic()
        file.seek(0)
        file.write(b"x" * 4096)
        file.flush()
        os.fsync(file.fileno())
        return WRITTEN / max(whole, 1e-9), time.monotonic() - started


def _mounts() -> str:
    with suppress(OSError):
        return Path("/proc/self/mounts").read_text("utf-8", "replace")
    return ""


def file_system(folder: Path, mounts: str) -> str:
    """The kind of the file system that holds a folder, by the lines of ``/proc/self/mounts``; empty if unknown."""
    best = (0, "")
    for line in mounts.splitlines():
        _, place, kind, *_ = [*line.split(" "), "", "", ""]
        place = place.replace("\\040", " ")
        if folder == Path(place) or Path(place) in folder.parents:
            best = max(best, (len(place), kind))
    return best[1]


def _store(patient: Patient) -> Iterator[Finding]:
    if patient.folder is None:
        return
    path = patient.folder / "treering.db"
    if not path.is_file():
        yield Finding("store", f"none yet in {patient.folder}", "note", "treering run")
        return
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=1)) as db:
            (version,) = db.execute("PRAGMA user_version").fetchone()
    except sqlite3.Error as error:
        yield Finding("store", f"{path} cannot be read: {error}", "error", "treering verify --repair")
        return
    if version > len(MIGRATIONS):
        yield Finding("store", f"{path} was made by a newer treering", "error", "upgrade treering")
    elif version < len(MIGRATIONS):
        yield Finding("store", f"{path} is of an earlier version ({version}): it is upgraded when it is opened", "note")
    else:
        yield Finding("store", f"{patient.folder}, version {version}")
    for name, way_out in WAYS_OUT.items():
        try:
            if (path := patient.folder / name).is_file():
                with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=1)) as db:
                    db.execute("SELECT count(*) FROM sqlite_master")
        except sqlite3.Error as error:
            yield Finding("store", f"{path} cannot be read: {error}", "error", way_out)
    for name in LOCKS:
        if who := holder(patient.folder / name):
            yield Finding("lock", f"{name}: {who}", "note", "wait for it, or stop it")


def _restored(patient: Patient) -> Iterator[Finding]:
    """What a killed restore left beside the store, which may be the store itself."""
    if patient.folder is None or not patient.folder.parent.is_dir():
        return
    folder = patient.folder
    for path in sorted(folder.parent.iterdir()):
        if path.name == f".{folder.name}.before-restore" and not folder.exists():
            found = f"a restore that was killed left it as {path}"
            yield Finding("store", found, "error", f"mv {shlex.quote(str(path))} {shlex.quote(str(folder))}")
        elif path.name.startswith((f".{folder.name}.before-restore", f".{folder.name}.restoring-")):
            found = f"{path} is of a restore that was killed, if none is under way"
            yield Finding("leftover", found, "warning", f"rm -r {shlex.quote(str(path))}")


def _models(_: Patient) -> Iterator[Finding]:
    for name, entry in PACK.items():
        try:
            packed(name)
        except TreeringError as error:
            missing = "not installed" in error.message
            yield Finding(f"model pack {name}", error.message, "warning" if missing else "error", error.hint)
        else:
            yield Finding(f"model pack {name}", f"{entry.package}: as expected")


def _extras(_: Patient) -> Iterator[Finding]:
    for extra, (modules, wanted) in EXTRAS.items():
        missing = [name for name in modules if find_spec(name) is None]
        if missing:
            yield Finding(
                f"extra {extra}",
                f"{', '.join(missing)} not installed: wanted by {wanted}",
                "note",
                f"pip install '.[{extra}]' in the folder of treering",
            )
        else:
            yield Finding(f"extra {extra}", "installed")


def _text(_: Patient) -> Iterator[Finding]:
    files, preferred = sys.getfilesystemencoding(), locale.getpreferredencoding(False)
    if {name.lower().replace("-", "") for name in (files, preferred)} == {"utf8"}:
        yield Finding("encoding", "UTF-8")
    else:
        yield Finding(
            "encoding",
            f"names of files are {files}, texts {preferred}: what is not ASCII may be shown wrong",
            "warning",
            "set LANG=C.UTF-8, or PYTHONUTF8=1",
        )


def _machine(_: Patient) -> Iterator[Finding]:
    memory = free_memory()
    little = memory < LITTLE_MEMORY
    yield Finding(
        "memory",
        f"{memory / 1e9:,.1f} GB free, {cores()} cores",
        "warning" if little else "fine",
        "close something: training the default model takes about 2 GB" if little else "",
    )
    for name, wanted in PROGRAMS.items():
        path = shutil.which(name) or (shutil.which("chromium-browser") if name == "chromium" else None)
        yield Finding(name, path) if path else Finding(name, f"not installed: wanted for {wanted}", "note")
    try:
        yield Finding(sandbox.PROGRAM, sandbox.version())
    except NoSandbox as error:
        yield Finding(sandbox.PROGRAM, error.message, "note", error.hint)


def _port(patient: Patient) -> Iterator[Finding]:
    chosen = patient.settings.serve
    if not chosen.port:
        return
    family = socket.AF_INET6 if ":" in chosen.host else socket.AF_INET
    with socket.socket(family) as door:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            door.bind((chosen.host, chosen.port))
        except OSError as error:
            yield Finding(
                "port",
                f"{chosen.host}:{chosen.port} cannot be listened at ({error.strerror}): maybe `treering serve` runs",
                "note",
                "give `treering serve` another --port",
            )
        else:
            yield Finding("port", f"{chosen.host}:{chosen.port} is free for `treering serve`")


def _keys(_: Patient) -> Iterator[Finding]:
    """Whether there are keys; never what they are."""
    for name, wanted in KEYS.items():
        yield Finding(f"key {name}", f"{'set' if os.environ.get(name) else 'not set'}: for {wanted}")


CHECKS: tuple[Check, ...] = (
    _programs, _repository, _clock, _place, _store, _restored, _models, _extras, _text, _machine, _port, _keys,
)  # fmt: skip
