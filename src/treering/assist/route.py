"""Where a task goes: to the local layer, which finds and drafts on this machine, or to Claude, which costs money.

Hard rules decide first: what is private stays, no money is spent that may not be, and what is too large for one goes to
the other. Then a logistic model on a few features (``features.py``) says how likely the local layer can handle it: with
the weights that come with treering (the cold start) until the outcomes of this store's own routes give better ones.
What is known of outcomes is kept by ``store/ledger.py``.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, Self

import numpy as np
from msgspec import Struct

from treering.assist.budget import ModelPrice
from treering.assist.features import FEATURES, row_of
from treering.files import write_json
from treering.search.benchmark import interval
from treering.search.files import Matrix, fitted
from treering.store.ledger import BILLION, FILE, Ledger, Outcome, Usage

Where = Literal["local", "claude"]
Rule = Literal["privacy", "budget", "size", "model", "cold start"]

LOCAL_FROM = 0.5
"""A task stays local if the local layer handles it with at least such a probability."""
ENOUGH = 60
"""Outcomes of tasks that stayed local before anything is learned from them."""
REMEMBERED = 2000
"""The newest outcomes are learned from, so many at most."""
OLDER = 2 / 3
"""What part of them is learned from while the rest tells whether that is any better."""
STRENGTH = 10.0
"""How strongly weights are drawn to those they start from. From 3 to 1000 it hardly matters (docs/routing.md)."""

INSTRUCTIONS = 1000
"""Tokens of a prompt that are neither task nor context."""
TYPICAL_OUTPUT = 800
"""Tokens of an answer, before there were any."""

_UNMEASURED = {"perplexity": 3.0}
"""About what is usual of a feature that no example has: a token in twenty is guessed."""
_PARTED = re.compile(r"[\s`'\"()\[\]{}<>,;:]+")


class Route(Struct, frozen=True):
    """Where a task goes, and why. ``rule`` is what decided: a hard rule, the model learned from this store's outcomes,
    or the cold start. ``probability`` is that of the local layer handling it. Dollars are of one call to Claude, None
    where the price is not known; ``tokens`` are of the task and the files it will likely touch. ``id`` names the route
    for feedback; empty where it could not be kept.
    """

    id: str
    task: str
    to: Where
    why: str
    rule: Rule
    probability: float
    model: str
    dollars_worst: float | None
    dollars_expected: float | None
    tokens: int
    files: tuple[str, ...]
    features: dict[str, float]


@dataclass(frozen=True, slots=True)
class Facts:
    """What the hard rules look at. ``refused`` says why nothing may be spent; empty if something may. Windows are in
    tokens, 0 where nothing reads.
    """

    private: tuple[str, ...] = ()
    refused: str = ""
    task_tokens: int = 0
    tokens: int = 0
    claude_window: int = 0
    local_window: int = 0


def ruled(facts: Facts) -> tuple[Where, Rule, str] | None:
    """What the hard rules say, the strictest first; None if nothing."""
    if facts.private:
        return "local", "privacy", f"it concerns {facts.private[0]}, which is private"
    if facts.refused:
        return "local", "budget", facts.refused
    if facts.tokens > facts.claude_window:
        return "local", "size", f"it takes {facts.tokens:,} tokens, and Claude reads {facts.claude_window:,}"
    if 0 < facts.local_window < facts.task_tokens:
        return (
            "claude",
            "size",
            f"it has {facts.task_tokens:,} tokens, and the local model reads {facts.local_window:,}",
        )
    return None


def words_like_paths(task: str) -> list[str]:
    """What may be names of files in a task."""
    return [word.strip(".!?") for word in _PARTED.split(task) if len(word.strip(".!?")) > 1]


@dataclass(frozen=True, slots=True)
class Model:
    """A logistic regression over the features, in units of their spread; the last weight is the constant."""

    means: Mapping[str, float]
    scales: Mapping[str, float]
    weights: Matrix

    def chance(self, found: Mapping[str, float]) -> float:
        """That the local layer handles a task."""
        score = float(np.array([*row_of(found, self.means, self.scales), 1.0]) @ self.weights)
        return float(1 / (1 + np.exp(-np.clip(score, -30, 30))))

    def drawn_to(self, examples: Sequence[tuple[Mapping[str, float], bool]]) -> "Model":
        """Fitted to examples, from here."""
        rows = np.array([row_of(found, self.means, self.scales) for found, _ in examples])
        good = np.array([one for _, one in examples], bool)
        return Model(self.means, self.scales, fitted(rows, good, self.weights, STRENGTH))

    def spoke(self, found: Mapping[str, float], *, local: bool, most: int = 3) -> list[str]:
        """The features that spoke most for one side."""
        parts = np.array(row_of(found, self.means, self.scales)) * self.weights[:-1] * (1 if local else -1)
        return [FEATURES[place] for place in np.argsort(-parts, kind="stable")[:most] if parts[place] > 0]

    @classmethod
    def of(cls, written: Mapping[str, Mapping[str, float]]) -> Self:
        weights = np.array([written["weights"][name] for name in (*FEATURES, "constant")], np.float64)
        return cls(written["means"], written["scales"], weights)


def learned(examples: Sequence[tuple[Mapping[str, float], bool]]) -> Model:
    """A model of examples alone."""
    means, scales = {}, {}
    for name in FEATURES:
        values = np.array([found[name] for found, _ in examples if name in found])
        means[name] = round(float(values.mean()), 4) if len(values) else _UNMEASURED.get(name, 0.0)
        scales[name] = round(float(values.std()), 4) if len(values) and values.std() > 1e-3 else 1.0
    return Model(means, scales, np.zeros(len(FEATURES) + 1)).drawn_to(examples)


@cache
def cold_start() -> Model:
    """The model that comes with treering; docs/routing.md says from what, and how good it is."""
    return Model.of(json.loads(Path(__file__).with_suffix(".json").read_text("utf-8")))


def write_model(model: Model, learned_from: Mapping[str, int]) -> None:
    """Keep a model as the cold start."""
    weights = {name: round(float(one), 4) for name, one in zip((*FEATURES, "constant"), model.weights, strict=True)}
    told = {"learned_from": learned_from, "means": model.means, "scales": model.scales, "weights": weights}
    write_json(Path(__file__).with_suffix(".json"), told)


def chosen_model(outcomes: Sequence[Outcome], cold: Model) -> tuple[Model, Rule]:
    """The model of this store's own outcomes, if it is better than the cold start: fitted on the older ones, its
    squared error on the newer ones must be less by an interval that lies above zero. Only tasks that stayed local say
    whether the local layer handles them; what Claude made of the others says nothing of that.
    """
    examples = [(one.features, one.good) for one in outcomes if one.went == "local"]
    older, newer = examples[: int(len(examples) * OLDER)], examples[int(len(examples) * OLDER) :]
    if len(examples) < ENOUGH or len({good for _, good in older}) < 2:
        return cold, "cold start"
    tried = cold.drawn_to(older)

    def errors(model: Model) -> Matrix:
        return np.array([(model.chance(found) - good) ** 2 for found, good in newer])

    low, _ = interval(errors(cold), errors(tried))
    return (cold.drawn_to(examples), "model") if low > 0 else (cold, "cold start")


def decided(facts: Facts, found: Mapping[str, float], model: Model, by: Rule) -> tuple[Where, Rule, str]:
    """Where a task goes, by which rule, and why, in words."""
    if hard := ruled(facts):
        return hard
    chance = model.chance(found)
    local = chance >= LOCAL_FROM
    reasons = ", ".join(model.spoke(found, local=local))
    said = f"the local layer handles it with a probability of {chance:.0%}" + (f" ({reasons})" if reasons else "")
    return "local" if local else "claude", by, said


def call_tokens(task_tokens: int, files: int, budget: int) -> int:
    """About how many tokens a prompt has that tells of a task and of files of so many tokens, in a context of at most
    ``budget``.
    """
    return INSTRUCTIONS + task_tokens + min(budget, files + budget // 4)


def most_tokens(task: str, budget: int) -> int:
    """More tokens than that prompt can have: none stands for less than a byte, and few for more than four."""
    return 4 * (INSTRUCTIONS + budget) + len(task.encode("utf-8", "replace"))


def expected(price: ModelPrice, input_tokens: int, output_tokens: int) -> float:
    """What a call will likely cost, in dollars."""
    return price.cost(Usage(input_tokens, output_tokens)) / BILLION


def record_outcome(folder: Path, route: str, *, good: bool, source: str) -> Where:
    """Remember how a routed task went, as a person or a run of tests says, and return where it had gone. What is said
    last holds. Raises :class:`UsageError` for a route that is not known.
    """
    with Ledger(folder, reading=not (folder / FILE).exists()) as ledger:  # a wrong name makes no store
        return ledger.judge(route, source, good=good)
