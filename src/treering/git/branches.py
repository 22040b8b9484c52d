"""Which branches a commit is on. A fact of the refs, not of the commit: made again at each run."""

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

from treering.git.history import Node, Ref
from treering.types import Placed


def attribute(
    nodes: Sequence[Node], refs: Sequence[Ref], merged_by: Mapping[str, str] = MappingProxyType({})
) -> Iterator[Placed]:
    """Place every node, in the order given (parents before children): ``branch`` is the first ref, by priority,
    that reaches it, ``branches`` are all that do. One pass back over the graph with a bit per name.
    """
    names = list(dict.fromkeys(ref.name for ref in refs))
    bit = {name: 1 << number for number, name in enumerate(names)}
    reached: dict[str, int] = {}
    for ref in refs:
        reached[ref.tip] = reached.get(ref.tip, 0) | bit[ref.name]
    for node in reversed(nodes):
        mask = reached.get(node.hash, 0)
        for parent in node.parents:
            reached[parent] = reached.get(parent, 0) | mask
    named: dict[int, tuple[str, ...]] = {}
    for node in nodes:
        mask = reached[node.hash]
        if mask not in named:
            named[mask] = tuple(name for number, name in enumerate(names) if mask >> number & 1)
        yield Placed(node.hash, named[mask][0], named[mask], merged_by.get(node.hash))
