"""The operations that keep a machine and its stores sound: looked at, verified, mended, kept, swept, taken away."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from treering import opening, operations
from treering.config import Settings
from treering.errors import ModelError, RepositoryError, TreeringError
from treering.git.reader import locate
from treering.opening import Flags, Place, embedder_of
from treering.operate import backup as backup_room
from treering.operate import doctor
from treering.operate import sweep as sweep_room
from treering.operate import uninstall as uninstall_room
from treering.operate import verify as verify_room
from treering.operate.doctor import Check as Check
from treering.operate.doctor import Finding as Finding
from treering.operate.doctor import Patient as Patient
from treering.report import Reporter
from treering.store import store_folder

Remover = Callable[[Place, bool], Sequence[str]]
"""Takes something of a repository away that lies outside of its store, and tells what it was; told True, it only
tells what it would."""


def examine(
    repo: Path, store: Path | None = None, flags: Flags | None = None, more: Sequence[Check] = ()
) -> list[Finding]:
    """Everything that can be wrong on this machine with a repository, each with the way out. ``more`` are checks of
    those who know of other things.
    """
    return doctor.examine(_patient(repo, store, flags), (*doctor.CHECKS, *more))


def _patient(repo: Path, store: Path | None, flags: Flags | None) -> Patient:
    try:
        where = opening.place(repo, store, flags)
    except TreeringError as error:
        try:
            source = locate(repo)
        except RepositoryError:
            source = None
        folder = store or (store_folder(source.worktree, source.git_dir, None) if source else None)
        return Patient(repo, source, Settings(), folder, error)
    return Patient(repo, where.source, where.settings, where.folder)


def verify(where: Place, report: Reporter, *, everything: bool = False, repair: bool = False) -> verify_room.Verified:
    """Compare a store with what it was made of; with ``repair``, make again what is wrong, and bring the index up to
    date.
    """
    found = verify_room.verify(
        where.folder,
        where.source,
        where.settings,
        report,
        embedder_of(where.settings),
        everything=everything,
        repair=repair,
        remake=lambda: operations.index(where, report),
    )
    if any(part.mended for part in found.parts):
        operations.index(where, report)
    return found


def backup(where: Place, target: Path, report: Reporter) -> backup_room.Backup:
    """Write the store to one file, while it is in use."""
    return backup_room.backup(where.folder, target, report, embedder_of(where.settings))


def restore(file: Path, repo: Path, store: Path | None, report: Reporter, *, force: bool = False) -> backup_room.Backup:
    """Put a backup in the place of a store. Where ``store`` says which, no repository need be there."""
    folder, name = (store, "") if store else ((where := opening.place(repo)).folder, where.source.name)
    made = backup_room.restore(file, folder, report, force=force)
    if name and made.repo and made.repo != name:
        report.warn(f"the backup is of {made.repo}, and this is {name}: the next run reads what differs")
    return made


def sweep(where: Place, report: Reporter, *, days: float = 30.0, dry: bool = False) -> list[sweep_room.Swept]:
    """Remove what nothing names any more. Raises :class:`StoreBusy` while somebody writes or trains."""
    try:
        embedder = embedder_of(where.settings)()
    except ModelError:
        embedder = None
    with where.store(existing=True) as store:
        return sweep_room.sweep(store, where.source, where.settings, report, embedder, days=days, dry=dry)


@dataclass(frozen=True, slots=True)
class Uninstalled:
    """What was taken away, or would be; what was ``kept`` in the store's folder, and ``left`` elsewhere, because it is
    not ours.
    """

    store: str
    bytes: int
    removed: tuple[str, ...]
    kept: tuple[str, ...]
    left: tuple[str, ...]


def uninstall(
    where: Place,
    removers: Sequence[Remover],
    left: Callable[[Place], Sequence[str]] = lambda _: (),
    *,
    chosen: bool = False,
    dry: bool = False,
) -> Uninstalled:
    """Take the store away, and what the ``removers`` know of, so that the repository is as it was found. ``chosen`` is
    whether the user named the store's folder. ``left`` tells what of ours stays all the same. ``dry`` only tells.

    Raises :class:`StoreBusy` while anybody uses it: then nothing was changed.
    """
    found = uninstall_room.removal(where.folder, chosen=chosen)
    said: list[str] = []

    def others() -> None:
        for remover in removers:
            said.extend(remover(where, dry))

    stays = tuple(left(where))  # while the store says which lines are its own
    if dry:
        others()
    else:
        uninstall_room.remove(found, others)
        _no_empty_folder(where.folder.parent)
    if where.folder.is_dir() if dry else found.bytes:
        said.append(f"the store {where.folder}")
    return Uninstalled(str(where.folder), found.bytes, tuple(said), found.kept, stays)


def _no_empty_folder(folder: Path) -> None:
    """The stores of bare repositories lie in the user's data, whose folder goes with the last of them."""
    data = Path(platformdirs.user_data_dir("treering"))
    while folder.is_relative_to(data) and folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent
