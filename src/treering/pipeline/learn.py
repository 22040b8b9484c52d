"""records → tokens → model."""

import shutil
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from treering.config import Settings
from treering.errors import DataError
from treering.files import read_json, replacing
from treering.git.reader import Caps, Reader, Source, open_reader
from treering.lm.base import SCRATCH, check_base, load_base
from treering.lm.data import Split, split
from treering.lm.evaluate import HoldOut, document_losses, judge, ngram_losses
from treering.lm.export import REPORT, replacing_folder, write_model
from treering.lm.train import Recipe, Training, fine_tune
from treering.pipeline.common import caps_of, fingerprint_of, read, write_manifest
from treering.report import Reporter
from treering.store import Store
from treering.text import secrets, strategies
from treering.text.kinds import NOISE
from treering.text.strategies import MARKERS, NEEDS_PATCHES, Duplicates, documents
from treering.tokens.pack import Ids, read_stream, write_stream
from treering.tokens.tokenizer import TextTokenizer, load_tokenizer, tokenized
from treering.types import Corpus, Record, TokenDocument


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
    caps = caps_of(settings) if strategy in NEEDS_PATCHES else None
    name = fingerprint_of(
        strategies.FINGERPRINT,
        strategy,
        length,
        tokenizer.fingerprint,
        caps and asdict(caps),
        secrets.RULES,
        settings.scrape.allow_secrets,
        store.history_fingerprint(),
    )
    folder = store.folder / "tokens" / name
    if (folder / "header.json").is_file() and (folder / "tokens.bin").is_file():
        return folder, read_stream(folder)[0]
    duplicates = Duplicates()
    noise: Counter[str] = Counter()
    with store.writing("treering tokenize"), told_records(store, source, settings, caps) as told:
        records = _without_noise(told, store.paths(), noise)
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
            {
                "tokens": corpus.total_tokens,
                "documents": len(corpus.documents),
                "left_out": {f"hunks of {kind}": count for kind, count in noise.items()},
            },
        )
        write_manifest(store)
    return folder, corpus


@contextmanager
def told_records(store: Store, source: Source, settings: Settings, caps: Caps | None) -> Iterator[Iterator[Record]]:
    """The store's records; with their hunks, read from git again, if ``caps`` is given."""
    if caps is None:
        yield store.records()
        return
    with open_reader(source, settings.scrape) as reader:
        yield _with_patches(store, reader, settings, caps)


def _with_patches(store: Store, reader: Reader, settings: Settings, caps: Caps) -> Iterator[Record]:
    places = {node.hash for node in reader.nodes}
    stored = store.order()
    if not places.issuperset(stored):
        raise DataError("the repository changed while it was read", "run it again")
    for record, commit in zip(store.records(), read(reader, stored, settings, caps=caps), strict=True):
        if record.commit_hash != commit.hash:
            raise DataError("the repository changed while it was read", "run it again")
        yield replace(record, patches=commit.patches, redacted=commit.redacted)


def _without_noise(records: Iterable[Record], kinds: Mapping[str, str], left_out: Counter[str]) -> Iterator[Record]:
    """The records without the hunks of noise, which are counted in ``left_out`` by kind."""
    for record in records:
        noise = [patch for patch in record.patches if kinds.get(patch.path) in NOISE]
        left_out.update(kinds[patch.path] for patch in noise)
        yield replace(record, patches=tuple(one for one in record.patches if one not in noise)) if noise else record


def _keep_newest(folder: Path, keep: set[str]) -> None:
    for old in folder.iterdir():
        if old.is_dir() and old.name not in keep:
            shutil.rmtree(old, ignore_errors=True)


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
    with replacing_folder(folder) as new:  # before the work, not after: a place that cannot be written is told at once
        before = document_losses(model, data.held_out, tokenizer.eos_id, recipe.sequence_length, gpu=recipe.gpu)
        model, training = fine_tune(model, data, recipe, report, added=tuple(added))
        report.say("judging the model on the newest commits")
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
    name = fingerprint_of("learn-1", folder.name, settings.train.model, asdict(recipe))
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
            store.log_run(
                "train",
                started,
                {
                    "model": name,
                    "verdict": told.verdict,
                    "left_out": {"commits that repeat another": told.duplicates_left_out},
                },
            )
            write_manifest(store)
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
