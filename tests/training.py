"""A training of a moment: a tiny model on tokens drawn at random. Run as a program, it is one that can be killed, or
one of several that ``torchrun`` starts; it writes what was done as JSON.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from treering.lm import processes
from treering.lm.data import HeldOut, Split, Stream
from treering.lm.plan import Plan
from treering.lm.recipe import Recipe, Training
from treering.report import Reporter

VOCABULARY = 64
RECIPE = Recipe(
    method="full", minutes=60.0, epochs=2, batch_size=4, learning_rate=1e-2, sequence_length=16, seed=7, gpu=False
)
PLAN = Plan(
    preset="cpu", device="cpu", precision="32-true", base_dtype="float32", method="full", devices=1, batch_size=4,
    accumulate=1, gradient_checkpointing=False, chunked_loss=False, compile=False, memory={}, total=0, limit=0,
    fits=True, reasons=(),
)  # fmt: skip


def model(dropout: float = 0.0, width: int = 16) -> Any:
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(1)
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=VOCABULARY,
            n_positions=32,
            n_embd=width,
            n_layer=2,
            n_head=2,
            resid_pdrop=dropout,
            embd_pdrop=dropout,
            attn_pdrop=dropout,
            bos_token_id=None,
            eos_token_id=None,
        )
    )


def history() -> Split:
    random = np.random.default_rng(3)
    ids = random.integers(0, VOCABULARY, size=16 * 12 + 6).astype(np.uint16)
    watched = HeldOut(tuple(ids[5 * one : 5 * one + 5].astype(np.int64) for one in range(8)), (5,) * 8, ("a",) * 8)
    later = HeldOut((ids[40:60].astype(np.int64),), (20,), ("b",))
    return Split(Stream(ids, np.array([0]), np.array([len(ids)])), 1, len(ids), watched, later, 0, 0)


def tuned(folder: Path, recipe: Recipe = RECIPE, plan: Plan = PLAN, **how: Any) -> Training:
    return finely_tuned(folder, recipe, plan, **how)[1]


def finely_tuned(
    folder: Path, recipe: Recipe = RECIPE, plan: Plan = PLAN, report: Reporter | None = None, **how: Any
) -> tuple[Any, Training]:
    """The model and what was done, of the few steps of ``RECIPE``."""
    from treering.lm.train import fine_tune

    load: Callable[[], Any] = how.pop("load", model)
    return fine_tune(
        load, history(), recipe, plan, report or Reporter(), name="n", checkpoints=folder / "checkpoints",
        adapter=folder / "adapter", **how,
    )  # fmt: skip


if __name__ == "__main__":
    folder, chosen = Path(sys.argv[1]), json.loads(sys.argv[2])
    told = tuned(
        folder,
        replace(RECIPE, **chosen.get("recipe", {})),
        replace(PLAN, **chosen.get("plan", {})),
        report=Reporter.to_stderr(),
        load=partial(model, chosen.get("dropout", 0.0)),
        save_seconds=0.0,
    )
    if processes.rank() == 0:
        (folder / "told.json").write_text(json.dumps(asdict(told)))
