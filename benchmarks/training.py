"""How fast a training reads: our packed blocks beside a Hugging Face Trainer, packed and padded.

The same model, documents, precision and cores, in turns, each run in a process of its own. *Useful* tokens are those
of documents: padding is none. The Trainer gets the packed blocks that we train on; or documents cut at a length and
padded to it (`padding="max_length"`), a step as many tokens as ours; or each batch padded to its longest. `--memory`
compares our loss in chunks with one of all logits at once instead. What counts are `--steps` steps after the first
three, from the end of one to the end of another, and where a GPU computes it is waited for at each end. Peak memory is
of the process, loading included; all load the same folder of safetensors. With `--gpu` all train on the GPU in
bfloat16, and memory is what was allocated there.

    python benchmarks/training.py REPO --store STORE [--steps 12] [--batch-size 4] [--length 256] [--padded 256,512]
        [--memory] [--gpu] [--json]
"""

import argparse
import json
import resource
import statistics
import sys
import tempfile
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.measuring import FailedError, describe, machine, table, timed

BASE = "smollm2-135m"
OURS, WHOLE, PACKED, DYNAMIC = (
    "treering",
    "treering, all logits at once",
    "Trainer, packed",
    "Trainer, padded to longest",
)
PADDED = "Trainer, padded to "
SAVE = "the base model, as a Trainer can load it"
WARM_UP = 3
"""Steps before those that count: they find memory and kernels."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repo", type=Path)
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--method", default="lora")
    parser.add_argument("--strategy", default="semantic")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--padded", default="256,512")
    parser.add_argument("--way", help=argparse.SUPPRESS)
    parser.add_argument("--base", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.way:
        print(json.dumps(one(chosen)))
        return
    where = machine()
    lengths = [f"{PADDED}{length}" for length in chosen.padded.split(",")]
    ways = [OURS, WHOLE, PACKED] if chosen.memory else [OURS, PACKED, *lengths, DYNAMIC]
    found: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    with tempfile.TemporaryDirectory(prefix="treering-benchmark-") as folder:
        for way in [SAVE, *ways * chosen.rounds]:
            done = timed([sys.executable, __file__, *sys.argv[1:], "--base", folder, "--way", way])
            if done.code:
                raise SystemExit(f"{way} ended with {done.code}: {done.complaint}")
            if way != SAVE:
                found[way].append(json.loads(done.stdout.decode().splitlines()[-1]))
    medians = {
        way: {key: statistics.median(run[key] for run in runs) for key in runs[0]} for way, runs in found.items()
    }
    if chosen.json:
        print(json.dumps({"machine": where, "ways": medians}, indent=2))
        return
    print(f"{chosen.repo}, {BASE}, {chosen.method}, {chosen.batch_size} x {chosen.length} a step: {describe(where)}\n")
    ours = medians[OURS]
    rows: list[tuple[str, ...]] = [
        ("way", "useful tokens/s", "a CPU second", "of all tokens", "peak MB", "speed", "memory")
    ]
    for way, told in medians.items():
        rows.append(
            (
                way, f"{told['useful'] / told['seconds']:,.0f}", f"{told['useful'] / told['cpu']:,.0f}",
                f"{told['useful'] / told['all']:.0%}", f"{told['peak'] / 1e6:,.0f}",
                f"{(ours['useful'] / ours['seconds']) / (told['useful'] / told['seconds']):.2f}",
                f"{told['peak'] / ours['peak']:.2f}",
            )
        )  # fmt: skip
    print(table(rows))
    print("\nspeed: ours over it; memory: it over ours")


def one(chosen: Any) -> dict[str, float]:
    """Train one way."""
    if chosen.way == SAVE:
        return {"saved": _saved(chosen)}
    return compared(chosen, _stream(chosen))


class _Steps:
    """When each step was over, by the clock and by the CPU."""

    def __init__(self, chosen: Any) -> None:
        self.chosen = chosen
        self.ends: list[tuple[float, float]] = []

    def ended(self) -> bool:
        import torch

        if self.chosen.gpu:
            torch.cuda.synchronize()
        self.ends.append((time.monotonic(), time.process_time()))
        return True

    def told(self, useful: int, every: int) -> dict[str, float]:
        """What the steps that count cost, in which so many tokens were read. No time is no figure."""
        import torch

        before, after = self.ends[WARM_UP - 1], self.ends[WARM_UP + self.chosen.steps - 1]
        seconds, cpu = (late - early for early, late in zip(before, after, strict=True))
        if min(seconds, cpu, useful) <= 0:
            raise FailedError(f"{useful} tokens in {seconds} s, {cpu} s of the CPU: nothing was measured")
        own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        peak = torch.cuda.max_memory_allocated() if self.chosen.gpu else own
        return {"useful": useful, "all": every, "seconds": seconds, "cpu": cpu, "peak": peak}


def _stream(chosen: Any) -> tuple[Any, Any]:
    from treering import learning, opening
    from treering.report import Reporter
    from treering.tokens.pack import read_stream

    flags = {"tokens": {"sequence_length": chosen.length, "strategy": chosen.strategy}}
    return read_stream(learning.tokenize(opening.place(chosen.repo, chosen.store, flags), Reporter())[0])


def compared(chosen: Any, stream: tuple[Any, Any]) -> dict[str, float]:
    """What the steps after the first cost, by one way, over a token stream."""
    warnings.simplefilter("ignore")
    from treering.lm.data import Blocks, split

    corpus, ids = stream
    data = split(corpus, ids)
    if chosen.way in (OURS, WHOLE):
        return _ours(chosen, data)
    batch, length = chosen.batch_size, chosen.length
    if chosen.way == PACKED:
        blocks = Blocks(data.train, length)
        texts = [blocks[number][:-1].tolist() for number in range(len(blocks) - 1)]
    else:
        if chosen.way.startswith(PADDED) and chosen.way != DYNAMIC:
            length = int(chosen.way.removeprefix(PADDED))
            batch = max(1, batch * chosen.length // length)
        documents = zip(data.train.starts, data.train.stops, strict=True)
        texts = [ids[start:stop][:length].tolist() for start, stop in documents]
    widest = length if chosen.way != DYNAMIC else 0
    return _trainer(chosen, texts[-(WARM_UP + chosen.steps) * batch :], corpus.eos_id, batch, widest)


def _saved(chosen: Any) -> float:
    """The base model as a folder of safetensors: the Trainer refuses what was read out of a GGUF."""
    from treering.lm.base import load_base

    load_base(BASE, _stream(chosen)[0].vocab_size, {}, positions=chosen.length, seed=7).save_pretrained(chosen.base)
    return 1.0


def _ours(chosen: Any, data: Any) -> dict[str, float]:
    from treering.lm.base import load_model
    from treering.lm.data import HeldOut
    from treering.lm.hardware import machine as hardware
    from treering.lm.plan import plan
    from treering.lm.recipe import Recipe
    from treering.lm.shape import shape_of
    from treering.lm.train import fine_tune
    from treering.report import Reporter

    recipe = Recipe(
        method=chosen.method, minutes=1e6, epochs=1000, batch_size=chosen.batch_size, learning_rate=1e-3,
        sequence_length=chosen.length, seed=7, gpu=chosen.gpu,
        max_steps=WARM_UP + chosen.steps + 1,  # it is not asked after its last step
    )  # fmt: skip
    planned = plan(
        hardware(gpu=chosen.gpu), shape_of(str(chosen.base)), method=chosen.method, sequences=chosen.batch_size,
        sequence_length=chosen.length,
    )  # fmt: skip
    planned = replace(
        planned, precision="bf16-mixed" if chosen.gpu else "32-true", batch_size=chosen.batch_size, accumulate=1,
        chunked_loss=chosen.way == OURS, gradient_checkpointing=False, compile=False,
    )  # fmt: skip
    data = replace(data, validation=HeldOut((), (), ()))  # the Trainer looks at none either
    model, steps = load_model(chosen.base), _Steps(chosen)
    with tempfile.TemporaryDirectory() as folder:
        _, told = fine_tune(
            lambda: model, data, recipe, planned, Reporter(), name="benchmark", checkpoints=Path(folder) / "c",
            adapter=Path(folder) / "a", save_seconds=1e9, may_go_on=steps.ended,
        )  # fmt: skip
    tokens = told.tokens * chosen.steps // told.steps
    return steps.told(tokens, tokens)


def _trainer(chosen: Any, texts: list[list[int]], pad: int, batch_size: int, widest: int) -> dict[str, float]:
    """Padded to ``widest``; where that is 0, to the longest of a batch."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, Trainer, TrainerCallback, TrainingArguments

    model = AutoModelForCausalLM.from_pretrained(chosen.base)
    if chosen.method == "lora":
        model = get_peft_model(
            model, LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
        )

    def collate(batch: list[Any]) -> dict[str, Any]:
        shape = len(batch), widest or max(len(one["input_ids"]) for one in batch)
        ids, labels, mask = torch.full(shape, pad), torch.full(shape, -100), torch.zeros(shape, dtype=torch.long)
        for row, one in enumerate(batch):
            size = len(one["input_ids"])
            ids[row, :size] = labels[row, :size] = torch.tensor(one["input_ids"])
            mask[row, :size] = 1
        seen.append((int(mask.sum()), mask.numel()))
        return {"input_ids": ids, "labels": labels, "attention_mask": mask}

    class Watch(TrainerCallback):  # type: ignore[misc]  # transformers is not typed for strict
        def on_step_end(self, *_: Any, **__: Any) -> None:
            steps.ended()

    steps, seen = _Steps(chosen), list[tuple[int, int]]()
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model=model,
            args=TrainingArguments(
                output_dir=folder,
                max_steps=WARM_UP + chosen.steps,
                per_device_train_batch_size=batch_size,
                learning_rate=1e-3,
                report_to=[],
                save_strategy="no",
                logging_steps=10**6,
                disable_tqdm=True,
                use_cpu=not chosen.gpu,
                bf16=chosen.gpu,
                dataloader_pin_memory=chosen.gpu,
                seed=7,
            ),
            train_dataset=[{"input_ids": text} for text in texts],
            data_collator=collate,
            callbacks=[Watch()],
        )
        trainer.train()
    counted = seen[WARM_UP : WARM_UP + chosen.steps]
    return steps.told(sum(useful for useful, _ in counted), sum(every for _, every in counted))


if __name__ == "__main__":
    main()
