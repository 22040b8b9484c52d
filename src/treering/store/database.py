"""One SQLite file: opened, migrated, written by one process at a time.

Everything of one commit goes in with one transaction, so a kill leaves all or nothing of it. Any number of readers
work beside one writer; a second writer waits, then is told who holds it.
"""

import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import platformdirs

from treering.errors import NoStore, StoreBusy, StoreError
from treering.files import locked, os_errors
from treering.store.schema import MIGRATIONS, REBUILD, meant, sqlite_errors

FOLDER = ".treering"
DATABASES = ("treering.db", "ledger.db", "deliveries.db", "forge.db")
_IGNORES_ITSELF = b"*\n"

RUNS_KEPT = 5000
"""So many of the newest runs of each stage are remembered."""
_NO_LOG = (sqlite3.SQLITE_READONLY_DIRECTORY, sqlite3.SQLITE_CANTOPEN)
"""What SQLite says where it cannot make its log: without permission, and on a medium that is read-only."""


def store_folder(worktree: Path | None, git_dir: Path, override: str | Path | None) -> Path:
    """Where a repository's store lies: what was asked for, its work tree, or the user's data for a bare one."""
    if override:
        return Path(override).expanduser()
    if worktree is not None:
        return worktree / FOLDER
    place = git_dir.resolve()
    safe = "".join(char if char.isalnum() or char in "-._" else "-" for char in str(place).strip("/"))
    unique = hashlib.sha256(os.fsencode(place)).hexdigest()[:8]
    return Path(platformdirs.user_data_dir("treering")) / "stores" / f"{safe[-80:]}-{unique}"


@dataclass(frozen=True, slots=True)
class Ran:
    """A run of a stage: its number in the log, when it began (seconds since 1970), how long it took, what it told."""

    number: int
    stage: str
    started: float
    seconds: float
    told: dict[str, Any]


class Unlocked(sqlite3.Connection):
    """A database that is read as it lies. Closing it says if it was written meanwhile: what was read is then neither
    what it was nor what it is.
    """

    path: Path
    written: tuple[int, int]

    def close(self) -> None:
        super().close()
        if not self.path.exists() or _written(self.path) != self.written:
            raise StoreBusy(f"{self.path} was written while it was read", "run it again")


def _written(path: Path) -> tuple[int, int]:
    state = path.stat()
    return state.st_mtime_ns, state.st_size


def identity(path: Path) -> tuple[int, int] | None:
    """Which file lies there; None where none does."""
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_dev, state.st_ino


def connect(path: Path, mode: str = "rwc") -> sqlite3.Connection:
    """Open a database. Its log (the WAL) has files beside it, for readers too: where they are not there and cannot be
    made, since nothing may be written, the database is whole without them and is opened :class:`Unlocked`.
    """
    uri = path.absolute().as_uri()
    db = sqlite3.connect(f"{uri}?mode={mode}", uri=True, timeout=30, isolation_level=None)
    try:
        db.execute("PRAGMA user_version")
    except sqlite3.OperationalError as error:
        log = path.with_name(f"{path.name}-wal")
        if error.sqlite_errorcode in _NO_LOG and not (log.exists() and log.stat().st_size):
            db.close()
            unlocked = sqlite3.connect(f"{uri}?mode=ro&immutable=1", uri=True, isolation_level=None, factory=Unlocked)
            unlocked.path, unlocked.written = path, _written(path)
            return unlocked
    return db


def make_folder(folder: Path) -> None:
    """Make a store's folder, which ignores itself. Raises :class:`StoreError` for one that holds other things."""
    ignore = folder / ".gitignore"
    with os_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        # In this order: who makes it at the same time writes the ignore file first.
        if any(path != ignore for path in folder.iterdir()) and not is_store(folder):
            raise StoreError(f"{folder} holds other things than a store", "give --store a new folder, or an empty one")
        if not ignore.exists():
            ignore.write_bytes(_IGNORES_ITSELF)


def is_store(folder: Path) -> bool:
    """Whether a folder was made by us: it holds something of a store's, or nothing yet and ignores itself."""
    return holds_store(folder) or ignores_itself(folder)


def holds_store(folder: Path) -> bool:
    """Whether a folder holds a database of a store's, or the queue that hooks ask in."""
    return any((folder / name).is_file() for name in DATABASES) or (folder / "queue").is_dir()


def ignores_itself(folder: Path) -> bool:
    """Whether git ignores all of a folder by what lies in it, as we write it."""
    ignore = folder / ".gitignore"
    return ignore.is_file() and ignore.read_bytes() == _IGNORES_ITSELF


def use_wal(db: sqlite3.Connection) -> None:
    """Switch a new database to WAL, where that can be. SQLite does not wait for the lock this needs, so we do."""
    deadline = time.monotonic() + 10
    while True:
        try:
            db.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def migrate(db: sqlite3.Connection, path: Path, migrations: Sequence[str], rebuild: str = REBUILD) -> None:
    """Bring a database to the newest of its numbered migrations."""
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version > len(migrations):
        raise StoreError(f"{path} was made by a newer treering", f"upgrade treering; or {rebuild}")
    for number, script in enumerate(migrations[version:], start=version + 1):
        with whole(db):
            # Another process may have done it while we waited for the lock.
            if db.execute("PRAGMA user_version").fetchone()[0] < number:
                for statement in script.split(";\n"):
                    db.execute(statement)
                db.execute(f"PRAGMA user_version={number}")


@contextmanager
def whole(db: sqlite3.Connection, undone: Callable[[], None] = lambda: None) -> Iterator[None]:
    """All of the block's changes, or none; ``undone`` is called before they are taken back."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        undone()
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


class Database:
    """The open database of a store: transactions, the one writer, facts and the log of runs. Use with ``with``;
    :meth:`writing` is needed around every change.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "treering.db"
        self._db: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        self._writing = False

    @classmethod
    def existing(cls, folder: Path) -> Self:
        """The store that is there, or an error that says how to make one."""
        store = cls(folder)
        if not store.path.is_file():
            raise NoStore(f"there is no index in {folder}", "run `treering run`, or `treering index`, first")
        return store

    def __enter__(self) -> Self:
        if not self.path.is_file():
            make_folder(self.folder)
        with sqlite_errors(self.path):
            self._db = connect(self.path)
            use_wal(self._db)
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.execute("PRAGMA foreign_keys=ON")
            self._db.execute("PRAGMA secure_delete=ON")  # what is taken out of a text leaves the file too
            migrate(self._db, self.path, MIGRATIONS)
        self._file = identity(self.path)
        return self

    def __exit__(self, _: object, error: object, __: object) -> None:
        if self._db:
            db, self._db = self._db, None
            with suppress(StoreBusy) if error else nullcontext():  # what was met first is told
                db.close()
        if isinstance(error, sqlite3.DatabaseError):  # met while reading: writing names it on the spot
            raise meant(error, self.path) from error

    @property
    def db(self) -> sqlite3.Connection:
        if self._db is None:
            raise StoreError(f"the store {self.folder} is not open")
        return self._db

    def complaining(self) -> AbstractContextManager[None]:
        """Every error of the database inside the block, as ours."""
        return sqlite_errors(self.path)

    @property
    def gone(self) -> bool:
        """Whether the file that was opened has been deleted, or another one lies in its place. What is open goes on
        answering from what it was.
        """
        return identity(self.path) != self._file

    def remember(self, size: int) -> None:
        """Keep at most so many bytes of the file in memory, read before; 2 MB are usual."""
        self.db.execute(f"PRAGMA cache_size=-{max(1, size >> 10)}")

    def touched(self) -> int:
        """A number that is another one once another connection has written here. It costs some microseconds."""
        return int(self.db.execute("PRAGMA data_version").fetchone()[0])

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All of the block's changes, or none."""
        with sqlite_errors(self.path), whole(self.db, self._forget):
            yield

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """All that is read inside the block is of one moment, whoever writes meanwhile."""
        self.db.execute("BEGIN")
        try:
            yield
        finally:
            if self.db.in_transaction:
                self.db.execute("ROLLBACK")

    @contextmanager
    def writing(self, who: str, *, patience: float = 30.0) -> Iterator[None]:
        """Be the one writer inside the block. Waits up to ``patience`` seconds for another, then raises
        :class:`StoreBusy` naming it. Re-entrant. A killed writer's lock is gone with it.
        """
        if self._writing:
            yield
            return
        with locked(self.folder / "writer.lock", who, patience=patience):
            self._writing = True
            try:
                yield
            finally:
                self._writing = False

    def _forget(self) -> None:
        """Called when a transaction is rolled back: what was remembered of its rows is not true."""

    def fact(self, key: str) -> str | None:
        row = self.db.execute("SELECT value FROM facts WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])

    def set_fact(self, key: str, value: str) -> None:
        self.db.execute(
            "INSERT INTO facts VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            (key, value),
        )

    def log_run(self, stage: str, started: float, summary: Mapping[str, object]) -> None:
        """Remember that a stage ran: when (seconds since 1970), how long, and what it said."""
        with self.transaction():
            self.db.execute(
                "INSERT INTO runs (stage, started, seconds, summary) VALUES (?, ?, ?, ?)",
                (stage, started, time.time() - started, json.dumps(summary)),
            )
            self.db.execute(
                "DELETE FROM runs WHERE stage = ?1 AND id <="
                " (SELECT id FROM runs WHERE stage = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)",
                (stage, RUNS_KEPT),
            )

    def last_runs(self) -> dict[str, dict[str, object]]:
        """The newest run of each stage."""
        rows = self.db.execute(
            "SELECT stage, started, seconds, summary FROM runs WHERE id IN (SELECT max(id) FROM runs GROUP BY stage)"
            " ORDER BY id"
        )
        return {
            stage: {"started": started, "seconds": seconds, **json.loads(summary)}
            for stage, started, seconds, summary in rows
        }

    def runs(self, *, after: int = 0, since: float = 0.0, stages: Sequence[str] = ()) -> Iterator[Ran]:
        """The runs of these stages (of all, by default) that were logged after run ``after`` and did not begin before
        ``since`` (seconds since 1970), in the order of their log.
        """
        asked = f" AND stage IN ({', '.join('?' * len(stages))})" if stages else ""
        rows = self.db.execute(
            "SELECT id, stage, started, seconds, summary FROM runs WHERE id > ? AND started >= ?"
            + asked
            + " ORDER BY id",
            (after, since, *stages),
        )
        return (Ran(one, name, started, took, json.loads(told)) for one, name, started, took, told in rows)

    def newest_run(self) -> int:
        """The number of the newest run; 0 where there is none."""
        return int(self.db.execute("SELECT coalesce(max(id), 0) FROM runs").fetchone()[0])
