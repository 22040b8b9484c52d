"""The commands for the models of a store."""

import time
from pathlib import Path

import click

from treering.cli.options import Commands, common, emit
from treering.report import Reporter, one_line


@click.group(cls=Commands)
def models() -> None:
    """The models of the store: list, use, remove, compare."""


@models.command("list")
@common
def list_models(repo: Path, store: Path | None, as_json: bool, verbose: bool) -> None:
    """Name the models, the newest first; * is the current one."""
    from treering import learning, opening

    found = learning.models(opening.place(repo, store))
    if as_json:
        emit(found)
        return
    if not found:
        click.echo("no models yet: run `treering train`", err=True)
    for model in found:
        made = time.strftime("%Y-%m-%d %H:%M", time.localtime(model.made))
        before, after = (f"{bits:.3f}" if bits is not None else "?" for bits in model.bits_per_byte)
        click.echo(
            one_line(
                f"{'*' if model.current else ' '} {model.name}  {made}  {model.method} of {model.base},"
                f" {model.tokens:,} tokens, {before} → {after} bits per byte,"
                f" {model.bytes / 1e6:.0f} MB"
            )
        )
        if verbose:
            click.echo(f"  {model.verdict}")


@models.command()
@click.argument("name")
@common
def use(repo: Path, store: Path | None, as_json: bool, verbose: bool, name: str) -> None:
    """Make another model the current one."""
    from treering import learning, opening

    folder = learning.use_model(opening.place(repo, store), name)
    Reporter.to_stderr(verbose=verbose).detail(f"model: {folder}")
    if as_json:
        emit({"model": str(folder)})
    else:
        click.echo(one_line(f"{folder.name} is the current model"))


@models.command()
@click.argument("name")
@common
def remove(repo: Path, store: Path | None, as_json: bool, verbose: bool, name: str) -> None:
    """Remove a model that is not the current one."""
    from treering import learning, opening

    folder = learning.remove_model(opening.place(repo, store), name)
    Reporter.to_stderr(verbose=verbose).detail(f"removed: {folder}")
    if as_json:
        emit({"removed": str(folder)})
    else:
        click.echo(one_line(f"{folder.name} is gone"))


@models.command()
@click.argument("first")
@click.argument("second", default="")
@common
def compare(repo: Path, store: Path | None, as_json: bool, verbose: bool, first: str, second: str) -> None:
    """Put two models side by side on commits that neither learned from; the second is the current one by default."""
    from treering import learning, opening

    report = Reporter.to_stderr(verbose=verbose)
    found = learning.compare_models(opening.place(repo, store), first, second, report)
    if as_json:
        emit(found)
        return
    for name, bits in found.bits_per_byte.items():
        click.echo(f"{name}  {bits:.4f} bits per byte")
    change, low, high = found.difference
    click.echo(
        f"{change:+.4f} [{low:+.4f}, {high:+.4f}] over {found.documents} commits that neither learned from:"
        f" {found.verdict}"
    )
