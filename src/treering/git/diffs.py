"""Diffs of many commits against their first parents, by persistent ``git diff-tree --stdin`` workers.

A commit whose objects are missing kills a diff-tree and all that would come after it, so a chunk that fails is done
again commit by commit, and the commit that fails alone is told with what can be read of it.
"""

import os
import queue
import secrets
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice

from treering.errors import DamagedRepository
from treering.git.history import Node
from treering.git.shadow import GitFailed, Shadow, last_word
from treering.types import FileChange, FilePatch, Status

STATISTICS_CHUNK = 96
ARGUMENT_BYTES = 100_000  # of paths on one command line; systems differ in what they take
PATCH_CHUNK = 12  # patches are large, and a chunk's output is held in memory

_COMMON = [
    "diff-tree", "-r", "--root", "-z", "--raw", "--always", "--no-abbrev", "--no-ext-diff", "--no-textconv",
    "--ignore-submodules=none", "--diff-algorithm=myers", "--no-color",
]  # fmt: skip
_STATISTICS = [*_COMMON, "--numstat"]
_PATCHES = [*_COMMON, "-p", "--full-index"]
_RENAMES = "-M"
_SUBMODULE = b"160000"


@dataclass(frozen=True, slots=True)
class Caps:
    """How many bytes of hunks are kept of one file and of one commit."""

    file: int
    commit: int


@dataclass(frozen=True, slots=True)
class Diff:
    """What one commit changed. ``unreadable`` names the paths whose objects are missing; ``text_flag`` says that
    a path was not UTF-8.
    """

    changes: tuple[FileChange, ...]
    patches: tuple[FilePatch, ...] = ()
    unreadable: tuple[str, ...] = ()
    text_flag: bool = False
    complete: bool = True


class _Dead(Exception):  # noqa: N818  (it is what the worker is)
    """The worker ended before it answered."""


class _Worker:
    """One diff-tree that answers chunk after chunk, each closed by a sentinel git echoes."""

    def __init__(self, shadow: Shadow, arguments: Sequence[str]) -> None:
        self.process = shadow.start(*arguments, "--stdin")

    def answer(self, nodes: Sequence[Node], *, apart: bool) -> list[bytes]:
        """What git says of the nodes: in one piece, or ``apart``, one for each."""
        process = self.process
        assert process.stdin is not None  # noqa: S101  (for mypy: they are pipes)
        assert process.stdout is not None  # noqa: S101
        # git prints a line that is no object name back, and flushes. Random, so no file can forge it.
        sentinel = f"end of answer {secrets.token_hex(16)}\n"
        request = (sentinel if apart else "").join(_request(node) for node in nodes) + sentinel
        try:
            process.stdin.write(request.encode())
            process.stdin.flush()
        except OSError as error:
            raise _Dead from error
        end, wanted = sentinel.encode(), len(nodes) if apart else 1
        answer = bytearray()
        out = process.stdout.fileno()
        while not (answer.endswith(end) and answer.count(end) == wanted):
            piece = os.read(out, 1 << 20)
            if not piece:
                raise _Dead
            answer += piece
        return bytes(answer).split(end)[:-1]

    def close(self) -> str:
        """End the process and return what it said on stderr."""
        self.process.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe:
                with suppress(OSError):  # what was left in the buffer of a dead process
                    pipe.close()
        said = self.process.stderr.read() if self.process.stderr else b""
        if self.process.stderr:
            self.process.stderr.close()
        self.process.wait()
        return said.decode("utf-8", "replace").strip()


def _request(node: Node) -> str:
    # The first parent only: that is our diff of a merge, and a long parent list would be cut in the echo.
    return f"{node.hash} {node.parents[0]}\n" if node.parents else f"{node.hash}\n"


def read_diffs(shadow: Shadow, nodes: Iterable[Node], *, workers: int, caps: Caps | None = None) -> Iterator[Diff]:
    """The diff of each node, in the order given; with hunks if ``caps`` is given.

    At most ``3 * workers`` chunks are in flight. Raises :class:`DamagedRepository` where git fails and no object
    is missing (a corrupt pack).
    """
    size = PATCH_CHUNK if caps else STATISTICS_CHUNK
    arguments = [*(_PATCHES if caps else _STATISTICS), _RENAMES]
    source = iter(nodes)
    waiting: deque[Future[list[Diff]]] = deque()
    with _workers(shadow, arguments, workers) as free, ThreadPoolExecutor(workers) as threads:

        def one(chunk: list[Node]) -> list[Diff]:
            worker = free.get()
            try:
                return _parse(worker.answer(chunk, apart=caps is not None), chunk, caps)
            except _Dead:
                worker.close()
                worker = _Worker(shadow, arguments)
                diffs: list[Diff] = []
                for node in chunk:
                    try:
                        diffs += _parse(worker.answer([node], apart=caps is not None), [node], caps)
                    except _Dead:
                        said = worker.close()
                        worker = _Worker(shadow, arguments)
                        diffs.append(_what_can_be_read(shadow, node, said, caps))
                return diffs
            finally:
                free.put(worker)

        while chunk := list(islice(source, size)):
            waiting.append(threads.submit(one, chunk))
            if len(waiting) >= 3 * workers:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()


@contextmanager
def _workers(shadow: Shadow, arguments: Sequence[str], count: int) -> Iterator["queue.SimpleQueue[_Worker]"]:
    free: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
    for _ in range(count):
        free.put(_Worker(shadow, arguments))
    try:
        yield free
    finally:
        # All threads have ended by now: every worker is back.
        while not free.empty():
            free.get().close()


def _what_can_be_read(shadow: Shadow, node: Node, said: str, caps: Caps | None) -> Diff:
    """A commit that git cannot diff whole: its paths from the trees alone, its figures from the blobs there are."""
    revisions = [*node.parents[:1], node.hash] if node.parents else [node.hash]
    bare = [argument for argument in _COMMON if argument != "--always"] + ["--no-commit-id", "--no-renames"]
    try:
        listed = _raw_entries(shadow.run(*bare, *revisions))
    except GitFailed as error:
        if "unable to read tree" in str(error) or "bad tree" in str(error) or "missing" in str(error):
            return Diff((), complete=False)  # the tree itself is missing
        raise DamagedRepository(f"commit {node.hash} cannot be read: {error}", "run `git fsck`") from error
    wanted = sorted({blob for entry in listed for blob in entry.blobs})
    present = shadow.run("cat-file", "--batch-check=%(objectname) %(objecttype)", stdin=b"\n".join(wanted) + b"\n")
    missing = {line.split()[0] for line in present.splitlines() if line.endswith(b" missing")}
    lost = [entry for entry in listed if entry.blobs & missing]
    if not lost:
        raise DamagedRepository(
            f"commit {node.hash} cannot be diffed: {last_word(said)}", "the pack is corrupt: run `git fsck`"
        )
    gone = set(lost)
    readable = [entry for entry in listed if entry not in gone]
    diff = _diff_of(shadow, node, revisions, ":(exclude,top,literal)", lost, caps)
    # An exclusion hides beside a lost file what lies in a folder of its name.
    told = {name for change in diff.changes for name in (change.path, change.old_path)}
    hidden = [entry for entry in readable if _text(entry.path) not in told]
    if hidden:
        more = _diff_of(shadow, node, revisions, ":(top,literal)", hidden, caps)
        diff = Diff((*diff.changes, *more.changes), (*diff.patches, *more.patches))
        told |= {change.path for change in more.changes}
    untold = [entry for entry in listed if _text(entry.path) not in told]
    changes = [*diff.changes, *(FileChange(entry.status, _text(entry.path)) for entry in untold)]
    return Diff(
        changes=tuple(sorted(changes, key=lambda change: change.path)),
        patches=diff.patches,
        unreadable=tuple(_text(entry.path) for entry in untold),
        text_flag=_replaced(listed),
        complete=False,
    )


def _diff_of(
    shadow: Shadow, node: Node, revisions: Sequence[str], magic: str, entries: Sequence["_Raw"], caps: Caps | None
) -> Diff:
    """The diff of one commit with those paths left out, or of them alone, as ``magic`` says. Empty if they are too
    many for a command line.
    """
    paths = [os.fsdecode(magic.encode() + entry.path) for entry in entries]
    if sum(map(len, paths)) > ARGUMENT_BYTES:
        return Diff(())
    try:
        answer = shadow.run(*(_PATCHES if caps else _STATISTICS), _RENAMES, *revisions, "--", *paths)
    except GitFailed as error:
        raise DamagedRepository(f"commit {node.hash} cannot be diffed: {error}", "run `git fsck`") from error
    # One diff-tree of two commits prints no header; the parser wants one.
    header = node.hash.encode() + b"\0"
    return _parse([answer if answer.startswith(header) else header + answer], [node], caps)[0]


@dataclass(frozen=True, slots=True)
class _Raw:
    status: Status
    path: bytes
    old_path: bytes | None
    blobs: frozenset[bytes]
    submodule: bool


def _raw_entry(parts: Sequence[bytes], at: int) -> tuple[_Raw, int]:
    """The entry of ``--raw -z`` that begins at ``parts[at]``, and where the next thing begins."""
    old_mode, new_mode, old_blob, new_blob, status = parts[at][1:].split(b" ")
    letter = status[:1].decode("ascii")
    submodule = _SUBMODULE in (old_mode, new_mode)
    blobs = frozenset(
        blob for mode, blob in ((old_mode, old_blob), (new_mode, new_blob)) if mode not in (b"000000", _SUBMODULE)
    )
    old_path = None
    if letter in "RC":
        old_path, at = parts[at + 1], at + 1
    return _Raw(letter, parts[at + 1], old_path, blobs, submodule), at + 2  # type: ignore[arg-type]  # git's letters


def _raw_entries(answer: bytes) -> list[_Raw]:
    parts = answer.split(b"\0")
    entries, at = [], 0
    while at < len(parts) and parts[at].startswith(b":"):
        entry, at = _raw_entry(parts, at)
        entries.append(entry)
    return entries


def _text(path: bytes) -> str:
    # replace, not surrogateescape: a lone surrogate can be written to no JSON file.
    return path.decode("utf-8", "replace")


def _parse(answers: Sequence[bytes], nodes: Sequence[Node], caps: Caps | None) -> list[Diff]:
    if caps is None:
        return _parse_statistics(answers[0], nodes)
    diffs = []
    for answer, node in zip(answers, nodes, strict=True):
        header = node.hash.encode() + b"\0"
        if not answer.startswith(header):
            raise DamagedRepository(f"git answered for another commit than {node.hash}", "run `git fsck`")
        diffs.append(_parse_patches(answer.removeprefix(header), caps))
    return diffs


def _parse_statistics(answer: bytes, nodes: Sequence[Node]) -> list[Diff]:
    """``--raw --numstat -z``: per commit its name, raw entries, then figures in the same order."""
    parts = answer.split(b"\0")
    at = 0
    diffs = []
    for node in nodes:
        if parts[at] != node.hash.encode():
            raise DamagedRepository(f"git answered for another commit than {node.hash}", "run `git fsck`")
        at += 1
        entries = []
        while parts[at].startswith(b":"):
            entry, at = _raw_entry(parts, at)
            entries.append(entry)
        changes = []
        for entry in entries:
            insertions, deletions, path = parts[at].split(b"\t", 2)
            at += 1 if path else 3  # a rename leaves the path empty and names old and new after it
            changes.append(_change(entry, insertions, deletions))
        diffs.append(Diff(tuple(changes), text_flag=_replaced(entries)))
    return diffs


def _change(entry: _Raw, insertions: bytes, deletions: bytes) -> FileChange:
    binary = insertions == b"-"
    return FileChange(
        status=entry.status,
        path=_text(entry.path),
        old_path=None if entry.old_path is None else _text(entry.old_path),
        insertions=0 if binary else int(insertions),
        deletions=0 if binary else int(deletions),
        binary=binary,
        submodule=entry.submodule,
    )


def _replaced(entries: Iterable[_Raw]) -> bool:
    for entry in entries:
        for path in (entry.path, entry.old_path or b""):
            try:
                path.decode("utf-8")
            except UnicodeDecodeError:
                return True
    return False


def _parse_patches(part: bytes, caps: Caps) -> Diff:
    """``--raw -p -z`` of one commit: raw entries, an empty field, the patch. Figures are counted in the hunks."""
    head, _, patch = part.partition(b"\0\0")  # no field of a raw entry is empty
    entries = _raw_entries(head + b"\0")
    sections = (b"\n" + patch).split(b"\ndiff --git ")[1:]
    changes, patches, room, place = [], [], caps.commit, 0
    for entry in entries:
        # git shows a change of type as a deletion and a creation.
        own = sections[place : place + (2 if entry.status == "T" else 1)]
        place += len(own)
        hunks = [section[start + 1 :] for section in own if (start := section.find(b"\n@@ -")) >= 0]
        insertions = sum(hunk.count(b"\n+") for hunk in hunks)
        deletions = sum(hunk.count(b"\n-") for hunk in hunks)
        binary = any(b"\nBinary files " in section.partition(b"\n@@ -")[0] for section in own)
        if len(entry.blobs) == 1 and entry.status == "T":
            insertions = deletions = 0  # the same content under another type
        changes.append(
            _change(entry, *((b"-", b"-") if binary else (str(insertions).encode(), str(deletions).encode())))
        )
        if hunks:
            whole = b"\n".join(hunk.removesuffix(b"\n") for hunk in hunks) + b"\n"
            kept = whole[: min(caps.file, room)]
            room -= len(kept)
            patches.append(FilePatch(_text(entry.path), _text(kept), len(whole) - len(kept)))
    return Diff(tuple(changes), tuple(patches), text_flag=_replaced(entries))
