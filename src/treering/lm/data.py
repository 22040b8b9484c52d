"""Token streams to training blocks and a hold-out, split in time. The order of batches is a function of its inputs."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from treering.errors import DataError
from treering.types import Corpus

Stream = npt.NDArray[np.int64]

HOLD_OUT_SHARE = 0.1
HOLD_OUT_DOCUMENTS = 64
HOLD_OUT_TOKENS = 16384
TOO_FEW = 8
"""Below this many held-out documents a figure says little; a short history gives up to a quarter to reach it."""
WINDOW = 64
"""Blocks are shuffled within windows of this many, newest window first: what is recent is worth more, and a short
budget may never reach the rest."""


@dataclass(frozen=True, slots=True)
class Split:
    """Training stream (documents before ``cut``, an end-of-text after each) and the held-out documents after it."""

    train: Stream
    train_documents: int
    train_bytes: int
    held_out: tuple[Stream, ...]
    held_out_bytes: tuple[int, ...]
    held_out_first: str
    duplicates: int


def split(corpus: Corpus, ids: npt.NDArray[Any]) -> Split:
    """Hold out the newest tenth of the documents: at most 64, or 16k tokens; of a short history up to a quarter.
    Documents that repeat an earlier one are in neither part: over a split in time they would leak.

    Raises :class:`DataError` if there are fewer than two documents.
    """
    starts = np.cumsum([0, *(span.tokens + _ends(corpus) for span in corpus.documents)])
    unique = [number for number, span in enumerate(corpus.documents) if span.duplicate_of is None and span.tokens]
    if len(unique) < 2:
        raise DataError(
            f"{len(unique)} commit(s) with text: nothing can be held out to judge a model on",
            "train on a longer history",
        )
    share = max(round(len(unique) * HOLD_OUT_SHARE), min(TOO_FEW, len(unique) // 4), 1)
    wanted = min(HOLD_OUT_DOCUMENTS, share)
    held: list[int] = []
    tokens = 0
    for number in reversed(unique[-wanted:]):
        tokens += corpus.documents[number].tokens
        if held and tokens > HOLD_OUT_TOKENS:
            break
        held.insert(0, number)
    kept = unique[: unique.index(held[0])]

    def stream(number: int, *, end: bool) -> Stream:
        stop = starts[number] + corpus.documents[number].tokens + (_ends(corpus) if end else 0)
        return np.asarray(ids[starts[number] : stop], dtype=np.int64)

    train = np.concatenate([stream(number, end=True) for number in kept])
    if len(train) < 2:
        raise DataError("the training text is a single token: nothing can be predicted", "train on a longer history")
    return Split(
        train=train,
        train_documents=len(kept),
        train_bytes=sum(corpus.documents[number].bytes for number in kept),
        held_out=tuple(stream(number, end=False) for number in held),
        held_out_bytes=tuple(corpus.documents[number].bytes for number in held),
        held_out_first=corpus.documents[held[0]].commit_hash,
        duplicates=len(corpus.documents) - len(unique),
    )


def _ends(corpus: Corpus) -> int:
    """How many end-of-text tokens follow each document: none in a file that does not name one."""
    return 1 if corpus.eos_id >= 0 else 0


def training_blocks(stream: Stream, length: int) -> list[Stream]:
    """Blocks of ``length`` inputs and their next tokens (``length + 1`` ids; the last one may be shorter). Neighbours
    share one id, so every token but the first is predicted exactly once.
    """
    return [stream[start : start + length + 1] for start in range(0, max(len(stream) - 1, 1), length)]


def batch_order(count: int, batch_size: int, seed: int, epoch: int) -> Iterator[list[int]]:
    """Numbers of the blocks of each batch of an epoch: newest windows first, shuffled within."""
    random = np.random.default_rng([seed, epoch])
    order: list[int] = []
    for end in range(count, 0, -WINDOW):
        window = np.arange(max(0, end - WINDOW), end)
        random.shuffle(window)
        order += window.tolist()
    for start in range(0, count, batch_size):
        yield order[start : start + batch_size]
