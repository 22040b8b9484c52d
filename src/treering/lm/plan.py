"""How a training fits a machine: memory by part, and what is given up until it does. Arithmetic; reads nothing.

``hardware.py`` says what the machine has, ``shape.py`` what the base model is like.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from treering.errors import DataError, UsageError
from treering.lm.hardware import Machine
from treering.lm.shape import Shape

METHODS = ("full", "lora", "qlora")
"""From the heaviest to the lightest."""
LORA_RANK = 16
SHARE = 0.85
"""How much of what is free a plan may take: allocators lose some of the rest."""
CHUNK, SMALL_CHUNK = 256, 128
"""Rows of a chunked loss, on a GPU and on a CPU. There the logits of so many stay below the 32 MB from which on the C
library asks the system for new pages each time, which took a tenth of a step.
"""
LOGIT_BYTES = 12
"""Of one logit, while the loss goes back: its log-probability and two gradients, in float32 (measured)."""
FOUR_BIT = 0.56
"""Bytes of a 4-bit weight: half a one, and the constants of its block."""
HALF = 0.7
"""What mixed precision leaves of the activations: the norms and what is added up stay in float32 (.67 measured)."""
HOLES = 0.75
"""On a CPU the C library's heap keeps holes where arrays were that a layer did not keep: so much more of them."""
OVERHEAD = {"cpu": 650_000_000, "mps": 500_000_000, "cuda": 300_000_000}
"""The libraries and their work spaces; on the CPU with torch itself (measured). A CUDA context is not free memory."""
PRESETS = (("cuda-80gb", 70_000_000_000), ("cuda-24gb", 20_000_000_000), ("cuda-8gb", 0))
"""Names of classes of GPUs, by the free memory from which on they hold."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How to train. An optimizer step reads ``batch_size`` x ``accumulate`` x ``devices`` sequences: as many as asked.

    ``base_dtype`` is what the base's weights are loaded in: frozen ones need no more than half precision where the
    rest is mixed. ``compile`` is whether torch.compile pays in a long training. ``memory`` is in bytes on one device.
    """

    preset: str
    device: str
    precision: str
    base_dtype: str
    method: str
    devices: int
    batch_size: int
    accumulate: int
    gradient_checkpointing: bool
    chunked_loss: bool
    compile: bool
    memory: dict[str, int]
    total: int
    limit: int
    fits: bool
    reasons: tuple[str, ...]


def plan(machine: Machine, shape: Shape, *, method: str, sequences: int, sequence_length: int) -> Plan:
    """The fastest way to train ``sequences`` a step that fits, or the most frugal one with what would fit instead.

    Raises :class:`UsageError` for a method there is not, :class:`DataError` for sequences the base cannot read.
    """
    if method not in METHODS:
        raise UsageError(f"unknown method `{method}`", f"one of: {', '.join(METHODS)}")
    if shape.positions is not None and sequence_length > shape.positions:
        raise DataError(
            f"the sequences have {sequence_length} tokens and the base model reads at most {shape.positions}",
            "give a smaller --sequence-length",
        )
    found = _frugal(machine, shape, method, sequences, sequence_length)
    if found.fits:
        return found
    return replace(found, reasons=(*found.reasons, *_instead(found, machine, shape, sequences, sequence_length)))


def _frugal(machine: Machine, shape: Shape, method: str, sequences: int, length: int) -> Plan:
    """The first way that fits, or the last one."""
    devices = next(count for count in range(min(machine.devices, sequences), 0, -1) if sequences % count == 0)
    machine = replace(machine, devices=devices)
    each = sequences // devices
    limit = machine.device_memory
    precision, reason = _precision(machine)
    halves = precision == "16-mixed"
    for batch, chunked, checkpointing in _ways(each, halves=halves):
        memory = memory_of(machine, shape, method, batch, length, chunked=chunked, checkpointing=checkpointing)
        total = sum(memory.values())
        if total <= SHARE * limit:
            break
    reasons = [reason]
    if batch < each:
        reasons.append(
            f"{each} sequences at once are too many: {batch} at a time, and their gradients are summed {each // batch}"
            " times before a step"
        )
    if chunked:
        cost = "less memory, a third more time" if halves else "less memory"
        reasons.append(f"the loss is computed {chunk(machine.device)} tokens at a time: {cost}")
    if checkpointing:
        reasons.append("activations are computed again on the way back: much less memory, half as much time again")
    fits = total <= SHARE * limit
    reasons.append(
        f"{method} needs {_size(total)} of {_size(limit)} free: "
        + (f"within the {SHARE:.0%} that a plan may take" if fits else f"more than the {SHARE:.0%} a plan may take")
    )
    return Plan(
        preset=_preset(machine), device=machine.device, precision=precision, base_dtype=_dtype(machine, method),
        method=method, devices=devices, batch_size=batch, accumulate=each // batch,
        gradient_checkpointing=checkpointing, chunked_loss=chunked,
        compile=machine.device == "cuda" and machine.bfloat16,
        memory=memory, total=total, limit=limit, fits=fits, reasons=tuple(reasons),
    )  # fmt: skip


def chunk(device: str) -> int:
    """How many rows of logits there are at once where the loss is chunked."""
    return SMALL_CHUNK if device == "cpu" else CHUNK


def _ways(each: int, *, halves: bool) -> Iterator[tuple[int, bool, bool]]:
    """Sequences at once, whether the loss is chunked, whether activations are computed again: the fastest first."""
    batch = each
    yield batch, not halves, False
    while batch > 1:
        batch = next(size for size in range(max(batch // 2, 1), 0, -1) if each % size == 0)
        yield batch, not halves, False
    if halves:  # in float16 a chunk is computed twice
        yield batch, True, False
    yield batch, True, True


def memory_of(
    machine: Machine, shape: Shape, method: str, batch: int, length: int, *, chunked: bool, checkpointing: bool
) -> dict[str, int]:
    """Bytes on one device, by part, at the highest point of a step."""
    mixed = _precision(machine)[0] != "32-true"
    adapters = 0 if method == "full" else LORA_RANK * shape.sides
    trained = adapters or shape.parameters
    held = 4 if _dtype(machine, method) == "float32" else 2
    copies = 2 if mixed and held == 4 else 0  # of the weights, in half precision, that autocast makes
    whole = shape.parameters if method != "qlora" else shape.parameters - shape.linear
    weights = whole * (held + copies) + (shape.parameters - whole) * FOUR_BIT
    tokens = batch * length
    half, cpu = HALF if mixed else 1, machine.device == "cpu"
    usual = shape.kept * half
    scores = 3 * shape.heads * length  # where attention is not fused: as they are, their softmax, what is dropped
    usual += scores if machine.device == "mps" or (shape.dropout and cpu) else 0
    lean = cpu and not checkpointing
    kept = usual - (shape.kept - shape.kept_lean) * half if lean else usual
    holes = HOLES * usual if cpu else 0
    layer = 4 * tokens * (kept + holes)
    activations = 4 * tokens * shape.hidden * shape.layers + layer if checkpointing else layer * shape.layers
    rows = min(tokens, chunk(machine.device)) if chunked else tokens
    parts = {
        "weights": weights,
        "gradients": 4 * trained * (2 if machine.devices > 1 else 1),  # and those that travel between devices
        "optimizer": 8 * trained,
        "adapters": 4 * adapters,
        "activations": activations,
        "logits": LOGIT_BYTES * rows * shape.vocab,
        "overhead": OVERHEAD[machine.device],
    }
    return {name: round(size) for name, size in parts.items()}


def _instead(found: Plan, machine: Machine, shape: Shape, sequences: int, length: int) -> Iterator[str]:
    """What would fit where ``found`` does not."""
    lighter = METHODS[METHODS.index(found.method) + 1 :]
    for method in lighter:
        other = _frugal(machine, shape, method, sequences, length)
        if other.fits:
            yield f"{method} would fit: {_size(other.total)}"
            return
        found = other
    fixed = found.memory["overhead"] + found.memory["logits"]
    parameters = shape.parameters * (SHARE * found.limit - fixed) / (found.total - fixed)
    if parameters > 1e6:
        yield f"no method fits; by {found.method} a base of about {parameters / 1e6:,.0f} million parameters would"
    else:
        yield "no method fits, nor would a smaller base: free some memory first, or give a smaller --sequence-length"


def _precision(machine: Machine) -> tuple[str, str]:
    if machine.bfloat16:
        return "bf16-mixed", "bfloat16 where it is safe: the products are computed in it"
    if machine.device != "cuda":
        return "32-true", f"float32 throughout: this {machine.device.upper()} gains nothing safe from less"
    return "16-mixed", "float16 where it is safe, the loss scaled: this GPU is older than bfloat16"


def _dtype(machine: Machine, method: str) -> str:
    if machine.device != "cuda" or method == "full":
        return "float32"
    return "bfloat16" if machine.bfloat16 else "float16"


def _preset(machine: Machine) -> str:
    if machine.device != "cuda":
        return machine.device
    return next(name for name, least in PRESETS if machine.device_memory >= least)


def _size(size: float) -> str:
    return f"{size / 1e9:.1f} GB"
