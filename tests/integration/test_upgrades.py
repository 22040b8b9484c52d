"""Stores that earlier treerings made, opened by this one."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from repositories import Repo
from stores import STORES, restored, small
from treering import caring, finding, opening, operations
from treering.errors import ModelError, StoreError
from treering.opening import Place
from treering.report import Reporter
from treering.store.schema import MIGRATIONS

DUMPS = sorted(STORES.glob("*.sql"))
DRAFTS = {"2-8bdf2a2", "2-60d02ee"}
"""Of hours in which the second migration was being written: the tables of the same number became others."""


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    return small(tmp_path_factory.mktemp("market") / "market")


@pytest.fixture(autouse=True)
def _words_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Vectors are made again by every run: without a model an upgrade takes a moment."""

    def absent(*_: object) -> None:
        raise ModelError("the model is not here", "install it")

    monkeypatch.setattr(opening, "load_embedder", absent)


def place(market: Repo, store: Path) -> Place:
    return opening.place(market.path, store)


def test_there_is_a_store_of_every_version() -> None:
    assert {int(dump.name.partition("-")[0]) for dump in DUMPS} == set(range(1, len(MIGRATIONS) + 1))


@pytest.mark.parametrize("name", [dump.stem for dump in DUMPS if dump.stem not in DRAFTS])
def test_an_earlier_store_is_opened_and_answers_after_the_next_run(name: str, market: Repo, tmp_path: Path) -> None:
    where = place(market, tmp_path / "store")
    path = restored(STORES / f"{name}.sql", where.folder)
    with closing(sqlite3.connect(path)) as db:
        kept = db.execute("SELECT hash, subject, body, author_time FROM commits ORDER BY hash").fetchall()
    assert len(kept) == int(market.git("rev-list", "--all", "--count"))
    assert operations.scrape(where, Reporter()).new == 0
    operations.index(where, Reporter())
    with where.store(existing=True) as store:
        assert store.db.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
        assert store.db.execute("SELECT hash, subject, body, author_time FROM commits ORDER BY hash").fetchall() == kept
    with opening.finder(where, Reporter()) as found:
        assert found.search("how is a dispute settled", limit=1)[0].subject == "Write down disputes (see #12)"
        assert found.search("GatewayBridge", limit=1)[0].subject == "cli local changes"
    assert caring.verify(where, Reporter(), everything=True).sound


@pytest.mark.parametrize("name", sorted(DRAFTS))
def test_a_store_that_no_upgrade_leads_from_is_told_and_made_again(name: str, market: Repo, tmp_path: Path) -> None:
    where = place(market, tmp_path / "store")
    restored(STORES / f"{name}.sql", where.folder)
    found = caring.verify(where, Reporter())
    assert "the tables are not those of this version: commits.reading" in found.parts[0].wrong[0]
    assert caring.verify(where, Reporter(), repair=True).sound
    assert operations.scrape(where, Reporter()).commits == int(market.git("rev-list", "--all", "--count"))


def test_a_store_of_a_newer_treering_is_refused_and_left_as_it_is(market: Repo, tmp_path: Path) -> None:
    where = place(market, tmp_path / "store")
    path = restored(DUMPS[-1], where.folder)
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute(f"PRAGMA user_version={len(MIGRATIONS) + 1}")
    before = path.read_bytes()
    for ask in (
        lambda: operations.index(where, Reporter()),
        lambda: finding.search(where, "dispute", Reporter()),
        lambda: caring.verify(where, Reporter(), repair=True),
        lambda: caring.sweep(where, Reporter()),
    ):
        with pytest.raises(StoreError, match="made by a newer treering") as caught:
            ask()
        assert "upgrade treering" in caught.value.hint
    assert path.read_bytes() == before
