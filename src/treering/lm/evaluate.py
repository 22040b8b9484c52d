"""The verdict: bits per byte and perplexity on later commits the model never saw, beside an adaptive byte n-gram."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from treering.errors import ModelError
from treering.lm.data import TOO_FEW, Tokens

Bits = npt.NDArray[np.float64]
NOTHING: Tokens = np.empty(0, np.int64)

RESAMPLES = 2000
LARGEST = 500.0
"""Nats a token beyond which a model is none."""
NGRAM_ORDER = 6
NGRAM_BYTES = 400_000
"""How much of the newest training text the n-gram reads: enough to tell, and seconds of work."""


@dataclass(frozen=True, slots=True)
class HoldOut:
    """Figures over the held-out documents; ``total_loss`` is in nats. ``difference`` is tuned minus base in bits per
    byte with its 95 % interval from a paired bootstrap over documents: below zero throughout means better.
    """

    documents: int
    bytes: int
    total_tokens: int
    total_loss: float
    perplexity: float
    bits_per_byte: dict[str, float | None]
    difference: tuple[float, float, float] | None
    verdict: str


def document_losses(model: Any, documents: Sequence[Tokens], eos: int, window: int, *, gpu: bool) -> Bits:
    """Nats of each document's tokens; see :func:`token_losses`."""
    return np.array([nats.sum() for nats in token_losses(model, documents, eos, window, gpu=gpu)])


def token_losses(
    model: Any,
    documents: Sequence[Tokens],
    eos: int,
    window: int,
    *,
    gpu: bool,
    before: Tokens = NOTHING,
    shown: int = 0,
) -> list[Bits]:
    """Nats of each token of each document. The documents run end to end as in training, each token is predicted
    exactly once with at most ``window`` tokens before it, and predicting an end-of-text is not counted. So many tokens
    more are ``shown`` to it, of the documents and of what comes ``before`` them.
    """
    import torch
    import torch.nn.functional as functional

    separator = np.array([max(eos, 0)], dtype=np.int64)
    before = np.concatenate((before[max(0, len(before) - shown) :], separator)) if shown else separator
    stream = np.concatenate([before, *(part for document in documents for part in (document, separator))])
    owner = np.concatenate([np.append(np.full(len(document), number), -1) for number, document in enumerate(documents)])
    losses = np.zeros(len(owner))
    device = torch.accelerator.current_accelerator() if gpu and torch.accelerator.is_available() else None
    try:
        model.to(device or "cpu").eval()
    except torch.OutOfMemoryError:  # it is judged in float32, and may have been trained in less
        device = None
        model.to("cpu").eval()
    with torch.inference_mode():
        for start in range(0, len(owner), window):
            first = len(before) - 1 + start
            piece = torch.from_numpy(stream[max(0, first - shown) : first + window + 1]).to(device or "cpu")
            asked = min(window, len(owner) - start)
            logits = model(input_ids=piece[None, :-1], use_cache=False, logits_to_keep=asked).logits[0].float()
            losses[start : start + window] = functional.cross_entropy(logits, piece[-asked:], reduction="none").cpu()
    return np.split(losses[owner >= 0], np.cumsum([len(document) for document in documents])[:-1])


def judge(base: Bits, tuned: Bits, ngram: Bits, tokens: int, sizes: Sequence[int], seed: int) -> HoldOut:
    """Put the models' nats per held-out document side by side. ``sizes`` are bytes; without them (0) only perplexity
    can be told.
    """
    total = float(tuned.sum())
    if not math.isfinite(total) or total / tokens > LARGEST:
        raise ModelError(f"the model is spoilt: {total / tokens:.0f} nats a token", "lower the learning rate")
    size = sum(sizes)
    if not all(sizes):
        return HoldOut(
            len(tuned), 0, tokens, round(total, 2), round(math.exp(total / tokens), 4),
            {"base": None, "tuned": None, "ngram": None}, None,
            f"Perplexity {math.exp(float(base.sum()) / tokens):.2f} before, {math.exp(total / tokens):.2f} after;"
            " the bytes of the text are not known.",
        )  # fmt: skip
    scale = 1 / math.log(2)
    bits = {
        name: float(nats.sum()) * scale / size for name, nats in (("base", base), ("tuned", tuned), ("ngram", ngram))
    }
    low, high = interval((tuned - base) * scale, np.asarray(sizes, dtype=np.float64), seed)
    difference = bits["tuned"] - bits["base"]
    return HoldOut(
        documents=len(tuned),
        bytes=size,
        total_tokens=tokens,
        total_loss=round(total, 2),
        perplexity=round(math.exp(total / tokens), 4),
        bits_per_byte={name: round(value, 4) for name, value in bits.items()},
        difference=(round(difference, 4), round(low, 4), round(high, 4)),
        verdict=_verdict(bits, low, high, len(tuned)),
    )


def compare(
    first: Bits, second: Bits, sizes: Sequence[int], seed: int
) -> tuple[list[float], tuple[float, float, float]]:
    """Bits per byte of two models, and their difference with its interval, from their nats on the same documents."""
    scale = 1 / math.log(2)
    bits = [float(nats.sum()) * scale / sum(sizes) for nats in (first, second)]
    low, high = interval((second - first) * scale, np.asarray(sizes, dtype=np.float64), seed)
    return [round(one, 4) for one in bits], (round(bits[1] - bits[0], 4), round(low, 4), round(high, 4))


def interval(differences: Bits, sizes: Bits, seed: int) -> tuple[float, float]:
    """95 % of the paired bootstrap over documents of a difference, in what is counted for each unit of ``sizes``
    (Efron and Tibshirani, 1993).
    """
    random = np.random.default_rng(seed)
    picks = random.integers(0, len(sizes), size=(RESAMPLES, len(sizes)))
    means = differences[picks].sum(axis=1) / np.maximum(sizes[picks].sum(axis=1), 1e-9)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def _verdict(bits: dict[str, float], low: float, high: float, documents: int) -> str:
    share = bits["tuned"] / bits["base"] - 1
    change = f"{bits['base']:.3f} → {bits['tuned']:.3f} bits per byte on later commits ({share:+.1%})"
    yardstick = "below" if bits["tuned"] < bits["ngram"] else "NOT below"
    against = f"{yardstick} the adaptive byte n-gram ({bits['ngram']:.3f})"
    if documents < TOO_FEW:
        return f"Too few later commits ({documents}) to tell whether tuning helped: {change}, {against}."
    if high < 0:
        return f"Tuning helped: {change}, {against}."
    if low > 0:
        return f"Tuning did harm: {change}, {against}. Use the base model."
    return f"Tuning is not shown to help: {change}, the interval holds zero; {against}."


class ByteModel:
    """An adaptive n-gram over bytes: absolute discounting interpolated over orders 0 to 6, counts growing as it reads.

    The yardstick a neural model must beat to be worth its weight (Ney, Essen and Kneser 1994, with one discount).
    """

    DISCOUNT = 0.75

    def __init__(self) -> None:
        self.counts: dict[bytes, dict[int, int]] = {}
        self.totals: dict[bytes, int] = {}

    def read(self, text: bytes) -> float:
        """Learn ``text`` and return the nats it cost."""
        return float(self.nats(text).sum())

    def nats(self, text: bytes) -> Bits:
        """Learn ``text`` byte by byte; return what each byte cost, told before it was learned."""
        nats = np.zeros(len(text))
        for place, byte in enumerate(text):
            chance = 1 / 256
            contexts = [text[max(0, place - order) : place] for order in range(min(NGRAM_ORDER, place) + 1)]
            for context in contexts:
                seen = self.counts.get(context)
                if seen is not None:
                    total = self.totals[context]
                    chance = (max(seen.get(byte, 0) - self.DISCOUNT, 0.0) + self.DISCOUNT * len(seen) * chance) / total
            nats[place] = -math.log(chance)
            for context in contexts:
                seen = self.counts.setdefault(context, {})
                seen[byte] = seen.get(byte, 0) + 1
                self.totals[context] = self.totals.get(context, 0) + 1
        return nats


def ngram_losses(train: bytes, documents: Sequence[bytes]) -> Bits:
    """Nats of each document for a :class:`ByteModel` that has read the training text and goes on learning."""
    model = ByteModel()
    model.read(train[-NGRAM_BYTES:])
    return np.array([model.read(document) for document in documents])
