"""The report's page: what a run, a bench, or both make of it, and that text in it is only text."""

import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest

from treering.report import Reporter
from treering.summary import Summary, page_of, training_curves, write_bench, write_summary
from treering.types import BASELINE, VOTE, Bench, FileRow, SearchRow

SUMMARY = Summary("project", "2024-01-31T12:00:00Z", {"commits": 3}, (), None, None, {"scrape": 0.5}, ())
BENCH = Bench(
    repo="project",
    commits=1234,
    made="2024-02-01T12:00:00Z",
    seconds=1.5,
    rows=(
        SearchRow("merge titles", BASELINE, 12, 0.25, 0.5, (0, 0), (0, 0)),
        SearchRow("merge titles", "treering", 12, 0.75, 1.0, (0.125, 0.9), (-0.75, 0.625)),
        SearchRow("all", BASELINE, 15, 0.125, 0.375, (0, 0), (0, 0)),
        SearchRow("all", "treering", 15, 0.5, 0.625, (0.25, 0.5), (0.125, 0.375)),
    ),
    files=(FileRow("treering", 7, 0.5, 0.75, (0.125, 0.25)), FileRow(VOTE, 7, 0.375, 0.5, (0, 0))),
)
HOLDOUT = {"verdict": "v", "documents": 1, "bits_per_byte": {}, "perplexity": 1.5, "difference": None}
TRAINING = {
    "base_model": "scratch",
    "duplicates_left_out": 0,
    "training": {"losses": [2.0, 1.0], "tokens": 9, "steps": 2, "seconds": 1.0, "device": "cpu"},
}


def charts(page: str) -> list[ElementTree.Element]:
    """The charts of a page; they must be well-formed to be read."""
    found = re.findall(r'<svg class="bars".*?</svg>\s*</svg>', page, re.DOTALL)
    return [ElementTree.fromstring(one) for one in found]  # noqa: S314  # our own page


def rows(page: str) -> list[str]:
    """The tables' rows as their cells' text, empty ones left out."""
    found = re.findall(r"<tr>(.*?)</tr>", page, re.DOTALL)
    return [" ".join(re.sub(r"<[^>]*>", " ", row).split()) for row in found]


def test_every_slice_of_a_bench_has_a_chart_and_a_table() -> None:
    page = page_of(None, BENCH)
    assert re.findall(r"<h3>(.*?)</h3>", page) == [
        "merge titles (12 cases)", "all (15 cases)", "files that a commit touches (7 commits)"
    ]  # fmt: skip
    assert "on 1,234 commits" in page
    assert len(charts(page)) == 3
    heading = "MRR@10 recall@10"
    assert rows(page) == [
        heading, f"{BASELINE} 0.250 0.500", "treering 0.750 [+0.125, +0.900] 1.000 [-0.750, +0.625]",
        heading, f"{BASELINE} 0.125 0.375", "treering 0.500 [+0.250, +0.500] 0.625 [+0.125, +0.375]",
        heading, "treering 0.500 0.750 [+0.125, +0.250]", f"{VOTE} 0.375 0.500",
    ]  # fmt: skip


def test_a_bar_is_as_long_as_its_figure_and_the_interval_lies_from_the_yardstick_on_within_the_scale() -> None:
    chart, _, files = charts(page_of(None, BENCH))
    assert [(bar.get("class"), bar.get("width")) for bar in chart.iter("rect")] == [
        ("mrr", "25.0%"), ("recall", "50.0%"), ("mrr", "75.0%"), ("recall", "100.0%")
    ]  # fmt: skip
    lines = [(line.get("class"), line.get("x1"), line.get("x2")) for line in chart.iter("line")]
    assert [line for line in lines if line[0] != "grid"] == [
        ("yardstick", "25.0%", "25.0%"), ("interval", "37.5%", "100.0%"),
        ("yardstick", "50.0%", "50.0%"), ("interval", "0.0%", "100.0%"),
    ]  # fmt: skip
    kinds = [line.get("class") for line in files.iter("line") if line.get("class") != "grid"]
    assert kinds == ["yardstick", "yardstick", "interval"]


def test_a_bench_that_found_nothing_to_ask_about_says_so() -> None:
    page = page_of(None, msgspec.structs.replace(BENCH, rows=(), files=()))
    assert "no titles of merges and no changelog to ask about" in page
    assert not charts(page)
    assert "<h3>" not in page


def test_markup_in_a_bench_stays_text() -> None:
    evil = '"><script>alert(1)</script>'
    row = SearchRow(evil, evil, 1, 1.0, 1.0, (0, 0), (0, 0))
    page = page_of(None, msgspec.structs.replace(BENCH, repo=evil, rows=(row,)))
    assert page.count("&lt;script&gt;") == 5
    assert "<script" not in page
    assert len(charts(page)) == 2


def test_a_run_without_a_bench_has_no_charts() -> None:
    page = page_of(SUMMARY, None)
    assert "How well it finds" not in page
    assert not charts(page)


@pytest.mark.parametrize("bench_first", [True, False])
def test_run_and_bench_share_the_page_whichever_comes_first(tmp_path: Path, *, bench_first: bool) -> None:
    report = Reporter()
    if bench_first:
        page = write_bench(tmp_path, BENCH, report)
        assert "No model was trained" not in page.read_text("utf-8")
    write_summary(tmp_path, SUMMARY, report)
    page = write_bench(tmp_path, BENCH, report)
    shown = page.read_text("utf-8")
    assert write_summary(tmp_path, SUMMARY, report) == page == tmp_path / "latest.html"
    assert page.read_text("utf-8") == shown == page_of(SUMMARY, BENCH)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bench.json", "latest.html", "latest.json"]
    assert not report.warnings


def test_a_torn_file_of_the_other_is_left_out_with_a_warning(tmp_path: Path) -> None:
    report = Reporter()
    (tmp_path / "bench.json").write_text("{")
    page = write_summary(tmp_path, SUMMARY, report).read_text("utf-8")
    assert page == page_of(SUMMARY, None)
    (tmp_path / "latest.json").write_text(json.dumps({"repo": 3}))
    page = write_bench(tmp_path, BENCH, report).read_text("utf-8")
    assert page == page_of(None, BENCH)
    assert [re.sub(r": .*?(\w+\.json)", r": \1", warning)[:30] for warning in report.warnings] == [
        "not in the report: bench.json ", "not in the report: latest.json"
    ]  # fmt: skip


def test_the_curves_of_a_training_are_drawn_as_far_as_they_were_noted() -> None:
    loss = training_curves({"losses": [2.0, 1.5, 1.0]})
    assert "loss (nats per token)" in loss
    assert "tokens/s" not in loss
    whole = training_curves(
        {
            "losses": [2.0, 1.5, 1.0],
            "curve": [(1, 1.0, 100, 1e-3), (2, 2.0, 200, 1e-3), (3, 3.5, 300, 1e-4)],
            "validation": [(0, 2.5), (3, 1.25)],
        }
    )
    for label in ("commits held out", "rate", "tokens/s"):
        assert label in whole
    ElementTree.fromstring(whole)  # noqa: S314  # our own page


def test_a_bench_after_the_extra_train_is_gone_leaves_the_curve_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    page = page_of(replace(SUMMARY, holdout=HOLDOUT, training=TRAINING), BENCH)
    assert len(charts(page)) == 3
    assert "9 tokens in 2 steps" in page
