"""What fine-tuning within a time budget is worth: the base model, the tuned one and an adaptive byte n-gram, in bits
per byte of the newest commits, which none of them learned from.

Runs `treering train --repo REPO --minutes M` as one whole process in a store of its own, gone at the end unless
`--store` names one. The relative change is the tuned model against the base; its interval is the report's 95 % of a
paired bootstrap over the held-out documents, divided by the base's bits per byte (which stands still).

    python benchmarks/learning.py REPO [--minutes 5] [--store STORE] [--json]
"""

import argparse
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.measuring import TREERING, Memory, describe, machine, table, timed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repo", type=Path)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--store", type=Path)
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    told = learned(chosen.repo, chosen.store, chosen.minutes)
    where, bits, (_, low, high) = told["machine"], told["bits_per_byte"], told["relative_change"]
    if chosen.json:
        print(json.dumps(told, indent=2, ensure_ascii=False))
        return
    print(f"{chosen.repo}, {chosen.minutes:g} minute(s) on {told['device']}: {describe(where)}\n")
    rows = [("model", "bits/byte", "against base"), (f"base ({told['base_model']})", f"{bits['base']:.4f}", "-")]
    rows += [(name, f"{bits[name]:.4f}", f"{bits[name] / bits['base'] - 1:+.1%}") for name in ("tuned", "ngram")]
    print(table(rows))
    print(
        f"\ntuned against base: 95 % interval {low:+.1%} to {high:+.1%}, over {told['held_out_documents']:,} held-out"
        f" commits of {told['held_out_bytes']:,} bytes"
    )
    print(
        f"learned from {told['tokens']:,} tokens ({told['epochs_done']:.2f} epochs of"
        f" {told['train_tokens']:,} tokens of {told['train_documents']:,} commits) in {told['training_seconds']:.0f} s:"
        f" {told['tokens_per_second']:,.0f} tokens/s, stopped by {told['stopped_by']}"
    )
    print(
        f"the whole process, history and evaluation included: {told['process_seconds']:.0f} s; peak memory"
        f" {Memory(**told['memory'])}"
    )
    print(told["verdict"])


def learned(repo: Path, store: Path | None, minutes: float) -> dict[str, Any]:
    """Train, and tell what came of it."""
    where = machine()
    with tempfile.TemporaryDirectory(prefix="treering-benchmark-") as folder:
        place = ("--repo", repo.resolve(), "--store", (store or Path(folder) / "store").resolve())
        done = timed([TREERING, "train", *place, "--minutes", str(minutes), "--json"])
    if done.code:
        raise SystemExit(f"treering train ended with {done.code}: {done.complaint}")
    report: dict[str, Any] = json.loads(done.stdout)["report"]
    holdout, training = report["holdout"], report["training"]
    bits = holdout["bits_per_byte"]
    return {
        "machine": where,
        "repo": str(repo),
        "minutes": minutes,
        "base_model": report["base_model"],
        "bits_per_byte": bits,
        "relative_change": [change / bits["base"] for change in holdout["difference"]],
        "held_out_documents": holdout["documents"],
        "held_out_bytes": holdout["bytes"],
        "train_documents": report["train_documents"],
        "train_tokens": report["train_tokens"],
        "tokens": training["tokens"],
        "tokens_per_second": training["tokens"] / training["seconds"],
        "epochs_done": training["epochs_done"],
        "stopped_by": training["stopped_by"],
        "device": f"{training['device']}, {training['precision']}",
        "training_seconds": training["seconds"],
        "process_seconds": done.seconds,
        "memory": asdict(done.memory),
        "verdict": report["verdict"],
    }


HEADING = ("repository", "held out", "base", "n-gram", "tuned", "against base", "tokens learned from", "whole process")


def row(name: str, told: dict[str, Any]) -> tuple[str, ...]:
    """As docs/training.md has it, under ``HEADING``."""
    bits, (change, low, high) = told["bits_per_byte"], told["relative_change"]
    return (
        name, f"{told['held_out_documents']}, {told['held_out_bytes']:,} bytes",
        *(f"{bits[way]:.3f}" for way in ("base", "ngram", "tuned")),
        f"{change:+.1%} [{100 * low:+.1f}, {100 * high:+.1f}]",
        f"{told['tokens']:,} ({told['tokens_per_second']:,.0f}/s)", f"{told['process_seconds']:.0f} s",
    )  # fmt: skip


if __name__ == "__main__":
    main()
