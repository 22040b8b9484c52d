"""Routing on a real repository: hard rules as they come from settings, the environment, the ledger and the store; what
is kept of a route; and the commands.
"""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from repositories import Repo
from treering import deciding, finding, opening, operations
from treering.assist.budget import Budget
from treering.assist.features import FEATURES, Measures, features
from treering.assist.route import ENOUGH, Route, record_outcome
from treering.cli.main import main
from treering.errors import UsageError
from treering.git.blame import texts, tree
from treering.offered import OFFERS, RouteAsked, SpendAsked
from treering.opening import Place
from treering.report import Reporter
from treering.store.ledger import Ledger, Usage

TASK = "Add a rule for the ledger"


@pytest.fixture
def told(indexed_story: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repo:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "a key")
    return indexed_story.copied(tmp_path / "project")


def routed(repo: Repo, task: str = TASK, *given: str, where: Place | None = None) -> Route:
    with finding.desk(where or opening.place(repo.path), Reporter(), vectors=False) as desk:
        return deciding.route(desk, task, given=given)


def treering(repo: Repo, *arguments: str, code: int = 0) -> Result:
    done = CliRunner().invoke(main, [*arguments, "--repo", str(repo.path)])
    assert done.exit_code == code, done.stderr
    return done


def spent_up(repo: Repo) -> None:
    """Leave next to nothing of the day's dollar."""
    where = opening.place(repo.path)
    budget = Budget(where.folder, where.settings.budget)
    budget.reserve("claude-opus-5-5", "ask", input_tokens=10, output_tokens=10).settle(Usage(249_900, 0))


def test_a_route_tells_where_why_and_what_claude_would_cost(told: Repo) -> None:
    found = routed(told)
    assert found.rule == "cold start"
    assert found.to == ("local" if found.probability >= 0.5 else "claude")
    assert f"{found.probability:.0%}" in found.why
    assert found.dollars_worst is not None
    assert found.dollars_expected is not None
    assert 0 < found.dollars_expected < found.dollars_worst < 1
    assert "src/ledger.py" in found.files
    assert found.tokens > 100
    assert set(found.features) <= set(FEATURES)
    assert "perplexity" not in found.features  # no model was loaded for it
    assert all(np.isfinite(value) for value in found.features.values())


def test_a_route_spends_and_reserves_nothing(told: Repo) -> None:
    routed(told)
    found = deciding.spend(opening.place(told.path))
    assert (found.rows, found.today.left) == ((), 1.0)


@pytest.mark.parametrize("task", ["zzz qqq", "?!", "Räume auf \x1b[31m\u202e", "x" * 30_000, "line\nline\n" * 50])
def test_any_task_is_routed(told: Repo, task: str) -> None:
    found = routed(told, task)
    assert 0 <= found.probability <= 1
    assert all(np.isfinite(value) for value in found.features.values())


def test_what_is_given_is_read_whether_it_is_there_or_not(told: Repo) -> None:
    told.commit("Write it down", notes__md="word " * 3000)
    operations.index(opening.place(told.path), Reporter())
    odd = ("src", "no such file", "a\nb", "../outside", "/etc/passwd", "notes.md")
    assert routed(told, "Settle", *odd).tokens >= routed(told, "Settle").tokens + 5000


def test_an_empty_task_is_an_error(told: Repo) -> None:
    with pytest.raises(UsageError, match="empty"):
        routed(told, "  ")


def foretold(repo: Repo, at: str) -> dict[str, float]:
    """The features of a task as of a commit."""
    with finding.desk(opening.place(repo.path), Reporter()) as desk:
        history = desk.finder.history
        mask, read = history.at(at), partial(texts, desk.shadow, at)
        candidates = tree(desk.shadow, at)
        predicted = desk.predictor.predict(TASK, candidates, mask=mask, limit=10, contents=read)
        measures = Measures(history, desk.predictor)
        return features(desk.finder, measures, TASK, predicted, mask=mask, contents=read)[0]


def test_nothing_that_comes_later_changes_what_was_known_of_a_task(told: Repo) -> None:
    at = told.git("rev-parse", "main~3")
    before = foretold(told, at)
    for number in range(12):
        told.commit("Add the ledger rule for good", src_0_ledger__py=f"rule = {number}\n" * 90, **{f"n{number}": "x\n"})
    operations.index(opening.place(told.path), Reporter())
    assert foretold(told, at) == before
    assert foretold(told, told.git("rev-parse", "HEAD")) != before


# hard rules ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "task", "given"),
    [
        ("src/ledger.py", TASK, ()),  # it is predicted, and what is near changes it
        ("core", "Answer the phone", ("core/market.py",)),
        ("*.pem", "Renew `deploy/server.pem`", ()),  # there is no such file yet
    ],
)
def test_what_a_repository_calls_private_never_goes_to_claude(
    told: Repo, pattern: str, task: str, given: tuple[str, ...]
) -> None:
    (told.path / "treering.toml").write_text(f'[route]\nprivate_paths = ["{pattern}"]\n')
    found = routed(told, task, *given)
    assert (found.to, found.rule) == ("local", "privacy")


def test_without_a_key_everything_stays(told: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    found = routed(told)
    assert (found.to, found.rule) == ("local", "budget")
    assert "ANTHROPIC_API_KEY" in found.why


def test_once_the_ceiling_is_reached_everything_stays(told: Repo) -> None:
    spent_up(told)
    found = routed(told)
    assert (found.to, found.rule) == ("local", "budget")
    assert "$1.00 a day is reached" in found.why


def test_a_ceiling_of_nothing_keeps_everything_here(told: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TREERING_BUDGET_PER_DAY", "0")
    found = routed(told)
    assert (found.to, found.rule) == ("local", "budget")


def test_a_model_without_a_price_keeps_everything_here(told: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TREERING_ASSIST_CLAUDE_MODEL", "claude-of-tomorrow")
    found = routed(told)
    assert (found.to, found.rule) == ("local", "budget")
    assert (found.dollars_worst, found.dollars_expected) == (None, None)


def test_what_no_model_reads_in_one_call_stays(told: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"input": 1, "output": 2, "cache_write_5m": 1, "cache_write_1h": 1, "cache_read": 1, "window": 50}
    prices = {"as_of": "2026-11-01", "source": "a test", "models": {"small": row}}
    (tmp_path / "prices.json").write_text(json.dumps(prices))
    monkeypatch.setenv("TREERING_BUDGET_PRICES", str(tmp_path / "prices.json"))
    monkeypatch.setenv("TREERING_ASSIST_CLAUDE_MODEL", "small")
    found = routed(told)
    assert (found.to, found.rule) == ("local", "size")


def test_where_no_ledger_can_be_kept_nothing_goes_to_claude(told: Repo) -> None:
    (told.path / ".treering" / "ledger.db").mkdir()
    found = routed(told)
    assert (found.id, found.to) == ("", "local")
    assert "it was not kept" in treering(told, "route", TASK).stderr


# learning --------------------------------------------------------------------------------------------------------


def test_feedback_is_kept_by_the_name_of_the_route(told: Repo) -> None:
    found = routed(told)
    where = opening.place(told.path)
    assert deciding.feedback(where, found.id, good=False) == found.to
    with Ledger(where.folder) as ledger:
        (known,) = ledger.outcomes(10)
    assert (known.good, dict(known.features)) == (False, found.features)
    with pytest.raises(UsageError, match="no route 'nobody'"):
        deciding.feedback(where, "nobody", good=True)


def test_feedback_to_a_store_that_is_not_there_makes_none(told: Repo, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no route"):
        deciding.feedback(opening.place(told.path, tmp_path / "nowhere"), "nobody", good=True)
    assert not (tmp_path / "nowhere").exists()


def test_outcomes_of_its_own_change_how_a_repository_is_routed(told: Repo) -> None:
    before = routed(told)
    where = opening.place(told.path)
    with Ledger(where.folder) as ledger:  # whatever looks like this task went badly, and all else well
        sure = np.random.default_rng(7).random(4 * ENOUGH).tolist()
        names = [
            ledger.routed("local", "cold start", {**before.features, "first file": one}, place)
            for place, one in enumerate(sure)
        ]
    for name, one in zip(names, sure, strict=True):
        record_outcome(where.folder, name, good=one < 0.5, source="a test")
    after = routed(told)
    assert after.rule == "model"
    assert after.features == before.features
    assert (after.probability < 0.5) == (before.features["first file"] > 0.5)


# commands --------------------------------------------------------------------------------------------------------


def test_a_task_is_routed_judged_and_its_money_told_on_the_command_line(told: Repo) -> None:
    said = treering(told, "route", TASK).stdout
    assert said.startswith(("local: ", "claude: "))
    assert "claude-sonnet-5-5: about $0.0" in said
    name = said.split("treering feedback ")[1].split()[0]
    assert "was good" in treering(told, "feedback", name, "good").stdout
    assert json.loads(treering(told, "feedback", name, "bad", "--json").stdout)["good"] is False
    spent_up(told)
    lines = treering(told, "spend").stdout.splitlines()
    assert "claude-opus-5-5 for ask: 1 calls, 249,900 tokens read, 0 written" in lines[0]
    assert "today: $1.00 spent, $0.0004 left of $1.00" in lines[2]
    assert json.loads(treering(told, "spend", "--json").stdout)["dollars"] == 0.9996
    assert json.loads(treering(told, "spend", "--since", "2999-01-01", "--json").stdout)["rows"] == []


def test_json_of_a_route_has_every_field(told: Repo) -> None:
    found = json.loads(treering(told, "route", TASK, "--given", "README.md", "--json").stdout)
    assert set(found) == set(Route.__struct_fields__)


def test_what_was_left_behind_and_what_is_old_is_said(
    told: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = opening.place(told.path)
    with Ledger(where.folder) as ledger:
        ledger.db.execute(
            "INSERT INTO spending (at, day, process, model, purpose, worst) VALUES (0, '1970-01-01', 1, 'm', 'ask', 5)"
        )
    row = {"input": 1, "output": 2, "cache_write_5m": 1, "cache_write_1h": 1, "cache_read": 1, "window": 50}
    (tmp_path / "old.json").write_text(json.dumps({"as_of": "2020-01-01", "source": "", "models": {"m": row}}))
    monkeypatch.setenv("TREERING_BUDGET_PRICES", str(tmp_path / "old.json"))
    done = treering(told, "spend")
    assert "its process is gone, so it counts for good" in done.stdout
    assert "days old" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["feedback", "nobody", "good"], "no route 'nobody'"),
        (["feedback", "nobody", "fine"], "'fine' is not one of"),
        (["spend", "--since", "someday"], "no date"),
        (["route", "x", "--budget", "3"], "3 is not in the range"),
        (["route", " "], "empty"),
    ],
)
def test_what_cannot_be_is_an_error_of_one_line(told: Repo, arguments: list[str], said: str) -> None:
    done = treering(told, *arguments, code=2)
    assert said in done.stderr
    assert done.stdout == ""


def test_both_are_offered_to_the_faces(told: Repo) -> None:
    with finding.desk(opening.place(told.path), Reporter(), vectors=False) as desk:
        found = OFFERS["route"].answer(desk, RouteAsked(task=TASK, budget=500))
        spent = OFFERS["spend"].answer(desk, SpendAsked(since="2020-01-01"))
    assert isinstance(found, OFFERS["route"].gives)
    assert isinstance(spent, OFFERS["spend"].gives)
