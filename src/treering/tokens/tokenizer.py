"""Tokenizers by name: ``gpt2`` and ``smollm2-135m`` from the model pack, any other from Hugging Face or a folder."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from treering.errors import ModelError, needs
from treering.files import replacing, write_json
from treering.modelpack import cache_dir, located, packed

ALTERNATIVES = "on every machine with the model pack: gpt2, smollm2-135m; or give a folder that holds a tokenizer.json"
_FILES = ("tokenizer*.json", "vocab.json", "merges.txt")
_END_OF_TEXT = ("<|endoftext|>", "</s>", "<eos>", "<|im_end|>", "[SEP]")
_SPLIT = ("a", " Hello  world\n\n\tdef f(x_1): return 12345", "größe 日本 \u00a0😀 don't", "<|endoftext|></s>")
PROBES = (
    *_SPLIT, "@@ -1,7 +10,8 @@ fn main() {\n-\tlet x = 0x1F;\t// old\r\n+\t\tlet x = 31;\n \n }\n\\ No newline at end",
    "  1   2\n 3 \t4a5  ", "I'll we've it's DON'T 'S 're'd  'm", "…«»—“quoted”!!??;;  :: $$$ ^^^", "½ ² ٣٤ Ⅷ 一二 x² ೫",
    "a\u200db\ufeffc\u2028d\u0085e", "שלום עולם नमस्ते สวัสดี", "👩\u200d👩\u200d👧🏳️🇩🇪", "e\u0301 \u0301 ﬁ İ ı ß ẞ ǆ",
    "\x00\x01\x7f\x80", " " * 40 + "\n" * 9, "",
)  # fmt: skip
"""Texts that have between them everything on which two tokenizers could differ."""
_SPECIAL = 3  # gguf's TokenType.CONTROL


class TextTokenizer:
    """A tokenizer with the markers added to it, if any. ``vocab_size`` counts them."""

    def __init__(self, name: str, tokenizer: Tokenizer, end_of_text: str, added: Sequence[str] = ()) -> None:
        self.name = name
        self.end_of_text = end_of_text
        self.added = tuple(added)
        tokenizer.no_truncation()
        tokenizer.no_padding()
        # Markers are not "special": a decoded text shows them, and the text of a message that merely looks like
        # an end-of-text stays text.
        tokenizer.add_tokens([AddedToken(marker, special=False, normalized=False) for marker in added])
        tokenizer.encode_special_tokens = True
        self.backend = tokenizer
        self.vocab_size: int = tokenizer.get_vocab_size(with_added_tokens=True)
        self.eos_id: int = tokenizer.token_to_id(end_of_text) or 0

    @property
    def fingerprint(self) -> str:
        """Decided by the vocabulary and by how a text that has everything is split. Not by the whole file: the same
        tokenizer is published in files that differ.
        """
        vocabulary = sorted(self.backend.get_vocab(with_added_tokens=True).items(), key=lambda item: item[1])
        return hashlib.sha256(json.dumps([vocabulary, self.encode(_SPLIT)]).encode()).hexdigest()[:16]

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [encoding.ids for encoding in self.backend.encode_batch(list(texts), add_special_tokens=False)]

    def encode_with_places(self, texts: Sequence[str]) -> list[tuple[list[int], list[int]]]:
        """The ids of each text, and the character at which each of them begins."""
        encodings = self.backend.encode_batch(list(texts), add_special_tokens=False)
        return [(encoding.ids, [start for start, _ in encoding.offsets]) for encoding in encodings]

    def decode(self, ids: Sequence[int]) -> str:
        return str(self.backend.decode(list(ids), skip_special_tokens=False))

    def save(self, folder: Path) -> None:
        """Write the two files that ``AutoTokenizer.from_pretrained`` wants."""
        self.backend.encode_special_tokens = False
        with replacing(folder / "tokenizer.json") as file:
            file.write(self.backend.to_str(pretty=True).encode())
        self.backend.encode_special_tokens = True
        write_json(
            folder / "tokenizer_config.json",
            {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "eos_token": self.end_of_text,
                "pad_token": self.end_of_text,
                "clean_up_tokenization_spaces": False,
                "treering_name": self.name,
                "treering_added": self.added,
            },
        )


def load_tokenizer(name: str, added: Sequence[str] = ()) -> TextTokenizer:
    """The tokenizer of a model by name or folder, with ``added`` markers.

    Raises :class:`ModelError` within seconds if it is not on this machine and cannot be fetched.
    """
    if name in _PACKED:
        return TextTokenizer(name, _PACKED[name](), "<|endoftext|>", added)
    folder = located(name, _FILES, kind="tokenizer", alternatives=ALTERNATIVES)
    tokenizer = _of_folder(folder, name)
    config = folder / "tokenizer_config.json"
    try:
        own = json.loads(config.read_text("utf-8")) if config.is_file() else {}
    except ValueError as error:
        raise ModelError(f"{config} is torn: {error}", ALTERNATIVES) from error
    stated = own.get("eos_token")
    stated = stated.get("content") if isinstance(stated, dict) else stated
    for candidate in (stated, *_END_OF_TEXT):
        if candidate and tokenizer.token_to_id(candidate) is not None:
            return TextTokenizer(name, tokenizer, candidate, tuple(added) or tuple(own.get("treering_added", ())))
    raise ModelError(f"the tokenizer `{name}` has no end-of-text token", ALTERNATIVES)


def _of_folder(folder: Path, name: str) -> Tokenizer:
    if (whole := folder / "tokenizer.json").is_file():
        try:
            return Tokenizer.from_file(str(whole))
        except Exception as error:
            raise ModelError(f"{whole} is torn or no tokenizer: {error}", ALTERNATIVES) from error
    vocabulary, merges = folder / "vocab.json", folder / "merges.txt"
    if vocabulary.is_file() and merges.is_file():  # the older form: gpt2 and opt on some mirrors
        return _byte_level(models.BPE.from_file(str(vocabulary), str(merges)))
    raise ModelError(f"`{name}` has no tokenizer.json in {folder}", ALTERNATIVES)


def _byte_level(model: models.BPE) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    if model.token_to_id("<|endoftext|>") is not None:
        tokenizer.add_special_tokens(["<|endoftext|>"])
    return tokenizer


def _gpt2() -> Tokenizer:
    return _byte_level(models.BPE.from_file(str(packed("gpt2.vocab")), str(packed("gpt2.merges"))))


def _smollm2() -> Tokenizer:
    """Read out of the GGUF once, then kept as a tokenizer.json in the user's cache."""
    source = packed("smollm2.gguf")
    kept = cache_dir() / "smollm2-135m" / "tokenizer.json"
    if kept.is_file():
        return Tokenizer.from_file(str(kept))
    with needs("train"):
        from gguf import GGUFReader
    read = GGUFReader(str(source)).fields
    tokens = read["tokenizer.ggml.tokens"].contents()
    kinds = read["tokenizer.ggml.token_type"].contents()
    merges = [tuple(merge.split(" ")) for merge in read["tokenizer.ggml.merges"].contents()]
    tokenizer = Tokenizer(models.BPE({token: number for number, token in enumerate(tokens)}, merges))
    # Upstream splits numbers into digits first; the GGUF does not say so.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([token for token, kind in zip(tokens, kinds, strict=True) if kind == _SPECIAL])
    with replacing(kept) as file:
        file.write(tokenizer.to_str().encode())
    return tokenizer


_PACKED = {"gpt2": _gpt2, "smollm2-135m": _smollm2}
