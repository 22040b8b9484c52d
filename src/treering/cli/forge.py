"""``treering forge``: what the history says of a request, told there; what was discussed there, told here."""

from pathlib import Path

import click

from treering.cli.options import common, emit
from treering.report import Reporter, one_line, printable


@click.group()
def forge() -> None:
    """Work with GitHub or GitLab: comment on a pull or merge request, fetch what was discussed."""


_REPOSITORY = click.option(
    "--repository", default="", help="Its full name at the forge [default: $TREERING_FORGE_REPOSITORY, CI's, origin's]."
)


@forge.command()
@click.argument("number", type=click.IntRange(min=1), required=False)
@_REPOSITORY
@click.option("--dry-run", is_flag=True, help="Print the comment, and post nothing.")
@common
def comment(
    repo: Path, store: Path | None, as_json: bool, verbose: bool, number: int | None, repository: str, dry_run: bool
) -> None:
    """Tell on a request what the history says of it, in one comment that is updated. In CI its NUMBER is known."""
    from treering import forging, opening

    report = Reporter.to_stderr(verbose=verbose)
    where = opening.place(repo, store)
    told = forging.comment(where, report, forging.request_of(number or 0), repository=repository, dry=dry_run)
    if as_json:
        emit(told)
    elif told.posted:
        click.echo(one_line(f"{told.posted.done}: {told.posted.url or f'comment {told.posted.id}'}"))
    else:
        click.echo(printable(told.body), nl=False)


@forge.command()
@_REPOSITORY
@common
def pull(repo: Path, store: Path | None, as_json: bool, verbose: bool, repository: str) -> None:
    """Fetch the texts of requests and issues into the store: only what changed since the last time."""
    from treering import forging, opening

    where = opening.place(repo, store)
    done = forging.pull(where, Reporter.to_stderr(verbose=verbose), repository=repository)
    if as_json:
        emit(done)
    else:
        click.echo(f"{done.changed:,} new or changed; {done.requests:,} requests and {done.issues:,} issues are here")
