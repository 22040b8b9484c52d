"""The commands that assist: context, ask."""

import sys
from pathlib import Path
from typing import Any

import click

from treering.cli.options import OneLine, common, emit
from treering.report import Reporter, one_line, printable

_BUDGET = click.option(
    "--budget", type=click.IntRange(min=1, max=1_000_000), default=8000, show_default=True, help="Tokens of context."
)


@click.command(cls=OneLine)
@click.argument("question")
@_BUDGET
@click.option(
    "--for",
    "audience",
    type=click.Choice(["claude", "local"]),
    default="claude",
    show_default=True,
    help="Whose tokens are counted.",
)
@common
def context(
    repo: Path, store: Path | None, as_json: bool, verbose: bool, question: str, budget: int, audience: Any
) -> None:
    """Print what the history holds on a question, as one text for a model."""
    from treering import assisting, finding, opening

    report = Reporter.to_stderr(verbose=verbose)
    with finding.desk(opening.place(repo, store), report) as desk:
        made = assisting.context(desk, question, budget=budget, audience=audience)
    if as_json:
        emit(made)
        return
    click.echo(printable(made.text), nl=False)
    report.say(
        f"{made.tokens:,} of {budget:,} tokens: {len(made.facts)} pieces, {len(made.left_out)} left out or shortened"
    )
    for one in made.left_out:
        report.detail(f"left out: {one}")


@click.command(cls=OneLine)
@click.argument("question")
@click.option(
    "--by",
    type=click.Choice(["auto", "claude", "local", "history"]),
    default="auto",
    show_default=True,
    help="Who answers; auto: Claude if it can be asked, else the history.",
)
@_BUDGET
@click.option("--explain", is_flag=True, help="Show the context that the answer rests on.")
@common
def ask(
    repo: Path, store: Path | None, as_json: bool, verbose: bool, question: str, by: Any, budget: int, explain: bool
) -> None:
    """Answer a question from the history, with citations that are checked."""
    from treering import assisting, finding, opening

    def tell(piece: str) -> None:
        if not as_json:
            click.echo(printable(piece), nl=False)
            sys.stdout.flush()

    with finding.desk(opening.place(repo, store), Reporter.to_stderr(verbose=verbose)) as desk:
        made = assisting.ask(desk, question, by=by, budget=budget, explain=explain, tell=tell)
    if as_json:
        emit(made)
        return
    click.echo("")
    for one in made.citations:
        click.echo(one_line(f"[{one.commit_hash[:10]}] {one.date} {one.subject}"))
    if made.context:
        click.echo(f"\n{printable(made.context.text)}", nl=False)
    who = {"claude": "Claude", "local": "the local model", "history": "the history"}[made.answered_by]
    click.echo(one_line(f"by {who}{f' ({made.model})' if made.model else ''}: {made.why}"), err=True)
    if made.unsupported:
        click.echo(one_line(f"taken out, not in the context: {', '.join(made.unsupported)}"), err=True)
    if made.dollars:
        click.echo(f"{made.input_tokens:,} tokens read, {made.output_tokens:,} written: ${made.dollars:.4f}", err=True)
