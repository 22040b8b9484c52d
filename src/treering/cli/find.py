"""The commands that find: search, similar, why, show, files, bench."""

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeVar

import click

from treering.cli.options import PATH, common, emit
from treering.errors import DataError, UsageError
from treering.report import Reporter, in_code, one_line, printable

T = TypeVar("T")

_LIMIT = click.option("--limit", type=int, help="How many results [default: 10].")
_AT = click.option("--at", default="", help="Know only what is reachable from this commit.")
_FLEET = click.option(
    "--fleet", metavar="DIR|URL", help="Search all repositories with stores in DIR/stores, or of a server's fleet."
)
_IN = click.option("--in", "repositories", multiple=True, help="With --fleet: only this repository; may hold *.")
_FORMAT = click.option(
    "--format", "as_format", type=click.Choice(["text", "markdown"]), default="text", show_default=True
)


def filtered(command: Callable[..., None]) -> Callable[..., None]:
    """The options that say which commits may be found."""
    for option in (
        click.option("--include-merges", is_flag=True, help="Find merges too."),
        click.option("--kind", default="", help="Only what changes a file of this kind: source, test, docs, …"),
        click.option("--path", default="", help="Only what changes this file or folder; may hold *."),
        click.option("--branch", default="", help="Only what is on this branch."),
        click.option("--until", default="", help="Only of that date or earlier."),
        click.option("--since", default="", help="Only of that date or later: 2024-01-31, or `3 months ago`."),
        click.option("--author", default="", help="Only whose author's name or address holds this."),
    ):
        command = option(command)
    return command


@click.command()
@click.argument("query", required=False)
@_LIMIT
@_AT
@filtered
@_FORMAT
@click.option("--batch", is_flag=True, help="Read JSON lines {id, query, n, at} from stdin, write {id, hits}.")
@_FLEET
@_IN
@common
def search(
    repo: Path,
    store: Path | None,
    as_json: bool,
    verbose: bool,
    query: str | None,
    limit: int | None,
    at: str,
    as_format: str,
    batch: bool,
    fleet: str | None,
    **filters: Any,
) -> None:
    """Find commits by what they did, whatever their message says."""
    from treering import finding
    from treering.types import Filters

    report = Reporter.to_stderr(verbose=verbose)
    text = "" if batch else _given(query, "query")
    with _opened(repo, store, fleet, filters, limit, report) as desk:
        if batch:
            _answer(finding.search_batch(desk.search, _lines(finding.SearchLine)))
            return
        hits = desk.search(text, filters=Filters(**filters), at=at)
    _show(hits, as_json=as_json, as_format=as_format)


@click.command()
@click.argument("commit")
@_LIMIT
@filtered
@_FORMAT
@_FLEET
@_IN
@common
def similar(
    repo: Path,
    store: Path | None,
    as_json: bool,
    verbose: bool,
    commit: str,
    limit: int | None,
    as_format: str,
    fleet: str | None,
    **filters: Any,
) -> None:
    """Find the commits that do most nearly what one commit does."""
    from treering.types import Filters

    report = Reporter.to_stderr(verbose=verbose)
    with _opened(repo, store, fleet, filters, limit, report) as desk:
        hits = desk.similar(commit, filters=Filters(**filters))
    _show(hits, as_json=as_json, as_format=as_format)


@click.command()
@click.argument("place", metavar="FILE[:LINE]")
@_LIMIT
@_FORMAT
@common
def why(
    repo: Path, store: Path | None, as_json: bool, verbose: bool, place: str, limit: int | None, as_format: str
) -> None:
    """Find the commits that explain a file, or a line of it: git's own blame, then search."""
    from treering import finding, opening

    where = opening.place(repo, store, {"search": {"limit": limit}})
    _show(finding.why(where, place, Reporter.to_stderr(verbose=verbose)), as_json=as_json, as_format=as_format)


@click.command()
@click.argument("commit")
@common
def show(repo: Path, store: Path | None, as_json: bool, verbose: bool, commit: str) -> None:
    """Show a commit as the index knows it: its place, its figures, its hunks without secrets."""
    from treering import finding, opening

    with finding.desk(opening.place(repo, store), Reporter.to_stderr(verbose=verbose), vectors=False) as desk:
        found = desk.commit(commit)
    if as_json:
        emit(found)
        return
    said = found.commit
    click.echo(one_line(f"{said.commit_hash} {said.message_subject}"))
    click.echo(one_line(f"{said.author_name}, {said.branch}: {said.diff_summary}"))
    for line in said.message_body.split("\n") if said.message_body else ():
        click.echo(f"    {one_line(line)}")
    for thread in found.threads:
        for line in finding.told(thread).split("\n"):
            click.echo(f"    | {one_line(line)}")
    for hunk in found.hunks:
        click.echo(one_line(f"--- {hunk.path}") + (f" ({hunk.cut:,} bytes left out)" if hunk.cut else ""))
        click.echo(printable(hunk.text))


@click.command()
@click.argument("task", required=False)
@click.option("--given", multiple=True, help="A file that is known to be part of it.")
@_LIMIT
@_AT
@click.option("--batch", is_flag=True, help="Read JSON lines {id, task, n, at, given} from stdin, write {id, hits}.")
@common
def files(
    repo: Path,
    store: Path | None,
    as_json: bool,
    verbose: bool,
    task: str | None,
    given: tuple[str, ...],
    limit: int | None,
    at: str,
    batch: bool,
) -> None:
    """Predict the files that a task will touch."""
    from treering import finding, opening

    report = Reporter.to_stderr(verbose=verbose)
    text = "" if batch else _given(task, "task")
    where = opening.place(repo, store, {"search": {"limit": limit}})
    if batch:
        _answer(finding.files_batch(where, _lines(finding.FilesLine), report))
        return
    found = finding.files(where, text, report, given=given, at=at)
    if as_json:
        emit(found)
        return
    for one in found:
        click.echo(one_line(f"[{one.score:.4f}] {one.path}"))
        click.echo(one_line(f"         {one.why}"))
    if not found:
        click.echo("no file fits that", err=True)


@click.command()
@click.option("--questions", type=PATH, help="A JSON file of questions with the commits that answer them.")
@click.option(
    "--most", type=click.IntRange(min=10), default=300, show_default=True, help="Cases of each kind, the newest."
)
@common
def bench(repo: Path, store: Path | None, as_json: bool, verbose: bool, questions: Path | None, most: int) -> None:
    """Measure search and file prediction on this repository, beside what people use instead."""
    from treering import benching, opening

    where = opening.place(repo, store)
    page, made = benching.bench(where, Reporter.to_stderr(verbose=verbose), questions=questions, most=most)
    if as_json:
        emit(made)
        return
    for of in dict.fromkeys(row.cases_of for row in made.rows):
        rows = [row for row in made.rows if row.cases_of == of]
        click.echo(f"{of} ({rows[0].cases} cases)")
        for row in rows:
            low, high = row.mrr_difference
            click.echo(f"  {row.way:20s} MRR@10 {row.mrr:.3f}  recall@10 {row.recall:.3f}  [{low:+.3f}, {high:+.3f}]")
    if made.files:
        click.echo(f"files that a commit touches ({made.files[0].cases} commits)")
        for one in made.files:
            click.echo(f"  {one.way:28s} MRR@10 {one.mrr:.3f}  recall@10 {one.recall:.3f}")
    if not made.rows:
        click.echo("this history has no titles of merges and no changelog to ask about", err=True)
    click.echo(one_line(f"Report: {page}"))


def _opened(
    repo: Path, store: Path | None, fleet: str | None, filters: dict[str, Any], limit: int | None, report: Reporter
) -> AbstractContextManager[Any]:
    """The index of a repository, or of a fleet, here or behind a server."""
    from treering import finding, gathering, opening
    from treering.config import load

    flags = {"search": {"limit": limit}}
    if fleet and store:
        raise UsageError("--store is of one repository, --fleet of many", "give one of them")
    if filters["repositories"] and not fleet:
        raise UsageError("--in chooses among the repositories of a fleet", "give --fleet")
    if fleet:
        settings = load(None, os.environ, flags)
        if "://" in fleet:
            from treering import remote

            return remote.Remote(fleet, settings, report)
        return gathering.Gathering(opening.stores_of(Path(fleet)), settings, report)
    return finding.desk(opening.place(repo, store, flags), report)


def _given(text: str | None, what: str) -> str:
    if text is None:
        raise UsageError(f"the {what} is missing", "give it, or --batch and JSON lines on stdin")
    return text


def _lines(kind: type[T]) -> Iterator[T]:
    """The lines of stdin as values; empty ones are passed over."""
    import msgspec

    for number, line in enumerate(sys.stdin.buffer, start=1):
        if line.strip():
            try:
                yield msgspec.json.decode(line, type=kind)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise DataError(f"line {number} of stdin is no question: {error}", "see docs/formats.md") from error


def _answer(answers: Iterable[object]) -> None:
    import msgspec

    for answer in answers:
        sys.stdout.buffer.write(msgspec.json.encode(answer) + b"\n")
        sys.stdout.buffer.flush()


def _show(hits: list[Any], *, as_json: bool, as_format: str) -> None:
    if as_json:
        emit(hits)
        return
    for hit in hits:
        (_markdown if as_format == "markdown" else _text)(hit)
    if not hits:
        click.echo("no commit answers that", err=True)


def _text(hit: Any) -> None:
    files = ", ".join(hit.files[:3]) + (f" and {len(hit.files) - 3:,} more" if len(hit.files) > 3 else "")
    of = f"{hit.repository}: " if hit.repository else ""
    click.echo(one_line(f"[{hit.score:.4f}] {of}{hit.subject} ({hit.commit_hash[:7]})"))
    branch = f", {hit.branch}" if hit.branch else ""
    click.echo(one_line(f"         {hit.date[:10]} {hit.author}{branch}: {files}"))
    click.echo(one_line(f"         {hit.why}"))
    for line in hit.hunk.split("\n")[:6] if hit.hunk else ():
        click.echo(one_line(f"         | {line[:160]}"))


def _markdown(hit: Any) -> None:
    """A hit as a list item; what comes from the repository stands in code, where it formats nothing."""
    of = f"{in_code(hit.repository)} " if hit.repository else ""
    click.echo(
        f"- {of}{in_code(hit.commit_hash[:12])} {in_code(hit.subject or '(no subject)')}, {in_code(hit.author)},"
        f" {hit.date[:10]}"
    )
    click.echo(f"  - why: {in_code(hit.why)}")
    click.echo(f"  - files: {', '.join(in_code(path) for path in hit.files[:8]) or 'none'}")
    if hit.hunk:
        lines = printable(hit.hunk).replace("```", "` ` `").split("\n")
        click.echo("\n".join(f"  {line}" for line in ("```diff", f"# {one_line(hit.hunk_path)}", *lines, "```")))
