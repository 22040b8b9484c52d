"""A tokenizer whose tokens are bytes, and a model of it: small enough to be made, and to learn, in a moment."""

from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from treering.lm.base import load_base
from treering.lm.export import write_model
from treering.tokens.tokenizer import TextTokenizer

END_OF_TEXT = "<|endoftext|>"


def byte_tokenizer(
    *before: pre_tokenizers.PreTokenizer,
    merges: Sequence[tuple[str, str]] = (),
    control: Sequence[str] = (END_OF_TEXT,),
) -> TextTokenizer:
    """The bytes, what ``merges`` make of them, and ``control``; a text is split by ``before`` first."""
    tokens = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *map("".join, merges)]
    made = Tokenizer(models.BPE({token: number for number, token in enumerate(tokens)}, list(merges)))
    level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.pre_tokenizer = pre_tokenizers.Sequence([*before, level]) if before else level
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(list(control))
    return TextTokenizer("bytes", made, END_OF_TEXT)


def base_of_bytes(folder: Path, *, reads: int = 256) -> Path:
    """What ``scratch`` begins as, of bytes: a base model with its tokenizer."""
    tokenizer = byte_tokenizer()
    folder.mkdir(parents=True)
    write_model(folder, load_base("scratch", tokenizer.vocab_size, {}, positions=reads, seed=3), tokenizer.eos_id, {})
    tokenizer.save(folder)
    return folder
