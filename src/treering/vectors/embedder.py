"""Texts to unit vectors: all-MiniLM-L6-v2 on ONNX Runtime without torch, or any sentence-transformers model."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from treering.errors import ModelError, needs
from treering.modelpack import PACK, located, packed, quiet_transformers

Matrix = npt.NDArray[np.float32]
"""Shape (texts, dimensions), rows of length 1."""

BUILT_IN = "all-MiniLM-L6-v2"
_FILES = ("*.json", "*.txt", "*/*.json", "*.safetensors")
MAX_TOKENS = 256
"""The length the model was trained for; a longer text is cut into parts."""
MAX_PARTS = 2
"""Of a text that is longer than that many parts, the rest is not embedded: it has its words in the index."""


class Embedder(Protocol):
    """A loaded model. ``fingerprint`` changes with everything that decides a vector."""

    name: str
    dimensions: int
    fingerprint: str

    def parts(self, texts: Sequence[str]) -> list[list[str]]:
        """Each text in parts that the model reads whole, at most :data:`MAX_PARTS`."""

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


def embed(embedder: Embedder, texts: Sequence[str]) -> Matrix:
    """Vectors of all texts, in order."""
    result = np.zeros((len(texts), embedder.dimensions), dtype=np.float32)
    for positions, rows in embedder.batches(texts):
        result[positions] = rows
    return result


class MiniLM:
    """all-MiniLM-L6-v2 from the model pack: mean over tokens, normalised, as its model card says."""

    name = BUILT_IN
    dimensions = 384
    fingerprint = hashlib.sha256(
        f"{PACK['minilm.onnx'].sha256} {PACK['minilm.tokenizer'].sha256} {MAX_TOKENS} mean-1".encode()
    ).hexdigest()[:16]

    def __init__(self, batch_tokens: int, threads: int = 0) -> None:
        import onnxruntime
        from tokenizers import Tokenizer

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3  # errors only: it warns about initialisers nobody can act on
        self.session = onnxruntime.InferenceSession(str(packed("minilm.onnx")), options, ["CPUExecutionProvider"])
        self.inputs = {one.name for one in self.session.get_inputs()}
        self.tokenizer = Tokenizer.from_file(str(packed("minilm.tokenizer")))
        # The published file has truncation to 128 and padding to a fixed length baked in.
        self.tokenizer.enable_truncation(MAX_TOKENS)
        self.tokenizer.no_padding()
        self.batch_tokens = batch_tokens

    def parts(self, texts: Sequence[str]) -> list[list[str]]:
        self.tokenizer.no_truncation()
        encoded = self.tokenizer.encode_batch(list(texts), add_special_tokens=False)
        self.tokenizer.enable_truncation(MAX_TOKENS)
        return [cut(text, one.offsets, MAX_TOKENS - 2) for text, one in zip(texts, encoded, strict=True)]

    def batches(self, texts: Sequence[str]) -> Iterator[tuple[list[int], Matrix]]:
        """Longest first, so that little is padding and a batch too large for memory fails at once."""
        ids = [encoding.ids for encoding in self.tokenizer.encode_batch(list(texts))]
        order = sorted(range(len(texts)), key=lambda position: -len(ids[position]))
        while order:
            count = max(1, self.batch_tokens // len(ids[order[0]]))
            chosen, order = order[:count], order[count:]
            yield chosen, self._embed([ids[position] for position in chosen])

    def _embed(self, ids: list[list[int]]) -> Matrix:
        width = max(len(one) for one in ids)
        tokens = np.zeros((len(ids), width), dtype=np.int64)
        mask = np.zeros((len(ids), width), dtype=np.int64)
        for row, one in enumerate(ids):
            tokens[row, : len(one)] = one
            mask[row, : len(one)] = 1
        feeds = {"input_ids": tokens, "attention_mask": mask, "token_type_ids": np.zeros_like(tokens)}
        hidden = self.session.run(None, {name: feeds[name] for name in self.inputs})[0]
        weights = mask[:, :, None].astype(np.float32)
        mean = (hidden * weights).sum(axis=1) / weights.sum(axis=1)
        return np.asarray(mean / np.linalg.norm(mean, axis=1, keepdims=True), dtype=np.float32)


class SentenceTransformer:
    """Any sentence-transformers name or folder, through the extra ``st``."""

    def __init__(self, name: str, batch_tokens: int) -> None:
        alternatives = f"on every machine with the model pack: {BUILT_IN}; or give a folder"
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
        self.batch = max(1, batch_tokens // MAX_TOKENS)
        self.fingerprint = hashlib.sha256(b"".join(_digests(folder))).hexdigest()[:16]

    def parts(self, texts: Sequence[str]) -> list[list[str]]:
        length = int(self.model.max_seq_length or MAX_TOKENS) - 2
        encoded = [
            self.model.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
            for text in texts
        ]
        return [cut(text, one["offset_mapping"], length) for text, one in zip(texts, encoded, strict=True)]

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


EMBEDDERS: dict[str, Callable[[int], Embedder]] = {
    BUILT_IN: MiniLM,
    f"sentence-transformers/{BUILT_IN}": MiniLM,
}


def load_embedder(name: str, batch_tokens: int = 2048) -> Embedder:
    """The embedder of that name. Raises :class:`ModelError` if it is not here and cannot be fetched."""
    if name in EMBEDDERS:
        return EMBEDDERS[name](batch_tokens)
    return SentenceTransformer(name, batch_tokens)
