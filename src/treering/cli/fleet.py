"""``treering fleet``: many repositories, indexed by many processes."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from treering.cli.learn import trained
from treering.cli.options import PATH, chosen, emit, guarded, settings_of
from treering.errors import Incomplete, UsageError
from treering.report import Reporter, one_line


@click.group()
def fleet() -> None:
    """Many repositories as one: indexed by many processes, searched together."""


def of_fleet(command: Callable[..., None]) -> Callable[..., None]:
    """What every command on a fleet has."""
    for decorate in (
        click.option("--json", "as_json", is_flag=True, help="Print the result as JSON."),
        click.argument("folder", metavar="FLEET", type=PATH),
    ):
        command = decorate(command)
    return guarded(command)


@fleet.command()
@of_fleet
@click.argument("sources", metavar="[REPOSITORY]...", nargs=-1)
@click.option("--list", "lists", type=PATH, multiple=True, help="A file with a path or an address a line.")
@click.option("--organisation", "owners", multiple=True, help="All of github:NAME, or gitlab:GROUP.")
@click.option("--workers", type=click.IntRange(min=1), help="How many processes [default: as many as cores].")
@click.option("--tokens", is_flag=True, help="Make token streams for a training, too.")
@click.option("--largest", type=click.FloatRange(min=0), default=20.0, show_default=True, help="GB of a repository.")
@click.option("--qdrant", metavar="COLLECTION", help="Push all into this collection, each under its name here.")
@click.option("--qdrant-url", help="Where the server is [default: http://localhost:6333].")
@click.option("--verbose", is_flag=True, help="Say more on stderr.")
@chosen
def update(
    folder: Path,
    as_json: bool,
    verbose: bool,
    sources: tuple[str, ...],
    lists: tuple[Path, ...],
    owners: tuple[str, ...],
    workers: int | None,
    tokens: bool,
    largest: float,
    qdrant: str | None,
    qdrant_url: str | None,
    **flags: Any,
) -> None:
    """Add repositories to a fleet, and bring all of it up to date."""
    from treering import fleets

    if qdrant_url and not qdrant:
        raise UsageError("--qdrant-url says where, but not what", "name the collection with --qdrant")
    report = Reporter.to_stderr(verbose=verbose)
    named = [*sources, *(one for file in lists for one in fleets.listed(file))]
    named += [one for owner in owners for one in fleets.organisation(owner)]
    done = fleets.update(
        folder, named, report, flags=settings_of(flags), workers=workers or 0, tokens=tokens,
        largest=int(largest * 1e9), qdrant=qdrant or "", qdrant_url=qdrant_url,
    )  # fmt: skip
    if as_json:
        emit(done)
    else:
        _tell(done.incomplete)
        states = ", ".join(f"{count:,} {state}" for state, count in sorted(done.states.items()))
        click.echo(f"{states}; {done.commits:,} commits, {done.new:,} of them new, in {done.seconds:.1f} s")
    if failed := [one for one in done.incomplete if one.state == "failed"]:
        raise Incomplete(
            f"{len(failed):,} repositories are not up to date, the first is {failed[0].name or failed[0].source}:"
            f" {failed[0].cause}",
            "run it again once they can be read: it does only what is missing",
        )


@fleet.command()
@of_fleet
@click.option("--weight", "weights", metavar="NAME=N", multiple=True, help="How often a repository's commits come.")
@click.option("--apart", metavar="NAME", multiple=True, help="Judge on this repository, and learn nothing from it.")
@click.option("--verbose", is_flag=True, help="Say more on stderr.")
@trained
def train(
    folder: Path,
    as_json: bool,
    verbose: bool,
    weights: tuple[str, ...],
    apart: tuple[str, ...],
    resume: bool,
    **flags: Any,
) -> None:
    """Fine-tune the base model on all of a fleet, and judge it on later commits."""
    from treering import pooling

    weighed = dict(map(_weighed, weights))
    done = pooling.train(
        folder, Reporter.to_stderr(verbose=verbose), flags=settings_of(flags), weights=weighed, apart=apart,
        resume=resume,
    )  # fmt: skip
    if done is None:
        return
    if as_json:
        emit(done)
        return
    click.echo(f"{done.report.verdict}\nModel: {one_line(done.folder)}")
    for share in done.shares:
        repeats = f", {share.repeats:,} repeat others" if share.repeats else ""
        click.echo(one_line(f"  {share.name}: {share.documents:,} commits, {share.tokens:,} tokens{repeats}"))
    if done.elsewhere:
        click.echo(one_line(f"On {', '.join(share.name for share in done.apart)}: {done.elsewhere.verdict}"))


def _weighed(given: str) -> tuple[str, float]:
    name, _, weight = given.rpartition("=")
    try:
        return name, float(weight)
    except ValueError:
        raise UsageError(f"{given!r} is no weight", "write it as NAME=2 or NAME=0.5") from None


@fleet.command()
@of_fleet
def status(folder: Path, as_json: bool) -> None:
    """What became of each repository, and which are being worked on."""
    from treering import fleets

    found = fleets.status(folder)
    if as_json:
        emit(found)
        return
    _tell(found.repositories)
    for name in found.running:
        click.echo(one_line(f"running    {name}"))
    states = ", ".join(f"{count:,} {state}" for state, count in sorted(found.states.items()))
    click.echo(f"{states}; {found.commits:,} commits, {found.vectors:,} vectors, {found.bytes / 1e6:,.1f} MB")


def _tell(repositories: list[Any]) -> None:
    for one in repositories:
        figures = f"{one.commits:>9,} commits  {one.seconds:>7.1f} s" if one.commits else " " * 28
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(one.finished)) if one.finished else " " * 16
        click.echo(one_line(f"{one.state:<10} {when}  {figures}  {one.name or one.source}"))
        if one.cause:
            hint = f" ({one.hint})" if one.hint else ""
            click.echo(one_line(f"           {one.source}: {one.stage}: {one.cause}{hint}"))


@fleet.command()
@of_fleet
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.option("--leave-points", is_flag=True, help="Leave what Qdrant has of them.")
def forget(folder: Path, as_json: bool, names: tuple[str, ...], leave_points: bool) -> None:
    """Take repositories out of a fleet, with all that was made of them."""
    from treering import fleets

    gone = fleets.forget(folder, names, leave_points=leave_points)
    if as_json:
        emit(gone)
    else:
        click.echo(f"{len(gone):,} repositories forgotten")
