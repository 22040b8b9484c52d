"""What needs a GPU, on the one that is here: memory told beforehand and measured, the losses of each precision,
`torch.compile`, 4-bit weights, a training killed and gone on with, and a Hugging Face Trainer beside ours.

TOKENS is a folder that `treering tokenize` wrote (it names it), for a model of SmolLM2's tokenizer. No weights are
read: models are drawn at random from the configs of real ones, for neither memory nor speed depends on the values.
Each training is a process of its own, one at a time. MFU counts 6 FLOP a parameter and token, 4 where the base is
frozen, none for attention, nothing twice where activations are computed again; its 100 % is the dense half-precision
peak of the card's data sheet (`cards.py`). What has not begun after `--seconds` is left out, and that is said.

    python benchmarks/gpu.py TOKENS [--parts 8gb,losses,qlora,resume,24gb,trainer,compile,80gb] [--seconds 240]
        [--json FILE]
"""

import argparse
import json
import os
import signal
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.cards import rows, table_of, trained
from benchmarks.measuring import FailedError, forked, table
from benchmarks.training import OURS, PACKED, PADDED, compared

from computers import CONFIGS

LONGEST = 90.0
"""Seconds that one training may take."""
SMOL = CONFIGS["SmolLM2-135M"]
SMALL = SMOL | {"num_hidden_layers": 4}
TINY = SMALL | {"hidden_size": 192, "intermediate_size": 512, "num_attention_heads": 3}
"""Whose checkpoints are small: one is written each step."""
STEPS, SEQUENCES, LENGTH = 12, 8, 256
WAYS = {
    "CPU, 32-true": ("cpu", "32-true"),
    "32-true": ("cuda", "32-true"),
    "bf16-mixed": ("cuda", "bf16-mixed"),
    "16-mixed": ("cuda", "16-mixed"),
    "bf16-mixed, compiled": ("cuda", "bf16-mixed"),
}
BATCH, BLOCK = 8, 1024
"""Of a step beside the Trainer."""


class Bench:
    """The trainings of one run: those that had their turn, what they told, those that had none."""

    def __init__(self, tokens: Path, seconds: float, file: Path | None, scratch: Path) -> None:
        self.tokens, self.file, self.scratch = tokens, file, scratch
        self.until = time.monotonic() + seconds
        self.found: dict[str, Any] = {}

    def run(self, name: str, work: Callable[[], Any]) -> Any:
        """What a training told, or None where it had no turn or failed."""
        started = time.monotonic()
        left = self.until - started
        try:
            if left < 5:
                raise FailedError("no time left: skipped")
            told = forked(work, min(LONGEST, left))
            print(f"  {name}: {time.monotonic() - started:.1f} s", flush=True)
        except FailedError as failed:
            print(f"  {name}: {failed}", flush=True)
            self.found[name] = {"failed": str(failed)}
            return None
        finally:
            if self.file:
                self.file.write_text(json.dumps(self.found, indent=1))
        self.found[name] = told
        return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tokens", type=Path)
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--seconds", type=float, default=240)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    if unknown := set(chosen.parts.split(",")) - set(PARTS):
        parser.error(f"there is no part {min(unknown)}")
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"  # or a look for a GPU would keep it from all forks
    started = time.monotonic()
    _load()
    with tempfile.TemporaryDirectory(prefix="treering-benchmark-") as folder:
        bench = Bench(chosen.tokens, chosen.seconds - (time.monotonic() - started), chosen.json, Path(folder))
        where = bench.run("machine", _machine)
        print(where)
        tables = []
        for part in chosen.parts.split(","):
            print(f"{part}:", flush=True)
            told = list(PARTS[part](bench))
            tables.append(f"\n{part}\n{table(told)}" if len(told) > 1 else f"\n{part}: nothing to tell")
    print("\n".join(tables))


def _load() -> None:
    """What all trainings need, once. Not peft nor the Trainer: they load bitsandbytes, which takes hold of the GPU."""
    warnings.simplefilter("ignore")
    import transformers

    import treering.lm.module
    import treering.lm.train  # noqa: F401  # loaded here, so that no fork has to

    for name in ("AutoModelForCausalLM", "LlamaForCausalLM", "GPT2LMHeadModel", "OPTForCausalLM"):
        getattr(transformers, name)


def _machine() -> dict[str, Any]:
    import torch
    import transformers

    free, whole = torch.cuda.mem_get_info()
    return {
        "gpu": torch.cuda.get_device_name(), "capability": torch.cuda.get_device_capability(), "memory": whole,
        "free": free, "torch": torch.__version__, "cuda": torch.version.cuda, "transformers": transformers.__version__,
        "cores": os.cpu_count(), "python": sys.version.split()[0],
    }  # fmt: skip


# a small model on a history's tokens --------------------------------------------------------------------------------


def _losses(bench: Bench) -> Iterator[tuple[str, ...]]:
    """The same model on the same tokens, on the CPU and in each precision of the GPU."""
    yield "losses", "first", "last", "largest difference to the CPU", "last look", "median step ms"
    beside: dict[str, Any] = {}
    for name, (device, precision) in WAYS.items():
        told = bench.run(
            f"losses {name}",
            partial(_small, bench, device, precision, "full", bench.scratch / name, compiled="compiled" in name),
        )
        if not told:
            continue
        beside = beside or told
        apart = max(abs(one - other) / other for one, other in zip(told["losses"], beside["losses"], strict=True))
        looks = [loss for _, loss in told["validation"]]
        yield (
            name, f"{told['losses'][0]:.4f}", f"{told['losses'][-1]:.4f}", f"{apart:.2e}",
            f"{looks[-1]:.4f}" if looks else "-", f"{_step(told) * 1e3:.1f}",
        )  # fmt: skip


def _resume(bench: Bench) -> Iterator[tuple[str, ...]]:
    """Killed twice (`kill -9`) after a checkpoint, and gone on with each time."""
    yield "killed after 4 and 8 steps", "losses that differ", "largest difference", "gone on after"
    for precision, method in (("bf16-mixed", "full"), ("16-mixed", "full"), ("bf16-mixed", "lora")):
        name = f"resume {precision} {method}"

        def train(kill: int, folder: str, precision: str = precision, method: str = method, name: str = name) -> Any:
            return bench.run(
                f"{name} {folder} {kill or ''}",
                partial(
                    _small, bench, "cuda", precision, method, bench.scratch / f"{name}{folder}", kill=kill, config=TINY
                ),
            )

        whole = train(0, "undisturbed")
        again = train(0, "again") if method == "full" else None
        for kill in (4, 8):
            train(kill, "killed")
        killed = train(0, "killed")
        for what, told in (("twice undisturbed", again), ("killed", killed)):
            if not (whole and told):
                continue
            apart = [abs(one - other) for one, other in zip(whole["losses"], told["losses"], strict=True)]
            differ = sum(1 for one in apart if one)
            yield f"{precision}, {method}: {what}", f"{differ} of {len(apart)}", f"{max(apart)}", str(told["resumed"])


def _qlora(bench: Bench) -> Iterator[tuple[str, ...]]:
    """Over weights of 4 bits: the losses of a real training's first steps, however the weights came to the GPU."""
    yield "4 bits", "losses", "peak MB", "median step ms", "seconds in all"
    for name in ("bf16-mixed", "16-mixed"):
        told = bench.run(
            f"qlora {name}",
            partial(_small, bench, "cuda", name, "qlora", bench.scratch / f"qlora {name}", config=SMOL, steps=40),
        )
        if told:
            losses = " ".join(f"{loss:.2f}" for loss in told["losses"][::4])
            yield name, losses, f"{told['peak'] / 1e6:,.0f}", f"{_step(told) * 1e3:.1f}", f"{told['all']:.1f}"


def _small(
    bench: Bench,
    device: str,
    precision: str,
    method: str,
    folder: Path,
    *,
    compiled: bool = False,
    kill: int = 0,
    config: dict[str, Any] = SMALL,
    steps: int = STEPS,
) -> dict[str, Any]:
    """Train a model some steps by the road that all trainings go, to its end; with ``kill``, to a step's checkpoint."""
    import torch
    import transformers

    from treering.lm.data import split
    from treering.lm.hardware import machine
    from treering.lm.plan import plan
    from treering.lm.recipe import Recipe
    from treering.lm.train import fine_tune
    from treering.report import Reporter
    from treering.tokens.pack import read_stream

    gpu = device == "cuda"
    corpus, ids = read_stream(bench.tokens)
    recipe = Recipe(
        method=method, minutes=1e6, epochs=1000, batch_size=SEQUENCES, learning_rate=1e-3, sequence_length=LENGTH,
        seed=7, gpu=gpu, max_steps=steps,
    )  # fmt: skip
    half = {"bf16-mixed": "bfloat16", "16-mixed": "float16"}.get(precision, "float32")
    planned = replace(
        plan(machine(gpu=gpu), _shape(), method=method, sequences=SEQUENCES, sequence_length=LENGTH),
        device=device, precision=precision, base_dtype="float32" if method == "full" else half, batch_size=SEQUENCES,
        accumulate=1, chunked_loss=precision != "16-mixed", gradient_checkpointing=False, compile=compiled,
    )  # fmt: skip

    def load() -> Any:
        torch.manual_seed(7)
        vocabulary = max(corpus.vocab_size, config["vocab_size"])
        made = transformers.AutoConfig.for_model(**{**config, "vocab_size": vocabulary})
        return transformers.AutoModelForCausalLM.from_config(made)

    def goes_on() -> bool:
        if kill and (folder / "c" / f"step-{kill:09d}").is_dir():
            os.kill(os.getpid(), signal.SIGKILL)
        return True

    started = time.monotonic()
    _, told = fine_tune(
        load, split(corpus, ids), recipe, planned, Reporter(), name="n", checkpoints=folder / "c",
        adapter=folder / "a", separator=corpus.eos_id, save_seconds=0.0 if "resume" in folder.name else 1e9,
        may_go_on=goes_on,
    )  # fmt: skip
    return {
        "losses": told.losses, "validation": told.validation, "seconds": [point[1] for point in told.curve],
        "peak": told.peak_memory, "resumed": told.resumed_at, "device": told.device,
        "all": time.monotonic() - started,
    }  # fmt: skip


def _shape() -> Any:
    from computers import BASES

    return BASES["SmolLM2-135M"]


def _step(told: dict[str, Any]) -> float:
    """Seconds of a step, the median of all but the first two."""
    ends: list[float] = told["seconds"]
    return statistics.median([after - before for before, after in pairwise(ends[1:])])


# models of real sizes -----------------------------------------------------------------------------------------------


def _card(card: str) -> Callable[[Bench], Iterator[tuple[str, ...]]]:
    def run(bench: Bench) -> Iterator[tuple[str, ...]]:
        found = [bench.run(f"{card} {base}", partial(trained, card, base)) for base in rows(card)]
        yield from table_of([one for one in found if one])

    return run


def _compile(bench: Bench) -> Iterator[tuple[str, ...]]:
    """SmolLM2-135M on this card, with `torch.compile` and without."""
    found = []
    for method in ("full", "lora"):
        for compiled in (False, True):
            name = f"compile {method} {compiled}"
            told = bench.run(
                name,
                partial(trained, "80gb", "SmolLM2-135M", compiled=compiled, method=method, steps=10),
            )
            found.append(told)
    yield from table_of([one for one in found if one])
    for plain, quick in ((found[0], found[1]), (found[2], found[3])):
        if plain and quick:
            more = quick["first_step"] - plain["first_step"]
            yield f"{plain['method']}: {more:.1f} s to compile", *("",) * 8


def _trainer(bench: Bench) -> Iterator[tuple[str, ...]]:
    """A Trainer with our packed blocks and with padded documents, beside ours."""
    from treering.tokens.pack import read_stream

    base = bench.scratch / "base"
    stream = read_stream(bench.tokens)
    bench.run("trainer: its base", lambda: _saved(bench, base))
    yield (
        "SmolLM2-135M, bf16",
        "useful tokens/s",
        "of all tokens",
        "peak MB",
        "speed, ours over it",
        "memory, it over ours",
    )
    for method in ("full", "lora"):
        ours: dict[str, float] = {}
        for way in (OURS, PACKED, f"{PADDED}512"):
            chosen = argparse.Namespace(
                way=way, base=base, batch_size=BATCH, length=BLOCK, method=method, gpu=True, steps=20
            )
            told = bench.run(f"trainer {method} {way}", partial(compared, chosen, stream))
            if not told:
                continue
            ours = ours or told
            speed, our_speed = (one["useful"] / one["seconds"] for one in (told, ours))
            yield (
                f"{way}, {method}", f"{speed:,.0f}", f"{told['useful'] / told['all']:.0%}",
                f"{told['peak'] / 1e6:,.0f}", f"{our_speed / speed:.2f}", f"{told['peak'] / ours['peak']:.2f}",
            )  # fmt: skip


def _saved(bench: Bench, base: Path) -> bool:
    import torch
    import transformers

    from treering.tokens.pack import read_stream

    torch.manual_seed(7)
    known = SMOL["vocab_size"]
    vocabulary = max(read_stream(bench.tokens)[0].vocab_size, known)
    config = transformers.AutoConfig.for_model(**{**SMOL, "vocab_size": vocabulary})
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(base)
    return True


PARTS: dict[str, Callable[[Bench], Iterator[tuple[str, ...]]]] = {
    "8gb": _card("8gb"), "losses": _losses, "qlora": _qlora, "resume": _resume, "24gb": _card("24gb"),
    "trainer": _trainer, "compile": _compile, "80gb": _card("80gb"),
}  # fmt: skip

if __name__ == "__main__":
    main()
