"""Learn what each leg of a search counts, from the histories of several repositories.

    python benchmarks/learn_weights.py REPO=STORE[=QUESTIONS] [...] [--tries 400] [--write]

Every store must be indexed. The cases are those of `treering bench`, and the questions of a file where one is named;
what is made better is the mean over the repositories (a file of questions counts as one) of MRR@10 + recall@10. A
random search from the present weights changes each by a quarter or so, keeps what is best, and goes on from there. Each
repository is also judged by the weights that are best for all others (what somebody gets whose repository was not
learned from), beside a plain fusion in which text and vectors count the same. What the diff counts for is not learned:
only the seed's repository has many messages that say nothing.
`--write` rounds the best and keeps them in src/treering/search/weights.json with these figures.
"""

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.quality import Bench, opened

from treering.search import fusion
from treering.search.benchmark import Case, Outcome, before, interval, outcome
from treering.search.fusion import Legs, Weights, fused
from treering.search.history import History

SEED = 7
PLAIN = Weights(own=0, dense=0.5, code=1, coverage=0, literal=0, diff=0)
"""The text's z-score and the mean of the vectors', and nothing else."""
STEP = 0.25
DEEPEST = 60
"""How many of the best candidates are looked at: enough for ten changes."""

Figures = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Asked:
    """A case with what the legs say of it."""

    history: History
    case: Case
    legs: Legs

    def judged(self, weights: Weights) -> Outcome:
        scores, numbers = fused(self.legs, weights), self.legs.numbers
        if len(numbers) > DEEPEST:
            best = np.argpartition(-scores, DEEPEST)[:DEEPEST]
            scores, numbers = scores[best], numbers[best]
        order = np.argsort(-scores)
        return outcome(self.history, self.case, (numbers[order], scores[order]))


def asked(bench: Bench) -> dict[str, list[Asked]]:
    """The cases of a repository, its questions apart."""
    history = bench.finder.history
    found: dict[str, list[Asked]] = {}
    for case in bench.cases:
        name = f"{bench.name} questions" if case.source == "questions" else bench.name
        legs = bench.finder.ask(case.query, mask=before(history, case), through=~history.merges).legs
        if legs is not None:
            found.setdefault(name, []).append(Asked(history, case, legs))
    return found


def figures(cases: dict[str, list[Asked]], weights: Weights) -> dict[str, Figures]:
    """MRR and recall of each case, shape (cases, 2), by repository."""
    return {
        name: np.array([(one.reciprocal, one.recall) for one in (each.judged(weights) for each in of)])
        for name, of in cases.items()
    }


def worth(found: dict[str, Figures], without: str = "") -> float:
    """The mean over the repositories of MRR + recall, leaving one out with its questions."""
    return float(np.mean([one.mean(axis=0).sum() for name, one in found.items() if name.partition(" ")[0] != without]))


def rounded(weights: Weights) -> dict[str, float]:
    return {name: float(f"{value:.2g}") for name, value in asdict(weights).items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("places", nargs="+", metavar="REPO=STORE[=QUESTIONS]")
    parser.add_argument("--tries", type=int, default=400)
    parser.add_argument("--write", action="store_true")
    chosen = parser.parse_args()
    cases: dict[str, list[Asked]] = {}
    for place in chosen.places:
        with opened(place) as bench:
            cases |= asked(bench)
    chance = np.random.default_rng(SEED)
    names = [name for name in asdict(fusion.LEARNED) if name != "diff"]
    tried = [(weights, figures(cases, weights)) for weights in (PLAIN, fusion.LEARNED)]
    plain, best = tried
    for _ in range(chosen.tries):
        factors = np.exp(chance.normal(0, STEP, len(names))).tolist()
        known = asdict(best[0])
        weights = Weights(**known | {name: known[name] * one for name, one in zip(names, factors, strict=True)})
        tried.append((weights, figures(cases, weights)))
        if worth(tried[-1][1]) > worth(best[1]):
            best = tried[-1]
            print(f"{worth(best[1]):.4f}", rounded(weights), flush=True)
    told = {}
    for name in dict.fromkeys(name.partition(" ")[0] for name in cases):
        other = max(tried, key=lambda one: worth(one[1], name))[1]
        for own in (own for own in cases if own.partition(" ")[0] == name):
            told[own] = {
                "cases": len(cases[own]),
                "mrr, recall": [round(float(one), 3) for one in best[1][own].mean(axis=0)],
                "mrr, recall left out": [round(float(one), 3) for one in other[own].mean(axis=0)],
                "mrr, recall plain": [round(float(one), 3) for one in plain[1][own].mean(axis=0)],
            }
            print(own, told[own])
    left_out = np.concatenate(
        [max(tried, key=lambda one: worth(one[1], own.partition(" ")[0]))[1][own] for own in cases]
    )
    base = np.concatenate([plain[1][own] for own in cases])
    for column, name in enumerate(("MRR", "recall")):
        low, high = interval(left_out[:, column], base[:, column])
        print(f"{name} left out, over the plain fusion: [{low:+.4f}, {high:+.4f}]")
    if chosen.write:
        written = json.dumps({"learned_from": told, "weights": rounded(best[0])}, indent=1)
        Path(fusion.__file__).with_name("weights.json").write_text(written + "\n", "utf-8")


if __name__ == "__main__":
    main()
