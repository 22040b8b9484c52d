"""A repository that was made to do harm: nothing of it runs, it changes no figure, and it is left as it was."""

import hashlib
import os
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from repositories import Repo
from treering import opening, operations
from treering.cli.main import main
from treering.config import ScrapeSettings
from treering.git.reader import Caps, open_reader
from treering.report import Reporter
from treering.types import Commit, Features, Record

LARGE = Caps(file=1 << 30, commit=1 << 30)
HOOKS = ("reference-transaction", "post-checkout", "post-index-change", "pre-auto-gc", "post-rewrite", "fsmonitor")


class Trap:
    """Programs that leave a mark when anything runs them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.marks = folder / "marks"
        self.marks.mkdir(parents=True)

    def program(self, name: str, then: str = "cat", place: Path | None = None) -> str:
        path = place or self.folder / name
        path.write_text(f"#!/bin/sh\n: > '{self.marks}/{name}'\n{then}\n")
        path.chmod(0o755)
        return str(path)

    @property
    def sprung(self) -> set[str]:
        return {path.name for path in self.marks.iterdir()}

    def arm(self, repo: Repo) -> None:
        """Every setting by which a repository can have a program run."""
        hooks = self.folder / "hooks"
        hooks.mkdir()
        for name in HOOKS:
            self.program(f"hook-{name}", then="exit 0", place=hooks / name)
            self.program(f"own-hook-{name}", then="exit 0", place=repo.path / ".git" / "hooks" / name)
        for key, value in {
            "core.fsmonitor": self.program("fsmonitor", then="exit 1"),
            "core.hooksPath": str(hooks),
            "core.pager": self.program("pager"),
            "core.editor": self.program("editor"),
            "core.askPass": self.program("askpass"),
            "core.sshCommand": self.program("ssh", then="exit 1"),
            "core.alternateRefsCommand": self.program("alternate-refs"),
            "core.gitProxy": self.program("proxy"),
            "credential.helper": self.program("credentials"),
            "diff.external": self.program("external"),
            "diff.trap.textconv": self.program("textconv", then='echo changed; cat "$1"'),
            "diff.trap.command": self.program("command"),
            "diff.trap.binary": "true",
            "filter.trap.clean": self.program("clean"),
            "filter.trap.smudge": self.program("smudge"),
            "filter.trap.required": "true",
            "merge.trap.driver": self.program("merge"),
            "gpg.program": self.program("gpg", then="exit 1"),
            "log.showSignature": "true",
            "interactive.diffFilter": self.program("interactive"),
            "uploadpack.packObjectsHook": self.program("pack-objects"),
            "alias.diff-tree": "!" + self.program("alias-diff-tree"),
            "alias.rev-list": "!" + self.program("alias-rev-list"),
            "alias.cat-file": "!" + self.program("alias-cat-file"),
            "alias.for-each-ref": "!" + self.program("alias-for-each-ref"),
            "remote.origin.url": "ssh://nobody@localhost:1/none",
            "remote.origin.promisor": "true",
            "remote.origin.partialclonefilter": "blob:none",
            "extensions.partialClone": "origin",
            "protocol.allow": "always",
            "protocol.ext.allow": "always",
        }.items():
            repo.git("config", key, value)
        included = repo.path / ".git" / "more"
        included.write_text(f"[core]\n\tfsmonitor = {self.program('included-fsmonitor', then='exit 1')}\n")
        repo.git("config", "include.path", str(included))


@pytest.fixture
def trap(tmp_path: Path) -> Trap:
    return Trap(tmp_path / "trap")


@pytest.fixture
def signed(story: Repo) -> Repo:
    """The story with the attributes that the traps hang on, and a commit that claims a signature."""
    story.commit("Attributes", __gitattributes="* diff=trap filter=trap merge=trap\n")
    content = story.git("cat-file", "commit", "HEAD").replace(
        "\n\n", "\ngpgsig -----BEGIN PGP SIGNATURE-----\n \n not one\n -----END PGP SIGNATURE-----\n\n", 1
    )
    name = story.git("hash-object", "-t", "commit", "-w", "--stdin", stdin=content.encode() + b"\n")
    story.git("reset", "--quiet", "--hard", name)
    return story


def read(path: Path, *, caps: Caps | None = None) -> list[Commit]:
    with open_reader(path, ScrapeSettings(workers=2)) as reader:
        return list(reader.commits([node.hash for node in reader.nodes], caps=caps))


def read_both(path: Path) -> tuple[list[Commit], list[Commit]]:
    return read(path), read(path, caps=LARGE)


def indexed(path: Path, store: Path) -> tuple[list[Record], list[tuple[int, Features]]]:
    """Scrape and index into ``store``; return all that was kept."""
    where = opening.place(path, store)
    operations.index(where, Reporter())
    with where.store(existing=True) as opened:
        return list(opened.records()), list(opened.features())


def listing(folder: Path) -> dict[str, tuple[object, ...]]:
    """Every file and folder with what it holds, its mode and when it was written; but for the store."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if name.split("/")[0] == ".treering":
            continue
        stat = path.lstat()
        content = ""
        if path.is_symlink():
            content = str(path.readlink())
        elif path.is_file():
            content = hashlib.sha256(path.read_bytes()).hexdigest()
        found[name] = (content, stat.st_mode, stat.st_mtime_ns)
    return found


def treering(*arguments: str) -> Result:
    # color: click would strip escapes from what is no terminal, and hide what we test.
    return CliRunner().invoke(main, arguments, catch_exceptions=False, color=True)


# programs --------------------------------------------------------------------------------------------------------


def test_the_traps_of_these_tests_are_live(signed: Repo, trap: Trap) -> None:
    trap.arm(signed)
    signed.git("status", check=False)
    signed.git("log", "-1", "-p", "--ext-diff", check=False)
    signed.git("config", "--unset", "diff.external")
    signed.git("config", "--unset", "diff.trap.command")
    signed.git("log", "-3", "-p", check=False)
    signed.git("checkout", "--quiet", "HEAD~2", check=False)
    assert {"included-fsmonitor", "gpg", "textconv", "smudge", "hook-reference-transaction"} <= trap.sprung
    assert {"external", "command"} & trap.sprung


def test_no_program_that_a_repository_names_is_run_and_no_figure_changes(
    signed: Repo, trap: Trap, tmp_path: Path
) -> None:
    before = indexed(signed.path, tmp_path / "before")
    trap.arm(signed)
    assert indexed(signed.path, tmp_path / "after") == before
    operations.status(opening.place(signed.path, tmp_path / "after"))
    assert trap.sprung == set()


def test_a_lost_file_is_not_fetched_from_where_the_repository_says(signed: Repo, trap: Trap, tmp_path: Path) -> None:
    trap.arm(signed)
    signed.git("config", "remote.origin.url", f"ext::{trap.program('remote-helper')}")
    blob = signed.git("rev-parse", "HEAD:src/gateway.py")
    (signed.path / ".git" / "objects" / blob[:2] / blob[2:]).unlink()
    records, _ = indexed(signed.path, tmp_path / "store")
    assert {path for record in records for path in record.unreadable_paths} == {"src/gateway.py"}
    assert trap.sprung == set()


def test_the_environment_of_the_caller_runs_nothing(signed: Repo, trap: Trap, monkeypatch: pytest.MonkeyPatch) -> None:
    before = read_both(signed.path)
    for name in ("GIT_EXTERNAL_DIFF", "GIT_SSH", "GIT_SSH_COMMAND", "GIT_PAGER", "GIT_EDITOR", "GIT_ASKPASS"):
        monkeypatch.setenv(name, trap.program(name))
    monkeypatch.setenv("GIT_CONFIG_PARAMETERS", f"'core.fsmonitor={trap.program('parameters')}'")
    assert read_both(signed.path) == before
    assert trap.sprung == set()


# figures ---------------------------------------------------------------------------------------------------------


def test_attributes_change_no_figure(story: Repo) -> None:
    figures, hunks = read_both(story.path)
    story.git("config", "diff.other.binary", "true")
    (story.path / ".git" / "info").mkdir(exist_ok=True)
    for attributes in ("* binary\n", "* -diff\n", "* diff=other\n"):
        (story.path / ".git" / "info" / "attributes").write_text(attributes)
        story.commit("Attributes", __gitattributes=attributes)
        assert "-\t-\tsrc/" in story.git("log", "--numstat", "--format="), "git itself is misled"
        new_figures, new_hunks = read_both(story.path)
        assert (new_figures[: len(figures)], new_hunks[: len(hunks)]) == (figures, hunks)
        (change,) = new_figures[-1].changes
        assert (change.path, change.insertions, change.binary) == (".gitattributes", 1, False)
        assert new_hunks[-1].changes == (change,)


def test_settings_change_no_figure(story: Repo) -> None:
    before = read_both(story.path)
    for key, value in {
        "core.bigFileThreshold": "1",
        "core.commitGraph": "true",
        "core.quotePath": "false",
        "diff.algorithm": "patience",
        "diff.context": "0",
        "diff.ignoreSubmodules": "all",
        "diff.interHunkContext": "100",
        "diff.noprefix": "true",
        "diff.renames": "false",
        "diff.renameLimit": "1",
        "diff.suppressBlankEmpty": "true",
        "color.ui": "always",
        "i18n.logOutputEncoding": "utf-16",
    }.items():
        story.git("config", key, value)
    assert "-\t-\tsrc/" in story.git("log", "--numstat", "--format=", "--no-color"), "git itself is misled"
    assert read_both(story.path) == before


def test_an_order_file_changes_no_order(story: Repo) -> None:
    before = read_both(story.path)
    (story.path / ".git" / "order").write_text("src/*\nREADME.md\n")
    story.git("config", "diff.orderFile", str(story.path / ".git" / "order"))
    assert read_both(story.path) == before


def test_a_lying_commit_graph_is_not_believed(repo: Repo) -> None:
    for number in range(4):
        repo.commit(f"{number}", f=f"{number}\n")
    before = read_both(repo.path)
    repo.git("commit-graph", "write", "--reachable")
    graph = repo.path / ".git" / "objects" / "info" / "commit-graph"
    graph.chmod(0o644)
    content = bytearray(graph.read_bytes())
    content[len(content) // 2 : -20] = b"\0" * len(content[len(content) // 2 : -20])
    graph.write_bytes(content)
    assert read_both(repo.path) == before


# the repository is left as it was --------------------------------------------------------------------------------


def test_a_scrape_and_an_index_leave_the_repository_byte_for_byte(story: Repo) -> None:
    story.git("config", "gc.auto", "1")
    story.git("config", "core.untrackedCache", "true")
    # Files that `git status` would look at again, and then write the index.
    for path in story.path.glob("src/*"):
        os.utime(path)
    (story.path / "untracked").write_text("mine\n")
    before = listing(story.path)
    where = opening.place(story.path)
    operations.index(where, Reporter())
    operations.status(where)
    assert (story.path / ".treering" / "treering.db").is_file()
    assert listing(story.path) == before
    assert story.git("status", "--porcelain") == "?? untracked"


def test_a_bare_repository_is_left_byte_for_byte(story: Repo, tmp_path: Path) -> None:
    bare = tmp_path / "bare.git"
    story.git("clone", "--quiet", "--bare", str(story.path), str(bare))
    before = listing(bare)
    where = opening.place(bare)
    operations.scrape(where, Reporter())
    assert listing(bare) == before
    assert not where.folder.is_relative_to(bare)


def test_a_shallow_clone_and_a_linked_worktree_are_left_byte_for_byte(story: Repo, tmp_path: Path) -> None:
    story.git("worktree", "add", "--quiet", "--detach", str(tmp_path / "linked"))
    story.git("clone", "--quiet", "--depth", "2", f"file://{story.path}", str(tmp_path / "shallow"))
    before = [listing(path) for path in (story.path, tmp_path / "linked", tmp_path / "shallow")]
    for name in ("linked", "shallow"):
        operations.scrape(opening.place(tmp_path / name), Reporter())
    assert [listing(path) for path in (story.path, tmp_path / "linked", tmp_path / "shallow")] == before


def test_nothing_is_left_in_the_folder_for_temporary_files(
    repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo.commit("one", f="1\n")
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    operations.scrape(opening.place(repo.path), Reporter())
    assert list((tmp_path / "temporary").iterdir()) == []


# the terminal ----------------------------------------------------------------------------------------------------


def test_no_escape_of_a_history_reaches_the_terminal(repo: Repo) -> None:
    evil = "\x1b]0;owned\x07\x1b[31mred\x1b[0m \x9b31m\x7f\b\b\u202eledger\u2066"
    repo.write(f"src/{evil[:12]}ledger.py", "def ledger(order):\n    return order\n")
    repo.git("add", "--all")
    repo.git("commit", "--quiet", "-m", f"Settle the ledger {evil}\n\nBody {evil}")
    repo.git("commit", "--quiet", "--allow-empty", "--amend", "--no-edit", f"--author={evil} <ada@example.com>")
    repo.git("branch", "--move", "ledger\u202e\u2066")
    repo.commit("Another ledger", other="ledger = 1\n")
    where = ["--repo", str(repo.path), "--verbose"]
    told = [treering("index", *where), treering("search", *where, "settle the ledger"), treering("status", *where)]
    for done in told:
        assert done.exit_code == 0, done.output
        for stream in (done.stdout_bytes, done.stderr_bytes):
            shown = stream.decode("utf-8").replace("\n", "")
            assert shown.isprintable()
    assert rb"\x1b[31mred" in told[1].stdout_bytes
    asked = treering("search", *where, "--json", "settle the ledger")
    assert b"\x1b" not in asked.stdout_bytes
    assert evil in [
        hit["subject"].removeprefix("Settle the ledger ") for hit in msgspec.json.decode(asked.stdout_bytes)
    ]


def test_an_error_about_an_odd_path_does_not_drive_the_terminal(tmp_path: Path) -> None:
    done = treering("scrape", "--repo", str(tmp_path / "\x1b[31m\x9b"))
    assert done.exit_code == 3
    assert b"\x1b" not in done.stderr_bytes
    assert rb"\x1b[31m\x9b" in done.stderr_bytes
