"""Hooks of a real git: what is asked for, what was there before goes on, and removal leaves no trace."""

import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from repositories import Repo
from treering import hooking, opening
from treering.cli.main import main
from treering.errors import RepositoryError, UsageError
from treering.hooking import Hooks
from treering.operate.hooks import KEPT, NAMES

CASES = Path(__file__).parents[1] / "cases" / "hooks"


def install(repo: Repo) -> Hooks:
    return hooking.install(opening.place(repo.path))


def remove(repo: Repo) -> Hooks:
    return hooking.remove(opening.place(repo.path))


def states(found: Hooks) -> set[str]:
    return {hook.state for hook in found.hooks}


def asked(repo: Repo) -> bool:
    """Whether something was asked for since the last time."""
    file = repo.path / ".treering" / "queue" / "asked"
    there = file.exists()
    file.unlink(missing_ok=True)
    return there


def write(path: Path, content: str | bytes, mode: int = 0o755) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    path.chmod(mode)
    return path


def seen(folder: Path) -> dict[str, object]:
    """All that can be told of what is in a folder."""
    return {
        str(path.relative_to(folder)): (
            path.readlink() if path.is_symlink() else path.is_dir() or path.read_bytes(), path.lstat().st_mode
        )
        for path in folder.rglob("*")
    }  # fmt: skip


def treering(repo: Repo, *arguments: str, code: int = 0) -> Result:
    done = CliRunner().invoke(main, [*arguments, "--repo", str(repo.path)])
    assert done.exit_code == code, f"{done.output}\n{done.exception!r}"
    return done


# What asks -------------------------------------------------------------------------------------------------------


def test_what_moves_a_branch_asks(repo: Repo) -> None:
    first = repo.commit("Begin", a__py="x = 1\n")
    assert states(install(repo)) == {"installed"}
    for steps in (
        [["commit", "--quiet", "--allow-empty", "-m", "two"]],
        [["commit", "--quiet", "--amend", "--allow-empty", "-m", "three"]],
        [["switch", "--quiet", "-c", "other"]],
        [["commit", "--quiet", "--allow-empty", "-m", "four"]],
        [["switch", "--quiet", "main"], ["merge", "--quiet", "other"]],
        [["cherry-pick", "--allow-empty", "--keep-redundant-commits", "other~1"]],
        [["rebase", "--quiet", "--force-rebase", first]],
    ):
        for step in steps:
            repo.git(*step)
        assert asked(repo), steps


def test_a_push_to_a_bare_repository_asks(make_repo: Callable[..., Repo]) -> None:
    bare, work = make_repo("bare.git", "--bare"), make_repo("work")
    work.commit("Begin", a__py="x = 1\n")
    where = opening.place(bare.path)
    assert states(hooking.install(where)) == {"installed"}
    work.git("push", "--quiet", str(bare.path), "main")
    assert (where.folder / "queue" / "asked").exists()
    assert hooking.status(where).waits


def test_commits_of_a_linked_work_tree_ask_in_its_own_store_and_in_that_of_the_first(repo: Repo) -> None:
    repo.commit("Begin", a__py="x = 1\n")
    repo.git("worktree", "add", "--quiet", "../linked", "-b", "other")
    linked = Repo(repo.path.parent / "linked")
    install(repo)
    install(linked)
    asked(repo)
    linked.commit("Go on", b__py="y = 1\n")
    assert asked(repo)
    assert asked(linked)
    remove(linked)
    linked.commit("Go on", b__py="y = 2\n")
    assert asked(repo)
    assert not asked(linked)


def test_a_submodule_asks(make_repo: Callable[..., Repo]) -> None:
    inner, outer = make_repo("inner"), make_repo("outer")
    inner.commit("Begin", a__py="x = 1\n")
    outer.git("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(inner.path), "sub")
    sub = Repo(outer.path / "sub")
    assert states(install(sub)) == {"installed"}
    sub.commit("Go on", a__py="x = 2\n")
    assert asked(sub)


def test_a_repository_that_was_moved_asks_where_it_is_now(repo: Repo) -> None:
    repo.commit("Begin", a__py="x = 1\n")
    install(repo)
    moved = repo.copied(repo.path.parent / "it's $HOME now")
    shutil.rmtree(repo.path)
    moved.commit("Go on", a__py="x = 2\n")
    assert asked(moved)
    assert not repo.path.exists()


def test_a_store_of_strange_name_is_asked_in(repo: Repo, tmp_path: Path) -> None:
    repo.commit("Begin", a__py="x = 1\n")
    store = tmp_path / 'it\'s $(touch bad) "here" ° \udce9'
    where = opening.place(repo.path, store)
    assert states(hooking.install(where)) == {"installed"}
    repo.commit("Go on", a__py="x = 2\n")
    assert (store / "queue" / "asked").exists()
    assert not (repo.path / "bad").exists()
    shutil.rmtree(store)
    assert all(hook.stale == (str(store / "queue" / "asked"),) for hook in hooking.status(where).hooks)
    with pytest.raises(UsageError, match="no hook can name"):
        hooking.install(opening.place(repo.path, tmp_path / "two\nlines"))


# What holds nothing up -------------------------------------------------------------------------------------------


def test_a_store_that_is_gone_or_cannot_be_written_holds_up_no_commit(repo: Repo) -> None:
    repo.commit("Begin", a__py="x = 1\n")
    install(repo)
    queue = repo.path / ".treering" / "queue"
    environment = os.environ | {"GIT_AUTHOR_NAME": "A", "GIT_AUTHOR_EMAIL": "a@example.com"}
    environment |= {"GIT_COMMITTER_NAME": "A", "GIT_COMMITTER_EMAIL": "a@example.com"}

    def commits() -> None:
        commit = ["git", "-C", str(repo.path), "commit", "--quiet", "--allow-empty", "-m", "two"]
        done = subprocess.run(commit, capture_output=True, check=True, env=environment)
        assert done.stderr == b""

    (queue / "asked").unlink(missing_ok=True)
    (queue / "asked").mkdir()
    commits()
    shutil.rmtree(queue)
    queue.write_bytes(b"")
    commits()
    shutil.rmtree(repo.path / ".treering")
    commits()
    assert not (repo.path / ".treering").exists()


def test_a_link_in_the_place_of_the_queues_file_is_not_followed(repo: Repo, tmp_path: Path) -> None:
    repo.commit("Begin", a__py="x = 1\n")
    install(repo)
    victim = write(tmp_path / "victim", "precious")
    for target in (victim, tmp_path / "not there"):
        file = repo.path / ".treering" / "queue" / "asked"
        file.unlink(missing_ok=True)
        file.symlink_to(target)
        repo.commit("Go on")
    assert victim.read_text() == "precious"
    assert not (tmp_path / "not there").exists()


@pytest.mark.parametrize(
    "shell", [one for one in ("dash", "bash", "busybox", "zsh", "ksh", "mksh") if shutil.which(one)]
)
def test_the_line_is_plain_shell(repo: Repo, shell: str) -> None:
    repo.commit("Begin", a__py="x = 1\n")
    install(repo)
    script = (repo.path / ".git" / "hooks" / "post-commit").read_text()
    strict = write(repo.path / ".git" / "hooks" / "strict", script.replace("#!/bin/sh\n", "set -eu\n") + "echo over\n")
    for _ in range(2):  # the second time the file is there already
        command = [shell, *(["sh"] if shell == "busybox" else []), str(strict)]
        done = subprocess.run(command, capture_output=True, check=True, cwd=repo.path)
        assert (done.stdout, done.stderr) == (b"over\n", b"")
    assert asked(repo)


# What was there before -------------------------------------------------------------------------------------------

TELLS = 'echo "$0|$*|$(cat)" >>"$(git rev-parse --git-dir)/told"\nexit 3\n'
BINARY = shutil.which("false") or "/bin/false"


def there_before(repo: Repo) -> dict[str, Path]:
    hooks = repo.path / ".git" / "hooks"
    shared = write(repo.path / "tools" / "any", f"#!/bin/sh\n{TELLS}")
    (hooks / "post-rewrite").symlink_to("../../tools/any")
    python = 'import sys\nopen(sys.argv[0] + ".told", "a").write("|".join(sys.argv[1:]))\nsys.exit(4)\n'
    return {
        "post-commit": write(hooks / "post-commit", f"#!/bin/bash -eu\r\n# kept as it is \udce9\n{TELLS}".encode(
            "utf-8", "surrogateescape").replace(b"\r", b""), 0o750),
        "post-merge": write(hooks / "post-merge", "#!/bin/sh", 0o755),
        "post-rewrite": shared,
        "post-checkout": write(hooks / "post-checkout", f"#!{sys.executable}\n{python}"),
        "post-receive": write(hooks / "post-receive", f"#!/bin/sh\n{TELLS}", 0o644),
    }  # fmt: skip


def test_hooks_that_were_there_go_on_as_before_and_come_back_byte_for_byte(repo: Repo) -> None:
    repo.commit("Begin", a__py="x = 1\n")
    hooks = repo.path / ".git" / "hooks"
    there_before(repo)
    before = seen(hooks)
    found = install(repo)
    assert states(found) == {"installed"}
    assert {hook.beside for hook in found.hooks} == {"another hook"}
    once = seen(hooks)
    assert states(install(repo)) == {"installed"}
    assert seen(hooks) == once

    def ran(name: str, *arguments: str) -> int:
        return subprocess.run([f".git/hooks/{name}", *arguments], cwd=repo.path, input=b"in", check=False).returncode

    for name, code in (
        ("post-commit", 3),
        ("post-merge", 0),
        ("post-rewrite", 3),
        ("post-checkout", 4),
        ("post-receive", 0),
    ):
        assert ran(name, "one", "t w o") == code, name
        assert asked(repo), name
    told = (repo.path / ".git" / "told").read_text().splitlines()
    assert told == [".git/hooks/post-commit|one t w o|in", f".git/hooks/{KEPT}/post-rewrite|one t w o|in"]
    assert (hooks / KEPT / "post-checkout.told").read_text() == "one|t w o"
    (hooks / KEPT / "post-checkout.told").unlink()
    remove(repo)
    assert seen(hooks) == before
    assert states(hooking.status(opening.place(repo.path))) == {"missing"}


def test_a_hook_that_fails_fails_as_before_and_still_asks(repo: Repo) -> None:
    repo.commit("Begin", a__py="x = 1\n")
    write(repo.path / ".git" / "hooks" / "post-checkout", "#!/bin/sh\necho no >&2\nexit 7\n")

    def switch(name: str) -> tuple[int, bytes]:
        done = subprocess.run(
            ["git", "-C", str(repo.path), "switch", "-q", "-c", name], capture_output=True, check=False
        )
        return done.returncode, done.stderr

    before = switch("one")
    install(repo)
    assert switch("two") == before == (1, b"no\n")
    assert asked(repo)


def test_a_binary_is_called(repo: Repo) -> None:
    repo.commit("Begin", a__py="x = 1\n")
    hooks = repo.path / ".git" / "hooks"
    shutil.copy2(BINARY, hooks / "post-commit")
    before = seen(hooks)
    install(repo)
    assert subprocess.run([".git/hooks/post-commit"], cwd=repo.path, check=False).returncode == 1
    remove(repo)
    assert seen(hooks) == before


def test_lines_that_were_added_to_our_file_stay(repo: Repo) -> None:
    repo.commit("Begin", a__py="x = 1\n")
    install(repo)
    hook = repo.path / ".git" / "hooks" / "post-commit"
    hook.write_text(hook.read_text() + "echo mine\n")
    remove(repo)
    assert hook.read_text() == "#!/bin/sh\necho mine\n"
    assert not (hook.parent / "post-merge").exists()


def test_a_hook_that_two_made_is_not_taken_apart(repo: Repo) -> None:
    repo.commit("Begin", a__py="x = 1\n")
    hook = write(repo.path / ".git" / "hooks" / "post-commit", f"#!{sys.executable}\n")
    install(repo)
    hook.write_text(hook.read_text() + "echo mine\n")
    repo.git("branch", "treering/gate-0123456789ab")
    with pytest.raises(RepositoryError, match="was changed since it calls"):
        remove(repo)
    assert not (hook.parent / "post-merge").exists()
    done = treering(repo, "uninstall", "--yes")
    assert not (repo.path / ".treering").exists()
    assert "left the hooks post-commit of" in done.stderr
    assert "left the branch treering/gate-0123456789ab" in done.stderr
    assert hook.read_text().endswith("echo mine\n")


def test_a_hook_that_is_kept_is_not_written_over(repo: Repo) -> None:
    repo.commit("Begin", a__py="x = 1\n")
    hook = write(repo.path / ".git" / "hooks" / "post-commit", f"#!{sys.executable}\n")
    install(repo)
    write(hook, f"#!{sys.executable}\nprint()\n")
    with pytest.raises(RepositoryError, match=rf"post-commit is another hook .*/{KEPT}/post-commit"):
        install(repo)
    assert (hook.parent / KEPT / "post-commit").read_text() == f"#!{sys.executable}\n"


def test_a_store_of_nothing_but_hooks_is_taken_away(repo: Repo, tmp_path: Path) -> None:
    repo.commit("Begin", a__py="x = 1\n")
    treering(repo, "hooks", "install", "--store", str(tmp_path / "store"))
    treering(repo, "uninstall", "--yes", "--store", str(tmp_path / "store"))
    assert not (tmp_path / "store").exists()
    assert not (repo.path / ".git" / "hooks" / "post-commit").exists()


# Tools that own hooks --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tool", ["pre-commit", "git-lfs"])
def test_a_hook_of_a_tool_keeps_its_mark_and_asks(repo: Repo, tool: str, monkeypatch: pytest.MonkeyPatch) -> None:
    repo.commit("Begin", a__py="x = 1\n")
    theirs = (CASES / tool).read_bytes()
    hook = write(repo.path / ".git" / "hooks" / "post-commit", theirs)
    found = install(repo)
    assert [one.beside for one in found.hooks] == [tool, "", "", "", ""]
    bare = {"PATH": "/usr/bin:/bin", "LC_ALL": "C"}
    done = subprocess.run([hook], cwd=repo.path, capture_output=True, check=False, env=bare)
    assert done.returncode in (1, 2)  # the tool is not here: it fails as it would without us
    assert b"not found" in done.stderr
    assert asked(repo)
    remove(repo)
    assert hook.read_bytes() == theirs


def test_hooks_of_lefthook_are_left_to_its_configuration(repo: Repo) -> None:
    repo.commit("Begin", a__py="x = 1\n")
    theirs = (CASES / "lefthook").read_bytes()
    hook = write(repo.path / ".git" / "hooks" / "post-commit", theirs)
    done = treering(repo, "hooks", "install", code=7)
    assert "post-commit: not ours to change (lefthook)" in done.stderr
    assert hook.read_bytes() == theirs
    found = hooking.status(opening.place(repo.path)).hooks
    assert [one.state for one in found] == ["by hand", *["installed"] * 4]
    told, _, job = found[0].add.partition("\n")
    assert told == "to lefthook-local.yml:"
    repo.write("lefthook-local.yml", job + "\n")
    assert treering(repo, "hooks", "install").stdout.splitlines()[1].split()[1] == "installed"
    assert subprocess.run(["sh", "-c", job.splitlines()[-1].strip()], cwd=repo.path, check=False).returncode == 0
    assert asked(repo)
    remove(repo)
    assert hook.read_bytes() == theirs


def test_hooks_of_husky_are_left_to_its_files(repo: Repo) -> None:
    repo.commit("Begin", a__py="x = 1\n")
    generated = repo.path / ".husky" / "_"
    write(generated / ".gitignore", "*", 0o644)
    write(generated / "h", (CASES / "husky" / "h").read_bytes(), 0o644)
    for name in ("pre-commit", "post-commit", "post-merge", "post-rewrite", "post-checkout"):
        write(generated / name, (CASES / "husky" / "post-commit").read_bytes())
    repo.git("config", "core.hooksPath", ".husky/_")
    before = seen(generated)
    done = treering(repo, "hooks", "install", code=7)
    assert "to .husky/post-commit the line: " in done.stderr
    assert seen(generated) == before
    for hook in hooking.status(opening.place(repo.path)).hooks:
        assert hook.state == "by hand"
        repo.write(f".husky/{hook.name}", hook.add.partition("the line: ")[2] + "\n")
    repo.git("commit", "--quiet", "--allow-empty", "-m", "two")
    assert asked(repo)
    assert states(install(repo)) == {"installed"}


def test_hooks_that_the_repository_tracks_are_not_changed(repo: Repo) -> None:
    write(repo.path / "dev" / "hooks" / "pre-commit", "#!/bin/sh\n")
    repo.commit("Begin", a__py="x = 1\n")
    repo.git("config", "core.hooksPath", "dev/hooks")
    done = treering(repo, "hooks", "install", code=7)
    assert f"to {repo.path / 'dev' / 'hooks' / 'post-commit'}, a script of sh, the line: (set -C;" in done.stderr
    assert repo.git("status", "--porcelain") == ""


def test_a_folder_of_hooks_for_all_repositories_serves_each(make_repo: Callable[..., Repo], tmp_path: Path) -> None:
    home = Path(os.environ["HOME"])
    write(home / ".gitconfig", "[core]\n\thooksPath = ~/my hooks\n", 0o644)
    one, two = make_repo("one"), make_repo("two")
    assert install(one).shared
    install(two)
    one.commit("Begin", a__py="x = 1\n")
    assert asked(one)
    assert asked(two)  # it looks, and finds nothing new
    assert states(remove(one)) == {"missing"}
    two.commit("Begin", a__py="x = 1\n")
    assert not asked(one)
    assert asked(two)
    remove(two)
    assert list((home / "my hooks").iterdir()) == []


def test_what_leads_nowhere_is_told_and_goes_with_the_rest(make_repo: Callable[..., Repo]) -> None:
    write(Path(os.environ["HOME"]) / ".gitconfig", "[core]\n\thooksPath = ~/hooks\n", 0o644)
    gone, repo = make_repo("gone"), make_repo("here")
    install(gone)
    install(repo)
    shutil.rmtree(gone.path)
    told = treering(repo, "hooks", "status").stdout
    assert f"post-commit   installed  ; asks in {gone.path}/.treering/queue/asked, which is not there" in told
    treering(repo, "hooks", "remove")
    assert list((Path(os.environ["HOME"]) / "hooks").iterdir()) == []


def test_switched_off_hooks_are_told(repo: Repo) -> None:
    repo.git("config", "core.hooksPath", os.devnull)
    assert "hooks are switched off: core.hooksPath is /dev/null" in treering(repo, "hooks", "install", code=3).stderr


def test_a_folder_that_may_not_be_written_is_an_error_with_the_way_out(
    repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(repo)
    remove(repo)
    hooks, may = repo.path / ".git" / "hooks", os.access
    hooks.chmod(0o555)
    # Root may write everywhere; it is told what anybody else would be.
    monkeypatch.setattr(os, "access", lambda path, mode, **_: not mode & os.W_OK and may(path, mode))
    done = treering(repo, "hooks", "install", code=3)
    hooks.chmod(0o755)
    assert done.stderr == (
        f"error: no permission to write {hooks}\n"
        "hint: run as the user who owns it; or do without hooks: `treering watch` sees commits by itself\n"
    )
    assert not {*NAMES} & {path.name for path in hooks.iterdir()}


def test_a_line_that_was_broken_by_hand_breaks_nothing(repo: Repo) -> None:
    install(repo)
    hook = repo.path / ".git" / "hooks" / "post-commit"
    hook.write_text(hook.read_text().replace(">", ">'", 1).replace(': >"', ": >'\"", 1))
    told = json.loads(treering(repo, "hooks", "status", "--json").stdout)
    assert [one["state"] for one in told["hooks"]] == ["missing", *["installed"] * 4]
    assert set(told) == {"folder", "shared", "hooks", "waits", "watcher"}


def test_status_says_what_there_is_and_who_works_it_off(repo: Repo) -> None:
    assert treering(repo, "hooks", "status").stdout == (
        f"hooks in {repo.path}/.git/hooks\n" + "".join(f"{name:<14}missing\n" for name in NAMES)
        + "asked for: nothing; watcher: none\n"
    )  # fmt: skip
    assert not (repo.path / ".treering").exists()
    assert stat.S_IMODE((repo.path / ".git").stat().st_mode) & 0o700 == 0o700
