"""The four scripts the product was ordered with: every flag, file and printed block of theirs, over the same stages.

They work from file to file; only the embedding script keeps a store, beside its output, so that a search does not
embed the history again. What they say goes to stderr and to ``pipeline.log`` in the current folder.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from treering.cli.options import PATH, OneLine, chosen, emit, guarded, settings_of
from treering.errors import Incomplete
from treering.report import Reporter, one_line

LOG = Path("pipeline.log")


def _path(name: str, default: str, text: str) -> Callable[..., Any]:
    return click.option(name, type=PATH, default=default, show_default=True, help=text)


_JSON = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
_VERBOSE = click.option("--verbose", is_flag=True, help="Say more on stderr.")
_guarded = functools.partial(guarded, log=LOG)


def _report(*, verbose: bool) -> Reporter:
    return Reporter.to_stderr(log=LOG, verbose=verbose)


@click.command(cls=OneLine)
@click.option("--repo", type=PATH, required=True, help="The Git repository.")
@_path("--output", "data/git_history.jsonl", "One JSON object a commit, oldest first.")
@_path("--output-json", "data/git_history.json", "The same as one indented JSON array.")
@click.option("--stats", is_flag=True, help="Print totals.")
@chosen
@click.option("--strict", is_flag=True, help="Exit 7 if any commit could be read only in part.")
@_JSON
@_VERBOSE
@_guarded
def scrape(
    repo: Path,
    output: Path,
    output_json: Path,
    *,
    stats: bool,
    strict: bool,
    as_json: bool,
    verbose: bool,
    **flags: Any,
) -> None:
    """Read every commit of every branch, local and remote."""
    from treering import exports

    report = _report(verbose=verbose)
    totals = exports.export_history(repo, output, output_json, report, settings_of(flags))
    if as_json:
        emit(totals)
    elif stats:
        click.echo(totals.text())
    else:
        click.echo(f"{totals.commits:,} commits in {output}")
    if strict and totals.partial:
        raise Incomplete(
            f"{totals.partial} commits have a partial diff", "fetch the missing objects, or leave out --strict"
        )


@click.command(cls=OneLine)
@_path("--input", "data/git_history.jsonl", "What git_scraper.py wrote.")
@_path("--output", "data/tokenized_commits.jsonl", "One JSON object a commit, with its tokens.")
@_path("--sequences", "data/token_sequences.json", "The tokens as training sequences.")
@click.option("--strategy", default="semantic", show_default=True, help="semantic, hierarchical, diff-aware or flat.")
@click.option(
    "--model",
    default="gpt2",
    show_default=True,
    help="Whose tokenizer: gpt2, smollm2-135m, any Hugging Face name or folder.",
)
@click.option("--sequence-length", type=int, default=1024, show_default=True, help="Tokens in a sequence.")
@click.option(
    "--markers", default="tokens", show_default=True, help="Whether <COMMIT> and its like are tokens or text."
)
@click.option("--stats", is_flag=True, help="Print statistics.")
@_JSON
@_VERBOSE
@_guarded
def tokenize(output: Path, sequences: Path, *, stats: bool, as_json: bool, verbose: bool, **options: Any) -> None:
    """Turn commits into token sequences."""
    from treering import exports

    found = exports.export_tokens(options.pop("input"), output, sequences, _report(verbose=verbose), **options)
    if as_json:
        emit(found)
    elif stats:
        click.echo(found.text())
    else:
        click.echo(f"{found.num_sequences:,} sequences in {sequences}")


@click.command(cls=OneLine)
@_path("--input", "data/git_history.jsonl", "What git_scraper.py wrote.")
@_path("--output", "embeddings/commits.jsonl", "One JSON object a commit, with its vectors.")
@_path("--qdrant-output", "embeddings/qdrant_points.json", "Points ready for Qdrant.")
@click.option("--model", default="all-MiniLM-L6-v2", show_default=True, help="The embedding model.")
@click.option("--batch-size", type=int, default=32, show_default=True, help="Texts of usual length embedded at once.")
@click.option("--stats", is_flag=True, help="Print statistics.")
@click.option("--search-query", help="Search instead of writing the files.")
@click.option("--limit", type=int, default=5, show_default=True, help="How many commits a search shows.")
@_JSON
@_VERBOSE
@_guarded
def embed(
    output: Path,
    qdrant_output: Path,
    search_query: str | None,
    limit: int,
    *,
    stats: bool,
    as_json: bool,
    verbose: bool,
    **options: Any,
) -> None:
    """Give every commit its vectors, or search them."""
    from treering import exports

    report = _report(verbose=verbose)
    history, model, batch_size = options["input"], options["model"], options["batch_size"]
    if search_query is not None:
        hits = exports.search_export(
            history, qdrant_output, search_query, report, model=model, batch_size=batch_size, limit=limit
        )
        if as_json:
            emit(hits)
            return
        click.echo(f"Searching for: {one_line(search_query)}\n\nTop {len(hits)} similar commits:")
        for hit in hits:
            click.echo(one_line(f"  [{hit.score:.4f}] {hit.subject} ({hit.commit_hash[:7]})"))
            click.echo(one_line(f"           Author: {hit.author}"))
        return
    found = exports.export_embeddings(history, output, qdrant_output, report, model=model, batch_size=batch_size)
    if as_json:
        emit(found)
    elif stats:
        click.echo(found.text())
    else:
        click.echo(f"{found.points:,} points in {qdrant_output}")


@click.command(cls=OneLine)
@_path("--input", "data/token_sequences.json", "What git_tokenizer.py wrote.")
@click.option("--model-name", help="The base model [default: the one whose tokenizer made the input].")
@_path("--output-dir", "models", "Where <repo>-git-model-final goes.")
@click.option("--batch-size", type=int, default=4, show_default=True, help="Sequences in a step.")
@click.option("--epochs", type=int, default=3, show_default=True, help="How often the history is read.")
@click.option("--learning-rate", type=float, default=5e-5, show_default=True, help="The peak learning rate.")
@click.option(
    "--method", default="full", show_default=True, help="full: all weights; lora: low-rank adapters, merged at the end."
)
@click.option("--minutes", type=float, help="A wall-time budget [default: none].")
@click.option("--evaluate", is_flag=True, help="Print the figures on the held-out commits.")
@click.option("--no-gpu", is_flag=True, help="Train on the CPU even if there is a GPU.")
@click.option(
    "--weights-format",
    type=click.Choice(["safetensors", "bin"]),
    default="safetensors",
    show_default=True,
    help="bin adds pytorch_model.bin.",
)
@_JSON
@_VERBOSE
@_guarded
def train(output_dir: Path, *, evaluate: bool, as_json: bool, verbose: bool, **options: Any) -> None:
    """Fine-tune a language model on the token sequences."""
    from treering import exports

    folder, told = exports.train_export(options.pop("input"), output_dir, _report(verbose=verbose), **options)
    if as_json:
        emit({"model": str(folder), "report": told})
        return
    if evaluate:
        click.echo("Evaluation Results:")
        click.echo(f"  perplexity: {told.holdout.perplexity:.2f}")
        click.echo(f"  total_loss: {told.holdout.total_loss:.1f}")
        click.echo(f"  total_tokens: {told.holdout.total_tokens}")
        for name, bits in told.holdout.bits_per_byte.items():
            click.echo(f"  bits_per_byte {name}: {'not known' if bits is None else f'{bits:.3f}'}")
        click.echo(f"  {told.verdict}\n")
    click.echo(f"Model saved to: {folder}")
