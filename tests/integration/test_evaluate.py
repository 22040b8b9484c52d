"""What a model is worth on later commits, and what is answered with it or without."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from repositories import Repo, at_home
from treering import finding, learning, opening, operations
from treering.cli.main import main
from treering.errors import DataError, ModelError, UsageError
from treering.files import read_json, write_json
from treering.lm.export import REPORT
from treering.opening import Place
from treering.pipeline.answer import staged_change
from treering.pipeline.evaluate import EVALUATION, Evaluation, evaluation_of, parts_of
from treering.report import Reporter
from treering.store import Store
from treering.text.strategies import STRATEGIES, documents

SMALL = {"train": {"model": "scratch", "method": "full", "minutes": 0.02, "gpu": False}}


def place(repo: Repo) -> Place:
    return opening.place(repo.path, None, SMALL)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, told_story: Repo) -> Iterator[tuple[Repo, str, Evaluation]]:
    """A history that is indexed, a model that learned next to nothing of it, and what it is worth: made once."""
    with pytest.MonkeyPatch.context() as patch:
        at_home(patch, tmp_path_factory.mktemp("home"))
        repo = told_story.copied(tmp_path_factory.mktemp("learned") / "project")
        for number in range(8):
            repo.commit(f"Tell the oracle about quota {number}", src_0_quota__py=f"quota = {number}\n")
        operations.index(place(repo), Reporter())
        trained = learning.train(place(repo), Reporter())
        assert trained
        told = learning.evaluate(place(repo), Reporter(), asked=learning.TASKS, most=4)
        yield repo, str(trained.folder.relative_to(repo.path)), told


@pytest.fixture
def learned(made: tuple[Repo, str, Evaluation], tmp_path: Path) -> tuple[Repo, Path]:
    repo = made[0].copied(tmp_path / "project")
    return repo, repo.path / made[1]


def stage(repo: Repo, content: str = "quota = 99\n") -> None:
    repo.write("src/quota.py", content)
    repo.git("add", "src/quota.py")


def won(folder: Path, *tasks: str) -> None:
    """As if the model had won these tasks."""
    known = read_json(folder / EVALUATION, Evaluation)
    rows = tuple(replace(row, won=row.task in tasks) for row in known.tasks)
    write_json(folder / EVALUATION, replace(known, tasks=rows))


# evaluate --------------------------------------------------------------------------------------------------------


def test_a_model_is_measured_beside_what_needs_none(made: tuple[Repo, str, Evaluation]) -> None:
    told = made[2]
    whole, message, paths = told.parts
    assert [part.part for part in told.parts] == ["all", "message", "paths"]
    assert all(set(part.bits_per_byte) == {"base", "tuned", "ngram", "xz"} for part in told.parts)
    assert all(0 <= value < 20 for part in told.parts for value in part.bits_per_byte.values())
    assert whole.bytes > message.bytes + paths.bytes
    assert told.verdict.startswith("Too few later commits (4)")
    assert {row.task for row in told.tasks} == set(learning.TASKS)
    for row in told.tasks:
        assert {row.baseline, row.model} <= set(row.ways)
        assert all(0 <= value <= 1 for value in row.ways.values())
        difference, low, high = row.difference
        assert low <= difference <= high
        assert not row.won  # so few commits tell nothing


def test_the_figures_are_kept_beside_the_model_and_a_task_can_be_measured_alone(
    made: tuple[Repo, str, Evaluation], learned: tuple[Repo, Path]
) -> None:
    repo, folder = learned
    assert evaluation_of(folder) == made[2]
    again = learning.evaluate(place(repo), Reporter(), asked=["next"], most=2)
    assert [row for row in again.tasks if row.task != "next"] == [row for row in made[2].tasks if row.task != "next"]
    assert next(row for row in again.tasks if row.task == "next").cases == 2
    assert evaluation_of(folder) == again


def test_only_commits_after_all_that_was_learned_are_judged_on(learned: tuple[Repo, Path]) -> None:
    repo, folder = learned
    first = read_json(folder / REPORT, dict[str, object])["held_out_first"]
    later = repo.git("rev-list", "--count", f"{first}~1..HEAD")
    told = learning.evaluate(place(repo), Reporter(), asked=[], most=1000)
    assert told.commits == int(later)
    assert told.tasks  # what was measured before


def test_a_history_that_lost_the_commit_it_was_split_at_is_refused(learned: tuple[Repo, Path]) -> None:
    repo, folder = learned
    first = str(read_json(folder / REPORT, dict[str, object])["held_out_first"])
    repo.git("reset", "--quiet", "--hard", f"{first}~1")
    operations.index(place(repo), Reporter())
    with pytest.raises(DataError, match=first[:12]):
        learning.evaluate(place(repo), Reporter(), asked=[], most=4)


def test_what_cannot_be_evaluated_is_said(repo: Repo) -> None:
    repo.commit("one", a__py="x = 1\n")
    operations.scrape(place(repo), Reporter())
    with pytest.raises(ModelError, match="no trained model"):
        learning.evaluate(place(repo), Reporter(), asked=[], most=4)
    with pytest.raises(UsageError, match="no task poetry"):
        learning.evaluate(place(repo), Reporter(), asked=["poetry"], most=4)


@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
def test_the_parts_of_a_document_are_its_message_and_its_paths(repo: Repo, strategy: str) -> None:
    repo.commit("Größe of <PATH> x\n\n<MESSAGE> look-alike\n<PATH> no/path", a__py="x = 1\n", b__py="y = 1\n")
    operations.scrape(place(repo), Reporter())
    with Store.existing(place(repo).folder) as store:
        ((record, document),) = documents(store.records(), strategy)
    text = document.text.encode()
    parts = {name: text[begin:end].decode() for name, (begin, end) in parts_of(record, text, strategy).items()}
    assert parts["all"] == document.text
    assert "Größe of <PATH> x" in parts["message"]
    assert "\n<FILE_MOD>" not in parts["message"]
    assert ("look-alike" in parts["message"]) == (strategy != "diff-aware")
    assert ("paths" in parts) == (strategy != "diff-aware")
    if "paths" in parts:
        assert sorted(parts["paths"].replace("<PATH> ", "").split()) == ["a.py", "b.py"]


def test_the_command_prints_the_verdict_first_and_who_answers(
    learned: tuple[Repo, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    repo, _ = learned
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", "--repo", str(repo.path), "--tasks", "next", "--most", "3"])
    assert ended.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("Too few later commits (3)")
    assert "bits per byte on 3 later commits" in lines[1]
    assert any(line.startswith("next, recall@10 (3 commits)") for line in lines)
    assert lines[-1].endswith("the history answers")


# message ---------------------------------------------------------------------------------------------------------


def test_a_model_that_did_not_win_does_not_answer_and_that_is_said(learned: tuple[Repo, Path]) -> None:
    repo, _ = learned
    stage(repo)
    told = learning.message(place(repo), Reporter())
    assert told.answered_by == "history"
    assert "not shown to be better on 4 later commits" in told.why
    assert "quota" in told.message
    assert "quota" in told.near[0].subject
    assert told.files == ("src/quota.py",)


def test_a_beginning_is_finished_by_what_was_said_before(learned: tuple[Repo, Path]) -> None:
    repo, _ = learned
    stage(repo)
    told = learning.message(place(repo), Reporter(), begin="Tell the or")
    assert told.message.startswith("Tell the oracle about quota")
    assert told.next[0] == "oracle"
    assert told.answered_by == "history"


def test_a_model_that_won_answers(learned: tuple[Repo, Path]) -> None:
    repo, folder = learned
    stage(repo)
    won(folder, "completion", "message")
    told = learning.message(place(repo), Reporter(), begin="Tell the or")
    assert told.answered_by == "model"
    assert told.message.startswith("Tell the or")
    assert "the model was better" in told.why
    odd = learning.message(place(repo), Reporter(), begin="Caf\udce9 \x1b[31m <|endoftext|> \U0001f600 ")
    assert odd.message.startswith("Caf\ufffd \x1b[31m <|endoftext|>")
    assert learning.message(place(repo), Reporter()).answered_by == "model"


def test_without_a_model_the_history_answers(repo: Repo) -> None:
    for number in range(3):
        repo.commit(f"Raise the limit of the ledger, take {number}", ledger__py=f"limit = {number}\n")
    operations.index(place(repo), Reporter())
    repo.write("ledger.py", "limit = 9\n")
    repo.git("add", "ledger.py")
    told = learning.message(place(repo), Reporter())
    assert "limit of the ledger" in told.message
    assert told.answered_by == "history"
    assert "treering train" in told.why


def test_a_secret_that_is_staged_reaches_nobody(learned: tuple[Repo, Path]) -> None:
    repo, _ = learned
    secret = "ghp_" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8"
    stage(repo, f"token = '{secret}'\n")
    change = staged_change(place(repo).source, place(repo).settings)
    assert secret not in repr(change)
    assert "token" in change.names


def test_a_message_needs_something_staged_and_a_beginning_of_one_line(learned: tuple[Repo, Path]) -> None:
    repo, _ = learned
    with pytest.raises(UsageError, match="nothing is staged"):
        learning.message(place(repo), Reporter())
    stage(repo)
    with pytest.raises(UsageError, match="more than one line"):
        learning.message(place(repo), Reporter(), begin="one\ntwo")


# suggest ---------------------------------------------------------------------------------------------------------


def suggested(repo: Repo, limit: int) -> learning.Suggestions:
    with finding.desk(place(repo), Reporter(), vectors=False) as opened:
        return learning.suggest(opened, limit=limit)


def test_what_usually_changes_together_and_did_not_yet_is_suggested(repo: Repo) -> None:
    for number in range(8):
        repo.commit(f"Change the wire format {number}", wire__py=f"x = {number}\n", wire__md=f"{number}\n")
    for number in range(12):
        repo.commit(f"Polish the shell {number}", shell__py=f"x = {number}\n")
    repo.commit("Change the wire format at last", wire__py="x = 99\n")
    operations.index(place(repo), Reporter())
    told = suggested(repo, 5)
    assert [(one.path, one.beside, one.together, one.changed) for one in told.open] == [("wire.md", "wire.py", 8, 8)]
    assert told.files[0].path == "shell.py"
    assert told.answered_by == "history"
    assert told.files[1].last == repo.git("rev-parse", "HEAD")


def test_what_the_last_commits_are_about_is_named(repo: Repo) -> None:
    parts = ["lexer", "grammar", "quotes", "numbers", "comments", "strings", "errors", "speed"]
    for number in range(40):
        repo.commit(f"Tune the parser's {parts[number % 8]} {number}", parser__py=f"x = {number}\n")
    names = [repo.commit(f"Bring telemetry to the {part}", t__py=f"y = '{part}'\n") for part in parts[:5]]
    operations.index(place(repo), Reporter())
    about = {theme.name: theme.commits for theme in suggested(repo, 5).themes}
    assert about["Bring telemetry"] == tuple(names[::-1])


def test_the_files_that_come_next_are_ranked_by_a_model_that_won(learned: tuple[Repo, Path]) -> None:
    repo, folder = learned
    by_history = suggested(repo, 30)
    won(folder, "next")
    by_model = suggested(repo, 30)
    assert (by_history.answered_by, by_model.answered_by) == ("history", "model")
    assert sorted(one.path for one in by_model.files) == sorted(one.path for one in by_history.files)
