"""The operation of the gate: a patch is committed if the tests pass with it, and only then."""

import math
import os
import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace

from treering.errors import UsageError
from treering.opening import Place
from treering.operate import gate as gate_stage
from treering.operate.gate import Proposal
from treering.operate.gate import Verdict as Verdict
from treering.text.secrets import Redactor

CODES = {"passed": 0, "failed": 10, "refused": 11, "timed_out": 12, "moved": 13}
"""The exit code of each verdict."""


def command_of(where: Place) -> tuple[str, ...]:
    """The test command that the settings name; empty where they name none. Raises :class:`UsageError`."""
    try:
        return tuple(shlex.split(where.settings.gate.command))
    except ValueError as error:
        raise UsageError(f"`command` in [gate] cannot be parted into words: {error}", "close its quotes") from error


def gate(
    where: Place,
    patch: bytes,
    command: Sequence[str] = (),
    *,
    ref: str = "",
    message: str = "",
    protect: Sequence[str] = (),
    readable: Sequence[str] = (),
    seconds: float = 0.0,
    until: float = math.inf,
    sandboxed: bool = True,
    wanted: Callable[[], bool] = lambda: True,
) -> Verdict:
    """Apply a patch, run the tests in a sandbox, and commit the tree that was tested: to the branch ``ref``, or without
    one to a new branch. ``protect``, ``readable`` and ``seconds`` add to and override what the settings say. Tests
    that go on at the time ``until`` of the monotonic clock are ended. Once it is not ``wanted`` any more they are, too,
    and nothing is committed.

    Raises :class:`UsageError` for what is no patch, branch or program, and where there is no command;
    :class:`RepositoryError`; :class:`NoSandbox`.
    """
    settings = where.settings.gate
    brought = not command and where.source.worktree is not None and "TREERING_GATE_COMMAND" not in os.environ
    if not sandboxed and not command:
        raise UsageError(
            "without a sandbox the test command is not taken from the settings, which a repository can bring",
            "give it after `--`",
        )
    settings = replace(
        settings, protected=(*settings.protected, *protect), readable=(*settings.readable, *readable),
        seconds=seconds or settings.seconds,
    )  # fmt: skip
    return gate_stage.gate(
        where.source, Proposal(patch, tuple(command) or command_of(where), ref, message, until, brought), settings,
        redactor=Redactor(where.settings.scrape.allow_secrets), apart=sandboxed, wanted=wanted,
    )  # fmt: skip
