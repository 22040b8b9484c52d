"""What runs tell together, who is told of it, and how it is drawn."""

import re
from xml.etree import ElementTree

import pytest

from treering.cli.improve import sparkline
from treering.operate.alerts import due
from treering.operate.trends import latencies, trend
from treering.store import Ran
from treering.summary import line, page_of
from treering.types import Series, Trend

DAY = 86400.0
HTML = "<script>alert(1)</script>"


def told(*runs: Ran, days: dict[str, float] | None = None, since: float = 0.0) -> Trend:
    return trend("project", runs, days or {}, since=since, false_alarms=0.05)


def served(number: int, p99: float) -> Ran:
    return Ran(number, "serve", number * DAY, 600.0, {"searches": 100, "p50": 0.01, "p99": p99})


def trained(number: int, *, current: bool, **more: object) -> Ran:
    summary = {
        "model": f"model{number}", "parent": "", "verdict": f"Tuning helped {HTML}", "current": current,
        "bits_per_byte": {"base": 1.5, "tuned": 0.75, "ngram": 1.0}, "tokens": 6000, "training_seconds": 60.0,
        "bytes": {"files": 10, "models": 100},
    }  # fmt: skip
    return Ran(number, "train", number * DAY, 70.0, summary | more)


def of(trend: Trend, name: str) -> Series:
    return next(one for one in trend.series if one.name == name)


def test_a_store_without_runs_tells_nothing() -> None:
    empty = told()
    assert (empty.series, empty.lessons, empty.alerts, empty.dollars) == ((), (), (), 0)
    assert empty.verdict == "Nothing was learned yet. Nothing is shown to have got worse."


def test_speeds_are_of_runs_that_are_large_enough_to_tell() -> None:
    made = told(
        Ran(1, "index", 0, 9.0, {"commits": 1, "vectors": 2, "seconds": 2.0, "bytes": {"files": 5, "vectors": 7}}),
        Ran(2, "index", 1, 9.0, {"commits": 90, "vectors": 200, "seconds": 4.0}),
        Ran(3, "scrape", 2, 9.0, {"commits": 500, "new": 500, "seconds": 0.5}),
        Ran(4, "scrape", 3, 9.0, {"commits": 500, "new": 0, "seconds": 0.001}),
        trained(5, current=True),
    )
    assert [point.value for point in of(made, "texts").points] == [50]
    assert [point.value for point in of(made, "commits").points] == [1000]
    assert [point.value for point in of(made, "tokens").points] == [100]
    assert [point.value for point in of(made, "store").points] == [12, 110]
    assert of(made, "store").state == "not judged"
    assert of(made, "texts").state == "too few"


def test_what_got_slower_is_told_and_what_got_faster_is_no_alert() -> None:
    steady = [served(number, 0.02 + 0.001 * (number % 4)) for number in range(20)]
    assert of(told(*steady), "p99").state == "steady"
    slower = told(*steady, *(served(20 + number, 0.2) for number in range(5)))
    assert (of(slower, "p99").state, slower.alerts) == ("worse", ("p99",))
    assert "A search, the slowest of 100: worse (0.0215 → 0.2 s)" in slower.verdict
    faster = told(*steady, *(served(20 + number, 0.002) for number in range(5)))
    assert (of(faster, "p99").state, faster.alerts) == ("better", ())
    assert "Nothing is shown to have got worse" in faster.verdict


def test_lessons_tell_what_was_trained_what_it_cost_and_whether_it_came_into_use() -> None:
    made = told(trained(1, current=True), trained(2, current=False), days={"2023-11-14": 0.25})
    assert [lesson.promoted for lesson in made.lessons] == [True, False]
    assert (made.training_seconds, made.dollars) == (120, 0.25)
    assert "2 trainings, of which 1 came into use; the last of them: 1.500 → 0.750 bits per byte" in made.verdict
    old = Ran(1, "train", 0.0, 70.0, {"model": "m", "verdict": "v", "current": True})  # of an earlier treering
    assert told(old).lessons[0].bits_per_byte == (None, None)


def test_a_day_before_the_beginning_costs_nothing_here() -> None:
    days = {"2023-11-01": 1.0, "2023-11-14": 0.25}
    assert told(days=days, since=1_699_900_000.0).dollars == 0.25


def test_an_alert_is_due_once_until_it_is_over() -> None:
    steady = [served(number, 0.02 + 0.001 * (number % 4)) for number in range(20)]
    worse = told(*steady, *(served(20 + number, 0.2) for number in range(5)))
    (alert,) = due(worse, {})
    assert (alert.kind, alert.series, alert.repo) == ("worse", "p99", "project")
    assert alert.text == "project: a search, the slowest of 100 got worse: 0.0215 → 0.2 s"
    assert due(worse, {"p99": "worse"}) == []
    (over,) = due(told(*steady), {"p99": "worse"})
    assert over.kind == "over"
    assert due(told(*steady), {"p99": "over"}) == []
    assert due(told(*steady[:3]), {"p99": "worse"}) == []  # too few runs tell neither


def test_latencies_are_told_as_quantiles() -> None:
    assert latencies([0.01] * 99 + [1.0]) == {"searches": 100, "p50": 0.01, "p99": pytest.approx(0.0199, abs=1e-4)}


def test_a_sparkline_has_the_least_and_the_most_at_its_ends() -> None:
    assert sparkline([1, 2, 3]) == "▁▅█"
    assert sparkline([5, 5]) == "▁▁"
    assert sparkline([]) == ""
    assert len(sparkline(list(range(100)))) == 24


def test_a_line_stays_within_its_picture() -> None:
    for values in ([3.0], [1.0, 1.0], [5.0, 1.0, 9.0]):
        points = [tuple(map(float, point.split(","))) for point in line(values).split()]
        assert len(points) == len(values)
        assert all(0 <= x <= 220 and 0 <= y <= 36 for x, y in points)


def test_the_report_shows_what_was_learned_and_what_it_cost() -> None:
    page = page_of(None, None, told(trained(1, current=True), *(served(2 + one, 0.02) for one in range(3))))
    assert "What it learned over time, and what that cost" in page
    assert "came into use" in page
    assert "1.500" in page
    assert HTML not in page
    for drawing in re.findall(r"<svg.*?</svg>", page, re.DOTALL):
        ElementTree.fromstring(drawing)  # noqa: S314  # our own page
