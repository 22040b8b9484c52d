"""What ``diff-tree -z`` says of each path: the raw entries, and the figures of ``--numstat`` after them.

Paths are decoded with ``surrogateescape`` while they are ours, so that they can be given back to git byte for byte;
:func:`shown` is how they leave.
"""

from collections.abc import Iterable, Sequence

from msgspec import Struct

from treering.errors import DamagedRepository
from treering.git.history import Node
from treering.types import FileChange, FilePatch, Status

_SUBMODULE = "160000"
_NOTHING = "000000"


class Diff(Struct, frozen=True):
    """What one commit changed. ``unreadable`` names the paths whose objects are missing; ``text_flag`` says that
    a path was not UTF-8, ``slow`` that git was stopped. ``patch_id`` and ``reverse_id`` name the content of the whole
    diff and of its inverse; they are empty where hunks were not asked for or are not all there. ``untold`` says that
    hunks do not show all: whether a file that was only renamed is binary, and the lines of one that changed its type.
    """

    changes: tuple[FileChange, ...]
    patches: tuple[FilePatch, ...] = ()
    unreadable: tuple[str, ...] = ()
    text_flag: bool = False
    complete: bool = True
    slow: bool = False
    patch_id: str = ""
    reverse_id: str = ""
    untold: bool = False


class Entry(Struct, frozen=True):
    """One raw entry: modes and blobs before and after, a status letter, and the path (and the old one of a rename)."""

    old_mode: str
    new_mode: str
    old_blob: str
    new_blob: str
    status: Status
    path: str
    old_path: str | None = None

    @property
    def pair(self) -> str:
        """Both sides as git writes them: equal pairs have equal figures."""
        return f"{self.old_mode} {self.new_mode} {self.old_blob} {self.new_blob}"

    @property
    def submodule(self) -> bool:
        return _SUBMODULE in (self.old_mode, self.new_mode)

    @property
    def blobs(self) -> set[str]:
        """The objects that its figures are counted in."""
        sides = ((self.old_mode, self.old_blob), (self.new_mode, self.new_blob))
        return {blob for mode, blob in sides if mode not in (_NOTHING, _SUBMODULE)}


def decoded(answer: bytes) -> tuple[str, bool]:
    """The text of an answer, and whether some of it is not UTF-8."""
    try:
        return answer.decode(), False
    except UnicodeDecodeError:
        return answer.decode("utf-8", "surrogateescape"), True


def shown(path: str) -> str:
    """A path as it leaves: a lone surrogate can be written to no JSON file."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def raw_entries(answer: bytes) -> list[Entry]:
    """The entries at the beginning of an answer."""
    return _entries(decoded(answer)[0].split("\0"), 0)[0]


def _entries(parts: Sequence[str], at: int) -> tuple[list[Entry], int]:
    entries = []
    while at < len(parts) and parts[at].startswith(":"):
        old_mode, new_mode, old_blob, new_blob, letter = parts[at][1:].split(" ")
        status, old_path = letter[0], None
        if status in "RC":
            old_path, at = parts[at + 1], at + 1
        entries.append(Entry(old_mode, new_mode, old_blob, new_blob, status, parts[at + 1], old_path))  # type: ignore[arg-type]  # git's letters
        at += 2
    return entries, at


def change_of(entry: Entry, insertions: int = 0, deletions: int = 0, binary: bool = False) -> FileChange:
    """An entry with its figures, as it leaves."""
    return FileChange(
        entry.status,
        shown(entry.path),
        None if entry.old_path is None else shown(entry.old_path),
        insertions,
        deletions,
        binary,
        entry.submodule,
    )


def strange(entries: Iterable[Entry]) -> bool:
    """Whether a path among them is not UTF-8."""
    return any(shown(path) != path for entry in entries for path in (entry.path, entry.old_path or ""))


Figures = tuple[int, int, bool]
"""Insertions, deletions, and whether git took a side for binary."""


def parse_statistics(answer: bytes, nodes: Sequence[Node], counted: dict[str, Figures] | None = None) -> list[Diff]:
    """``--raw --numstat -z`` of many commits: for each its name, raw entries, then figures in the same order. Into
    ``counted`` go the figures of every pair.

    The one place where a whole history passes line by line: written for speed.
    """
    text, unclean = decoded(answer)
    parts = text.split("\0")
    at = 0
    diffs = []
    for node in nodes:
        check_header(parts[at], node)
        at += 1
        metas = []
        while (meta := parts[at])[:1] == ":":
            metas.append(meta)
            at += 2 if meta[-1].isalpha() else 3  # a rename ends in its likeness and names two paths
        changes = []
        for meta in metas:
            insertions, deletions, path = parts[at].split("\t", 2)
            old_path = None
            if path:
                at += 1
                status = meta[-1]
            else:
                old_path, path = parts[at + 1], parts[at + 2]
                at += 3
                status = meta[meta.rindex(" ") + 1]
            submodule = meta[1:7] == _SUBMODULE or meta[8:14] == _SUBMODULE
            figures = (0, 0, True) if insertions == "-" else (int(insertions), int(deletions), False)
            changes.append(FileChange(status, path, old_path, *figures, submodule))  # type: ignore[arg-type]
            if counted is not None:
                counted[meta[1 : meta.rindex(" ")]] = figures
        diffs.append(_cleaned(changes) if unclean else Diff(tuple(changes)))
    return diffs


def parse_entries(answer: bytes, nodes: Sequence[Node]) -> list[list[Entry]]:
    """``--raw -z`` of many commits: for each its name, then raw entries."""
    parts = decoded(answer)[0].split("\0")
    at = 0
    commits = []
    for node in nodes:
        check_header(parts[at], node)
        entries, at = _entries(parts, at + 1)
        commits.append(entries)
    return commits


def check_header(said: str, node: Node) -> None:
    if said != node.hash:
        raise DamagedRepository(f"git answered for another commit than {node.hash}", "run `git fsck`")


def _cleaned(changes: list[FileChange]) -> Diff:
    clean = tuple(
        FileChange(
            change.status,
            shown(change.path),
            None if change.old_path is None else shown(change.old_path),
            change.insertions,
            change.deletions,
            change.binary,
            change.submodule,
        )
        for change in changes
    )
    return Diff(clean, text_flag=clean != tuple(changes))
