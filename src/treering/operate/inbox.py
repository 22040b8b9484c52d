"""The deliveries that were accepted: on the disk before they are answered, and there until their work is done.

A SQLite file in the store of the repository that they are for: a long run of the index never holds up an answer. It
remembers ids for as long as a forge may send one again; never a payload.
"""

from collections.abc import Iterable

from msgspec import Struct

from treering.operate.webhooks import Delivery
from treering.store.apart import Apart

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
LOST = "delete the file: the server, if it runs, goes on by itself, and fetches what was waiting"
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


class Inbox(Apart):
    """The inbox of a repository."""

    file, migrations, lost, promises = FILE, MIGRATIONS, LOST, True
    newest = "SELECT coalesce(max(at), 0) FROM deliveries"

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
