"""What was discussed of commits at a forge: which texts of requests and issues are of which commits, and who of them
holds a word. Where the texts are kept is not known here.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, Protocol

import numpy as np

from treering.errors import StoreError, UsageError
from treering.git.history import timestamp
from treering.search.history import History, Mask, Numbers, Scores

REMEMBERED = 512
"""Words whose texts are kept in memory."""
KINDS = ("request", "issue")
Key = tuple[str, int]
"""Of a text: its kind and its number at the forge."""


@dataclass(frozen=True, slots=True)
class Said:
    """What is known of a text but its words: ``commits`` are what a request was merged as, ``fixes`` the issues that it
    says it closes, ``updated`` is when the forge saw it change last, ``length`` how many words it is found by.
    """

    kind: Literal["request", "issue"]
    number: int
    commits: tuple[str, ...]
    fixes: tuple[int, ...]
    updated: str
    length: int


class Texts(Protocol):
    """Where the texts are. All but the last raise :class:`StoreError`."""

    def said(self) -> list[Said]: ...

    def holders(self, word: str) -> Sequence[tuple[Key, int]]:
        """The texts that hold a word, and how often."""

    def touched(self) -> int:
        """Another number once anyone else has written there."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """Which texts count for which commits: parallel arrays, no pair twice."""

    commits: Numbers
    texts: Numbers


class Discussed:
    """The texts by the commits of a history. A commit's are the request that it was merged or squashed as, those whose
    number its message says it is, the issues that its message names, and those that such a request says it closes.

    ``lost`` is told where the texts cannot be read; there are none then.
    """

    def __init__(self, history: History, texts: Texts, lost: Callable[[StoreError], None] = lambda _: None) -> None:
        self.history, self._texts, self._lost = history, texts, lost
        self.held = lru_cache(maxsize=REMEMBERED)(self._held)
        try:
            said = texts.said()
        except StoreError as error:
            lost(error)
            said = []
        self._places: dict[Key, int] = {(one.kind, one.number): place for place, one in enumerate(said)}
        self.kinds = np.array([KINDS.index(one.kind) for one in said], np.int64)
        self.lengths = np.array([one.length for one in said], np.float64)
        self._updated = np.array([_seconds(one.updated) for one in said], np.float64)
        pairs = np.array(sorted(self._own(said)), np.int64).reshape(-1, 2)
        self._pairs = Pairs(pairs[:, 0], pairs[:, 1])
        self._starts = np.searchsorted(self._pairs.commits, np.arange(len(history) + 1))

    def touched(self) -> int:
        """Another number once anyone else has written the texts."""
        return self._texts.touched()

    def commits_of(self, kind: str, number: int) -> list[int] | None:
        """The numbers of the commits of a text; None for one that is not known."""
        place = self._places.get((kind, number))
        if place is None:
            return None
        pairs = self.within(self.history.everything, self.history.merged_by)
        return list(pairs.commits[pairs.texts == place].tolist())

    def _own(self, said: Sequence[Said]) -> set[tuple[int, int]]:
        history, places = self.history, self._places
        found = {
            (history.number[name], place)
            for place, one in enumerate(said)
            for name in one.commits
            if name in history.number
        }
        if said:
            for commit, kind, number in self._cited():
                if (place := places.get((kind, number))) is not None:
                    found.add((commit, place))
        closed = {
            (commit, places["issue", number])
            for commit, place in found
            for number in said[place].fixes
            if ("issue", number) in places
        }
        return found | closed

    def _cited(self) -> Iterator[tuple[int, str, int]]:
        rows = self.history.store.cited()
        numbers = self.history.numbers(np.array([row[0] for row in rows], np.int64)).tolist()
        for commit, (_, reference, number) in zip(numbers, rows, strict=True):
            if commit >= 0:
                yield commit, "request" if reference == "pull-requests" else "issue", number

    def within(self, mask: Mask, merged_by: Numbers) -> Pairs:
        """What counts for the commits of ``mask``: their own texts and those of the merge that brought them in. Of a
        part of the history only texts that nobody has changed since its newest commit: what they said before is not
        known.
        """
        size = len(self.kinds)
        brought = np.flatnonzero(merged_by >= 0)
        starts = self._starts[merged_by[brought]]
        many = self._starts[merged_by[brought] + 1] - starts
        behind = np.arange(int(many.sum())) - np.repeat(np.cumsum(many) - many, many)
        commits = np.concatenate((self._pairs.commits, np.repeat(brought, many)))
        texts = np.concatenate((self._pairs.texts, self._pairs.texts[behind + np.repeat(starts, many)]))
        seen = mask[commits]
        if mask is not self.history.everything:
            seen &= self._updated[texts] <= self.history.times[np.flatnonzero(mask)[-1:]].max(initial=0)
        keys = np.unique(commits[seen] * max(size, 1) + texts[seen])
        return Pairs(*np.divmod(keys, max(size, 1)))

    def _held(self, word: str) -> tuple[Numbers, Scores]:
        """The texts that hold a word, and how often."""
        try:
            rows = self._texts.holders(word) if self._places else []
        except StoreError as error:
            self._lost(error)
            self._places = {}
            rows = []
        known = [(self._places[key], count) for key, count in rows if key in self._places]
        found = np.array(known, np.int64).reshape(-1, 2)
        return found[:, 0], found[:, 1].astype(np.float64)


def _seconds(text: str) -> float:
    """When that was, in seconds since 1970; a time that cannot be read has not come yet."""
    try:
        return timestamp(text, end=True)
    except UsageError:
        return np.inf
