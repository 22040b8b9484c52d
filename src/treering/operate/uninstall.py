"""Taking a store away, so that its repository is as it was found."""

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from treering.errors import StoreError
from treering.files import os_errors
from treering.operate.locks import LOCKS, alone
from treering.operate.sweep import size_of
from treering.store.database import DATABASES, holds_store, ignores_itself

OURS = frozenset((
    *(f"{name}{log}" for name in DATABASES for log in ("", "-wal", "-shm", "-journal")), *LOCKS, "alerts.lock",
    "manifest.json", "alerts.json", ".gitignore", "commit-graph", "vectors", "tokens", "models", "reports", "edge",
    "aside", "installed", "queue",
))  # fmt: skip
"""What a store's folder holds of ours. What else is in a folder that the user chose is not ours to remove."""
_TEMPORARY = re.compile(r"\A\.(.+)\.[a-z0-9_]{8}\Z")
"""As :func:`treering.files.replacing` names them."""


@dataclass(frozen=True, slots=True)
class Removal:
    """What is removed, and what is left because it is not ours."""

    folder: Path
    bytes: int
    kept: tuple[str, ...]


def removal(folder: Path, *, chosen: bool) -> Removal:
    """What taking a store away would do. ``chosen`` is whether the user named the folder: it may hold other things.

    Raises :class:`StoreError` for a folder that is no store.
    """
    if not folder.is_dir():
        return Removal(folder, 0, ())
    if folder.is_symlink() or not ignores_itself(folder) or (chosen and not holds_store(folder)):
        raise StoreError(f"{folder} is no store of treering", "give --store its folder")
    kept = tuple(not_ours(folder)) if chosen else ()
    size = sum(size_of(path) for path in folder.iterdir() if path.name not in kept)
    return Removal(folder, size, kept)


def not_ours(folder: Path) -> list[str]:
    """The names in a store's folder that are not of a store."""
    names = sorted(path.name for path in folder.iterdir())
    return [name for name in names if not {name, *_TEMPORARY.findall(name)} & OURS]


def remove(found: Removal, first: Callable[[], None]) -> None:
    """Take a store away, after what is to be done ``first`` while nobody can use it.

    Raises :class:`StoreBusy` while anybody has it open: a run, a training, a server.
    """
    folder = found.folder
    if not folder.is_dir():
        first()
        return
    with alone(folder, "treering uninstall"), os_errors(folder):
        first()
        for path in sorted(folder.iterdir(), key=lambda path: path.name == ".gitignore"):  # it hides the rest from git
            if path.name in found.kept:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
        if not found.kept:
            folder.rmdir()
