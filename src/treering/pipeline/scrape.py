"""git → records: into the store, or straight through."""

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from treering.config import Settings
from treering.git.reader import Source, open_reader, read_refs
from treering.pipeline.common import batched, caps_of
from treering.report import Reporter
from treering.store import BATCH, Store
from treering.types import Commit, HistoryStats, Record, record_of


def history(source: Source, settings: Settings, report: Reporter) -> Iterator[Record]:
    """Every commit of every branch with its hunks, oldest first, without a store."""
    with open_reader(source, workers=settings.scrape.workers) as reader:
        names = [node.hash for node in reader.nodes]
        commits = report.track(reader.commits(names, caps=caps_of(settings)), len(names), "reading commits")
        for commit, place in zip(commits, reader.places(), strict=True):
            if not commit.diff_complete:
                _tell_partial(report, commit)
            yield record_of(commit, place, source.name)


@dataclass(frozen=True, slots=True)
class Scraped:
    """What a scrape found. ``partial`` counts all commits in the store whose diff is not whole."""

    commits: int
    new: int
    vanished: int
    partial: int
    seconds: float


def scrape(store: Store, source: Source, settings: Settings, report: Reporter) -> Scraped:
    """Bring the store to what the repository's refs say now. Commits that vanished are kept, without a place."""
    started = time.time()
    refs = [(ref.name, ref.tip, ref.rank) for ref in read_refs(source)]
    objects = source.objects_fingerprint()
    weak = store.weak() if store.fact("objects") != objects else set()
    if sorted(refs) == sorted(store.refs()) and not weak:
        return Scraped(store.count(), 0, store.vanished(), store.partial(), round(time.time() - started, 3))
    with store.writing("treering scrape"), open_reader(source, workers=settings.scrape.workers) as reader:
        store.set_fact("repo", source.name)
        known = store.known()
        new = [node.hash for node in reader.nodes if node.hash not in known]
        again = weak.intersection(node.hash for node in reader.nodes)
        commits = report.track(reader.commits([*new, *again]), len(new) + len(again), "reading commits")
        for batch in batched(commits, BATCH):
            store.append(batch)
            better = [commit for commit in batch if commit.hash in again and _is_whole(commit)]
            if better:
                store.clear_documents()  # first: a kill in between must not leave an index of the old reading
            for commit in better:
                store.mend(commit)
            for commit in batch:
                if not commit.diff_complete:
                    _tell_partial(report, commit)
        count, vanished = store.place(reader.places())
        store.set_fact("objects", objects)
        store.set_refs((ref.name, ref.tip, ref.rank) for ref in reader.refs)
        scraped = Scraped(count, len(new), vanished, store.partial(), round(time.time() - started, 3))
        store.log_run("scrape", started, asdict(scraped))
    return scraped


def _is_whole(commit: Commit) -> bool:
    return commit.diff_complete and "shallow" not in commit.flags


def _tell_partial(report: Reporter, commit: Commit) -> None:
    lost = f": {len(commit.unreadable)} file(s) missing, {commit.unreadable[0]} first" if commit.unreadable else ""
    report.detail(f"partial: {commit.hash}{lost}")


def history_stats(store: Store) -> HistoryStats:
    stats = HistoryStats()
    for record in store.records():
        stats.add(record)
    return stats
