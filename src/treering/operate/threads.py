"""What was said at the forge: the texts of its requests and issues, without secrets, in a file of the store.

SQLite of its own, so that fetching never holds up the index. A fetch that was killed is made again from where the last
whole one came; what it brought is kept.
"""

import json
import re
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from msgspec.structs import replace

from treering.errors import StoreError
from treering.operate.forge import Thread
from treering.store.apart import Apart
from treering.text.references import pull_request
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
)
LOST = "delete the file: `treering forge pull` fetches it again"
"""The way out of a damaged one."""
_COLUMNS = "kind, number, title, body, author, state, created, updated, url, commits"

Redact = Callable[[str, Counter[str]], str]


class Threads(Apart):
    """What was said, open."""

    file, migrations, lost = FILE, MIGRATIONS, LOST

    def come(self, source: str) -> str:
        """How far the last fetch from a source came, in the forge's words; empty at the beginning."""
        row = self.db.execute("SELECT updated FROM come WHERE source = ?", (source,)).fetchone()
        return str(row[0]) if row else ""

    def keep(self, threads: Iterable[Thread], redact: Redact) -> int:
        """Keep a page, without its secrets; returns how many of it are new or other than before."""
        changed = 0
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
                    db.execute(
                        f"INSERT OR REPLACE INTO threads ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row
                    )
        return changed

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
        """The requests that were merged as one of some commits or have one of some numbers, then issues by number."""
        rows = self.db.execute(
            f"SELECT {_COLUMNS} FROM threads WHERE kind = 'request' AND (number IN (SELECT value FROM json_each(?1))"
            " OR EXISTS (SELECT 1 FROM json_each(commits) one WHERE one.value IN (SELECT value FROM json_each(?2))))"
            " OR kind = 'issue' AND number IN (SELECT value FROM json_each(?3)) ORDER BY kind DESC, number",
            (json.dumps(list(requests)), json.dumps(list(commits)), json.dumps(list(issues))),
        )
        return [_thread(row) for row in rows]


def threads_of(folder: Path, commit: Record) -> list[Thread]:
    """The request that brought a commit in, and the issues that its message names, as far as they were fetched into a
    store.
    """
    said = commit.references
    merged = pull_request(commit.merge_message)
    requests = [*_numbers(said.get("pull-requests", ())), *([merged] if merged else [])]
    issues = _numbers((*said.get("issues", ()), *said.get("fixes", ())))
    commits = [commit.commit_hash, *([commit.merged_by] if commit.merged_by else [])]
    try:
        with Threads(folder, reading=True) as kept:
            return kept.of(commits, requests, issues)
    except (StoreError, sqlite3.DatabaseError):  # a commit is told without: `treering doctor` names the file
        return []


def _numbers(references: Sequence[str]) -> list[int]:
    """The numbers of ``#12``; what names another repository is of that one."""
    return [int(one[1:]) for one in references if re.fullmatch(r"#\d{1,9}", one)]


def _thread(row: Sequence[object]) -> Thread:
    *told, commits = row
    made = Thread(*told)  # type: ignore[arg-type]  # the columns are its fields
    return replace(made, commits=tuple(json.loads(str(commits))))
