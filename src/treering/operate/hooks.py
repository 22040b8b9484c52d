"""Hooks that ask for the index to be brought up to date: put before what is there, and taken out again byte for byte.

Ours are lines of a shell script that start no program and cannot fail. Into a shell script they are put behind its
first line, so that it keeps its name, arguments, input and exit code; any other hook is kept beside and called. What
another tool makes anew, or the repository tracks, is not ours to change: then we say what to add, and where.
"""

import os
import re
import shlex
import shutil
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from treering.errors import RepositoryError, UsageError
from treering.files import os_errors, replacing
from treering.operate.asked import ASKED

NAMES = ("post-commit", "post-merge", "post-rewrite", "post-checkout", "post-receive")
"""Commits, merges and pulls, amends and rebases, branches switched, pushes to here. What moves refs without any of
them (a fetch, a reset) the watcher sees by itself.
"""
KEPT = "treering-before"
"""The folder, among the hooks, of those that ours call."""

_BEGIN = b"# >>> treering hooks: `treering hooks remove` takes these lines out\n"
_ALONE = b"# >>> treering hooks: `treering hooks remove` takes this file away\n"
_END = b"# <<< treering hooks\n"
_LINE = rb"\(set -C; : >%b\) 2>/dev/null \|\| :\n"
_ASK = re.compile(_LINE % rb"([^\n]+)")
_BLOCK = re.compile(
    b"(?:%b|%b)((?:%b)*)(?:[^\n]*%b[^\n]*\n)?%b"
    % (*map(re.escape, (_BEGIN, _ALONE)), _LINE % rb"[^\n]+", KEPT.encode(), re.escape(_END))
)
_START = b"#!/bin/sh\n"
_SHELL = re.compile(rb"#![ \t]*(?:/\S*/)?(?:env[ \t]+)?(?:ba|da|a|k|mk|z)?sh(?:[ \t]+-[a-zA-Z]+)*[ \t]*\n")
_HERE = b'"${0%/*}"/'
LARGEST = 1 << 20
"""A longer file is no script that lines are put into."""

State = Literal["installed", "missing", "by hand"]


@dataclass(frozen=True, slots=True)
class Hook:
    """One of :data:`NAMES`. ``beside`` is whose hook is there as well; ``add`` what its owner has to be told, and
    where, because we may not; ``stale`` are queues that it asks in and that are not there.
    """

    name: str
    state: State
    beside: str = ""
    add: str = ""
    stale: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Folder:
    """The folder of a repository's hooks, and the queue that they ask in. ``root`` is the work tree, within which paths
    are told from the hook on, so that it may be moved; ``tracked`` says whether the repository tracks any file of it.
    """

    path: Path
    queue: Path
    root: Path | None
    tracked: bool

    def ask(self) -> bytes:
        """The line that asks, from a hook. Raises :class:`UsageError`."""
        if "\n" in str(self.queue):
            raise UsageError(f"no hook can name {self.queue}", "give --store a path of one line")
        hooks, queue = self.path.resolve(), self.queue.resolve()
        if self.root and hooks.is_relative_to(self.root.resolve()) and queue.is_relative_to(self.root.resolve()):
            return _line(_HERE + os.fsencode(shlex.quote(os.path.relpath(queue / ASKED, hooks))))
        return _line(os.fsencode(shlex.quote(str(queue / ASKED))))

    def ask_by_hand(self) -> str:
        """The same from the top of the work tree, where other tools run what they are told to run."""
        queue = self.queue.resolve()
        inside = self.root and queue.is_relative_to(self.root.resolve())
        told = os.path.relpath(queue, self.root) if inside and self.root else str(queue)
        return f"(set -C; : >{shlex.quote(f'{told}/{ASKED}')}) 2>/dev/null || :"


def _line(target: bytes) -> bytes:
    # `set -C` makes nothing but a new file: what is there is not written, a link not followed.
    return b"(set -C; : >" + target + b") 2>/dev/null || :\n"


def look(folder: Folder) -> list[Hook]:
    """How each hook is."""
    # husky calls no hook but those that it has made.
    return [_look(folder, name) for name in NAMES if not _husky(folder.path) or (folder.path / name).exists()]


def _look(folder: Folder, name: str) -> Hook:
    path, content = folder.path / name, _content(folder.path / name)
    asks, before = parsed(content)
    ours = folder.ask() in asks
    stale = tuple(_leads(folder.path, ask) for ask in asks if _nowhere(folder.path, ask))
    add, done = _by_hand(folder, name, content)
    if add:
        return Hook(name, "installed" if done or ours else "by hand", _whose(folder, content), add, stale)
    kept = folder.path / KEPT / name
    there = before not in (b"", _START) if asks else os.path.lexists(path)
    beside = _whose(folder, before if there else _content(kept)) if there or os.path.lexists(kept) else ""
    return Hook(name, "installed" if ours else "missing", beside, "", stale)


def install(folder: Folder) -> list[Hook]:
    """Put our lines into each hook that is ours to change; those that are there already stay as they are.

    Raises :class:`RepositoryError` where the folder may not be written, and for a hook whose place among those that
    are kept is taken.
    """
    if folder.path.exists() and not folder.path.is_dir():
        raise RepositoryError(
            f"hooks are switched off: core.hooksPath is {folder.path}", "none are needed: run `treering watch`"
        )
    with os_errors(folder.path):
        folder.path.mkdir(parents=True, exist_ok=True)
    todo = [hook for hook in look(folder) if hook.state == "missing"]
    if todo:
        _writable(folder.path)
    for hook in todo:
        _put(folder, hook.name)
    return look(folder)


def remove(folder: Folder) -> list[Hook]:
    """Take our lines out again, with those that lead nowhere; what was there before is there again, byte for byte.
    Those that are :func:`tangled` stay.
    """
    for name in NAMES:
        path = folder.path / name
        content = _content(path)
        asks, before = parsed(content)
        left = _others(folder, asks)
        kept = folder.path / KEPT / name
        if left == asks or (os.path.lexists(kept) and before != _START):
            continue
        _writable(folder.path)
        if left:
            _write(path, content.replace(b"".join(asks), b"".join(left), 1))
        elif os.path.lexists(kept):
            _move(kept, path, down=False)
        elif _ALONE in content and before == _START:
            with os_errors(path):
                path.unlink()
        else:
            _write(path, before)
    if (folder.path / KEPT).is_dir() and not any((folder.path / KEPT).iterdir()):
        (folder.path / KEPT).rmdir()
    return look(folder)


def tangled(folder: Folder) -> list[str]:
    """The hooks of ours that were changed since they call another one: what is whose in them cannot be told."""
    found = []
    for name in NAMES:
        asks, before = parsed(_content(folder.path / name))
        if _others(folder, asks) != asks and os.path.lexists(folder.path / KEPT / name) and before != _START:
            found.append(name)
    return found


def _others(folder: Folder, asks: list[bytes]) -> list[bytes]:
    """The lines that ask for other stores."""
    return [ask for ask in asks if ask != folder.ask() and not _nowhere(folder.path, ask)]


def parsed(content: bytes) -> tuple[list[bytes], bytes]:
    """Our lines that ask, and the content without all that is ours."""
    found = _BLOCK.search(content)
    if not found:
        return [], content
    return [match[0] for match in _ASK.finditer(found[1])], content[: found.start()] + content[found.end() :]


def with_lines(content: bytes, asks: Iterable[bytes]) -> bytes | None:
    """A shell script with lines of ours behind its first; None for anything else."""
    first = _SHELL.match(content)
    if not first:
        return None
    return content[: first.end()] + _BEGIN + b"".join(asks) + _END + content[first.end() :]


def _put(folder: Folder, name: str) -> None:
    path, ask = folder.path / name, folder.ask()
    content = _content(path)
    asks, _ = parsed(content)
    kept = folder.path / KEPT / name
    if asks:  # another store's, of a folder that several repositories share
        _write(path, content.replace(asks[-1], asks[-1] + ask, 1))
        return
    if os.path.lexists(path) and os.path.lexists(kept):
        raise RepositoryError(
            f"{path} is another hook than that which calls {kept}", "make one hook of the two, then run this again"
        )
    runs = os.path.lexists(path) and not path.is_symlink() and os.access(path, os.X_OK)
    script = with_lines(content, [ask]) if runs else None
    if script is not None:
        _write(path, script)
        return
    if os.path.lexists(path):
        _move(path, kept, down=True)
    call = b""
    if os.path.lexists(kept):  # what git would not run, ours does not run either
        target = _HERE + f"{KEPT}/{name}".encode()
        call = b'[ ! -x %b ] || exec %b "$@"\n' % (target, target)
    _write(path, _START + (_BEGIN if call else _ALONE) + ask + call + _END, 0o755)


def _move(path: Path, to: Path, *, down: bool) -> None:
    """A hook to or from the folder of those that are kept, in whose place the other one's file is written whole: at no
    moment is there none. A link leads where it led.
    """
    with os_errors(to):
        to.parent.mkdir(exist_ok=True)
        new = to.with_name(f".{to.name}.treering")
        new.unlink(missing_ok=True)
        if path.is_symlink():
            target = str(path.readlink())
            if not target.startswith("/"):
                target = f"../{target}" if down else target.removeprefix("../")
            new.symlink_to(target)
        else:
            shutil.copy2(path, new)
        new.replace(to)
        if not down:
            path.unlink()


def _write(path: Path, content: bytes, mode: int | None = None) -> None:
    with replacing(path, stat.S_IMODE(path.stat().st_mode) if mode is None else mode) as file:
        file.write(content)


def _writable(folder: Path) -> None:
    if not os.access(folder, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
        raise RepositoryError(
            f"no permission to write {folder}",
            "run as the user who owns it; or do without hooks: `treering watch` sees commits by itself",
        )


def _content(path: Path) -> bytes:
    """What a hook says; nothing where there is none, or where it can be no script of ours."""
    try:
        if path.is_symlink() or path.stat().st_size > LARGEST:
            return b""
        return path.read_bytes()
    except OSError:
        return b""


def _leads(hooks: Path, ask: bytes) -> str:
    """The file that a line makes; empty if it was changed so that it cannot be told."""
    match = _ASK.fullmatch(ask)
    target = match[1] if match else b""
    try:
        where = "".join(shlex.split(os.fsdecode(target.removeprefix(_HERE))))
    except ValueError:
        return ""
    return os.path.normpath(hooks.resolve() / where) if target.startswith(_HERE) else where


def _nowhere(hooks: Path, ask: bytes) -> bool:
    return not Path(_leads(hooks, ask)).parent.is_dir()


def _whose(folder: Folder, content: bytes) -> str:
    """Whose hook it is, as far as it says so."""
    if _husky(folder.path):
        return "husky"
    for mark, tool in ((b"LEFTHOOK", "lefthook"), (b"pre-commit.com", "pre-commit"), (b"git lfs", "git-lfs")):
        if mark in content:
            return tool
    return "the repository's own" if folder.tracked else "another hook"


def _husky(hooks: Path) -> bool:
    return hooks.name == "_" and hooks.parent.name == ".husky"


def _by_hand(folder: Folder, name: str, content: bytes) -> tuple[str, bool]:
    """What to add where for a hook that another tool makes anew or the repository tracks, and whether it was added."""
    line = folder.ask_by_hand()
    if _husky(folder.path):
        theirs = folder.path.parent / name
        return f"to .husky/{name} the line: {line}", line.encode() in _content(theirs)
    if b"LEFTHOOK" in content and folder.root:
        told = b"".join(_content(path) for path in sorted(folder.root.glob("*lefthook*")))
        job = f"{name}:\n  jobs:\n    - name: treering\n      run: |\n        {line}"
        return f"to lefthook-local.yml:\n{job}", line.encode() in told
    if folder.tracked:
        return f"to {folder.path / name}, a script of sh, the line: {line}", line.encode() in content
    return "", False
