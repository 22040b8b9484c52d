"""A model's folder as one GGUF file and an Ollama Modelfile: for llama.cpp and what is built on it.

Written with llama.cpp's own package ``gguf``. Llama and GPT-2 with a byte-level BPE are known here; anything else is an
error, because a file that loads and answers nonsense is worse than none.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from treering.errors import DataError, ModelError, needs
from treering.files import read_json

QUANTIZATIONS = ("q8_0", "f16", "f32")
CONTEXT = 4096
"""How many tokens Ollama is asked to hold at most: its own default, which memory grows with."""

_MUST_BE: Mapping[str, Mapping[str, tuple[object, ...]]] = {
    "llama": {"hidden_act": ("silu",), "rope_type": ("default",)},
    "gpt2": {
        "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
        "scale_attn_weights": (True,),
        "scale_attn_by_inverse_layer_idx": (False,),
    },
}
"""What llama.cpp takes for granted of each architecture."""
_BUFFERS = (".attn.bias", ".attn.masked_bias", ".rotary_emb.inv_freq")
"""Constants that older files keep beside the weights."""
_TRANSPOSED = (".c_attn.weight", ".c_proj.weight", ".c_fc.weight")
_GPT2 = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
_DIGITS = {"type": "Digits", "individual_digits": True}


@dataclass(frozen=True, slots=True)
class Written:
    """What the Modelfile says of the file."""

    end_of_text: str
    context: int


def write_gguf(folder: Path, path: Path, quantize: str, name: str) -> Written:
    """Write the model of ``folder`` to ``path``, a tensor at a time. ``quantize`` is of matrices; the rest is f32.

    Raises :class:`ModelError` for an architecture or a tokenizer that llama.cpp would not run as transformers does.
    """
    with needs("train"):
        import gguf
        from safetensors import SafetensorError

    config = _config(folder)
    tensors = list(_tensors(folder, config))
    writer = gguf.GGUFWriter(path, config.model_type)
    try:
        writer.add_type(gguf.GGUFType.MODEL)
        writer.add_name(name)
        writer.add_file_type(
            {
                "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0,
                "f16": gguf.LlamaFileType.MOSTLY_F16,
                "f32": gguf.LlamaFileType.ALL_F32,
            }[quantize]
        )
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        context = _add_shape(writer, config)
        end_of_text = _add_tokenizer(writer, folder, config)
        kinds = [_kind(tensor, quantize) for tensor in tensors]
        for tensor, kind in zip(tensors, kinds, strict=True):
            shape = gguf.quant_shape_to_byte_shape(tensor.shape, kind)
            writer.add_tensor_info(tensor.name, shape, np.dtype(np.uint8), math.prod(shape), raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for tensor, kind in zip(tensors, kinds, strict=True):
            writer.write_tensor_data(gguf.quantize(tensor.read(config), kind))
    except SafetensorError as error:
        raise ModelError(f"the weights in {folder} are torn: {error}", "train the model again") from error
    finally:
        writer.close()
    return Written(end_of_text, context)


def modelfile(written: Written) -> str:
    """What ``ollama create`` reads. The prompt goes to the model as it is: it was trained on texts, not on a chat."""
    return "\n".join(
        (
            "FROM ./model.gguf",
            'TEMPLATE """{{ .Prompt }}"""',
            f'PARAMETER stop "{written.end_of_text}"',
            "PARAMETER temperature 0.7",
            "PARAMETER top_p 0.95",
            "PARAMETER top_k 50",
            "PARAMETER repeat_penalty 1.0",
            f"PARAMETER num_ctx {min(written.context, CONTEXT)}",
            "",
        )
    )


def _config(folder: Path) -> Any:
    with needs("train"):
        from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(str(folder), local_files_only=True)
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder} holds no model: {error}", "name a folder that `treering train` wrote") from error
    if config.model_type not in _MUST_BE:
        raise ModelError(
            f"llama.cpp does not run every model, and {config.model_type} is none we can write for it",
            f"train from a base model of these kinds: {', '.join(_MUST_BE)}; or export --format safetensors",
        )
    for name, known in _MUST_BE[config.model_type].items():
        value = config.rope_parameters.get(name) if name == "rope_type" else getattr(config, name)
        if value not in known:
            raise ModelError(
                f"llama.cpp runs a {config.model_type} model with {name} {known[0]}, and this one has {value}",
                "export --format safetensors",
            )
    return config


def _add_shape(writer: Any, config: Any) -> int:
    """The figures of the architecture. Returns how many tokens it reads."""
    context = int(config.max_position_embeddings)
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(context)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(config.num_attention_heads)
    if config.model_type == "gpt2":
        writer.add_feed_forward_length(config.n_inner or 4 * config.n_embd)
        writer.add_layer_norm_eps(config.layer_norm_epsilon)
        return context
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    return context


def _add_tokenizer(writer: Any, folder: Path, config: Any) -> str:
    """The vocabulary, its merges, and how a text is split before them. Returns the text of the end-of-text token."""
    import gguf

    told = read_json(folder / "tokenizer.json", dict[str, Any])
    size = config.vocab_size
    tokens = [f"[PAD{number}]" for number in range(size)]
    kinds = [gguf.TokenType.UNUSED] * size
    added = {one["id"]: one for one in told.get("added_tokens", ())}
    try:
        for token, number in told["model"]["vocab"].items():
            tokens[number], kinds[number] = token, gguf.TokenType.NORMAL
        for number, one in added.items():
            tokens[number] = one["content"]
            kinds[number] = gguf.TokenType.CONTROL if one["special"] else gguf.TokenType.USER_DEFINED
    except IndexError as error:
        raise DataError(f"the tokenizer in {folder} has ids beyond the model's {size:,}", "train it again") from error
    end = config.eos_token_id
    end = end[0] if isinstance(end, list) else end
    if end is None:
        raise ModelError(f"the model in {folder} does not say what ends a text", "train it with treering")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(_split(told, folder))
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges([one if isinstance(one, str) else " ".join(one) for one in told["model"]["merges"]])
    writer.add_bos_token_id(end)
    writer.add_eos_token_id(end)
    writer.add_pad_token_id(end)
    writer.add_add_bos_token(False)
    return str(tokens[end])


def _split(told: Mapping[str, Any], folder: Path) -> str:
    """llama.cpp's name for the way a tokenizer splits a text before it merges: GPT-2's, or SmolLM's, which splits
    numbers into digits too.
    """
    before = told.get("pre_tokenizer") or {}
    steps = [
        {key: value for key, value in {"use_regex": True, **step}.items() if key in _GPT2}
        if step.get("type") == "ByteLevel"
        else step
        for step in before.get("pretokenizers", (before,))
    ]
    model = told["model"]
    plain = model["type"] == "BPE" and not told.get("normalizer") and not model.get("ignore_merges")
    if plain and steps == [_GPT2]:
        return "gpt-2"
    if plain and steps == [_DIGITS, _GPT2]:
        return "smollm"
    raise ModelError(
        f"the tokenizer in {folder} splits texts in a way that has no name we know in llama.cpp",
        "export --format safetensors",
    )


@dataclass(frozen=True, slots=True)
class _Tensor:
    """A tensor of the file to be: its name there, its shape as written, and where it comes from."""

    name: str
    shape: tuple[int, ...]
    source: str
    file: Path

    def read(self, config: Any) -> Any:
        """Its numbers in float32, turned as llama.cpp wants them."""
        from safetensors import safe_open

        with safe_open(self.file, framework="pt") as weights:  # numpy has no bfloat16
            values = weights.get_tensor(self.source).float().numpy()
        if config.model_type == "gpt2":
            return values.T if self.source.endswith(_TRANSPOSED) else values
        if ".q_proj." in self.source:
            return _interleaved(values, config.num_attention_heads)
        if ".k_proj." in self.source:
            return _interleaved(values, config.num_key_value_heads)
        return values


def _interleaved(values: Any, heads: int) -> Any:
    """Rotary pairs beside each other: transformers keeps a head's first halves, then its second halves."""
    return values.reshape(heads, 2, -1, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)


def _tensors(folder: Path, config: Any) -> Iterator[_Tensor]:
    import gguf
    from safetensors import SafetensorError, safe_open

    architecture = {"llama": gguf.MODEL_ARCH.LLAMA, "gpt2": gguf.MODEL_ARCH.GPT2}[config.model_type]
    names = gguf.get_tensor_name_map(architecture, config.num_hidden_layers)
    files = sorted(folder.glob("model*.safetensors"))
    if not files:
        raise ModelError(f"there are no weights in {folder}", "name a folder that `treering train` wrote")
    for file in files:
        try:
            with safe_open(file, framework="pt") as weights:
                shapes = {name: tuple(weights.get_slice(name).get_shape()) for name in weights.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise ModelError(f"{file} is torn: {error}", "train the model again") from error
        for source, shape in shapes.items():
            if source.endswith(_BUFFERS) or (source == "lm_head.weight" and config.tie_word_embeddings):
                continue
            name = names.get_name(source, try_suffixes=(".weight", ".bias"))
            if name is None:
                raise ModelError(f"{file} holds `{source}`, which no {config.model_type} model has", "")
            turned = config.model_type == "gpt2" and source.endswith(_TRANSPOSED)
            yield _Tensor(name, shape[::-1] if turned else shape, source, file)


def _kind(tensor: _Tensor, quantize: str) -> Any:
    """Vectors and positions stay float32, as llama.cpp's own converter leaves them; rows must fill blocks of 32."""
    from gguf import GGMLQuantizationType as Kind

    if quantize == "f32" or len(tensor.shape) < 2 or tensor.name.startswith("position_embd"):
        return Kind.F32
    return Kind.Q8_0 if quantize == "q8_0" and tensor.shape[-1] % 32 == 0 else Kind.F16
