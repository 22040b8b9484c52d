"""A run's report, as JSON and as one HTML page that needs nothing else. Decides what is shown; makes no figures."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from treering.errors import needs
from treering.files import replacing, write_json
from treering.types import Hit


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


def write_summary(folder: Path, summary: Summary) -> Path:
    """Write ``latest.json`` and ``latest.html``; returns the page's path."""
    import jinja2

    write_json(folder / "latest.json", summary)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("treering"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    losses = (summary.training or {}).get("training", {}).get("losses", ())
    page = environment.get_template("report.html").render(
        summary=msgspec.to_builtins(summary), curve=loss_curve(losses) if losses else ""
    )
    with replacing(folder / "latest.html") as file:
        file.write(page.encode())
    return folder / "latest.html"


def loss_curve(losses: Sequence[float]) -> str:
    """The loss of each step and its running mean, as SVG."""
    with needs("train"):
        from matplotlib.figure import Figure

    window = max(1, len(losses) // 25)
    means = [sum(losses[max(0, end - window) : end]) / min(window, end) for end in range(1, len(losses) + 1)]
    figure = Figure(figsize=(7, 3), layout="constrained")
    axes = figure.subplots()
    axes.plot(losses, color="#c9b79c", linewidth=0.8, label="step")
    axes.plot(means, color="#5b3a1e", linewidth=1.6, label=f"mean of {window}")
    axes.set(xlabel="step", ylabel="loss (nats per token)")
    axes.legend(frameon=False)
    drawn = io.StringIO()
    figure.savefig(drawn, format="svg", metadata={"Date": None})
    text = drawn.getvalue()
    return text[text.index("<svg") :]
