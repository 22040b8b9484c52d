"""The commands that keep a store sound: verify, backup, restore, gc, uninstall."""

import sys
from pathlib import Path
from typing import Any

import click

from treering.cli.options import PATH, OneLine, common, emit
from treering.errors import Unsound, UsageError
from treering.report import Reporter, one_line


@click.command(cls=OneLine)
@click.option("--full", is_flag=True, help="Look at everything, not at samples.")
@click.option("--repair", is_flag=True, help="Make what is wrong again.")
@common
def verify(repo: Path, store: Path | None, as_json: bool, verbose: bool, full: bool, repair: bool) -> None:
    """Compare the store with what it was made of, and mend it with --repair."""
    from treering import caring, opening

    report = Reporter.to_stderr(verbose=verbose)
    found = caring.verify(opening.place(repo, store), report, everything=full, repair=repair)
    if as_json:
        emit(found)
    else:
        for part in found.parts:
            _tell(part)
        if found.aside:
            click.echo(one_line(f"what was taken out lies in {found.aside}: `treering gc` removes it later"))
    if not found.sound:
        wrong = [part.name for part in found.parts if part.wrong]
        hint = "restore a backup, or delete the store's folder" if repair else "run `treering verify --repair`"
        if wrong == ["ledger"]:
            hint = "move ledger.db away, and restore a backup"
        raise Unsound(f"not sound: {', '.join(wrong)}", hint)


def _tell(part: Any) -> None:
    mark = "wrong " if part.wrong else "mended" if part.mended else "sound "
    click.echo(one_line(f"{mark}  {part.name:<10}{part.looked_at or 'could not be looked at'} ({part.seconds:.1f} s)"))
    for what, lines in (("was", part.found if part.mended else ()), ("", part.mended), ("is", part.wrong)):
        for line in lines:
            click.echo(one_line(f"          {what + ': ' if what else ''}{line}"))
    for line in part.notes:
        click.echo(one_line(f"          note: {line}"))


@click.command(cls=OneLine)
@click.argument("target", type=PATH)
@common
def backup(repo: Path, store: Path | None, as_json: bool, verbose: bool, target: Path) -> None:
    """Write the store to a file, or into a folder, while it is in use."""
    from treering import caring, opening

    made = caring.backup(opening.place(repo, store), target, Reporter.to_stderr(verbose=verbose))
    if as_json:
        emit(made)
    else:
        click.echo(one_line(f"{made.file}: {made.files:,} files, {made.bytes / 1e6:,.1f} MB"))


@click.command(cls=OneLine)
@click.argument("file", type=PATH)
@click.option("--force", is_flag=True, help="Take the place of a store that is there.")
@common
def restore(repo: Path, store: Path | None, as_json: bool, verbose: bool, file: Path, force: bool) -> None:
    """Put a backup in the place of the store."""
    from treering import caring

    made = caring.restore(file, repo, store, Reporter.to_stderr(verbose=verbose), force=force)
    if as_json:
        emit(made)
    else:
        click.echo(one_line(f"{made.store}: as {made.repo or 'it'} was on {made.made}, {made.files:,} files"))


@click.command(cls=OneLine)
@click.option("--days", type=click.FloatRange(min=0), default=30.0, show_default=True, help="What is younger stays.")
@click.option("--dry-run", is_flag=True, help="Remove nothing, and say what would be.")
@common
def gc(repo: Path, store: Path | None, as_json: bool, verbose: bool, days: float, dry_run: bool) -> None:
    """Remove what nothing in the store names any more."""
    from treering import caring, opening

    swept = caring.sweep(opening.place(repo, store), Reporter.to_stderr(verbose=verbose), days=days, dry=dry_run)
    freed = sum(one.bytes for one in swept)
    if as_json:
        emit({"removed": swept, "bytes": freed, "dry_run": dry_run})
        return
    for one in swept:
        click.echo(one_line(f"{one.bytes / 1e6:>10,.1f} MB  {one.what}"))
    click.echo(f"{freed:,} bytes {'would be freed' if dry_run else 'freed'}")


@click.command(cls=OneLine)
@click.option("--dry-run", is_flag=True, help="Remove nothing, and say what would be.")
@click.option("--yes", is_flag=True, help="Remove without asking.")
@common
def uninstall(repo: Path, store: Path | None, as_json: bool, verbose: bool, dry_run: bool, yes: bool) -> None:
    """Take the store away, and all else of ours: the repository is then as it was found."""
    import os

    from treering import caring, hooking, opening
    from treering.serve import clients

    report = Reporter.to_stderr(verbose=verbose)

    removers: tuple[caring.Remover, ...] = (hooking.unhook, lambda place, dry: clients.remove(place, dry=dry))
    where = opening.place(repo, store)
    chosen = bool(store or os.environ.get("TREERING_STORE"))
    found = caring.uninstall(where, removers, hooking.left_behind, chosen=chosen, dry=True)
    if not dry_run and found.removed:
        if not yes:
            if not sys.stdin.isatty():
                raise UsageError(f"{found.store} would be removed and nobody can be asked", "give --yes, or --dry-run")
            for one in found.removed:
                click.echo(one_line(one), err=True)
            if not click.confirm(one_line(f"Remove them ({found.bytes / 1e6:,.1f} MB)?"), err=True):
                raise UsageError(f"{found.store} was left as it is", "--dry-run says what would be removed")
        found = caring.uninstall(where, removers, hooking.left_behind, chosen=chosen)
    if as_json:
        emit(found)
        return
    for one in found.removed:
        click.echo(one_line(f"{'would remove' if dry_run else 'removed'} {one}"))
    for name in found.kept:
        report.say(f"left {name} in {found.store}: it is not ours")
    for one in found.left:
        report.say(f"left {one}")
    if not found.removed:
        click.echo("there is nothing of treering here")
