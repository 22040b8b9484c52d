"""token streams → model."""

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from treering.config import Settings
from treering.errors import DataError
from treering.files import read_json, replacing
from treering.lm.base import SCRATCH, check_base, load_base
from treering.lm.data import Split, split
from treering.lm.evaluate import HoldOut, document_losses, judge, ngram_losses
from treering.lm.export import REPORT, replacing_folder, write_model
from treering.lm.train import Recipe, Training, fine_tune
from treering.pipeline.common import fingerprint_of, keep_newest, write_manifest
from treering.report import Reporter
from treering.store import Store
from treering.tokens.pack import Ids, read_stream
from treering.tokens.tokenizer import TextTokenizer, load_tokenizer
from treering.types import Corpus


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
            keep_newest(models, {name, previous.name if previous else name})
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
