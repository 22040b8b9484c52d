"""What treering promises of time, of memory and of order: nothing waits for ever, no patch fills the memory, and a
history is the same however it was read.
"""

import os
import random
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from repositories import Repo
from treering import opening, operations
from treering.config import ScrapeSettings
from treering.errors import RepositoryError
from treering.git.reader import Caps, open_reader
from treering.git.shadow import Watchdog
from treering.report import Reporter
from treering.types import Commit, FileChange, Record

LARGE = Caps(file=1 << 30, commit=1 << 30)


def read(path: Path, *, workers: int = 1, seconds: float = 120, caps: Caps | None = None) -> list[Commit]:
    with open_reader(path, ScrapeSettings(workers=workers, commit_seconds=seconds)) as reader:
        return list(reader.commits([node.hash for node in reader.nodes], caps=caps))


# time ------------------------------------------------------------------------------------------------------------


class SlowGit:
    """A ``git`` first on the PATH that is git itself, but for what it is told never to answer."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        folder.mkdir()
        self._program = folder / "git"
        self._python = folder / "relay.py"
        self._real = shutil.which("git")
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    def never(self, command: str) -> None:
        self._write(f'case " $* " in *" {command} "*) exec sleep 600;; esac')

    def never_about(self, commit: str, only: str = "--raw") -> None:
        """Pass everything on to a diff-tree (with that option), until it is asked about that commit."""
        self._python.write_text(
            "import subprocess, sys, time\n"
            f"git = subprocess.Popen([{self._real!r}, *sys.argv[1:]], stdin=subprocess.PIPE)\n"
            "while line := sys.stdin.buffer.readline():\n"
            f"    while line.startswith({commit.encode()!r}):\n"
            "        time.sleep(600)\n"
            "    git.stdin.write(line)\n"
            "    git.stdin.flush()\n"
        )
        relay = f'exec {sys.executable} -IS {self._python} "$@"'
        self._write(f'case " $* " in *" diff-tree "*" {only} "*" --stdin "*) {relay};; esac')

    def _write(self, line: str) -> None:
        self._program.write_text(f'#!/bin/sh\n{line}\nexec {self._real} "$@"\n')
        self._program.chmod(0o755)


@pytest.fixture
def slow_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SlowGit:
    return SlowGit(tmp_path / "bin", monkeypatch)


@pytest.mark.parametrize(
    ("which", "caps"), [("plain", LARGE), ("merge", None), ("merge", LARGE), ("root", None)],
    ids=["hunks", "figures of a merge", "hunks of a merge", "figures of a root"],
)  # fmt: skip
def test_a_commit_that_keeps_git_silent_is_told_by_its_trees_and_the_others_are_whole(
    story: Repo, slow_git: SlowGit, which: str, caps: Caps | None
) -> None:
    before = read(story.path, caps=caps)
    subject = {"plain": "Move the market", "merge": "Merge feature/bridge", "root": "Start the energy market"}[which]
    (chosen,) = (commit for commit in before if commit.subject == subject)
    slow_git.never_about(chosen.hash)
    after = read(story.path, caps=caps, seconds=1.0)
    assert [commit for commit in after if commit.hash != chosen.hash] == [
        commit for commit in before if commit.hash != chosen.hash
    ]
    (told,) = (commit for commit in after if commit.hash == chosen.hash)
    assert (told.flags, told.diff_complete, told.unreadable, told.patch_id) == (("slow",), False, (), "")
    assert (
        told.changes
        == {
            "plain": (FileChange("A", "core/market.py"), FileChange("D", "src/market.py")),
            "merge": (FileChange("A", "src/gateway.py"),),
            "root": (FileChange("A", "README.md"), FileChange("A", "src/market.py")),
        }[which]
    )
    assert told.patches == ()


def test_a_commit_whose_figures_alone_keep_git_silent_is_told_by_its_trees(story: Repo, slow_git: SlowGit) -> None:
    (chosen,) = (commit for commit in read(story.path) if commit.subject == "Move the market")
    assert [change.status for change in chosen.changes] == ["R"]
    slow_git.never_about(chosen.hash, only="--numstat")
    commits = read(story.path, caps=LARGE, seconds=1.0)
    assert [(commit.hash, commit.flags) for commit in commits if commit.flags] == [(chosen.hash, ("slow",))]


def test_a_slow_commit_is_counted_stored_and_not_read_again_for_nothing(story: Repo, slow_git: SlowGit) -> None:
    chosen = story.git("rev-parse", "HEAD~4")
    slow_git.never_about(chosen)
    where = opening.place(story.path, flags={"scrape": {"commit_seconds": 1.0, "workers": 2}})
    report = Reporter()
    scraped = operations.scrape(where, report)
    assert (scraped.commits, scraped.partial) == (23, 1)
    assert report.warnings
    with where.store(existing=True) as store:
        (record,) = (record for record in store.records() if record.commit_hash == chosen)
    assert (record.flags, record.diff_complete, record.files_added) == (("slow",), False, ("core/market.py",))
    again = operations.scrape(where, Reporter())
    assert (again.new, again.partial) == (0, 1)


def test_a_git_that_gives_no_commit_is_an_error(
    story: Repo, slow_git: SlowGit, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow_git.never("cat-file --batch --buffer")
    monkeypatch.setattr("treering.git.history.Watchdog", partial(Watchdog, seconds=0.5))
    with pytest.raises(RepositoryError, match="did not answer"):
        read(story.path)


@pytest.mark.parametrize("command", ["rev-list", "rev-parse", "for-each-ref", "symbolic-ref", "worktree"])
def test_a_git_that_gives_no_walk_or_no_refs_is_an_error(
    story: Repo, slow_git: SlowGit, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    slow_git.never(command)
    monkeypatch.setattr("treering.git.shadow.SECONDS", 0.5)
    monkeypatch.setattr("treering.git.shadow.REF_SECONDS", 0.5)
    with pytest.raises(RepositoryError, match="did not answer"):
        read(story.path)
    assert not (story.path / ".treering").exists()


def test_a_git_that_gives_no_mailmap_leaves_the_people_as_they_are(
    story: Repo, slow_git: SlowGit, monkeypatch: pytest.MonkeyPatch
) -> None:
    story.commit("map", __mailmap="Grace <grace@example.com> <ada@example.com>\n")
    slow_git.never("check-mailmap")
    monkeypatch.setattr("treering.git.people.Watchdog", partial(Watchdog, seconds=0.5))
    where = opening.place(story.path, flags={"scrape": {"mailmap": True}})
    operations.scrape(where, Reporter())
    with where.store(existing=True) as store:
        assert {record.author_name for record in store.records()} == {"Ada Lovelace"}


# memory ----------------------------------------------------------------------------------------------------------

LINES = 3_000_000
LINE = b"%07d: the quick brown fox jumps over the lazy dog and the fence too\n"

MEASURED = """
import sys
from pathlib import Path
from treering.config import ScrapeSettings
from treering.git.reader import Caps, open_reader
with open_reader(Path(sys.argv[1]), ScrapeSettings(workers=1)) as reader:
    (commit,) = reader.commits([node.hash for node in reader.nodes], caps=Caps(file=4096, commit=32768))
(change,), (patch,) = commit.changes, commit.patches
# Of this program since it began: ru_maxrss would begin with what the one that started it had.
peak = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")]
print(change.insertions, change.deletions, int(commit.diff_complete), len(patch.text), patch.cut, *peak)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks the kernel how much memory was used")
def test_a_patch_of_three_million_lines_takes_no_more_memory_than_its_cap(repo: Repo) -> None:
    content = b"".join(map(LINE.__mod__, range(LINES)))
    blob = repo.git("-c", "core.compression=0", "hash-object", "-w", "--stdin", stdin=content)
    tree = repo.git("mktree", stdin=b"100644 blob %s\tf\n" % blob.encode())
    repo.git("update-ref", "refs/heads/main", repo.git("commit-tree", tree, "-m", "three million lines"))
    done = subprocess.run([sys.executable, "-c", MEASURED, str(repo.path)], capture_output=True, text=True, check=True)
    insertions, deletions, complete, kept, cut, peak = map(int, done.stdout.split())
    assert (insertions, deletions, complete) == (LINES, 0, 1)
    assert 4000 < kept <= 4096
    assert cut > 200 << 20
    assert peak < 200 << 10


# one history, however it is read ---------------------------------------------------------------------------------


def _content(chance: random.Random) -> bytes:
    kind = chance.random()
    if kind < 0.08:
        return b""
    if kind < 0.18:
        return b"\0" + chance.randbytes(chance.randrange(1, 60))
    end = chance.choice([b"\n", b"\n", b"\r\n"])
    words = [
        b"one",
        b"two",
        b"+plus",
        b"-minus",
        b"@@ -1 +1 @@",
        b"diff --git a/x b/x",
        b"",
        b"  ",
        b"caf\xe9",
        b"\f\r",
    ]
    lines = [chance.choice(words) + b" %d" % chance.randrange(30) for _ in range(chance.randrange(1, 30))]
    return end.join(lines) + chance.choice([end, end, b""])


def _edited(content: bytes, chance: random.Random) -> bytes:
    lines = content.split(b"\n")
    at = chance.randrange(len(lines))
    lines[at : at + chance.randrange(3)] = [b"edit %d" % chance.randrange(99)] * chance.randrange(3)
    return b"\n".join(lines)


def random_history(seed: int, count: int) -> bytes:
    """For ``git fast-import``: commits that add, edit, move, drop and retype files on three branches, and merges."""
    chance = random.Random(seed)  # noqa: S311  (no secret is made of it)
    names = [
        f"{folder}{name}".encode() for folder in ("", "d/", "d/e/") for name in ("a", "b c", "é", '"q"', "-x", "Z")
    ]
    modes = [b"100644", b"100644", b"100644", b"100755", b"120000"]
    trees: dict[int, dict[bytes, tuple[bytes, bytes]]] = {}
    heads: dict[str, int] = {}
    stream = []
    for mark in range(1, count + 1):
        branch = chance.choice(["main", "main", "side", "other"]) if mark > 2 else "main"
        parent = heads.get(branch) or heads.get("main", 0)
        tree = dict(trees.get(parent, {}))
        lines = [b"commit refs/heads/%s\nmark :%d\n" % (branch.encode(), mark)]
        lines.append(b"committer A <a@b> %d +0000\n" % (1_700_000_000 + mark * 60 - chance.choice([0, 0, 500])))
        lines.append(b"data 8\nn %06d" % mark)
        lines.append(b"\nfrom :%d\n" % parent if parent else b"\n")
        others = [head for name, head in heads.items() if head != parent]
        if parent and others and chance.random() < 0.15:
            other = chance.choice(others)
            lines.append(b"merge :%d\n" % other)
            tree = trees[other] | tree if chance.random() < 0.7 else dict(trees[other])
        for _ in range(chance.choice([0, 1, 1, 2, 3, 8])):
            act = chance.random()
            if tree and act < 0.45:
                name = chance.choice(sorted(tree))
                mode, content = tree[name]
                edited = b"1" * 40 if mode == b"160000" else _edited(content, chance)
                tree[name] = (mode, edited)
            elif tree and act < 0.6:
                old, new = chance.choice(sorted(tree)), chance.choice(names)
                tree[new] = tree.pop(old)
            elif tree and act < 0.7:
                del tree[chance.choice(sorted(tree))]
            elif tree and act < 0.8:
                name = chance.choice(sorted(tree))
                mode, content = chance.choice(modes), tree[name][1]
                tree[name] = (mode, content)
            elif act < 0.85:
                tree[chance.choice(names)] = (b"160000", b"%040x" % chance.randrange(1, 1 << 160))
            else:
                tree[chance.choice(names)] = (chance.choice(modes), _content(chance))
        lines.append(b"deleteall\n")
        for name, (mode, content) in tree.items():
            path = b'"' + name.replace(b'"', b'\\"') + b'"'
            if mode == b"160000":
                lines.append(b"M 160000 %s %s\n" % (content, path))
            else:
                lines.append(b"M %s inline %s\ndata %d\n%s\n" % (mode, path, len(content), content))
        trees[mark], heads[branch] = tree, mark
        stream += lines
    return b"".join(stream)


@pytest.fixture(scope="module")
def jumble(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        repo = Repo(tmp_path_factory.mktemp("jumble"))
        repo.git("fast-import", "--quiet", stdin=random_history(11, 300))
    return repo


def test_the_random_history_has_everything(jumble: Repo) -> None:
    commits = read(jumble.path)
    changes = [change for commit in commits for change in commit.changes]
    assert len(commits) == 300
    assert {change.status for change in changes} == {"A", "M", "D", "R", "T"}
    assert {change.binary for change in changes} == {change.submodule for change in changes} == {True, False}
    assert sum(len(commit.parents) > 1 for commit in commits) > 20
    assert any(not commit.changes for commit in commits)


def test_hunks_tell_of_a_change_of_type_what_figures_tell(repo: Repo) -> None:
    repo.commit("file", f="one\ntwo\n")
    (repo.path / "f").unlink()
    (repo.path / "f").symlink_to("one\nthree\n")
    repo.commit("link")
    assert read(repo.path)[1].changes == (FileChange("T", "f", insertions=1, deletions=1),)
    assert read(repo.path, caps=LARGE)[1].changes == read(repo.path)[1].changes


def test_hunks_tell_of_a_file_that_becomes_a_submodule_what_figures_tell(repo: Repo) -> None:
    repo.commit("file", f="one\ntwo\n")
    repo.git("update-index", "--cacheinfo", f"160000,{'1' * 40},f")
    repo.git("commit", "--quiet", "-m", "submodule")
    assert read(repo.path)[1].changes == (FileChange("T", "f", insertions=1, deletions=2, submodule=True),)
    assert read(repo.path, caps=LARGE)[1].changes == read(repo.path)[1].changes


@pytest.mark.parametrize("how", ["mode", "rename"])
def test_hunks_tell_a_binary_file_of_equal_content_for_binary(repo: Repo, how: str) -> None:
    repo.commit("file", f=b"\0one\n")
    if how == "mode":
        (repo.path / "f").chmod(0o755)
    else:
        repo.git("mv", "f", "g")
    repo.commit("change")
    (change,) = read(repo.path)[1].changes
    assert change.binary
    assert read(repo.path, caps=LARGE)[1].changes == (change,)


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_figures_and_hunks_tell_the_same_changes(jumble: Repo, workers: int) -> None:
    figures, hunks = read(jumble.path, workers=workers), read(jumble.path, workers=workers, caps=LARGE)
    assert figures == read(jumble.path, workers=1)
    assert hunks == read(jumble.path, workers=1, caps=LARGE)
    for plain, patched in zip(figures, hunks, strict=True):
        assert plain.changes == patched.changes, plain.hash
    small = read(jumble.path, workers=workers, caps=Caps(file=40, commit=100))
    assert [(commit.changes, commit.patch_id, commit.reverse_id) for commit in small] == [
        (commit.changes, commit.patch_id, commit.reverse_id) for commit in hunks
    ]


def test_every_figure_is_gits_own(jumble: Repo) -> None:
    for commit in read(jumble.path):
        pair = [commit.parents[0], commit.hash] if commit.parents else ["--root", "--no-commit-id", commit.hash]
        fields = iter(jumble.git("diff-tree", "-r", "-M", "--numstat", "-z", *pair).split("\0"))
        told = []
        for field in fields:
            if field:
                insertions, deletions, path = field.split("\t", 2)
                old = None if path else next(fields)
                told.append((path or next(fields), old, insertions, deletions))
        ours = [
            (change.path, change.old_path, *(str(number) for number in (change.insertions, change.deletions)))
            if not change.binary
            else (change.path, change.old_path, "-", "-")
            for change in commit.changes
        ]
        assert ours == told


def kept(where: opening.Place) -> tuple[list[Record], dict[str, str], dict[str, dict[str, int]]]:
    """All that a store has of the history. What a scrape without hunks could not know is read now."""
    operations.check_secrets(where, Reporter())
    with where.store(existing=True) as store:
        return list(store.records()), store.paths(), store.redactions()


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_store_filled_in_random_steps_equals_one_filled_at_once(jumble: Repo, tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311
    clone = Repo(tmp_path / "jumble")
    clone.git("fetch", "--quiet", str(jumble.path), "+refs/heads/*:refs/kept/*")
    tips = [line.split(" ") for line in clone.git(
        "for-each-ref", "--format=%(refname:lstrip=2) %(objectname)", "refs/kept").split("\n")]  # fmt: skip
    every = clone.git("rev-list", "--topo-order", "--reverse", "--glob=refs/kept").split("\n")
    step_by_step = opening.place(clone.path, tmp_path / "steps")
    for number in sorted(chance.sample(range(1, len(every)), 6)):
        branch = chance.choice(["main", "side", "other"])
        clone.git("update-ref", f"refs/heads/{branch}", every[number])
        operations.scrape(step_by_step, Reporter(), patches=chance.random() < 0.5)
    for branch, tip in tips:
        clone.git("update-ref", f"refs/heads/{branch}", tip)
    operations.scrape(step_by_step, Reporter())
    at_once = opening.place(clone.path, tmp_path / "once")
    operations.scrape(at_once, Reporter(), patches=True)
    found, expected = kept(step_by_step), kept(at_once)
    assert [record.patch_id for record in found[0]] == [record.patch_id for record in expected[0]]
    for ours, theirs in zip(found[0], expected[0], strict=True):
        assert ours == theirs
    assert found[1:] == expected[1:]
    assert sum(bool(record.patch_id) for record in found[0]) > 200
