"""Many repositories in one collection of Qdrant: pushed, searched, verified, pulled and forgotten one by one.

The contract that a tenant keeps as every back end does is in test_vector_backends.py.
"""

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import fake_qdrant
from fake_qdrant import FakeQdrant
from repositories import Repo, at_home
from treering import fleets, opening, operations, sharing
from treering.cli.main import main
from treering.errors import ModelError, StoreAway, StoreError, UsageError
from treering.fleets import Orders, Worker
from treering.operate import roster
from treering.report import Reporter
from treering.store import fleet as register_of
from treering.store.fleet import Fleet, Repository, store_of
from treering.vectors import qdrant as qdrant_stage

SHARED = "all"
OUT_OF_ORDER = (503, 0.0)
AS_EVER = (0, 0.0)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeQdrant]:
    monkeypatch.setattr(qdrant_stage, "PAUSES", (0.0,) * 4)
    monkeypatch.setattr(sharing, "PATIENCE", (0.0,) * 6)
    monkeypatch.delenv("QDRANT_API_KEY", raising=False)
    with fake_qdrant.serving() as server:
        monkeypatch.setenv("TREERING_VECTORS_QDRANT_URL", server.url)
        yield server


@pytest.fixture(scope="module")
def histories(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`one/shop`, a fork of it with a commit more, `two/shop`, and `tool`, which has nothing to do with them."""
    folder = tmp_path_factory.mktemp("histories")
    with pytest.MonkeyPatch.context() as patch:
        at_home(patch, tmp_path_factory.mktemp("home"))
        shop = Repo(folder / "one" / "shop")
        for number in range(3):
            shop.commit(f"Teach the ledger rule {number}", ledger__py=f"def ledger_{number}():\n    pass\n")
        shop.copied(folder / "two" / "shop").commit("Count the oracle twice", oracle__py="TOTAL = 2\n")
        Repo(folder / "tool").commit("Cross the bridge", bridge__py="def bridge():\n    pass\n")
    return folder


@pytest.fixture
def sources(histories: Path, tmp_path: Path) -> dict[str, Path]:
    """Copies of them by the names that they have in a fleet."""
    shutil.copytree(histories, tmp_path / "srv", symlinks=True)
    return {name: tmp_path / "srv" / path for name, path in (
        ("shop", "one/shop"), ("shop-2", "two/shop"), ("tool", "tool"),
    )}  # fmt: skip


@pytest.fixture
def worker(fake: FakeQdrant, tmp_path: Path) -> Worker:
    return Worker(Orders(fleet=str(tmp_path / "fleet"), run="1", vectors=sharing.shared(SHARED)))


@pytest.fixture
def done(worker: Worker, sources: dict[str, Path]) -> dict[str, Repository]:
    """What became of each, as the register has it."""
    with Fleet(worker.fleet) as register:
        roster.add(register, [str(one) for one in sources.values()])
        found = {one.name: worker.work(one) for one in register.repositories()}
        register.keep(found.values())
        for name in found:
            register.pushed(sharing.shared(SHARED).qdrant_url, SHARED, name)
    return found


def place(worker: Worker, sources: dict[str, Path], name: str, **chosen: object) -> opening.Place:
    flags = {"qdrant_collection": SHARED, "qdrant_tenant": name, **chosen}
    return opening.place(sources[name], store_of(worker.fleet, name), {"vectors": flags})


def there(fake: FakeQdrant) -> dict[str, set[str]]:
    """The ids of the points of each repository."""
    found: dict[str, set[str]] = {}
    for record in fake.engine.scroll(SHARED, limit=10_000)[0]:
        assert record.payload
        found.setdefault(record.payload["repo"], set()).add(str(record.id))
    return found


def treering(*arguments: object, code: int = 0) -> Any:
    ran = CliRunner().invoke(main, [str(one) for one in arguments])
    assert ran.exit_code == code, ran.output
    return ran


# apart from each other ------------------------------------------------------------------------------------------------


def test_forks_of_one_name_and_the_same_commits_have_points_of_their_own(
    fake: FakeQdrant, worker: Worker, sources: dict[str, Path], done: dict[str, Repository]
) -> None:
    assert {name: (one.state, one.commits) for name, one in done.items()} == {
        "shop": ("complete", 3), "shop-2": ("complete", 4), "tool": ("complete", 1),
    }  # fmt: skip
    assert {name: len(ids) for name, ids in there(fake).items()} == {name: one.vectors for name, one in done.items()}
    assert fake.engine.count(SHARED).count == sum(one.vectors for one in done.values())
    for name, one in done.items():
        compared = operations.qdrant_verify(place(worker, sources, name), Reporter())
        assert compared.same, compared
        assert (compared.here, compared.there, compared.agreement) == (one.vectors, one.vectors, 1.0)


def test_a_push_writes_and_removes_its_own_only(
    fake: FakeQdrant, worker: Worker, sources: dict[str, Path], done: dict[str, Repository]
) -> None:
    before, written = there(fake), len(fake.bodies("/points"))
    assert worker.work(done["shop-2"]).state == "complete"
    assert len(fake.bodies("/points")) == written, "nothing was missing"
    fork = Repo(sources["shop-2"])
    fork.git("reset", "--quiet", "--hard", "HEAD~2")
    fork.commit("Another end", end__py="def another_end():\n    pass\n")
    again = worker.work(done["shop-2"])
    assert (again.state, again.new) == ("complete", 1)
    after = there(fake)
    assert {name: ids for name, ids in after.items() if name != "shop-2"} == {
        name: ids for name, ids in before.items() if name != "shop-2"
    }
    assert before["shop-2"] - after["shop-2"]
    assert after["shop-2"] - before["shop-2"]


def test_a_pull_takes_the_tenants_own(
    fake: FakeQdrant, worker: Worker, sources: dict[str, Path], done: dict[str, Repository], tmp_path: Path
) -> None:
    where = opening.place(
        sources["shop"], tmp_path / "new", {"vectors": {"qdrant_collection": SHARED, "qdrant_tenant": "shop"}}
    )
    asked = len(fake.bodies("/points/scroll"))
    pulled = operations.qdrant_pull(where, Reporter())
    assert (pulled.vectors, pulled.missing) == (done["shop"].vectors, 0)
    for body in fake.bodies("/points/scroll")[asked:]:
        assert body["filter"] == {"must": [{"key": "repo", "match": {"value": "shop"}}]}


def test_a_search_by_the_server_sees_the_tenants_own(
    fake: FakeQdrant, worker: Worker, sources: dict[str, Path], done: dict[str, Repository]
) -> None:
    from treering import finding

    own = finding.search(place(worker, sources, "shop", backend="flat"), "count the oracle", Reporter())
    report = Reporter()
    found = finding.search(place(worker, sources, "shop", backend="qdrant"), "count the oracle", report)
    assert [hit.commit_hash for hit in found] == [hit.commit_hash for hit in own]
    assert not report.warnings
    asked = fake.bodies("/points/query")
    assert asked
    assert all(body["filter"]["must"] == [{"key": "repo", "match": {"value": "shop"}}] for body in asked)


def test_a_name_that_another_repository_has_is_refused_and_nothing_is_lost(
    fake: FakeQdrant, worker: Worker, sources: dict[str, Path], done: dict[str, Repository]
) -> None:
    before = there(fake)
    theirs = opening.place(
        sources["tool"],
        store_of(worker.fleet, "tool"),
        {"vectors": {"qdrant_collection": SHARED, "qdrant_tenant": "shop"}},
    )
    with pytest.raises(StoreError, match="of shop, but of no commit of this repository") as caught:
        operations.qdrant_push(theirs, Reporter())
    assert "--tenant" in caught.value.hint
    assert there(fake) == before


def test_a_repository_cannot_choose_whose_points_it_writes_over(sources: dict[str, Path]) -> None:
    (sources["tool"] / "treering.toml").write_text('[vectors]\nqdrant_tenant = "shop"\n')
    with pytest.raises(UsageError, match="not the repository's to set"):
        opening.place(sources["tool"])


def test_a_repositorys_settings_decide_nothing_of_where_it_is_pushed(
    fake: FakeQdrant, worker: Worker, sources: dict[str, Path]
) -> None:
    (sources["tool"] / "treering.toml").write_text('[vectors]\nbackend = "edge"\nqdrant_collection = "mine"\n')
    assert worker.work(Repository(source=str(sources["tool"]), name="tool")).state == "complete"
    assert there(fake).keys() == {"tool"}


def test_the_command_shares_a_collection(fake: FakeQdrant, sources: dict[str, Path]) -> None:
    shop = ("--repo", sources["shop"], "--tenant", "shop", "--collection", SHARED)
    treering("index", "--repo", sources["shop"])
    treering("qdrant", "push", *shop)
    assert "0 missing" in treering("qdrant", "verify", *shop).output
    assert there(fake).keys() == {"shop"}
    refused = treering("qdrant", "push", "--repo", sources["shop"], "--collection", SHARED, code=4)
    assert "--tenant" in refused.output
    alone = treering("qdrant", "push", "--repo", sources["shop"], "--tenant", "shop", code=2)
    assert "--collection" in alone.output
    treering("qdrant", "push", "--repo", sources["shop"])
    treering("qdrant", "push", *shop[:4], "--collection", "shop-commits", code=4)


# a fleet --------------------------------------------------------------------------------------------------------------


def test_a_server_that_is_away_for_a_while_costs_nothing(
    fake: FakeQdrant, worker: Worker, sources: dict[str, Path]
) -> None:
    # At the first request, then in the middle of the points, then at the first request again.
    fake.faults.extend([OUT_OF_ORDER, *[AS_EVER] * 10, *[OUT_OF_ORDER] * 7])
    found = worker.work(Repository(source=str(sources["shop"]), name="shop"))
    assert (found.state, found.cause) == ("complete", "")
    assert not fake.faults
    assert len(there(fake)["shop"]) == found.vectors


def test_a_server_that_stays_away_fails_the_push_and_not_the_store(
    fake: FakeQdrant, worker: Worker, sources: dict[str, Path]
) -> None:
    fake.faults.extend([OUT_OF_ORDER] * 8)
    found = worker.work(Repository(source=str(sources["shop"]), name="shop"))
    assert (found.state, found.stage, found.code) == ("failed", "push", StoreError.exit_code)
    assert f"{fake.url} answers 503" in found.cause
    assert (found.commits, found.new) == (3, 3)
    assert found.vectors > 0
    assert len(fake.faults) == 1, "tried seven times"
    second = worker.work(Repository(source=str(sources["tool"]), name="tool"))
    assert (second.state, len(fake.faults)) == ("failed", 0), "after that it is not waited for again"
    for before in (found, second):
        after = worker.work(before)
        assert (after.state, after.new) == ("complete", 0)
    assert len(there(fake)["shop"]) == found.vectors
    fake.faults.extend([OUT_OF_ORDER] * 6)
    assert worker.work(found).state == "complete", "it was there again: it is waited for again"


def test_a_minute_is_waited_and_half_of_another() -> None:
    assert sum(sharing.PATIENCE) >= 90


def test_what_a_server_refuses_is_not_tried_again(fake: FakeQdrant, worker: Worker, sources: dict[str, Path]) -> None:
    fake.faults.extend([(403, 0.0)] * 2)
    found = worker.work(Repository(source=str(sources["shop"]), name="shop"))
    assert (found.state, found.stage, found.commits) == ("failed", "push", 3)
    assert "wants a key" in found.cause
    assert len(fake.faults) == 1


def test_a_collection_of_another_model_is_told_by_the_fleets_option(
    fake: FakeQdrant, worker: Worker, sources: dict[str, Path], done: dict[str, Repository]
) -> None:
    fake.engine.update_collection(SHARED, metadata={"fingerprint": "of another model"})
    refused = worker.work(done["shop"])
    assert (refused.state, refused.stage, refused.code) == ("failed", "push", ModelError.exit_code)
    assert "(of a fleet --qdrant)" in refused.hint


def test_what_has_no_vectors_is_not_pushed_and_that_is_said(
    fake: FakeQdrant, worker: Worker, sources: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: object, **__: object) -> None:
        raise ModelError("the model pack is not installed")

    monkeypatch.setattr(opening, "load_embedder", missing)
    found = worker.work(Repository(source=str(sources["shop"]), name="shop"))
    assert (found.state, found.stage) == ("partial", "index")
    assert found.cause == "3 commits are found by words only; nothing was pushed"
    assert not fake.requests


def test_forgetting_one_takes_its_points_and_nobody_elses(
    fake: FakeQdrant, worker: Worker, sources: dict[str, Path], done: dict[str, Repository]
) -> None:
    before = there(fake)
    assert fleets.forget(worker.fleet, ["shop"]) == [str(sources["shop"])]
    assert there(fake) == {name: ids for name, ids in before.items() if name != "shop"}
    assert not store_of(worker.fleet, "shop").exists()
    assert operations.qdrant_verify(place(worker, sources, "shop-2"), Reporter()).same


def test_nothing_is_forgotten_while_the_server_is_away(
    fake: FakeQdrant, worker: Worker, done: dict[str, Repository]
) -> None:
    before = there(fake)
    fake.faults.append(OUT_OF_ORDER)
    with pytest.raises(StoreAway, match=r"nothing was forgotten here: .* answers 503") as caught:
        fleets.forget(worker.fleet, ["shop"])
    assert "--leave-points" in caught.value.hint
    assert store_of(worker.fleet, "shop").is_dir()
    with Fleet(worker.fleet, reading=True) as register:
        assert "shop" in register.names()
    assert there(fake) == before
    fake.faults.append(OUT_OF_ORDER)
    treering("fleet", "forget", worker.fleet, "shop", "--leave-points")
    assert not store_of(worker.fleet, "shop").exists()
    assert there(fake) == before


def test_a_collection_that_is_gone_or_somebody_elses_holds_up_no_forgetting(
    fake: FakeQdrant, worker: Worker, sources: dict[str, Path], done: dict[str, Repository]
) -> None:
    fake.engine.delete_collection(SHARED)
    fleets.forget(worker.fleet, ["shop"])
    del fake.indexes[SHARED]
    treering("index", "--repo", sources["tool"])
    treering("qdrant", "push", "--repo", sources["tool"], "--collection", SHARED)
    fleets.forget(worker.fleet, ["tool"])
    assert len(there(fake)["tool"]) == done["tool"].vectors


def test_an_update_remembers_where_it_pushed_without_a_password(
    fake: FakeQdrant, sources: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pushed = Repository(source=str(sources["shop"]), name="shop", state="complete")
    monkeypatch.setattr(fleets, "_waves", lambda *_: iter([pushed]))
    monkeypatch.setattr(fleets, "cluster", lambda _: nullcontext())
    url = fake.url.replace("//", "//ada:geheim@")
    fleets.update(tmp_path / "fleet", [str(sources["shop"])], Reporter(), qdrant=SHARED, qdrant_url=url)
    with Fleet(tmp_path / "fleet", reading=True) as register:
        assert register.collections(["shop"]) == [(fake.url, SHARED, ["shop"])]


def test_what_was_refused_is_not_taken_from_who_has_the_name(
    fake: FakeQdrant, worker: Worker, done: dict[str, Repository], tmp_path: Path
) -> None:
    """Another fleet has a repository of that name, whose points are not ours to forget."""
    Repo(tmp_path / "elsewhere" / "shop").commit("Open another shop", shop__py="OPEN = True\n")
    other = tmp_path / "other"
    with Fleet(other) as register:
        roster.add(register, [str(tmp_path / "elsewhere" / "shop")])
        (one,) = register.repositories()
        refused = Worker(Orders(fleet=str(other), run="1", vectors=sharing.shared(SHARED))).work(one)
        register.keep([refused])
    assert (refused.state, refused.stage) == ("failed", "push")
    assert "(of a fleet --qdrant)" in refused.hint
    before = there(fake)
    with pytest.raises(StoreError, match="the last push of shop failed"):
        fleets.forget(other, ["shop"])
    fleets.forget(other, ["shop"], leave_points=True)
    assert there(fake) == before


def test_an_address_that_is_none_is_said_at_once_and_not_remembered(sources: dict[str, Path], tmp_path: Path) -> None:
    fleet = ("fleet", "update", tmp_path / "fleet", sources["shop"], "--qdrant", SHARED)
    assert "no address of a Qdrant server" in treering(*fleet, "--qdrant-url", "http://[", code=2).output
    assert not (tmp_path / "fleet").exists()


def test_an_address_without_a_collection_is_a_mistake(tmp_path: Path) -> None:
    treering("fleet", "update", tmp_path / "fleet", tmp_path, "--qdrant-url", "http://127.0.0.1:9", code=2)
    assert not (tmp_path / "fleet").exists()


def test_a_fleet_of_an_earlier_treering_forgets_as_it_did(tmp_path: Path) -> None:
    (tmp_path / "fleet").mkdir()
    with closing(sqlite3.connect(tmp_path / "fleet" / "fleet.db")) as db:
        db.executescript(register_of.MIGRATIONS[0])
        db.execute("INSERT INTO repositories (source, name, added, state) VALUES ('/srv/shop', 'shop', 1, 'complete')")
        db.execute("PRAGMA user_version=1")
        db.commit()
    assert fleets.forget(tmp_path / "fleet", ["shop"]) == ["/srv/shop"]
