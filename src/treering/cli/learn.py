"""The commands that learn: tokenize, train, evaluate, generate; and those that use it: message, suggest."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from treering.cli.options import OneLine, common, emit, settings_of
from treering.report import Reporter, one_line, printable

MODEL = click.option("--model", help="The base model: smollm2-135m, scratch, a Hugging Face name or a folder.")
MINUTES = click.option("--minutes", type=float, help="The wall-time budget of training [default: 5].")
WHICH = click.option("--model", help="Another model than the current one: its fingerprint, or a folder.")
STRATEGY = click.option("--strategy", help="semantic, hierarchical, diff-aware or flat.")
METHOD = click.option("--method", help="lora, full or qlora.")
BATCH_SIZE = click.option("--batch-size", type=int, help="Sequences in an optimizer step.")
SEQUENCE_LENGTH = click.option("--sequence-length", type=int, help="Tokens in a training block.")
GPU = click.option("--gpu/--no-gpu", default=None, help="Use a GPU if there is one.")


@click.command(cls=OneLine)
@STRATEGY
@MODEL
@click.option("--markers", help="text, or tokens added to the vocabulary.")
@SEQUENCE_LENGTH
@common
def tokenize(repo: Path, store: Path | None, as_json: bool, verbose: bool, **flags: Any) -> None:
    """Turn the history into a token stream for the base model."""
    from treering import learning, opening

    report = Reporter.to_stderr(verbose=verbose)
    folder, corpus = learning.tokenize(opening.place(repo, store, settings_of(flags)), report)
    if as_json:
        emit({"folder": str(folder), "total_tokens": corpus.total_tokens, "documents": len(corpus.documents),
              "num_sequences": corpus.num_sequences, "vocab_size": corpus.vocab_size,
              "strategy": corpus.strategy})  # fmt: skip
    else:
        click.echo(f"{corpus.total_tokens:,} tokens of {len(corpus.documents):,} commits in {folder}")


def trained(command: Callable[..., None]) -> Callable[..., None]:
    """The options of a training, whatever it learns from."""
    for option in (
        click.option(
            "--resume/--no-resume", default=True, show_default=True, help="Go on with one that was cut short."
        ),
        click.option("--save-seconds", type=float, help="How often a checkpoint is written [default: 60]."),
        click.option("--sharded", is_flag=True, default=None, help="Spread it over torchrun's processes (FSDP)."),
        GPU,
        click.option("--seed", type=int, help="Decides the order and every random start."),
        click.option("--learning-rate", type=float, help="The peak learning rate."),
        SEQUENCE_LENGTH,
        BATCH_SIZE,
        click.option("--epochs", type=int, help="How often the history is read at most."),
        click.option("--max-tokens", type=int, help="Tokens to learn from at most."),
        click.option("--max-steps", type=int, help="Optimizer steps at most."),
        METHOD,
        MODEL,
        MINUTES,
    ):
        command = option(command)
    return command


@click.command(cls=OneLine)
@STRATEGY
@trained
@click.option("--continue", "onward", is_flag=True, help="Go on from the current model, on the commits since.")
@common
def train(
    repo: Path, store: Path | None, as_json: bool, verbose: bool, resume: bool, onward: bool, **flags: Any
) -> None:
    """Fine-tune the base model on the history and judge it on later commits."""
    from treering import learning, opening

    report = Reporter.to_stderr(verbose=verbose)
    where = opening.place(repo, store, settings_of(flags))
    learned = learning.train(where, report, resume=resume, onward=onward)
    if learned is None:
        return
    if as_json:
        emit({"model": str(learned.folder), "current": learned.current, "report": learned.report})
        return
    click.echo(f"{learned.report.verdict}\nModel: {learned.folder}")
    if not learned.current:
        click.echo("It is not shown to be better than the current model, which stays.")


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
    from treering import learning, opening
    from treering.types import Sampling

    where = opening.place(repo, store, settings_of({"gpu": gpu}))
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


@click.command(cls=OneLine)
@click.option("--tasks", default="completion,message,files,next", show_default=True, help="Which, parted by commas.")
@click.option(
    "--most", type=click.IntRange(min=1), default=40, show_default=True, help="Later commits judged on, the newest."
)
@common
def evaluate(repo: Path, store: Path | None, as_json: bool, verbose: bool, tasks: str, most: int) -> None:
    """Measure the current model on later commits, beside what needs no model."""
    from treering import learning, opening

    report = Reporter.to_stderr(verbose=verbose)
    asked = [name.strip() for name in tasks.split(",") if name.strip()]
    made = learning.evaluate(opening.place(repo, store), report, asked=asked, most=most)
    if as_json:
        emit(made)
        return
    click.echo(made.verdict)
    click.echo(f"bits per byte on {made.commits:,} later commits ({made.seconds:.0f} s)")
    for part in made.parts:
        figures = "  ".join(f"{name} {value:.3f}" for name, value in part.bits_per_byte.items())
        click.echo(f"  {part.part:8s} {figures}")
        for name, (difference, low, high) in part.differences.items():
            click.echo(f"           tuned to {name}: {difference:+.3f} [{low:+.3f}, {high:+.3f}]")
        for name, (difference, low, high) in part.shown.items():
            click.echo(f"           shown, to {name}: {difference:+.3f} [{low:+.3f}, {high:+.3f}]")
    for row in made.tasks:
        difference, low, high = row.difference
        click.echo(f"{row.task}, {row.measure} ({row.cases} commits)")
        for name, value in row.ways.items():
            click.echo(f"  {name:24s} {value:.3f}")
        won = "the model answers" if made.won(row.task) else "the history answers"
        click.echo(f"  to {row.baseline}: {difference:+.3f} [{low:+.3f}, {high:+.3f}]: {won}")


@click.command(cls=OneLine)
@click.option("--begin", default="", help="How the subject begins; it is finished.")
@common
def message(repo: Path, store: Path | None, as_json: bool, verbose: bool, begin: str) -> None:
    """Propose a commit message for what is staged, or finish one."""
    from treering import learning, opening

    told = learning.message(opening.place(repo, store), Reporter.to_stderr(verbose=verbose), begin=begin)
    if as_json:
        emit(told)
        return
    click.echo(one_line(told.message))
    if told.next:
        click.echo(one_line(f"next word: {', '.join(told.next)}"), err=True)
    click.echo(one_line(f"by the {told.answered_by}: {told.why}"), err=True)
    for near in told.near[:3]:
        click.echo(one_line(f"near: {near.subject} ({near.commit_hash[:7]})"), err=True)


@click.command(cls=OneLine)
@click.option("--limit", type=click.IntRange(1, 1000), default=10, show_default=True, help="How many of each.")
@common
def suggest(repo: Path, store: Path | None, as_json: bool, verbose: bool, limit: int) -> None:
    """What is likely to come next, with what speaks for it."""
    from treering import finding, learning, opening

    with finding.desk(opening.place(repo, store), Reporter.to_stderr(verbose=verbose)) as opened:
        told = learning.suggest(opened, limit=limit)
    if as_json:
        emit(told)
        return
    if told.themes:
        click.echo("What the last commits are about:")
    for theme in told.themes:
        click.echo(one_line(f"  {theme.name}: {', '.join(name[:7] for name in theme.commits[:5])}"))
    if told.open:
        click.echo("Usually change together, and did not yet:")
    for one in told.open:
        click.echo(one_line(f"  {one.path}: with {one.beside}, {one.together} of {one.changed} times"))
    click.echo(one_line(f"Files that come next, by the {told.answered_by}: {told.why}"))
    for file in told.files:
        click.echo(one_line(f"  {file.path} (last in {file.last[:7]})"))


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
