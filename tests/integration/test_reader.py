"""What is read of a repository, case by case. git itself, asked without our parsing, says what is right."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from repositories import Repo, tell_story
from treering.config import ScrapeSettings
from treering.errors import RepositoryError
from treering.git.reader import Caps, locate, open_reader
from treering.types import Commit, FileChange, Placed

LARGE = Caps(file=1 << 30, commit=1 << 30)


MakeRepo = Callable[..., Repo]


def read(path: Path, *, workers: int = 1, caps: Caps | None = None) -> list[Commit]:
    with open_reader(path, ScrapeSettings(workers=workers)) as reader:
        return list(reader.commits([node.hash for node in reader.nodes], caps=caps))


def read_one(path: Path, name: str, *, caps: Caps | None = None) -> Commit:
    with open_reader(path, ScrapeSettings(workers=1)) as reader:
        (commit,) = reader.commits([name], caps=caps)
    return commit


def newest(repo: Repo) -> Commit:
    return read_one(repo.path, repo.git("rev-parse", "HEAD"))


def places(path: Path) -> dict[str, Placed]:
    with open_reader(path, ScrapeSettings(workers=1)) as reader:
        return {place.hash: place for place in reader.places()}


def raw_commit(
    repo: Repo,
    message: bytes = b"crafted\n",
    *,
    headers: bytes = b"",
    author: bytes = b"Ada <ada@example.com> 1700000000 +0100",
    committer: bytes = b"Ada <ada@example.com> 1700000000 +0100",
    parents: tuple[str, ...] | None = None,
    tree: str | None = None,
    branch: str | None = "main",
) -> str:
    """Write a commit object byte for byte, whatever git thinks of it, and put the branch on it."""
    if parents is None:
        head = repo.git("rev-parse", "--verify", "--quiet", "HEAD", check=False)
        parents = (head,) if head else ()
    tree = tree or (f"{parents[0]}^{{tree}}" if parents else repo.git("mktree"))
    content = b"tree %s\n" % repo.git("rev-parse", tree).encode()
    content += b"".join(b"parent %s\n" % parent.encode() for parent in parents)
    content += b"author %s\ncommitter %s\n%s\n%s" % (author, committer, headers, message)
    name = repo.git("hash-object", "-t", "commit", "-w", "--stdin", "--literally", stdin=content)
    if branch:
        repo.git("update-ref", f"refs/heads/{branch}", name)
    return name


def git_figures(repo: Repo, commit: Commit) -> list[tuple[str, str | None, int, int, bool]]:
    """Path, old path, insertions, deletions, binary: as ``git diff-tree -M --numstat`` has them."""
    pair = [commit.parents[0], commit.hash] if commit.parents else ["--root", "--no-commit-id", commit.hash]
    fields = iter(repo.git("diff-tree", "-r", "-M", "--numstat", "-z", *pair).split("\0"))
    figures = []
    for field in fields:
        if field:
            insertions, deletions, path = field.split("\t", 2)
            old_path = None
            if not path:
                old_path, path = next(fields), next(fields)
            binary = insertions == "-"
            figures.append((path, old_path, 0 if binary else int(insertions), 0 if binary else int(deletions), binary))
    return figures


def our_figures(commit: Commit) -> list[tuple[str, str | None, int, int, bool]]:
    return [
        (change.path, change.old_path, change.insertions, change.deletions, change.binary) for change in commit.changes
    ]


def gitlink(repo: Repo, name: str, target: str) -> str:
    repo.git("update-index", "--add", "--cacheinfo", f"160000,{target},{name}")
    repo.git("commit", "--quiet", "-m", f"Point {name} at {target[:7]}")
    return repo.git("rev-parse", "HEAD")


@pytest.fixture(scope="module")
def museum(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """The story, and one commit for every oddity a diff can have. Made once: no test may change it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        repo = tell_story(Repo(tmp_path_factory.mktemp("museum")))
        odd = "a\ttab \"quote\" 'and'\nnewline: \\ colon"
        repo.write(odd, "one\ntwo\n")
        repo.write(os.fsdecode(b"caf\xe9.txt"), "latin\n")
        repo.write("empty", "")
        repo.write("no_newline", "first\nlast")
        repo.write(
            "tricks/@@ -1 +1 @@", "+plus\n-minus\n++ b/x\n-- a/x\ndiff --git a/x b/x\n@@ -1 +1 @@\nBinary files \n"
        )
        repo.write("tool.sh", "#!/bin/sh\necho hello\n")
        repo.write("link", "a file\nof its own\n")
        repo.commit("Odd names and contents")
        repo.write(odd, "one\n2\nthree\n")
        repo.write("no_newline", "first\nlast\n")
        repo.write("tricks/@@ -1 +1 @@", "-- a/x\n+plus\ndiff --git a/y b/y\n")
        repo.write("data", b"\0\1\2")
        repo.commit("Change them, with a binary")
        repo.write("data", "now text\n")
        repo.git("mv", "core/market.py", "core/trade.py")
        repo.commit("A binary becomes text, a file gets a new name")
        (repo.path / "tool.sh").chmod(0o755)
        repo.commit("Only a mode")
        (repo.path / "link").unlink()
        (repo.path / "link").symlink_to("elsewhere")
        repo.commit("A file becomes a link")
        gitlink(repo, "library", "1" * 40)
        gitlink(repo, "library", "2" * 40)
        repo.git("update-ref", "refs/remotes/origin/old", "main~9")
    return repo


# diffs -----------------------------------------------------------------------------------------------------------


def test_every_commit_has_gits_own_figures(museum: Repo) -> None:
    commits = read(museum.path)
    assert len(commits) == int(museum.git("rev-list", "--count", "--all"))
    for commit in commits:
        assert commit.diff_complete
        assert our_figures(commit) == git_figures(museum, commit)


def test_reading_hunks_gives_the_same_changes_as_reading_figures(museum: Repo) -> None:
    figures = read(museum.path)
    hunks = read(museum.path, caps=LARGE)
    assert [commit.changes for commit in hunks] == [commit.changes for commit in figures]
    assert [commit.flags for commit in hunks] == [commit.flags for commit in figures]


def test_the_number_of_workers_changes_nothing(museum: Repo) -> None:
    assert read(museum.path, workers=1) == read(museum.path, workers=3)
    assert read(museum.path, workers=1, caps=LARGE) == read(museum.path, workers=3, caps=LARGE)


def test_many_chunks_come_back_in_order(repo: Repo) -> None:
    stream = b"".join(
        b"commit refs/heads/main\ncommitter Ada <ada@example.com> %d +0000\ndata 4\nn%03d\n"
        b"M 100644 inline file%d\ndata %d\n%s\n"
        % (number * 60, number, number % 7, number % 45 * 2, b"x\n" * (number % 45))
        for number in range(700)
    )
    repo.git("fast-import", "--quiet", stdin=stream)
    alone = read(repo.path, workers=1)
    assert [commit.subject for commit in alone] == [f"n{number:03}" for number in range(700)]
    assert read(repo.path, workers=3) == alone
    assert [commit.changes for commit in read(repo.path, workers=3, caps=LARGE)] == [commit.changes for commit in alone]


def test_a_merge_is_told_against_its_first_parent(repo: Repo) -> None:
    repo.commit("base", base="1\n")
    repo.git("switch", "--quiet", "-c", "side")
    repo.commit("side", side="1\n2\n")
    repo.git("switch", "--quiet", "main")
    first = repo.commit("main", main="1\n")
    repo.git("merge", "--quiet", "--no-ff", "-m", "Merge side", "side")
    merge = newest(repo)
    assert merge.parents == (first, repo.git("rev-parse", "side"))
    assert merge.changes == (FileChange("A", "side", insertions=2),)


def test_a_conflict_resolved_in_a_merge_counts_what_the_merge_did_to_its_first_parent(repo: Repo) -> None:
    repo.commit("base", f="1\n")
    repo.git("switch", "--quiet", "-c", "side")
    repo.commit("side", f="side\n")
    repo.git("switch", "--quiet", "main")
    repo.commit("main", f="main\n")
    repo.git("merge", "--quiet", "side", check=False)
    repo.write("f", "main\nside\nboth\n")
    repo.git("commit", "--quiet", "--all", "-m", "Merge side")
    assert newest(repo).changes == (FileChange("M", "f", insertions=2),)


def test_an_octopus_merge_keeps_all_its_parents(repo: Repo) -> None:
    base = repo.commit("base", base="1\n")
    arms = []
    for name in ("a", "b", "c"):
        repo.git("switch", "--quiet", "-c", name, base)
        arms.append(repo.commit(name, **{name: f"{name}\n"}))
    repo.git("switch", "--quiet", "main")
    repo.git("merge", "--quiet", "-m", "Octopus", "a", "b", "c")
    octopus = newest(repo)
    assert octopus.parents == (base, *arms) or octopus.parents == tuple(arms)
    assert our_figures(octopus) == git_figures(repo, octopus)


def test_a_merge_of_forty_parents_is_one_commit_like_any_other(repo: Repo) -> None:
    base = repo.commit("base", base="1\n")
    arms = [raw_commit(repo, b"arm %d\n" % number, parents=(base,), branch=None) for number in range(40)]
    repo.commit("a file", f="1\n2\n")
    tree = repo.git("rev-parse", "HEAD^{tree}")
    repo.git("reset", "--hard", "--quiet", base)
    knot = raw_commit(repo, b"knot\n", parents=tuple(arms), tree=tree)
    for caps in (None, LARGE):
        commit = read_one(repo.path, knot, caps=caps)
        assert commit.parents == tuple(arms)
        assert commit.changes == (FileChange("A", "f", insertions=2),)
    assert len(read(repo.path)) == 42


def test_a_root_commit_adds_everything_it_holds(repo: Repo) -> None:
    repo.commit("root", a="1\n2\n", b="1\n")
    root = newest(repo)
    assert root.parents == ()
    assert root.changes == (FileChange("A", "a", insertions=2), FileChange("A", "b", insertions=1))


def test_a_second_root_is_read_too(repo: Repo) -> None:
    repo.commit("one", a="1\n")
    repo.git("switch", "--quiet", "--orphan", "other")
    other = repo.commit("two", b="1\n")
    assert read_one(repo.path, other).changes == (FileChange("A", "b", insertions=1),)


def test_an_empty_commit_is_whole_and_changes_nothing(repo: Repo) -> None:
    repo.commit("root without a file")
    repo.commit("nothing again")
    for caps in (None, LARGE):
        commits = read(repo.path, caps=caps)
        assert [(commit.changes, commit.diff_complete) for commit in commits] == [((), True), ((), True)]


def test_a_rename_keeps_the_old_path_and_counts_only_what_changed(repo: Repo) -> None:
    repo.commit("start", old="".join(f"line {number}\n" for number in range(20)))
    repo.git("mv", "old", "new")
    repo.commit("move")
    repo.git("mv", "new", "newer")
    repo.commit("move and change", newer="".join(f"line {number}\n" for number in range(21)))
    _, move, edit = read(repo.path)
    assert move.changes == (FileChange("R", "new", old_path="old"),)
    assert edit.changes == (FileChange("R", "newer", old_path="new", insertions=1),)


def test_a_copy_is_an_added_file(repo: Repo) -> None:
    text = "".join(f"line {number}\n" for number in range(20))
    repo.commit("start", original=text)
    repo.commit("copy", copy=text)
    assert newest(repo).changes == (FileChange("A", "copy", insertions=20),)


ODD_NAMES = [
    "new\nline",
    "a\ttab",
    'a "quote"',
    "colon: ",
    "back\\slash",
    " spaces ",
    "naïve ☃",
    "-dash",
    "\x1b[31mred",
]


def test_a_path_is_told_exactly_whatever_its_name(repo: Repo) -> None:
    for lines, name in enumerate(ODD_NAMES, start=1):
        repo.write(f"folder/{name}", f"{name}\n" * lines)
    repo.commit("odd")
    for number, name in enumerate(ODD_NAMES):
        (repo.path / "folder" / name).rename(repo.path / "folder" / f"plain{number}")
    repo.commit("away")
    for caps in (None, LARGE):
        odd, away = read(repo.path, caps=caps)
        assert {change.path for change in odd.changes} == {f"folder/{name}" for name in ODD_NAMES}
        assert our_figures(odd) == git_figures(repo, odd)
        assert set(away.changes) == {
            FileChange("R", f"folder/plain{number}", old_path=f"folder/{name}") for number, name in enumerate(ODD_NAMES)
        }
        assert odd.flags == away.flags == ()


def test_a_path_that_is_not_utf_8_is_shown_and_flagged(repo: Repo) -> None:
    repo.write(os.fsdecode(b"caf\xe9"), "1\n")
    repo.commit("latin")
    repo.git("mv", os.fsdecode(b"caf\xe9"), "cafe")
    repo.commit("ascii")
    for caps in (None, LARGE):
        latin, ascii_ = read(repo.path, caps=caps)
        assert latin.changes == (FileChange("A", "caf\N{REPLACEMENT CHARACTER}", insertions=1),)
        assert ascii_.changes[0].old_path == "caf\N{REPLACEMENT CHARACTER}"
        assert latin.flags == ascii_.flags == ("path-encoding",)


def test_a_binary_file_has_no_lines(repo: Repo) -> None:
    repo.commit("add", data=b"\0one\n")
    repo.commit("change", data=b"\0two\n")
    repo.commit("drop", data=None)
    for caps in (None, LARGE):
        assert [commit.changes for commit in read(repo.path, caps=caps)] == [
            (FileChange("A", "data", binary=True),),
            (FileChange("M", "data", binary=True),),
            (FileChange("D", "data", binary=True),),
        ]


def test_a_binary_file_that_becomes_text_is_still_a_binary_change(repo: Repo) -> None:
    repo.commit("add", data=b"\0one\n")
    repo.commit("text", data="one\n")
    repo.commit("text again", data="two\n")
    for caps in (None, LARGE):
        _, turned, text = read(repo.path, caps=caps)
        assert turned.changes == (FileChange("M", "data", binary=True),)
        assert text.changes == (FileChange("M", "data", insertions=1, deletions=1),)


def test_a_change_of_mode_is_a_modification_of_no_lines(repo: Repo) -> None:
    repo.commit("add", tool="echo\n")
    (repo.path / "tool").chmod(0o755)
    repo.commit("mode")
    for caps in (None, LARGE):
        assert read_one(repo.path, repo.git("rev-parse", "HEAD"), caps=caps).changes == (FileChange("M", "tool"),)


def test_a_symlink_is_text_of_one_line(repo: Repo) -> None:
    (repo.path / "link").symlink_to("target")
    repo.commit("link")
    assert newest(repo).changes == (FileChange("A", "link", insertions=1),)


def test_a_file_that_becomes_a_symlink_and_back_changed_its_type(repo: Repo) -> None:
    repo.commit("file", thing="one\ntwo\n")
    (repo.path / "thing").unlink()
    (repo.path / "thing").symlink_to("elsewhere")
    repo.commit("link")
    (repo.path / "thing").unlink()
    repo.commit("file", thing="one\ntwo\n")
    for caps in (None, LARGE):
        _, link, file = read(repo.path, caps=caps)
        assert link.changes == (FileChange("T", "thing", insertions=1, deletions=2),)
        assert file.changes == (FileChange("T", "thing", insertions=2, deletions=1),)


def test_a_submodule_is_flagged_and_counts_as_git_counts_it(repo: Repo) -> None:
    repo.commit("base")
    names = [gitlink(repo, "library", "1" * 40), gitlink(repo, "library", "2" * 40)]
    repo.git("rm", "--quiet", "--cached", "library")
    repo.git("commit", "--quiet", "-m", "drop")
    names.append(repo.git("rev-parse", "HEAD"))
    for caps in (None, LARGE):
        assert [read_one(repo.path, name, caps=caps).changes for name in names] == [
            (FileChange("A", "library", insertions=1, submodule=True),),
            (FileChange("M", "library", insertions=1, deletions=1, submodule=True),),
            (FileChange("D", "library", deletions=1, submodule=True),),
        ]


# hunks -----------------------------------------------------------------------------------------------------------


def test_hunks_are_gits_own_lines(museum: Repo) -> None:
    with_text = [commit for commit in read(museum.path, caps=LARGE) if commit.patches]
    assert len(with_text) > 20
    for commit in with_text:
        pair = [commit.parents[0], commit.hash] if commit.parents else ["--root", "--no-commit-id", commit.hash]
        lines = museum.git("diff-tree", "-r", "-M", "-p", "--full-index", *pair).split("\n")
        ours = [line for patch in commit.patches for line in patch.text.split("\n") if line]
        assert [line for line in ours if line.startswith("@@ -")] == [line for line in lines if line.startswith("@@ -")]
        assert not [line for line in ours if line.rstrip() not in {line.rstrip() for line in lines}]
        insertions = sum(line.startswith("+") for line in ours)
        assert insertions == sum(change.insertions for change in commit.changes)


def test_a_patch_names_the_file_and_begins_at_its_first_hunk(repo: Repo) -> None:
    repo.commit("start", f="a\nb\nc\n")
    repo.commit("change", f="a\nB\nc\n")
    (patch,) = read_one(repo.path, repo.git("rev-parse", "HEAD"), caps=LARGE).patches
    assert (patch.path, patch.cut) == ("f", 0)
    assert patch.text == "@@ -1,3 +1,3 @@\n a\n-b\n+B\n c\n"


def test_figures_alone_bring_no_hunks(museum: Repo) -> None:
    assert not any(commit.patches for commit in read(museum.path))


def test_a_cap_on_a_file_cuts_its_hunks_and_says_how_much(repo: Repo) -> None:
    repo.commit("much", big="0123456789\n" * 1000, small="1\n")
    name = repo.git("rev-parse", "HEAD")
    whole, small = read_one(repo.path, name, caps=LARGE).patches
    commit = read_one(repo.path, name, caps=Caps(file=100, commit=1 << 30))
    kept = commit.patches[0].text
    assert whole.text.startswith(kept)
    assert 100 - len("+0123456789\n") < len(kept) <= 100
    assert kept.endswith("\n")
    assert commit.patches[0].cut == len(whole.text) - len(kept)
    assert commit.patches[1] == small
    assert commit.changes == read_one(repo.path, name).changes
    assert commit.diff_complete


def test_a_cap_on_a_commit_is_shared_by_its_files_in_order(repo: Repo) -> None:
    repo.commit("much", a="0123456789\n" * 20, b="0123456789\n" * 20, c="0123456789\n" * 20)
    name = repo.git("rev-parse", "HEAD")
    whole = read_one(repo.path, name, caps=LARGE).patches
    cut = read_one(repo.path, name, caps=Caps(file=200, commit=300)).patches
    assert [patch.path for patch in cut] == ["a", "b", "c"]
    head, line = len("@@ -0,0 +1,20 @@\n"), len("+0123456789\n")
    # whole lines only: 15 fit into 200 bytes, and what they leave of 300 takes 7
    assert [len(patch.text) for patch in cut] == [head + 15 * line, head + 7 * line, 0]
    assert [patch.cut for patch in cut] == [
        len(full.text.removeprefix(kept.text)) for full, kept in zip(whole, cut, strict=True)
    ]


def test_a_line_longer_than_the_cap_is_left_out_whole(repo: Repo) -> None:
    repo.commit("snow", f="☃" * 100 + "\n")
    name = repo.git("rev-parse", "HEAD")
    head = "@@ -0,0 +1 @@\n"
    for size in range(20, 26):
        (patch,) = read_one(repo.path, name, caps=Caps(file=size, commit=1000)).patches
        assert (patch.text, patch.cut) == (head, len(f"+{'☃' * 100}\n".encode()))


@pytest.mark.parametrize("size", [100, 10_000, 3 << 20])
def test_a_patch_that_comes_in_pieces_counts_as_one_that_comes_whole(repo: Repo, size: int) -> None:
    """Pieces end where the pipe had it: in the middle of a line that is longer than a piece, too."""
    repo.commit("long", f="x" * size + "\nend\n", g="+\n-\n" * 1000, h="- no newline at the end")
    name = repo.commit("longer", f="x" * size + "y\nend\n", g="-\n+\n" * 1000, h="+ no newline\n")
    plain, patched = read_one(repo.path, name), read_one(repo.path, name, caps=LARGE)
    assert patched.changes == plain.changes
    capped = read_one(repo.path, name, caps=Caps(50, 100))
    assert (capped.changes, capped.patch_id) == (plain.changes, patched.patch_id)


def test_a_patch_is_named_by_its_content_and_so_is_its_inverse(repo: Repo) -> None:
    """A cherry-pick has its original's name at other line numbers; a revert has its inverse's."""
    lines = [f"line {number}\n" for number in range(40)]
    repo.commit("base", f="".join(lines), g="g\n")
    changed = [*lines[:20], "new\n", *lines[22:]]
    there = repo.commit("change", f="".join(changed), g=None, h="h\n")
    back = repo.commit("revert", f="".join(lines), g="g\n", h=None)
    repo.commit("shift", f="top\n" + "".join(lines))
    again = repo.commit("again", f="top\n" + "".join(changed), g=None, h="h\n")
    other = repo.commit("other", h="h\nmore\n")
    ids = {name: read_one(repo.path, name, caps=LARGE) for name in (there, back, again, other)}
    assert ids[there].patch_id == ids[again].patch_id == ids[back].reverse_id
    assert ids[back].patch_id == ids[there].reverse_id
    assert len({commit.patch_id for commit in ids.values()}) == 3
    assert read_one(repo.path, there).patch_id == ""


def test_an_empty_commit_has_no_patch_id(repo: Repo) -> None:
    repo.commit("base", f="1\n")
    empty = repo.git("commit-tree", "HEAD^{tree}", "-p", "HEAD", "-m", "nothing")
    repo.git("update-ref", "refs/heads/empty", empty)
    assert read_one(repo.path, empty, caps=LARGE).patch_id == ""


# what a commit states --------------------------------------------------------------------------------------------


def test_people_and_times_are_kept_apart(repo: Repo) -> None:
    name = raw_commit(
        repo,
        author=b"Ada Lovelace <ada@example.com> 1700000000 +0530",
        committer=b"Charles <> 1700000100 -0130",
        parents=(),
    )
    commit = read_one(repo.path, name)
    assert (commit.author_name, commit.author_email) == ("Ada Lovelace", "ada@example.com")
    assert (commit.author_time, commit.author_offset) == (1_700_000_000, 330)
    assert (commit.committer_name, commit.committer_email) == ("Charles", "")
    assert (commit.committer_time, commit.committer_offset) == (1_700_000_100, -90)
    assert commit.flags == ()


def test_a_message_is_read_by_the_codec_its_header_names(repo: Repo) -> None:
    name = raw_commit(repo, "Łódź café\n".encode("iso-8859-2"), headers=b"encoding ISO-8859-2\n")
    commit = read_one(repo.path, name)
    assert (commit.subject, commit.flags) == ("Łódź café", ())


def test_a_latin_message_without_a_header_is_read_and_flagged(repo: Repo) -> None:
    commit = read_one(repo.path, raw_commit(repo, "café\n".encode("latin-1")))
    assert (commit.subject, commit.flags) == ("café", ("encoding",))


@pytest.mark.parametrize("codec", [b"x-nonsense", b"ascii", b"rot13"])
def test_a_header_that_names_a_wrong_codec_falls_back_to_utf_8(repo: Repo, codec: bytes) -> None:
    commit = read_one(repo.path, raw_commit(repo, "caféé\n".encode(), headers=b"encoding %s\n" % codec))
    assert (commit.subject, commit.flags) == ("caféé", ("encoding",))


def test_a_name_in_latin_is_read(repo: Repo) -> None:
    name = raw_commit(repo, author="José <j@example.com> 1700000000 +0000".encode("latin-1"))
    assert read_one(repo.path, name).author_name == "José"


def test_subject_and_body_are_gits_own(repo: Repo) -> None:
    for message in (
        "One line",
        "Subject\n\nBody",
        "Subject\non two lines\n\nBody\n\nof two paragraphs\n",
        "\n\n  \nLate subject\n\nBody",
        "Subject\n\n\n\n    indented body\n\n",
        "",
        "\n\n",
    ):
        raw_commit(repo, message.encode())
    commits = read(repo.path)
    assert len(commits) == 7
    for commit in commits:
        told = repo.git("log", "-1", "--format=%s%x00%b%x01", commit.hash)
        subject, _, body = told.rstrip("\x01").partition("\0")
        assert (commit.subject, commit.body) == (subject, body.rstrip())


@pytest.mark.parametrize("blank", ["", " ", " \t ", "\r"])
def test_a_subject_ends_at_a_line_of_white_space_only(repo: Repo, blank: str) -> None:
    name = raw_commit(repo, f"Subject\nof two lines\n{blank}\nBody\n".encode())
    assert read_one(repo.path, name).subject == "Subject of two lines" == repo.git("log", "-1", "--format=%s", name)


def test_a_nul_in_a_message_truncates_nothing(repo: Repo) -> None:
    commit = read_one(repo.path, raw_commit(repo, b"Before\0after\n\nBody\n"))
    assert (commit.subject, commit.body) == ("Before\0after", "Body")


def test_a_message_like_a_header_is_a_message(repo: Repo) -> None:
    commit = read_one(repo.path, raw_commit(repo, b"author nobody\nparent 123\n\nencoding x\n"))
    assert (commit.subject, commit.body, len(commit.flags)) == ("author nobody parent 123", "encoding x", 0)


def test_a_signature_in_the_header_is_no_part_of_the_message(repo: Repo) -> None:
    signature = b"gpgsig -----BEGIN PGP SIGNATURE-----\n \n author in it\n -----END PGP SIGNATURE-----\n"
    commit = read_one(repo.path, raw_commit(repo, b"Signed\n", headers=signature))
    assert (commit.subject, commit.body, commit.author_name) == ("Signed", "", "Ada")


def test_an_absurd_date_is_zero_and_flagged(repo: Repo) -> None:
    first = repo.commit("before")
    for date in (b"-100", b"9223372036854775807", b"99999999999999999999999", b"253402300800", b""):
        person = b"Ada <ada@example.com> %s +0100" % date
        raw_commit(repo, b"absurd\n", author=person, committer=person)
    last = repo.commit("after", f="1\n")
    before, *absurd, after = read(repo.path)
    assert (before.hash, after.hash) == (first, last)
    for commit in absurd:
        assert (commit.subject, commit.author_time, commit.committer_time) == ("absurd", 0, 0)
        assert commit.flags == ("author-date", "committer-date")
    assert before.flags == after.flags == ()
    assert len(absurd) == 5


def test_a_commit_without_people_is_flagged(repo: Repo) -> None:
    commit = read_one(repo.path, raw_commit(repo, author=b"nobody at all", committer=b"also nobody"))
    assert "malformed" in commit.flags
    assert (commit.author_name, commit.author_time, commit.subject) == ("", 0, "crafted")


def test_parents_come_before_children_whatever_the_dates_say(repo: Repo) -> None:
    parents: tuple[str, ...] = ()
    for date in (1_700_000_000, 1_600_000_000, 1_500_000_000):
        person = b"Ada <ada@example.com> %d +0000" % date
        parents = (raw_commit(repo, b"%d\n" % date, author=person, committer=person, parents=parents),)
    assert [commit.subject for commit in read(repo.path)] == ["1700000000", "1600000000", "1500000000"]


def test_only_the_commits_asked_for_are_read_in_walk_order(museum: Repo) -> None:
    with open_reader(museum.path, ScrapeSettings(workers=2)) as reader:
        wanted = [reader.nodes[17].hash, reader.nodes[3].hash]
        assert [commit.hash for commit in reader.commits(wanted)] == wanted[::-1]


# kinds of repositories -------------------------------------------------------------------------------------------


def test_a_shallow_clone_ends_at_a_flagged_root(museum: Repo, tmp_path: Path) -> None:
    museum.git("clone", "--quiet", "--depth", "3", f"file://{museum.path}", str(tmp_path / "shallow"))
    commits = read(tmp_path / "shallow")
    boundary = set((tmp_path / "shallow" / ".git" / "shallow").read_text().split())
    assert {commit.hash for commit in commits if "shallow" in commit.flags} == boundary
    assert all(commit.diff_complete for commit in commits)
    whole = {commit.hash: commit for commit in read(museum.path)}
    for commit in commits:
        if commit.hash in boundary:
            assert commit.parents == whole[commit.hash].parents
            assert {change.status for change in commit.changes} == {"A"}
        else:
            assert commit == whole[commit.hash]


def test_a_detached_head_is_read(repo: Repo) -> None:
    base = repo.commit("base")
    repo.git("switch", "--quiet", "--detach")
    loose = repo.commit("loose", f="1\n")
    found = places(repo.path)
    assert found[loose] == Placed(loose, "HEAD", ("HEAD",))
    assert found[base] == Placed(base, "main", ("main", "HEAD"))


def test_a_detached_linked_worktree_is_read(repo: Repo, tmp_path: Path) -> None:
    repo.commit("base")
    linked = str(tmp_path / "lin\nked")
    repo.git("worktree", "add", "--quiet", "--detach", linked)
    repo.git("-C", linked, "commit", "--quiet", "--allow-empty", "-m", "in the linked one")
    expected = ["base", "in the linked one"]
    assert [commit.subject for commit in read(repo.path)] == expected
    assert [commit.subject for commit in read(Path(linked))] == expected
    assert locate(Path(linked)).worktree == Path(linked)


def test_a_folder_inside_the_repository_leads_to_it(repo: Repo) -> None:
    repo.commit("base", deep_0_er_0_f="1\n")
    assert locate(repo.path / "deep" / "er").worktree == repo.path
    assert len(read(repo.path / "deep" / "er")) == 1


def test_a_bare_repository_is_read_like_any_other(museum: Repo, tmp_path: Path) -> None:
    museum.git("clone", "--quiet", "--bare", str(museum.path), str(tmp_path / "bare.git"))
    source = locate(tmp_path / "bare.git")
    assert (source.worktree, source.name) == (None, "bare")
    assert read(tmp_path / "bare.git") == read(museum.path)


def test_a_git_directory_without_a_config_is_read(story: Repo, tmp_path: Path) -> None:
    before = read(story.path)
    story.git("clone", "--quiet", "--bare", str(story.path), str(tmp_path / "bare.git"))
    for config in (story.path / ".git" / "config", tmp_path / "bare.git" / "config"):
        config.unlink()
    assert read(story.path) == before
    assert read(tmp_path / "bare.git") == before


def test_a_sha256_repository_is_read(make_repo: MakeRepo) -> None:
    repo = make_repo("long", "--object-format=sha256")
    repo.commit("one", a="1\n")
    repo.commit("two", a="1\n2\n")
    repo.write("b", b"\0")
    repo.commit("three")
    for caps in (None, LARGE):
        commits = read(repo.path, caps=caps)
        assert {len(commit.hash) for commit in commits} == {64}
        assert [our_figures(commit) for commit in commits] == [git_figures(repo, commit) for commit in commits]


def test_a_packed_repository_reads_the_same(story: Repo) -> None:
    before = read(story.path)
    story.git("gc", "--quiet")
    story.git("pack-refs", "--all")
    assert read(story.path) == before


@pytest.mark.parametrize("name", ["with spaces: ", "new\nline", '#"quo"\\te', "caf\udce9"])
def test_the_path_of_the_repository_may_be_odd(make_repo: MakeRepo, name: str) -> None:
    repo = make_repo(name)
    repo.commit("one", f="1\n")
    assert locate(repo.path).worktree == repo.path
    assert newest(repo).changes == (FileChange("A", "f", insertions=1),)


def test_objects_borrowed_from_another_repository_are_found(museum: Repo, tmp_path: Path) -> None:
    museum.git("clone", "--quiet", "--shared", str(museum.path), str(tmp_path / "borrower"))
    ours = {commit.hash: commit for commit in read(tmp_path / "borrower")}
    assert ours == {commit.hash: commit for commit in read(museum.path)}


def test_a_replace_ref_is_ignored(repo: Repo) -> None:
    first = repo.commit("the truth", f="1\n")
    other = raw_commit(repo, b"the lie\n", parents=(), branch=None)
    before = read(repo.path)
    repo.git("replace", first, other)
    assert repo.git("log", "--format=%s") == "the lie"
    assert read(repo.path) == before


def test_a_graft_is_ignored(repo: Repo) -> None:
    repo.commit("one", f="1\n")
    second = repo.commit("two", f="2\n")
    before = read(repo.path)
    (repo.path / ".git" / "info").mkdir(exist_ok=True)
    (repo.path / ".git" / "info" / "grafts").write_text(f"{second}\n")
    assert read(repo.path) == before


def test_mailmap_notes_and_tags_change_nothing(repo: Repo) -> None:
    repo.commit("one", __mailmap="Grace <grace@example.com> <ada@example.com>\n")
    before = read(repo.path)
    repo.git("notes", "add", "-m", "a note")
    lost = raw_commit(repo, b"only a tag\n", branch=None)
    repo.git("tag", "v1", lost)
    assert read(repo.path) == before
    assert before[0].author_name == "Ada Lovelace"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a repository away")
def test_a_repository_of_another_owner_is_read(repo: Repo) -> None:
    repo.commit("one")
    for path in (repo.path, repo.path / ".git"):
        os.chown(path, 54_321, 54_321)
    assert "dubious ownership" not in repo.git("status", check=False)
    assert [commit.subject for commit in read(repo.path)] == ["one"]


def test_git_variables_of_the_environment_change_nothing(
    museum: Repo, make_repo: MakeRepo, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = read(museum.path)
    other = make_repo("other")
    other.commit("not this one")
    monkeypatch.setenv("GIT_DIR", str(other.path / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other.path))
    monkeypatch.setenv("GIT_OBJECT_DIRECTORY", str(other.path / ".git" / "objects"))
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "core.bigFileThreshold")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "1")
    monkeypatch.setenv("GIT_EXTERNAL_DIFF", "/bin/false")
    assert read(museum.path) == before


def test_the_users_own_config_changes_nothing(museum: Repo) -> None:
    before = read(museum.path, caps=LARGE)
    (Path(os.environ["HOME"]) / ".gitconfig").write_text(
        "[diff]\n\talgorithm = patience\n\trenames = false\n\tnoprefix = true\n\tcontext = 0\n"
        "[core]\n\tbigFileThreshold = 1\n\tquotePath = false\n[color]\n\tui = always\n"
    )
    assert read(museum.path, caps=LARGE) == before


def test_a_repository_without_commits_is_an_error(repo: Repo) -> None:
    with pytest.raises(RepositoryError, match="no commits"):
        read(repo.path)


def test_an_unborn_head_does_not_hide_the_other_branches(repo: Repo) -> None:
    name = repo.commit("one")
    repo.git("symbolic-ref", "HEAD", "refs/heads/unborn")
    assert places(repo.path)[name].branch == "main"


def test_a_folder_that_is_no_repository_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RepositoryError, match="not a Git repository"):
        locate(tmp_path)


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RepositoryError, match="no folder"):
        locate(tmp_path / "nowhere")


def test_a_file_in_place_of_a_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(RepositoryError, match="no folder"):
        locate(tmp_path / "file")


def test_a_config_that_waits_for_ever_is_an_error(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    repo.commit("one")
    monkeypatch.setattr("treering.git.shadow.REF_SECONDS", 0.3)
    os.mkfifo(repo.path / "pipe")
    with (repo.path / ".git" / "config").open("a") as config:
        config.write(f"[include]\n\tpath = {repo.path / 'pipe'}\n")
    with pytest.raises(RepositoryError, match="did not answer"):
        read(repo.path)


# branches --------------------------------------------------------------------------------------------------------


def test_the_branch_of_head_comes_first(repo: Repo) -> None:
    base = repo.commit("base")
    repo.git("switch", "--quiet", "-c", "work")
    work = repo.commit("work")
    found = places(repo.path)
    assert found[base] == Placed(base, "work", ("work", "main"))
    assert found[work] == Placed(work, "work", ("work",))


@pytest.mark.parametrize("trunk", ["main", "master"])
def test_the_trunk_comes_before_other_local_branches(repo: Repo, trunk: str) -> None:
    base = repo.commit("base")
    repo.git("branch", "--move", trunk)
    repo.git("branch", "alpha")
    repo.git("switch", "--quiet", "--orphan", "zeta")
    repo.commit("elsewhere")
    assert places(repo.path)[base] == Placed(base, trunk, (trunk, "alpha"))


def test_a_local_branch_comes_before_a_remote_one(repo: Repo) -> None:
    base = repo.commit("base")
    shared = raw_commit(repo, b"shared\n", branch="zeta")
    repo.git("update-ref", "refs/remotes/origin/alpha", shared)
    far = raw_commit(repo, b"far\n", parents=(shared,), branch=None)
    repo.git("update-ref", "refs/remotes/origin/beta", far)
    repo.git("symbolic-ref", "refs/remotes/origin/HEAD", "refs/remotes/origin/alpha")
    found = places(repo.path)
    assert found[base] == Placed(base, "main", ("main", "zeta", "origin/alpha", "origin/beta"))
    assert found[shared] == Placed(shared, "zeta", ("zeta", "origin/alpha", "origin/beta"))
    assert found[far] == Placed(far, "origin/beta", ("origin/beta",))


def test_the_second_parents_of_a_merge_are_on_the_merging_branch_too(repo: Repo) -> None:
    repo.commit("base")
    repo.git("switch", "--quiet", "-c", "side")
    side = repo.commit("side", f="1\n")
    repo.git("switch", "--quiet", "main")
    repo.git("merge", "--quiet", "--no-ff", "-m", "Merge side", "side")
    merge = repo.git("rev-parse", "HEAD")
    assert places(repo.path)[side] == Placed(side, "main", ("main", "side"), merge)


def test_every_commit_has_a_place_on_every_branch_that_git_says_contains_it(museum: Repo) -> None:
    found = places(museum.path)
    assert list(found) == [commit.hash for commit in read(museum.path)]
    for name, place in found.items():
        listed = museum.git(
            "for-each-ref", "--contains", name, "--format=%(refname:short)", "refs/heads", "refs/remotes"
        )
        assert sorted(place.branches) == sorted(listed.split("\n"))
        assert place.branch == place.branches[0]
