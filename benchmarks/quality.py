"""How well commits and files are found over several repositories together: what docs/quality.md tells.

    python benchmarks/quality.py REPO=STORE[=QUESTIONS] [...] [--most 250] [--files 100] [--json]

Every store must be indexed. The cases, the ways and the slices are those of `treering bench`, of all repositories
pooled; ratios and intervals are to BM25 on messages, 95 % by a paired bootstrap over the cases. Files are predicted
for commits of the newest fifth of each repository, from weights that were learned without it.
"""

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.measuring import describe, machine, table

from treering import benching, opening
from treering.git.reader import Reader, open_reader
from treering.report import Reporter
from treering.search import benchmark
from treering.search.benchmark import RESAMPLES, Case, Judged
from treering.search.commits import Finder
from treering.search.files import Predictor, shipped
from treering.types import BASELINE, FileRow

MOST = 250


@dataclass(frozen=True, slots=True)
class Bench:
    """A repository with its cases, open."""

    name: str
    finder: Finder
    reader: Reader
    cases: list[Case]
    messages: dict[int, str]


@contextmanager
def opened(place: str, most: int = MOST) -> Iterator[Bench]:
    """Open ``REPO=STORE[=QUESTIONS]``."""
    repo, store, *questions = place.split("=")
    where = opening.place(Path(repo), Path(store))
    with opening.finder(where, Reporter()) as finder, open_reader(where.source, where.settings.scrape) as reader:
        messages = benching.messages_of(finder)
        cases = benching.cases_of(finder, reader, messages, Path(questions[0]) if questions else None, most)
        yield Bench(Path(repo).name.removesuffix(".git"), finder, reader, cases, messages)


def ratio(ours: list[float], theirs: list[float]) -> tuple[float, float, float]:
    """The ratio of the means, and its interval."""
    one, other = np.array(ours), np.array(theirs)
    chosen = np.random.default_rng(7).integers(0, len(one), (RESAMPLES, len(one)))
    ratios = one[chosen].mean(axis=1) / np.maximum(other[chosen].mean(axis=1), 1e-9)
    low, high = np.quantile(ratios, (0.025, 0.975))
    return float(one.mean() / max(float(other.mean()), 1e-9)), float(low), float(high)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("places", nargs="+", metavar="REPO=STORE[=QUESTIONS]")
    parser.add_argument("--most", type=int, default=MOST)
    parser.add_argument("--files", type=int, default=100)
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    where = machine()
    slices: list[list[str]] = []
    outcomes: dict[str, list[benchmark.Outcome]] = {}
    files: dict[str, list[FileRow]] = {}
    tips: dict[str, str] = {}
    for place in chosen.places:
        with opened(place, chosen.most) as bench:
            judged = benchmark.judged(bench.finder, bench.cases, bench.messages)
            slices += [[f"{bench.name}: {name}" for name in of if name != "all"] + of for of in judged.slices]
            for way, found in judged.outcomes.items():
                outcomes.setdefault(way, []).extend(found)
            predictor = Predictor(bench.finder.history, prior=shipped(bench.name))
            files[bench.name] = benchmark.measure_files(predictor, bench.reader.shadow, bench.messages, chosen.files)
            history = bench.finder.history
            tips[bench.name] = f"{len(history):,} commits, the newest {history.hashes[-1]}"
            print(f"{bench.name}: {tips[bench.name]}; {len(judged.slices)} cases", file=sys.stderr, flush=True)
    rows = benchmark.rows_of(Judged(slices, outcomes))
    ours, theirs = outcomes["treering"], outcomes[BASELINE]
    ratios = {
        "MRR": ratio([one.reciprocal for one in ours], [one.reciprocal for one in theirs]),
        "recall": ratio([one.recall for one in ours], [one.recall for one in theirs]),
    }
    if chosen.json:
        told = {"machine": where, "repositories": tips, "rows": rows, "ratios": ratios, "files": files}
        print(msgspec.json.encode(told).decode())
        return
    print(describe(where))
    print("\n".join(f"{name}: {tip}" for name, tip in tips.items()) + "\n")
    lines: list[tuple[str, ...]] = [
        ("cases", "way", "n", "MRR@10", "recall@10", "MRR, difference", "recall, difference")
    ]
    for row in sorted(rows, key=lambda row: row.cases_of):
        spans = (f"[{low:+.3f}, {high:+.3f}]" for low, high in (row.mrr_difference, row.recall_difference))
        lines.append((row.cases_of, row.way, str(row.cases), f"{row.mrr:.3f}", f"{row.recall:.3f}", *spans))
    print(table(lines))
    for name, (mean, low, high) in ratios.items():
        print(f"pooled {name}@10: {mean:.3f} times {BASELINE} [{low:.3f}, {high:.3f}]")
    print()
    lines = [("files of", "way", "n", "MRR@10", "recall@10", "recall, difference to the vote")]
    for name, predicted in files.items():
        for one in predicted:
            low, high = one.recall_difference
            lines.append(
                (name, one.way, str(one.cases), f"{one.mrr:.3f}", f"{one.recall:.3f}", f"[{low:+.3f}, {high:+.3f}]")
            )
    print(table(lines))


if __name__ == "__main__":
    main()
