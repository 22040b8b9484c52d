"""What a language model must beat on later commits to be worth its weight: an adaptive byte n-gram and xz, told of
whole documents and of parts of them. Neither is neural, and both go on learning from each document that they were
asked about.
"""

import lzma
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from treering.lm.evaluate import NGRAM_BYTES, Bits, ByteModel, interval

Span = tuple[int, int]
"""A part of a document: where it begins and ends, in bytes."""

Difference = tuple[float, float, float]
"""A difference with its 95 % interval."""

WHOLE = "all"
BASE_SHOWN, TUNED_SHOWN = "base, shown what came before", "tuned, shown what came before"

XZ_BYTES = 200_000
"""How much of the newest training text xz reads: it is compressed anew at every part's ends."""
_XZ = [{"id": lzma.FILTER_LZMA2, "preset": 6}]
"""Raw: a container's head, padding and checksum would count as text."""


@dataclass(frozen=True, slots=True)
class Told:
    """A held-out document, and where its parts lie. A part comes behind what stands before it in the document."""

    text: bytes
    parts: Mapping[str, Span]


@dataclass(frozen=True, slots=True)
class PartRow:
    """Bits per byte of one part of the held-out documents. ``differences`` are the tuned model's to each of the others,
    with 95 % intervals of a paired bootstrap over documents: below zero throughout means better; ``shown`` are those of
    the tuned model that was shown the text before, as the yardsticks are, to these and to the base that was.
    """

    part: str
    documents: int
    bytes: int
    bits_per_byte: dict[str, float]
    differences: dict[str, Difference]
    shown: dict[str, Difference] = field(default_factory=dict)


def ngram_bits(history: bytes, documents: Sequence[Told]) -> list[Bits]:
    """What each byte costs the adaptive n-gram that has read the history."""
    model = ByteModel()
    model.read(history[-NGRAM_BYTES:])
    return [model.nats(document.text) / np.log(2) for document in documents]


def xz_bits(history: bytes, documents: Sequence[Told]) -> dict[str, Bits]:
    """What each part of each document adds to the size of all before it, compressed."""
    read = history[-XZ_BYTES:]
    sizes: dict[int, int] = {}  # by how much was read: one part ends where the next begins
    names = dict.fromkeys(name for document in documents for name in document.parts)
    found = {name: np.zeros(len(documents)) for name in names}

    def size(text: bytes) -> int:
        if len(text) not in sizes:
            sizes[len(text)] = len(lzma.compress(text, format=lzma.FORMAT_RAW, filters=_XZ))
        return sizes[len(text)]

    for number, document in enumerate(documents):
        for name, (begin, end) in document.parts.items():
            found[name][number] = 8 * (size(read + document.text[:end]) - size(read + document.text[:begin]))
        read += document.text
    return found


def token_bits(nats: Bits, ends: npt.ArrayLike, part: Span) -> float:
    """What the tokens of a part cost: a token is of the part that its last byte is in. ``ends`` are bytes."""
    begin, end = part
    last = np.asarray(ends) - 1
    return float(nats[(begin <= last) & (last < end)].sum() / np.log(2))


def part_row(part: str, costs: Mapping[str, Bits], documents: Sequence[Told], seed: int) -> PartRow | None:
    """Put side by side what a part costs by each way, in bits a document; None where no document has it."""
    sizes = np.array([end - begin for begin, end in (document.parts.get(part, (0, 0)) for document in documents)])
    held = sizes > 0
    size = sizes[held].astype(np.float64)
    if not held.any():
        return None

    def differences(of: str, others: Iterable[str]) -> dict[str, Difference]:
        found = {}
        for name in others:
            each = costs[of][held] - costs[name][held]
            low, high = interval(each, size, seed)
            found[name] = (round(float(each.sum() / size.sum()), 4), round(low, 4), round(high, 4))
        return found

    plain = [name for name in costs if name not in (BASE_SHOWN, TUNED_SHOWN)]
    return PartRow(
        part=part,
        documents=int(held.sum()),
        bytes=int(size.sum()),
        bits_per_byte={name: round(float(of[held].sum() / size.sum()), 4) for name, of in costs.items()},
        differences=differences("tuned", (name for name in plain if name != "tuned")),
        shown=differences(TUNED_SHOWN, (*(name for name in plain if name not in ("base", "tuned")), BASE_SHOWN))
        if TUNED_SHOWN in costs
        else {},
    )
