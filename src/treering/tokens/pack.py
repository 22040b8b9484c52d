"""Token documents packed end to end into blocks, and the two forms they are kept in.

The store keeps a memory map of integers beside a JSON header; the seed's ``token_sequences.json`` is an export.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec.structs import asdict

from treering.errors import DataError
from treering.files import os_errors, read_json, replacing, write_json
from treering.tokens.tokenizer import TextTokenizer
from treering.types import Corpus, Span, TokenDocument

Ids = npt.NDArray[np.uint16] | npt.NDArray[np.uint32]


def blocks(documents: Iterable[Sequence[int]], length: int) -> Iterator[list[int]]:
    """Documents end to end, cut every ``length`` tokens. The last block may be shorter: no token is lost and none is
    padding.
    """
    pending: list[int] = []
    for document in documents:
        pending.extend(document)
        while len(pending) >= length:
            yield pending[:length]
            del pending[:length]
    if pending:
        yield pending


def _described(noting: "_Noting", *, tokenizer: TextTokenizer, repo: str, strategy: str, length: int) -> Corpus:
    return Corpus(
        vocab_size=tokenizer.vocab_size,
        num_sequences=-(-noting.total // length),
        total_tokens=noting.total,
        sequence_length=length,
        repo=repo,
        strategy=strategy,
        tokenizer=tokenizer.name,
        tokenizer_fingerprint=tokenizer.fingerprint,
        added_tokens=tokenizer.added,
        eos_id=tokenizer.eos_id,
        documents=tuple(noting.spans),
        sha256=noting.digest(),
    )


class _Noting:
    """Passes token ids on, an end-of-text after each document, and notes spans and what decides the stream's hash."""

    def __init__(self, documents: Iterable[TokenDocument], tokenizer: TextTokenizer) -> None:
        self.documents = documents
        self.spans: list[Span] = []
        self.total = 0
        self._kind = _integer(tokenizer.vocab_size)
        self._end = np.array([tokenizer.eos_id], dtype=self._kind)
        self._hash = hashlib.sha256()

    def __iter__(self) -> Iterator[Ids]:
        for one in self.documents:
            ids = np.concatenate((np.asarray(one.tokens, dtype=self._kind), self._end))
            self._hash.update(ids.data)
            self.total += len(ids)
            self.spans.append(Span(one.commit_hash, len(one.tokens), one.bytes, one.duplicate_of, one.group))
            yield ids

    def digest(self) -> str:
        return _digest(self._hash, self.spans)


def _digest(of_ids: "hashlib._Hash", spans: Sequence[Span]) -> str:
    whole = of_ids.copy()
    whole.update(msgspec.json.encode(spans))
    return whole.hexdigest()


def digest_of(corpus: Corpus, ids: Ids) -> str:
    """The hash that a stream of these documents and tokens must have."""
    return _digest(hashlib.sha256(np.ascontiguousarray(ids).data), corpus.documents)


def write_sequences(
    path: Path,
    documents: Iterable[TokenDocument],
    *,
    tokenizer: TextTokenizer,
    repo: Callable[[], str],
    strategy: str,
    length: int,
) -> Corpus:
    """The seed's ``token_sequences.json``: its four keys first, then what a trainer must know. Streamed; ``repo``
    is asked when all documents have passed.
    """
    noting = _Noting(documents, tokenizer)
    encode = msgspec.json.encode
    with replacing(path) as file:
        file.write(b'{"token_sequences": [')
        for number, block in enumerate(blocks((ids.tolist() for ids in noting), length)):
            file.write((b",\n" if number else b"\n") + encode(block))
        corpus = _described(noting, tokenizer=tokenizer, repo=repo(), strategy=strategy, length=length)
        file.write(b"\n], " + encode(asdict(corpus))[1:] + b"\n")
    return corpus


def write_stream(
    folder: Path,
    documents: Iterable[TokenDocument],
    *,
    tokenizer: TextTokenizer,
    repo: str,
    strategy: str,
    length: int,
) -> Corpus:
    """``tokens.bin`` (little-endian uint16, or uint32 for large vocabularies), then the header that makes it valid."""
    noting = _Noting(documents, tokenizer)
    with replacing(folder / "tokens.bin") as file:
        for ids in noting:
            file.write(ids.data)
    corpus = _described(noting, tokenizer=tokenizer, repo=repo, strategy=strategy, length=length)
    write_json(folder / "header.json", corpus)
    return corpus


def read_stream(folder: Path) -> tuple[Corpus, Ids]:
    """The header and the ids, memory-mapped. Raises :class:`DataError` if they do not fit together."""
    corpus = read_json(folder / "header.json", Corpus)
    path = folder / "tokens.bin"
    kind = _integer(corpus.vocab_size)
    with os_errors(path):
        if not corpus.total_tokens:
            raise DataError(f"{folder} holds no tokens", "tokenise a repository that has commits")
        if not path.is_file() or path.stat().st_size != corpus.total_tokens * kind.itemsize:
            raise DataError(f"{path} is torn", f"delete {folder}: the next run makes it again")
        return corpus, np.memmap(path, dtype=kind, mode="r")


def read_sequences(path: Path) -> tuple[Corpus, Ids]:
    """A ``token_sequences.json``: ours, or one with the seed's four keys only (whose tokenizer the user must know)."""
    content = read_json(path, dict[str, Any])
    try:
        sequences = msgspec.convert(content.pop("token_sequences", None), list[list[int]])
        flat = np.fromiter((token for sequence in sequences for token in sequence), dtype=np.int64)
        if "documents" not in content:
            content |= _without_header(content, sequences)
        corpus = msgspec.convert(content, Corpus)
    except (msgspec.ValidationError, OverflowError) as error:
        raise DataError(f"{path} is no token file: {error}", "make it again with git_tokenizer.py") from error
    if not len(flat):
        raise DataError(f"{path} holds no tokens", "make it again with git_tokenizer.py")
    if flat.min() < 0 or flat.max() >= corpus.vocab_size:
        outside = flat.max() if flat.max() >= corpus.vocab_size else flat.min()
        raise DataError(
            f"{path} holds the id {outside}, outside its vocab_size {corpus.vocab_size}",
            "make it again with git_tokenizer.py",
        )
    said = sum(span.tokens + (1 if corpus.eos_id >= 0 else 0) for span in corpus.documents)
    if not len(flat) == corpus.total_tokens == said:
        other = corpus.total_tokens if len(flat) != corpus.total_tokens else said
        raise DataError(f"{path} holds {len(flat):,} tokens and says {other:,}", "make it again with git_tokenizer.py")
    ids: Ids = flat.astype(_integer(corpus.vocab_size))  # type: ignore[assignment]  # one of the two
    return corpus, ids


def _without_header(content: dict[str, Any], sequences: list[list[int]]) -> dict[str, Any]:
    """What can be said of a file with the seed's four keys only: every sequence is a document of unknown bytes."""
    return {
        "sequence_length": max((len(sequence) for sequence in sequences), default=1),
        "repo": "",
        "strategy": "",
        "tokenizer": "",
        "tokenizer_fingerprint": "",
        "added_tokens": [],
        "eos_id": -1,
        "documents": [{"commit_hash": "", "tokens": len(sequence), "bytes": 0} for sequence in sequences],
    } | content


def _integer(vocab_size: int) -> "np.dtype[np.uint16] | np.dtype[np.uint32]":
    """How a token is kept: always little-endian."""
    return np.dtype("<u2") if vocab_size <= 1 << 16 else np.dtype("<u4")
