"""The operation that hands whole histories on: a dataset of Parquet files, of one repository or of a fleet."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from treering import operations
from treering.errors import DiskFull, StoreError, UsageError
from treering.files import as_text
from treering.opening import Place, stores_of
from treering.pipeline import dataset
from treering.pipeline.datacard import Total
from treering.report import Reporter, one_line
from treering.store import Store

WHO = "treering dataset"


@dataclass(frozen=True, slots=True)
class Published:
    """What became of each repository, by its name, and what the dataset holds now. ``failed`` says why."""

    written: tuple[str, ...]
    unchanged: tuple[str, ...]
    taken_out: tuple[str, ...]
    failed: dict[str, str]
    tables: dict[str, Total]


def publish(where: Place, destination: str, report: Reporter) -> Published:
    """Bring a repository's history up to date, and its partition of a dataset; the other partitions are left."""
    with dataset.opened(destination, WHO) as made:
        operations.scrape(where, report, patches=True)
        with where.store() as store:
            name = store.fact("repo") or where.source.name
            draft = made.draft(name, store, report)
        if draft:
            made.put(draft)
        made.finish()
        return Published((name,) if draft else (), () if draft else (name,), (), {}, made.card.tables)


def publish_fleet(fleet: Path, destination: str, report: Reporter, only: Sequence[str] = ()) -> Published:
    """Bring a dataset to what the stores of a fleet hold; nothing is read from the repositories. What has no store
    there any more is taken out. With ``only`` none but the repositories named are looked at.

    A store that cannot be read costs only its own partition, which stays as it was.
    """
    folders = _folders(fleet)
    written: list[str] = []
    unchanged: list[str] = []
    taken_out: list[str] = []
    failed: dict[str, str] = {}
    with dataset.opened(destination, WHO) as made:
        known = made.names | {*folders}
        if unknown := sorted({*only} - known):
            raise UsageError(f"there is no repository {unknown[0]!r} in {fleet}", "give --repository the name of one")
        for name in sorted({*only} or known):
            if name not in folders:
                made.take_out(name)
                taken_out.append(name)
                continue
            try:
                with Store.existing(folders[name]) as store:
                    draft = made.draft(name, store, report)
            except DiskFull:
                raise
            except StoreError as error:
                failed[name] = f"{error.message} ({error.hint})"
                report.warn(f"{one_line(name)}: {failed[name]}")
                continue
            if draft:
                made.put(draft)
            (written if draft else unchanged).append(name)
        made.finish()
        return Published(tuple(written), tuple(unchanged), tuple(taken_out), failed, made.card.tables)


def _folders(fleet: Path) -> dict[str, Path]:
    """Where the store of each repository of a fleet lies, or should lie, by the names of the partitions.

    Raises :class:`NoStore` where there is none at all: a disk that is not there must not empty a dataset.
    """
    stores_of(fleet)
    found: dict[str, Path] = {}
    for path in sorted((fleet / "stores").iterdir()):
        if path.is_dir() and found.setdefault(as_text(path.name), path) != path:
            raise UsageError(f"{found[as_text(path.name)]} and {path} would be one partition", "rename one of them")
    return found
