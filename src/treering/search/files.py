"""Which files a task will touch: what past commits of the same words touched, and what the files themselves say.

Each file gets a row of features, a logistic regression weighs them: with weights of other repositories where there is
little history, else with weights fitted on this repository's own earlier commits.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from treering.search.history import History, Mask, Numbers, Scores
from treering.search.lexical import FUNCTIONS, IDENTIFIERS, MESSAGE, OWN, PATHS, PROSE, Lexical, Scope, asked_words
from treering.text.words import vocabulary
from treering.types import FilePrediction

NEAREST = 50
"""How many past commits are asked what they touched."""
BEST = 3
"""How many of a file's own commits make its profile."""
LARGE = 50
"""A commit of more files says little of any of them."""
READ = 60
"""How many of the best files have their content read."""
STEP = 500
"""After so many commits the weights are fitted anew."""
EXAMPLES = 150
"""On how many of a repository's own commits."""
ENOUGH = 60
"""How many touched files make a fit worth it."""

TEXT = {MESSAGE: 2.0, PATHS: 1.0, FUNCTIONS: 1.0, IDENTIFIERS: 1.0, PROSE: 1.0}

FEATURES = (
    "near commits", "near messages", "messages of its commits", "its commits", "best of its commits",
    "recent commits of such words", "words of its path", "named", "recency", "often changed",
    "changed with the given", "content",
)  # fmt: skip
"""What a file is judged by, and how it is told."""

Matrix = npt.NDArray[np.float64]
Fits = dict[str, Matrix]
"""Weights by the history that they were fitted on."""
Contents = Callable[[Sequence[str]], Mapping[str, str]]
"""Gives the text of some files as they were; those it does not have are left out."""


@dataclass(frozen=True, slots=True)
class Touches:
    """Which commits touched which files: parallel arrays, and the names that the numbers stand for."""

    commits: Numbers
    files: Numbers
    names: list[str]
    number: dict[str, int]


def touches_of(history: History) -> Touches:
    """Of all commits that are no merges and not too large to mean anything."""
    rows = np.array(history.store.touches(), np.int64).reshape(-1, 2)
    numbers = history.numbers(rows[:, 0])
    sizes = np.bincount(numbers[numbers >= 0], minlength=len(history))
    kept = numbers >= 0
    kept[kept] &= ~history.merges[numbers[kept]] & (sizes[numbers[kept]] <= LARGE)
    path_ids, files = np.unique(rows[kept, 1], return_inverse=True)
    named = history.store.path_names()
    # By name: the ids tell in which order the store met them, which later commits can change.
    names = sorted(named[int(path_id)] for path_id in path_ids)
    number = {name: place for place, name in enumerate(names)}
    place_of = np.array([number[named[int(path_id)]] for path_id in path_ids], np.int64)
    return Touches(numbers[kept], place_of[files], names, number)


class Predictor:
    """Predicts files over one history. ``fits`` keeps the weights that were fitted, by what they were fitted on: it may
    be shared by predictors of many histories. ``prior`` are the weights to start from, the shipped ones by default.
    """

    def __init__(self, history: History, fits: Fits | None = None, prior: Matrix | None = None) -> None:
        self.history = history
        self._prior = shipped() if prior is None else prior
        self.touches = touches_of(history)
        self._path_words = [vocabulary(name) for name in self.touches.names]
        self._fits = {} if fits is None else fits

    def features(
        self,
        task: str,
        mask: Mask,
        candidates: Sequence[str],
        given: Iterable[str] = (),
        contents: Contents | None = None,
        merged_by: Numbers | None = None,
    ) -> Matrix:
        """A row for each candidate, a column for each of :data:`FEATURES`; only ``mask`` is known. ``merged_by`` as
        :class:`Scope` has it.
        """
        history, touches = self.history, self.touches
        seen = mask[touches.commits]
        commits, files = touches.commits[seen], touches.files[seen]
        count = len(touches.names)
        leg = Lexical(Scope(history, mask, merged_by=merged_by), asked_words(task))
        text, messages = leg.bm25(TEXT), leg.bm25({MESSAGE: 1.0})
        age = 1 - np.cumsum(mask) / max(1, mask.sum())  # among what is known: later commits age nothing
        known_files = np.bincount(files, minlength=count) > 0
        profile, best = _profiles(text[commits], files, count)
        columns = [
            _near(text, commits, files, count, mask & ~history.merges),
            _near(leg.bm25({OWN: 1.0}), commits, files, count, mask & ~history.merges),
            _profiles(messages[commits], files, count)[0],
            profile,
            best,
            _profiles((text * np.exp(-4 * age))[commits], files, count)[0],
            self._of_paths(leg, known_files),
            self._named(task),
            _recency(commits, files, count),
            np.log1p(np.bincount(files, minlength=count)),
            _together(commits, files, count, [touches.number[name] for name in given if name in touches.number]),
        ]
        known = np.column_stack([_scaled(column) for column in columns])
        rows = np.zeros((len(candidates), len(FEATURES)))
        numbers = (touches.number.get(name, -1) for name in candidates)
        places = np.array([number if number >= 0 and known_files[number] else -1 for number in numbers], np.int64)
        rows[places >= 0, :-1] = known[places[places >= 0]]
        for row in np.flatnonzero(places < 0).tolist():  # never changed in what is known: it has its path alone
            asked = set(leg.words)
            rows[row, FEATURES.index("words of its path")] = len(asked & vocabulary(candidates[row])) / max(
                1, len(asked)
            )
        if contents:
            first = np.argsort(-rows[:, :-1].sum(axis=1), kind="stable")[:READ].tolist()
            read = contents([candidates[row] for row in first])
            rarity = leg.rarity()
            whole = sum(rarity.values()) or 1.0
            for row in first:
                there = vocabulary(read.get(candidates[row], ""))
                rows[row, -1] = sum(weight for word, weight in rarity.items() if word in there) / whole
        return rows

    def _of_paths(self, leg: Lexical, known: npt.NDArray[np.bool_]) -> Scores:
        """The part of the task's words that a path holds, weighted by how rare they are among the paths known."""
        asked = leg.words
        holding = np.array([[word in there for word in asked] for there in self._path_words], bool)
        holding = holding.reshape(len(self._path_words), len(asked))  # a task may have no word at all
        rarity = np.log1p(known.sum() / (1 + holding[known].sum(axis=0)))
        return np.where(known, holding @ rarity, 0.0)

    def _named(self, task: str) -> Scores:
        lowered = task.lower()
        names = (name.lower().rpartition("/")[2] for name in self.touches.names)
        # `Makefile` and `.gitignore` have no other name than their own.
        return np.array([float(((len(name) > 5 and name.rpartition(".")[0]) or name) in lowered) for name in names])

    def predict(
        self,
        task: str,
        candidates: Sequence[str],
        *,
        mask: Mask,
        limit: int,
        given: Sequence[str] = (),
        contents: Contents | None = None,
        told: Mask | None = None,
    ) -> list[FilePrediction]:
        """The candidates that a task will most probably touch, best first; those that are given are left out. Only the
        commits that may be ``told`` speak for a file.
        """
        candidates = [name for name in candidates if name not in set(given)]
        seen = mask if told is None else mask & told
        rows = self.features(task, seen, candidates, given, contents, self.history.brought(mask))
        weights = self.weights(mask)
        scores = _probability(rows, weights)
        order = np.lexsort((np.arange(len(candidates)), -scores))[:limit]
        return [
            FilePrediction(candidates[row], round(float(scores[row]), 4), _why(rows[row] * weights[:-1]))
            for row in order
        ]

    def weights(self, mask: Mask) -> Matrix:
        """Fitted on the newest whole :data:`STEP` of what is known, so that nothing later has a say and one fit serves
        many questions; the shipped ones where the history is short.
        """
        known = np.flatnonzero(mask)
        whole = len(known) // STEP * STEP
        if not whole:
            return self._prior
        past = np.zeros(len(mask), bool)
        past[known[:whole]] = True
        # By their names and how much is indexed of each: what was indexed anew otherwise is another past.
        key = hashlib.sha256(" ".join(self.history.hashes[number] for number in known[:whole].tolist()).encode())
        key.update(self.history.lengths[past].tobytes())
        if (name := key.hexdigest()) not in self._fits:
            rows, touched = self.examples(past, EXAMPLES)
            self._fits[name] = fitted(rows, touched, self._prior) if touched.sum() >= ENOUGH else self._prior
        return self._fits[name]

    def examples(self, past: Mask, most: int) -> tuple[Matrix, npt.NDArray[np.bool_]]:
        """Features of files, and whether they were touched, for the newest ``most`` commits of ``past``: all that were,
        those that looked as if they were, and some that did not.
        """
        history, touches = self.history, self.touches
        chosen = np.flatnonzero(past & ~history.merges & ~history.empty(past))[-most:].tolist()
        chance, merged_by = np.random.default_rng(7), history.brought(past)
        rows, touched = [], []
        for number in chosen:
            own = touches.files[touches.commits == number]
            mask = history.at(history.hashes[number]) & past
            mask[number] = False
            known = np.unique(touches.files[mask[touches.commits]])
            if not len(own) or not len(known):
                continue
            task = history.store.message(int(history.ids[number]))
            found = self.features(task, mask, [touches.names[file] for file in known], merged_by=merged_by)
            right = np.isin(known, own)
            likely = np.argsort(-found.sum(axis=1), kind="stable")[:40]
            some = chance.choice(len(known), min(40, len(known)), replace=False)
            kept = np.unique(np.concatenate([np.flatnonzero(right), likely, some]))
            rows.append(found[kept])
            touched.append(right[kept])
        if not rows:
            return np.empty((0, len(FEATURES))), np.empty(0, bool)
        return np.concatenate(rows), np.concatenate(touched)


def _probability(rows: Matrix, weights: Matrix) -> Scores:
    return np.asarray(1 / (1 + np.exp(-np.clip(rows @ weights[:-1] + weights[-1], -30, 30))), np.float64)


def fitted(rows: Matrix, touched: npt.NDArray[np.bool_], prior: Matrix, strength: float = 3.0) -> Matrix:
    """Logistic regression by Newton's method, drawn towards ``prior`` by ``strength``. The last weight is the constant.
    Columns without a value in the examples keep the prior. A step that does not make it better is halved: from a prior
    that is far off a whole one can lead away for good.
    """
    design = np.column_stack([rows, np.ones(len(rows))])
    signs = np.where(touched, -1.0, 1.0)

    def loss(weights: Matrix) -> float:
        return float(np.logaddexp(0, signs * (design @ weights)).sum() + strength / 2 * ((weights - prior) ** 2).sum())

    weights = prior.copy()
    for _ in range(25):
        chance = _probability(rows, weights)
        gradient = design.T @ (chance - touched) + strength * (weights - prior)
        curvature = (design * (chance * (1 - chance))[:, None]).T @ design + strength * np.eye(len(weights))
        step = np.linalg.solve(curvature, gradient)
        before = loss(weights)
        while np.abs(step).max() >= 1e-6 and loss(weights - step) > before:
            step = step / 2
        weights = weights - step
        if np.abs(step).max() < 1e-6:
            break
    return weights


@cache
def shipped(without: str = "") -> Matrix:
    """The weights that come with treering, or those learned ``without`` one of the repositories they come from."""
    learned = json.loads(Path(__file__).with_suffix(".json").read_text("utf-8"))
    written = learned["weights_left_out"].get(without, learned["weights"])
    return np.array([written[name] for name in (*FEATURES, "constant")], np.float64)


def _why(parts: Matrix) -> str:
    told = [FEATURES[column] for column in np.argsort(-parts)[:3] if parts[column] > 0.05 * max(parts.max(), 1e-9)]
    return ", ".join(told)


def _near(text: Scores, commits: Numbers, files: Numbers, count: int, mask: Mask) -> Scores:
    """What the nearest commits touched, each with its score shared among its files."""
    order = np.argsort(-np.where(mask, text, -np.inf), kind="stable")[:NEAREST]
    weight = np.zeros(len(text))
    weight[order] = np.maximum(text[order], 0)
    sizes = np.bincount(commits, minlength=len(text))
    return _counted(files, weight[commits] / np.sqrt(np.maximum(sizes[commits], 1)), count)


def _profiles(scores: Scores, files: Numbers, count: int) -> tuple[Scores, Scores]:
    """The sum of a file's :data:`BEST` highest scores, and the highest."""
    order = np.lexsort((-scores, files))
    sorted_files, sorted_scores = files[order], scores[order]
    starts = np.searchsorted(sorted_files, np.arange(count))
    rank = np.arange(len(order)) - starts[sorted_files] if len(order) else np.empty(0, np.int64)
    top = rank < BEST
    return (
        _counted(sorted_files[top], sorted_scores[top], count),
        _counted(sorted_files[rank == 0], sorted_scores[rank == 0], count),
    )


def _recency(commits: Numbers, files: Numbers, count: int) -> Scores:
    """1 for the file that was changed last, 1/2 for the next."""
    last = np.full(count, -1, np.int64)
    np.maximum.at(last, files, commits)
    rank = np.empty(count)
    rank[np.argsort(-last, kind="stable")] = np.arange(count)
    return np.where(last >= 0, 1 / (1 + rank / 5), 0.0)


def _together(commits: Numbers, files: Numbers, count: int, given: Sequence[int]) -> Scores:
    """How large a part of the given files' commits touched a file too."""
    if not given:
        return np.zeros(count)
    theirs = np.unique(commits[np.isin(files, given)])
    return np.bincount(files[np.isin(commits, theirs)], minlength=count) / max(1, len(theirs))


def _scaled(column: Scores) -> Scores:
    """Between 0 and 1, by the highest."""
    return column / column.max() if len(column) and column.max() > 0 else column


def _counted(files: Numbers, weights: Scores, count: int) -> Scores:
    return np.asarray(np.bincount(files, weights, count), np.float64)
