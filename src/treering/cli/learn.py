"""The commands that learn: tokenize, train, generate."""

import sys
from pathlib import Path
from typing import Any

import click

from treering.cli.options import OneLine, common, emit, settings_of
from treering.report import Reporter, one_line, printable

MODEL = click.option("--model", help="The base model: smollm2-135m, scratch, a Hugging Face name or a folder.")
MINUTES = click.option("--minutes", type=float, help="The wall-time budget of training [default: 5].")
WHICH = click.option("--model", help="Another model than the current one: its fingerprint, or a folder.")
STRATEGY = click.option("--strategy", help="semantic, hierarchical, diff-aware or flat.")


@click.command(cls=OneLine)
@STRATEGY
@MODEL
@click.option("--markers", help="text, or tokens added to the vocabulary.")
@click.option("--sequence-length", type=int, help="Tokens in a training block.")
@common
def tokenize(repo: Path, store: Path | None, as_json: bool, verbose: bool, **flags: Any) -> None:
    """Turn the history into a token stream for the base model."""
    from treering import learning, operations

    report = Reporter.to_stderr(verbose=verbose)
    folder, corpus = learning.tokenize(operations.place(repo, store, settings_of(flags)), report)
    if as_json:
        emit({"folder": str(folder), "total_tokens": corpus.total_tokens, "documents": len(corpus.documents),
              "num_sequences": corpus.num_sequences, "vocab_size": corpus.vocab_size,
              "strategy": corpus.strategy})  # fmt: skip
    else:
        click.echo(f"{corpus.total_tokens:,} tokens of {len(corpus.documents):,} commits in {folder}")


@click.command(cls=OneLine)
@MINUTES
@MODEL
@STRATEGY
@click.option("--method", help="lora or full.")
@click.option("--epochs", type=int)
@click.option("--batch-size", type=int)
@click.option("--learning-rate", type=float)
@click.option("--seed", type=int)
@click.option("--gpu/--no-gpu", default=None, help="Use a GPU if there is one.")
@common
def train(repo: Path, store: Path | None, as_json: bool, verbose: bool, **flags: Any) -> None:
    """Fine-tune the base model on the history and judge it on later commits."""
    from treering import learning, operations

    report = Reporter.to_stderr(verbose=verbose)
    folder, told = learning.train(operations.place(repo, store, settings_of(flags)), report)
    if as_json:
        emit({"model": str(folder), "report": told})
    else:
        click.echo(f"{told.verdict}\nModel: {folder}")


@click.command(cls=OneLine)
@click.argument("prompt", default="")
@click.option("--message", help="Instead of a prompt: the beginning of a commit's message, told as in training.")
@click.option("--max-tokens", type=int, default=128, show_default=True)
@click.option(
    "--temperature", type=float, default=0.7, show_default=True, help="0 always takes the likeliest token; up to 10."
)
@click.option("--top-p", type=float, default=0.95, show_default=True, help="Only the likeliest that make up this much.")
@click.option("--top-k", type=int, default=50, show_default=True, help="Only so many of the likeliest; 0: all.")
@click.option("--repetition-penalty", type=float, default=1.0, show_default=True, help="Over 1: say less twice.")
@click.option("--stop", multiple=True, metavar="TEXT", help="End before this text; may be given several times.")
@click.option("--seed", type=int, default=7, show_default=True, help="The same seed, the same text.")
@click.option("--count", type=click.IntRange(1, 1000), default=1, show_default=True, help="So many texts.")
@WHICH
@click.option("--gpu/--no-gpu", default=None, help="Use a GPU if there is one.")
@common
def generate(
    repo: Path,
    store: Path | None,
    as_json: bool,
    verbose: bool,
    prompt: str,
    message: str | None,
    count: int,
    model: str | None,
    gpu: bool | None,
    **chosen: Any,
) -> None:
    """Let a model go on from a prompt, which it gets as it is."""
    from treering import learning, operations
    from treering.types import Sampling

    where = operations.place(repo, store, settings_of({"gpu": gpu}))
    pieces: list[str] = []

    def tell(piece: str) -> None:
        pieces.append(piece)
        if not as_json:
            click.echo(printable(piece), nl=False)
            sys.stdout.flush()

    made = learning.generate(
        where, prompt, Sampling(**chosen), Reporter.to_stderr(verbose=verbose),
        message=message, count=count, model=model, tell=tell,
    )  # fmt: skip
    completions = []
    for one in made:
        completions.append(one)
        if not as_json:
            click.echo("\n---" if len(completions) < count else "")
    if as_json:
        begun = pieces[0]
        emit({"prompt": begun, "text": begun + completions[0].text, "completions": completions})


def export_model(
    where: Any,
    output: Path,
    report: Reporter,
    *,
    as_json: bool,
    as_format: str,
    quantize: str | None,
    model: str | None,
) -> None:
    """The half of ``treering export`` that writes a model."""
    from treering import learning

    exported = learning.export_model(where, output, report, as_format=as_format, quantize=quantize, model=model)
    if as_json:
        emit({"folder": str(output), "export": exported})
        return
    files = ", ".join(f"{name} ({size / 1e6:,.1f} MB)" for name, size in exported.files.items())
    click.echo(one_line(f"{exported.model} in {output}: {files}"))
