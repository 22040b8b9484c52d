"""The tables of the index: what commits say, who holds a word, and what each vector's row is."""

import json
import re
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, count, pairwise
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from treering.store.commits import CommitTables
from treering.types import Features, FilePatch, IndexedCommit, LeftOut

HOLDER = np.dtype([("commit", "<u4"), ("field", "u1"), ("count", "<u2")])
"""One record of a word's postings: which commit holds it, in which field, how often."""

Holders = npt.NDArray[np.void]

BEYOND = " beyond "
"""Stands between the kind of a text and the model that read only its beginning, in the reason for what is left out."""


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
            for table in ("documents", "vectors", "postings"):
                self.db.execute(f"DELETE FROM {table}")
            self.set_fact("silent", "")

    def forget_words(self) -> None:
        """Forget who holds which word: all documents wait for their words again."""
        with self.transaction():
            self.db.execute("DELETE FROM postings")
            self.db.execute("UPDATE documents SET lengths = NULL")
            self.set_fact("silent", "")

    def forget_documents(self, ids: Iterable[int]) -> None:
        """Forget what some commits say. Their words must be forgotten too."""
        with self.transaction():
            self.db.executemany("DELETE FROM documents WHERE commit_id = ?", [(one,) for one in ids])

    def documents(self, ids: Iterable[int] | None = None) -> Iterator[tuple[int, bytes, bytes, str, str, bytes | None]]:
        """Commit id, features, hunks, what was left out, kinds of texts and lengths as they are kept: of the documents
        named, or of all.
        """
        columns = "SELECT commit_id, features, hunks, left_out, kinds, lengths FROM documents"
        if ids is None:
            yield from self.db.execute(f"{columns} ORDER BY commit_id")
            return
        for commit_id in ids:
            yield from self.db.execute(f"{columns} WHERE commit_id = ?", (commit_id,))

    def postings(self, words: Iterable[str] | None = None) -> Iterator[tuple[str, bytes]]:
        """Every word, or those of the words given that somebody holds, with records of :data:`HOLDER`; one of several
        batches of commits comes several times.
        """
        if words is None:
            return self.db.execute("SELECT word, holders FROM postings ORDER BY word, first")
        return self.db.execute(
            "SELECT word, holders FROM json_each(?) JOIN postings ON word = value ORDER BY word, first",
            (json.dumps(list(words)),),
        )

    def fingerprints(self) -> dict[str, tuple[int, int]]:
        """The models that made vectors: fingerprint to how many rows are named and what the last row's number is."""
        rows = self.db.execute("SELECT fingerprint, count(*), max(row) FROM vectors GROUP BY fingerprint")
        return {name: (count, last) for name, count, last in rows}

    def add_features(
        self, rows: Iterable[tuple[int, Features, Sequence[FilePatch], Mapping[str, LeftOut], Sequence[str]]]
    ) -> None:
        """Keep (commit id, features, hunks, what they leave out, kinds of texts for vectors), all or none; their words
        are indexed later, by :meth:`add_words`.
        """
        encode = msgspec.json.encode
        with self.transaction():
            self.db.executemany(
                "INSERT INTO documents (commit_id, features, hunks, left_out, kinds) VALUES (?, ?, ?, ?, ?)",
                (
                    (commit_id, encode(said), zlib.compress(encode(hunks), 6), *(encode(one).decode() for one in rest))
                    for commit_id, said, hunks, *rest in rows
                ),
            )

    def left_out(self) -> dict[str, dict[str, int]]:
        """What of the hunks was not used, over all reachable commits: reason to files and bytes."""
        rows = self.db.execute(
            "SELECT reason.key, sum(reason.value ->> 'files'), sum(reason.value ->> 'bytes') FROM documents"
            " JOIN commits ON commits.id = commit_id, json_each(left_out) reason"
            " WHERE position IS NOT NULL GROUP BY reason.key ORDER BY reason.key"
        )
        return {reason: {"files": files, "bytes": size} for reason, files, size in rows}

    def wordless(self) -> list[int]:
        """Ids of the commits whose features are known and whose words are not indexed."""
        return [row[0] for row in self.db.execute("SELECT commit_id FROM documents WHERE lengths IS NULL")]

    def add_words(
        self, written: Iterable[tuple[int, Sequence[Counter[str]]]], forms: Callable[[str], Sequence[str]]
    ) -> None:
        """Index how often each word is written in each field of some commits, all or none. ``forms`` are what a written
        word is found by.
        """
        holders, lengths = postings(written, forms)
        first = min(lengths)
        with self.transaction():
            self.db.executemany(
                "INSERT INTO postings VALUES (?, ?, ?)", ((word, first, held) for word, held in holders.items())
            )
            self.db.executemany(
                "UPDATE documents SET lengths = ? WHERE commit_id = ?",
                ((row, commit_id) for commit_id, row in lengths.items()),
            )

    def searchable(self) -> bool:
        """Whether the words of any reachable commit are indexed."""
        row = self.db.execute(
            "SELECT 1 FROM documents JOIN commits ON id = commit_id"
            " WHERE position IS NOT NULL AND lengths IS NOT NULL LIMIT 1"
        )
        return row.fetchone() is not None

    def indexed_commits(self) -> list[IndexedCommit]:
        """The reachable commits whose words are indexed, oldest first."""
        rows = self.db.execute(
            "SELECT id, hash, parents, committer_time, merged_by, patch_id, subject || char(10) || body, lengths"
            " FROM commits JOIN documents ON commit_id = id WHERE position IS NOT NULL AND lengths IS NOT NULL"
            " ORDER BY position"
        )
        return [IndexedCommit(*row) for row in rows]

    def holders(self, words: Sequence[str]) -> list[Holders]:
        """For each of some words everyone who holds it, as records of :data:`HOLDER`."""
        written: dict[str, list[bytes]] = {word: [] for word in words}
        for word, holders in self.postings(written):
            written[word].append(holders)
        return [np.frombuffer(b"".join(written[word]), HOLDER) for word in words]

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

    def hunks(self, commit_id: int) -> tuple[FilePatch, ...]:
        """The hunks that are indexed of a commit; none if it is not indexed."""
        row = self.db.execute("SELECT hunks FROM documents WHERE commit_id = ?", (commit_id,)).fetchone()
        return msgspec.json.decode(zlib.decompress(row[0]), type=tuple[FilePatch, ...]) if row else ()

    def holding(self, text: str, ids: Sequence[int]) -> set[int]:
        """Those of some commits whose message, paths or indexed hunks hold a text, in any case."""
        wanted = text.casefold()
        # What JSON writes as it stands need not be read to see that it is not there. Beyond ASCII case can be folded
        # into other letters.
        plain = wanted.encode() if re.fullmatch(r"[ !#-\[\]-~]+", wanted) else None

        def could_hold(written: bytes) -> bool:
            return plain is None or not written.isascii() or plain in written.lower()

        features, hunks = msgspec.json.Decoder(Features), msgspec.json.Decoder(tuple[FilePatch, ...])
        found = set()
        rows = self.db.execute(
            "SELECT commit_id, features, hunks FROM json_each(?) JOIN documents ON commit_id = value",
            (json.dumps(list(ids)),),
        )
        for commit_id, written, compressed in rows:
            texts: Iterable[str] = ()
            if could_hold(written):
                said = features.decode(written)
                texts = (said.message, *said.paths)
            if not any(wanted in one.casefold() for one in texts):
                changed = zlib.decompress(compressed)
                texts = (patch.text for patch in hunks.decode(changed)) if could_hold(changed) else ()
                if not any(wanted in one.casefold() for one in texts):
                    continue
            found.add(commit_id)
        return found

    def want_vectors(self, ids: Iterable[int], kind: str) -> None:
        """Say that these commits have texts of one kind more that become vectors."""
        with self.transaction():
            self.db.executemany(
                "UPDATE documents SET kinds = json_insert(kinds, '$[#]', ?2) WHERE commit_id = ?1"
                " AND NOT EXISTS (SELECT 1 FROM json_each(kinds) WHERE value = ?2)",
                ((commit_id, kind) for commit_id in ids),
            )

    def unembedded(self, fingerprint: str) -> dict[int, list[str]]:
        """Id to the kinds of texts of a commit that have no vector of this fingerprint yet. The first part of a text
        is named last, so where it is there all are.
        """
        rows = self.db.execute(
            "SELECT commit_id, kind.value FROM documents, json_each(kinds) kind"
            " WHERE NOT EXISTS (SELECT 1 FROM vectors v WHERE v.fingerprint = ? AND v.commit_id = documents.commit_id"
            " AND v.kind = kind.value AND v.part = 0) ORDER BY commit_id",
            (fingerprint,),
        )
        missing: dict[int, list[str]] = {}
        for commit_id, kind in rows:
            missing.setdefault(commit_id, []).append(kind)
        return missing

    def name_vectors(
        self,
        fingerprint: str,
        first: int,
        names: Iterable[tuple[int, str, int]],
        cut: Iterable[tuple[int, str, int]] = (),
        model: str = "",
    ) -> None:
        """Name the rows that were flushed to the matrix, from ``first`` on: (commit id, kind, part). ``cut`` are the
        texts that go on behind their last part: (commit id, kind, bytes that no vector of the model called so has).
        """
        with self.transaction():
            self.db.executemany(
                "UPDATE documents SET left_out = json_patch(left_out,"
                " json_object(?2, json_object('files', 1, 'bytes', ?3))) WHERE commit_id = ?1",
                ((commit_id, f"{kind}{BEYOND}{model}", size) for commit_id, kind, size in cut),
            )
            self.db.executemany(
                "INSERT INTO vectors VALUES (?, ?, ?, ?, ?)",
                ((fingerprint, row, *name) for row, name in enumerate(names, start=first)),
            )

    def vectors(self, fingerprint: str | None = None) -> int:
        """How many vectors there are, of one fingerprint or of all."""
        row = self.db.execute("SELECT count(*) FROM vectors WHERE ?1 IS NULL OR fingerprint = ?1", (fingerprint,))
        return int(row.fetchone()[0])

    def forget_vectors(self, fingerprint: str) -> None:
        with self.transaction():
            self.db.execute("DELETE FROM vectors WHERE fingerprint = ?", (fingerprint,))

    def vector_names(self, fingerprint: str) -> list[tuple[int, str, int]]:
        """(commit id, kind, part) of every named row, in row order. Rows are 0, 1, 2, …"""
        return self.db.execute(
            "SELECT commit_id, kind, part FROM vectors WHERE fingerprint = ? ORDER BY row", (fingerprint,)
        ).fetchall()

    def named_rows(self, fingerprint: str) -> list[tuple[Path, list[tuple[int, str, int]]]]:
        """The folders that hold the vectors of a fingerprint, each with the names of its rows."""
        return [(self.folder / "vectors" / fingerprint, self.vector_names(fingerprint))]


def postings(
    written: Iterable[tuple[int, Sequence[Counter[str]]]], forms: Callable[[str], Sequence[str]]
) -> tuple[dict[str, bytes], dict[int, bytes]]:
    """Who holds each form, in order, and how many words each field of each commit has. A text's words are counted as
    they are written, so that each is looked at once, however many forms it has; the forms are added up as arrays.
    """
    number: dict[str, int] = defaultdict(count().__next__)
    ids: list[int] = []
    said: list[int] = []
    often: list[int] = []
    each: list[int] = []
    for commit_id, fields in written:
        ids.append(commit_id)
        for words in fields:
            said += map(number.__getitem__, words)
            often += words.values()
            each.append(len(words))
    form_number: dict[str, int] = defaultdict(count().__next__)
    of = [[form_number[form] for form in forms(word)] for word in number]
    sizes = np.array(each, np.int64)
    many = np.array([len(one) for one in of], np.int64)[said]
    # One number for each form in each field of each commit: in order, those of one form follow each other.
    keys = np.fromiter(chain.from_iterable(map(of.__getitem__, said)), np.int64)
    keys *= len(sizes)
    keys += np.repeat(np.repeat(np.arange(len(sizes), dtype=np.int32), sizes), many)
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    firsts = np.flatnonzero(np.diff(keys, prepend=-1))
    often_each = np.repeat(np.array(often, np.int32), many)[order]
    counts = np.add.reduceat(often_each, firsts) if len(firsts) else often_each
    found, owners = np.divmod(keys[firsts], len(sizes))
    width = len(sizes) // len(ids)
    holders = np.empty(len(found), HOLDER)
    holders["commit"] = np.array(ids)[owners // width]
    holders["field"] = owners % width
    holders["count"] = np.minimum(counts, np.iinfo("<u2").max)
    rows = np.bincount(owners, counts, len(sizes)).astype("<u4").reshape(-1, width)
    ends = np.cumsum(np.bincount(found, minlength=len(form_number))).tolist()
    places = dict(zip(form_number, pairwise([0, *ends]), strict=True))
    return (
        {form: holders[start:end].tobytes() for form, (start, end) in sorted(places.items())},
        {commit_id: row.tobytes() for commit_id, row in zip(ids, rows, strict=True)},
    )
