"""A history in figures, and the door of the page."""

import time

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from repositories import Repo
from treering import deciding, opening, operations
from treering.assist.overview import DAY, HOUR, WEEK, Overview, _thinned
from treering.files import write_json
from treering.finding import desk
from treering.report import Reporter
from treering.serve import pages
from treering.types import Bench, SearchRow


def told(repo: Repo) -> Overview:
    where = opening.place(repo.path)
    operations.index(where, Reporter())
    with desk(where, Reporter(), vectors=False) as opened:
        return deciding.overview(opened)


def test_the_activity_is_all_of_the_history_and_nothing_twice(story: Repo) -> None:
    overview = told(story)
    _, rows = operations.sql(
        opening.place(story.path), "SELECT sum(insertions), sum(deletions) FROM changes WHERE NOT is_merge",
        Reporter(), seconds=9,
    )  # fmt: skip
    (lines,) = rows
    assert overview.every == HOUR
    assert sum(one.commits for one in overview.activity) == overview.commits == 23
    assert sum(one.merges for one in overview.activity) == 1
    assert lines == (
        sum(one.insertions for one in overview.activity), sum(one.deletions for one in overview.activity)
    )  # fmt: skip
    assert overview.authors == 1
    assert overview.first < overview.last


def test_themes_are_counted_by_period(story: Repo) -> None:
    overview = told(story)
    words = {line.name: line.counts for line in overview.themes}
    assert sum(words["Rule"]) == 12
    assert all(len(counts) == len(overview.periods) for counts in words.values())
    assert sum(one.commits for one in overview.periods) == 22  # the merge is told by what it brought


def test_a_long_history_is_told_by_weeks_that_begin_on_mondays(repo: Repo) -> None:
    for number in range(30):
        repo.clock += 12 * DAY
        what = "early lantern" if number < 15 else "later wheel"
        repo.commit(f"Turn the {what} {number}", **{f"{what.partition(' ')[2]}__py": f"turn({number})\n"})
    overview = told(repo)
    assert overview.every == WEEK
    assert {time.gmtime(one.start).tm_wday for one in overview.activity} == {0}
    assert overview.hot[0].path == "wheel.py"
    assert overview.hot[0].commits == 8  # of the last quarter
    words = {line.name: line.counts for line in overview.themes}
    (name,) = (name for name in words if name in ("Early", "Lantern", "Early lantern"))
    assert sum(words[name][: len(overview.periods) // 2 + 1]) == sum(words[name]) == 15


def test_what_nearly_all_commits_say_is_no_theme(repo: Repo) -> None:
    for number in range(30):
        what = "lantern" if number < 15 else "wheel"
        repo.commit(f"Zeppelin: turn the {what} {number}", **{f"{what}__py": f"turn({number})\n"})
    names = {line.name for line in told(repo).themes}
    assert {"Lantern", "Wheel"} <= {name.partition(",")[0].title() for name in names}
    assert not [name for name in names if "zeppelin" in name.lower()]


def test_a_commit_that_says_it_is_of_another_century_makes_no_century_of_empty_weeks(story: Repo) -> None:
    before = told(story)
    story.clock = 4_000_000_000
    story.commit("From the future", future__py="x = 1\n")
    after = told(story)
    assert after.commits == before.commits + 1
    assert (after.last, after.activity, after.hot) == (before.last, before.activity, before.hot)


def test_a_history_of_one_commit_is_told(repo: Repo) -> None:
    repo.commit("Begin", a__py="x = 1\n")
    overview = told(repo)
    assert (overview.commits, len(overview.activity), overview.training, overview.search) == (1, 1, None, None)


def test_what_a_bench_found_is_shown_and_what_is_torn_is_named(story: Repo) -> None:
    row = SearchRow("merge titles", "treering", 3, 0.5, 0.6, (0, 0.1), (0, 0.1))
    bench = Bench("project", 23, "2026-01-01T00:00:00Z", 1.0, (row,), ())
    path = story.path / ".treering" / "reports" / "bench.json"
    told(story)
    write_json(path, bench)
    assert told(story).search == bench
    path.write_text("{")
    torn = told(story)
    assert torn.search is None
    assert "bench.json" in torn.torn[0]
    path.unlink()
    (story.path / ".treering" / "ledger.db").write_bytes(b"no ledger" * 1000)
    torn = told(story)
    assert torn.spent is None
    assert "ledger.db" in torn.torn[0]


def test_a_curve_keeps_its_mean_when_it_is_thinned() -> None:
    points = _thinned([float(number) for number in range(1000)])
    assert len(points) <= 240
    assert points[0] == (5, 2.0)
    assert points[-1][0] == 1000


@pytest.fixture
def door() -> TestClient:
    app = FastAPI()
    app.include_router(pages.router())
    return TestClient(app)


def test_the_page_may_load_nothing_from_elsewhere_and_run_nothing_but_its_own(door: TestClient) -> None:
    for path in ("/", *(f"/static/{name.name}" for name in pages.STATIC.iterdir())):
        answer = door.get(path)
        assert answer.status_code == 200, path
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        text = answer.text.replace("http://www.w3.org/2000/svg", "")
        assert "://" not in text, path
        assert not {word for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "eval(") if word in text}, path


def test_what_the_browser_has_is_not_sent_again(door: TestClient) -> None:
    first = door.get("/static/app.js")
    again = door.get("/static/app.js", headers={"If-None-Match": f'"other", W/{first.headers["etag"]}'})
    assert (again.status_code, again.content) == (304, b"")
    assert door.head("/").status_code == 200
    assert door.get("/static/app.js", headers={"If-None-Match": '"other"'}).status_code == 200


@pytest.mark.parametrize("name", ["../pages.py", "..%2fpages.py", "nothing.js", "%00", ".", "app.js/x"])
def test_no_other_file_can_be_asked_for(door: TestClient, name: str) -> None:
    assert door.get(f"/static/{name}").status_code == 404


def test_every_module_that_a_module_imports_is_there() -> None:
    import re

    for path in pages.STATIC.glob("*.js"):
        for name in re.findall(r'from "\./([^"]+)"', path.read_text("utf-8")):
            assert (pages.STATIC / name).is_file(), (path.name, name)
