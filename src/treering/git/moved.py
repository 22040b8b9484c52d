"""Whether refs may have moved, told by the times of the files that hold them: no git is asked, nothing is read.

git replaces such a file by renaming another, which changes the time of its folder; so one look at each folder tells.
It tells too much rather than too little, where the file system keeps times as fine as they come.
"""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from treering.git.shadow import Source

Mark = tuple[int, int, int] | None


class RefFiles:
    """The files that hold a repository's refs, and some that are as good as refs (``also``)."""

    def __init__(self, source: Source, also: tuple[Path, ...] = ()) -> None:
        common = source.objects.parent
        held = ("HEAD", "packed-refs", "reftable/tables.list")
        self._files = (source.git_dir / "HEAD", *(common / name for name in held), source.shallow, *also)
        self._roots = (common / "refs", common / "worktrees")
        self._folders: dict[Path, tuple[Mark, tuple[Path, ...]]] = {}

    def state(self, *, afresh: bool = False) -> tuple[Mark, ...]:
        """Another value than before where a ref may have moved. ``afresh`` lists all folders again, not only those
        whose time has changed.
        """
        if afresh:
            self._folders.clear()
        return (*map(_mark, self._files), *(mark for root in self._roots for mark in self._within(root)))

    def _within(self, folder: Path) -> Iterator[Mark]:
        mark = _mark(folder)
        yield mark
        known = self._folders.get(folder)
        if known is None or known[0] != mark:
            known = self._folders[folder] = mark, tuple(_subfolders(folder))
        for inner in known[1]:
            yield from self._within(inner)


def _mark(path: Path) -> Mark:
    try:
        found = path.stat()
    except OSError:
        return None
    # The size of a folder says nothing, and of a file that is replaced the number says more.
    return found.st_mtime_ns, found.st_ino, 0 if stat.S_ISDIR(found.st_mode) else found.st_size


def _subfolders(folder: Path) -> Iterator[Path]:
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    yield Path(entry.path)
    except OSError:
        return
