"""Trainings, texts and figures on a GPU of NVIDIA: `make gpu-test`, on a machine that has one."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import training
from computers import CONFIGS
from tiny import tiny_base
from training import PLAN, RECIPE, finely_tuned, model, tuned
from treering.lm.evaluate import document_losses
from treering.lm.generate import Writer
from treering.lm.hardware import machine
from treering.lm.plan import plan
from treering.lm.shape import shape_of
from treering.types import Sampling

pytestmark = pytest.mark.gpu
ON_GPU = replace(PLAN, device="cuda", preset="cuda-8gb")
RECIPE_ON_GPU = replace(RECIPE, gpu=True, epochs=12)
HALVES = {"bf16-mixed": "bfloat16", "16-mixed": "float16", "32-true": "float32"}


@pytest.fixture(autouse=True)
def _a_gpu() -> None:
    import torch

    if not torch.cuda.is_available():
        pytest.skip(f"torch {torch.__version__} sees no GPU of NVIDIA here: `make gpu-test` wants one")


@pytest.mark.parametrize("precision", HALVES)
@pytest.mark.parametrize("method", ["full", "lora", "qlora"])
def test_a_training_learns_in_each_precision(tmp_path: Path, method: str, precision: str) -> None:
    dtype = "float32" if method == "full" else HALVES[precision]
    recipe = replace(RECIPE_ON_GPU, method=method, learning_rate=1e-2 if method == "full" else 3e-2)
    planned = replace(ON_GPU, precision=precision, base_dtype=dtype, chunked_loss=True)
    made, told = finely_tuned(tmp_path, recipe, planned, load=partial(model, width=64))
    assert told.device.startswith("cuda")
    assert told.peak_memory > 0
    assert sum(told.losses[-8:]) < sum(told.losses[:8]) - 0.1
    assert all(parameter.device.type == "cpu" for parameter in made.parameters())


def test_the_losses_are_those_of_a_cpu(tmp_path: Path) -> None:
    on_cpu = tuned(tmp_path / "cpu")
    whole = tuned(tmp_path / "gpu", replace(RECIPE, gpu=True), ON_GPU)
    parted = tuned(
        tmp_path / "parted",
        replace(RECIPE, gpu=True),
        replace(ON_GPU, batch_size=1, accumulate=4, chunked_loss=True, gradient_checkpointing=True),
    )
    assert whole.losses == pytest.approx(on_cpu.losses, rel=1e-3)
    assert parted.losses == pytest.approx(on_cpu.losses, rel=1e-3)


@pytest.mark.filterwarnings("ignore:.*script_method.*:DeprecationWarning")  # torch's own, while it loads its compiler
def test_a_compiled_training_has_the_same_losses(tmp_path: Path) -> None:
    plain, compiled = (
        tuned(
            tmp_path / str(wanted), replace(RECIPE, gpu=True), replace(ON_GPU, precision="bf16-mixed", compile=wanted)
        )
        for wanted in (False, True)
    )
    assert compiled.losses == pytest.approx(plain.losses, rel=1e-2)


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_a_training_that_is_killed_goes_on_with_the_same_losses(tmp_path: Path, precision: str) -> None:
    planned = replace(ON_GPU, precision=precision)
    whole = tuned(tmp_path / "whole", replace(RECIPE, gpu=True), planned, load=partial(model, 0.1))
    folder = tmp_path / "killed"
    folder.mkdir()
    chosen = {"recipe": {"gpu": True}, "plan": {"device": "cuda", "precision": precision}, "dropout": 0.1}
    command = [sys.executable, "-W", "ignore", training.__file__, str(folder), json.dumps(chosen)]
    with subprocess.Popen(command) as running:
        while running.poll() is None and not list((folder / "checkpoints").glob("step-*")):
            time.sleep(0.005)
        running.send_signal(signal.SIGKILL)
    subprocess.run(command, check=True)
    told: dict[str, Any] = json.loads((folder / "told.json").read_text())
    assert told["resumed_at"] > 0
    assert told["losses"] == pytest.approx(whole.losses, rel=2e-3)


def test_a_training_takes_no_more_memory_than_was_told_beforehand(tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    small = CONFIGS["SmolLM2-135M"] | {"num_hidden_layers": 6}
    (tmp_path / "config.json").write_text(json.dumps(small))
    recipe = replace(RECIPE, gpu=True, max_steps=3, batch_size=8)
    planned = plan(machine(gpu=True), shape_of(str(tmp_path)), method="full", sequences=8, sequence_length=16)
    config = AutoConfig.from_pretrained(tmp_path)
    told = tuned(tmp_path / "made", recipe, planned, load=lambda: AutoModelForCausalLM.from_config(config))
    assert 0.5 * planned.total < told.peak_memory <= planned.total


def test_a_model_writes_and_is_judged_as_on_a_cpu(tmp_path: Path) -> None:
    folder = tiny_base(tmp_path / "tiny")
    greedy = Sampling(max_tokens=12, temperature=0.0)
    texts = [Writer(folder, gpu=wanted).write("Fix the", greedy).text for wanted in (False, True)]
    assert texts[0] == texts[1]
    documents = [np.arange(40, dtype=np.int64), np.arange(90, 120, dtype=np.int64)]
    writer = Writer(folder)
    on_cpu, on_gpu = (document_losses(writer.model, documents, 256, 32, gpu=wanted) for wanted in (False, True))
    for one, other in zip(on_cpu, on_gpu, strict=True):
        assert other == pytest.approx(one, rel=1e-3)
