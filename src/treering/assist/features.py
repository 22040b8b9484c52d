"""What is known of a task before it is done, as a few numbers: how well the history knows its words, which files it
will touch and how surely, how large such changes were. No decision is made here (``route.py`` makes it), and no model
runs.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from treering.search.commits import TEXT, Finder
from treering.search.files import Contents, Predictor
from treering.search.history import History, Mask, Numbers
from treering.search.lexical import K1
from treering.text.kinds import kind_of
from treering.types import FilePrediction

FEATURES = (
    "words known", "coverage", "nearest", "margin", "meaning", "first file", "expected files", "surest three",
    "words", "lines", "tokens of the files", "commits of the files", "tests", "usual files", "usual lines",
    "perplexity",
)  # fmt: skip
"""What a task is judged by; docs/routing.md says what each is. One that is not known is left out."""

NEAREST = 10
"""Commits that are asked how large such changes are."""
LIKELY = 0.1
"""A file is read if it will be touched with such a probability, and counts where private paths are looked for."""
READ = 5
BYTES_PER_TOKEN = 3
"""Of source, with the tokenizers of today; few, so that nothing is taken to be smaller than it is."""


class Measures:
    """What past changes were like, over one history."""

    def __init__(self, history: History, predictor: Predictor) -> None:
        self.history, self.touches = history, predictor.touches
        rows = np.array(history.store.sizes(), np.int64).reshape(-1, 3)
        numbers = history.numbers(rows[:, 0])
        self.files, self.lines = np.zeros(len(history), np.int64), np.zeros(len(history), np.int64)
        self.files[numbers[numbers >= 0]], self.lines[numbers[numbers >= 0]] = rows[numbers >= 0, 1:].T

    def commits_of(self, path: str, mask: Mask) -> int:
        """How many commits of ``mask`` touched a file."""
        number = self.touches.number.get(path, -1)
        return int(mask[self.touches.commits[self.touches.files == number]].sum()) if number >= 0 else 0


def nearest(finder: Finder, task: str, mask: Mask) -> tuple[Numbers, dict[str, float]]:
    """The commits nearest to a task, best first, and how near they are."""
    asked = finder.ask(task, mask=mask, through=mask & ~finder.history.merges)
    found: dict[str, float] = {}
    if leg := asked.lexical:
        rarity = leg.rarity()
        total = sum(rarity.values()) or 1.0
        nowhere = math.log1p((leg.scope.seen + 0.5) / 0.5)  # of a word that no commit holds
        found["words known"] = sum(one for one in rarity.values() if one < nowhere) / total
        found["coverage"] = float(leg.coverage()[mask].max(initial=0.0))
        text = np.sort(leg.bm25(TEXT)[mask])[::-1][:NEAREST] / (total * (K1 + 1))
        found["nearest"] = float(text.max(initial=0.0))
        found["margin"] = float(text.max(initial=0.0) - text.mean()) if len(text) else 0.0
    if "message" in asked.cosines:
        cosines = asked.cosines["message"][mask]
        if (known := cosines[~np.isnan(cosines)]).size:
            found["meaning"] = float(known.max())
    return asked.numbers[:NEAREST], found


def features(
    finder: Finder,
    measures: Measures,
    task: str,
    predicted: Sequence[FilePrediction],
    *,
    mask: Mask,
    contents: Contents,
    perplexity: float | None = None,
) -> tuple[dict[str, float], dict[str, int]]:
    """The features of a task, of which only ``mask`` is known, and the tokens of the files that it will likely touch.
    ``predicted`` are its likeliest files, best first.
    """
    near, found = nearest(finder, task, mask)
    chances = np.array([one.score for one in predicted])
    total = float(chances.sum()) or 1.0
    likely = [one.path for one in predicted[:READ] if one.score >= LIKELY]
    tokens = {path: tokens_of(text) for path, text in contents(likely).items()} if likely else {}
    commits = np.array([measures.commits_of(one.path, mask) for one in predicted])
    tests = np.array([kind_of(one.path) == "test" for one in predicted], bool)
    found |= {
        "first file": float(chances.max(initial=0.0)),
        "expected files": float(chances.sum()),
        "surest three": float(chances[:3].sum()) / total,
        "words": math.log1p(len(task.split())),
        "lines": math.log1p(task.strip().count("\n")),
        "tokens of the files": math.log1p(sum(tokens.values())),
        "commits of the files": float(np.log1p(commits) @ chances / total) if predicted else 0.0,
        "tests": float(tests @ chances / total) if predicted else 0.0,
    }
    if len(near):
        found["usual files"] = float(np.median(np.log1p(measures.files[near])))
        found["usual lines"] = float(np.median(np.log1p(measures.lines[near])))
    if perplexity is not None:
        found["perplexity"] = math.log(max(perplexity, 1.0))
    return {name: round(found[name], 6) for name in FEATURES if name in found}, tokens


def tokens_of(text: str) -> int:
    """About how many tokens a text is, rather too many than too few."""
    return math.ceil(len(text.encode("utf-8", "replace")) / BYTES_PER_TOKEN)


def row_of(found: Mapping[str, float], means: Mapping[str, float], scales: Mapping[str, float]) -> list[float]:
    """Features as a model takes them: in units of their spread, and 0 where one is not known."""
    return [(found[name] - means[name]) / scales[name] if name in found else 0.0 for name in FEATURES]
