"""What the runs of a store tell together: figures over time, what each training brought, and what got worse.

Every run is remembered where it ends (``Store.log_run``); here its figures are read, and none is made.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime

import numpy as np

from treering.operate.change import Measured, change
from treering.store import Ran
from treering.types import Better, Lesson, Moment, Series, State, Trend

ENOUGH = 100
"""A run that made fewer texts, or read fewer commits, tells of its start, not of its speed."""
ENOUGH_SECONDS = 5.0
"""The same for a training."""
POINTS = 200
"""How many runs of a series are told, the newest ones."""
STAGES = ("scrape", "index", "train", "test", "learn", "bench", "serve")


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure of runs: whose it is, and how it is read from one; None where a run does not tell it."""

    name: str
    title: str
    unit: str
    better: Better
    stages: tuple[str, ...]
    of: Callable[[Ran], Measured | None]


def _rate(made: str, seconds: str, *, least: int = 0, least_seconds: float = 0.0) -> Callable[[Ran], Measured | None]:
    def read(run: Ran) -> Measured | None:
        much, took = run.told.get(made, 0), run.told.get(seconds, 0.0)
        fits = much and took and much >= least and took >= least_seconds
        return Measured(run.started, (much / took,)) if fits else None

    return read


def _latency(name: str, least: int) -> Callable[[Ran], Measured | None]:
    def read(run: Ran) -> Measured | None:
        return Measured(run.started, (run.told[name],)) if run.told.get("searches", 0) >= least else None

    return read


def _bytes(part: str = "") -> Callable[[Ran], Measured | None]:
    def read(run: Ran) -> Measured | None:
        sizes = run.told.get("bytes", {})
        size = sizes.get(part, 0) if part else sum(sizes.values())
        return Measured(run.started, (float(size),)) if size else None

    return read


def _unseen(run: Ran) -> Measured | None:
    cases = run.told.get("cases", ())
    return Measured(run.started, *(tuple(column) for column in zip(*cases, strict=True))) if cases else None


def _asked(place: int) -> Callable[[Ran], Measured | None]:
    def read(run: Ran) -> Measured | None:
        cases: dict[str, Sequence[float]] = run.told.get("cases", {})
        return Measured(run.started, tuple(one[place] for one in cases.values()), (), tuple(cases)) if cases else None

    return read


FIGURES = (
    Figure("unseen", "new commits, before they are learned from", "bits per byte", "lower", ("test",), _unseen),
    Figure("mrr", "search, MRR@10", "", "higher", ("bench",), _asked(0)),
    Figure("recall", "search, recall@10", "", "higher", ("bench",), _asked(1)),
    Figure("texts", "texts embedded", "a second", "higher", ("index",), _rate("vectors", "seconds", least=ENOUGH)),
    Figure("commits", "commits read", "a second", "higher", ("scrape",), _rate("new", "seconds", least=ENOUGH)),
    Figure(
        "tokens", "tokens learned from", "a second", "higher", ("train",),
        _rate("tokens", "training_seconds", least_seconds=ENOUGH_SECONDS),
    ),
    Figure("p50", "a search, the median", "s", "lower", ("serve",), _latency("p50", 20)),
    Figure("p99", "a search, the slowest of 100", "s", "lower", ("serve",), _latency("p99", 100)),
    Figure("store", "the store", "bytes", "neither", ("index", "train"), _bytes()),
    Figure("vectors", "its vectors", "bytes", "neither", ("index", "train"), _bytes("vectors")),
    Figure("models", "its models", "bytes", "neither", ("index", "train"), _bytes("models")),
)  # fmt: skip
"""What is followed. What grows by itself is shown and not judged."""
SPENT = ("dollars", "spent on Claude", "dollars a day")


def trend(repo: str, runs: Iterable[Ran], days: dict[str, float], *, since: float, false_alarms: float) -> Trend:
    """All of it, of runs in the order of their log; ``days`` are dollars by day (UTC). What is judged shares the chance
    of a false alarm (Bonferroni).
    """
    told = list(runs)
    measured = {
        figure: [found for run in told if run.stage in figure.stages and (found := figure.of(run)) is not None]
        for figure in FIGURES
    }
    judged = sum(figure.better != "neither" and bool(found) for figure, found in measured.items())
    series = [_series(figure, found, false_alarms / max(judged, 1)) for figure, found in measured.items() if found]
    spent = [Moment(_start(day), amount) for day, amount in sorted(days.items()) if _start(day) >= since - 86400]
    if spent:
        series.append(Series(*SPENT, "neither", "not judged", tuple(spent[-POINTS:]), newest=spent[-1].value))
    lessons = tuple(_lesson(run) for run in told if run.stage == "train" and "verdict" in run.told)
    worse = tuple(one.name for one in series if one.state == "worse")
    return Trend(
        repo=repo,
        since=since,
        until=max((run.started for run in told), default=0.0),
        runs=len(told),
        series=tuple(series),
        lessons=lessons,
        alerts=worse,
        dollars=sum(one.value for one in spent),
        training_seconds=sum(lesson.seconds for lesson in lessons),
        verdict=_verdict(lessons, [one for one in series if one.state in ("worse", "better")]),
    )


def _series(figure: Figure, runs: Sequence[Measured], level: float) -> Series:
    points = tuple(Moment(run.at, run.mean, len(run.values)) for run in runs[-POINTS:])
    named = figure.name, figure.title, figure.unit, figure.better
    if figure.better == "neither":
        return Series(*named, "not judged", points, newest=runs[-1].mean)
    found = change(runs)
    if found is None:
        return Series(*named, "too few", points, newest=runs[-1].mean)
    return Series(
        *named,
        _state(figure.better, found.difference, changed=found.chance < level),
        points,
        newest=found.newest,
        before=found.before,
        change=(found.difference, *found.interval),
        chance=found.chance,
    )


def _state(better: Better, difference: float, changed: bool) -> State:
    if not changed:
        return "steady"
    return "better" if (difference > 0) == (better == "higher") else "worse"


def _lesson(run: Ran) -> Lesson:
    told = run.told
    bits = told.get("bits_per_byte", {})
    return Lesson(
        at=run.started,
        model=told["model"],
        parent=told.get("parent", ""),
        promoted=told["current"],
        bits_per_byte=(bits.get("base"), bits.get("tuned")),
        tokens=told.get("tokens", 0),
        seconds=told.get("training_seconds", run.seconds),
        verdict=told["verdict"],
    )


def _verdict(lessons: Sequence[Lesson], changed: Sequence[Series]) -> str:
    """Whether it got better, in a sentence or three."""
    said = []
    if lessons:
        used = [one for one in lessons if one.promoted]
        said.append(f"{len(lessons)} training{'s' * (len(lessons) > 1)}, of which {len(used)} came into use")
        before, after = used[-1].bits_per_byte if used else (None, None)
        if before is not None and after is not None:
            said[-1] += f"; the last of them: {before:.3f} → {after:.3f} bits per byte of later commits"
    else:
        said.append("Nothing was learned yet")
    for one in changed:
        figures = f"{one.before:.3g} → {one.newest:.3g} {one.unit}".rstrip()
        said.append(f"{one.title[0].upper()}{one.title[1:]}: {one.state} ({figures})")
    if not any(one.state == "worse" for one in changed):
        said.append("Nothing is shown to have got worse")
    return ". ".join(said) + "."


def _start(day: str) -> float:
    found = date.fromisoformat(day)
    return datetime(found.year, found.month, found.day, tzinfo=UTC).timestamp()


def latencies(seconds: Sequence[float]) -> dict[str, float]:
    """What searches took together: how many, and their quantiles in seconds."""
    p50, p99 = np.quantile(seconds, [0.5, 0.99])
    return {"searches": len(seconds), "p50": round(float(p50), 6), "p99": round(float(p99), 6)}
