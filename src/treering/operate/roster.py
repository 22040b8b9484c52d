"""Which repositories a fleet has: each entry of a list to one with a name, or to what is wrong with it."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from msgspec.structs import replace

from treering.errors import TreeringError, UsageError
from treering.files import address, as_text, reading
from treering.git import mirror as mirroring
from treering.store.fleet import Fleet, Repository

LONGEST_NAME = 100
"""Bytes of a name, before the number that tells it from another."""
_SSH = re.compile(r"(?:[\w.-]+@)?[\w.-]+:(?!/)")
_SSH_FROM_THE_ROOT = re.compile(r"(?:[\w.-]+@)?[\w.-]+:/(?!/)")
_NOT_IN_A_NAME = re.compile(r"[^\w.-]+")


def listed(file: Path) -> list[str]:
    """The entries of a list: a path or an address a line; what begins with # and empty lines are passed over."""
    with reading(file) as lines:
        told = [os.fsdecode(line).strip() for line in lines]
    return [line for line in told if line and not line.startswith("#")]


def is_address(source: str) -> bool:
    return "://" in source or (bool(_SSH.match(source)) and not Path(source).exists())


def within(folder: Path, source: str) -> bool:
    """Whether a repository lies in a folder of this machine."""
    if source[:7].lower() == "file://":
        source = "/" + unquote(source[7:].partition("/")[2])
    elif is_address(source):
        return False
    return Path(os.path.realpath(source)).is_relative_to(os.path.realpath(folder))


def _meant(source: str) -> tuple[str, str, str]:
    """A repository by its whole path or its address, what is the same for two spellings of it, and what it may be
    called.

    Raises :class:`UsageError` for what cannot be one.
    """
    if is_address(source):
        where = mirroring.remote(source)
        there = where.path.removesuffix(".git")
        place = where.host
        if "://" in source:
            port = urlsplit(source).port
            place += f":{port}" if port not in (None, 22, 80, 443) else ""
        else:  # from somebody's home there; the homes of `git` are the roots of forges
            user = source.partition(":")[0].rpartition("@")[0]
            place = f"{user}@{place}" if user not in ("", "git") else place
        return source, f"{place}/{there}", "-".join(there.split("/")[-2:])
    if _SSH_FROM_THE_ROOT.match(source) and not Path(source).exists():
        raise UsageError("a whole path on another host is written otherwise", "write it as ssh://HOST/PATH")
    try:
        source.encode()
        path = Path(source).expanduser().absolute()
        place = str(_git_dir(path))
    except (OSError, RuntimeError, ValueError) as error:
        raise UsageError(f"it can be no path here: {error}", "name it otherwise, or move it") from None
    path = path.parent if path.name == ".git" else path
    return str(path), place, path.resolve().name.removesuffix(".git")


def _key(source: str) -> str:
    """What is the same for two spellings of a repository that is in the register. Of one that cannot be looked at now
    it is how it is spelled: who works on it says what is wrong.
    """
    try:
        return _meant(source)[1]
    except UsageError:
        return source


def _git_dir(path: Path) -> Path:
    """Where the repository of a folder keeps its branches, those of linked work trees too; the folder itself, where it
    is none. Asks nobody.
    """
    inner = path / ".git"
    if inner.is_file():
        linked = (path / inner.read_text("utf-8", "replace").removeprefix("gitdir:").strip()).resolve()
        common = linked / "commondir"
        return (linked / common.read_text("utf-8", "replace").strip()).resolve() if common.is_file() else linked
    return (inner if inner.is_dir() else path).resolve()


def add(register: Fleet, sources: Sequence[str]) -> int:
    """Add the repositories that are new; entries that repeat another or cannot be are put down as that until the next
    list. Returns how many repeat an earlier one word by word.
    """
    if sources:
        register.forget([one.source for one in register.repositories() if not one.name])
    known = {_key(one.source): one.name for one in register.repositories() if one.name}
    home = register.path.parent
    names, fresh, met = set(known.values()), list[Repository](), set[str]()
    for number, source in enumerate(dict.fromkeys(sources), start=1):
        try:
            whole, key, wanted = _meant(source)
            # A linked work tree lies where its repository does, too.
            if within(home, whole) or (not is_address(source) and within(home, key)):
                raise UsageError(f"it lies in {home}, which is the fleet's own", "move it, or name where it came from")
        except UsageError as error:
            whole = as_text(source).replace("\0", "�")
            kept = address(whole)  # of two that differ in a password alone, each is told
            named = kept if kept == whole else f"{kept} (entry {number})"
            fresh.append(failed(Repository(source=named), "list", error))
            continue
        if key in met:
            cause = f"it is {known[key]} by another name"
            fresh.append(Repository(source=source, state="duplicate", stage="list", cause=cause))
        elif key not in known:
            known[key] = _name(wanted, names)
            names.add(known[key])
            fresh.append(Repository(source=whole, name=known[key]))
        met.add(key)
    register.keep(fresh)
    return len(sources) - len(set(sources))


def _name(wanted: str, taken: set[str]) -> str:
    """A name that is a folder's on every system, and that no other repository of the fleet has."""
    plain = (
        _NOT_IN_A_NAME.sub("-", wanted).encode()[:LONGEST_NAME].decode("utf-8", "ignore").strip(".-") or "repository"
    )
    lowered = {one.lower() for one in taken}
    return next(
        name for number in range(1, len(taken) + 2)
        if (name := plain if number == 1 else f"{plain}-{number}").lower() not in lowered
    )  # fmt: skip


def failed(before: Repository, stage: str, error: TreeringError) -> Repository:
    """With the figures of the last time: what was there then is there still."""
    return replace(
        before, state="failed", stage=stage, cause=error.message, hint=error.hint, code=error.exit_code, new=0
    )
