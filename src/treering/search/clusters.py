"""Things that are near each other, as a tree; and the tree cut into clusters. Knows nothing of commits."""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float64]
Joins = list[tuple[int, int]]
"""Which two nodes each step joins: 0, 1, … are the things, and what step ``s`` makes of ``n`` of them is ``n + s``."""


def ward(near: Matrix) -> Joins:
    """Join what adds least to the squared distances within clusters, by the Lance-Williams formula (Ward, 1963), until
    all are one. ``near`` are inner products of vectors of length 1 (or of a sum of kernels): shape (n, n).
    """
    count = len(near)
    costs = 1 - near.astype(np.float64)  # half of each squared distance: what joining two of them adds
    np.fill_diagonal(costs, np.inf)
    sizes, node = np.ones(count), np.arange(count)
    nearest = costs.argmin(axis=1) if count else np.empty(0, np.int64)
    least = costs[np.arange(count), nearest]
    joins: Joins = []
    for step in range(count - 1):
        one = int(least.argmin())
        other = int(nearest[one])
        one, other = min(one, other), max(one, other)
        joins.append((int(node[one]), int(node[other])))
        total = sizes[one] + sizes[other] + sizes
        joined = (sizes[one] + sizes) * costs[one] + (sizes[other] + sizes) * costs[other] - sizes * costs[one, other]
        joined /= total  # what is joined already is infinitely far and stays so
        joined[[one, other]] = np.inf
        costs[one] = costs[:, one] = joined
        costs[other] = costs[:, other] = np.inf
        sizes[one] += sizes[other]
        node[one] = count + step
        least[other] = np.inf
        for row in [one, *np.flatnonzero(((nearest == one) | (nearest == other)) & (least < np.inf)).tolist()]:
            nearest[row] = costs[row].argmin()
            least[row] = costs[row, nearest[row]]
        closer = joined < least
        nearest[closer], least[closer] = one, joined[closer]
    return joins


def cut(count: int, joins: Joins, worth: Callable[[Sequence[int]], float], smallest: int) -> list[list[int]]:
    """The branches of a tree over ``count`` things that are worth most together. No two hold the same thing, none has
    fewer than ``smallest``, and what is worth more whole than in parts stays whole.
    """
    things: list[list[int]] = [[number] for number in range(count)]
    best: list[tuple[float, list[int]]] = [(0.0, [])] * count
    if smallest <= 1:
        best = [(worth([number]), [number]) for number in range(count)]
    for one, other in joins:
        held = sorted(things[one] + things[other])
        apart = best[one][0] + best[other][0]
        whole = worth(held) if len(held) >= smallest else 0.0
        node = len(things)
        best.append((whole, [node]) if whole > 0 and whole >= apart else (apart, best[one][1] + best[other][1]))
        things.append(held)
    return [things[node] for node in best[-1][1]] if best else []
