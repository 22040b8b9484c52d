"""Stores → a dataset of Parquet files, a partition for each repository, with a card that names every file.

A partition's files are made aside, then take the place of the old ones; the card names no file that it does not
describe: a partition is not in it while its files are put. Who reads no card reads whole files all the same.
"""

import hashlib
import json
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import msgspec
from msgspec import Struct, to_builtins

from treering import __version__
from treering.destination import Destination
from treering.errors import DataError, StoreError, UsageError, needs
from treering.files import os_errors
from treering.pipeline import datacard
from treering.pipeline.common import fingerprint_of
from treering.pipeline.datacard import Card, File, Partition
from treering.pipeline.export import Change, changes
from treering.pipeline.parquet import Columns, Row, columns_of, told, write_parquet
from treering.report import Reporter
from treering.store import Store
from treering.store.index import BEYOND
from treering.types import LeftOut, Record

FORMAT = 1
"""Another number when what a column tells changes: every partition is then written anew."""
CARD, README = "card.json", "README.md"
_KEY = "repo="


class Document(Struct):
    """A row of the table of documents: what a commit says, field by field."""

    commit_hash: str
    message: str
    paths: tuple[str, ...]
    functions: tuple[str, ...]
    identifiers: dict[str, int]
    prose: str
    is_merge: bool
    commit_timestamp: int


class Hunk(Struct):
    """A row of the table of hunks: those of one file in one commit that are indexed."""

    commit_hash: str
    path: str
    text: str
    cut: int
    is_merge: bool
    commit_timestamp: int


def documents(store: Store) -> Iterator[Row]:
    """A row a commit that has been heard."""
    for of, said in store.said():
        yield to_builtins(
            Document(
                of.hash, said.message, said.paths, said.functions, said.identifiers, said.prose, of.is_merge, of.time
            )
        )


def hunks(store: Store) -> Iterator[Row]:
    """A row a file of a commit."""
    for of, patch in store.patches():
        yield to_builtins(Hunk(of.hash, patch.path, patch.text, patch.cut, of.is_merge, of.time))


_REPO = {"repo": str}
TABLES: dict[str, Columns] = {
    "commits": columns_of(Record),
    "changes": columns_of(Change) | _REPO,
    "documents": columns_of(Document) | _REPO,
    "hunks": columns_of(Hunk) | _REPO,
}
"""The name of the partition is in each row, too: not all who read the files look at the names of their folders."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A partition whose files are made, and not yet put."""

    name: str
    partition: Partition
    files: dict[str, Path]


class Dataset:
    """A dataset that is brought up to date, partition by partition; :func:`opened` opens one."""

    def __init__(self, destination: Destination, scratch: Path) -> None:
        self._destination, self._scratch = destination, scratch
        self._kept = destination.read(CARD)
        self._repositories = dict(_card(self._kept, destination.shown).repositories) if self._kept else {}
        self._files = {name: size for table in TABLES for name, size in destination.files(table).items()}
        if self._kept is None:
            self._keep_card()  # that nothing may be written there is told now

    @property
    def names(self) -> set[str]:
        """The repositories that the card names, and those that a killed run left without it."""
        return {*self._repositories, *filter(None, map(_owner, self._files))}

    @property
    def card(self) -> Card:
        columns = {table: told(of) for table, of in TABLES.items()}
        return datacard.card(__version__, FORMAT, columns, self._repositories)

    def draft(self, name: str, store: Store, report: Reporter) -> Draft | None:
        """Make the files of a partition, of one moment of its store; None where those that are there are the same.

        Raises :class:`StoreError` for a store that is damaged.
        """
        with store.snapshot(), _damage(store):
            left_out = {
                reason: LeftOut(**of) for reason, of in sorted(store.left_out().items()) if BEYOND not in reason
            }
            vanished, unheard = store.vanished(), store.unheard()
            fingerprint = fingerprint_of(
                FORMAT, self.card.columns, left_out, vanished, unheard, store.content_fingerprint()
            )
            if self._holds(name, fingerprint):
                return None
            secrets: Counter[str] = Counter()
            partial = 0

            def commits() -> Iterator[Row]:
                nonlocal partial
                for record in report.track(store.records(), store.count(), "writing commits"):
                    secrets.update(record.redacted)
                    partial += not record.diff_complete
                    yield to_builtins(record)

            rows: dict[str, Callable[[], Iterable[Row]]] = {
                "commits": commits, "changes": lambda: changes(store), "documents": lambda: documents(store),
                "hunks": lambda: hunks(store),
            }  # fmt: skip
            made = {table: self._made(table, name, of()) for table, of in rows.items()}
        partition = Partition(
            fingerprint, made, dict(sorted(secrets.items())), left_out, vanished=vanished, partial=partial,
            unheard=unheard,
        )  # fmt: skip
        return Draft(name, partition, {table: self._scratch / table for table in made})

    def put(self, draft: Draft) -> None:
        """Let a partition take the place of the one that is there, or of none."""
        self._repositories.pop(draft.name, None)
        self._keep_card()
        for table, made in draft.partition.tables.items():
            self._destination.put(made.file, draft.files[table])
            self._files[made.file] = made.bytes
        self._repositories[draft.name] = draft.partition

    def take_out(self, name: str) -> None:
        """Remove a partition; the card forgets it first."""
        self._repositories.pop(name, None)
        self._keep_card()
        for file in [one for one in self._files if _owner(one) == name]:
            self._destination.remove(file)
            del self._files[file]

    def finish(self) -> None:
        """Write the card, for people first."""
        self._write(README, datacard.markdown(self.card).encode(), self._destination.read(README))
        self._keep_card()

    def _keep_card(self) -> None:
        content = msgspec.json.format(msgspec.json.encode(self.card), indent=2) + b"\n"
        self._write(CARD, content, self._kept)
        self._kept = content

    def _write(self, name: str, content: bytes, before: bytes | None) -> None:
        if content != before:
            file = self._scratch / name
            with os_errors(file):
                file.write_bytes(content)
            self._destination.put(name, file)

    def _made(self, table: str, name: str, rows: Iterable[Row]) -> File:
        file = self._scratch / table
        with os_errors(file), file.open("wb") as out:
            count = write_parquet(out, TABLES[table], (row | {"repo": name} for row in rows))
        with file.open("rb") as written:
            digest = hashlib.file_digest(written, "sha256").hexdigest()
        return File(f"{_partition(table, name)}/part-0.parquet", count, file.stat().st_size, digest)

    def _holds(self, name: str, fingerprint: str) -> bool:
        there = self._repositories.get(name)
        return (
            there is not None
            and there.fingerprint == fingerprint
            and all(self._files.get(one.file) == one.bytes for one in there.tables.values())
        )


@contextmanager
def opened(url: str, who: str) -> Iterator[Dataset]:
    """The dataset at an address, to be brought up to date by us alone.

    Raises :class:`UsageError` where something else lies there.
    """
    with needs("export"):
        import pyarrow  # noqa: F401  (before a history is read, not after)
    destination = Destination(url)
    if destination.read(CARD) is None and destination.names():
        raise UsageError(f"{destination.shown} holds other things than a dataset", "give a new folder, or an empty one")
    with destination.alone(who), destination.scratch() as scratch:
        yield Dataset(destination, scratch)


def _card(content: bytes, shown: str) -> Card:
    try:
        card = msgspec.json.decode(content, type=Card)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DataError(
            f"{shown}/{CARD} is no card of a dataset of treering: {error}", "give another destination"
        ) from error
    if card.format > FORMAT:
        raise DataError(f"{shown} was made by a newer treering", "upgrade treering, or give another destination")
    return card


def _partition(table: str, name: str) -> str:
    """The folder of a partition. What a path or a reader of such names might take for something else is told as in a
    URL; letters of all languages stay, for not every reader knows them as several bytes.
    """
    told = "".join(
        char if char.isalnum() or char in "-_." or not char.isascii() else f"%{ord(char):02X}" for char in name
    )
    return f"{table}/{_KEY}{told}"


def _owner(file: str) -> str:
    """The repository whose partition a file is in; empty where it is in none."""
    _, folder, *within = file.split("/")
    return unquote(folder[len(_KEY) :]) if within and folder.startswith(_KEY) else ""


@contextmanager
def _damage(store: Store) -> Iterator[None]:
    """What cannot be decoded, as an error that names the store."""
    try:
        yield
    except (msgspec.DecodeError, json.JSONDecodeError, zlib.error) as error:
        raise StoreError(f"{store.path} is damaged: {error}", "run `treering verify --repair` there") from error
