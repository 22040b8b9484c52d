"""Fine-tuning within a budget of steps and wall time, by PyTorch Lightning."""

import logging
import math
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from treering.errors import ModelError, needs
from treering.lm.data import Split, batch_order, training_blocks
from treering.report import Reporter

LORA_RANK = 16
LORA_ALPHA = 32


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides a training but the data."""

    method: str
    minutes: float
    epochs: int
    batch_size: int
    learning_rate: float
    sequence_length: int
    seed: int
    gpu: bool


@dataclass(frozen=True, slots=True)
class Training:
    """What was done. ``losses`` is one number a step, in nats per token."""

    steps: int
    tokens: int
    seconds: float
    losses: tuple[float, ...]
    epochs_done: float
    stopped_by: str
    device: str
    precision: str


def fine_tune(
    model: Any, data: Split, recipe: Recipe, report: Reporter, *, added: tuple[int, ...] = ()
) -> tuple[Any, Training]:
    """Train ``model`` on ``data.train`` and return it, adapters merged, with what was done.

    Stops at the end of the epochs or of the minutes, whichever is first. Raises :class:`ModelError` on a loss that is
    no number.
    """
    with needs("train"):
        import lightning
        import torch

        from treering.lm.module import Budget, LanguageModule, collate

    blocks = [torch.from_numpy(block.copy()) for block in training_blocks(data.train, recipe.sequence_length)]
    steps_an_epoch = -(-len(blocks) // recipe.batch_size)
    torch.manual_seed(recipe.seed)
    if recipe.method == "lora":
        model = _with_adapters(model, added)
    budget = Budget(steps_an_epoch * recipe.epochs, recipe.minutes * 60)
    module = LanguageModule(model, recipe.learning_rate, budget)

    class Order(torch.utils.data.Sampler[list[int]]):
        """Batches as :func:`batch_order` gives them; Lightning tells the epoch."""

        epoch = 0

        def set_epoch(self, epoch: int) -> None:
            self.epoch = epoch

        def __len__(self) -> int:
            return steps_an_epoch

        def __iter__(self) -> Iterator[list[int]]:
            return batch_order(len(blocks), recipe.batch_size, recipe.seed, self.epoch)

    class Watch(lightning.Callback):  # type: ignore[misc]  # Lightning is not typed for strict
        """Ends the training with its budget, and tells each epoch as the seed shows it."""

        stopped_by = "epochs"
        told = 0.0

        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            if not math.isfinite(module.losses[-1]):
                raise ModelError(
                    f"the loss became {module.losses[-1]} at step {trainer.global_step}",
                    "lower the learning rate",
                )
            done = trainer.global_step - trainer.current_epoch * steps_an_epoch
            spent = budget.spent(trainer.global_step)
            if spent >= 1 and trainer.global_step < budget.steps:
                trainer.should_stop = True
                self.stopped_by = "minutes"
            last = done == steps_an_epoch or trainer.should_stop
            if last or time.monotonic() - self.told > 15:
                self.told = time.monotonic()
                report.say(_line(trainer.current_epoch, recipe.epochs, done / steps_an_epoch, module.losses[-done:]))

    watch = Watch()
    precision = _precision(gpu=recipe.gpu)
    # Its advice about workers and loggers is for trainings longer than ours, and none of it is a fault.
    quiet = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric", "pytorch_lightning")]
    levels = [logger.level for logger in quiet]
    for logger in quiet:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\..*")
            warnings.filterwarnings("ignore", message=".*does not have many workers.*")
            trainer = lightning.Trainer(
                accelerator="auto" if recipe.gpu else "cpu", devices=1, precision=precision, max_epochs=recipe.epochs,
                gradient_clip_val=1.0, logger=False, enable_checkpointing=False, enable_progress_bar=False,
                enable_model_summary=False, callbacks=[watch], num_sanity_val_steps=0, use_distributed_sampler=False,
            )  # fmt: skip
            loader: Any = torch.utils.data.DataLoader(blocks, batch_sampler=Order(), collate_fn=collate)  # type: ignore[arg-type]  # a list is a data set
            budget.started = time.monotonic()
            trainer.fit(module, loader)
    except SystemExit as error:  # what Lightning makes of a signal
        raise KeyboardInterrupt from error
    finally:
        for logger, level in zip(quiet, levels, strict=True):
            logger.setLevel(level)
    if recipe.method == "lora":
        model = module.model.merge_and_unload()
    return model, Training(
        steps=trainer.global_step,
        tokens=module.tokens,
        seconds=round(time.monotonic() - budget.started, 2),
        losses=tuple(round(loss, 4) for loss in module.losses),
        epochs_done=round(trainer.global_step / steps_an_epoch, 3),
        stopped_by=watch.stopped_by,
        device=str(trainer.strategy.root_device),
        precision=precision,
    )


def _with_adapters(model: Any, added: tuple[int, ...]) -> Any:
    """Low-rank adapters on every linear layer; rows of added tokens are trained whole."""
    with needs("train"):
        from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=LORA_RANK, lora_alpha=LORA_ALPHA, target_modules="all-linear", task_type="CAUSAL_LM",
        trainable_token_indices=list(added) or None,
        fan_in_fan_out=model.config.model_type == "gpt2",
    )  # fmt: skip
    with warnings.catch_warnings():
        # peft asks transformers for an attribute by its old name
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*")
        return get_peft_model(model, config)


def _precision(*, gpu: bool) -> str:
    """bfloat16 where the GPU has it (Ampere and newer), float16 on older ones, float32 elsewhere."""
    import torch

    if gpu and torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.get_device_capability()[0] >= 8 else "16-mixed"
    return "32-true"


def _line(epoch: int, epochs: int, done: float, losses: list[float]) -> str:
    bar = "█" * round(20 * done)
    mean = sum(losses) / len(losses)
    return f"Epoch {epoch + 1}/{epochs}:  [{bar:<20}] {done:4.0%}  Loss: {mean:.3f}"
