"""The tables of the index: features, words, and what each vector's row is."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

from treering.store.commits import CommitTables
from treering.store.schema import sqlite_errors
from treering.types import Features, LeftOut


class IndexTables(CommitTables):
    def undocumented(self) -> dict[str, int]:
        """Hash to id of the reachable commits without features, oldest first."""
        return dict(
            self.db.execute(
                "SELECT hash, id FROM commits WHERE position IS NOT NULL"
                " AND id NOT IN (SELECT commit_id FROM documents) ORDER BY position"
            )
        )

    def documented(self) -> bool:
        """Whether there are documents at all."""
        return self.db.execute("SELECT 1 FROM documents LIMIT 1").fetchone() is not None

    def undocumented_of(self, names: Iterable[str]) -> dict[str, int]:
        """Hash to id of those of the commits named that are known and have no features."""
        found = {}
        for name in names:
            row = self.db.execute(
                "SELECT id FROM commits WHERE hash = ? AND id NOT IN (SELECT commit_id FROM documents)", (name,)
            ).fetchone()
            if row:
                found[name] = row[0]
        return found

    def clear_documents(self) -> None:
        """Forget the lexical index and every vector's row: their settings or code changed."""
        with self.transaction():
            self.db.execute("DELETE FROM documents")
            self.db.execute("DELETE FROM vectors")
            self.db.execute("INSERT INTO words (words) VALUES ('delete-all')")

    def add_features(self, rows: Iterable[tuple[int, Features, Mapping[str, LeftOut]]]) -> None:
        """Keep (commit id, features, what they leave out), all or none; their words are indexed later, by
        :meth:`index_words`.
        """
        encode = msgspec.json.encode
        with self.transaction():
            self.db.executemany(
                "INSERT INTO documents (commit_id, features, left_out) VALUES (?, ?, ?)",
                ((commit_id, encode(features), encode(left_out).decode()) for commit_id, features, left_out in rows),
            )

    def left_out(self) -> dict[str, dict[str, int]]:
        """What of the hunks was not used, over all reachable commits: reason to files and bytes."""
        rows = self.db.execute(
            "SELECT reason.key, sum(reason.value ->> 'files'), sum(reason.value ->> 'bytes') FROM documents"
            " JOIN commits ON commits.id = commit_id, json_each(left_out) reason"
            " WHERE position IS NOT NULL GROUP BY reason.key ORDER BY reason.key"
        )
        return {reason: {"files": files, "bytes": size} for reason, files, size in rows}

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

    def worded(self) -> int:
        """How many documents have their words in the index, those of vanished commits too."""
        return int(self.db.execute("SELECT count(*) FROM documents WHERE diff_text IS NOT NULL").fetchone()[0])

    def unembedded(self, fingerprint: str) -> list[tuple[int, str, str]]:
        """(commit id, kind, text) of every document text that has no vector of this fingerprint yet."""
        rows = self.db.execute(
            "SELECT d.commit_id, d.features, d.diff_text, m.row IS NOT NULL, x.row IS NOT NULL FROM documents d"
            " LEFT JOIN vectors m ON m.fingerprint = ?1 AND m.commit_id = d.commit_id AND m.kind = 'message'"
            " LEFT JOIN vectors x ON x.fingerprint = ?1 AND x.commit_id = d.commit_id AND x.kind = 'diff'"
            " WHERE d.diff_text IS NOT NULL AND (m.row IS NULL OR (x.row IS NULL AND d.diff_text != ''))"
            " ORDER BY d.commit_id",
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

    def vectors(self, fingerprint: str | None = None) -> int:
        """How many vectors there are, of one fingerprint or of all."""
        row = self.db.execute("SELECT count(*) FROM vectors WHERE ?1 IS NULL OR fingerprint = ?1", (fingerprint,))
        return int(row.fetchone()[0])

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
