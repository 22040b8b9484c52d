"""Diffs of many commits against their first parents, by persistent ``git diff-tree --stdin`` workers.

A merge mostly repeats what its commits changed already. So of merges the trees are compared first, which costs git
next to nothing, and lines are counted only where a pair of contents was not met before.

A commit whose objects are missing kills a diff-tree and all that would come after it, so a chunk that fails is done
again commit by commit, and the commit that fails alone is told with what can be read of it.
"""

import os
import queue
import secrets
import select
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import islice

from msgspec.structs import replace

from treering.errors import DamagedRepository
from treering.git.entries import (
    Diff,
    Entry,
    Figures,
    change_of,
    parse_entries,
    parse_statistics,
    raw_entries,
    shown,
    strange,
)
from treering.git.history import Node
from treering.git.patches import Caps, PatchParser
from treering.git.shadow import GitFailed, Shadow, last_word

STATISTICS_CHUNK = 768
"""How many commits one process is asked for at once; fewer where there are few, so that all have work."""
PATCH_CHUNK = 12  # patches are large, and are read in chunks
ARGUMENT_BYTES = 100_000  # of paths on one command line; systems differ in what they take
PIPE = 1 << 16  # what a pipe holds; room for more would be made and thrown away at every read
PIECE = 1 << 20
"""How much of a patch is taken at once."""

REMEMBERED = 100_000
"""How many pairs of contents keep their figures, for the merges that repeat them."""

_COMMON = [
    # Twice git's own: what one commit unpacks is what the next one needs.
    "-c", "core.deltaBaseCacheLimit=192m",
    "diff-tree", "-r", "--root", "-z", "--raw", "--always", "--no-abbrev", "--no-ext-diff", "--no-textconv",
    "--ignore-submodules=none", "--diff-algorithm=myers", "--no-color",
]  # fmt: skip
_STATISTICS = [*_COMMON, "--numstat"]
_PATCHES = [*_COMMON, "-p", "--full-index"]
_RENAMES = "-M"


class _Dead(Exception):  # noqa: N818  (it is what the worker is)
    """The worker ended before it answered, or was too slow."""

    def __init__(self, worker: "_Worker") -> None:
        super().__init__()
        self.worker = worker


class _Worker:
    """One diff-tree that answers again and again, each answer closed by a sentinel git echoes. Silent for longer than
    ``seconds``, it counts as dead.
    """

    def __init__(self, shadow: Shadow, arguments: Sequence[str], seconds: float) -> None:
        self.process = shadow.start(*arguments, "--stdin")
        self.seconds = seconds
        self.slow = False
        self.dead = False
        # git prints a line that is no object name back, and flushes. Random, so no file can forge it.
        self.sentinel = f"end of answer {secrets.token_hex(16)}\n".encode()
        self._left = bytearray()

    def statistics(self, nodes: Sequence[Node], counted: dict[str, Figures] | None = None) -> list[Diff]:
        """The diffs of some nodes. Raises :class:`_Dead`."""
        # Newest first: packs hold the newest content whole and the older as deltas of it, so git unpacks less.
        backwards = nodes[::-1]
        return parse_statistics(self._answer(backwards), backwards, counted)[::-1]

    def entries(self, nodes: Sequence[Node]) -> list[list[Entry]]:
        """The raw entries of some nodes. Raises :class:`_Dead`."""
        return parse_entries(self._answer(nodes), nodes)

    def _answer(self, nodes: Sequence[Node]) -> bytes:
        self._ask(b"".join(_request(node) for node in nodes) + self.sentinel)
        answer = bytearray()
        self._take(answer.extend)
        return bytes(answer)

    def patches(self, nodes: Sequence[Node], caps: Caps) -> list[Diff]:
        """The diffs of some nodes with their hunks. Raises :class:`_Dead`."""
        self._ask(b"".join(_request(node) + self.sentinel for node in nodes))
        diffs = []
        for node in nodes:
            parser = PatchParser(node, caps)
            self._take(parser.feed)
            diffs.append(parser.diff())
        return diffs

    def _ask(self, request: bytes) -> None:
        assert self.process.stdin is not None  # noqa: S101  (for mypy: it is a pipe)
        try:
            self.process.stdin.write(request)
            self.process.stdin.flush()
        except OSError as error:
            self.dead = True
            raise _Dead(self) from error

    def _take(self, take: Callable[[bytes], None]) -> None:
        """Give away one answer, in pieces that end with a line where there is one."""
        assert self.process.stdout is not None  # noqa: S101
        out, left, searched = self.process.stdout.fileno(), self._left, 0
        while (end := left.find(self.sentinel, searched)) < 0:
            if len(left) >= PIECE:
                line = left.rfind(b"\n") + 1 or len(left) - len(self.sentinel)
                take(bytes(left[:line]))
                del left[:line]
            searched = max(0, len(left) - len(self.sentinel))
            if not select.select([out], [], [], self.seconds)[0]:
                self.slow = self.dead = True
                raise _Dead(self)
            piece = os.read(out, PIPE)
            if not piece:
                self.dead = True
                raise _Dead(self)
            left += piece
        take(bytes(left[:end]))
        del left[: end + len(self.sentinel)]

    def close(self) -> str:
        """End the process and return what it said on stderr; empty the second time."""
        self.dead = True
        if self.process.stderr is None or self.process.stderr.closed:
            return ""
        self.process.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe:
                with suppress(OSError):  # what was left in the buffer of a dead process
                    pipe.close()
        said = self.process.stderr.read()
        self.process.stderr.close()
        self.process.wait()
        return said.decode("utf-8", "replace").strip()


def _request(node: Node) -> bytes:
    # The first parent only: that is our diff of a merge, and a long parent list would be cut in the echo.
    return (f"{node.hash} {node.parents[0]}\n" if node.parents else f"{node.hash}\n").encode()


def read_diffs(
    shadow: Shadow, nodes: Sequence[Node], *, workers: int, seconds: float, caps: Caps | None = None
) -> Iterator[Diff]:
    """The diff of each node, in the order given; with hunks if ``caps`` is given.

    At most ``3 * workers`` chunks are in flight. A commit that git is silent about for ``seconds`` is told by its
    trees alone. Raises :class:`DamagedRepository` where git fails and no object is missing (a corrupt pack).
    """
    size = PATCH_CHUNK if caps else max(16, min(STATISTICS_CHUNK, len(nodes) // (8 * workers)))
    source = iter(nodes)
    waiting: deque[Future[list[Diff]]] = deque()
    counted: dict[str, Figures] = {}

    with _crews(lambda: _Crew(shadow, seconds, caps, counted), workers) as free, ThreadPoolExecutor(workers) as threads:

        def one(chunk: list[Node]) -> list[Diff]:
            crew = free.get()
            try:
                return crew.diffs(chunk)
            except _Dead:
                return [crew.diff(node) for node in chunk]
            finally:
                free.put(crew)

        while chunk := list(islice(source, size)):
            waiting.append(threads.submit(one, chunk))
            if len(waiting) >= 3 * workers:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()


class _Crew:
    """The git processes of one thread: started when they are first needed, replaced when they die."""

    def __init__(self, shadow: Shadow, seconds: float, caps: Caps | None, counted: dict[str, Figures]) -> None:
        self._shadow = shadow
        self._seconds = seconds
        self._caps = caps
        self._counted = counted
        self._workers: dict[tuple[str, ...], _Worker] = {}

    def diffs(self, chunk: Sequence[Node]) -> list[Diff]:
        """The diffs of a chunk, or :class:`_Dead`."""
        if self._caps:
            return self._told(chunk, self._worker(_PATCHES).patches(chunk, self._caps))
        plain = [node for node in chunk if len(node.parents) < 2]
        merges = [node for node in chunk if len(node.parents) > 1]
        found = dict(zip(plain, self._worker(_STATISTICS).statistics(plain, self._counted), strict=True))
        if merges:
            for node, entries in zip(merges, self._worker(_COMMON).entries(merges), strict=True):
                figures = [self._counted.get(entry.pair) for entry in entries]
                if None not in figures:
                    known = (change_of(entry, *one) for entry, one in zip(entries, figures, strict=True) if one)
                    found[node] = Diff(tuple(known), text_flag=strange(entries))
        rest = [node for node in merges if node not in found]
        if rest:
            found.update(zip(rest, self._worker(_STATISTICS).statistics(rest), strict=True))
        for pair in list(self._counted)[: max(0, len(self._counted) - REMEMBERED)]:
            self._counted.pop(pair, None)  # the oldest; another thread may have been faster
        return [found[node] for node in chunk]

    def diff(self, node: Node) -> Diff:
        """The diff of a single commit, or as much of it as can be read."""
        kind = _PATCHES if self._caps else _STATISTICS
        worker = self._worker(kind)
        try:
            if self._caps:
                return self._told([node], worker.patches([node], self._caps))[0]
            return worker.statistics([node])[0]
        except _Dead as dead:
            said = dead.worker.close()
            return _what_can_be_read(self._shadow, node, said, self._caps, slow=dead.worker.slow)

    def _told(self, nodes: Sequence[Node], diffs: list[Diff]) -> list[Diff]:
        """The diffs with what their hunks do not show."""
        unsure = [node for node, diff in zip(nodes, diffs, strict=True) if diff.untold]
        told = dict(zip(unsure, self._worker(_STATISTICS).statistics(unsure), strict=True)) if unsure else {}
        return [
            replace(diff, changes=told[node].changes, untold=False) if node in told else diff
            for node, diff in zip(nodes, diffs, strict=True)
        ]

    def _worker(self, arguments: Sequence[str]) -> _Worker:
        kind = (*arguments, _RENAMES)
        if kind not in self._workers or self._workers[kind].dead:
            if kind in self._workers:
                self._workers[kind].close()
            self._workers[kind] = _Worker(self._shadow, kind, self._seconds)
        return self._workers[kind]

    def close(self) -> None:
        for worker in self._workers.values():
            worker.close()


@contextmanager
def _crews(hire: Callable[[], _Crew], count: int) -> Iterator["queue.SimpleQueue[_Crew]"]:
    free: queue.SimpleQueue[_Crew] = queue.SimpleQueue()
    for _ in range(count):
        free.put(hire())
    try:
        yield free
    finally:
        # All threads have ended by now: every crew is back.
        while not free.empty():
            free.get().close()


def _what_can_be_read(shadow: Shadow, node: Node, said: str, caps: Caps | None, *, slow: bool) -> Diff:
    """A commit that git cannot diff whole: its paths from the trees alone, its figures from the blobs there are."""
    revisions = [*node.parents[:1], node.hash] if node.parents else [node.hash]
    bare = [argument for argument in _COMMON if argument != "--always"] + ["--no-commit-id", "--no-renames"]
    try:
        listed = raw_entries(shadow.run(*bare, *revisions))
    except GitFailed as error:
        if "unable to read tree" in str(error) or "bad tree" in str(error) or "missing" in str(error):
            return Diff((), complete=False)  # the tree itself is missing
        raise DamagedRepository(f"commit {node.hash} cannot be read: {error}", "run `git fsck`") from error
    if slow:
        return Diff(tuple(map(change_of, listed)), text_flag=strange(listed), complete=False, slow=True)
    wanted = sorted({blob for entry in listed for blob in entry.blobs})
    try:
        present = shadow.run(
            "cat-file", "--batch-check=%(objectname) %(objecttype)", stdin="".join(f"{w}\n" for w in wanted).encode()
        )
    except GitFailed as error:
        raise DamagedRepository(f"commit {node.hash} cannot be read: {error}", "run `git fsck`") from error
    missing = {line.split()[0] for line in present.decode().splitlines() if line.endswith(" missing")}
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
    hidden = [entry for entry in readable if shown(entry.path) not in told]
    if hidden:
        more = _diff_of(shadow, node, revisions, ":(top,literal)", hidden, caps)
        diff = Diff((*diff.changes, *more.changes), (*diff.patches, *more.patches))
        told |= {change.path for change in more.changes}
    untold = [entry for entry in listed if shown(entry.path) not in told]
    return Diff(
        changes=tuple(sorted((*diff.changes, *map(change_of, untold)), key=lambda change: change.path)),
        patches=diff.patches,
        unreadable=tuple(shown(entry.path) for entry in untold),
        text_flag=strange(listed),
        complete=False,
    )


def _diff_of(
    shadow: Shadow, node: Node, revisions: Sequence[str], magic: str, entries: Sequence[Entry], caps: Caps | None
) -> Diff:
    """The diff of one commit with those paths left out, or of them alone, as ``magic`` says. Empty if they are too
    many for a command line.
    """
    paths = [os.fsdecode((magic + entry.path).encode("utf-8", "surrogateescape")) for entry in entries]
    if sum(map(len, paths)) > ARGUMENT_BYTES:
        return Diff(())
    try:
        answer = shadow.run(*(_PATCHES if caps else _STATISTICS), _RENAMES, *revisions, "--", *paths)
    except GitFailed as error:
        raise DamagedRepository(f"commit {node.hash} cannot be diffed: {error}", "run `git fsck`") from error
    # One diff-tree of two commits prints no header; the parsers want one.
    header = node.hash.encode() + b"\0"
    answer = answer if answer.startswith(header) else header + answer
    if caps is None:
        return parse_statistics(answer, [node])[0]
    parser = PatchParser(node, caps)
    parser.feed(answer)
    return parser.diff()
