"""What was said at the forge: the texts of its requests and issues, without secrets, and their words, in a file of the
store.

SQLite of its own, so that fetching never holds up the index. A text and its words go in together, so what was fetched
is found at once. A fetch that was killed is made again from where the last whole one came; what it brought is kept.
"""

import json
import re
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import msgspec
from msgspec.structs import replace

from treering.errors import StoreError
from treering.operate.forge import Thread
from treering.search.discussed import Key, Said
from treering.store.apart import Apart
from treering.store.schema import sqlite_errors
from treering.text import document
from treering.text.references import references
from treering.text.words import forms, written
from treering.types import Record

FILE = "forge.db"
LONGEST = 20_000
"""Characters of a text that are kept."""

MIGRATIONS = (
    """
    CREATE TABLE threads (
        number INTEGER NOT NULL,
        kind TEXT NOT NULL,
        title TEXT NOT NULL,
        body TEXT NOT NULL,
        author TEXT NOT NULL,
        state TEXT NOT NULL,
        created TEXT NOT NULL,
        updated TEXT NOT NULL,
        url TEXT NOT NULL,
        commits TEXT NOT NULL, -- what it was merged as, as JSON
        PRIMARY KEY (kind, number)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE come (source TEXT PRIMARY KEY, updated TEXT NOT NULL) STRICT, WITHOUT ROWID;
    """,
    """
    -- how many words it is found by, NULL until they are indexed; and the issues that it says it closes, as JSON
    ALTER TABLE threads ADD COLUMN length INTEGER;
    ALTER TABLE threads ADD COLUMN fixes TEXT NOT NULL DEFAULT '[]';
    CREATE TABLE words (
        word TEXT NOT NULL, kind TEXT NOT NULL, number INTEGER NOT NULL, count INTEGER NOT NULL,
        PRIMARY KEY (word, kind, number)
    ) STRICT, WITHOUT ROWID;
    -- by which rules the words were read; and a number that is another one once a text is
    CREATE TABLE facts (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
    """,
)
LOST = "delete the file: `treering forge pull` fetches it again"
"""The way out of a damaged one."""
_COLUMNS = "kind, number, title, body, author, state, created, updated, url, commits"

Redact = Callable[[str, Counter[str]], str]


class Threads(Apart):
    """What was said, open."""

    file, migrations, lost = FILE, MIGRATIONS, LOST
    newest = "SELECT coalesce(max(CAST(strftime('%s', updated) AS INTEGER)), 0) FROM come"

    def come(self, source: str) -> str:
        """How far the last fetch from a source came, in the forge's words; empty at the beginning."""
        row = self.db.execute("SELECT updated FROM come WHERE source = ?", (source,)).fetchone()
        return str(row[0]) if row else ""

    def keep(self, threads: Iterable[Thread], redact: Redact) -> int:
        """Keep a page, without its secrets; returns how many of it are new or other than before."""
        changed, told = 0, []
        with self._changing() as db:
            for one in threads:
                found: Counter[str] = Counter()
                title, body = redact(one.title[:LONGEST], found), redact(one.body[:LONGEST], found)
                row = (
                    one.kind, one.number, title, body, one.author, one.state, one.created, one.updated, one.url,
                    json.dumps(one.commits),
                )  # fmt: skip
                before = db.execute(
                    f"SELECT {_COLUMNS} FROM threads WHERE kind = ? AND number = ?", (one.kind, one.number)
                ).fetchone()
                if before != row:
                    changed += 1
                    told += [f"{one.kind}{one.number}"] if before else []
                    db.execute(
                        f"INSERT OR REPLACE INTO threads ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row
                    )
            if told:
                known = json.dumps(told)
                db.execute("DELETE FROM words WHERE kind || number IN (SELECT value FROM json_each(?))", (known,))
            self._index(db)
        return changed

    def index(self) -> int:
        """Index the words of all texts that wait for it: where they were read by other rules, of all. Returns how many
        did.
        """
        with self._changing() as db:
            return self._index(db)

    def _index(self, db: sqlite3.Connection) -> int:
        if self._fact("reading") != document.FINGERPRINT:
            db.execute("DELETE FROM words")
            db.execute("UPDATE threads SET length = NULL")
            db.execute("INSERT OR REPLACE INTO facts VALUES ('reading', ?)", (document.FINGERPRINT,))
        waiting = db.execute("SELECT kind, number, title, body FROM threads WHERE length IS NULL").fetchall()
        for kind, number, title, body in waiting:
            text = document.discussion(title, body)
            counts: Counter[str] = Counter()
            for word, often in written(text).items():
                for form in forms(word):
                    counts[form] += often
            db.executemany(
                "INSERT INTO words VALUES (?, ?, ?, ?)", ((word, kind, number, often) for word, often in counts.items())
            )
            closes = _numbers(references(text).get("fixes", ())) if kind == "request" else []
            db.execute(
                "UPDATE threads SET length = ?, fixes = ? WHERE kind = ? AND number = ?",
                (counts.total(), json.dumps(closes), kind, number),
            )
        if waiting:
            db.execute("INSERT OR REPLACE INTO facts VALUES ('revision', ?)", (str(self.revision + 1),))
        return len(waiting)

    def _fact(self, key: str) -> str:
        row = self.db.execute("SELECT value FROM facts WHERE key = ?", (key,)).fetchone()
        return str(row[0]) if row else ""

    @property
    def revision(self) -> int:
        """Another number once any text is another one."""
        return int(self._fact("revision") or 0)

    @property
    def waiting(self) -> int:
        """How many texts wait for their words."""
        old = self._fact("reading") != document.FINGERPRINT
        return int(self.db.execute("SELECT count(*) FROM threads WHERE ? OR length IS NULL", (old,)).fetchone()[0])

    @property
    def torn(self) -> int:
        """How many texts have more or fewer words than they are said to have."""
        asked = (
            "SELECT count(*) FROM threads LEFT JOIN"
            " (SELECT kind, number, sum(count) AS found FROM words GROUP BY kind, number) USING (kind, number)"
            " WHERE length != coalesce(found, 0)"
        )
        return int(self.db.execute(asked).fetchone()[0])

    def said(self) -> list[Said]:
        """What is known of each text but its words."""
        names, numbers = msgspec.json.Decoder(tuple[str, ...]).decode, msgspec.json.Decoder(tuple[int, ...]).decode
        with sqlite_errors(self.path, self.lost):
            rows = self.db.execute("SELECT kind, number, commits, fixes, updated, length FROM threads ORDER BY 1, 2")
            return [
                Said(kind, number, names(commits), numbers(fixes), updated, length or 0)
                for kind, number, commits, fixes, updated, length in rows
            ]

    def holders(self, word: str) -> list[tuple[Key, int]]:
        """The texts that hold a word, and how often."""
        with sqlite_errors(self.path, self.lost):
            rows = self.db.execute("SELECT kind, number, count FROM words WHERE word = ?", (word,))
            return [((kind, number), often) for kind, number, often in rows]

    def reached(self, source: str, updated: str) -> None:
        """All that was updated up to a time is there."""
        with self._changing() as db:
            db.execute(
                "INSERT INTO come VALUES (?, ?) ON CONFLICT (source) DO UPDATE SET updated = excluded.updated",
                (source, updated),
            )

    def count(self) -> tuple[int, int]:
        """How many requests and how many issues there are."""
        counts = dict(self.db.execute("SELECT kind, count(*) FROM threads GROUP BY kind"))
        return counts.get("request", 0), counts.get("issue", 0)

    def of(self, commits: Sequence[str], requests: Sequence[int], issues: Sequence[int]) -> list[Thread]:
        """The requests that were merged as one of some commits or have one of some numbers, then issues: by number, and
        those that such a request closes.
        """
        found = self.db.execute(
            f"SELECT {_COLUMNS}, fixes FROM threads WHERE kind = 'request' AND"
            " (number IN (SELECT value FROM json_each(?1)) OR EXISTS"
            " (SELECT 1 FROM json_each(commits) one WHERE one.value IN (SELECT value FROM json_each(?2))))"
            " ORDER BY number",
            (json.dumps(list(requests)), json.dumps(list(commits))),
        ).fetchall()
        named = {*issues, *(number for *_, fixes in found for number in json.loads(fixes))}
        about = self.db.execute(
            f"SELECT {_COLUMNS} FROM threads WHERE kind = 'issue' AND number IN (SELECT value FROM json_each(?))"
            " ORDER BY number",
            (json.dumps(sorted(named)),),
        )
        return [_thread(row) for row in (*(row[:-1] for row in found), *about)]


def threads_of(folder: Path, commit: Record) -> list[Thread]:
    """The request that brought a commit in, and the issues that its message, its merge's or that request names, as far
    as they were fetched into a store.
    """
    said = [commit.references, references(commit.merge_message)]
    requests = _numbers([one for of in said for one in of.get("pull-requests", ())])
    issues = _numbers([one for of in said for kind in ("issues", "fixes") for one in of.get(kind, ())])
    commits = [commit.commit_hash, *([commit.merged_by] if commit.merged_by else [])]
    try:
        with Threads(folder, reading=True) as kept:
            return kept.of(commits, requests, issues)
    except (StoreError, sqlite3.DatabaseError):  # a commit is told without: `treering doctor` names the file
        return []


def touched(folder: Path) -> int | None:
    """The number of the file, None where there is none: what is open may be gone."""
    try:
        return (folder / FILE).stat().st_ino
    except OSError:
        return None


def revision_of(folder: Path) -> int | None:
    """:attr:`Threads.revision` of a store; None where nothing was fetched into it, or it cannot be read."""
    try:
        if (folder / FILE).is_file():
            with Threads(folder, reading=True) as kept:
                return kept.revision
    except (StoreError, sqlite3.DatabaseError):
        pass
    return None


def _numbers(references: Sequence[str]) -> list[int]:
    """The numbers of ``#12``; what names another repository is of that one."""
    return [int(one[1:]) for one in references if re.fullmatch(r"#\d{1,9}", one)]


def _thread(row: Sequence[object]) -> Thread:
    *told, commits = row
    made = Thread(*told)  # type: ignore[arg-type]  # the columns are its fields
    return replace(made, commits=tuple(json.loads(str(commits))))
