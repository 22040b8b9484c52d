"""``diff-tree --raw -p -z`` of one commit, taken in pieces: figures, hunks up to a cap, and names for the content.

However large a patch is, no more of it is held than the cap and one piece.
"""

import hashlib
import re
from dataclasses import dataclass

from treering.git.entries import Diff, Entry, change_of, check_header, raw_entries, shown, strange
from treering.git.history import Node
from treering.types import FilePatch

_FILE = b"diff --git "
_KINDS = (b"+", b"-", b" ")
# The engine runs to the next newline, but tries `^` everywhere.
_LINES = {kind: re.compile(rb"\n" + re.escape(kind) + rb"(.*)") for kind in _KINDS}
_WHITE = b" \t\r\v\f"
_NO_BLOB = re.compile(r"0+")


@dataclass(frozen=True, slots=True)
class Caps:
    """How many bytes of hunks are kept of one file and of one commit."""

    file: int
    commit: int


class _Section:
    """One file's part of a patch: its header, then its hunks."""

    def __init__(self) -> None:
        self.header = bytearray()
        self.in_hunks = False
        self.insertions = 0
        self.deletions = 0
        self.size = 0
        self.kept = bytearray()
        self.digests = {kind: hashlib.blake2b(digest_size=16) for kind in _KINDS}
        self.open_line = b""  # the kind of a line that the last piece left unfinished

    def feed(self, piece: bytes, room: int) -> None:
        """Take the next piece; ``room`` is how much of the hunks may still be kept."""
        if not self.in_hunks:
            self.header += piece
            start = self.header.find(b"\n@@ -") + 1
            if not start:
                return
            piece = bytes(self.header[start:])
            del self.header[start:]
            self.in_hunks = True
        self.size += len(piece)
        if room > len(self.kept):
            self.kept += piece[: room - len(self.kept)]
        if self.open_line:
            rest, newline, piece = piece.partition(b"\n")
            self._digest(self.open_line, rest + newline)
            if newline:
                self.open_line = b""
        if piece and not piece.endswith(b"\n"):
            self.open_line = piece[piece.rfind(b"\n") + 1 :][:1]
        piece = b"\n" + piece
        for kind, lines in _LINES.items():
            found = lines.findall(piece)
            if kind == b"+":
                self.insertions += len(found)
            elif kind == b"-":
                self.deletions += len(found)
            self._digest(kind, b"\n".join(found) + (b"\n" if found and kind != self.open_line else b""))

    def _digest(self, kind: bytes, text: bytes) -> None:
        if kind in self.digests:
            self.digests[kind].update(text.translate(None, _WHITE))

    @property
    def binary(self) -> bool:
        return b"\nBinary files " in self.header


class PatchParser:
    """One commit's answer, piece by piece; :meth:`diff` when all has come."""

    def __init__(self, node: Node, caps: Caps) -> None:
        self.node = node
        self.caps = caps
        self._head: bytearray | None = bytearray()
        self._entries: list[Entry] = []
        self._sections: list[_Section] = []
        self._mid_line = False
        self._kept = 0

    def feed(self, piece: bytes) -> None:
        """Take a piece, cut anywhere but inside the words that begin a file's part: best at the end of a line."""
        if self._head is not None:
            self._head += piece
            end = self._head.find(b"\0\0")  # no field of a raw entry is empty
            if end < 0:
                return
            self._start(bytes(self._head[: end + 1]))
            piece = bytes(self._head[end + 2 :])
            self._head = None
        place = 0
        while place < len(piece):
            begins = not self._mid_line and piece.startswith(_FILE, place)
            if begins:
                self._close()
                self._sections.append(_Section())
            following = piece.find(b"\n" + _FILE, place)
            end = len(piece) if following < 0 else following + 1
            if self._sections:
                room = min(self.caps.file, self.caps.commit - self._kept)
                self._sections[-1].feed(piece[place:end], room)
            self._mid_line = piece[end - 1 : end] != b"\n"
            place = end

    def _start(self, head: bytes) -> None:
        name, _, rest = head.partition(b"\0")
        check_header(name.decode("ascii", "replace"), self.node)
        self._entries = raw_entries(rest)

    def _close(self) -> None:
        """What is kept of the last section ends with a whole line: half a secret would not be known for one."""
        if self._sections:
            section = self._sections[-1]
            if len(section.kept) < section.size:
                del section.kept[section.kept.rfind(b"\n") + 1 :]
            self._kept += len(section.kept)

    def diff(self) -> Diff:
        """The commit's changes, its hunks and the names of its content."""
        if self._head is not None:
            self._start(bytes(self._head))
        self._close()
        changes, patches = [], []
        forward, reverse = [], []
        place = 0
        for entry in self._entries:
            # git shows a change of type as a deletion and a creation.
            own = self._sections[place : place + (2 if entry.status == "T" else 1)]
            place += len(own)
            binary = any(section.binary for section in own)
            lines = (0, 0) if binary else (sum(s.insertions for s in own), sum(s.deletions for s in own))
            changes.append(change_of(entry, *lines, binary))
            if size := sum(section.size for section in own):
                kept = b"".join(bytes(section.kept) for section in own)
                patches.append(FilePatch(shown(entry.path), kept.decode("utf-8", "replace"), size - len(kept)))
            there, back = _names(entry, own, binary=binary)
            forward.append(there)
            reverse.append(back)
        return Diff(
            tuple(changes),
            tuple(patches),
            text_flag=strange(self._entries),
            patch_id=_id(forward),
            reverse_id=_id(reverse),
            untold=any(entry.old_blob == entry.new_blob or entry.status == "T" for entry in self._entries),
        )


Half = tuple[str, str, tuple[str, ...]]


def _names(entry: Entry, sections: list[_Section], *, binary: bool) -> tuple[str, str]:
    """A file's change and its inverse as text: where from, where to, what went and what came. Line numbers and white
    space are left out, so that a cherry-pick is named as its original.
    """
    context = ".".join(section.digests[b" "].hexdigest() for section in sections)
    gone = sorted(section.digests[b"-"].hexdigest() for section in sections)
    come = sorted(section.digests[b"+"].hexdigest() for section in sections)
    if binary:
        gone, come = [entry.old_blob], [entry.new_blob]
    modes = (entry.old_mode, entry.new_mode) if entry.old_mode != entry.new_mode else ("", "")
    old: Half = (
        "" if _NO_BLOB.fullmatch(entry.old_mode) else entry.old_path or entry.path,
        modes[0],
        tuple(gone),
    )
    new: Half = ("" if _NO_BLOB.fullmatch(entry.new_mode) else entry.path, modes[1], tuple(come))
    return repr((old, new, context)), repr((new, old, context))


def _id(names: list[str]) -> str:
    if not names:
        return ""
    return hashlib.blake2b("\n".join(sorted(names)).encode("utf-8", "surrogateescape"), digest_size=20).hexdigest()
