"""store → files for other programs: JSON lines, JSON, CSV, Parquet."""

import csv
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Literal, get_args

import msgspec

from treering.errors import UsageError, needs
from treering.files import replacing, write_json_array, write_json_lines
from treering.lm.export import FORMATS
from treering.pipeline.common import batched
from treering.store import Store
from treering.types import Record

Format = Literal["jsonl", "json", "csv", "parquet"]
Table = Literal["commits", "changes"]
ROWS = 1000
"""How many rows a group of a Parquet file holds."""

Row = dict[str, Any]


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
    names = [name for name, _ in _typed(table)]
    with replacing(path) as file:
        writer = csv.DictWriter(_Text(file), names, lineterminator="\n")
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
    with needs("export"):
        import pyarrow as pa
        import pyarrow.parquet as pq
    text, number = pa.string(), pa.int64()
    lines = pa.struct([("path", text), ("insertions", number), ("deletions", number)])
    kinds = {
        str: text, int: number, bool: pa.bool_(), float: pa.float64(),
        "stats": pa.list_(lines), "files_renamed": pa.list_(pa.struct([("old_path", text), ("path", text)])),
        "references": pa.map_(text, pa.list_(text)), "redacted": pa.map_(text, number),
        "patches": pa.list_(pa.struct([("path", text), ("text", text), ("cut", number)])),
    }  # fmt: skip
    schema = pa.schema([(name, kinds.get(name) or kinds.get(kind, pa.list_(text))) for name, kind in _typed(table)])

    def shaped(row: Row) -> Row:
        if "stats" in row:
            row["stats"] = [{"path": path, **lines} for path, lines in row["stats"].items()]
        return {name: list(value.items()) if isinstance(value, dict) else value for name, value in row.items()}

    with replacing(path) as file, pq.ParquetWriter(file, schema) as writer:
        for batch in batched(rows, ROWS):
            writer.write_table(pa.Table.from_pylist([shaped(row) for row in batch], schema))


def _typed(table: str) -> list[tuple[str, object]]:
    """The columns of a table with their Python types; of one that may be missing, what it is when it is there."""
    typed: list[tuple[str, object]] = []
    for field in msgspec.structs.fields(Record if table == "commits" else Change):
        kinds = [kind for kind in get_args(field.type) if kind is not type(None)]
        typed.append((field.name, kinds[0] if len(kinds) == 1 else field.type))
    return typed
