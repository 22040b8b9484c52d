"""git's hooks, which ask for the index to be brought up to date: put in, told of, and taken out again."""

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from treering.errors import RepositoryError, StoreBusy
from treering.files import holder
from treering.git.shadow import GitFailed
from treering.opening import Place
from treering.operate import hooks
from treering.operate.asked import Queue
from treering.operate.doctor import Finding, Patient
from treering.operate.hooks import Hook as Hook


@dataclass(frozen=True, slots=True)
class Hooks:
    """The hooks of a repository; ``shared`` where their folder serves other repositories too. ``waits`` says whether
    something is asked for, ``watcher`` who works it off, if anyone does.
    """

    folder: str
    shared: bool
    hooks: list[Hook]
    waits: bool
    watcher: str


def install(where: Place) -> Hooks:
    """Have git's hooks ask for the index to be brought up to date. What is not ours to change is told."""
    folder = _folder(where)
    Queue(where.folder).make()
    return _told(where, folder, hooks.install(folder))


def remove(where: Place) -> Hooks:
    """Take them out; what was there before is there again.

    Raises :class:`RepositoryError`, once all others are out, for one whose lines cannot be told from another's.
    """
    folder = _folder(where)
    found = hooks.remove(folder)
    if tangled := hooks.tangled(folder):
        path = folder.path / tangled[0]
        raise RepositoryError(
            f"{path} was changed since it calls {folder.path / hooks.KEPT / tangled[0]}",
            "make one hook of the two, then run this again",
        )
    return _told(where, folder, found)


def unhook(where: Place, dry: bool) -> list[str]:
    """Take the hooks out where treering is taken away, and tell which they were; ``dry`` only tells.

    Raises :class:`StoreBusy` while a watcher keeps the index.
    """
    found, folder = status(where), _folder(where)
    if found.watcher:
        raise StoreBusy(f"{found.watcher} keeps this index up to date", "end it, then run this again")
    tangled = hooks.tangled(folder)
    ours = [
        hook.name for hook in found.hooks if hook.state == "installed" and not hook.add and hook.name not in tangled
    ]
    if ours and not dry:
        hooks.remove(folder)
    return [f"the lines in the hooks {', '.join(ours)} of {found.folder}"] if ours else []


def left_behind(where: Place) -> list[str]:
    """What of ours stays in a repository when treering is taken away, because it is not ours to change."""
    found, said = status(where), []
    tangled = hooks.tangled(_folder(where))
    if by_hand := [hook.name for hook in found.hooks if hook.state == "installed" and hook.add]:
        said.append(f"what was added by hand for the hooks {', '.join(by_hand)} of {found.folder}")
    if tangled:
        kept = f"{found.folder}/{hooks.KEPT}"
        said.append(f"the hooks {', '.join(tangled)} of {found.folder}, changed since they call those in {kept}")
    with suppress(GitFailed):
        branches = where.source.ask("for-each-ref", "--format=%(refname:short)", "refs/heads/treering/gate-*")
        said += [f"the branch {name}" for name in branches.decode("utf-8", "replace").split()]
    return said


def examined(patient: Patient) -> Iterator[Finding]:
    """Hooks that ask where nobody listens, for ``treering doctor``."""
    if patient.source is None or patient.folder is None:
        return
    found = status(Place(patient.source, patient.settings, patient.folder))
    stale = [hook.name for hook in found.hooks if hook.stale]
    ours = [hook.name for hook in found.hooks if hook.state == "installed"]
    if stale:
        told = f"{', '.join(stale)} ask in a folder that is not there"
        yield Finding("hooks", told, "warning", "`treering hooks remove`, then `treering hooks install`")
    elif ours and not found.watcher:
        yield Finding("hooks", f"{len(ours)} ask, and no watcher runs", "warning", "run `treering watch`")
    else:
        yield Finding("hooks", f"{len(ours)} installed" if ours else "none installed")


def status(where: Place) -> Hooks:
    """What is installed, what else is there, and what leads nowhere."""
    folder = _folder(where)
    return _told(where, folder, hooks.look(folder))


def _folder(where: Place) -> hooks.Folder:
    path, root = where.source.hooks(), where.source.worktree
    inside = root is not None and path.resolve().is_relative_to(root.resolve())
    tracked = root is not None and inside and where.source.tracks(os.path.relpath(path.resolve(), root.resolve()))
    return hooks.Folder(path, Queue(where.folder).folder.absolute(), root, tracked)


def _told(where: Place, folder: hooks.Folder, found: list[Hook]) -> Hooks:
    queue = Queue(where.folder)
    common = where.source.objects.parent
    shared = not any(folder.path.is_relative_to(own) for own in (common, where.source.worktree or common))
    return Hooks(str(folder.path), shared, found, queue.waits, holder(queue.lock))
