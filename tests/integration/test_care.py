"""A store kept and brought back, swept, and taken away; and a machine examined."""

import hashlib
import io
import json
import os
import shutil
import sqlite3
import subprocess
import tarfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from histories import LetterModel
from pretended import pretended
from repositories import Repo, tell_story
from treering import caring, opening, operations
from treering.cli.main import main
from treering.config import Settings
from treering.errors import DataError, RepositoryError, StoreBusy, StoreError
from treering.files import locked
from treering.opening import Place
from treering.operate import doctor
from treering.operate.doctor import Patient
from treering.operate.inbox import Inbox
from treering.operate.threads import Threads
from treering.operate.webhooks import Delivery
from treering.report import Reporter
from treering.store.ledger import Ceilings, Ledger


@pytest.fixture(autouse=True)
def _letters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "load_embedder", lambda *_: LetterModel())


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Repo]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(opening, "load_embedder", lambda *_: LetterModel())
        repo = tell_story(Repo(tmp_path_factory.mktemp("origin") / "project"))
        operations.index(opening.place(repo.path), Reporter())
        with Ledger(repo.path / ".treering") as ledger:
            ledger.reserve("m", "ask", 500, Ceilings(10**9, 10**9), 1_700_000_000.0)
        yield repo


@pytest.fixture
def indexed(origin: Repo, tmp_path: Path) -> Repo:
    return origin.copied(tmp_path / "copy" / "project")


def place(repo: Repo) -> Place:
    return opening.place(repo.path)


def treering(repo: Repo, *words: str, code: int = 0) -> Result:
    done = CliRunner().invoke(main, [words[0], "--repo", str(repo.path), *words[1:]])
    assert done.exit_code == code, done.output
    return done


def tree(folder: Path) -> str:
    """A hash of every name, kind, mode and byte below a folder."""
    whole = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        state = path.lstat()
        whole.update(f"{path.relative_to(folder)} {state.st_mode}\n".encode())
        whole.update(
            os.fsencode(path.readlink()) if path.is_symlink() else path.read_bytes() if path.is_file() else b""
        )
    return whole.hexdigest()


# backup and restore --------------------------------------------------------------------------------------------------


def test_a_backup_brings_a_store_back_with_its_ledger(indexed: Repo, tmp_path: Path) -> None:
    where = place(indexed)
    (tmp_path / "backups").mkdir()
    made = caring.backup(where, tmp_path / "backups", Reporter())
    assert made.repo == "project"
    assert Path(made.file).parent == tmp_path / "backups"
    assert Path(made.file).stat().st_mode & 0o777 == 0o600
    shutil.rmtree(where.folder)
    caring.restore(Path(made.file), indexed.path, None, Reporter())
    assert caring.verify(where, Reporter(), everything=True).sound
    with Ledger(where.folder, reading=True) as ledger:
        assert len(ledger.unsettled(time.time())) == 1
    assert operations.index(where, Reporter()).commits == 0


def test_the_commands_say_what_they_did(indexed: Repo, tmp_path: Path) -> None:
    where = place(indexed)
    assert "one.tar: " in treering(indexed, "backup", str(tmp_path / "one.tar")).stdout
    assert "is there already" in treering(indexed, "restore", str(tmp_path / "one.tar"), code=4).stderr
    told = json.loads(treering(indexed, "restore", str(tmp_path / "one.tar"), "--force", "--json").stdout)
    assert told["repo"] == "project"
    assert treering(indexed, "verify").stdout.startswith("sound   database")
    with closing(sqlite3.connect(where.folder / "treering.db")) as db:
        db.execute("UPDATE commits SET position = NULL WHERE position = 5")
        db.commit()
    done = treering(indexed, "verify", code=14)
    assert "wrong   history" in done.stdout
    assert "hint: run `treering verify --repair`" in done.stderr
    done = treering(indexed, "verify", "--repair")
    assert "mended  history" in done.stdout
    assert json.loads(treering(indexed, "verify", "--json", "--full").stdout)["sound"]
    assert "0 bytes would be freed" in treering(indexed, "gc", "--dry-run").stdout
    assert json.loads(treering(indexed, "gc", "--json").stdout) == {"removed": [], "bytes": 0, "dry_run": False}


def test_a_backup_while_the_store_is_written_is_one_state_of_it(indexed: Repo, tmp_path: Path) -> None:
    where = place(indexed)
    over = threading.Event()
    problems: list[BaseException] = []

    def write() -> None:
        try:
            for number in range(40):
                indexed.commit(f"Change {number}", **{f"f{number}__py": f"def f_{number}():\n    pass\n" * 5})
                operations.index(where, Reporter())
                if over.is_set():
                    break
        except BaseException as error:  # noqa: BLE001  (shown by the test)
            problems.append(error)

    writer = threading.Thread(target=write)
    writer.start()
    for number in range(4):
        made = caring.backup(where, tmp_path / f"{number}.tar", Reporter())
        caring.restore(Path(made.file), indexed.path, tmp_path / f"store{number}", Reporter())
    over.set()
    writer.join()
    assert not problems
    for number in range(4):
        found = caring.verify(opening.place(indexed.path, tmp_path / f"store{number}"), Reporter(), everything=True)
        assert found.sound, found


@pytest.mark.parametrize("name", ["ledger.db", "forge.db", "deliveries.db"])
def test_a_damaged_database_that_no_run_makes_again_is_told_with_its_own_way_out(
    indexed: Repo, tmp_path: Path, name: str
) -> None:
    where = place(indexed)
    (where.folder / name).write_bytes(b"torn" * 999)
    with pytest.raises(StoreError, match="is damaged") as met:
        caring.backup(where, tmp_path / "one.tar", Reporter())
    assert "delete the folder" not in met.value.hint
    told = [one for one in caring.examine(indexed.path) if one.severity == "error"]
    assert [one.way_out for one in told] == [met.value.hint]
    assert treering(indexed, "show", indexed.git("rev-parse", "HEAD"))


def test_a_store_that_is_there_is_not_replaced_without_force(indexed: Repo, tmp_path: Path) -> None:
    where = place(indexed)
    made = caring.backup(where, tmp_path / "one.tar", Reporter())
    with pytest.raises(StoreError, match="there already"):
        caring.restore(tmp_path / "one.tar", indexed.path, None, Reporter())
    (where.folder / "manifest.json").write_text("{}")
    caring.restore(Path(made.file), indexed.path, None, Reporter(), force=True)
    assert (where.folder / "manifest.json").read_text() != "{}"
    assert sorted(path.name for path in indexed.path.iterdir() if path.name.startswith(".")) == [".git", ".treering"]


def test_a_restore_keeps_what_was_spent_since_and_what_no_backup_holds(
    indexed: Repo, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = place(indexed)
    made = caring.backup(where, tmp_path / "one.tar", Reporter())
    with Ledger(where.folder) as ledger:
        ledger.reserve("m", "ask", 500, Ceilings(10**9, 10**9), 1_700_000_001.0)
    for name in ("queue/asked", "installed/one"):
        (where.folder / name).parent.mkdir()
        (where.folder / name).write_text(name)
    caring.restore(Path(made.file), indexed.path, None, Reporter.to_stderr(), force=True)
    with Ledger(where.folder, reading=True) as ledger:
        assert len(ledger.unsettled(time.time())) == 2
    assert "ledger.db stays as it is" in capsys.readouterr().err
    assert [(where.folder / name).read_text() for name in ("queue/asked", "installed/one")] == [
        "queue/asked", "installed/one",
    ]  # fmt: skip
    (where.folder / "ledger.db").write_bytes(b"torn")
    caring.restore(Path(made.file), indexed.path, None, Reporter(), force=True)
    with Ledger(where.folder, reading=True) as ledger:
        assert len(ledger.unsettled(time.time())) == 1


def test_a_restore_rolls_back_neither_deliveries_nor_what_was_fetched(
    indexed: Repo, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = place(indexed)
    pushes = [Delivery("github", name, "push", "push", "acme/shop", "refs/heads/main") for name in ("one", "two", "3")]

    def accept(one: Delivery, now: float) -> list[bool]:
        with Inbox(where.folder) as inbox:
            return inbox.accept([one], now)

    def pulled(updated: str) -> None:
        with Threads(where.folder) as kept:
            kept.reached("acme/shop", updated)

    def come() -> str:
        with Threads(where.folder, reading=True) as kept:
            return kept.come("acme/shop")

    def restored(name: str = "one.tar") -> str:
        caring.restore(tmp_path / name, indexed.path, None, Reporter.to_stderr(), force=True)
        return capsys.readouterr().err

    assert accept(pushes[0], 1.0) == [True]
    pulled("2026-01-01T00:00:00Z")
    caring.backup(where, tmp_path / "one.tar", Reporter())
    assert accept(pushes[1], 2.0) == [True]
    pulled("2026-01-02T00:00:00Z")
    caring.backup(where, tmp_path / "two.tar", Reporter())
    told = restored()
    assert "deliveries.db stays as it is" in told
    assert "forge.db stays as it is" in told
    with Inbox(where.folder) as inbox:
        assert [one.number for one in inbox.due(3.0)] == [1, 2]  # acknowledged, and still to be done
    assert (accept(pushes[0], 4.0), accept(pushes[1], 4.0), come()) == ([False], [False], "2026-01-02T00:00:00Z")
    # What cannot be read, or is older than the backup's, is rolled back; and texts of another repository are.
    (where.folder / "deliveries.db").write_bytes(b"torn" * 999)
    (where.folder / "forge.db").unlink()
    pulled("2025-01-01T00:00:00Z")
    assert "stays as it is" not in restored("two.tar")
    assert (accept(pushes[1], 5.0), accept(pushes[2], 5.0), come()) == ([False], [True], "2026-01-02T00:00:00Z")
    with where.store() as store, store.writing("a test"):
        store.set_fact("repo", "another")
    assert "forge.db" not in restored()
    assert come() == "2026-01-01T00:00:00Z"


def test_a_store_that_a_killed_restore_moved_away_comes_back(indexed: Repo, tmp_path: Path) -> None:
    where = place(indexed)
    caring.backup(where, tmp_path / "one.tar", Reporter())
    old = where.folder.with_name("..treering.before-restore")
    where.folder.rename(old)
    found = checked(caring.examine(indexed.path), "store")
    assert (found.severity, found.way_out) == ("note", "treering run")
    assert [one.severity for one in caring.examine(indexed.path) if one.found.endswith(str(old))] == ["error"]
    with pytest.raises(StoreError, match="there already"):
        caring.restore(tmp_path / "one.tar", indexed.path, None, Reporter())
    assert operations.status(where).commits
    shutil.copytree(where.folder, old)
    assert str(old) in checked(caring.examine(indexed.path), "leftover").way_out


def test_a_store_in_use_is_not_replaced(indexed: Repo, tmp_path: Path) -> None:
    where = place(indexed)
    caring.backup(where, tmp_path / "one.tar", Reporter())
    before = tree(where.folder / "vectors")
    (where.folder / "queue").mkdir()
    for name, who in (("trainer.lock", "a training"), ("queue/watcher.lock", "a watcher")):
        with locked(where.folder / name, who), pytest.raises(StoreBusy, match=who):
            caring.restore(tmp_path / "one.tar", indexed.path, None, Reporter(), force=True)
    assert tree(where.folder / "vectors") == before


def test_a_store_that_is_served_is_not_replaced(indexed: Repo, tmp_path: Path) -> None:
    where = place(indexed)
    caring.backup(where, tmp_path / "one.tar", Reporter())
    with where.store(existing=True) as store:
        assert store.count()
        with pytest.raises(StoreBusy, match="in use"):
            caring.restore(tmp_path / "one.tar", indexed.path, None, Reporter(), force=True)


def test_a_folder_that_is_no_store_is_not_replaced(indexed: Repo, tmp_path: Path) -> None:
    caring.backup(place(indexed), tmp_path / "one.tar", Reporter())
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(StoreError, match="other things"):
        caring.restore(tmp_path / "one.tar", indexed.path, tmp_path / "mine", Reporter(), force=True)
    assert (tmp_path / "mine" / "letter.txt").read_text() == "dear"
    letter = place(indexed).folder / "letter.txt"
    letter.write_text("dear")
    with pytest.raises(StoreError, match=r"letter.txt, which is no part of a store"):
        caring.restore(tmp_path / "one.tar", indexed.path, None, Reporter(), force=True)
    assert letter.read_text() == "dear"


def archive(path: Path, members: list[tuple[tarfile.TarInfo, bytes]]) -> Path:
    with tarfile.open(path, "w") as tar:
        for member, content in members:
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def manifest(files: dict[str, bytes], **changes: object) -> tuple[tarfile.TarInfo, bytes]:
    told = {
        "format": 1, "treering": "0", "repo": "r", "made": "2024", "schema": 4,
        "files": {
            name: {"bytes": len(one), "sha256": hashlib.sha256(one).hexdigest()} for name, one in files.items()
        },
    }  # fmt: skip
    return tarfile.TarInfo("treering-backup.json"), json.dumps(told | changes).encode()


def link(name: str, target: str, kind: bytes) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, target
    return made


def plain(name: str) -> tarfile.TarInfo:
    return tarfile.TarInfo(name)


HOSTILE: dict[str, list[tuple[tarfile.TarInfo, bytes]]] = {
    "climbs out": [manifest({"../evil": b"x"}), (plain("../evil"), b"x")],
    "climbs out below": [manifest({"vectors/../../evil": b"x"}), (plain("vectors/../../evil"), b"x")],
    "absolute": [manifest({"/evil": b"x"}), (plain("/evil"), b"x")],
    "another folder": [manifest({"hooks/post-commit": b"x"}), (plain("hooks/post-commit"), b"x")],
    "a name of nothing of ours": [manifest({"evil.sh": b"x"}), (plain("evil.sh"), b"x")],
    "a link": [manifest({"reports/a": b""}), (link("reports/a", "/etc/passwd", tarfile.SYMTYPE), b"")],
    "a hard link": [manifest({"reports/a": b""}), (link("reports/a", "/etc/passwd", tarfile.LNKTYPE), b"")],
    "a device": [manifest({"reports/a": b""}), (link("reports/a", "", tarfile.CHRTYPE), b"")],
    "more than it tells": [manifest({}), (plain("reports/a"), b"x")],
    "less than it tells": [manifest({"reports/a": b"x"})],
    "other content": [manifest({"reports/a": b"x"}), (plain("reports/a"), b"y")],
    "another size": [manifest({"reports/a": b"x"}), (plain("reports/a"), b"xx")],
    "twice": [manifest({"reports/a": b"x"}), (plain("reports/a"), b"x"), (plain("reports/a"), b"x")],
    "no manifest": [(plain("reports/a"), b"x")],
    "a torn manifest": [(plain("treering-backup.json"), b"{")],
    "another format": [manifest({}, format=2)],
    "a file below a file": [
        manifest({"reports/a": b"x", "reports/a/b": b"x"}), (plain("reports/a"), b"x"), (plain("reports/a/b"), b"x"),
    ],
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_backup_is_refused_and_leaves_nothing(what: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    file = archive(tmp_path / "evil.tar", HOSTILE[what])
    with pytest.raises((DataError, StoreError)):
        caring.restore(file, tmp_path, tmp_path / "in" / "store", Reporter())
    assert [path.name for path in tmp_path.rglob("*")] == ["in", "evil.tar"] or sorted(
        path.name for path in tmp_path.rglob("*")
    ) == ["evil.tar", "in"]


def test_a_backup_of_a_newer_treering_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="newer treering"):
        caring.restore(archive(tmp_path / "new.tar", [manifest({}, schema=99)]), tmp_path, tmp_path / "s", Reporter())


@pytest.mark.parametrize("keep", [0.0, 0.1, 0.5, 1.0])
def test_a_torn_backup_is_refused(indexed: Repo, tmp_path: Path, keep: float) -> None:
    caring.backup(place(indexed), tmp_path / "one.tar", Reporter())
    content = (tmp_path / "one.tar").read_bytes()
    (tmp_path / "one.tar").write_bytes(content[: int(keep * (len(content) - 20_000))])
    with pytest.raises(DataError):
        caring.restore(tmp_path / "one.tar", indexed.path, tmp_path / "store", Reporter())
    assert not (tmp_path / "store").exists()


def test_no_file_is_no_backup(indexed: Repo, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot read"):
        caring.restore(tmp_path / "none.tar", indexed.path, tmp_path / "store", Reporter())


# gc ------------------------------------------------------------------------------------------------------------------


def test_what_nothing_names_goes_and_the_rest_stays(indexed: Repo) -> None:
    where = place(indexed)
    models = [pretended(where.folder, f"m{number}", age=100 * number) for number in range(6)]
    (where.folder / "models" / "current").write_text("project-git-model/m5\n")
    for name in ("vectors/other/vectors.f32", "tokens/old/tokens.bin", ".manifest.json.abcd_fgh", "models/p/.x.new/w"):
        (where.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (where.folder / name).write_bytes(b"x" * 1000)
        os.utime(where.folder / name, (0, 0))
    (where.folder / "aside" / "old").mkdir(parents=True)
    (where.folder / "aside" / "old" / "w").write_bytes(b"x")
    os.utime(where.folder / "aside" / "old", (0, 0))
    (where.folder / "aside" / "new").mkdir()
    before = tree(where.folder)
    planned = caring.sweep(where, Reporter(), dry=True)
    assert tree(where.folder) == before
    done = caring.sweep(where, Reporter())
    assert [one.what for one in done] == [one.what for one in planned]
    assert sum(one.bytes for one in done) > 24_000
    assert [folder.name for folder in models if folder.exists()] == ["m0", "m1", "m2", "m5"]
    assert [path.name for path in (where.folder / "vectors").iterdir()] == [LetterModel().fingerprint]
    assert [path.name for path in (where.folder / "aside").iterdir()] == ["new"]
    assert not (where.folder / ".manifest.json.abcd_fgh").exists()
    assert caring.verify(where, Reporter(), everything=True).sound
    assert caring.sweep(where, Reporter()) == []


def test_commits_that_no_ref_reaches_go_when_they_are_old(indexed: Repo) -> None:
    where = place(indexed)
    for number in range(5):
        indexed.commit(f"A zeppelin {number}", **{f"zeppelin{number}__py": f"def weigh_{number}():\n    pass\n"})
    operations.index(where, Reporter())
    indexed.git("branch", "kept", "HEAD~3")
    indexed.git("reset", "--quiet", "--hard", "HEAD~5")
    indexed.commit("Another way", other__py="def another_way():\n    pass\n")
    operations.index(where, Reporter())
    assert not any("commits" in one.what for one in caring.sweep(where, Reporter(), days=1e5))
    assert caring.sweep(where, Reporter(), days=1)[0].what == "3 commits that no ref reaches"
    with where.store(existing=True) as store:
        assert store.vanished() == 0
    assert caring.verify(where, Reporter(), everything=True).sound
    with opening.finder(where, Reporter()) as found:
        assert found.search("weigh_1", limit=1)[0].subject == "A zeppelin 1"
        assert found.search("another_way", limit=1)[0].subject == "Another way"
    indexed.git("reset", "--quiet", "--hard", "HEAD@{1}")
    assert operations.index(where, Reporter()).commits >= 0


def test_commits_left_out_by_the_settings_are_kept(indexed: Repo) -> None:
    chosen = opening.place(indexed.path, None, {"scrape": {"max_commits": 3}})
    operations.scrape(chosen, Reporter())
    assert caring.sweep(chosen, Reporter(), days=0) == []


def test_vectors_of_a_model_that_is_not_in_use_go_once_the_other_has_all(
    indexed: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = place(indexed)
    monkeypatch.setattr(opening, "load_embedder", lambda *_: LetterModel(seed=1))
    assert not any("vectors" in one.what for one in caring.sweep(where, Reporter()))
    operations.index(where, Reporter())
    assert "vectors of models that are not in use (1)" in [one.what for one in caring.sweep(where, Reporter())]
    with where.store(existing=True) as store:
        assert list(store.fingerprints()) == [LetterModel(seed=1).fingerprint]
    assert caring.verify(where, Reporter(), everything=True).sound


def test_nothing_is_swept_while_somebody_writes_or_trains(indexed: Repo) -> None:
    where = place(indexed)
    for name in ("writer.lock", "trainer.lock"):
        with locked(where.folder / name, "somebody"), pytest.raises(StoreBusy, match="somebody"):
            caring.sweep(where, Reporter())


# uninstall -----------------------------------------------------------------------------------------------------------


def test_a_repository_is_as_it_was_found(story: Repo) -> None:
    strange = '{ "other": [1,2],\n   "mcpServers": {"mine": {"command": "x"}} }'
    story.write(".mcp.json", strange)
    story.git("add", "--all")
    story.git("commit", "--quiet", "-m", "Our servers")
    before = tree(story.path)
    treering(story, "index")
    done = CliRunner().invoke(main, ["mcp", "install", "--yes", "--repo", str(story.path)])
    assert done.exit_code == 0
    treering(story, "search", "dispute")
    treering(story, "sql", "SELECT count(*) FROM commits")
    treering(story, "verify", "--repair")
    treering(story, "gc")
    treering(story, "backup", str(story.path.parent / "kept.tar"))
    assert tree(story.path) != before
    told = json.loads(treering(story, "uninstall", "--yes", "--json").stdout)
    assert len(told["removed"]) == 2
    assert tree(story.path) == before
    assert story.git("status", "--porcelain") == ""


def test_a_file_of_servers_that_we_made_goes(story: Repo) -> None:
    before = tree(story.path)
    for _ in range(2):
        CliRunner().invoke(main, ["mcp", "install", "--yes", "--repo", str(story.path)])
    CliRunner().invoke(main, ["mcp", "install", "--yes", "--client", "cursor", "--repo", str(story.path)])
    cursor = Path.home() / ".cursor" / "mcp.json"
    assert cursor.is_file()
    treering(story, "uninstall", "--yes")
    assert tree(story.path) == before
    assert not cursor.exists()


def test_an_entry_is_taken_out_of_a_file_that_was_changed_since(story: Repo) -> None:
    CliRunner().invoke(main, ["mcp", "install", "--yes", "--repo", str(story.path)])
    path = story.path / ".mcp.json"
    known = json.loads(path.read_text())
    known["mcpServers"]["mine"] = {"command": "x"}
    path.write_text(json.dumps(known))
    treering(story, "uninstall", "--yes")
    assert json.loads(path.read_text()) == {"mcpServers": {"mine": {"command": "x"}}}


def test_nobody_is_asked_without_a_terminal_and_a_dry_run_changes_nothing(indexed: Repo) -> None:
    before = tree(indexed.path)
    assert "--yes" in treering(indexed, "uninstall", code=2).output
    assert "would remove the store" in treering(indexed, "uninstall", "--dry-run").stdout
    assert tree(indexed.path) == before


def test_a_store_that_is_read_or_written_is_not_taken_away(indexed: Repo) -> None:
    where = place(indexed)
    CliRunner().invoke(main, ["mcp", "install", "--yes", "--repo", str(indexed.path)])
    with where.store(existing=True) as store:
        store.count()
        with pytest.raises(StoreBusy, match="in use"):
            caring.uninstall(where, ())
    with locked(where.folder / "writer.lock", "an index run"), pytest.raises(StoreBusy, match="an index run"):
        caring.uninstall(where, ())
    assert (indexed.path / ".mcp.json").is_file()
    assert operations.status(where).commits
    assert caring.uninstall(where, ()).removed


def test_a_folder_of_the_users_keeps_what_is_not_ours(indexed: Repo, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    shutil.move(indexed.path / ".treering", folder)
    mine = [".letter.txt.original", "addresses.db", "letter.txt", "photos.json", "reports.jsonl"]
    for name in mine:
        (folder / name).write_text("dear")
    (folder / ".manifest.json.ab_12xyz").write_text("{")
    where = opening.place(indexed.path, folder)
    assert caring.uninstall(where, (), chosen=True).kept == tuple(mine)
    assert sorted(path.name for path in folder.iterdir()) == mine


def test_a_folder_of_other_things_does_not_become_a_store(indexed: Repo, tmp_path: Path) -> None:
    (tmp_path / "mine" / "models").mkdir(parents=True)
    before = tree(tmp_path / "mine")
    done = treering(indexed, "index", "--store", str(tmp_path / "mine"), code=4)
    assert "holds other things than a store" in done.stderr
    assert "give --store a new folder" in done.stderr
    assert tree(tmp_path / "mine") == before


def test_a_folder_that_is_no_store_is_left_alone(indexed: Repo, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / ".gitignore").write_text("*\n")
    with pytest.raises(StoreError, match="no store of treering"):
        caring.uninstall(opening.place(indexed.path, tmp_path / "home"), (), chosen=True)
    (tmp_path / "home" / ".gitignore").unlink()
    with pytest.raises(StoreError, match="no store of treering"):
        caring.uninstall(opening.place(indexed.path, tmp_path / "home"), (), dry=True)


def test_what_lies_elsewhere_goes_through_the_removers(indexed: Repo) -> None:
    asked: list[bool] = []

    def remover(_: Place, dry: bool) -> list[str]:
        asked.append(dry)
        return ["a hook"]

    assert caring.uninstall(place(indexed), [remover], dry=True).removed[0] == "a hook"
    assert caring.uninstall(place(indexed), [remover]).removed[0] == "a hook"
    assert asked == [True, False]


def test_the_store_of_a_bare_repository_goes_with_its_folders(story: Repo, tmp_path: Path) -> None:
    bare = tmp_path / "bare.git"
    subprocess.run(["git", "clone", "--quiet", "--bare", story.path, bare], check=True)
    where = opening.place(bare)
    operations.index(where, Reporter())
    caring.uninstall(where, ())
    assert not (Path(os.environ["XDG_DATA_HOME"]) / "treering").exists()


# doctor --------------------------------------------------------------------------------------------------------------


def checked(found: list[caring.Finding], name: str) -> caring.Finding:
    return next(one for one in found if one.name == name)


def test_a_machine_is_told_check_by_check(indexed: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-secret")
    found = caring.examine(indexed.path)
    assert {"python", "sqlite", "git", "repository", "clock", "disk", "disk speed", "store", "encoding", "memory"} <= {
        one.name for one in found
    }
    assert not [one for one in found if one.severity == "error"]
    assert all(one.way_out for one in found if one.severity == "warning")
    assert "sk-ant" not in repr(found)
    assert checked(found, "key ANTHROPIC_API_KEY").found.startswith("set")


def test_a_folder_that_is_no_repository_is_an_error_with_a_way_out(tmp_path: Path) -> None:
    found = checked(caring.examine(tmp_path), "repository")
    assert (found.severity, bool(found.way_out)) == ("error", True)
    done = CliRunner().invoke(main, ["doctor", "--repo", str(tmp_path)])
    assert done.exit_code == 14
    assert "is not a Git repository" in done.stderr


def test_a_setting_that_cannot_be_is_an_error(indexed: Repo) -> None:
    indexed.write("treering.toml", "[train]\nmodl = 'x'\n")
    assert "modl" in checked(caring.examine(indexed.path), "repository").found


def test_a_store_of_a_newer_treering_is_an_error(indexed: Repo) -> None:
    with closing(sqlite3.connect(place(indexed).folder / "treering.db")) as db:
        db.execute("PRAGMA user_version=99")
    found = checked(caring.examine(indexed.path), "store")
    assert (found.severity, found.way_out) == ("error", "upgrade treering")


def test_who_holds_a_lock_is_told(indexed: Repo) -> None:
    with locked(place(indexed).folder / "writer.lock", "treering index"):
        assert "writer.lock: treering index (process" in checked(caring.examine(indexed.path), "lock").found
    assert not [one for one in caring.examine(indexed.path) if one.name == "lock"]


def test_shallow_and_partial_clones_are_told(story: Repo, tmp_path: Path) -> None:
    story.git("config", "uploadpack.allowFilter", "true")
    for name, options in (("shallow", ["--depth=2"]), ("partial", ["--filter=blob:none"])):
        subprocess.run(
            ["git", "clone", "--quiet", "--bare", *options, f"file://{story.path}", tmp_path / name],
            check=True, capture_output=True,
        )  # fmt: skip
        found = checked(caring.examine(tmp_path / name), "history")
        assert name in found.found
        assert found.way_out


def test_a_commit_of_tomorrow_is_told(repo: Repo) -> None:
    repo.clock = int(time.time()) + 10 * 86_400
    repo.commit("From the future")
    assert "10 days in the future" in checked(caring.examine(repo.path), "clock").found


def test_a_synced_folder_is_told(indexed: Repo, tmp_path: Path) -> None:
    found = caring.examine(indexed.path, tmp_path / "Dropbox" / "store")
    assert not [one for one in found if one.name == "synced folder"]  # it is not there yet
    (tmp_path / "Dropbox").mkdir()
    assert "Dropbox" in checked(caring.examine(indexed.path, tmp_path / "Dropbox" / "store"), "synced folder").found


def test_a_port_that_is_taken_is_told(indexed: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        monkeypatch.setenv("TREERING_SERVE_PORT", str(taken.getsockname()[1]))
        assert "cannot be listened at" in checked(caring.examine(indexed.path), "port").found


def test_the_kind_of_a_file_system_is_that_of_the_nearest_mount() -> None:
    mounts = "/dev/a / ext4 rw\nserver:/x /mnt/far nfs4 rw\nc /mnt/far/with\\040space fuse.sshfs rw\n"
    assert doctor.file_system(Path("/mnt/far/project"), mounts) == "nfs4"
    assert doctor.file_system(Path("/mnt/far/with space/project"), mounts) == "fuse.sshfs"
    assert doctor.file_system(Path("/mnt/farther"), mounts) == "ext4"
    assert doctor.file_system(Path("/x"), "") == ""


def test_a_sandbox_that_is_too_old_is_told(indexed: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bwrap").write_text("#!/bin/sh\necho bubblewrap 0.4.1\n")
    (tmp_path / "bwrap").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    found = checked(caring.examine(indexed.path), "bwrap")
    assert "too old" in found.found
    assert (found.severity, bool(found.way_out)) == ("note", True)


def test_a_check_that_fails_is_a_finding_and_others_may_be_added(tmp_path: Path) -> None:
    def hooks(_: Patient) -> Iterator[doctor.Finding]:
        yield doctor.Finding("hooks", "they are of an older treering", "warning", "treering hooks install")
        raise OSError("the disk went away")

    found = caring.examine(tmp_path, more=[hooks])
    told = [one.found for one in found if one.name == "hooks"]
    assert told == ["they are of an older treering", "cannot be looked at: the disk went away"]
    patient = Patient(tmp_path, None, Settings(), None, RepositoryError("no", "make one"))
    assert doctor.examine(patient, [hooks])[0].name == "hooks"
