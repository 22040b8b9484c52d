"""What decides a training, and what is told of it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides a training but the data. ``batch_size`` is the sequences of an optimizer step, over all
    devices; ``max_steps`` and ``max_tokens`` are no limit where they are 0.
    """

    method: str
    minutes: float
    epochs: int
    batch_size: int
    learning_rate: float
    sequence_length: int
    seed: int
    gpu: bool
    max_steps: int = 0
    max_tokens: int = 0
    sharded: bool = False


@dataclass(frozen=True, slots=True)
class Training:
    """What was done. ``losses`` is one number a step, in nats per token; ``curve`` has at most 200 points of (step,
    seconds, tokens, learning rate), ``validation`` one of (step, nats per token) for each look.
    """

    steps: int
    tokens: int
    seconds: float
    losses: tuple[float, ...]
    epochs_done: float
    stopped_by: str
    device: str
    precision: str
    batch_size: int = 1
    accumulate: int = 1
    processes: int = 1
    trained_parameters: int = 0
    resumed_at: int = 0
    peak_memory: int = 0
    curve: tuple[tuple[int, float, int, float], ...] = ()
    validation: tuple[tuple[int, float], ...] = ()


def steps(blocks: int, recipe: Recipe) -> int:
    """How many optimizer steps the epochs, the steps and the tokens allow."""
    limits = [-(-blocks * recipe.epochs // recipe.batch_size)]
    limits += [_steps_of(name, recipe) for name in ("steps", "tokens") if _steps_of(name, recipe)]
    return min(limits)


def _steps_of(name: str, recipe: Recipe) -> int:
    if name == "steps":
        return recipe.max_steps
    return recipe.max_tokens and max(1, recipe.max_tokens // (recipe.batch_size * recipe.sequence_length))


def limit(reached: int, recipe: Recipe) -> str:
    """What set the number of steps."""
    named = [name for name in ("steps", "tokens") if reached == _steps_of(name, recipe)]
    return named[0] if named else "epochs"
