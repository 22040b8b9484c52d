"""What is staged is read as a commit would be, and nothing of the repository runs."""

from pathlib import Path

import pytest

from repositories import Repo
from treering.errors import RepositoryError, UsageError
from treering.git.patches import Caps
from treering.git.reader import locate
from treering.git.staged import staged
from treering.types import FileChange

CAPS = Caps(4096, 32768)


def read(repo: Repo) -> tuple[FileChange, ...]:
    return staged(locate(repo.path), CAPS, seconds=60).changes


def test_what_is_staged_is_told_and_what_is_not_is_not(repo: Repo) -> None:
    repo.commit("start", a__py="x = 1\n", b__py="y = 1\n")
    repo.write("a.py", "x = 2\n")
    repo.git("add", "a.py")
    repo.write("a.py", "x = 3\n")
    repo.write("b.py", "y = 2\n")
    diff = staged(locate(repo.path), CAPS, seconds=60)
    assert diff.changes == (FileChange("M", "a.py", None, 1, 1),)
    assert "+x = 2" in diff.patches[0].text
    assert "x = 3" not in diff.patches[0].text


def test_a_rename_a_deletion_and_a_new_file_are_told(repo: Repo) -> None:
    repo.commit("start", a__py="x = 1\n" * 20, b__py="y = 1\n")
    repo.git("mv", "a.py", "c.py")
    repo.git("rm", "--quiet", "b.py")
    repo.write("d.py", "z = 1\n")
    repo.git("add", "d.py")
    assert [(one.status, one.path) for one in read(repo)] == [("D", "b.py"), ("R", "c.py"), ("A", "d.py")]


def test_the_first_commit_can_be_staged_too(repo: Repo) -> None:
    repo.write("a.py", "x = 1\n")
    repo.git("add", "a.py")
    assert read(repo) == (FileChange("A", "a.py", None, 1, 0),)


def test_a_linked_worktree_has_its_own(repo: Repo, tmp_path: Path) -> None:
    repo.commit("start", a__py="x = 1\n")
    repo.git("worktree", "add", "--quiet", str(tmp_path / "other"), "-b", "other")
    other = Repo(tmp_path / "other")
    other.write("b.py", "y = 1\n")
    other.git("add", "b.py")
    assert [one.path for one in read(other)] == ["b.py"]
    with pytest.raises(UsageError, match="nothing is staged"):
        read(repo)


def test_a_split_index_is_read_whole(repo: Repo) -> None:
    repo.commit("start", a__py="x = 1\n", b__py="y = 1\n")
    repo.git("update-index", "--split-index")
    repo.write("b.py", "y = 2\n")
    repo.git("add", "b.py")
    assert [one.path for one in read(repo)] == ["b.py"]


def test_nothing_staged_is_said(repo: Repo) -> None:
    with pytest.raises(UsageError, match="nothing is staged") as caught:
        read(repo)
    assert "git add" in caught.value.hint
    repo.commit("start", a__py="x = 1\n")
    repo.write("a.py", "x = 2\n")
    with pytest.raises(UsageError, match="nothing is staged"):
        read(repo)


def test_a_conflict_is_named(repo: Repo) -> None:
    repo.commit("start", a__py="x = 1\n")
    repo.git("switch", "--quiet", "-c", "other")
    repo.commit("one", a__py="x = 2\n")
    repo.git("switch", "--quiet", "main")
    repo.commit("two", a__py="x = 3\n")
    repo.git("merge", "--quiet", "other", check=False)
    with pytest.raises(UsageError, match="holds conflicts"):
        read(repo)


def test_an_index_that_is_torn_is_named(repo: Repo) -> None:
    repo.commit("start", a__py="x = 1\n")
    index = repo.path / ".git" / "index"
    index.write_bytes(b"no index at all" * 10)
    with pytest.raises(RepositoryError, match=r"the index of .* cannot be read"):
        read(repo)


def test_a_bare_repository_stages_nothing(repo: Repo, tmp_path: Path) -> None:
    repo.commit("start", a__py="x = 1\n")
    repo.git("clone", "--quiet", "--bare", ".", str(tmp_path / "bare"))
    with pytest.raises(RepositoryError, match="has no work tree"):
        staged(locate(tmp_path / "bare"), CAPS, seconds=60)


def test_nothing_of_the_repository_runs_or_is_written(repo: Repo, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    repo.commit("start", a__py="x = 1\n", **{"_0_gitattributes".replace("_0_", "."): "*.py diff=evil filter=evil\n"})
    for name in ("diff.evil.command", "diff.evil.textconv", "diff.external", "filter.evil.smudge", "core.fsmonitor"):
        repo.git("config", name, f"touch {ran}; cat")
    hook = repo.path / ".git" / "hooks" / "post-index-change"
    hook.write_text(f"#!/bin/sh\ntouch {ran}\n")
    hook.chmod(0o755)
    blob = repo.git("hash-object", "-w", "--stdin", stdin=b"x = 2\n")
    index = repo.path / ".git" / "index"
    repo.git(
        "-c",
        "core.fsmonitor=false",
        "-c",
        "core.hooksPath=/dev/null",
        "update-index",
        "--cacheinfo",
        f"100644,{blob},a.py",
    )
    ran.unlink(missing_ok=True)
    before = index.read_bytes(), sorted((repo.path / ".git" / "objects").rglob("*"))
    assert [one.path for one in read(repo)] == ["a.py"]
    assert not ran.exists()
    assert before == (index.read_bytes(), sorted((repo.path / ".git" / "objects").rglob("*")))
