"""A training killed at random moments (`kill -9`) and gone on with, until it gets through: are its losses those of one
that nothing disturbed?

Runs `treering train --max-steps N` as whole processes on a small model from scratch: once undisturbed, then killed
again and again. Between kills nothing is cleaned up.

    python benchmarks/resume.py REPO [--kills 20] [--steps 60] [--batch-size 4]
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.measuring import TREERING


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repo", type=Path)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="treering-benchmark-") as folder:
        store = Path(folder) / "store"
        command = [
            str(TREERING), "train", "--repo", str(chosen.repo.resolve()), "--store", str(store), "--json",
            "--model", "scratch", "--method", "full", "--minutes", "10000", "--epochs", "1000", "--no-gpu",
            "--max-steps", str(chosen.steps), "--batch-size", str(chosen.batch_size),
        ]  # fmt: skip
        started = time.monotonic()
        whole = _report(subprocess.run(command, capture_output=True, check=True).stdout)
        duration = time.monotonic() - started
        losses = whole["training"]["losses"]
        dice = random.Random(chosen.seed)  # noqa: S311
        kills = trainings = differences = 0
        resumed: list[int] = []
        while kills < chosen.kills:
            _forget(store)
            told: dict[str, Any] | None = None
            while told is None:
                running = subprocess.Popen(
                    [*command, "--save-seconds", "0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
                )
                try:
                    out, _ = running.communicate(timeout=dice.uniform(0.3, 1.0) * duration)
                    told = _report(out)
                except subprocess.TimeoutExpired:
                    running.kill()
                    running.communicate()
                    kills += 1
            trainings += 1
            resumed.append(told["training"]["resumed_at"])
            differences += told["training"]["losses"] != losses or told["holdout"] != whole["holdout"]
        print(
            f"{kills} kills over {trainings} trainings of {len(losses)} steps, gone on with last after steps {resumed}:"
            f" {differences} differ from the undisturbed one in any loss or in the verdict's figures"
        )
        sys.exit(bool(differences))


def _report(out: bytes) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(out)["report"]
    return told


def _forget(store: Path) -> None:
    """Remove the finished model, so that the same training is done again."""
    import shutil

    for model in (store / "models").glob("*-git-model"):
        shutil.rmtree(model)


if __name__ == "__main__":
    main()
