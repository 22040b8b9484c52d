"""Learn what each leg of a search counts, from the histories of several repositories.

    python benchmarks/learn_weights.py REPO=STORE[=QUESTIONS] [...] [--tries 400] [--write]

Every store must be indexed. The cases are those of `treering bench`, and the questions of a file where one is named;
what is made better is the mean over the repositories (a file of questions counts as one) of MRR@10 + recall@10. A
random search from a plain fusion, in which text and vectors count the same, changes each weight by a quarter or so,
keeps what is best, and goes on from there. The same search is made once for each repository without it, and judges it:
what somebody gets whose repository was not learned from. What the diff counts for is not learned (only the seed's
repository has many messages that say nothing), and is the same in the plain fusion; `no diff` is the one without.
`--write` rounds the weights learned from all and keeps them in src/treering/search/weights.json with these figures.
"""

import argparse
import json
import sys
from dataclasses import asdict, dataclass, replace
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
PLAIN = Weights(own=0, dense=0.5, code=1, coverage=0, literal=0, diff=fusion.LEARNED.diff)
"""The text's z-score and the mean of the vectors'; and the diff where a message says nothing."""
START = replace(PLAIN, own=0.1, coverage=0.1, literal=0.1)
"""Where a search begins: a weight that is nothing is no more after a factor."""
STEP = 0.3
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


def worth(found: dict[str, Figures]) -> float:
    """The mean over the repositories of MRR + recall."""
    return float(np.mean([one.mean(axis=0).sum() for one in found.values()]))


def repository(name: str) -> str:
    """Whose cases, or questions, are called so."""
    return name.partition(" ")[0]


def walk(cases: dict[str, list[Asked]], tries: int, without: str = "") -> tuple[Weights, dict[str, Figures]]:
    """The best weights that a random search finds, and what they are worth to those that it saw: not to ``without``."""
    seen = {name: of for name, of in cases.items() if repository(name) != without}
    chance = np.random.default_rng(SEED)
    names = [name for name in asdict(START) if name != "diff"]
    best, found = START, figures(seen, START)
    for _ in range(tries):
        factors = np.exp(chance.normal(0, STEP, len(names))).tolist()
        known = asdict(best)
        weights = Weights(**known | {name: known[name] * one for name, one in zip(names, factors, strict=True)})
        tried = figures(seen, weights)
        if worth(tried) > worth(found):
            best, found = weights, tried
    print(f"without {without or 'none'}: {worth(found):.4f}", rounded(best), flush=True)
    return best, found


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
    learned, best = walk(cases, chosen.tries)
    plain, undiffed = figures(cases, PLAIN), figures(cases, replace(PLAIN, diff=0))
    told: dict[str, dict[str, object]] = {}
    left_out: dict[str, Figures] = {}
    for name in dict.fromkeys(map(repository, cases)):
        weights, _ = walk(cases, chosen.tries, without=name)
        own = {one: of for one, of in cases.items() if repository(one) == name}
        left_out |= figures(own, weights)
        for one, of in own.items():
            ways = {"": best, " left out": left_out, " plain": plain, " plain, no diff": undiffed}
            told[one] = {"cases": len(of), "weights left out": rounded(weights)} | {
                f"mrr, recall{way}": [round(float(mean), 3) for mean in found[one].mean(axis=0)]
                for way, found in ways.items()
            }
            print(one, told[one], flush=True)
    for way, base in (("the plain fusion", plain), ("that without the diff", undiffed)):
        for column, name in enumerate(("MRR", "recall")):
            ours, theirs = (np.concatenate([found[one][:, column] for one in cases]) for found in (left_out, base))
            low, high = interval(ours, theirs)
            print(f"{name} left out, over {way}: [{low:+.4f}, {high:+.4f}]")
    if chosen.write:
        written = json.dumps({"learned_from": told, "weights": rounded(learned)}, indent=1)
        Path(fusion.__file__).with_name("weights.json").write_text(written + "\n", "utf-8")


if __name__ == "__main__":
    main()
