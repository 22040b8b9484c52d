"""The entry of this server in the files of MCP clients. Everything else in such a file stays as it is."""

import difflib
import hashlib
import json
import os
import re
import stat
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec
from msgspec import Struct

from treering.errors import DataError, StoreError, UsageError
from treering.files import read_json, replacing
from treering.opening import Place
from treering.store.database import make_folder

KEY = "mcpServers"
RECORDS = "installed"
"""The folder of a store that holds what the files were before."""
LARGEST = 10_000_000
"""Bytes of a client's file that are read."""


@dataclass(frozen=True, slots=True)
class Change:
    """A client's file before and after; ``name`` is what the server is called in it."""

    path: Path
    name: str
    before: str
    after: str

    @property
    def made(self) -> bool:
        """Whether anything changes."""
        return self.before != self.after

    def lines(self) -> Iterator[str]:
        """The difference, as `diff -u` shows it."""
        before, after = self.before.splitlines(), self.after.splitlines()
        return difflib.unified_diff(before, after, str(self.path), str(self.path), lineterm="")

    def write(self) -> None:
        """Replace the file whole; it may hold keys, and who could not read it still cannot."""
        mode = stat.S_IMODE(self.path.stat().st_mode) if self.path.exists() else None
        with replacing(self.path, mode) as file:
            file.write(self.after.encode())


def program() -> list[str]:
    """The command line that starts this treering, wherever it is started."""
    beside = Path(sys.executable).with_name("treering")
    return [str(beside)] if beside.is_file() else [sys.executable, "-m", "treering"]


def change(client: str, places: Sequence[Place], command: Sequence[str], store: Path | None = None) -> Change:
    """What adding the server does to a client's file: ``.mcp.json`` in the repository for Claude Code, which shares it
    with whoever works there; the file in the user's home for the others, where each repository has an entry.

    Raises :class:`DataError` for a file that is no JSON object, which is left alone.
    """
    path, name = _file_of(client, places)
    arguments = [*command[1:], "mcp"]
    for place in places:
        arguments += ["--repo", str((place.source.worktree or place.source.git_dir).absolute())]
    if store:
        arguments += ["--store", str(store.absolute())]
    before = _read(path)
    return Change(path, name, before, _with(path, before, name, {"command": command[0], "args": arguments}))


def _file_of(client: str, places: Sequence[Place]) -> tuple[Path, str]:
    first, home = places[0].source, Path.home()
    if client == "claude-code":
        if first.worktree is None:
            raise UsageError(
                f"{first.name} has no work tree that could hold .mcp.json", "give --client cursor or claude-desktop"
            )
        path = first.worktree / ".mcp.json"
        if path.is_symlink():  # it may have come with the repository, and lead anywhere
            raise UsageError(f"{path} is a link", "write to the file it leads to by hand: --print tells what")
        return path, "treering"
    if client == "cursor":
        path = home / ".cursor" / "mcp.json"
    elif sys.platform == "darwin":
        path = home / "Library" / "Application Support" / "Claude" / "claude_desktop_config.json"
    else:
        path = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config") / "Claude" / "claude_desktop_config.json"
    return path.resolve(), f"treering-{first.name}"


class Record(Struct, frozen=True):
    """What a file was before an entry was written into it (None where it was not there), and the SHA-256 of what it
    was then. Kept in the store: private, for such files may hold keys.
    """

    path: str
    before: str | None
    after: str


def remember(change: Change, store: Path) -> None:
    """Keep what a file was before a change, so that :func:`remove` can leave it so."""
    before = change.before if change.path.exists() else None
    earlier = _recorded(store, change.path)
    if earlier and earlier.after == _digest(change.before):
        before = earlier.before
    record = Record(str(change.path), before, _digest(change.after))
    with suppress(StoreError):  # a store that may only be read: the entry alone is taken out then
        make_folder(store)
        with replacing(_record_of(store, change.path), 0o600) as file:
            file.write(msgspec.json.encode(record))


def remove(place: Place, *, dry: bool) -> list[str]:
    """Take the entries that lead to a repository out of every client's file, and tell of them: the file is then as it
    was before, if nobody changed it since. ``dry`` only tells.
    """
    said = []
    own = str((place.source.worktree or place.source.git_dir).absolute())
    for client in ("claude-code", "claude-desktop", "cursor"):
        try:
            path, _ = _file_of(client, [place])
            before = _read(path)
            after = _without(before, own)
        except (UsageError, DataError):  # there is none, or none that we could have written
            continue
        if after is None:
            continue
        said.append(f"the entry in {path}")
        if dry:
            continue
        record = _recorded(place.folder, path)
        if record and record.after == _digest(before):
            after = record.before if record.before is not None else ""
            gone = record.before is None
        else:
            gone = not after
        if gone:
            path.unlink()
        else:
            Change(path, "", before, after).write()
    return said


def _without(before: str, own: str) -> str | None:
    """A file's text without the entries that lead to a repository; empty where nothing else was in it, None where there
    is no such entry. One that serves others too keeps them.
    """
    try:
        known = json.loads(before) if before.strip() else {}
    except (ValueError, RecursionError):
        return None
    servers = known.get(KEY) if isinstance(known, dict) else None
    if not isinstance(servers, dict):
        return None
    changed = False
    for name, entry in list(servers.items()):
        words = entry.get("args") if isinstance(entry, dict) else None
        if not isinstance(words, list) or "mcp" not in words:
            continue
        places = [number for number in range(len(words) - 1) if words[number] == "--repo"]
        ours = [number for number in places if words[number + 1] == own]
        if not ours:
            continue
        changed = True
        if len(ours) == len(places):
            del servers[name]
        else:
            for number in reversed(ours):
                del words[number : number + 2]
    if not changed:
        return None
    if not servers:
        del known[KEY]
    if not known:
        return ""
    indent = re.search(r"^([ \t]+)\S", before, re.MULTILINE)
    return json.dumps(known, indent=indent[1] if indent else 2, ensure_ascii=False) + "\n"


def _record_of(store: Path, path: Path) -> Path:
    return store / RECORDS / f"{_digest(str(path))[:16]}.json"


def _recorded(store: Path, path: Path) -> Record | None:
    kept = _record_of(store, path)
    try:
        return read_json(kept, Record) if kept.is_file() else None
    except DataError:
        return None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _read(path: Path) -> str:
    try:
        if not path.exists():
            return ""
        if not path.is_file():
            raise DataError(f"{path} is no file", "move it away, then run this again")
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
        if len(content) > LARGEST:
            raise DataError(f"{path} is too large to be a client's configuration", "look at it, and change it by hand")
        return content.decode("utf-8")
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}", "check its permissions") from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is no UTF-8 text: it is left as it is", "mend it, or give --client another one"
        ) from error


def _with(path: Path, before: str, name: str, entry: Mapping[str, object]) -> str:
    """The file's text with the entry, everything else in its order; as it was where the entry is there."""
    try:
        known = json.loads(before) if before.strip() else {}
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is no JSON ({error}): it is left as it is", "mend it, then run this again") from error
    servers = known.setdefault(KEY, {}) if isinstance(known, dict) else None
    if not isinstance(servers, dict):
        raise DataError(f"{path} holds no object `{KEY}`: it is left as it is", "mend it, then run this again")
    if servers.get(name) == entry:
        return before
    servers[name] = {**servers[name], **entry} if isinstance(servers.get(name), dict) else dict(entry)
    indent = re.search(r"^([ \t]+)\S", before, re.MULTILINE)
    try:
        after = json.dumps(known, indent=indent[1] if indent else 2, ensure_ascii=False, allow_nan=False) + "\n"
        after.encode()
    except ValueError as error:  # NaN, numbers that have no end, half a character
        raise DataError(f"{path} is no JSON ({error}): it is left as it is", "mend it, then run this again") from error
    return after
