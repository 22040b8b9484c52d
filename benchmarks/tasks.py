"""What a tuned model is worth on later commits: bits per byte beside an adaptive byte n-gram and xz, and four tasks
beside the best that needs no neural model. Prints the tables of docs/training.md.

    python benchmarks/tasks.py REPO=STORE [...] [--minutes 5] [--most 40] [--json]

Every store must be indexed, and hold a trained model (`treering run`) where `--minutes` does not ask for one: then each
is trained for so long first, as `learning.py` does. Runs `treering evaluate` on each, one after the other.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import msgspec

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.learning import HEADING, learned, row
from benchmarks.measuring import describe, machine, markdown

from treering import learning, opening
from treering.lm.yardsticks import BASE_SHOWN, TUNED_SHOWN
from treering.pipeline.evaluate import Evaluation
from treering.report import Reporter


def span(difference: tuple[float, float, float]) -> str:
    return f"{difference[0]:+.3f} [{difference[1]:+.3f}, {difference[2]:+.3f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("places", nargs="+", metavar="REPO=STORE")
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--most", type=int, default=40)
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    where = machine()
    trained: dict[str, dict[str, Any]] = {}
    made: dict[str, Evaluation] = {}
    for place in chosen.places:
        repo, _, store = place.partition("=")
        opened = opening.place(Path(repo), Path(store))
        name = opened.source.name
        if chosen.minutes:
            trained[name] = learned(Path(repo), Path(store), chosen.minutes)
        made[name] = learning.evaluate(opened, Reporter(sys.stderr), asked=learning.TASKS, most=chosen.most)
    if chosen.json:
        print(msgspec.json.encode({"machine": where, "trained": trained, "evaluations": made}).decode())
        return
    print(f"{describe(where)}\n")
    if trained:
        print(markdown([HEADING, *(row(name, told) for name, told in trained.items())]), end="\n\n")
    print(markdown(parts(made)), end="\n\n")
    print(markdown(tasks(made)), end="\n\n")
    for name, told in made.items():
        others = {f"{one.task}, {one.measure}": one.ways for one in told.tasks}
        print(f"{name}: perplexity {told.perplexity}, {told.seconds:.0f} s\n{told.verdict}")
        for measure, ways in others.items():
            print(f"  {measure}: " + ", ".join(f"{way} {value:.3f}" for way, value in ways.items()))


def parts(made: dict[str, Evaluation]) -> list[tuple[str, ...]]:
    """Bits per byte of each part."""
    rows: list[tuple[str, ...]] = [
        ("repository", "part", "base", "tuned", "n-gram", "xz", "tuned to base", "tuned to the n-gram",
         "base, shown", "tuned, shown", "shown: tuned to base", "shown: tuned to the n-gram")
    ]  # fmt: skip
    for name, told in made.items():
        for part in told.parts:
            figures = (f"{part.bits_per_byte[way]:.3f}" for way in ("base", "tuned", "ngram", "xz"))
            spans = (span(part.differences[way]) for way in ("base", "ngram"))
            shown = (f"{part.bits_per_byte[way]:.3f}" for way in (BASE_SHOWN, TUNED_SHOWN))
            rest = (span(part.shown[way]) for way in (BASE_SHOWN, "ngram"))
            rows.append((name, part.part, *figures, *spans, *shown, *rest))
    return rows


def tasks(made: dict[str, Evaluation]) -> list[tuple[str, ...]]:
    """Each measure of each task: the best without a model, and the way with it."""
    rows: list[tuple[str, ...]] = [
        ("repository", "task, measure", "commits", "without a model", "with the model", "difference", "won")
    ]
    for name, told in made.items():
        rows += [
            (
                name, f"{one.task}, {one.measure}", str(one.cases), f"{one.ways[one.baseline]:.3f} ({one.baseline})",
                f"{one.ways[one.model]:.3f}", span(one.difference), "yes" if one.won else "no",
            )
            for one in told.tasks
        ]  # fmt: skip
    return rows


if __name__ == "__main__":
    main()
