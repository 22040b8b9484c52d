"""The command that hands whole histories on, as a dataset of Parquet files."""

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from treering.cli.options import PATH, OneLine, check, chosen, common, emit, settings_of, strict
from treering.errors import Incomplete, UsageError
from treering.report import Reporter, one_line


@click.command(cls=OneLine)
@click.argument("destination")
@click.option("--fleet", type=PATH, help="Of all stores in DIR/stores, as they are [default: of the repository].")
@click.option("--repository", "only", multiple=True, help="Of a fleet only this one; may be given several times.")
@chosen
@strict
@common
def dataset(
    repo: Path,
    store: Path | None,
    as_json: bool,
    verbose: bool,
    strict: bool,
    destination: str,
    fleet: Path | None,
    only: tuple[str, ...],
    **flags: Any,
) -> None:
    """Bring a dataset of Parquet files up to date: in a folder, or at a URL such as s3://bucket/name."""
    from treering import opening, publishing

    report = Reporter.to_stderr(verbose=verbose)
    if fleet:
        named = click.get_current_context().get_parameter_source("repo") == ParameterSource.COMMANDLINE
        if named or store or any(value not in (None, ()) for value in flags.values()):
            raise UsageError(
                "--repo, --store and a choice of commits are of one repository, and --fleet is of many",
                "leave them out",
            )
        made = publishing.publish_fleet(fleet, destination, report, only)
    elif only:
        raise UsageError("--repository is of a fleet", "give --fleet its folder")
    else:
        made = publishing.publish(opening.place(repo, store, settings_of(flags)), destination, report)
    if as_json:
        emit(made)
    else:
        _tell(made)
    if made.failed:
        name, why = next(iter(made.failed.items()))
        raise Incomplete(
            f"{len(made.failed):,} repositories were left as they were, {one_line(name)} first: {why}",
            "mend their stores, or take them out of the fleet, and run it again: the others are done",
        )
    check(report, strictly=strict)


def _tell(made: Any) -> None:
    for what, names in (("wrote", made.written), ("took out", made.taken_out)):
        for name in names:
            click.echo(one_line(f"{what} {name}"))
    if made.unchanged:
        click.echo(f"{len(made.unchanged):,} repositories were up to date")
    rows = ", ".join(f"{total.rows:,} {table}" for table, total in made.tables.items())
    click.echo(f"{rows}; {sum(total.bytes for total in made.tables.values()) / 1e6:,.1f} MB")
