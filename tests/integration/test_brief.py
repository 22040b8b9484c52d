"""A brief of real histories: periods, themes, what stalled, and how it is told."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from repositories import Repo
from treering import deciding, finding, opening, operations
from treering.cli.main import main
from treering.deciding import Brief
from treering.errors import UsageError
from treering.report import Reporter

DAY = 86400


def briefed(repo: Repo, *, vectors: bool = True, **asked: str | int) -> Brief:
    where = opening.place(repo.path)
    operations.index(where, Reporter())
    with finding.desk(where, Reporter(), vectors=vectors) as desk:
        return deciding.brief(desk, **asked)  # type: ignore[arg-type]  # the names are those of its arguments


def two_works(repo: Repo) -> Repo:
    """An old month about a parser; a new one about bridges and ledgers, half of it with a message that says nothing."""
    for number in range(10):
        repo.commit(f"Tune the parser's lexer {number}", src_0_lexer__py=f"def lexer_rule_{number}():\n    pass\n")
    repo.clock += 45 * DAY
    for number in range(8):
        repo.commit(
            f"Relay the bridge deposit {number}" if number % 2 else "local changes",
            **{f"bridge_0_relay_{number}__py": f"def bridge_relay_{number}(deposit):\n    return deposit\n"},
        )
        repo.commit(
            f"Balance the ledger's accounts {number}" if number % 2 else "local changes",
            **{f"ledger_0_account_{number}__py": f"def ledger_account_{number}(balance):\n    return balance\n"},
        )
    return repo


@pytest.mark.parametrize("vectors", [True, False])
def test_commits_are_in_the_theme_that_their_diffs_are_of_whatever_their_messages_say(
    repo: Repo, vectors: bool
) -> None:
    told = briefed(two_works(repo), vectors=vectors)
    assert told.commits == 16
    assert sorted(len(theme.commits) for theme in told.themes) == [8, 8]
    for theme in told.themes:
        of = "bridge" if "bridge" in theme.name.lower() else "ledger"
        assert of in theme.name.lower()
        shown = repo.git("show", "--name-only", "--format=", *theme.commits).split()
        assert {path.partition("/")[0] for path in shown} == {of}
        assert {one.commit_hash for one in theme.examples} <= set(theme.commits)
        assert any(not one.subject and one.paths for one in theme.examples) or all(
            one.subject for one in theme.examples
        )


def test_the_period_is_the_thirty_days_that_end_with_the_newest_commit(repo: Repo) -> None:
    told = briefed(two_works(repo))
    newest = int(repo.git("log", "-1", "--format=%ct"))
    assert told.until == time.strftime("%Y-%m-%d", time.gmtime(newest))
    assert told.since == time.strftime("%Y-%m-%d", time.gmtime(newest - 30 * DAY + 1))
    assert not any("lexer" in theme.name.lower() for theme in told.themes)
    whole = briefed(repo, since="2020-01-01")
    assert whole.commits == 26


def test_a_file_that_was_busy_before_and_then_was_not_has_stalled(repo: Repo) -> None:
    told = briefed(two_works(repo))
    (stalled,) = told.stalled
    assert (stalled.kind, stalled.name, stalled.commits) == ("file", "src/lexer.py", 10)
    assert f"none since {stalled.last}" in told.text()
    assert not briefed(repo, since="2020-01-01").stalled
    repo.commit("Drop the lexer", src_0_lexer__py=None)
    repo.clock += 31 * DAY
    repo.commit("Go on", a__py="x = 1\n")
    assert all(one.name != "src/lexer.py" for one in briefed(repo).stalled)


def test_a_branch_that_was_left_behind_has_stalled_until_its_patch_is_on_the_first_branch(repo: Repo) -> None:
    repo.commit("Begin", a__py="x = 1\n")
    repo.git("switch", "--quiet", "-c", "half-done")
    left = repo.commit("Half of a thing", b__py="y = 1\n")
    repo.git("switch", "--quiet", "main")
    repo.clock += 60 * DAY
    repo.commit("Go on", a__py="x = 2\n")
    told = briefed(repo)
    assert [(one.kind, one.name, one.commits) for one in told.stalled] == [("branch", "half-done", 1)]
    assert "half-done" in told.text()
    repo.git("cherry-pick", left)
    assert not briefed(repo).stalled


def test_merges_and_repetitions_are_counted_aside(repo: Repo) -> None:
    repo.commit("Begin", a__py="x = 1\n")
    repo.git("switch", "--quiet", "-c", "side")
    fix = repo.commit("Fix the wire", wire__py="w = 1\n")
    repo.git("switch", "--quiet", "main")
    repo.commit("Go on", a__py="x = 2\n")
    repo.git("cherry-pick", fix)
    repo.git("merge", "--quiet", "--no-ff", "-m", "Merge side", "side")
    told = briefed(repo)
    assert (told.commits, told.merges, told.repeated) == (3, 1, 1)
    assert told.authors == {"Ada Lovelace": 3}


def test_a_period_without_commits_is_said_and_no_error(story: Repo) -> None:
    told = briefed(story, since="2001-01-01", until="2001-02-01")
    assert (told.commits, told.themes, told.hot_spots) == (0, (), ())
    assert "No commit is in this period." in told.text()
    assert told.question not in told.text()
    assert briefed(story, since="2050-01-01").commits == 0


def test_a_date_that_cannot_be_is_an_error(story: Repo) -> None:
    with pytest.raises(UsageError, match="is no date"):
        briefed(story, since="yesterday-ish")
    with pytest.raises(UsageError, match="before it begins"):
        briefed(story, since="2024-02-01", until="2024-01-01")


def test_what_a_repository_says_formats_nothing_and_drives_no_terminal(repo: Repo) -> None:
    for number in range(6):
        repo.commit(
            f"Ledger ``` <script>alert(1)</script> \x1b[31m\u202e [link](http://x) {number}",
            **{f"ledger_0_`{number}<b>__py": f"def ledger_{number}():\n    pass\n"},
        )
    told = briefed(repo)
    for text in (told.text(), told.markdown()):
        assert "\x1b" not in text
        assert "\u202e" not in text
    outside = "".join(told.markdown().split("``")[::2])
    assert "<script>" not in outside
    assert "link" not in outside
    assert "<b>" not in outside


def test_the_command_tells_text_markdown_and_json(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(two_works(repo).path)
    assert CliRunner().invoke(main, ["index"]).exit_code == 0
    text = CliRunner().invoke(main, ["brief"])
    assert "Recent patterns show:" in text.stdout
    assert "8 commits" in text.stdout
    assert "What architectural changes would best support this evolution?" in text.stdout
    assert "## Recent patterns show" in CliRunner().invoke(main, ["brief", "--format", "markdown"]).stdout
    value = json.loads(CliRunner().invoke(main, ["brief", "--json", "--limit", "1"]).stdout)
    assert [len(value[name]) for name in ("themes", "hot_spots")] == [1, 1]
    assert value["unthemed"] == 8
    wrong = CliRunner().invoke(main, ["brief", "--since", "never"])
    assert (wrong.exit_code, wrong.stdout) == (2, "")


def test_themes_that_the_same_word_tells_have_names_of_their_own(repo: Repo) -> None:
    for number in range(24):
        part = ("north", "south", "east")[number % 3]
        repo.commit(
            f"Move the harbour {part} quay {number}", **{f"harbour_0_{part}__py": f"def quay():\n    return {number}\n"}
        )
    names = [theme.name for theme in briefed(repo).themes]
    assert names
    assert len(names) == len(set(names))


def test_the_same_history_has_the_same_brief(make_repo: Callable[..., Repo], tmp_path: Path) -> None:
    first = two_works(make_repo("one"))
    second = first.copied(tmp_path / "copy" / "one")
    assert briefed(first) == briefed(second)
