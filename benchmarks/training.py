"""How fast a training reads: our packed blocks beside a Hugging Face Trainer, packed and padded.

The same model, documents, precision and cores, in turns, each run in a process of its own. *Useful* tokens are those
of documents: padding is none. The Trainer gets the packed blocks that we train on; or documents cut at the length and
padded to it (`padding="max_length"`), or each batch padded to its longest. `--memory` compares our loss in chunks with
one of all logits at once instead. Each run trains twice, for two steps and for `--steps` more than that, and the
difference is told: what comes before and after the steps is not counted. Peak memory is of the process, loading
included.

    python benchmarks/training.py REPO --store STORE [--steps 12] [--batch-size 4] [--length 256] [--memory] [--json]
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
from benchmarks.measuring import describe, machine, table, timed

BASE = "smollm2-135m"
WAYS = {
    "treering": "treering, packed",
    "trainer-packed": "Trainer, the same packed blocks",
    "trainer-padded": "Trainer, documents padded to the length",
    "trainer-dynamic": "Trainer, documents padded to their longest",
}
MEMORY = {
    "treering": "treering",
    "treering-whole": "treering, all logits at once",
    "trainer-packed": "Trainer",
}


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
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--way", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.way:
        print(json.dumps(one(chosen)))
        return
    where = machine()
    ways = MEMORY if chosen.memory else WAYS
    found: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    for _ in range(chosen.rounds):
        for way in ways:
            done = timed([sys.executable, __file__, *sys.argv[1:], "--way", way])
            if done.code:
                raise SystemExit(f"{way} ended with {done.code}: {done.complaint}")
            found[way].append(json.loads(done.stdout.decode().splitlines()[-1]))
    medians = {
        way: {key: statistics.median(run[key] for run in runs) for key in runs[0]} for way, runs in found.items()
    }
    if chosen.json:
        print(json.dumps({"machine": where, "ways": medians}, indent=2))
        return
    print(f"{chosen.repo}, {BASE}, {chosen.method}, {chosen.batch_size} x {chosen.length} a step: {describe(where)}\n")
    ours = medians["treering"]
    rows: list[tuple[str, ...]] = [
        ("way", "useful tokens/s", "a CPU second", "of all tokens", "peak MB", "speed", "memory")
    ]
    for way, told in medians.items():
        rows.append(
            (
                ways[way], f"{told['useful'] / told['seconds']:,.0f}", f"{told['useful'] / told['cpu']:,.0f}",
                f"{told['useful'] / told['all']:.0%}", f"{told['peak'] / 1e6:,.0f}",
                f"{(ours['useful'] / ours['seconds']) / (told['useful'] / told['seconds']):.2f}",
                f"{told['peak'] / ours['peak']:.2f}",
            )
        )  # fmt: skip
    print(table(rows))
    print("\nspeed: ours over it; memory: it over ours")


def one(chosen: Any) -> dict[str, float]:
    """Train one way, for two steps and for some more: what the others cost."""
    short, long = (_one(chosen, steps) for steps in (2, 2 + chosen.steps))
    return {key: long[key] - (short[key] if key != "peak" else 0) for key in long}


def _one(chosen: Any, steps: int) -> dict[str, float]:
    warnings.simplefilter("ignore")
    from treering import learning, opening
    from treering.lm.data import Blocks, split
    from treering.report import Reporter
    from treering.tokens.pack import read_stream

    flags = {
        "tokens": {"sequence_length": chosen.length, "strategy": chosen.strategy},
        "train": {"method": chosen.method, "batch_size": chosen.batch_size, "max_steps": steps, "gpu": False},
    }
    folder, _ = learning.tokenize(opening.place(chosen.repo, chosen.store, flags), Reporter())
    corpus, ids = read_stream(folder)
    data = split(corpus, ids)
    if chosen.way.startswith("treering"):
        return _ours(chosen, data, corpus, steps)
    if chosen.way == "trainer-packed":
        blocks = Blocks(data.train, chosen.length)
        texts = [blocks[number][:-1].tolist() for number in range(len(blocks) - 1)]
    else:
        documents = zip(data.train.starts, data.train.stops, strict=True)
        texts = [ids[start:stop][: chosen.length].tolist() for start, stop in documents]
    return _trainer(chosen, texts[-steps * chosen.batch_size :], corpus, steps)


def _loaded(chosen: Any, corpus: Any) -> Any:
    from treering.lm.base import load_base, load_model

    model = load_base(BASE, corpus.vocab_size, {}, positions=chosen.length, seed=7)
    with tempfile.TemporaryDirectory() as folder:  # the Trainer refuses what was read out of a GGUF
        model.save_pretrained(folder)
        return load_model(Path(folder))


def _told(useful: int, every: int, started: tuple[float, float]) -> dict[str, float]:
    return {
        "useful": useful,
        "all": every,
        "seconds": time.monotonic() - started[0],
        "cpu": time.process_time() - started[1],
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def _ours(chosen: Any, data: Any, corpus: Any, steps: int) -> dict[str, float]:
    from treering.lm.data import HeldOut
    from treering.lm.hardware import machine as hardware
    from treering.lm.plan import plan
    from treering.lm.recipe import Recipe
    from treering.lm.shape import shape_of
    from treering.lm.train import fine_tune
    from treering.report import Reporter

    recipe = Recipe(
        method=chosen.method, minutes=1e6, epochs=1000, batch_size=chosen.batch_size, learning_rate=1e-3,
        sequence_length=chosen.length, seed=7, gpu=False, max_steps=steps,
    )  # fmt: skip
    planned = plan(
        hardware(gpu=False), shape_of(BASE), method=chosen.method, sequences=chosen.batch_size,
        sequence_length=chosen.length,
    )  # fmt: skip
    planned = replace(
        planned, precision="32-true", batch_size=chosen.batch_size, accumulate=1,
        chunked_loss=chosen.way != "treering-whole", gradient_checkpointing=False,
    )  # fmt: skip
    data = replace(data, validation=HeldOut((), (), ()))  # the Trainer looks at none either
    model = _loaded(chosen, corpus)
    with tempfile.TemporaryDirectory() as folder:
        started = time.monotonic(), time.process_time()
        _, told = fine_tune(
            lambda: model, data, recipe, planned, Reporter(), name="benchmark", checkpoints=Path(folder) / "c",
            adapter=Path(folder) / "a", save_seconds=1e9,
        )  # fmt: skip
    return _told(told.tokens, told.tokens, started)


def _trainer(chosen: Any, texts: list[list[int]], corpus: Any, steps: int) -> dict[str, float]:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import Trainer, TrainingArguments

    model = _loaded(chosen, corpus)
    if chosen.method == "lora":
        model = get_peft_model(
            model, LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
        )
    pad = corpus.eos_id

    def collate(batch: list[Any]) -> dict[str, Any]:
        widest = chosen.length if chosen.way == "trainer-padded" else max(len(one["input_ids"]) for one in batch)
        ids = torch.full((len(batch), widest), pad)
        labels = torch.full((len(batch), widest), -100)
        mask = torch.zeros((len(batch), widest), dtype=torch.long)
        for row, one in enumerate(batch):
            size = len(one["input_ids"])
            ids[row, :size] = labels[row, :size] = torch.tensor(one["input_ids"])
            mask[row, :size] = 1
        seen[0] += int(mask.sum())
        seen[1] += mask.numel()
        return {"input_ids": ids, "labels": labels, "attention_mask": mask}

    seen = [0, 0]
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model=model,
            args=TrainingArguments(
                output_dir=folder,
                max_steps=steps,
                per_device_train_batch_size=chosen.batch_size,
                learning_rate=1e-3,
                report_to=[],
                save_strategy="no",
                logging_steps=10**6,
                disable_tqdm=True,
                use_cpu=True,
                dataloader_pin_memory=False,
                seed=7,
            ),
            train_dataset=[{"input_ids": text} for text in texts],
            data_collator=collate,
        )
        started = time.monotonic(), time.process_time()
        trainer.train()
    return _told(seen[0], seen[1], started)


if __name__ == "__main__":
    main()
