"""The history for other programs: files read back by other readers, and SQL that can only ask."""

import csv
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pyarrow.parquet as pq
import pytest

from repositories import Repo, tell_story
from treering import opening, operations
from treering.errors import StoreError, TreeringError, UsageError
from treering.pipeline.export import commits, write_table
from treering.report import Reporter
from treering.store import Store
from treering.store.views import VIEWS
from treering.types import Record, commit_of

ROOT = Path(__file__).parents[2]
FORMATS = ("jsonl", "json", "csv", "parquet")
ODD = 'a "quoted",\ttab\nnew line;'

Rows = list[dict[str, Any]]


def export(repo: Repo, output: Path, *, table: str = "commits", patches: bool = False) -> int:
    where = opening.place(repo.path)
    return operations.export(where, output, Reporter(), table=table, as_format=None, patches=patches)


def ask(repo: Repo, query: str, *, seconds: float = 60) -> Rows:
    names, rows = operations.sql(opening.place(repo.path), query, Reporter(), seconds=seconds)
    return [dict(zip(names, row, strict=True)) for row in rows]


def stored(repo: Repo) -> list[Record]:
    with Store.existing(repo.path / ".treering") as store:
        return list(store.records())


def treering(*arguments: str | bytes, code: int = 0, cwd: Path) -> "subprocess.CompletedProcess[bytes]":
    done = subprocess.run(
        [sys.executable, "-m", "treering", *arguments], cwd=cwd, capture_output=True, check=False, timeout=60
    )
    assert b"Traceback" not in done.stderr, done.stderr.decode()
    assert done.returncode == code, done.stderr.decode()
    return done


@pytest.fixture(scope="module")
def museum(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """The story with odd names and words, in a store. Made once: no test may change it."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("GIT_", "TREERING_"))]:
            patch.delenv(name)
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        repo = tell_story(Repo(tmp_path_factory.mktemp("museum") / "project"))
        repo.write(ODD, "one\ntwo\n")
        repo.write(os.fsdecode(b"caf\xe9.txt"), "latin\n")
        repo.write("=1+1", "a formula\n")
        repo.write(" ", "a space\n")
        repo.commit('Odd, "names"\n\nA body;\twith a tab\r\nand\x1b[31m red \x9b31m \N{SNOWMAN}, fixes #3')
        repo.git("mv", ODD, "plain")
        repo.commit("Move it")
        repo.commit("", f="an empty message\n")
        repo.git("commit", "--quiet", "--allow-empty", "-m", "x", "--author=E \N{SNOWMAN} <e@x>")
        operations.scrape(opening.place(repo.path), Reporter(), patches=True)
    return repo


# files -------------------------------------------------------------------------------------------------------------


def from_csv(path: Path, wanted: Rows) -> Rows:
    """Rows of text, with the types of those that are wanted."""
    with path.open(encoding="utf-8", newline="") as file:
        rows: Rows = list(csv.DictReader(file, strict=True))
    for row, like in zip(rows, wanted, strict=True):
        for name, value in like.items():
            if isinstance(value, list | dict):
                row[name] = json.loads(row[name])
            elif isinstance(value, bool):
                row[name] = row[name] == "True"
            elif isinstance(value, int):
                row[name] = int(row[name])
            elif value is None:
                row[name] = row[name] or None
    return rows


def from_parquet(path: Path) -> Rows:
    rows: Rows = pq.read_table(path).to_pylist()
    for row in rows:
        if "stats" in row:
            row["stats"] = {
                one["path"]: {name: one[name] for name in ("insertions", "deletions")} for one in row["stats"]
            }
            row["references"] = {one["kind"]: one["values"] for one in row["references"]}
            row["redacted"] = {one["rule"]: one["count"] for one in row["redacted"]}
    return rows


def read_back(path: Path, wanted: Rows) -> Rows:
    match path.suffix:
        case ".jsonl":
            return [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        case ".json":
            rows: Rows = json.loads(path.read_text("utf-8"))
            return rows
        case ".csv":
            return from_csv(path, wanted)
        case _:
            return from_parquet(path)


def as_rows(records: list[Record]) -> Rows:
    return [json.loads(msgspec.json.encode(record)) for record in records]


def as_changes(records: list[Record]) -> Rows:
    return [
        {
            "commit_hash": record.commit_hash, "path": change.path, "old_path": change.old_path,
            "status": change.status, "insertions": change.insertions, "deletions": change.deletions,
            "binary": change.binary, "submodule": change.submodule, "is_merge": record.is_merge,
            "commit_timestamp": record.commit_timestamp,
        }
        for record in records
        for change in commit_of(record).changes
    ]  # fmt: skip


@pytest.mark.parametrize("name", FORMATS)
def test_commits_read_back_are_those_of_the_store(museum: Repo, tmp_path: Path, name: str) -> None:
    wanted = as_rows(stored(museum))
    assert export(museum, tmp_path / f"new/history.{name}") == len(wanted)
    assert read_back(tmp_path / f"new/history.{name}", wanted) == wanted
    assert any(ODD in row["files_added"] for row in wanted)


@pytest.mark.parametrize("name", FORMATS)
def test_commits_with_their_hunks_read_back_are_the_same(museum: Repo, tmp_path: Path, name: str) -> None:
    path = tmp_path / f"history.{name}"
    export(museum, path, patches=True)
    wanted = as_rows(stored(museum))
    rows = read_back(path, wanted)
    assert [row | {"patches": []} for row in rows] == wanted
    by_path = {patch["path"]: patch["text"] for row in rows for patch in row["patches"]}
    assert by_path[ODD] == "@@ -0,0 +1,2 @@\n+one\n+two\n"


@pytest.mark.parametrize("name", FORMATS)
def test_changes_read_back_are_those_of_the_store(museum: Repo, tmp_path: Path, name: str) -> None:
    wanted = as_changes(stored(museum))
    assert export(museum, tmp_path / f"changes.{name}", table="changes") == len(wanted)
    assert read_back(tmp_path / f"changes.{name}", wanted) == wanted
    assert any(row["old_path"] == ODD for row in wanted)


def test_the_table_and_the_view_of_changes_are_the_same(repo: Repo, tmp_path: Path) -> None:
    repo.write("link", "a file\n")
    repo.write(os.fsdecode(b"caf\xe9"), "1\n")
    repo.write(os.fsdecode(b"caf\xe8"), "1\n2\n")
    repo.commit("base")
    (repo.path / "link").unlink()
    (repo.path / "link").symlink_to("elsewhere")
    repo.commit("a file becomes a link")
    export(repo, tmp_path / "changes.json", table="changes")
    exported = [(row["path"], row["status"], row["insertions"]) for row in read_back(tmp_path / "changes.json", [])]
    asked = ask(repo, "SELECT path, status, insertions FROM changes ORDER BY position, path, insertions")
    assert sorted(exported) == sorted((row["path"], row["status"], row["insertions"]) for row in asked)


@pytest.mark.parametrize("name", FORMATS)
def test_no_commits_are_a_file_without_rows(tmp_path: Path, name: str) -> None:
    assert write_table(tmp_path / f"none.{name}", "commits", [], name) == 0
    assert read_back(tmp_path / f"none.{name}", []) == []


def test_a_format_given_beats_the_name_of_the_file(museum: Repo, tmp_path: Path) -> None:
    where = opening.place(museum.path)
    operations.export(where, tmp_path / "x.csv", Reporter(), table="commits", as_format="jsonl", patches=False)
    assert [json.loads(line) for line in (tmp_path / "x.csv").read_text("utf-8").splitlines()] == as_rows(
        stored(museum)
    )


WRONG = pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("x.xlsx",), "xlsx"),
        (("x",), "''"),
        (("x.csv", "--format", "xml"), "xml"),
        (("x.csv", "--table", "files"), "files"),
    ],
)


@WRONG
def test_what_is_no_format_or_table_is_an_error_that_writes_no_file(
    museum: Repo, tmp_path: Path, arguments: tuple[str, ...], named: str
) -> None:
    done = treering("export", *arguments, "--repo", str(museum.path), code=2, cwd=tmp_path)
    assert named in done.stderr.decode()
    assert b"hint: give --" in done.stderr
    assert list(tmp_path.iterdir()) == []


@WRONG
def test_what_is_no_format_or_table_is_said_before_any_work(
    repo: Repo, tmp_path: Path, arguments: tuple[str, ...], named: str
) -> None:
    repo.commit("base")
    options = dict(zip(arguments[1::2], arguments[2::2], strict=True))
    with pytest.raises(UsageError, match=re.escape(named)):
        operations.export(
            opening.place(repo.path), tmp_path / arguments[0], Reporter(),
            table=options.get("--table", "commits"), as_format=options.get("--format"), patches=False,
        )  # fmt: skip
    assert not (repo.path / ".treering").exists()


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_stays_whole_if_the_export_fails(museum: Repo, tmp_path: Path, name: str) -> None:
    path = tmp_path / f"history.{name}"
    path.write_bytes(b"precious")

    def broken() -> Iterator[Record]:
        yield from stored(museum)
        raise UsageError("the source broke")

    with pytest.raises(UsageError, match="broke"):
        write_table(path, "commits", commits(broken()), name)
    assert path.read_bytes() == b"precious"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_stays_whole_if_the_repository_is_damaged(story: Repo, tmp_path: Path) -> None:
    operations.scrape(opening.place(story.path), Reporter())
    path = tmp_path / "history.jsonl"
    path.write_bytes(b"precious")
    name = story.git("rev-parse", "HEAD~3")
    (story.path / ".git" / "objects" / name[:2] / name[2:]).unlink()
    with pytest.raises(TreeringError):
        export(story, path, patches=True)
    assert path.read_bytes() == b"precious"


@pytest.mark.parametrize("target", ["folder", "file/below.csv"])
def test_a_place_that_cannot_be_written_is_an_error_that_names_it(museum: Repo, tmp_path: Path, target: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match=target.partition("/")[0]):
        write_table(tmp_path / target, "commits", commits(stored(museum)), "csv")


def test_a_link_is_replaced_and_what_it_leads_to_is_left(museum: Repo, tmp_path: Path) -> None:
    """A repository can hold a link of any name, to anywhere."""
    (tmp_path / "bashrc").write_text("precious")
    (tmp_path / "link.csv").symlink_to("bashrc")
    write_table(tmp_path / "link.csv", "commits", commits(stored(museum)), "csv")
    assert (tmp_path / "bashrc").read_text() == "precious"
    assert (tmp_path / "link.csv").read_text("utf-8").startswith("commit_hash,")


# SQL ---------------------------------------------------------------------------------------------------------------


def documented() -> dict[str, list[str]]:
    """The table of docs/history.md: view to columns."""
    section = (ROOT / "docs" / "history.md").read_text("utf-8").partition("## SQL")[2]
    found = {}
    for view, columns in re.findall(r"^\| `(\w+)` \| (.*) \|$", section, re.MULTILINE):
        found[view] = re.findall(r"`(\w+)`", columns.partition(":")[0])
    return found


def test_every_view_has_the_columns_that_are_documented(museum: Repo) -> None:
    assert list(documented()) == list(VIEWS)
    for view, columns in documented().items():
        names, rows = operations.sql(opening.place(museum.path), f"SELECT * FROM {view}", Reporter(), seconds=60)
        assert list(names) == columns
        assert list(rows)


def test_the_view_of_commits_has_gits_figures(museum: Repo) -> None:
    rows = {row["hash"]: row for row in ask(museum, "SELECT * FROM commits")}
    shown = museum.git("log", "--all", "--format=%H%x00%s%x00%an%x00%ae%x00%cn%x00%P%x00%at%x00%ct").split("\n")
    assert len(rows) == len(shown)
    for line in shown:
        name, subject, author, email, committer, parents, _, _ = line.split("\0")
        row = rows[name]
        assert (row["subject"], row["author_name"], row["author_email"], row["committer_name"], row["parents"]) == (
            subject, author, email, committer, parents
        )  # fmt: skip
        assert row["is_merge"] == (" " in parents)
    dates = ask(museum, "SELECT hash, strftime('%s', author_date) a, strftime('%s', commit_date) c FROM commits")
    assert {(row["hash"], row["a"], row["c"]) for row in dates} == {
        (fields[0], fields[6], fields[7]) for fields in (line.split("\0") for line in shown)
    }
    for name, row in rows.items():
        pair = [f"{name}^1", name] if row["parents"] else ["--root", "--no-commit-id", name]
        figures = [line.split("\t") for line in museum.git("diff-tree", "-r", "-M", "--numstat", *pair).splitlines()]
        insertions, deletions = (sum(int(f[side]) for f in figures if f[side] != "-") for side in (0, 1))
        assert (row["files"], row["insertions"], row["deletions"]) == (len(figures), insertions, deletions)


def test_the_other_views_add_up_to_gits_figures(museum: Repo) -> None:
    authors = {row["email"]: row for row in ask(museum, "SELECT * FROM authors")}
    counts: dict[str, int] = {}
    for email in museum.git("log", "--all", "--format=%ae").split("\n"):
        counts[email] = counts.get(email, 0) + 1
    assert {email: row["commits"] for email, row in authors.items()} == counts
    assert sum(row["merges"] for row in authors.values()) == int(museum.git("rev-list", "--all", "--merges", "--count"))
    added = 0
    for line in museum.git("log", "--all", "--no-merges", "-M", "--format=", "--numstat").splitlines():
        added += int(line.split("\t")[0].replace("-", "0") or 0)
    assert sum(row["insertions"] for row in authors.values()) == added
    assert ask(museum, "SELECT sum(insertions) AS n FROM churn") == [{"n": added}]
    (market,) = ask(museum, "SELECT * FROM churn WHERE path = 'src/oracle.py'")
    assert market["commits"] == int(museum.git("rev-list", "--all", "--no-merges", "--count", "--", "src/oracle.py"))
    assert market["kind"] == "source"
    assert ask(museum, "SELECT kind, value FROM mentions ORDER BY kind") == [
        {"kind": "fixes", "value": "#3"}, {"kind": "issues", "value": "#3"}
    ]  # fmt: skip
    both = ask(museum, "SELECT * FROM co_change WHERE path = 'README.md'")
    assert both == [{"path": "README.md", "other": "src/market.py", "together": 1, "commits": 1, "share": 1.0}]


def test_the_views_hold_only_commits_that_are_chosen(repo: Repo) -> None:
    repo.commit("base", f="1\n")
    name = repo.commit("fixes #1", f="2\n")
    operations.scrape(opening.place(repo.path), Reporter())
    operations.scrape(opening.place(repo.path, None, {"scrape": {"max_commits": 1}}), Reporter())
    assert [row["hash"] for row in ask(repo, "SELECT hash FROM commits")] == [name]
    for view in ("changes", "churn", "authors", "mentions"):
        assert ask(repo, f"SELECT count(*) AS n FROM {view}") == [{"n": 2 if view == "mentions" else 1}]


@pytest.mark.parametrize(
    "query",
    [
        "DELETE FROM main.commits", "UPDATE main.commits SET subject = 'x'", "INSERT INTO main.facts VALUES ('a', 'b')",
        "DROP TABLE main.commits", "CREATE TABLE t (a)", "CREATE TEMP TABLE t (a)", "DROP VIEW commits",
        "ATTACH 'other.db' AS other", "ATTACH ':memory:' AS other", "DETACH main", "PRAGMA user_version",
        "PRAGMA journal_mode=DELETE", "SELECT * FROM pragma_user_version", "VACUUM", "VACUUM INTO 'copy.db'", "BEGIN",
        "ROLLBACK", "REINDEX", "ANALYZE", "SELECT 1; SELECT 2", "SELECT 1; DROP TABLE main.commits",
        "SELECT load_extension('x')", "SELECT writefile('x', 'y')", "SELECT readfile('/etc/passwd')",
        "WITH x AS (SELECT 1) DELETE FROM main.commits", "", ";", "-- nothing", "SELEC 1",
        "SELECT nothing FROM commits", "SELECT * FROM nowhere", "SELECT ?", "SELECT :name",
        "SELECT CAST(x'ff' AS TEXT)", "SELECT abs(-9223372036854775808)",
    ],
)  # fmt: skip
def test_what_is_no_question_is_refused_and_changes_nothing(museum: Repo, query: str, tmp_path: Path) -> None:
    before = (museum.path / ".treering" / "treering.db").read_bytes()
    with pytest.raises(UsageError) as caught:
        ask(museum, query)
    assert "quer" in caught.value.message
    assert caught.value.hint
    assert (museum.path / ".treering" / "treering.db").read_bytes() == before
    assert not Path("copy.db").exists()
    assert not Path("other.db").exists()


def test_a_refused_query_ends_with_code_2_and_an_error(museum: Repo) -> None:
    done = treering("sql", "DROP TABLE main.commits", code=2, cwd=museum.path)
    assert done.stdout == b""
    assert done.stderr.startswith(b"error: the query cannot be answered: ")
    assert b"hint: views: commits" in done.stderr


FOR_EVER = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT"


def test_a_query_that_takes_too_long_is_ended(museum: Repo) -> None:
    with pytest.raises(UsageError, match=r"longer than 0.2 s"):
        ask(museum, f"{FOR_EVER} count(*) FROM n", seconds=0.2)
    with pytest.raises(UsageError, match=r"longer than 0.2 s"):
        ask(museum, f"{FOR_EVER} x FROM n", seconds=0.2)
    done = treering("sql", f"{FOR_EVER} max(x) FROM n", "--seconds", "0.2", code=2, cwd=museum.path)
    assert b"longer than 0.2 s" in done.stderr


def first_line(repo: Repo, query: str, *options: str) -> tuple[bytes, int, bytes]:
    """What is read of a command's output by a reader who goes away after a line, and how the command ends."""
    arguments = [sys.executable, "-m", "treering", "sql", query, *options]
    with subprocess.Popen(arguments, cwd=repo.path, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        line = process.stdout.readline()
        process.stdout.close()
        said = process.stderr.read()
    return line, process.returncode, said


@pytest.mark.parametrize("option", [(), ("--csv",)])
def test_a_reader_who_goes_away_ends_the_answer(museum: Repo, option: tuple[str, ...]) -> None:
    query = f"{FOR_EVER} x, 'some words to fill the pipe' FROM n LIMIT 100000"
    line, code, said = first_line(museum, query, *option)
    assert line.startswith(b"x")
    assert (code, said) == (141, b"")


def test_rows_are_printed_as_they_are_found(museum: Repo) -> None:
    line, code, _ = first_line(museum, f"{FOR_EVER} x FROM n", "--seconds", "1")
    assert (line, code) == (b"x\n", 141)


def test_an_answer_is_tabs_or_csv_or_json(museum: Repo) -> None:
    query = "SELECT path, old_path, insertions, 1.5 AS half FROM changes WHERE old_path LIKE 'a %' OR path LIKE 'a %'"
    rows = ask(museum, f"{query} ORDER BY position")
    assert [row["path"] for row in rows] == [ODD, "plain"]
    visible = ODD.replace("\n", "\\n")
    tabs = treering("sql", f"{query} ORDER BY position", cwd=museum.path).stdout.decode()
    assert tabs.splitlines() == [
        "path\told_path\tinsertions\thalf",
        f"{visible.replace(chr(9), ' ')}\t\t2\t1.5",
        f"plain\t{visible.replace(chr(9), ' ')}\t0\t1.5",
    ]
    printed = treering("sql", f"{query} ORDER BY position", "--csv", cwd=museum.path).stdout.decode()
    assert list(csv.reader(io.StringIO(printed, newline=""), strict=True)) == [
        ["path", "old_path", "insertions", "half"], [visible, "", "2", "1.5"], ["plain", visible, "0", "1.5"]
    ]  # fmt: skip
    assert json.loads(treering("sql", f"{query} ORDER BY position", "--json", cwd=museum.path).stdout) == rows


def test_nothing_in_a_message_drives_the_terminal(museum: Repo) -> None:
    for option in ((), ("--csv",), ("--json",)):
        shown = treering("sql", 'SELECT body, body AS "\x1b[31m" FROM commits', *option, cwd=museum.path).stdout
        assert "red" in shown.decode()
        assert not [char for char in shown.decode() if char in "\x1b\x9b\r\x7f"]
    done = treering("sql", "SELECT \x1b[31m", code=2, cwd=museum.path)
    assert b"\x1b" not in done.stderr


def test_a_query_that_is_no_utf8_is_refused(museum: Repo) -> None:
    assert b"quer" in treering("sql", b"SELECT '\xe9'", code=2, cwd=museum.path).stderr


def test_two_columns_of_one_name_are_both_told(museum: Repo) -> None:
    assert treering("sql", "SELECT 1 AS n, 2 AS n", cwd=museum.path).stdout == b"n\tn\n1\t2\n"


def test_without_a_store_there_is_nothing_to_ask(repo: Repo) -> None:
    repo.commit("base")
    with pytest.raises(StoreError, match="no index"):
        ask(repo, "SELECT 1")
    assert not (repo.path / ".treering").exists()
