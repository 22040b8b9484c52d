"""The order of the stages, and nothing else: git → records → documents → index and tokens → model.

`treering run` drives the stages through the store; the seed's scripts drive the same stages from file to file.
"""

import hashlib
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np

from treering.config import Settings
from treering.errors import DataError, ModelError
from treering.files import read_json, replacing
from treering.git.reader import Caps, Reader, Source, open_reader, read_refs
from treering.lm.base import SCRATCH, check_base, load_base
from treering.lm.data import Split, split
from treering.lm.evaluate import HoldOut, document_losses, judge, ngram_losses
from treering.lm.export import REPORT, replacing_folder, write_model
from treering.lm.train import Recipe, Training, fine_tune
from treering.report import Reporter
from treering.store import BATCH, Store
from treering.text import document, strategies
from treering.text.strategies import MARKERS, NEEDS_PATCHES, Duplicates, documents
from treering.tokens.pack import Ids, read_stream, write_stream
from treering.tokens.tokenizer import TextTokenizer, load_tokenizer, tokenized
from treering.types import (
    Commit,
    Corpus,
    Features,
    HistoryStats,
    Placed,
    Point,
    Record,
    TokenDocument,
    commit_of,
    record_of,
)
from treering.vectors.embedder import BUILT_IN, Embedder
from treering.vectors.flat import FlatMatrix

T = TypeVar("T")

FLUSH = 256
"""How many vectors are made between two flushes to the disk."""


def _batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    source = iter(items)
    while batch := list(islice(source, size)):
        yield batch


def _fingerprint(*parts: object) -> str:
    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()[:16]


def _caps(settings: Settings) -> Caps:
    return Caps(settings.scrape.patch_file_bytes, settings.scrape.patch_commit_bytes)


def _tell_partial(report: Reporter, commit: Commit) -> None:
    lost = f": {len(commit.unreadable)} file(s) missing, {commit.unreadable[0]} first" if commit.unreadable else ""
    report.detail(f"partial: {commit.hash}{lost}")


# git → records ---------------------------------------------------------------------------------------------------


def history(source: Source, settings: Settings, report: Reporter) -> Iterator[Record]:
    """Every commit of every branch with its hunks, oldest first, without a store."""
    with open_reader(source, workers=settings.scrape.workers) as reader:
        names = [node.hash for node in reader.nodes]
        commits = report.track(reader.commits(names, caps=_caps(settings)), len(names), "reading commits")
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
        for batch in _batched(commits, BATCH):
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


def take_records(store: Store, records: Iterable[Record], settings: Settings, report: Reporter) -> None:
    """Fill a store from records instead of a repository: what the seed's embedding script starts from."""
    with store.writing("embedding_generator"):
        known = store.known()
        seen: set[str] = set()
        clear_if_changed(store, settings, report)
        places: list[Placed] = []
        ids: dict[str, int] = {}
        for batch in _batched(records, BATCH):
            for record in batch:
                if record.commit_hash in seen:
                    raise DataError(f"commit {record.commit_hash} is in the input twice", "make the file again")
                seen.add(record.commit_hash)
            fresh = [record for record in batch if record.commit_hash not in known]
            store.append([commit_of(record) for record in fresh])
            places += (Placed(record.commit_hash, record.branch, record.branches) for record in batch)
            if batch[0].repo:
                store.set_fact("repo", batch[0].repo)
            ids = store.undocumented(placed=False)
            store.add_features(
                (ids[record.commit_hash], document.features(record, record.patches))
                for record in batch
                if record.commit_hash in ids
            )
        store.place(places)


# records → index -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Indexed:
    """What an index run added: commits to the lexical leg, vectors to the dense one."""

    commits: int
    vectors: int
    seconds: float


def clear_if_changed(store: Store, settings: Settings, report: Reporter, *, rebuild: bool = False) -> None:
    """Empty the index if what decides its content has changed since it was made, or on request."""
    wanted = _fingerprint(document.FINGERPRINT, asdict(_caps(settings)))
    made = store.fact("index")
    if rebuild or made not in (None, wanted):
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
        clear_if_changed(store, settings, report, rebuild=rebuild)
        if wanted := store.undocumented():
            with open_reader(source, workers=settings.scrape.workers) as reader:
                commits = reader.commits(wanted, caps=_caps(settings))
                for batch in _batched(report.track(commits, len(wanted), "reading hunks"), BATCH):
                    store.add_features((wanted[commit.hash], _features(commit)) for commit in batch)
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
    return indexed


def _features(commit: Commit) -> Features:
    return document.features(record_of(commit, Placed(commit.hash, "", ()), ""), commit.patches)


def index_words(store: Store, report: Reporter) -> int:
    """Index the words of every document that waits for it; returns how many did."""
    waiting = store.unindexed()
    if not waiting:
        return 0
    rarity = document.Rarity()
    for _, features in store.features():
        rarity.add(features)
    for batch in _batched(report.track(waiting, len(waiting), "indexing words"), BATCH):
        rows = []
        for commit_id, features in store.features(batch):
            names = rarity.best(features)
            rows.append((commit_id, document.diff_text(features, names), document.indexed_words(features, names)))
        store.index_words(rows)
    return len(waiting)


def index_vectors(store: Store, embedder: Callable[[], Embedder], report: Reporter) -> int:
    """Embed every text that has no vector; equal texts are embedded once. Returns how many vectors were added."""
    model = embedder()
    matrix = FlatMatrix(store.folder / "vectors" / model.fingerprint, model.dimensions)
    if not matrix.holds(len(store.vector_names(model.fingerprint))):
        report.warn("the file of vectors is gone or torn: they are made again")
        store.forget_vectors(model.fingerprint)
    missing = store.unembedded(model.fingerprint)
    if not missing:
        return 0
    owners: dict[str, list[tuple[int, str]]] = {}
    for commit_id, kind, text in missing:
        owners.setdefault(text, []).append((commit_id, kind))
    texts = list(owners)
    named = len(store.vector_names(model.fingerprint))
    made = report.track(
        (
            (texts[position], row)
            for positions, rows in model.batches(texts)
            for position, row in zip(positions, rows, strict=True)
        ),
        len(texts),
        "embedding texts",
    )  # fmt: skip
    for batch in _batched(made, FLUSH):
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


# records → tokens ------------------------------------------------------------------------------------------------


def token_documents(
    records: Iterable[Record], strategy: str, tokenizer: TextTokenizer, duplicates: Duplicates
) -> Iterator[tuple[Record, TokenDocument]]:
    """Records told by a strategy and encoded, in order; repeated ones say whom they repeat."""
    told = ((record, told, duplicates.of(record)) for record, told in documents(records, strategy))
    return tokenized(told, tokenizer)


def tokenizer_for(model: str, *, markers: str) -> TextTokenizer:
    """The tokenizer of a model, with the markers added to it if they are to be tokens."""
    return load_tokenizer("gpt2" if model == SCRATCH else model, MARKERS if markers == "tokens" else ())


def tokenize(store: Store, source: Source, settings: Settings, report: Reporter) -> tuple[Path, Corpus]:
    """The store's history as a token stream, made once for each combination of history and settings."""
    started = time.time()
    tokenizer = tokenizer_for(settings.train.model, markers=settings.tokens.markers)
    strategy, length = settings.tokens.strategy, settings.tokens.sequence_length
    caps = _caps(settings) if strategy in NEEDS_PATCHES else None
    name = _fingerprint(
        strategies.FINGERPRINT,
        strategy,
        length,
        tokenizer.fingerprint,
        caps and asdict(caps),
        store.history_fingerprint(),
    )
    folder = store.folder / "tokens" / name
    if (folder / "header.json").is_file() and (folder / "tokens.bin").is_file():
        return folder, read_stream(folder)[0]
    duplicates = Duplicates()
    with store.writing("treering tokenize"), _told_records(store, source, settings, caps) as records:
        tracked = report.track(records, store.count(), "tokenising")
        corpus = write_stream(
            folder,
            (encoded for _, encoded in token_documents(tracked, strategy, tokenizer, duplicates)),
            tokenizer=tokenizer, repo=store.fact("repo") or "", strategy=strategy, length=length,
        )  # fmt: skip
        tokenizer.save(folder)
        _keep_newest(folder.parent, {folder.name})
        store.log_run(
            "tokenize",
            started,
            {"tokens": corpus.total_tokens, "documents": len(corpus.documents), **duplicates.found},
        )
    return folder, corpus


@contextmanager
def _told_records(store: Store, source: Source, settings: Settings, caps: Caps | None) -> Iterator[Iterator[Record]]:
    """The store's records; with their hunks, read from git again, if ``caps`` is given."""
    if caps is None:
        yield store.records()
        return
    with open_reader(source, workers=settings.scrape.workers) as reader:
        yield _with_patches(store, reader, caps)


def _with_patches(store: Store, reader: Reader, caps: Caps) -> Iterator[Record]:
    places = {node.hash for node in reader.nodes}
    records = (record for record in store.records() if record.commit_hash in places)
    stored = [record_hash for record_hash in store.order() if record_hash in places]
    for record, commit in zip(records, reader.commits(stored, caps=caps), strict=True):
        if record.commit_hash != commit.hash:
            raise DataError("the repository changed while it was read", "run it again")
        yield replace(record, patches=commit.patches)


def _keep_newest(folder: Path, keep: set[str]) -> None:
    for old in folder.iterdir():
        if old.is_dir() and old.name not in keep:
            shutil.rmtree(old, ignore_errors=True)


# tokens → model --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TrainingReport:
    """``training_report.json``: the verdict first, then everything that led to it."""

    verdict: str
    holdout: HoldOut
    training: Training
    recipe: Recipe
    base_model: str
    repo: str
    strategy: str
    train_documents: int
    train_tokens: int
    duplicates_left_out: int
    held_out_first: str
    vocab_size: int


def recipe_of(settings: Settings) -> Recipe:
    chosen = settings.train
    return Recipe(
        method=chosen.method,
        minutes=chosen.minutes,
        epochs=chosen.epochs,
        batch_size=chosen.batch_size,
        learning_rate=chosen.learning_rate,
        sequence_length=settings.tokens.sequence_length,
        seed=chosen.seed,
        gpu=chosen.gpu,
    )


def learn(
    corpus: Corpus,
    ids: Ids,
    base: str,
    recipe: Recipe,
    folder: Path,
    report: Reporter,
    *,
    weights_format: str = "safetensors",
) -> TrainingReport:
    """Fine-tune ``base`` on a token stream, judge it on the held-out commits, and put the model in ``folder``.

    Raises :class:`ModelError` if the base is not here, :class:`DataError` if the tokens are of another vocabulary.
    """
    check_base(base)
    tokenizer = _tokenizer_of(corpus, base)
    data = split(corpus, ids)
    added = {
        corpus.vocab_size - len(tokenizer.added) + number: words
        for number, words in enumerate(load_tokenizer(tokenizer.name).encode(tokenizer.added))
    }
    model = load_base(base, corpus.vocab_size, added, positions=recipe.sequence_length, seed=recipe.seed)
    report.say(
        f"training on {data.train_documents:,} commits ({len(data.train):,} tokens), judging on the"
        f" {len(data.held_out)} newest; {data.duplicates:,} that repeat another are in neither"
    )
    before = document_losses(model, data.held_out, tokenizer.eos_id, recipe.sequence_length, gpu=recipe.gpu)
    model, training = fine_tune(model, data, recipe, report, added=tuple(added))
    after = document_losses(model, data.held_out, tokenizer.eos_id, recipe.sequence_length, gpu=recipe.gpu)
    holdout = _judged(data, tokenizer, before, after, recipe.seed)
    told = TrainingReport(
        verdict=holdout.verdict,
        holdout=holdout,
        training=training,
        recipe=recipe,
        base_model=base,
        repo=corpus.repo,
        strategy=corpus.strategy,
        train_documents=data.train_documents,
        train_tokens=len(data.train),
        duplicates_left_out=data.duplicates,
        held_out_first=data.held_out_first,
        vocab_size=corpus.vocab_size,
    )
    with replacing_folder(folder) as new:
        write_model(new, model, tokenizer.eos_id, told, weights_format=weights_format)
        tokenizer.save(new)
    return told


def _tokenizer_of(corpus: Corpus, base: str) -> TextTokenizer:
    """The tokenizer the stream was made with, if it is the base model's; else an error that says how to mend it."""
    tokenizer = load_tokenizer((corpus.tokenizer or "gpt2") if base == SCRATCH else base, corpus.added_tokens)
    known = corpus.tokenizer_fingerprint
    if known != tokenizer.fingerprint if known else corpus.vocab_size != tokenizer.vocab_size:
        raise DataError(
            f"the tokens are of another vocabulary ({corpus.tokenizer or 'unnamed'}, {corpus.vocab_size:,} tokens) than"
            f" `{base}`'s ({tokenizer.vocab_size:,})",
            f"tokenise again with --model {base}",
        )
    return tokenizer


def _judged(data: Split, tokenizer: TextTokenizer, before: Any, after: Any, seed: int) -> HoldOut:
    texts = [tokenizer.decode(document.tolist()).encode() for document in data.held_out]
    train = tokenizer.decode(data.train.tolist()).encode()
    tokens = sum(len(document) for document in data.held_out)
    return judge(before, after, ngram_losses(train, texts), tokens, data.held_out_bytes, seed)


def train(store: Store, folder: Path, settings: Settings, report: Reporter) -> tuple[Path, TrainingReport, bool]:
    """The model for a token stream of the store: trained now, or the one trained before with the same everything.

    Returns its folder, its report, and whether it was trained now.
    """
    started = time.time()
    corpus, ids = read_stream(folder)
    recipe = recipe_of(settings)
    models = store.folder / "models" / f"{corpus.repo or 'repo'}-git-model"
    name = _fingerprint("learn-1", folder.name, settings.train.model, asdict(recipe))
    target = models / name
    with store.writing("treering train"):
        new = not (target / REPORT).is_file()
        told = learn(corpus, ids, settings.train.model, recipe, target, report) if new else None
        previous = current_model(store)
        # Also for a model that was there: another may be current, or a kill came between the folder and this line.
        with replacing(store.folder / "models" / "current") as file:
            file.write(f"{models.name}/{name}\n".encode())
        if told:
            _keep_newest(models, {name, previous.name if previous else name})
            store.log_run("train", started, {"model": name, "verdict": told.verdict})
    return target, told or read_json(target / REPORT, TrainingReport), new


def current_model(store: Store) -> Path | None:
    """The folder of the newest model of the store."""
    pointer = store.folder / "models" / "current"
    if not pointer.is_file():
        return None
    folder = store.folder / "models" / pointer.read_text().strip()
    return folder if (folder / REPORT).is_file() else None


def verdict_of(model: Path) -> str:
    return read_json(model / REPORT, TrainingReport).verdict


def history_stats(store: Store) -> HistoryStats:
    stats = HistoryStats()
    for record in store.records():
        stats.add(record)
    return stats
