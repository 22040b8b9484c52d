"""A SQLite file of its own beside the index, so that a long run that writes the index never holds it up."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import ClassVar, Self

from treering.errors import StoreError
from treering.files import os_errors
from treering.store.database import connect, identity, make_folder, migrate, use_wal, whole
from treering.store.schema import meant, sqlite_errors


class Apart:
    """Such a file, open; made where there is none. With ``reading`` nothing is made: one that is not there is empty,
    and one that may only be read is read. Use with ``with``, in one thread.
    """

    file: ClassVar[str]
    migrations: ClassVar[Sequence[str]]
    lost: ClassVar[str]
    """The way out of a damaged one."""
    promises: ClassVar[bool] = False
    """Whether what was committed must be there after a power cut, too: somebody acts on it at once."""
    newest: ClassVar[str]
    """Asks when the newest of what it holds came, in seconds since 1970."""

    def __init__(self, folder: Path, *, reading: bool = False) -> None:
        self.path = folder / self.file
        self.reading = reading
        self._db: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None

    def __enter__(self) -> Self:
        left = self.path.with_name(f"{self.path.name}-wal").exists()  # before: a file that is there is made first
        there = self.path.is_file()
        if not self.reading:
            if not there:
                make_folder(self.path.parent)
                if left:
                    self.drop_log()
            with os_errors(self.path), self.path.open("ab"):
                pass  # said here, in words: SQLite would open it for reading and fail at the first change
        with sqlite_errors(self.path, self.lost):
            empty = self.reading and not there
            db = sqlite3.connect(":memory:", isolation_level=None) if empty else connect(self.path)
            try:
                if not self.reading:
                    use_wal(db)
                    if self.promises:
                        db.execute("PRAGMA synchronous=FULL")
                migrate(db, self.path, self.migrations, self.lost)
            except BaseException:
                db.close()
                raise
        self._db, self._file = db, identity(self.path)
        return self

    def __exit__(self, _: object, error: object, __: object) -> None:
        if self._db:
            db, self._db = self._db, None
            db.close()
        if isinstance(error, sqlite3.DatabaseError):  # met while reading: a change names it on the spot
            raise meant(error, self.path, self.lost) from error

    @property
    def db(self) -> sqlite3.Connection:
        if self._db is None:
            raise StoreError(f"{self.path} is not open")
        return self._db

    @classmethod
    def last_change(cls, folder: Path) -> float | None:
        """When the newest of what it holds came; None for one that is not there, or that cannot be read."""
        path = folder / cls.file
        if not path.is_file():
            return None
        try:
            with closing(connect(path, "ro")) as db:
                if db.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
                    return None
                return float(db.execute(cls.newest).fetchone()[0])
        except sqlite3.DatabaseError:
            return None

    @property
    def gone(self) -> bool:
        """Whether another file, or none, has the name of the one that is open: what is written here then is lost."""
        return identity(self.path) != self._file

    def drop_log(self) -> None:
        """Remove what a file that was taken away left beside it: SQLite would take its log for that of the next one."""
        with os_errors(self.path):
            for log in ("-wal", "-shm"):
                self.path.with_name(f"{self.path.name}{log}").unlink(missing_ok=True)

    def touched(self) -> int:
        """A number that is another one once another connection has written here."""
        return int(self.db.execute("PRAGMA data_version").fetchone()[0])

    @contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        """One transaction. What SQLite complains of is an error of ours that names the file and the way out."""
        with sqlite_errors(self.path, self.lost), whole(self.db):
            yield self.db
