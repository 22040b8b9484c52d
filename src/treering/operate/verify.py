"""A store against what it was made of, part by part: told, and on request mended by the stages that made it."""

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from treering.config import Settings
from treering.errors import ModelError, NoStore, StoreBusy, StoreError
from treering.files import locked
from treering.git.reader import Source
from treering.operate import folders, histories, indexes
from treering.operate.subject import Aside, Seen, Subject
from treering.report import Reporter
from treering.store import Store
from treering.vectors.embedder import Embedder

Check = Callable[[Subject], Seen]
Mend = Callable[[Subject, Seen], list[str]]

PARTS: tuple[tuple[str, Check, Mend], ...] = (
    ("history", histories.check_history, histories.mend_history),
    ("commits", histories.check_records, histories.mend_records),
    ("words", indexes.check_words, indexes.mend_words),
    ("vectors", indexes.check_vectors, indexes.mend_vectors),
    ("tokens", folders.check_tokens, folders.mend_tokens),
    ("models", folders.check_models, folders.mend_models),
    ("ledger", folders.check_ledger, folders.mend_ledger),
    ("forge", folders.check_forge, folders.mend_forge),
    ("leftovers", folders.check_leftovers, lambda _, __: []),
)
"""In this order: what is made of something else is looked at, and mended, after it."""


@dataclass(frozen=True, slots=True)
class Part:
    """One part: what was looked at, what is wrong with it still, what was wrong and is ``mended``, and what the next
    run does anyway.
    """

    name: str
    looked_at: str
    wrong: tuple[str, ...]
    found: tuple[str, ...]
    mended: tuple[str, ...]
    notes: tuple[str, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class Verified:
    """All parts, and the folder that holds what a repair took out."""

    sound: bool
    everything: bool
    parts: tuple[Part, ...]
    aside: str | None


def verify(
    folder: Path,
    source: Source,
    settings: Settings,
    report: Reporter,
    embedder: Callable[[], Embedder],
    *,
    everything: bool = False,
    repair: bool = False,
    remake: Callable[[], object] = lambda: None,
) -> Verified:
    """Look at every part of a store. With ``repair``, what is wrong is made again by the stage that made it, after
    what is taken out was put aside; ``remake`` makes a database from nothing.

    Raises :class:`NoStore` where there is none, :class:`StoreBusy` while somebody writes.
    """
    if not (folder / folders.DATABASE).is_file():
        raise NoStore(f"there is no index in {folder}", "run `treering run`, or `treering index`, first")
    started = time.time()
    aside = Aside.of(folder)
    parts = [_database(folder, aside, repair=repair, remake=remake)]
    if not parts[0].wrong:
        with Store.existing(folder) as store, _alone(store):
            subject = Subject(store, source, settings, report, _loaded(embedder), everything, aside)
            for name, check, mend in PARTS:
                parts.append(_part(name, partial(check, subject), partial(mend, subject), repair=repair))
            if mended := {part.name: part.mended for part in parts if part.mended}:
                store.log_run("verify", started, mended)  # whoever has the store open sees that it is another one now
    return Verified(
        sound=not any(part.wrong for part in parts),
        everything=everything,
        parts=tuple(parts),
        aside=str(aside.folder) if aside.folder.is_dir() else None,
    )


def _part(name: str, check: Callable[[], Seen], mend: Callable[[Seen], list[str]], *, repair: bool) -> Part:
    started = time.monotonic()
    seen = _checked(check)
    found = tuple(seen.wrong)
    mended: tuple[str, ...] = ()
    if repair and seen.wrong:
        mended = tuple(mend(seen))
        seen = _checked(check)
    return Part(
        name, seen.looked_at, tuple(seen.wrong), found, mended, tuple(seen.notes), round(time.monotonic() - started, 3)
    )


def _checked(check: Callable[[], Seen]) -> Seen:
    """What a check sees; what cannot even be read is wrong."""
    try:
        return check()
    except (sqlite3.DatabaseError, ValueError) as error:
        seen = Seen()
        seen.fault(f"it cannot be read: {error}")
        return seen


def _database(folder: Path, aside: Aside, *, repair: bool, remake: Callable[[], object]) -> Part:
    def mend(_: Seen) -> list[str]:
        with locked(folder / "writer.lock", "treering verify --repair", patience=30):
            if folders.reindexed(folder):
                return ["SQLite's own indexes were made again"]
            folders.put_aside(folder, aside)
        remake()
        return ["the database was taken out, and made from the repository again"]

    return _part("database", lambda: folders.check_database(folder), mend, repair=repair)


@contextmanager
def _alone(store: Store) -> Iterator[None]:
    """Nothing is written meanwhile; where nothing may be written, nobody writes."""
    with ExitStack() as held:
        try:
            held.enter_context(store.writing("treering verify"))
        except StoreBusy:
            raise
        except StoreError:
            pass  # it may only be read
        yield


def _loaded(embedder: Callable[[], Embedder]) -> Embedder | None:
    try:
        return embedder()
    except ModelError:
        return None
