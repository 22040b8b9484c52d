"""A stream of documents to token ids, in order, on all cores, with what each token tells counted."""

import os
from array import array
from collections import deque
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

import numpy as np
import numpy.typing as npt

from treering.tokens.bpe import BytePairs, Ids, NotTheSame
from treering.tokens.tokenizer import PROBES, TextTokenizer
from treering.types import Amount, Content, Document, Record, TokenDocument

BATCH = 64
WORKERS = os.cpu_count() or 1

Source = tuple[Record, Document]
Encoded = tuple[Ids, npt.NDArray[np.int64]]
"""Ids, and the byte of the text at which each begins."""


class Encoder:
    """Encodes as a tokenizer does: by tiktoken where the ids are the same, else by Hugging Face, and ``why_not`` tells
    why. Threads may share it.
    """

    def __init__(self, tokenizer: TextTokenizer) -> None:
        self.tokenizer = tokenizer
        self.why_not = ""
        self._byte_pairs: BytePairs | None = None
        try:
            byte_pairs = BytePairs(tokenizer.backend)
            probes = [probe for probe in (*PROBES, *tokenizer.added, "\n".join(PROBES)) if byte_pairs.fits(probe)]
            if [ids.tolist() for ids, _ in byte_pairs.encode(probes)] != tokenizer.encode(probes):
                raise NotTheSame("it gives other ids for a text that has everything")
            self._byte_pairs = byte_pairs
        except NotTheSame as reason:
            self.why_not = str(reason)

    def __call__(self, texts: Sequence[str]) -> list[Encoded]:
        fast = self._byte_pairs
        if fast is None:
            return self._slow(texts)
        fits = [fast.fits(text) for text in texts]
        quick = iter(fast.encode([text for text, fit in zip(texts, fits, strict=True) if fit]) if any(fits) else [])
        slow = iter(self._slow([text for text, fit in zip(texts, fits, strict=True) if not fit]))
        return [next(quick if fit else slow) for fit in fits]

    def _slow(self, texts: Sequence[str]) -> list[Encoded]:
        return [
            (np.array(ids, dtype=np.uint32), _bytes_before(text, starts))
            for text, (ids, starts) in zip(texts, self.tokenizer.encode_with_places(texts), strict=True)
        ]


def tokenized(documents: Iterable[Source], encoder: Encoder) -> Generator[tuple[Record, TokenDocument], None, None]:
    """Encode documents, in order. A few batches are on their way at once: as many as
    there are cores, and one more.
    """
    source = iter(documents)
    pool = ThreadPoolExecutor(WORKERS)
    waiting: deque[Future[list[tuple[Record, TokenDocument]]]] = deque()
    try:
        while batch := list(islice(source, BATCH)):
            waiting.append(pool.submit(_encoded, batch, encoder))
            if len(waiting) > WORKERS:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _encoded(batch: Sequence[Source], encoder: Encoder) -> list[tuple[Record, TokenDocument]]:
    encoded = encoder([document.text for _, document in batch])
    return [
        (
            record,
            TokenDocument(
                commit_hash=record.commit_hash,
                tokens=array("I", ids.tobytes()),
                bytes=len(document.text.encode()),
                duplicate_of=document.duplicate_of,
                group=document.group,
                content=_content(document, starts),
            ),
        )
        for (record, document), (ids, starts) in zip(batch, encoded, strict=True)
    ]


def _content(document: Document, starts: npt.NDArray[np.int64]) -> dict[Content, Amount]:
    """How many bytes and tokens tell what. A token is of the part in which it begins."""
    found: dict[Content, Amount] = {}
    ends = np.cumsum([size for _, size in document.parts])
    tokens = np.diff(np.searchsorted(starts, ends, side="left"), prepend=0)
    for (content, size), count in zip(document.parts, tokens.tolist(), strict=True):
        before = found.get(content, Amount(0, 0))
        found[content] = Amount(before.bytes + size, before.tokens + count)
    return found


def _bytes_before(text: str, places: Sequence[int]) -> npt.NDArray[np.int64]:
    """How many bytes of UTF-8 come before some places of a text."""
    found = np.array(places, dtype=np.int64)
    if text.isascii():
        return found
    points = np.frombuffer(text.encode("utf-32-le"), dtype="<u4")
    widths = 1 + (points > 0x7F) + (points > 0x7FF).astype(np.int64) + (points > 0xFFFF)
    return np.concatenate(([0], np.cumsum(widths)))[found]
