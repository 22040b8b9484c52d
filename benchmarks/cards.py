"""What docs/training.md's table tells of GPUs, each row trained on this one: `gpu.py` runs it.

The plan is made for the computer of the table, and the training may take no more of this card's memory than that
computer's card has. The kernels are this card's: a Turing's attention is another one.
"""

import statistics
import sys
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from computers import BASES, CONFIGS, GB, LENGTH, MACHINES, SEQUENCES, heaviest

CARDS = {name.split(" GB", 1)[0] + "gb": name for name, machine in MACHINES.items() if machine.device == "cuda"}
PEAKS = {"H100": 989e12, "H200": 989e12, "A100": 312e12}
"""FLOP a second of dense products in half precision, by the makers' data sheets."""
STEPS = 6
"""The first finds memory and kernels, the second the memory again: the median of the others is told."""


class _EnoughError(Exception):
    """Measured: what comes after the steps is not."""


def rows(card: str) -> list[str]:
    """The bases that this card trains, the small ones first."""
    return [base for base, shape in BASES.items() if heaviest(MACHINES[CARDS[card]], shape).fits]


def trained(card: str, base: str, *, compiled: bool = False, method: str = "", steps: int = STEPS) -> dict[str, Any]:
    """Train some steps of 8 x 1,024 tokens as the plan for the card says."""
    import torch
    import transformers

    from treering.lm.plan import plan
    from treering.lm.train import fine_tune
    from treering.report import Reporter

    machine, shape = MACHINES[CARDS[card]], BASES[base]
    wanted = {"sequences": SEQUENCES, "sequence_length": LENGTH}
    planned = plan(machine, shape, method=method, **wanted) if method else heaviest(machine, shape)
    planned = replace(planned, compile=compiled)
    frozen = planned.method != "full"
    config = transformers.AutoConfig.for_model(**CONFIGS[base])
    began = time.monotonic()

    def load() -> Any:
        with torch.device("cuda"):
            kind = getattr(torch, planned.base_dtype)
            return transformers.AutoModelForCausalLM.from_config(config, dtype=kind if frozen else torch.float32)

    ended: list[float] = []

    def goes_on() -> bool:
        torch.cuda.synchronize()
        if not ended:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            whole = torch.cuda.get_device_properties(0).total_memory
            torch.cuda.set_per_process_memory_fraction(min(1.0, machine.device_memory / whole))
        ended.append(time.monotonic())
        if len(ended) == steps:
            raise _EnoughError
        return True

    report = Reporter()
    nowhere = Path("/nowhere")  # nothing is written before the first minute is over
    try:
        fine_tune(
            load, _drawn(shape.vocab, steps + 1), _recipe(planned.method, steps + 1), planned, report, name="n",
            checkpoints=nowhere, adapter=nowhere, save_seconds=1e9, may_go_on=goes_on,
        )  # fmt: skip
    except _EnoughError:
        allocated, reserved = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
    free, whole = torch.cuda.mem_get_info()
    lasted = [after - before for before, after in pairwise(ended[1:])]
    seconds = statistics.median(lasted)
    speed = SEQUENCES * LENGTH / seconds
    flops = (4 if frozen else 6) * shape.parameters
    name = torch.cuda.get_device_name()
    peak = next((peak for part, peak in PEAKS.items() if part in name), 0.0)
    return {
        "card": card, "base": base, "method": planned.method, "precision": planned.precision,
        "cut": f"{planned.batch_size} x {planned.accumulate}", "checkpointed": planned.gradient_checkpointing,
        "chunked": planned.chunked_loss, "compiled": compiled, "limit": machine.device_memory, "told": planned.total,
        "parts": planned.memory, "allocated": allocated, "reserved": reserved,
        "context": whole - free - torch.cuda.memory_reserved(), "seconds": lasted, "tokens_per_second": speed,
        "mfu": flops * speed / peak if peak else None, "first_step": ended[0] - began, "warnings": report.warnings,
    }  # fmt: skip


def table_of(found: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    """The rows that were trained, under their heading."""
    told: list[tuple[str, ...]] = [
        ("training", "told GB", "allocated", "reserved", "of told", "context", "tokens/s", "MFU", "notes")
    ]
    for row in found:
        how = [row["cut"], *(name for name in ("chunked", "checkpointed", "compiled") if row[name])]
        if row["precision"] != "16-mixed":
            how = [one for one in how if one != "chunked"]
        sizes = [f"{row[name] / GB:.2f}" for name in ("told", "allocated", "reserved")]
        told.append(
            (
                f"{row['card']} {row['base']} {row['method']} {row['precision']}, {', '.join(how)}", *sizes,
                f"{row['reserved'] / row['told']:.2f}", f"{row['context'] / GB:.2f}",
                f"{row['tokens_per_second']:,.0f}", "-" if row["mfu"] is None else f"{row['mfu']:.1%}",
                "; ".join(row["warnings"])[:60],
            )
        )  # fmt: skip
    return told


def _recipe(method: str, steps: int) -> Any:
    from treering.lm.recipe import Recipe

    return Recipe(
        method=method, minutes=1e6, epochs=1000, batch_size=SEQUENCES, learning_rate=1e-4, sequence_length=LENGTH,
        seed=7, gpu=True, max_steps=steps,
    )  # fmt: skip


def _drawn(vocabulary: int, steps: int) -> Any:
    """Tokens drawn at random: neither memory nor time depends on them."""
    import numpy as np

    from treering.lm.data import HeldOut, Split, Stream

    size = steps * SEQUENCES * LENGTH + 1
    ids = np.random.default_rng(3).integers(0, vocabulary, size)
    nothing = HeldOut((), (), ())
    return Split(Stream(ids, np.array([0]), np.array([size])), 1, size, nothing, nothing, 0, 0)
