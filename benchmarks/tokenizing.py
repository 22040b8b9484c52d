"""Encoding by tiktoken and by Hugging Face, in turns in one run, over the documents of a repository's history.

The history with patches is told by a strategy (diff-aware by default), as `treering tokenize` tells it, in a store of
its own that is gone at the end. Then each way encodes all documents in batches, one after the other, `--rounds` times;
the figures are CPU seconds, so that other work on the machine counts little, and the least of all rounds. Hugging
Face's is its `encode_batch` alone, as it comes; ours checks first whether each text fits, and says where each token
begins. Whether the ids are the same is looked at for every document. Last, `treering tokenize` as one whole process.

    python benchmarks/tokenizing.py REPO [--model smollm2-135m gpt2] [--strategy diff-aware] [--rounds 3] [--json]
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.measuring import TREERING, describe, machine, table, timed

from treering import opening, operations
from treering.pipeline.common import caps_of
from treering.pipeline.tokenize import told_records
from treering.report import Reporter
from treering.text.strategies import NEEDS_PATCHES, Telling, documents
from treering.tokens.encoding import BATCH, Encoder
from treering.tokens.tokenizer import load_tokenizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repo", type=Path)
    parser.add_argument("--model", nargs="+", default=["smollm2-135m", "gpt2"])
    parser.add_argument("--strategy", default="diff-aware")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    where = machine()
    with tempfile.TemporaryDirectory(prefix="treering-benchmark-") as folder:
        store = Path(folder) / "store"
        texts, telling_seconds = told(chosen.repo.resolve(), store, chosen.strategy)
        encoding = {model: encoded(model, texts, chosen.rounds) for model in chosen.model}
        done = timed([TREERING, "tokenize", "--repo", chosen.repo.resolve(), "--store", store,
                      "--strategy", chosen.strategy, "--model", chosen.model[0], "--json"])  # fmt: skip
    if done.code:
        raise SystemExit(f"treering tokenize ended with {done.code}: {done.complaint}")
    whole = {
        "model": chosen.model[0],
        "seconds": done.seconds,
        "cpu": done.cpu,
        "tokens": json.loads(done.stdout)["total_tokens"],
        "memory": asdict(done.memory),
    }
    if chosen.json:
        measured = {"documents": len(texts), "bytes": sum(len(text.encode()) for text in texts)}
        print(json.dumps({"machine": where, "repo": str(chosen.repo), "strategy": chosen.strategy, **measured,
                          "telling_cpu": telling_seconds, "encoding": encoding, "whole": whole}, indent=2))  # fmt: skip
        return
    print(f"{chosen.repo}, {len(texts):,} documents ({chosen.strategy}): {describe(where)}\n")
    rows = [("tokenizer", "tokens", "way", "CPU s a million tokens", "tokens/s a core", "ratio", "ids")]
    for model, found in encoding.items():
        alike = f"{found['alike']:,} of {len(texts):,} alike"
        for way in ("hugging_face", "ours"):
            cpu = found[way]
            ratio = f"{found['hugging_face'] / cpu:.2f}"
            rate = f"{found['tokens'] / cpu:,.0f}"
            rows.append((model, f"{found['tokens']:,}", way, f"{cpu / found['tokens'] * 1e6:.3f}", rate, ratio, alike))
        if found["why_not"]:
            rows.append((model, "", f"no tiktoken: {found['why_not']}", "", "", "", ""))
    print(table(rows))
    print(f"\nreading and telling the history: {telling_seconds:.1f} CPU s")
    print(
        f"treering tokenize --model {chosen.model[0]}, scraped before: {done.seconds:.1f} s, {done.cpu:.1f} CPU s with"
        f" git's, {whole['tokens']:,} tokens; peak memory {done.memory}"
    )


def told(repo: Path, store: Path, strategy: str) -> tuple[list[str], float]:
    """The documents of a repository, and the CPU seconds of this process that reading and telling them took."""
    place = opening.place(repo, store, {"tokens": {"strategy": strategy}})
    operations.scrape(place, Reporter())
    caps = caps_of(place.settings) if strategy in NEEDS_PATCHES else None
    with place.store() as opened:
        kinds = opened.paths()
        started = time.process_time()
        with told_records(opened, place.source, place.settings, caps) as records:
            telling = Telling(lambda path: kinds.get(path, ""))
            texts = [document.text for _, document in documents(records, strategy, telling)]
        return texts, time.process_time() - started


def encoded(model: str, texts: Sequence[str], rounds: int) -> dict[str, Any]:
    """CPU seconds of both ways, the number of tokens, and of how many documents the ids are alike."""
    tokenizer = load_tokenizer(model)
    encoder = Encoder(tokenizer)
    seconds: dict[str, list[float]] = {"hugging_face": [], "ours": []}
    for _ in range(rounds):
        theirs, spent = batches(tokenizer.encode, texts)
        seconds["hugging_face"].append(spent)
        ours, spent = batches(encoder, texts)
        seconds["ours"].append(spent)
    return {
        "tokens": sum(map(len, theirs)),
        "alike": sum(ids == mine.tolist() for ids, (mine, _) in zip(theirs, ours, strict=True)),
        "why_not": encoder.why_not,
        **{way: min(spent) for way, spent in seconds.items()},
    }


def batches(encode: Callable[[Sequence[str]], list[Any]], texts: Sequence[str]) -> tuple[list[Any], float]:
    """What encodes, over all texts; and its CPU seconds, all threads together."""
    started = time.process_time()
    made = [one for at in range(0, len(texts), BATCH) for one in encode(texts[at : at + BATCH])]
    return made, time.process_time() - started


if __name__ == "__main__":
    main()
