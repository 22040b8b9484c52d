"""The register of a fleet: which repositories are in it, and what became of each. A file beside their stores.

FLEET/fleet.db        this register
FLEET/stores/NAME/    the store of each repository, as it would be alone
FLEET/mirrors/NAME/   where one that was named by an address is fetched to
FLEET/running/NAME    there while a worker is at it: how often this run has tried
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

from msgspec import Struct

from treering.errors import StoreError
from treering.store.apart import Apart

State = Literal["waiting", "complete", "partial", "failed", "duplicate"]

MIGRATIONS = (
    """
    CREATE TABLE repositories (
        source TEXT PRIMARY KEY, -- a path or an address, as it was given
        name TEXT UNIQUE, -- NULL for what repeats another one or cannot be fetched from
        added REAL NOT NULL,
        state TEXT NOT NULL,
        stage TEXT NOT NULL DEFAULT '', cause TEXT NOT NULL DEFAULT '', hint TEXT NOT NULL DEFAULT '',
        code INTEGER NOT NULL DEFAULT 0,
        commits INTEGER NOT NULL DEFAULT 0, new INTEGER NOT NULL DEFAULT 0, vectors INTEGER NOT NULL DEFAULT 0,
        tokens INTEGER NOT NULL DEFAULT 0, bytes INTEGER NOT NULL DEFAULT 0,
        seconds REAL NOT NULL DEFAULT 0, finished REAL NOT NULL DEFAULT 0
    ) STRICT, WITHOUT ROWID;
    """,
    """
    CREATE TABLE pushed (
        url TEXT NOT NULL, collection TEXT NOT NULL, name TEXT NOT NULL, -- whose vectors are where, without a key
        PRIMARY KEY (url, collection, name)
    ) STRICT, WITHOUT ROWID;
    """,
    "ALTER TABLE repositories ADD COLUMN newest INTEGER NOT NULL DEFAULT 0",
)
LOST = "delete the file and run `treering fleet update` with the same list: the stores are kept"
"""The way out of a damaged one."""


class Repository(Struct, frozen=True, kw_only=True):
    """A repository of a fleet, and what became of it when it was last worked on.

    ``new`` are the commits that came since the last time that it was done, however often it was tried or killed in
    between; ``newest`` is the number that its store gave the last of them. ``seconds`` is what it took; the other
    figures are of all there is. One that failed before `push` has those of the last time that it was done, and 0 new.
    ``cause`` and ``hint`` say what is missing of one that is not complete, ``stage`` where it came to that, and
    ``code`` is the exit code that the same error has elsewhere (docs/errors.md).
    """

    source: str
    name: str = ""
    added: float = 0.0
    state: State = "waiting"
    stage: str = ""
    cause: str = ""
    hint: str = ""
    code: int = 0
    commits: int = 0
    new: int = 0
    newest: int = 0
    vectors: int = 0
    tokens: int = 0
    bytes: int = 0
    seconds: float = 0.0
    finished: float = 0.0


_COLUMNS = Repository.__struct_fields__


class Fleet(Apart):
    """The register, open."""

    file, migrations, lost = "fleet.db", MIGRATIONS, LOST
    newest = "SELECT coalesce(max(finished), 0) FROM repositories"

    def repositories(self, *, after: str = "", most: int = -1) -> Iterator[Repository]:
        """Those whose source comes after one, in the order of their sources, at most so many."""
        rows = self.db.execute(
            f"SELECT {', '.join(_COLUMNS)} FROM repositories WHERE source > ? ORDER BY source LIMIT ?", (after, most)
        )
        return (_repository(row) for row in rows)

    def named(self, name: str) -> Repository | None:
        row = self.db.execute(f"SELECT {', '.join(_COLUMNS)} FROM repositories WHERE name = ?", (name,)).fetchone()
        return _repository(row) if row else None

    def names(self) -> list[str]:
        """Of those that are worked on."""
        rows = self.db.execute("SELECT name FROM repositories WHERE name IS NOT NULL ORDER BY name")
        return [row[0] for row in rows]

    def keep(self, repositories: Iterable[Repository]) -> None:
        """Put down what became of some, all or none; those that are not known are added."""
        marks = ", ".join(f":{name}" for name in _COLUMNS)
        with self._changing() as db:
            db.executemany(
                f"INSERT OR REPLACE INTO repositories ({', '.join(_COLUMNS)}) VALUES ({marks})",
                (
                    {name: getattr(one, name) for name in _COLUMNS}
                    | {"name": one.name or None, "added": one.added or time.time()}
                    for one in repositories
                ),
            )

    def collections(self, names: Sequence[str]) -> list[tuple[str, str, list[str]]]:
        """The addresses of servers, the collections there, and which of some repositories were pushed into them."""
        found: dict[tuple[str, str], list[str]] = {}
        for url, collection, name in self.db.execute("SELECT url, collection, name FROM pushed ORDER BY 1, 2, 3"):
            if name in names:
                found.setdefault((url, collection), []).append(name)
        return [(*place, mine) for place, mine in found.items()]

    def pushed(self, url: str, collection: str, name: str) -> None:
        with self._changing() as db:
            db.execute("INSERT OR IGNORE INTO pushed VALUES (?, ?, ?)", (url, collection, name))

    def forget(self, sources: Iterable[str]) -> None:
        with self._changing() as db:
            gone = [(one,) for one in sources]
            db.executemany("DELETE FROM pushed WHERE name IN (SELECT name FROM repositories WHERE source = ?)", gone)
            db.executemany("DELETE FROM repositories WHERE source = ?", gone)


def _repository(row: Sequence[object]) -> Repository:
    return Repository(**{name: "" if value is None else value for name, value in zip(_COLUMNS, row, strict=True)})  # type: ignore[arg-type]


def store_of(fleet: Path, name: str) -> Path:
    return fleet / "stores" / _plain(name)


def mirror_of(fleet: Path, name: str) -> Path:
    return fleet / "mirrors" / _plain(name)


def _plain(name: str) -> str:
    """A name as a folder's. Raises :class:`StoreError` for one that leads elsewhere: it is none of ours."""
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        raise StoreError(f"{Fleet.file} names a repository {name!r}", LOST)
    return name
