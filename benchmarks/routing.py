"""Does a router know which tasks the local layer can handle? Measured on real commits, without any API.

    python benchmarks/routing.py REPO=STORE [REPO=STORE ...] [--commits 400] [--keep FILE] [--write] [--json]

Every store must be indexed. A task is the subject of a commit, its answer the commit. It counts as simple, which is
what the local layer is for, if all files it changed that were there before are among the ten that `treering files`
predicts, and it changed at most 3 files and 40 lines. That says where to look and that there is little to do; it does
not say that a local model writes the change. Features know only what came before the commit (its ancestors).

Of each repository the older two thirds of the tasks are learned from, the newer third is judged:

  always local, always Claude, random (as many to Claude, by chance)
  cold start: the weights learned from the older tasks of the other repositories
  learned: the same, drawn towards this repository's own older tasks

Solved: a simple task that stays local, and every task that goes to Claude (assumed; nobody asked Claude here). Spend is
what the calls would cost, in parts of sending all. Intervals are 95 % by a paired bootstrap over the tasks. `--write`
keeps the weights of all repositories together in src/treering/assist/route.json; `--keep` the cases, for a second look.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from treering import benching, opening
from treering.assist import route
from treering.assist.budget import prices_of
from treering.assist.features import Measures, features, tokens_of
from treering.git.blame import texts, tree
from treering.git.shadow import GitFailed, shadow_of
from treering.report import Reporter
from treering.search.benchmark import RESAMPLES, cleaned, interval, title_of
from treering.search.files import Predictor

PREDICTED = 10
NEWEST = 0.6
"""The part of the history that tasks are taken from: what comes before is there to be known."""
OLDER = 2 / 3
SHARES = (0.25, 0.5, 0.75)
PRICED = "claude-opus-5-5"
BUDGET = 8000
"""Tokens of a context."""

Figures = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Case:
    """A task, what was known of it before, whether it turned out simple, and what asking Claude would cost."""

    commit: str
    features: Mapping[str, float]
    simple: bool
    dollars: float


def cases(repo: Path, store: Path, most: int) -> list[Case]:
    """Tasks of the newer part of a history, evenly spread, oldest first."""
    where, price = opening.place(repo, store), prices_of().of(PRICED)
    found = []
    with opening.finder(where, Reporter()) as finder, shadow_of(where.source) as shadow:
        history, predictor = finder.history, Predictor(finder.history)
        measures, messages = Measures(history, predictor), benching.messages_of(finder)
        plain = np.flatnonzero(~history.merges & ~history.empty(history.everything))
        plain = plain[int(len(plain) * (1 - NEWEST)) :]
        chosen = plain[np.unique(np.linspace(0, len(plain) - 1, most).astype(int))] if len(plain) else plain
        for number in chosen.tolist():
            task, first = cleaned(title_of(messages[number])), history.parent(number)
            if first is None or len(task.split()) < 2 or not measures.files[number]:
                continue
            mask = history.at(history.hashes[number])
            mask[number] = False
            try:
                candidates = tree(shadow, first)
            except GitFailed:
                continue
            (record,) = finder.store.records(ids=[int(history.ids[number])])
            there = set(record.paths).intersection(candidates)
            contents = partial(texts, shadow, first)
            guessed = predictor.predict(task, candidates, mask=mask, limit=PREDICTED, contents=contents)
            told, tokens = features(finder, measures, task, guessed, mask=mask, contents=contents)
            simple = measures.small[number] and there <= {one.path for one in guessed}
            dollars = route.expected(
                price, route.call_tokens(tokens_of(task), sum(tokens.values()), BUDGET), route.TYPICAL_OUTPUT
            )
            found.append(Case(record.commit_hash, told, bool(simple), dollars))
    return found


def auc(chance: Figures, simple: npt.NDArray[np.bool_]) -> float:
    """The part of the pairs of a simple task and another in which the simple one is taken for the simpler."""
    if simple.all() or not simple.any():
        return float("nan")
    one, other = chance[simple][:, None], chance[~simple][None, :]
    return float(((one > other) + 0.5 * (one == other)).mean())


def bought(chance: Figures, dollars: Figures, spend: float) -> Figures:
    """Which go to Claude for ``spend`` (a part of sending all): the least likely simple ones, the last in part."""
    order = np.argsort(chance, kind="stable")
    before = np.cumsum(dollars[order]) - dollars[order]
    part = np.zeros(len(chance))
    part[order] = np.clip((spend * dollars.sum() - before) / dollars[order], 0, 1)
    return part


def solved(sent: Figures, simple: npt.NDArray[np.bool_]) -> Figures:
    return sent + (1 - sent) * simple


def auc_interval(chance: Figures, simple: npt.NDArray[np.bool_]) -> tuple[float, float]:
    places = np.random.default_rng(7).integers(0, len(chance), (RESAMPLES, len(chance)))
    drawn = np.array([auc(chance[at], simple[at]) for at in places])
    drawn = drawn[~np.isnan(drawn)]
    low, high = np.quantile(drawn, [0.025, 0.975]) if len(drawn) else (float("nan"), float("nan"))
    return float(low), float(high)


def judged(newer: list[Case], ways: Mapping[str, Figures]) -> dict[str, object]:
    """Figures of every way on the newer tasks; differences are to the cold start, or to chance at the same spend."""
    simple = np.array([one.simple for one in newer], bool)
    dollars = np.array([one.dollars for one in newer])
    rows: dict[str, object] = {
        "tasks": len(newer),
        "always local solves, and is right for": round(float(simple.mean()), 3),
        "always Claude is right for": round(float(1 - simple.mean()), 3),
    }
    cold = ways["cold start"]
    cold_right = ((cold >= route.LOCAL_FROM) == simple).astype(np.float64)
    spent = float(dollars[cold < route.LOCAL_FROM].sum() / dollars.sum())
    shares = {f"{share:.0%}": share for share in SHARES} | {"what the cold start spends": spent}
    for name, chance in ways.items():
        right = ((chance >= route.LOCAL_FROM) == simple).astype(np.float64)
        told: dict[str, object] = {
            "AUC": round(auc(chance, simple), 3),
            "AUC interval": rounded(auc_interval(chance, simple)),
            "accuracy": round(float(right.mean()), 3),
            "Brier": round(float(((chance - simple) ** 2).mean()), 3),
            "stays local": round(float((chance >= route.LOCAL_FROM).mean()), 3),
            "spends": round(float(dollars[chance < route.LOCAL_FROM].sum() / dollars.sum()), 3),
        }
        for said, share in shares.items():
            own = solved(bought(chance, dollars, share), simple)
            told[f"solved at {said}"] = round(float(own.mean()), 3)
            told[f"random at {said}"] = round(float((share + (1 - share) * simple).mean()), 3)
            told[f"over random at {said}"] = rounded(interval(own, share + (1 - share) * simple))
            if name != "cold start":
                told[f"over cold start at {said}"] = rounded(
                    interval(own, solved(bought(cold, dollars, share), simple))
                )
        if name != "cold start":
            told["accuracy over cold start"] = rounded(interval(right, cold_right))
            told["Brier less than cold start"] = rounded(interval((cold - simple) ** 2, (chance - simple) ** 2))
        rows[name] = told
    return rows


def pooled(newer: Mapping[str, list[Case]], ways: Mapping[str, Mapping[str, Figures]]) -> dict[str, object]:
    """The same differences over all tasks, each repository with the spend of its own."""
    told: dict[str, object] = {"tasks": sum(map(len, newer.values()))}
    for way in next(iter(ways.values())):
        figures: dict[str, list[Figures]] = {}
        for name, of in newer.items():
            simple, dollars = np.array([one.simple for one in of], bool), np.array([one.dollars for one in of])
            chance, cold = ways[name][way], ways[name]["cold start"]
            for share in SHARES:
                own, theirs = (solved(bought(one, dollars, share), simple) for one in (chance, cold))
                figures.setdefault(f"solved at {share:.0%} over random", []).append(own - share - (1 - share) * simple)
                figures.setdefault(f"solved at {share:.0%} over cold start", []).append(own - theirs)
            right, cold_right = ((one >= route.LOCAL_FROM) == simple for one in (chance, cold))
            figures.setdefault("accuracy over always local", []).append(right * 1.0 - simple)
            figures.setdefault("accuracy over always Claude", []).append(right * 1.0 - ~simple)
            figures.setdefault("accuracy over cold start", []).append(right * 1.0 - cold_right)
            figures.setdefault("Brier less than cold start", []).append((cold - simple) ** 2 - (chance - simple) ** 2)
        rows = {key: np.concatenate(parts) for key, parts in figures.items()}
        told[way] = {
            key: (round(float(row.mean()), 3), rounded(interval(row, np.zeros(len(row))))) for key, row in rows.items()
        }
    return told


def rounded(pair: tuple[float, float]) -> list[float]:
    return [round(one, 3) for one in pair]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("places", nargs="+", metavar="REPO=STORE")
    parser.add_argument("--commits", type=int, default=400)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    data: dict[str, list[Case]] = {}
    if chosen.keep and chosen.keep.exists():
        data = {name: [Case(**one) for one in of] for name, of in json.loads(chosen.keep.read_text("utf-8")).items()}
    for place in chosen.places:
        repo, _, store = place.partition("=")
        name = Path(repo).name.removesuffix(".git")
        if name not in data:
            data[name] = cases(Path(repo), Path(store), chosen.commits)
            print(f"{name}: {len(data[name])} tasks", file=sys.stderr, flush=True)
            if chosen.keep:
                kept = {
                    name: [{key: getattr(one, key) for key in Case.__slots__} for one in of]
                    for name, of in data.items()
                }
                chosen.keep.write_text(json.dumps(kept), "utf-8")
    parts = {name: (of[: int(len(of) * OLDER)], of[int(len(of) * OLDER) :]) for name, of in data.items()}
    told, ways = {}, {}
    for name, (older, newer) in parts.items():
        others = [one for other, (theirs, _) in parts.items() if other != name for one in theirs]
        cold = route.learned([(one.features, one.simple) for one in others or older])
        models = {
            "cold start": cold,
            "learned": cold.drawn_to([(one.features, one.simple) for one in older]),
        }
        ways[name] = {way: np.array([model.chance(one.features) for one in newer]) for way, model in models.items()}
        told[name] = judged(newer, ways[name])
    told["all together"] = pooled({name: newer for name, (_, newer) in parts.items()}, ways)
    if not chosen.json:
        for name, rows in told.items():
            print(name)
            for key, value in rows.items():
                print(f"  {key}: {value}")
    if chosen.json:
        print(json.dumps(told, indent=1))
    if chosen.write:
        every = route.learned([(one.features, one.simple) for older, _ in parts.values() for one in older])
        route.write_model(every, {name: len(older) for name, (older, _) in parts.items()})


if __name__ == "__main__":
    main()
