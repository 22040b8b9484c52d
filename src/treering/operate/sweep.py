"""What of a store nothing names any more, and its removal."""

import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from treering.config import ScrapeSettings, Settings
from treering.errors import StoreError
from treering.files import locked
from treering.git.reader import Source, open_reader
from treering.operate.folders import leftovers
from treering.operate.subject import ASIDE
from treering.pipeline.learn import unneeded
from treering.pipeline.tokenize import CARD
from treering.report import Reporter
from treering.store import Store
from treering.store.index import HOLDER
from treering.vectors.embedder import Embedder
from treering.vectors.flat import FlatMatrix

DAY = 86_400
FREE_PART = 0.1
"""From so large a part of free pages on, the database is written anew."""


@dataclass(frozen=True, slots=True)
class Swept:
    """One thing that was removed, or would be, and how many bytes that gives back."""

    what: str
    bytes: int


def sweep(
    store: Store,
    source: Source,
    settings: Settings,
    report: Reporter,
    embedder: Embedder | None,
    *,
    days: float,
    dry: bool = False,
) -> list[Swept]:
    """Remove what nothing names: vectors of models that are not in use, token streams and models beyond those that are
    kept, what a repair put aside and the states of trainings that were given up more than ``days`` ago, commits that
    no ref of the repository reaches and that are older than that, and what killed runs left.

    Raises :class:`StoreBusy` while somebody writes or trains.
    """
    with ExitStack() as held:
        if not dry:
            held.enter_context(locked(store.folder / "trainer.lock", "treering gc"))
            held.enter_context(store.writing("treering gc", patience=0))
        found = []
        for what, paths in _folders(store, settings, days):
            found += _removed(store, what, paths, dry=dry)
        found += _vectors(store, embedder, dry=dry)
        found += _vanished(store, source, embedder, days, dry=dry)
        found += _free_pages(store, report, dry=dry)
    return [one for one in found if one.bytes or "commits" in one.what]


def _folders(store: Store, settings: Settings, days: float) -> Iterator[tuple[str, list[Path]]]:
    folder, before = store.folder, time.time() - days * DAY
    yield "leftovers of killed runs", list(leftovers(folder))
    yield (
        f"models beyond the {settings.train.keep_models} newest and the current one",
        unneeded(store, settings.train.keep_models, settings.learn.keep),
    )
    streams = sorted((folder / "tokens").glob(f"*/{CARD}"), key=lambda path: path.stat().st_mtime)
    kept = {streams[-1].parent} if streams else set()
    yield (
        "token streams of other settings or an earlier history",
        [path for path in (folder / "tokens").glob("*") if path.is_dir() and path not in kept],
    )
    for what, pattern in (("what repairs put aside", f"{ASIDE}/*"), ("trainings given up", "models/*/.*.checkpoints")):
        yield what, [path for path in folder.glob(pattern) if path.stat().st_mtime < before]


def _vectors(store: Store, embedder: Embedder | None, *, dry: bool) -> list[Swept]:
    """Vectors of other models than the one in use, once that has all; and folders that the database does not name."""
    named = store.fingerprints()
    old = set(named) if embedder else set()
    if embedder:
        old.discard(embedder.fingerprint)
        if store.unembedded(embedder.fingerprint) or embedder.fingerprint not in named:
            old.clear()
    folders = [
        path
        for path in (store.folder / "vectors").glob("*")
        if path.is_dir() and (path.name in old or (embedder and path.name not in {*named, embedder.fingerprint}))
    ]
    if not dry:
        for name in old:
            store.forget_vectors(name)  # first: what is named must be there
    return _removed(store, "vectors of models that are not in use", folders, dry=dry)


def _vanished(store: Store, source: Source, embedder: Embedder | None, days: float, *, dry: bool) -> list[Swept]:
    """Commits that are reachable from no ref at all, whatever the settings choose, and older than that. Where vectors
    of a model are named that is not here, nothing is done: their rows could not be moved.
    """
    rows = store.db.execute(
        "SELECT id, hash FROM commits WHERE position IS NULL AND committer_time < ?", (int(time.time() - days * DAY),)
    ).fetchall()
    others = store.fingerprints().keys() - ({embedder.fingerprint} if embedder else set())
    if not rows or others or store.fact("tips") is None:
        return []
    with open_reader(source, ScrapeSettings(refs="all")) as reader:
        reachable = {node.hash for node in reader.graph}
        merges = {row[0] for row in store.db.execute("SELECT merged_by FROM commits WHERE position IS NOT NULL")}

    gone = sorted(number for number, name in rows if name not in reachable and name not in merges)
    if not gone:
        return []
    said = f"{len(gone):,} commits that no ref reaches"
    if not dry:
        if embedder:
            _forget_rows(store, embedder, set(gone))
        _forget_words(store, gone)
        store.remove(gone)
    return [Swept(said, 0)]


def _forget_rows(store: Store, embedder: Embedder, gone: set[int]) -> None:
    """Take the vectors of some commits out: the last rows move into the holes, first in the file, then, all at once, in
    the database. Killed in between, only rows of commits that nothing reaches hold another's vector.
    """
    names = store.vector_names(embedder.fingerprint)
    holes = [row for row, (number, _, _) in enumerate(names) if number in gone]
    left = len(names) - len(holes)
    tail = [row for row in range(left, len(names)) if names[row][0] not in gone]
    moves = dict(zip((row for row in holes if row < left), tail, strict=True))
    if not holes:
        return
    matrix = FlatMatrix(store.folder / "vectors" / embedder.fingerprint, embedder.dimensions)
    rows = matrix.rows(len(names))
    matrix.mend({to: np.array(rows[row]) for to, row in moves.items()})
    with store.transaction():
        store.db.executemany(
            "DELETE FROM vectors WHERE fingerprint = ? AND row = ?", [(embedder.fingerprint, row) for row in holes]
        )
        store.db.executemany(
            "UPDATE vectors SET row = ? WHERE fingerprint = ? AND row = ?",
            [(to, embedder.fingerprint, row) for to, row in moves.items()],
        )


def _forget_words(store: Store, gone: list[int]) -> None:
    """Take some commits out of the postings and the documents, all at once."""
    out = np.array(gone, np.uint32)
    with store.transaction():
        changed = []
        for word, first, held in store.db.execute("SELECT word, first, holders FROM postings").fetchall():
            found = np.frombuffer(held, HOLDER)
            kept = found[~np.isin(found["commit"], out)]
            if len(kept) != len(found):
                changed.append((kept.tobytes(), word, first))
        store.db.executemany("UPDATE postings SET holders = ? WHERE word = ? AND first = ?", changed)
        store.db.execute("DELETE FROM postings WHERE length(holders) = 0")
        store.db.executemany("DELETE FROM documents WHERE commit_id = ?", [(one,) for one in gone])


def _free_pages(store: Store, report: Reporter, *, dry: bool) -> list[Swept]:
    """Write the database anew where much of it is free."""
    (size,) = store.db.execute("PRAGMA page_size").fetchone()
    (pages,) = store.db.execute("PRAGMA page_count").fetchone()
    (free,) = store.db.execute("PRAGMA freelist_count").fetchone()
    if free < FREE_PART * pages:
        return []
    if not dry:
        try:
            store.db.execute("VACUUM")
            store.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.OperationalError as error:
            report.warn(f"the database was not written anew: {error}")
            return []
    return [Swept("free pages of the database", free * size)]


def _removed(store: Store, what: str, paths: list[Path], *, dry: bool) -> list[Swept]:
    if not paths:
        return []
    size = sum(size_of(path) for path in paths)
    if not dry:
        for path in paths:
            if not path.resolve().is_relative_to(store.folder.resolve()):
                raise StoreError(f"{path} leads out of the store", "look at it, and remove it by hand")
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
    return [Swept(f"{what} ({len(paths):,})", size)]


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files of a folder; links are not followed."""
    if path.is_symlink() or not path.is_dir():
        return path.lstat().st_size
    return sum(size_of(one) for one in path.iterdir())
