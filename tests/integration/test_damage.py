"""A repository with parts missing is told as far as it can be, and never as if it were whole."""

from contextlib import suppress
from pathlib import Path

import pytest

from repositories import Repo
from treering import opening, operations
from treering.config import ScrapeSettings
from treering.errors import DamagedRepository
from treering.git.reader import Caps, open_reader
from treering.pipeline import scrape as scrape_stage
from treering.report import Reporter
from treering.types import Commit, FileChange

LARGE = Caps(file=1 << 30, commit=1 << 30)
BOTH = pytest.mark.parametrize("caps", [None, LARGE], ids=["figures", "hunks"])


def read(path: Path, *, caps: Caps | None = None) -> list[Commit]:
    with open_reader(path, ScrapeSettings(workers=2)) as reader:
        return list(reader.commits([node.hash for node in reader.nodes], caps=caps))


def loose(repo: Repo, name: str) -> Path:
    path = repo.path / ".git" / "objects" / name[:2] / name[2:]
    path.chmod(0o644)
    return path


def lose(repo: Repo, revision: str) -> str:
    """Delete the object that a revision names."""
    name = repo.git("rev-parse", revision)
    loose(repo, name).unlink()
    return name


def scraped(path: Path, report: Reporter | None = None) -> list[tuple[str, bool]]:
    where = opening.place(path)
    operations.scrape(where, report or Reporter())
    with where.store() as store:
        return [(record.commit_hash, record.diff_complete) for record in store.records()]


# blobs -----------------------------------------------------------------------------------------------------------


@BOTH
def test_a_lost_file_makes_only_its_own_commits_partial(story: Repo, caps: Caps | None) -> None:
    before = {commit.hash: commit for commit in read(story.path, caps=caps)}
    lost = story.git("rev-parse", "HEAD~8")
    (path,) = (change.path for change in before[lost].changes)
    lose(story, f"{lost}:{path}")
    after = read(story.path, caps=caps)
    assert [commit.hash for commit in after] == list(before)
    partial = {commit.hash for commit in after if not commit.diff_complete}
    # The commit that wrote the file and the one that wrote over it, if there was one.
    touched = set(story.git("log", "--all", "--format=%H", "--raw", "--", path).split()) & set(before)
    assert lost in partial
    assert partial <= touched
    for commit in after:
        if commit.hash in partial:
            assert commit.unreadable == (path,)
            assert [change.path for change in commit.changes] == [path]
            assert not commit.patches
        else:
            assert commit == before[commit.hash]


@BOTH
def test_what_is_left_of_a_partial_commit_is_told(repo: Repo, caps: Caps | None) -> None:
    repo.commit("start", gone="1\n", kept="1\n", moved="".join(f"{number}\n" for number in range(20)))
    repo.git("mv", "moved", "there")
    repo.commit("change", gone="1\n2\n", kept="2\n", fresh="1\n2\n3\n")
    lose(repo, "HEAD:gone")
    _, commit = read(repo.path, caps=caps)
    assert not commit.diff_complete
    assert commit.unreadable == ("gone",)
    assert commit.changes == (
        FileChange("A", "fresh", insertions=3),
        FileChange("M", "gone"),
        FileChange("M", "kept", insertions=1, deletions=1),
        FileChange("R", "there", old_path="moved"),
    )
    assert (commit.subject, commit.author_name) == ("change", "Ada Lovelace")


@BOTH
def test_a_lost_file_in_a_root_commit_and_in_a_merge(repo: Repo, caps: Caps | None) -> None:
    repo.commit("root", f="1\n")
    repo.git("switch", "--quiet", "-c", "side")
    repo.commit("side", g="2\n")
    repo.git("switch", "--quiet", "main")
    repo.commit("main", h="3\n")
    repo.git("merge", "--quiet", "--no-ff", "-m", "Merge side", "side")
    lose(repo, "HEAD:f")
    lose(repo, "HEAD:g")
    commits = read(repo.path, caps=caps)
    assert [(commit.subject, commit.diff_complete, commit.unreadable) for commit in commits] == [
        ("root", False, ("f",)),
        ("side", False, ("g",)),
        ("main", True, ()),
        ("Merge side", False, ("g",)),
    ]


@BOTH
def test_lost_files_of_any_name_take_no_others_with_them(repo: Repo, caps: Caps | None) -> None:
    names = ["a [glob]*", "new\nline", ":(top)magic", ":!magic", "-dash", "!bang", "^", "caf\udce9"]
    for name in names:
        repo.write(name, "lost\n")
    kept = ["a glob", "other", "a [glob]", "folder/-dash", "magic"]
    for name in kept:
        repo.write(name, "kept\n")
    repo.commit("start")
    loose(repo, repo.git("hash-object", "--stdin", stdin=b"lost\n")).unlink()
    (commit,) = read(repo.path, caps=caps)
    shown = {name.encode("utf-8", "surrogateescape").decode("utf-8", "replace") for name in names}
    assert set(commit.unreadable) == shown
    assert {change.path: change.insertions for change in commit.changes} == dict.fromkeys(shown, 0) | dict.fromkeys(
        kept, 1
    )


@pytest.mark.parametrize("content", [b"", b"garbage"])
def test_a_ruined_loose_file_counts_as_lost(repo: Repo, content: bytes) -> None:
    repo.commit("start", f="1\n", g="2\n")
    loose(repo, repo.git("rev-parse", "HEAD:f")).write_bytes(content)
    (commit,) = read(repo.path)
    assert (commit.diff_complete, commit.unreadable) == (False, ("f",))
    assert commit.changes == (FileChange("A", "f"), FileChange("A", "g", insertions=1))


def test_a_clone_without_files_keeps_every_commit_and_fetches_nothing(story: Repo, tmp_path: Path) -> None:
    story.git("config", "uploadpack.allowFilter", "true")
    clone = tmp_path / "partial"
    story.git("clone", "--quiet", "--no-checkout", "--filter=blob:none", f"file://{story.path}", str(clone))
    packs = sorted(path.name for path in (clone / ".git" / "objects").rglob("*"))
    whole = {commit.hash: commit for commit in read(story.path)}
    for commit in read(clone):
        assert {change.path for change in commit.changes} >= {
            change.path for change in whole[commit.hash].changes if change.status != "R"
        }
        assert commit.diff_complete == (not commit.unreadable)
    assert sorted(path.name for path in (clone / ".git" / "objects").rglob("*")) == packs


def test_a_partial_history_is_scraped_indexed_and_counted(story: Repo) -> None:
    lost = story.git("rev-parse", "HEAD~8")
    path = story.git("diff-tree", "-r", "--name-only", "--no-commit-id", lost)
    lose(story, f"{lost}:{path}")
    report = Reporter()
    found = dict(scraped(story.path, report))
    partial = [name for name, complete in found.items() if not complete]
    assert len(found) == 23
    assert lost in partial
    assert report.warnings == [f"{len(partial)} of 23 commits have a partial diff: objects are missing"]
    where = opening.place(story.path)
    again = operations.scrape(where, Reporter())
    assert (again.commits, again.new, again.partial) == (23, 0, len(partial))
    assert operations.index(where, Reporter()).commits == 23
    assert operations.status(where).partial == len(partial)


# trees -----------------------------------------------------------------------------------------------------------


@BOTH
def test_a_lost_folder_leaves_the_commit_without_changes_and_says_so(repo: Repo, caps: Caps | None) -> None:
    repo.commit("before", folder_0_f="1\n")
    repo.commit("lost", folder_0_f="2\n")
    lost = repo.git("rev-parse", "HEAD:folder")
    repo.commit("elsewhere", other="1\n")
    repo.commit("after", folder_0_f="3\n")
    repo.commit("later", folder_0_f="4\n")
    loose(repo, lost).unlink()
    commits = read(repo.path, caps=caps)
    assert [(commit.subject, commit.diff_complete) for commit in commits] == [
        ("before", True),
        ("lost", False),
        ("elsewhere", True),
        ("after", False),
        ("later", True),
    ]
    assert [commit.changes for commit in commits if not commit.diff_complete] == [(), ()]


def test_a_lost_root_tree_keeps_what_the_commit_states(repo: Repo) -> None:
    repo.commit("one", f="1\n")
    repo.commit("two", f="2\n")
    lose(repo, "HEAD^{tree}")
    commits = read(repo.path)
    assert [(commit.subject, commit.diff_complete) for commit in commits] == [("one", True), ("two", False)]


# commits and packs -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("revision", ["main", "main~1", "main~5"])
def test_a_lost_commit_is_an_error_and_no_short_success(repo: Repo, revision: str) -> None:
    for number in range(6):
        repo.commit(f"{number}", f=f"{number}\n")
    lose(repo, revision)
    with pytest.raises(DamagedRepository, match="cannot be walked"):
        read(repo.path)
    with pytest.raises(DamagedRepository):
        scraped(repo.path)
    with opening.place(repo.path).store() as store:
        assert store.count() == 0


def test_a_lost_commit_on_a_side_branch_is_an_error_too(story: Repo) -> None:
    story.git("branch", "--force", "side", "main~3")
    story.git("switch", "--quiet", "side")
    lost = story.commit("lost")
    story.commit("tip")
    loose(story, lost).unlink()
    with pytest.raises(DamagedRepository):
        read(story.path)


def test_a_ruined_byte_anywhere_in_a_pack_is_never_a_short_success(story: Repo) -> None:
    whole = read(story.path)
    story.git("gc", "--quiet")
    (pack,) = (story.path / ".git" / "objects" / "pack").glob("*.pack")
    pack.chmod(0o644)
    content = pack.read_bytes()
    for position in range(12, len(content) - 20, len(content) // 16):
        ruined = bytearray(content)
        ruined[position] ^= 0xFF
        pack.write_bytes(ruined)
        with suppress(DamagedRepository):
            assert read(story.path) == whole


@pytest.mark.parametrize("keep", [0, 0.3, 0.99])
def test_a_torn_pack_is_an_error(story: Repo, keep: float) -> None:
    story.git("gc", "--quiet")
    (pack,) = (story.path / ".git" / "objects" / "pack").glob("*.pack")
    pack.chmod(0o644)
    pack.write_bytes(pack.read_bytes()[: int(pack.stat().st_size * keep)])
    with pytest.raises(DamagedRepository):
        read(story.path)


def test_a_lost_pack_is_an_error(story: Repo) -> None:
    story.git("gc", "--quiet")
    for path in (story.path / ".git" / "objects" / "pack").glob("*.pack"):
        path.unlink()
    with pytest.raises(DamagedRepository):
        read(story.path)


def test_damage_found_half_way_keeps_what_was_stored_and_goes_on_when_it_is_mended(repo: Repo) -> None:
    for number in range(3):
        repo.commit(f"{number}", f=f"{number}\n")
    before = scraped(repo.path)
    repo.commit("new", f="new\n")
    tip = repo.git("rev-parse", "HEAD")
    content = loose(repo, tip).read_bytes()
    lose(repo, tip)
    with pytest.raises(DamagedRepository):
        scraped(repo.path)
    with opening.place(repo.path).store() as store:
        assert [record.commit_hash for record in store.records()] == [name for name, _ in before]
    (repo.path / ".git" / "objects" / tip[:2] / tip[2:]).write_bytes(content)
    assert scraped(repo.path) == [*before, (tip, True)]


def test_a_flipped_bit_of_the_kept_graph_hides_no_commit(
    story: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scrape_stage, "GRAPH_COMMITS", 0)
    where = opening.place(story.path, tmp_path / "store")
    operations.scrape(where, Reporter())
    graph = where.folder / "commit-graph"
    whole = graph.read_bytes()
    total = int(story.git("rev-list", "--all", "--count"))
    for at in range(0, len(whole), max(1, len(whole) // 25)):
        graph.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        with open_reader(where.source, commit_graph=graph) as reader:
            assert len(reader.nodes) == total


def test_the_kept_graph_gives_the_walk_that_the_objects_give(
    story: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scrape_stage, "GRAPH_COMMITS", 0)
    where = opening.place(story.path, tmp_path / "store")
    operations.scrape(where, Reporter())
    story.git("switch", "--quiet", "-c", "late", "main~3")
    story.commit("Later, from earlier", late="1\n")
    with (
        open_reader(where.source) as plain,
        open_reader(where.source, commit_graph=where.folder / "commit-graph") as fast,
    ):
        assert fast.shadow.has_graph
        assert fast.nodes == plain.nodes


def test_a_history_that_becomes_shallow_is_noticed(story: Repo, tmp_path: Path) -> None:
    story.git("clone", "--quiet", f"file://{story.path}", str(tmp_path / "clone"))
    where = opening.place(tmp_path / "clone", tmp_path / "store")
    whole = operations.scrape(where, Reporter()).commits
    clone = Repo(tmp_path / "clone")
    clone.git("fetch", "--quiet", "--depth", "2")
    clone.git("reflog", "expire", "--expire=now", "--all")
    clone.git("gc", "--quiet", "--prune=now")
    assert operations.scrape(where, Reporter()).commits < whole


def test_a_lost_commit_is_an_error_with_a_kept_graph_too(
    story: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scrape_stage, "GRAPH_COMMITS", 0)
    where = opening.place(story.path, tmp_path / "store")
    operations.scrape(where, Reporter())
    lost = story.git("rev-parse", "main~4")
    story.commit("One more", more="1\n")
    (story.path / ".git" / "objects" / lost[:2] / lost[2:]).unlink()
    with pytest.raises(DamagedRepository):
        operations.scrape(where, Reporter())
