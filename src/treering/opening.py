"""How a repository is found and its index opened. What is done with them then is in ``operations.py``, ``finding.py``
and ``learning.py``; nothing of what only those need is imported here, for every command waits for it.
"""

import os
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from treering.config import SECTIONS, Settings, load
from treering.errors import DataError, ModelError, NoStore, RepositoryError, StoreError, UsageError
from treering.files import as_text
from treering.git.reader import Source, locate
from treering.operate.threads import FILE as THREADS
from treering.operate.threads import Threads
from treering.pipeline import mirror as mirror_stage
from treering.pipeline import scrape as scrape_stage
from treering.report import Reporter
from treering.search.commits import Finder
from treering.search.fusion import LEARNED
from treering.store import FOLDER, Store, store_folder
from treering.store.fleet import Fleet, mirror_of, store_of
from treering.vectors.embedder import Embedder, embed, load_embedder

BEHIND = "the index is behind the repository: run `treering index`, or keep `treering watch` on"

THEIRS = ("scrape", "route")
"""The sections of a repository's own file that hold in a fleet. All else is the fleet's: what is made of them is
compared with, and learned beside, what is made of the others, by models that none of them may choose.
"""

Flags = Mapping[str, Mapping[str, object]]


@dataclass(frozen=True, slots=True)
class Place:
    """A repository, its settings, and where its store lies."""

    source: Source
    settings: Settings
    folder: Path

    def command(self, name: str, *options: str) -> list[str | Path]:
        """A command of ours on this repository, for a process of its own."""
        repo = self.source.worktree or self.source.git_dir
        usual = store_folder(self.source.worktree, self.source.git_dir, os.environ.get("TREERING_STORE"))
        # A store that is not named is looked at again: whether it has come with the repository meanwhile.
        store: list[str | Path] = [] if self.folder == usual else ["--store", self.folder]
        # -P: no module of the folder that we were started in is taken for ours.
        return [sys.executable, "-P", "-m", "treering", name, *options, "--repo", repo, *store]

    @contextmanager
    def store(self, *, existing: bool = False) -> Iterator[Store]:
        with Store.existing(self.folder) if existing else Store(self.folder) as store:
            yield store


def place(
    repo: Path, store: Path | None = None, flags: Flags | None = None, *, heeding: Collection[str] = frozenset(SECTIONS)
) -> Place:
    """Find the repository, its settings and its store. ``store`` beats ``TREERING_STORE``; both beat the default.
    ``heeding`` only these sections of the repository's own file.

    Raises :class:`RepositoryError` or :class:`UsageError`.
    """
    source = locate(repo)
    settings = load(source.worktree, os.environ, flags, heeding=heeding)
    chosen = store or os.environ.get("TREERING_STORE")
    folder = store_folder(source.worktree, source.git_dir, chosen)
    if not chosen and (folder.is_symlink() or source.tracks(FOLDER)):
        raise StoreError(f"{folder} comes with the repository and is not ours", "give --store another folder")
    return Place(source, settings, folder)


def places(repos: Sequence[Path], store: Path | None = None) -> dict[str, Place]:
    """Several repositories (the one we are in, if none is named) by their names; of two of one name the later gets a
    number.

    Raises :class:`UsageError` where two would have one store.
    """
    found: dict[str, Place] = {}
    for repo in repos or (Path(),):
        where = place(repo, store)
        name = where.source.name
        if any(where.folder == other.folder for other in found.values()):
            raise UsageError(f"{name} would have the store of another one", "a store is of one repository")
        names = (name, *(f"{name}-{number}" for number in range(2, len(repos) + 2)))
        found[next(one for one in names if one not in found)] = where
    return found


def of_fleet(path: Path, store: Path, flags: Flags | None = None) -> Place:
    """A repository of a fleet, which lies there and nowhere around it, by the fleet's settings.

    Raises what :func:`place` does.
    """
    where = place(path, store, flags, heeding=THEIRS)
    if path.resolve() not in (where.source.worktree, where.source.git_dir, where.source.git_dir.parent):
        raise RepositoryError(
            f"{path} is not a Git repository",
            f"it lies in {where.source.worktree or where.source.git_dir}, which may be named instead",
        )
    return where


def member(fleet: Path, name: str) -> Place:
    """A repository of a fleet by its name there. Raises :class:`RepositoryError` where it is not known where it lies,
    and what :func:`place` does.
    """
    mirror = mirror_of(fleet, name)
    if mirror.exists():
        return of_fleet(mirror, store_of(fleet, name))
    with Fleet(fleet, reading=True) as register:
        found = register.named(name)
    if not found:
        raise RepositoryError(f"where {name} lies is not known", "run `treering fleet update` with it in the list")
    return of_fleet(Path(found.source), store_of(fleet, name))


def stores_of(fleet: Path) -> dict[str, Path]:
    """The stores of a fleet, by the names of their repositories: the folders in ``stores`` that hold an index.

    Raises :class:`NoStore` where there is none at all.
    """
    found = {as_text(path.parent.name): path.parent for path in sorted(fleet.glob("stores/*/treering.db"))}
    if not found:
        raise NoStore(f"there is no store in {fleet / 'stores'}", "give --fleet the folder of a fleet that was indexed")
    return found


def private_in(fleet: Path) -> dict[str, tuple[str, ...] | None]:
    """What the repositories of a fleet keep private by their own settings, by their names; None of one whose settings
    cannot be read. Those that are fetched have none.
    """
    found: dict[str, tuple[str, ...] | None] = {}
    if not (fleet / Fleet.file).is_file():
        return found
    with Fleet(fleet, reading=True) as register:
        sources = {one.name: Path(one.source).expanduser() for one in register.repositories() if one.name}
    for name, path in sources.items():
        worktree = next((folder for folder in (path, *path.parents) if (folder / ".git").exists()), None)
        if not mirror_of(fleet, name).exists():
            try:
                found[name] = load(worktree, os.environ).route.private_paths if path.exists() else None
            except UsageError:
                found[name] = None
    return found


def embedder_of(settings: Settings, threads: int = 0) -> Callable[[], Embedder]:
    """Loads the embedding model that the settings name."""
    return partial(load_embedder, settings.index.model, settings.index.batch_tokens, threads)


def embedder(settings: Settings, threads: int = 0) -> Embedder:
    """The embedding model of an index, loaded: many threads may use it at once, and it computes by so many
    of its own (0: as many as cores).

    Raises :class:`ModelError` if it is not on this machine.
    """
    loaded = embedder_of(settings, threads)()
    embed(loaded, ["loaded"])  # what is loaded by the first text must not be loaded by two threads
    return loaded


@contextmanager
def finder(
    where: Place, report: Reporter, *, vectors: bool = True, embedder: Embedder | None = None
) -> Iterator[Finder]:
    """The index, open for questions. Says where it is behind the repository or answers by words alone. An ``embedder``
    that is loaded already is used.

    Raises :class:`DataError` if it holds no commits.
    """
    with where.store(existing=True) as store, ThreadPoolExecutor(1) as beside, ExitStack() as stack:
        if not store.searchable():
            raise DataError("the index holds no commits", "run `treering index` first")
        asked = beside.submit(scrape_stage.tips_of, where.source, where.settings)  # git answers while it is opened
        with (
            finder_of(store, where.settings, report, embedder)
            if vectors
            else nullcontext(Finder(store, None)) as opened
        ):
            _discuss(where.folder, opened, stack, report)
            if asked.result() != store.fact("tips") or len(opened.history) < store.count():
                report.say(BEHIND)
            yield opened


def _discuss(folder: Path, opened: Finder, stack: ExitStack, report: Reporter) -> None:
    """Let commits be found by what was fetched from the forge, where anything was."""

    def lost(error: StoreError) -> None:
        report.warn(f"searching without what was discussed at the forge: {error.message} ({error.hint})")

    if (folder / THREADS).is_file():
        try:
            texts = stack.enter_context(Threads(folder, reading=True))
            waiting = texts.waiting
        except StoreError as error:
            lost(error)
            return
        if waiting:
            report.warn(f"the words of {waiting:,} texts of the forge wait to be indexed (run `treering index`)")
        opened.discussing(texts, lost)


@contextmanager
def finder_of(store: Store, settings: Settings, report: Reporter, embedder: Embedder | None = None) -> Iterator[Finder]:
    """The index of an open store, by words and meaning; by words alone, said, where there is no model or no vector."""
    try:
        embedder = embedder or embedder_of(settings)()
    except ModelError as error:
        report.warn(f"searching by words only: {error.message} ({error.hint})")
        yield Finder(store, None)
        return
    with mirror_stage.for_search(store, settings.vectors, embedder, report) as index:
        weights = replace(LEARNED, dense=LEARNED.dense * settings.search.dense_weight)
        opened = Finder(store, embedder, weights, index, partial(mirror_stage.told_lost, report))
        if index is None and opened.dense:
            try:
                _ = opened.dense.rows
            except StoreError as error:  # the words are whole, and better than nothing
                report.warn(f"searching by words only: {error.message} ({error.hint})")
                yield Finder(store, None)
                return
        if opened.dense and not opened.dense.count:
            report.warn("searching by words only: the index has no vectors of this model yet (run `treering index`)")
        elif opened.dense and (missing := opened.dense.lacking):
            which = "are found by words only: they have" if opened.dense.telling else "have"
            told = f"{missing:,} commits {which} no vectors yet (run `treering index`)"
            report.warn(told if opened.dense.telling else f"searching by words only: {told}")
        yield opened
