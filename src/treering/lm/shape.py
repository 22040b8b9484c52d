"""The shape of a base model, read from its config: the weights are neither loaded nor needed."""

from dataclasses import dataclass
from typing import Any

from treering.errors import ModelError, needs
from treering.lm.base import ALTERNATIVES, DEFAULT, check_base, scratch_config
from treering.modelpack import packed, quiet_transformers

SCRATCH_VOCAB = 50257
"""GPT-2's, the tokens of a model made from scratch where the user names no others."""
_INNER_KEPT = {"relu": 1, "gelu": 2, "silu": 2}
"""How often the inner width is kept by one activation function; 5 by one put together of several operations
(``gelu_new``). A gated layer keeps it 4 times: before and after the function, the other half, and their product."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What the memory of a training depends on. ``linear`` are the parameters of the layers' matrices, which 4-bit
    storing and adapters concern, and ``sides`` the sum of their inputs and outputs: an adapter of rank r has r x sides.
    ``kept`` is how many numbers a layer keeps of a token for the way back, ``kept_lean`` how many where what is cheap
    to make again is not kept (``lean.py``), and ``dropout`` tells whether attention drops some of its scores.
    """

    parameters: int
    layers: int
    hidden: int
    heads: int
    vocab: int
    positions: int | None
    linear: int
    sides: int
    kept: int
    kept_lean: int
    dropout: bool


def shape_of(base: str) -> Shape:
    """The shape of a base model by name. Raises :class:`ModelError` if it is not on this machine, or is none."""
    folder = check_base(base)
    with needs("train"):
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM

    quiet_transformers()
    try:
        if folder is None:
            config: Any = scratch_config(SCRATCH_VOCAB, positions=1024)
        elif base == DEFAULT:
            config = AutoConfig.from_pretrained(str(folder), gguf_file=packed("smollm2.gguf").name)
        else:
            config = AutoConfig.from_pretrained(str(folder), local_files_only=True)
        with torch.device("meta"):  # shapes without memory
            model = AutoModelForCausalLM.from_config(config)
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise ModelError(f"`{base}` has a config that describes no language model: {error}", ALTERNATIVES) from error
    text = config.get_text_config()
    head = model.get_output_embeddings()
    matrices = [
        tuple(module.weight.shape)
        for module in model.modules()
        if type(module).__name__ in ("Linear", "Conv1D") and module is not head  # GPT-2's are called Conv1D
    ]
    positions = None if folder is None else getattr(text, "max_position_embeddings", None)
    gated = any("gate" in name for name, _ in model.named_modules())
    return Shape(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        heads=text.num_attention_heads,
        vocab=text.vocab_size,
        positions=positions,
        linear=sum(rows * columns for rows, columns in matrices),
        sides=sum(rows + columns for rows, columns in matrices),
        kept=_kept(text, gated=gated, lean=False),
        kept_lean=_kept(text, gated=gated, lean=True),
        dropout=_any(text, "attention_dropout", "attn_pdrop"),
    )


def _kept(config: Any, *, gated: bool, lean: bool) -> int:
    """Numbers a layer keeps of a token, counted in torch's saved tensors of SmolLM2, GPT-2 and OPT."""
    hidden: int = config.hidden_size
    heads: int = config.num_attention_heads
    width: int = getattr(config, "head_dim", None) or hidden // heads
    attention = 2 * (heads + (getattr(config, "num_key_value_heads", None) or heads)) * width  # q, k, v, their result
    inner: int = getattr(config, "intermediate_size", None) or getattr(config, "ffn_dim", None) or 4 * hidden
    function = getattr(config, "activation_function", None) or getattr(config, "hidden_act", None)
    dropped = 2 * hidden if _any(config, "dropout", "resid_pdrop", "hidden_dropout") else 0
    if lean:
        return 2 * hidden + attention + inner * (2 if gated else 1) + dropped
    norms = 6 * hidden if gated else 4 * hidden  # gated layers come with RMSNorm, which keeps one more
    return norms + attention + inner * (4 if gated else _INNER_KEPT.get(str(function), 5)) + dropped


def _any(config: Any, *names: str) -> bool:
    return any(getattr(config, name, 0) for name in names)
