"""Byte-level BPE by tiktoken, several times as fast as Hugging Face's, for tokenizers of which it gives the same ids.

That is proved when a tokenizer is loaded, not hoped. tiktoken joins the pair of tokens whose union has the lowest id,
Hugging Face the pair whose merge comes first; pairs without a merge it never joins. It is the same if ids rise in the
order of merges, and if the merges alone make every token of its own bytes: were a pair joined by one and not by the
other, the bytes of the union would have shown it. How a text is split before is one of two known forms. A text in
which the two could differ all the same is told by :meth:`BytePairs.fits`.
"""

import json
import unicodedata
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer, models

Ids = npt.NDArray[np.uint32]

RUN = 2048
"""White space of twice this length is left to Hugging Face: tiktoken's regular expression fills the stack on it."""

_SEPARATOR = "\0treering: the next text\0"
_CONTRACTIONS = "'s|'t|'re|'ve|'m|'ll|'d"
_WORDS = rf"{_CONTRACTIONS}| ?\p{{L}}+| ?\p{{N}}+| ?[^\s\p{{L}}\p{{N}}]+|\s+(?!\S)|\s+"
_WORDS_AND_DIGITS = rf"{_CONTRACTIONS}| ?\p{{L}}+|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+|\s+(?![^\s\p{{N}}])|\s+"
"""GPT-2's split of a text that was split at every digit before: white space before a digit is then at an end."""


class NotTheSame(Exception):  # noqa: N818  (it is what the ids would be)
    """Why tiktoken does not stand in for a tokenizer."""


class BytePairs:
    """A tokenizer's encoding by tiktoken. Raises :class:`NotTheSame`, with the reason, where the ids could differ."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        try:
            from tiktoken import Encoding
        except ModuleNotFoundError as error:
            raise NotTheSame("tiktoken is not installed (extra `train`)") from error
        written = json.loads(tokenizer.to_str())
        if (written["normalizer"] or {}).get("type", "NFC") != "NFC":
            raise NotTheSame("its texts are normalised first")
        self._normalised = written["normalizer"] is not None
        pattern = _pattern(written["pre_tokenizer"])
        ranks = _ranks(written["model"], {token["content"] for token in written["added_tokens"]})
        markers = _markers(written["added_tokens"], normalised=self._normalised)
        self._separator = tokenizer.get_vocab_size(with_added_tokens=True)
        self._missing = bytes(byte for byte in range(256) if bytes([byte]) not in ranks)
        self._sizes = np.zeros(self._separator + 1, dtype=np.int64)
        for token, number in ranks.items():
            self._sizes[number] = len(token)
        for marker, number in markers.items():
            self._sizes[number] = len(marker.encode())
        self._encoding = Encoding(
            "treering",
            pat_str=pattern,
            mergeable_ranks=ranks,
            special_tokens={**markers, _SEPARATOR: self._separator},
        )

    def fits(self, text: str) -> bool:
        """Whether a text is certainly encoded as Hugging Face does: no endless white space, no byte that is not in the
        vocabulary, and no character of which different versions of Unicode say different things.
        """
        if _SEPARATOR in text or any(text[at : at + RUN].isspace() for at in range(0, len(text) - RUN + 1, RUN)):
            return False
        if self._missing and len(content := text.encode()) != len(content.translate(None, self._missing)):
            return False
        if text.isascii():
            return True
        if self._normalised and not unicodedata.is_normalized("NFC", text):
            return False
        return all(unicodedata.category(char) != "Cn" for char in set(text))

    def encode(self, texts: Sequence[str]) -> list[tuple[Ids, npt.NDArray[np.int64]]]:
        """The ids of each text, and the byte at which each of them begins. The interpreter is free meanwhile: one call
        for all, because to get it back costs more than a text.
        """
        joined = self._encoding.encode_to_numpy(_SEPARATOR.join(texts), allowed_special="all", disallowed_special=())
        borders = [-1, *np.flatnonzero(joined == self._separator).tolist(), len(joined)]
        found = []
        for before, after in pairwise(borders):
            ids = joined[before + 1 : after]
            ends = np.cumsum(self._sizes[ids])
            found.append((ids, ends - self._sizes[ids]))
        return found


def _pattern(pre_tokenizer: Mapping[str, Any] | None) -> str:
    """The regular expression that splits as a pre-tokenizer does."""
    steps = (pre_tokenizer or {}).get("pretokenizers", [pre_tokenizer])
    told = [{key: value for key, value in (step or {}).items() if key != "trim_offsets"} for step in steps]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
    if told == [byte_level]:
        return _WORDS
    if told == [{"type": "Digits", "individual_digits": True}, byte_level]:
        return _WORDS_AND_DIGITS
    raise NotTheSame("its texts are split in another way")


def _ranks(model: Mapping[str, Any], added: set[str]) -> dict[bytes, int]:
    """Tokens as bytes, with their ids: the bytes themselves, and what merges make of them."""
    plain = {"type": "BPE", "dropout": None, "byte_fallback": False}
    if any(model.get(key) != value for key, value in plain.items()):
        raise NotTheSame("it is no plain BPE")
    if model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        raise NotTheSame("it marks where words begin or end")
    vocabulary: dict[str, int] = model["vocab"]
    merges = [tuple(merge) for merge in model["merges"]]
    made = [first + second for first, second in merges]
    letters = _letters()
    if model.get("ignore_merges") and not vocabulary.keys() <= {*made, *letters, *added}:
        raise NotTheSame("it has tokens that no merge makes")
    numbers = [vocabulary[token] for token in made]
    if any(first >= second for first, second in pairwise(numbers)):
        raise NotTheSame("its ids are not in the order of its merges")
    if not letters.keys() >= set("".join(made)):
        raise NotTheSame("its tokens are not of bytes")
    bare = Tokenizer(models.BPE(vocabulary, merges))
    if any(encoding.ids != [number] for encoding, number in zip(bare.encode_batch(made), numbers, strict=True)):
        raise NotTheSame("its merges do not make all of its tokens")
    there = [letter for letter in letters if letter in vocabulary]
    return {bytes(letters[char] for char in token): vocabulary[token] for token in (*there, *made)}


def _letters() -> dict[str, int]:
    """The letters that stand for bytes in vocabularies of byte-level BPE, as GPT-2's ``bytes_to_unicode`` has them."""
    shown = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return {chr(byte): byte for byte in shown} | {chr(256 + number): byte for number, byte in enumerate(hidden)}


def _markers(added: Sequence[Mapping[str, Any]], *, normalised: bool) -> dict[str, int]:
    """The added tokens that are found in a text, with their ids. Special ones are not: what looks like one is text."""
    found = {token["content"]: token["id"] for token in added if not token["special"]}
    for token in added:
        bent = token["lstrip"] or token["rstrip"] or token["single_word"] or (token["normalized"] and normalised)
        if bent and token["content"] in found:
            raise NotTheSame(f"its token {token['content']} takes more than its own letters")
        if any(_overlap(token["content"], marker) for marker in found if marker != token["content"]):
            raise NotTheSame(f"its token {token['content']} overlaps another")
    return found


def _overlap(first: str, second: str) -> bool:
    """Whether a text can hold both, sharing letters."""
    if first in second or second in first:
        return True
    return any(
        first.endswith(second[:size]) or second.endswith(first[:size])
        for size in range(1, min(len(first), len(second)))
    )
