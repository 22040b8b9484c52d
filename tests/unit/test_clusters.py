"""Trees of near things, and where they are cut."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from treering.search.clusters import cut, ward


def near(points: list[tuple[float, float]]) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    rows = np.array(points, np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows @ rows.T)


def test_the_nearest_are_joined_first_and_groups_last() -> None:
    joins = ward(near([(1, 0), (0, 1), (1, 0.1), (0.1, 1), (1, 0.05)]))
    assert joins[-1] == tuple(sorted(joins[-1]))
    groups = cut(5, joins, lambda things: len(things) * (set(things) in ({0, 2, 4}, {1, 3})), 2)
    assert sorted(map(sorted, groups)) == [[0, 2, 4], [1, 3]]


def test_nothing_and_one_thing_are_no_cluster() -> None:
    assert cut(0, ward(np.zeros((0, 0))), len, 1) == []
    assert cut(1, ward(np.ones((1, 1))), len, 2) == []
    assert cut(1, ward(np.ones((1, 1))), len, 1) == [[0]]


def test_what_is_worth_more_whole_stays_whole() -> None:
    joins = ward(near([(1, 0), (1, 0.1), (0, 1), (0.1, 1)]))
    assert cut(4, joins, len, 2) == [[0, 1, 2, 3]]
    assert sorted(cut(4, joins, lambda _: 1.0, 2)) == [[0, 1], [2, 3]]


@given(st.lists(st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)), min_size=1, max_size=30), st.integers(1, 4))
def test_clusters_share_nothing_and_are_large_enough(points: list[tuple[float, float]], smallest: int) -> None:
    joins = ward(near(points))
    assert len(joins) == len(points) - 1
    assert sorted(node for join in joins for node in join) == list(range(2 * len(points) - 2))
    clusters = cut(len(points), joins, lambda things: 1 / len(things), smallest)
    held = [thing for cluster in clusters for thing in cluster]
    assert len(held) == len(set(held))
    assert all(len(cluster) >= smallest for cluster in clusters)


@given(st.lists(st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)), min_size=2, max_size=12))
def test_each_step_joins_what_costs_least(points: list[tuple[float, float]]) -> None:
    """Ward's cost of a join by its definition: what it adds to the squared distances to the middles."""
    rows = np.array(points, np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)

    def spread(things: list[int]) -> float:
        return float(((rows[things] - rows[things].mean(axis=0)) ** 2).sum())

    alive = {number: [number] for number in range(len(points))}
    for step, (one, other) in enumerate(ward(rows @ rows.T)):

        def cost(pair: tuple[int, int]) -> float:
            first, second = alive[pair[0]], alive[pair[1]]
            return spread(first + second) - spread(first) - spread(second)

        least = min(cost((a, b)) for a in alive for b in alive if a < b)
        assert abs(cost((min(one, other), max(one, other))) - least) < 1e-9
        alive[len(points) + step] = alive.pop(one) + alive.pop(other)
