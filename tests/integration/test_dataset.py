"""Datasets of Parquet files: real histories, read back by the programs that they are for."""

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import polars
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

from repositories import Repo, at_home, read_only, tell_story
from treering import opening, operations, publishing
from treering.destination import Destination
from treering.errors import DataError, MissingExtra, NoStore, ServiceError, StoreBusy, StoreError, UsageError
from treering.pipeline import parquet
from treering.pipeline.dataset import TABLES
from treering.report import Reporter
from treering.store import Store

ROOT = Path(__file__).parents[2]
ODD_NAME = 'a "quoted" [1]\nña%me+ =x'
LATIN = os.fsdecode(b"caf\xe9")
ODD_FILE = 'a "quoted",\ttab\nnew line;'

Rows = list[dict[str, Any]]


class Fleet:
    """Repositories, and the folder with their stores."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "fleet"
        self.repos: dict[str, Repo] = {}
        self._sources = folder / "sources"

    def add(self, name: str, tell: Callable[[Repo], object], source: str = "") -> Repo:
        self.repos[name] = Repo(self._sources / (source or name))
        tell(self.repos[name])
        self.index(name)
        return self.repos[name]

    def place(self, name: str) -> opening.Place:
        return opening.place(self.repos[name].path, self.folder / "stores" / name)

    def index(self, name: str) -> None:
        operations.scrape(self.place(name), Reporter(), patches=True)

    def publish(self, to: Path | str, *only: str) -> publishing.Published:
        return publishing.publish_fleet(self.folder, str(to), Reporter(), only)


def tell_oddities(repo: Repo) -> None:
    repo.write(ODD_FILE, "one\ntwo\n")
    repo.write(os.fsdecode(b"caf\xe9.txt"), "latin\n")
    repo.write("app.py", "def settle(order):\n    return order\n" * 3)
    repo.write("poetry.lock", "a lock\n" * 20)
    repo.commit('Odd, "names"\n\nA body;\twith a tab\r\nand \N{SNOWMAN}, fixes #3')
    repo.git("mv", ODD_FILE, "plain")
    repo.commit("Move it\n\nCo-authored-by: Bob <bob@example.com>")


def tell_little(repo: Repo) -> None:
    repo.commit("Raise the retry limit", retry__py="RETRY_LIMIT = 5\n")


def make_fleet(folder: Path) -> Fleet:
    fleet = Fleet(folder)
    fleet.add("story", tell_story)
    fleet.add(ODD_NAME, tell_oddities, "odd")
    fleet.add(LATIN, tell_little, "latin")
    fleet.add("007", tell_little)
    with Store(fleet.folder / "stores" / "empty"):
        pass
    return fleet


NAMES = sorted(["story", ODD_NAME, "caf\N{REPLACEMENT CHARACTER}", "007", "empty"])


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    """Made once: no test may change it."""
    with pytest.MonkeyPatch.context() as patch:
        at_home(patch, tmp_path_factory.mktemp("home"))
        return make_fleet(tmp_path_factory.mktemp("fleet"))


@pytest.fixture(scope="module")
def made(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dataset of all of it. Made once: no test may change it."""
    folder = tmp_path_factory.mktemp("datasets") / "made"
    assert fleet.publish(folder).written == tuple(NAMES)
    return folder


@pytest.fixture
def small(tmp_path: Path) -> Fleet:
    """One for tests that change it."""
    fleet = Fleet(tmp_path)
    for name in ("one", "two"):
        fleet.add(name, tell_little)
    return fleet


def rows_of(dataset: Path, table: str) -> Rows:
    """All rows of a table, in the order of the names of their repositories."""
    rows: Rows = []
    for path in sorted(dataset.glob(f"{table}/repo=*/part-0.parquet")):
        rows += pq.read_table(path, partitioning=None).to_pylist()
    return rows


def card_of(dataset: Path) -> dict[str, Any]:
    card: dict[str, Any] = json.loads((dataset / "card.json").read_text("utf-8"))
    return card


def state_of(dataset: Path) -> dict[str, tuple[int, int]]:
    """Every file with its inode and time: what is written again has another."""
    files = (path for path in dataset.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(dataset)): (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}


def bytes_of(dataset: Path) -> dict[str, bytes]:
    return {name: (dataset / name).read_bytes() for name in state_of(dataset)}


def see_that_the_card_is_true(dataset: Path) -> None:
    for partition in card_of(dataset)["repositories"].values():
        for of in partition["tables"].values():
            content = (dataset / of["file"]).read_bytes()
            assert (len(content), hashlib.sha256(content).hexdigest()) == (of["bytes"], of["sha256"])
            assert pq.read_metadata(dataset / of["file"]).num_rows == of["rows"]


def treering(*arguments: str | Path, code: int = 0) -> "subprocess.CompletedProcess[str]":
    done = subprocess.run(
        [sys.executable, "-m", "treering", *arguments], capture_output=True, text=True, check=False, timeout=120
    )
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode == code, done.stderr
    return done


# what is in it -----------------------------------------------------------------------------------------------------


def exported(fleet: Fleet, name: str, table: str, folder: Path) -> Rows:
    output = folder / f"{table}.parquet"
    operations.export(fleet.place(name), output, Reporter(), table=table, as_format=None, patches=False)
    rows: Rows = pq.read_table(output).to_pylist()
    return rows


@pytest.mark.parametrize("table", ["commits", "changes"])
@pytest.mark.parametrize("name", ["story", ODD_NAME, LATIN, "007"])
def test_the_rows_are_those_of_an_export(fleet: Fleet, made: Path, tmp_path: Path, name: str, table: str) -> None:
    shown = os.fsencode(name).decode("utf-8", "replace")
    wanted = [row | {"repo": shown} for row in exported(fleet, name, table, tmp_path)]
    assert [row for row in rows_of(made, table) if row["repo"] == shown] == wanted
    assert wanted


def test_the_rows_of_one_repository_are_those_of_an_export_to_the_letter(story: Repo, tmp_path: Path) -> None:
    publishing.publish(opening.place(story.path), str(tmp_path / "out"), Reporter())
    operations.export(
        opening.place(story.path), tmp_path / "x.parquet", Reporter(), table="commits", as_format=None, patches=False
    )
    assert rows_of(tmp_path / "out", "commits") == pq.read_table(tmp_path / "x.parquet").to_pylist()


def test_documents_and_hunks_are_those_of_the_store(fleet: Fleet, made: Path) -> None:
    for name in ("story", ODD_NAME):
        with Store.existing(fleet.folder / "stores" / name) as store:
            ids, names = store.ids(), store.order()
            said = [json.loads(msgspec.json.encode(one)) for _, one in store.features(ids)]
            patches = [
                (of, patch.path, patch.text, patch.cut)
                for of, number in zip(names, ids, strict=True)
                for patch in store.hunks(number)
            ]
        rows = [row for row in rows_of(made, "documents") if row["repo"] == name]
        assert [row["commit_hash"] for row in rows] == names
        for row, wanted in zip(rows, said, strict=True):
            assert {one["name"]: one["count"] for one in row["identifiers"]} == wanted["identifiers"]
            for field in ("message", "paths", "functions", "prose"):
                assert row[field] == wanted[field]
        told = [row for row in rows_of(made, "hunks") if row["repo"] == name]
        assert [(row["commit_hash"], row["path"], row["text"], row["cut"]) for row in told] == patches
        assert patches


def test_odd_names_are_told_as_they_are(made: Path) -> None:
    paths = {row["path"] for row in rows_of(made, "changes") if row["repo"] == ODD_NAME}
    assert {ODD_FILE, "plain", "caf\N{REPLACEMENT CHARACTER}.txt"} <= paths
    assert (made / "commits" / "repo=a%20%22quoted%22%20%5B1%5D%0Aña%25me%2B%20%3Dx" / "part-0.parquet").is_file()
    assert (made / "commits" / "repo=caf\N{REPLACEMENT CHARACTER}").is_dir()


def test_an_empty_repository_has_files_without_rows(made: Path) -> None:
    for table in TABLES:
        assert pq.read_table(made / table / "repo=empty" / "part-0.parquet", partitioning=None).num_rows == 0


def test_the_card_names_every_file_and_adds_up(made: Path) -> None:
    see_that_the_card_is_true(made)
    card = card_of(made)
    assert sorted(card["repositories"]) == NAMES
    named = {of["file"] for one in card["repositories"].values() for of in one["tables"].values()}
    assert named == {str(path.relative_to(made)) for path in made.glob("*/*/*.parquet")}
    for table, total in card["tables"].items():
        each = [one["tables"][table] for one in card["repositories"].values()]
        assert total == {
            "files": 5, "rows": sum(one["rows"] for one in each), "bytes": sum(one["bytes"] for one in each)
        }  # fmt: skip
        assert total["rows"] == len(rows_of(made, table)) > 0


def test_the_card_says_what_is_left_out_and_why(made: Path) -> None:
    odd = card_of(made)["repositories"][ODD_NAME]
    assert odd["left_out"] == {"lock": {"files": 1, "bytes": odd["left_out"]["lock"]["bytes"]}}
    assert card_of(made)["left_out"]["lock"] == odd["left_out"]["lock"]
    assert "poetry.lock" not in {row["path"] for row in rows_of(made, "hunks")}
    assert (odd["vanished"], odd["partial"], odd["unheard"]) == (0, 0, 0)


def test_the_columns_are_those_of_the_docs_and_of_the_card(made: Path) -> None:
    section = (ROOT / "docs" / "formats.md").read_text("utf-8").partition("## A dataset")[2].partition("\n## ")[0]
    for table in TABLES:
        schema = pq.read_schema(made / table / "repo=story" / "part-0.parquet")
        assert card_of(made)["columns"][table] == {field.name: str(field.type) for field in schema}
        assert "repo" in schema.names
        if table != "commits":
            (row,) = (line for line in section.splitlines() if line.startswith(f"| `{table}` |"))
            assert [word for word in row.split("`")[3::2] if word.isidentifier()] == schema.names


# who reads it ------------------------------------------------------------------------------------------------------


def counts(rows: Rows) -> dict[str, int]:
    found: dict[str, int] = {}
    for row in rows:
        found[row["repo"]] = found.get(row["repo"], 0) + 1
    return found


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("hive", [True, False])
def test_duckdb_reads_it(made: Path, table: str, hive: bool) -> None:
    wanted = rows_of(made, table)
    with duckdb.connect() as db:
        found = db.execute(
            f"SELECT * FROM read_parquet('{made}/{table}/*/*.parquet', hive_partitioning = {str(hive).lower()})"
        )
        names = [column[0] for column in found.description or ()]
        rows = [dict(zip(names, row, strict=True)) for row in found.fetchall()]
    assert sorted(rows, key=repr) == sorted(wanted, key=repr)


def test_duckdb_joins_its_tables(made: Path) -> None:
    with duckdb.connect() as db:
        (found,) = db.execute(
            f"SELECT count(*) FROM '{made}/commits/*/*.parquet' c JOIN '{made}/changes/*/*.parquet' d"
            " USING (repo, commit_hash) WHERE repo = ?",
            [ODD_NAME],
        ).fetchall()
    assert found[0] == sum(row["repo"] == ODD_NAME for row in rows_of(made, "changes"))


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("hive", [True, False])
def test_polars_reads_it(made: Path, table: str, hive: bool) -> None:
    found = polars.scan_parquet(f"{made}/{table}/*/*.parquet", hive_partitioning=hive).collect().to_dicts()
    assert sorted(found, key=repr) == sorted(rows_of(made, table), key=repr)


@pytest.mark.parametrize("table", TABLES)
def test_pyarrow_reads_it_by_its_partitions(made: Path, table: str) -> None:
    by_name = pyarrow.dataset.partitioning(pa.schema([("repo", pa.string())]), flavor="hive")
    for partitioning in (by_name, None):
        found = pyarrow.dataset.dataset(str(made / table), partitioning=partitioning)
        assert sorted(found.to_table().to_pylist(), key=repr) == sorted(rows_of(made, table), key=repr)
    chosen = pyarrow.dataset.dataset(str(made / table), partitioning=by_name)
    part = chosen.to_table(filter=pyarrow.dataset.field("repo") == ODD_NAME).to_pylist()
    assert part == [row for row in rows_of(made, table) if row["repo"] == ODD_NAME]


HUGGING_FACE = """
import json, sys
import datasets

told = {}
for table in datasets.get_dataset_config_names(sys.argv[1]):
    rows = datasets.load_dataset(sys.argv[1], table, split="train")
    told[table] = [dict(row) for row in rows]
print(json.dumps(told))
"""


def test_hugging_face_reads_it_by_the_head_of_its_card(made: Path, tmp_path: Path) -> None:
    environment = os.environ | {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", HUGGING_FACE, str(made)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert list(found) == list(TABLES)
    for table in TABLES:
        assert sorted(found[table], key=repr) == sorted(rows_of(made, table), key=repr)


# what a run writes -------------------------------------------------------------------------------------------------


def test_a_second_run_writes_nothing(small: Fleet, tmp_path: Path) -> None:
    small.publish(tmp_path / "out")
    before = state_of(tmp_path / "out")
    told = small.publish(tmp_path / "out")
    assert (told.written, told.unchanged) == ((), ("one", "two"))
    assert state_of(tmp_path / "out") == before


def test_the_same_stores_are_the_same_bytes(fleet: Fleet, made: Path, tmp_path: Path) -> None:
    fleet.publish(tmp_path / "again")
    assert bytes_of(tmp_path / "again") == bytes_of(made)


def test_a_history_that_was_read_in_another_order_is_the_same_bytes(story: Repo, tmp_path: Path) -> None:
    """In one run, and in two of which the first knows half of it."""
    whole, halves = Fleet(tmp_path / "whole"), Fleet(tmp_path / "halves")
    whole.repos["story"] = halves.repos["story"] = story
    half = opening.place(story.path, halves.folder / "stores" / "story", {"scrape": {"max_commits": 9}})
    operations.scrape(half, Reporter(), patches=True)
    for one in (whole, halves):
        one.index("story")
        one.publish(one.folder.parent / "out")
    assert bytes_of(halves.folder.parent / "out") == bytes_of(whole.folder.parent / "out")


def test_a_new_commit_writes_its_partition_alone(small: Fleet, tmp_path: Path) -> None:
    small.publish(tmp_path / "out")
    before = state_of(tmp_path / "out")
    name = small.repos["two"].commit("Lower it again", retry__py="RETRY_LIMIT = 4\n")
    small.index("two")
    assert small.publish(tmp_path / "out").written == ("two",)
    after = state_of(tmp_path / "out")
    changed = {name for name in after if after[name] != before.get(name)}
    assert changed == {*(f"{table}/repo=two/part-0.parquet" for table in TABLES), "card.json", "README.md"}
    assert rows_of(tmp_path / "out", "commits")[-1]["commit_hash"] == name
    see_that_the_card_is_true(tmp_path / "out")


@pytest.mark.parametrize(
    "change",
    [
        lambda repo: repo.git("branch", "--quiet", "--move", "main", "trunk"),
        lambda repo: repo.git("branch", "--quiet", "other"),
    ],
)
def test_branches_that_moved_write_the_partition_again(
    small: Fleet, tmp_path: Path, change: Callable[[Repo], object]
) -> None:
    small.publish(tmp_path / "out")
    change(small.repos["two"])
    small.index("two")
    assert small.publish(tmp_path / "out").written == ("two",)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE documents SET features = CAST(replace(CAST(features AS TEXT), 'Raise', 'Raize') AS BLOB)",
        "UPDATE changes SET insertions = insertions + 1",
        "UPDATE commits SET patch_id = 'x'",
        "DELETE FROM documents",
    ],
)
def test_whatever_a_row_tells_decides_whether_it_is_written_again(small: Fleet, tmp_path: Path, change: str) -> None:
    small.publish(tmp_path / "out")
    with Store.existing(small.folder / "stores" / "one") as store:
        store.db.execute(change)
    assert small.publish(tmp_path / "out").written == ("one",)


def test_a_file_that_is_gone_is_written_again(small: Fleet, tmp_path: Path) -> None:
    small.publish(tmp_path / "out")
    before = bytes_of(tmp_path / "out")
    (tmp_path / "out" / "hunks" / "repo=one" / "part-0.parquet").unlink()
    assert small.publish(tmp_path / "out").written == ("one",)
    assert bytes_of(tmp_path / "out") == before


def test_a_repository_that_was_taken_out_is_taken_out(small: Fleet, tmp_path: Path) -> None:
    small.publish(tmp_path / "out")
    (small.folder / "stores" / "one").rename(tmp_path / "elsewhere")
    told = small.publish(tmp_path / "out")
    assert (told.taken_out, told.unchanged) == (("one",), ("two",))
    assert not list((tmp_path / "out").rglob("*repo=one*"))
    assert list(card_of(tmp_path / "out")["repositories"]) == ["two"]
    assert counts(rows_of(tmp_path / "out", "commits")) == {"two": 1}


def test_what_a_killed_run_left_of_a_repository_is_taken_out_too(small: Fleet, tmp_path: Path) -> None:
    small.publish(tmp_path / "out")
    left = tmp_path / "out" / "changes" / "repo=a%20b" / "part-0.parquet"
    left.parent.mkdir()
    left.write_bytes(b"the rows of somebody who asked to be forgotten")
    assert small.publish(tmp_path / "out").taken_out == ("a b",)
    assert not left.parent.exists()


def test_only_the_repositories_named_are_looked_at(small: Fleet, tmp_path: Path) -> None:
    assert small.publish(tmp_path / "out", "two").written == ("two",)
    assert list(card_of(tmp_path / "out")["repositories"]) == ["two"]
    (small.folder / "stores" / "two").rename(tmp_path / "elsewhere")
    assert small.publish(tmp_path / "out", "one").taken_out == ()
    assert small.publish(tmp_path / "out", "two").taken_out == ("two",)
    with pytest.raises(UsageError, match="no repository 'three'"):
        small.publish(tmp_path / "out", "three")


def test_one_repository_leaves_the_partitions_of_others(small: Fleet, tmp_path: Path) -> None:
    for name in ("one", "two", "one"):
        told = publishing.publish(small.place(name), str(tmp_path / "out"), Reporter())
    assert told.unchanged == ("one",)
    assert counts(rows_of(tmp_path / "out", "commits")) == {"one": 1, "two": 1}


def test_large_tables_are_many_row_groups_of_the_same_rows(
    fleet: Fleet, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "BATCH", 3)
    monkeypatch.setattr(parquet, "GROUP_ROWS", 6)
    fleet.publish(tmp_path / "out", "story")
    file = pq.ParquetFile(tmp_path / "out" / "hunks" / "repo=story" / "part-0.parquet")
    assert {file.metadata.row_group(at).num_rows for at in range(file.num_row_groups - 1)} == {6}
    assert file.read().to_pylist() == [row for row in rows_of(made, "hunks") if row["repo"] == "story"]
    file.close()


# what can go wrong -------------------------------------------------------------------------------------------------


def damage(store: Path) -> None:
    path = store / "treering.db"
    content = bytearray(path.read_bytes())
    content[100:] = b"\xff" * (len(content) - 100)
    path.write_bytes(content)
    for log in ("-wal", "-shm"):
        path.with_name(path.name + log).unlink(missing_ok=True)


def test_a_damaged_store_costs_its_own_partition_alone(small: Fleet, tmp_path: Path) -> None:
    out = tmp_path / "out"
    treering("dataset", out, "--fleet", small.folder)
    before = bytes_of(out)
    damage(small.folder / "stores" / "one")
    small.repos["two"].commit("Lower it again", retry__py="RETRY_LIMIT = 4\n")
    small.index("two")
    done = treering("dataset", out, "--fleet", small.folder, "--json", code=7)
    told = json.loads(done.stdout)
    assert told["written"] == ["two"]
    assert "damaged" in told["failed"]["one"]
    assert "one" in done.stderr
    assert "damaged" in done.stderr
    assert {name for name, content in bytes_of(out).items() if content != before[name]} == {
        *(f"{table}/repo=two/part-0.parquet" for table in TABLES), "card.json", "README.md"
    }  # fmt: skip
    see_that_the_card_is_true(out)


@pytest.mark.parametrize(
    "change",
    ["UPDATE documents SET hunks = x'00'", "UPDATE documents SET features = x'7b'", "UPDATE commits SET refers = '{'"],
)
def test_what_cannot_be_decoded_is_told_as_damage(small: Fleet, tmp_path: Path, change: str) -> None:
    with Store.existing(small.folder / "stores" / "one") as store:
        store.db.execute(change)
    told = small.publish(tmp_path / "out")
    assert "damaged" in told.failed["one"]
    assert told.written == ("two",)
    assert list(card_of(tmp_path / "out")["repositories"]) == ["two"]


def test_a_store_that_is_not_there_is_told_and_nothing_is_taken_out(small: Fleet, tmp_path: Path) -> None:
    small.publish(tmp_path / "out")
    before = bytes_of(tmp_path / "out")
    (small.folder / "stores" / "one" / "treering.db").unlink()
    told = small.publish(tmp_path / "out")
    assert "no index" in told.failed["one"]
    assert bytes_of(tmp_path / "out") == before


@pytest.mark.parametrize("way", ["x/../out", "link/out", "out/"])
def test_a_folder_is_the_same_however_it_is_named(
    small: Fleet, tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "x").mkdir()
    small.publish(tmp_path / "out")
    monkeypatch.chdir(tmp_path)
    assert small.publish(way).unchanged == ("one", "two")
    assert small.publish(f"file://{tmp_path}/out").unchanged == ("one", "two")


def test_a_fleet_that_is_not_there_empties_nothing(small: Fleet, tmp_path: Path) -> None:
    small.publish(tmp_path / "out")
    before = state_of(tmp_path / "out")
    (small.folder / "stores").rename(tmp_path / "unmounted")
    (small.folder / "stores").mkdir()
    with pytest.raises(NoStore, match="no store"):
        small.publish(tmp_path / "out")
    assert state_of(tmp_path / "out") == before


def test_a_folder_that_holds_other_things_is_left_alone(small: Fleet, tmp_path: Path) -> None:
    other = tmp_path / "out" / "commits" / "repo=three" / "part-0.parquet"
    other.parent.mkdir(parents=True)
    other.write_bytes(b"precious")
    before = sorted((tmp_path / "out").rglob("*"))
    with pytest.raises(UsageError, match="holds other things"):
        small.publish(tmp_path / "out")
    assert sorted((tmp_path / "out").rglob("*")) == before
    assert other.read_bytes() == b"precious"


def test_a_card_of_something_else_is_an_error(small: Fleet, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "card.json").write_text("{}")
    with pytest.raises(DataError, match="no card of a dataset"):
        small.publish(tmp_path / "out")
    (tmp_path / "new").mkdir()
    small.publish(tmp_path / "new")
    newer = card_of(tmp_path / "new") | {"format": 999}
    (tmp_path / "new" / "card.json").write_text(json.dumps(newer))
    with pytest.raises(DataError, match="newer treering"):
        small.publish(tmp_path / "new")


def test_two_at_once_are_told_of_each_other(small: Fleet, tmp_path: Path) -> None:
    with Destination(str(tmp_path / "out")).alone("another run"), pytest.raises(StoreBusy, match="another run"):
        small.publish(tmp_path / "out")


def test_a_place_that_cannot_be_written_is_told_before_anything_is_read(repo: Repo, tmp_path: Path) -> None:
    repo.commit("base")
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="file"):
        publishing.publish(opening.place(repo.path), str(tmp_path / "file" / "out"), Reporter())
    assert not (repo.path / ".treering").exists()


class Killed(BaseException):
    pass


def test_a_run_that_ends_while_it_puts_files_leaves_whole_ones_and_a_true_card(
    small: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    small.publish(out)
    small.repos["one"].commit("Lower it again", retry__py="RETRY_LIMIT = 4\n")
    small.index("one")
    put = Destination.put
    for after in range(6):
        left = [after]

        def dies(self: Destination, name: str, file: Path, left: list[int] = left) -> None:
            if not left[0]:
                raise Killed
            left[0] -= 1
            put(self, name, file)

        with monkeypatch.context() as patch:
            patch.setattr(Destination, "put", dies)
            with pytest.raises(Killed):
                small.publish(out)
        see_that_the_card_is_true(out)
        assert counts(rows_of(out, "commits")).keys() == {"one", "two"}
    assert small.publish(out).written == ("one",)
    see_that_the_card_is_true(out)
    assert not list(out.glob(".treering-new-*"))


def test_a_run_killed_at_any_moment_leaves_a_dataset_that_can_be_read(story: Repo, tmp_path: Path) -> None:
    fleet, out = Fleet(tmp_path), tmp_path / "out"
    for name in ("one", "two", "three"):
        fleet.repos[name] = story
        fleet.index(name)
    fleet.publish(out)
    dice = random.Random(7)  # noqa: S311  (no secret: moments to kill at)
    kills = 0
    for number in range(6):
        story.commit(f"Change {number}", core_0_market__py=f"def settle(order):\n    return order + {number}\n")
        for name in fleet.repos:
            fleet.index(name)
        with subprocess.Popen(
            [sys.executable, "-m", "treering", "dataset", str(out), "--fleet", str(fleet.folder)],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        ) as process:  # fmt: skip
            began = time.monotonic()
            while not list(out.glob(".treering-new-*")) and process.poll() is None and time.monotonic() - began < 60:
                time.sleep(0.005)
            time.sleep(dice.uniform(0, 0.4))
            process.kill()
            process.wait()
        kills += process.returncode == -signal.SIGKILL
        see_that_the_card_is_true(out)
        for table in TABLES:
            assert counts(rows_of(out, table)).keys() == {"one", "two", "three"}
    assert kills
    fleet.publish(out)
    see_that_the_card_is_true(out)
    fleet.publish(tmp_path / "at once")
    assert bytes_of(out) == bytes_of(tmp_path / "at once")
    assert not list(out.glob(".treering-new-*"))


# the command -------------------------------------------------------------------------------------------------------


def test_the_command_writes_the_repository_we_are_in(repo: Repo, tmp_path: Path) -> None:
    tell_little(repo)
    done = treering("dataset", tmp_path / "out", "--repo", repo.path)
    assert done.stdout.startswith("wrote project\n1 commits, 1 changes, 1 documents, 1 hunks; ")
    assert treering("dataset", tmp_path / "out", "--repo", repo.path).stdout.startswith(
        "1 repositories were up to date"
    )
    chosen = treering("dataset", tmp_path / "none", "--repo", repo.path, "--author", "nobody", "--json")
    assert json.loads(chosen.stdout)["tables"]["commits"]["rows"] == 0


def test_a_repository_in_a_folder_that_is_no_utf8_is_read(make_repo: Callable[..., Repo], tmp_path: Path) -> None:
    latin = make_repo(LATIN)
    tell_little(latin)
    treering("dataset", tmp_path / "out", "--repo", latin.path)
    assert counts(rows_of(tmp_path / "out", "commits")) == {"caf\N{REPLACEMENT CHARACTER}": 1}


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--fleet", "f", "--repo", "r"), "--repo"),
        (("--fleet", "f", "--store", "s"), "--store"),
        (("--fleet", "f", "--since", "2024-01-01"), "choice of commits"),
        (("--repository", "one"), "--repository"),
    ],
)
def test_options_that_do_not_go_together_are_refused(tmp_path: Path, arguments: tuple[str, ...], named: str) -> None:
    assert named in treering("dataset", tmp_path / "out", *arguments, code=2).stderr


# other places ------------------------------------------------------------------------------------------------------


@pytest.fixture
def in_memory() -> Iterator[str]:
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.store.clear()
    yield "memory://made/of it"
    memory.store.clear()
    memory.pseudo_dirs[:] = [""]


def test_any_file_system_of_fsspec_will_do(small: Fleet, tmp_path: Path, in_memory: str) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    assert small.publish(in_memory).written == ("one", "two")
    small.publish(tmp_path / "out")
    wanted = {f"/made/of it/{name}": content for name, content in bytes_of(tmp_path / "out").items()}
    assert {name: memory.cat(name) for name in memory.find("/")} == wanted
    assert small.publish(in_memory).unchanged == ("one", "two")
    (small.folder / "stores" / "one").rename(tmp_path / "elsewhere")
    assert small.publish(in_memory).taken_out == ("one",)
    assert not [name for name in memory.find("/") if "repo=one" in name]


def test_a_store_that_may_only_be_read_is_read(small: Fleet, in_memory: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        store = Path(folder) / "stores" / "one"
        shutil.copytree(small.folder / "stores" / "one", store)
        with read_only(store):
            assert publishing.publish_fleet(Path(folder), in_memory, Reporter()).written == ("one",)


def test_what_an_upload_that_broke_left_is_removed(small: Fleet, in_memory: str) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    small.publish(in_memory)
    memory.pipe_file("/made/of it/.treering-new-commits-repo=gone-part-0.parquet", b"half")
    small.publish(in_memory)
    assert not [name for name in memory.find("/") if ".treering-new-" in name]


def test_an_upload_that_breaks_leaves_the_old_file(
    small: Fleet, in_memory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    small.publish(in_memory)
    small.repos["one"].commit("Lower it again", retry__py="RETRY_LIMIT = 4\n")
    small.index("one")
    before = {name: memory.cat(name) for name in memory.find("/") if name.endswith(".parquet")}

    def breaks(_: object, source: str, target: str, **__: object) -> None:
        memory.pipe_file(target, Path(source).read_bytes()[:50])
        raise ConnectionError("the line is dead")

    monkeypatch.setattr(type(memory), "put_file", breaks)
    with pytest.raises(ServiceError, match="the line is dead"):
        small.publish(in_memory)
    assert {name: memory.cat(name) for name in memory.find("/") if name in before} == before


def test_a_file_system_whose_package_is_missing_is_told_by_its_name(small: Fleet) -> None:
    with pytest.raises(MissingExtra, match="gcsfs"):
        small.publish("gs://bucket/name")
    code = (
        "import sys; sys.modules['s3fs'] = None; from treering.cli.main import main;"
        f" main(['dataset', 's3://bucket/name', '--fleet', {str(small.folder)!r}])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 6
    assert "s3fs" in done.stderr
    assert ".[s3]" in done.stderr


def test_an_address_that_is_none_is_refused_and_its_password_not_told(small: Fleet) -> None:
    with pytest.raises(UsageError, match="zzz") as caught:
        small.publish("zzz://ada:hunter2@example.com/x")
    assert "hunter2" not in caught.value.message + caught.value.hint
    for nothing in ("memory://", "/"):
        with pytest.raises(UsageError, match="names no folder"):
            small.publish(nothing)


@pytest.fixture(scope="module")
def s3_server() -> Iterator[str]:
    """An S3-compatible server on this machine."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An empty bucket, as the environment leads there."""
    import s3fs

    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a-key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "nothing-secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    s3fs.S3FileSystem.clear_instance_cache()
    s3fs.S3FileSystem().mkdir("histories")
    yield "histories"
    s3fs.S3FileSystem().rm("histories", recursive=True)
    s3fs.S3FileSystem.clear_instance_cache()


def in_bucket(bucket: str) -> dict[str, tuple[str, object]]:
    import s3fs

    s3 = s3fs.S3FileSystem()
    s3.invalidate_cache()
    return {name: (one["ETag"], one["LastModified"]) for name, one in s3.find(bucket, detail=True).items()}


def test_s3_holds_the_same_files(fleet: Fleet, made: Path, bucket: str) -> None:
    import s3fs

    assert fleet.publish(f"s3://{bucket}/all of it").written == tuple(NAMES)
    s3 = s3fs.S3FileSystem()
    start = len(f"{bucket}/all of it/")
    assert {name[start:]: s3.cat_file(name) for name in in_bucket(bucket)} == bytes_of(made)


def test_s3_is_brought_up_to_date_and_a_second_run_writes_nothing(small: Fleet, tmp_path: Path, bucket: str) -> None:
    small.publish(f"s3://{bucket}")
    before = in_bucket(bucket)
    time.sleep(1.1)  # what is written again has another second
    assert small.publish(f"s3://{bucket}").unchanged == ("one", "two")
    assert in_bucket(bucket) == before
    (small.folder / "stores" / "one").rename(tmp_path / "elsewhere")
    small.repos["two"].commit("Lower it again", retry__py="RETRY_LIMIT = 4\n")
    small.index("two")
    told = small.publish(f"s3://{bucket}")
    assert (told.written, told.taken_out) == (("two",), ("one",))
    left = {f"{bucket}/{table}/repo=two/part-0.parquet" for table in TABLES}
    assert in_bucket(bucket).keys() == left | {f"{bucket}/card.json", f"{bucket}/README.md"}


def test_what_is_in_s3_is_read_from_there(fleet: Fleet, made: Path, bucket: str, s3_server: str) -> None:
    import s3fs

    fleet.publish(f"s3://{bucket}/x")
    found = pyarrow.dataset.dataset(f"{bucket}/x/commits", partitioning=None, filesystem=s3fs.S3FileSystem())
    wanted = sorted(rows_of(made, "commits"), key=repr)
    assert sorted(found.to_table().to_pylist(), key=repr) == wanted
    where = {"aws_endpoint_url": s3_server, "aws_allow_http": "true", "aws_region": "us-east-1"}
    scanned = polars.scan_parquet(f"s3://{bucket}/x/commits/*/*.parquet", storage_options=where).collect()
    assert sorted(scanned.to_dicts(), key=repr) == wanted


def test_a_bucket_that_is_not_there_is_told_before_anything_is_read(repo: Repo, bucket: str, tmp_path: Path) -> None:
    tell_little(repo)
    with pytest.raises(ServiceError, match=r"s3://none/x.*bucket does not exist"):
        publishing.publish(opening.place(repo.path), "s3://none/x", Reporter())
    assert not (repo.path / ".treering").exists()


def test_a_server_that_does_not_answer_is_told(small: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    import s3fs

    for name, value in {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_MAX_ATTEMPTS": "1", "AWS_ACCESS_KEY_ID": "a-key",
        "AWS_SECRET_ACCESS_KEY": "nothing-secret", "AWS_DEFAULT_REGION": "us-east-1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(ServiceError, match=r"127\.0\.0\.1:9"):
        small.publish("s3://histories/x")
    s3fs.S3FileSystem.clear_instance_cache()
