"""A language model that costs nothing: two narrow layers over bytes, trained in a moment, in a folder that
transformers loads.
"""

from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from treering.tokens.tokenizer import TextTokenizer

END = "<|endoftext|>"


def byte_tokenizer(folder: Path) -> Path:
    """A tokenizer of bytes in a folder: a vocabulary of 257."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE({letter: number for number, letter in enumerate(alphabet)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([END])
    TextTokenizer("bytes", made, END).save(folder)
    return folder


def tiny_base(folder: Path) -> Path:
    """A base model to be named by its folder."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    byte_tokenizer(folder)
    torch.manual_seed(1)
    config = GPT2Config(
        vocab_size=257, n_positions=64, n_embd=32, n_layer=2, n_head=2, bos_token_id=256, eos_token_id=256
    )
    GPT2LMHeadModel(config).save_pretrained(str(folder), safe_serialization=True)
    return folder
