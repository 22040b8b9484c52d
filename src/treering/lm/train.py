"""Fine-tuning within a budget of steps, tokens and wall time, by PyTorch Lightning. Killed, it goes on exactly."""

import logging
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from treering.errors import UsageError, needs
from treering.lm import checkpoint
from treering.lm.base import lightened
from treering.lm.data import Split
from treering.lm.export import tensors_written
from treering.lm.plan import LORA_RANK, Plan
from treering.lm.processes import count, rank
from treering.lm.recipe import Recipe, Training
from treering.lm.session import Session
from treering.report import Reporter

LORA_ALPHA = 32


def fine_tune(
    load: Callable[[], Any],
    data: Split,
    recipe: Recipe,
    plan: Plan,
    report: Reporter,
    *,
    name: str,
    checkpoints: Path,
    adapter: Path,
    added: tuple[int, ...] = (),
    separator: int = 0,
    resume: bool = True,
    save_seconds: float = 60.0,
    may_go_on: Callable[[], bool] = lambda: True,
) -> tuple[Any, Training]:
    """Train the model that ``load`` gives on ``data.train`` and return it, adapters merged, with what was done.

    Stops at the end of the epochs, steps, tokens or minutes, whichever is first, or when the validation documents get
    no better. A checkpoint is written into ``checkpoints`` every ``save_seconds``; with ``resume`` the newest one there
    of a training of the same ``name`` is gone on from. Low-rank adapters are kept in ``adapter`` too. Where memory runs
    out, fewer sequences are computed at once: the steps stay the same. ``may_go_on`` is asked after each step; the time
    it takes is none of the budget's. Raises :class:`ModelError` on a loss that is no number, :class:`Incomplete`, with
    a checkpoint, where it may not.
    """
    with needs("train"):
        import torch

    if recipe.batch_size % count():
        raise UsageError(
            f"{recipe.batch_size} sequences a step cannot be shared by {count()} processes",
            "give --batch-size a multiple of them",
        )
    if recipe.sharded and (count() == 1 or recipe.method == "qlora" or plan.precision == "16-mixed"):
        raise UsageError(
            "a model is sharded over several processes, by `full` or `lora`, on GPUs from Ampere on or on CPUs",
            "start it with torchrun (docs/scaling.md), or leave out --sharded",
        )
    torch.manual_seed(recipe.seed)

    def made(*, light: bool) -> Any:
        model = load()
        if recipe.method == "full":
            return model
        if light and not recipe.sharded:
            model = lightened(model, dtype=plan.base_dtype, four_bit=recipe.method == "qlora")
        return _with_adapters(model, added)

    session = Session(made(light=True), data, recipe, plan, report, name, checkpoints, separator, save_seconds)
    session.may_go_on = may_go_on
    found = checkpoint.newest(checkpoints, name, report) if resume else None
    if found:
        session.resume(*found)
    elif rank() == 0:
        shutil.rmtree(checkpoints, ignore_errors=True)
    with _quiet_lightning():
        while not session.ran():
            torch.cuda.empty_cache()
    model, told = session.result(partial(made, light=False)), session.told()
    if recipe.method != "full":
        if rank() == 0:
            with tensors_written(adapter):
                model.save_pretrained(str(adapter))
        model = model.merge_and_unload()
    return model, told


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Its advice about workers and loggers is for trainings longer than ours, and none of it is a fault."""
    quiet = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric", "pytorch_lightning")]
    levels = [logger.level for logger in quiet]
    for logger in quiet:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\..*")
            warnings.filterwarnings("ignore", message=".*does not have many workers.*")
            yield
    finally:
        for logger, level in zip(quiet, levels, strict=True):
            logger.setLevel(level)


def _with_adapters(model: Any, added: tuple[int, ...]) -> Any:
    """Low-rank adapters on every linear layer; rows of added tokens are trained whole."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # peft loads it, and it tells what would be faster
    with needs("train"):
        from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=LORA_RANK, lora_alpha=LORA_ALPHA, target_modules="all-linear", task_type="CAUSAL_LM",
        trainable_token_indices=list(added) or None,
        fan_in_fan_out=any(type(module).__name__ == "Conv1D" for module in model.modules()),
    )  # fmt: skip
    with warnings.catch_warnings():
        # peft asks transformers for an attribute by its old name
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*")
        return get_peft_model(model, config)
