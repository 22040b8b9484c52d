"""The command that tells a history in figures: overview."""

from pathlib import Path

import click

from treering.cli.options import common, emit
from treering.report import Reporter, one_line, printable

SHOWN = 8


@click.command()
@common
def overview(repo: Path, store: Path | None, as_json: bool, verbose: bool) -> None:
    """Tell the history in figures: activity, themes over time, what changes most, what the model learned."""
    from treering import deciding, finding, opening
    from treering.types import day_of

    where = opening.place(repo, store)
    with finding.desk(where, Reporter.to_stderr(verbose=verbose), vectors=False) as opened:
        told = deciding.overview(opened)
    if as_json:
        emit(told)
        return
    click.echo(f"{told.commits:,} commits, {told.authors:,} author(s), {day_of(told.first)} to {day_of(told.last)}")
    for line in told.themes:
        click.echo(f"theme: {printable(line.name)} ({', '.join(map(str, line.counts))})")
    for path in told.hot[:SHOWN]:
        click.echo(one_line(f"hot since {day_of(told.hot_since)}: {path.path} ({path.commits:,} commits)"))
    if told.training:
        click.echo(printable(told.training.verdict))
    for torn in told.torn:
        click.echo(f"warning: {printable(torn)}", err=True)
