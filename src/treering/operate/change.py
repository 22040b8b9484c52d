"""Whether a figure changed: against the noise that a bootstrap finds in it, never against a fixed threshold.

Pure: values in, values out, and the same for the same values.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Figures = npt.NDArray[np.float64]

RESAMPLES = 4000
DRAWS = 64
"""How often the cases of one run are drawn anew; a resample takes one of these."""
BEFORE = 30
"""With at most so many runs before the newest these are compared."""
PAIRS = 8
"""Fewer cases than these, asked before and again, say too little."""
CASES = 8
"""A run of so many cases can be told from others by itself."""
WINDOW, WINDOW_BEFORE = 5, 10
"""Where a run is a single figure: so many of the newest are compared with at least so many before."""
RUNS_BEFORE = 5
"""Where a run has cases: with at least so many before."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A figure of one run, the sum of ``values`` over that of ``weights`` (one each, by default). ``keys`` name cases
    that are asked in every run.
    """

    at: float
    values: Sequence[float]
    weights: Sequence[float] = ()
    keys: Sequence[str] = ()

    @property
    def mean(self) -> float:
        return float(np.sum(self.values) / (np.sum(self.weights) if len(self.weights) else len(self.values)))


@dataclass(frozen=True, slots=True)
class Change:
    """The newest mean, the one before, their difference with its 95 % interval, and how likely one as large is where
    nothing changed.
    """

    newest: float
    before: float
    difference: float
    interval: tuple[float, float]
    chance: float


def change(runs: Sequence[Measured], seed: int = 7) -> Change | None:
    """What changed lately in a series of runs, oldest first; None where they are too few to tell."""
    if not runs:
        return None
    random = np.random.default_rng(seed)
    if runs[-1].keys:
        return _paired(runs[-1], runs[-1 - BEFORE : -1], random)
    if all(len(run.values) == 1 for run in runs):
        runs = runs[-WINDOW - BEFORE :]
        return _single(runs, random) if len(runs) >= WINDOW + WINDOW_BEFORE else None
    runs = [run for run in runs if len(run.values) >= CASES][-1 - BEFORE :]
    return _by_cases(runs, random) if len(runs) > RUNS_BEFORE else None


def _single(runs: Sequence[Measured], random: np.random.Generator) -> Change:
    """The newest runs and those before, of one figure each. If nothing changed, any of them could as well be newest
    (Fisher's permutation test: exact, whatever the figures are like).
    """
    figures = np.array([run.mean for run in runs])
    old = len(runs) - WINDOW
    shuffled = figures[random.permuted(np.tile(np.arange(len(runs)), (RESAMPLES, 1)), axis=1)]
    nothing = shuffled[:, old:].mean(axis=1) - shuffled[:, :old].mean(axis=1)
    newest, before = figures[old:], figures[:old]
    spread = _resampled(newest, random) - _resampled(before, random)
    return _told(float(newest.mean()), float(before.mean()), nothing, spread)


def _resampled(figures: Figures, random: np.random.Generator) -> Figures:
    mean: Figures = figures[random.integers(0, len(figures), (RESAMPLES, len(figures)))].mean(axis=1)
    return mean


def _by_cases(runs: Sequence[Measured], random: np.random.Generator) -> Change:
    """The newest run and those before, each of many cases. What differs where nothing changed is told by the runs
    before: one of them in the place of the newest, and all with their cases drawn anew. So runs that differ among
    themselves (commits of one day are alike) make no run a change that differs no more.
    """
    sums, sizes = (np.array(one) for one in zip(*(_drawn(run, random) for run in runs), strict=True))
    old = len(runs) - 1

    def means(picks: npt.NDArray[np.int64]) -> Figures:
        draws = random.integers(0, DRAWS, picks.shape)
        mean: Figures = sums[picks, draws].sum(axis=1) / sizes[picks, draws].sum(axis=1)
        return mean

    before = means(random.integers(0, old, (RESAMPLES, old)))
    nothing = means(random.integers(0, old, (RESAMPLES, 1))) - before
    # Few runs show less than they differ: what Student's quantiles at 95 % are over the normal one, nearly.
    nothing *= 1 + 1.6 / (old - 1)
    spread = means(np.full((RESAMPLES, 1), old)) - means(random.integers(0, old, (RESAMPLES, old)))
    weights = [sum(run.weights) if len(run.weights) else len(run.values) for run in runs[:old]]
    return _told(runs[-1].mean, sum(sum(run.values) for run in runs[:old]) / sum(weights), nothing, spread)


def _drawn(run: Measured, random: np.random.Generator) -> tuple[Figures, Figures]:
    """A run's sums of values and of weights, its cases drawn anew :data:`DRAWS` times."""
    values = np.array(run.values, np.float64)
    weights = np.array(run.weights, np.float64) if len(run.weights) else np.ones(len(values))
    picks = random.integers(0, len(values), (DRAWS, len(values)))
    return values[picks].sum(axis=1), weights[picks].sum(axis=1)


def _paired(newest: Measured, before: Sequence[Measured], random: np.random.Generator) -> Change | None:
    """Each case beside its own mean before. If nothing changed each difference could as well be its opposite (a wild
    bootstrap: Wu, 1986, with Rademacher's weights).
    """
    told: dict[str, list[float]] = {}
    for run in before:
        for key, value in zip(run.keys, run.values, strict=True):
            told.setdefault(key, []).append(value)
    pairs = [
        (value, sum(told[key]) / len(told[key]))
        for key, value in zip(newest.keys, newest.values, strict=True)
        if key in told
    ]
    if len(pairs) < PAIRS:
        return None
    now, then = np.array(pairs, np.float64).T
    differences = now - then
    signs = random.choice((-1.0, 1.0), (RESAMPLES, len(differences)))
    picks = random.integers(0, len(differences), (RESAMPLES, len(differences)))
    return _told(
        float(now.mean()), float(then.mean()), signs @ differences / len(differences), differences[picks].mean(axis=1)
    )


def _told(newest: float, before: float, nothing: Figures, spread: Figures) -> Change:
    difference = newest - before if not math.isclose(newest, before, rel_tol=1e-12) else 0.0
    # A sum in another order differs in its last digit, and is no smaller for that.
    as_large = np.abs(nothing) >= abs(difference) * (1 - 1e-9)
    low, high = np.quantile(spread, [0.025, 0.975])
    return Change(newest, before, difference, (float(low), float(high)), float((as_large.sum() + 1) / (RESAMPLES + 1)))
