"""The state of a training on disk: whole or not there, the last two kept, safetensors and JSON, nothing unpickled."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from treering.errors import DataError
from treering.files import read_json, write_json
from treering.lm.export import replacing_folder, tensors_written
from treering.report import Reporter

KEPT = 2
_STATE, _WEIGHTS, _OPTIMIZER, _BEST = "state.json", "weights.safetensors", "optimizer.safetensors", "best"


class Progress(msgspec.Struct):
    """Where the training called ``name`` stands. One number a step in ``losses`` (nats per token), ``rates`` and
    ``seconds`` (since the beginning, interruptions left out); ``validation`` is (step, nats per token).
    """

    name: str
    step: int = 0
    tokens: int = 0
    losses: list[float] = []
    rates: list[float] = []
    seconds: list[float] = []
    validation: list[tuple[int, float]] = []
    best: float | None = None
    batch_size: int = 0
    accumulate: int = 0
    scaler: dict[str, float | int] | None = None
    """What scales the gradients of float16: whole numbers stay such, torch takes no others for them."""
    gone: float = 0.0


def save(folder: Path, progress: Progress, weights: Mapping[str, Any], optimizer: Mapping[str, Any]) -> None:
    """Write ``step-<number>`` in ``folder``: flushed, then named. All but the last two are removed."""
    with replacing_folder(folder / f"step-{progress.step:09d}") as new:
        _write(new / _WEIGHTS, weights)
        _write(new / _OPTIMIZER, optimizer)
        write_json(new / _STATE, progress)
    for old in _steps(folder)[KEPT:]:
        shutil.rmtree(old, ignore_errors=True)


def save_best(folder: Path, weights: Mapping[str, Any]) -> None:
    """Keep the weights of the best look at the validation documents."""
    with replacing_folder(folder / _BEST) as new:
        _write(new / _WEIGHTS, weights)


def best(folder: Path) -> dict[str, Any]:
    """Those weights; empty where no look was better than the one before the first step."""
    from safetensors.torch import load_file

    path = folder / _BEST / _WEIGHTS
    return dict(load_file(path)) if path.is_file() else {}


def _write(path: Path, tensors: Mapping[str, Any]) -> None:
    from safetensors.torch import save_file

    with tensors_written(path):
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)


def newest(folder: Path, name: str, report: Reporter) -> tuple[Progress, dict[str, Any], dict[str, Any]] | None:
    """The newest checkpoint that can be read: its progress, weights and optimizer tensors. None where there is none, or
    only those of another training.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    for step in _steps(folder):
        try:
            progress = read_json(step / _STATE, Progress)
            if progress.name != name:
                return None
            return progress, load_file(step / _WEIGHTS), load_file(step / _OPTIMIZER)
        except (DataError, SafetensorError, OSError) as error:
            report.warn(f"the checkpoint {step} is torn and left out: {error}")
    return None


def _steps(folder: Path) -> list[Path]:
    """The checkpoints, newest first."""
    return sorted(folder.glob("step-*"), reverse=True) if folder.is_dir() else []
