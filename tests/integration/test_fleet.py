"""Many repositories: what becomes of each, by a worker in this process and by Ray's."""

import http.server
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pytest
from click.testing import CliRunner
from msgspec.structs import replace

import fake_qdrant
from fake_forge import TOKEN, Fault, fake_forge
from repositories import Repo, at_home
from treering import finding, fleets, opening, operations
from treering.cli.main import main
from treering.errors import NoStore, ServiceError, StoreBusy, StoreError, UsageError
from treering.files import locked
from treering.fleets import Orders, Worker
from treering.operate import roster
from treering.operate.cluster import cluster
from treering.report import Reporter
from treering.store import Store
from treering.store.fleet import Fleet, Repository, mirror_of, store_of


def small(path: Path, topic: str, commits: int = 3) -> Repo:
    repo = Repo(path)
    for number in range(commits):
        repo.commit(f"Teach the {topic} rule {number}", **{f"{topic}__py": f"def {topic}_{number}():\n    pass\n"})
    return repo


@pytest.fixture
def worker(tmp_path: Path) -> Worker:
    return Worker(Orders(fleet=str(tmp_path / "fleet"), run="1"))


@pytest.fixture
def register(tmp_path: Path) -> Iterator[Fleet]:
    with Fleet(tmp_path / "fleet") as opened:
        yield opened


# which repositories ---------------------------------------------------------------------------------------------------


def test_each_repository_gets_a_name_of_its_own(register: Fleet) -> None:
    sources = [
        "/srv/one/shop.git", "/srv/two/Shop", "https://git.example/acme/shop.git", "git@git.example:acme/tool",
        "/srv/ugly name\n", "/srv/..",
    ]  # fmt: skip
    assert roster.add(register, sources) == 0
    names = {one.source: one.name for one in register.repositories()}
    assert names["/srv/one/shop.git"] == "shop"
    assert names["/srv/two/Shop"] == "Shop-2", "a folder's name may differ by more than case"
    assert names["https://git.example/acme/shop.git"] == "acme-shop"
    assert names["git@git.example:acme/tool"] == "acme-tool"
    assert len({name.lower() for name in names.values()}) == len(sources)
    for name in names.values():
        assert store_of(Path("/f"), name).resolve().parent == Path("/f/stores"), name


def test_what_repeats_another_is_said_to(register: Fleet) -> None:
    sources = ["/srv/shop", "/srv/shop", "/srv/../srv/shop", "https://h.example/a/b.git", "ssh://git@h.example/a/b"]
    assert roster.add(register, sources) == 1
    found = {one.source: one for one in register.repositories()}
    assert [one.source for one in found.values() if one.state == "waiting"] == [
        "/srv/shop", "https://h.example/a/b.git",
    ]  # fmt: skip
    assert found["/srv/../srv/shop"].cause == "it is shop by another name"
    assert found["ssh://git@h.example/a/b"].cause == "it is a-b by another name"
    assert register.names() == ["a-b", "shop"]
    roster.add(register, ["/srv/../srv/shop"])
    assert {one.source for one in register.repositories()} == {"/srv/shop", "https://h.example/a/b.git"}


def test_what_lies_elsewhere_is_another_one(register: Fleet) -> None:
    sources = ["https://h.example:8443/a/b", "https://h.example:9443/a/b", "ada@h.example:b", "bob@h.example:b"]
    roster.add(register, sources)
    assert [one.state for one in register.repositories()] == ["waiting"] * 4


def test_a_relative_path_means_the_same_from_anywhere(
    register: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("one", "two"):
        small(tmp_path / place / "shop", place)
        monkeypatch.chdir(tmp_path / place)
        roster.add(register, ["shop"])
    assert {one.source: one.name for one in register.repositories()} == {
        str(tmp_path / "one" / "shop"): "shop", str(tmp_path / "two" / "shop"): "shop-2",
    }  # fmt: skip


def test_a_linked_work_tree_is_its_repository(register: Fleet, tmp_path: Path) -> None:
    repo = small(tmp_path / "shop", "ledger")
    repo.git("worktree", "add", "--quiet", str(tmp_path / "aside"))
    roster.add(register, [str(tmp_path / "shop"), str(tmp_path / "aside"), str(tmp_path / "shop" / ".git")])
    assert sorted(one.state for one in register.repositories()) == ["duplicate", "duplicate", "waiting"]


def test_an_entry_that_cannot_be_is_put_down_without_its_password(register: Fleet) -> None:
    wrong = [
        "ftp://h.example/x", "https://ada:geheim@h.example/x.git", "https://h.example/x.git?private_token=geheim",
        os.fsdecode(b"/srv/\xff"), "/srv/a\0b", "~nobody-has-this-name/x", "git@h.example:/srv/x.git",
    ]  # fmt: skip
    assert roster.add(register, [*wrong, "/srv/shop"]) == 0
    found = list(register.repositories())
    assert len(found) == 8
    for one in found:
        assert "geheim" not in repr(one)
        if one.source != "/srv/shop":
            assert (one.state, one.stage, one.code, one.name) == ("failed", "list", UsageError.exit_code, "")
    roster.add(register, ["/srv/shop"])
    assert [one.source for one in register.repositories()] == ["/srv/shop"], "the list was mended"


def test_a_repository_within_the_fleet_is_none_of_its_own(register: Fleet, tmp_path: Path) -> None:
    fleet = tmp_path / "fleet"
    kept = small(fleet / "mirrors" / "kept", "ledger")
    kept.git("worktree", "add", "--quiet", str(tmp_path / "aside"))
    (tmp_path / "by-link").symlink_to(kept.path)
    wrong = [str(kept.path), str(tmp_path / "by-link"), f"file://{tmp_path}/flee%74/mirrors/kept"]
    wrong += [str(tmp_path / "aside"), str(fleet)]
    roster.add(register, [*wrong, str(tmp_path / "fleet-2")])
    for one in register.repositories():
        assert (one.state, one.stage) == (("failed", "list") if one.source in wrong else ("waiting", "")), one
        assert ("the fleet's own" in one.cause) == (one.source in wrong)


@pytest.mark.parametrize("place", ["stores/kept", "stores/kept/inner", "mirrors/kept"])
def test_a_users_own_repository_is_never_forgotten(tmp_path: Path, place: str) -> None:
    """An earlier treering took one that lies within the fleet, and one may be put there."""
    fleet = tmp_path / "fleet"
    with Fleet(fleet) as register:
        kept = small(fleet / place, "ledger")
        named = {"kept": str(kept.path), "other": str(tmp_path / "other"), "there": "https://h.example/there"}
        register.keep([Repository(source=source, name=name) for name, source in named.items()])
    for name, path in (("other", "stores/other"), ("there", "mirrors/there")):
        there = small(fleet / path, "ledger")
        with pytest.raises(StoreError, match=f"{path} is not the fleet's"):
            fleets.forget(fleet, [name])
        assert there.git("rev-list", "--count", "HEAD") == "3"
    if place.startswith("stores"):
        with pytest.raises(StoreError, match="is not the fleet's"):
            fleets.forget(fleet, ["kept"])
    else:
        assert fleets.forget(fleet, ["kept"]) == [str(kept.path)]
    assert kept.git("rev-list", "--count", "HEAD") == "3"


def test_a_name_that_leads_elsewhere_is_none(tmp_path: Path) -> None:
    with Fleet(tmp_path / "fleet") as register:
        register.keep([Repository(source="/srv/x", name="../../precious")])
    (tmp_path / "precious").mkdir()
    with pytest.raises(StoreError, match="names a repository"):
        fleets.forget(tmp_path / "fleet", ["../../precious"])
    assert (tmp_path / "precious").is_dir()


def test_a_store_that_lies_elsewhere_is_not_deleted(settled: tuple[Worker, Repo, Repository], tmp_path: Path) -> None:
    worker, _, _ = settled
    store = store_of(worker.fleet, "shop")
    store.rename(tmp_path / "disk")
    store.symlink_to(tmp_path / "disk")
    with pytest.raises(StoreError, match="is not the fleet's"):
        fleets.forget(worker.fleet, ["shop"])
    assert (tmp_path / "disk" / "treering.db").is_file()


def test_a_folder_within_a_repository_is_none(worker: Worker, tmp_path: Path) -> None:
    small(tmp_path / "mono", "ledger")
    inner = small(tmp_path / "mono" / "vendor" / "shop", "shop")
    before = worker.work(Repository(source=str(inner.path), name="shop"))
    shutil.rmtree(inner.path / ".git")
    done = worker.work(before)
    assert (done.state, done.code, done.commits) == ("failed", 3, 3)
    assert f"{inner.path} is not a Git repository" in done.cause
    with Store.existing(store_of(worker.fleet, "shop")) as store:
        assert store.count() == 3
        assert store.fact("repo") == "shop"


def test_a_list_is_lines(tmp_path: Path) -> None:
    (tmp_path / "list").write_bytes(b"# ours\n\n /srv/one \nhttps://h.example/two\n/srv/\xff\n")
    assert fleets.listed(tmp_path / "list") == ["/srv/one", "https://h.example/two", os.fsdecode(b"/srv/\xff")]


@pytest.mark.parametrize("kind", ["github", "gitlab"])
def test_an_organisation_is_listed_page_by_page(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with fake_forge(kind) as forge:
        forge.page = 2
        forge.owned = [f"https://h.example/acme/{number}.git" for number in range(5)]
        monkeypatch.setenv("TREERING_FORGE_API", forge.api)
        monkeypatch.setenv("TREERING_FORGE_TOKEN", TOKEN)
        assert fleets.organisation(f"{kind}:acme") == forge.owned
        assert fleets.organisation(f"{kind}:ada") == forge.owned[:1], "a person has some, too"
        with pytest.raises(ServiceError, match="no nobody at"):
            fleets.organisation(f"{kind}:nobody")
        assert forge.tokens == {TOKEN}
        assert not forge.wrong
    with pytest.raises(UsageError, match="no organisation"):
        fleets.organisation("acme")


@pytest.mark.parametrize("kind", ["github", "gitlab"])
def test_an_organisation_that_is_listed_in_part_adds_nothing(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small(tmp_path / "shop", "ledger")
    with fake_forge(kind) as forge:
        forge.page = 2
        forge.owned = [f"https://h.example/acme/{number}.git" for number in range(5)]
        listed = forge._owned

        def then_refuses(what: str, owner: str, _: str) -> Any:
            forge.faults.append(Fault(422))
            return listed(what, owner, _)

        monkeypatch.setattr(forge, "_owned", then_refuses)

        monkeypatch.setenv("TREERING_FORGE_API", forge.api)
        command = ["fleet", "update", str(tmp_path / "fleet"), str(tmp_path / "shop"), "--organisation", f"{kind}:acme"]
        ran = CliRunner().invoke(main, command)
    assert ran.exit_code == ServiceError.exit_code
    assert "422 on GET" in ran.output
    assert not (tmp_path / "fleet").exists()


# the work on one ------------------------------------------------------------------------------------------------------


def test_a_repository_is_indexed_as_it_would_be_alone(worker: Worker, tmp_path: Path) -> None:
    repo = small(tmp_path / "shop", "ledger")
    done = worker.work(Repository(source=str(repo.path), name="shop"))
    assert (done.state, done.cause, done.commits, done.new) == ("complete", "", 3, 3)
    assert done.vectors > 0
    assert done.bytes > 0
    assert done.seconds > 0
    alone = opening.place(repo.path)
    operations.index(alone, Reporter())
    here = opening.place(repo.path, store_of(worker.fleet, "shop"))
    with alone.store() as one, here.store() as other:
        assert msgspec.json.encode(list(one.records())) == msgspec.json.encode(list(other.records()))
    for query in ("teach the ledger", "rule 2", repo.git("rev-parse", "HEAD")):
        assert finding.search(alone, query, Reporter()) == finding.search(here, query, Reporter())
    again = worker.work(done)
    assert (again.state, again.commits, again.new) == ("complete", 3, 0)
    assert not list((worker.fleet / "running").iterdir())


def test_what_was_done_and_never_told_counts_as_new_once(worker: Worker, tmp_path: Path) -> None:
    repo = small(tmp_path / "shop", "ledger")
    before = Repository(source=str(repo.path), name="shop")
    worker.work(before)  # its worker, or all of the update, was killed before this was put down
    done = worker.work(before)
    assert (done.commits, done.new) == (3, 3)
    assert worker.work(done).new == 0
    repo.git("reset", "--quiet", "--hard", "HEAD~2")
    repo.commit("Count the oracle", oracle__py="TOTAL = 1\n")
    again = worker.work(done)
    assert (again.commits, again.new) == (2, 1), "what vanished is not taken from it"
    repo.commit("Count it twice", oracle__py="TOTAL = 2\n")
    head = (repo.path / ".git" / "HEAD").rename(tmp_path / "HEAD")
    failed = worker.work(again)
    assert (failed.state, failed.commits, failed.new) == ("failed", 2, 0)
    head.rename(repo.path / ".git" / "HEAD")
    assert worker.work(replace(failed, newest=0)).new == 1, "an earlier treering put down no newest"
    assert worker.work(failed).new == 1


def test_tokens_are_made_where_they_are_asked_for(worker: Worker, tmp_path: Path) -> None:
    small(tmp_path / "shop", "ledger")
    worker.orders = replace(worker.orders, tokens=True)
    assert worker.work(Repository(source=str(tmp_path / "shop"), name="shop")).tokens > 0


def test_a_repository_chooses_its_commits_and_no_model(worker: Worker, tmp_path: Path) -> None:
    worker.orders = replace(worker.orders, tokens=True)
    chosen = """
        index.model = "%s"
        index.batch_tokens = 1000000000
        vectors.backend = "edge"
        tokens.strategy = "flat"
        train.model = "%s"
        scrape.max_commits = 2
    """
    for name in ("shop", "mill"):
        small(tmp_path / name, "ledger")
    (tmp_path / "mill" / "treering.toml").write_text(chosen % (tmp_path, tmp_path))
    shop, mill = (worker.work(Repository(source=str(tmp_path / name), name=name)) for name in ("shop", "mill"))
    assert (mill.state, mill.cause, mill.commits) == ("complete", "", 2)
    assert 0 < mill.tokens < shop.tokens
    shops, mills = ((store_of(worker.fleet, name) / "vectors").iterdir() for name in ("shop", "mill"))
    assert {one.name for one in shops} == {one.name for one in mills}
    (tmp_path / "mill" / "treering.toml").write_text("[index]\nmodle = 1")
    assert (broken := worker.work(mill)).code == UsageError.exit_code, broken


def test_what_fails_keeps_what_was_there(worker: Worker, tmp_path: Path) -> None:
    repo = small(tmp_path / "shop", "ledger")
    done = worker.work(Repository(source=str(repo.path), name="shop"))
    (tmp_path / "shop" / ".git" / "HEAD").unlink()
    failed = worker.work(done)
    assert (failed.state, failed.stage, failed.code) == ("failed", "fetch", 3)
    assert "is not a Git repository" in failed.cause
    assert (failed.commits, failed.vectors, failed.new) == (3, done.vectors, 0)
    with Store.existing(store_of(worker.fleet, "shop")) as store:
        assert store.count() == 3


def test_a_damaged_repository_is_said_to_be_partial(worker: Worker, tmp_path: Path) -> None:
    repo = small(tmp_path / "shop", "ledger")
    blob = repo.git("rev-parse", "HEAD~1:ledger.py")
    (repo.path / ".git" / "objects" / blob[:2] / blob[2:]).unlink()
    done = worker.work(Repository(source=str(repo.path), name="shop"))
    assert (done.state, done.commits) == ("partial", 3)
    assert "2 commits have a partial diff" in done.cause


def test_a_repository_without_commits_fails_by_its_cause(worker: Worker, tmp_path: Path) -> None:
    Repo(tmp_path / "shop")
    done = worker.work(Repository(source=str(tmp_path / "shop"), name="shop"))
    assert (done.state, done.stage, done.code) == ("failed", "index", 3)
    assert "no commits" in done.cause


def test_one_that_is_too_large_is_left(worker: Worker, tmp_path: Path) -> None:
    repo = small(tmp_path / "shop", "ledger")
    with (repo.path / ".git" / "objects" / "pack" / "pack-1.pack").open("wb") as pack:
        pack.truncate(50 << 30)
    done = worker.work(Repository(source=str(repo.path), name="shop"))
    assert (done.state, done.code) == ("failed", 3)
    assert "it has 53.7 GB, more than 21.5" in done.cause
    assert not store_of(worker.fleet, "shop").exists()


def test_what_nobody_foresaw_is_told_of_one_and_ends_nothing(
    worker: Worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise MemoryError("no more")

    monkeypatch.setattr(operations, "index", broken)
    small(tmp_path / "shop", "ledger")
    done = worker.work(Repository(source=str(tmp_path / "shop"), name="shop"))
    assert (done.state, done.stage, done.cause, done.code) == ("failed", "index", "MemoryError: no more", 1)


def test_who_killed_three_workers_is_left_until_the_next_run(worker: Worker, tmp_path: Path) -> None:
    small(tmp_path / "shop", "ledger")
    one = Repository(source=str(tmp_path / "shop"), name="shop")
    (worker.fleet / "running").mkdir(parents=True)
    mark = worker.fleet / "running" / "shop"
    mark.write_text("1 3")
    assert worker.work(one).cause == "its worker died of it 3 times"
    assert not mark.exists()
    mark.write_text("0 3")  # of an earlier run, which was killed
    assert worker.work(one).state == "complete"


# from elsewhere -------------------------------------------------------------------------------------------------------


class Served(http.server.SimpleHTTPRequestHandler):
    """A folder of bare repositories, as any web server gives them; one of them is private."""

    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if self.path.startswith("/private"):
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="forge"')
            self.end_headers()
        else:
            super().do_GET()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def host(tmp_path: Path) -> Iterator[str]:
    folder = tmp_path / "host"
    folder.mkdir()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), lambda *given: Served(*given, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def published(repo: Repo, tmp_path: Path) -> None:
    bare = tmp_path / "host" / f"{repo.path.name}.git"
    repo.git("push", "--quiet", "--mirror", str(bare)) if bare.exists() else repo.git(
        "clone", "--quiet", "--bare", str(repo.path), str(bare)
    )
    repo.git("--git-dir", str(bare), "update-server-info")


def test_one_is_fetched_and_fetched_again(worker: Worker, host: str, tmp_path: Path) -> None:
    repo = small(tmp_path / "shop", "ledger")
    published(repo, tmp_path)
    done = worker.work(Repository(source=f"{host}/shop.git", name="shop"))
    assert (done.state, done.commits, done.new) == ("complete", 3, 3), done.cause
    repo.commit("Count the oracle", oracle__py="TOTAL = 1\n")
    published(repo, tmp_path)
    again = worker.work(done)
    assert (again.state, again.commits, again.new) == ("complete", 4, 1), again.cause


def test_a_private_one_and_a_dead_address_fail_by_their_cause(
    worker: Worker, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleets, "PAUSES", (0.0,))
    Served.asked.clear()
    private = worker.work(Repository(source=f"{host}/private/shop.git", name="shop"))
    assert (private.state, private.stage, private.code) == ("failed", "fetch", ServiceError.exit_code)
    assert "refuses the fetch" in private.cause
    asked = len(Served.asked)
    assert asked >= 2, "it was tried again"
    assert worker.work(private).cause == private.cause
    assert len(Served.asked) - asked == asked / 2, "two tries before, one now: what did not answer is not waited for"
    dead = worker.work(Repository(source="http://127.0.0.1:9/shop.git", name="dead"))
    assert (dead.state, dead.code) == ("failed", ServiceError.exit_code)
    assert "127.0.0.1 failed" in dead.cause


def test_a_fetch_ends_when_it_is_too_large(
    worker: Worker, host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleets, "LOOK_SECONDS", 0.0)
    repo = small(tmp_path / "shop", "ledger")
    repo.commit("Keep a blob", blob__bin=os.urandom(3 << 20))
    published(repo, tmp_path)
    worker.orders = replace(worker.orders, largest=1 << 20)
    done = worker.work(Repository(source=f"{host}/shop.git", name="shop"))
    assert done.state == "failed"
    assert "more than 0.0" in done.cause
    assert not store_of(worker.fleet, "shop").exists()


# all of them ----------------------------------------------------------------------------------------------------------


class RayIsStartedError(Exception):
    pass


@pytest.fixture
def settled(
    worker: Worker, register: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Worker, Repo, Repository]:
    """A fleet of one repository that is up to date, where Ray must not be started."""
    repo = small(tmp_path / "shop", "ledger")
    done = worker.work(Repository(source=str(repo.path), name="shop"))
    register.keep([done])

    def started(_: int) -> None:
        raise RayIsStartedError

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(fleets, "cluster", started)
    return worker, repo, done


def test_nothing_is_started_where_nothing_is_new(settled: tuple[Worker, Repo, Repository]) -> None:
    worker, _, done = settled
    again = fleets.update(worker.fleet, [], Reporter())
    assert (again.states, again.new, again.commits) == ({"complete": 1}, 0, 3)
    now = fleets.status(worker.fleet).repositories[0]
    assert now.finished > done.finished
    assert replace(now, finished=0, new=0) == replace(done, finished=0, new=0, added=now.added)


def _commit(worker: Worker, repo: Repo) -> None:
    repo.commit("Teach it one more", more__py="pass\n")


def _branch(worker: Worker, repo: Repo) -> None:
    repo.git("branch", "aside", "HEAD~1")


def _gone(worker: Worker, repo: Repo) -> None:
    shutil.rmtree(repo.path)


def _no_store(worker: Worker, repo: Repo) -> None:
    shutil.rmtree(store_of(worker.fleet, "shop"))


def _torn_vectors(worker: Worker, repo: Repo) -> None:
    (path,) = store_of(worker.fleet, "shop").glob("vectors/*/vectors.f32")
    os.truncate(path, 100)


def _older_index(worker: Worker, repo: Repo) -> None:
    with Store(store_of(worker.fleet, "shop")) as store:
        store.set_fact("index", "of an older version")


def _words_lost(worker: Worker, repo: Repo) -> None:
    with Store(store_of(worker.fleet, "shop")) as store:
        store.clear_documents()


def _by_hand(worker: Worker, repo: Repo) -> None:
    _commit(worker, repo)
    operations.index(opening.place(repo.path, store_of(worker.fleet, "shop")), Reporter())


@pytest.mark.parametrize(
    "change", [_commit, _branch, _gone, _no_store, _torn_vectors, _older_index, _words_lost, _by_hand]
)
def test_a_worker_is_given_what_is_not_as_it_was(
    settled: tuple[Worker, Repo, Repository], change: Callable[[Worker, Repo], None]
) -> None:
    worker, repo, _ = settled
    change(worker, repo)
    with pytest.raises(RayIsStartedError):
        fleets.update(worker.fleet, [], Reporter())


def test_a_worker_is_given_what_cannot_be_looked_at(
    settled: tuple[Worker, Repo, Repository], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> bool:
        raise PermissionError(13, "Permission denied", "/srv/shop/.git/shallow")

    worker, _, done = settled
    monkeypatch.setattr(operations, "is_current", refused)
    with pytest.raises(RayIsStartedError):
        fleets.update(worker.fleet, [], Reporter())
    monkeypatch.setattr(operations, "index", refused)
    again = worker.work(done)
    assert (again.state, again.code) == ("failed", StoreError.exit_code)
    assert again.cause == "/srv/shop/.git/shallow: Permission denied"


def test_one_that_cannot_be_looked_at_stops_no_other(settled: tuple[Worker, Repo, Repository], tmp_path: Path) -> None:
    worker, repo, _ = settled
    shutil.rmtree(repo.path / ".git")
    (repo.path / ".git").write_bytes(b"gitdir: \0\0\0")
    other = small(tmp_path / "other", "oracle")
    with Fleet(worker.fleet) as register:
        roster.add(register, [str(other.path)])
        assert register.names() == ["other", "shop"]
        (shop,) = [one for one in register.repositories() if one.name == "shop"]
    assert worker.work(shop).state == "failed"


def test_a_worker_is_given_what_else_is_wanted(settled: tuple[Worker, Repo, Repository]) -> None:
    worker, _, _ = settled
    with pytest.raises(RayIsStartedError):
        fleets.update(worker.fleet, [], Reporter(), tokens=True)
    with pytest.raises(RayIsStartedError):
        fleets.update(worker.fleet, [], Reporter(), largest=1)
    with pytest.raises(RayIsStartedError):
        fleets.update(worker.fleet, [], Reporter(), flags={"scrape": {"since": "2001-01-01"}})


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Repositories of which three cannot be read, and a list of all."""
    folder = tmp_path_factory.mktemp("many")
    with pytest.MonkeyPatch.context() as patch:
        at_home(patch, tmp_path_factory.mktemp("home"))
        for topic in ("ledger", "oracle", "bridge", "quota"):
            small(folder / topic, topic)
        Repo(folder / "empty")
        head = small(folder / "broken", "broken").git("rev-parse", "HEAD")
        (folder / "broken" / ".git" / "objects" / head[:2] / head[2:]).unlink()
        (folder / "none").mkdir()
    names = ("ledger", "oracle", "empty", "bridge", "broken", "none", "quota", "ledger", "./oracle")
    (folder / "list").write_text("".join(f"{folder}/{name}\n" for name in names))
    return folder


def test_ray_brings_all_up_to_date_but_what_cannot_be(
    many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = tmp_path / "fleet"
    monkeypatch.setenv("QDRANT_API_KEY", "a-key-that-workers-inherit")
    with fake_qdrant.serving() as server:
        server.key = "a-key-that-workers-inherit"
        listed = fleets.listed(many / "list")
        done = fleets.update(fleet, listed, Reporter(), workers=2, qdrant="all", qdrant_url=server.url)
        pushed = server.engine.facet("all", "repo").hits
        with Fleet(fleet, reading=True) as register:
            assert register.collections(["quota", "oracle"]) == [(server.url, "all", ["oracle", "quota"])]
    assert {hit.value for hit in pushed} == {"ledger", "oracle", "bridge", "quota"}
    assert sum(hit.count for hit in pushed) == done.vectors
    assert done.states == {"complete": 4, "failed": 3, "duplicate": 1}
    assert (done.commits, done.new, done.repeated) == (12, 12, 1)
    causes = {one.name or one.source: (one.code, one.cause) for one in done.incomplete}
    assert causes.keys() == {"empty", "broken", "none", f"{many}/./oracle"}
    assert "no commits" in causes["empty"][1]
    assert "is not a Git repository" in causes["none"][1]
    assert causes["broken"][0] == 3
    assert fleets.status(fleet).running == ()
    again = fleets.update(fleet, (), Reporter(), workers=1)
    assert (again.states, again.new) == (done.states, 0)

    assert fleets.forget(fleet, ["oracle"], leave_points=True) == [f"{many}/oracle"]
    assert not store_of(fleet, "oracle").exists()
    found = fleets.status(fleet)
    assert "oracle" not in {one.name for one in found.repositories}
    assert found.commits == 9


def test_a_worker_that_is_killed_costs_nothing(many: Path, tmp_path: Path) -> None:
    fleet = tmp_path / "fleet"
    command = [sys.executable, "-m", "treering", "fleet", "update", str(fleet), "--list", str(many / "list")]
    with subprocess.Popen([*command, "--workers", "1", "--json"], stdout=subprocess.PIPE) as process:
        victim = 0
        while process.poll() is None and not victim:
            victim = next((one for one in _children(process.pid) if _title(one).startswith("ray::MapWorker")), 0)
            time.sleep(0.05)
        while process.poll() is None and not any((fleet / "running").glob("*")):
            time.sleep(0.01)
        assert victim
        os.kill(victim, signal.SIGKILL)
        assert process.stdout
        told = msgspec.json.decode(process.stdout.read())
    assert process.returncode == 7
    assert told["states"] == {"complete": 4, "failed": 3, "duplicate": 1}


def _children(process: int) -> list[int]:
    try:
        lines = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except OSError:
        return []
    return [one for child in map(int, lines) for one in (child, *_children(child))]


def _title(process: int) -> str:
    try:
        return Path(f"/proc/{process}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


def test_two_updates_at_once_do_not_meet(tmp_path: Path) -> None:
    with (
        Fleet(tmp_path / "fleet"),
        locked(tmp_path / "fleet" / "update.lock", "another"),
        pytest.raises(StoreBusy, match="another"),
    ):
        fleets.update(tmp_path / "fleet", ["/srv/shop"], Reporter())


def test_a_cluster_that_is_not_there_is_said_at_once(
    many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    with pytest.raises(ServiceError, match=r"no Ray answers at 127\.0\.0\.1:9"):
        fleets.update(tmp_path / "fleet", [str(many / "ledger")], Reporter())


def test_a_cluster_that_is_called_local_is_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "local")
    with cluster(3):
        import ray  # not before: it looks for its token then

        assert os.environ["RAY_AUTH_MODE"] == "token"
        resources = ray.cluster_resources()  # type: ignore[no-untyped-call]  # Ray says none
        assert resources["CPU"] == 3, "of so many processes as were asked for"
    assert "RAY_AUTH_MODE" not in os.environ


def test_a_fleet_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(NoStore, match="no fleet"):
        fleets.status(tmp_path)
    with pytest.raises(UsageError, match="has no repository"):
        fleets.update(tmp_path / "fleet", (), Reporter())
    with pytest.raises(UsageError, match="the fleet has no shop"):
        fleets.forget(tmp_path / "fleet", ["shop"])


def test_the_mirror_of_one_that_is_forgotten_goes_too(worker: Worker, host: str, tmp_path: Path) -> None:
    published(small(tmp_path / "shop", "ledger"), tmp_path)
    with Fleet(worker.fleet) as register:
        register.keep([worker.work(Repository(source=f"{host}/shop.git", name="shop"))])
    assert mirror_of(worker.fleet, "shop").is_dir()
    fleets.forget(worker.fleet, ["shop"])
    assert not mirror_of(worker.fleet, "shop").exists()
    assert not store_of(worker.fleet, "shop").exists()
