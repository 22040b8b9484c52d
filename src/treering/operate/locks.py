"""Who uses a store: its locks, and whether its databases are open anywhere."""

import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from treering.errors import StoreBusy
from treering.files import locked

LOCKS = ("writer.lock", "trainer.lock", "learn.lock")
"""Whoever holds one of them changes a store, its index or its models."""


@contextmanager
def alone(folder: Path, who: str) -> Iterator[None]:
    """Be the only one who uses a store inside the block.

    Raises :class:`StoreBusy` while anybody has it open: a run, a training, a server.
    """
    with ExitStack() as held:
        for name in LOCKS:
            held.enter_context(locked(folder / name, who))
        for path in folder.glob("*.db"):
            _closed(path)
        yield


def _closed(path: Path) -> None:
    """Leaving the WAL needs every other connection closed, so SQLite says whether there is one."""
    try:
        with closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as db:
            (mode,) = db.execute("PRAGMA journal_mode=DELETE").fetchone()
    except sqlite3.OperationalError as error:
        if "locked" not in str(error) and "busy" not in str(error):
            return  # damaged: nobody works with it
        mode = "wal"
    except sqlite3.DatabaseError:
        return
    if mode == "wal":
        raise StoreBusy(f"{path} is in use by another process", "end what serves or reads it, and run this again")
