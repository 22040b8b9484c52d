"""git → records: into the store, or straight through."""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass

from treering.config import Settings
from treering.errors import StoreError
from treering.git.reader import GitFailed, Reader, Ref, Source, open_reader, read_refs
from treering.pipeline.common import Cleaner, Kinds, batched, caps_of, fingerprint_of, read, write_manifest
from treering.pipeline.index import add_features, clear_if_changed
from treering.report import Reporter
from treering.store import BATCH, Store
from treering.text import kinds as kind_rules
from treering.text import secrets
from treering.types import Commit, HistoryStats, Record, record_of

GRAPH_COMMITS = 5000
"""From so many new commits on, a graph of the history is kept for the next walk: reading it is as much faster than
reading the commits as making it is slower.
"""


def history(source: Source, settings: Settings, report: Reporter, *, hunks: bool = True) -> Iterator[Record]:
    """Every commit that the settings choose with its hunks, oldest first, without a store."""
    with open_reader(source, settings.scrape) as reader:
        names = [node.hash for node in reader.nodes]
        cleaner = Cleaner(settings)
        places = list(map(cleaner.place, reader.places()))
        clean = cleaner.text
        merges = {
            name: clean(message, Counter())
            for name, message in reader.messages(place.merged_by for place in places if place.merged_by).items()
        }
        commits = read(reader, names, settings, caps=caps_of(settings) if hunks else None)
        seen: dict[str, list[str]] = {}
        for commit, place in zip(report.track(commits, len(names), "reading commits"), places, strict=True):
            if not commit.diff_complete:
                _tell_partial(report, commit)
            yield record_of(
                commit,
                place,
                source.name,
                merge_message=merges.get(place.merged_by or "", ""),
                same_patch_as=seen.get(commit.patch_id, [None])[0],
                undoes=seen.get(commit.reverse_id, [None])[-1],
            )
            if commit.patch_id:
                seen.setdefault(commit.patch_id, []).append(commit.hash)


@dataclass(frozen=True, slots=True)
class Scraped:
    """What a scrape found. ``partial`` counts all commits in the store whose diff is not whole."""

    commits: int
    new: int
    vanished: int
    partial: int
    seconds: float


def scrape(
    store: Store,
    source: Source,
    settings: Settings,
    report: Reporter,
    *,
    hunks: bool = False,
    refs: Sequence[Ref] | None = None,
) -> Scraped:
    """Bring the store to what the repository's refs say now and the settings choose. Commits that vanished, or are no
    longer chosen, are kept, without a place. With ``hunks`` what the index needs of them is read in the same pass.
    ``refs`` are those of now, where somebody has read them.
    """
    started = time.time()
    if is_current(store, source, settings, refs):
        return Scraped(store.count(), 0, store.vanished(), store.partial(), round(time.time() - started, 3))
    objects, chosen = source.objects_fingerprint(), selection_of(settings)
    weak = store.weak() if store.fact("objects") != objects else set()
    with store.writing("treering scrape"), ExitStack() as open_things, ThreadPoolExecutor(1) as ahead:
        # git walks the history while we look at what is there.
        graph = store.folder / "commit-graph"
        opening = ahead.submit(open_things.enter_context, open_reader(source, settings.scrape, graph))
        store.set_fact("repo", source.name)
        known = store.placed()
        secrets.load()
        reader = opening.result()
        new = [node.hash for node in reader.nodes if node.hash not in known]
        reading = reading_of(reader, settings)
        stale = store.read_otherwise(reading)
        stale = {node.hash for node in reader.nodes if node.hash in stale} if stale else stale
        again = stale | weak.intersection(node.hash for node in reader.nodes)
        if stale:
            report.say(f"{len(stale):,} commits are read anew: what is taken out of their texts has changed")
            store.forget_merge_messages()
        if hunks:
            clear_if_changed(store, settings, report)
        kinds = Kinds(reader.attributes)
        cleared = False
        commits = read(reader, [*new, *again], settings, caps=caps_of(settings) if hunks else None)
        for batch in batched(report.track(commits, len(new) + len(again), "reading commits"), BATCH):
            store.append(batch, reading)
            better = [
                commit for commit in batch if commit.hash in again and (commit.hash in stale or _is_whole(commit))
            ]
            if better and not cleared:
                store.clear_documents()  # first: a kill in between must not leave an index of the old reading
                cleared = True
            for commit in better:
                store.mend(commit, reading)
            if hunks:
                add_features(store, batch, kinds)
            for commit in batch:
                if not commit.diff_complete:
                    _tell_partial(report, commit)
        cleaner = Cleaner(settings)
        count, vanished = store.place(map(cleaner.place, reader.places()), known)
        clean = cleaner.text
        untold = reader.messages(store.merges_untold())
        store.set_merge_messages({name: clean(message, Counter()) for name, message in untold.items()})
        rules = fingerprint_of(kind_rules.RULES, reader.attributes.fingerprint)
        told = store.fact("kinds") == rules
        kinds.learn(path for path, kind in store.paths().items() if not (told and kind))
        store.set_kinds(kinds.known)
        store.set_fact("kinds", rules)
        store.set_fact("objects", objects)
        store.set_fact("selection", chosen)
        store.set_fact("tips", tips_of(source, settings, reader.refs))  # last: until then a run is not complete
        scraped = Scraped(count, len(new), vanished, store.partial(), round(time.time() - started, 3))
        store.log_run("scrape", started, asdict(scraped))
        write_manifest(store)
        if len(new) > GRAPH_COMMITS and len(reader.nodes) == len(reader.graph) and not store.strange_dates():
            try:
                reader.shadow.write_graph(graph, (ref.tip for ref in reader.refs))
            except (GitFailed, StoreError) as error:  # a shortcut for the next walk, no more
                report.detail(f"no commit-graph was kept: {error}")
    return scraped


def is_current(store: Store, source: Source, settings: Settings, refs: Sequence[Ref] | None = None) -> bool:
    """Whether the store has what the repository's refs say now and the settings choose, as whole as it can be had."""
    return (
        store.fact("tips") == tips_of(source, settings, refs)
        and store.fact("selection") == selection_of(settings)
        and (store.fact("objects") == source.objects_fingerprint() or not store.weak())
    )


def tips_of(source: Source, settings: Settings, refs: Sequence[Ref] | None = None) -> str:
    """Decided by where the refs lead and by where a shallow history ends. A store remembers what it was made from."""
    refs = read_refs(source, settings.scrape) if refs is None else refs
    shallow = source.shallow.read_bytes() if source.shallow.is_file() else b""
    return fingerprint_of(sorted((ref.name, ref.tip, ref.rank) for ref in refs), shallow.hex())


def selection_of(settings: Settings) -> str:
    """Decided by all that chooses commits or changes how they are read; where dates are relative, by the day too."""
    scrape = settings.scrape
    today = time.strftime("%Y-%m-%d") if "ago" in scrape.since + scrape.until else ""
    how = {"workers", "patch_file_bytes", "patch_commit_bytes", "commit_seconds"}
    return fingerprint_of(
        {name: value for name, value in asdict(scrape).items() if name not in how},
        secrets.RULES,
        kind_rules.RULES,
        today,
    )


def reading_of(reader: Reader, settings: Settings) -> str:
    """Decided by the rules by which the texts of commits are read."""
    return fingerprint_of(secrets.RULES, settings.scrape.allow_secrets, reader.people and reader.people.blob)


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
