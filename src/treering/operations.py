"""Every operation on a repository that a user can ask for, as one typed function each.

What the faces offer is read from here, ``finding.py``, ``learning.py`` and, from file to file, ``exports.py``.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from treering import summary
from treering.assist.budget import spending
from treering.config import Settings
from treering.errors import DataError, StoreError, TreeringError
from treering.git.reader import read_refs
from treering.lm.base import check_base
from treering.opening import Place, embedder_of, finder_of
from treering.operate import alerts, trends
from treering.operate.journal import keep_up
from treering.operate.threads import FILE as THREADS
from treering.operate.threads import Threads
from treering.pipeline import index as index_stage
from treering.pipeline import learn as learn_stage
from treering.pipeline import mirror as mirror_stage
from treering.pipeline import scrape as scrape_stage
from treering.pipeline import tokenize as tokenize_stage
from treering.pipeline.common import caps_of
from treering.pipeline.export import changes, commits, format_of, write_table
from treering.report import Reporter
from treering.store import Store
from treering.store.views import ask
from treering.text.document import best_names
from treering.text.words import plain_words
from treering.tracing import span
from treering.types import Trend
from treering.vectors.embedder import EMBEDDERS, Embedder


def scrape(where: Place, report: Reporter, *, patches: bool = False) -> scrape_stage.Scraped:
    """Read every commit that the settings choose into the store; only what is new is read. With ``patches`` its hunks
    are read in the same pass: what they say, which patches are the same, and which secrets they hold.
    """
    refs = read_refs(where.source, where.settings.scrape)  # without a commit to start from, no store is made
    with where.store() as store:
        scraped = scrape_stage.scrape(store, where.source, where.settings, report, hunks=patches, refs=refs)
        if patches:  # what an earlier run read without its hunks, or was killed before it kept them
            index_stage.read_hunks(store, where.source, where.settings, report)
    if scraped.partial:
        report.warn(f"{scraped.partial} of {scraped.commits} commits have a partial diff: objects are missing")
    return scraped


@dataclass(frozen=True, slots=True)
class SecretsFound:
    """Secrets that were taken out of the history: how many by rule, and in which commits. Never what they are."""

    total: int
    by_rule: dict[str, int]
    commits: list[dict[str, object]]


def check_secrets(where: Place, report: Reporter) -> SecretsFound:
    """Read the history with its hunks and tell where it holds secrets."""
    scrape(where, report, patches=True)
    with where.store() as store:
        redactions = store.redactions()
    by_rule: Counter[str] = Counter()
    for rules in redactions.values():
        by_rule.update(rules)
    found: list[dict[str, object]] = [{"commit_hash": name, "rules": rules} for name, rules in redactions.items()]
    return SecretsFound(sum(by_rule.values()), dict(by_rule.most_common()), found)


def export(where: Place, output: Path, report: Reporter, *, table: str, as_format: str | None, patches: bool) -> int:
    """Write the history, brought up to date, to a file for other programs. Returns how many rows it has."""
    chosen = format_of(output, table, as_format)
    scrape(where, report, patches=patches)
    with where.store() as store:
        if table == "changes":
            return write_table(output, table, changes(store), chosen)
        caps = caps_of(where.settings) if patches else None
        with tokenize_stage.told_records(store, where.source, where.settings, caps) as records:
            return write_table(output, table, commits(report.track(records, store.count(), "writing records")), chosen)


def sql(
    where: Place, query: str, report: Reporter, *, seconds: float
) -> tuple[Sequence[str], Iterator[tuple[object, ...]]]:
    """Ask the store a question in SQL; its views are in docs/history.md. Read-only."""
    with where.store(existing=True) as store:
        path = store.path
    report.detail(f"store: {path}")
    return ask(path, query, seconds=seconds)


def index(
    where: Place, report: Reporter, *, rebuild: bool = False, embedder: Callable[[], Embedder] | None = None
) -> index_stage.Indexed:
    """Bring the store and its search index up to date; with ``rebuild``, make the index anew. ``embedder`` gives the
    model that the settings name where somebody has it loaded.
    """
    scrape(where, report, patches=True)
    with where.store() as store:
        indexed = index_stage.index(
            store, where.source, where.settings, report, embedder or embedder_of(where.settings), rebuild=rebuild
        )
        keep_log(store, where.settings, report)
    index_threads(where, report)
    return indexed


def is_current(where: Place, store: Store) -> bool:
    """Whether :func:`index` would find nothing to do; where only a model tells that must be loaded for it, False.

    Raises :class:`TreeringError` where the repository or the store cannot be read.
    """
    source, settings = where.source, where.settings
    return (
        settings.index.model in EMBEDDERS
        and scrape_stage.is_current(store, source, settings)
        and index_stage.is_current(store, settings, embedder_of(settings)())
    )


def index_threads(where: Place, report: Reporter) -> None:
    """Index the words of what was fetched from the forge, where an earlier version left it without them."""
    if (where.folder / THREADS).is_file():
        try:
            with Threads(where.folder) as kept:
                if kept.waiting:
                    kept.index()
        except StoreError as error:
            report.warn(f"what was discussed at the forge: {error.message} ({error.hint})")


@dataclass(frozen=True, slots=True)
class Status:
    """What the store holds, and whether the repository has moved on since."""

    repo: str
    store: str
    commits: int
    vanished: int
    partial: int
    indexed: int
    vectors: int
    behind: bool
    model: str | None
    verdict: str | None
    bytes: int
    last_runs: dict[str, dict[str, Any]]


def status(where: Place) -> Status:
    """What is indexed, whether the repository has moved on since, and what its model is worth. Makes nothing."""
    tips = scrape_stage.tips_of(where.source, where.settings)
    with where.store(existing=True) as store:
        model = learn_stage.current_model(store)
        runs = store.last_runs()
        size = sum(path.stat().st_size for path in where.folder.rglob("*") if path.is_file())
        return Status(
            repo=where.source.name,
            store=str(where.folder),
            commits=store.count(),
            vanished=store.vanished(),
            partial=store.partial(),
            indexed=store.indexed(),
            vectors=store.vectors(),
            behind=tips != store.fact("tips") or store.indexed() < store.count(),
            model=str(model) if model else None,
            verdict=learn_stage.report_of(model).verdict if model else None,
            bytes=size,
            last_runs=runs,
        )


def indexed_at(where: Place) -> float:
    """When the index was last brought up to date, in seconds since 1970."""
    with where.store(existing=True) as store:
        last = store.last_runs().get("index", {})
        return float(last.get("started", 0.0)) + float(last.get("seconds", 0.0))  # type: ignore[arg-type]  # JSON


def run(where: Place, report: Reporter) -> tuple[Path, summary.Summary]:
    """The main job: history → index → tokens → a model within the budget → a report. A second run makes what is new."""
    learns = where.settings.train.minutes > 0
    if learns:
        check_base(where.settings.train.model)  # before minutes of other work, not after
    seconds: dict[str, float] = {}
    began = time.time()

    @contextmanager
    def stage(name: str) -> Iterator[None]:
        started = time.monotonic()
        with span(name):
            yield
        seconds[name] = round(time.monotonic() - started, 2)

    with stage("scrape"):
        scraped = scrape(where, report, patches=True)
    report.say(f"history: {scraped.commits:,} commits, {scraped.new:,} new")
    with where.store() as store:
        with stage("index"):
            indexed = index_stage.index(store, where.source, where.settings, report, embedder_of(where.settings))
            index_threads(where, report)
        report.say(f"index: {indexed.commits:,} commits and {indexed.vectors:,} vectors added")
        told = None
        if learns:
            with stage("tokenize"):
                folder, corpus = tokenize_stage.tokenize(store, where.source, where.settings, report)
            report.say(f"tokens: {corpus.total_tokens:,} in {len(corpus.documents):,} documents")
            with stage("train"):
                try:
                    learned = learn_stage.train(store, folder, where.settings, report)
                    told = learned.report
                    report.say(f"model: {learned.folder}" if learned.new else "model: nothing new to learn")
                except DataError as error:  # too short a history: all else is done and worth its report
                    report.warn(f"no model was trained: {error.message}")
        with stage("examples"):
            examples = _examples(store, where.settings, report)
        stats = scrape_stage.history_stats(store)
        made = summary.Summary(
            repo=where.source.name,
            made=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            history={
                "commits": stats.commits, "merges": stats.merges, "insertions": stats.insertions,
                "deletions": stats.deletions, "authors": len(stats.authors), "branches": len(stats.branches),
                "days": stats.days, "partial_diffs": stats.partial, "vanished": scraped.vanished,
            },
            search=examples,
            holdout=asdict(told.holdout) if told else None,
            training=asdict(told) if told else None,
            seconds=seconds,
            warnings=tuple(report.warnings),
        )  # fmt: skip
        store.log_run("run", began, {"stages": seconds, "verdict": told.verdict if told else ""})
        after_run(where, report)
        page = summary.write_summary(where.folder / "reports", made, report)
    return page, made


def trend(where: Place, *, since: float = 0.0) -> Trend:
    """What the runs tell together, of those that began at ``since`` (seconds since 1970) or later."""
    days = spending(where.folder, where.settings.budget).days
    with where.store(existing=True) as store:
        return trends.trend(
            store.fact("repo") or where.source.name, store.runs(since=since, stages=trends.STAGES), days, since=since,
            false_alarms=where.settings.monitor.false_alarms,
        )  # fmt: skip


def after_run(where: Place, report: Reporter) -> None:
    """What follows a run that tells of quality: its line in the log, the trend for the report, and alerts. What of it
    cannot be done is said, and costs the run nothing.
    """
    try:
        with where.store(existing=True) as store:
            keep_log(store, where.settings, report)
        told = trend(where)
        summary.keep_trend(where.folder / "reports", told)
        alerts.tell(where.folder, told, where.settings.monitor, report.warn)
    except TreeringError as error:
        report.warn(f"after the run: {error.message} ({error.hint})")


def keep_log(store: Store, settings: Settings, report: Reporter) -> None:
    """Bring the log of runs up to date, where there is to be one."""
    if settings.monitor.log:
        try:
            keep_up(store, Path(settings.monitor.log), settings.monitor.log_bytes)
        except StoreError as error:
            report.warn(f"the log of runs: {error.message} ({error.hint})")


def _examples(store: Store, settings: Settings, report: Reporter, wanted: int = 3) -> list[summary.Example]:
    """Searches worth showing: the rare names of recent commits whose own message says least."""
    newest = [said for _, said in store.features() if said.identifiers][-100:]
    examples = []
    with finder_of(store, settings, report) as opened:
        for said in sorted(newest, key=lambda one: len(one.message.split()))[:wanted]:
            # Of a compound name its parts: nobody types `readTimeoutError` to find out what became of it.
            parts = [list(plain_words(name))[1:] or [name.lower()] for name in best_names(said, 3)]
            query = " ".join(dict.fromkeys(word for some in parts for word in some if len(word) > 2))
            if hits := opened.search(query, limit=3) if query else []:
                examples.append(summary.Example(query, hits))
    return examples


def qdrant_push(
    where: Place, report: Reporter, *, everything: bool = False, embedder: Callable[[], Embedder] | None = None
) -> mirror_stage.Pushed:
    """Bring the collection in Qdrant to what the store holds. Nothing is read from the repository. ``embedder`` as for
    :func:`index`.
    """
    with where.store(existing=True) as store:
        model = (embedder or embedder_of(where.settings))()
        with mirror_stage.opened(store, where.settings.vectors, model, create=True) as mirror:
            return mirror_stage.push(store, model, mirror, report, everything=everything)


def qdrant_pull(where: Place, report: Reporter) -> mirror_stage.Pulled:
    """Bring the store up to date, and take the vectors that it lacks from the collection in Qdrant."""
    scrape(where, report)
    with where.store() as store:
        embedder = embedder_of(where.settings)()
        with mirror_stage.opened(store, where.settings.vectors, embedder) as mirror:
            return mirror_stage.pull(store, where.source, where.settings, embedder, mirror, report)


def qdrant_verify(where: Place, report: Reporter) -> mirror_stage.Compared:
    """Compare the collection in Qdrant with the store, point by point."""
    with where.store(existing=True) as store:
        embedder = embedder_of(where.settings)()
        with mirror_stage.opened(store, where.settings.vectors, embedder) as mirror:
            return mirror_stage.verify(store, embedder, mirror, report)
