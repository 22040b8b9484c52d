"""Taking a store away, so that its repository is as it was found."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from treering.errors import StoreError
from treering.files import os_errors
from treering.operate.locks import alone
from treering.operate.sweep import size_of

OURS = (
    "*.db", "*.db-wal", "*.db-shm", "*.lock", "*.json", "*.jsonl", ".gitignore", "commit-graph", "vectors", "tokens",
    "models", "reports", "edge", "aside", "installed", "queue",
    ".manifest.json.*",
)  # fmt: skip
"""What a store's folder holds of ours. What else is in a folder that the user chose is not ours to remove."""


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
    named = any((folder / name).is_file() for name in ("treering.db", "ledger.db"))
    if not _is_store(folder) or (chosen and not named):
        raise StoreError(f"{folder} is no store of treering", "give --store its folder")
    kept = tuple(
        sorted(path.name for path in folder.iterdir() if chosen and not any(path.match(pattern) for pattern in OURS))
    )
    size = sum(size_of(path) for path in folder.iterdir() if path.name not in kept)
    return Removal(folder, size, kept)


def _is_store(folder: Path) -> bool:
    """Whether we made it: it ignores itself, which no folder of somebody else's does."""
    ignore = folder / ".gitignore"
    return not folder.is_symlink() and ignore.is_file() and ignore.read_bytes() == b"*\n"


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
