"""What is known of a task before it is done, as a few numbers: how well the history knows its words, which files it
will touch and how surely, how large such changes were. No decision is made here (``route.py`` makes it), and no model
runs.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from treering.search.commits import TEXT, Asked, Finder
from treering.search.files import Contents, Predictor
from treering.search.history import History, Mask, Numbers
from treering.search.lexical import K1, OWN
from treering.text.kinds import kind_of
from treering.types import FilePrediction

FEATURES = (
    "words known", "coverage", "nearest", "margin", "meaning", "first file", "expected files", "surest three",
    "words", "tokens of the files", "commits of the files", "tests", "usual files", "usual lines",
    "small nearest", "small words", "small files", "small lately", "perplexity",
)  # fmt: skip
"""What a task is judged by; docs/routing.md says what each is. One that is not known is left out."""

SMALL_FILES, SMALL_LINES = 3, 40
"""A change of at most so many files and lines is small."""
NEAREST = 20
"""Commits that are asked how large such changes are."""
LATELY = 200
LIKELY = 0.1
"""A file is read if it will be touched with such a probability, and counts where private paths are looked for."""
READ = 5
FARTHEST = 3.0
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
        self.small = (self.files <= SMALL_FILES) & (self.lines <= SMALL_LINES)
        self.told = ~history.merges & (self.files > 0)
        """Those whose size says something."""

    def touching(self, path: str, mask: Mask) -> Numbers:
        """The commits of ``mask`` that touched a file."""
        number = self.touches.number.get(path, -1)
        commits = self.touches.commits[self.touches.files == number]
        return np.asarray(commits[mask[commits]], np.int64)

    def share(self, commits: Numbers, base: float) -> float:
        """What part of some commits was small, drawn to ``base`` where they are few."""
        known = commits[self.told[commits]]
        return float((self.small[known].sum() + 4 * base) / (len(known) + 4))


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
    asked = finder.ask(task, mask=mask, through=mask & ~finder.history.merges)
    likely = [one.path for one in predicted[:READ] if one.score >= LIKELY]
    tokens = {path: tokens_of(text) for path, text in contents(likely).items()} if likely else {}
    found = {
        **_known(asked, mask),
        **_sizes(measures, asked, predicted, mask),
        "words": math.log1p(len(task.split())),
        "tokens of the files": math.log1p(sum(tokens.values())),
    }
    if perplexity is not None:
        found["perplexity"] = math.log(max(perplexity, 1.0))
    return {name: round(found[name], 6) for name in FEATURES if name in found}, tokens


def _known(asked: Asked, mask: Mask) -> dict[str, float]:
    """How well the history knows a task's words, and how near the nearest of its commits is."""
    found: dict[str, float] = {}
    if leg := asked.lexical:
        rarity = leg.rarity()
        total = sum(rarity.values()) or 1.0
        nowhere = math.log1p((leg.scope.seen + 0.5) / 0.5)  # of a word that no commit holds
        best = np.sort(leg.bm25(TEXT)[mask])[::-1][:NEAREST] / (total * (K1 + 1))
        found["words known"] = sum(one for one in rarity.values() if one < nowhere) / total
        found["coverage"] = float(leg.coverage()[mask].max(initial=0.0))
        found["nearest"] = float(best.max(initial=0.0))
        found["margin"] = float(best[0] - best.mean()) if len(best) else 0.0
    cosines = asked.cosines["message"][mask] if "message" in asked.cosines else np.empty(0)
    if (known := cosines[~np.isnan(cosines)]).size:
        found["meaning"] = float(known.max())
    return found


def _sizes(measures: Measures, asked: Asked, predicted: Sequence[FilePrediction], mask: Mask) -> dict[str, float]:
    """Which files, how surely, and how large such changes were."""
    chances = np.array([one.score for one in predicted])
    total = float(chances.sum()) or 1.0
    lately = np.flatnonzero(mask & measures.told)[-LATELY:]
    base = float(measures.small[lately].mean()) if len(lately) else 0.5
    touching = [measures.touching(one.path, mask) for one in predicted]
    commits = np.log1p([len(one) for one in touching])
    small = np.array([measures.share(one, base) for one in touching])
    tests = np.array([kind_of(one.path) == "test" for one in predicted], np.float64)
    found = {
        "first file": float(chances.max(initial=0.0)),
        "expected files": float(chances.sum()),
        "surest three": float(chances[:3].sum()) / total,
        "commits of the files": float(commits @ chances) / total,
        "tests": float(tests @ chances) / total,
        "small files": float(small @ chances) / total,
        "small lately": base,
    }
    near = asked.numbers[:NEAREST]
    if len(near):
        found["usual files"] = float(np.median(np.log1p(measures.files[near])))
        found["usual lines"] = float(np.median(np.log1p(measures.lines[near])))
        found["small nearest"] = measures.share(near, base)
    if asked.lexical:
        held = [of.fields.get(OWN) for of in asked.lexical.scope.held(asked.lexical.words)]
        shares = [measures.share(one[0], base) for one in held if one is not None]
        found["small words"] = float(np.mean(shares)) if shares else base
    return found


def tokens_of(text: str) -> int:
    """About how many tokens a text is, rather too many than too few."""
    return math.ceil(len(text.encode("utf-8", "replace")) / BYTES_PER_TOKEN)


def row_of(found: Mapping[str, float], means: Mapping[str, float], scales: Mapping[str, float]) -> list[float]:
    """Features as a model takes them: in units of their spread, 0 where one is not known, and never farther out than
    :data:`FARTHEST`, where nothing was learned.
    """
    units = [(found[name] - means[name]) / scales[name] if name in found else 0.0 for name in FEATURES]
    return [max(-FARTHEST, min(FARTHEST, one)) for one in units]
