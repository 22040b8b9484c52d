"""The ledger of a store: no process passes a ceiling, no crash loses a reservation, and no error spends in part."""

import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from repositories import read_only
from treering.assist.budget import Budget, Spending, spending
from treering.config import BudgetSettings
from treering.errors import BudgetError, DataError, StoreBusy, StoreError, UsageError
from treering.store import Store
from treering.store.ledger import BILLION, MIGRATIONS, Ceilings, Ledger, Usage

NOON = 1_800_000_000.0  # 2027-01-15, 08:00 UTC
DAY = 86_400
OPUS = "claude-opus-5-5"
WIDE = Ceilings(10 * BILLION, 100 * BILLION)

SPEND = """
    import sys
    from pathlib import Path
    from treering.assist.budget import Budget
    from treering.config import BudgetSettings
    from treering.errors import BudgetError
    from treering.store.ledger import Usage

    budget = Budget(Path(sys.argv[1]), BudgetSettings(per_day=1.0, per_month=10.0))
    done = 0
    print("ready", flush=True)
    sys.stdin.readline()
    for turn in range(12):
        try:
            made = budget.reserve("claude-opus-5-5", "ask", input_tokens=1000, output_tokens=2000)
        except BudgetError:
            continue
        done += 1
        if turn % 3 == 0:
            made.settle(Usage(900, 1500))
        elif turn % 3 == 1:
            made.release()
    print(done, flush=True)
"""


def started(code: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


def told(folder: Path, now: float | None = None) -> Spending:
    return spending(folder, BudgetSettings(), now=now)


@pytest.fixture
def budget(tmp_path: Path) -> Budget:
    return Budget(tmp_path, BudgetSettings(), now=lambda: NOON)


def test_what_was_reserved_counts_until_it_is_settled_by_what_it_cost(budget: Budget, tmp_path: Path) -> None:
    made = budget.reserve(OPUS, "ask", input_tokens=10_000, output_tokens=4_000)
    assert made.worst == pytest.approx(10_000 * 8e-6 + 4_000 * 20e-6)  # the dearest the cache can be
    before = told(tmp_path, NOON)
    assert (before.today.reserved, before.dollars) == (made.worst, 0)
    cost = made.settle(Usage(2_000, 500, cache_write_5m=1_000, cache_read=7_000))
    assert cost == pytest.approx((2_000 * 4 + 500 * 20 + 1_000 * 5 + 7_000 * 0.2) / 1e6)
    after = told(tmp_path, NOON)
    assert (after.today.reserved, after.today.spent, after.dollars) == (0, cost, cost)
    (row,) = after.rows
    assert (row.model, row.purpose, row.calls, row.output_tokens, row.cache_read_tokens) == (OPUS, "ask", 1, 500, 7000)


def test_a_call_that_was_never_sent_costs_nothing(budget: Budget, tmp_path: Path) -> None:
    budget.reserve(OPUS, "ask", input_tokens=1000, output_tokens=1000).release()
    assert told(tmp_path, NOON).today.left == 1.0
    assert told(tmp_path, NOON).rows == ()


def test_a_call_is_settled_once(budget: Budget) -> None:
    made = budget.reserve(OPUS, "ask", input_tokens=1000, output_tokens=1000)
    made.settle(Usage(10, 10))
    for again in (lambda: made.settle(Usage(10, 10)), made.release):
        with pytest.raises(BudgetError, match="settled or released already"):
            again()


def test_a_call_that_used_less_than_nothing_is_refused_and_its_reservation_stays(
    budget: Budget, tmp_path: Path
) -> None:
    made = budget.reserve(OPUS, "ask", input_tokens=1000, output_tokens=1000)
    with pytest.raises(DataError):
        made.settle(Usage(-10, 10))
    assert told(tmp_path, NOON).today.reserved == made.worst


def test_a_call_that_cost_more_than_was_reserved_counts_as_what_it_cost(budget: Budget, tmp_path: Path) -> None:
    made = budget.reserve(OPUS, "ask", input_tokens=10, output_tokens=10)
    assert made.settle(Usage(1_000_000, 0)) == 4.0
    assert told(tmp_path, NOON).today.left == 0
    with pytest.raises(BudgetError, match=r"ceiling of \$1\.00 a day"):
        budget.reserve(OPUS, "ask", input_tokens=1, output_tokens=1)


def test_the_ceiling_of_a_day_may_be_reached_and_not_passed(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        ledger.reserve("m", "ask", 6, Ceilings(10, 100), NOON)
        ledger.reserve("m", "ask", 4, Ceilings(10, 100), NOON)
        with pytest.raises(BudgetError, match="a day is reached") as caught:
            ledger.reserve("m", "ask", 1, Ceilings(10, 100), NOON)
        assert "TREERING_BUDGET_PER_DAY" in caught.value.hint
        assert ledger.sums(NOON)[0].taken == 10


def test_a_new_day_begins_at_midnight_utc_and_the_month_goes_on(tmp_path: Path) -> None:
    midnight = NOON - NOON % DAY
    ceilings = Ceilings(10, 25)
    with Ledger(tmp_path) as ledger:
        ledger.reserve("m", "ask", 10, ceilings, midnight - 1)
        ledger.reserve("m", "ask", 10, ceilings, midnight)
        with pytest.raises(BudgetError, match="a month is reached"):
            ledger.reserve("m", "ask", 10, ceilings, midnight + DAY)
        february = midnight + 17 * DAY  # the 1st
        ledger.reserve("m", "ask", 10, ceilings, february)
        assert [one.taken for one in ledger.sums(february)] == [10, 10]


def test_a_call_belongs_to_the_day_on_which_it_was_reserved(tmp_path: Path) -> None:
    midnight = NOON - NOON % DAY
    with Ledger(tmp_path) as ledger:
        ledger.settle(ledger.reserve("m", "ask", 10, WIDE, midnight - 1), 7, Usage(1, 1))
        assert [account.day for account in ledger.accounts()] == ["2027-01-14"]
        assert ledger.sums(midnight)[0].taken == 0
        assert ledger.sums(midnight)[1].taken == 7
        assert ledger.accounts("2027-01-15") == []


def test_an_unknown_model_is_refused_and_nothing_is_reserved(budget: Budget, tmp_path: Path) -> None:
    with pytest.raises(BudgetError, match="price of 'claude-of-tomorrow' is not known"):
        budget.reserve("claude-of-tomorrow", "ask", input_tokens=1, output_tokens=1)
    assert not (tmp_path / "ledger.db").exists()


def test_many_processes_at_once_never_pass_the_ceiling(tmp_path: Path) -> None:
    running = [started(SPEND, tmp_path) for _ in range(6)]
    for one in running:
        assert one.stdout is not None
        assert one.stdout.readline() == "ready\n"
    done = 0
    for one in running:
        assert one.stdin is not None
        one.stdin.write("go\n")
        one.stdin.flush()
    for one in running:
        said, _ = one.communicate(timeout=120)
        assert one.returncode == 0
        done += int(said)
    with Ledger(tmp_path) as ledger:
        accounts = ledger.accounts()
    taken = sum(account.spent + account.reserved for account in accounts)
    worst = 1000 * 8_000 + 2000 * 20_000
    assert BILLION - worst < taken <= BILLION  # as much as fits, and no more
    assert done >= sum(account.calls for account in accounts) > 0


def test_a_kill_between_reserving_and_settling_leaves_the_reservation_counted(tmp_path: Path) -> None:
    code = """
        import os, sys
        from pathlib import Path
        from treering.assist.budget import Budget
        from treering.config import BudgetSettings

        budget = Budget(Path(sys.argv[1]), BudgetSettings())
        budget.reserve("claude-opus-5-5", "ask", input_tokens=1000, output_tokens=40000)
        print("reserved", flush=True)
        sys.stdin.readline()
    """
    victim = started(code, tmp_path)
    assert victim.stdout is not None
    assert victim.stdout.readline() == "reserved\n"
    (alive,) = told(tmp_path).unsettled
    assert not alive.left_behind
    victim.kill()
    assert victim.wait() == -signal.SIGKILL
    victim.communicate()
    (found,) = told(tmp_path).unsettled
    assert found.left_behind
    assert told(tmp_path).today.reserved == found.dollars == pytest.approx(0.808)
    with pytest.raises(BudgetError, match=r"\$0\.808 reserved"):
        Budget(tmp_path, BudgetSettings()).reserve(OPUS, "ask", input_tokens=1000, output_tokens=10_000)


def test_a_reservation_that_is_older_than_any_call_was_left_behind(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        ledger.reserve("m", "ask", 10, WIDE, NOON)
        assert [one.left for one in ledger.unsettled(NOON + 60)] == [False]  # this process lives
        assert [one.left for one in ledger.unsettled(NOON + DAY)] == [True]


def test_an_index_that_is_being_written_does_not_hold_up_a_call(tmp_path: Path) -> None:
    with Store(tmp_path) as store, store.writing("a long run"), store.transaction():
        made = Budget(tmp_path, BudgetSettings()).reserve(OPUS, "ask", input_tokens=10, output_tokens=10)
        made.settle(Usage(10, 10))
    assert told(tmp_path).dollars > 0


def test_money_is_kept_in_whole_numbers(budget: Budget, tmp_path: Path) -> None:
    budget.reserve("claude-haiku-5-5", "ask", input_tokens=7, output_tokens=3).settle(Usage(7, 3, cache_read=1))
    db = sqlite3.connect(tmp_path / "ledger.db")
    kinds = db.execute("SELECT typeof(worst), typeof(spent), spent FROM spending").fetchall()
    db.close()
    assert kinds == [("integer", "integer", 7 * 100 + 3 * 500 + 10)]


# bad input -------------------------------------------------------------------------------------------------------


def test_what_was_spent_is_told_without_making_anything(tmp_path: Path) -> None:
    assert told(tmp_path / "store").rows == ()
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_is_made_for_the_ledger_ignores_itself(tmp_path: Path) -> None:
    with Ledger(tmp_path / "store"):
        assert (tmp_path / "store" / ".gitignore").read_text() == "*\n"


@pytest.fixture
def public() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        made = Path(folder) / "store"
        Budget(made, BudgetSettings()).reserve(OPUS, "ask", input_tokens=10, output_tokens=10).settle(Usage(10, 10))
        yield made


def test_a_store_that_may_only_be_read_tells_what_was_spent_and_reserves_nothing(public: Path) -> None:
    before = told(public)
    with read_only(public):
        assert told(public).rows == before.rows
        with pytest.raises(StoreError, match="Permission denied") as caught:
            Budget(public, BudgetSettings()).reserve(OPUS, "ask", input_tokens=10, output_tokens=10)
        assert "ledger.db" in caught.value.message
    assert told(public).rows == before.rows


def test_a_damaged_ledger_is_told_and_not_thrown_away(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_bytes(b"no database" * 1000)
    with pytest.raises(StoreError, match=r"ledger\.db is damaged") as caught:
        told(tmp_path)
    assert "what was spent" in caught.value.hint
    assert (tmp_path / "ledger.db").read_bytes().startswith(b"no database")


def test_a_ledger_that_is_damaged_within_is_told_while_it_is_read(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        for _ in range(200):
            ledger.reserve("m", "ask", 1, WIDE, NOON)
    size = (tmp_path / "ledger.db").stat().st_size
    page = 4096
    with (tmp_path / "ledger.db").open("r+b") as file:
        for place in range(page, size, page):
            file.seek(place)
            file.write(b"\xff" * page)
    with pytest.raises(StoreError, match=r"ledger\.db is damaged"):
        told(tmp_path)
    with pytest.raises(StoreError, match=r"ledger\.db is damaged"), Ledger(tmp_path) as ledger:
        ledger.reserve("m", "ask", 1, WIDE, NOON)


def test_a_ledger_of_a_newer_treering_is_refused(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        ledger.db.execute(f"PRAGMA user_version={len(MIGRATIONS) + 1}")
    with pytest.raises(StoreError, match="newer treering"), Ledger(tmp_path):
        pytest.fail("it was opened")


def test_a_ledger_that_another_program_holds_is_busy_and_nothing_is_spent(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        other = sqlite3.connect(ledger.path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        ledger.db.execute("PRAGMA busy_timeout=50")
        with pytest.raises(StoreBusy):
            ledger.reserve("m", "ask", 1, WIDE, NOON)
        other.close()
        assert ledger.sums(NOON)[0].taken == 0


# routes ----------------------------------------------------------------------------------------------------------


def test_the_outcome_of_a_route_is_kept_and_what_is_said_last_holds(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        first = ledger.routed("local", "cold start", {"first file": 0.5}, NOON)
        ledger.routed("claude", "budget", {}, NOON + 1)
        assert ledger.outcomes(10) == []
        assert ledger.judge(first, "gate", good=True) == "local"
        ledger.judge(first, "person", good=False)
        (known,) = ledger.outcomes(10)
        assert (known.went, known.good, dict(known.features)) == ("local", False, {"first file": 0.5})
        with pytest.raises(UsageError, match="no route 'abc'"):
            ledger.judge("abc", "person", good=True)


def test_the_newest_outcomes_are_given_oldest_first(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        for at in (3, 1, 2):
            ledger.judge(ledger.routed("local", "model", {"words": float(at)}, NOON + at), "gate", good=True)
        assert [one.at - NOON for one in ledger.outcomes(2)] == [2, 3]
