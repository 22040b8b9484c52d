"""store → files for other programs: JSON lines, JSON, CSV, Parquet."""

import csv
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Literal, get_args

import msgspec

from treering.errors import UsageError, needs
from treering.files import replacing, write_json_array, write_json_lines
from treering.lm.export import FORMATS
from treering.pipeline.parquet import Columns, Row, columns_of, write_parquet
from treering.store import Store
from treering.types import Record

Format = Literal["jsonl", "json", "csv", "parquet"]
Table = Literal["commits", "changes"]


def format_of(output: Path, table: str, as_format: str | None) -> str:
    """The format that was asked for, or that of the file's name. Raises :class:`UsageError` for one that is none."""
    chosen = as_format or output.suffix.removeprefix(".").lower()
    if chosen not in get_args(Format):
        known = ", ".join(get_args(Format))
        raise UsageError(
            f"there is no format {chosen!r}", f"give --format: {known}; of the model: {', '.join(FORMATS)}"
        )
    if table not in get_args(Table):
        raise UsageError(f"there is no table {table!r}", f"give --table: {', '.join(get_args(Table))}")
    if chosen == "parquet":
        with needs("export"):
            import pyarrow  # noqa: F401  (before the history is read, not after)
    return chosen


def write_table(output: Path, table: str, rows: Iterable[Row], as_format: str) -> int:
    """Write rows to a file. Returns how many."""
    count = 0

    def counted() -> Iterator[Row]:
        nonlocal count
        for row in rows:
            yield row
            count += 1

    writers: dict[str, Callable[[Path, Iterator[Row], str], object]] = {
        "jsonl": lambda path, rows, _: write_json_lines(path, rows),
        "json": lambda path, rows, _: write_json_array(path, rows, indented=True),
        "csv": _write_csv,
        "parquet": _write_parquet,
    }
    writers[as_format](output, counted(), table)
    return count


def commits(records: Iterable[Record]) -> Iterator[Row]:
    """A row a commit: the seed's keys, then ours."""
    return (msgspec.to_builtins(record) for record in records)


class Change(msgspec.Struct):
    """A row of the table of changes."""

    commit_hash: str
    path: str
    old_path: str | None
    status: str
    insertions: int
    deletions: int
    binary: bool
    submodule: bool
    is_merge: bool
    commit_timestamp: int


def changes(store: Store) -> Iterator[Row]:
    """A row a changed file."""
    return (msgspec.to_builtins(Change(*row)) for row in store.changes())


def _write_csv(path: Path, rows: Iterator[Row], table: str) -> None:
    """Lists and tables inside a row become JSON, because CSV has none."""
    with replacing(path) as file:
        writer = csv.DictWriter(_Text(file), list(_columns(table)), lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow(
                {
                    name: msgspec.json.encode(value).decode() if isinstance(value, list | tuple | dict) else value
                    for name, value in row.items()
                }
            )


class _Text:
    """What ``csv`` writes to."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write(self, text: str) -> int:
        return self._file.write(text.encode())


def _write_parquet(path: Path, rows: Iterator[Row], table: str) -> None:
    with replacing(path) as file:
        write_parquet(file, _columns(table), rows)


def _columns(table: str) -> Columns:
    return columns_of(Record if table == "commits" else Change)
