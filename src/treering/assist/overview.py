"""The history and what was made of it, in figures that can be drawn: what the page's charts show.

Makes no figure that another command makes: what a training, a bench or a bill found is read from where it was left.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from msgspec import Struct

from treering.assist.budget import Spending
from treering.errors import DataError, StoreError
from treering.files import read_json
from treering.pipeline.learn import current_model, report_of
from treering.search.commits import Finder
from treering.search.themes import MOST, telling, themes
from treering.store import Store
from treering.types import Bench, Changed, Stretch

HOUR = 3600
DAY = 24 * HOUR
WEEK = 7 * DAY
QUARTER = 91 * DAY
HOT = 15
"""How many paths are told."""
PERIODS = 12
"""Into how many parts the history is cut, at most, to tell its themes."""
THEMES = 12
POINTS = 240
"""How many points of a curve are told."""


class Period(Struct, frozen=True):
    """A part of the history, by when it begins, and its commits: no merges, and each patch once."""

    start: int
    commits: int


class ThemeLine(Struct, frozen=True):
    """A theme, and how many of its commits are of each period."""

    name: str
    counts: tuple[int, ...]


class Curve(Struct, frozen=True):
    """The training of the current model. ``losses`` are (step, mean of the steps since the point before), in nats per
    token, ``validation`` the looks at commits held out; ``bits_per_byte`` are of the newest commits, which neither saw.
    """

    model: str
    base: str
    verdict: str
    documents: int
    bits_per_byte: dict[str, float | None]
    difference: tuple[float, float, float] | None
    steps: int
    tokens: int
    seconds: float
    losses: tuple[tuple[int, float], ...]
    validation: tuple[tuple[int, float], ...]


class Overview(Struct, frozen=True):
    """Times are seconds since 1970. ``activity`` has those stretches of ``every`` seconds that have a commit, oldest
    first: weeks, or days and hours of a history of months or days; ``hot`` are the most changed paths from
    ``hot_since`` on. None where nothing was measured yet; ``torn`` names what could not be read.
    """

    repo: str
    commits: int
    authors: int
    first: int
    last: int
    every: int
    activity: tuple[Stretch, ...]
    periods: tuple[Period, ...]
    themes: tuple[ThemeLine, ...]
    hot_since: int
    hot: tuple[Changed, ...]
    training: Curve | None
    search: Bench | None
    spent: Spending | None
    torn: tuple[str, ...] = ()


def overview_of(finder: Finder, reports: Path, now: float, spending: Callable[[], Spending]) -> Overview:
    """All of it. Commits that say they are of a day after ``now`` are left out of what is told by time: one of them
    would make a century of empty weeks.
    """
    history, store = finder.history, finder.store
    until = int(now) + DAY
    times = history.times[(history.times > 0) & (history.times <= until)]
    first, last = (int(times.min()), int(times.max())) if len(times) else (0, 0)
    every = next((size for size, most in ((HOUR, WEEK), (DAY, 2 * QUARTER)) if last - first <= most), WEEK)
    periods, lines = themes_over_time(finder, until)
    torn: list[str] = []
    return Overview(
        repo=store.fact("repo") or "",
        commits=store.count(),
        authors=store.authors(),
        first=first,
        last=last,
        every=every,
        activity=tuple(store.activity(every, until)),
        periods=periods,
        themes=lines,
        hot_since=last - QUARTER,
        hot=tuple(one for one in store.most_changed(last - QUARTER, until, HOT) if one.path not in finder.private),
        training=_curve(store, torn),
        search=_bench(reports / "bench.json", torn),
        spent=_spent(spending, torn),
        torn=tuple(torn),
    )


def themes_over_time(finder: Finder, until: int) -> tuple[tuple[Period, ...], tuple[ThemeLine, ...]]:
    """The history in periods of whole weeks (days or hours of a shorter one), and its themes, in the order in which
    they had their day. A history of more than :data:`MOST` commits is told by so many of them, taken evenly.
    """
    history = finder.history
    seen = (history.times > 0) & (history.times <= until) & finder.open
    told = np.array(_evenly(telling(history, seen), MOST), np.int64)
    if not len(told):
        return (), ()
    start = int(history.times[told].min()) // DAY * DAY
    span = int(history.times[told].max()) - start + 1
    unit = next((size for size in (WEEK, DAY) if span > size * PERIODS), HOUR)
    length = -(-span // (unit * PERIODS)) * unit
    sizes = np.bincount((history.times[told] - start) // length)
    lines = []
    for theme in themes(history, finder.dense, told.tolist(), [], THEMES):
        own = np.array([history.number[name] for name in theme.commits], np.int64)
        counts = np.bincount((history.times[own] - start) // length, minlength=len(sizes))
        lines.append(ThemeLine(theme.name, tuple(counts.tolist())))
    lines.sort(key=lambda line: (float(np.average(range(len(sizes)), weights=line.counts)), line.name))
    periods = (Period(start + number * length, size) for number, size in enumerate(sizes.tolist()))
    return tuple(periods), tuple(lines)


def _evenly(numbers: Sequence[int], most: int) -> list[int]:
    places = np.unique(np.linspace(0, len(numbers) - 1, min(most, len(numbers))).astype(np.int64))
    return [numbers[place] for place in places.tolist()]


def _curve(store: Store, torn: list[str]) -> Curve | None:
    model = current_model(store)
    if model is None:
        return None
    try:
        report = report_of(model)
    except DataError as error:
        torn.append(error.message)
        return None
    return Curve(
        model=model.name,
        base=report.parent or report.base_model,
        verdict=report.verdict,
        documents=report.holdout.documents,
        bits_per_byte=report.holdout.bits_per_byte,
        difference=report.holdout.difference,
        steps=report.training.steps,
        tokens=report.training.tokens,
        seconds=report.training.seconds,
        losses=_thinned(report.training.losses),
        validation=report.training.validation,
    )


def _thinned(losses: Sequence[float]) -> tuple[tuple[int, float], ...]:
    """At most :data:`POINTS` points of (step, mean of the steps since the point before)."""
    size = max(1, -(-len(losses) // POINTS))
    pieces = [losses[start : start + size] for start in range(0, len(losses), size)]
    return tuple(
        (min(len(losses), number * size), round(sum(piece) / len(piece), 4)) for number, piece in enumerate(pieces, 1)
    )


def _spent(spending: Callable[[], Spending], torn: list[str]) -> Spending | None:
    try:
        return spending()
    except (StoreError, DataError) as error:
        torn.append(error.message)
        return None


def _bench(path: Path, torn: list[str]) -> Bench | None:
    if not path.exists():
        return None
    try:
        return read_json(path, Bench)
    except DataError as error:
        torn.append(error.message)
        return None
