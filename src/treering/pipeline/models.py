"""The models of a store: named by their fingerprints, listed, chosen, removed, and put side by side."""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from treering.config import Settings
from treering.errors import DataError, ModelError, UsageError
from treering.git.reader import Source
from treering.lm.base import load_base
from treering.lm.data import HOLD_OUT_DOCUMENTS, HOLD_OUT_TOKENS, TOO_FEW
from treering.lm.evaluate import compare as compare_losses
from treering.lm.evaluate import document_losses
from treering.lm.export import REPORT
from treering.pipeline.learn import current_model, models_of, report_of
from treering.pipeline.tokenize import tokenize
from treering.report import Reporter
from treering.store import Store
from treering.tokens.pack import read_stream
from treering.tokens.tokenizer import load_tokenizer


@dataclass(frozen=True, slots=True)
class Model:
    """A row of ``treering models list``. ``bits_per_byte`` of the hold-out, before and after tuning."""

    name: str
    current: bool
    made: float
    base: str
    method: str
    tokens: int
    bits_per_byte: tuple[float | None, float | None]
    bytes: int
    verdict: str
    parent: str


def listed(store: Store) -> list[Model]:
    """The store's models, the newest first."""
    current = current_model(store)
    found = []
    for folder in models_of(store):
        report = report_of(folder)
        bits = report.holdout.bits_per_byte
        found.append(
            Model(
                name=folder.name,
                current=folder == current,
                made=(folder / REPORT).stat().st_mtime,
                base=report.parent or report.base_model,
                method=report.recipe.method,
                tokens=report.training.tokens,
                bits_per_byte=(bits.get("base"), bits.get("tuned")),
                bytes=sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()),
                verdict=report.verdict,
                parent=report.parent,
            )
        )
    return found


def named(store: Store, name: str) -> Path:
    """The folder of the model whose name begins so; of the current one where ``name`` is empty."""
    if not name:
        folder = current_model(store)
        if folder is None:
            raise ModelError(
                "this repository has no trained model yet", "run `treering run`, or `treering train`, first"
            )
        return folder
    kept = models_of(store)
    found = [folder for folder in kept if folder.name.startswith(name)]
    if len(found) != 1:
        names = ", ".join(folder.name for folder in kept) or "none"
        raise UsageError(
            f"`{name}` is {'not one' if found else 'no'} model", f"name a folder, or one that is kept: {names}"
        )
    return found[0]


def remove(store: Store, name: str) -> Path:
    """Remove a model that is not the current one."""
    folder, current = named(store, name), current_model(store)
    if folder == current:
        raise UsageError(f"{folder.name} is the current model", "`treering models use` another one first")
    if current and report_of(current).parent == folder.name:
        raise UsageError(f"the current model went on from {folder.name}", "`treering models use` another one first")
    shutil.rmtree(folder)
    return folder


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two models on the newest commits that neither learned from. ``difference`` is the second minus the first, with
    its 95 % interval: below zero throughout means that the second is better.
    """

    documents: int
    bytes: int
    bits_per_byte: dict[str, float]
    difference: tuple[float, float, float]
    verdict: str


def compare(
    store: Store, source: Source, settings: Settings, first: Path, second: Path, report: Reporter
) -> Comparison:
    """Put two models side by side, each with its own tokenizer, in bits per byte of the same texts."""
    told = [report_of(folder) for folder in (first, second)]
    if told[0].strategy != told[1].strategy:
        raise DataError(
            f"{first.name} and {second.name} learned commits told in different ways:"
            f" {told[0].strategy}, {told[1].strategy}",
            "compare models of one --strategy",
        )
    asked = replace(
        settings,
        train=replace(settings.train, model=str(first)),
        tokens=replace(settings.tokens, strategy=told[0].strategy),  # type: ignore[arg-type]  # a name that was one when it was written
    )
    corpus, ids = read_stream(tokenize(store, source, asked, report)[0])
    hashes = [span.commit_hash for span in corpus.documents]
    try:
        start = max(hashes.index(one.first) for one in told)
    except ValueError as error:
        raise DataError(
            "the commits that these models were judged from are not in this history any more", "train them again"
        ) from error
    stops = np.cumsum([span.tokens + 1 for span in corpus.documents])
    chosen: list[int] = []
    tokens = 0
    for number in range(len(hashes) - 1, start - 1, -1):
        span = corpus.documents[number]
        if span.duplicate_of is None and span.tokens and len(chosen) < HOLD_OUT_DOCUMENTS:
            tokens += span.tokens
            if len(chosen) >= TOO_FEW and tokens > HOLD_OUT_TOKENS:
                break
            chosen.insert(0, number)
    if len(chosen) < TOO_FEW:
        raise DataError(
            f"{len(chosen)} commit(s) that neither model learned from: too few to tell them apart",
            "compare them when there are more",
        )
    own = load_tokenizer(str(first))
    texts = [
        own.decode(ids[stops[number] - 1 - corpus.documents[number].tokens : stops[number] - 1].tolist())
        for number in chosen
    ]
    sizes = [len(text.encode()) for text in texts]
    losses = []
    for folder, one in zip((first, second), told, strict=True):
        tokenizer = load_tokenizer(str(folder))
        documents = [np.array(encoded, dtype=np.int64) for encoded in tokenizer.encode(texts)]
        length = one.recipe.sequence_length
        model = load_base(str(folder), one.vocab_size, {}, positions=length, seed=0)
        losses.append(document_losses(model, documents, tokenizer.eos_id, length, gpu=settings.train.gpu))
    bits, difference = compare_losses(losses[0], losses[1], sizes, settings.train.seed)
    better = second.name if difference[2] < 0 else first.name if difference[1] > 0 else None
    return Comparison(
        documents=len(chosen),
        bytes=sum(sizes),
        bits_per_byte=dict(zip((first.name, second.name), bits, strict=True)),
        difference=difference,
        verdict=f"{better} is better" if better else "neither is shown to be better",
    )
