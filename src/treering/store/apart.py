"""A SQLite file of its own beside the index, so that a long run that writes the index never holds it up."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, Self

from treering.errors import StoreError
from treering.files import os_errors
from treering.store.database import connect, make_folder, migrate, use_wal, whole
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

    def __init__(self, folder: Path, *, reading: bool = False) -> None:
        self.path = folder / self.file
        self.reading = reading
        self._db: sqlite3.Connection | None = None

    def __enter__(self) -> Self:
        there = self.path.is_file()
        if not self.reading:
            if not there:
                make_folder(self.path.parent)
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
        self._db = db
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

    @contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        """One transaction. What SQLite complains of is an error of ours that names the file and the way out."""
        with sqlite_errors(self.path, self.lost), whole(self.db):
            yield self.db
