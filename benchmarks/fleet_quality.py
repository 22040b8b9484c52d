"""How well a repository is searched as one of many, beside the search in it alone.

    python benchmarks/fleet_quality.py FLEET NAME=REPO[=QUESTIONS] [...] [--most 80]

FLEET is a folder with a store for each repository, as benchmarks/fleet_search.py makes one; among them NAME, the store
of the repository REPO. Asked are its cases (docs/quality.md), the newest of each source, of all there is and without
the texts of merges; with QUESTIONS those of that file, too. An answer counts by its hash, wherever it is found.
"""

import argparse
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.measuring import table

from treering import opening
from treering.benching import cases_of, messages_of
from treering.config import Settings
from treering.gathering import Gathering
from treering.git.reader import open_reader
from treering.report import Reporter
from treering.search.benchmark import Case, interval
from treering.search.commits import Finder
from treering.vectors.embedder import load_embedder
from treering.vectors.minilm import NAME


def reciprocal(finder: Finder, query: str, answers: set[str]) -> float:
    """One over the rank of the first answer among ten, of commits with the same patch the first one counting; 0 if
    there is none.
    """
    history = finder.history
    asked = finder.ask(query, through=~history.merges, merge_texts=False)
    seen: list[int] = []
    for number in asked.numbers.tolist():
        patch = int(history.patch[number])
        if patch >= 0 and patch in seen:
            continue
        if history.hashes[number] in answers:
            return 1 / (len(seen) + 1)
        seen.append(patch)
        if len(seen) == 10:
            break
    return 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fleet", type=Path)
    parser.add_argument("repositories", nargs="+", metavar="NAME=REPO[=QUESTIONS]")
    parser.add_argument("--most", type=int, default=80)
    chosen = parser.parse_args()
    stores, embedder = opening.stores_of(chosen.fleet), load_embedder(NAME)
    rows: list[tuple[str, ...]] = [("", "cases", "alone", "among ten", "of many", "among ten", "difference of MRR")]
    with Gathering(stores, Settings(), Reporter.to_stderr(), embedder=embedder) as opened:
        many = opened.finder(None)
        print(f"{len(stores)} stores, {len(many.history):,} commits; MRR@10\n")
        for told in chosen.repositories:
            name, repo, *questions = told.split("=")
            where = opening.place(Path(repo), stores[name])
            with where.store(existing=True) as store, open_reader(where.source, where.settings.scrape) as reader:
                alone = Finder(store, embedder)
                asked = Path(questions[0]) if questions else None
                cases = defaultdict[str, list[Case]](list)
                for case in cases_of(alone, reader, messages_of(alone), asked, chosen.most):
                    cases[case.source].append(case)
                for source, these in cases.items():
                    answers = [{alone.history.hashes[number] for number in case.answers} for case in these]
                    figures = [
                        np.array(
                            [reciprocal(of, case.query, right) for case, right in zip(these, answers, strict=True)]
                        )
                        for of in (alone, many)
                    ]
                    low, high = interval(figures[1], figures[0])
                    cells = [f"{figure:.3f}" for of in figures for figure in (of.mean(), (of > 0).mean())]
                    rows.append((f"{name}, {source}", str(len(these)), *cells, f"[{low:+.3f}, {high:+.3f}]"))
    print(table(rows))


if __name__ == "__main__":
    main()
