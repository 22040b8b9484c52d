"""The report: what a run, a bench and the runs together told, as JSON each and as one HTML page that needs no other.

Decides what is shown; makes no figures.
"""

import io
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from treering.errors import DataError
from treering.files import read_json, replacing, write_json
from treering.report import Reporter
from treering.types import BASELINE, VOTE, Bench, Hit, Trend

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Example:
    """A search over this repository and what it found."""

    query: str
    hits: Sequence[Hit]


@dataclass(frozen=True, slots=True)
class Summary:
    """``latest.json``. ``holdout`` and ``training`` are null where no model was trained."""

    repo: str
    made: str
    history: dict[str, Any]
    search: Sequence[Example]
    holdout: dict[str, Any] | None
    training: dict[str, Any] | None
    seconds: dict[str, float]
    warnings: Sequence[str]


def write_summary(folder: Path, summary: Summary, report: Reporter) -> Path:
    """Write ``latest.json`` and the page, which is returned."""
    write_json(folder / "latest.json", summary)
    return write_page(folder, report)


def write_bench(folder: Path, bench: Bench, report: Reporter) -> Path:
    """Write ``bench.json`` and the page, which is returned."""
    write_json(folder / "bench.json", bench)
    return write_page(folder, report)


def keep_trend(folder: Path, trend: Trend) -> None:
    """Write ``trend.json``, for the next page."""
    write_json(folder / "trend.json", trend)


def write_page(folder: Path, report: Reporter) -> Path:
    """Make ``latest.html`` of what the last run, bench and trend left."""
    page = page_of(
        _kept(folder / "latest.json", Summary, report),
        _kept(folder / "bench.json", Bench, report),
        _kept(folder / "trend.json", Trend, report),
    )
    with replacing(folder / "latest.html") as file:
        file.write(page.encode())
    return folder / "latest.html"


def _kept(path: Path, kind: type[T], report: Reporter) -> T | None:
    """What an earlier command left, if it did; a file that is torn costs the report its part, not this command."""
    if not path.exists():
        return None
    try:
        return read_json(path, kind)
    except DataError as error:
        report.warn(f"not in the report: {error.message}")
        return None


def page_of(summary: Summary | None, bench: Bench | None, trend: Trend | None = None) -> str:
    """The page of a run, a bench, a trend, or what there is of them. All text in it is escaped."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("treering"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.globals["line"] = line
    environment.globals["day"] = lambda at: time.strftime("%Y-%m-%d %H:%M", time.gmtime(at))
    training = ((summary and summary.training) or {}).get("training", {})
    return environment.get_template("report.html").render(
        summary=msgspec.to_builtins(summary),
        curve=training_curves(training) if training.get("losses") else "",
        bench=msgspec.to_builtins(bench),
        trend=msgspec.to_builtins(trend),
        baseline=BASELINE,
        vote=VOTE,
    )


WIDE, TALL = 220, 36
"""A small chart of a series, in pixels."""


def line(values: Sequence[float]) -> str:
    """A series as the points of an SVG polyline, its least at the foot; a single figure is one point."""
    low, high = min(values), max(values)
    step = WIDE / max(len(values) - 1, 1)
    scale = (TALL - 6) / (high - low or 1)
    return " ".join(f"{place * step:.1f},{TALL - 3 - (value - low) * scale:.1f}" for place, value in enumerate(values))


def training_curves(training: dict[str, Any]) -> str:
    """The loss of each step, its running mean and that of the validation commits; below, the learning rate and the
    tokens a second; as SVG, and empty where the extra ``train`` is gone since.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        return ""

    losses = training["losses"]
    window = max(1, len(losses) // 25)
    means = [sum(losses[max(0, end - window) : end]) / min(window, end) for end in range(1, len(losses) + 1)]
    points = training.get("curve", ())
    figure = Figure(figsize=(7, 5.2 if len(points) > 1 else 3), layout="constrained")
    rows = figure.subplots(3, 1, sharex=True, height_ratios=[3, 1, 1]) if len(points) > 1 else [figure.subplots()]
    steps = range(1, len(losses) + 1)
    rows[0].plot(steps, losses, color="#c9b79c", linewidth=0.8, label="step")
    rows[0].plot(steps, means, color="#5b3a1e", linewidth=1.6, label=f"mean of {window}")
    if looks := training.get("validation"):
        rows[0].plot(*zip(*looks, strict=True), color="#2c6e49", marker="o", markersize=3, label="commits held out")
    rows[0].set(ylabel="loss (nats per token)")
    rows[0].legend(frameon=False)
    if len(points) > 1:
        step, seconds, tokens, rates = zip(*points, strict=True)
        rows[1].plot(step, rates, color="#5b3a1e", linewidth=1.2)
        rows[1].set(ylabel="rate")
        speeds = [
            (tokens[one] - tokens[one - 1]) / max(seconds[one] - seconds[one - 1], 1e-3) for one in range(1, len(step))
        ]
        rows[2].plot(step[1:], speeds, color="#5b3a1e", linewidth=1.2)
        rows[2].set(ylabel="tokens/s", ylim=(0, None))
    rows[-1].set(xlabel="step")
    drawn = io.StringIO()
    figure.savefig(drawn, format="svg", metadata={"Date": None})
    text = drawn.getvalue()
    return text[text.index("<svg") :]
