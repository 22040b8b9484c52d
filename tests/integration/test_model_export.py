"""A model for other programs: its files read back by the libraries they are for; by a real llama.cpp where it is."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner
from tokenizers import pre_tokenizers

from bytewise import byte_tokenizer
from repositories import Repo
from treering import learning, opening, operations
from treering.cli.main import main
from treering.errors import DataError, ModelError, StoreError, UsageError
from treering.lm.base import load_base
from treering.lm.export import EXPORT, export_model, replacing_folder, write_model
from treering.report import Reporter
from treering.text.strategies import MARKERS
from treering.tokens.tokenizer import TextTokenizer, load_tokenizer

ROOT = Path(__file__).parents[2]
REPORT = {"verdict": "None.", "repo": "project", "strategy": "semantic", "base_model": "scratch"}
TEXTS = (
    "Fix the retry limit: 3 → 12345, don't fail",
    "<COMMIT> a1b2c3d\n<MESSAGE> größe 日本 😀 1²3\n\n\tdef f(x_1):\r\n    return 007\n",
    "<|endoftext|> is text   here, \u00a0\u200b and  <PATH> src/x.py\n\n\n",
)


def small_llama(vocab_size: int) -> Any:
    """A Llama of random weights with everything that can be told apart: fewer key heads, biases of the projections."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(11)
    model: Any = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocab_size, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=128, tie_word_embeddings=True, attention_bias=True,
            rope_parameters={"rope_type": "default", "rope_theta": 50_000.0}, bos_token_id=None, eos_token_id=None,
        )
    )  # fmt: skip
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.1)
    return model


def make_model(folder: Path, model: Any, tokenizer: TextTokenizer) -> Path:
    folder.mkdir(parents=True)
    write_model(folder, model, tokenizer.eos_id, REPORT)
    tokenizer.save(folder)
    return folder


MERGES = (("r", "e"), ("f", "i"))


def small_gpt2(vocab_size: int) -> Any:
    return load_base("scratch", vocab_size, {}, positions=64, seed=3)


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `scratch` begins as, with a vocabulary of bytes."""
    tokenizer = byte_tokenizer(merges=MERGES)
    return make_model(tmp_path_factory.mktemp("gpt2") / "model", small_gpt2(tokenizer.vocab_size), tokenizer)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small one whose tokenizer splits numbers, as SmolLM2's does."""
    tokenizer = byte_tokenizer(pre_tokenizers.Digits(individual_digits=True), merges=MERGES)
    return make_model(tmp_path_factory.mktemp("llama") / "model", small_llama(tokenizer.vocab_size), tokenizer)


@pytest.fixture(params=["gpt2", "llama"])
def model(request: pytest.FixtureRequest) -> Path:
    folder: Path = request.getfixturevalue(request.param)
    return folder


@pytest.fixture(scope="module", params=["gpt2", "smollm2-135m"])
def worded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small models with the vocabularies of real ones; the GPT-2 has the markers as tokens of their own."""
    tokenizer = load_tokenizer(request.param, MARKERS if request.param == "gpt2" else ())
    made = (small_gpt2 if request.param == "gpt2" else small_llama)(tokenizer.vocab_size)
    return make_model(tmp_path_factory.mktemp("worded") / "model", made, tokenizer)


def weights_of(folder: Path) -> dict[str, npt.NDArray[np.float32]]:
    from safetensors.numpy import load_file

    return dict(load_file(folder / "model.safetensors"))


def in_gguf(path: Path) -> tuple[dict[str, Any], dict[str, npt.NDArray[np.float32]], dict[str, str]]:
    """What the file says, its tensors as float32, and how each is kept."""
    from gguf import GGUFReader, dequantize

    read = GGUFReader(str(path))
    told = {name: field.contents() for name, field in read.fields.items()}
    tensors = {one.name: dequantize(one.data, one.tensor_type) for one in read.tensors}
    return told, tensors, {one.name: one.tensor_type.name for one in read.tensors}


GPT2_NAMES = {
    "transformer.wte.weight": "token_embd.weight", "transformer.wpe.weight": "position_embd.weight",
    "transformer.h.3.attn.c_attn.weight": "blk.3.attn_qkv.weight",
    "transformer.h.0.attn.c_attn.bias": "blk.0.attn_qkv.bias",
    "transformer.h.1.mlp.c_proj.weight": "blk.1.ffn_down.weight", "transformer.ln_f.weight": "output_norm.weight",
}  # fmt: skip
LLAMA_NAMES = {
    "model.embed_tokens.weight": "token_embd.weight", "model.layers.1.mlp.gate_proj.weight": "blk.1.ffn_gate.weight",
    "model.layers.0.self_attn.v_proj.weight": "blk.0.attn_v.weight", "model.norm.weight": "output_norm.weight",
    "model.layers.0.self_attn.o_proj.weight": "blk.0.attn_output.weight",
}  # fmt: skip


@pytest.mark.parametrize(("quantize", "tolerance"), [("f32", 0.0), ("f16", 1e-3), ("q8_0", 1e-2)])
def test_the_numbers_of_a_gguf_are_those_of_the_model(
    model: Path, tmp_path: Path, quantize: str, tolerance: float
) -> None:
    export_model(model, tmp_path / "out", "gguf", quantize)
    told, tensors, kinds = in_gguf(tmp_path / "out" / "model.gguf")
    weights = weights_of(model)
    assert len(tensors) == len(weights)
    names = GPT2_NAMES if told["general.architecture"] == "gpt2" else LLAMA_NAMES
    for source, name in names.items():
        wanted = weights[source].T if ".c_" in source and source.endswith("weight") else weights[source]
        assert tensors[name].shape == wanted.shape, name
        assert np.abs(tensors[name] - wanted).max() <= tolerance * np.abs(wanted).max(), name
    matrices = {kind for name, kind in kinds.items() if tensors[name].ndim > 1 and name != "position_embd.weight"}
    assert matrices == {quantize.upper()}
    assert {kind for name, kind in kinds.items() if tensors[name].ndim == 1} == {"F32"}


def test_rotary_pairs_stand_beside_each_other(llama: Path, tmp_path: Path) -> None:
    export_model(llama, tmp_path / "out", "gguf", "f32")
    tensors = in_gguf(tmp_path / "out" / "model.gguf")[1]
    weights = weights_of(llama)
    for letter, kind in (("q", "weight"), ("k", "weight"), ("q", "bias"), ("k", "bias")):
        ours = weights[f"model.layers.1.self_attn.{letter}_proj.{kind}"]
        theirs = tensors[f"blk.1.attn_{letter}.{kind}"]
        for head in range(0, len(ours), 16):
            assert np.array_equal(theirs[head : head + 16 : 2], ours[head : head + 8])
            assert np.array_equal(theirs[head + 1 : head + 16 : 2], ours[head + 8 : head + 16])


def test_a_gguf_tells_the_shape_of_the_model(gpt2: Path, llama: Path, tmp_path: Path) -> None:
    export_model(llama, tmp_path / "llama", "gguf")
    told = in_gguf(tmp_path / "llama" / "model.gguf")[0]
    wanted = {
        "general.name": "project-git-model", "general.file_type": 7,
        "llama.block_count": 2, "llama.context_length": 128, "llama.embedding_length": 64,
        "llama.feed_forward_length": 96, "llama.attention.head_count": 4, "llama.attention.head_count_kv": 2,
        "llama.rope.dimension_count": 16, "llama.rope.freq_base": 50_000.0, "llama.vocab_size": 259,
    }  # fmt: skip
    assert {name: told[name] for name in wanted} == wanted
    export_model(gpt2, tmp_path / "gpt2", "gguf", "f16")
    told = in_gguf(tmp_path / "gpt2" / "model.gguf")[0]
    assert (told["gpt2.context_length"], told["gpt2.feed_forward_length"], told["general.file_type"]) == (64, 512, 1)


def test_a_gguf_holds_the_tokenizer(worded: Path, tmp_path: Path) -> None:
    export_model(worded, tmp_path / "out", "gguf")
    told = in_gguf(tmp_path / "out" / "model.gguf")[0]
    ours = json.loads((worded / "tokenizer.json").read_text("utf-8"))
    tokens, kinds = told["tokenizer.ggml.tokens"], told["tokenizer.ggml.token_type"]
    assert len(tokens) == len(kinds) == json.loads((worded / "config.json").read_text())["vocab_size"]
    assert all(tokens[number] == token for token, number in ours["model"]["vocab"].items())
    assert [tuple(merge.split(" ")) for merge in told["tokenizer.ggml.merges"]] == [
        tuple(merge) for merge in ours["model"]["merges"]
    ]
    for added in ours["added_tokens"]:
        assert tokens[added["id"]] == added["content"]
        assert kinds[added["id"]] == (3 if added["special"] else 4)
    end = told["tokenizer.ggml.eos_token_id"]
    assert (tokens[end], kinds[end], told["tokenizer.ggml.add_bos_token"]) == ("<|endoftext|>", 3, False)
    gpt2 = told["general.architecture"] == "gpt2"
    assert told["tokenizer.ggml.pre"] == ("gpt-2" if gpt2 else "smollm")
    assert kinds.count(4) == (len(MARKERS) if gpt2 else 0)


def test_ollama_is_told_to_pass_the_prompt_as_it_is(gpt2: Path, tmp_path: Path) -> None:
    export_model(gpt2, tmp_path / "out", "gguf")
    lines = (tmp_path / "out" / "Modelfile").read_text().splitlines()
    assert lines[:3] == ["FROM ./model.gguf", 'TEMPLATE """{{ .Prompt }}"""', 'PARAMETER stop "<|endoftext|>"']
    assert "PARAMETER num_ctx 64" in lines
    assert "PARAMETER temperature 0.7" in lines


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"model_type": "opt", "architectures": ["OPTForCausalLM"]}, "opt is none we can write"),
        ({"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}}, "rope_type default.*linear"),
        ({"hidden_act": "gelu"}, "hidden_act silu, and this one has gelu"),
    ],
)
def test_what_llama_cpp_would_run_wrongly_is_refused(
    llama: Path, tmp_path: Path, changes: dict[str, Any], problem: str
) -> None:
    copy = shutil.copytree(llama, tmp_path / "model")
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | changes))
    with pytest.raises(ModelError, match=problem) as caught:
        export_model(copy, tmp_path / "out", "gguf")
    assert "safetensors" in caught.value.hint
    assert not (tmp_path / "out").exists()
    assert export_model(copy, tmp_path / "out", "safetensors").format == "safetensors"


@pytest.mark.parametrize(
    "before", [None, {"type": "Whitespace"}, {"type": "ByteLevel", "add_prefix_space": True, "use_regex": True}]
)
def test_a_tokenizer_that_splits_in_another_way_is_refused(gpt2: Path, tmp_path: Path, before: object) -> None:
    copy = shutil.copytree(gpt2, tmp_path / "model")
    told = json.loads((copy / "tokenizer.json").read_text("utf-8"))
    (copy / "tokenizer.json").write_text(json.dumps(told | {"pre_tokenizer": before}), "utf-8")
    with pytest.raises(ModelError, match="no name we know"):
        export_model(copy, tmp_path / "out", "gguf")


def test_a_torn_model_is_refused_and_leaves_nothing(gpt2: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(gpt2, tmp_path / "model")
    with (copy / "model.safetensors").open("r+b") as file:
        file.truncate(1_000_000)
    with pytest.raises(ModelError, match="torn"):
        export_model(copy, tmp_path / "out", "gguf")
    (copy / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="no weights"):
        export_model(copy, tmp_path / "out", "gguf")
    (copy / "tokenizer.json").unlink()
    shutil.copy(gpt2 / "model.safetensors", copy)
    with pytest.raises(DataError, match=r"tokenizer\.json"):
        export_model(copy, tmp_path / "out", "gguf")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


# the weights and the adapter -------------------------------------------------------------------------------------


def test_an_export_as_safetensors_is_what_the_seed_loads(gpt2: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    export_model(gpt2, tmp_path / "the-block-git-model-final", "safetensors")
    model_path = str(tmp_path / "the-block-git-model-final")
    tokenizer: Any = AutoTokenizer.from_pretrained(model_path)
    model: Any = AutoModelForCausalLM.from_pretrained(model_path)
    inputs = tokenizer("<COMMIT> a1b2c3d <FILE_MOD>", return_tensors="pt")
    outputs = model.generate(**inputs, max_length=40)
    assert tokenizer.decode(outputs[0]).startswith("<COMMIT> a1b2c3d <FILE_MOD>")
    assert len(outputs[0]) > len(inputs["input_ids"][0])
    weights = weights_of(gpt2)
    assert all(torch.equal(model.state_dict()[name], torch.from_numpy(value)) for name, value in weights.items())
    assert json.loads((tmp_path / "the-block-git-model-final" / "training_report.json").read_text()) == REPORT


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*")  # which peft asks transformers for
def test_an_adapter_is_exported_where_there_is_one(gpt2: Path, tmp_path: Path) -> None:
    import torch
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import AutoModelForCausalLM

    with pytest.raises(ModelError, match="has no adapter") as caught:
        export_model(gpt2, tmp_path / "out", "adapter")
    assert "--method lora" in caught.value.hint
    copy = shutil.copytree(gpt2, tmp_path / "model")
    base: Any = AutoModelForCausalLM.from_pretrained(str(copy))
    config = LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True, init_lora_weights=False)
    adapted = get_peft_model(base, config)
    ids = torch.arange(5)[None]
    wanted = adapted(input_ids=ids).logits
    adapted.save_pretrained(copy / "adapter")
    exported = export_model(copy, tmp_path / "out", "adapter")
    assert set(exported.files) == {"adapter_config.json", "adapter_model.safetensors"}
    again: Any = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(str(copy)), str(tmp_path / "out"))
    assert torch.allclose(again(input_ids=ids).logits, wanted)
    assert "adapter_config.json" not in export_model(copy, tmp_path / "whole", "safetensors").files


# where it goes ---------------------------------------------------------------------------------------------------


def test_an_export_takes_the_place_of_an_earlier_one_and_of_nothing_else(gpt2: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    output.mkdir()
    first = export_model(gpt2, output, "safetensors")
    assert {path.name: path.stat().st_size for path in output.iterdir() if path.name != EXPORT} == first.files
    export_model(gpt2, output, "gguf")
    assert sorted(path.name for path in output.iterdir()) == ["Modelfile", "model.gguf", EXPORT]

    (output / "notes.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "model.gguf").write_text("mine")
    for place, problem in (
        (output, "holds notes.txt"),
        (tmp_path / "file", "is a file"),
        (tmp_path / "mine", "holds model.gguf"),
    ):
        with pytest.raises(StoreError, match=problem):
            export_model(gpt2, place, "gguf")
    with pytest.raises(StoreError, match="holds"):
        export_model(gpt2, gpt2, "safetensors")
    assert (output / "notes.txt").read_text() == (tmp_path / "mine" / "model.gguf").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "mine", "out"]


@pytest.mark.parametrize(("as_format", "quantize"), [("gguf", "q4_k"), ("safetensors", "f16")])
def test_a_quantization_that_cannot_be_is_refused(gpt2: Path, tmp_path: Path, as_format: str, quantize: str) -> None:
    with pytest.raises(UsageError, match="quantiz"):
        export_model(gpt2, tmp_path / "out", as_format, quantize)


def test_the_current_model_of_a_repository_is_exported(repo: Repo, gpt2: Path, tmp_path: Path) -> None:
    repo.commit("one")
    where = opening.place(repo.path)
    operations.scrape(where, Reporter())
    with pytest.raises(ModelError, match="no trained model yet"):
        learning.export_model(where, tmp_path / "out", Reporter(), as_format="gguf")
    kept = repo.path / ".treering" / "models"
    shutil.copytree(gpt2, kept / "project-git-model" / "ab12")
    (kept / "current").write_text("project-git-model/ab12\n")

    def command(*arguments: str, code: int = 0) -> str:
        done = CliRunner().invoke(main, ["export", str(tmp_path / "out"), "--repo", str(repo.path), *arguments])
        assert done.exit_code == code, done.output
        return done.stdout or done.stderr

    told = json.loads(command("--format", "gguf", "--quantize", "f16", "--json"))
    assert told["export"]["model"] == "ab12"
    assert told["export"]["files"].keys() == {"Modelfile", "model.gguf"}
    assert "model.safetensors (" in command("--format", "safetensors")
    for of_history in (("--table", "changes"), ("--no-merges",), ("--path", "src"), ("--patches",)):
        assert "are of the history" in command("--format", "gguf", *of_history, code=2)
    assert "of a model's export" in command("--format", "jsonl", "--quantize", "f16", code=2)
    assert "gguf, safetensors, adapter" in command("--format", "onnx", code=2)


# a real llama.cpp ------------------------------------------------------------------------------------------------


def in_llama_cpp(gguf: Path, asked: dict[str, Any]) -> dict[str, Any]:
    node = os.environ["NODE_LLAMA"]
    done = subprocess.run(
        ["node", str(ROOT / "benchmarks" / "llama_cpp.mjs"), node, str(gguf)],
        input=json.dumps(asked), capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


@pytest.mark.llama
@pytest.mark.skipif("NODE_LLAMA" not in os.environ, reason="NODE_LLAMA is not set: not run in a real llama.cpp")
@pytest.mark.parametrize(("quantize", "tolerance"), [("f32", 0.01), ("f16", 0.01), ("q8_0", 0.1)])
def test_llama_cpp_reads_the_same_tokens_and_expects_the_same(
    worded: Path, tmp_path: Path, quantize: str, tolerance: float
) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    export_model(worded, tmp_path / "out", "gguf", quantize)
    tokenizer = load_tokenizer(str(worded))
    ids = tokenizer.encode(TEXTS)
    documents = [[tokenizer.eos_id, *some][:60] for some in ids]
    told = in_llama_cpp(tmp_path / "out" / "model.gguf", {"texts": TEXTS, "documents": documents})
    assert told["tokens"] == ids
    loaded: Any = AutoModelForCausalLM.from_pretrained(str(worded))
    for document, nats in zip(documents, told["nats"], strict=True):
        with torch.inference_mode():
            chances = loaded(input_ids=torch.tensor([document])).logits[0, :-1].log_softmax(-1)
        wanted = -chances.gather(1, torch.tensor(document[1:])[:, None])[:, 0].numpy()
        assert np.abs(np.array(nats) - wanted).max() < tolerance


# a folder takes the place of another ---------------------------------------------------------------------------------

KILLED = """
import os, sys
from pathlib import Path
from treering.lm.export import replacing_folder

left, rename = int(sys.argv[2]), Path.rename

def dying(path, to):
    global left
    if not left:
        os.kill(os.getpid(), 9)
    left -= 1
    return rename(path, to)

Path.rename = dying
with replacing_folder(Path(sys.argv[1])) as new:
    (new / "weights").write_text("new")
"""


def test_a_replacement_that_is_killed_again_and_again_leaves_the_old_or_the_new(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "weights").write_text("old")
    for renames in (1, 2, 0, 1):
        done = subprocess.run([sys.executable, "-c", KILLED, str(folder), str(renames)], check=False)
        assert done.returncode == -9
        there = [path for path in (folder, tmp_path / ".model.old") if path.exists()]
        assert [(path / "weights").read_text() for path in there] == ["old"]
    with replacing_folder(folder) as new:
        (new / "weights").write_text("new")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert (folder / "weights").read_text() == "new"


def test_a_folder_that_cannot_be_put_in_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, rename = tmp_path / "model", Path.rename
    folder.mkdir()

    def failing(path: Path, to: Path) -> Path:
        if path.name == ".model.new":
            raise OSError(5, "Input/output error")
        return rename(path, to)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(StoreError), replacing_folder(folder):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
