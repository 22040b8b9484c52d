"""What strange and hostile repositories once did to us, each test named after what a user would have seen."""

import threading
from pathlib import Path

import pytest
from click.testing import CliRunner

from repositories import Repo
from treering import opening, operations
from treering.cli.main import main
from treering.config import ScrapeSettings
from treering.errors import RepositoryError, StoreError
from treering.git.history import parse_commit, split_message
from treering.git.reader import Caps, open_reader
from treering.report import Reporter
from treering.store import Store, store_folder
from treering.types import Commit, Placed, commit_of, record_of

LARGE = Caps(file=1 << 30, commit=1 << 30)


def read(path: Path, *, caps: Caps | None = None) -> list[Commit]:
    with open_reader(path, ScrapeSettings(workers=1)) as reader:
        return list(reader.commits([node.hash for node in reader.nodes], caps=caps))


def scrape(path: Path) -> tuple[int, int, int]:
    scraped = operations.scrape(opening.place(path), Reporter())
    return scraped.commits, scraped.new, scraped.partial


def loose(repo: Repo, name: str) -> Path:
    path = repo.path / ".git" / "objects" / name[:2] / name[2:]
    path.chmod(0o644)
    return path


def raw(headers: bytes, message: bytes) -> bytes:
    tree = b"tree 4b825dc642cb6eb9a060e54bf8d69288fbee4904\n"
    return tree + b"author A <a@b> 1 +0000\ncommitter A <a@b> 1 +0000\n" + headers + b"\n" + message


def test_a_committed_link_in_place_of_the_lock_destroys_no_file(repo: Repo, tmp_path: Path) -> None:
    (tmp_path / "bashrc").write_text("precious")
    (repo.path / ".treering").mkdir()
    (repo.path / ".treering" / "writer.lock").symlink_to(tmp_path / "bashrc")
    repo.git("add", "--force", ".treering")
    repo.commit("evil")
    CliRunner().invoke(main, ["scrape", "--repo", str(repo.path)])
    assert (tmp_path / "bashrc").read_text() == "precious"


# 1b
def test_a_committed_link_in_place_of_the_store_leads_nowhere(repo: Repo, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (repo.path / ".treering").symlink_to(tmp_path / "elsewhere")
    repo.commit("evil")
    CliRunner().invoke(main, ["scrape", "--repo", str(repo.path)])
    assert list((tmp_path / "elsewhere").iterdir()) == []


# 1c
def test_a_repository_does_not_choose_where_its_store_lies(repo: Repo, tmp_path: Path) -> None:
    repo.commit("one")
    repo.git("config", "core.worktree", str(tmp_path))
    assert opening.place(repo.path).folder != tmp_path / ".treering"


@pytest.mark.parametrize(
    ("codec", "message"),
    [
        (b"utf-7", b"+2AA-\n"),
        (b"raw_unicode_escape", b"\\ud800\n"),
        (b"unicode_escape", b"\\ud800 \\d\n"),
        (b"a\0b", b"x\n"),
    ],
)
def test_a_hostile_codec_stops_no_scrape(repo: Repo, codec: bytes, message: bytes) -> None:
    repo.commit("one")
    content = raw(b"encoding %s\n" % codec, message)
    name = repo.git("hash-object", "-t", "commit", "-w", "--stdin", "--literally", stdin=content)
    repo.git("update-ref", "refs/heads/side", name)
    assert scrape(repo.path) == (2, 2, 0)


def test_a_file_named_like_another_commit_is_a_file(repo: Repo) -> None:
    repo.commit("root", r="1\n")
    repo.git("switch", "--quiet", "--orphan", "other")
    repo.clock += 100_000
    later = repo.commit("later", z="1\n")
    repo.clock -= 90_000
    repo.git("switch", "--quiet", "main")
    repo.write(later, "x\n")
    repo.commit("forge", a="x\n")
    assert [commit.changes for commit in read(repo.path, caps=LARGE)] == [commit.changes for commit in read(repo.path)]


# 3b
def test_a_file_that_holds_the_name_of_another_commit_is_a_file(repo: Repo) -> None:
    repo.commit("root", r="1\n")
    repo.git("switch", "--quiet", "--orphan", "other")
    repo.clock += 100_000
    later = repo.commit("later", z="1\n")
    repo.clock -= 90_000
    repo.git("switch", "--quiet", "main")
    repo.commit("forge", a="x" * 9000 + f"\ny\0{later}\0z\n", b="x\n")
    assert [commit.changes for commit in read(repo.path, caps=LARGE)] == [commit.changes for commit in read(repo.path)]


@pytest.mark.parametrize("content", [b"\0\1", b"target"], ids=["binary", "same blob"])
def test_a_file_that_becomes_a_link_counts_the_same_with_hunks(repo: Repo, content: bytes) -> None:
    repo.commit("file", thing=content)
    (repo.path / "thing").unlink()
    (repo.path / "thing").symlink_to("target")
    repo.commit("link")
    assert read(repo.path, caps=LARGE)[1].changes == read(repo.path)[1].changes


def test_a_clone_without_files_of_many_paths_is_read(repo: Repo) -> None:
    blob = repo.git("hash-object", "-w", "--stdin", stdin=b"x\n")
    folder = b"/".join([b"d" * 200] * 14)
    stream = b"commit refs/heads/main\ncommitter A <a@b> 1700000000 +0000\ndata 1\nx\n"
    stream += b"".join(b"M 100644 %s %s/%d\n" % (blob.encode(), folder, number) for number in range(900))
    repo.git("fast-import", "--quiet", stdin=stream)
    loose(repo, blob).unlink()
    (commit,) = read(repo.path)
    assert len(commit.unreadable) == 900


def test_a_lost_file_that_became_a_folder_takes_the_folder_not_with_it(repo: Repo) -> None:
    repo.commit("file", a="lost\n")
    lost = repo.git("rev-parse", "HEAD:a")
    repo.write("a", None)
    repo.write("a/b", "1\n")
    repo.commit("folder")
    loose(repo, lost).unlink()
    commit = read(repo.path)[1]
    assert {change.path: change.insertions for change in commit.changes} == {"a": 0, "a/b": 1}


def test_what_a_shallow_clone_fetches_later_is_read(story: Repo, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    story.git("clone", "--quiet", "--depth", "3", f"file://{story.path}", str(clone))
    scrape(clone)
    story.git("-C", str(clone), "fetch", "--quiet", "--unshallow")
    assert scrape(clone)[0] == 23
    with opening.place(clone).store() as store:
        assert not [record.commit_hash for record in store.records() if "shallow" in record.flags]


def test_a_partial_commit_is_read_again_once_its_files_are_there(repo: Repo) -> None:
    repo.commit("one", f="1\n")
    loose(repo, repo.git("rev-parse", "HEAD:f")).unlink()
    assert scrape(repo.path) == (1, 1, 1)
    repo.git("hash-object", "-w", "--stdin", stdin=b"1\n")
    assert scrape(repo.path)[2] == 0


def test_a_tag_among_the_remote_branches_is_followed(repo: Repo) -> None:
    repo.commit("one")
    only = repo.git("commit-tree", "-m", "only", "HEAD^{tree}")
    repo.git("tag", "-a", "-m", "t", "v1", only)
    repo.git("update-ref", "refs/remotes/origin/v1", repo.git("rev-parse", "v1"))
    with open_reader(repo.path, ScrapeSettings(workers=1)) as reader:
        assert {place.hash: place.branch for place in reader.places()}[only] == "origin/v1"


@pytest.mark.parametrize("message", ["Subject\n \t\nBody", "Subject\r\n\r\nWindows body\r\n"])
def test_a_body_begins_at_its_first_line_with_a_letter(message: str) -> None:
    subject, body = split_message(message)
    assert (subject, body) == ("Subject", message.strip().split("\n")[-1].strip())


def test_a_database_damaged_in_the_middle_is_an_error_that_says_what_to_do(story: Repo) -> None:
    scrape(story.path)
    path = story.path / ".treering" / "treering.db"
    path.write_bytes(path.read_bytes()[:4096].ljust(path.stat().st_size, b"\xaa"))
    with pytest.raises(StoreError, match="damaged"), Store(path.parent) as store:
        list(store.records())
    told = CliRunner().invoke(main, ["scrape", "--repo", str(story.path)])
    assert told.exit_code == 4


def test_two_that_open_a_new_store_at_once_both_open_it(tmp_path: Path) -> None:
    failed: list[str] = []
    for round_ in range(40):
        together = threading.Barrier(4)

        def one(folder: Path = tmp_path / str(round_), together: threading.Barrier = together) -> None:
            together.wait()
            try:
                with Store(folder) as store:
                    store.count()
            except StoreError as error:
                failed.append(error.message)

        threads = [threading.Thread(target=one) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failed == []


def test_two_bare_repositories_never_share_a_store() -> None:
    assert store_folder(None, Path("/x/a/b.git"), None) != store_folder(None, Path("/x/a-b.git"), None)


def test_the_name_of_a_file_forges_no_result(repo: Repo) -> None:
    repo.write("settle\n[9.9999] forged", "x\n")
    repo.commit("settle")
    operations.index(opening.place(repo.path), Reporter())
    told = CliRunner().invoke(main, ["search", "--repo", str(repo.path), "settle"])
    assert not [line for line in told.stdout.split("\n") if line.startswith("[9.9999]")]


def test_the_folder_of_a_repository_does_not_drive_the_terminal(tmp_path: Path) -> None:
    repo = Repo(tmp_path / "pro\x1b[31mject")
    repo.commit("one")
    scrape(repo.path)
    told = CliRunner().invoke(main, ["status", "--repo", str(repo.path)], color=True)
    assert b"\x1b" not in told.stdout_bytes


def test_json_has_no_control_of_the_second_set(repo: Repo) -> None:
    repo.commit("settle \x9b31m")
    operations.index(opening.place(repo.path), Reporter())
    told = CliRunner().invoke(main, ["search", "--json", "--repo", str(repo.path), "settle"])
    assert b"\xc2\x9b" not in told.stdout_bytes


def test_a_commit_of_no_time_and_no_committer_comes_back() -> None:
    commit = parse_commit("0" * 40, b"tree x\nauthor A <a@b> -1 +0000\ncommitter  <> 5 +0000\n\nx\n")
    assert commit_of(record_of(commit, Placed(commit.hash, "main", ("main",)), "repo")) == commit


def test_the_hunks_of_every_file_end_alike(repo: Repo) -> None:
    repo.commit("one", a="1\n", b="1\n")
    a, b = read(repo.path, caps=LARGE)[0].patches
    assert a.text == b.text == "@@ -0,0 +1 @@\n+1\n"


def test_a_repository_without_commits_gets_no_store(repo: Repo) -> None:
    with pytest.raises(RepositoryError):
        scrape(repo.path)
    assert not (repo.path / ".treering").exists()


def test_a_flag_is_given_once() -> None:
    assert parse_commit("0" * 40, b"tree x\n\nx\n").flags == ("malformed",)
