"""One open repository, read as a stream of commits. What the rest of treering sees of git."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from treering.config import ScrapeSettings
from treering.git.attributes import Attributes
from treering.git.branches import attribute
from treering.git.diffs import read_diffs
from treering.git.entries import Diff
from treering.git.history import DEFAULT, Node, Ref, read_commits, read_refs, select, walk
from treering.git.merges import brought_by
from treering.git.patches import Caps
from treering.git.people import Mailmap, mailmap
from treering.git.shadow import GitFailed, Shadow, Source, locate, shadow_of
from treering.types import Commit, Flag, Placed, message_of

__all__ = ["Attributes", "Caps", "GitFailed", "Reader", "Ref", "Source", "locate", "open_reader", "read_refs"]


@dataclass(frozen=True, slots=True)
class Reader:
    """The whole walk of a repository, oldest commit first, and the means to read any part of it. ``nodes`` are the
    commits that the settings choose.
    """

    source: Source
    refs: list[Ref]
    graph: list[Node]
    nodes: list[Node]
    shadow: Shadow
    settings: ScrapeSettings
    attributes: Attributes
    people: Mailmap | None

    def places(self) -> Iterator[Placed]:
        """Where every chosen commit stands, in walk order."""
        chosen = {node.hash for node in self.nodes}
        places = attribute(self.graph, self.refs, brought_by(self.graph, self.refs))
        return (place for place in places if place.hash in chosen)

    def messages(self, names: Iterable[str]) -> dict[str, str]:
        """The messages of some commits."""
        wanted = set(names)
        nodes = [node for node in self.graph if node.hash in wanted]
        return {commit.hash: message_of(commit.subject, commit.body) for commit in read_commits(self.shadow, nodes)}

    def commits(self, wanted: Iterable[str], *, caps: Caps | None = None) -> Iterator[Commit]:
        """The commits named, in walk order, with their diffs; with hunks if ``caps`` is given.

        Raises :class:`DamagedRepository` where the truth cannot be told.
        """
        names = set(wanted)
        nodes = [node for node in self.graph if node.hash in names]
        chosen = self.settings
        diffs = read_diffs(self.shadow, nodes, workers=chosen.workers, seconds=chosen.commit_seconds, caps=caps)
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
def open_reader(
    source: Source | Path, settings: ScrapeSettings = DEFAULT, commit_graph: Path | None = None
) -> Iterator[Reader]:
    """Open a repository for reading. Writes nothing in it and runs nothing of it. ``commit_graph`` was made
    of it before, if it is there: it shortens the walk.
    """
    source = locate(source) if isinstance(source, Path) else source
    refs = read_refs(source, settings)
    with shadow_of(source, commit_graph) as shadow:
        graph = walk(shadow, refs)
        chosen = select(shadow, refs, settings)
        nodes = graph if chosen is None else [node for node in graph if node.hash in chosen]
        tip = refs[0].tip
        with mailmap(shadow, tip if settings.mailmap else "") as people:
            if settings.author:
                nodes = _of_author(shadow, nodes, settings.author.casefold(), people)
            nodes = nodes[-settings.max_commits :]
            yield Reader(source, refs, graph, nodes, shadow, settings, Attributes(shadow, tip), people)


def _of_author(shadow: Shadow, nodes: list[Node], wanted: str, people: Mailmap | None) -> list[Node]:
    def fits(commit: Commit) -> bool:
        author = commit.author_name, commit.author_email
        name, email = people(*author) if people else author
        return wanted in f"{name} <{email}>".casefold()

    return [node for node, commit in zip(nodes, read_commits(shadow, nodes), strict=True) if fits(commit)]
