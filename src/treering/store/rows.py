"""What the documents say, row by row in the order of the history, for whoever takes all of it."""

import hashlib
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

import msgspec

from treering.store.index import IndexTables
from treering.types import Features, FilePatch

_DOCUMENTED = """
    SELECT c.hash, c.parents LIKE '% %', c.committer_time, d.{0} FROM commits c JOIN documents d ON d.commit_id = c.id
    WHERE c.position IS NOT NULL ORDER BY c.position"""


@dataclass(frozen=True, slots=True)
class Owner:
    """The commit that a row is of. ``time`` is the committer's, in seconds since 1970."""

    hash: str
    is_merge: bool
    time: int


class Rows(IndexTables):
    def said(self) -> Iterator[tuple[Owner, Features]]:
        """What every reachable commit says that has been heard, oldest first."""
        decoder = msgspec.json.Decoder(Features)
        for *owner, features in self.db.execute(_DOCUMENTED.format("features")):
            yield _owner(*owner), decoder.decode(features)

    def patches(self) -> Iterator[tuple[Owner, FilePatch]]:
        """The hunks that are indexed of every reachable commit, oldest first, file by file."""
        decoder = msgspec.json.Decoder(tuple[FilePatch, ...])
        for *owner, hunks in self.db.execute(_DOCUMENTED.format("hunks")):
            for patch in decoder.decode(zlib.decompress(hunks)):
                yield _owner(*owner), patch

    def unheard(self) -> int:
        """How many reachable commits have no document."""
        row = self.db.execute(
            "SELECT count(*) FROM commits WHERE position IS NOT NULL AND id NOT IN (SELECT commit_id FROM documents)"
        )
        return int(row.fetchone()[0])

    def content_fingerprint(self) -> str:
        """Decided by all that is told of the reachable commits: equal for equal ones, in whichever order they came."""
        digest = hashlib.sha256()
        columns = [row[1] for row in self.db.execute("PRAGMA table_info(commits)") if row[1] != "id"]
        told = self.db.execute(
            f"SELECT {', '.join(f'c.{name}' for name in columns)}, m.subject, m.body, t.message FROM commits c"
            " LEFT JOIN commits m ON m.hash = c.merged_by LEFT JOIN merge_messages t ON t.hash = c.merged_by"
            " WHERE c.position IS NOT NULL ORDER BY c.position"
        )
        for row in chain(told, self.changes()):
            digest.update(repr(row).encode())
        for column in ("features", "hunks"):
            for name, *_, blob in self.db.execute(_DOCUMENTED.format(column)):
                digest.update(f"{name} {len(blob)} ".encode() + blob)
        return digest.hexdigest()[:16]


def _owner(name: str, merge: int, time: int) -> Owner:
    return Owner(name, bool(merge), time)
