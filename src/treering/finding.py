"""The operations that find: commits by words, by likeness, by a line of a file; the files a task will touch; and how
well all this works on a repository.
"""

import posixpath
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec.structs import replace

from treering.errors import DataError, UsageError
from treering.files import read_json
from treering.git.blame import blamed, line_history, texts, tree
from treering.git.reader import Reader, open_reader, read_refs
from treering.git.shadow import GitFailed, Shadow, shadow_of
from treering.operations import Place, finder
from treering.report import Reporter
from treering.search import benchmark
from treering.search.commits import Finder
from treering.search.files import Predictor
from treering.summary import write_bench
from treering.types import NO_FILTERS, Bench, FilePrediction, Filters, Hit

_LINE = re.compile(r"(.+):0*([1-9][0-9]{0,8})", re.DOTALL)

LONGEST_QUERY = 20_000
"""Characters of a query that are read; what comes after is a file, not a question."""


def search(where: Place, query: str, report: Reporter, *, filters: Filters = NO_FILTERS, at: str = "") -> list[Hit]:
    """The commits that answer a question in words, best first. ``at`` knows only what is reachable from a commit."""
    if not query.strip():
        raise UsageError("the query is empty", "say in words what the commit did")
    with finder(where, report) as opened:
        return opened.search(_text(query), limit=where.settings.search.limit, filters=_texts(filters), at=at)


def _text(text: str) -> str:
    """What is asked, cut, and as the store tells undecodable bytes: an argument of the command line has them as
    surrogates, which SQLite does not take.
    """
    return text[:LONGEST_QUERY].encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _texts(filters: Filters) -> Filters:
    return replace(filters, author=_text(filters.author), branch=_text(filters.branch), path=_text(filters.path))


def similar(where: Place, commit: str, report: Reporter, *, filters: Filters = NO_FILTERS) -> list[Hit]:
    """The commits that do most nearly what one commit does."""
    with finder(where, report) as opened:
        return opened.similar(commit, limit=where.settings.search.limit, filters=_texts(filters))


def why(where: Place, place: str, report: Reporter) -> list[Hit]:
    """The commits that explain a file, or a line of it (``FILE:LINE``): those that wrote it by git's own blame, those
    that changed the line before, then those that search finds for its words.
    """
    named = _LINE.fullmatch(_text(place))
    path, line = (named[1], int(named[2])) if named else (_text(place), None)
    path = posixpath.normpath(path)
    limit = where.settings.search.limit
    with finder(where, report) as opened, shadow_of(where.source) as shadow:
        tip = newest(where, opened)
        wrote = blamed(shadow, tip, path, line)
        reasons = {name: f"wrote {count:,} of its lines" if line is None else "wrote it" for name, count in wrote}
        for name in line_history(shadow, tip, path, line) if line else ():
            reasons.setdefault(name, "changed it before")
        content = texts(shadow, tip, [path]).get(path, "").split("\n")
        words = content[line - 1] if line and line <= len(content) else path
        hits = opened.told({name: reason for name, reason in reasons.items() if name in opened.history.number}, words)
        found = opened.search(_text(f"{path} {words}"), limit=limit, filters=Filters(path=path))
        return [*hits, *(hit for hit in found if hit.commit_hash not in reasons)][:limit]


def newest(where: Place, opened: Finder) -> str:
    """The newest commit that is indexed of the first of the refs."""
    refs = read_refs(where.source, where.settings.scrape)
    return next((ref.tip for ref in refs if ref.tip in opened.history.number), opened.history.hashes[-1])


@dataclass(frozen=True, slots=True)
class Forecaster:
    """A predictor of files, open, with the trees that its candidates come from."""

    finder: Finder
    predictor: Predictor
    shadow: Shadow
    tip: str

    def files(self, task: str, *, limit: int, given: Sequence[str] = (), at: str = "") -> list[FilePrediction]:
        """The files of ``at`` (the newest commit, by default) that a task will touch; nothing later is known."""
        if not task.strip():
            raise UsageError("the task is empty", "say in words what is to be done")
        history = self.finder.history
        commit = history.hashes[history.find(at)] if at else self.tip
        mask = history.at(commit) if at else history.everything
        try:
            candidates = tree(self.shadow, commit)
        except GitFailed:  # trees are missing: the files that were changed must do
            touches = self.predictor.touches
            candidates = sorted({touches.names[file] for file in touches.files[mask[touches.commits]]})

        contents = partial(texts, self.shadow, commit)
        return self.predictor.predict(_text(task), candidates, mask=mask, limit=limit, given=given, contents=contents)


@contextmanager
def forecaster(where: Place, report: Reporter) -> Iterator[Forecaster]:
    with finder(where, report, vectors=False) as opened, shadow_of(where.source) as shadow:
        yield Forecaster(opened, Predictor(opened.history), shadow, newest(where, opened))


def files(
    where: Place, task: str, report: Reporter, *, given: Sequence[str] = (), at: str = ""
) -> list[FilePrediction]:
    """The files that a task will probably touch, best first, each with a reason."""
    with forecaster(where, report) as opened:
        return opened.files(task, limit=where.settings.search.limit, given=given, at=at)


HowMany = Annotated[int, msgspec.Meta(ge=1, le=1000)]


class SearchLine(msgspec.Struct, forbid_unknown_fields=True):
    """A line of ``treering search --batch``."""

    id: str | int
    query: str
    n: HowMany = 10
    at: str = ""


class FilesLine(msgspec.Struct, forbid_unknown_fields=True):
    """A line of ``treering files --batch``."""

    id: str | int
    task: str
    n: HowMany = 10
    at: str = ""
    given: tuple[str, ...] = ()


Answer = dict[str, object]


def search_batch(where: Place, lines: Iterable[SearchLine], report: Reporter) -> Iterator[Answer]:
    """Answers many questions with one open index: ``{"id", "hits"}`` each, in order."""
    with finder(where, report) as opened:
        for number, line in enumerate(lines, start=1):
            query = _text(line.query)
            with _told_of(number):
                hits = opened.search(query, limit=line.n, at=line.at) if query.strip() else []
            yield {"id": line.id, "hits": hits}


def files_batch(where: Place, lines: Iterable[FilesLine], report: Reporter) -> Iterator[Answer]:
    """The same for files."""
    with forecaster(where, report) as opened:
        for number, line in enumerate(lines, start=1):
            with _told_of(number):
                hits = opened.files(line.task, limit=line.n, at=line.at, given=line.given) if line.task.strip() else []
            yield {"id": line.id, "hits": hits}


@contextmanager
def _told_of(number: int) -> Iterator[None]:
    """What is wrong with a line, with its number."""
    try:
        yield
    except UsageError as error:
        raise DataError(f"line {number}: {error.message}", error.hint) from error


class Questions(msgspec.Struct):
    """A file of questions with their answers: full hashes, or their beginnings."""

    class One(msgspec.Struct):
        query: Annotated[str, msgspec.Meta(min_length=1)]
        answers: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
        id: str = ""

    questions: tuple[One, ...]
    repository: str = ""
    written: str = ""


def messages_of(opened: Finder) -> dict[int, str]:
    """The messages of the indexed commits, by their numbers."""
    number = opened.history.number
    records = opened.store.records()
    return {number[record.commit_hash]: record.message for record in records if record.commit_hash in number}


def cases_of(
    opened: Finder, reader: Reader, messages: Mapping[int, str], questions: Path | None, most: int
) -> list[benchmark.Case]:
    """What a repository is asked: the newest ``most`` cases of each source, and the questions of a file."""
    asked = read_json(questions, Questions).questions if questions else ()
    cases = benchmark.cases_of(opened.history, reader, messages, most)
    for one in asked:
        answers = frozenset(opened.history.find(name) for name in one.answers)
        cases.append(benchmark.Case("questions", one.query, answers, -1))
    return cases


def bench(where: Place, report: Reporter, *, questions: Path | None, most: int) -> tuple[Path, Bench]:
    """Measure search and file prediction on the repository itself, and show it in the report, whose page is returned
    too; docs/quality.md tells the protocol.
    """
    started = time.monotonic()
    with finder(where, report) as opened, open_reader(where.source, where.settings.scrape) as reader:
        history = opened.history
        messages = messages_of(opened)
        cases = cases_of(opened, reader, messages, questions, most)
        rows = benchmark.rows_of(benchmark.judged(opened, cases, messages))
        touched = benchmark.measure_files(Predictor(history), reader.shadow, messages, most)
        made = Bench(
            repo=where.source.name,
            commits=len(history),
            made=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            seconds=round(time.monotonic() - started, 1),
            rows=tuple(rows),
            files=tuple(touched),
        )
    return write_bench(where.folder / "reports", made, report), made
