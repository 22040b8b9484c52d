"""Texts to unit vectors: all-MiniLM-L6-v2 on ONNX Runtime without torch, or any sentence-transformers model."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from treering.errors import ModelError, needs
from treering.modelpack import located, quiet_transformers
from treering.vectors.index import Matrix
from treering.vectors.minilm import NAME, SPECIAL, MiniLM

_FILES = ("*.json", "*.txt", "*/*.json", "*.safetensors")
MAX_PARTS = 2
"""Of a text that is longer than that many parts, the rest is not embedded: it has its words in the index, and the
store says how much it is.
"""


class Embedder(Protocol):
    """A loaded model. ``fingerprint`` changes with everything that decides a vector; ``length`` is how many tokens of
    a text it reads.
    """

    name: str
    dimensions: int
    fingerprint: str
    length: int

    def offsets(self, texts: Sequence[str]) -> Iterable[list[tuple[int, int]]]:
        """Where the tokens of each text stand in it (start, end), whatever its length."""

    def batches(self, texts: Sequence[str]) -> Iterator[tuple[list[int], Matrix]]:
        """Vectors of all texts, in batches: positions in ``texts`` and their rows. Order is the embedder's choice."""


def cut(text: str, offsets: Sequence[tuple[int, int]], most: int) -> list[str]:
    """A text in parts of at most ``most`` tokens, which stand where ``offsets`` (start, end) say; cut between words."""
    parts: list[str] = []
    at = 0
    while at < len(offsets) and len(parts) < MAX_PARTS:
        end = min(at + most, len(offsets))
        if end < len(offsets):
            places = range(end, max(at, end - most // 4), -1)
            end = next((place for place in places if text[offsets[place][0] - 1].isspace()), end)
        parts.append(text[offsets[at][0] : offsets[end - 1][1]])
        at = end
    return parts or [text]


def parts(embedder: Embedder, texts: Sequence[str]) -> list[list[str]]:
    """Each text in parts that the model reads whole, at most :data:`MAX_PARTS`."""
    return [cut(text, one, embedder.length) for text, one in zip(texts, embedder.offsets(texts), strict=True)]


def embed(embedder: Embedder, texts: Sequence[str]) -> Matrix:
    """Vectors of all texts, in order."""
    result = np.zeros((len(texts), embedder.dimensions), dtype=np.float32)
    for positions, rows in embedder.batches(texts):
        result[positions] = rows
    return result


class SentenceTransformer:
    """Any sentence-transformers name or folder, through the extra ``st``."""

    def __init__(self, name: str, batch_tokens: int) -> None:
        alternatives = f"on every machine with the model pack: {NAME}; or give a folder"
        quiet_transformers()
        full = name if "/" in name or Path(name).is_dir() else f"sentence-transformers/{name}"
        folder = located(full, _FILES, kind="embedding model", alternatives=alternatives)  # before a slow import
        with needs("st"):
            import sentence_transformers
        try:
            model: Any = sentence_transformers.SentenceTransformer(
                str(folder), local_files_only=True, model_kwargs={"use_safetensors": True}
            )
        except (OSError, ValueError) as error:
            raise ModelError(f"`{name}` is no embedding model: {error}", alternatives) from error
        self.model = model
        self.name = name
        self.dimensions = int(model.get_embedding_dimension())
        self.length = int(model.max_seq_length or 256) - SPECIAL
        self.batch = max(1, batch_tokens // (self.length + SPECIAL))
        self.fingerprint = hashlib.sha256(b"".join(_digests(folder))).hexdigest()[:16]

    def offsets(self, texts: Sequence[str]) -> Iterator[list[tuple[int, int]]]:
        for text in texts:
            yield self.model.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)[
                "offset_mapping"
            ]

    def batches(self, texts: Sequence[str]) -> Iterator[tuple[list[int], Matrix]]:
        for start in range(0, len(texts), self.batch):
            chosen = list(range(start, min(start + self.batch, len(texts))))
            batch = [texts[position] for position in chosen]
            rows = self.model.encode(batch, normalize_embeddings=True, show_progress_bar=False)
            yield chosen, np.asarray(rows, dtype=np.float32)


def _digests(folder: Path) -> Iterator[bytes]:
    for path in sorted(folder.rglob("*")):
        if path.suffix in (".safetensors", ".json", ".txt"):
            with path.open("rb") as file:
                yield hashlib.file_digest(file, "sha256").digest()


EMBEDDERS: dict[str, Callable[[int, int], Embedder]] = {
    NAME: MiniLM,
    f"sentence-transformers/{NAME}": MiniLM,
}


def load_embedder(name: str, batch_tokens: int = 1024, threads: int = 0) -> Embedder:
    """The embedder of that name. The built-in one computes by so many ``threads``, 0 being as many as cores. Raises
    :class:`ModelError` if it is not here and cannot be fetched.
    """
    if name in EMBEDDERS:
        return EMBEDDERS[name](batch_tokens, threads)
    return SentenceTransformer(name, batch_tokens)
