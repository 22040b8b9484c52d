"""How well a task was done: the measures, and the verdict on a model beside ways that need none."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from treering.lm.data import TOO_FEW
from treering.lm.evaluate import interval

LONGEST_GRAM = 4


@dataclass(frozen=True, slots=True)
class TaskRow:
    """One measure of one task. ``ways`` gives each way's figure, 0 to 1, more is better. ``difference`` is of
    ``model``, the way that treering would answer by, to ``baseline``, the best way without a neural model, with its
    95 % interval of a paired bootstrap over commits. ``won`` says that it lies above zero throughout.
    """

    task: str
    measure: str
    cases: int
    ways: dict[str, float]
    model: str
    baseline: str
    difference: tuple[float, float, float]
    won: bool


def judged(
    task: str,
    measure: str,
    outcomes: Mapping[str, Sequence[float]],
    sizes: Sequence[float],
    *,
    model: str,
    neural: Sequence[str],
    seed: int,
) -> TaskRow:
    """Put the ways side by side. ``outcomes`` are one number a commit, counted out of its number in ``sizes``."""
    of = np.asarray(sizes, np.float64)
    total = max(float(of.sum()), 1e-9)
    figures = {name: float(np.sum(found)) / total for name, found in outcomes.items()}
    baseline = max((name for name in figures if name not in neural), key=lambda name: figures[name])
    difference = np.asarray(outcomes[model], np.float64) - np.asarray(outcomes[baseline], np.float64)
    low, high = interval(difference, of, seed)
    return TaskRow(
        task=task,
        measure=measure,
        cases=len(of),
        ways={name: round(value, 4) for name, value in figures.items()},
        model=model,
        baseline=baseline,
        difference=(round(figures[model] - figures[baseline], 4), round(low, 4), round(high, 4)),
        won=low > 0 and len(of) >= TOO_FEW,
    )


def rouge_l(said: str, truth: str) -> float:
    """The F-measure of the longest common subsequence of words, in any case (Lin, 2004)."""
    one, other = said.lower().split(), truth.lower().split()
    if not one or not other:
        return 0.0
    row = [0] * (len(other) + 1)
    for word in one:
        before = row
        row = [0]
        for place, wanted in enumerate(other):
            row.append(before[place] + 1 if word == wanted else max(before[place + 1], row[-1]))
    return 2 * row[-1] / (len(one) + len(other))


def bleu(said: str, truth: str) -> float:
    """BLEU of one sentence up to four words long, in any case, with one added to the counts of longer grams than one
    (Papineni et al., 2002; Lin and Och, 2004).
    """
    one, other = said.lower().split(), truth.lower().split()
    if not one or not other:
        return 0.0
    logs = 0.0
    for length in range(1, LONGEST_GRAM + 1):
        grams = [Counter(zip(*(words[start:] for start in range(length)), strict=False)) for words in (one, other)]
        shared, there = (grams[0] & grams[1]).total(), grams[0].total()
        smooth = 0 if length == 1 else 1
        if not shared + smooth:
            return 0.0
        logs += math.log((shared + smooth) / (there + smooth))
    return math.exp(logs / LONGEST_GRAM + min(0.0, 1 - len(other) / len(one)))
