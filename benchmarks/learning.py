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
from benchmarks.measuring import TREERING, describe, machine, table, timed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repo", type=Path)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--store", type=Path)
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    where = machine()
    with tempfile.TemporaryDirectory(prefix="treering-benchmark-") as folder:
        place = ("--repo", chosen.repo.resolve(), "--store", (chosen.store or Path(folder) / "store").resolve())
        done = timed([TREERING, "train", *place, "--minutes", str(chosen.minutes), "--json"])
    if done.code:
        raise SystemExit(f"treering train ended with {done.code}: {done.complaint}")
    report: dict[str, Any] = json.loads(done.stdout)["report"]
    holdout, training = report["holdout"], report["training"]
    bits = holdout["bits_per_byte"]
    told = {
        "machine": where,
        "repo": str(chosen.repo),
        "minutes": chosen.minutes,
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
    if chosen.json:
        print(json.dumps(told, indent=2, ensure_ascii=False))
        return
    print(f"{chosen.repo}, {chosen.minutes:g} minute(s) on {told['device']}: {describe(where)}\n")
    rows = [("model", "bits/byte", "against base"), (f"base ({report['base_model']})", f"{bits['base']:.4f}", "-")]
    rows += [(name, f"{bits[name]:.4f}", f"{bits[name] / bits['base'] - 1:+.1%}") for name in ("tuned", "ngram")]
    print(table(rows))
    _, low, high = (change / bits["base"] for change in holdout["difference"])
    print(
        f"\ntuned against base: 95 % interval {low:+.1%} to {high:+.1%}, over {holdout['documents']:,} held-out commits"
        f" of {holdout['bytes']:,} bytes"
    )
    print(
        f"learned from {training['tokens']:,} tokens ({training['epochs_done']:.2f} epochs of"
        f" {report['train_tokens']:,} tokens of {report['train_documents']:,} commits) in {training['seconds']:.0f} s:"
        f" {training['tokens'] / training['seconds']:,.0f} tokens/s, stopped by {training['stopped_by']}"
    )
    print(f"the whole process, history and evaluation included: {done.seconds:.0f} s; peak memory {done.memory}")
    print(report["verdict"])


if __name__ == "__main__":
    main()
