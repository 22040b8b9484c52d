"""The command that serves repositories over HTTP."""

import json
import os
from pathlib import Path
from typing import Any

import click

from treering.cli.options import PATH, REPOS, guarded
from treering.errors import ServiceError, UsageError, needs
from treering.report import Reporter


@click.command()
@REPOS
@click.option("--store", type=PATH, help="The store's folder, of a single repository [default: .treering there].")
@click.option("--fleet", type=PATH, help="A fleet: searched as one by the name `*`, or one of it by its own.")
@click.option(
    "--host", help="The address to listen at; any but the machine's own demands a token [default: 127.0.0.1]."
)
@click.option("--port", type=int, help="The port; 0 is any free one [default: 8080].")
@click.option("--name", "names", multiple=True, help="A name that the server is asked by beside its address.")
@click.option("--threads", type=int, help="Questions answered at once [default: as many as cores].")
@click.option("--processes", type=int, help="Processes that answer quick questions in place of threads [default: 0].")
@click.option("--preload", is_flag=True, help="Open the indexes and load the model before anyone asks.")
@click.option("--json", "as_json", is_flag=True, help="Print the address as JSON on stdout.")
@click.option("--verbose", is_flag=True, help="Say more on stderr.")
@guarded
def serve(
    repos: tuple[Path, ...],
    store: Path | None,
    fleet: Path | None,
    as_json: bool,
    verbose: bool,
    preload: bool,
    **flags: Any,
) -> None:
    """Serve repositories over HTTP: search, answers, OpenAI's paths, MCP and a page."""
    from treering import config, forging, opening

    with needs("serve"):
        from treering.serve import guard, running, webhooks
        from treering.serve.fleet import Fleet

    report = Reporter.to_stderr(verbose=verbose)
    all_settings = config.load(None, os.environ, {"serve": flags})
    settings, forge = all_settings.serve, all_settings.forge
    guard.check(settings)
    mirrors = forging.mirrors(forge)
    named = [*repos, *(one.folder for one in mirrors.values())]
    places = opening.places(named, store) if named or not fleet else {}
    if fleet and store and not places:
        raise UsageError("--store is of one repository, --fleet of many", "give --repo, too, or leave --store out")
    count = len(opening.stores_of(fleet)) if fleet else 0
    taken = webhooks.taking(mirrors, places)

    def begun(url: str) -> None:
        told = [*places, *([f"{count:,} repositories of {fleet}"] if fleet else [])]
        report.say(f"serving {', '.join(told)} at {url}")
        if as_json:
            click.echo(json.dumps({"url": url}))

    try:
        whole = Fleet(fleet, all_settings) if fleet else None
        running.serve(places, settings, report, begun, preload=preload, forge=forge, taken=taken, fleet=whole)
    except OSError as error:
        raise ServiceError(
            f"cannot listen at {settings.host}:{settings.port}: {error.strerror or error}",
            "give --port another one (0: any that is free), or stop who has it",
        ) from error
