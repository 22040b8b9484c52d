"""Refs, the walk over all commits, and what each commit object states. No diffs."""

import io
import os
import re
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from fnmatch import fnmatchcase

from msgspec import Struct
from msgspec.structs import replace

from treering.config import ScrapeSettings
from treering.errors import DamagedRepository, RepositoryError, UsageError
from treering.git.shadow import GitFailed, Shadow, Source, Watchdog
from treering.types import Commit, Flag

DEFAULT = ScrapeSettings()
LATEST = 253_402_300_799
"""The last second of the year 9999; later dates are no dates."""
_PROPOSED = re.compile(r"refs/(?:heads|remotes/[^/]+)/treering/")
"""Where the gate's branches are, here and where somebody pushed one to."""


class Ref(Struct, frozen=True):
    """A name and the commit it points to. ``rank`` is its priority in attribution, lowest first."""

    name: str
    tip: str
    rank: int


class Node(Struct, frozen=True):
    """A commit of the walk with its parents as the walk sees them (none at a shallow boundary)."""

    hash: str
    parents: tuple[str, ...]


def read_refs(source: Source, chosen: ScrapeSettings = DEFAULT) -> list[Ref]:
    """Local and remote branches, HEAD where it is detached, and the HEADs of linked worktrees, by priority:
    HEAD's branch, main or master, other local branches, remote ones, detached HEADs; then, where all refs are chosen,
    tags, pull requests and whatever else there is. Where branches are chosen by name, those alone. Where nothing is
    chosen, what the gate proposes (`treering/`) is none of it, unless it is HEAD's branch.

    Raises :class:`RepositoryError` if there is no commit to start from.
    """
    try:
        head_branch = _symbolic_head(source)
        listed = source.ask(
            "for-each-ref",
            "--format=%(objectname)%00%(*objectname)%00%(refname)%00%(symref)%00%(objecttype)%00%(*objecttype)",
            *(["refs"] if chosen.refs == "all" else ["refs/heads", "refs/remotes"]),
        )
        worktrees = source.ask("worktree", "list", "--porcelain", "-z")
    except GitFailed as error:
        if "object" in str(error) or "broken ref" in str(error):
            raise DamagedRepository(f"the history cannot be walked from its refs: {error}", "run `git fsck`") from error
        raise RepositoryError(f"the refs of {source.git_dir} cannot be read", f"git says: {error}") from error
    refs: list[Ref] = []
    others: list[Ref] = []
    for line in listed.splitlines():
        own, peeled, full, symbolic, kind, peeled_kind = line.decode("utf-8", "replace").split("\0")
        if peeled_kind == "tag":  # a tag of a tag: older gits look no deeper
            peeled = _commit(source, own)
            peeled_kind = "commit" if peeled else "tag"
        tip = peeled or own  # a ref may point at an annotated tag
        local, remote = full.startswith("refs/heads/"), full.startswith("refs/remotes/")
        if not (local or remote) and (peeled_kind or kind) != "commit":
            continue  # a tag of a tree, a blob or another tag
        if _PROPOSED.match(full) and full != head_branch and chosen.refs != "all" and not chosen.branches:
            continue
        name = full.removeprefix("refs/heads/") if local else full.removeprefix("refs/").removeprefix("remotes/")
        if local:
            rank = 0 if full == head_branch else 1 if name in ("main", "master") else 2
        elif remote:
            rank = 3 if name.rpartition("/")[2] in ("main", "master") else 4
        else:
            rank = 6
        (others if symbolic else refs).append(Ref(name, tip, rank))
    tips = {ref.tip for ref in refs}
    # A symbolic ref, like a remote's HEAD, is mostly another name of what is there already.
    refs += [ref for ref in others if ref.tip not in tips]
    tips |= {ref.tip for ref in others}
    heads = [field[5:].decode("ascii") for field in worktrees.split(b"\0") if field.startswith(b"HEAD ")]
    for tip in (_commit(source, "HEAD"), *heads):  # of a bare repository `worktree list` names no HEAD
        if tip not in tips and tip.strip("0"):
            tips.add(tip)
            refs.append(Ref("HEAD", tip, 5))
    if not refs:
        raise RepositoryError(f"{source.worktree or source.git_dir} has no commits yet", "commit something first")
    if chosen.branches:
        for pattern in chosen.branches:
            if not any(fnmatchcase(ref.name, pattern) for ref in refs):
                raise UsageError(f"there is no branch {pattern}", "see `git branch --all`; names of remotes come first")
        refs = [ref for ref in refs if any(fnmatchcase(ref.name, pattern) for pattern in chosen.branches)]
    return sorted(refs, key=lambda ref: (ref.rank, ref.name))


def _commit(source: Source, name: str) -> str:
    """The commit that a name leads to, through any number of tags; empty if there is none."""
    try:
        return source.ask("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}").decode("ascii").strip()
    except GitFailed:
        return ""


def _symbolic_head(source: Source) -> str:
    try:
        return source.ask("symbolic-ref", "--quiet", "HEAD").decode("utf-8", "replace").strip()
    except GitFailed:
        return ""  # detached


def walk(shadow: Shadow, refs: Sequence[Ref]) -> list[Node]:
    """Every commit the refs reach, oldest first: by committer date, but never a child before its parents.

    Holds one small value per commit, because attribution and order need the whole graph.
    """
    tips = "".join(f"{tip}\n" for tip in sorted({ref.tip for ref in refs})).encode()
    question = ["rev-list", "--date-order", "--reverse", "--parents", "--stdin"]
    try:
        try:
            listed = shadow.run("-c", f"core.commitGraph={str(shadow.has_graph).lower()}", *question, stdin=tips)
        except GitFailed as error:
            if error.code < 0 or not shadow.has_graph:
                raise
            listed = shadow.run(*question, stdin=tips)  # the objects are the truth
    except GitFailed as error:
        raise DamagedRepository(
            f"the history cannot be walked to its roots: {error}",
            "run `git fsck`; fetch the missing objects again",
        ) from error
    nodes = []
    known: dict[str, str] = {}  # one string for one commit, however often it is named
    for line in io.BytesIO(listed):
        commit, *parents = line.decode("ascii").split()
        known[commit] = commit
        nodes.append(Node(commit, tuple([known.get(parent, parent) for parent in parents])))
    if shadow.has_graph:  # git took its word for it that the commits are there
        asked = "".join(f"{name}\n" for name in known).encode()
        if b" missing\n" in shadow.run("cat-file", "--batch-check=%(objecttype)", stdin=asked):
            raise DamagedRepository(
                "commits of the history are missing", "run `git fsck`; fetch the missing objects again"
            )
    return nodes


def select(shadow: Shadow, refs: Sequence[Ref], chosen: ScrapeSettings) -> set[str] | None:
    """The commits that dates, paths and merges choose of those the refs reach; None for all. git decides.

    Raises :class:`UsageError` for a date that is none.
    """
    arguments = []
    # git has no dates before 1970: it would guess what such a number means.
    if chosen.since and (first := timestamp(chosen.since, end=False)) > 0:
        arguments.append(f"--since-as-filter=@{first} +0000")
    if chosen.until:
        if (last := timestamp(chosen.until, end=True)) < 0:
            return set()
        arguments.append(f"--until=@{last} +0000")
    if not chosen.merges:
        arguments.append("--no-merges")
    if chosen.paths:
        arguments.append("--full-history")
    if not arguments:
        return None
    tips = "".join(f"{tip}\n" for tip in sorted({ref.tip for ref in refs}))
    paths = b"".join(os.fsencode(path) + b"\n" for path in ("--", *chosen.paths)) if chosen.paths else b""
    try:
        listed = shadow.run("rev-list", "--date-order", *arguments, "--stdin", stdin=tips.encode() + paths)
    except GitFailed as error:
        raise UsageError(f"git does not take that choice of commits: {error}", "see `git help rev-list`") from error
    return set(listed.decode("ascii").split())


_AGO = re.compile(r"(\d{1,5}) (day|week|month|year)s? ago")
_DAYS = {"day": 1, "week": 7, "month": 30, "year": 365}


def timestamp(text: str, *, end: bool) -> int:
    """A date as people write it, in seconds since 1970; a day alone means its first second, or its last at the
    ``end``. Without a zone it is local time.
    """
    if ago := _AGO.fullmatch(text.strip()):
        return int(time.time()) - int(ago[1]) * _DAYS[ago[2]] * 86400
    try:
        when = datetime.fromisoformat(text.strip())
        if end and len(text.strip()) <= len("2024-01-31"):  # the last second of that day
            return int((when + timedelta(days=1)).timestamp()) - 1
        return int(when.timestamp())
    except (ValueError, OverflowError, OSError) as error:
        raise UsageError(f"{text!r} is no date", "write 2024-01-31, 2024-01-31T12:00, or `3 months ago`") from error


def read_commits(shadow: Shadow, nodes: Iterable[Node]) -> Iterator[Commit]:
    """What each commit object states, in the order given, without its diff.

    Raises :class:`DamagedRepository` for an object that is missing or cannot be read.
    """
    nodes = list(nodes)
    process = shadow.start("cat-file", "--batch", "--buffer")
    assert process.stdin is not None  # noqa: S101  (for mypy: they are pipes)
    assert process.stdout is not None  # noqa: S101
    stdin, stdout = process.stdin, process.stdout

    def feed() -> None:
        with suppress(OSError), stdin:  # git died: the reader below sees it and says so
            for node in nodes:
                stdin.write(node.hash.encode() + b"\n")

    feeder = threading.Thread(target=feed, daemon=True)
    feeder.start()
    watchdog = Watchdog(process)
    try:
        for node in nodes:
            with watchdog:
                header = stdout.readline().split()
                content = stdout.read(int(header[2]) + 1)[:-1] if len(header) == 3 else b""
            if watchdog.bit:
                raise RepositoryError(
                    f"git did not answer about commit {node.hash}", "look for a file system that hangs"
                )
            if len(header) != 3 or header[1] != b"commit":
                raise DamagedRepository(
                    f"commit {node.hash} cannot be read", "run `git fsck`; fetch the missing objects again"
                )
            commit = parse_commit(node.hash, content)
            if commit.parents and not node.parents:
                commit = replace(commit, flags=(*commit.flags, "shallow"))
            yield commit
    finally:
        watchdog.stop()
        process.kill()
        feeder.join()
        stdout.close()
        if process.stderr:
            process.stderr.close()
        process.wait()


_CHARSET = re.compile(
    r"(utf-?(8|16|32)|us-ascii|ascii|(iso-?)?8859-?\d+|iso-?8859-?\d+|latin-?\d+|(windows|cp|ibm)-?\d+|koi8-[rut]|euc-?\w+"
    r"|s(hift)?[-_]?jis|gb\d*k?|gb18030|big5(-?hkscs)?|mac-?\w+|iso-?2022-?\w+)",
    re.IGNORECASE,
)


def _known(codec: str, raw: bytes) -> str:
    """Decode by a charset people write in. Python's other codecs (escapes, utf-7) would read text as code."""
    if not _CHARSET.fullmatch(codec):
        raise LookupError(codec)
    return raw.decode(codec)


_PERSON = re.compile(rb"(.*?) ?<([^>]*)> ?(-?\d+)? ?([+-]\d{1,4})?")


class _Text:
    """Decodes what one commit object holds, and remembers what was strange about it."""

    def __init__(self, codec: str) -> None:
        self.codec = codec
        self.flags: list[Flag] = []

    def __call__(self, raw: bytes) -> str:
        if not self.codec and raw.isascii():
            return raw.decode()
        for candidate in (self.codec, "utf-8"):
            if candidate:
                try:
                    decoded = _known(candidate, raw)
                    decoded.encode()  # some codecs make lone surrogates, which no file can hold
                    return decoded
                except (UnicodeError, LookupError):
                    self.flags.append("encoding")
        return raw.decode("latin-1")

    def person(self, line: bytes, flag: Flag) -> tuple[str, str, int, int]:
        """Name, address, seconds since 1970 and minutes east of UTC."""
        match = _PERSON.match(line)
        if match is None:
            self.flags.append("malformed")
            return "", "", 0, 0
        name, email, when, zone = match.groups()
        seconds = int(when) if when and len(when) < 20 else -1
        if not 0 <= seconds <= LATEST:
            self.flags.append(flag)
            seconds = 0
        east = int(zone or 0)
        offset = (abs(east) // 100 * 60 + abs(east) % 100) * (1 if east >= 0 else -1)
        return self(name).strip(), self(email), seconds, offset


def parse_commit(name: str, content: bytes) -> Commit:
    """A commit object's bytes as a :class:`Commit`. Never fails: what is absurd is 0 or empty, and flagged."""
    head, _, message = content.partition(b"\n\n")
    parents = []
    headers: dict[bytes, bytes] = {}
    for line in head.split(b"\n"):
        key, _, value = line.partition(b" ")
        if key == b"parent":
            parents.append(value.decode("ascii", "replace"))
        elif key:  # a continuation line begins with a space
            headers.setdefault(key, value)
    text = _Text(headers.get(b"encoding", b"").decode("ascii", "replace"))
    author = text.person(headers.get(b"author", b""), "author-date")
    committer = text.person(headers.get(b"committer", b""), "committer-date")
    subject, body = split_message(text(message))
    flags = tuple(dict.fromkeys(text.flags))
    return Commit(name, tuple(parents), *author, *committer, subject, body, flags=flags)


def split_message(message: str) -> tuple[str, str]:
    """Subject (up to the first line of white space only, on one line) and body, as git's own ``%s`` and ``%b``."""
    lines = message.strip("\n").split("\n")
    if len(lines) == 1:
        return message.strip(), ""
    first = next((number for number, line in enumerate(lines) if line.strip()), len(lines))
    end = next((number for number in range(first, len(lines)) if not lines[number].strip()), len(lines))
    subject = " ".join(line.strip() for line in lines[first:end])
    body = next((number for number in range(end, len(lines)) if lines[number].strip()), len(lines))
    return subject, "\n".join(lines[body:]).rstrip()
