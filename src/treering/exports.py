"""The operations of the seed's scripts: the same stages as ``operations.py``, driven from file to file."""

import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from treering.config import load
from treering.errors import DataError, ModelError, UsageError
from treering.files import json_lines, locked, os_errors, read_json_lines, write_json_array, write_json_lines
from treering.git.reader import locate
from treering.lm.base import check_base
from treering.pipeline import index as index_stage
from treering.pipeline import learn as learn_stage
from treering.pipeline import scrape as scrape_stage
from treering.pipeline import tokenize as tokenize_stage
from treering.report import Reporter
from treering.search.commits import Finder
from treering.store import FOLDER, Store
from treering.text.strategies import Telling
from treering.tokens.pack import read_sequences, write_sequences
from treering.types import HistoryStats, Hit, Point, Record, TokenDocument
from treering.vectors.embedder import Embedder, load_embedder

TOKENS_A_TEXT = 64
"""What a text of a commit has on average: turns a batch size in texts into one in tokens."""


def export_history(
    repo: Path,
    output: Path,
    output_json: Path,
    report: Reporter,
    flags: Mapping[str, Mapping[str, object]] | None = None,
) -> HistoryStats:
    """Write every commit, with its hunks, as JSON lines and as one JSON array."""
    source = locate(repo)
    settings = load(source.worktree, os.environ, flags)
    stats = HistoryStats()

    def counted() -> Iterator[Record]:
        for record in scrape_stage.history(source, settings, report):
            stats.add(record)
            yield record

    write_json_lines(output, counted())
    # An empty choice of commits is a history too, though not one that anything comes after.
    again = read_json_lines(output, dict[str, object]) if stats.commits else iter(())
    write_json_array(output_json, again, indented=True)
    if stats.partial:
        report.warn(f"{stats.partial} of {stats.commits} commits have a partial diff: objects are missing")
    return stats


@dataclass(frozen=True, slots=True)
class TokenStatistics:
    """What a tokenisation made. Tokens of a commit are without the end-of-text that follows it."""

    commits: int
    num_sequences: int
    total_tokens: int
    vocab_size: int
    added_tokens: int
    shortest: int
    mean: float
    longest: int
    repeats_of_a_diff: int
    repeats_of_a_message: int

    def text(self) -> str:
        repeats = f"{self.repeats_of_a_diff:,} by diff, {self.repeats_of_a_message:,} by message"
        return "\n".join(
            (
                f"Total commits: {self.commits:,}",
                f"Total sequences: {self.num_sequences:,}",
                f"Total tokens: {self.total_tokens:,}",
                f"Vocabulary size: {self.vocab_size:,} ({self.added_tokens} added)",
                f"Tokens per commit: {self.shortest:,} to {self.longest:,}, {self.mean:.1f} on average",
                f"Commits that repeat an earlier one: {repeats}",
            )
        )


def export_tokens(
    history: Path,
    output: Path,
    sequences: Path,
    report: Reporter,
    *,
    strategy: str,
    model: str,
    sequence_length: int,
    markers: str,
) -> TokenStatistics:
    """Write each commit's tokens as JSON lines, and all of them packed into sequences."""
    chosen = load(
        None, {}, {"tokens": {"strategy": strategy, "markers": markers, "sequence_length": sequence_length}}
    ).tokens
    tokenizer = tokenize_stage.tokenizer_for(model, markers=chosen.markers)
    telling = Telling()
    repo = ""
    sizes: list[int] = []

    def noted() -> Iterator[TokenDocument]:
        nonlocal repo
        told = tokenize_stage.token_documents(
            read_json_lines(history, Record), chosen.strategy, tokenizer, telling, report
        )
        with json_lines(output) as write:
            for record, encoded in told:
                repo = repo or record.repo
                sizes.append(len(encoded.tokens))
                write({"commit_hash": record.commit_hash, "strategy": chosen.strategy, "tokens": list(encoded.tokens),
                       "num_tokens": len(encoded.tokens), "duplicate_of": encoded.duplicate_of})  # fmt: skip
                yield encoded

    corpus = write_sequences(
        sequences, noted(), tokenizer=tokenizer, repo=lambda: repo, strategy=chosen.strategy, length=sequence_length
    )
    report.detail(f"tokens: {corpus.total_tokens:,} in {sequences}")
    return TokenStatistics(
        commits=len(sizes),
        num_sequences=corpus.num_sequences,
        total_tokens=corpus.total_tokens,
        vocab_size=corpus.vocab_size,
        added_tokens=len(corpus.added_tokens),
        shortest=min(sizes),
        mean=sum(sizes) / len(sizes),
        longest=max(sizes),
        repeats_of_a_diff=telling.duplicates.found["diff"],
        repeats_of_a_message=telling.duplicates.found["message"],
    )


@dataclass(frozen=True, slots=True)
class EmbeddingStatistics:
    commits: int
    points: int
    dimensions: int
    model: str
    points_by_kind: dict[str, int]

    def text(self) -> str:
        kinds = ", ".join(f"{count:,} of the {kind}" for kind, count in self.points_by_kind.items())
        return "\n".join(
            (
                f"Embedding model: {self.model}",
                f"Embedding dimension: {self.dimensions}",
                f"Total commits: {self.commits:,}",
                f"Total points: {self.points:,} ({kinds})",
            )
        )


@contextmanager
def _export_store(
    history: Path, beside: Path, model: str, batch_size: int, report: Reporter
) -> Iterator[tuple[Store, Embedder]]:
    """The store that the embedding script keeps beside its output, brought up to date with ``history``."""
    settings = load(None, {}, {"index": {"model": model, "batch_tokens": max(256, batch_size * TOKENS_A_TEXT)}})
    embedder = load_embedder(settings.index.model, settings.index.batch_tokens)
    with Store(beside.parent / FOLDER) as store, store.writing("embedding_generator"):
        index_stage.take_records(store, read_json_lines(history, Record), settings, report)
        index_stage.index_words(store, report)
        index_stage.index_vectors(store, lambda: embedder, report)
        yield store, embedder


def search_export(
    history: Path, beside: Path, query: str, report: Reporter, *, model: str, batch_size: int, limit: int
) -> list[Hit]:
    """Hybrid search over a history file."""
    if not query.strip():
        raise UsageError("the query is empty", "say in words what the commit did")
    load(None, {}, {"search": {"limit": limit}})
    with _export_store(history, beside, model, batch_size, report) as (store, embedder):
        return Finder(store, embedder).search(query, limit=limit)


def export_embeddings(
    history: Path, output: Path, qdrant_output: Path, report: Reporter, *, model: str, batch_size: int
) -> EmbeddingStatistics:
    """Write each commit with its vectors as JSON lines, and all vectors as Qdrant points."""
    kinds: Counter[str] = Counter()
    with _export_store(history, qdrant_output, model, batch_size, report) as (store, embedder):
        write_json_lines(output, index_stage.embedded_records(store, embedder))

        def counted() -> Iterator[Point]:
            for point in index_stage.points(store, embedder):
                kinds[str(point.payload["kind"])] += 1
                yield point

        points = write_json_array(qdrant_output, counted())
        return EmbeddingStatistics(store.count(), points, embedder.dimensions, embedder.name, dict(kinds))


def train_export(
    tokens: Path,
    output_dir: Path,
    report: Reporter,
    *,
    model_name: str | None,
    batch_size: int,
    epochs: int,
    learning_rate: float,
    method: str,
    minutes: float | None,
    no_gpu: bool,
    weights_format: str,
) -> tuple[Path, learn_stage.TrainingReport]:
    """Fine-tune on a token file and save the model as ``<repo>-git-model-final``."""
    flags = {
        "batch_size": batch_size, "epochs": epochs, "learning_rate": learning_rate, "method": method,
        "minutes": minutes, "gpu": not no_gpu,
    }  # fmt: skip
    chosen = load(None, {}, {"train": flags})
    if minutes == 0:
        raise UsageError("a budget of 0 minutes trains nothing", "give --minutes a positive number, or leave it out")
    corpus, ids = read_sequences(tokens)
    base = model_name or corpus.tokenizer or "gpt2"
    try:
        check_base(base)
    except ModelError as error:
        fits = (
            f"`scratch` fits these tokens of {corpus.tokenizer or 'gpt2'}; for another base tokenise again with --model"
        )
        raise ModelError(error.message, f"{error.hint}; {fits}") from error
    recipe = replace(
        learn_stage.recipe_of(chosen),
        minutes=math.inf if minutes is None else minutes,
        sequence_length=corpus.sequence_length,
    )
    if Path(corpus.repo).name != corpus.repo or corpus.repo == "..":
        raise DataError(f"{tokens}: `repo` is {corpus.repo!r}, which is no name of a repository", "make the file again")
    folder = output_dir / f"{corpus.repo or 'repo'}-git-model-final"
    with os_errors(output_dir):
        output_dir.mkdir(parents=True, exist_ok=True)
    with locked(output_dir / ".trainer.lock", "model_trainer.py"):
        return folder, learn_stage.learn(corpus, ids, base, recipe, folder, report, weights_format=weights_format)
