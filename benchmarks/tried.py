"""What was tried to make search better and is not in it, each beside the search that is.

    python benchmarks/tried.py REPO=STORE[=QUESTIONS] [...]

Every store must be indexed. The cases are those of `benchmarks/learn_weights.py`; what is learned is learned from all
repositories but the one that it is tried on. Printed are the intervals of the differences, 95 % by a paired bootstrap.

reranker: a linear one over the first 100, learned from pairs of an answer and another commit (logistic regression)
expansion: a commit's nearness to the question is mixed with the mean of that of its five nearest candidates
map: the question's vector, mapped to where code lies: ridge regression of a commit's code's vector on its message's
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.learn_weights import Asked, asked, repository
from benchmarks.measuring import describe, machine, table
from benchmarks.quality import Bench, opened

from treering.search.benchmark import Outcome, interval, outcome
from treering.search.files import fitted
from treering.search.fusion import LEARNED, Legs, fused, z_scores
from treering.text.document import KINDS
from treering.vectors.embedder import embed

FIRST = 100
NEIGHBOURS = 5
PAIRS = 20
"""How many of the other commits an answer is paired with."""
RIDGE = 30.0
PARTS = (0.25, 0.5, 1.0)

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Tried:
    """A case, its question's vector, and of its candidates the vectors: of all their texts, and of their code."""

    asked: Asked
    question: Array
    middles: Array
    code: Array

    @property
    def legs(self) -> Legs:
        return self.asked.legs

    def judged(self, scores: Array) -> Outcome:
        order = np.argsort(-scores)
        return outcome(self.asked.history, self.asked.case, (self.legs.numbers[order], scores[order]))


def read(bench: Bench) -> tuple[dict[str, list[Tried]], tuple[Array, Array]]:
    """The cases of a repository, and the vectors of the messages and of the code of its commits that have both."""
    dense, history = bench.finder.dense, bench.finder.history
    if dense is None:
        raise SystemExit(f"{bench.name} has no vectors")
    silent = history.empty(history.everything)
    vectors = {kind: np.zeros((len(history), dense.embedder.dimensions)) for kind in KINDS}
    names = history.store.vector_names(dense.embedder.fingerprint)
    numbers = history.numbers(np.array([name[0] for name in names], np.int64)).tolist()
    for number, (_, kind, part), row in zip(numbers, names, dense.rows, strict=True):
        if number >= 0 and not part:
            vectors[kind][number] = row
    middles = dense.middles(silent)
    both = ~silent & vectors["message"].any(axis=1) & vectors["code"].any(axis=1)
    found = {}
    for name, of in asked(bench).items():
        questions = embed(dense.embedder, [one.case.query for one in of]).astype(np.float64)
        found[name] = [
            Tried(one, question, middles[one.legs.numbers], vectors["code"][one.legs.numbers])
            for one, question in zip(of, questions, strict=True)
        ]
    return found, (vectors["message"][both], vectors["code"][both])


def features(one: Tried, scores: Array) -> tuple[npt.NDArray[np.int64], Array]:
    """Places of the first candidates, and a row for each: the legs, what they come to, ranks, age."""
    legs = one.legs
    first = np.argsort(-scores)[:FIRST]
    parts = (
        legs.text, legs.own, legs.message, legs.code, legs.coverage, legs.literal, legs.diff, legs.meant,
        legs.silent.astype(float), legs.share * legs.diff, legs.numbers / len(one.asked.history), z_scores(scores),
    )  # fmt: skip
    ranks = 1 / (2 + np.arange(len(first)))
    return first, np.column_stack([*(part[first] for part in parts), ranks])


def pairs(one: Tried, scores: Array) -> Array:
    """What the features of an answer have over those of another commit of the first."""
    first, rows = features(one, scores)
    right = np.isin(one.legs.numbers[first], list(one.asked.case.answers))
    others = rows[~right][:PAIRS]
    return (rows[right][:, None, :] - others[None, :, :]).reshape(-1, rows.shape[1])


def reranked(cases: dict[str, list[Tried]], without: str) -> Callable[[Tried], Array]:
    seen = [one for name, of in cases.items() if repository(name) != without for one in of]
    better = np.concatenate([pairs(one, fused(one.legs, LEARNED)) for one in seen])
    rows, right = np.concatenate([better, -better]), np.repeat([True, False], len(better))
    prior = np.zeros(rows.shape[1] + 1)
    prior[-3] = 1.0  # the score as it is
    weights = fitted(rows, right, prior)

    def rerank(one: Tried) -> Array:
        scores = fused(one.legs, LEARNED)
        first, found = features(one, scores)
        changed = scores - scores.max() - 1e6  # behind all of the first
        changed[first] = found @ weights[:-1]
        return np.asarray(changed)

    return rerank


def expanded(one: Tried, part: float) -> Array:
    near = one.middles @ one.middles.T
    np.fill_diagonal(near, -np.inf)
    nearest = np.argpartition(-near, min(NEIGHBOURS, len(near) - 1), axis=1)[:, :NEIGHBOURS]
    message = z_scores(one.legs.message + part * one.legs.message[nearest].mean(axis=1))
    return fused(replace(one.legs, message=message), LEARNED)


def mapped(known: dict[str, tuple[Array, Array]], without: str) -> Callable[[Tried, float], Array]:
    messages, codes = (np.concatenate([of[side] for name, of in known.items() if name != without]) for side in (0, 1))
    product = messages.T @ messages + RIDGE * np.eye(messages.shape[1])
    matrix = np.linalg.solve(product, messages.T @ codes)

    def score(one: Tried, part: float) -> Array:
        question = one.question @ matrix
        near = z_scores(one.code @ question / max(float(np.linalg.norm(question)), 1e-9))
        return fused(replace(one.legs, code=(1 - part) * one.legs.code + part * near), LEARNED)

    return score


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("places", nargs="+", metavar="REPO=STORE[=QUESTIONS]")
    chosen = parser.parse_args()
    where = machine()
    cases: dict[str, list[Tried]] = {}
    known: dict[str, tuple[Array, Array]] = {}
    for place in chosen.places:
        with opened(place) as bench:
            own, known[bench.name] = read(bench)
            cases |= own
            print(f"{bench.name}: {sum(map(len, own.values()))} cases", file=sys.stderr, flush=True)
    ways: dict[str, list[Outcome]] = {}
    for name, of in cases.items():
        rerank, map_ = reranked(cases, repository(name)), mapped(known, repository(name))
        for one in of:
            said = {"as it is": fused(one.legs, LEARNED), "reranker": rerank(one)}
            said |= {f"expansion, {part}": expanded(one, part) for part in PARTS}
            said |= {f"map, {part}": map_(one, part) for part in PARTS}
            for way, scores in said.items():
                ways.setdefault(way, []).append(one.judged(scores))
    figures = {way: np.array([(one.reciprocal, one.recall) for one in of]) for way, of in ways.items()}
    lines: list[tuple[str, ...]] = [("way", "MRR@10", "recall@10", "MRR, difference", "recall, difference")]
    for way, found in figures.items():
        spans = [interval(found[:, column], figures["as it is"][:, column]) for column in (0, 1)]
        means = (f"{mean:.3f}" for mean in found.mean(axis=0))
        lines.append((way, *means, *(f"[{low:+.3f}, {high:+.3f}]" for low, high in spans)))
    print(f"{describe(where)}\n")
    print(table(lines))


if __name__ == "__main__":
    main()
