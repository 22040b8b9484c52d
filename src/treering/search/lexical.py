"""The lexical leg: BM25 over the fields of the index, counted over the commits a question may see and no others.

Robertson and Zaragoza, The Probabilistic Relevance Framework: BM25 and Beyond (2009); fields are weighted before the
saturation where they are read as one text (BM25F), and after it where each has a score of its own.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from treering.search.discussed import KINDS, Discussed
from treering.search.history import Held, History, Mask, Numbers, Part, Remembered, Scores
from treering.text.document import FIELDS
from treering.text.words import STEM, words

K1 = 1.2
B = 0.75
LONGEST_QUERY = 64
"""Words of a query that count; a longer one is a text, and its first words say what it is about."""

_STOP = """
a about after all also an and any are as at be been before being but by can cannot could did do does doing done for
from had has have having he her his how i if in instead into is it its itself just made make makes many may me might
more most much my no nor not now of off on once one only or other our out over own same she should so some such than
that the their them then there these they this those through to too under until up us very was we were what when where
which while who whom whose why will with without would you your
"""
STOP_WORDS = frozenset(_STOP.split())
"""Words of a question that say nothing of its subject."""

MESSAGE, PATHS, FUNCTIONS, IDENTIFIERS, PROSE, DIFF = range(len(FIELDS))
OWN = len(FIELDS)
"""The message without the text of the merge that brought its commit in."""
REQUEST, ISSUE = (OWN + 1 + place for place in range(len(KINDS)))
"""What was discussed at the forge. How often a word stands there counts by the length of that text, and that length is
none of the commit's: what much was written about is found by its own words as before."""


def asked_words(query: str) -> list[str]:
    """The words of a query that are looked up, each once."""
    asked = list(dict.fromkeys(words(query)))
    return [word for word in asked if word.rstrip(STEM) not in STOP_WORDS][:LONGEST_QUERY] or asked[:LONGEST_QUERY]


class Scope:
    """What questions may see of a history, and what is the same for all that may see it. With ``merge_texts`` the
    message of the merge that brought a commit in counts as its own; ``merged_by`` says which that is where more is
    known already, for parts of it. ``discussed`` is what was said of commits at the forge.
    """

    def __init__(
        self,
        history: History,
        mask: Mask,
        *,
        merge_texts: bool = True,
        merged_by: Numbers | None = None,
        discussed: Discussed | None = None,
    ) -> None:
        self.history = history
        self.mask = mask
        self.seen = int(mask.sum())
        self.held = Remembered(self._held)
        merged_by = merged_by if merged_by is not None else history.brought(mask) if merge_texts else np.array(-1)
        self.merged_by = np.where(mask & (merged_by >= 0) & mask[merged_by], merged_by, -1)
        """The number of the merge that brought a commit in, or -1."""
        self._brought = np.flatnonzero(self.merged_by >= 0)
        self._brings = np.zeros(len(history), bool)
        self._brings[self.merged_by[self._brought]] = True
        self._lengths = np.column_stack((history.lengths, history.lengths[:, MESSAGE])).astype(np.float64)
        self._lengths[self._brought, MESSAGE] += history.lengths[self.merged_by[self._brought], MESSAGE]
        self._norms: dict[tuple[tuple[int, float], ...], Scores] = {}
        self.discussed = discussed
        self._said = self._threads(discussed) if discussed else {}

    def _threads(self, discussed: Discussed) -> dict[int, tuple[Numbers, Numbers, Scores]]:
        """For each kind that there is: which texts are of which commits, and what their length divides by."""
        pairs = discussed.within(self.mask, self.merged_by)
        found: dict[int, tuple[Numbers, Numbers, Scores]] = {}
        for kind, field in enumerate((REQUEST, ISSUE)):
            of = discussed.kinds[pairs.texts] == kind
            commits, texts = pairs.commits[of], pairs.texts[of]
            lengths = np.bincount(commits, discussed.lengths[texts], len(self.history)).astype(np.float64)
            if lengths.any():
                found[field] = commits, texts, 1 - B + B * lengths / lengths[lengths > 0].mean()
        return found

    def norm(self, weights: Mapping[int, float]) -> Scores:
        """What BM25 adds to how often a word stands in a commit, by the length of the fields named."""
        key = tuple(weights.items())
        if key not in self._norms:
            own = [field for field in weights if field <= OWN]
            lengths = self._lengths[:, own] @ np.array([weights[field] for field in own])
            self._norms[key] = K1 * (1 - B + B * lengths / max(float(np.mean(lengths[self.mask])), 1e-9))
        return self._norms[key]

    def _held(self, words: Sequence[str]) -> Iterator[Held]:
        return map(self._seen, words, self.history.held(words))

    def _seen(self, word: str, held: Held) -> Held:
        if self.mask is not self.history.everything:
            held = held.within(self.mask)
        found, anywhere = dict(held.fields), held.anywhere
        if MESSAGE in found:
            found[OWN] = found[MESSAGE]
            if self._brings[found[MESSAGE][0]].any():
                of_all = np.zeros(len(self.history))
                of_all[found[MESSAGE][0]] = found[MESSAGE][1]
                of_all[self._brought] += of_all[self.merged_by[self._brought]]
                numbers = np.flatnonzero(of_all)
                found[MESSAGE] = numbers, of_all[numbers]
                of_all[anywhere] = 1
                anywhere = np.flatnonzero(of_all)
        for field, counts in self._held_by_threads(word):
            if len(numbers := np.flatnonzero(counts)):
                found[field] = numbers, counts[numbers]
                anywhere = np.union1d(anywhere, numbers)
        return Held(found, anywhere)

    def _held_by_threads(self, word: str) -> Iterator[tuple[int, Scores]]:
        if not self.discussed or not self._said:
            return
        places, counts = self.discussed.held(word)
        if not len(places):
            return
        often = np.zeros(len(self.discussed.kinds))
        often[places] = counts
        for field, (commits, texts, length) in self._said.items():
            yield field, np.bincount(commits, often[texts], len(self.history)) / length

    def bm25(self, held: Held, weights: Mapping[int, float]) -> Part | None:
        """What one word adds to BM25 of the fields named: for whom and how much; None where nobody holds it there."""
        key = tuple(weights.items())
        if key not in held.bm25:
            held.bm25[key] = self._bm25(held, weights)
        return held.bm25[key]

    def _bm25(self, held: Held, weights: Mapping[int, float]) -> Part | None:
        there = [(field, weight) for field, weight in weights.items() if field in held.fields]
        if not there:
            return None
        if len(there) == 1:
            numbers, counts = held.fields[there[0][0]]
            counts = counts * there[0][1]
        else:
            of_all = np.zeros(len(self.history))
            for field, weight in there:
                numbers, counts = held.fields[field]
                of_all[numbers] += weight * counts
            numbers = held.anywhere[of_all[held.anywhere] > 0]
            counts = of_all[numbers]
        norm = self.norm(weights)[numbers]
        return numbers, _rarity(len(numbers), self.seen) * counts * (K1 + 1) / (counts + norm)


class Lexical:
    """The words of one query, looked up in what it may see."""

    def __init__(self, scope: Scope, asked: Iterable[str]) -> None:
        self.scope = scope
        self.words = list(asked)
        self._held = scope.held(self.words)

    def bm25(self, weights: Mapping[int, float]) -> Scores:
        """BM25 of the fields named, read as one text in which each counts as often as its weight says."""
        parts = (self.scope.bm25(held, weights) for held in self._held)
        return _added([part for part in parts if part], len(self.scope.history))

    def rarity(self) -> dict[str, float]:
        """How rare each word is: the inverse document frequency over what may be seen."""
        seen = self.scope.seen
        return {word: _rarity(len(held.anywhere), seen) for word, held in zip(self.words, self._held, strict=True)}

    def coverage(self) -> Scores:
        """What part of the query a commit holds in any field: its words, weighted by how rare they are; 0 to 1."""
        rarity = self.rarity()
        parts = [
            (held.anywhere, np.full(len(held.anywhere), rarity[word]))
            for word, held in zip(self.words, self._held, strict=True)
        ]
        return _added(parts, len(self.scope.history)) / (sum(rarity.values()) or 1.0)

    def held_by(self, commits: Numbers) -> list[dict[int, list[str]]]:
        """The words of the query that each of these commits holds, by field."""
        found: list[dict[int, list[str]]] = [{} for _ in commits]
        named = [
            (word, field, numbers)
            for word, held in zip(self.words, self._held, strict=True)
            for field, (numbers, _) in held.fields.items()
        ]
        if not named:
            return found
        place_of = np.full(len(self.scope.history), -1, np.int64)
        place_of[commits] = np.arange(len(commits))
        places = place_of[np.concatenate([numbers for *_, numbers in named])]
        theirs = np.flatnonzero(places >= 0)
        ends = np.cumsum([len(numbers) for *_, numbers in named])
        for one, place in zip(np.searchsorted(ends, theirs, "right").tolist(), places[theirs].tolist(), strict=True):
            word, field, _ = named[one]
            found[place].setdefault(field, []).append(word)
        return found


def _added(parts: Sequence[Part], size: int) -> Scores:
    """What each commit gets of all parts, added in their order."""
    if not parts:
        return np.zeros(size)
    numbers = np.concatenate([numbers for numbers, _ in parts])
    return np.asarray(np.bincount(numbers, np.concatenate([much for _, much in parts]), size), np.float64)


def _rarity(holding: int, seen: int) -> float:
    """Inverse document frequency, never negative."""
    return math.log1p((seen - holding + 0.5) / (holding + 0.5))
