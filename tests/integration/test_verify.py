"""A store against what it was made of: each kind of damage is found, mended alone, and then nothing is wrong."""

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from histories import LetterModel
from pretended import pretended
from repositories import Repo, tell_story
from treering import caring, finding, opening, operations
from treering.errors import NoStore, StoreBusy
from treering.lm.export import SUMS
from treering.opening import Place
from treering.operate.verify import Part, Verified
from treering.pipeline.learn import forget_old, make_current
from treering.report import Reporter
from treering.store import Store
from treering.store.ledger import Ceilings, Ledger, Usage
from treering.text.strategies import NEEDS_PATCHES


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Repo]:
    """A repository whose store has everything but a model."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(opening, "load_embedder", lambda *_: LetterModel())
        repo = tell_story(Repo(tmp_path_factory.mktemp("origin") / "project"))
        operations.index(opening.place(repo.path), Reporter())
        yield repo


@pytest.fixture(autouse=True)
def _letters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "load_embedder", lambda *_: LetterModel())


@pytest.fixture
def where(origin: Repo, tmp_path: Path) -> Place:
    """A copy of the store, to be damaged."""
    shutil.copytree(origin.path / ".treering", tmp_path / "store")
    return opening.place(origin.path, tmp_path / "store")


def verified(where: Place, **how: bool) -> Verified:
    return caring.verify(where, Reporter(), everything=True, **how)


def part(found: Verified, name: str) -> Part:
    return next(one for one in found.parts if one.name == name)


def dump(where: Place) -> list[str]:
    """All that a store says of its history, but for when it was said, and which row a vector is in."""
    with Store.existing(where.folder) as store:
        said = [repr(row) for row in store.records()]
        said += [repr(row) for row in store.documents()]
        said += [repr(row) for row in store.db.execute("SELECT word, hex(holders) FROM postings ORDER BY word, first")]
        said += [repr(row) for row in sorted(store.vector_names(LetterModel().fingerprint))]
    return said


def sql(where: Place, *statements: str) -> None:
    with closing(sqlite3.connect(where.folder / "treering.db", isolation_level=None)) as db:
        for statement in statements:
            db.execute(statement)


def matrix(where: Place) -> Path:
    return where.folder / "vectors" / LetterModel().fingerprint / "vectors.f32"


def change_rows(where: Place, change: Callable[[np.memmap], None]) -> None:
    rows = np.memmap(matrix(where), "<f4", "r+", shape=(matrix(where).stat().st_size // 256, 64))
    change(rows)
    rows.flush()


def spoil(rows: np.memmap) -> None:
    rows[3] = np.nan


def swap(rows: np.memmap) -> None:
    rows[[1, 4]] = rows[[4, 1]]


def test_a_sound_store_is_told_so_with_how_much_was_looked_at(where: Place) -> None:
    before = dump(where)
    found = verified(where)
    assert found.sound
    assert [one.wrong for one in found.parts] == [()] * len(found.parts)
    with Store.existing(where.folder) as store:
        count = store.count()
    assert part(found, "commits").looked_at == f"{count} of {count} commits read again"
    assert f"the words of {count} documents counted again" in part(found, "words").looked_at
    assert dump(where) == before
    assert found.aside is None


DAMAGE: dict[str, tuple[str, Callable[[Place], object]]] = {
    "a commit is missing": ("history", lambda where: sql(
        where,
        *(f"DELETE FROM {table} WHERE commit_id = 3" for table in ("changes", "vectors", "documents")),
        "DELETE FROM commits WHERE id = 3",
        "UPDATE vectors SET row = (SELECT count(*) FROM vectors v WHERE v.row < vectors.row)",
    )),
    "commits are in another order": ("history", lambda where: sql(
        where, "UPDATE commits SET position = CASE position WHEN 4 THEN 5 ELSE 4 END WHERE position IN (4, 5)"
    )),
    "a commit has another parent": ("history", lambda where: sql(
        where, "UPDATE commits SET parents = (SELECT hash FROM commits WHERE id = 1) WHERE id = 9"
    )),
    "a commit has no place": ("history", lambda where: sql(
        where, "UPDATE commits SET position = NULL WHERE position = 7"
    )),
    "a commit is on another branch": ("history", lambda where: sql(
        where, "UPDATE commits SET branches = '[\"elsewhere\"]' WHERE id = 2"
    )),
    "a subject is another one": ("commits", lambda where: sql(
        where, "UPDATE commits SET subject = 'Something else' WHERE id = 5"
    )),
    "a figure is another one": ("commits", lambda where: sql(
        where, "UPDATE changes SET insertions = 99 WHERE commit_id = 2"
    )),
    "features are torn": ("commits", lambda where: sql(
        where, "UPDATE documents SET features = substr(features, 1, 20) WHERE commit_id = 6"
    )),
    "hunks are torn": ("commits", lambda where: sql(
        where, "UPDATE documents SET hunks = x'00' WHERE commit_id = 7"
    )),
    "a word is gone": ("words", lambda where: sql(where, "DELETE FROM postings WHERE word LIKE 'disp%'")),
    "a posting leads nowhere": ("words", lambda where: sql(
        where, "INSERT INTO postings VALUES ('zeppelin', 1, x'FFFF0000000100')"
    )),
    "postings are text": ("words", lambda where: sql(
        where, "UPDATE postings SET holders = 'a' || holders WHERE word = 'rule'"
    )),
    "a word has another name": ("words", lambda where: sql(
        where, "UPDATE postings SET word = 'zeppelin' WHERE word = 'gateway'"
    )),
    "what was discussed is torn": ("forge", lambda where: (where.folder / "forge.db").write_bytes(b"torn" * 999)),
    "deliveries are torn": ("forge", lambda where: (where.folder / "deliveries.db").write_bytes(b"torn" * 999)),
    "vectors are torn": ("vectors", lambda where: matrix(where).write_bytes(matrix(where).read_bytes()[:1000])),
    "vectors are gone": ("vectors", lambda where: matrix(where).unlink()),
    "a row is no vector": ("vectors", lambda where: change_rows(where, spoil)),
    "two rows are swapped": ("vectors", lambda where: change_rows(where, swap)),
    "rows have gaps": ("vectors", lambda where: sql(where, "DELETE FROM vectors WHERE row = 2")),
    "rows are of texts that are not there": ("vectors", lambda where: sql(
        where, "UPDATE vectors SET kind = 'hunks', part = 90 WHERE row = 2"
    )),
}  # fmt: skip


@pytest.mark.parametrize("what", DAMAGE)
def test_damage_is_found_mended_and_gone(what: str, where: Place) -> None:
    name, damage = DAMAGE[what]
    before = dump(where)
    damage(where)
    assert part(verified(where), name).wrong, what
    mended = verified(where, repair=True)
    assert mended.sound, mended
    assert part(mended, name).mended
    again = verified(where)
    assert again.sound
    assert not any(one.mended for one in again.parts)
    if "missing" not in what:  # a commit that is added again has another number
        assert dump(where) == before
    assert finding.search(where, "how the dispute rule is settled", Reporter())


@pytest.mark.parametrize("content", [b"no database", b"SQLite format 3\0" + b"\1" * 5000, b""])
def test_a_database_that_cannot_be_mended_is_put_aside_and_made_again(where: Place, content: bytes) -> None:
    (where.folder / "treering.db").write_bytes(content)
    assert not verified(where).sound or not content
    mended = verified(where, repair=True)
    assert mended.sound
    if content:
        assert mended.aside
        assert (Path(mended.aside) / "treering.db").read_bytes() == content
        assert finding.search(where, "gateway bridge", Reporter())[0].subject == "Bridge receipts over the gateway"


def test_a_page_that_is_damaged_is_found_and_mended(where: Place) -> None:
    path = where.folder / "treering.db"
    sql(where, "PRAGMA wal_checkpoint(TRUNCATE)")
    content = bytearray(path.read_bytes())
    content[-3000:-1000] = b"\xff" * 2000
    path.write_bytes(content)
    mended = verified(where, repair=True)
    assert mended.sound
    assert any(one.mended for one in mended.parts)


def test_a_store_that_is_behind_is_sound_and_says_so(where: Place, origin: Repo, tmp_path: Path) -> None:
    ahead = origin.copied(tmp_path / "ahead")
    ahead.commit("One more", more__py="pass\n")
    found = verified(opening.place(ahead.path, where.folder))
    assert found.sound
    assert "1 new commits: run `treering index`" in part(found, "history").notes[0]


def test_an_unfinished_run_is_no_fault(where: Place) -> None:
    with Store.existing(where.folder) as store, store.writing("a test"):
        store.forget_words()
        store.forget_vectors(LetterModel().fingerprint)
        store.db.execute("DELETE FROM facts WHERE key = 'tips'")
    found = verified(where)
    assert found.sound
    assert part(found, "history").notes
    assert part(found, "words").notes
    assert part(found, "vectors").notes


def test_a_store_that_is_written_is_waited_for(where: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Store.writing.__wrapped__, "__kwdefaults__", {"patience": 0.1})  # type: ignore[attr-defined]
    with (
        Store.existing(where.folder) as store,
        store.writing("somebody else"),
        pytest.raises(StoreBusy, match="somebody else"),
    ):
        verified(where)


def test_without_a_store_there_is_nothing_to_verify(origin: Repo, tmp_path: Path) -> None:
    with pytest.raises(NoStore):
        verified(opening.place(origin.path, tmp_path / "none"))


def test_a_damaged_model_is_put_aside_and_the_last_good_one_is_current(where: Place) -> None:
    good, bad = pretended(where.folder, "good"), pretended(where.folder, "bad")
    with Store.existing(where.folder) as store:
        make_current(store, bad)
    assert verified(where).sound
    (bad / "model.safetensors").write_bytes(b"torn")
    found = verified(where)
    assert "model.safetensors is not what it was" in part(found, "models").wrong[0]
    mended = verified(where, repair=True)
    assert mended.sound
    assert (where.folder / "models" / "current").read_text().strip() == "project-git-model/good"
    assert good.is_dir()
    assert mended.aside
    assert (Path(mended.aside) / "bad" / "model.safetensors").read_bytes() == b"torn"


def test_a_current_model_that_is_gone_is_named_and_the_next_best_takes_its_place(where: Place) -> None:
    pretended(where.folder, "other")
    gone = pretended(where.folder, "gone")
    with Store.existing(where.folder) as store:
        make_current(store, gone)
    shutil.rmtree(gone)
    assert "`current` names a model that is not there" in part(verified(where), "models").wrong[0]
    assert verified(where, repair=True).sound
    assert "other" in (where.folder / "models" / "current").read_text()
    shutil.rmtree(where.folder / "models" / "project-git-model")
    assert verified(where, repair=True).sound
    assert not (where.folder / "models" / "current").exists()


def test_a_model_without_sums_is_told_and_no_fault(where: Place) -> None:
    (pretended(where.folder, "old") / SUMS).unlink()
    found = verified(where)
    assert found.sound
    assert SUMS in part(found, "models").notes[0]


def test_a_model_stopped_between_two_states_is_put_back(where: Place) -> None:
    folder = pretended(where.folder, "whole")
    folder.rename(folder.with_name(".whole.old"))
    assert not verified(where).sound
    assert verified(where, repair=True).sound
    assert folder.is_dir()


def test_the_only_copy_of_a_model_is_not_taken_for_a_leftover(where: Place) -> None:
    only, whole = pretended(where.folder, "only"), pretended(where.folder, "whole")
    only.rename(old := only.with_name(".only.old"))
    left = [whole.with_name(name) for name in (".whole.old", ".whole.new", ".gone.checkpoints")]
    for path in left:
        path.mkdir()
    with Store.existing(where.folder) as store:
        forget_old(store, 3, 2)
    assert old.is_dir()
    assert not any(path.exists() for path in left)


def test_tokens_that_are_others_are_put_aside(where: Place) -> None:
    from treering import learning

    chosen = opening.place(where.source.worktree or Path(), where.folder, {"train": {"model": "scratch"}})
    assert "semantic" not in NEEDS_PATCHES
    folder, _ = learning.tokenize(chosen, Reporter())
    assert verified(where).sound
    content = bytearray((folder / "tokens.bin").read_bytes())
    content[10] ^= 1
    (folder / "tokens.bin").write_bytes(content)
    assert "other tokens than its header says" in part(verified(where), "tokens").wrong[0]
    assert verified(where, repair=True).sound
    assert learning.tokenize(chosen, Reporter())[0] == folder


def test_a_ledger_is_looked_at_and_never_made_up(where: Place) -> None:
    with Ledger(where.folder) as ledger:
        number = ledger.reserve("m", "ask", 500, Ceilings(10**9, 10**9), 1_700_000_000.0)
        ledger.settle(number, 300, Usage(10, 20))
        ledger.reserve("m", "ask", 500, Ceilings(10**9, 10**9), 1_700_000_000.0)
        ledger.routed("local", "a rule", {"words": 3.0}, 1_700_000_000.0)
    found = verified(where)
    assert found.sound
    assert part(found, "ledger").looked_at == "2 calls, 1 routes"
    assert "1 reservations were never ended" in part(found, "ledger").notes[0]
    with closing(sqlite3.connect(where.folder / "ledger.db")) as db:
        db.execute("UPDATE spending SET day = '2001-01-01' WHERE id = 1")
        db.commit()
    content = (where.folder / "ledger.db").read_bytes()
    mended = verified(where, repair=True)
    assert not mended.sound
    assert "another day" in part(mended, "ledger").wrong[0]
    assert "restore it from a backup" in part(mended, "ledger").mended[0]
    assert (where.folder / "ledger.db").read_bytes() == content
