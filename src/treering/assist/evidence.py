"""What a history holds on a question, and whether that is enough to answer it. Judges; quotes nothing."""

from dataclasses import dataclass

import numpy as np

from treering.search.commits import Finder
from treering.search.query import exact
from treering.text.words import vocabulary
from treering.types import Hit

HITS = 12
"""How many commits are looked at."""
JUDGED = 10
"""Of how many of them the best one says whether there is evidence."""
ENOUGH = 0.75
"""The least coverage and cosine of one commit, added, with which a question is answered (docs/asking.md has the
measurement: `benchmarks/asking.py`)."""
ENOUGH_WORDS = 0.40
"""The least coverage where there are no vectors."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """The commits that answer a question best, and how well the best of them does.

    ``coverage`` is the part of the question's words, weighted by how rare they are in this history, that one commit
    holds; ``cosine`` how near its nearest text is in meaning (None without vectors). Both are of the commit in which
    their sum is largest. ``missing`` are words of the question that no commit holds. ``named`` where the question is a
    hash, a number or a path.
    """

    question: str
    hits: tuple[Hit, ...]
    rarity: dict[str, float]
    missing: tuple[str, ...]
    coverage: float
    cosine: float | None
    named: bool

    @property
    def thin(self) -> bool:
        """Whether it is too little to answer from."""
        if not self.hits:
            return True
        if self.named:
            return False
        if self.cosine is None:
            return self.coverage < ENOUGH_WORDS
        return self.coverage + self.cosine < ENOUGH


def weight_of(text: str, rarity: dict[str, float]) -> float:
    """How much of a question a text holds: its words by how rare they are."""
    return sum(rarity[word] for word in vocabulary(text) & rarity.keys())


def evidence(finder: Finder, question: str) -> Evidence:
    """Look a question up, and judge what is found."""
    hits = tuple(finder.search(question, limit=HITS))
    asked, history = finder.ask(question, discussed=True), finder.history
    best: tuple[float, float | None] = 0.0, None
    rarity: dict[str, float] = {}
    missing: list[str] = []
    if asked.lexical:
        rarity, coverage = asked.lexical.rarity(), asked.lexical.coverage()
        held = zip(rarity, asked.lexical.scope.held(rarity), strict=True)
        missing = [word for word, of in held if word.isalnum() and not len(of.anywhere)]
        near = [[of[number] for of in asked.cosines.values()] for number in asked.numbers[:JUDGED]]
        judged = [
            (float(coverage[number]), float(np.nanmax(of)) if of and not np.isnan(of).all() else None)
            for number, of in zip(asked.numbers[:JUDGED], near, strict=True)
        ]
        best = max(judged, key=lambda one: one[0] + (one[1] or 0.0), default=best)
    named = exact(history, question, history.everything, lambda: history.merged_by) is not None
    return Evidence(question, hits, rarity, tuple(missing), *best, named)
