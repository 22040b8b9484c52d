"""``treering qdrant``: the store's vectors in Qdrant, and back."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from treering.cli.options import common, emit
from treering.errors import StoreError
from treering.report import Reporter, one_line


@click.group()
def qdrant() -> None:
    """Keep a mirror of the vectors in Qdrant: push, pull, verify."""


def mirrored(command: Callable[..., None]) -> Callable[..., None]:
    """The options that say where the mirror is."""
    for option in (
        click.option("--tenant", "qdrant_tenant", help="The repository's name in a collection that several share."),
        click.option("--collection", "qdrant_collection", help="Its name [default: the repository's, with -commits]."),
        click.option("--qdrant-url", help="Where the server is [default: http://localhost:6333]."),
        click.option("--backend", help="qdrant, or edge: Qdrant's engine in this process [default: qdrant]."),
    ):
        command = option(command)
    return command


def _place(repo: Path, store: Path | None, **vectors: str | None) -> Any:
    from treering import opening

    return opening.place(repo, store, {"vectors": vectors})


@qdrant.command()
@click.option("--all", "everything", is_flag=True, help="Write every point again.")
@mirrored
@common
def push(repo: Path, store: Path | None, as_json: bool, verbose: bool, everything: bool, **where: Any) -> None:
    """Bring the collection to what the store holds: only what is missing, changed or gone."""
    from treering import operations

    report = Reporter.to_stderr(verbose=verbose)
    done = operations.qdrant_push(_place(repo, store, **where), report, everything=everything)
    if as_json:
        emit(done)
    else:
        click.echo(f"{done.points:,} points; {done.written:,} written, {done.removed:,} removed")


@qdrant.command()
@mirrored
@common
def pull(repo: Path, store: Path | None, as_json: bool, verbose: bool, **where: Any) -> None:
    """Fill the store's vectors from the collection, so that nothing is embedded here."""
    from treering import operations

    done = operations.qdrant_pull(_place(repo, store, **where), Reporter.to_stderr(verbose=verbose))
    if as_json:
        emit(done)
        return
    rest = f"; {done.missing:,} texts have none yet: run `treering index`" if done.missing else ""
    click.echo(f"{done.vectors:,} vectors taken{rest}")


@qdrant.command()
@mirrored
@common
def verify(repo: Path, store: Path | None, as_json: bool, verbose: bool, **where: Any) -> None:
    """Compare the collection with the store, point by point."""
    from treering import operations

    found = operations.qdrant_verify(_place(repo, store, **where), Reporter.to_stderr(verbose=verbose))
    said = f"{found.missing:,} missing, {found.extra:,} extra, {found.different:,} different"
    if as_json:
        emit(found)
    else:
        click.echo(f"{found.here:,} points here, {found.there:,} there: {said}")
        click.echo(f"{found.agreement:.1%} of the nearest commits it finds are those of an exact search")
        for example in found.examples:
            click.echo(one_line(example))
    if not found.same:
        raise StoreError(f"the collection is not what the store holds: {said}", "run `treering qdrant push --all`")
