"""Rows → Parquet: the schema of a table follows from its values' types."""

from collections.abc import Iterable, Mapping
from types import NoneType
from typing import Any, BinaryIO, Literal, get_args, get_origin

import msgspec

from treering.errors import needs
from treering.pipeline.common import batched

Row = dict[str, Any]
Columns = Mapping[str, Any]
"""The columns of a table, with their types in Python."""

BATCH = 1000
"""How many rows are rows of Python at a time."""
GROUP_ROWS, GROUP_BYTES = 1 << 17, 1 << 25
"""A row group ends with the batch that reaches either: what a reader has to take at once, and what we hold."""
PAIRS = {
    "stats": ("path", ""),
    "references": ("kind", "values"),
    "redacted": ("rule", "count"),
    "identifiers": ("name", "count"),
}
"""What a key and a value of a table inside a row are called. Such a table is a list of rows: not all who read Parquet
know its maps.
"""


def columns_of(kind: type[msgspec.Struct]) -> dict[str, Any]:
    """The columns of a table whose rows are such values."""
    return {field.name: field.type for field in msgspec.structs.fields(kind)}


def told(columns: Columns) -> dict[str, str]:
    """Each column's type, by the name that Arrow has for it."""
    return {field.name: str(field.type) for field in _schema(columns)}


def write_parquet(file: BinaryIO, columns: Columns, rows: Iterable[Row]) -> int:
    """Write rows in groups. Returns how many. The same rows are the same bytes, by one version of pyarrow."""
    with needs("export"):
        import pyarrow as pa
        import pyarrow.parquet as pq
    schema = _schema(columns)
    count = 0
    group: list[Any] = []
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:

        def end_group() -> None:
            writer.write_table(pa.Table.from_batches(group, schema))
            group.clear()

        for batch in batched(rows, BATCH):
            group.append(pa.RecordBatch.from_pylist([_shaped(row) for row in batch], schema))
            count += len(batch)
            if sum(map(len, group)) >= GROUP_ROWS or sum(one.nbytes for one in group) >= GROUP_BYTES:
                end_group()
        if group:
            end_group()
    return count


def _shaped(row: Row) -> Row:
    return {name: _listed(value, *PAIRS[name]) if isinstance(value, dict) else value for name, value in row.items()}


def _listed(table: Row, key: str, of: str) -> list[Row]:
    return [{key: name, **(value if isinstance(value, dict) else {of: value})} for name, value in table.items()]


def _schema(columns: Columns) -> Any:
    with needs("export"):
        import pyarrow as pa
    plain = {str: pa.string(), int: pa.int64(), bool: pa.bool_(), float: pa.float64()}

    def several(of: Any) -> Any:
        return pa.list_(pa.field("element", of))  # as it is called in the file

    def arrow(kind: Any, name: str = "") -> Any:
        origin, within = get_origin(kind), get_args(kind)
        if kind in plain:
            return plain[kind]
        if origin is Literal:
            return plain[str]
        if origin is tuple:
            return several(arrow(within[0]))
        if origin is dict:
            key, of = PAIRS[name]
            value = arrow(within[1])
            return several(pa.struct([(key, plain[str]), *(value if pa.types.is_struct(value) else [(of, value)])]))
        if NoneType in within:
            return arrow(next(one for one in within if one is not NoneType))
        return pa.struct([(one, arrow(of)) for one, of in columns_of(kind).items()])

    return pa.schema([(name, arrow(kind, name)) for name, kind in columns.items()])
