"""What is told as a change: seldom where there is none, and surely where there is one."""

from collections.abc import Callable, Iterable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treering.operate.change import PAIRS, WINDOW, WINDOW_BEFORE, Measured, change

NOMINAL = 0.05
MOST = 0.07
SHUFFLES = 500

Random = np.random.Generator


def singles(values: Iterable[float]) -> list[Measured]:
    return [Measured(float(at), (float(value),)) for at, value in enumerate(values)]


def uneven(random: Random) -> list[Measured]:
    """Speeds of a machine that now and then had other work."""
    return singles(np.where(random.random(25) < 0.2, 10, 100) * random.lognormal(0, 0.3, 25))


def normal(random: Random) -> list[Measured]:
    return singles(random.normal(50, 5, 20))


def commits(random: Random) -> list[Measured]:
    """Bits and bytes of the commits of each day, which are alike: some days are hard."""
    runs = []
    for at in range(12):
        sizes = random.lognormal(5, 0.8, random.integers(8, 50))
        bits = sizes * np.exp(random.normal(random.normal(0, 0.2), 0.4, len(sizes)))
        runs.append(Measured(at, bits.tolist(), sizes.tolist()))
    return runs


def questions(random: Random) -> list[Measured]:
    """Ranks of the same questions, of which a few fall out otherwise each time."""
    keys = tuple(map(str, range(40)))
    often = random.choice([0, 0.5, 1], 40)
    return [
        Measured(at, np.where(random.random(40) < 0.25, random.choice([0, 0.5, 1], 40), often).tolist(), (), keys)
        for at in range(6)
    ]


@pytest.mark.parametrize("series", [uneven, normal, commits, questions])
def test_a_shuffled_series_is_seldom_told_as_a_change(series: Callable[[Random], list[Measured]]) -> None:
    random = np.random.default_rng(11)
    alarms = 0
    for number in range(SHUFFLES):
        if number % 25 == 0:
            runs = series(random)
        found = change([runs[place] for place in random.permutation(len(runs))], seed=number)
        assert found
        alarms += found.chance < NOMINAL
    assert alarms / SHUFFLES <= MOST


FIGURES = st.lists(st.floats(1, 100), min_size=WINDOW + WINDOW_BEFORE, max_size=40)


@settings(max_examples=40, deadline=None)
@given(FIGURES, st.floats(0.01, 1000))
def test_a_change_does_not_depend_on_the_unit(values: list[float], unit: float) -> None:
    found, scaled = change(singles(values)), change(singles(value * unit for value in values))
    assert found
    assert scaled
    assert scaled.chance == pytest.approx(found.chance, abs=0.01)
    assert scaled.difference == pytest.approx(found.difference * unit, abs=1e-6 * unit)


@settings(max_examples=40, deadline=None)
@given(FIGURES)
def test_the_same_series_says_the_same_and_its_mirror_the_opposite(values: list[float]) -> None:
    found, mirror = change(singles(values)), change(singles(-value for value in values))
    assert found == change(singles(values))
    assert found
    assert mirror
    assert mirror.difference == pytest.approx(-found.difference)
    assert mirror.chance == pytest.approx(found.chance, abs=0.03)
    assert 0 < found.chance <= 1


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(90, 110), min_size=20, max_size=30), st.sampled_from([0.5, 2.0]))
def test_half_or_twice_as_much_is_surely_told(values: list[float], factor: float) -> None:
    values[-WINDOW:] = [value * factor for value in values[-WINDOW:]]
    found = change(singles(values))
    assert found
    assert found.chance < 0.002
    assert found.interval[0] <= found.difference <= found.interval[1]
    assert (found.interval[1] < 0) == (factor < 1)


@given(st.lists(st.floats(1, 2), max_size=WINDOW + WINDOW_BEFORE - 1))
def test_of_too_few_runs_nothing_is_told(values: list[float]) -> None:
    assert change(singles(values)) is None


def test_runs_that_are_all_the_same_are_no_change() -> None:
    same = Measured(0, (1.0, 2.0) * 10)
    for runs in (singles([5.0] * 20), [same] * 8, [Measured(0, (1.0,) * PAIRS, (), tuple("abcdefgh"))] * 2):
        found = change(runs)
        assert found
        assert (found.difference, found.chance) == (0, 1) or found.chance > 0.5


def test_questions_are_compared_with_themselves_only() -> None:
    before = Measured(0, tuple([0.0] * 20 + [1.0] * 20), (), tuple(map(str, range(40))))
    easier = Measured(1, (1.0,) * 12, (), tuple(map(str, range(28, 40))))
    found = change([before, easier])
    assert found
    assert (found.newest, found.before, found.chance) == (1, 1, 1)
    fewer = Measured(1, (1.0,) * 7, (), tuple(map(str, range(7))))
    assert change([before, fewer]) is None
    worse = Measured(1, tuple([0.0] * 28 + [1.0] * 12), (), tuple(map(str, range(40))))
    told = change([before, worse])
    assert told
    assert told.chance < 0.05
    assert told.interval[1] < 0


def test_a_day_of_commits_twice_as_hard_is_told_and_one_as_hard_as_others_is_not() -> None:
    random = np.random.default_rng(3)
    runs = commits(random)
    hard = Measured(99, [3 * value for value in runs[0].values], runs[0].weights)
    found = change([*runs, hard])
    assert found
    assert found.chance < 0.01
    hardest = max(runs, key=lambda run: run.mean)
    again = change([*runs, hardest])
    assert again
    assert again.chance > 0.05
