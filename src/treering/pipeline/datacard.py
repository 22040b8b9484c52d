"""What a dataset holds and what it does not: for programs, for people, and for Hugging Face. Nothing in it depends on
when or where it was made.
"""

from collections import Counter
from collections.abc import Mapping

from msgspec import Struct

from treering.types import LeftOut


class File(Struct, frozen=True):
    file: str
    rows: int
    bytes: int
    sha256: str


class Partition(Struct, frozen=True):
    """What is told of a repository. ``fingerprint`` is decided by all that its rows tell; ``vanished`` commits are kept
    in its store and not reachable, or not chosen; those ``unheard`` have no document yet; the diff of the ``partial``
    ones could not be read whole. ``left_out`` is what of the hunks is not here, by the kind of file.
    """

    fingerprint: str
    tables: dict[str, File]
    secrets: dict[str, int]
    left_out: dict[str, LeftOut]
    vanished: int
    partial: int
    unheard: int


class Total(Struct, frozen=True):
    files: int
    rows: int
    bytes: int


class Card(Struct, frozen=True):
    """``card.json``: ``tables``, ``secrets`` and what follows are of all ``repositories`` together."""

    treering: str
    format: int
    columns: dict[str, dict[str, str]]
    tables: dict[str, Total]
    secrets: dict[str, int]
    left_out: dict[str, LeftOut]
    vanished: int
    partial: int
    unheard: int
    repositories: dict[str, Partition]


def card(version: str, form: int, columns: dict[str, dict[str, str]], repositories: Mapping[str, Partition]) -> Card:
    """The card of some partitions."""
    each = [repositories[name] for name in sorted(repositories)]
    secrets: Counter[str] = Counter()
    left_out: dict[str, LeftOut] = {}
    for one in each:
        secrets.update(one.secrets)
        for reason, of in one.left_out.items():
            before = left_out.get(reason, LeftOut(0, 0))
            left_out[reason] = LeftOut(before.files + of.files, before.bytes + of.bytes)
    return Card(
        treering=version,
        format=form,
        columns=columns,
        tables={table: _total([one.tables[table] for one in each]) for table in columns},
        secrets=dict(sorted(secrets.items())),
        left_out=dict(sorted(left_out.items())),
        vanished=sum(one.vanished for one in each),
        partial=sum(one.partial for one in each),
        unheard=sum(one.unheard for one in each),
        repositories={name: repositories[name] for name in sorted(repositories)},
    )


def _total(files: list[File]) -> Total:
    return Total(len(files), sum(one.rows for one in files), sum(one.bytes for one in files))


ABOUT = {
    "commits": "a row a commit: message, people, dates, branches, files, references",
    "changes": "a row a changed file of a commit: path, status, lines added and removed",
    "documents": "a row a commit: what it says, field by field: message, paths, functions, added names, prose",
    "hunks": "a row a file of a commit: its changed lines, from the first `@@` on",
}


def markdown(told: Card) -> str:
    """The card for people. Its head is what Hugging Face `datasets` reads."""
    head = [
        "---", "pretty_name: History of Git repositories", "tags:", "- git", "- code", "configs:",
        *(
            f'- config_name: {table}\n  data_files: "{table}/*/*.parquet"' + ("\n  default: true" if not number else "")
            for number, table in enumerate(told.tables)
        ),
        "---",
    ]  # fmt: skip
    rows = [
        f"| `{table}` | {total.rows:,} | {total.bytes:,} | {ABOUT[table]} |" for table, total in told.tables.items()
    ]
    lacks = [f"| {reason} | {of.files:,} | {of.bytes:,} |" for reason, of in told.left_out.items()]
    taken = ", ".join(f"{rule} {count:,}" for rule, count in told.secrets.items()) or "none was found"
    return "\n".join((*head, _TEXT.format(
        repositories=f"{len(told.repositories):,}", tables="\n".join(rows), left_out="\n".join(lacks), secrets=taken,
        vanished=f"{told.vanished:,}", partial=f"{told.partial:,}", unheard=f"{told.unheard:,}",
        treering=told.treering,
    )))  # fmt: skip


_TEXT = """
# History of Git repositories

The history of {repositories} repositories, as treering {treering} read it. Oldest commit first, never a commit before
its parents. One partition a repository: `TABLE/repo=NAME/part-0.parquet`; the name is in the column `repo`, too.

| table | rows | bytes | |
|---|---|---|---|
{tables}

`card.json` names every file with its rows, bytes and SHA-256, and every column with its type. While a repository is
brought up to date it is not in the card.

## Reading it
```python
import duckdb, polars, pyarrow.dataset, datasets

duckdb.sql("SELECT repo, count(*) FROM read_parquet('commits/*/*.parquet') GROUP BY repo")
polars.scan_parquet("commits/*/*.parquet")
pyarrow.dataset.dataset("commits", partitioning=None)  # `repo` as the files have it: text, whatever the name
datasets.load_dataset(".", "commits")
spark.read.parquet("commits")  # not tried
```

## What is not in it
Of the hunks what says nothing of what a commit meant, and what was cut at the caps:

| | files | bytes |
|---|---|---|
{left_out}

{vanished} commits that no branch reaches any more or that were not chosen; the documents and hunks of {unheard} commits
that were not indexed. The diffs of {partial} commits are partial: objects were missing (`diff_complete`).

Secrets were taken out of every text before it was stored, each replaced by `[redacted:rule]`: {secrets}. Rules find
what looks like a secret; one that looks like a word is still here.

Names and addresses of people are told as the commits have them. The texts are under the licences of their repositories.
Who takes a repository out of the fleet that this was made of takes it out of here with the next run.
"""
