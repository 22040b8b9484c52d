"""The Lightning module: next-token loss, AdamW, and a learning rate that follows the budget."""

import time
from dataclasses import dataclass, field
from typing import Any

import lightning
import torch
import torch.nn.functional as functional

IGNORED = -100
WARM_UP_STEPS = 5
DECAY = 0.3


@dataclass(slots=True)
class Budget:
    """How much of the training is over: the larger of steps done and time gone, from 0 to 1."""

    steps: int
    seconds: float
    started: float = field(default_factory=time.monotonic)

    def spent(self, step: int) -> float:
        gone = (time.monotonic() - self.started) / self.seconds if self.seconds else 1.0
        return min(1.0, max(step / max(self.steps, 1), gone))


def rate(step: int, spent: float) -> float:
    """The share of the peak learning rate: a short warm-up, flat, then down to a tenth over the last 30 %."""
    warm = min(1.0, (step + 1) / WARM_UP_STEPS)
    return warm * (1.0 if spent <= 1 - DECAY else 0.1 + 0.9 * (1 - spent) / DECAY)


def collate(blocks: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs and labels of shape (batch, longest); what pads a shorter block is ignored by the loss."""
    width = max(len(block) for block in blocks) - 1
    inputs = torch.zeros(len(blocks), width, dtype=torch.long)
    labels = torch.full((len(blocks), width), IGNORED)
    for row, block in enumerate(blocks):
        inputs[row, : len(block) - 1] = block[:-1]
        labels[row, : len(block) - 1] = block[1:]
    return inputs, labels


class LanguageModule(lightning.LightningModule):  # type: ignore[misc]  # Lightning is not typed for strict
    """Trains a Hugging Face causal language model on blocks of next-token labels."""

    def __init__(self, model: Any, learning_rate: float, budget: Budget) -> None:
        super().__init__()
        self.model = model
        self.learning_rate = learning_rate
        self.budget = budget
        self.losses: list[float] = []
        self.tokens = 0

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], _: int) -> torch.Tensor:
        inputs, labels = batch
        logits = self.model(input_ids=inputs, use_cache=False).logits
        loss = functional.cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), ignore_index=IGNORED)
        self.losses.append(float(loss.detach()))
        self.tokens += int((labels != IGNORED).sum())
        return loss

    def configure_optimizers(self) -> Any:
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=self.learning_rate, weight_decay=0.0)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(step, self.budget.spent(step)))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
