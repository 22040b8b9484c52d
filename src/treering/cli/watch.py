"""The commands that keep the index up to date: git's hooks, and the watcher."""

import sys
from pathlib import Path
from typing import Any

import click

from treering.cli.options import PATH, REPOS, Commands, OneLine, common, emit, guarded
from treering.errors import Incomplete, UsageError
from treering.report import Reporter, one_line, printable


@click.group(cls=Commands)
def hooks() -> None:
    """Have git's hooks ask for the index to be brought up to date, which `treering watch` does."""


@hooks.command(cls=OneLine)
@common
def install(repo: Path, store: Path | None, as_json: bool, verbose: bool) -> None:  # noqa: ARG001  (all commands have it)
    """Put a line into each hook; whatever is there goes on as before."""
    from treering import hooking, opening

    found = hooking.install(opening.place(repo, store))
    _tell(found, as_json=as_json)
    if left := [hook for hook in found.hooks if hook.state == "by hand"]:
        raise Incomplete(
            f"{', '.join(hook.name for hook in left)}: not ours to change ({left[0].beside})",
            "\n".join(
                ("`treering watch` sees commits without them too; to tell it at once, add", *(h.add for h in left))
            ),
        )


@hooks.command(cls=OneLine)
@common
def remove(repo: Path, store: Path | None, as_json: bool, verbose: bool) -> None:  # noqa: ARG001
    """Take the lines out again: the hooks are as they were, byte for byte."""
    from treering import hooking, opening

    _tell(hooking.remove(opening.place(repo, store)), as_json=as_json)


@hooks.command(cls=OneLine)
@common
def status(repo: Path, store: Path | None, as_json: bool, verbose: bool) -> None:  # noqa: ARG001
    """What is installed, what else is there, what leads nowhere, and who works it off."""
    from treering import hooking, opening

    _tell(hooking.status(opening.place(repo, store)), as_json=as_json)


def _tell(found: Any, *, as_json: bool) -> None:
    if as_json:
        emit(found)
        return
    shared = " (other repositories use it too)" if found.shared else ""
    click.echo(one_line(f"hooks in {found.folder}{shared}"))
    for hook in found.hooks:
        beside = f"beside {hook.beside}" if hook.beside else ""
        stale = f"; asks in {', '.join(hook.stale)}, which is not there" if hook.stale else ""
        click.echo(one_line(f"{hook.name:<14}{hook.state:<11}{beside}{stale}").rstrip())
    click.echo(one_line(f"asked for: {'yes' if found.waits else 'nothing'}; watcher: {found.watcher or 'none'}"))


@click.command()
@REPOS
@click.option("--store", type=PATH, help="The store's folder, of a single repository [default: .treering there].")
@click.option("--learn", "learns", is_flag=True, help="After each index run see to the model: `treering learn`.")
@click.option("--once", is_flag=True, help="Bring the index up to date, and end.")
@click.option(
    "--print-unit",
    type=click.Choice(["systemd", "launchd"]),
    help="Print what starts this watcher with the machine, and end.",
)
@click.option("--json", "as_json", is_flag=True, help="Print a line of JSON for each event.")
@click.option("--verbose", is_flag=True, help="Say more on stderr.")
@guarded
def watch(
    repos: tuple[Path, ...],
    store: Path | None,
    learns: bool,
    once: bool,
    print_unit: Any,
    as_json: bool,
    verbose: bool,
) -> None:
    """Keep the index up to date while commits come, until it is told to end."""
    import msgspec

    from treering import opening, watching

    if print_unit:
        if once:
            raise UsageError("--print-unit is of a watcher that goes on, and --once ends", "leave one of them out")
        from treering.serve.clients import program

        found = list(opening.places(repos, store).values())
        click.echo(watching.unit(print_unit, found, program(), store, learns=learns), nl=False)
        return
    report = Reporter.to_stderr(verbose=verbose)

    def tell(event: watching.Event) -> None:
        if as_json:
            sys.stdout.buffer.write(msgspec.json.encode(event) + b"\n")
            sys.stdout.buffer.flush()
            return
        for line in _lines(event):
            report.say(line)

    watching.watch(repos, store, tell, once=once, followers=[watching.learn_after] if learns else [])


def _lines(event: Any) -> list[str]:
    """What is said of an event to people."""
    name = one_line(event.repository)
    told = [f"{name}: warning: {printable(one)}" for one in event.warnings]
    if event.event == "indexed":
        added = f"{event.commits:,} commits and {event.vectors:,} vectors added"
        return [*told, f"{name}: {added}, {event.waited:.1f} s after the first sign"]
    if event.event == "failed":
        hint = f" ({printable(event.hint)})" if event.hint else ""
        return [f"{name}: error: {printable(event.error)}{hint}; it is tried again"]
    return [f"{name}: {'it works again' if event.event == 'back' else event.event}"]
