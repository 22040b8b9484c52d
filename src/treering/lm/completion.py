"""Finishing a message word by word: counts of words that need no model, and how a model's opinion joins them.

Every source gives each word of one vocabulary a chance; a mixture of them ranks the words. The weights are fitted by
expectation maximisation (Jelinek and Mercer, 1980), apart for a message's first word and for the others.
"""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Chances = npt.NDArray[np.float64]

SOURCES = ("history", "near", "last", "own")
"""What needs no model: all messages so far, those of the nearest commits, the last ones, the names in the change."""
DISCOUNT = 0.75
LAST = 30
"""How many messages are the last ones."""
OTHER_CASE = 0.3
"""What a name in the change counts in another case than its own."""
ROUNDS = 30
END = "\n"
"""Stands behind the last word, and before the first; no word has it."""


class Followers:
    """Counts of words behind the two, the one and no word before them, interpolated with absolute discounting."""

    def __init__(self) -> None:
        self.counts: dict[tuple[str, ...], dict[str, float]] = {}

    def read(self, words: Sequence[str], weight: float = 1.0) -> None:
        told = (END, END, *words, END)
        for place in range(2, len(told)):
            for length in range(3):
                after = self.counts.setdefault(told[place - length : place], {})
                after[told[place]] = after.get(told[place], 0.0) + weight

    def chances(self, before: Sequence[str], number: Mapping[str, int]) -> Chances:
        """How likely each word of ``number`` comes next; words that were never counted share what is left."""
        told = (END, END, *before)
        found = np.full(len(number), 1 / max(1, len(number)))
        for length in range(3):
            after = self.counts.get(told[len(told) - length :])
            if after:
                counts = np.fromiter(after.values(), np.float64, len(after))
                off = DISCOUNT * min(1.0, float(counts.min()))
                found *= off * len(after) / counts.sum()
                places = np.fromiter((number[word] for word in after), np.int64, len(after))
                found[places] += (counts - off) / counts.sum()
        return found


class Completer:
    """The messages of a history so far, in order."""

    def __init__(self) -> None:
        self._history = Followers()
        self._last: deque[list[str]] = deque(maxlen=LAST)
        self._words: dict[str, None] = {}

    def read(self, message: str) -> None:
        words = message.split()
        self._history.read(words)
        self._last.append(words)
        self._words.update(dict.fromkeys(words))

    def draft(self, near: Sequence[str], names: Iterable[str]) -> "Draft":
        """A message for a change with these names in it, beside those of the nearest commits, nearest first."""
        nearest, last, own = Followers(), Followers(), Followers()
        for rank, message in enumerate(near, start=1):
            nearest.read(message.split(), 1 / rank)
        for words in self._last:
            last.read(words)
        counts = own.counts.setdefault((), {})
        for word in (part for name in names for part in name.split()):
            for form, weight in ((word, 1.0), (word.lower(), OTHER_CASE), (word.capitalize(), OTHER_CASE)):
                counts[form] = counts.get(form, 0.0) + weight
        said = (word for message in near for word in message.split())
        return Draft(list(dict.fromkeys((END, *self._words, *said, *counts))), (self._history, nearest, last, own))


class Draft:
    """A message about to be written, and the words that it may hold: :data:`END` is the first of them."""

    def __init__(self, words: list[str], sources: Sequence[Followers]) -> None:
        self.words = words
        self._number = {word: place for place, word in enumerate(words)}
        self._sources = sources

    def chances(self, before: Sequence[str]) -> Chances:
        """By each of :data:`SOURCES` how likely each word comes behind those before: shape (sources, words)."""
        return np.stack([source.chances(before, self._number) for source in self._sources])

    def place(self, word: str) -> int:
        """The place of a word; -1 if it is none of them."""
        return self._number.get(word, -1)


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a message: the chances that the sources give, and the word that stands there (-1: none of them)."""

    first: bool
    chances: Chances
    truth: int


Weights = dict[str, tuple[float, ...]]
"""For the first word and for the others: a weight for each source, of sum 1."""


def fitted(positions: Iterable[Position], sources: int) -> Weights:
    """The weights under which what stands there is likeliest. Where nothing tells, all weigh the same."""
    found: Weights = {}
    places = list(positions)
    for name, first in (("first", True), ("other", False)):
        told = [one.chances[:, one.truth] for one in places if one.first == first and one.truth >= 0]
        weights = np.full(sources, 1 / sources)
        for _ in range(ROUNDS if told else 0):
            share = np.array(told) * weights
            share /= np.maximum(share.sum(axis=1, keepdims=True), 1e-300)
            weights = (share.sum(axis=0) + 0.5) / (len(told) + 0.5 * sources)
        found[name] = tuple(round(float(weight), 4) for weight in weights)
    return found


def mixed(chances: Chances, weights: Weights, *, first: bool) -> Chances:
    return np.asarray(np.array(weights["first" if first else "other"]) @ chances, np.float64)


def joined(model: Chances, begins: npt.NDArray[np.int64], without: Chances) -> Chances:
    """The model's chances of words, from those of their first tokens: words that begin alike share as the mixture
    ``without`` the model says. ``begins`` are places in ``model``, one for each word.
    """
    of_begin = np.bincount(begins, weights=without, minlength=len(model))
    return np.asarray(model[begins] * without / np.maximum(of_begin[begins], 1e-300), np.float64)


def keys(words: Sequence[str], chances: Chances, wanted: str) -> int:
    """How many keys a word takes where the likeliest word that fits what is typed is always shown, and one key takes
    it with the space behind. A word that is never shown takes its letters and the space.
    """
    typed = 0
    for place in np.argsort(-chances, kind="stable").tolist():
        if words[place] == wanted:
            return typed + 1
        if words[place] == END:  # no word, so it is not shown
            continue
        typed = max(typed, _shared(words[place], wanted) + 1)  # until this word fits no longer
        if typed >= len(wanted):
            break
    return len(wanted) + 1


def _shared(one: str, other: str) -> int:
    """How many characters two words begin with alike."""
    unlike = (place for place, (first, second) in enumerate(zip(one, other, strict=False)) if first != second)
    return next(unlike, min(len(one), len(other)))
