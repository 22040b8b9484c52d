"""The Lightning module: next-token loss of a step, however it is cut; a rate that follows the budget."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import lightning
import torch
import torch.nn.functional as functional
from torch.utils.checkpoint import checkpoint

from treering.lm.data import Tokens
from treering.lm.lean import Lean, computed_in
from treering.lm.plan import chunk

IGNORED = -100
WARM_UP = 0.02
WARM_UP_STEPS = (5, 100)
"""The share of the budget that warms up, and its steps at least and at most."""
DECAY = 0.3


@dataclass(slots=True)
class Budget:
    """How much of the training is over: the larger of steps done and time gone, from 0 to 1. ``before`` are the seconds
    that the training took before it was interrupted.
    """

    steps: int
    seconds: float
    before: float = 0.0
    started: float = field(default_factory=time.monotonic)
    spent: float = 0.0

    def gone(self) -> float:
        """Seconds of training so far."""
        return self.before + time.monotonic() - self.started

    def look(self, step: int) -> float:
        """What is spent after ``step`` steps; ``spent`` stays so until the next look."""
        gone = self.gone() / self.seconds if self.seconds else 1.0
        self.spent = min(1.0, max(step / max(self.steps, 1), gone))
        return self.spent

    def rate(self, step: int) -> float:
        """The share of the peak learning rate: a short warm-up, flat, then down to a tenth over the last 30 %."""
        done = max((step + 1) / WARM_UP_STEPS[1], (step + 1) / max(self.steps, 1) / WARM_UP, self.spent / WARM_UP)
        warm = min(1.0, (step + 1) / WARM_UP_STEPS[0], done)
        return warm * (1.0 if self.spent <= 1 - DECAY else 0.1 + 0.9 * (1 - self.spent) / DECAY)


def collate(blocks: Sequence[Tokens]) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs and labels of shape (batch, longest); what pads a shorter block is ignored by the loss."""
    width = max(len(block) for block in blocks) - 1
    inputs = torch.zeros(len(blocks), width, dtype=torch.long)
    labels = torch.full((len(blocks), width), IGNORED)
    for row, block in enumerate(blocks):
        inputs[row, : len(block) - 1] = torch.from_numpy(block[:-1])
        labels[row, : len(block) - 1] = torch.from_numpy(block[1:])
    return inputs, labels


def whole_loss(model: Any, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The summed nats of the labels, from all logits at once."""
    logits = model(input_ids=inputs, use_cache=False).logits
    return functional.cross_entropy(
        logits.flatten(0, 1).float(), labels.flatten(), ignore_index=IGNORED, reduction="sum"
    )


class _Nats(torch.autograd.Function):
    """The summed cross entropy of hidden states (rows, width) under an output layer (vocabulary, width), some rows at a
    time. Their gradient is made on the way there, from the logits that are there anyway: none is made twice, and none
    is kept. The idea is that of fused losses on GPUs (Hsu et al., 2024, "Liger Kernel").
    """

    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor, size: int) -> torch.Tensor:
        dtype = computed_in(hidden)
        of_hidden, of_weight = ctx.needs_input_grad[:2]
        slopes = torch.empty_like(hidden) if of_hidden else None
        weights = torch.zeros_like(weight) if of_weight else None
        total = hidden.new_zeros((), dtype=torch.float32)
        with torch.autocast(hidden.device.type, enabled=False):
            layer = weight.to(dtype)
            for start in range(0, len(labels), size):
                rows, wanted = hidden[start : start + size].to(dtype), labels[start : start + size, None]
                chances = functional.log_softmax((rows @ layer.T).float(), dim=-1)
                counted, wanted = wanted != IGNORED, wanted.clamp(min=0)
                total -= (chances.gather(1, wanted) * counted).sum()
                if of_hidden or of_weight:
                    slope = chances.exp_()
                    slope.scatter_add_(1, wanted, slope.new_full(wanted.shape, -1.0))
                    made = slope.mul_(counted).to(dtype)
                    if slopes is not None:
                        slopes[start : start + size] = made @ layer
                    if weights is not None:
                        weights += made.T @ rows
        ctx.save_for_backward(*(one for one in (slopes, weights) if one is not None))
        return total

    @staticmethod
    def backward(ctx: Any, *scales: Any) -> Any:
        saved = list(ctx.saved_tensors)
        found = [saved.pop(0) * scales[0] if needed else None for needed in ctx.needs_input_grad[:2]]
        return *found, None, None


def chunked_loss(model: Any, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The same without ever holding all logits, some rows at a time: with their gradient (:class:`_Nats`) where the
    output layer is a plain one, else made again for it, and also in float16, whose gradients are scaled first.
    """
    causal = model.get_base_model() if hasattr(model, "get_base_model") else model
    body = getattr(causal, causal.base_model_prefix)
    head = causal.get_output_embeddings()
    hidden = body(input_ids=inputs, use_cache=False).last_hidden_state.flatten(0, 1)
    flat = labels.flatten()
    size = chunk(hidden.device.type)
    plain = type(head) is torch.nn.Linear and getattr(head, "bias", None) is None
    if plain and computed_in(hidden) != torch.float16:
        fused: torch.Tensor = _Nats.apply(hidden, head.weight, flat, size)  # type: ignore[no-untyped-call]
        return fused

    def nats(rows: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(head(rows).float(), wanted, ignore_index=IGNORED, reduction="sum")

    total: torch.Tensor = hidden.new_zeros((), dtype=torch.float32)
    for start in range(0, len(flat), size):
        some = hidden[start : start + size], flat[start : start + size]
        total = total + checkpoint(nats, *some, use_reentrant=False)
    return total


class LanguageModule(lightning.LightningModule):  # type: ignore[misc]  # Lightning is not typed for strict
    """Trains a Hugging Face causal language model. The loss of a step is the mean over all its tokens, into whatever
    micro-batches and devices they are cut: ``parts`` is how many, ``tokens_of`` how many tokens a step predicts.
    """

    def __init__(
        self,
        model: Any,
        make_optimizer: Callable[[], torch.optim.Optimizer],
        budget: Budget,
        *,
        seed: int,
        first_step: int,
        parts: int,
        tokens_of: Callable[[int], int],
        chunked: bool,
        lean: Lean,
        shard: Callable[[Any], None] | None = None,
    ) -> None:
        super().__init__()
        self.model, self.budget = model, budget
        self.seed, self.first_step, self.parts, self.tokens_of = seed, first_step, parts, tokens_of
        self.nats_of: Callable[..., torch.Tensor] = chunked_loss if chunked else whole_loss
        self._make_optimizer, self._shard, self._lean = make_optimizer, shard, lean
        self._nats: Any = 0.0
        self._micro = 0

    @property
    def step(self) -> int:
        """How many optimizer steps are done, those before an interruption too."""
        return self.first_step + int(self.trainer.global_step)

    def configure_model(self) -> None:
        """Shard the model where it is to be: Lightning knows the devices by now."""
        if self._shard:
            self._shard(self.device_mesh["data_parallel"])
            self._shard = None

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self._make_optimizer()

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], _: int) -> torch.Tensor:
        step = self.step
        # What is drawn at random (dropout) is decided by the place in the training, so a resumed one draws the same.
        torch.manual_seed(hash((self.seed, step, self._micro, self.global_rank)) & 0x7FFF_FFFF_FFFF_FFFF)
        self._micro += 1
        with self._lean.forward():
            nats: torch.Tensor = self.nats_of(self.model, *batch)
        self._nats = self._nats + nats.detach()
        # Lightning divides by the micro-batches of a device, and the devices' gradients are averaged.
        return nats * (self.parts / self.tokens_of(step))

    def take_loss(self, step: int) -> float:
        """The mean loss of the step that just ended, over all devices, in nats per token."""
        nats = self._nats
        if self.trainer.world_size > 1:
            nats = self.trainer.strategy.reduce(nats, reduce_op="sum")
        self._nats, self._micro = 0.0, 0
        return float(nats) / self.tokens_of(step)

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float,
        gradient_clip_algorithm: str | None = None,  # noqa: ARG002
    ) -> None:
        """Lightning's own refuses a fused optimizer in mixed precision, though only float16's gradients are scaled."""
        parameters = [one for group in optimizer.param_groups for one in group["params"]]
        torch.nn.utils.clip_grad_norm_(parameters, gradient_clip_val)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * self.budget.rate(self.step)
