"""One repository that names a program at every door by which git is known to start one, read by every way there is.

The doors that `test_hostile.py` has are here again only where another way of reading could open them.
"""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from repositories import Repo, tell_story
from treering import exports, finding, opening, operations
from treering.errors import DamagedRepository, ModelError, RepositoryError
from treering.report import Reporter
from treering.types import Features, Record

HOOKS = (
    "applypatch-msg", "pre-applypatch", "post-applypatch", "pre-commit", "pre-merge-commit", "prepare-commit-msg",
    "commit-msg", "post-commit", "pre-rebase", "post-checkout", "post-merge", "pre-push", "pre-receive", "update",
    "proc-receive", "post-receive", "post-update", "reference-transaction", "push-to-checkout", "pre-auto-gc",
    "post-rewrite", "sendemail-validate", "fsmonitor-watchman", "post-index-change", "pre-upload", "post-upload",
)  # fmt: skip
ALIASES = (
    "init", "rev-parse", "for-each-ref", "symbolic-ref", "worktree", "rev-list", "cat-file", "diff-tree", "ls-tree",
    "read-tree", "check-attr", "check-mailmap", "ls-files",
)  # fmt: skip
FLAGS = {"scrape": {"mailmap": True, "refs": "all", "workers": 2}}


@dataclass(frozen=True)
class Doors:
    """A repository with all doors open, its like with none, and the folder where every program leaves its mark."""

    open: Repo
    clean: Path
    folder: Path

    @property
    def marks(self) -> Path:
        return self.folder / "marks"

    @property
    def sprung(self) -> set[str]:
        return {path.name for path in self.marks.iterdir()}

    def program(self, name: str, then: str = "cat", place: Path | None = None) -> str:
        path = place or self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n: > '{self.marks}/{name}'\n{then}\n")
        path.chmod(0o755)
        return str(path)

    def arm(self) -> None:
        git = self.open.path / ".git"
        for name in HOOKS:
            self.program(f"hook-{name}", "exit 0", self.folder / "hooks" / name)
            self.program(f"own-hook-{name}", "exit 0", git / "hooks" / name)
            self.program(f"template-hook-{name}", "exit 0", self.folder / "template" / "hooks" / name)
        mailmap, attributes, excludes = (self.folder / name for name in ("mailmap", "attributes", "excludes"))
        mailmap.write_text("Mallory <mallory@example.com> <ada@example.com>\n")
        attributes.write_text("* binary diff=door filter=door linguist-generated\n")
        excludes.write_text("*\n")
        (git / "info").mkdir(exist_ok=True)
        (git / "info" / "attributes").write_text("* -diff filter=door merge=door linguist-vendored\n")
        settings = {
            "core.fsmonitor": self.program("fsmonitor", "exit 1"),
            "core.fsmonitorHookVersion": "2",
            "core.untrackedCache": "true",
            "core.hooksPath": str(self.folder / "hooks"),
            "core.pager": self.program("pager"),
            "pager.for-each-ref": self.program("pager-of-refs"),
            "pager.diff-tree": self.program("pager-of-diffs"),
            "pager.worktree": self.program("pager-of-worktrees"),
            "core.editor": self.program("editor"),
            "sequence.editor": self.program("sequence-editor"),
            "core.askPass": self.program("askpass"),
            "core.sshCommand": self.program("ssh", "exit 1"),
            "core.gitProxy": self.program("proxy", "exit 1"),
            "core.alternateRefsCommand": self.program("alternate-refs", "exit 0"),
            "core.worktree": str(self.folder / "elsewhere"),
            "core.attributesFile": str(attributes),
            "core.excludesFile": str(excludes),
            "mailmap.file": str(mailmap),
            "mailmap.blob": "HEAD:other-mailmap",
            "log.mailmap": "true",
            "log.showSignature": "true",
            "gpg.program": self.program("gpg", "cat > /dev/null; exit 1"),
            "gpg.ssh.program": self.program("gpg-ssh", "cat > /dev/null; exit 1"),
            "gpg.ssh.allowedSignersFile": str(self.folder / "excludes"),
            "gpg.ssh.defaultKeyCommand": self.program("gpg-ssh-key"),
            "gpg.x509.program": self.program("gpg-x509", "cat > /dev/null; exit 1"),
            "credential.helper": "!" + self.program("credentials"),
            "diff.external": self.program("external"),
            "diff.door.textconv": self.program("textconv", 'echo changed; cat "$1"'),
            "diff.door.cachetextconv": "true",
            "diff.door.command": self.program("command"),
            "diff.door.xfuncname": "nothing",
            "diff.tool": "door",
            "difftool.door.cmd": self.program("difftool"),
            "merge.tool": "door",
            "mergetool.door.cmd": self.program("mergetool"),
            "merge.door.driver": self.program("merge-driver"),
            "filter.door.clean": self.program("clean"),
            "filter.door.smudge": self.program("smudge"),
            "filter.door.process": self.program("process", "exit 1"),
            "filter.door.required": "true",
            "interactive.diffFilter": self.program("interactive"),
            "trailer.door.command": self.program("trailer-command"),
            "trailer.door.cmd": self.program("trailer-cmd"),
            "trailer.door.ifmissing": "add",
            "uploadpack.packObjectsHook": self.program("pack-objects"),
            "receive.procReceiveRefs": "refs",
            "init.templateDir": str(self.folder / "template"),
            "submodule.library.url": f"ext::{self.program('submodule-url', 'exit 1')}",
            "submodule.library.update": "!" + self.program("submodule-update"),
            "submodule.recurse": "true",
            "status.submoduleSummary": "true",
            "diff.submodule": "log",
            "fetch.recurseSubmodules": "true",
            "remote.origin.url": f"ext::{self.program('remote-helper', 'exit 1')}",
            "remote.origin.uploadpack": self.program("uploadpack", "exit 1"),
            "remote.origin.promisor": "true",
            "remote.origin.partialCloneFilter": "blob:none",
            "remote.origin.fetch": "+refs/*:refs/*",
            "extensions.partialClone": "origin",
            "extensions.worktreeConfig": "true",
            "core.repositoryFormatVersion": "1",
            "protocol.allow": "always",
            "protocol.ext.allow": "always",
            "gc.auto": "1",
            "maintenance.auto": "true",
            "web.browser": "door",
            "browser.door.cmd": self.program("browser"),
        }
        settings |= {f"alias.{name}": "!" + self.program(f"alias-{name}") for name in ALIASES}
        for key, value in settings.items():
            self.open.git("config", key, value)
        for name, key in (("config.worktree", "of-worktree"), ("included", "included"), ("included-if", "included-if")):
            (git / name).write_text(f"[core]\n\tfsmonitor = {self.program(f'fsmonitor-{key}', 'exit 1')}\n")
        self.open.git("config", "include.path", str(git / "included"))
        self.open.git("config", f"includeIf.gitdir:{self.open.path}/**.path", str(git / "included-if"))
        # The user's own settings are no invitation either.
        (Path(os.environ["HOME"]) / ".gitconfig").write_text(
            f"[init]\n\ttemplateDir = {self.folder / 'template'}\n[core]\n\thooksPath = {self.folder / 'hooks'}\n"
            f"\tattributesFile = {attributes}\n\tpager = {self.program('own-pager')}\n[mailmap]\n\tfile = {mailmap}\n"
        )


@pytest.fixture
def doors(tmp_path: Path) -> Doors:
    """The story with attributes, a mailmap, a submodule, a signature, trailers, every kind of reference, objects that
    lie elsewhere, and a file that is missing.
    """
    lender = tell_story(Repo(tmp_path / "lender"))
    repo = Repo(tmp_path / "open" / "project")
    (repo.path / ".git" / "objects" / "info" / "alternates").write_text(f"{lender.path}/.git/objects\n")
    repo.git("fetch", "--quiet", str(lender.path), "+refs/heads/*:refs/heads/*", "--update-head-ok")
    repo.git("reset", "--quiet", "--hard")
    repo.clock = lender.clock
    repo.commit(
        "Attributes and a mailmap\n\nDoor: 1\nSigned-off-by: A <a@b>",
        __gitattributes="* diff=door filter=door merge=door text=auto\n",
        __mailmap="Grace Hopper <grace@example.com> <ada@example.com>\n",
        __gitmodules='[submodule "library"]\n\tpath = library\n\turl = ext::false\n',
        lost="lost\n",
    )
    repo.commit("Another mailmap", other__mailmap="Eve <eve@example.com> <ada@example.com>\n", lost="lost again\n")
    repo.git("update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},library")
    repo.git("commit", "--quiet", "-m", "A submodule")
    content = repo.git("cat-file", "commit", "HEAD").replace(
        "\n\n", "\ngpgsig -----BEGIN SSH SIGNATURE-----\n \n not one\n -----END SSH SIGNATURE-----\n\n", 1
    )
    name = repo.git("hash-object", "-t", "commit", "-w", "--stdin", stdin=content.encode() + b"\n")
    repo.git("update-ref", "refs/heads/main", name)
    repo.git("tag", "-a", "-m", "a tag", "v1", "HEAD~3")
    repo.git("update-ref", "refs/pull/1/head", repo.git("commit-tree", "-p", "HEAD", "-m", "pull", "HEAD^{tree}"))
    repo.git("notes", "add", "-m", "a note")
    lost = repo.git("rev-parse", "HEAD:lost")
    (repo.path / ".git" / "objects" / lost[:2] / lost[2:]).unlink()
    clean = tmp_path / "clean" / "project"
    shutil.copytree(repo.path, clean)
    made = Doors(repo, clean, tmp_path / "doors")
    made.marks.mkdir(parents=True)
    (made.folder / "elsewhere").mkdir()
    return made


@pytest.fixture(autouse=True)
def _words_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> None:
        raise ModelError("there is no model", "nor need one be here")

    monkeypatch.setattr("treering.opening.load_embedder", none)


Everything = tuple[list[Record], list[Record], list[tuple[int, Features]], dict[str, str], list[tuple[object, ...]]]


def everything(repo: Path, folder: Path) -> Everything:
    """The history by every way: store, index, exports, SQL. All of it comes back, to be compared."""
    folder.mkdir()
    report = Reporter()
    where = opening.place(repo, folder / "store", flags=FLAGS)
    operations.scrape(where, report, patches=True)
    operations.index(where, report)
    operations.check_secrets(where, report)
    operations.status(where)
    for name, table in (("commits.jsonl", "commits"), ("changes.csv", "changes")):
        operations.export(where, folder / name, report, table=table, as_format=None, patches=True)
    query = "SELECT path, kind, commits, insertions, deletions FROM churn ORDER BY path"
    rows = list(operations.sql(where, query, report, seconds=30)[1])
    finding.search(where, "gateway bridge", report)
    exports.export_history(repo, folder / "history.jsonl", folder / "history.json", report, flags=FLAGS)
    with where.store(existing=True) as store:
        features, paths = list(store.features()), store.paths()
    return (
        [msgspec.json.decode(line, type=Record) for line in (folder / "commits.jsonl").read_bytes().splitlines()],
        [msgspec.json.decode(line, type=Record) for line in (folder / "history.jsonl").read_bytes().splitlines()],
        features, paths, rows,
    )  # fmt: skip


def test_the_doors_of_these_tests_are_open(doors: Doors) -> None:
    doors.arm()
    repo = doors.open
    repo.git("config", "--unset", "core.worktree")
    (repo.path / ".git" / "info" / "attributes").unlink()  # it hides those of the tree
    repo.git("status", check=False)
    one = ("-1", "-p", "HEAD~1", "--", "other.mailmap")
    repo.git("log", "-1", check=False)
    (repo.path / "README.md").unlink()
    repo.git("checkout", "--quiet", "--", "README.md", check=False)
    repo.git("config", "--unset", "filter.door.process")
    repo.git("log", "--ext-diff", *one, check=False)
    repo.git("config", "--unset", "diff.door.command")
    repo.git("log", "--ext-diff", *one, check=False)
    repo.git("log", *one, check=False)
    repo.git("interpret-trailers", "--trailer", "door=1", stdin=b"x\n\nDoor: 1\n", check=False)
    repo.git("cat-file", "-p", "HEAD:lost", check=False)
    repo.git("rm", "--quiet", "--cached", "README.md", check=False)
    repo.git("add", "README.md", check=False)
    repo.git("checkout", "--quiet", "-f", "HEAD~4", check=False)
    repo.git("init", "--quiet", str(doors.folder / "new"))
    live = {"gpg-ssh", "external", "command", "textconv", "trailer-cmd", "remote-helper", "process"}
    assert live - doors.sprung == set()
    assert {"fsmonitor-included-if", "fsmonitor-of-worktree"} & doors.sprung
    assert {"hook-reference-transaction", "hook-post-index-change"} & doors.sprung
    assert (doors.folder / "new" / ".git" / "hooks" / "pre-commit").exists()


def test_no_way_of_reading_opens_a_door_and_every_figure_is_that_of_a_clean_copy(doors: Doors, tmp_path: Path) -> None:
    expected = everything(doors.clean, tmp_path / "by-clean")
    doors.arm()
    found = everything(doors.open.path, tmp_path / "by-open")
    assert doors.sprung == set()
    assert list((doors.folder / "elsewhere").iterdir()) == []
    for ours, theirs in zip(found, expected, strict=True):
        assert ours == theirs
    records = found[0]
    assert len(records) == 28
    assert {record.author_name for record in records} == {"Grace Hopper"}
    assert {path for record in records for path in record.unreadable_paths} == {"lost"}
    assert not [record for record in records if record.files_binary and record.files_binary != ("picture.png",)]


@pytest.mark.parametrize(
    "url", ["ext::{}", "ssh://nobody@localhost:1/none", "file://{}", "door::{}", "git://localhost:1/"]
)
def test_a_reference_to_what_is_elsewhere_fetches_nothing(
    doors: Doors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    doors.program("git-remote-door", "exit 1")
    monkeypatch.setenv("PATH", f"{doors.folder}{os.pathsep}{os.environ['PATH']}")
    doors.arm()
    doors.open.git("config", "remote.origin.url", url.format(doors.program("url", "exit 1")))
    (doors.open.path / ".git" / "refs" / "heads" / "ghost").write_text("1" * 40 + "\n")
    with pytest.raises((DamagedRepository, RepositoryError)):
        operations.scrape(opening.place(doors.open.path, tmp_path / "store", flags=FLAGS), Reporter())
    assert doors.sprung == set()


def test_a_remote_that_is_a_program_of_its_own_is_not_started(
    doors: Doors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    doors.program("git-remote-door", "exit 1")
    monkeypatch.setenv("PATH", f"{doors.folder}{os.pathsep}{os.environ['PATH']}")
    doors.arm()
    doors.open.git("config", "remote.origin.vcs", "door")
    (doors.open.path / ".git" / "refs" / "heads" / "ghost").write_text("1" * 40 + "\n")
    with pytest.raises((DamagedRepository, RepositoryError)):
        operations.scrape(opening.place(doors.open.path, tmp_path / "store", flags=FLAGS), Reporter())
    assert doors.sprung == set()


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    yield path
    path.unlink()


@pytest.mark.parametrize("key", ["include.path", "includeIf.gitdir:/**.path"])
def test_a_pipe_in_place_of_settings_ends_in_an_error_by_every_way(
    repo: Repo, pipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    repo.commit("one")
    where = opening.place(repo.path)
    operations.scrape(where, Reporter())
    monkeypatch.setattr("treering.git.shadow.REF_SECONDS", 0.3)
    repo.git("config", key, str(pipe))
    for way in (
        lambda: opening.place(repo.path),
        lambda: operations.scrape(where, Reporter()),
        lambda: operations.status(where),
        lambda: exports.export_history(repo.path, tmp_path / "a", tmp_path / "b", Reporter()),
    ):
        with pytest.raises(RepositoryError, match="did not answer"):
            way()
    with where.store(existing=True) as store:
        assert store.count() == 1


@pytest.mark.parametrize("place", [".git/info/attributes", ".git/info/grafts", ".git/info/exclude", ".gitattributes"])
def test_a_pipe_in_place_of_a_file_that_git_might_read_keeps_nobody_waiting(
    repo: Repo, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    repo.commit("one", f="1\n", __gitattributes="f linguist-vendored\n")
    path = repo.path / place
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    monkeypatch.setattr("treering.git.shadow.REF_SECONDS", 2.0)
    monkeypatch.setattr("treering.git.shadow.SECONDS", 2.0)
    where = opening.place(repo.path)
    assert operations.scrape(where, Reporter(), patches=True).commits == 1
    with where.store(existing=True) as store:
        assert store.paths()["f"] == "vendored"
    path.unlink()


@pytest.mark.parametrize("place", ["shallow", "objects/info/alternates"])
def test_a_pipe_in_place_of_a_file_that_is_needed_ends_in_an_error(
    repo: Repo, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    repo.commit("one", f="1\n")
    path = repo.path / ".git" / place
    os.mkfifo(path)
    monkeypatch.setattr("treering.git.shadow.REF_SECONDS", 1.0)
    monkeypatch.setattr("treering.git.shadow.SECONDS", 1.0)
    with pytest.raises(RepositoryError):
        operations.scrape(opening.place(repo.path), Reporter())
    path.unlink()
