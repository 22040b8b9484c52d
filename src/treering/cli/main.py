"""The ``treering`` command: one subcommand an operation. stdout is data, stderr is talk."""

import functools
import itertools
import os
import re
import shlex
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import click

from treering import __version__
from treering.errors import Incomplete, StoreError, TreeringError
from treering.report import Reporter, one_line, printable

INTERRUPTED = 130
_PATH = click.Path(path_type=Path)


def emit(value: object) -> None:
    """Print a value as JSON on stdout."""
    import msgspec

    text = msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"
    # C1 control characters are legal in JSON, and some terminals obey them.
    escaped = re.sub(rb"\xc2([\x80-\x9f])|\x7f", lambda match: b"\\u00%02x" % (match[1] or b"\x7f")[0], text)
    sys.stdout.buffer.write(escaped)


def fail(error: TreeringError) -> NoReturn:
    """One line that names the thing, a hint, and the documented exit code."""
    click.echo(f"error: {printable(error.message)}", err=True)
    if error.hint:
        click.echo(f"hint: {printable(error.hint)}", err=True)
    sys.exit(error.exit_code)


def guarded(command: Callable[..., None]) -> Callable[..., None]:
    """Turn our errors and an interrupt into their exit codes."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
            sys.stdout.flush()
        except TreeringError as error:
            fail(error)
        except KeyboardInterrupt:
            click.echo("interrupted: what was done is kept, and the next run goes on from it", err=True)
            sys.exit(INTERRUPTED)
        except BrokenPipeError:
            # The reader went away (`| head`). Python would complain once more when it flushes at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(128 + signal.SIGPIPE)
        except OSError as error:  # of our own output: whatever else is read or written is named where it is
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            fail(StoreError(f"cannot write {error.filename or 'the output'}: {error.strerror}", "choose another place"))

    return run


def common(command: Callable[..., None]) -> Callable[..., None]:
    """The options every command has."""
    for option in (
        click.option("--verbose", is_flag=True, help="Say more on stderr."),
        click.option("--json", "as_json", is_flag=True, help="Print the result as JSON."),
        click.option("--store", type=_PATH, help="The store's folder [default: .treering there; $TREERING_STORE]."),
        click.option("--repo", type=_PATH, default=".", show_default=True, help="The Git repository."),
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


_MODEL = click.option("--model", help="The base model: smollm2-135m, scratch, a Hugging Face name or a folder.")
_MINUTES = click.option("--minutes", type=float, help="The wall-time budget of training [default: 5].")
_STRATEGY = click.option("--strategy", help="semantic, hierarchical, diff-aware or flat.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """The complete history of a Git repository: searched, asked and learned from, on your own machine."""


@main.command()
@_MINUTES
@_MODEL
@_STRATEGY
@chosen
@strict
@common
def run(repo: Path, store: Path | None, as_json: bool, verbose: bool, strict: bool, **flags: Any) -> None:
    """The main job: read, index, tokenise, train within a budget, report."""
    from treering import operations

    report = Reporter.to_stderr(verbose=verbose)
    where = operations.place(repo, store, settings_of(flags))
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
    from treering import operations

    report = Reporter.to_stderr(verbose=verbose)
    where = operations.place(repo, store, settings_of(flags))
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
@click.argument("output", type=_PATH)
@click.option("--format", "as_format", help="jsonl, json, csv or parquet [default: by the file's name].")
@click.option("--table", default="commits", show_default=True, help="commits or changes.")
@click.option("--patches", is_flag=True, help="With the hunks of every commit.")
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
    table: str,
    patches: bool,
    **flags: Any,
) -> None:
    """Write the history to a file for other programs."""
    from treering import operations

    report = Reporter.to_stderr(verbose=verbose)
    where = operations.place(repo, store, settings_of(flags))
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

    from treering import operations

    names, rows = operations.sql(
        operations.place(repo, store), query, Reporter.to_stderr(verbose=verbose), seconds=seconds
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
    from treering import operations

    report = Reporter.to_stderr(verbose=verbose)
    indexed = operations.index(operations.place(repo, store, settings_of(flags)), report, rebuild=rebuild)
    if as_json:
        emit(indexed)
    else:
        click.echo(f"{indexed.commits:,} commits and {indexed.vectors:,} vectors added in {indexed.seconds:.1f} s")
    check(report, strictly=strict)


@main.command()
@click.argument("query")
@click.option("--limit", type=int, help="How many results [default: 10].")
@common
def search(repo: Path, store: Path | None, as_json: bool, verbose: bool, query: str, limit: int | None) -> None:
    """Find commits by what they did, whatever their message says."""
    from treering import operations

    report = Reporter.to_stderr(verbose=verbose)
    hits = operations.search(operations.place(repo, store, {"search": {"limit": limit}}), query, report)
    if as_json:
        emit(hits)
        return
    for hit in hits:
        files = ", ".join(hit.files[:3]) + (f" and {len(hit.files) - 3:,} more" if len(hit.files) > 3 else "")
        click.echo(one_line(f"[{hit.score:.4f}] {hit.subject} ({hit.commit_hash[:7]})"))
        click.echo(one_line(f"         {hit.date[:10]} {hit.author}, {hit.branch}: {files}"))
        click.echo(one_line(f"         {hit.why}"))
    if not hits:
        click.echo("no commit answers that", err=True)


@main.command()
@_STRATEGY
@_MODEL
@click.option("--markers", help="text, or tokens added to the vocabulary.")
@click.option("--sequence-length", type=int, help="Tokens in a training block.")
@common
def tokenize(repo: Path, store: Path | None, as_json: bool, verbose: bool, **flags: Any) -> None:
    """Turn the history into a token stream for the base model."""
    from treering import operations

    report = Reporter.to_stderr(verbose=verbose)
    folder, corpus = operations.tokenize(operations.place(repo, store, settings_of(flags)), report)
    if as_json:
        emit({"folder": str(folder), "total_tokens": corpus.total_tokens, "documents": len(corpus.documents),
              "num_sequences": corpus.num_sequences, "vocab_size": corpus.vocab_size,
              "strategy": corpus.strategy})  # fmt: skip
    else:
        click.echo(f"{corpus.total_tokens:,} tokens of {len(corpus.documents):,} commits in {folder}")


@main.command()
@_MINUTES
@_MODEL
@_STRATEGY
@click.option("--method", help="lora or full.")
@click.option("--epochs", type=int)
@click.option("--batch-size", type=int)
@click.option("--learning-rate", type=float)
@click.option("--seed", type=int)
@click.option("--gpu/--no-gpu", default=None, help="Use a GPU if there is one.")
@common
def train(repo: Path, store: Path | None, as_json: bool, verbose: bool, **flags: Any) -> None:
    """Fine-tune the base model on the history and judge it on later commits."""
    from treering import operations

    report = Reporter.to_stderr(verbose=verbose)
    folder, told = operations.train(operations.place(repo, store, settings_of(flags)), report)
    if as_json:
        emit({"model": str(folder), "report": told})
    else:
        click.echo(f"{told.verdict}\nModel: {folder}")


@main.command()
@click.argument("prompt", default="")
@click.option("--max-tokens", type=click.IntRange(min=1), default=128, show_default=True)
@click.option(
    "--temperature",
    type=click.FloatRange(0, 10),
    default=0.7,
    show_default=True,
    help="0 always takes the likeliest token.",
)
@click.option("--seed", type=int, default=7, show_default=True)
@common
def generate(
    repo: Path,
    store: Path | None,
    as_json: bool,
    verbose: bool,
    prompt: str,
    max_tokens: int,
    temperature: float,
    seed: int,
) -> None:
    """Let the current model go on from a prompt."""
    from treering import operations

    where = operations.place(repo, store)
    report = Reporter.to_stderr(verbose=verbose)
    text = operations.generate(where, prompt, report, max_tokens=max_tokens, temperature=temperature, seed=seed)
    if as_json:
        emit({"prompt": prompt, "text": text})
    else:
        click.echo(printable(text))


@main.command()
@common
def status(repo: Path, store: Path | None, as_json: bool, verbose: bool) -> None:
    """What the store holds, and whether the repository has moved on."""
    from treering import operations

    found = operations.status(operations.place(repo, store))
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


_SECTION_OF = {
    "strategy": "tokens", "markers": "tokens", "sequence_length": "tokens", "model": "train", "minutes": "train",
    "method": "train", "epochs": "train", "batch_size": "train", "learning_rate": "train", "seed": "train",
    "gpu": "train", "branches": "scrape", "since": "scrape", "until": "scrape", "paths": "scrape", "author": "scrape",
    "merges": "scrape", "max_commits": "scrape", "refs": "scrape", "mailmap": "scrape",
    "allow_secrets": "scrape",
}  # fmt: skip


def settings_of(flags: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Flags by the section of the settings they override."""
    chosen: dict[str, dict[str, Any]] = {}
    for name, value in flags.items():
        chosen.setdefault(_SECTION_OF[name], {})[name] = value
    return chosen
