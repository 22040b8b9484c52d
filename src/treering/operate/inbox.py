"""The deliveries that were accepted: on the disk before they are answered, and there until their work is done.

A SQLite file in the store of the repository that they are for: a long run of the index never holds up an answer. It
remembers ids for as long as a forge may send one again; never a payload.
"""

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from msgspec import Struct

from treering.errors import StoreError
from treering.files import os_errors
from treering.operate.webhooks import Delivery
from treering.store.database import connect, make_folder, migrate, use_wal, whole
from treering.store.schema import sqlite_errors

FILE = "deliveries.db"
KEPT = 10_000
"""How many deliveries that are done are remembered; GitHub sends one again within three days at most."""

MIGRATIONS = (
    """
    CREATE TABLE deliveries (
        number INTEGER PRIMARY KEY,
        forge TEXT NOT NULL,
        id TEXT NOT NULL,
        event TEXT NOT NULL,
        kind TEXT NOT NULL,
        ref TEXT NOT NULL,
        after TEXT NOT NULL,
        request INTEGER NOT NULL,
        action TEXT NOT NULL,
        at REAL NOT NULL, -- when it came, seconds since 1970
        state TEXT NOT NULL DEFAULT 'waiting', -- then done or failed
        tries INTEGER NOT NULL DEFAULT 0,
        due REAL NOT NULL DEFAULT 0,
        said TEXT NOT NULL DEFAULT '', -- what came of it
        UNIQUE (forge, id)
    ) STRICT;
    CREATE INDEX deliveries_waiting ON deliveries (due) WHERE state = 'waiting';
    """,
)
LOST = "delete the file: what was waiting is fetched when the server starts"
"""The way out of a damaged one."""


class Waiting(Struct, frozen=True):
    """An accepted delivery whose work is to be done, or done again."""

    number: int
    kind: str
    event: str
    ref: str
    after: str
    request: int
    action: str
    tries: int


class Figures(Struct, frozen=True):
    """How the deliveries of a repository stand, and what the last one that failed failed of."""

    waiting: int = 0
    done: int = 0
    failed: int = 0
    error: str = ""


class Inbox:
    """An open inbox, made where there is none. Use with ``with``, in one thread."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        self._db: sqlite3.Connection | None = None

    def __enter__(self) -> Self:
        if not self.path.is_file():
            make_folder(self.path.parent)
        with os_errors(self.path), self.path.open("ab"):
            pass
        with sqlite_errors(self.path, LOST):
            db = connect(self.path)
            try:
                use_wal(db)
                # What was answered as accepted must be there after a power cut, too.
                db.execute("PRAGMA synchronous=FULL")
                migrate(db, self.path, MIGRATIONS, LOST)
            except BaseException:
                db.close()
                raise
        self._db = db
        return self

    def __exit__(self, *_: object) -> None:
        if self._db:
            db, self._db = self._db, None
            db.close()

    @contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        if self._db is None:
            raise StoreError(f"the inbox {self.path} is not open")
        with sqlite_errors(self.path, LOST), whole(self._db):
            yield self._db

    def accept(self, deliveries: Iterable[Delivery], now: float) -> list[bool]:
        """Keep deliveries, all in one transaction; each is whether it is new, or had failed. On the disk when this
        returns.
        """
        with self._changing() as db:
            return [
                db.execute(
                    "INSERT INTO deliveries (forge, id, event, kind, ref, after, request, action, at)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (forge, id) DO UPDATE"
                    " SET state = 'waiting', tries = 0, due = 0, at = excluded.at WHERE state = 'failed'",
                    (one.forge, one.id, one.event, one.kind, one.ref, one.after, one.number, one.action, now),
                ).rowcount
                == 1
                for one in deliveries
            ]

    def due(self, now: float) -> list[Waiting]:
        """What is to be done now, in the order in which it came."""
        with self._changing() as db:
            rows = db.execute(
                "SELECT number, kind, event, ref, after, request, action, tries FROM deliveries"
                " WHERE state = 'waiting' AND due <= ? ORDER BY number",
                (now,),
            )
            return [Waiting(*row) for row in rows]

    def next_due(self) -> float | None:
        """When something is to be done, in seconds since 1970; None if nothing waits."""
        with self._changing() as db:
            found: float | None = db.execute("SELECT min(due) FROM deliveries WHERE state = 'waiting'").fetchone()[0]
            return found

    def settle(self, done: Iterable[tuple[int, str]], failed: Iterable[tuple[int, str]] = ()) -> None:
        """Say what came of deliveries, each with a word; old ones are forgotten."""
        with self._changing() as db:
            for state, some in (("done", done), ("failed", failed)):
                db.executemany(
                    "UPDATE deliveries SET state = ?, said = ? WHERE number = ? AND state = 'waiting'",
                    ((state, said, number) for number, said in some),
                )
            db.execute(
                "DELETE FROM deliveries WHERE state != 'waiting' AND number <="
                " (SELECT number FROM deliveries ORDER BY number DESC LIMIT 1 OFFSET ?)",
                (KEPT,),
            )

    def postpone(self, numbers: Iterable[int], due: float, said: str) -> None:
        """Try again later."""
        with self._changing() as db:
            db.executemany(
                "UPDATE deliveries SET tries = tries + 1, due = ?, said = ? WHERE number = ? AND state = 'waiting'",
                ((due, said, number) for number in numbers),
            )

    def figures(self) -> Figures:
        with self._changing() as db:
            counts = dict(db.execute("SELECT state, count(*) FROM deliveries GROUP BY state"))
            last = db.execute(
                "SELECT said FROM deliveries WHERE state = 'failed' OR state = 'waiting' AND tries > 0"
                " ORDER BY number DESC LIMIT 1"
            ).fetchone()
        return Figures(
            counts.get("waiting", 0), counts.get("done", 0), counts.get("failed", 0), last[0] if last else ""
        )
