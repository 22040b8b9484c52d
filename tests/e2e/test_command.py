"""The ``treering`` command as a user meets it: what it prints, its exit codes, what bad input does."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from repositories import Repo
from treering.cli.main import main
from warm import Warm

COMMANDS = ("run", "scrape", "index", "search", "tokenize", "train", "generate", "status")


def treering(
    *arguments: str, code: int = 0, cwd: Path | None = None, **environment: str
) -> "subprocess.CompletedProcess[str]":
    done = subprocess.run(
        [sys.executable, "-m", "treering", *arguments],
        cwd=cwd, env=os.environ | environment, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == code, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def parsed(*arguments: str, cwd: Path | None = None) -> Any:
    return json.loads(treering(*arguments, "--json", cwd=cwd).stdout)


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory, told_story: Repo) -> Path:
    """A repository that was indexed by the command."""
    repo = told_story.copied(tmp_path_factory.mktemp("user") / "project")
    treering("index", "--repo", str(repo.path))
    return repo.path


def test_a_search_finds_the_commit_whose_message_says_nothing(indexed: Path) -> None:
    hits = parsed("search", "oracle rule", cwd=indexed)
    said_nothing = {hit["subject"] for hit in hits} & {"cli local changes"}
    assert list(hits[0]) == [
        "commit_hash", "score", "subject", "author", "date", "branch", "files", "why", "merged_by", "hunk_path", "hunk"
    ]  # fmt: skip
    assert "oracle" in json.dumps(hits[0])
    hits = parsed("search", "dispute rule 0", cwd=indexed)
    assert said_nothing | {hits[0]["subject"]} == {"cli local changes"}
    assert hits[0]["files"] == ["src/dispute.py"]
    assert "identifiers: dispute" in hits[0]["why"]
    assert hits[0]["hunk_path"] == "src/dispute.py"
    assert "+def dispute_rule_0(value):" in hits[0]["hunk"]
    assert hits[0]["merged_by"] is None


def test_a_search_prints_the_best_first_and_why(indexed: Path) -> None:
    printed = treering("search", "bridge gateway", cwd=indexed).stdout.splitlines()
    assert "Bridge receipts over the gateway" in printed[0] + printed[3]
    assert "message: " in printed[2]


@pytest.mark.parametrize(
    "query", ['"', "NEAR(", "a AND", "*", "message:x", "'; DROP TABLE commits; --", "-", "ü" * 5000]
)
def test_whatever_is_asked_is_text_and_never_an_error(indexed: Path, query: str) -> None:
    assert CliRunner().invoke(main, ["search", "--repo", str(indexed), "--", query]).exit_code == 0


def test_a_search_never_imports_torch(indexed: Path) -> None:
    code = (
        "import sys; from treering.cli.main import main; main(['search', 'market', '--json'], standalone_mode=False);"
        "heavy = {'torch', 'transformers', 'lightning', 'matplotlib', 'huggingface_hub', 'rich'};"
        "sys.exit(bool(heavy & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], cwd=indexed, check=True, stdout=subprocess.DEVNULL)


def test_help_imports_nothing_but_click() -> None:
    code = (
        "import sys; from treering.cli.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "sys.exit(bool({'numpy', 'msgspec', 'onnxruntime', 'torch', 'tokenizers'} & set(sys.modules)))"
    )
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    for command in COMMANDS:
        assert f"\n  {command} " in printed


def test_the_store_is_all_that_is_written_into_the_work_tree(indexed: Path) -> None:
    assert not Repo(indexed).git("status", "--porcelain")
    assert (indexed / ".treering" / ".gitignore").read_text() == "*\n"


def test_a_second_index_makes_nothing(indexed: Path) -> None:
    assert {**parsed("index", cwd=indexed), "seconds": 0} == {"commits": 0, "vectors": 0, "seconds": 0}


def test_status_tells_that_the_repository_has_moved_on(story: Repo) -> None:
    treering("index", cwd=story.path)
    assert parsed("status", cwd=story.path)["behind"] is False
    story.commit("One more", a__txt="more\n")
    status = parsed("status", cwd=story.path)
    assert status["behind"] is True
    assert "behind the repository" in treering("status", cwd=story.path).stdout


def test_run_makes_a_report_and_a_second_run_makes_nothing_new(story: Repo) -> None:
    arguments = ("run", "--repo", str(story.path), "--model", "scratch", "--minutes", "0.05", "--json")
    summary = json.loads(treering(*arguments).stdout)
    assert summary["history"]["commits"] == 23
    assert summary["history"]["merges"] == 1
    assert set(summary["holdout"]["bits_per_byte"]) == {"base", "tuned", "ngram"}
    assert summary["search"][0]["hits"]
    assert summary == json.loads((story.path / ".treering/reports/latest.json").read_text())
    page = (story.path / ".treering/reports/latest.html").read_text()
    assert summary["holdout"]["verdict"].split(":")[0] in page
    assert "<svg" in page
    again = treering(*arguments)
    assert "0 new" in again.stderr
    assert "nothing new to learn" in again.stderr
    assert json.loads(again.stdout)["holdout"] == summary["holdout"]


def test_run_without_minutes_trains_nothing_and_says_so(story: Repo) -> None:
    treering("run", "--minutes", "0", cwd=story.path)
    assert "No model was trained" in (story.path / ".treering/reports/latest.html").read_text()
    assert "no trained model" in treering("generate", "x", cwd=story.path, code=6).stderr


def test_markup_in_a_message_stays_text_in_the_report(story: Repo) -> None:
    story.commit("<script>alert(1)</script>", evil__py="def evil_function(first_name, second_name, third_name): pass\n")
    treering("run", "--minutes", "0", cwd=story.path)
    page = (story.path / ".treering/reports/latest.html").read_text()
    assert "&lt;script&gt;" in page
    assert "<script" not in page


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("search", "x", "--repo", "nowhere"), 3, "no folder nowhere"),
        (("scrape",), 3, "is not a Git repository"),
        (("train", "--minutes", "soon"), 2, "soon"),
        (("frobnicate",), 2, "frobnicate"),
        (("search",), 2, "the query is missing"),
        (("files",), 2, "the task is missing"),
        (("scrape", "--frob"), 2, "--frob"),
    ],
)
def test_bad_arguments_are_named(tmp_path: Path, arguments: tuple[str, ...], code: int, said: str) -> None:
    done = treering(*arguments, cwd=tmp_path, code=code)
    assert said in done.stderr
    assert not done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("search", "  "), 2, "the query is empty"),
        (("search", "x", "--limit", "0"), 2, "`limit` in [search]"),
        (("tokenize", "--strategy", "clever"), 2, "`strategy` in [tokens] is 'clever'"),
        (("train", "--model", "no/such-model"), 6, "`no/such-model` is not on this machine"),
        (("train", "--minutes", "0"), 2, "trains nothing"),
        (("search", "x", "--store", "elsewhere"), 4, "there is no index in elsewhere"),
    ],
)
def test_bad_settings_are_named_and_leave_everything_as_it_was(
    indexed: Path, arguments: tuple[str, ...], code: int, said: str
) -> None:
    before = sorted((path, path.stat().st_mtime_ns) for path in (indexed / ".treering").rglob("*.json"))
    done = treering(*arguments, cwd=indexed, code=code, HF_HUB_OFFLINE="1")
    assert said in done.stderr
    assert "hint: " in done.stderr or code == 2
    assert sorted((path, path.stat().st_mtime_ns) for path in (indexed / ".treering").rglob("*.json")) == before


def test_an_unknown_key_of_the_settings_file_is_named(story: Repo) -> None:
    story.write("treering.toml", "[train]\nmodl = 'x'\n")
    done = treering("scrape", cwd=story.path, code=2)
    assert "treering.toml: unknown `modl` in [train]" in done.stderr
    assert "did you mean `model`?" in done.stderr


def test_a_repository_without_commits_is_an_error_and_leaves_no_file(tmp_path: Path) -> None:
    repo = Repo(tmp_path / "empty")
    assert "has no commits yet" in treering("scrape", cwd=repo.path, code=3).stderr


def test_a_machine_without_git_is_told_so(tmp_path: Path) -> None:
    assert "`git` is not on the PATH" in treering("scrape", cwd=tmp_path, code=3, PATH=str(tmp_path)).stderr


def test_missing_objects_warn_and_strict_says_so_with_its_code(story: Repo) -> None:
    blob = story.git("rev-parse", "HEAD~3:README.md")
    (story.path / ".git" / "objects" / blob[:2] / blob[2:]).unlink()
    done = treering("scrape", cwd=story.path)
    assert "1 of 23 commits have a partial diff" in done.stderr
    assert treering("scrape", "--strict", cwd=story.path, code=7).stdout


def test_a_disk_that_is_full_is_said_and_nothing_is_lost(indexed: Path) -> None:
    done = subprocess.run(
        ["bash", "-c", f"ulimit -f 1; exec {sys.executable} -m treering scrape --store {indexed}/full"],
        cwd=indexed, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert treering("search", "market", cwd=indexed).stdout


def test_an_interrupt_ends_with_130_and_keeps_what_was_done(story: Repo) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "treering", "run", "--model", "scratch", "--minutes", "5"],
        cwd=story.path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("training on"):
            break
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "interrupted" in said
    assert parsed("status", cwd=story.path)["indexed"] == 23
    assert parsed("status", cwd=story.path)["model"] is None


def test_an_interrupt_within_an_import_ends_with_130_too(tmp_path: Path) -> None:
    (tmp_path / "interrupted.py").write_text(
        "import threading, time\n"
        "from treering.cli.options import guarded\n"
        "threading.Thread(target=time.sleep, args=(9,), daemon=True).start()\n"  # as torch has some
        "code = 'import os, signal, time; os.kill(os.getpid(), signal.SIGINT); time.sleep(9)'\n"
        "guarded(lambda: exec(code))()\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "interrupted"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, "interrupted" in done.stderr) == (130, True)


def test_an_interrupt_within_a_destructor_ends_with_130_too(tmp_path: Path) -> None:
    (tmp_path / "interrupted.py").write_text(
        "import os, signal, time\n"
        "from treering.cli.options import guarded\n"
        "class Gone:\n"
        "    def __del__(self):\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "        time.sleep(1)\n"
        "def command():\n"
        "    Gone()\n"
        "    time.sleep(20)\n"
        "guarded(command)()\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "interrupted"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr.startswith("interrupted: ")) == (130, True), done.stderr


def test_a_reader_that_goes_away_is_no_error_of_ours(indexed: Path) -> None:
    command = f"{sys.executable} -m treering search market --json | head -c 1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], cwd=indexed, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_training_that_is_interrupted_says_so(story: Repo, warm: Warm, sent: signal.Signals) -> None:
    training = ("-m", "treering", "train", "--model", "scratch")
    with warm.started([*training, "--minutes", "3", "--epochs", "1000"], story.path) as process:
        process.wait_until_it_says("Epoch")
        process.send_signal(sent)
        assert process.wait() == 130, process.stderr
        assert "interrupted" in process.stderr
    models = story.path / ".treering" / "models"
    assert not list(models.rglob("training_report.json"))
    if sent == signal.SIGINT:  # what was done is kept, and the next run goes on from it
        assert list(models.glob("*/.*.checkpoints/step-*/weights.safetensors"))
        other = warm.run([*training, "--max-steps", "1"], story.path)
        assert other.returncode == 0, other.stderr
        assert "was not finished: this one begins anew" in other.stderr


def test_a_message_and_suggestions_are_printed_with_who_answered_on_stderr(indexed: Path) -> None:
    (indexed / "src" / "oracle.py").write_text("def oracle_rule_99(value):\n    return value\n")
    subprocess.run(["git", "-C", str(indexed), "add", "src/oracle.py"], check=True)
    done = treering("message", "--begin", "Add the or", cwd=indexed)
    assert done.stdout.startswith("Add the oracle")
    assert "by the history: there is no model" in done.stderr
    told = parsed("message", cwd=indexed)
    assert list(told) == ["message", "answered_by", "why", "next", "files", "near"]
    assert told["files"] == ["src/oracle.py"]
    subprocess.run(["git", "-C", str(indexed), "reset", "--quiet", "--hard"], check=True)
    refused = treering("message", code=2, cwd=indexed)
    assert refused.stderr.startswith("error: nothing is staged\nhint: ")
    assert "Files that come next, by the history" in treering("suggest", cwd=indexed).stdout
    assert list(parsed("suggest", cwd=indexed)) == ["themes", "open", "files", "answered_by", "why"]
    assert "no trained model" in treering("evaluate", code=6, cwd=indexed).stderr
    assert "there is no task x" in treering("evaluate", "--tasks", "x", code=2, cwd=indexed).stderr
