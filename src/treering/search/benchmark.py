"""How well search finds the commits of a repository, measured on that repository itself.

The questions are texts that somebody wrote about a change elsewhere than in it: titles of merges, and entries of
changelogs that name a pull request or an issue. Asked is the history of that day: what is reachable from the commit
that holds the text, but for that commit. Numbers of issues, addresses and hashes are taken out of the question; one
that nearly equals its answer's subject is dropped.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice

import numpy as np
import numpy.typing as npt

from treering.git.blame import texts, tree
from treering.git.reader import Caps, Reader
from treering.git.shadow import GitFailed, Shadow
from treering.search.commits import Finder
from treering.search.files import FEATURES, Predictor
from treering.search.history import History, Mask, Numbers, Scores
from treering.search.lexical import MESSAGE, Lexical, Scope, asked_words
from treering.text.document import is_changelog
from treering.text.references import references
from treering.text.words import vocabulary, words
from treering.types import BASELINE as BASELINE
from treering.types import PLAIN_VOTE, VOTE, FileRow, SearchRow

DEPTH = 10
MOST_ANSWERS = 5
"""A question with more answers than these is about a release, not about a change."""
RESAMPLES = 2000
ALIKE = 0.75
"""Texts with so large a part of their words in common say the same."""

_STRIPPED = re.compile(
    r"https?://\S+|:(?:issue|pr|pull|gh|user|commit):`[^`]*`|\(?(?:[\w.-]+/[\w.-]+)?#\d+\)?|\bGH-\d+|\b[0-9a-f]{7,40}\b"
)
_ROLE = re.compile(r":\w+(?::\w+)*:`~?([^`<]*)(?:<[^`]*>)?`")
_CITED = re.compile(r":(?:issue|pr|pull|gh):`(\d+)`|#(\d+)\b|/(?:pull|issues)/(\d+)")
_BULLET = re.compile(r"^\s*(?:[-*+•]|\d+[.)])\s+")
_NO_TITLE = re.compile(r"^merge (?:branch|remote-tracking|tag|commit|branches)\b|^merged? ", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Case:
    """A question, the commits that answer it, and the commit that its text stands in (-1: none)."""

    source: str
    query: str
    answers: frozenset[int]
    stands_in: int


def cleaned(text: str) -> str:
    """A text without what would give its answer away, on one line."""
    return " ".join(_ROLE.sub(r"\1", _STRIPPED.sub(" ", text)).split()).strip("*- ")


def cases_of(history: History, reader: Reader, messages: Mapping[int, str], most: int) -> list[Case]:
    """The fair cases of a repository, the newest ``most`` of each source."""
    found: list[Case] = []
    for told in (merge_titles(history, messages), changelog_entries(history, reader, messages)):
        newest = sorted(told, key=lambda case: -case.stands_in)
        found += reversed(list(islice(fair(history, newest, messages), most)))
    return found


def merge_titles(history: History, messages: Mapping[int, str]) -> Iterator[Case]:
    """Titles of merges, answered by the commits that they brought in."""
    brought: dict[int, set[int]] = {}
    for number in np.flatnonzero(history.merged_by >= 0).tolist():
        if not history.merges[number]:
            brought.setdefault(int(history.merged_by[number]), set()).add(number)
    for merge, answers in sorted(brought.items()):
        if title := title_of(messages[merge]):
            yield Case("merge titles", cleaned(title), frozenset(answers), merge)


def title_of(message: str) -> str:
    """The subject of a message; of a merge that only names branches the first line of its body, if that is a text."""
    subject, _, body = message.partition("\n")
    if _NO_TITLE.match(subject):
        subject = next((line for line in body.split("\n") if line.strip()), "")
        if _NO_TITLE.match(subject) or ":" in subject.split(" ")[0]:  # trailers
            return ""
    return subject


def changelog_entries(history: History, reader: Reader, messages: Mapping[int, str]) -> Iterator[Case]:
    """Entries of changelogs that cite a number, answered by the commits that mention it or came in with a merge that
    does.
    """
    mentioned: dict[str, set[int]] = {}
    for number, message in messages.items():
        for kind in ("pull-requests", "fixes", "issues"):
            for name in references(message).get(kind, ()):
                mentioned.setdefault(name.rpartition("#")[2], set()).add(number)
    for merge in np.unique(history.merged_by[history.merged_by >= 0]).tolist():
        for kind in ("pull-requests", "fixes"):
            for name in references(messages[merge]).get(kind, ()):
                mentioned.setdefault(name.rpartition("#")[2], set()).update(
                    np.flatnonzero(history.merged_by == merge).tolist()
                )
    citing = [
        name
        for name in (history.hashes[number] for number in np.flatnonzero(~history.merges))
        if _writes_changelog(history, name)
    ]
    for commit in reader.commits(citing, caps=Caps(1 << 16, 1 << 17)):
        number = history.number[commit.hash]
        for patch in commit.patches:
            if _own_changelog(patch.path):
                for entry in _entries(patch.text):
                    cited = {next(filter(None, found)) for found in _CITED.findall(entry)}
                    answers = {one for name in cited for one in mentioned.get(name, ()) if not history.merges[one]}
                    yield Case("changelog entries", cleaned(entry), frozenset(answers - {number}), number)


def _writes_changelog(history: History, name: str) -> bool:
    commit_id = int(history.ids[history.number[name]])
    return any(_own_changelog(path) for _, said in history.store.features([commit_id]) for path in said.paths)


def _own_changelog(path: str) -> bool:
    """Whether a file is a changelog in the root or a folder of it: further down are those of others' projects."""
    return path.count("/") < 2 and is_changelog(path)


def _entries(patch: str) -> Iterator[str]:
    """The added entries of a changelog, bullet by bullet."""
    entry: list[str] = []
    for line in patch.split("\n"):
        if not line.startswith("+") or _BULLET.match(line[1:]) or not line[1:].strip():
            if entry:
                yield "\n".join(entry)
            entry = []
        if line.startswith("+") and line[1:].strip():
            entry.append(line[1:])
    if entry:
        yield "\n".join(entry)


def fair(history: History, cases: Iterable[Case], messages: Mapping[int, str]) -> Iterator[Case]:
    """The cases that say something about search, each question once: their answers were there, are few, and do not
    repeat the question, and nor does the title of a commit that is none of them (the same change on another branch is
    no worse an answer).
    """
    kept: set[str] = set()
    titles = {number: vocabulary(cleaned(title_of(message))) for number, message in messages.items()}
    holding: dict[str, list[int]] = {}
    for number, title in titles.items():
        for word in title:
            holding.setdefault(word, []).append(number)

    same = partial(change, history)

    def repeated(asked: set[str], answers: Iterable[int], known: Mask) -> bool:
        shared = Counter(number for word in asked for number in holding.get(word, ()))
        right = set(map(same, answers))
        return any(
            known[number] and same(number) not in right and _alike(asked, titles[number])
            for number, count in shared.items()
            if count >= ALIKE * len(asked)
        )

    for case in cases:
        if case.query.lower() in kept or not 3 <= len(case.query.split()) <= 60:
            continue
        asked, known = vocabulary(case.query), before(history, case)
        answers = frozenset(number for number in case.answers if known[number])
        if not 1 <= len(answers) <= MOST_ANSWERS or repeated(asked, answers, known):
            continue
        if not any(_alike(asked, vocabulary(messages[number].partition("\n")[0])) for number in answers):
            kept.add(case.query.lower())
            yield replace(case, answers=answers)


def change(history: History, number: int) -> int:
    """What a commit changes: equal for commits with the same patch."""
    return int(_changes(history, np.array(number)))


def _changes(history: History, numbers: Numbers) -> Numbers:
    patches = history.patch[numbers]
    return np.where(patches >= 0, patches, -2 - numbers)


def _alike(one: set[str], other: set[str]) -> bool:
    return len(one & other) >= ALIKE * len(one | other)


def before(history: History, case: Case) -> Mask:
    """What was there when a case's text was written: all that is reachable from its commit, but for that commit."""
    if case.stands_in < 0:
        return history.everything
    known = history.at(history.hashes[case.stands_in])
    known[case.stands_in] = False
    return known


Ranked = tuple[Numbers, Scores]
"""The numbers of commits, best first, and their scores."""
Ranker = Callable[[str, Mask], Ranked]
"""From a question and what it may know to what it finds."""


def rankers(finder: Finder, messages: Mapping[int, str]) -> dict[str, Ranker]:
    """treering, and what people use instead, on the same commits."""
    history = finder.history
    plain = ~history.merges
    lowered = {number: message.lower() for number, message in messages.items()}

    def ranked(scores: Scores, through: Mask) -> Ranked:
        numbers = np.flatnonzero(through & (scores > -np.inf))
        numbers = numbers[np.argsort(-scores[numbers])]
        return numbers, scores[numbers]

    def git_grep(query: str, mask: Mask) -> Ranked:
        asked = [word.lower() for word in query.split() if len(word) > 2]
        numbers = np.flatnonzero(mask & plain)[::-1]
        holding = numbers[[any(word in lowered[number] for word in asked) for number in numbers.tolist()]]
        return holding, holding.astype(np.float64)  # the newest first

    def bm25(query: str, mask: Mask) -> Ranked:
        scores = Lexical(Scope(history, mask, merge_texts=False), asked_words(query)).bm25({MESSAGE: 1.0})
        return ranked(np.where(scores > 0, scores, -np.inf), mask & plain)

    def dense(query: str, mask: Mask) -> Ranked:
        found = near(query)["message"]
        return ranked(np.where(np.isnan(found), -np.inf, found), mask & plain)

    def treering(query: str, mask: Mask) -> Ranked:
        found = finder.ask(query, mask=mask, through=plain)
        return found.numbers, found.scores

    ways: dict[str, Ranker] = {"git log --grep": git_grep, BASELINE: bm25}
    if finder.dense and finder.dense.count:
        near = finder.dense.ask
        ways["dense on messages"] = dense
    return ways | {"treering": treering}


@dataclass(frozen=True, slots=True)
class Outcome:
    """One case under one ranker: the rank of the first right answer (0 if it is none of the first :data:`DEPTH`), and
    the part of the answers found.
    """

    rank: float
    recall: float

    @property
    def reciprocal(self) -> float:
        return 1 / self.rank if self.rank else 0.0


def outcome(history: History, case: Case, ranked: Ranked) -> Outcome:
    """Commits with the same patch count as one, whichever of them is found; equal scores take the mean of their
    ranks.
    """
    numbers, scores = ranked
    wanted = {change(history, number) for number in case.answers}
    changes = _changes(history, numbers)
    once = np.sort(np.unique(changes, return_index=True)[1])
    found, falling = changes[once], -scores[once]
    places = np.flatnonzero(np.isin(found, list(wanted)))
    above, through = (np.searchsorted(falling, falling[places], side) for side in ("left", "right"))
    ranks = (above + 1 + through) / 2
    ranks = ranks[ranks <= DEPTH]
    return Outcome(float(min(ranks, default=0.0)), len(ranks) / len(wanted))


@dataclass(frozen=True, slots=True)
class Judged:
    """What every way to search made of some cases: for each case the slices that it is of, and for each way its
    outcomes, case by case.
    """

    slices: list[list[str]]
    outcomes: Mapping[str, list[Outcome]]


def judged(finder: Finder, cases: Sequence[Case], messages: Mapping[int, str]) -> Judged:
    """Ask every way every case. Slices: by source, all, those with few words in common with the answers' messages, and
    those whose answers' messages say nothing.
    """
    history = finder.history
    ways = rankers(finder, messages)
    slices = []
    outcomes: dict[str, list[Outcome]] = {name: [] for name in ways}
    for case in cases:
        known = before(history, case)
        empty = history.empty(known)
        for name, way in ways.items():
            outcomes[name].append(outcome(history, case, way(case.query, known)))
        asked = vocabulary(case.query)
        said = {word for number in case.answers for word in words(messages[number])}
        fits = {
            case.source: True,
            "all": True,
            "few words in common": len(asked & said) < len(asked) / 3,
            "messages that say nothing": all(empty[number] for number in case.answers),
        }
        slices.append([name for name, true in fits.items() if true])
    return Judged(slices, outcomes)


def rows_of(told: Judged) -> list[SearchRow]:
    """The figures of every way on every slice."""
    slices: dict[str, list[int]] = {}
    for place, names in enumerate(told.slices):
        for name in names:
            slices.setdefault(name, []).append(place)
    outcomes = told.outcomes
    rows = []
    for cases_of, places in slices.items():
        mrr = {name: np.array([found[place].reciprocal for place in places]) for name, found in outcomes.items()}
        recall = {name: np.array([found[place].recall for place in places]) for name, found in outcomes.items()}
        rows += [
            SearchRow(
                cases_of,
                name,
                len(places),
                float(mrr[name].mean()),
                float(recall[name].mean()),
                interval(mrr[name], mrr[BASELINE]),
                interval(recall[name], recall[BASELINE]),
            )
            for name in outcomes
        ]
    return rows


def measure_files(predictor: Predictor, shadow: Shadow, messages: Mapping[int, str], most: int) -> list[FileRow]:
    """File prediction on commits of the newest fifth, each with its own message as the task and its parent's tree as
    the candidates; beside votes of the nearest commits, the files changed most often, and those changed last.
    """
    history, touches = predictor.history, predictor.touches
    plain = np.flatnonzero(~history.merges)
    newest = plain[-max(1, len(plain) // 5) :]
    empty = history.empty(history.everything)
    chosen = [number for number in newest.tolist() if not empty[number]]
    chosen = chosen[:: max(1, len(chosen) // most)]
    recalls: dict[str, list[float]] = {
        "treering": [],
        VOTE: [],
        PLAIN_VOTE: [],
        "changed often": [],
        "changed last": [],
    }
    ranks: dict[str, list[float]] = {name: [] for name in recalls}
    for number in chosen:
        mask = history.at(history.hashes[number])
        mask[number] = False
        own = {touches.names[file] for file in touches.files[touches.commits == number]}
        first = history.parent(number)
        if not mask.any() or not own or first is None:
            continue
        try:
            candidates = tree(shadow, first)
        except GitFailed:
            continue
        wanted = own & set(candidates)
        if not wanted:
            continue
        task = cleaned(messages[number])
        rows = predictor.features(task, mask, candidates)
        ways = {
            "treering": [
                one.path
                for one in predictor.predict(
                    task, candidates, mask=mask, limit=DEPTH, contents=partial(texts, shadow, first)
                )
            ],
        }
        ways[PLAIN_VOTE] = _voted(predictor, task, mask, candidates)
        for name, column in ((VOTE, "near messages"), ("changed often", "often changed"), ("changed last", "recency")):
            order = np.lexsort((np.arange(len(candidates)), -rows[:, FEATURES.index(column)]))[:DEPTH]
            ways[name] = [candidates[place] for place in order]
        for name, found in ways.items():
            recalls[name].append(len(wanted.intersection(found)) / len(wanted))
            ranks[name].append(next((1 / rank for rank, one in enumerate(found, start=1) if one in wanted), 0.0))
    if not recalls["treering"]:
        return []
    figures = {name: np.array(found) for name, found in recalls.items()}
    return [
        FileRow(name, len(found), float(np.mean(ranks[name])), float(found.mean()), interval(found, figures[VOTE]))
        for name, found in figures.items()
    ]


def _voted(predictor: Predictor, task: str, mask: Mask, candidates: Sequence[str]) -> list[str]:
    """The files that most of the ten nearest commits touched; of equally many, those of the nearest first."""
    history, touches = predictor.history, predictor.touches
    scores = Lexical(Scope(history, mask), asked_words(task)).bm25({MESSAGE: 1.0})
    scores[~mask | history.merges] = -np.inf
    nearest = [number for number in np.argsort(-scores, kind="stable")[:10].tolist() if scores[number] > 0]
    there = set(candidates)
    votes = Counter(touches.names[file] for number in nearest for file in touches.files[touches.commits == number])
    return [name for name, _ in votes.most_common() if name in there][:DEPTH]


Figures = npt.NDArray[np.float64]


def interval(ours: Figures, theirs: Figures, seed: int = 7) -> tuple[float, float]:
    """The 95 % interval of the mean difference by a paired bootstrap over cases (Efron and Tibshirani, 1993)."""
    difference = ours - theirs
    drawn = np.random.default_rng(seed).integers(0, len(difference), (RESAMPLES, len(difference)))
    low, high = np.quantile(difference[drawn].mean(axis=1), [0.025, 0.975])
    return float(low), float(high)
