"""The history and what was made of it, in figures that can be drawn: what the page's charts show.

Makes no figure that another command makes: what a training, a bench or a bill found is read from where it was left.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from msgspec import Struct

from treering.errors import DataError
from treering.files import read_json
from treering.pipeline.learn import current_model, report_of
from treering.search.history import History, Numbers
from treering.search.lexical import MESSAGE
from treering.search.upcoming import RECENT, plain, themes
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
BEFORE = 300
"""Beside how many earlier messages those of a period are put."""
POINTS = 240
"""How many points of a curve are told."""


class Period(Struct, frozen=True):
    """A part of the history, by the day it begins, and its commits that are no merges."""

    start: int
    commits: int


class ThemeLine(Struct, frozen=True):
    """A word that was a theme of some period, and how many messages hold it in each."""

    word: str
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


class Spent(Struct, frozen=True):
    """What Claude cost in US dollars: by day, by model, and what a day and a month may cost (0: nothing is set)."""

    total: float
    days: tuple[tuple[str, float], ...]
    models: tuple[tuple[str, float], ...]
    per_day: float = 0.0
    per_month: float = 0.0


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
    spent: Spent | None
    torn: tuple[str, ...] = ()


def overview_of(history: History, reports: Path, now: float, spent: Spent | None) -> Overview:
    """All of it. Commits that say they are of a day after ``now`` are left out of what is told by time: one of them
    would make a century of empty weeks.
    """
    store = history.store
    until = int(now) + DAY
    times = history.times[(history.times > 0) & (history.times <= until)]
    first, last = (int(times.min()), int(times.max())) if len(times) else (0, 0)
    every = next((size for size, most in ((HOUR, WEEK), (DAY, 2 * QUARTER)) if last - first <= most), WEEK)
    periods, lines = themes_over_time(history, until)
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
        hot=tuple(store.most_changed(last - QUARTER, until, HOT)),
        training=_curve(store, torn),
        search=_bench(reports / "bench.json", torn),
        spent=spent,
        torn=tuple(torn),
    )


def themes_over_time(history: History, until: int) -> tuple[tuple[Period, ...], tuple[ThemeLine, ...]]:
    """The history in periods of whole weeks (days or hours of a shorter one), and the words that were themes of one of
    them: those that its commits use more than the commits before do.
    """
    told = np.array(plain(history, (history.times > 0) & (history.times <= until)), np.int64)
    if not len(told):
        return (), ()
    start = int(history.times[told].min()) // DAY * DAY
    span = int(history.times[told].max()) - start + 1
    unit = next((size for size in (WEEK, DAY) if span > size * PERIODS), HOUR)
    length = -(-span // (unit * PERIODS)) * unit
    which = (history.times - start) // length
    count = int(which[told].max()) + 1
    words = [_words_of(history, told[which[told] == one], told[which[told] < one]) for one in range(count)]
    # The first of each period, then the second of each, the newest period before the others.
    ranked = (period[rank : rank + 1] for rank in range(THEMES) for period in reversed(words))
    found = dict.fromkeys(word for some in ranked for word in some)
    sizes = np.bincount(which[told], minlength=count)
    lines = [ThemeLine(word, tuple(_counted(history, word, which, told, count))) for word in list(found)[:THEMES]]
    # In the order in which they had their day: the picture reads from the first ring to the last.
    lines.sort(key=lambda line: (float(np.average(range(count), weights=np.array(line.counts) + 1e-9)), line.word))
    periods = (Period(start + number * length, size) for number, size in enumerate(sizes.tolist()))
    return tuple(periods), tuple(lines)


def _words_of(history: History, own: Numbers, before: Numbers) -> list[str]:
    """The themes of a period, by the subjects of :data:`RECENT` of its commits and of some before it, taken evenly."""
    numbers = [*_evenly(before, BEFORE), *_evenly(own, RECENT)]
    subjects = {number: history.store.message(int(history.ids[number])).partition("\n")[0] for number in numbers}
    return [theme.word for theme in themes(history, subjects, THEMES)] if len(own) > 1 else []


def _counted(history: History, word: str, which: Numbers, told: Numbers, count: int) -> list[int]:
    holders, _ = history.held(word).fields.get(MESSAGE, (np.empty(0, np.int64), None))
    counts: list[int] = np.bincount(which[np.intersect1d(holders, told)], minlength=count).tolist()
    return counts


def _evenly(numbers: Numbers, most: int) -> list[int]:
    places = np.unique(np.linspace(0, len(numbers) - 1, min(most, len(numbers))).astype(np.int64))
    chosen: list[int] = numbers[places].tolist() if len(numbers) else []
    return chosen


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


def _bench(path: Path, torn: list[str]) -> Bench | None:
    if not path.exists():
        return None
    try:
        return read_json(path, Bench)
    except DataError as error:
        torn.append(error.message)
        return None
