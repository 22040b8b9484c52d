"""Which merge brought a commit in: a fact of the graph as the refs are now."""

from collections.abc import Sequence

from treering.git.history import Node, Ref


def brought_by(nodes: Sequence[Node], refs: Sequence[Ref]) -> dict[str, str]:
    """For each commit that came in by a merge, the merge that did: the one nearest to it.

    A line of first parents is followed from each ref, by priority, and read from its oldest commit on. What a merge
    on it reaches through its other parents, and nothing before it reached, was brought by that merge; inside, the
    same again for the merges found there. Every commit is visited once.
    """
    parents = {node.hash: node.parents for node in nodes}
    found: dict[str, str] = {}
    seen: set[str] = set()
    for ref in refs:
        # Each entry is a line of first parents still to be read, newest first, and the merge that brought it.
        lines = [(_line(ref.tip, parents, seen), "")]
        while lines:
            line, merge = lines[-1]
            if not line:
                lines.pop()
                continue
            commit = line[-1]
            side = next((name for name in parents[commit][1:] if name in parents and name not in seen), None)
            if side is not None:
                lines.append((_line(side, parents, seen), commit))
                continue
            line.pop()
            seen.add(commit)
            if merge:
                found[commit] = merge
    return found


def _line(tip: str, parents: dict[str, tuple[str, ...]], seen: set[str]) -> list[str]:
    line = []
    name: str | None = tip
    while name is not None and name in parents and name not in seen:
        line.append(name)
        name = next(iter(parents[name]), None)
    return line
