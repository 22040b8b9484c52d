"""What it brings to find commits by what was said of them at a forge: what docs/quality.md tells.

    python benchmarks/discussed.py REPO=STORE [...] [--most 150]

Texts of requests are not at hand without a forge, but messages are: where a message is more than its subject, the rest
is taken out of it and kept as the text of a request that was merged as that commit. Every store must be indexed; a copy
of its database is changed. Asked are the cases of `treering bench`, by words alone, since the vectors know the whole
message. Compared is the commit found by its subject, with the text of its request, and by its message as it was.
"""

import argparse
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.measuring import describe, machine, table

from treering import benching, opening
from treering.git.reader import open_reader
from treering.operate.forge import Thread
from treering.operate.threads import Threads
from treering.pipeline.index import index_words
from treering.report import Reporter
from treering.search import benchmark
from treering.search.benchmark import Outcome
from treering.search.commits import Finder
from treering.store import Store

WORDS = 4
"""A body of fewer words says nothing."""
FIRST = 900_000_000
"""The number of the first request: one that no message names."""
WAYS = ("subject", "subject and request", "whole message")


def moved(store: Store) -> list[Thread]:
    """Take the bodies out of the messages of a store, and index its words again; returns them as texts of requests."""
    threads = []
    rows = store.db.execute(
        "SELECT id, hash, subject, body, committer_time FROM commits"
        " WHERE position IS NOT NULL AND instr(parents, ' ') = 0 ORDER BY position"
    ).fetchall()
    with store.writing("a benchmark"), store.transaction():
        for number, (commit_id, name, subject, body, at) in enumerate(rows, start=FIRST):
            if len(body.split()) < WORDS:
                continue
            updated = datetime.fromtimestamp(at, UTC).isoformat()
            threads.append(Thread("request", number, subject, body, "", "merged", "", updated, "", (name,)))
            ((_, said),) = store.features([commit_id])
            alone = msgspec.json.encode(msgspec.structs.replace(said, message=subject))
            store.db.execute("UPDATE documents SET features = ? WHERE commit_id = ?", (alone, commit_id))
            store.db.execute("UPDATE commits SET body = '' WHERE id = ?", (commit_id,))
    with store.writing("a benchmark"):
        store.forget_words()
        index_words(store, Reporter())
    return threads


@contextmanager
def without_bodies(folder: Path) -> Iterator[tuple[Finder, set[str]]]:
    """A store whose bodies are texts of requests, open, and the commits that have one."""
    with tempfile.TemporaryDirectory() as temporary:
        copy = Path(temporary) / "store"
        copy.mkdir()
        shutil.copy2(folder / "treering.db", copy)
        with Store.existing(copy) as store, Threads(copy) as kept:
            threads = moved(store)
            kept.keep(threads, lambda text, _: text)
            finder = Finder(store, None)
            finder.discussing(kept)
            yield finder, {name for one in threads for name in one.commits}


def measured(place: str, most: int) -> Iterator[tuple[bool, dict[str, Outcome]]]:
    """For each case whether an answer has a text of its own, and what each way makes of it."""
    repo, _, folder = place.partition("=")
    where = opening.place(Path(repo), Path(folder))
    with where.store(existing=True) as store, without_bodies(where.folder) as (part, names):
        whole = Finder(store, None)
        history, plain = whole.history, ~whole.history.merges
        said = {history.number[name] for name in names}
        with open_reader(where.source, where.settings.scrape) as reader:
            cases = benchmark.cases_of(history, reader, benching.messages_of(whole), most)
        for case in cases:
            known, found = benchmark.before(history, case), {}
            for way, finder in zip(WAYS, (part, part, whole), strict=True):
                asked = finder.ask(case.query, mask=known, through=plain, discussed=way == WAYS[1])
                found[way] = benchmark.outcome(history, case, (asked.numbers, asked.scores))
            yield bool(case.answers & said), found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("places", nargs="+", metavar="REPO=STORE")
    parser.add_argument("--most", type=int, default=150, help="cases of each source and repository (150)")
    options = parser.parse_args()
    print(f"{describe(machine())}\n")
    lines: list[tuple[str, ...]] = [("answers", "way", "n", "MRR@10", "recall@10", "MRR, difference to the subject")]
    for place in options.places:
        cases = list(measured(place, options.most))
        name = Path(place.partition("=")[0]).name.removesuffix(".git")
        for discussed, which in ((True, "with a text"), (False, "without one")):
            chosen = [found for has, found in cases if has is discussed]
            ranks = {way: np.array([found[way].reciprocal for found in chosen]) for way in WAYS}
            for way in WAYS if chosen else ():
                low, high = benchmark.interval(ranks[way], ranks[WAYS[0]])
                recall = np.mean([found[way].recall for found in chosen])
                told = f"{ranks[way].mean():.3f}", f"{recall:.3f}", f"[{low:+.3f}, {high:+.3f}]"
                lines.append((f"{name}, {which}", way, str(len(chosen)), *told))
    print(table(lines))


if __name__ == "__main__":
    main()
