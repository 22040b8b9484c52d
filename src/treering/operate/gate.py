"""The gate: a patch becomes a commit if the tests pass with it, and the commit is of the very tree that was tested.

Nothing of the user's is touched until then: the patch is applied in a shadow, the tests run in a sandbox, and what
passed enters the repository as objects and one branch that still is where it was.
"""

import math
import os
import posixpath
import re
import shlex
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from treering.config import FILE_NAME, GateSettings
from treering.errors import NoSandbox, RepositoryError, TreeringError, UsageError
from treering.git import writing
from treering.git.entries import Entry, shown
from treering.git.shadow import Shadow, Source, shadow_of
from treering.operate import running, sandbox
from treering.operate.launch import STAGE
from treering.operate.running import Limits, Outcome
from treering.text.paths import folded, matching
from treering.text.secrets import Redactor

Result = Literal["passed", "failed", "refused", "timed_out", "moved"]

ALWAYS = (FILE_NAME, ".gitattributes", ".gitmodules")
"""What no patch may touch: what the gate itself goes by, and what makes a checkout differ from the tree tested."""
_LINK, _SUBMODULE, _FILE_MODES = "120000", "160000", frozenset({"000000", "100644", "100755", "120000"})
_IDENTITY = re.compile(r"\s*([^<>\n]*[^<>\s])\s*<([^<>\s]+)>\s*")
_MB = 1 << 20
_LEFT = "nobody waits for it any more"
_SHORT = re.compile(r"~\d")
_PARENTS = re.compile(r"(?:\.\./)*")


class Verdict(Struct, frozen=True, kw_only=True):
    """What came of a patch. ``base`` is the commit that it was applied to, ``tree`` the tree that was tested;
    ``commit`` is empty where nothing was committed. ``exit_code`` is the tests' own, null where they did not end by
    themselves or did not run. ``memory`` (bytes) and ``processes`` (threads) are the most seen of all together;
    ``log_left_out`` counts bytes, ``secrets`` what was taken out of the log; ``see`` is a command that shows what was
    committed.
    """

    verdict: Result
    reason: str
    repository: str
    ref: str = ""
    base: str = ""
    tree: str = ""
    commit: str = ""
    files: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    sandbox: str = ""
    exit_code: int | None = None
    seconds: float = 0.0
    memory: int = 0
    processes: int = 0
    log: str = ""
    log_left_out: int = 0
    secrets: int = 0
    see: str = ""


@dataclass(frozen=True, slots=True)
class Proposal:
    """A patch, and where it is to go: to a branch, or without a name to a new one. ``until`` is a time of the monotonic
    clock after which nobody waits for an answer; ``brought`` says that the command came with the repository.
    """

    patch: bytes
    command: tuple[str, ...]
    ref: str = ""
    message: str = ""
    until: float = math.inf
    brought: bool = False


@dataclass(frozen=True, slots=True)
class _Goal:
    """The branch that is to move, where it is, and the commit that the patch is applied to."""

    ref: str
    before: str | None
    base: str


def gate(
    source: Source,
    proposal: Proposal,
    settings: GateSettings,
    *,
    redactor: Redactor,
    apart: bool = True,
    wanted: Callable[[], bool] = lambda: True,
) -> Verdict:
    """Judge a patch, and commit what passed. Once it is not ``wanted`` any more the tests are ended and nothing is
    committed; ``apart`` says that tests run in a sandbox.

    Raises :class:`UsageError` for what is no patch, no branch, no program; :class:`RepositoryError` for a repository
    without commits, with objects missing, or that cannot be written to; :class:`NoSandbox`.
    """
    identity = _identity(settings.identity)
    if not proposal.patch.strip():
        raise UsageError("the patch is empty", "give what `git diff` or `git format-patch` writes")
    if len(proposal.patch) > settings.patch_bytes:
        raise UsageError(
            f"the patch has {len(proposal.patch):,} bytes; {settings.patch_bytes:,} are allowed",
            "split it, or set TREERING_GATE_PATCH_BYTES",
        )
    if "\0" in proposal.message:
        raise UsageError("the message holds a zero byte", "give --message as text")
    apart_by = sandbox.version() if apart else "none"
    if not proposal.command or not proposal.command[0]:
        raise UsageError("there is no test command", "give it after `--`, or set `command` in [gate] of treering.toml")
    goal = _goal(source, proposal.ref)
    view = (
        sandbox.view(source.worktree, proposal.command, settings.readable, brought=proposal.brought) if apart else None
    )
    begun = Verdict(verdict="refused", reason="", repository=source.name, base=goal.base)
    with shadow_of(source) as shadow:
        try:
            tree = writing.tree_of(shadow, goal.base, proposal.patch)
        except writing.NotApplied as error:
            return replace(begun, reason=f"the patch does not apply: {error}")
        entries = writing.changed(shadow, goal.base, tree)
        begun = replace(begun, files=tuple(shown(entry.path) for entry in entries))
        if reason := _refusal(shadow, entries, settings.protected):
            return replace(begun, reason=reason)
        _check_paths(shadow, tree, proposal.command[0], view)
        went = _tested(shadow, tree, goal.base, proposal, view, settings, wanted=wanted)
        found: Counter[str] = Counter()
        log = redactor(went.said.decode("utf-8", "replace"), found)
        result, reason = _judged(went, settings)
        tested = replace(
            begun, verdict=result, reason=reason, tree=tree, command=proposal.command, sandbox=apart_by,
            exit_code=went.code, seconds=round(went.seconds, 3), memory=went.memory, processes=went.threads, log=log,
            log_left_out=went.left_out, secrets=found.total(), ref=goal.ref,
        )  # fmt: skip
        if result != "passed":
            return tested
        if not wanted():
            return replace(tested, verdict="failed", reason=_LEFT)
        message = proposal.message.strip() or _message(begun.files, proposal.command)
        made = writing.commit(shadow, tree, goal.base, message, identity)
        ref = goal.ref or f"{writing.BRANCHES}treering/gate-{made[:12]}"
        if not _entered(shadow, source, _Goal(ref, goal.before, goal.base), made, identity):
            return replace(tested, verdict="moved", reason=f"{ref} moved while the tests ran")
        return replace(tested, ref=ref, commit=made, see=_see(source, ref, goal.base))


def _entered(shadow: Shadow, source: Source, goal: _Goal, made: str, identity: tuple[str, str]) -> bool:
    """Put a commit into the repository and move the branch to it, unless the branch moved meanwhile."""
    if writing.tip(source, goal.ref) not in (goal.before, made):
        return False
    writing.deposit(shadow, source, made, goal.base)
    return writing.move(source, goal.ref, made, goal.before, identity)


def _identity(text: str) -> tuple[str, str]:
    found = _IDENTITY.fullmatch(text)
    if not found:
        raise UsageError(f"`identity` in [gate] is {text!r}", 'write "Name <address>"')
    return found[1], found[2]


def _goal(source: Source, name: str) -> _Goal:
    ref = writing.branch(name) if name else ""
    before = writing.tip(source, ref) if ref else None
    base = before or writing.tip(source, "HEAD")
    if base is None:
        raise RepositoryError(f"{source.name} has no commits", "commit something, or give --ref a branch that is there")
    writing.check_movable(source, ref or f"{writing.BRANCHES}treering/gate-{base[:12]}", base, before)
    return _Goal(ref, before, base)


def _refusal(shadow: Shadow, entries: Sequence[Entry], protected: Sequence[str]) -> str:
    """Why the tests are not even run, if there is a reason."""
    if not entries:
        return "the patch changes nothing"
    paths = [entry.path for entry in entries]
    if kept := matching(paths, (*ALWAYS, *protected)):
        return f"the patch touches {shown(kept[0])}, which is protected"
    for entry in entries:
        name = shown(entry.path)
        if _SUBMODULE in (entry.old_mode, entry.new_mode):
            return f"the patch touches the submodule {name}"
        if entry.new_mode not in _FILE_MODES:
            return f"{name} would have the mode {entry.new_mode}"
        if _unsafe(entry.path):
            return f"the path {name} is not safe on every machine"
        if entry.new_mode == _LINK and entry.old_blob != entry.new_blob:
            target = os.fsdecode(writing.blob(shadow, entry.new_blob))
            if not _leads_inside(entry.path, target):
                return f"the link {name} would lead to {shown(target)}, out of the repository's files"
    return ""


def _unsafe(path: str) -> bool:
    """Whether a path means something else, or nothing, where others check it out."""
    names = path.split("/")
    parts = [*names, *map(folded, names)]  # Windows drops a last dot or blank, and has short names
    return (
        "\\" in path
        or any(ord(char) < 32 or ord(char) == 127 for char in path)
        or any(part in ("", ".git") or part[-1] in ". " or ":" in part or _SHORT.search(part) for part in parts)
    )


def _leads_inside(path: str, target: str) -> bool:
    """Whether a link leads to where the repository's own files are: `..` only at its beginning, for after another link
    it would be the parent of who knows what.
    """
    rest = target[_PARENTS.match(target).end() :]  # type: ignore[union-attr]  # it matches the empty text
    parts = rest.split("/")
    if not target or target.startswith("/") or "\0" in target or ".." in parts:
        return False
    whole = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
    return not whole.startswith("../") and whole != ".." and not _unsafe(whole if whole != "." else "inside")


def _check_paths(shadow: Shadow, tree: str, name: str, view: sandbox.View | None) -> None:
    """Raises :class:`UsageError` where a program that is named by a path from the root is not there, or where something
    to be read would hide what is tested.
    """
    inside = (
        [target.relative_to(view.root) for _, target in view.readable if target.is_relative_to(view.root)]
        if view
        else []
    )
    for hiding in inside:
        if writing.holds(shadow, tree, str(hiding)):
            raise UsageError(
                f"{hiding} is among the repository's files, and is tested as the patch leaves it",
                "leave out --readable",
            )
    if os.sep not in name or PurePath(name).is_absolute():
        return
    path = PurePath(posixpath.normpath(name))
    if not any(path.is_relative_to(one) for one in inside) and not writing.holds(shadow, tree, str(path)):
        hint = f"let tests read what holds it: --readable {path.parts[0]}"
        raise UsageError(f"{name} is none of the repository's files", hint)


def _tested(
    shadow: Shadow,
    tree: str,
    base: str,
    proposal: Proposal,
    view: sandbox.View | None,
    settings: GateSettings,
    *,
    wanted: Callable[[], bool],
) -> Outcome:
    """Run the tests on a tree, where there is a view in a sandbox. Raises :class:`TreeringError` where they could not
    even begin.
    """
    command = proposal.command
    limits = Limits(
        settings.seconds, proposal.until, settings.memory_mb * _MB, settings.processes, settings.disk_mb * _MB,
        settings.log_bytes,
    )  # fmt: skip
    with ExitStack() as stack:
        files = writing.archive(shadow, tree)
        stack.callback(_ended, files)
        if view:
            data = {name: _held(stack, content) for name, content in sandbox.files().items()}
            sources = [] if os.getuid() else [source for source, _ in view.readable]
            seen_at = {source: Path(STAGE, str(number)) for number, source in enumerate(sources)}
            argv = sandbox.arguments(view, command, disk=limits.disk, data=data, seen_at=seen_at)
            went = running.run(
                argv, files, limits, kept=tuple(data.values()), staged=sources, apart=True, wanted=wanted,
                places=(view.root, PurePath("/tmp")),  # noqa: S108  the sandbox's own
            )  # fmt: skip
        else:
            folder = shadow.git_dir / "tested"
            home = folder / "temporary" / "home"
            home.mkdir(parents=True)
            (folder / "files").mkdir()
            argv = ["/bin/sh", "-c", sandbox.UNPACK, "sh", *command]
            path = os.environ.get("PATH", os.defpath)
            went = running.run(
                argv, files, limits, apart=False, folder=folder / "files",
                environment=sandbox.environment(path, str(home)), wanted=wanted,
            )  # fmt: skip
        if went.ended == "exited" or went.ready:
            writing.archived(files, base)
        if went.ready or went.ended == "stopped" or time.monotonic() > proposal.until:
            return went
        raise _not_begun(went, settings)


def _held(stack: ExitStack, content: bytes) -> int:
    """An open file with some content, that a program can be given by its number."""
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.seek(0)
        number = running.high(file.fileno())
    stack.callback(os.close, number)
    return number


def _ended(files: subprocess.Popen[bytes]) -> None:
    if files.poll() is None:
        files.kill()
    files.communicate()


def _not_begun(went: Outcome, settings: GateSettings) -> TreeringError:
    """Why no test could be run, by what was said instead."""
    said = went.said.decode("utf-8", "replace").strip()
    last = said.splitlines()[-1][:300] if said else f"it ended with code {went.code}"
    if "No space left" in said or "File too large" in said:
        return UsageError(
            f"the repository's files do not fit into {settings.disk_mb:,} MB", "set TREERING_GATE_DISK_MB to more"
        )
    if went.ended == "time":
        return TreeringError("the repository's files were not unpacked in time", "run it again on a machine at rest")
    hint = "docs/gate.md tells what it needs; or trust the tests: --no-sandbox"
    return NoSandbox(f"the tests could not be started in a sandbox: {last}", hint)


def _judged(went: Outcome, settings: GateSettings) -> tuple[Result, str]:
    """The verdict on tests that began, and why."""
    if went.ended == "exited":
        if went.code == 0:
            return "passed", "the tests passed"
        return "failed", f"the tests ended with code {went.code}"
    if went.ended == "time":
        return "timed_out", f"the tests had not ended after {min(went.seconds, settings.seconds):.3g} s"
    return "failed", {
        "memory": f"the tests used more than {settings.memory_mb:,} MB of memory",
        "processes": f"the tests had more than {settings.processes:,} processes and threads",
        "files": f"the tests made more than {running.MOST_FILES:,} files",
        "stopped": _LEFT,
    }[went.ended]


def _message(files: Sequence[str], command: Sequence[str]) -> str:
    """What a commit says where nobody said anything."""
    first = posixpath.basename(files[0])
    more = f" and {len(files) - 1} more" if len(files) > 1 else ""
    return f"Change {first}{more}\n\nTested by: {shlex.join(command)}"


def _see(source: Source, ref: str, base: str) -> str:
    """How the owner sees what was committed: their work tree and index are as they were."""
    place = writing.checked_out(source, ref)
    name = ref.removeprefix(writing.BRANCHES)
    if place is None:
        return f"git log -p {shlex.quote(f'{base[:12]}..{name}')}"
    return f"git -C {shlex.quote(str(place))} read-tree -m -u {base[:12]} HEAD"
