"""The indexed history as arrays: what the scores of every leg are aligned to, and which of it a question may see."""

import re
from collections import ChainMap, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from treering.errors import UsageError
from treering.git.history import Node, Ref
from treering.git.merges import brought_by
from treering.store import Store
from treering.store.index import Holders
from treering.text.document import FIELDS

Mask = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float64]
"""One score for each commit of a history."""

Part = tuple[Numbers, Scores]
"""What some commits, by their numbers in order, get; the others get nothing."""

EMPTY_FROM = 5
"""A message that so many commits have says nothing of any of them."""

REMEMBERED = 40 << 20
"""Bytes of the postings that are kept in memory, of the words that were asked for last: those of a common one are some
hundred kilobytes, those of most a few hundred bytes.
"""

_WORD = re.compile(r"[^\W\d_]{2,}")
_LETTERS = bytes(byte if byte > 127 or chr(byte).isalpha() else 32 for byte in range(256))
SHORT = 16
"""So many letters of ASCII are hardly without a word."""


@dataclass(frozen=True, slots=True)
class Held:
    """Who holds one word: ``fields`` gives for each field that has it the numbers of commits, in order, and how often;
    ``anywhere`` are all of them.
    """

    fields: Mapping[int, Part]
    anywhere: Numbers
    bm25: dict[tuple[tuple[int, float], ...], Part | None] = field(default_factory=dict)
    """What the word adds to BM25, by the weights of the fields that were asked for so far."""

    @property
    def size(self) -> int:
        """About how many bytes it takes, without what follows from it."""
        arrays = (self.anywhere, *(array for part in self.fields.values() for array in part))
        return 500 + sum(array.nbytes for array in arrays)

    def within(self, mask: Mask) -> "Held":
        """Those of a part of the history."""
        fields = {}
        for place, (numbers, counts) in self.fields.items():
            seen = mask[numbers]
            if seen.any():
                fields[place] = numbers[seen], counts[seen]
        return Held(fields, self.anywhere[mask[self.anywhere]])


class Remembered:
    """Who holds the words that were asked for last, as far as :data:`REMEMBERED` bytes hold them. For one thread."""

    def __init__(self, look: Callable[[Sequence[str]], Iterable[Held]]) -> None:
        self._look = look
        self._known: OrderedDict[str, Held] = OrderedDict()
        self._bytes = 0

    def __call__(self, words: Iterable[str]) -> list[Held]:
        """Who holds each of some words; those that are not known are looked for together."""
        words = list(words)
        new = [word for word in dict.fromkeys(words) if word not in self._known]
        for word, held in zip(new, self._look(new) if new else (), strict=True):
            self._known[word] = held
            self._bytes += held.size
        for word in words:
            self._known.move_to_end(word)
        found = [self._known[word] for word in words]
        while self._bytes > REMEMBERED and len(self._known) > 1:
            self._bytes -= self._known.popitem(last=False)[1].size
        return found


class History:
    """The reachable commits that are indexed, oldest first: number 0, 1, 2, … Held in memory, some hundred bytes each.

    ``lengths`` are words by field, shape (commits, fields). ``merged_by`` is the number of the merge that brought a
    commit in, or -1; ``patch`` is equal for equal patches and -1 where none is known, ``message`` for equal messages of
    a repository. ``repository`` is the place of each commit's own among those of the store; a commit that several have
    is one of each of them, and ``number`` names the first of these.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.held = Remembered(self._held)
        rows = store.indexed_commits()
        self.ids = np.array([row.id for row in rows], np.int64)
        self.hashes = [row.hash for row in rows]
        self.times = np.array([row.time for row in rows], np.int64)
        self.merges = np.array([" " in row.parents for row in rows], bool)
        self.lengths = np.frombuffer(b"".join(row.lengths for row in rows), "<u4").reshape(-1, len(FIELDS))
        self._parents = [row.parents.split() for row in rows]
        places = [row.repository for row in rows]
        self.repository = np.array(places, np.int64)
        self._own: list[dict[str, int]] = [{} for _ in store.repositories]
        """For each repository the numbers of its commits by their hashes."""
        for number, (of, name) in enumerate(zip(places, self.hashes, strict=True)):
            self._own[of][name] = number
        self.number = self._own[0] if len(self._own) == 1 else dict(ChainMap(*self._own))
        self.merged_by = np.array([self._own[row.repository].get(row.merged_by or "", -1) for row in rows], np.int64)
        self.patch = _grouped([(row.patch_id or "").encode() for row in rows])
        self.message = _grouped([_said(row.message) for row in rows], places)
        self._of_id = np.full(int(self.ids.max(initial=0)) + 1, -1, np.int64)
        self._of_id[self.ids] = np.arange(len(rows))

    def __len__(self) -> int:
        return len(self.hashes)

    def numbers(self, ids: npt.NDArray[np.integer]) -> Numbers:
        """Numbers of commits by their ids in the store; -1 for those that are not reachable."""
        known = np.minimum(ids.astype(np.int64), len(self._of_id) - 1)
        return np.asarray(np.where(ids < len(self._of_id), self._of_id[known], -1), np.int64)

    def _held(self, words: Sequence[str]) -> Iterator[Held]:
        return map(self._among, self.store.holders(words))

    def _among(self, records: Holders) -> Held:
        numbers = self.numbers(records["commit"])
        order = np.argsort(numbers, kind="stable")  # they nearly are
        order = order[np.searchsorted(numbers[order], 0) :]
        anywhere = numbers[order][np.diff(numbers[order], prepend=-1) > 0]
        order = order[np.argsort(records["field"][order], kind="stable")]
        numbers, counts = numbers[order], records["count"][order].astype(np.float64)
        starts = np.searchsorted(records["field"][order], range(len(FIELDS) + 1)).tolist()
        fields = {
            place: (numbers[start:end], counts[start:end])
            for place, (start, end) in enumerate(pairwise(starts))
            if start < end
        }
        return Held(fields, anywhere)

    @cached_property
    def _before(self) -> list[list[int]]:
        """The numbers of the parents that are indexed."""
        own = [self._own[of] for of in self.repository.tolist()]
        return [
            [known[name] for name in names if name in known] for known, names in zip(own, self._parents, strict=True)
        ]

    @cached_property
    def everything(self) -> Mask:
        return np.ones(len(self), bool)

    def at(self, name: str) -> Mask:
        """What is reachable from a commit, itself included. Raises :class:`UsageError` if it is not in the history."""
        seen = bytearray(len(self))
        waiting = [self.find(name)]
        while waiting:
            number = waiting.pop()
            if not seen[number]:
                seen[number] = True
                waiting += self._before[number]
        return np.frombuffer(seen, bool)

    def brought(self, mask: Mask) -> Numbers:
        """For each commit the number of the merge that brought it in, or -1, as ``mask`` knows it: all of the history,
        or all that some commits reach. Later merges are none of its.
        """
        if mask is self.everything:
            return self.merged_by
        found = np.full(len(self), -1, np.int64)
        for of in np.unique(self.repository[mask]).tolist():
            own, known = self._own[of], np.flatnonzero(mask & (self.repository == of)).tolist()
            nodes = [Node(self.hashes[number], tuple(self._parents[number])) for number in known]
            inner = {parent for number in known for parent in self._before[number]}
            tips = sorted((number for number in known if number not in inner), key=lambda one: self.hashes[one])
            for name, merge in brought_by(nodes, [Ref("", self.hashes[number], 0) for number in tips]).items():
                found[own[name]] = own[merge]
        return found

    def tip(self, refs: Iterable[Ref]) -> str:
        """The newest commit that is indexed of the first of the refs."""
        return next((ref.tip for ref in refs if ref.tip in self.number), self.hashes[-1])

    def find(self, name: str) -> int:
        """The commit of that hash, or of the one hash that begins so."""
        if name in self.number:
            return self.number[name]
        fitting = [number for known, number in self.number.items() if known.startswith(name.lower())] if name else []
        if len(fitting) != 1:
            said = "there is no" if not fitting else "more than one"
            raise UsageError(f"{said} commit {name or '(empty)'} in the index", "give a full hash that is indexed")
        return fitting[0]

    def parent(self, number: int) -> str | None:
        """The first parent of a commit."""
        return next(iter(self._parents[number]), None)

    def of_each(self, mask: Mask) -> Numbers:
        """How many of some commits each repository has."""
        return np.bincount(self.repository[mask], minlength=len(self._own))

    def empty(self, mask: Mask) -> Mask:
        """The commits whose message says nothing: it has no words, or as many as :data:`EMPTY_FROM` of its repository
        have the same.
        """
        return self._empty if mask is self.everything else self._empty_in(mask)

    @cached_property
    def _empty(self) -> Mask:
        return self._empty_in(self.everything)

    def _empty_in(self, mask: Mask) -> Mask:
        counts = np.bincount(self.message[mask & (self.message >= 0)], minlength=int(self.message.max(initial=0)) + 1)
        return (self.message < 0) | (counts[self.message] >= EMPTY_FROM)


def _said(message: str) -> bytes:
    """The words of a message, equal for messages that differ in case, numbers and marks alone; empty without words."""
    words = b" ".join(message.lower().encode().translate(_LETTERS).split())
    return words if (len(words) >= SHORT and words.isascii()) or _WORD.search(message) else b""


def _grouped(names: Sequence[bytes], of: Sequence[int] = ()) -> Numbers:
    """A number for each name, equal for equal names (where it is said whose they are, of the same), -1 for an empty
    one.
    """
    known: dict[object, int] = {b"": -1}
    keys = [name and (one, name) for one, name in zip(of, names, strict=True)] if any(of) else names
    return np.array([known.setdefault(key, len(known) - 1) for key in keys], np.int64)
