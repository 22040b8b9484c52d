"""Trainings that are killed, that lack memory, that are cut into micro-batches, devices and shards: the same losses."""

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import training
from training import PLAN, RECIPE, finely_tuned, model, tuned
from treering.errors import DiskFull, ModelError, UsageError
from treering.lm import checkpoint
from treering.lm.recipe import Training
from treering.report import Reporter
from warm import Warm

LOSSES = pytest.approx


def program(folder: Path, **chosen: Any) -> list[str]:
    folder.mkdir(exist_ok=True)
    return [training.__file__, str(folder), json.dumps(chosen)]


def told(folder: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((folder / "told.json").read_text())
    return read


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Training:
    return tuned(tmp_path_factory.mktemp("undisturbed"))


# killed ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("plan", [{}, {"batch_size": 1, "accumulate": 4}], ids=["whole", "accumulated"])
def test_a_training_that_is_killed_goes_on_with_the_same_losses(
    tmp_path: Path, warm: Warm, plan: dict[str, int]
) -> None:
    whole = tuned(tmp_path / "whole", plan=replace(PLAN, **plan), load=partial(model, 0.1))  # type: ignore[arg-type]  # its integers
    folder = tmp_path / "killed"
    command = program(folder, plan=plan, dropout=0.1)
    kills = 0
    while not (folder / "told.json").exists():
        before = len(list((folder / "checkpoints").glob("step-*")))
        with warm.started(command) as running:
            steps = set((folder / "checkpoints").glob("step-*"))
            while running.poll() is None and kills < 2:
                if set((folder / "checkpoints").glob("step-*")) - steps:
                    running.send_signal(signal.SIGKILL)
                    kills += 1
                    break
                time.sleep(0.005)
            running.wait()
        assert before <= checkpoint.KEPT
    assert kills == 2
    assert told(folder)["losses"] == list(whole.losses)
    assert told(folder)["validation"] == [list(one) for one in whole.validation]
    assert told(folder)["resumed_at"] > 0


def test_an_interrupt_ends_a_training_after_its_step_with_a_checkpoint(
    tmp_path: Path, undisturbed: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    from treering.lm.session import Session

    real = Session.stepped

    def interrupted(self: Session, *told: Any) -> None:
        if self.progress.step == 2:
            signal.raise_signal(signal.SIGINT)
        real(self, *told)

    monkeypatch.setattr(Session, "stepped", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tuned(tmp_path)
    monkeypatch.undo()
    made = tuned(tmp_path)
    assert made.resumed_at == 3
    assert made.losses == undisturbed.losses
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_last_two_checkpoints_are_kept_and_a_torn_one_is_passed_over(tmp_path: Path) -> None:
    whole = tuned(tmp_path, save_seconds=0.0)
    folder = tmp_path / "checkpoints"
    kept = sorted(path.name for path in folder.glob("step-*"))
    assert kept == [f"step-{step:09d}" for step in (whole.steps - 2, whole.steps - 1)]
    (folder / kept[1] / "weights.safetensors").write_bytes(b"torn")
    report = Reporter()
    again = tuned(tmp_path, report=report, save_seconds=1e9)
    assert again.losses == whole.losses
    assert again.resumed_at == whole.steps - 2
    assert "torn" in report.warnings[0]


def test_a_checkpoint_of_another_training_is_not_gone_on_from(tmp_path: Path) -> None:
    tuned(tmp_path, save_seconds=0.0)
    found = checkpoint.newest(tmp_path / "checkpoints", "another", Reporter())
    assert found is None


def test_a_training_goes_on_with_other_micro_batches(tmp_path: Path, undisturbed: Training) -> None:
    tuned(tmp_path, replace(RECIPE, max_steps=3), replace(PLAN, batch_size=1, accumulate=4), save_seconds=0.0)
    made = tuned(tmp_path)
    assert made.resumed_at == 2
    assert made.losses == LOSSES(undisturbed.losses, abs=2e-3)


def test_without_resume_a_training_begins_anew(tmp_path: Path) -> None:
    tuned(tmp_path, save_seconds=0.0)
    assert tuned(tmp_path, resume=False).resumed_at == 0


def test_a_disk_that_is_full_leaves_the_checkpoints_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.fsync

    def full(handle: int) -> None:
        if len(list((tmp_path / "checkpoints").glob("step-*"))) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskFull):
        tuned(tmp_path, save_seconds=0.0)
    monkeypatch.undo()
    assert not list((tmp_path / "checkpoints").glob(".*"))
    assert tuned(tmp_path).resumed_at == 2


def test_what_scales_the_gradients_of_float16_comes_back_as_it_was(tmp_path: Path) -> None:
    import torch

    weight = torch.ones(3, requires_grad=True)
    optimizer = torch.optim.SGD([weight], lr=0.1)

    def step(scaler: Any) -> dict[str, Any]:
        scaler.scale(weight.sum()).backward()
        scaler.step(optimizer)
        scaler.update()
        state: dict[str, Any] = scaler.state_dict()
        return state

    whole, again = torch.amp.GradScaler("cpu"), torch.amp.GradScaler("cpu")
    kept = step(whole)
    checkpoint.save(tmp_path, checkpoint.Progress("n", scaler=kept), {"w": weight.detach()}, {})
    found = checkpoint.newest(tmp_path, "n", Reporter())
    assert found
    assert found[0].scaler
    again.load_state_dict(found[0].scaler)
    assert again.state_dict() == kept
    assert step(again) == step(whole)


# cut -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "plan",
    [
        {"batch_size": 2, "accumulate": 2},
        {"batch_size": 1, "accumulate": 4},
        {"chunked_loss": True},
        {"gradient_checkpointing": True},
    ],
    ids=["halves", "single", "chunked", "recomputed"],
)
def test_however_a_step_is_computed_its_loss_is_the_same(
    tmp_path: Path, undisturbed: Training, plan: dict[str, Any]
) -> None:
    assert tuned(tmp_path, plan=replace(PLAN, **plan)).losses == LOSSES(undisturbed.losses, abs=2e-3)


def test_a_fused_optimizer_gets_through_mixed_precision_with_the_same_losses(
    tmp_path: Path, undisturbed: Training
) -> None:
    """What a GPU computes with, on a CPU: Lightning refuses to clip the gradients of a fused one."""
    fused = tuned(tmp_path, plan=replace(PLAN, device="cuda", precision="bf16-mixed"))
    assert fused.losses == LOSSES(undisturbed.losses, abs=2e-2)


@pytest.mark.parametrize("plan", [{}, {"device": "cuda", "precision": "bf16-mixed"}], ids=["plain", "fused"])
def test_gradients_are_clipped(tmp_path: Path, plan: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    norms, real = list[float](), torch.optim.AdamW.step

    def step(self: torch.optim.AdamW, *given: Any, **named: Any) -> Any:
        done = real(self, *given, **named)
        kept = [one.grad.norm() for group in self.param_groups for one in group["params"] if one.grad is not None]
        norms.append(float(torch.stack(kept).norm()))
        return done

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    tuned(tmp_path, plan=replace(PLAN, **plan))  # type: ignore[arg-type]  # its strings
    assert len(norms) > 5
    assert max(norms) == pytest.approx(1.0, abs=1e-3)


def test_what_was_compiled_is_given_back_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from treering.lm.base import layers_of

    monkeypatch.setattr("treering.lm.session.compiles", lambda: True)
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: setattr(self, "_compiled_call_impl", self._call_impl))
    made, _ = finely_tuned(tmp_path, replace(RECIPE, minutes=60.0), replace(PLAN, compile=True))
    assert {layer._compiled_call_impl for layer in layers_of(made)} == {None}


def test_where_nothing_can_be_compiled_that_is_said_and_the_training_goes_on(
    tmp_path: Path, undisturbed: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    report = Reporter()
    assert tuned(tmp_path, plan=replace(PLAN, compile=True), report=report).losses == undisturbed.losses
    assert "torch.compile lacks Triton, a C compiler" in report.warnings[0]


def test_where_memory_runs_out_less_is_computed_at_once_and_that_is_said(
    tmp_path: Path, undisturbed: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import GPT2LMHeadModel

    real = GPT2LMHeadModel.forward

    def greedy(self: Any, input_ids: Any, **rest: Any) -> Any:
        if len(input_ids) > 2:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes")
        return real(self, input_ids=input_ids, **rest)

    monkeypatch.setattr(GPT2LMHeadModel, "forward", greedy)
    report = Reporter()
    made = tuned(tmp_path, report=report)
    assert (made.batch_size, made.accumulate) == (2, 2)
    assert made.losses == LOSSES(undisturbed.losses, abs=2e-3)
    assert "out of memory: going on with 2 sequence(s) at once" in report.warnings[0]


def test_where_one_sequence_is_too_much_a_lighter_way_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import GPT2LMHeadModel

    def greedy(*_: Any, **__: Any) -> Any:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes")

    monkeypatch.setattr(GPT2LMHeadModel, "forward", greedy)
    with pytest.raises(ModelError, match="not enough memory to train on 1 sequence") as caught:
        tuned(tmp_path, plan=replace(PLAN, batch_size=1, accumulate=4))
    assert "doctor --train" in caught.value.hint


def by_torchrun(warm: Warm, command: list[str]) -> None:
    launcher = (sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    subprocess.run([*launcher, *command], check=True, env=os.environ | {"PYTHONPATH": "src"}, capture_output=True)


def as_torchrun(warm: Warm, command: list[str]) -> None:
    """Two processes that are told what torchrun tells its own."""
    with socket.create_server(("127.0.0.1", 0)) as door:
        port = str(door.getsockname()[1])
    told: dict[str, Any] = {
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2",
        "TORCHELASTIC_RUN_ID": "a test",
    }  # fmt: skip
    with ExitStack() as stack:
        both = [
            stack.enter_context(warm.started(command, Path.cwd(), **told, RANK=rank, LOCAL_RANK=rank))
            for rank in ("0", "1")
        ]
        for one in both:
            assert one.wait() == 0, one.stderr


@pytest.mark.parametrize(
    ("launched", "sharded", "plan"),
    [
        (by_torchrun, False, {"batch_size": 2}),
        (as_torchrun, True, {"batch_size": 2}),
        (as_torchrun, False, {"batch_size": 1, "accumulate": 2}),
    ],
    ids=["ddp", "fsdp", "ddp accumulated"],
)
def test_two_processes_train_as_one_does_and_go_on_as_one_does(
    tmp_path: Path,
    undisturbed: Training,
    warm: Warm,
    launched: Callable[[Warm, list[str]], None],
    sharded: bool,
    plan: dict[str, int],
) -> None:
    recipe = {"sharded": sharded}
    launched(warm, program(tmp_path, recipe=recipe | {"max_steps": 3}, plan=plan))
    assert told(tmp_path)["losses"] == LOSSES(undisturbed.losses[:3], abs=2e-3)
    assert told(tmp_path)["processes"] == 2
    # The last checkpoint is of the second step: a longer budget goes on from it.
    as_torchrun(warm, program(tmp_path, recipe=recipe, plan=plan))
    assert told(tmp_path)["resumed_at"] == 2
    assert told(tmp_path)["losses"][3:] == LOSSES(undisturbed.losses[3:], abs=2e-3)


# lighter ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "dtype"), [("lora", "float32"), ("lora", "bfloat16"), ("qlora", "float32")])
def test_adapters_over_a_lighter_base_are_merged_into_the_base_as_it_was(
    tmp_path: Path, method: str, dtype: str
) -> None:
    import torch
    from peft import PeftModel

    recipe = replace(RECIPE, method=method, learning_rate=3e-2, epochs=12)
    base = partial(model, width=64)
    merged, made = finely_tuned(tmp_path, recipe, replace(PLAN, base_dtype=dtype), load=base)
    assert sum(made.losses[-8:]) < sum(made.losses[:8]) - 0.1
    assert 0 < made.trained_parameters < sum(parameter.numel() for parameter in merged.parameters())
    assert {parameter.dtype for parameter in merged.parameters()} == {torch.float32}
    assert set(merged.state_dict()) == set(base().state_dict())
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*")  # peft asks by an old name
        alone: Any = PeftModel.from_pretrained(base(), str(tmp_path / "adapter")).merge_and_unload()
    ids = torch.arange(16)[None]
    assert torch.allclose(alone(ids).logits, merged(ids).logits, atol=1e-5)


def test_in_mixed_precision_what_an_adapter_reads_is_kept_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, where the layers are what they are: what attention gave, of two layers, in half precision."""
    import torch

    from treering.lm import lean
    from treering.lm.module import LanguageModule

    real = LanguageModule.training_step
    kept: dict[int, Any] = {}

    def watched(self: Any, *batch: Any) -> Any:
        kept.clear()
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            return real(self, *batch)

    def note(tensor: Any) -> Any:
        kept[tensor.untyped_storage().data_ptr()] = tensor.detach()
        return tensor

    def trained(name: str) -> tuple[int, Training]:
        on_gpu = replace(PLAN, device="cuda", precision="bf16-mixed", base_dtype="bfloat16")
        recipe = replace(RECIPE, method="lora", max_steps=2)
        made = tuned(tmp_path / name, recipe, on_gpu, load=partial(model, width=64))
        return sum(one.untyped_storage().nbytes() for one in kept.values()), made

    monkeypatch.setattr(LanguageModule, "training_step", watched)
    once, ours = trained("ours")
    monkeypatch.setattr(lean, "uncast", lambda *_, **__: nullcontext())
    twice, other = trained("peft")
    assert twice - once >= 2 * 2 * 64 * RECIPE.batch_size * RECIPE.sequence_length
    assert ours.losses == other.losses


# the end ---------------------------------------------------------------------------------------------------------


def test_a_training_ends_with_its_steps_or_its_tokens(tmp_path: Path) -> None:
    by_steps = tuned(tmp_path / "steps", replace(RECIPE, max_steps=3))
    by_tokens = tuned(tmp_path / "tokens", replace(RECIPE, max_tokens=150))
    assert (by_steps.steps, by_steps.stopped_by) == (3, "steps")
    assert (by_tokens.steps, by_tokens.stopped_by) == (2, "tokens")
    assert by_tokens.tokens <= 150


def test_a_training_that_makes_validation_worse_stops_and_gives_its_best(tmp_path: Path) -> None:
    import torch

    given, made = finely_tuned(tmp_path, replace(RECIPE, learning_rate=0.3, epochs=8))
    losses = [loss for _, loss in made.validation]
    assert made.stopped_by == "validation"
    assert made.steps < 8 * 13 / 4
    assert min(losses) not in losses[-3:]
    best = checkpoint.best(tmp_path / "checkpoints") or dict(model().named_parameters())
    assert all(torch.equal(parameter, best[name]) for name, parameter in given.named_parameters())


def test_what_was_done_is_told_as_a_curve(undisturbed: Training) -> None:
    assert undisturbed.steps == len(undisturbed.losses) == len(undisturbed.curve)
    assert [point[0] for point in undisturbed.curve] == list(range(1, undisturbed.steps + 1))
    assert undisturbed.curve[-1][2] == undisturbed.tokens
    assert undisturbed.validation[0][0] == 0
    assert undisturbed.trained_parameters > 0


def test_sequences_that_processes_cannot_share_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(UsageError, match="4 sequences a step cannot be shared by 3 processes"):
        tuned(tmp_path)
