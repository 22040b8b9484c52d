"""The store: all or nothing, one writer, any number of readers, and what a kill, a full disk or a bad file leave."""

import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace

from histories import name_of, remember, told
from repositories import Repo, read_only
from treering import finding, opening, operations
from treering.errors import DiskFull, StoreBusy, StoreError
from treering.report import Reporter
from treering.search.commits import Finder
from treering.store import BATCH, Store, store_folder
from treering.store.schema import MIGRATIONS
from treering.store.views import ask
from treering.text.references import references
from treering.types import Commit, FileChange, Placed, Record, commit_of

MakeRepo = Callable[..., Repo]


def commit(number: int, subject: str = "", *changes: FileChange) -> Commit:
    return Commit(
        hash=f"{number:040x}",
        parents=(f"{number - 1:040x}",) if number else (),
        author_name="Ada Lovelace",
        author_email="ada@example.com",
        author_time=1_700_000_000 + number,
        author_offset=60,
        committer_name="Charles Babbage",
        committer_email="charles@example.com",
        committer_time=1_700_000_100 + number,
        committer_offset=-90,
        subject=subject or f"commit {number}",
        body="",
        changes=changes or (FileChange("M", f"file{number % 3}", insertions=number),),
    )


def place(number: int, branch: str = "main") -> Placed:
    return Placed(f"{number:040x}", branch, (branch,))


def hashes(records: Iterator[Record]) -> list[str]:
    return [record.commit_hash for record in records]


def scrape(path: Path) -> tuple[int, int, int]:
    """Commits, new, vanished."""
    scraped = operations.scrape(opening.place(path), Reporter())
    return scraped.commits, scraped.new, scraped.vanished


def records(folder: Path) -> list[Record]:
    with Store.existing(folder) as store:
        return list(store.records(vanished=True))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "store") as opened:
        yield opened


# transactions ----------------------------------------------------------------------------------------------------


def test_what_goes_in_comes_out(store: Store) -> None:
    odd = Commit(
        "f" * 64, ("a" * 64, "b" * 64), "", "", 0, -720, "n\0l", "☃", 253_402_300_799, 840, "sub\0ject", "bo\0dy\n☃",
        changes=(
            FileChange("A", "new\nline\ttab", insertions=3),
            FileChange("R", "to", old_path="from", deletions=1),
            FileChange("D", "from\N{REPLACEMENT CHARACTER}", binary=True),
            FileChange("M", "library", insertions=1, submodule=True),
        ),
        diff_complete=False, unreadable=("lost one", "lost\ntwo"), flags=("author-date", "shallow"),
    )  # fmt: skip
    store.append([odd])
    store.place([Placed(odd.hash, "main", ("main", "wörk"))])
    (record,) = store.records()
    assert record.branches == ("main", "wörk")
    assert record.insertions == 4
    assert commit_of(record).changes == odd.changes
    assert (record.author_name, record.author_timestamp, record.author_offset) == ("", 0, -720)
    assert (record.committer_name, record.committer_email, record.committer_offset) == ("n\0l", "☃", 840)
    assert (record.message_subject, record.message_body) == ("sub\0ject", "bo\0dy\n☃")
    assert (record.parent_hashes, record.commit_timestamp) == (odd.parents, 253_402_300_799)
    assert (record.diff_complete, record.unreadable_paths, record.flags) == (False, odd.unreadable, odd.flags)


def test_a_batch_goes_in_whole_or_not_at_all(store: Store) -> None:
    store.append([commit(0)])
    clash = FileChange("M", "same", insertions=-1, binary=None)  # type: ignore[arg-type]  # the database refuses it
    with pytest.raises(StoreError):
        store.append([commit(1), commit(2), commit(3, "bad", clash)])
    assert store.known() == {commit(0).hash}
    assert store.db.execute("SELECT count(*) FROM paths").fetchone() == (1,)
    store.append([commit(1), commit(2)])
    store.place([place(0), place(1), place(2)])
    assert [record.paths for record in store.records()] == [("file0",), ("file1",), ("file2",)]


def test_any_error_inside_a_transaction_undoes_all_of_it(store: Store) -> None:
    def interrupted() -> None:
        with store.transaction():
            store.set_fact("repo", "half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert store.fact("repo") is None
    with store.transaction():
        store.set_fact("repo", "whole")
    assert store.fact("repo") == "whole"


def test_a_commit_that_is_known_is_left_as_it_is(store: Store) -> None:
    store.append([commit(0, "first told")])
    store.append([commit(0, "told again", FileChange("A", "other")), commit(1)])
    store.place([place(0), place(1)])
    assert [(record.message_subject, record.paths) for record in store.records()] == [
        ("first told", ("file0",)),
        ("commit 1", ("file1",)),
    ]


def test_commits_that_vanish_are_kept_and_marked_and_come_back(store: Store) -> None:
    store.append([commit(number) for number in range(3)])
    assert store.place(place(number) for number in range(3)) == (3, 0)
    assert store.place([place(0), place(2, "other")]) == (2, 1)
    assert store.vanished() == 0  # a first scrape that is not complete has lost nothing
    store.set_fact("tips", "of a scrape that was complete")
    assert (store.count(), store.vanished(), len(store.known())) == (2, 1, 3)
    assert hashes(store.records()) == [commit(0).hash, commit(2).hash]
    told = {record.commit_hash: (record.reachable, record.branch) for record in store.records(vanished=True)}
    assert told[commit(1).hash][0] is False
    assert told[commit(2).hash] == (True, "other")
    assert store.place(place(number) for number in range(3)) == (3, 0)
    assert [record.reachable for record in store.records(vanished=True)] == [True, True, True]
    assert hashes(store.records()) == [commit(number).hash for number in range(3)]


def test_the_order_is_the_order_of_the_places(store: Store) -> None:
    store.append([commit(number) for number in range(3)])
    store.place([place(2), place(0), place(1)])
    assert store.order() == hashes(store.records()) == [commit(number).hash for number in (2, 0, 1)]
    assert hashes(store.records(ids=store.ids()[::-1])) == [commit(number).hash for number in (1, 0, 2)]


def test_a_branch_that_moves_is_no_other_history(store: Store) -> None:
    store.append([commit(0), commit(1)])
    store.place([place(0), place(1)])
    before = store.history_fingerprint()
    store.place([place(0, "renamed"), place(1, "renamed")])
    assert store.history_fingerprint() == before
    store.place([place(0)])
    assert store.history_fingerprint() != before


def test_runs_and_facts_are_remembered(store: Store) -> None:
    assert store.last_runs() == {}
    store.log_run("scrape", 1.0, {"new": 1})
    store.log_run("scrape", 2.0, {"new": 2})
    assert store.last_runs()["scrape"]["started"] == 2.0
    assert store.last_runs()["scrape"]["new"] == 2


def test_a_number_is_mentioned_by_its_own_name_alone(store: Store) -> None:
    named = ["#12", "#112", "ada/market#12", "Ada/Market#12", "babb-ada/market#12", "x/ada/market#12", "adaXmarket#12"]
    for number, name in enumerate(named):
        store.append([replace(commit(number), references={"issues": (name,)})])
    store.place(place(number) for number in range(len(named)))
    ids = store.ids()

    def mentioning(number: str) -> list[str]:
        return [named[ids.index(found)] for found in store.mentioning(number)]

    assert mentioning("ada/market#12") == ["ada/market#12", "Ada/Market#12"]
    assert mentioning("x/ada/market#12") == ["x/ada/market#12"]
    assert mentioning("ada_market#12") == mentioning("%#12") == mentioning("market#12") == []
    assert mentioning("#12") == [name for name in named if name != "#112"]  # of whichever repository


# one writer, many readers ----------------------------------------------------------------------------------------

HOLD = """
import sys, time
from pathlib import Path
from treering.store import Store
with Store(Path(sys.argv[1])) as store, store.writing("treering train"):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


@contextmanager
def held(folder: Path, seconds: float) -> Iterator["subprocess.Popen[str]"]:
    """Another process that is the writer for some seconds."""
    command = [sys.executable, "-c", HOLD, str(folder), str(seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_writer_waits_and_is_then_told_who_writes(store: Store) -> None:
    with held(store.folder, 60) as holder:
        started = time.monotonic()
        with (
            pytest.raises(StoreBusy, match=f"treering train .process {holder.pid},"),
            store.writing("me", patience=0.3),
        ):
            pytest.fail("two writers")
        assert time.monotonic() - started >= 0.3


def test_a_second_writer_goes_on_when_the_first_is_done(store: Store) -> None:
    with held(store.folder, 0.3), store.writing("me", patience=30):
        assert "me (process" in (store.folder / "writer.lock").read_text()


def test_a_killed_writer_holds_nothing(store: Store) -> None:
    with held(store.folder, 60) as holder:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        with store.writing("me", patience=0):
            store.append([commit(0)])


def test_a_writer_may_write_inside_its_own_writing(store: Store) -> None:
    with store.writing("outer"):
        with store.writing("inner", patience=0):
            store.append([commit(0)])
        with Store(store.folder) as other, pytest.raises(StoreBusy, match="outer"), other.writing("x", patience=0):
            pytest.fail("the inner block let go of the lock")
    with store.writing("again", patience=0):
        assert len(store.known()) == 1


def test_readers_read_while_a_writer_writes(store: Store) -> None:
    store.append([commit(0)])
    store.place([place(0)])
    with store.writing("me"), store.transaction():
        store.db.execute("UPDATE commits SET subject = 'not yet'")
        with Store.existing(store.folder) as reader:
            assert [record.message_subject for record in reader.records()] == ["commit 0"]
            assert (reader.count(), reader.vanished()) == (1, 0)
    with Store.existing(store.folder) as reader:
        assert [record.message_subject for record in reader.records()] == ["not yet"]


def test_a_reader_sees_only_whole_batches(store: Store) -> None:
    seen: set[int] = set()
    done = threading.Event()

    def look() -> None:
        with Store.existing(store.folder) as reader:
            while not done.is_set():
                seen.add(len(reader.known()))

    reader = threading.Thread(target=look)
    reader.start()
    for first in range(0, 400, 40):
        store.append([commit(number) for number in range(first, first + 40)])
    done.set()
    reader.join()
    assert seen <= set(range(0, 401, 40))


# files that are not as they should be ----------------------------------------------------------------------------


def test_a_store_of_a_newer_treering_is_refused(store: Store) -> None:
    store.db.execute(f"PRAGMA user_version={len(MIGRATIONS) + 1}")
    with pytest.raises(StoreError, match="newer treering"), Store(store.folder):
        pytest.fail("it was opened")


def test_an_index_of_an_older_treering_is_made_anew_and_its_commits_are_kept(repo: Repo) -> None:
    repo.commit("Weigh the zeppelin", src_0_a__py="def weigh():\n    pass\n")
    repo.commit("Count receipts", src_0_b__py="def count():\n    pass\n")
    where = opening.place(repo.path)
    scrape(repo.path)
    before = records(where.folder)
    columns = "id, hash, parents, author_name, author_email, author_time, author_offset, committer_name,"
    columns += " committer_email, committer_time, committer_offset, subject, body, diff_complete, unreadable, flags,"
    columns += " position, branch, branches, merged_by, refers, redacted, reading"
    old = where.folder / "old.db"
    with sqlite3.connect(old) as db:
        for script in MIGRATIONS[:2]:
            db.executescript(script)
        db.execute("ATTACH ? AS new", (str(where.folder / "treering.db"),))
        for table in ("facts", "paths", "changes"):
            db.execute(f"INSERT INTO main.{table} SELECT * FROM new.{table}")
        db.execute(f"INSERT INTO main.commits ({columns}) SELECT {columns} FROM new.commits")
        db.execute("DELETE FROM facts WHERE key = 'tips'")
        db.execute("INSERT INTO refs VALUES ('refs/heads/main', ?, 0)", (repo.git("rev-parse", "HEAD"),))
        db.execute("INSERT INTO documents VALUES (1, '{}', 'what FTS5 held', '{}')")
        db.execute("INSERT INTO words (rowid, message) VALUES (1, 'zeppelin')")
        db.execute("INSERT INTO vectors VALUES ('abc', 0, 1, 'diff')")
        db.execute("INSERT INTO facts VALUES ('index', 'as it was')")
        db.execute("PRAGMA user_version=2")
    db.close()
    for path in where.folder.glob("treering.db*"):
        path.unlink()
    old.rename(where.folder / "treering.db")
    with Store.existing(where.folder) as store:
        assert store.db.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
        assert (store.indexed(), len(store.undocumented()), store.fact("index")) == (0, 2, None)
        assert "words" not in [row[0] for row in store.db.execute("SELECT name FROM sqlite_master")]
    assert scrape(repo.path) == (2, 0, 0)
    assert records(where.folder) == before
    assert operations.index(where, Reporter()).commits == 2
    assert finding.search(where, "weighing", Reporter())[0].subject == "Weigh the zeppelin"


@pytest.mark.parametrize("content", [b"this is no database at all" * 200, b"SQLite format 3\0" + b"\xaa" * 5000])
def test_a_damaged_database_is_an_error_that_says_what_to_do(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "treering.db").write_bytes(content)
    with pytest.raises(StoreError, match="damaged") as caught, Store(tmp_path):
        pytest.fail("it was opened")
    assert "rebuilds it" in caught.value.hint


def test_deleting_the_folder_rebuilds_it(repo: Repo) -> None:
    repo.commit("one", f="1\n")
    repo.commit("two", g="1\n")
    scrape(repo.path)
    before = records(repo.path / ".treering")
    for path in (repo.path / ".treering").iterdir():
        path.unlink()
    assert scrape(repo.path) == (2, 2, 0)
    assert records(repo.path / ".treering") == before


def test_a_full_disk_loses_nothing_that_was_stored(store: Store) -> None:
    store.append([commit(0)])
    store.place([place(0)])
    (pages,) = store.db.execute("PRAGMA page_count").fetchone()
    store.db.execute(f"PRAGMA max_page_count={pages + 2}")
    with pytest.raises(DiskFull, match="disk is full"):
        store.append([commit(number, "x" * 10_000) for number in range(1, 10)])
    assert hashes(store.records()) == [commit(0).hash]
    store.db.execute("PRAGMA max_page_count=100000")
    store.append([commit(number, "x" * 10_000) for number in range(1, 10)])
    assert len(store.known()) == 10
    assert store.db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_another_program_that_locks_the_database_is_named_as_such(store: Store) -> None:
    other = sqlite3.connect(store.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    store.db.execute("PRAGMA busy_timeout=100")
    with pytest.raises(StoreBusy, match="locked by another program"):
        store.append([commit(0)])
    other.close()
    store.append([commit(0)])


# a store that may only be read -----------------------------------------------------------------------------------


@pytest.fixture
def public() -> Iterator[Path]:
    """A store of two commits in a folder that everybody may read."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        with Store(Path(folder) / "store") as made:
            remember(made, [told(1, "Weigh the zeppelin"), told(2, "Count receipts")])
        yield made.folder


def test_a_store_that_may_only_be_read_is_searched(public: Path) -> None:
    (public / ".gitignore").unlink()  # it is not asked for either
    before = sorted(public.iterdir())
    with read_only(public):
        with Store.existing(public) as opened:
            assert [hit.subject for hit in Finder(opened, None).search("zeppelin", limit=9)] == ["Weigh the zeppelin"]
            assert list(ask(opened.path, "SELECT count(*) FROM commits", seconds=9)[1]) == [(2,)]
            with pytest.raises(StoreError, match="Permission denied"), opened.writing("me"):
                pytest.fail("it was written")
            with pytest.raises(StoreError, match="readonly"):
                opened.append([commit(3)])
        assert sorted(public.iterdir()) == before
    with Store(public) as opened:
        opened.append([commit(3)])


def test_a_store_that_may_only_be_read_is_read_beside_its_writer(public: Path) -> None:
    with Store(public) as writer:
        writer.append([commit(3)])  # it is in the log, not in the file
        with read_only(public), Store.existing(public) as opened:
            assert len(opened.known()) == 3


def test_what_was_written_while_it_was_read_without_a_lock_is_told(public: Path) -> None:
    with read_only(public):
        reader = Store.existing(public).__enter__()
    with Store(public) as writer:
        writer.append([commit(3)])
    with pytest.raises(StoreBusy, match="written while it was read"):
        reader.__exit__(None, None, None)


def test_a_log_that_cannot_be_read_in_is_an_error_and_not_passed_over(public: Path) -> None:
    with Store(public) as writer:
        writer.append([commit(3)])
        kept = {path: path.read_bytes() for path in (writer.path, public / "treering.db-wal")}
    for path, content in kept.items():
        path.write_bytes(content)
    with read_only(public), pytest.raises(StoreError, match="unable to open"), Store.existing(public):
        pytest.fail("it was opened without its last commits")


# where it lies ---------------------------------------------------------------------------------------------------


def test_the_store_ignores_itself(repo: Repo) -> None:
    repo.commit("one", f="1\n")
    repo.commit("two", g="1\n")
    scrape(repo.path)
    assert (repo.path / ".treering" / ".gitignore").read_text() == "*\n"
    assert repo.git("status", "--porcelain", "--ignored") == "!! .treering/"


def test_a_users_own_ignore_file_in_the_store_is_left(repo: Repo) -> None:
    repo.commit("one", f="1\n")
    repo.commit("two", g="1\n")
    (repo.path / ".treering").mkdir()
    (repo.path / ".treering" / ".gitignore").write_text("mine\n")
    scrape(repo.path)
    assert (repo.path / ".treering" / ".gitignore").read_text() == "mine\n"


def test_a_bare_repository_has_its_store_with_the_users_data(repo: Repo, tmp_path: Path) -> None:
    repo.commit("one", f="1\n")
    repo.commit("two", g="1\n")
    folders = set()
    for name in ("one.git", "two.git"):
        repo.git("clone", "--quiet", "--bare", str(repo.path), str(tmp_path / name))
        assert scrape(tmp_path / name) == (2, 2, 0)
        folders.add(opening.place(tmp_path / name).folder)
    assert len(folders) == 2
    for folder in folders:
        assert folder.is_relative_to(Path(os.environ["XDG_DATA_HOME"]) / "treering")
        assert (folder / "treering.db").is_file()


def test_a_linked_worktree_has_a_store_of_its_own(repo: Repo, tmp_path: Path) -> None:
    repo.commit("one", f="1\n")
    repo.commit("two", g="1\n")
    repo.git("worktree", "add", "--quiet", "--detach", str(tmp_path / "linked"))
    assert scrape(tmp_path / "linked")[0] == 2
    assert (tmp_path / "linked" / ".treering" / "treering.db").is_file()
    assert not (repo.path / ".treering").exists()


def test_the_environment_says_where_the_store_is_and_the_flag_overrules_it(
    repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo.commit("one")
    assert opening.place(repo.path).folder == repo.path / ".treering"
    monkeypatch.setenv("TREERING_STORE", str(tmp_path / "environment"))
    assert opening.place(repo.path).folder == tmp_path / "environment"
    assert opening.place(repo.path, tmp_path / "flag").folder == tmp_path / "flag"
    operations.scrape(opening.place(repo.path, tmp_path / "flag"), Reporter())
    assert (tmp_path / "flag" / "treering.db").is_file()
    assert not (tmp_path / "environment").exists()
    assert not (repo.path / ".treering").exists()


def test_a_home_in_the_path_of_the_store_is_understood() -> None:
    assert store_folder(None, Path("/nowhere"), "~/store") == Path(os.environ["HOME"]) / "store"


def test_asking_for_a_store_that_is_not_there_makes_none(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no index"):
        Store.existing(tmp_path / "none")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("place", ["file", "file/below", "/proc/store", "/dev/null/store"])
def test_a_place_that_cannot_hold_a_store_is_an_error(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError), Store(tmp_path / place):
        pytest.fail("it was opened")
    assert (tmp_path / "file").read_text() == "x"


# runs ------------------------------------------------------------------------------------------------------------


def test_a_second_run_reads_nothing_and_a_third_only_what_is_new(repo: Repo) -> None:
    repo.commit("one", f="1\n")
    repo.commit("two", g="1\n")
    assert scrape(repo.path) == (2, 2, 0)
    assert scrape(repo.path) == (2, 0, 0)
    repo.commit("new", f="2\n")
    assert scrape(repo.path) == (3, 1, 0)


def test_growing_step_by_step_ends_where_one_run_does(repo: Repo, tmp_path: Path) -> None:
    for number in range(4):
        repo.git("switch", "--quiet", "-c", f"branch{number}")
        repo.commit(f"{number}", f=f"{number}\n")
        scrape(repo.path)
    repo.git("switch", "--quiet", "branch0")
    repo.commit("side", g="1\n")
    repo.git("merge", "--quiet", "--no-ff", "-m", "Merge", "branch2")
    scrape(repo.path)
    operations.scrape(opening.place(repo.path, tmp_path / "at once"), Reporter())
    assert records(repo.path / ".treering") == records(tmp_path / "at once")


def test_switching_the_branch_moves_commits_and_reads_none(repo: Repo) -> None:
    repo.commit("base")
    repo.git("switch", "--quiet", "-c", "work")
    repo.git("switch", "--quiet", "main")
    scrape(repo.path)
    assert [record.branch for record in records(repo.path / ".treering")] == ["main"]
    repo.git("switch", "--quiet", "work")
    assert scrape(repo.path) == (1, 0, 0)
    assert [record.branch for record in records(repo.path / ".treering")] == ["work"]


def test_a_deleted_branch_vanishes_and_comes_back_without_being_read_again(repo: Repo) -> None:
    repo.commit("base")
    repo.git("switch", "--quiet", "-c", "side")
    side = repo.commit("side")
    repo.git("switch", "--quiet", "main")
    assert scrape(repo.path) == (2, 2, 0)
    repo.git("branch", "--quiet", "-D", "side")
    assert scrape(repo.path) == (1, 0, 1)
    repo.git("branch", "side", side)
    assert scrape(repo.path) == (2, 0, 0)


def test_a_force_push_and_a_collection_of_garbage_leave_a_history_that_is_told(repo: Repo) -> None:
    for number in range(6):
        repo.commit(f"old {number}", f=f"{number}\n")
    scrape(repo.path)
    repo.git("reset", "--quiet", "--hard", "HEAD~3")
    repo.commit("new", f="new\n")
    repo.git("reflog", "expire", "--expire=now", "--all")
    repo.git("gc", "--quiet", "--prune=now")
    assert scrape(repo.path) == (4, 1, 3)
    told = {record.message_subject: record.reachable for record in records(repo.path / ".treering")}
    assert told == {"old 0": True, "old 1": True, "old 2": True, "new": True} | {f"old {n}": False for n in (3, 4, 5)}
    where = opening.place(repo.path)
    assert operations.index(where, Reporter()).commits == 4
    assert {hit.subject for hit in finding.search(where, "old 4 new", Reporter())} <= {
        subject for subject, reachable in told.items() if reachable
    }


def test_a_scrape_killed_at_any_moment_goes_on_to_the_same_records(repo: Repo, tmp_path: Path) -> None:
    stream = b"".join(
        b"commit refs/heads/main\ncommitter Ada <ada@example.com> %d +0000\ndata 4\nn%03d\n"
        b"M 100644 inline file%d\ndata %d\n%s\n"
        % (1_700_000_000 + number, number, number % 97, number % 9 * 2, b"x\n" * (number % 9))
        for number in range(3 * BATCH + 50)
    )
    repo.git("fast-import", "--quiet", stdin=stream)
    calm, stormy = tmp_path / "calm", tmp_path / "stormy"
    seconds = operations.scrape(opening.place(repo.path, calm), Reporter()).seconds
    whole = records(calm)
    facts = {record.commit_hash: (record.stats, record.message_subject) for record in whole}
    (tmp_path / "temporary").mkdir()
    environment = os.environ | {"TMPDIR": str(tmp_path / "temporary")}
    command = [sys.executable, "-m", "treering", "scrape", "--repo", str(repo.path), "--store", str(stormy)]
    dice = random.Random(7)  # noqa: S311  (no secret: moments to kill at)
    kills = 0
    lock = stormy / "writer.lock"
    for _ in range(6):
        with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as process:
            while process.poll() is None and not (lock.exists() and f" {process.pid}," in lock.read_text()):
                time.sleep(0.002)
            time.sleep(dice.uniform(0, seconds))
            process.kill()
        kills += process.returncode == -signal.SIGKILL
        with Store(stormy) as store:
            assert len(store.known()) % BATCH in (0, len(whole) % BATCH)
            left = {
                record.commit_hash: (record.stats, record.message_subject) for record in store.records(vanished=True)
            }
            assert left.items() <= facts.items()
    assert kills > 0
    scraped = operations.scrape(opening.place(repo.path, stormy), Reporter())
    assert (scraped.commits, scraped.vanished) == (len(whole), 0)
    assert records(stormy) == whole
    with Store(stormy) as store:
        assert store.db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_two_scrapes_at_once_end_with_one_history(story: Repo) -> None:
    command = [sys.executable, "-m", "treering", "scrape", "--repo", str(story.path)]
    with Store(story.path / ".treering"):
        pass  # it is there: this is about two writers, not about who makes it
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)]
    for process in both:
        _, told = process.communicate(timeout=60)
        assert process.returncode == 0, told
    assert len(records(story.path / ".treering")) == 23


def test_what_later_became_of_a_commit_is_told_with_how_it_is_known(tmp_path: Path) -> None:
    first = told(1, "Raise the limit")
    one = replace(first, patch_id="p", reverse_id="q")
    messages = [
        "Lower it", 'Revert "Raise the limit"', f"Undo\n\nThis reverts commit {one.hash[:12]}.",
        f"Mend\n\nFixes: {one.hash[:10]} (Raise the limit)", f"Raise\n\n(cherry picked from commit {one.hash})",
        "Raise it again", "Nothing of it",
    ]  # fmt: skip
    later = [told(number, message) for number, message in enumerate(messages, start=2)]
    later = [replace(commit, references=references(f"{commit.subject}\n\n{commit.body}")) for commit in later]
    later[0], later[5] = replace(later[0], patch_id="q"), replace(later[5], patch_id="p")
    with Store(tmp_path) as store:
        remember(store, [one, *later])
        assert store.later(one.hash) == [
            (name_of(2), "it undoes {}"),
            (name_of(3), "it reverts {}"),
            (name_of(4), "it says that it reverts {}"),
            (name_of(5), "it says that it fixes {}"),
            (name_of(6), "it says that it was picked from {}"),
            (name_of(7), "it has the same patch as {}"),
        ]
        assert store.later(name_of(8)) == []
