"""One open repository, read as a stream of commits. What the rest of treering sees of git."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from treering.git.branches import attribute
from treering.git.diffs import read_diffs
from treering.git.entries import Diff
from treering.git.history import Node, Ref, read_commits, read_refs, walk
from treering.git.patches import Caps
from treering.git.shadow import Shadow, Source, locate, shadow_of
from treering.types import Commit, Flag, Placed

__all__ = ["Caps", "Reader", "Ref", "Source", "locate", "open_reader", "read_refs"]

COMMIT_SECONDS = 120.0
"""How long git may be silent about a commit before it is told by its trees alone."""


@dataclass(frozen=True, slots=True)
class Reader:
    """The whole walk of a repository, oldest commit first, and the means to read any part of it."""

    source: Source
    refs: list[Ref]
    nodes: list[Node]
    shadow: Shadow
    workers: int
    seconds: float

    def places(self) -> Iterator[Placed]:
        """Where every commit stands, in walk order."""
        return attribute(self.nodes, self.refs)

    def commits(self, wanted: Iterable[str], *, caps: Caps | None = None) -> Iterator[Commit]:
        """The commits named, in walk order, with their diffs; with hunks if ``caps`` is given.

        Raises :class:`DamagedRepository` where the truth cannot be told.
        """
        names = set(wanted)
        nodes = [node for node in self.nodes if node.hash in names]
        diffs = read_diffs(self.shadow, nodes, workers=self.workers, seconds=self.seconds, caps=caps)
        for commit, diff in zip(read_commits(self.shadow, nodes), diffs, strict=True):
            yield replace(
                commit,
                changes=diff.changes,
                patches=diff.patches,
                diff_complete=diff.complete,
                unreadable=diff.unreadable,
                flags=(*commit.flags, *_flags(diff)),
                patch_id=diff.patch_id,
                reverse_id=diff.reverse_id,
            )


def _flags(diff: Diff) -> Iterator[Flag]:
    if diff.text_flag:
        yield "path-encoding"
    if diff.slow:
        yield "slow"


@contextmanager
def open_reader(source: Source | Path, *, workers: int, seconds: float = COMMIT_SECONDS) -> Iterator[Reader]:
    """Open a repository for reading. Writes nothing in it and runs nothing of it."""
    source = locate(source) if isinstance(source, Path) else source
    refs = read_refs(source)
    with shadow_of(source) as shadow:
        yield Reader(source, refs, walk(shadow, refs), shadow, workers, seconds)
