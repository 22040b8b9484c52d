"""A store as one file, made while it is in use, and back.

A backup is a tar file. Its first member, ``treering-backup.json``, names all others with their sizes and SHA-256. Each
database is copied by SQLite's own backup, which sees one state of it; the files that it names were whole before they
were named. What a mirror of the vectors holds is not in it, nor locks, nor what killed runs left, nor any key.
"""

import hashlib
import io
import os
import shutil
import sqlite3
import stat
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import msgspec

from treering import __version__
from treering.errors import DataError, DiskFull, ModelError, NoStore, StoreBusy, StoreError
from treering.files import holder, os_errors, replacing, swap
from treering.operate.asked import queue_of
from treering.operate.folders import WAYS_OUT
from treering.operate.inbox import Inbox
from treering.operate.locks import alone
from treering.operate.threads import Threads
from treering.operate.uninstall import not_ours
from treering.report import Reporter
from treering.store.apart import Apart
from treering.store.database import connect, is_store
from treering.store.ledger import Ledger
from treering.store.schema import MIGRATIONS, REBUILD, sqlite_errors
from treering.vectors.embedder import Embedder

MANIFEST = "treering-backup.json"
FORMAT = 1
LARGEST = 64 << 20
"""Bytes of a manifest that are read."""
PIECE = 1 << 20
TRIES = 5
"""So often a backup begins again where a file changed or went while it was copied."""
FOLDERS = ("vectors", "tokens", "models", "reports")
RECORDS = "installed"
"""Of what files of clients were before ours was written into them: of this machine, not of a backup."""
GO_ON: tuple[tuple[type[Apart], str], ...] = (
    (Ledger, "calls"), (Inbox, "deliveries"), (Threads, "requests or issues"),
)  # fmt: skip
"""What is not rolled back, and what it holds: money that was spent, what was acknowledged to a forge and must neither
be lost nor be taken again, and what was fetched from there."""
SINGLE = ("*.json", "*.jsonl", "commit-graph", ".gitignore")


class Entry(msgspec.Struct, frozen=True):
    bytes: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True):
    """``treering-backup.json``. ``schema`` is the version of the tables."""

    format: int
    treering: str
    repo: str
    made: str
    schema: int
    files: dict[str, Entry]


@dataclass(frozen=True, slots=True)
class Backup:
    """A backup that was made, or that a store was restored from."""

    file: str
    store: str
    repo: str
    made: str
    files: int
    bytes: int


class _Changed(Exception):  # noqa: N818  (it is what a file did)
    """A file is another one than a moment ago, or gone."""


def backup(folder: Path, target: Path, report: Reporter, embedder: Callable[[], Embedder]) -> Backup:
    """Write a store to ``target``, a file, or a folder that a file is put into. It appears whole or not at all, and
    only its owner may read it: it holds the history.

    Raises :class:`NoStore`; :class:`StoreBusy` where the store changes again and again meanwhile.
    """
    if not (folder / "treering.db").is_file() and not (folder / "ledger.db").is_file():
        raise NoStore(f"there is no store in {folder}", "run `treering run`, or `treering index`, first")
    with os_errors(target):
        (target if target.is_dir() else target.parent).mkdir(parents=True, exist_ok=True)
    for number in range(TRIES):
        try:
            return _written(folder, target, embedder)
        except (_Changed, FileNotFoundError) as error:
            report.detail(f"the store changed while it was copied ({error}): once more")
            time.sleep(0.2 * number)
    raise StoreBusy(f"{folder} changes faster than it can be copied", "wait until the run that writes it is done")


def _written(folder: Path, target: Path, embedder: Callable[[], Embedder]) -> Backup:
    beside = target if target.is_dir() else target.parent
    with tempfile.TemporaryDirectory(prefix=".treering-backup-", dir=beside) as temporary:
        copied = {path.name: _copy(path, Path(temporary) / path.name) for path in sorted(folder.glob("*.db"))}
        repo, schema, limits = _told(copied.get("treering.db"), embedder)
        sources = {**copied, **{name: folder / name for name in _files(folder)}}
        entries = {name: _entry(path, limits.get(name)) for name, path in sources.items()}
        made = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        manifest = Manifest(FORMAT, __version__, repo, made, schema, entries)
        if target.is_dir():
            target /= f"{_safe(repo or folder.name)}-{made.replace(':', '').replace('-', '')}.tar"
        with replacing(target, 0o600) as file, tarfile.open(fileobj=file, mode="w:", format=tarfile.PAX_FORMAT) as tar:
            told = msgspec.json.format(msgspec.json.encode(manifest), indent=1)
            _add(tar, MANIFEST, io.BytesIO(told), Entry(len(told), ""))
            for name, path in sources.items():
                with path.open("rb") as content:
                    _add(tar, name, content, entries[name])
    size = sum(entry.bytes for entry in entries.values())
    return Backup(str(target), str(folder), repo, made, len(entries), size)


def _copy(path: Path, to: Path) -> Path:
    """One state of a database, whatever is written meanwhile."""
    with (
        sqlite_errors(path, WAYS_OUT.get(path.name, REBUILD)),
        closing(connect(path)) as db,
        closing(sqlite3.connect(to)) as copy,
        os_errors(to),
    ):
        db.backup(copy)  # in one step: a reader holds up nobody, and what is written meanwhile would begin it anew
        copy.execute("PRAGMA journal_mode=DELETE")
    return to


def _told(database: Path | None, embedder: Callable[[], Embedder]) -> tuple[str, int, dict[str, int]]:
    """The repository's name, the version of the tables, and how many bytes of a file are named: what is written behind
    them belongs to a run that is under way.
    """
    if database is None:
        return "", 0, {}
    limits = {}
    with sqlite_errors(database), closing(sqlite3.connect(database)) as db:
        (schema,) = db.execute("PRAGMA user_version").fetchone()
        repo = _repo(db)
        with suppress(ModelError):
            model = embedder()
            (count,) = db.execute("SELECT count(*) FROM vectors WHERE fingerprint = ?", (model.fingerprint,)).fetchone()
            limits[f"vectors/{model.fingerprint}/vectors.f32"] = count * model.dimensions * 4
    return repo, schema, limits


def _files(folder: Path) -> Iterator[str]:
    """All but databases: regular files, no links, nothing that begins with a dot below the top."""
    for pattern in SINGLE:
        yield from (path.name for path in sorted(folder.glob(pattern)) if path.is_file() and not path.is_symlink())
    for name in FOLDERS:
        for path in sorted((folder / name).rglob("*")):
            below = path.relative_to(folder)
            links = any((folder / part).is_symlink() for part in (below, *below.parents) if part.name)
            if path.is_file() and not links and not any(part.startswith(".") for part in below.parts):
                yield below.as_posix()


def _entry(path: Path, most: int | None) -> Entry:
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        for piece in _pieces(file, os.fstat(file.fileno()).st_size if most is None else most):
            digest.update(piece)
            size += len(piece)
    return Entry(size, digest.hexdigest())


def _add(tar: tarfile.TarFile, name: str, content: BinaryIO, entry: Entry) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = entry.bytes, 0o600
    reader = _Hashing(content)
    try:
        tar.addfile(member, reader)  # type: ignore[arg-type]  # it reads and does nothing else
    except OSError as error:
        if error.errno is None:  # tarfile's own: the file became shorter
            raise _Changed(name) from error
        raise
    if entry.sha256 and reader.digest.hexdigest() != entry.sha256:
        raise _Changed(name)


class _Hashing:
    """A file that is read, and what it held."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.digest = file, hashlib.sha256()

    def read(self, size: int) -> bytes:
        piece = self.file.read(size)
        self.digest.update(piece)
        return piece


def _pieces(file: BinaryIO, size: int) -> Iterator[bytes]:
    while size:
        piece = file.read(min(PIECE, size))
        if not piece:
            return
        size -= len(piece)
        yield piece


def _safe(name: str) -> str:
    return "".join(char if char.isascii() and (char.isalnum() or char in "._-") else "-" for char in name).strip(".-")


def restore(file: Path, folder: Path, report: Reporter, *, force: bool = False) -> Backup:
    """Put a backup in the place of a store, once all of it is read and is what its manifest says. What was spent,
    acknowledged to a forge and fetched from it since the backup stays known.

    Raises :class:`DataError` for what is no backup of ours, torn, or names a path outside; :class:`StoreError` where a
    store is there and ``force`` was not given; :class:`StoreBusy` while anybody has it open.
    """
    old = _before(folder)
    if old.is_dir() and not folder.exists():
        with os_errors(folder):
            old.rename(folder)
        report.say(f"{folder} is there again: a restore that was killed had moved it away")
    there = folder.exists() and any(folder.iterdir())
    if there and not force:
        raise StoreError(f"{folder} is there already", "give --force to replace it, or --store another folder")
    if there and not is_store(folder):
        raise StoreError(f"{folder} holds other things than a store", "give --store another folder")
    if there and (others := not_ours(folder)):
        raise StoreError(
            f"{folder} holds {others[0]}, which is no part of a store", "move it away, or give --store another folder"
        )
    with os_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        new = Path(tempfile.mkdtemp(prefix=f".{folder.name}.restoring-", dir=folder.parent))
        (new / ".gitignore").write_text("*\n")  # it may lie in a work tree
    try:
        manifest = _read(file, new)
        report.detail(f"{len(manifest.files):,} files are what the manifest says")
        new.chmod(stat.S_IMODE(folder.stat().st_mode) if there else 0o777 & ~_mask())
        with alone(folder, "treering restore") if there else nullcontext():
            if there:
                _carry(folder, new, manifest.repo, report)
            swap(new, folder, _before(folder))
    finally:
        shutil.rmtree(new, ignore_errors=True)
    size = sum(entry.bytes for entry in manifest.files.values())
    return Backup(str(file), str(folder), manifest.repo, manifest.made, len(manifest.files), size)


def _mask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _before(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.before-restore")


def _carry(folder: Path, new: Path, repo: str, report: Reporter) -> None:
    """Copy what is to go on from a store that nobody uses into the one that takes its place: what no backup holds, and
    what is not rolled back, unless the backup's was written later. What was fetched is of one repository.
    """
    queue = queue_of(folder)
    if watcher := holder(queue / "watcher.lock"):
        raise StoreBusy(f"{watcher} keeps this index up to date", "end it, then run this again")
    with os_errors(new):
        for name in (queue.name, RECORDS):
            if (folder / name).is_dir():
                shutil.copytree(folder / name, new / name, symlinks=True)
        for kind, holds in GO_ON:
            if kind is Threads and _repo_of(folder) not in ("", repo):
                continue
            present, restored = (kind.last_change(place) for place in (folder, new))
            if present is not None and (restored is None or restored <= present):
                shutil.copy2(folder / kind.file, new / kind.file)
                if restored is not None and restored < present:
                    report.say(f"{kind.file} stays as it is: it knows of {holds} that the backup does not")


def _repo_of(folder: Path) -> str:
    """The name of a store's repository; empty where it cannot be read."""
    with suppress(sqlite3.DatabaseError), closing(connect(folder / "treering.db", "ro")) as db:
        return _repo(db)
    return ""


def _repo(db: sqlite3.Connection) -> str:
    row = db.execute("SELECT value FROM facts WHERE key = 'repo'").fetchone()
    return str(row[0]) if row else ""


def _read(file: Path, to: Path) -> Manifest:
    """Unpack a backup into a folder, and check all of it."""
    again = "it is no backup, or a damaged one: take another one"
    try:
        with tarfile.open(file, "r:*") as tar:
            manifest = _manifest(tar, file)
            if manifest.schema > len(MIGRATIONS):
                raise StoreError(f"{file} was made by a newer treering ({manifest.treering})", "upgrade treering")
            size = sum(entry.bytes for entry in manifest.files.values())
            if size > shutil.disk_usage(to).free:
                raise DiskFull(f"{file} holds {size / 1e6:,.0f} MB, and so much is not free", "free some space")
            seen: set[str] = set()
            for member in tar:
                if member.name == MANIFEST and not seen:
                    continue
                entry = manifest.files.get(member.name)
                if entry is None or member.name in seen or not member.isreg() or member.size != entry.bytes:
                    raise DataError(f"{file} holds {member.name!r}, which its manifest does not tell of so", again)
                seen.add(member.name)
                _unpack(tar, member, entry, to, file)
            if missing := sorted(manifest.files.keys() - seen):
                raise DataError(f"{file} lacks {missing[0]}", again)
    except OSError as error:
        if error.errno is None or isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError):
            raise DataError(f"cannot read {file}: {error.strerror or error}", again) from error
        raise StoreError(f"cannot write {to}: {error.strerror}", "free some space, or choose another place") from error
    except (tarfile.TarError, EOFError) as error:
        raise DataError(f"{file} is no backup: {error}", again) from error
    return manifest


def _manifest(tar: tarfile.TarFile, file: Path) -> Manifest:
    again = "give a file that `treering backup` made"
    first = tar.next()
    content = tar.extractfile(first) if first and first.name == MANIFEST and first.isreg() else None
    if first is None or content is None or first.size > LARGEST:
        raise DataError(f"{file} is no backup of treering", again)
    try:
        manifest = msgspec.json.decode(content.read(), type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{file} is no backup of treering: {error}", again) from error
    if manifest.format != FORMAT:
        raise DataError(f"{file} is a backup of format {manifest.format}", "upgrade treering")
    for name, entry in manifest.files.items():
        path = PurePosixPath(name)
        inside = name and not path.is_absolute() and str(path) == name and ".." not in path.parts
        if not inside or "\0" in name or "\\" in name or entry.bytes < 0:
            raise DataError(f"{file} names {name!r}, which is no file of a store", again)
        if path.parts[0] not in FOLDERS and (len(path.parts) > 1 or not _known(name)):
            raise DataError(f"{file} names {name!r}, which is no file of a store", again)
    return manifest


def _known(name: str) -> bool:
    return any(PurePosixPath(name).match(pattern) for pattern in ("*.db", *SINGLE))


def _unpack(tar: tarfile.TarFile, member: tarfile.TarInfo, entry: Entry, to: Path, file: Path) -> None:
    """Write one file, which the manifest names. Only its content is taken from the archive: no mode, owner or time."""
    path, digest, size = to / member.name, hashlib.sha256(), 0
    path.parent.mkdir(parents=True, exist_ok=True)
    content = tar.extractfile(member)
    if content is None:
        raise DataError(f"{file} holds {member.name!r}, which is no file", "take another backup")
    with path.open("wb") as out:
        for piece in iter(lambda: content.read(PIECE), b""):
            digest.update(piece)
            size += len(piece)
            out.write(piece)
        out.flush()
        os.fsync(out.fileno())
    if size != entry.bytes or digest.hexdigest() != entry.sha256:
        raise DataError(f"{file}: {member.name} is not what its manifest says", "take another backup")
