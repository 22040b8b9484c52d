"""Who wrote the lines of a file, as git's own blame says, and who changed them before."""

import os
import re
from collections.abc import Iterable, Sequence

from treering.errors import UsageError
from treering.git.shadow import GitFailed, Shadow

LARGEST = 1 << 20
"""Bytes of a file that is read as text: what is larger is data."""
BINARY = 8000
"""Bytes of a file in which git looks for a zero, which no text has."""
_HEAD = re.compile(rb"^([0-9a-f]{40,64}) \d+ \d+(?: \d+)?$", re.MULTILINE)


def blamed(shadow: Shadow, tip: str, path: str, line: int | None = None) -> list[tuple[str, int]]:
    """The commits that wrote the lines of a file at ``tip``, or that one line (from 1), with how many, most first.

    Raises :class:`UsageError` for a file or a line that is not there.
    """
    lines = ["-L", f"{line},{line}"] if line else []
    try:
        said = shadow.run("blame", "--porcelain", "-w", *lines, tip, "--", path)
    except GitFailed as error:
        raise UsageError(f"git cannot tell who wrote {path}: {error}", "name a file of the newest commit") from error
    counts: dict[str, int] = {}
    for found in _HEAD.findall(said):
        counts[found.decode()] = counts.get(found.decode(), 0) + 1
    return sorted(counts.items(), key=lambda item: -item[1])


def line_history(shadow: Shadow, tip: str, path: str, line: int) -> list[str]:
    """The commits that changed a line (from 1) or what became it, newest first."""
    try:
        said = shadow.run("log", "--format=%H", "--no-patch", f"-L{line},{line}:{path}", tip)
    except GitFailed:
        return []  # blame told already what can be told
    return said.decode("ascii", "replace").split()


def tree(shadow: Shadow, tip: str) -> list[str]:
    """The files of a commit; those whose names are no UTF-8 are left out."""
    listed = shadow.run("ls-tree", "-r", "-z", "--name-only", tip)
    return [name for name in listed.decode("utf-8", "replace").split("\0") if name and "\ufffd" not in name]


def texts(shadow: Shadow, tip: str, paths: Sequence[str], most: int = 1 << 17) -> dict[str, str]:
    """The first ``most`` bytes of some files of a commit, as text; binary, missing and very large ones are left out,
    and all where git reads none.
    """
    # One with a line break would be two questions, and a relative one ends git.
    paths = [path for path in paths if "\n" not in path and not path.startswith(("./", "../"))]
    found: dict[str, str] = {}
    try:
        told = shadow.run("cat-file", "--batch-check", stdin=_asked(tip, paths)).split(b"\n")
        fields = [(path, line.rsplit(b" ", 2)[1:]) for path, line in zip(paths, told, strict=False)]
        # A folder is told too, as what is in it.
        sizes = {path: int(size[1]) for path, size in fields if size[:1] == [b"blob"] and int(size[1]) <= LARGEST}
        said = shadow.run("cat-file", "--batch", stdin=_asked(tip, sizes))
    except GitFailed:
        return {}
    start = 0
    for path, size in sizes.items():
        start = said.index(b"\n", start) + 1
        content = said[start : start + min(size, max(most, BINARY))]
        if b"\0" not in content[:BINARY]:
            found[path] = content[:most].decode("utf-8", "replace")
        start += size + 1
    return found


def _asked(tip: str, paths: Iterable[str]) -> bytes:
    return os.fsencode("".join(f"{tip}:{path}\n" for path in paths))
