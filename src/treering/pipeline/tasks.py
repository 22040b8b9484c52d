"""later commits → how well each task is done, by a model and by what needs none.

Every way knows what is reachable from a commit's parent and nothing else; the model knows less, what it was trained on.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from treering.git.blame import texts, tree
from treering.git.shadow import GitFailed, Shadow
from treering.lm.completion import END, SOURCES, Chances, Draft, Position, Weights, fitted, joined, keys, mixed
from treering.lm.scorer import Scorer
from treering.lm.tasks import TaskRow, bleu, judged, rouge_l
from treering.pipeline.propose import LONGEST, Change, Mixture, Opinion, Proposer, change_of
from treering.report import Reporter
from treering.search.benchmark import cleaned
from treering.search.files import Predictor
from treering.search.history import Mask
from treering.search.upcoming import FADES, fading
from treering.types import Record

TASKS = ("completion", "message", "files", "next")
FOLDS = 5
"""Weights are fitted on the other folds than the one that they are judged on."""
DEPTH = 10
LISTED = 50
WEIGHTS = (0.0, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5)
"""What a model's opinion of files may weigh beside what needs none."""
MODEL = "with the model"
BASE = "with the base model"
ALONE = "the model alone"


@dataclass(frozen=True, slots=True)
class Case:
    """A later commit, its number in the history, and what was known before it."""

    record: Record
    number: int
    mask: Mask
    change: Change
    near: list[int]


def cases_of(proposer: Proposer, records: Sequence[Record]) -> list[Case]:
    """The records that are indexed and have a message and paths, oldest first; merges say what others said."""
    history = proposer.history
    found = []
    for record in records:
        number = history.number.get(record.commit_hash, -1)
        if number < 0 or record.is_merge or not record.message_subject.strip() or not record.stats:
            continue
        mask = history.at(record.commit_hash)
        mask[number] = False
        ((_, said),) = history.store.features([int(history.ids[number])])
        change = change_of(said)
        found.append(Case(record, number, mask, change, proposer.nearest(change, mask)))
    return sorted(found, key=lambda case: case.number)


# completion ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Typed:
    """A subject being typed: for each of its words what the sources say, and each model of first tokens."""

    draft: Draft
    words: list[str]
    sources: list[Chances]
    models: dict[str, Chances]
    begins: npt.NDArray[np.int64]

    def positions(self) -> Iterator[Position]:
        """Its places by the sources."""
        for place, (word, chances) in enumerate(zip(self.words, self.sources, strict=True)):
            yield Position(not place, chances, self.draft.place(word))

    def beside(self, model: str, without: Weights) -> Iterator[Position]:
        """Its places by the sources and a model, which shares its chances as the sources do."""
        for place, one in enumerate(self.positions()):
            says = joined(self.models[model][place], self.begins, mixed(one.chances, without, first=one.first))
            yield Position(one.first, np.vstack([one.chances, says]), one.truth)


def completion(
    proposer: Proposer, scorers: Mapping[str, Scorer], cases: Sequence[Case], report: Reporter, seed: int
) -> tuple[list[TaskRow], Mixture]:
    """A subject is typed, the change being known: is the likeliest next word the right one, and how many keys does it
    save to take the word that is shown? By each of some models (:data:`MODEL` is the one that would answer) and by what
    needs none. Returns that one's weights on all cases too.
    """
    typed = [_typed(proposer, scorers, case) for case in report.track(cases, len(cases), "completing messages")]
    right: dict[str, list[float]] = {}
    saved: dict[str, list[float]] = {}
    for fold in range(FOLDS):
        others = [one for number, one in enumerate(typed) if number % FOLDS != fold]
        how = {name: _fitted(others, name) for name in scorers}
        for one in typed[fold::FOLDS]:
            for name, ranks in _ways(one, how).items():
                shown = list(zip(one.words, ranks, strict=True))
                taken = sum(keys(one.draft.words, chances, word) for word, chances in shown)
                right.setdefault(name, []).append(sum(_first(one.draft, chances) == word for word, chances in shown))
                saved.setdefault(name, []).append(_letters(one) - taken)
    order = [one for fold in range(FOLDS) for one in typed[fold::FOLDS]]
    rows = [
        judged("completion", measure, found, sizes, model=MODEL, neural=(ALONE, *scorers), seed=seed)
        for measure, found, sizes in (
            ("keys saved", saved, [float(_letters(one)) for one in order]),
            ("next word", right, [float(len(one.words)) for one in order]),
        )
    ]
    return rows, _fitted(typed, MODEL)


def _typed(proposer: Proposer, scorers: Mapping[str, Scorer], case: Case) -> Typed:
    proposer.read_to(case.number)
    words = proposer.subject(case.number).split()[:LONGEST]
    draft, prompt = proposer.draft(case.change, case.near), proposer.prompt(case.change, case.near)
    read = {name: proposer.first_tokens(scorer, draft, prompt, words) for name, scorer in scorers.items()}
    sources = [draft.chances(words[:place]) for place in range(len(words))]
    return Typed(draft, words, sources, {name: model for name, (model, _) in read.items()}, read[MODEL][1])


def _fitted(typed: Sequence[Typed], model: str) -> Mixture:
    without = fitted((place for one in typed for place in one.positions()), len(SOURCES))
    return Mixture(without, fitted((place for one in typed for place in one.beside(model, without)), len(SOURCES) + 1))


def _ways(one: Typed, how: Mapping[str, Mixture]) -> dict[str, list[Chances]]:
    """How each way ranks the words at each place."""
    without = how[MODEL].without
    of_history = {name: (1.0, *(0.0,) * (len(SOURCES) - 1)) for name in ("first", "other")}
    return {
        "words of the history": [place.chances[0] for place in one.positions()],
        "words of all sources": [mixed(place.chances, without, first=place.first) for place in one.positions()],
        ALONE: [place.chances[-1] for place in one.beside(MODEL, of_history)],
    } | {
        name: [mixed(place.chances, mixture.beside, first=place.first) for place in one.beside(name, without)]
        for name, mixture in how.items()
    }


def _first(draft: Draft, chances: Chances) -> str:
    return draft.words[int(np.argmax(np.where(np.arange(len(chances)) == draft.place(END), -1.0, chances)))]


def _letters(one: Typed) -> int:
    return sum(len(word) + 1 for word in one.words)


# messages --------------------------------------------------------------------------------------------------------


def message(proposer: Proposer, cases: Sequence[Case], report: Reporter, seed: int) -> list[TaskRow]:
    """What is a commit called? Beside the message of the nearest commit, as it is and adapted."""
    report.say("writing messages")
    said = {
        "message of the nearest": [proposer.subject(case.near[0]) if case.near else "" for case in cases],
        "the same, adapted": [proposer.adapted(case.change, case.near) for case in cases],
        MODEL: proposer.written([proposer.prompt(case.change, case.near) for case in cases]),
    }
    truth = [proposer.subject(case.number) for case in cases]
    return [
        judged(
            "message",
            name,
            {
                way: [measure(one, right) for one, right in zip(found, truth, strict=True)]
                for way, found in said.items()
            },
            [1.0] * len(cases),
            model=MODEL,
            neural=(MODEL,),
            seed=seed,
        )
        for name, measure in (("ROUGE-L", rouge_l), ("BLEU", bleu))
    ]


# files -----------------------------------------------------------------------------------------------------------


def files(
    proposer: Proposer, cases: Sequence[Case], shadow: Shadow, report: Reporter, seed: int
) -> tuple[list[TaskRow], float]:
    """Which files does a message touch? Beside `treering files`, and beside what changes often or changed last."""
    predictor = Predictor(proposer.history)
    asked: list[Asked] = []
    for case in report.track(cases, len(cases), "predicting files"):
        if there := _there(predictor, shadow, case):
            first, candidates, wanted = there
            task = cleaned(case.record.message)
            contents = partial(texts, shadow, first)
            told = predictor.predict(task, candidates, mask=case.mask, limit=LISTED, contents=contents)
            opinion = proposer.opinion(proposer.of_message(task, case.mask), {one.path: one.score for one in told})
            plainly = {name: _listed(predictor, case, candidates, fades) for name, fades in PLAINLY.items()}
            asked.append(Asked(wanted, opinion, {"treering files": opinion.order} | plainly))
    return _recall("files", asked, seed)


def upcoming(
    proposer: Proposer, cases: Sequence[Case], shadow: Shadow, report: Reporter, seed: int
) -> tuple[list[TaskRow], float]:
    """Which files does the next commit touch, nothing being known of it? Beside what was touched lately, changes often,
    or changed last.
    """
    predictor = Predictor(proposer.history)
    asked: list[Asked] = []
    for case in report.track(cases, len(cases), "guessing what comes next"):
        if there := _there(predictor, shadow, case):
            _, candidates, wanted = there
            scores = _faded(predictor, case, candidates, FADES)
            opinion = proposer.opinion(proposer.of_last(case.mask), scores)
            plainly = {name: _listed(predictor, case, candidates, fades) for name, fades in PLAINLY.items()}
            asked.append(Asked(wanted, opinion, {"touched lately": opinion.order} | plainly))
    return _recall("next", asked, seed)


PLAINLY = {"changed often": math.inf, "changed last": 0.5}
"""The plainest ways to list files, by how fast a touch fades."""


@dataclass(frozen=True, slots=True)
class Asked:
    """The files that a commit touched, and how each way lists those that were there."""

    wanted: set[str]
    opinion: Opinion
    ways: dict[str, list[str]]

    def recall(self, listed: Sequence[str]) -> float:
        return len(self.wanted.intersection(listed[:DEPTH])) / len(self.wanted)


def _there(predictor: Predictor, shadow: Shadow, case: Case) -> tuple[str, list[str], set[str]] | None:
    """The parent, its files, and those of them that the commit touched; None where nothing can be asked."""
    touches, history = predictor.touches, predictor.history
    first = history.parent(case.number)
    if first is None or not case.mask.any():
        return None
    try:
        candidates = tree(shadow, first)
    except GitFailed:
        return None
    own = {touches.names[file] for file in touches.files[touches.commits == case.number]}
    wanted = own.intersection(candidates)
    return (first, candidates, wanted) if wanted else None


def _faded(predictor: Predictor, case: Case, candidates: Sequence[str], fades: float) -> dict[str, float]:
    touches = predictor.touches
    fresh = fading(predictor.history, touches, case.mask, fades)
    return {path: float(fresh[touches.number[path]]) for path in candidates if path in touches.number}


def _listed(predictor: Predictor, case: Case, candidates: Sequence[str], fades: float) -> list[str]:
    scores = _faded(predictor, case, candidates, fades)
    return sorted(scores, key=lambda path: -scores[path])


def _recall(task: str, asked: Sequence[Asked], seed: int) -> tuple[list[TaskRow], float]:
    """The rows of a task, the model's weight fitted on the other folds; and the weight of all."""
    if not asked:
        return [], 0.0
    found = {name: [one.recall(one.ways[name]) for one in asked] for name in asked[0].ways}
    found[MODEL] = [0.0] * len(asked)
    for fold in range(FOLDS):
        weight = _weight([one for number, one in enumerate(asked) if number % FOLDS != fold])
        for number in range(fold, len(asked), FOLDS):
            found[MODEL][number] = asked[number].recall(asked[number].opinion.ranked(weight))
    row = judged(task, f"recall@{DEPTH}", found, [1.0] * len(asked), model=MODEL, neural=(MODEL,), seed=seed)
    return [row], _weight(asked)


def _weight(asked: Sequence[Asked]) -> float:
    """The weight of a model's opinion that finds most; of equal ones the smallest."""
    return max(
        WEIGHTS, key=lambda weight: (round(sum(one.recall(one.opinion.ranked(weight)) for one in asked), 6), -weight)
    )
