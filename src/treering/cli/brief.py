"""The command that tells what happened: brief."""

from pathlib import Path

import click

from treering.cli.options import common, emit
from treering.report import Reporter


@click.command()
@click.option("--since", default="", help="From this date on: 2024-01-31, or `3 months ago` [default: 30 days].")
@click.option("--until", default="", help="Up to this date [default: the newest commit's].")
@click.option("--limit", type=click.IntRange(1, 100), default=8, show_default=True, help="How many of each kind.")
@click.option("--format", "as_format", type=click.Choice(["text", "markdown"]), default="text", show_default=True)
@common
def brief(
    repo: Path, store: Path | None, as_json: bool, verbose: bool, since: str, until: str, limit: int, as_format: str
) -> None:
    """What happened in a period, what stalled, what may come next: a prompt to Claude."""
    from treering import deciding, finding, opening

    with finding.desk(opening.place(repo, store), Reporter.to_stderr(verbose=verbose)) as desk:
        told = deciding.brief(desk, since=since, until=until, limit=limit)
    if as_json:
        emit(told)
    else:
        click.echo(told.markdown() if as_format == "markdown" else told.text(), nl=False)
