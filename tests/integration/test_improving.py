"""A model that is kept current by itself: tested on what is new, challenged, promoted, gone back from, and killed."""

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from histories import LetterModel, name_of, remember
from histories import told as commit_told
from repositories import Repo, at_home
from tiny import tiny_base
from treering import improving, learning, opening, operations
from treering.errors import ModelError, RepositoryError, StoreBusy
from treering.files import locked
from treering.opening import Place
from treering.operate.courtesy import Power, on_battery
from treering.pipeline import learn as learn_stage
from treering.report import Reporter
from treering.store import Store
from treering.types import Commit, Placed

Made = tuple[Repo, Path]


def grow(repo: Repo, first: int, last: int, said: str = "Settle the dispute about quota") -> None:
    """Commits that say nearly the same again and again, each of another number."""
    lines: list[str] = []
    for number in range(first, last):
        message = f"{said} {number}\n\nThe ledger of the oracle is settled by the rule of {number}."
        repo.clock += 60
        before = f"from {repo.git('rev-parse', 'main')}\n" if number == first and first else ""
        lines.append(
            f"commit refs/heads/main\nmark :{number + 1}\ncommitter Ada <ada@example.com> {repo.clock} +0100\n"
            f"data {len(message)}\n{message}\n{before}M 644 inline src/quota_{number}.py\n"
            f"data {len(str(number))}\n{number}\n"
        )
    repo.git("fast-import", "--quiet", "--force", stdin="".join(lines).encode())


def place(made: Made, train: dict[str, object] | None = None, **learn: object) -> Place:
    chosen: dict[str, object] = {
        "model": str(made[1]), "method": "full", "gpu": False, "epochs": 100, "max_steps": 40, "learning_rate": 1e-2,
    }  # fmt: skip
    flags: dict[str, dict[str, object]] = {
        "train": chosen | (train or {}),
        "tokens": {"sequence_length": 64},
        "learn": {"after": 10} | learn,
    }
    return opening.place(made[0].path, None, flags)


def learned(made: Made, train: dict[str, object] | None = None, **learn: object) -> improving.Learning:
    return improving.learn(place(made, train, **learn), Reporter())


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A repository of 40 commits whose first model is trained, and the base of that."""
    with pytest.MonkeyPatch.context() as patch:
        at_home(patch, tmp_path_factory.mktemp("home"))
        made = Repo(tmp_path_factory.mktemp("user") / "project"), tiny_base(tmp_path_factory.mktemp("base"))
        grow(made[0], 0, 40)
        told = learned(made)
        assert (told.outcome, told.promoted, told.new, told.tested) == ("first", True, 40, None)
        assert told.trained
        assert told.trained.parent == ""
        return made


@pytest.fixture
def made(begun: Made, tmp_path: Path) -> Made:
    return begun[0].copied(tmp_path / "project"), begun[1]


def names(made: Made) -> list[str]:
    return [model.name for model in learning.models(place(made))]


def current(made: Made) -> str:
    (found,) = [model.name for model in learning.models(place(made)) if model.current]
    return found


# rounds ----------------------------------------------------------------------------------------------------------


def test_too_few_new_commits_are_counted_and_nothing_is_trained(made: Made) -> None:
    before = current(made)
    grow(made[0], 40, 47)
    told = learned(made)
    assert (told.outcome, told.promoted, told.new, told.missing) == ("waiting", False, 7, 3)
    assert "3 more commits" in told.verdict
    assert names(made) == [before]
    assert not told.tested


def test_a_history_too_short_for_a_first_model_waits(tmp_path: Path, begun: Made) -> None:
    other = Repo(tmp_path / "short"), begun[1]
    with pytest.raises(RepositoryError):
        learned(other)
    assert not (other[0].path / ".treering").exists()
    grow(other[0], 0, 3)
    assert learned(other).outcome == "waiting"


def test_new_commits_are_tested_first_and_a_challenger_that_wins_takes_the_place(made: Made) -> None:
    before = current(made)
    grow(made[0], 40, 60, said="Bridge the receipts of validator")
    told = learned(made)
    assert (told.outcome, told.promoted, told.new) == ("promoted", True, 20)
    assert told.tested
    assert (told.tested.model, told.tested.commits, told.tested.left_out) == (before, 20, 0)
    assert told.trained
    assert (told.trained.parent, told.trained.model) == (before, told.model)
    assert told.trained.difference is not None
    assert told.trained.difference[2] < 0
    assert current(made) == told.model
    assert "Tuning helped" in told.verdict
    with Store.existing(place(made).folder) as store:
        runs = {run.stage: run.told for run in store.runs()}
    assert runs["learn"]["outcome"] == "promoted"
    assert runs["learn"]["through"] == runs["test"]["through"] == 60
    assert len(runs["test"]["cases"]) == 20
    assert learned(made).outcome == "waiting"


def test_a_challenger_that_is_not_shown_to_be_better_leaves_the_place_and_the_good_ones_are_kept(made: Made) -> None:
    before = current(made)
    last = 40
    for _ in range(3):
        grow(made[0], last, last + 20)
        last += 20
        told = learned(made, {"max_steps": 1, "learning_rate": 1e-9, "keep_models": 1})
        assert (told.outcome, told.promoted, told.model) == ("kept", False, before)
        assert told.trained
        newest = told.trained.model
    assert names(made) == [newest, before]  # of all challengers the newest


def test_one_command_goes_back_to_the_model_before_and_the_last_good_ones_are_there(made: Made) -> None:
    good, last = [current(made)], 40
    for said in ("Bridge the receipts of validator", "Paint the fence of the garden"):
        grow(made[0], last, last + 20, said=said)
        last += 20
        told = learned(made, {"keep_models": 1}, keep=2)
        assert told.outcome == "promoted"
        good.append(told.model)
    assert set(names(made)) == set(good)  # the current one, and the two before it
    where = place(made)
    assert improving.roll_back(where).name == good[1]
    assert current(made) == good[1]
    assert improving.roll_back(where).name == good[0]
    with pytest.raises(ModelError, match="no earlier model"):
        improving.roll_back(where)
    assert learning.use_model(where, good[2]).name == good[2]
    assert improving.roll_back(where).name == good[0]


def test_a_challenger_that_became_no_number_is_told_and_not_promoted(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    from treering.lm import session

    before = current(made)
    grow(made[0], 40, 60)
    real = session.Session.stepped

    def spoilt(self: Any, trainer: Any, module: Any) -> None:
        module.take_loss = lambda _: float("nan")
        real(self, trainer, module)

    monkeypatch.setattr(session.Session, "stepped", spoilt)
    report = Reporter()
    told = improving.learn(place(made), report)
    assert (told.outcome, told.promoted, told.model) == ("failed", False, before)
    assert "nan" in told.verdict
    assert any("nan" in warning for warning in report.warnings)
    assert names(made) == [before]
    monkeypatch.undo()
    assert learned(made).outcome == "waiting"  # the same commits would give the same: it waits for others


def test_two_at_once_are_refused_and_the_second_is_told_who_is_at_it(made: Made) -> None:
    with locked(place(made).folder / "learn.lock", "treering learn"), pytest.raises(StoreBusy, match="treering learn"):
        learned(made)


def test_a_history_that_was_rewritten_is_learned_from_all_the_same(made: Made) -> None:
    repo, before = made[0], current(made)
    grow(repo, 40, 60)
    repo.git("reset", "--quiet", "--hard", "main~25")  # beyond what the first model was judged from
    grow(repo, 135, 150, said="Bridge the receipts of validator")
    told = learned(made)
    assert told.tested
    assert told.tested.commits == told.new == 15
    assert told.trained
    assert told.trained.parent == before


def test_a_rebased_commit_is_not_new(made: Made) -> None:
    repo = made[0]
    repo.git("reset", "--quiet", "--hard", "main")
    before = repo.git("rev-parse", "main~20")
    repo.git("switch", "--quiet", "--detach", before)
    repo.commit("Slip something in", slipped__py="def slipped():\n    return 1\n" * 5)
    repo.git("cherry-pick", "--allow-empty", f"{before}..main")
    repo.git("branch", "--force", "main", "HEAD")
    repo.git("switch", "--quiet", "main")
    told = learned(made)
    assert (told.outcome, told.new) == ("waiting", 1)


def test_a_store_without_the_models_commits_gets_a_first_model_again(made: Made) -> None:
    where = place(made)
    (where.folder / "treering.db").unlink()
    for log in where.folder.glob("treering.db-*"):
        log.unlink()
    made[0].git("checkout", "--quiet", "--orphan", "fresh")
    made[0].commit("Begin again")
    made[0].git("branch", "--quiet", "-D", "main")
    made[0].git("branch", "--quiet", "-m", "main")
    grow(made[0], 1, 30)
    report = Reporter()
    told = improving.learn(where, report)
    assert told.outcome == "first"
    assert "not in this store" in report.warnings[0]


def test_the_index_is_brought_up_to_date_on_request(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations, "embedder_of", lambda _: LetterModel)
    grow(made[0], 40, 44)
    told = improving.learn(place(made), Reporter(), index=True)
    assert told.outcome == "waiting"
    with Store.existing(place(made).folder) as store:
        assert store.indexed() == 44
        assert store.vectors(LetterModel().fingerprint) >= 44


# killed ----------------------------------------------------------------------------------------------------------


def command(made: Made, *more: str) -> list[str]:
    return [
        sys.executable,
        "-P",
        "-m",
        "treering",
        "learn",
        "--json",
        "--after",
        "10",
        "--repo",
        str(made[0].path),
        *more,
    ]


def environment(made: Made, **more: str) -> dict[str, str]:
    settings = {
        "TRAIN_MODEL": str(made[1]), "TRAIN_METHOD": "full", "TRAIN_GPU": "false", "TRAIN_EPOCHS": "100",
        "TRAIN_MAX_STEPS": "40", "TRAIN_LEARNING_RATE": "0.01", "TRAIN_SAVE_SECONDS": "0",
        "TOKENS_SEQUENCE_LENGTH": "64",
    }  # fmt: skip
    ours = {f"TREERING_{name}": value for name, value in settings.items()}
    return os.environ | ours | {"PYTHONPATH": "src", "OMP_NUM_THREADS": "1"} | more


def test_killed_at_any_moment_the_last_good_model_is_in_use_and_the_next_run_ends_the_round(made: Made) -> None:
    before = current(made)
    grow(made[0], 40, 60, said="Bridge the receipts of validator")
    checkpoints = place(made).folder / "models" / "project-git-model"
    chance = random.Random(5)  # noqa: S311
    for moment in range(2):
        running = subprocess.Popen(
            command(made), env=environment(made), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        until = time.monotonic() + 300
        if moment:  # once at the beginning, then while it trains
            while running.poll() is None and not list(checkpoints.glob(".*.checkpoints/step-*")):
                assert time.monotonic() < until
                time.sleep(0.005)
        time.sleep(chance.random() * (0.05 if moment else 1.5))
        running.kill()
        running.wait()
        assert before in names(made)
        assert current(made) == before or moment
    done = subprocess.run(command(made), env=environment(made), capture_output=True, check=True, text=True)
    told = json.loads(done.stdout)
    with Store.existing(place(made).folder) as store:
        runs = list(store.runs(stages=["test", "learn", "train"]))
        assert sum(run.told["commits"] for run in runs if run.stage == "test") == 20  # each commit once
        assert learn_stage.current_model(store)
    assert told["promoted"] or current(made) != before
    assert not list(checkpoints.glob(".*"))


# on battery ------------------------------------------------------------------------------------------------------


def supplies(folder: Path, *, online: str, status: str = "Discharging") -> Path:
    for name, facts in {
        "AC": {"type": "Mains", "online": online},
        "BAT0": {"type": "Battery", "status": status, "scope": "System"},
        "mouse": {"type": "Battery", "status": "Discharging", "scope": "Device"},
    }.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for key, value in facts.items():
            (folder / name / key).write_text(f"{value}\n")
    return folder


@pytest.mark.skipif(sys.platform == "darwin", reason="its power is asked of pmset")
def test_a_battery_is_told_from_power_and_from_that_of_a_mouse(tmp_path: Path) -> None:
    assert not on_battery(tmp_path / "a machine without supplies")
    assert on_battery(supplies(tmp_path / "one", online="0"))
    assert not on_battery(supplies(tmp_path / "one", online="1"))
    assert not on_battery(supplies(tmp_path / "two", online="0", status="Not charging"))
    (tmp_path / "torn" / "AC").mkdir(parents=True)
    assert not on_battery(tmp_path / "torn")


@pytest.mark.skipif(sys.platform == "darwin", reason="its power is asked of pmset")
def test_work_waits_for_power_and_no_longer_than_its_patience(tmp_path: Path) -> None:
    folder, now, said = supplies(tmp_path, online="0"), [0.0], list[str]()

    def sleep(seconds: float) -> None:
        now[0] += seconds
        if now[0] >= 20:
            supplies(tmp_path, online="1")

    power = Power(60, said.append, folder, clock=lambda: now[0], sleep=sleep)
    assert power()
    assert (power.waited, said) == (20, ["on battery: waiting for power", "power is back: going on"])
    supplies(tmp_path, online="0")
    now[0] = -1000  # it never comes back
    impatient = Power(12, said.append, folder, clock=lambda: now[0], sleep=sleep)
    assert not impatient()
    assert impatient.waited == 12


@pytest.mark.skipif(sys.platform == "darwin", reason="its power is asked of pmset")
def test_on_battery_nothing_is_trained_unless_it_may_be_and_it_goes_on_later(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from treering.operate import courtesy

    before = current(made)
    grow(made[0], 40, 60, said="Bridge the receipts of validator")
    folder = supplies(tmp_path / "supplies", online="0")
    told = improving.learn(place(made, battery_minutes=0), Reporter(), supplies=folder)
    assert (told.outcome, told.model) == ("paused", before)

    # The plug is pulled while it trains.
    asked = iter([False, *([False] * 3), *([True] * 1000)])
    monkeypatch.setattr(courtesy, "on_battery", lambda _: next(asked))
    monkeypatch.setattr(courtesy, "LOOK_SECONDS", 0.0)
    told = improving.learn(place(made, battery_minutes=0), Reporter(), supplies=folder)
    assert told.outcome == "paused"
    assert current(made) == before
    monkeypatch.undo()
    told = improving.learn(place(made, on_battery=True), Reporter(), supplies=folder)
    assert told.outcome == "promoted"
    with Store.existing(place(made).folder) as store:
        assert learn_stage.report_of(learn_stage.current_model(store) or Path()).training.resumed_at > 0


def test_time_spent_waiting_is_none_of_the_budget(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    grow(made[0], 40, 60)
    hours = [0]
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + 3600 * hours[0], time=time.time)
    monkeypatch.setattr("treering.lm.session.time", clock)
    monkeypatch.setattr("treering.lm.module.time", clock)

    def may_go_on() -> bool:
        hours[0] += 1
        return True

    told = learning.train(place(made, {"max_steps": 3}), Reporter(), onward=True, may_go_on=may_go_on)
    assert told
    assert (told.report.training.steps, hours) == (3, [2])
    assert told.report.training.seconds < 3600


def test_a_commit_that_vanished_is_stood_for_by_the_next_in_time(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        commits: list[Commit] = [commit_told(number, f"Say {number}") for number in range(1, 6)]
        remember(store, commits)
        with store.writing("a test"):
            store.place(Placed(one.hash, "main", ("main",), None) for one in commits if one.hash != name_of(3))
        assert store.standing_for(name_of(2)) == name_of(2)
        assert store.standing_for(name_of(3)) == name_of(4)
        assert store.standing_for("0" * 39 + "f") == ""
        assert store.stored_after(store.number_of(name_of(3))) == {name_of(4), name_of(5)}
