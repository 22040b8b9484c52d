"""The store as tables for people: views with documented columns, read-only, for ``treering sql``."""

import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

from treering.errors import UsageError
from treering.store.database import connect
from treering.store.schema import sqlite_errors

VIEWS = {
    "commits": """
        SELECT c.hash, c.position, c.branch, c.branches, c.merged_by, c.subject, c.body,
            c.author_name, c.author_email, datetime(c.author_time, 'unixepoch') AS author_date,
            c.committer_name, c.committer_email, datetime(c.committer_time, 'unixepoch') AS commit_date,
            c.parents, c.parents LIKE '% %' AS is_merge, c.diff_complete, c.flags, c.patch_id,
            (SELECT e.hash FROM main.commits e WHERE e.patch_id = c.patch_id AND e.patch_id != ''
                AND e.position < c.position ORDER BY e.position LIMIT 1) AS same_patch_as,
            (SELECT count(*) FROM main.changes WHERE commit_id = c.id) AS files,
            (SELECT coalesce(sum(insertions), 0) FROM main.changes WHERE commit_id = c.id) AS insertions,
            (SELECT coalesce(sum(deletions), 0) FROM main.changes WHERE commit_id = c.id) AS deletions
        FROM main.commits c WHERE c.position IS NOT NULL""",
    "changes": """
        SELECT c.hash, c.position, d.status, p.path, o.path AS old_path, p.kind, d.insertions, d.deletions, d.binary,
            d.submodule, c.parents LIKE '% %' AS is_merge
        FROM main.changes d JOIN main.commits c ON c.id = d.commit_id JOIN main.paths p ON p.id = d.path_id
            LEFT JOIN main.paths o ON o.id = d.old_path_id
        WHERE c.position IS NOT NULL""",
    "mentions": """
        SELECT c.hash, kind.key AS kind, value.value FROM main.commits c, json_each(c.refers) kind,
            json_each(kind.value) value WHERE c.position IS NOT NULL""",
    "authors": """
        SELECT author_email AS email, max(author_name) AS name, count(*) AS commits, sum(is_merge) AS merges,
            sum(CASE WHEN is_merge THEN 0 ELSE insertions END) AS insertions,
            sum(CASE WHEN is_merge THEN 0 ELSE deletions END) AS deletions,
            min(author_date) AS first, max(author_date) AS last
        FROM temp.commits GROUP BY author_email""",
    "churn": """
        SELECT p.path, p.kind, count(*) AS commits, sum(d.insertions) AS insertions, sum(d.deletions) AS deletions,
            datetime(min(c.author_time), 'unixepoch') AS first, datetime(max(c.author_time), 'unixepoch') AS last
        FROM main.changes d JOIN main.commits c ON c.id = d.commit_id JOIN main.paths p ON p.id = d.path_id
        WHERE c.position IS NOT NULL AND c.parents NOT LIKE '% %' GROUP BY p.id""",
    "co_change": """
        WITH small AS (
            SELECT d.commit_id, d.path_id FROM main.changes d JOIN main.commits c ON c.id = d.commit_id
            WHERE c.position IS NOT NULL AND c.parents NOT LIKE '% %'
                AND (SELECT count(*) FROM main.changes WHERE commit_id = c.id) <= 30
        ), alone AS (SELECT path_id, count(*) AS commits FROM small GROUP BY path_id)
        SELECT a.path, b.path AS other, count(*) AS together, n.commits, round(1.0 * count(*) / n.commits, 3) AS share
        FROM small x JOIN small y ON y.commit_id = x.commit_id AND y.path_id != x.path_id
            JOIN alone n ON n.path_id = x.path_id JOIN main.paths a ON a.id = x.path_id
            JOIN main.paths b ON b.id = y.path_id
        GROUP BY x.path_id, y.path_id""",
}
"""Of reachable commits. ``authors``, ``churn`` and ``co_change`` do not count the lines and files of merges, which were
counted with the commits that the merges brought; ``co_change`` leaves out commits of over 30 files.
"""

_READS = frozenset({
    sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE,
})  # fmt: skip


def ask(path: Path, query: str, *, seconds: float) -> tuple[Sequence[str], Iterator[tuple[object, ...]]]:
    """The names of the columns and the rows of one query. Nothing is written, and no other file is opened.

    Raises :class:`UsageError` for a query that is none, writes, or takes longer than ``seconds``.
    """
    with sqlite_errors(path):
        db = connect(path, "ro")
        for name, view in VIEWS.items():
            db.execute(f"CREATE TEMP VIEW {name} AS {view}")
    deadline = time.monotonic() + seconds
    late = False

    def check() -> bool:
        nonlocal late
        late = time.monotonic() > deadline
        return late

    db.set_progress_handler(check, 10_000)
    db.set_authorizer(lambda action, *_: sqlite3.SQLITE_OK if action in _READS else sqlite3.SQLITE_DENY)

    def refused(error: Exception) -> UsageError:
        if late:
            return UsageError(f"the query took longer than {seconds:g} s", "give --seconds more, or ask for less")
        return UsageError(f"the query cannot be answered: {error}", f"views: {', '.join(VIEWS)}; see docs/history.md")

    try:
        cursor = db.execute(query)
        if cursor.description is None:
            raise UsageError("that is no query", "begin it with SELECT or WITH")
    except (sqlite3.Error, sqlite3.Warning, UnicodeError) as error:
        db.close()
        raise refused(error) from error
    except UsageError:
        db.close()
        raise

    def rows() -> Iterator[tuple[object, ...]]:
        with closing(db):
            try:
                yield from cursor
            except sqlite3.Error as error:
                raise refused(error) from error

    return [column[0] for column in cursor.description], rows()
