"""Cases of the history that no other chapter has: odd references, large commits, clones of parts, and repositories
that change while they are read. git itself, asked without our parsing, says what is right.
"""

import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from repositories import Repo
from treering import opening, operations
from treering.config import ScrapeSettings
from treering.errors import DamagedRepository, RepositoryError
from treering.git.reader import Caps, locate, open_reader
from treering.report import Reporter
from treering.types import Commit, FileChange, Placed, Record

LARGE = Caps(file=1 << 30, commit=1 << 30)
ONE = ScrapeSettings(workers=1)
ALL = replace(ONE, refs="all")
BOTH = pytest.mark.parametrize("caps", [None, LARGE], ids=["figures", "hunks"])
MakeRepo = Callable[..., Repo]


def read(path: Path, settings: ScrapeSettings = ONE, *, caps: Caps | None = None) -> list[Commit]:
    with open_reader(path, settings) as reader:
        return list(reader.commits([node.hash for node in reader.nodes], caps=caps))


def subjects(path: Path, settings: ScrapeSettings = ONE) -> list[str]:
    return [commit.subject for commit in read(path, settings)]


def places(path: Path, settings: ScrapeSettings = ONE) -> dict[str, Placed]:
    with open_reader(path, settings) as reader:
        return {place.hash: place for place in reader.places()}


def stored(path: Path, store: Path | None = None) -> tuple[list[Record], Reporter]:
    report = Reporter()
    where = opening.place(path, store)
    operations.scrape(where, report)
    with where.store(existing=True) as opened:
        return list(opened.records()), report


def empty(repo: Repo, subject: str, *parents: str) -> str:
    """A commit of HEAD's tree that no reference leads to."""
    between = [argument for parent in parents or (repo.git("rev-parse", "HEAD"),) for argument in ("-p", parent)]
    return repo.git("commit-tree", "HEAD^{tree}", *between, "-m", subject)


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def dated(repo: Repo, subject: str, second: int, *parents: str) -> str:
    content = f"tree {repo.git('mktree')}\n" + "".join(f"parent {parent}\n" for parent in parents)
    content += f"author A <a@b> {second} +0000\ncommitter A <a@b> {second} +0000\n\n{subject}\n"
    return repo.git("hash-object", "-t", "commit", "-w", "--stdin", stdin=content.encode())


# references ------------------------------------------------------------------------------------------------------


def test_a_branch_and_a_tag_of_one_name_are_two_things(repo: Repo) -> None:
    repo.commit("base")
    branch, tag = empty(repo, "branch"), empty(repo, "tag")
    repo.git("update-ref", "refs/heads/v1", branch)
    repo.git("update-ref", "refs/tags/v1", tag)
    assert places(repo.path)[branch].branches == ("v1",)
    assert tag not in places(repo.path)
    found = places(repo.path, ALL)
    assert (found[branch].branches, found[tag].branches) == (("v1",), ("tags/v1",))


def test_a_branch_named_head_hides_no_other_commit(repo: Repo) -> None:
    base = repo.commit("base")
    named = empty(repo, "named")
    repo.git("update-ref", "refs/heads/HEAD", named)
    repo.git("checkout", "--quiet", "--detach")
    loose = repo.commit("loose", f="1\n")
    found = places(repo.path)
    assert set(found) == {base, named, loose}
    assert (found[named].branch, found[loose].branch) == ("HEAD", "HEAD")
    assert found[base].branch == "main"


def test_a_branch_named_like_a_commit_is_a_branch(repo: Repo) -> None:
    first = repo.commit("first", f="1\n")
    second = repo.commit("second", f="2\n")
    other = empty(repo, "other", first)
    repo.git("update-ref", f"refs/heads/{second}", other)
    repo.git("update-ref", f"refs/heads/{second[:7]}", other)
    found = places(repo.path)
    assert found[second] == Placed(second, "main", ("main",))
    assert found[other].branches == tuple(sorted((second, second[:7])))
    assert read(repo.path)[1].changes == (FileChange("M", "f", insertions=1, deletions=1),)


def test_branches_named_like_options_and_patterns_are_branches(repo: Repo) -> None:
    repo.commit("base")
    names = ["-x", "--all", "@", "a@b", "é☃", "x" * 200, "heads/main", "refs/heads/main", "origin/HEAD"]
    tips = {name: empty(repo, f"on {number}") for number, name in enumerate(names)}
    for name, tip in tips.items():
        repo.git("update-ref", f"refs/heads/{name}", tip)
    found = places(repo.path)
    assert {tip: found[tip].branches for tip in tips.values()} == {tip: (name,) for name, tip in tips.items()}


def test_a_local_and_a_remote_branch_of_one_name_leave_the_store_up_to_date(repo: Repo) -> None:
    repo.commit("base", f="1\n")
    for kind in ("heads", "remotes"):
        repo.git("update-ref", f"refs/{kind}/origin/main", empty(repo, "shared"))
    repo.git("update-ref", "refs/remotes/origin/main", "refs/heads/origin/main")
    where = opening.place(repo.path)
    operations.index(where, Reporter())
    assert not operations.status(where).behind


def test_the_same_detached_head_in_two_worktrees_leaves_the_store_up_to_date(repo: Repo, tmp_path: Path) -> None:
    repo.commit("base", f="1\n")
    for name in ("a", "b"):
        repo.git("worktree", "add", "--quiet", "--detach", str(tmp_path / name))
        repo.git("-C", str(tmp_path / name), "commit", "--quiet", "--allow-empty", "-m", name)
    repo.git("worktree", "add", "--quiet", "--detach", str(tmp_path / "c"), repo.git("-C", str(tmp_path / "a"),
             "rev-parse", "HEAD"))  # fmt: skip
    where = opening.place(repo.path)
    operations.index(where, Reporter())
    assert not operations.status(where).behind
    assert sorted(subjects(repo.path)) == ["a", "b", "base"]
    assert sorted(subjects(tmp_path / "a")) == ["a", "b", "base"]


def test_a_detached_worktree_whose_folder_is_gone_is_read(repo: Repo, tmp_path: Path) -> None:
    repo.commit("base")
    repo.git("worktree", "add", "--quiet", "--detach", str(tmp_path / "linked"))
    repo.git("-C", str(tmp_path / "linked"), "commit", "--quiet", "--allow-empty", "-m", "linked")
    (tmp_path / "linked").rename(tmp_path / "moved")
    assert subjects(repo.path) == ["base", "linked"]


def test_a_worktree_on_an_unborn_branch_is_no_commit(repo: Repo, tmp_path: Path) -> None:
    repo.commit("base")
    repo.git("worktree", "add", "--quiet", "--detach", str(tmp_path / "linked"))
    git(tmp_path / "linked", "switch", "--quiet", "--orphan", "nothing")
    assert subjects(repo.path) == subjects(tmp_path / "linked") == ["base"]


def test_a_worktree_of_a_bare_repository_is_read(repo: Repo, tmp_path: Path) -> None:
    repo.commit("base")
    repo.git("clone", "--quiet", "--bare", str(repo.path), str(tmp_path / "bare.git"))
    git(tmp_path / "bare.git", "worktree", "add", "--quiet", "--detach", str(tmp_path / "linked"))
    repo.git("-C", str(tmp_path / "linked"), "commit", "--quiet", "--allow-empty", "-m", "linked")
    assert subjects(tmp_path / "bare.git") == subjects(tmp_path / "linked") == ["base", "linked"]
    assert locate(tmp_path / "linked").worktree == tmp_path / "linked"


def test_the_detached_head_of_a_bare_repository_is_read(repo: Repo, tmp_path: Path) -> None:
    repo.commit("base")
    repo.git("switch", "--quiet", "--detach")
    repo.commit("loose")
    repo.git("clone", "--quiet", "--bare", str(repo.path), str(tmp_path / "bare.git"))
    assert git(tmp_path / "bare.git", "log", "--format=%s").split() == ["loose", "base"]
    assert subjects(tmp_path / "bare.git") == ["base", "loose"]


def test_a_remote_branch_whose_name_ends_in_head_is_read(repo: Repo) -> None:
    repo.commit("base")
    repo.git("update-ref", "refs/remotes/origin/fix/HEAD", empty(repo, "fix"))
    assert subjects(repo.path) == repo.git("log", "--remotes", "--reverse", "--format=%s").split() == ["base", "fix"]


def test_the_detached_head_of_a_remote_is_read(repo: Repo) -> None:
    repo.commit("base")
    repo.git("update-ref", "refs/remotes/origin/HEAD", empty(repo, "loose"))
    assert subjects(repo.path) == ["base", "loose"]


def test_a_branch_that_is_another_name_for_something_else_is_read(repo: Repo) -> None:
    repo.commit("base")
    repo.git("update-ref", "refs/custom/x", empty(repo, "custom"))
    repo.git("symbolic-ref", "refs/heads/alias", "refs/custom/x")
    assert repo.git("log", "--branches", "--reverse", "--format=%s").split() == ["base", "custom"]
    assert subjects(repo.path) == ["base", "custom"]


def test_a_branch_that_is_another_name_for_a_branch_is_told_once(repo: Repo) -> None:
    base = repo.commit("base")
    repo.git("symbolic-ref", "refs/heads/alias", "refs/heads/main")
    assert places(repo.path) == {base: Placed(base, "main", ("main",))}
    repo.git("symbolic-ref", "HEAD", "refs/heads/alias")
    assert places(repo.path) == {base: Placed(base, "main", ("main",))}


@pytest.mark.parametrize("name", ["refs/remotes/origin/HEAD", "refs/heads/alias"])
def test_another_name_for_a_branch_that_is_gone_is_no_damage(repo: Repo, name: str) -> None:
    repo.commit("base")
    repo.git("symbolic-ref", name, "refs/remotes/origin/gone")
    assert repo.git("log", "--all", "--format=%s") == "base"
    assert subjects(repo.path) == ["base"]
    assert subjects(repo.path, ALL) == ["base"]


@pytest.mark.parametrize("content", ["", "garbage\n", "0" * 40 + "\n", "1" * 40 + "\n"])
def test_a_ruined_reference_is_an_error_and_no_short_success(repo: Repo, content: str) -> None:
    repo.commit("base")
    repo.git("update-ref", "refs/heads/side", empty(repo, "side"))
    (repo.path / ".git" / "refs" / "heads" / "side").write_text(content)
    with pytest.raises((DamagedRepository, RepositoryError)):
        read(repo.path)


def test_a_tag_of_a_tag_is_followed_to_its_commit(repo: Repo) -> None:
    repo.commit("base")
    repo.git("tag", "-a", "-m", "t", "inner", empty(repo, "deep"))
    repo.git("tag", "-a", "-m", "t", "outer", "inner")
    repo.git("tag", "-d", "inner")
    assert repo.git("log", "--tags", "--reverse", "--format=%s").split() == ["base", "deep"]
    assert subjects(repo.path, ALL) == ["base", "deep"]


def test_a_tag_of_a_tag_among_the_remote_branches_is_followed(repo: Repo) -> None:
    repo.commit("base")
    deep = empty(repo, "deep")
    repo.git("tag", "-a", "-m", "t", "inner", deep)
    repo.git("tag", "-a", "-m", "t", "outer", "inner")
    repo.git("update-ref", "refs/remotes/origin/outer", repo.git("rev-parse", "outer"))
    assert places(repo.path)[deep].branch == "origin/outer"


def test_tags_notes_stashes_and_pull_requests_are_read_when_all_references_are(repo: Repo) -> None:
    repo.commit("base", f="1\n")
    repo.git("update-ref", "refs/pull/7/head", empty(repo, "pull"))
    repo.git("tag", "light", empty(repo, "light"))
    repo.git("tag", "-a", "-m", "t", "heavy", empty(repo, "heavy"))
    repo.git("tag", "a-blob", "HEAD:f")
    repo.git("tag", "a-tree", "HEAD^{tree}")
    repo.git("notes", "add", "-m", "a note")
    repo.write("f", "2\n")
    repo.git("stash", "--quiet")
    assert subjects(repo.path) == ["base"]
    assert sorted(subjects(repo.path, ALL)) == sorted(repo.git("log", "--all", "--format=%s").split("\n"))
    by_subject = {commit.subject: places(repo.path, ALL)[commit.hash].branch for commit in read(repo.path, ALL)}
    assert by_subject["pull"] == "pull/7/head"
    assert (by_subject["light"], by_subject["heavy"]) == ("tags/light", "tags/heavy")


def test_a_head_that_is_unborn_in_a_repository_of_remote_branches_alone(repo: Repo, make_repo: MakeRepo) -> None:
    repo.commit("base")
    other = make_repo("other")
    other.git("fetch", "--quiet", str(repo.path), "main:refs/remotes/origin/main")
    assert {place.branch for place in places(other.path).values()} == {"origin/main"}


# the walk --------------------------------------------------------------------------------------------------------


def test_clocks_that_go_backwards_put_no_child_before_a_parent(repo: Repo) -> None:
    """Two lines of ten and merges between them, each commit an hour before its parents."""
    left = right = dated(repo, "root", 1_700_000_000)
    for number in range(10):
        second = 1_700_000_000 - (number + 1) * 3600
        left, right = dated(repo, f"l{number}", second, left), dated(repo, f"r{number}", second + 7200, right)
        if number % 3 == 2:
            left = dated(repo, f"m{number}", 1 + number, left, right)
    repo.git("update-ref", "refs/heads/main", left)
    repo.git("update-ref", "refs/heads/side", right)
    commits = read(repo.path)
    at = {commit.hash: number for number, commit in enumerate(commits)}
    assert len(commits) == 24
    assert all(at[parent] < at[commit.hash] for commit in commits for parent in commit.parents)
    records, _ = stored(repo.path)
    assert [record.commit_hash for record in records] == list(at)


def test_an_octopus_of_sixty_branches_is_told_whole(repo: Repo) -> None:
    base = repo.commit("base", base="1\n")
    stream = [
        b"commit refs/heads/arm%d\ncommitter A <a@b> %d +0000\ndata 3\narm\n" % (number, 1_700_000_100 + number)
        + b"from %s\nM 100644 inline f%d\ndata 2\n1\n\n" % (base.encode(), number)
        for number in range(60)
    ]
    stream.append(b"commit refs/heads/main\ncommitter A <a@b> 1700001000 +0000\ndata 4\nknot\nfrom refs/heads/arm0\n")
    stream += [b"merge refs/heads/arm%d\n" % number for number in range(1, 60)]
    stream += [b"M 100644 inline f%d\ndata 2\n1\n\n" % number for number in range(60)]
    repo.git("fast-import", "--quiet", "--force", stdin=b"".join(stream))
    for caps in (None, LARGE):
        knot = read(repo.path, caps=caps)[-1]
        assert knot.parents == tuple(repo.git("rev-parse", f"arm{number}") for number in range(60))
        assert {change.path for change in knot.changes} == {f"f{number}" for number in range(1, 60)}
    found = places(repo.path)
    assert {found[parent].merged_by for parent in knot.parents[1:]} == {knot.hash}
    assert found[knot.parents[0]].merged_by is None
    records, _ = stored(repo.path)
    assert records[-1].parent_hashes == knot.parents
    assert records[-1].insertions == 59


@BOTH
def test_a_commit_of_ten_thousand_files_and_one_that_moves_them_are_told_whole(repo: Repo, caps: Caps | None) -> None:
    stream = b"commit refs/heads/main\ncommitter A <a@b> 1700000000 +0000\ndata 4\nmany\n"
    stream += b"".join(b"M 100644 inline d%d/f%d\ndata 6\n%05d\n\n" % (n % 100, n, n) for n in range(10_000))
    stream += b"commit refs/heads/main\ncommitter A <a@b> 1700000060 +0000\ndata 5\nmoved\n"
    stream += b"".join(b"R d%d moved%d\n" % (number, number) for number in range(100))
    stream += b"commit refs/heads/main\ncommitter A <a@b> 1700000120 +0000\ndata 7\nchanged\n"
    stream += b"".join(b"M 100644 inline moved%d/f%d\ndata 7\n%05dx\n\n" % (n % 100, n, n) for n in range(10_000))
    repo.git("fast-import", "--quiet", stdin=stream)
    many, moved, changed = read(repo.path, caps=caps)
    assert (len(many.changes), sum(change.insertions for change in many.changes)) == (10_000, 10_000)
    assert {(change.status, change.insertions, change.deletions) for change in moved.changes} == {("R", 0, 0)}
    assert len(moved.changes) == 10_000
    assert {(change.status, change.insertions, change.deletions) for change in changed.changes} == {("M", 1, 1)}
    assert [len(commit.patches) for commit in (many, moved, changed)] == ([10_000, 0, 10_000] if caps else [0, 0, 0])
    assert not [commit.flags for commit in (many, moved, changed) if commit.flags]


# parts of repositories -------------------------------------------------------------------------------------------


def objects(folder: Path) -> set[str]:
    return {str(path) for path in (folder / ".git" / "objects").rglob("*") if path.is_file()}


@pytest.mark.parametrize("what", ["blob:none", "tree:0"])
def test_a_partial_clone_is_told_without_figures_and_fetches_nothing(story: Repo, tmp_path: Path, what: str) -> None:
    story.git("config", "uploadpack.allowFilter", "true")
    clone = tmp_path / "clone"
    story.git("clone", "--quiet", "--no-checkout", f"--filter={what}", f"file://{story.path}", str(clone))
    before = objects(clone)
    whole = {commit.hash: commit for commit in read(story.path)}
    records, report = stored(clone)
    assert [record.commit_hash for record in records] == list(whole)
    for record in records:
        changes = whole[record.commit_hash].changes
        if what == "blob:none":
            assert record.diff_complete == (not changes)
            assert {change.path for change in changes} <= set(record.stats)
        assert (record.insertions, record.deletions) == (0, 0)
        assert record.message_subject == whole[record.commit_hash].subject
    partial = sum(not record.diff_complete for record in records)
    assert report.warnings == [f"{partial} of 23 commits have a partial diff: objects are missing"]
    assert partial > 20
    operations.scrape(opening.place(clone), Reporter(), patches=True)
    assert objects(clone) == before
    # The remote is there, and git itself would have asked it.
    assert git(clone, "cat-file", "-p", "HEAD:README.md")
    assert objects(clone) != before


def test_a_partial_clone_with_a_mailmap_and_attributes_is_read(repo: Repo, tmp_path: Path) -> None:
    repo.git("config", "uploadpack.allowFilter", "true")
    repo.commit(
        "one", __mailmap="Grace <grace@example.com> <ada@example.com>\n", __gitattributes="f linguist-generated"
    )
    repo.commit("two", f="1\n")
    clone = tmp_path / "clone"
    repo.git("clone", "--quiet", "--no-checkout", "--filter=blob:none", f"file://{repo.path}", str(clone))
    before = objects(clone)
    where = opening.place(clone, flags={"scrape": {"mailmap": True, "refs": "all"}})
    assert operations.scrape(where, Reporter(), patches=True).partial == 2
    assert objects(clone) == before


def test_a_shallow_clone_of_one_commit_of_a_sha256_repository_is_read(make_repo: MakeRepo, tmp_path: Path) -> None:
    repo = make_repo("long", "--object-format=sha256")
    repo.commit("one", a="1\n")
    two = repo.commit("two", a="1\n2\n")
    clone = tmp_path / "clone"
    repo.git("clone", "--quiet", "--depth", "1", f"file://{repo.path}", str(clone))
    (record,), _ = stored(clone)
    assert (record.commit_hash, record.flags, record.files_added) == (two, ("shallow",), ("a",))


def test_a_sha256_repository_is_stored_with_all_it_has(make_repo: MakeRepo, tmp_path: Path) -> None:
    repo = make_repo("long", "--object-format=sha256")
    base = repo.commit(
        "base", f="1\n", __mailmap="Grace <g@b> <ada@example.com>\n", __gitattributes="f linguist-generated"
    )
    side = empty(repo, "side")
    merge = empty(repo, "Merge side", base, side)
    repo.git("update-ref", "refs/heads/main", merge)
    repo.git("worktree", "add", "--quiet", "--detach", str(tmp_path / "linked"))
    repo.git("-C", str(tmp_path / "linked"), "commit", "--quiet", "--allow-empty", "-m", "linked")
    where = opening.place(repo.path, flags={"scrape": {"mailmap": True}})
    operations.scrape(where, Reporter(), patches=True)
    with where.store(existing=True) as store:
        records = list(store.records())
        assert store.paths()["f"] == "generated"
    assert [record.message_subject for record in records] == ["base", "side", "Merge side", "linked"]
    assert {record.author_name for record in records} == {"Grace"}
    assert records[1].merged_by == merge


@pytest.mark.parametrize("links", [1, 5])
def test_objects_borrowed_through_other_repositories_are_found(repo: Repo, tmp_path: Path, links: int) -> None:
    repo.commit("base", f="1\n")
    last = repo.path
    for number in range(links):
        borrower = tmp_path / f"borrower{number}"
        git(tmp_path, "init", "--quiet", "--initial-branch=main", str(borrower))
        (borrower / ".git" / "objects" / "info" / "alternates").write_text(f"{last / '.git' / 'objects'}\n")
        last = borrower
    git(last, "update-ref", "refs/heads/main", repo.git("rev-parse", "HEAD"))
    assert git(last, "log", "--format=%s") == "base"
    assert subjects(last) == ["base"]


def test_objects_borrowed_by_a_relative_path_are_found(repo: Repo, tmp_path: Path) -> None:
    repo.commit("base", f="1\n")
    repo.git("clone", "--quiet", "--shared", str(repo.path), str(tmp_path / "borrower"))
    alternates = tmp_path / "borrower" / ".git" / "objects" / "info" / "alternates"
    alternates.write_text("../../../project/.git/objects\n")
    assert subjects(tmp_path / "borrower") == ["base"]


# repositories that change while they are read --------------------------------------------------------------------


def test_commits_added_after_the_reader_was_opened_come_with_the_next_one(story: Repo) -> None:
    before = read(story.path)
    with open_reader(story.path, ONE) as reader:
        story.commit("later", f="1\n")
        story.git("branch", "--force", "feature/bridge", "HEAD")
        assert list(reader.commits([node.hash for node in reader.nodes])) == before
    assert len(read(story.path)) == len(before) + 1


@BOTH
def test_a_repack_between_opening_and_reading_changes_nothing(story: Repo, caps: Caps | None) -> None:
    before = read(story.path, caps=caps)
    with open_reader(story.path, ONE) as reader:
        commits = reader.commits([node.hash for node in reader.nodes], caps=caps)
        found = [next(commits)]
        for _ in range(2):  # from loose files to a pack, and to another pack
            story.git("repack", "-a", "-d", "-q", "-f", "--window=1")
            story.git("prune-packed", "--quiet")
            story.git("gc", "--quiet", "--prune=now")
            found.append(next(commits))
        assert [*found, *commits] == before


def test_a_branch_deleted_while_its_commits_are_there_is_read_to_its_end(story: Repo) -> None:
    story.git("branch", "gone", story.git("commit-tree", "HEAD^{tree}", "-p", "HEAD", "-m", "gone"))
    before = read(story.path)
    with open_reader(story.path, ONE) as reader:
        story.git("branch", "--quiet", "-D", "gone")
        assert list(reader.commits([node.hash for node in reader.nodes])) == before
    assert len(read(story.path)) == len(before) - 1


@BOTH
def test_a_branch_deleted_with_its_objects_is_an_error_and_the_next_reading_is_whole(
    story: Repo, caps: Caps | None
) -> None:
    whole = read(story.path)
    story.git("switch", "--quiet", "-c", "gone")
    for number in range(3):
        story.commit(f"gone {number}", gone=f"{number}\n")
    with open_reader(story.path, ONE) as reader:
        story.git("switch", "--quiet", "main")
        story.git("branch", "--quiet", "-D", "gone")
        story.git("reflog", "expire", "--expire=now", "--all")
        story.git("gc", "--quiet", "--prune=now")
        with pytest.raises(DamagedRepository):
            list(reader.commits([node.hash for node in reader.nodes], caps=caps))
    assert read(story.path) == whole


def test_a_repository_deleted_while_it_is_read_is_an_error(story: Repo) -> None:
    with open_reader(story.path, ONE) as reader:
        (story.path / ".git" / "objects").rename(story.path / "elsewhere")
        with pytest.raises(DamagedRepository):
            list(reader.commits([node.hash for node in reader.nodes]))
