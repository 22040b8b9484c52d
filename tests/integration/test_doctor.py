"""What the machine can train, asked of this machine: real probes, real configs, the real command."""

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from computers import BASES, CONFIGS
from repositories import Repo
from treering.cli.main import main
from treering.errors import ModelError
from treering.lm.base import load_base
from treering.lm.hardware import machine
from treering.lm.shape import Shape, shape_of


def doctor(repo: Repo, *options: str) -> Result:
    return CliRunner().invoke(main, ["doctor", "--repo", str(repo.path), "--no-gpu", *options])


def told(repo: Repo, *options: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(doctor(repo, "--train", "--json", *options).stdout)
    return found


def config(folder: Path, **changes: object) -> Path:
    """A folder with the config of a tiny GPT-2, and no weights."""
    folder.mkdir()
    made = {"model_type": "gpt2", "n_embd": 64, "n_layer": 2, "n_head": 2, "n_positions": 128, "vocab_size": 300}
    (folder / "config.json").write_text(json.dumps(made | changes))
    return folder


def test_the_machine_is_told_without_a_plan(story: Repo) -> None:
    done = doctor(story)
    assert done.exit_code == 0
    told = r"machine  \d+ cores \(\d+ threads\), [\d.]+ GB of memory free; no GPU in use: .+\nfine +python "
    assert re.match(told, done.stdout)
    found = json.loads(doctor(story, "--json").stdout)
    assert found["cores"] > 0
    assert {"name", "found", "severity", "way_out"} == set(found["checks"][0])


def test_the_plan_adds_up_and_says_how_to_run_it(story: Repo) -> None:
    done = doctor(story, "--train", "--model", "scratch", "--method", "full", "--batch-size", "2")
    assert done.exit_code == 0, done.stderr
    parts = dict(re.findall(r"^  (\w[\w ]*?) +([\d,]+) MB", done.stdout, re.MULTILINE))
    sizes = {name: int(size.replace(",", "")) for name, size in parts.items()}
    assert sizes.pop("in all") == pytest.approx(sum(sizes.values()), abs=len(sizes))
    command = f"treering train --repo {story.path} --no-gpu --model scratch --method full --batch-size 2"
    assert done.stdout.endswith(f"\nRun: {command}\n")
    assert not (story.path / ".treering").exists()


def test_the_settings_of_the_repository_are_planned(story: Repo) -> None:
    story.write("treering.toml", "[train]\nmodel = 'scratch'\nbatch_size = 6\n[tokens]\nsequence_length = 64\n")
    found = told(story)
    assert (found["base"], found["sequence_length"]) == ("scratch", 64)
    assert found["plan"]["batch_size"] * found["plan"]["accumulate"] == 6
    assert found["plan"]["total"] == sum(found["plan"]["memory"].values())


def test_a_training_that_does_not_fit_ends_with_its_code_after_the_plan(story: Repo, tmp_path: Path) -> None:
    giant = config(tmp_path / "giant", n_embd=16384, n_layer=128, n_head=64, vocab_size=50257)
    done = doctor(story, "--train", "--model", str(giant), "--sequence-length", "128")
    assert done.exit_code == 6
    assert "in all" in done.stdout
    assert "Run:" not in done.stdout
    assert "does not fit the machine: no method fits" in done.stderr


def test_a_sequence_longer_than_the_base_reads_is_told(story: Repo, tmp_path: Path) -> None:
    done = doctor(story, "--train", "--model", str(config(tmp_path / "small")), "--sequence-length", "129")
    assert done.exit_code == 5
    assert "at most 128" in done.stderr


def test_a_shape_read_from_the_config_is_the_model_that_is_made() -> None:
    shape = shape_of("scratch")
    model = load_base("scratch", shape.vocab, {}, positions=1024, seed=7)
    assert shape.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert shape.layers == model.config.num_hidden_layers
    assert shape.vocab == model.get_input_embeddings().weight.shape[0]


def test_the_packed_model_has_the_shape_that_its_file_tells() -> None:
    assert shape_of("smollm2-135m") == Shape(
        134515008, 30, 576, 9, 49152, 8192, 106168320, 305280, 11136, 5760, dropout=False
    )


@pytest.mark.parametrize("base", BASES)
def test_the_shapes_of_the_docs_table_are_those_of_their_configs(tmp_path: Path, base: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIGS[base]))
    assert shape_of(str(tmp_path)) == BASES[base]


def test_adapters_have_as_many_parameters_as_the_shape_says(tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    from treering.lm.plan import LORA_RANK
    from treering.lm.train import _with_adapters

    folder = config(tmp_path / "small")
    adapted = _with_adapters(AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder)), ())
    trained = sum(parameter.numel() for parameter in adapted.parameters() if parameter.requires_grad)
    assert trained == LORA_RANK * shape_of(str(folder)).sides


def test_what_a_layer_keeps_is_what_torch_saves_for_it(tmp_path: Path) -> None:
    """Of a gated model, where nothing but the layers' own activations is of the size of tokens x width."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    llama = {
        "model_type": "llama", "hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4, "vocab_size": 32,
        "num_key_value_heads": 2, "intermediate_size": 160, "max_position_embeddings": 128,
    }  # fmt: skip
    folder = tmp_path / "llama"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(llama))
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder)).train()
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    saved: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    tokens = 128
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        logits = model(input_ids=torch.zeros(1, tokens, dtype=torch.long), use_cache=False).logits
    assert logits.shape == (1, tokens, 32)
    assert sum(saved.values()) == pytest.approx(4 * tokens * 4 * shape_of(str(folder)).kept, rel=0.15)


def test_a_config_of_no_language_model_is_told(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="describes no language model"):
        shape_of(str(config(tmp_path / "odd", model_type="no-such-kind")))


def test_this_machine_has_what_it_says() -> None:
    found = machine(gpu=False)
    assert found.device == "cpu"
    assert found.device_memory == found.memory > 10**8
    assert found.devices >= 1
    assert found.cores >= 1
    assert found.capability is None


def test_processes_of_torchrun_share_the_memory_and_count_as_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    found = machine(gpu=False)
    assert found.devices == 4
    assert found.device_memory == found.memory // 2


def test_a_shape_is_plain_numbers(tmp_path: Path) -> None:
    shape = shape_of(str(config(tmp_path / "small")))
    assert isinstance(shape, Shape)
    assert all(value is None or isinstance(value, int) for value in asdict(shape).values())
    assert shape.positions == 128
