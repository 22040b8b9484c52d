"""Learn the weights that `treering files` starts with, from the histories of several repositories.

    python benchmarks/learn_files.py REPO=STORE [REPO=STORE ...] [--commits 300] [--write]

Every store must be indexed. Each repository is judged by weights learned from the others alone (recall@10 over its
newest commits, each predicted from what came before it), beside a vote of the nearest commits. `--write` keeps the
weights of all of them together, and those without each, in src/treering/search/files.json.
"""

import argparse
import json
import sys
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from treering import opening
from treering.git.blame import texts, tree
from treering.git.shadow import GitFailed, shadow_of
from treering.search import files
from treering.search.benchmark import cleaned
from treering.search.commits import Finder
from treering.search.files import Matrix

KEPT = 60
"""How many of the untouched files of a commit that look most likely are learned from, and as many by chance."""

GIVEN = 3.0

Example = tuple[Matrix, npt.NDArray[np.bool_]]


def cases(repo: Path, store: Path, most: int) -> list[Example]:
    """Features of all candidates and which of them were touched, for the newest commits."""
    where = opening.place(repo, store)
    chance = np.random.default_rng(7)
    found = []
    with where.store(existing=True) as opened, shadow_of(where.source) as shadow:
        history = Finder(opened, None).history
        predictor = files.Predictor(history)
        plain = np.flatnonzero(~history.merges & ~history.empty(history.everything))[-most:].tolist()
        for number in plain:
            if (first := history.parent(number)) is None:
                continue
            mask = history.at(history.hashes[number])
            mask[number] = False
            own = {
                predictor.touches.names[file] for file in predictor.touches.files[predictor.touches.commits == number]
            }
            try:
                candidates = tree(shadow, first)
            except GitFailed:
                continue
            if not own.intersection(candidates):
                continue
            task = cleaned(opened.message(int(history.ids[number])))
            rows = predictor.features(task, mask, candidates, contents=partial(texts, shadow, first))
            touched = np.array([name in own for name in candidates])
            likely = np.argsort(-rows.sum(axis=1), kind="stable")[:KEPT]
            some = chance.choice(len(candidates), min(KEPT, len(candidates)), replace=False)
            kept = np.unique(np.concatenate([np.flatnonzero(touched), likely, some]))
            found.append((rows[kept], touched[kept]))
    return found


def recall(rows: Matrix, touched: npt.NDArray[np.bool_], weights: Matrix) -> float:
    best = np.argsort(-(rows @ weights[:-1]), kind="stable")[:10]
    return float(touched[best].sum() / touched.sum())


def learned(examples: list[Example]) -> Matrix:
    start = np.zeros(len(files.FEATURES) + 1)
    start[files.FEATURES.index("changed with the given")] = GIVEN  # no case gives a file, so this one is not learned
    rows = np.concatenate([rows for rows, _ in examples])
    return files.fitted(rows, np.concatenate([touched for _, touched in examples]), start, strength=1.0)


def told_of(weights: Matrix) -> dict[str, float]:
    return {name: round(float(weight), 4) for name, weight in zip((*files.FEATURES, "constant"), weights, strict=True)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("places", nargs="+", metavar="REPO=STORE")
    parser.add_argument("--commits", type=int, default=300)
    parser.add_argument("--write", action="store_true")
    chosen = parser.parse_args()
    data = {}
    for place in chosen.places:
        repo, _, store = place.partition("=")
        name = Path(repo).name.removesuffix(".git")
        data[name] = cases(Path(repo), Path(store), chosen.commits)
        print(f"{name}: {len(data[name])} commits", file=sys.stderr, flush=True)
    vote = np.zeros(len(files.FEATURES) + 1)
    vote[files.FEATURES.index("near messages")] = 1
    judged, left_out = {}, {}
    for name, own in data.items():
        others = [example for other, examples in data.items() if other != name for example in examples]
        weights = learned(others or own)
        left_out[name] = told_of(weights)
        judged[name] = [
            round(float(np.mean([recall(*example, chosen_weights) for example in own])), 3)
            for chosen_weights in (vote, weights)
        ]
        print(
            f"{name}: vote of the nearest commits {judged[name][0]:.3f}, learned from the others {judged[name][1]:.3f}"
        )
    weights = learned([example for examples in data.values() for example in examples])
    print(told_of(weights))
    if chosen.write:
        target = Path(files.__file__).with_suffix(".json")
        told = {
            "learned_from": {name: len(examples) for name, examples in data.items()},
            "recall_at_10_left_out": {name: {"vote": one, "learned": other} for name, (one, other) in judged.items()},
            "weights": told_of(weights),
            "weights_left_out": left_out,
        }
        target.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
