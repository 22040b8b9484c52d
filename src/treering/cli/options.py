"""What the commands share: the options that every one has, errors as exit codes, and how a result is printed."""

import _thread
import functools
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

import click

from treering.errors import Incomplete, StoreError, TreeringError, UsageError
from treering.report import Reporter, printable
from treering.tracing import span

INTERRUPTED = 130
PATH = click.Path(path_type=Path, readable=False)  # what may not be read is told by who reads it


def emit(value: object) -> None:
    """Print a value as JSON on stdout."""
    import msgspec

    text = msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"
    # C1 control characters are legal in JSON, and some terminals obey them.
    escaped = re.sub(rb"\xc2([\x80-\x9f])|\x7f", lambda match: b"\\u00%02x" % (match[1] or b"\x7f")[0], text)
    sys.stdout.buffer.write(escaped)


class OneLine(click.Command):
    """A command whose usage errors look like all our errors: one line and a hint."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
        try:
            sys.exit(super().main(args, prog_name, complete_var, standalone_mode=False, **extra) or 0)
        except click.exceptions.NoArgsIsHelpError as error:
            click.echo(error.format_message(), err=True)
            sys.exit(error.exit_code)
        except click.UsageError as error:
            shown = error.ctx.command_path if error.ctx else "treering"
            fail(UsageError(error.format_message().rstrip("."), f"see `{shown} --help`"))
        except click.Abort:
            sys.exit(INTERRUPTED)


class Commands(OneLine, click.Group):
    """The same for a command of commands."""


def fail(error: TreeringError, log: Path | None = None) -> NoReturn:
    """One line that names the thing, a hint, and the documented exit code; into the log too, if there is one."""
    with suppress(OSError):
        if log:
            Reporter.to_stderr(log=log).detail(f"error: {error.message} ({error.hint})")
    click.echo(f"error: {printable(error.message)}", err=True)
    if error.hint:
        click.echo(f"hint: {printable(error.hint)}", err=True)
    sys.exit(error.exit_code)


def guarded(command: Callable[..., None], log: Path | None = None) -> Callable[..., None]:
    """Turn our errors and an interrupt into their exit codes."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            with _heard_anywhere(), span(f"treering {command.__name__}"):
                command(*args, **kwargs)
            sys.stdout.flush()
        except TreeringError as error:
            fail(error, log)
        except KeyboardInterrupt:
            click.echo("interrupted: what was done is kept, and the next run goes on from it", err=True)
            # Python ends by the signal and not with our code if the interrupt came within an `exec` of a text (a
            # dataclass of an import under way is one), and forgets that with the next one.
            exec("pass")  # noqa: S102
            sys.exit(INTERRUPTED)
        except BrokenPipeError:
            # The reader went away (`| head`). Python would complain once more when it flushes at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(128 + signal.SIGPIPE)
        except OSError as error:  # of our own output: whatever else is read or written is named where it is
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            fail(StoreError(f"cannot write {error.filename or 'the output'}: {error.strerror}", "choose another place"))

    return run


@contextmanager
def _heard_anywhere() -> Iterator[None]:
    """An interrupt that came where Python passes errors over, in a destructor, comes again a moment later."""
    before = sys.unraisablehook

    def passed_over(told: Any) -> None:
        if isinstance(told.exc_value, KeyboardInterrupt):
            again = threading.Timer(0.05, _thread.interrupt_main)  # not at once: it would be passed over in here, too
            again.daemon = True
            again.start()
        else:
            before(told)

    sys.unraisablehook = passed_over
    try:
        yield
    finally:
        sys.unraisablehook = before


REPOS = click.option(
    "--repo", "repos", type=PATH, multiple=True, help="A Git repository; may be given several times [default: .]."
)


def common(command: Callable[..., None]) -> Callable[..., None]:
    """The options every command has."""
    for option in (
        click.option("--verbose", is_flag=True, help="Say more on stderr."),
        click.option("--json", "as_json", is_flag=True, help="Print the result as JSON."),
        click.option("--store", type=PATH, help="The store's folder [default: .treering there; $TREERING_STORE]."),
        click.option("--repo", type=PATH, default=".", show_default=True, help="The Git repository."),
    ):  # fmt: skip
        command = option(command)
    return guarded(command)


def chosen(command: Callable[..., None]) -> Callable[..., None]:
    """The options that choose which commits are read. What they leave out is kept in the store, but not shown."""
    for option in (
        click.option("--allow-secret", "allow_secrets", multiple=True, help="A value that is no secret; may hold *."),
        click.option("--mailmap/--no-mailmap", default=None, help="Unify authors by the repository's .mailmap."),
        click.option("--refs", help="branches, or all: tags, pull requests, notes too [default: branches]."),
        click.option("--max-commits", type=int, help="Only so many of the newest."),
        click.option("--merges/--no-merges", default=None, help="Whether merges are read."),
        click.option("--author", help="Only whose name or address holds this."),
        click.option("--path", "paths", multiple=True, help="Only what changes this path (a git pathspec)."),
        click.option("--until", help="Only commits of that date or earlier."),
        click.option("--since", help="Only commits of that date or later: 2024-01-31, or `3 months ago`."),
        click.option("--branch", "branches", multiple=True, help="Only what this branch reaches; may hold *."),
    ):  # fmt: skip
        command = option(command)
    return command


def strict(command: Callable[..., None]) -> Callable[..., None]:
    return click.option("--strict", is_flag=True, help="Exit 7 if any commit could be read only in part.")(command)


def check(report: Reporter, *, strictly: bool) -> None:
    """End with exit code 7 if the work was partial and the user asked to be told."""
    if strictly and report.warnings:
        raise Incomplete(
            f"the result is partial: {report.warnings[0]}", "fetch the missing objects, or leave out --strict"
        )


def settings_of(flags: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Flags by the section of the settings they override: each has the name of its setting."""
    from dataclasses import fields

    from treering.config import SECTIONS

    section_of = {one.name: name for name in ("scrape", "tokens", "train") for one in fields(SECTIONS[name])}
    chosen: dict[str, dict[str, Any]] = {}
    for name, value in flags.items():
        chosen.setdefault(section_of[name], {})[name] = value
    return chosen
