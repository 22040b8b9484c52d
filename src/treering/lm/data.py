"""Token streams to training blocks and a hold-out, split in time. The order is a function of its inputs."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from treering.errors import DataError
from treering.types import Corpus

Tokens = npt.NDArray[np.int64]

HOLD_OUT_SHARE = 0.1
HOLD_OUT_DOCUMENTS = 64
HOLD_OUT_TOKENS = 16384
"""Beyond this many only as many documents as a figure needs are held out."""
TOO_FEW = 8
"""Below this many held-out documents a figure says little; a short history gives up to a quarter to reach it."""
VALIDATION_SHARE = 0.2
VALIDATION_TOKENS = 2048
"""The oldest of what is held out watches the training, and the verdict does not count it: what chose a model cannot
judge it."""
LINE_OF_HISTORY = 64
"""A merge that brought more documents than this did not bring one piece of work: its commits stand for themselves."""
WINDOW = 64
"""Blocks are shuffled within windows of this many, newest window first: what is recent is worth more, and a short
budget may never reach the rest."""


class Readable(Protocol):
    """Token ids in a row, of which slices within one document are read: a memory map is one."""

    def __len__(self) -> int: ...

    def __getitem__(self, wanted: slice, /) -> npt.NDArray[Any]: ...


class Stream:
    """Documents of a memory map read end to end, an end-of-text after each. Only what is asked for is in memory."""

    def __init__(self, ids: Readable, starts: npt.NDArray[np.int64], stops: npt.NDArray[np.int64]) -> None:
        self.ids, self.starts, self.stops = ids, starts, stops
        self._ends = np.cumsum(stops - starts)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def read(self, start: int, stop: int) -> Tokens:
        """The tokens from ``start`` to ``stop``, clipped to the stream."""
        stop = min(stop, len(self))
        parts: list[npt.NDArray[Any]] = []
        document = int(np.searchsorted(self._ends, start, side="right"))
        while start < stop:
            left = int(self._ends[document]) - start
            place = int(self.stops[document]) - left
            parts.append(self.ids[place : place + min(left, stop - start)])
            start += len(parts[-1])
            document += 1
        return np.concatenate(parts).astype(np.int64) if parts else np.empty(0, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Documents that nothing is learned from: their tokens, the bytes of their texts, their commits."""

    documents: tuple[Tokens, ...]
    bytes: tuple[int, ...]
    commits: tuple[str, ...]

    @property
    def tokens(self) -> int:
        return sum(len(document) for document in self.documents)


@dataclass(frozen=True, slots=True)
class Split:
    """What is learned from, what watches the training, and what judges it: each later than the one before."""

    train: Stream
    train_documents: int
    train_bytes: int
    validation: HeldOut
    held_out: HeldOut
    duplicates: int
    with_held_out: int
    """Older commits that came in with a held-out merge, and so are in no part."""


def split(corpus: Corpus, ids: Readable, *, after: str = "", seed: int = 0) -> Split:
    """Hold out the newest tenth of the documents: at most 64, or 16k tokens if that is 8; of a short history up to a
    quarter.
    Documents that repeat an earlier one are in no part, and a merge is never parted from the commits it brought: over
    a split in time both would leak.

    With ``after``, the first commit that an earlier model did not learn from, only what is later is new: half of it is
    held out, and as many tokens of the older history as of the newer half are mixed in, so that nothing is forgotten.

    Raises :class:`DataError` if there is too little to learn from or to judge on.
    """
    unique = [number for number, span in enumerate(corpus.documents) if span.duplicate_of is None and span.tokens]
    if len(unique) < 2:
        raise DataError(
            f"{len(unique)} commit(s) with text: nothing can be held out to judge a model on",
            "train on a longer history",
        )
    new = _later(corpus, unique, after) if after else unique
    if after:
        wanted = max(min(HOLD_OUT_DOCUMENTS, len(new) // 2), 1)
    else:
        share = max(round(len(unique) * HOLD_OUT_SHARE), min(TOO_FEW, len(unique) // 4), 1)
        wanted = min(HOLD_OUT_DOCUMENTS, share)
    groups = _groups(corpus, unique)
    held: list[int] = []
    tokens = 0
    for number in reversed(new[-wanted:]):
        tokens += corpus.documents[number].tokens
        if len(held) >= TOO_FEW and tokens > HOLD_OUT_TOKENS:
            break
        held.insert(0, number)
    earlier = unique[: unique.index(held[0])]
    held_groups = {groups[number] for number in held}
    kept = [number for number in earlier if groups[number] not in held_groups]
    if after:
        kept = _replayed(corpus, kept, set(new), seed)
    starts = np.cumsum([0, *(span.tokens + _ends(corpus) for span in corpus.documents)])
    train = Stream(ids, starts[kept], np.array([starts[number + 1] for number in kept], dtype=np.int64))
    if len(train) < 2:
        raise DataError("the training text is a single token: nothing can be predicted", "train on a longer history")
    watching = _watching(corpus, held)

    def held_out(numbers: Sequence[int]) -> HeldOut:
        spans = [corpus.documents[number] for number in numbers]
        return HeldOut(
            tuple(
                np.asarray(ids[starts[number] : starts[number] + span.tokens], dtype=np.int64)
                for number, span in zip(numbers, spans, strict=True)
            ),
            tuple(span.bytes for span in spans),
            tuple(span.commit_hash for span in spans),
        )

    return Split(
        train=train,
        train_documents=len(kept),
        train_bytes=sum(corpus.documents[number].bytes for number in kept),
        validation=held_out(held[:watching]),
        held_out=held_out(held[watching:]),
        duplicates=len(corpus.documents) - len(unique),
        with_held_out=len(earlier) - len(kept) if not after else 0,
    )


def _ends(corpus: Corpus) -> int:
    """How many end-of-text tokens follow each document: none in a file that does not name one."""
    return 1 if corpus.eos_id >= 0 else 0


def _groups(corpus: Corpus, numbers: Sequence[int]) -> dict[int, str]:
    """For each document what it belongs to: the merge that brought it, or itself."""
    members: dict[str, set[str]] = {}  # a document that comes more than once is one
    for number in numbers:
        span = corpus.documents[number]
        members.setdefault(span.group, set()).add(span.commit_hash or str(number))

    def group_of(number: int) -> str:
        span = corpus.documents[number]
        return (
            span.group if span.group and len(members[span.group]) <= LINE_OF_HISTORY else f"{number} {span.commit_hash}"
        )

    return {number: group_of(number) for number in numbers}


def _watching(corpus: Corpus, held: Sequence[int]) -> int:
    """How many of the held-out documents watch the training: none where the rest could then say too little."""
    wanted = max(0, min(round(len(held) * VALIDATION_SHARE), len(held) - TOO_FEW))
    tokens = 0
    for count in range(wanted):
        tokens += corpus.documents[held[count]].tokens
        if count and tokens > VALIDATION_TOKENS:
            return count
    return wanted


def _later(corpus: Corpus, unique: Sequence[int], after: str) -> list[int]:
    first = next((number for number, span in enumerate(corpus.documents) if span.commit_hash == after), None)
    if first is None:
        raise DataError(
            f"the commit {after[:12]} that the current model was judged from is not in this history any more",
            "train from the base model, without --continue",
        )
    new = [number for number in unique if number >= first]
    if len(new) < 2 * TOO_FEW:
        raise DataError(
            f"{len(new)} commit(s) that the current model did not learn from: {2 * TOO_FEW} are needed, to learn from"
            " and to judge on",
            "wait for more commits, or train from the base model, without --continue",
        )
    return new


def _replayed(corpus: Corpus, kept: Sequence[int], new: set[int], seed: int) -> list[int]:
    """The newer documents and as many tokens of a sample of the older ones, mixed."""
    random = np.random.default_rng(seed)
    chosen = [number for number in kept if number in new]
    left = sum(corpus.documents[number].tokens for number in chosen)
    old = np.array([number for number in kept if number not in new], dtype=np.int64)
    random.shuffle(old)
    for number in old.tolist():
        if left <= 0:
            break
        chosen.append(number)
        left -= corpus.documents[number].tokens
    random.shuffle(chosen)
    return chosen


class Blocks:
    """A stream as blocks of ``length`` inputs and their next tokens: ``length + 1`` ids, the last one maybe fewer.
    Neighbours share one id, so every token but the first is predicted exactly once.
    """

    def __init__(self, stream: Stream, length: int) -> None:
        self.stream, self.length = stream, length

    def __len__(self) -> int:
        return -(-max(len(self.stream) - 1, 1) // self.length)

    def __getitem__(self, number: int) -> Tokens:
        return self.stream.read(number * self.length, (number + 1) * self.length + 1)

    def predicted(self, number: int) -> int:
        """How many tokens block ``number`` predicts."""
        return min(self.length, len(self.stream) - 1 - number * self.length)


def sequences(count: int, seed: int, start: int = 0) -> Iterator[int]:
    """Numbers of blocks without end, epoch after epoch, from the ``start``-th on: in each epoch newest windows first,
    shuffled within.
    """
    epoch, skipped = divmod(start, count)
    while True:
        random = np.random.default_rng([seed, epoch])
        for end in range(count, 0, -WINDOW):
            window = np.arange(max(0, end - WINDOW), end)
            random.shuffle(window)
            yield from window[skipped:].tolist()
            skipped = max(0, skipped - len(window))
        epoch += 1
