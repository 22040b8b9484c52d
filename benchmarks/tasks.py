"""What a tuned model is worth on later commits: bits per byte beside an adaptive byte n-gram and xz, and four tasks
beside the best that needs no neural model. What docs/training.md tells.

    python benchmarks/tasks.py REPO=STORE [...] [--most 40] [--json]

Every store must be indexed and hold a trained model (`treering run`). Runs `treering evaluate` on each, one after the
other.
"""

import argparse
import sys
from pathlib import Path

import msgspec

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.measuring import describe, machine, table

from treering import learning, opening
from treering.pipeline.evaluate import Evaluation
from treering.report import Reporter


def span(difference: tuple[float, float, float]) -> str:
    return f"{difference[0]:+.3f} [{difference[1]:+.3f}, {difference[2]:+.3f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("places", nargs="+", metavar="REPO=STORE")
    parser.add_argument("--most", type=int, default=40)
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    where = machine()
    made: dict[str, Evaluation] = {}
    for place in chosen.places:
        repo, _, store = place.partition("=")
        opened = opening.place(Path(repo), Path(store))
        report = Reporter(sys.stderr)
        made[opened.source.name] = learning.evaluate(opened, report, asked=learning.TASKS, most=chosen.most)
    if chosen.json:
        print(msgspec.json.encode({"machine": where, "evaluations": made}).decode())
        return
    print(f"{describe(where)}\n")
    lines: list[tuple[str, ...]] = [
        ("repository", "part", "commits", "base", "tuned", "n-gram", "xz", "tuned to base", "tuned to the n-gram")
    ]
    for name, told in made.items():
        for part in told.parts:
            figures = (f"{part.bits_per_byte[way]:.3f}" for way in ("base", "tuned", "ngram", "xz"))
            spans = (span(part.differences[way]) for way in ("base", "ngram"))
            lines.append((name, part.part, str(part.documents), *figures, *spans))
    print(table(lines))
    lines = [("repository", "task", "measure", "commits", "way", "figure", "the model to the best other")]
    for name, told in made.items():
        for row in told.tasks:
            for way, value in row.ways.items():
                difference = span(row.difference) if way == row.model else ""
                lines.append((name, row.task, row.measure, str(row.cases), way, f"{value:.3f}", difference))
    print(table(lines))
    print("seconds: " + ", ".join(f"{name} {told.seconds:.0f}" for name, told in made.items()))


if __name__ == "__main__":
    main()
