"""The ``treering`` command: one subcommand an operation. stdout is data, stderr is talk."""

import atexit
import gc
import itertools
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import click

from treering import __version__
from treering.cli import ask, care, find, improve, learn, qdrant, route
from treering.cli.brief import brief
from treering.cli.dataset import dataset
from treering.cli.doctor import doctor
from treering.cli.fleet import fleet
from treering.cli.forge import forge
from treering.cli.gate import gate
from treering.cli.learn import MINUTES, MODEL, STRATEGY, WHICH
from treering.cli.mcp import mcp
from treering.cli.models import models
from treering.cli.n8n import n8n
from treering.cli.options import PATH, Commands, check, chosen, common, emit, settings_of, strict
from treering.cli.overview import overview
from treering.cli.serve import serve
from treering.cli.watch import hooks, watch
from treering.errors import UsageError
from treering.report import Reporter, one_line, printable

atexit.register(gc.freeze)  # the system takes the memory back: looking through all of it for cycles takes a tenth


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """The complete history of a Git repository: searched, asked and learned from, on your own machine."""


@main.command()
@MINUTES
@MODEL
@STRATEGY
@chosen
@strict
@common
def run(repo: Path, store: Path | None, as_json: bool, verbose: bool, strict: bool, **flags: Any) -> None:
    """The main job: read, index, tokenise, train within a budget, report."""
    from treering import opening, operations

    report = Reporter.to_stderr(verbose=verbose)
    where = opening.place(repo, store, settings_of(flags))
    page, summary = operations.run(where, report)
    if as_json:
        emit(summary)
    else:
        _tell(summary, page, repo)
    check(report, strictly=strict)


def _tell(summary: Any, page: Path, repo: Path) -> None:
    if summary.holdout:
        click.echo(summary.holdout["verdict"])
    click.echo(one_line(f"Report: {page}"))
    command = sys.argv[0] if Path(sys.argv[0]).name == "treering" and not shutil.which("treering") else "treering"
    click.echo("\nTry next:")
    option = "" if str(repo) == "." else f" --repo {one_line(shlex.quote(str(repo)))}"
    query = summary.search[0].query if summary.search else "what you are looking for"
    click.echo(f'  {command} search{option} "{printable(query)}"')
    if summary.training:
        click.echo(f'  {command} generate{option} "<MESSAGE> Fix"')
    click.echo(f"  {command} status{option}")


@main.command()
@click.option("--patches", is_flag=True, help="Read the hunks in the same pass.")
@click.option("--check-secrets", is_flag=True, help="Read the hunks, and tell where the history holds secrets.")
@chosen
@strict
@common
def scrape(
    repo: Path,
    store: Path | None,
    as_json: bool,
    verbose: bool,
    strict: bool,
    patches: bool,
    check_secrets: bool,
    **flags: Any,
) -> None:
    """Read the commits of all branches into the store."""
    from treering import opening, operations

    report = Reporter.to_stderr(verbose=verbose)
    where = opening.place(repo, store, settings_of(flags))
    if check_secrets:
        _tell_secrets(operations.check_secrets(where, report), as_json=as_json)
        check(report, strictly=strict)
        return
    scraped = operations.scrape(where, report, patches=patches)
    if as_json:
        emit(scraped)
    else:
        click.echo(
            f"{scraped.commits:,} commits, {scraped.new:,} new, {scraped.vanished:,} vanished,"
            f" {scraped.partial:,} partial"
        )
    check(report, strictly=strict)


def _tell_secrets(found: Any, *, as_json: bool) -> None:
    if as_json:
        emit(found)
        return
    for commit in found.commits:
        rules = ", ".join(f"{rule} {count}" for rule, count in commit["rules"].items())
        click.echo(f"{commit['commit_hash']} {rules}")
    click.echo(f"{found.total:,} secrets in {len(found.commits):,} commits; they are taken out of all that is kept")


@main.command()
@click.argument("output", type=PATH)
@click.option(
    "--format",
    "as_format",
    help="jsonl, json, csv or parquet [default: by the file's name]; of the model: gguf, safetensors or adapter.",
)
@click.option("--table", help="commits or changes [default: commits].")
@click.option("--patches", is_flag=True, help="With the hunks of every commit.")
@click.option("--quantize", help="The numbers of a gguf: q8_0, f16 or f32 [default: q8_0].")
@WHICH
@chosen
@strict
@common
def export(
    repo: Path,
    store: Path | None,
    as_json: bool,
    verbose: bool,
    strict: bool,
    output: Path,
    as_format: str | None,
    table: str | None,
    patches: bool,
    quantize: str | None,
    model: str | None,
    **flags: Any,
) -> None:
    """Write the history to a file, or the model to a folder, for other programs."""
    from treering import learning, opening, operations

    report = Reporter.to_stderr(verbose=verbose)
    where = opening.place(repo, store, settings_of(flags))
    if as_format in learning.MODEL_FORMATS:
        if table or patches or any(value not in (None, ()) for value in flags.values()):
            raise UsageError(
                f"--table, --patches and a choice of commits are of the history, and {as_format} is of the model",
                "leave them out",
            )
        learn.export_model(where, output, report, as_json=as_json, as_format=as_format, quantize=quantize, model=model)
        return
    if quantize or model:
        raise UsageError("--quantize and --model are of a model's export", "give --format gguf")
    table = table or "commits"
    rows = operations.export(where, output, report, table=table, as_format=as_format, patches=patches)
    if as_json:
        emit({"file": str(output), "rows": rows})
    else:
        click.echo(one_line(f"{rows:,} rows in {output}"))
    check(report, strictly=strict)


@main.command()
@click.argument("query")
@click.option("--csv", "as_csv", is_flag=True, help="Print the rows as CSV.")
@click.option("--seconds", type=click.FloatRange(min=0.1), default=60, show_default=True, help="How long it may take.")
@common
def sql(repo: Path, store: Path | None, as_json: bool, verbose: bool, query: str, as_csv: bool, seconds: float) -> None:
    """Ask the store in SQL: commits, changes, mentions, authors, churn, co_change."""
    import csv

    from treering import opening, operations

    names, rows = operations.sql(
        opening.place(repo, store), query, Reporter.to_stderr(verbose=verbose), seconds=seconds
    )
    if as_json:
        emit([dict(zip(names, row, strict=True)) for row in rows])
        return
    writer = csv.writer(sys.stdout, lineterminator="\n") if as_csv else None
    for row in itertools.chain([names], rows):
        cells = [one_line("" if value is None else str(value)) for value in row]
        if writer:
            writer.writerow(cells)
        else:
            click.echo("\t".join(cell.replace("\t", " ") for cell in cells))


@main.command()
@click.option("--rebuild", is_flag=True, help="Make the index anew.")
@chosen
@strict
@common
def index(
    repo: Path, store: Path | None, as_json: bool, verbose: bool, strict: bool, rebuild: bool, **flags: Any
) -> None:
    """Bring the search index up to date."""
    from treering import opening, operations

    report = Reporter.to_stderr(verbose=verbose)
    indexed = operations.index(opening.place(repo, store, settings_of(flags)), report, rebuild=rebuild)
    if as_json:
        emit(indexed)
    else:
        click.echo(f"{indexed.commits:,} commits and {indexed.vectors:,} vectors added in {indexed.seconds:.1f} s")
    check(report, strictly=strict)


@main.command()
@common
def status(repo: Path, store: Path | None, as_json: bool, verbose: bool) -> None:
    """What the store holds, and whether the repository has moved on."""
    from treering import opening, operations

    found = operations.status(opening.place(repo, store))
    if as_json:
        emit(found)
        return
    click.echo(
        one_line(
            f"{found.repo}: {found.commits:,} commits ({found.partial:,} partial, {found.vanished:,} vanished),"
            f" store {found.store} ({found.bytes / 1e6:.1f} MB)"
        )
    )
    behind = "; behind the repository: run `treering index`" if found.behind else ""
    click.echo(f"index: {found.indexed:,} commits, {found.vectors:,} vectors{behind}")
    click.echo(one_line(f"model: {found.model or 'none yet: run `treering train`'}"))
    if found.verdict:
        click.echo(f"       {found.verdict}")
    if verbose:
        for stage, last in found.last_runs.items():
            click.echo(f"last {stage}: {last}")


for command in (
    find.search,
    find.similar,
    find.why,
    find.show,
    find.files,
    find.bench,
    learn.tokenize,
    learn.train,
    learn.evaluate,
    improve.learn,
    improve.monitor,
    learn.generate,
    doctor,
    fleet,
    forge,
    learn.message,
    learn.suggest,
    models,
    brief,
    mcp,
    qdrant.qdrant,
    overview,
    route.route,
    route.feedback,
    route.spend,
    ask.context,
    ask.ask,
    gate,
    serve,
    care.verify,
    care.backup,
    care.restore,
    care.gc,
    care.uninstall,
    hooks,
    watch,
    n8n,
    dataset,
):
    main.add_command(command)
