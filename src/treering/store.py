"""The store of one repository: one SQLite file, and folders named by what decided their content.

Everything of one commit goes in with one transaction, so a kill leaves all or nothing of it. Any number of readers
work beside one writer; a second writer waits, then is told who holds it.
"""

import fcntl
import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import msgspec
import platformdirs

from treering.errors import StoreBusy, StoreError
from treering.files import os_errors
from treering.schema import MIGRATIONS, meant, sqlite_errors
from treering.types import Commit, Features, FileChange, Placed, Record, record_of

FOLDER = ".treering"
BATCH = 256
"""How many commits go in with one transaction."""


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


class Store:
    """An open store. Use with ``with``; :meth:`writing` is needed around every change."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "treering.db"
        self._db: sqlite3.Connection | None = None
        self._writing = False
        self._paths: dict[str, int] = {}

    @classmethod
    def existing(cls, folder: Path) -> "Store":
        """The store that is there, or an error that says how to make one."""
        store = cls(folder)
        if not store.path.is_file():
            raise StoreError(f"there is no index in {folder}", "run `treering run`, or `treering index`, first")
        return store

    def __enter__(self) -> "Store":
        with os_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            if not (ignore := self.folder / ".gitignore").exists():
                ignore.write_text("*\n")
        with sqlite_errors(self.path):
            self._db = sqlite3.connect(self.path, timeout=30, isolation_level=None)
            self._use_wal(self._db)
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.execute("PRAGMA foreign_keys=ON")
            self._migrate()
        return self

    def __exit__(self, _: object, error: object, __: object) -> None:
        if self._db:
            self._db.close()
            self._db = None
        if isinstance(error, sqlite3.DatabaseError):  # met while reading: writing names it on the spot
            raise meant(error, self.path) from error

    @staticmethod
    def _use_wal(db: sqlite3.Connection) -> None:
        """Switch a new database to WAL. SQLite does not wait for the lock this needs, so we do."""
        deadline = time.monotonic() + 10
        while db.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            try:
                db.execute("PRAGMA journal_mode=WAL")
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.02)

    @property
    def db(self) -> sqlite3.Connection:
        if self._db is None:
            raise StoreError(f"the store {self.folder} is not open")
        return self._db

    def _migrate(self) -> None:
        version = self.db.execute("PRAGMA user_version").fetchone()[0]
        if version > len(MIGRATIONS):
            raise StoreError(f"{self.path} was made by a newer treering", "upgrade treering, or delete the folder")
        for number, script in enumerate(MIGRATIONS[version:], start=version + 1):
            with self.transaction():
                # Another process may have done it while we waited for the lock.
                if self.db.execute("PRAGMA user_version").fetchone()[0] < number:
                    for statement in script.split(";\n"):
                        self.db.execute(statement)
                    self.db.execute(f"PRAGMA user_version={number}")

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All of the block's changes, or none."""
        with sqlite_errors(self.path):
            self.db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self.db.execute("COMMIT")
            except BaseException:
                self._paths.clear()  # their rows may have been rolled back
                if self.db.in_transaction:
                    self.db.execute("ROLLBACK")
                raise

    @contextmanager
    def writing(self, who: str, *, patience: float = 30.0) -> Iterator[None]:
        """Be the one writer inside the block. Waits up to ``patience`` seconds for another, then raises
        :class:`StoreBusy` naming it. Re-entrant. A killed writer's lock is gone with it.
        """
        if self._writing:
            yield
            return
        path = self.folder / "writer.lock"
        with os_errors(path):
            # A link would let a repository choose what is truncated.
            lock = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644), "r+")
        with lock:
            self._take_lock(lock, patience)
            with os_errors(path):
                lock.seek(0)
                lock.truncate(0)
                lock.write(f"{who} (process {os.getpid()}, since {time.strftime('%H:%M:%S')})\n")
                lock.flush()
            self._writing = True
            try:
                yield
            finally:
                self._writing = False
                lock.truncate(0)

    def _take_lock(self, lock: TextIO, patience: float) -> None:
        deadline = time.monotonic() + patience
        while True:
            try:
                return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    lock.seek(0)
                    holder = lock.read().strip() or "another process"
                    raise StoreBusy(
                        f"{self.folder} is being written by {holder}", "wait for it, or stop it, and run it again"
                    ) from None
                time.sleep(0.05)

    # facts -----------------------------------------------------------------------------------------------------

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

    def last_runs(self) -> dict[str, dict[str, object]]:
        """The newest run of each stage."""
        rows = self.db.execute("SELECT stage, started, seconds, summary FROM runs ORDER BY id")
        return {
            stage: {"started": started, "seconds": seconds, **json.loads(summary)}
            for stage, started, seconds, summary in rows
        }

    # commits ---------------------------------------------------------------------------------------------------

    def known(self) -> set[str]:
        """The hashes of every commit in the store, vanished ones included."""
        return {row[0] for row in self.db.execute("SELECT hash FROM commits")}

    def append(self, commits: Sequence[Commit]) -> None:
        """Add commits, all or none. One that is known already is left as it is."""
        with self.transaction():
            for commit in commits:
                self._append(commit)

    def mend(self, commit: Commit) -> None:
        """Put a better reading of a known commit in the place of a partial one; the index must be made anew."""
        with self.transaction():
            (commit_id,) = self.db.execute("SELECT id FROM commits WHERE hash = ?", (commit.hash,)).fetchone()
            self.db.execute("DELETE FROM changes WHERE commit_id = ?", (commit_id,))
            self.db.execute(
                "UPDATE commits SET diff_complete = ?, unreadable = ?, flags = ? WHERE id = ?",
                (commit.diff_complete, json.dumps(commit.unreadable), " ".join(commit.flags), commit_id),
            )
            self._add_changes(commit_id, commit)

    def weak(self) -> set[str]:
        """Hashes of the commits whose diff may be read better once more objects are there."""
        return {
            row[0]
            for row in self.db.execute("SELECT hash FROM commits WHERE NOT diff_complete OR flags LIKE '%shallow%'")
        }

    def _append(self, commit: Commit) -> None:
        cursor = self.db.execute(
            "INSERT INTO commits (hash, parents, author_name, author_email, author_time, author_offset, committer_name,"
            " committer_email, committer_time, committer_offset, subject, body, diff_complete, unreadable, flags)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (hash) DO NOTHING",
            (
                commit.hash, " ".join(commit.parents), commit.author_name, commit.author_email, commit.author_time,
                commit.author_offset, commit.committer_name, commit.committer_email, commit.committer_time,
                commit.committer_offset, commit.subject, commit.body, commit.diff_complete,
                json.dumps(commit.unreadable), " ".join(commit.flags),
            ),
        )  # fmt: skip
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

    def place(self, places: Iterable[Placed]) -> tuple[int, int]:
        """Put every commit where the refs have it now, in order; those not named have vanished and are kept, with
        no place. Returns how many are in place and how many vanished.
        """
        with self.transaction():
            before = {
                row[0]: row[1:] for row in self.db.execute("SELECT hash, position, branch, branches FROM commits")
            }
            moved = []
            count = 0
            for count, place in enumerate(places, start=1):
                now = (count, place.branch, json.dumps(place.branches))
                if before.pop(place.hash, None) != now:
                    moved.append((*now, place.hash))
            self.db.executemany("UPDATE commits SET position = ?, branch = ?, branches = ? WHERE hash = ?", moved)
            gone = [(hash_,) for hash_, (position, *_) in before.items() if position is not None]
            self.db.executemany("UPDATE commits SET position = NULL WHERE hash = ?", gone)
        return count, len(before)

    def refs(self) -> list[tuple[str, str, int]]:
        return self.db.execute("SELECT name, tip, rank FROM refs ORDER BY rank, name, tip").fetchall()

    def set_refs(self, refs: Iterable[tuple[str, str, int]]) -> None:
        """Remember the refs that the places were made from. Done last: until then a run is not complete."""
        with self.transaction():
            self.db.execute("DELETE FROM refs")
            self.db.executemany("INSERT OR REPLACE INTO refs VALUES (?, ?, ?)", refs)

    def count(self) -> int:
        """How many commits are reachable."""
        return int(self.db.execute("SELECT count(*) FROM commits WHERE position IS NOT NULL").fetchone()[0])

    def vanished(self) -> int:
        return int(self.db.execute("SELECT count(*) FROM commits WHERE position IS NULL").fetchone()[0])

    def partial(self) -> int:
        """How many reachable commits have a diff that is not whole."""
        row = self.db.execute("SELECT count(*) FROM commits WHERE position IS NOT NULL AND NOT diff_complete")
        return int(row.fetchone()[0])

    def indexed(self) -> int:
        """How many reachable commits the lexical index holds."""
        return int(
            self.db.execute(
                "SELECT count(*) FROM documents JOIN commits ON id = commit_id"
                " WHERE position IS NOT NULL AND diff_text IS NOT NULL"
            ).fetchone()[0]
        )

    def vectors(self) -> int:
        return int(self.db.execute("SELECT count(*) FROM vectors").fetchone()[0])

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

    def history_fingerprint(self) -> str:
        """Decided by which commits are reachable, in which order; not by the branches they are on."""
        return hashlib.sha256("\n".join(self.order()).encode()).hexdigest()[:16]

    def records(self, *, vanished: bool = False, ids: Sequence[int] | None = None) -> Iterator[Record]:
        """Every reachable commit, oldest first; then, if asked, the vanished. With ``ids``, those, in that order."""
        repo = self.fact("repo") or ""
        if ids is not None:
            for commit_id in ids:
                row = self.db.execute(f"SELECT {_COMMIT} FROM commits WHERE id = ?", (commit_id,)).fetchone()
                yield self._record(row, repo)
            return
        where = "" if vanished else "WHERE position IS NOT NULL"
        for row in self.db.execute(f"SELECT {_COMMIT} FROM commits {where} ORDER BY position IS NULL, position, id"):
            yield self._record(row, repo)

    def _record(self, row: tuple[Any, ...], repo: str) -> Record:
        commit_id, position, branch, branches, parents, unreadable, flags, complete, *facts = row
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
        )
        place = Placed(commit.hash, branch or "", tuple(json.loads(branches or "[]")))
        return record_of(commit, place, repo, reachable=position is not None)

    # the index -------------------------------------------------------------------------------------------------

    def undocumented(self, *, placed: bool = True) -> dict[str, int]:
        """Hash to id of the commits without features, oldest first; without ``placed``, those not reachable too."""
        where = "position IS NOT NULL AND" if placed else ""
        return dict(
            self.db.execute(
                f"SELECT hash, id FROM commits WHERE {where} id NOT IN (SELECT commit_id FROM documents)"
                " ORDER BY position"
            )
        )

    def clear_documents(self) -> None:
        """Forget the lexical index and every vector's row: their settings or code changed."""
        with self.transaction():
            self.db.execute("DELETE FROM documents")
            self.db.execute("DELETE FROM vectors")
            self.db.execute("INSERT INTO words (words) VALUES ('delete-all')")

    def add_features(self, rows: Iterable[tuple[int, Features]]) -> None:
        """Keep (commit id, features), all or none; their words are indexed later, by :meth:`index_words`."""
        with self.transaction():
            self.db.executemany(
                "INSERT INTO documents (commit_id, features) VALUES (?, ?)",
                ((commit_id, msgspec.json.encode(features)) for commit_id, features in rows),
            )

    def unindexed(self) -> list[int]:
        """Ids of the commits whose features are known and whose words are not indexed."""
        return [row[0] for row in self.db.execute("SELECT commit_id FROM documents WHERE diff_text IS NULL")]

    def index_words(self, rows: Iterable[tuple[int, str, Sequence[str]]]) -> None:
        """Index (commit id, diff text, one text of words per field), all or none."""
        with self.transaction():
            for commit_id, diff_text, words in rows:
                self.db.execute("UPDATE documents SET diff_text = ? WHERE commit_id = ?", (diff_text, commit_id))
                self.db.execute(
                    "INSERT INTO words (rowid, message, paths, functions, identifiers) VALUES (?, ?, ?, ?, ?)",
                    (commit_id, *words),
                )

    def features(self, ids: Iterable[int] | None = None) -> Iterator[tuple[int, Features]]:
        """The features of the documents named, or of all."""
        decoder = msgspec.json.Decoder(Features)
        if ids is None:
            for commit_id, features in self.db.execute("SELECT commit_id, features FROM documents ORDER BY commit_id"):
                yield commit_id, decoder.decode(features)
            return
        for commit_id in ids:
            row = self.db.execute("SELECT features FROM documents WHERE commit_id = ?", (commit_id,)).fetchone()
            if row is not None:
                yield commit_id, decoder.decode(row[0])

    def unembedded(self, fingerprint: str) -> list[tuple[int, str, str]]:
        """(commit id, kind, text) of every document text that has no vector of this fingerprint yet."""
        rows = self.db.execute(
            "SELECT d.commit_id, d.features, d.diff_text,"
            " EXISTS (SELECT 1 FROM vectors WHERE fingerprint = ?1 AND commit_id = d.commit_id AND kind = 'message'),"
            " EXISTS (SELECT 1 FROM vectors WHERE fingerprint = ?1 AND commit_id = d.commit_id AND kind = 'diff')"
            " FROM documents d WHERE d.diff_text IS NOT NULL ORDER BY d.commit_id",
            (fingerprint,),
        )
        decoder = msgspec.json.Decoder(Features)
        missing = []
        for commit_id, features, diff_text, has_message, has_diff in rows:
            if not has_message and (message := decoder.decode(features).message.strip()):
                missing.append((commit_id, "message", message))
            if not has_diff and diff_text:
                missing.append((commit_id, "diff", diff_text))
        return missing

    def name_vectors(self, fingerprint: str, first: int, names: Iterable[tuple[int, str]]) -> None:
        """Name the rows that were flushed to the matrix: row ``first + n`` belongs to the n-th (commit id, kind)."""
        with self.transaction():
            self.db.executemany(
                "INSERT INTO vectors VALUES (?, ?, ?, ?)",
                ((fingerprint, row, commit_id, kind) for row, (commit_id, kind) in enumerate(names, start=first)),
            )

    def forget_vectors(self, fingerprint: str) -> None:
        with self.transaction():
            self.db.execute("DELETE FROM vectors WHERE fingerprint = ?", (fingerprint,))

    def vector_names(self, fingerprint: str) -> list[tuple[int, str, bool]]:
        """(commit id, kind, reachable) of every named row, in row order. Rows are 0, 1, 2, …"""
        rows = self.db.execute(
            "SELECT commit_id, kind, position IS NOT NULL FROM vectors JOIN commits ON commits.id = commit_id"
            " WHERE fingerprint = ? ORDER BY row",
            (fingerprint,),
        )
        return [(commit_id, kind, bool(reachable)) for commit_id, kind, reachable in rows]

    def matches(self, query: str, weights: Sequence[float], limit: int) -> dict[int, float]:
        """The best reachable commits for an FTS5 query: id to BM25 score, higher is better."""
        with sqlite_errors(self.path):
            rows = self.db.execute(
                "SELECT words.rowid, -bm25(words, ?, ?, ?, ?) AS score"
                " FROM words JOIN commits ON commits.id = words.rowid"
                " WHERE words MATCH ? AND position IS NOT NULL ORDER BY score DESC, words.rowid LIMIT ?",
                (*weights, query, limit),
            ).fetchall()
        return dict(rows)


_FACTS = (
    "hash", "author_name", "author_email", "author_time", "author_offset", "committer_name", "committer_email",
    "committer_time", "committer_offset", "subject", "body",
)  # fmt: skip
"""Columns that are fields of :class:`Commit` by the same name."""
_COMMIT = ", ".join(("id, position, branch, branches, parents, unreadable, flags, diff_complete", *_FACTS))
