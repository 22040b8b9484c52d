"""The tables of commits: what git states about each, and where the refs have it now."""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from treering.store.database import Database
from treering.types import Changed, Commit, FileChange, Headline, Placed, Record, Stretch, message_of, record_of

BATCH = 256
"""How many commits go in with one transaction."""

Place = tuple[int | None, str | None, str | None, str | None]

_GLOB = re.compile(r"[*?[]")
_FACTS = (
    "hash", "author_name", "author_email", "author_time", "author_offset", "committer_name", "committer_email",
    "committer_time", "committer_offset", "subject", "body",
)  # fmt: skip
"""Columns that are fields of :class:`Commit` by the same name."""
_OF_HUNKS = frozenset({"patch_id", "reverse_id", "redacted"})
_CHANGE = ("status", "path", "old_path", "insertions", "deletions", "binary", "submodule")
_COMMIT = f"""
    SELECT c.id, c.position, c.branch, c.branches, c.merged_by, c.parents, c.unreadable, c.flags, c.diff_complete,
        c.refers, c.redacted, c.patch_id, c.reverse_id,
        CASE WHEN c.patch_id != '' THEN (SELECT e.hash FROM commits e WHERE e.patch_id = c.patch_id AND e.patch_id != ''
            AND e.position < c.position ORDER BY e.position LIMIT 1) END,
        CASE WHEN c.reverse_id != '' THEN (SELECT e.hash FROM commits e WHERE e.patch_id = c.reverse_id
            AND e.patch_id != '' AND e.position < c.position ORDER BY e.position DESC LIMIT 1) END,
        m.subject, m.body, t.message, {", ".join(f"c.{name}" for name in _FACTS)}
    FROM commits c LEFT JOIN commits m ON m.hash = c.merged_by LEFT JOIN merge_messages t ON t.hash = c.merged_by"""

_REFERS = """refers LIKE '%"{0}"%' AND EXISTS (SELECT 1 FROM json_each(refers, '$."{0}"') one
    WHERE length(one.value) >= 7 AND one.value = substr(?2, 1, length(one.value)))"""
"""Whether a message refers so to the commit ``?2``, by the beginning of its hash."""


def _row(commit: Commit) -> dict[str, object]:
    """A commit as columns."""
    return {name: getattr(commit, name) for name in _FACTS} | {
        "parents": " ".join(commit.parents),
        "diff_complete": commit.diff_complete,
        "unreadable": json.dumps(commit.unreadable),
        "flags": " ".join(commit.flags),
        "refers": json.dumps(commit.references),
        "redacted": json.dumps(commit.redacted),
        "patch_id": commit.patch_id,
        "reverse_id": commit.reverse_id,
    }


class CommitTables(Database):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._paths: dict[str, int] = {}

    def _forget(self) -> None:
        self._paths.clear()

    def known(self) -> set[str]:
        """The hashes of every commit in the store, vanished ones included."""
        return {row[0] for row in self.db.execute("SELECT hash FROM commits")}

    def append(self, commits: Sequence[Commit], reading: str = "") -> None:
        """Add commits, all or none. One that is known already is left as it is."""
        with self.transaction():
            for commit in commits:
                self._append(commit, reading)

    def mend(self, commit: Commit, reading: str = "") -> None:
        """Put another reading of a known commit in the place of the old one; the index must be made anew."""
        with self.transaction():
            (commit_id,) = self.db.execute("SELECT id FROM commits WHERE hash = ?", (commit.hash,)).fetchone()
            self.db.execute("DELETE FROM changes WHERE commit_id = ?", (commit_id,))
            facts = _row(commit) | {"reading": reading}
            self.db.execute(
                f"UPDATE commits SET {', '.join(f'{name} = ?' for name in facts)} WHERE id = ?",
                (*facts.values(), commit_id),
            )
            self._add_changes(commit_id, commit)

    def set_patch_ids(self, commits: Iterable[Commit]) -> None:
        """Name the patches of known commits, and count the secrets that their hunks held."""
        with self.transaction():
            self.db.executemany(
                "UPDATE commits SET patch_id = ?, reverse_id = ?, redacted = ? WHERE hash = ?",
                ((one.patch_id, one.reverse_id, json.dumps(one.redacted), one.hash) for one in commits),
            )

    def differences(self, commit: Commit, *, hunks: bool) -> list[str]:
        """What the store holds of a known commit otherwise than it was read now; ``hunks`` says whether what follows
        from them is compared too.
        """
        facts = _row(commit)
        if not hunks:
            facts = {name: value for name, value in facts.items() if name not in _OF_HUNKS}
        row = self.db.execute(f"SELECT {', '.join(facts)} FROM commits WHERE hash = ?", (commit.hash,)).fetchone()
        found = [name for (name, value), kept in zip(facts.items(), row, strict=True) if value != kept]
        changes = self.db.execute(
            "SELECT status, p.path, o.path, insertions, deletions, binary, submodule FROM changes"
            " JOIN commits c ON c.id = commit_id JOIN paths p ON p.id = path_id LEFT JOIN paths o ON o.id = old_path_id"
            " WHERE hash = ? ORDER BY number",
            (commit.hash,),
        ).fetchall()
        if changes != [tuple(getattr(one, name) for name in _CHANGE) for one in commit.changes]:
            found.append("changes")
        return found

    def weak(self) -> set[str]:
        """Hashes of the commits whose diff may be read better once more objects are there."""
        return {
            row[0]
            for row in self.db.execute(
                "SELECT hash FROM commits WHERE (NOT diff_complete OR flags != '')"
                " AND (NOT diff_complete OR flags LIKE '%shallow%')"
            )
        }

    def _append(self, commit: Commit, reading: str) -> None:
        row = _row(commit) | {"reading": reading}
        columns, values = ", ".join(row), ", ".join("?" * len(row))
        cursor = self.db.execute(
            f"INSERT INTO commits ({columns}) VALUES ({values}) ON CONFLICT (hash) DO NOTHING", tuple(row.values())
        )
        if cursor.rowcount:
            self._add_changes(cursor.lastrowid or 0, commit)

    def _add_changes(self, commit_id: int, commit: Commit) -> None:
        self.db.executemany(
            "INSERT INTO changes VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                (
                    commit_id, number, change.status, self._path_id(change.path),
                    None if change.old_path is None else self._path_id(change.old_path),
                    change.insertions, change.deletions, change.binary, change.submodule,
                )
                for number, change in enumerate(commit.changes)
            ),
        )  # fmt: skip

    def _path_id(self, path: str) -> int:
        if not self._paths:
            self._paths.update(self.db.execute("SELECT path, id FROM paths"))
        if path not in self._paths:
            self._paths[path] = self.db.execute("INSERT INTO paths (path) VALUES (?)", (path,)).lastrowid or 0
        return self._paths[path]

    def placed(self) -> dict[str, Place]:
        """Where every commit of the store stands: hash to (position, branch, branches as JSON, merged by)."""
        rows = self.db.execute("SELECT hash, position, branch, branches, merged_by FROM commits")
        return {row[0]: row[1:] for row in rows}

    def read_otherwise(self, reading: str) -> set[str]:
        """The hashes of the commits that were read by other rules than these."""
        return {row[0] for row in self.db.execute("SELECT hash FROM commits WHERE reading != ?", (reading,))}

    def place(self, places: Iterable[Placed], before: dict[str, Place] | None = None) -> tuple[int, int]:
        """Put every commit where the refs have it now, in order; those not named have vanished and are kept, with
        no place. ``before`` is what :meth:`placed` said, if it was asked. Returns how many are in place and how many
        vanished.
        """
        with self.transaction():
            before = self.placed() if before is None else before
            moved = []
            count = 0
            written: dict[tuple[str, ...], str] = {}
            for count, place in enumerate(places, start=1):
                if place.branches not in written:
                    written[place.branches] = json.dumps(place.branches)
                now = (count, place.branch, written[place.branches], place.merged_by)
                if before.pop(place.hash, None) != now:
                    moved.append((*now, place.hash))
            self.db.executemany(
                "UPDATE commits SET position = ?, branch = ?, branches = ?, merged_by = ? WHERE hash = ?", moved
            )
            gone = [(hash_,) for hash_, (position, *_) in before.items() if position is not None]
            self.db.executemany("UPDATE commits SET position = NULL WHERE hash = ?", gone)
            if moved or gone:
                self.set_fact("silent", "")  # whose message says nothing is to be found out again
        return count, len(before)

    def paths(self) -> dict[str, str]:
        """Every path in the store, with its kind."""
        return dict(self.db.execute("SELECT path, kind FROM paths"))

    def set_kinds(self, kinds: Mapping[str, str]) -> None:
        """Say what kind of file some paths name."""
        with self.transaction():
            self.db.executemany("UPDATE paths SET kind = ?2 WHERE path = ?1 AND kind != ?2", list(kinds.items()))

    def patch_ids(self, ids: Iterable[int]) -> dict[int, str]:
        """The names of the patches of some commits; empty where none was read."""
        found = {}
        for commit_id in ids:
            (patch_id,) = self.db.execute("SELECT patch_id FROM commits WHERE id = ?", (commit_id,)).fetchone()
            found[commit_id] = patch_id or ""
        return found

    def redactions(self) -> dict[str, dict[str, int]]:
        """Hash to the secrets taken out of a commit, by rule; commits without any are left out."""
        rows = self.db.execute("SELECT hash, redacted FROM commits WHERE redacted != '{}' ORDER BY position, id")
        return {name: json.loads(redacted) for name, redacted in rows}

    def repeated(self) -> int:
        """How many reachable commits have the patch of another one before them."""
        row = self.db.execute(
            "SELECT count(*) - count(DISTINCT patch_id) FROM commits WHERE patch_id != '' AND position IS NOT NULL"
        )
        return int(row.fetchone()[0])

    def merges_untold(self) -> list[str]:
        """The merges that brought commits and whose message is not in the store."""
        rows = self.db.execute(
            "SELECT DISTINCT merged_by FROM commits WHERE position IS NOT NULL AND merged_by IS NOT NULL"
            " AND merged_by NOT IN (SELECT hash FROM commits) AND merged_by NOT IN (SELECT hash FROM merge_messages)"
        )
        return [row[0] for row in rows]

    def set_merge_messages(self, messages: Mapping[str, str]) -> None:
        with self.transaction():
            self.db.executemany("INSERT OR REPLACE INTO merge_messages VALUES (?, ?)", messages.items())

    def forget_merge_messages(self) -> None:
        self.db.execute("DELETE FROM merge_messages")

    def strange_dates(self) -> bool:
        """Whether a committer date is absurd, or one that no commit-graph holds: it has 34 bits for them."""
        row = self.db.execute(
            "SELECT 1 FROM commits WHERE flags LIKE '%committer-date%' OR committer_time >= 1 << 34 LIMIT 1"
        )
        return row.fetchone() is not None

    def count(self, *, after: int = 0) -> int:
        """How many commits are reachable, of those that were stored later than a number."""
        row = self.db.execute("SELECT count(*) FROM commits WHERE position IS NOT NULL AND id > ?", (after,))
        return int(row.fetchone()[0])

    def vanished(self) -> int:
        """How many commits are no longer reachable or chosen. None before a first scrape was complete."""
        if self.fact("tips") is None:
            return 0
        return int(self.db.execute("SELECT count(*) FROM commits WHERE position IS NULL").fetchone()[0])

    def partial(self) -> int:
        """How many reachable commits have a diff that is not whole."""
        row = self.db.execute(
            "SELECT count(*) FROM commits WHERE (NOT diff_complete OR flags != '')"
            " AND position IS NOT NULL AND NOT diff_complete"
        )
        return int(row.fetchone()[0])

    def indexed(self) -> int:
        """How many reachable commits the lexical index holds."""
        return int(
            self.db.execute(
                "SELECT count(*) FROM documents JOIN commits ON id = commit_id"
                " WHERE position IS NOT NULL AND lengths IS NOT NULL"
            ).fetchone()[0]
        )

    def of_author(self, author: str) -> list[int]:
        """Ids of the reachable commits whose author's name or address holds this, in any case."""
        wanted = author.casefold()
        rows = self.db.execute("SELECT id, author_name, author_email FROM commits WHERE position IS NOT NULL")
        return [number for number, name, email in rows if wanted in f"{name} <{email}>".casefold()]

    def of_branch(self, branch: str) -> list[int]:
        """Ids of the reachable commits that are on a branch."""
        rows = self.db.execute(
            "SELECT commits.id FROM commits, json_each(branches) one WHERE position IS NOT NULL AND one.value = ?",
            (branch,),
        )
        return [row[0] for row in rows]

    def of_path(self, path: str) -> list[int]:
        """Ids of the reachable commits that change a path, or something in a folder of that name, or what a pattern
        with ``*`` fits; under its old name too.
        """
        pattern = path.rstrip("/") if "*" in path else _GLOB.sub(r"[\g<0>]", path.rstrip("/"))
        rows = self.db.execute(
            "WITH wanted AS (SELECT id FROM paths WHERE path GLOB ?1 OR path GLOB ?1 || '/*')"
            " SELECT id FROM commits WHERE position IS NOT NULL AND id IN (SELECT commit_id FROM changes"
            " WHERE path_id IN wanted OR old_path_id IN wanted) ORDER BY position",
            (pattern,),
        )
        return [row[0] for row in rows]

    def touching(self, paths: Iterable[str]) -> list[int]:
        """Ids of the reachable commits that change one of these paths, under its old name too."""
        rows = self.db.execute(
            "WITH wanted AS (SELECT id FROM paths WHERE path IN (SELECT value FROM json_each(?)))"
            " SELECT id FROM commits WHERE position IS NOT NULL AND id IN (SELECT commit_id FROM changes"
            " WHERE path_id IN wanted OR old_path_id IN wanted)",
            (json.dumps(list(paths)),),
        )
        return [row[0] for row in rows]

    def of_kind(self, kind: str) -> list[int]:
        """Ids of the reachable commits that change a file of a kind."""
        rows = self.db.execute(
            "SELECT DISTINCT commits.id FROM commits JOIN changes ON commit_id = commits.id"
            " JOIN paths ON paths.id = path_id WHERE position IS NOT NULL AND kind = ?",
            (kind,),
        )
        return [row[0] for row in rows]

    def knows_path(self, path: str) -> bool:
        """Whether some commit changed a file of exactly that name."""
        return self.db.execute("SELECT 1 FROM paths WHERE path = ?", (path,)).fetchone() is not None

    def mentioning(self, number: str) -> list[int]:
        """Ids of the reachable commits whose message refers to ``owner/name#12``, in any case; or to ``#12``, of
        whichever repository.
        """
        rows = self.db.execute(
            "SELECT DISTINCT commits.id FROM commits, json_each(refers) kind, json_each(kind.value) one"
            " WHERE position IS NOT NULL"
            " AND ?1 COLLATE NOCASE IN (one.value, substr(one.value, instr(one.value, '#')))",
            (number,),
        )
        return [row[0] for row in rows]

    def cited(self) -> list[tuple[int, str, int]]:
        """What the messages of the reachable commits name of this repository's own requests and issues: commit id, kind
        of the reference, number.
        """
        return self.db.execute(
            "SELECT commits.id, kind.key, CAST(substr(one.value, 2) AS INTEGER)"
            " FROM commits, json_each(refers) kind, json_each(kind.value) one"
            " WHERE position IS NOT NULL AND refers != '{}' AND kind.key IN ('fixes', 'issues', 'pull-requests')"
            " AND one.value LIKE '#%'"
        ).fetchall()

    def later(self, name: str) -> list[tuple[str, str]]:
        """The reachable commits after one that undo, revert, fix or repeat it, oldest first: by their patch, by what
        their message refers to, or by its subject. Each with what it does to ``{}``, the one.
        """
        position, subject, patch_id, reverse_id = self.db.execute(
            "SELECT position, subject, patch_id, reverse_id FROM commits WHERE hash = ?", (name,)
        ).fetchone()
        found: dict[str, str] = {}
        for query, value, why in (
            ("patch_id = ?2 AND patch_id != ''", reverse_id, "it undoes {}"),
            ("subject = ?2", f'Revert "{subject}"', "it reverts {}"),
            (_REFERS.format("reverts"), name, "it says that it reverts {}"),
            (_REFERS.format("fixes"), name, "it says that it fixes {}"),
            (_REFERS.format("cherry-picked-from"), name, "it says that it was picked from {}"),
            ("patch_id = ?2 AND patch_id != ''", patch_id, "it has the same patch as {}"),
        ):
            rows = self.db.execute(
                f"SELECT hash FROM commits WHERE position > ?1 AND {query} ORDER BY position", (position, value)
            )
            for (other,) in rows:
                found.setdefault(other, why)
        return list(found.items())

    def message(self, commit_id: int) -> str:
        """Subject and body of a commit."""
        return message_of(*self.db.execute("SELECT subject, body FROM commits WHERE id = ?", (commit_id,)).fetchone())

    def touches(self) -> list[tuple[int, int]]:
        """(commit id, path id) of every change of the reachable commits."""
        return self.db.execute(
            "SELECT commit_id, path_id FROM changes JOIN commits ON id = commit_id WHERE position IS NOT NULL"
        ).fetchall()

    def lines_of(self, ids: Iterable[int]) -> list[tuple[int, str, int]]:
        """(commit id, path, lines added and removed) of every change of some commits."""
        return self.db.execute(
            "SELECT commit_id, paths.path, insertions + deletions FROM json_each(?) JOIN changes ON commit_id = value"
            " JOIN paths ON paths.id = path_id ORDER BY commit_id, number",
            (json.dumps(list(ids)),),
        ).fetchall()

    def authors_of(self, ids: Iterable[int]) -> list[str]:
        """The name of the author of each of some commits."""
        rows = self.db.execute(
            "SELECT author_name FROM json_each(?) JOIN commits ON commits.id = value", (json.dumps(list(ids)),)
        )
        return [row[0] for row in rows]

    def people_of(self, ids: Iterable[int]) -> list[tuple[int, str, str]]:
        """(commit id, author's name, address) of each of some commits."""
        return self.db.execute(
            "SELECT commits.id, author_name, author_email FROM json_each(?) JOIN commits ON commits.id = value",
            (json.dumps(list(ids)),),
        ).fetchall()

    def subjects(self) -> list[tuple[int, str]]:
        """(commit id, subject) of the reachable commits."""
        return self.db.execute("SELECT id, subject FROM commits WHERE position IS NOT NULL").fetchall()

    def unmerged(self, branch: str) -> list[tuple[str, int, int]]:
        """The branches with commits that another one does not have, merges and patches that it has aside: their names,
        how many those are, and the newest's committer time; the newest first.
        """
        return self.db.execute(
            "SELECT branch, count(*), max(committer_time) AS newest FROM commits c WHERE position IS NOT NULL"
            " AND parents NOT LIKE '% %' AND NOT EXISTS (SELECT 1 FROM json_each(c.branches) WHERE value = ?1)"
            " AND (patch_id IS NULL OR patch_id = '' OR NOT EXISTS (SELECT 1 FROM commits e, json_each(e.branches) one"
            " WHERE e.patch_id = c.patch_id AND e.patch_id != '' AND e.position IS NOT NULL AND one.value = ?1))"
            " GROUP BY branch ORDER BY newest DESC, branch",
            (branch,),
        ).fetchall()

    def sizes(self) -> list[tuple[int, int, int]]:
        """(commit id, files, lines added and removed) of the reachable commits that change anything."""
        return self.db.execute(
            "SELECT commit_id, count(*), sum(insertions + deletions) FROM changes JOIN commits ON id = commit_id"
            " WHERE position IS NOT NULL GROUP BY commit_id"
        ).fetchall()

    def path_names(self) -> dict[int, str]:
        """Every path in the store, by its id."""
        return dict(self.db.execute("SELECT id, path FROM paths"))

    def changes(self) -> Iterator[tuple[Any, ...]]:
        """Hash, path, old path, status, insertions, deletions, binary, submodule, whether it is a merge, and committer
        time of every change of the reachable commits, oldest first.
        """
        for row in self.db.execute(
            "SELECT c.hash, p.path, o.path, d.status, d.insertions, d.deletions, d.binary, d.submodule,"
            " c.parents LIKE '% %', c.committer_time FROM changes d JOIN commits c ON c.id = d.commit_id"
            " JOIN paths p ON p.id = d.path_id LEFT JOIN paths o ON o.id = d.old_path_id"
            " WHERE c.position IS NOT NULL ORDER BY c.position, d.number"
        ):
            yield *row[:6], bool(row[6]), bool(row[7]), bool(row[8]), row[9]

    def authors(self) -> int:
        """How many addresses the reachable commits are from."""
        row = self.db.execute("SELECT count(DISTINCT author_email) FROM commits WHERE position IS NOT NULL")
        return int(row.fetchone()[0])

    def activity(self, every: int, until: int) -> list[Stretch]:
        """The stretches of ``every`` seconds that have reachable commits, up to a time, oldest first. Weeks begin on
        Mondays: 1970 began on a Thursday, 259,200 seconds after one.
        """
        rows = self.db.execute(
            "SELECT (committer_time + 259200) / ?1 * ?1 - 259200 AS start, count(*), sum(merge),"
            " sum(CASE WHEN merge THEN 0 ELSE added END), sum(CASE WHEN merge THEN 0 ELSE removed END)"
            " FROM (SELECT id, committer_time, parents LIKE '% %' AS merge FROM commits"
            "   WHERE position IS NOT NULL AND committer_time > 0 AND committer_time <= ?2)"
            " LEFT JOIN (SELECT commit_id, sum(insertions) AS added, sum(deletions) AS removed FROM changes"
            "   GROUP BY commit_id) ON commit_id = id GROUP BY start ORDER BY start",
            (every, until),
        )
        return [Stretch(start, count, merges, added or 0, gone or 0) for start, count, merges, added, gone in rows]

    def most_changed(self, since: int, until: int, most: int) -> list[Changed]:
        """The paths that most reachable commits of a time change, merges left out."""
        rows = self.db.execute(
            "SELECT path, kind, count(*) AS often, count(DISTINCT author_email), sum(insertions), sum(deletions)"
            " FROM commits c JOIN changes ON commit_id = c.id JOIN paths ON paths.id = path_id"
            " WHERE position IS NOT NULL AND committer_time BETWEEN ? AND ? AND parents NOT LIKE '% %'"
            " GROUP BY path_id ORDER BY often DESC, sum(insertions) + sum(deletions) DESC, path LIMIT ?",
            (since, until, most),
        )
        return [Changed(*row) for row in rows]

    def ids(self) -> list[int]:
        """The ids of the reachable commits, oldest first."""
        return [
            row[0] for row in self.db.execute("SELECT id FROM commits WHERE position IS NOT NULL ORDER BY position")
        ]

    def order(self) -> list[str]:
        """The hashes of the reachable commits, oldest first."""
        return [
            row[0] for row in self.db.execute("SELECT hash FROM commits WHERE position IS NOT NULL ORDER BY position")
        ]

    def standing_for(self, name: str) -> str:
        """The commit itself where it is reachable; else the first that is, of its time or later. Empty if none is."""
        found = self.db.execute(
            "SELECT c.hash FROM commits c, commits lost WHERE lost.hash = ? AND c.position IS NOT NULL AND"
            " (c.id = lost.id OR lost.position IS NULL AND c.committer_time >= lost.committer_time)"
            " ORDER BY c.position LIMIT 1",
            (name,),
        ).fetchone()
        return str(found[0]) if found else ""

    def number_of(self, name: str) -> int:
        """The number that a commit was stored under, reachable or not; later ones have larger ones. 0 if it was not."""
        found = self.db.execute("SELECT id FROM commits WHERE hash = ?", (name,)).fetchone()
        return int(found[0]) if found else 0

    def newest_number(self) -> int:
        """The number of the commit that was stored last; 0 where there is none."""
        return int(self.db.execute("SELECT coalesce(max(id), 0) FROM commits").fetchone()[0])

    def stored_after(self, number: int) -> set[str]:
        """The reachable commits that were stored later than that number."""
        rows = self.db.execute("SELECT hash FROM commits WHERE id > ? AND position IS NOT NULL", (number,))
        return {name for (name,) in rows}

    def twins_of_vanished(self, number: int) -> set[str]:
        """The reachable commits with the patch of one that vanished and was stored under ``number`` or before: the same
        change, rebased.
        """
        rows = self.db.execute(
            "SELECT hash FROM commits WHERE position IS NOT NULL AND patch_id != '' AND patch_id IN"
            " (SELECT patch_id FROM commits WHERE position IS NULL AND patch_id != '' AND id <= ?)",
            (number,),
        )
        return {name for (name,) in rows}

    def remove(self, ids: Sequence[int]) -> None:
        """Take out commits of which nothing in the index is left, and the paths and merges' messages that only they
        named.
        """
        with self.transaction():
            for table, column in (("changes", "commit_id"), ("commits", "id")):
                self.db.executemany(f"DELETE FROM {table} WHERE {column} = ?", [(one,) for one in ids])
            self.db.execute(
                "DELETE FROM paths WHERE id NOT IN (SELECT path_id FROM changes"
                " UNION SELECT old_path_id FROM changes WHERE old_path_id IS NOT NULL)"
            )
            self.db.execute(
                "DELETE FROM merge_messages WHERE hash NOT IN (SELECT merged_by FROM commits"
                " WHERE merged_by IS NOT NULL)"
            )
            self._forget()

    def history_fingerprint(self) -> str:
        """Decided by which commits are reachable, in which order; not by the branches they are on."""
        return hashlib.sha256("\n".join(self.order()).encode()).hexdigest()[:16]

    def records(self, *, vanished: bool = False, ids: Sequence[int] | None = None) -> Iterator[Record]:
        """Every reachable commit, oldest first; then, if asked, the vanished. With ``ids``, those, in that order."""
        repo = self.fact("repo") or ""
        if ids is not None:
            for commit_id in ids:
                row = self.db.execute(f"{_COMMIT} WHERE c.id = ?", (commit_id,)).fetchone()
                yield self._record(row, repo)
            return
        where = "" if vanished else "WHERE c.position IS NOT NULL"
        for row in self.db.execute(f"{_COMMIT} {where} ORDER BY c.position IS NULL, c.position, c.id"):
            yield self._record(row, repo)

    def headlines(self, ids: Sequence[int]) -> list[Headline]:
        """What hits show of some commits, in that order: a part of their records, at a tenth of the price."""
        asked = (json.dumps(ids),)
        paths: dict[int, dict[str, None]] = {}
        for commit_id, path in self.db.execute(
            "SELECT commit_id, paths.path FROM json_each(?) JOIN changes ON commit_id = value"
            " JOIN paths ON paths.id = path_id ORDER BY commit_id, number",
            asked,
        ):
            paths.setdefault(commit_id, {})[path] = None
        rows = self.db.execute(
            "SELECT c.id, hash, subject, author_name, committer_time, coalesce(branch, '') FROM json_each(?)"
            " JOIN commits c ON c.id = value",
            asked,
        )
        found = {
            commit_id: Headline(name, subject, author, moment, branch, tuple(paths.get(commit_id, ())))
            for commit_id, name, subject, author, moment, branch in rows
        }
        return [found[commit_id] for commit_id in ids]

    def _record(self, row: tuple[Any, ...], repo: str) -> Record:
        (
            commit_id, position, branch, branches, merged_by, parents, unreadable, flags, complete, refers, redacted,
            patch_id, reverse_id, same_patch_as, undoes, merge_subject, merge_body, merge_message, *facts,
        ) = row  # fmt: skip
        changes = tuple(
            FileChange(status, path, old_path, insertions, deletions, bool(binary), bool(submodule))
            for status, path, old_path, insertions, deletions, binary, submodule in self.db.execute(
                "SELECT status, p.path, o.path, insertions, deletions, binary, submodule FROM changes"
                " JOIN paths p ON p.id = path_id LEFT JOIN paths o ON o.id = old_path_id"
                " WHERE commit_id = ? ORDER BY number",
                (commit_id,),
            )
        )
        names: dict[str, Any] = dict(zip(_FACTS, facts, strict=True))
        commit = Commit(
            **names,
            parents=tuple(parents.split()),
            changes=changes,
            diff_complete=bool(complete),
            unreadable=tuple(json.loads(unreadable)),
            flags=tuple(flags.split()),
            references={kind: tuple(values) for kind, values in json.loads(refers).items()},
            redacted=json.loads(redacted),
            patch_id=patch_id or "",
            reverse_id=reverse_id or "",
        )
        place = Placed(commit.hash, branch or "", tuple(json.loads(branches or "[]")), merged_by)
        return record_of(
            commit,
            place,
            repo,
            reachable=position is not None,
            merge_message=merge_message or message_of(merge_subject or "", merge_body or ""),
            same_patch_as=same_patch_as,
            undoes=undoes,
        )
