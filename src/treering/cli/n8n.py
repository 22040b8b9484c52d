"""The commands for n8n: the workflows it imports."""

from pathlib import Path

import click

from treering.cli.options import PATH, Commands, common, emit
from treering.report import Reporter, one_line


@click.group(cls=Commands)
def n8n() -> None:
    """Workflows for n8n: a push is indexed, a task routed, the model improved, an agent answered."""


@n8n.command()
@click.argument("folder", type=PATH)
@click.option("--url", "server", help="Where n8n finds `treering serve` [default: http://127.0.0.1:8080].")
@click.option("--notify", help="Where each run's outcome is posted as JSON [default: nowhere].")
@common
def export(
    repo: Path, store: Path | None, as_json: bool, verbose: bool, folder: Path, server: str | None, notify: str | None
) -> None:
    """Write four workflows and an example of their credentials, ready to be imported."""
    from treering import automating, opening

    made = automating.export_n8n(opening.place(repo, store), folder, server=server or "", notify=notify or "")
    if as_json:
        emit(made)
        return
    report = Reporter.to_stderr(verbose=verbose)
    for one in made.workflows:
        click.echo(one_line(f"{one.file}  {one.name}"))
        for path in one.webhooks:
            report.say(f"  answers at /webhook/{path}")
    click.echo(one_line(made.credentials) + ("" if made.credentials_written else "  (was there, and is left as it is)"))
