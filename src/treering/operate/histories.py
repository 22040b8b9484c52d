"""The commits of a store against the repository they were read from."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager

import msgspec

from treering.git.reader import Reader, open_reader
from treering.operate.subject import Seen, Subject
from treering.pipeline import index as index_stage
from treering.pipeline import scrape as scrape_stage
from treering.pipeline.common import Cleaner, Kinds, caps_of, read
from treering.store.index import BEYOND
from treering.text import document
from treering.text.kinds import kind_of
from treering.types import Commit, Features, FilePatch, LeftOut, Placed, record_of

SAMPLE = 200
"""So many commits are read again, with their diffs, where not everything is looked at."""


@contextmanager
def _reader(on: Subject) -> Iterator[Reader]:
    with open_reader(on.source, on.settings.scrape, on.store.folder / "commit-graph") as reader:
        yield reader


def check_history(on: Subject) -> Seen:
    """Whether every reachable commit is there, with the parents and in the place that git says."""
    store, seen = on.store, Seen()
    with _reader(on) as reader:
        rows = store.db.execute("SELECT hash, id, parents, position FROM commits").fetchall()
        known = {name: (number, parents) for name, number, parents, _ in rows}
        placed = {name for name, _, _, position in rows if position is not None}
        parents = [
            node.hash
            for node in reader.graph
            if node.parents and node.hash in known and known[node.hash][1].split() != list(node.parents)
        ]
        if parents:
            seen.fault(f"{len(parents):,} commits have other parents", parents)
            seen.commits |= {known[name][0] for name in parents}
        if len({position for *_, position in rows} - {None}) != len(placed):
            seen.fault("two commits stand in one place")
        if store.fact("tips") is None:
            seen.notes.append("no scrape was complete yet: the next run goes on")
        elif store.fact("selection") != scrape_stage.selection_of(on.settings):
            seen.notes.append("made with another choice of commits: only those in both are compared")
        elif store.fact("tips") != scrape_stage.tips_of(on.source, on.settings, reader.refs):
            new = sum(node.hash not in known for node in reader.nodes)
            seen.notes.append(f"behind the repository, which has {new:,} new commits: run `treering index`")
        else:
            missing = [node.hash for node in reader.nodes if node.hash not in known]
            if missing:
                seen.fault(f"{len(missing):,} commits are missing", missing)
            wanted = {
                one.hash: (number, one.branch, list(one.branches), one.merged_by)
                for number, one in enumerate(map(Cleaner(on.settings).place, reader.places()), start=1)
            }
            there = _places(store.placed())
            moved = [name for name in known if there.get(name) != wanted.get(name)]
            if moved:
                seen.fault(f"{len(moved):,} commits stand in another place or on other branches", moved)
        seen.looked_at = f"{len(placed):,} commits of {len(reader.nodes):,} reachable"
    return seen


def _places(placed: dict[str, tuple[int | None, str | None, str | None, str | None]]) -> dict[str, object]:
    return {
        name: (position, branch, msgspec.json.decode(branches or "[]"), merged_by)
        for name, (position, branch, branches, merged_by) in placed.items()
        if position is not None
    }


def mend_history(on: Subject, seen: Seen) -> list[str]:
    """Read what is missing, and put every commit in its place again."""
    on.store.set_fact("tips", "")  # what it was made from is not what it says
    scraped = scrape_stage.scrape(on.store, on.source, on.settings, on.report)
    said = [f"the history was read again: {scraped.new:,} commits were missing, {scraped.commits:,} are in place"]
    return said + (_read_again(on, seen.commits) if seen.commits else [])


def check_records(on: Subject) -> Seen:
    """Whether commits, read again with their diffs, say what the store says of them."""
    store, seen = on.store, Seen()
    with _reader(on) as reader:
        reading = scrape_stage.reading_of(reader, on.settings)
        passed_over = store.read_otherwise(reading)
        if store.fact("objects") != on.source.objects_fingerprint():
            passed_over |= store.weak()  # their objects may have come since
        ids = dict(zip(store.order(), store.ids(), strict=True))
        names = [node.hash for node in reader.nodes if node.hash in ids and node.hash not in passed_over]
        some = on.some(names, SAMPLE)
        same = store.fact("index") == index_stage.decided(on.settings)
        if not same:
            seen.notes.append("the index was made with other settings: the next run makes it anew")
        kinds = Kinds(reader.attributes)
        commits = read(reader, some, on.settings, caps=caps_of(on.settings))
        different: list[str] = []
        for commit in on.report.track(commits, len(some), "reading commits again"):
            if "slow" in commit.flags:
                continue
            number = ids[commit.hash]
            kept = next(store.documents([number]), None)
            if store.differences(commit, hunks=kept is not None and same):
                what = "commit"
            elif kept is not None and same and not _as_kept(commit, kept, kinds):
                what = "index"
            else:
                continue
            different.append(f"{commit.hash} ({what})")
            seen.commits.add(number)
        if different:
            seen.fault(f"{len(different):,} commits are told otherwise than git has them", different)
        left = len(ids) - len(names)
        if left:
            seen.notes.append(f"{left:,} commits wait to be read anew, by other rules or from objects that came since")
        seen.looked_at = f"{len(some):,} of {len(ids):,} commits read again"
    return seen


def _as_kept(commit: Commit, kept: tuple[int, bytes, bytes, str, str, bytes | None], kinds: Kinds) -> bool:
    """Whether a document says what its commit says. What the repository's attributes had to do with is passed over:
    they may have been others when it was made.
    """
    kinds.learn(patch.path for patch in commit.patches)
    if any(kinds(patch.path) != kind_of(patch.path, None) for patch in commit.patches):
        return True
    record = record_of(commit, Placed(commit.hash, "", ()), "")
    said = document.features(record, kinds)
    _, features, hunks, left_out, of_kinds, _ = kept
    try:
        unused = msgspec.json.decode(left_out, type=dict[str, LeftOut]).items()
        return (
            msgspec.json.decode(features, type=Features) == said
            and unpacked(hunks) == tuple(document.telling(record.patches, kinds))
            and {reason: of for reason, of in unused if BEYOND not in reason} == document.left_out(record, kinds)
            and [kind for kind in msgspec.json.decode(of_kinds) if kind != "hunks"] == document.kinds_of(said)
        )
    except ValueError:  # what cannot be decoded, of the features, of the hunks or of JSON
        return False


def unpacked(hunks: bytes) -> tuple[FilePatch, ...]:
    """Kept hunks. Raises :class:`ValueError` where they cannot be read."""
    import zlib

    try:
        return msgspec.json.decode(zlib.decompress(hunks), type=tuple[FilePatch, ...])
    except zlib.error as error:
        raise ValueError(str(error)) from error


def mend_records(on: Subject, seen: Seen) -> list[str]:
    return _read_again(on, seen.commits)


def _read_again(on: Subject, ids: Collection[int]) -> list[str]:
    """Put what git has in the place of what the store says of some commits, and make their part of the index anew."""
    store = on.store
    marks = {number: name for name, number in zip(store.order(), store.ids(), strict=True) if number in ids}
    with _reader(on) as reader:
        reading = scrape_stage.reading_of(reader, on.settings)
        for commit in read(reader, marks.values(), on.settings, caps=None):
            store.mend(commit, reading)
    return [f"{len(marks):,} commits were read from git again", *redo_documents(on, ids)]


def redo_documents(on: Subject, ids: Collection[int]) -> list[str]:
    """Make what some commits say anew, and then all words: theirs stand among those of the others."""
    store = on.store
    on.suspect |= set(ids)
    store.forget_documents(ids)
    store.forget_words()
    index_stage.read_hunks(store, on.source, on.settings, on.report)
    words = index_stage.index_words(store, on.report)
    return [f"what {len(ids):,} commits say was read again, and the words of {words:,} indexed again"]
