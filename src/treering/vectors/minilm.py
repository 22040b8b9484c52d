"""all-MiniLM-L6-v2 on ONNX Runtime, without torch: the published weights under a graph of fused operators."""

import hashlib
import json
import random
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from treering.modelpack import PACK, packed
from treering.vectors.index import Matrix

NAME = "all-MiniLM-L6-v2"
MAX_TOKENS = 256
"""The length the model was trained for; a longer text is cut into parts."""
SPECIAL = 2
"""Tokens that BERT puts around every text."""
LAYERS, HEADS, DIMENSIONS, WIDE, WORDS = 6, 12, 384, 1536, 30522

GRAPH = Path(__file__).with_suffix(".onnx")
"""The model without its weights; benchmarks/minilm_graph.py makes it."""

Weights = dict[str, npt.NDArray[np.float32]]


def _shapes() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "words": (WORDS, DIMENSIONS),
        "positions": (MAX_TOKENS, DIMENSIONS),
        "embedded.gain": (DIMENSIONS,),
        "embedded.bias": (DIMENSIONS,),
    }
    for layer in range(LAYERS):
        for name, rows, columns in (
            ("qkv", DIMENSIONS, 3 * DIMENSIONS),
            ("out", DIMENSIONS, DIMENSIONS),
            ("up", DIMENSIONS, WIDE),
            ("down", WIDE, DIMENSIONS),
        ):
            shapes[f"{layer}.{name}"] = (rows, columns)
            shapes[f"{layer}.{name}.bias"] = (columns,)
        for name in ("out", "down"):
            shapes[f"{layer}.{name}.gain"] = shapes[f"{layer}.{name}.shift"] = (DIMENSIONS,)
    return shapes


SHAPES = _shapes()
"""The weights of the graph, by name."""


def mapped(path: Path) -> Weights:
    """The float32 tensors of a safetensors file, memory-mapped: its own library copies them, which takes longer than a
    search. The file is a length (8 bytes, little-endian), a JSON table of that length, then the tensors.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        table = json.loads(file.read(length))
    content = np.memmap(path, np.uint8, "r", offset=8 + length)
    found = {}
    for name, entry in table.items():
        if entry.get("dtype") == "F32":
            start, end = entry["data_offsets"]
            found[name] = content[start:end].view("<f4").reshape(entry["shape"])
    return found


def weights(path: Path) -> Weights:
    """The published weights as the graph wants them: matrices for a product from the right, those of query, key and
    value beside each other, the one type of token added to the positions.
    """
    read = mapped(path)
    embeddings = "embeddings."
    found = {
        "words": read[f"{embeddings}word_embeddings.weight"],
        "positions": read[f"{embeddings}position_embeddings.weight"][:MAX_TOKENS]
        + read[f"{embeddings}token_type_embeddings.weight"][0],
        "embedded.gain": read[f"{embeddings}LayerNorm.weight"],
        "embedded.bias": read[f"{embeddings}LayerNorm.bias"],
    }
    for layer in range(LAYERS):
        of = f"encoder.layer.{layer}."
        heads = [f"{of}attention.self.{name}." for name in ("query", "key", "value")]
        found[f"{layer}.qkv"] = np.concatenate([read[f"{head}weight"] for head in heads]).T
        found[f"{layer}.qkv.bias"] = np.concatenate([read[f"{head}bias"] for head in heads])
        for name, published in (("out", "attention.output"), ("up", "intermediate"), ("down", "output")):
            found[f"{layer}.{name}"] = read[f"{of}{published}.dense.weight"].T
            found[f"{layer}.{name}.bias"] = read[f"{of}{published}.dense.bias"]
            if name != "up":
                found[f"{layer}.{name}.gain"] = read[f"{of}{published}.LayerNorm.weight"]
                found[f"{layer}.{name}.shift"] = read[f"{of}{published}.LayerNorm.bias"]
    return {name: np.ascontiguousarray(one) for name, one in found.items()}


class MiniLM:
    """Mean over tokens, normalised, as the model card says. Loaded when the first text is embedded."""

    name = NAME
    dimensions = DIMENSIONS
    length = MAX_TOKENS - SPECIAL
    fingerprint = hashlib.sha256(
        f"{PACK['minilm.weights'].sha256} {PACK['minilm.tokenizer'].sha256} {MAX_TOKENS} mean-1".encode()
    ).hexdigest()[:16]

    def __init__(self, batch_tokens: int, threads: int = 0) -> None:
        """``threads`` of 0 are as many as cores. Raises :class:`ModelError` if a file of the model is not there."""
        self.batch_tokens, self._threads = batch_tokens, threads
        self._weights, self._words = packed("minilm.weights"), packed("minilm.tokenizer")

    @cached_property
    def session(self) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # the cores are numpy's next
        options.intra_op_num_threads = self._threads
        options.log_severity_level = 3  # errors only: it warns about initialisers nobody can act on
        self._held = {
            name: onnxruntime.OrtValue.ortvalue_from_numpy(one) for name, one in weights(self._weights).items()
        }
        options.add_external_initializers(list(self._held), list(self._held.values()))
        return onnxruntime.InferenceSession(GRAPH.read_bytes(), options, ["CPUExecutionProvider"])

    @cached_property
    def tokenizer(self) -> Any:
        from tokenizers import Tokenizer

        made = Tokenizer.from_file(str(self._words))
        # The published file has truncation to 128 and padding to a fixed length baked in.
        made.enable_truncation(MAX_TOKENS)
        made.no_padding()
        return made

    @cached_property
    def whole(self) -> Any:
        """The tokenizer that reads a text to its end. Another object: one that is changed is not for many threads."""
        from tokenizers import Tokenizer

        made = Tokenizer.from_file(str(self._words))
        made.no_truncation()
        made.no_padding()
        return made

    def offsets(self, texts: Sequence[str]) -> Iterator[list[tuple[int, int]]]:
        """Where the tokens of each text stand in it (start, end), whatever its length."""
        encoded = self.whole.encode_batch(list(texts), add_special_tokens=False)
        return (one.offsets for one in encoded)

    def batches(self, texts: Sequence[str]) -> Iterator[tuple[list[int], Matrix]]:
        """Of like length in a batch, so that little is padding. The longest come first, so that a batch too large for
        memory fails at once, the others mixed, so that what is done says how long the rest takes.
        """
        ids = [encoding.ids for encoding in self.tokenizer.encode_batch(list(texts))]
        order = sorted(range(len(texts)), key=lambda position: -len(ids[position]))
        batches = []
        while order:
            count = max(1, self.batch_tokens // len(ids[order[0]]))
            batches.append(order[:count])
            order = order[count:]
        random.Random(len(batches)).shuffle(rest := batches[1:])  # noqa: S311
        for chosen in [*batches[:1], *rest]:
            yield chosen, self._embed([ids[position] for position in chosen])

    def _embed(self, ids: list[list[int]]) -> Matrix:
        width = max(len(one) for one in ids)
        tokens = np.zeros((len(ids), width), dtype=np.int32)
        mask = np.zeros((len(ids), width), dtype=np.int32)
        for row, one in enumerate(ids):
            tokens[row, : len(one)] = one
            mask[row, : len(one)] = 1
        (hidden,) = self.session.run(None, {"ids": tokens, "mask": mask})
        counted = mask[:, :, None].astype(np.float32)
        mean = (hidden * counted).sum(axis=1) / counted.sum(axis=1)
        return np.asarray(mean / np.linalg.norm(mean, axis=1, keepdims=True), dtype=np.float32)
