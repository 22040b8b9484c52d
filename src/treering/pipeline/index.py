"""records → index: what each commit says, its words, and its vectors."""

import shutil
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import asdict, dataclass

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec.structs import replace

from treering.config import Settings
from treering.errors import DataError, ModelError
from treering.git.reader import Source, open_reader
from treering.pipeline.common import Cleaner, Kinds, batched, caps_of, fingerprint_of, read, sizes_of, write_manifest
from treering.report import Reporter
from treering.search.history import History
from treering.store import BATCH, Store
from treering.text import document, secrets
from treering.text import kinds as kind_rules
from treering.text.words import forms
from treering.types import Commit, Placed, Point, Record, commit_of, record_of
from treering.vectors.embedder import Embedder, parts
from treering.vectors.flat import FlatMatrix
from treering.vectors.minilm import NAME

FLUSH = 64
"""How many vectors are made between two flushes to the disk."""
WORDS_BATCH = 4096
"""How many commits' words go in at once: a word has one blob of postings for each batch."""


@dataclass(frozen=True, slots=True)
class Indexed:
    """What an index run added: commits to the lexical leg, vectors to the dense one."""

    commits: int
    vectors: int
    seconds: float


def clear_if_changed(store: Store, settings: Settings, report: Reporter, *, rebuild: bool = False) -> None:
    """Empty the index if what decides its content has changed since it was made, or on request."""
    wanted = decided(settings)
    made = store.fact("index")
    if rebuild or (made != wanted and (made or store.documented())):
        report.say("the index is made anew" + ("" if rebuild else ": its settings changed"))
        store.clear_documents()
        shutil.rmtree(store.folder / "vectors", ignore_errors=True)
    if rebuild or made != wanted:
        store.set_fact("index", wanted)


def is_current(store: Store, settings: Settings, model: Embedder) -> bool:
    """Whether every commit of the store is indexed, by its words and by the vectors of this model."""
    return (
        store.fact("index") == decided(settings)
        and store.fact("silent") == "told"
        and not (store.undocumented() or store.wordless() or store.unembedded(model.fingerprint))
        and _matrix(store, model).holds(store.vectors(model.fingerprint))
    )


def _matrix(store: Store, model: Embedder) -> FlatMatrix:
    return FlatMatrix(store.folder / "vectors" / model.fingerprint, model.dimensions)


def decided(settings: Settings) -> str:
    """What decides what an index says of a commit; a store remembers it."""
    return fingerprint_of(
        document.FINGERPRINT, kind_rules.RULES, secrets.RULES, settings.scrape.allow_secrets, asdict(caps_of(settings))
    )


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
            if settings.index.model != NAME:
                raise  # somebody asked for that one
            report.warn(f"indexed by words only: {error.message} ({error.hint})")
            vectors = 0
        indexed = Indexed(words, vectors, round(time.time() - started, 3))
        if words or vectors:
            store.log_run("index", started, asdict(indexed) | {"bytes": sizes_of(store.folder)})
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
    said = [document.features(record, kinds) for record in records]
    store.add_features(
        (
            ids[record.commit_hash],
            one,
            document.telling(record.patches, kinds),
            document.left_out(record, kinds),
            document.kinds_of(one),
        )
        for record, one in zip(records, said, strict=True)
    )


def index_words(store: Store, report: Reporter) -> int:
    """Index the words of every commit that waits for it; returns how many did. Then all messages are there that tell
    which of them say nothing.
    """
    waiting = store.wordless()
    for batch in batched(report.track(waiting, len(waiting), "indexing words"), WORDS_BATCH):
        said = store.features(batch)
        store.add_words(((number, document.word_counts(one, store.hunks(number))) for number, one in said), forms)
    want_hunks(store)
    return len(waiting)


def want_hunks(store: Store) -> None:
    """Say whose hunks become vectors too: those of the commits whose message says nothing."""
    if store.fact("silent") == "told":
        return
    history = History(store)
    silent = history.ids[history.empty(history.everything) & ~history.merges].tolist()
    store.want_vectors((one for one in silent if document.hunk_texts(store.hunks(one))), "hunks")
    store.set_fact("silent", "told")


def index_vectors(store: Store, embedder: Callable[[], Embedder], report: Reporter) -> int:
    """Embed every text that has no vector; equal texts are embedded once. Returns how many vectors were added."""
    model = embedder()
    matrix = _matrix(store, model)
    if not matrix.holds(store.vectors(model.fingerprint)):
        report.warn("the file of vectors is gone or torn: they are made again")
        store.forget_vectors(model.fingerprint)
    missing = store.unembedded(model.fingerprint)
    # The first part of a text comes last: where it is named, all are. A kill may have left some that are without it.
    there = set(store.vector_names(model.fingerprint)) if missing else set()
    owners: tuple[dict[str, list[tuple[int, str, int]]], dict[str, list[tuple[int, str, int]]]] = ({}, {})
    unread: dict[tuple[int, str], int] = {}
    for owner, text in texts_of(store, model, missing, unread):
        if owner not in there:
            owners[owner[2] == 0].setdefault(text, []).append(owner)
    named = before = store.vectors(model.fingerprint)
    made = ((owned[text], row) for owned in owners if owned for text, row in _embedded(model, list(owned)))
    for batch in batched(report.track(made, sum(map(len, owners)), "embedding texts"), FLUSH):
        rows = [row for owned, row in batch for _ in owned]
        matrix.append(named, np.stack(rows))
        names = [owner for owned, _ in batch for owner in owned]
        cut = [(one, kind, unread[one, kind]) for one, kind, part in names if not part and (one, kind) in unread]
        store.name_vectors(model.fingerprint, named, names, cut, model.name)
        named += len(rows)
    return named - before


def texts_of(
    store: Store,
    model: Embedder,
    wanted: Mapping[int, Collection[str]],
    unread: MutableMapping[tuple[int, str], int] | None = None,
) -> Iterator[tuple[tuple[int, str, int], str]]:
    """The texts that become vectors, of some kinds of some commits: (commit id, kind, part), and the part's text.
    ``unread`` takes for (commit id, kind) the bytes of a text that no part has.
    """
    for commit_id, said in store.features(wanted):
        kinds = wanted[commit_id]
        whole = [(kind, text) for kind, text in document.texts(said) if kind in kinds]
        cut = {kind: of for (kind, _), of in zip(whole, parts(model, [text for _, text in whole]), strict=True)}
        for kind, text in whole:
            if unread is not None and (rest := text[text.rfind(cut[kind][-1]) + len(cut[kind][-1]) :].strip()):
                unread[commit_id, kind] = len(rest.encode())
        if "hunks" in kinds:
            cut["hunks"] = document.hunk_texts(store.hunks(commit_id))
        for kind, of in cut.items():
            for part, text in enumerate(of):
                yield (commit_id, kind, part), text


def _embedded(model: Embedder, texts: Sequence[str]) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
    for positions, rows in model.batches(texts):
        for position, row in zip(positions, rows, strict=True):
            yield texts[position], row


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


def points(store: Store, embedder: Embedder, repo: str = "") -> Iterator[Point]:
    """One Qdrant point for each vector: the seed's payload keys, then ours. ``repo`` is another name for whose they are
    than the repository's own.
    """
    for record, vectors in _with_vectors(store, embedder):
        whose = repo or record.repo
        for kind, vector in vectors.items():
            yield Point(
                id=str(uuid.uuid5(POINTS, f"{whose}:{record.commit_hash}:{kind}")),
                vector=vector,
                payload={
                    "commit_hash": record.commit_hash,
                    "author": record.author_name,
                    "message": record.message_subject,
                    "files_modified": record.files_modified,
                    "insertions": record.insertions,
                    "timestamp": record.commit_timestamp,
                    "kind": kind,
                    "repo": whose,
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
    for row, (commit_id, kind, part) in enumerate(names):
        of.setdefault(commit_id, {})[f"{kind}-{part + 1}" if part else kind] = row
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
