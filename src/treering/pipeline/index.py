"""records → index: what each commit says, its words, and its vectors."""

import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec
import numpy as np
from msgspec.structs import replace

from treering.config import Settings
from treering.errors import DataError, ModelError
from treering.files import read_json, write_json
from treering.git.reader import Source, open_reader
from treering.pipeline.common import Cleaner, Kinds, batched, caps_of, fingerprint_of, read, write_manifest
from treering.report import Reporter
from treering.store import BATCH, Store
from treering.text import document, secrets
from treering.text import kinds as kind_rules
from treering.types import Commit, Placed, Point, Record, commit_of, record_of
from treering.vectors.embedder import BUILT_IN, Embedder
from treering.vectors.flat import FlatMatrix

FLUSH = 64
"""How many vectors are made between two flushes to the disk."""


@dataclass(frozen=True, slots=True)
class Indexed:
    """What an index run added: commits to the lexical leg, vectors to the dense one."""

    commits: int
    vectors: int
    seconds: float


def clear_if_changed(store: Store, settings: Settings, report: Reporter, *, rebuild: bool = False) -> None:
    """Empty the index if what decides its content has changed since it was made, or on request."""
    wanted = fingerprint_of(
        document.FINGERPRINT, kind_rules.RULES, secrets.RULES, settings.scrape.allow_secrets, asdict(caps_of(settings))
    )
    made = store.fact("index")
    if rebuild or (made != wanted and (made or store.documented())):
        report.say("the index is made anew" + ("" if rebuild else ": its settings changed"))
        store.clear_documents()
        shutil.rmtree(store.folder / "vectors", ignore_errors=True)
    if rebuild or made != wanted:
        store.set_fact("index", wanted)


def index(
    store: Store,
    source: Source,
    settings: Settings,
    report: Reporter,
    embedder: Callable[[], Embedder],
    *,
    rebuild: bool = False,
) -> Indexed:
    """Index every commit that is not: first its words, then its vectors. A kill loses at most one batch."""
    started = time.time()
    with store.writing("treering index"):
        if rebuild:
            clear_if_changed(store, settings, report, rebuild=True)
        read_hunks(store, source, settings, report)
        words = index_words(store, report)
        try:
            vectors = index_vectors(store, embedder, report)
        except ModelError as error:
            if settings.index.model != BUILT_IN:
                raise  # somebody asked for that one
            report.warn(f"indexed by words only: {error.message} ({error.hint})")
            vectors = 0
        indexed = Indexed(words, vectors, round(time.time() - started, 3))
        if words or vectors:
            store.log_run("index", started, asdict(indexed))
            write_manifest(store)
    return indexed


def read_hunks(store: Store, source: Source, settings: Settings, report: Reporter) -> None:
    """Keep what the hunks say of every commit that has been read without them."""
    with store.writing("treering index"):
        clear_if_changed(store, settings, report)
        if wanted := store.undocumented():
            with open_reader(source, settings.scrape) as reader:
                kinds = Kinds(reader.attributes)
                commits = read(reader, wanted, settings, caps=caps_of(settings))
                for batch in batched(report.track(commits, len(wanted), "reading hunks"), BATCH):
                    add_features(store, batch, kinds)
            write_manifest(store)


def add_features(store: Store, commits: Sequence[Commit], kinds: Kinds) -> None:
    """Keep what commits, read with their hunks, say; those that have been heard are left as they are."""
    ids = store.undocumented_of(commit.hash for commit in commits)
    fresh = [commit for commit in commits if commit.hash in ids]
    kinds.learn(patch.path for commit in fresh for patch in commit.patches)
    store.set_patch_ids(fresh)
    records = [record_of(commit, Placed(commit.hash, "", ()), "") for commit in fresh]
    store.add_features(
        (ids[record.commit_hash], document.features(record, kinds), document.left_out(record, kinds))
        for record in records
    )


def index_words(store: Store, report: Reporter) -> int:
    """Index the words of every document that waits for it; returns how many did."""
    waiting = store.unindexed()
    if not waiting:
        return 0
    path = store.folder / "rarity.json"
    rarity = _counted_before(path, store.worded())
    for _, features in store.features(waiting if rarity.documents else None):
        rarity.add(features)
    for batch in batched(report.track(waiting, len(waiting), "indexing words"), BATCH):
        rows = []
        for commit_id, features in store.features(batch):
            names = rarity.best(features)
            rows.append((commit_id, document.diff_text(features, names), document.indexed_words(features, names)))
        store.index_words(rows)
    write_json(path, rarity)
    return len(waiting)


def _counted_before(path: Path, worded: int) -> document.Rarity:
    """What was counted when the documents that have their words got them; nothing if that is not of all of them."""
    if path.is_file():
        with suppress(DataError):
            counted = read_json(path, document.Rarity)
            if counted.documents == worded:
                return counted
    return document.Rarity()


def index_vectors(store: Store, embedder: Callable[[], Embedder], report: Reporter) -> int:
    """Embed every text that has no vector; equal texts are embedded once. Returns how many vectors were added."""
    model = embedder()
    matrix = FlatMatrix(store.folder / "vectors" / model.fingerprint, model.dimensions)
    if not matrix.holds(store.vectors(model.fingerprint)):
        report.warn("the file of vectors is gone or torn: they are made again")
        store.forget_vectors(model.fingerprint)
    missing = store.unembedded(model.fingerprint)
    if not missing:
        return 0
    owners: dict[str, list[tuple[int, str]]] = {}
    for commit_id, kind, text in missing:
        owners.setdefault(text, []).append((commit_id, kind))
    texts = list(owners)
    named = store.vectors(model.fingerprint)
    made = report.track(
        (
            (texts[position], row)
            for positions, rows in model.batches(texts)
            for position, row in zip(positions, rows, strict=True)
        ),
        len(texts),
        "embedding texts",
    )  # fmt: skip
    for batch in batched(made, FLUSH):
        names = [(owner, row) for text, row in batch for owner in owners[text]]
        matrix.append(named, np.stack([row for _, row in names]))
        store.name_vectors(model.fingerprint, named, (owner for owner, _ in names))
        named += len(names)
    return len(missing)


POINTS = uuid.uuid5(uuid.NAMESPACE_URL, "https://qdrant.tech/treering")
"""The name space of point ids: equal vectors of equal repositories have equal ids, wherever they are made."""


def embedded_records(store: Store, embedder: Embedder) -> Iterator[dict[str, object]]:
    """Each commit's record with its vectors: ``embedding`` is the message's, ``embeddings`` are all by kind."""
    for record, vectors in _with_vectors(store, embedder):
        first = vectors.get("message") or next(iter(vectors.values()), [])
        yield msgspec.to_builtins(replace(record, patches=())) | {
            "embedding": first,
            "embeddings": vectors,
            "embedding_model": embedder.name,
        }


def points(store: Store, embedder: Embedder) -> Iterator[Point]:
    """One Qdrant point for each vector: the seed's payload keys, then ours."""
    for record, vectors in _with_vectors(store, embedder):
        for kind, vector in vectors.items():
            yield Point(
                id=str(uuid.uuid5(POINTS, f"{record.repo}:{record.commit_hash}:{kind}")),
                vector=vector,
                payload={
                    "commit_hash": record.commit_hash,
                    "author": record.author_name,
                    "message": record.message_subject,
                    "files_modified": record.files_modified,
                    "insertions": record.insertions,
                    "timestamp": record.commit_timestamp,
                    "kind": kind,
                    "repo": record.repo,
                    "branch": record.branch,
                    "is_merge": record.is_merge,
                    "deletions": record.deletions,
                    "files_added": record.files_added,
                    "files_deleted": record.files_deleted,
                },
            )


def _with_vectors(store: Store, embedder: Embedder) -> Iterator[tuple[Record, dict[str, list[float]]]]:
    names = store.vector_names(embedder.fingerprint)
    rows = FlatMatrix(store.folder / "vectors" / embedder.fingerprint, embedder.dimensions).rows(len(names))
    of: dict[int, dict[str, int]] = {}
    for row, (commit_id, kind, reachable) in enumerate(names):
        if reachable:
            of.setdefault(commit_id, {})[kind] = row
    ids = store.ids()
    for commit_id, record in zip(ids, store.records(), strict=True):
        # float32 holds seven digits; more would only make the file longer.
        kinds = {kind: [round(x, 7) for x in rows[row].tolist()] for kind, row in sorted(of.get(commit_id, {}).items())}
        yield record, dict(sorted(kinds.items(), key=lambda item: item[0] != "message"))


def take_records(store: Store, records: Iterable[Record], settings: Settings, report: Reporter) -> None:
    """Fill a store from records instead of a repository: what the seed's embedding script starts from."""
    clean = Cleaner(settings)
    kinds = Kinds(None)
    with store.writing("embedding_generator"):
        known = store.known()
        seen: set[str] = set()
        clear_if_changed(store, settings, report)
        places: list[Placed] = []
        for batch in batched(records, BATCH):
            for record in batch:
                if record.commit_hash in seen:
                    raise DataError(f"commit {record.commit_hash} is in the input twice", "make the file again")
                seen.add(record.commit_hash)
            commits = [clean(commit_of(record)) for record in batch]
            store.append([commit for commit in commits if commit.hash not in known])
            places += (Placed(record.commit_hash, record.branch, record.branches, record.merged_by) for record in batch)
            if batch[0].repo:
                store.set_fact("repo", batch[0].repo)
            add_features(store, commits, kinds)
        store.place(places)
