"""Base models by name: SmolLM2-135M from the model pack, a small GPT-2 from scratch, anything of Hugging Face."""

import io
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

from treering.errors import DataError, ModelError, needs
from treering.modelpack import located, packed, quiet_transformers

DEFAULT = "smollm2-135m"
SCRATCH = "scratch"
ALTERNATIVES = (
    f"on every machine with the model pack: {DEFAULT}; {SCRATCH} (a small GPT-2 that knows nothing yet); "
    "or give a folder that holds a model"
)
FOUR_BIT_BLOCK = 64
"""How many weights in a row share their constants: matrices of another width stay as they are."""
_FILES = ("config.json", "*.json", "*.safetensors", "*.txt")


def check_base(name: str) -> Path | None:
    """Find a base model's files before any long work. Returns their folder, or None for one made here.

    Raises :class:`ModelError` within seconds if the model is not on this machine and cannot be fetched.
    """
    if name == SCRATCH:
        return None
    if name == DEFAULT:
        return packed("smollm2.gguf").parent
    folder = located(name, _FILES, kind="model", alternatives=ALTERNATIVES)
    if not (folder / "config.json").is_file():
        raise ModelError(f"`{name}` has no config.json in {folder}", ALTERNATIVES)
    return folder


def load_base(name: str, vocab_size: int, added: Mapping[int, Sequence[int]], *, positions: int, seed: int) -> Any:
    """The model in float32, with embeddings for ``vocab_size`` tokens.

    ``added`` maps each added token's id to the ids of its words: its new row is their mean, the best of three starts
    tried (zero-shot bits per byte 1.57, against 1.78 for the mean of all rows and 1.95 for small noise).
    """
    with needs("train"):
        import torch
        from safetensors import SafetensorError
        from transformers import AutoModelForCausalLM, GPT2LMHeadModel

    quiet_transformers()
    folder = check_base(name)
    if folder is None:
        torch.manual_seed(seed)
        return GPT2LMHeadModel(scratch_config(vocab_size, positions=max(positions, 64)))
    if name == DEFAULT:
        path = packed("smollm2.gguf")
        with redirect_stderr(io.StringIO()):  # a progress bar that nothing else turns off
            model = AutoModelForCausalLM.from_pretrained(str(folder), gguf_file=path.name, dtype=torch.float32)
        # It is float32 from here on; what says otherwise would refuse to be saved.
        del model.config.quantization_config
        model.hf_quantizer = None
    else:
        try:
            model = AutoModelForCausalLM.from_pretrained(
                str(folder), dtype=torch.float32, use_safetensors=True, local_files_only=True
            )
        except (OSError, ValueError, SafetensorError) as error:
            raise ModelError(f"`{name}` cannot be loaded: {error}", ALTERNATIVES) from error
    longest = getattr(model.config, "max_position_embeddings", None)
    if longest is not None and positions > longest:
        raise DataError(
            f"the sequences have {positions} tokens and `{name}` reads at most {longest}",
            "tokenise again with --sequence-length",
        )
    _grow(model, vocab_size, added)
    return model


def load_model(folder: Path) -> Any:
    """A model that a training of ours wrote, in float32. Raises :class:`ModelError`."""
    with needs("train"):
        from safetensors import SafetensorError
        from transformers import AutoModelForCausalLM

    if not (folder / "config.json").is_file():
        raise ModelError(f"there is no model in {folder}", "run `treering train` first")
    quiet_transformers()
    try:
        return AutoModelForCausalLM.from_pretrained(str(folder), local_files_only=True, use_safetensors=True)
    except (OSError, ValueError, SafetensorError) as error:
        raise ModelError(f"the model in {folder} cannot be loaded: {error}", "train it again") from error


def lightened(model: Any, *, dtype: str, four_bit: bool) -> Any:
    """The model with frozen weights that take less memory: in ``dtype``, or those of its matrices in 4 bits (NF4 with
    constants that are quantised again: Dettmers et al. 2023). Its output layer stays as it is.
    """
    import torch

    model.to(getattr(torch, dtype))
    if not four_bit:
        return model
    with needs("qlora"):
        from bitsandbytes.nn import Linear4bit, Params4bit

    head = model.get_output_embeddings()
    for name, matrix in list(model.named_modules()):
        kind = type(matrix).__name__
        if kind not in ("Linear", "Conv1D") or matrix is head:
            continue
        weight = matrix.weight.data
        if any(size % FOUR_BIT_BLOCK for size in weight.shape):
            continue
        if kind == "Conv1D":  # GPT-2's matrices lie the other way
            weight = weight.T.contiguous()
        rows, columns = weight.shape
        small = Linear4bit(columns, rows, bias=matrix.bias is not None, compute_dtype=weight.dtype, quant_type="nf4")
        small.weight = Params4bit(weight, requires_grad=False, quant_type="nf4")
        small.support_avx512bf16_for_cpu = False  # else a look without gradients repacks the weights for good
        if matrix.bias is not None:
            small.bias = matrix.bias
        parent, _, own = name.rpartition(".")
        setattr(model.get_submodule(parent), own, small.to(weight.device))  # what moves it quantises it
    return model


def layers_of(model: Any) -> Sequence[Any]:
    """The layers of a transformer: the largest list of modules that it has."""
    import torch

    lists = [one for one in model.modules() if isinstance(one, torch.nn.ModuleList)]
    return list(max(lists, key=lambda one: sum(part.numel() for part in one.parameters()), default=()))


def scratch_config(vocab_size: int, *, positions: int) -> Any:
    """What the model made from scratch is like."""
    from transformers import GPT2Config

    return GPT2Config(
        vocab_size=vocab_size, n_positions=positions, n_embd=128, n_layer=4, n_head=4,
        bos_token_id=None, eos_token_id=None,
    )  # fmt: skip


def _grow(model: Any, vocab_size: int, added: Mapping[int, Sequence[int]]) -> None:
    import torch

    if vocab_size > model.get_input_embeddings().weight.shape[0]:
        model.resize_token_embeddings(vocab_size, mean_resizing=False)
    tables = [model.get_input_embeddings().weight]
    output = model.get_output_embeddings()
    if output is not None and output.weight is not tables[0]:
        tables.append(output.weight)
    with torch.no_grad():
        for table in tables:
            for token, words in added.items():
                table[token] = table[list(words)].mean(dim=0)
