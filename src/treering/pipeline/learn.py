"""token streams → model: trained, judged, kept, and made the current one."""

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec

from treering.config import Settings
from treering.errors import DataError, ModelError
from treering.files import locked, read_json, replacing
from treering.lm import processes
from treering.lm.base import SCRATCH, check_base, load_base, load_model
from treering.lm.data import TOO_FEW, HeldOut, Readable, Split, split
from treering.lm.evaluate import HoldOut, document_losses, judge, ngram_losses
from treering.lm.export import REPORT, replacing_folder, sum_up, write_model
from treering.lm.hardware import machine
from treering.lm.plan import Plan, plan
from treering.lm.recipe import Recipe, Training
from treering.lm.shape import shape_of
from treering.lm.train import fine_tune
from treering.pipeline.common import fingerprint_of, sizes_of, write_manifest
from treering.report import Reporter
from treering.store import Store
from treering.tokens.pack import read_stream
from treering.tokens.tokenizer import TextTokenizer, load_tokenizer
from treering.types import Corpus

FINGERPRINT = "learn-2"
NGRAM_TOKENS = 200_000
"""How much of the newest training text the yardstick may ask for."""
CURRENT = "current"
"""The file that names the current model in its first line, and below it those that were so before."""

GoesOn = Callable[[], bool]
"""Whether a training may go on; it may take its time to say so."""


@dataclass(frozen=True, slots=True)
class TrainingReport:
    """``training_report.json``: the verdict first, then everything that led to it. ``parent`` is the model that this
    one went on from.
    """

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
    with_held_out_left_out: int = 0
    plan: Plan | None = None
    parent: str = ""
    judged_first: str = ""
    last: str = ""
    """The newest commit that was there to be held out."""

    @property
    def first(self) -> str:
        """The first commit that had no say in the model: it neither learned from it nor was chosen by it."""
        return self.judged_first or self.held_out_first


@dataclass(frozen=True, slots=True)
class Learned:
    """A model's folder and report; whether it was trained now, and whether it is the current one from here on."""

    folder: Path
    report: TrainingReport
    new: bool
    current: bool


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
        max_steps=chosen.max_steps,
        max_tokens=chosen.max_tokens,
        sharded=chosen.sharded,
    )


@dataclass(frozen=True, slots=True)
class _Course:
    """A training about to begin: all that is decided before any weight is loaded."""

    base: str
    tokenizer: TextTokenizer
    added: Mapping[int, list[int]]
    data: Split
    recipe: Recipe
    plan: Plan
    vocab_size: int
    eos_id: int
    name: str
    """Decided by all of the above."""

    def load(self) -> Any:
        return load_base(
            self.base, self.vocab_size, self.added, positions=self.recipe.sequence_length, seed=self.recipe.seed
        )

    def tuned(self, report: Reporter, checkpoints: Path, adapter: Path, **how: Any) -> tuple[Any, Training]:
        return fine_tune(
            self.load, self.data, self.recipe, self.plan, report, name=self.name, checkpoints=checkpoints,
            adapter=adapter, added=tuple(self.added), separator=self.eos_id, **how,
        )  # fmt: skip

    def losses(self, model: Any) -> Any:
        recipe = self.recipe
        documents = self.data.held_out.documents
        return document_losses(model, documents, self.tokenizer.eos_id, recipe.sequence_length, gpu=recipe.gpu)


def _course(corpus: Corpus, ids: Readable, base: str, recipe: Recipe, *, after: str = "") -> _Course:
    """Check that base and tokens fit, split in time, plan. Raises :class:`ModelError` or :class:`DataError`."""
    check_base(base)
    tokenizer = _tokenizer_of(corpus, base)
    first = corpus.vocab_size - len(tokenizer.added)
    words = load_tokenizer(tokenizer.name).encode(tokenizer.added) if tokenizer.added and not after else []
    return _Course(
        base=base,
        tokenizer=tokenizer,
        added={first + number: ids for number, ids in enumerate(words)},
        data=split(corpus, ids, after=after, seed=recipe.seed),
        recipe=recipe,
        plan=_planned(base, recipe),
        vocab_size=corpus.vocab_size,
        eos_id=corpus.eos_id,
        name=fingerprint_of(FINGERPRINT, base, after, asdict(recipe), _identity(corpus, ids)),
    )


def _planned(base: str, recipe: Recipe) -> Plan:
    """The plan, made once for all processes of a host: each would find another amount of memory free."""

    def made() -> str:
        planned = plan(
            machine(gpu=recipe.gpu), shape_of(base), method=recipe.method, sequences=recipe.batch_size,
            sequence_length=recipe.sequence_length,
        )  # fmt: skip
        return msgspec.json.encode(planned).decode()

    return msgspec.json.decode(processes.shared("plan", made), type=Plan)


def _identity(corpus: Corpus, ids: Readable) -> str:
    """Decided by the documents and all tokens; of a file that does not say so, by its newest tokens."""
    return corpus.sha256 or fingerprint_of(corpus.tokenizer_fingerprint, len(ids), ids[-(1 << 20) :].tolist())


def learn(
    corpus: Corpus,
    ids: Readable,
    base: str,
    recipe: Recipe,
    folder: Path,
    report: Reporter,
    *,
    weights_format: str = "safetensors",
    resume: bool = True,
    after: str = "",
    parent: str = "",
    save_seconds: float = 60.0,
    may_go_on: GoesOn = lambda: True,
) -> TrainingReport:
    """Fine-tune ``base`` on a token stream, judge it on the held-out commits, and put the model in ``folder``. With
    ``after``, the base is an earlier model of ours, and what it learned from is only repeated beside what is new.

    An interrupted training of the same folder goes on, with ``resume``. Raises :class:`ModelError` if the base is not
    here, :class:`DataError` if the tokens are of another vocabulary.
    """
    course = _course(corpus, ids, base, recipe, after=after)
    data = course.data
    report.say(
        f"training on {data.train_documents:,} commits ({len(data.train):,} tokens), judging on the"
        f" {len(data.held_out.documents)} newest; {data.duplicates:,} that repeat another are in neither"
    )
    if not course.plan.fits:
        report.warn(f"this training may run out of memory: {'; '.join(course.plan.reasons[-2:])}")
    checkpoints = checkpoints_of(folder)
    for left in folder.parent.glob(".*.checkpoints"):
        if left != checkpoints:
            report.warn("a training of another history or other settings was not finished: this one begins anew")
    with replacing_folder(folder) as new:  # before the work, not after: a place that cannot be written is told at once
        before = course.losses(course.load())
        model, training = course.tuned(
            report, checkpoints, new / "adapter", resume=resume, save_seconds=save_seconds, may_go_on=may_go_on
        )
        report.say("judging the model on the newest commits")
        holdout = _judged(data, course.tokenizer, before, course.losses(model), recipe.seed)
        told = TrainingReport(
            verdict=holdout.verdict,
            holdout=holdout,
            training=training,
            recipe=recipe,
            plan=course.plan,
            base_model=base,
            repo=corpus.repo,
            strategy=corpus.strategy,
            train_documents=data.train_documents,
            train_tokens=len(data.train),
            duplicates_left_out=data.duplicates,
            with_held_out_left_out=data.with_held_out,
            held_out_first=(*data.validation.commits, *data.held_out.commits)[0],
            vocab_size=corpus.vocab_size,
            parent=parent,
            judged_first=data.held_out.commits[0],
            last=data.held_out.commits[-1],
        )
        write_model(new, model, course.tokenizer.eos_id, told, weights_format=weights_format)
        course.tokenizer.save(new)
        sum_up(new)
    shutil.rmtree(checkpoints, ignore_errors=True)
    return told


def checkpoints_of(folder: Path) -> Path:
    """Where the training that makes ``folder`` keeps its state until it is done."""
    return folder.with_name(f".{folder.name}.checkpoints")


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
    held: HeldOut = data.held_out
    texts = [tokenizer.decode(document.tolist()).encode() for document in held.documents]
    newest = data.train.read(max(0, len(data.train) - NGRAM_TOKENS), len(data.train))
    train = tokenizer.decode(newest.tolist()).encode()
    return judge(before, after, ngram_losses(train, texts), held.tokens, held.bytes, seed)


def train(
    store: Store,
    folder: Path,
    settings: Settings,
    report: Reporter,
    *,
    resume: bool = True,
    parent: Path | None = None,
    may_go_on: GoesOn = lambda: True,
) -> Learned:
    """The model for a token stream of the store: trained now, or the one trained before with the same everything.

    Where the settings' base is ``parent``, the current model, the new one takes its place only if it is shown to be
    better on the newest commits, which neither learned from. ``may_go_on`` is asked after each step and may take its
    time, which is none of the budget's; where it says no, :class:`Incomplete` leaves a checkpoint to go on from.
    """
    started = time.time()
    corpus, ids = read_stream(folder)
    recipe = recipe_of(settings)
    base, after = settings.train.model, _after(store, parent)
    target = _target(store, folder, corpus, base, recipe)
    with locked(store.folder / "trainer.lock", "treering train"):
        new = not resume or not (target / REPORT).is_file()
        if new:
            learn(
                corpus, ids, base, recipe, target, report, resume=resume, after=after,
                parent=parent.name if parent else "", save_seconds=settings.train.save_seconds, may_go_on=may_go_on,
            )  # fmt: skip
        told = report_of(target)
        # Where it was the last that was trained, the user may have chosen another since: that one stays.
        settled = not new and store.last_runs().get("train", {}).get("model") == target.name
        better = current_model(store) == target if settled else not parent or _is_better(told.holdout)
        if better:
            make_current(store, target)
        if not settled:
            with store.writing("treering train"):
                forget_old(store, settings.train.keep_models, settings.learn.keep)
                store.log_run(
                    "train",
                    started,
                    {
                        "model": target.name,
                        "parent": told.parent,
                        "verdict": told.verdict,
                        "current": better,
                        "bits_per_byte": told.holdout.bits_per_byte,
                        "tokens": told.training.tokens,
                        "training_seconds": told.training.seconds,
                        "bytes": sizes_of(store.folder),
                        "left_out": {"commits that repeat another": told.duplicates_left_out},
                    },
                )
                write_manifest(store)
    return Learned(target, told, new, better)


def _is_better(holdout: HoldOut) -> bool:
    """Whether a model is shown to be better than the one it went on from."""
    return holdout.documents >= TOO_FEW and holdout.difference is not None and holdout.difference[2] < 0


def follow(store: Store, folder: Path, settings: Settings, *, resume: bool = True, parent: Path | None = None) -> None:
    """:func:`train` in another process than the first."""
    corpus, ids = read_stream(folder)
    recipe = recipe_of(settings)
    base = settings.train.model
    target = _target(store, folder, corpus, base, recipe)
    if not resume or not (target / REPORT).is_file():
        learn_beside(corpus, ids, base, recipe, target, resume=resume, after=_after(store, parent))


def learn_beside(
    corpus: Corpus, ids: Readable, base: str, recipe: Recipe, folder: Path, *, resume: bool = True, after: str = ""
) -> None:
    """:func:`learn` in another process than the first, which alone judges, writes and tells."""
    course = _course(corpus, ids, base, recipe, after=after)
    course.tuned(Reporter(), checkpoints_of(folder), folder / "adapter", resume=resume)


def judged_elsewhere(corpus: Corpus, ids: Readable, base: str, recipe: Recipe, folder: Path) -> HoldOut:
    """What a model is worth beside its base on the newest of a history that it learned nothing from. Its n-gram has
    read what that history holds before.
    """
    course = _course(corpus, ids, base, recipe)
    before = course.losses(course.load())
    return _judged(course.data, course.tokenizer, before, course.losses(load_model(folder)), recipe.seed)


def _after(store: Store, parent: Path | None) -> str:
    """The first commit that a model did not learn from; where it vanished, the first that is there of its time on."""
    if not parent:
        return ""
    first = report_of(parent).held_out_first
    return store.standing_for(first) or first


def _target(store: Store, folder: Path, corpus: Corpus, base: str, recipe: Recipe) -> Path:
    """Named by all that decides the model; one of ours by its name, wherever the store lies."""
    of = Path(base).name if Path(base).is_relative_to(store.folder) else base
    name = fingerprint_of(FINGERPRINT, folder.name, of, asdict(recipe))
    return store.folder / "models" / f"{corpus.repo or 'repo'}-git-model" / name


def make_current(store: Store, model: Path) -> None:
    """Let a model answer from here on; those that did before are remembered, the last one first."""
    before = [folder for folder in (current_model(store), *former_models(store)) if folder and folder != model]
    _point(store, [model, *before])


def go_back(store: Store) -> Path:
    """Make the model current again that was so before, and forget the one that is.

    Raises :class:`ModelError` where none is left.
    """
    former = former_models(store)
    if not former:
        raise ModelError("there is no earlier model to go back to", "`treering models list` names those that are kept")
    _point(store, former)
    return former[0]


def _point(store: Store, models: Sequence[Path]) -> None:
    with replacing(store.folder / "models" / CURRENT) as file:
        file.writelines(f"{model.parent.name}/{model.name}\n".encode() for model in models)


def _pointed(store: Store) -> list[Path]:
    """The current model and those that were so before, the last one first, whether they are still there or not."""
    pointer = store.folder / "models" / CURRENT
    named = pointer.read_text().splitlines() if pointer.is_file() else []
    return [store.folder / "models" / name for name in named if name.strip()]


def current_model(store: Store) -> Path | None:
    """The folder of the model that the store uses."""
    return next((folder for folder in _pointed(store)[:1] if (folder / REPORT).is_file()), None)


def former_models(store: Store) -> list[Path]:
    """The models that were current before this one and are kept, the last one first."""
    return [folder for folder in _pointed(store)[1:] if (folder / REPORT).is_file()]


def models_of(store: Store) -> list[Path]:
    """The folders of all models that are whole, the newest first."""
    found = (store.folder / "models").glob(f"*/*/{REPORT}")
    whole = [path.parent for path in found if not path.parent.name.startswith(".")]
    return sorted(whole, key=lambda folder: (folder / REPORT).stat().st_mtime, reverse=True)


def unneeded(store: Store, keep: int, good: int) -> list[Path]:
    """All models but the current one, what it went on from, the newest ``keep``, and the ``good`` that were current
    last.
    """
    current = current_model(store)
    needed = {current.name, report_of(current).parent} if current else set()
    needed |= {folder.name for folder in former_models(store)[:good]}
    return [old for old in models_of(store)[keep:] if old.name not in needed]


def forget_old(store: Store, keep: int, good: int) -> None:
    """Remove the models that are not needed, and the states of trainings that were given up."""
    for old in unneeded(store, keep, good):
        shutil.rmtree(old, ignore_errors=True)
    models = store.folder / "models"
    for left in (*models.glob("*/.*.checkpoints"), *models.glob("*/.*.new"), *replaced(models)):
        shutil.rmtree(left, ignore_errors=True)


def replaced(models: Path) -> Iterator[Path]:
    """What a killed replacement left of a model that is there in its new state; else it is the only copy."""
    for old in models.glob("*/.*.old"):
        if old.with_name(old.name.removeprefix(".").removesuffix(".old")).exists():
            yield old


def report_of(model: Path) -> TrainingReport:
    return read_json(model / REPORT, TrainingReport)
