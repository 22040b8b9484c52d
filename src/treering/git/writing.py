"""The only module that writes to a user's repository: the objects of one commit, and one branch that names it.

A patch is made a tree in a shadow, by the index alone: no file of a work tree is read or written, and no attribute of
the repository changes a byte. Only what is to stay leaves the shadow, and a branch moves only from where it was read.
"""

import os
import re
import subprocess
from contextlib import suppress
from pathlib import Path

from treering.errors import DiskFull, RepositoryError, UsageError
from treering.git.entries import Entry, raw_entries
from treering.git.shadow import REF_SECONDS, GitFailed, Shadow, Source, run_git

PATCH_SECONDS = 60.0
PATCH_MEMORY = 1 << 30
"""Bytes that git may use for a patch: a binary one can unpack to a thousand times its size."""
BRANCHES = "refs/heads/"
_PLAIN = (
    "* -text -crlf -eol -ident -filter -working-tree-encoding -export-ignore -export-subst -diff -merge -whitespace\n"
)
"""Beats every attribute that a tree gives its files: what is applied and unpacked are the bytes that are committed."""
_STRICT = ["-c", "core.protectHFS=true", "-c", "core.protectNTFS=true", "-c", "core.autocrlf=false"]
_LOCK = ["-c", "core.filesRefLockTimeout=5000"]
"""Milliseconds that another git may hold a branch's lock."""


class NotApplied(Exception):  # noqa: N818
    """A patch that is one, and that does not fit where it is to go; the text says why."""


def tip(source: Source, ref: str) -> str | None:
    """The commit that a ref names; None where there is no such ref."""
    try:
        return source.ask("rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}").decode().strip()
    except GitFailed:
        return None


def branch(name: str) -> str:
    """The whole name of a branch's ref. Raises :class:`UsageError` for what is none."""
    ref = BRANCHES + name.removeprefix(BRANCHES)
    try:
        if name.startswith("-") or ref == f"{BRANCHES}HEAD" or "\0" in name:
            raise UsageError(f"{name!r} cannot be a branch", "give --ref the name of a branch")
        run_git(["check-ref-format", ref])
    except (GitFailed, UnicodeEncodeError) as error:
        raise UsageError(f"{name!r} cannot be a branch", "git check-ref-format --help tells what can") from error
    return ref


def tree_of(shadow: Shadow, base: str, patch: bytes) -> str:
    """The tree of a commit with a patch applied, made in a shadow.

    Raises :class:`UsageError` for what is no patch, :class:`NotApplied`, and :class:`RepositoryError` where objects of
    the commit are missing.
    """
    info = shadow.git_dir / "info"
    info.mkdir(exist_ok=True)
    (info / "attributes").write_text(_PLAIN, "ascii")

    def apply(*how: str) -> None:
        shadow.run(*_STRICT, "apply", *how, "-", stdin=patch, memory=PATCH_MEMORY, seconds=PATCH_SECONDS)

    try:
        apply("--numstat", "-z")
    except GitFailed as error:
        raise UsageError(f"this is no patch: {error}", "give what `git diff` or `git format-patch` writes") from error
    try:
        shadow.run(*_STRICT, "read-tree", base)
    except GitFailed as error:
        raise RepositoryError(f"the files of {base[:12]} cannot be read: {error}", "run `git fsck`") from error
    try:
        apply("--cached", "--whitespace=nowarn")
    except GitFailed as error:
        _check_space(error, shadow.git_dir)
        raise NotApplied(str(error)) from error
    try:
        return shadow.run(*_STRICT, "write-tree").decode("ascii").strip()
    except GitFailed as error:
        _check_space(error, shadow.git_dir)
        raise _missing(base, str(error)) from error


def _check_space(error: GitFailed, place: Path) -> None:
    """Raises :class:`DiskFull` where that is what git says."""
    if any(words in error.said for words in ("No space left", "Disk quota exceeded")):
        raise DiskFull(f"the disk is full: {place} was not written", "free some space, or set TMPDIR") from error


def _missing(base: str, said: str) -> RepositoryError:
    return RepositoryError(
        f"files of {base[:12]} are not there: {said}",
        "fetch them (in a partial clone: git fetch --refetch --no-filter)",
    )


def changed(shadow: Shadow, base: str, tree: str) -> list[Entry]:
    """What differs between a commit and a tree, path by path: a rename is a deletion and an addition."""
    return raw_entries(shadow.run("diff-tree", "-r", "-z", "--raw", "--no-renames", "--no-abbrev", base, tree))


def blob(shadow: Shadow, name: str) -> bytes:
    return shadow.run("cat-file", "blob", name)


def holds(shadow: Shadow, tree: str, path: str) -> bool:
    """Whether a tree has something at a path."""
    try:
        shadow.run("cat-file", "-e", f"{tree}:{path}")
    except GitFailed:
        return False
    return True


def archive(shadow: Shadow, tree: str) -> subprocess.Popen[bytes]:
    """Start writing a tree as a tar file, byte for byte, to a pipe. The caller ends it, and asks :func:`archived`."""
    process = shadow.start("-c", "tar.umask=0022", "archive", "--format=tar", tree)
    if process.stdin:
        process.stdin.close()
        process.stdin = None
    return process


def archived(process: subprocess.Popen[bytes], base: str) -> None:
    """Raises :class:`RepositoryError` if the tree was not written whole."""
    complaint = process.stderr.read().decode("utf-8", "replace") if process.stderr else ""
    if process.wait() > 0:
        raise _missing(base, str(GitFailed(process.returncode, complaint)))


def commit(shadow: Shadow, tree: str, base: str, message: str, identity: tuple[str, str]) -> str:
    """A commit of a tree upon another commit, in the shadow. ``identity`` is a name and an address."""
    name, address = identity
    who = ["-c", f"user.name={name}", "-c", f"user.email={address}", "-c", "user.useConfigOnly=true"]
    said = f"{message.strip()}\n".encode("utf-8", "replace")
    return shadow.run(*who, "commit-tree", "--no-gpg-sign", "-p", base, "-F", "-", tree, stdin=said).decode().strip()


def deposit(shadow: Shadow, source: Source, made: str, base: str) -> None:
    """Put a commit of the shadow, with all that is new in it, into the repository: nothing names it yet."""
    wanted = f"{made}\n^{base}\n".encode()
    pack = shadow.run("pack-objects", "--revs", "--stdout", "--quiet", stdin=wanted)
    try:
        run_git([f"--git-dir={source.git_dir}", "unpack-objects", "-q"], stdin=pack, seconds=REF_SECONDS)
    except GitFailed as error:
        _check_space(error, source.objects)
        raise RepositoryError(
            f"nothing can be written to {source.objects}: {error}", "run as the user who owns it"
        ) from error


def check_movable(source: Source, ref: str, base: str, before: str | None) -> None:
    """Raises :class:`RepositoryError` where the branch could not move now: nothing may be written, its name lies in
    another's, another git holds it, or it stands for another ref.
    """
    with suppress(GitFailed):
        stands_for = source.ask("symbolic-ref", "--quiet", ref).decode("utf-8", "replace").strip()
        raise RepositoryError(f"{ref} only stands for {stands_for}", "give --ref that one")
    try:  # prepared, with all its locks, and given up
        _update(source, f"start\0update {ref}\0{base}\0{_old(before, base)}\0prepare\0abort\0")
    except GitFailed as error:
        raise RepositoryError(
            f"{ref} cannot be written: {error}", "choose another --ref, or look who holds it"
        ) from error


def move(source: Source, ref: str, made: str, before: str | None, identity: tuple[str, str]) -> bool:
    """Make a branch name a commit, if it still names the one it named ``before`` (None: if it is not there yet).

    Raises :class:`RepositoryError` where it cannot be written.
    """
    try:
        _update(source, f"start\0update {ref}\0{made}\0{_old(before, made)}\0prepare\0commit\0", identity)
    except GitFailed as error:
        now = tip(source, ref)
        if now == made:  # the same commit, made in the same second by another gate
            return True
        if now != before:
            return False
        raise _not_written(ref, error) from error
    return True


def _not_written(ref: str, error: GitFailed) -> RepositoryError:
    return RepositoryError(f"{ref} cannot be written: {error}", "give --ref another one, or look who holds it")


def _old(before: str | None, like: str) -> str:
    return before or "0" * len(like)


def _update(source: Source, told: str, identity: tuple[str, str] = ("treering", "treering@localhost")) -> None:
    """Hooks do not run: ``run_git`` names a folder of hooks that is none."""
    who = ["-c", f"user.name={identity[0]}", "-c", f"user.email={identity[1]}"]
    command = ["update-ref", "--no-deref", "-m", "treering gate: tested", "--stdin", "-z"]
    git_dir = f"--git-dir={source.git_dir}"
    run_git([*who, *_LOCK, git_dir, *command], stdin=os.fsencode(told), seconds=REF_SECONDS)


def checked_out(source: Source, ref: str) -> Path | None:
    """The work tree that has a branch checked out, if any."""
    try:
        told = os.fsdecode(source.ask("worktree", "list", "--porcelain", "-z"))
    except GitFailed:
        return None
    for one in told.split("\0\0"):
        if re.search(rf"(?:^|\0)branch {re.escape(ref)}(?:\0|$)", one) and "\0bare" not in one:
            place = Path(one.split("\0", 1)[0].removeprefix("worktree "))
            return place if place.is_dir() else None
    return None
