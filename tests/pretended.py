"""A folder that looks like a trained model to whoever keeps, sweeps or verifies one: nothing was trained."""

import os
import time
from pathlib import Path
from typing import Any

from treering.files import write_json
from treering.lm.export import sum_up

REPORT: dict[str, Any] = {
    "verdict": "Tuning helped", "base_model": "scratch", "repo": "project", "strategy": "semantic",
    "train_documents": 20, "train_tokens": 300, "duplicates_left_out": 0, "held_out_first": "0" * 40, "vocab_size": 257,
    "holdout": {
        "documents": 8, "bytes": 400, "total_tokens": 90, "total_loss": 9.0, "perplexity": 2.0, "bits_per_byte": {},
        "difference": None, "verdict": "Tuning helped",
    },
    "training": {
        "steps": 1, "tokens": 90, "seconds": 1.0, "losses": [], "epochs_done": 1.0, "stopped_by": "epochs",
        "device": "cpu", "precision": "32-true",
    },
    "recipe": {
        "method": "full", "minutes": 1.0, "epochs": 1, "batch_size": 1, "learning_rate": 0.1, "sequence_length": 64,
        "seed": 7, "gpu": False,
    },
}  # fmt: skip


def pretended(store: Path, name: str, *, age: float = 0.0) -> Path:
    """A model of a store, made ``age`` seconds ago."""
    folder = store / "models" / "project-git-model" / name
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(name.encode() * 5000)
    write_json(folder / "training_report.json", REPORT)
    sum_up(folder)
    os.utime(folder / "training_report.json", (time.time() - age, time.time() - age))
    return folder
