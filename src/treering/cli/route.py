"""The commands of money and of where a task goes: route, feedback, spend."""

from pathlib import Path

import click

from treering.cli.options import OneLine, common, emit
from treering.report import Reporter, one_line


@click.command(cls=OneLine)
@click.argument("task")
@click.option("--given", multiple=True, help="A file that is known to be part of it.")
@click.option(
    "--budget", type=click.IntRange(500, 200_000), default=8000, show_default=True, help="Tokens of context for Claude."
)
@common
def route(
    repo: Path, store: Path | None, as_json: bool, verbose: bool, task: str, given: tuple[str, ...], budget: int
) -> None:
    """Say whether a task is for this machine or for Claude, why, and what Claude would cost."""
    from treering import deciding, finding, opening

    report = Reporter.to_stderr(verbose=verbose)
    with finding.desk(opening.place(repo, store), report) as desk:
        found = deciding.route(desk, task, given=given, budget=budget)
    if as_json:
        emit(found)
        return
    click.echo(one_line(f"{found.to}: {found.why}"))
    click.echo(one_line(f"by {found.rule}; files: {', '.join(found.files) or 'none is likely'}"))
    if found.dollars_expected is None:
        click.echo(one_line(f"{found.model}: its price is not known"))
    else:
        click.echo(
            one_line(f"{found.model}: about {_money(found.dollars_expected)}, at most {_money(found.dollars_worst)}")
        )
    if verbose:
        for name, value in found.features.items():
            click.echo(f"  {name}: {value:.3f}", err=True)
    if found.id:
        click.echo(f"later: treering feedback {found.id} good|bad")
    else:
        report.warn("it was not kept: nothing may be written in the store")


@click.command(cls=OneLine)
@click.argument("route_id")
@click.argument("outcome", type=click.Choice(["good", "bad"]))
@common
def feedback(repo: Path, store: Path | None, as_json: bool, verbose: bool, route_id: str, outcome: str) -> None:
    """Say how a routed task went: what stayed on this machine teaches the router."""
    from treering import deciding, opening

    where = opening.place(repo, store)
    Reporter.to_stderr(verbose=verbose).detail(f"store: {where.folder}")
    went = deciding.feedback(where, route_id, good=outcome == "good")
    if as_json:
        emit({"id": route_id, "to": went, "good": outcome == "good"})
        return
    learns = "the router learns from it" if went == "local" else "only what stays local teaches the router"
    click.echo(f"kept: {went} was {outcome}; {learns}")


@click.command(cls=OneLine)
@click.option("--since", default="", help="Only of that day (UTC) or later: 2024-01-31, or `3 months ago`.")
@common
def spend(repo: Path, store: Path | None, as_json: bool, verbose: bool, since: str) -> None:
    """Tell what was spent on Claude, what is reserved, and what is left."""
    from treering import deciding, opening

    report = Reporter.to_stderr(verbose=verbose)
    found = deciding.spend(opening.place(repo, store), since=since)
    if found.doubt:
        report.warn(found.doubt)
    if as_json:
        emit(found)
        return
    for row in found.rows:
        reserved = f", {_money(row.reserved)} reserved" if row.reserved else ""
        click.echo(
            one_line(
                f"{_money(row.dollars):>10}  {row.model} for {row.purpose}: {row.calls:,} calls,"
                f" {row.input_tokens + row.cache_write_tokens + row.cache_read_tokens:,} tokens read,"
                f" {row.output_tokens:,} written{reserved}"
            )
        )
    click.echo(f"{_money(found.dollars):>10}  spent{' since ' + one_line(found.since) if found.since else ' in all'}")
    for name, left in (("today", found.today), ("this month", found.this_month)):
        reserved = f" and {_money(left.reserved)} reserved" if left.reserved else ""
        said = f"{name}: {_money(left.spent)} spent{reserved}, {_money(left.left)} left of {_money(left.ceiling)}"
        click.echo(said)
    for one in found.unsettled:
        state = "its process is gone, so it counts for good" if one.left_behind else "under way"
        click.echo(one_line(f"unsettled since {one.since}: {_money(one.dollars)} for {one.purpose} ({state})"))
    click.echo(f"prices of {found.prices_as_of}")


def _money(amount: float | None) -> str:
    """Dollars with two places, or with as many as a small amount takes."""
    return f"${amount or 0:,.2f}" if not amount or amount >= 0.095 else f"${amount:.4f}"
