"""What a part of the history is about: its commits in clusters, each named by the words that tell it apart.

Two commits are near by their vectors and by their words (cosines, half and half; by words alone where there are no
vectors). They are joined to a tree, and the tree is cut where the names tell most: a branch is worth as many commits
as it has, times how well its best word describes it. Merges and repeated patches are left out; a commit whose message
says nothing is placed by its diff alone.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise

import numpy as np
from msgspec import Struct

from treering.search.clusters import Matrix, cut, ward
from treering.search.dense import Dense
from treering.search.history import History, Mask
from treering.search.lexical import STOP_WORDS
from treering.text.document import best_names
from treering.text.kinds import NOISE
from treering.text.words import parts
from treering.types import Features, day_of

MOST = 2000
"""How many commits, the newest, are looked at: of the period, and of what came before it."""
ABOUT = 40
"""A commit is about so many words: those that weigh most."""
NAMES = 40
"""How many of the names that a commit adds are read."""
VOCABULARY = 8000
"""How many words, the most common of the period, make commits near."""
PART = 40
"""A theme has at least one in so many commits of the period."""
FEW = 24
"""In fewer commits than these, a word that more than half of them say may well be their theme."""
EXAMPLES = 3
SAID = 600
"""Characters of a message's body that are read."""
CHANCE = 5
"""So many commits may hold a word by chance: what describes few is taken to describe them less well."""
TOGETHER = 0.5
"""Two words that so large a part of their commits say as one are told as one."""
MOSTLY = 0.5
"""The first word of a name is said by more than this part of a theme."""
BESIDE = 0.4
"""What stands beside the first word of a name describes at least so well, compared with it, and is said by as many."""

About = dict[str, tuple[float, float]]
"""What a commit is about: for each word how heavy it is there, and how surely it is said, up to 1."""

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)?|_")
_TRAILER = re.compile(r"^[A-Za-z][\w-]*(?: [\w-]+)?: .*$|^\(cherry picked from .*$", re.MULTILINE)
_URL = re.compile(r"\S+://\S+|\S+@\S+")
_EXTENSION = re.compile(r"(?<=[^/])\.\w{1,10}$")
_COMMON_WORDS = """
src lib libs mod index init util utils common core misc true false none null self return new old get set add adds added
fix fixed fixes update updated updates remove removed use used uses let pub const def class str int total test tests
testing local change changes file files merge pull request branch data value values name type main last first count code
work
"""
_COMMON = frozenset(_COMMON_WORDS.split())
"""Words of messages, folders and code that tell no theme but beside another one."""


class Example(Struct, frozen=True):
    """A commit as it is shown: its subject (empty where its message says nothing) and the paths that tell most."""

    commit_hash: str
    subject: str
    date: str
    paths: tuple[str, ...]


class Theme(Struct, frozen=True):
    """Commits that are near each other, newest first, with what they are called and the nearest to their middle."""

    name: str
    words: tuple[str, ...]
    commits: tuple[str, ...]
    examples: tuple[Example, ...]


def telling(history: History, mask: Mask) -> list[int]:
    """The commits of ``mask`` that are no merges, each patch once, oldest first."""
    seen: set[int] = set()
    found = []
    for number in np.flatnonzero(mask & ~history.merges).tolist():
        patch = int(history.patch[number])
        if patch < 0 or patch not in seen:
            found.append(number)
            seen.add(patch)
    return found


def themes(
    history: History, dense: Dense | None, period: Sequence[int], before: Sequence[int], most: int
) -> list[Theme]:
    """What the commits of ``period`` are about, beside those that came ``before``: the largest ``most`` themes. A
    commit is in one theme at most, and in none where no words tell it apart.
    """
    period, before = list(period)[-MOST:], list(before)[-MOST:]
    silent = history.empty(history.everything)
    said = dict(zip((*before, *period), _features(history, (*before, *period)), strict=True))
    common = _words_of_silence(said, silent)
    own = frozenset(_split(history.store.fact("repo") or ""))  # what a project is called tells its parts not apart
    kinds = history.store.paths()
    texts = {number: _weighed(one, kinds, common, own, silent=bool(silent[number])) for number, one in said.items()}
    held = Counter(word for weights in texts.values() for word in weights)
    if len(texts) >= FEW:  # what nearly all say, such as the project's name in every path, tells no part apart
        texts = {
            number: {word: weight for word, weight in weights.items() if held[word] <= MOSTLY * len(texts)}
            for number, weights in texts.items()
        }
    rarity = {word: float(np.log1p(len(texts) / (count + CHANCE))) for word, count in held.items()}
    about = {number: _heaviest(weights, rarity) for number, weights in texts.items()}
    words = _Words([about[number] for number in period], [about[number] for number in before])
    near = words.near()
    if dense is not None and dense.count:
        near = (near + _near(dense.middles(silent)[period + before], len(period))) / 2
    smallest = max(2 if len(period) < 12 else 3, -(-len(period) // PART))
    clusters = cut(len(period), ward(near), words.worth, smallest)
    clusters.sort(key=lambda places: (-len(places), places))
    forms = _forms(said[number] for number in period)
    found: list[Theme] = []
    taken: set[str] = set()
    for places in clusters[:most]:
        named = words.names(places, taken)
        taken.add(named[0])
        middle = near[np.ix_(places, places)].sum(axis=1)
        nearest = [period[places[place]] for place in np.argsort(-middle, kind="stable")[:EXAMPLES].tolist()]
        found.append(Theme(
            name=_titled([" ".join(forms.get(word, word) for word in name.split()) for name in named]),
            words=tuple(named),
            commits=tuple(history.hashes[period[place]] for place in reversed(places)),
            examples=tuple(
                _example(history, number, said[number], named, silent=bool(silent[number])) for number in nearest
            ),
        ))  # fmt: skip
    return found


def _features(history: History, numbers: Iterable[int]) -> Iterator[Features]:
    for _, said in history.store.features(int(history.ids[number]) for number in numbers):
        yield said


def _words_of_silence(said: Mapping[int, Features], silent: Mask) -> frozenset[str]:
    """The words of messages that say nothing: they say nothing in a message that varies them either."""
    return frozenset(
        word for number, one in said.items() if silent[number] for word in _split(one.message.split("\n")[0])
    )


def _split(text: str) -> list[str]:
    return [part.lower() for word in _WORD.findall(text) for part in (parts(word) or [word])]


def _terms(split: Sequence[str], own: frozenset[str]) -> set[str]:
    """Words that may tell, and pairs with one of them that stand together."""
    meant = {word for word in split if len(word) > 2 and word.isalpha() and word not in STOP_WORDS}
    found = meant - _COMMON - own
    pairs = ((one, other) for one, other in pairwise(split) if one in meant and other in meant and one != other)
    return found | {f"{one} {other}" for one, other in pairs if one in found or other in found}


def _weighed(
    said: Features, kinds: Mapping[str, str], common: frozenset[str], own: frozenset[str], *, silent: bool
) -> dict[str, float]:
    """How much a commit says each word: most in its message, then in its paths, then in the names it adds."""
    weights: defaultdict[str, float] = defaultdict(float)
    meant = [path for path in said.paths if kinds.get(path) not in NOISE]
    if not silent:
        subject, _, body = said.message.partition("\n")
        for text, weight in ((subject, 2.0), (_TRAILER.sub("", body)[:SAID], 0.5)):
            for line in _URL.sub(" _ ", text).splitlines():
                for word in _terms([word for word in _split(line) if word not in common], own):
                    weights[word] = max(weights[word], weight)
    for texts, weight, top in (
        ([_EXTENSION.sub("", path).replace("/", " _ ") for path in meant or said.paths], 0.6, 2.0),
        (best_names(said, NAMES), 0.5, 1.5),
    ):
        often = Counter(word for text in texts for word in _terms(_split(text), own))
        for word, count in often.items():
            weights[word] += min(top, weight * float(np.log1p(count)))
    return weights


def _heaviest(weights: Mapping[str, float], rarity: Mapping[str, float]) -> About:
    heaviest = sorted(weights, key=lambda word: (-weights[word] * rarity[word], word))[:ABOUT]
    return {word: (weights[word] * rarity[word], min(1.0, weights[word])) for word in heaviest}


class _Words:
    """The words that the commits of a period, and those before it, are about."""

    def __init__(self, period: Sequence[About], before: Sequence[About]) -> None:
        counts = Counter(word for about in period for word in about)
        kept = sorted((word for word in counts if counts[word] > 1), key=lambda word: (-counts[word], word))
        self.words = kept[:VOCABULARY]
        self._place = place = {word: number for number, word in enumerate(self.words)}
        self._rows = np.array([row for row, about in enumerate(period) for word in about if word in place], np.int64)
        held = [(place[word], *said) for about in period for word, said in about.items() if word in place]
        self._columns = np.array([word for word, _, _ in held], np.int64)
        self._heavy = np.array([heavy for _, heavy, _ in held], np.float64)
        self._sure = np.array([sure for _, _, sure in held], np.float64)
        self._count = len(period)
        self._now = np.bincount(self._columns, self._sure, len(self.words))
        earlier: defaultdict[str, float] = defaultdict(float)
        for about in before:
            for word, (_, sure) in about.items():
                earlier[word] += sure
        self._all = self._now + np.array([earlier[word] for word in self.words])
        self._texts = len(period) + len(before)

    def near(self) -> Matrix:
        """The cosines of the period's commits by their words."""
        rows = np.zeros((self._count, len(self.words)), np.float32)
        rows[self._rows, self._columns] = self._heavy
        rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)
        found = np.asarray(rows @ rows.T, np.float64)
        np.fill_diagonal(found, 1.0)
        return found

    def _described(self, places: Sequence[int]) -> tuple[Matrix, Matrix, Matrix]:
        """How well each word describes some commits, 0 to 1; how surely it is said in them, summed up; and by which
        part of them it is said. The first is F1 of the commits that say it, drawn down where they are few, times how
        much oftener it is said than elsewhere.
        """
        inside = np.isin(self._rows, places)
        columns = self._columns[inside]
        held = np.bincount(columns, self._sure[inside], len(self.words)).astype(np.float64)
        both = 2 * held / (len(places) + self._now + CHANCE)
        elsewhere = (self._all - held) / max(1, self._texts - len(places))
        part = np.bincount(columns, minlength=len(self.words)) / len(places)
        return both * np.maximum(0.0, held / len(places) - elsewhere), held, part

    def worth(self, places: Sequence[int]) -> float:
        """How many commits the best word tells apart; one that half of them do not say is none."""
        scores, _, part = self._described(places)
        return len(places) * float(scores[part > MOSTLY].max(initial=0.0))

    def names(self, places: Sequence[int], taken: Collection[str]) -> list[str]:
        """The words that describe some commits best, at most three that have nothing in common; those that mostly stand
        together are told together. The first of them is not ``taken``, where another one fits.
        """
        scores, held, part = self._described(places)
        order = [word for word in np.argsort(-scores, kind="stable")[:200].tolist() if scores[word] > 0]
        first = [word for word in order if part[word] > MOSTLY]
        first = [word for word in first if self.words[word] not in taken] or first
        named: list[str] = []
        for word in (*first[:1], *order):
            if len(named) == 3 or scores[word] < BESIDE * scores[first[0]]:
                break
            name, used = self.words[word], {part for name in named for part in name.split()}
            fits = not named or (name not in taken and part[word] > BESIDE)
            if fits and used.isdisjoint(name.split()):
                named.append(name)
        for one in list(named):
            pairs = [pair for pair in order if one in self.words[pair].split() and self.words[pair] != one]
            for pair in pairs:
                words = self.words[pair].split()
                others = {part for name in named if name != one and name not in words for part in name.split()}
                beside = [held[self._place[name]] for name in words if name in named]
                if one in named and held[pair] >= TOGETHER * min(beside) and others.isdisjoint(words):
                    named = [
                        self.words[pair] if name == one else name for name in named if name == one or name not in words
                    ]
        return named


def _near(middles: Matrix, count: int) -> Matrix:
    """The cosines of the first ``count`` vectors, seen from the middle of all of them."""
    there = np.asarray(middles.any(axis=1))
    seen = np.where(there[:, None], middles - middles[there].mean(axis=0) if there.any() else middles, 0.0)[:count]
    seen /= np.maximum(np.linalg.norm(seen, axis=1, keepdims=True), 1e-9)
    found = seen @ seen.T
    np.fill_diagonal(found, 1.0)
    return np.asarray(found, np.float64)


def _forms(said: Iterable[Features]) -> dict[str, str]:
    """Each word as it is mostly written where it stands alone, in messages and prose."""
    written: dict[str, Counter[str]] = {}
    for one in said:
        for word in set(_WORD.findall(f"{one.message} {one.prose}")):
            written.setdefault(word.lower(), Counter())[word] += 1
    return {word: max(forms, key=lambda form: (forms[form], form.islower(), form)) for word, forms in written.items()}


def _titled(names: Sequence[str]) -> str:
    name = ", ".join(names)
    return name[:1].upper() + name[1:]


def _example(history: History, number: int, said: Features, named: Sequence[str], *, silent: bool) -> Example:
    words = {word for name in named for word in name.split()}
    telling_first = sorted(said.paths, key=lambda path: -len(words.intersection(_split(path))))
    return Example(
        commit_hash=history.hashes[number],
        subject="" if silent else " ".join(said.message.partition("\n")[0].split()),
        date=day_of(int(history.times[number])),
        paths=tuple(telling_first[:EXAMPLES]),
    )
