"""One search over many repositories, beside what people do instead: `git log --grep` in each of them, and a search in
each of them.

    python benchmarks/fleet_search.py FLEET [--from REPO ...] [--stores 200] [--commits 100] [--questions 100] [--json]

FLEET is a folder with `mirrors/NAME.git` and `stores/NAME`. What is missing of `--stores` is made there first: each
mirror is a part of some hundred commits of one of the repositories `--from`, fetched with a depth, and is indexed. The
questions are subjects of commits from all of the stores; told is how long they take, and how often the commit itself
comes first or among the first ten. git is given the words of the subject, all of which the message must hold.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.measuring import describe, git, machine, plain_environment, table

from treering import opening, operations
from treering.config import Settings
from treering.gathering import Gathering
from treering.report import Reporter
from treering.search.commits import Finder
from treering.store import Store
from treering.text.words import plain_words
from treering.types import Hit
from treering.vectors.embedder import Embedder, embed, load_embedder
from treering.vectors.index import Matrix
from treering.vectors.minilm import NAME

SEED = 7
WARM = 20
WORDS = 3
"""A shorter subject asks for nothing."""
GREPPED = 10
"""So many of the questions are asked of git: one takes it a second."""

Answer = Callable[[str], Sequence[str]]
"""The hashes that answer a question, best first."""


@dataclass(frozen=True, slots=True)
class Question:
    subject: str
    commit: str


def parts(repo: Path, count: int, commits: int) -> Iterator[tuple[str, int]]:
    """Tips along a history, evenly apart, each with the depth at which it has at most so many commits."""
    rows = [line.split() for line in git(repo, "rev-list", "--parents", "HEAD").splitlines()]
    parents = {name: names for name, *names in rows}
    line = git(repo, "rev-list", "--first-parent", "HEAD").split()
    for place in range(count):
        tip = line[place * len(line) // count]
        seen, level, depth = {tip}, [tip], 0
        while level and len(seen) <= commits:
            depth += 1
            level = [name for name in dict.fromkeys(one for own in level for one in parents[own]) if name not in seen]
            seen.update(level)
        yield tip, depth


def made(fleet: Path, repos: Sequence[Path], stores: int, commits: int) -> None:
    """Make what is missing of so many stores."""
    for repo in repos:
        each = -(-stores // len(repos))
        for number, (tip, depth) in enumerate(parts(repo, each, commits)):
            name = f"{repo.resolve().name.removesuffix('.git')}-{number:03d}"
            mirror, store = fleet / "mirrors" / f"{name}.git", fleet / "stores" / name
            if not (mirror / "HEAD").is_file():
                git(fleet, "init", "--quiet", "--bare", "--initial-branch=main", str(mirror))
            if not (mirror / "refs" / "heads" / "main").is_file():
                source = f"file://{repo.resolve()}"
                git(mirror, "fetch", "--quiet", "--no-tags", f"--depth={depth}", source, f"{tip}:refs/heads/main")
            if not (store / "treering.db").is_file():
                operations.index(opening.place(mirror, store), Reporter())


def questions_of(stores: dict[str, Path], count: int) -> list[Question]:
    """Subjects of commits of all stores that are no merges."""
    found: list[Question] = []
    for folder in stores.values():
        with Store.existing(folder) as store:
            history = Finder(store, None).history
            told = store.headlines(history.ids[~history.merges].tolist())
            found += [Question(one.subject[:200], one.hash) for one in told if len(one.subject.split()) >= WORDS]
    return [found[place] for place in np.random.default_rng(SEED).permutation(len(found))[:count]]


class Remembering(Embedder):
    """An embedder that knows the last text: asking many stores one question then embeds it once."""

    def __init__(self, of: Embedder) -> None:
        self._of, self._last = of, ("", np.zeros((0, 0), np.float32))
        self.name, self.dimensions, self.fingerprint, self.length = of.name, of.dimensions, of.fingerprint, of.length

    def offsets(self, texts: Sequence[str]) -> Iterable[list[tuple[int, int]]]:
        return self._of.offsets(texts)

    def batches(self, texts: Sequence[str]) -> Iterator[tuple[list[int], Matrix]]:
        for place, text in enumerate(texts):
            if self._last[0] != text:
                self._last = text, embed(self._of, [text])
            yield [place], self._last[1]


def grep(mirrors: Sequence[Path]) -> Answer:
    """`git log` of each repository, as many at once as there are cores, for messages that hold every word."""

    def ask(question: str) -> list[str]:
        wanted = [option for word in plain_words(question) for option in ("--grep", word)]
        command = ["log", "--all", "--format=%ct %H", "--regexp-ignore-case", "--fixed-strings", "--all-match", *wanted]

        def one(mirror: Path) -> list[str]:
            told = subprocess.run(["git", "-C", mirror, *command], capture_output=True, env=plain_environment())
            return told.stdout.decode().splitlines()

        with ThreadPoolExecutor(os.cpu_count()) as threads:
            lines = [line for own in threads.map(one, mirrors) for line in own]
        return [line.split()[1] for line in sorted(lines, reverse=True)]

    return ask


def one_by_one(finders: Sequence[Finder]) -> Answer:
    """A search in each store, and the best of all by their scores."""

    def ask(question: str) -> list[str]:
        hits: list[Hit] = [hit for finder in finders for hit in finder.search(question, limit=10)]
        return [hit.commit_hash for hit in sorted(hits, key=lambda hit: -hit.score)[:10]]

    return ask


def memory() -> float:
    """Megabytes of this process that no file holds."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.is_file() else []
    return next((int(line.split()[1]) / 1000 for line in lines if line.startswith("RssAnon")), 0.0)


def measured(answer: Answer, warming: Sequence[Question], questions: Sequence[Question]) -> dict[str, float]:
    for question in warming:
        answer(question.subject)
    times, ranks = [], []
    for question in questions:
        started = time.perf_counter()
        found = list(answer(question.subject))[:10]
        times.append(1000 * (time.perf_counter() - started))
        ranks.append(found.index(question.commit) if question.commit in found else 10)
    return {
        "questions": len(questions),
        "p50 ms": round(float(np.percentile(times, 50)), 1),
        "p99 ms": round(float(np.percentile(times, 99)), 1),
        "first": round(float(np.mean([rank == 0 for rank in ranks])), 3),
        "among ten": round(float(np.mean([rank < 10 for rank in ranks])), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fleet", type=Path)
    parser.add_argument("--from", dest="repos", type=Path, nargs="*", default=[], metavar="REPO")
    parser.add_argument("--stores", type=int, default=200)
    parser.add_argument("--commits", type=int, default=100)
    parser.add_argument("--questions", type=int, default=100)
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    if chosen.repos:
        (chosen.fleet / "mirrors").mkdir(parents=True, exist_ok=True)
        made(chosen.fleet, chosen.repos, chosen.stores, chosen.commits)
    where = machine()
    stores = dict(list(opening.stores_of(chosen.fleet).items())[: chosen.stores])
    warming, questions = (asked := questions_of(stores, WARM + chosen.questions))[:WARM], asked[WARM:]
    embedder = load_embedder(NAME)
    embed(embedder, ["loaded"])
    before, started = memory(), time.perf_counter()
    report = Reporter()
    found: dict[str, dict[str, float]] = {}
    with Gathering(stores, Settings(), report, embedder=embedder) as opened:
        opened.search(warming[0].subject)
        took = time.perf_counter() - started
        found["one search over all"] = measured(
            lambda question: [hit.commit_hash for hit in opened.search(question, limit=10)], warming, questions
        )
        found["one search over all"] |= {"opened in s": round(took, 2), "memory MB": round(memory() - before)}
    if report.warnings:
        raise SystemExit("\n".join(report.warnings))
    before, started = memory(), time.perf_counter()
    with ExitStack() as stack:
        remembering = Remembering(embedder)
        finders = [Finder(stack.enter_context(Store.existing(folder)), remembering) for folder in stores.values()]
        commits = sum(len(finder.history) for finder in finders)
        one_by_one(finders)(warming[0].subject)
        took = time.perf_counter() - started
        found["a search in each"] = measured(one_by_one(finders), warming, questions)
        found["a search in each"] |= {"opened in s": round(took, 2), "memory MB": round(memory() - before)}
    mirrors = [chosen.fleet / "mirrors" / f"{name}.git" for name in stores]
    found["git log --grep in each"] = measured(grep(mirrors), warming[:1], questions[:GREPPED])
    ours = found["one search over all"]["p50 ms"]
    for told in found.values():
        told["times ours"] = round(told["p50 ms"] / ours, 1)
    if chosen.json:
        print(json.dumps({"machine": where, "stores": len(stores), "commits": commits, **found}, indent=2))
        return
    print(f"{len(stores)} stores, {commits:,} commits: {describe(where)}\n")
    columns = list(found["one search over all"])
    print(
        table([("", *columns), *((name, *(str(told.get(one, "")) for one in columns)) for name, told in found.items())])
    )


if __name__ == "__main__":
    main()
