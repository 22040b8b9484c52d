"""The commands that keep a model current, and that show whether things get better: learn, monitor."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from treering.cli.options import OneLine, common, emit
from treering.report import Reporter, one_line, printable

SHOWN = 24
"""How many runs a sparkline has."""
BARS = "▁▂▃▄▅▆▇█"


@click.command(cls=OneLine)
@click.option("--after", type=int, help="How many new commits it waits for [default: 32].")
@click.option("--minutes", type=float, help="The wall-time budget of its training [default: 5].")
@click.option("--index", is_flag=True, help="Bring the search index up to date first.")
@click.option("--on-battery", is_flag=True, default=None, help="Go on while the machine runs on its battery.")
@click.option("--roll-back", is_flag=True, help="Learn nothing: make the model current again that was so before.")
@common
def learn(
    repo: Path, store: Path | None, as_json: bool, verbose: bool, index: bool, roll_back: bool, **chosen: Any
) -> None:
    """Keep the model current: test it on new commits, train a challenger, promote it if it wins."""
    from treering import improving, opening

    where = opening.place(repo, store, {"learn": chosen})
    if roll_back:
        folder = improving.roll_back(where)
        if as_json:
            emit({"model": str(folder)})
        else:
            click.echo(one_line(f"{folder.name} is the current model again"))
        return
    improving.lowest_priority()
    made = improving.learn(where, Reporter.to_stderr(verbose=verbose), index=index)
    if as_json:
        emit(made)
        return
    if made.tested:
        click.echo(
            f"tested: {made.tested.bits_per_byte:.3f} bits per byte on {made.tested.commits} commits that"
            f" {made.tested.model} never saw"
        )
    click.echo(f"{made.outcome}: {printable(made.verdict)}")
    if made.model:
        click.echo(one_line(f"model: {made.model}"))


@click.command(cls=OneLine)
@click.option("--since", default="", help="Only runs of that date or later: 2024-01-31, or `3 months ago`.")
@click.option("--alert", is_flag=True, help="Tell whoever [monitor] names of what got worse, once.")
@common
def monitor(repo: Path, store: Path | None, as_json: bool, verbose: bool, since: str, alert: bool) -> None:
    """How quality, speed, size and spend went over the runs, and what is shown to have changed."""
    from treering import improving, opening

    report = Reporter.to_stderr(verbose=verbose)
    where = opening.place(repo, store)
    trend = improving.monitor(where, since=since)
    if alert:
        for told in improving.alert(where, trend, report):
            report.say(f"told: {told.text}")
    if as_json:
        emit(trend)
        return
    for one in trend.series:
        unit = f", {one.unit}" if one.unit else ""
        newest = f"{one.newest:.4g}" if one.newest is not None else ""
        said: str = one.state
        if one.change:
            said += f", {one.change[0]:+.3g} [{one.change[1]:+.3g}, {one.change[2]:+.3g}] from {one.before:.4g}"
        values = [point.value for point in one.points]
        click.echo(f"{one.title + unit:56} {sparkline(values):{SHOWN}} {newest:>9}  {said}")
    for lesson in trend.lessons[-5:]:
        made = time.strftime("%Y-%m-%d %H:%M", time.localtime(lesson.at))
        used = "came into use" if lesson.promoted else "not shown to be better"
        click.echo(printable(f"trained {made}: {lesson.model[:8]}, {used}. {lesson.verdict}"))
    click.echo(f"cost: {trend.training_seconds / 60:.1f} min of training, ${trend.dollars:.4f} spent on Claude")
    click.echo(printable(trend.verdict))


def sparkline(values: Sequence[float]) -> str:
    """The newest values as bars, the least and the most of them as the lowest and the highest."""
    shown = values[-SHOWN:]
    low, high = min(shown, default=0.0), max(shown, default=0.0)
    scale = (len(BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(BARS[round((value - low) * scale)] for value in shown)
