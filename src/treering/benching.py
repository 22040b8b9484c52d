"""How well finding works on a repository itself: ``treering bench``."""

import hashlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import msgspec

from treering.errors import StoreError
from treering.files import read_json
from treering.git.reader import Reader, open_reader
from treering.opening import Place, finder
from treering.operations import after_run
from treering.report import Reporter
from treering.search import benchmark
from treering.search.commits import Finder
from treering.search.files import Predictor
from treering.store import Store
from treering.summary import write_bench
from treering.types import Bench


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
    began, started = time.time(), time.monotonic()
    with finder(where, report) as opened, open_reader(where.source, where.settings.scrape) as reader:
        history = opened.history
        messages = messages_of(opened)
        cases = cases_of(opened, reader, messages, questions, most)
        told = benchmark.judged(opened, cases, messages)
        touched = benchmark.measure_files(Predictor(history), reader.shadow, messages, most)
        made = Bench(
            repo=where.source.name,
            commits=len(history),
            made=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            seconds=round(time.monotonic() - started, 1),
            rows=tuple(benchmark.rows_of(told)),
            files=tuple(touched),
        )
        _remember(opened.store, began, cases, told, report)
    after_run(where, report)
    return write_bench(where.folder / "reports", made, report), made


def _remember(
    store: Store, began: float, cases: Sequence[benchmark.Case], told: benchmark.Judged, report: Reporter
) -> None:
    """What our way made of each case, so that the next bench can be compared with this one case by case."""
    named = [hashlib.sha256(f"{case.source}\n{case.query}".encode()).hexdigest()[:12] for case in cases]
    ours = [(round(one.reciprocal, 4), round(one.recall, 4)) for one in told.outcomes["treering"]]
    mrr, recall = (round(sum(column) / len(ours), 4) for column in zip(*ours, strict=True)) if ours else (None, None)
    try:
        store.log_run("bench", began, {"mrr": mrr, "recall": recall, "cases": dict(zip(named, ours, strict=True))})
    except StoreError as error:  # it may only be read
        report.detail(f"this bench is not remembered: {error.message}")
