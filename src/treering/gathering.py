"""The operations that find over many repositories at once: one search over all their histories, as if they were one."""

import resource
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Self, TypeVar

from treering.config import Settings
from treering.errors import DataError, ModelError, StoreBusy, StoreError
from treering.finding import question_of, text_of, texts_of
from treering.opening import embedder_of
from treering.report import Reporter
from treering.search.commits import Finder
from treering.search.fusion import LEARNED
from treering.search.shards import Shards
from treering.store import Store
from treering.text.paths import matching
from treering.types import NO_FILTERS, Filters, Hit
from treering.vectors.embedder import Embedder
from treering.vectors.flat import FlatMatrix

T = TypeVar("T")

FILES = 3
"""So many files are open of a store: the database, its log, and the log's index."""
SPARE = 100
"""And so many others."""
CACHE = 256 << 10
"""So many bytes of a store's file are kept in memory. More makes nothing faster: the system has them too."""
SIGHTS = 4
"""For so many who may see different repositories what they see is kept in memory."""
NAMES_TOLD = 8
"""So many repositories are named of those of which the same is to be said."""


class Gathering:
    """The indexes of many repositories, open for questions over all of them; one thread uses it at a time.

    A repository whose index cannot be read, or not by meaning, stands in nobody's way: it is left out, or answers by
    words alone, and the reporter is warned of which and why. An ``embedder`` that is loaded already is used. Of some
    repositories patterns of paths are ``private`` (None: all of it), and a ``discreet`` answer tells of no commit that
    touches such a path.
    """

    def __init__(
        self,
        stores: Mapping[str, Path],
        settings: Settings,
        report: Reporter,
        *,
        embedder: Embedder | None = None,
        private: Mapping[str, Sequence[str] | None] | None = None,
    ) -> None:
        self._folders = dict(stores)
        self._private = private or {}
        self._settings = settings
        self._report = report
        self._embedder = embedder
        self._weights = replace(LEARNED, dense=LEARNED.dense * settings.search.dense_weight)
        self._closing = ExitStack()
        self._stores: dict[str, Store] = {}
        self._wordy: dict[str, str] = {}
        """Why the vectors of a repository are not looked at."""
        self._lost: dict[str, StoreError] = {}
        """What could not be read for the question that is asked."""
        self._finders: OrderedDict[tuple[tuple[str, ...], bool], Finder] = OrderedDict()
        self._wordless = ""
        """Why all answer by words alone."""
        self._short: dict[str, tuple[str, str]] = {}
        """Which repositories answer not at all, or by words alone, and why."""
        self._warned: set[str] = set()

    def __enter__(self) -> Self:
        most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if most != resource.RLIM_INFINITY and (needed := FILES * len(self._folders) + SPARE) > most:
            raise StoreError(
                f"{len(self._folders):,} stores need {needed:,} open files, and this process may have {most:,}",
                f"allow it more: `ulimit -n {needed}`",
            )
        try:
            self._embedder = self._embedder or embedder_of(self._settings)()
        except ModelError as error:
            self._wordless = f"searching by words only: {error.message} ({error.hint})"
            self._warn(self._wordless)
        self._open()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    @property
    def repositories(self) -> tuple[str, ...]:
        """The names of those that answer."""
        return tuple(self._stores)

    def notes(self, visible: Collection[str] | None = None) -> tuple[str, ...]:
        """Where the last answer to somebody falls short, as it may be said to them."""
        short: dict[tuple[str, str], list[str]] = defaultdict(list)
        for name, why in self._short.items():
            if visible is None or name in visible:
                short[why].append(name)
        told = [
            f"{what} {', '.join(names[:NAMES_TOLD])}{', …' * (len(names) > NAMES_TOLD)}: {why}"
            for (what, why), names in short.items()
        ]
        return (self._wordless, *told) if self._wordless else tuple(told)

    def search(
        self,
        query: str,
        *,
        limit: int = 0,
        filters: Filters = NO_FILTERS,
        at: str = "",
        visible: Collection[str] | None = None,
        discreet: bool = False,
    ) -> list[Hit]:
        """The commits of all repositories that answer a question in words, best first. What is not of the ``visible``
        ones is as if it were not there: it is not found, and no word is rarer or more common for it.
        """
        text, filters, most = question_of(query), texts_of(filters), limit or self._settings.search.limit
        return self._answer(lambda of: of.search(text, limit=most, filters=filters, at=text_of(at)), visible, discreet)

    def similar(
        self,
        commit: str,
        *,
        limit: int = 0,
        filters: Filters = NO_FILTERS,
        visible: Collection[str] | None = None,
        discreet: bool = False,
    ) -> list[Hit]:
        """The commits of all repositories that do most nearly what one commit does."""
        name, filters, most = text_of(commit), texts_of(filters), limit or self._settings.search.limit
        return self._answer(lambda of: of.similar(name, limit=most, filters=filters), visible, discreet)

    def finder(self, visible: Collection[str] | None, *, discreet: bool = False) -> Finder:
        """The index of the repositories that may be seen, as if there were no others. It holds until the next question,
        which may open all stores again.
        """
        kept = {name for name, patterns in self._private.items() if discreet and patterns is None}
        seen = tuple(name for name in self._stores if name not in kept and (visible is None or name in visible))
        if not seen:
            raise DataError("there is no index to search", "run `treering index` on some repository first")
        patterns = {one for name in seen for one in self._private.get(name) or ()} if discreet else set()
        key = seen, bool(patterns)
        if key not in self._finders and patterns:
            whole = self.finder(seen)
            self._finders[key] = whole.without(matching(whole.store.paths(), sorted(patterns)))
        elif key not in self._finders:
            stores = {name: self._stores[name] for name in seen}
            shards = Shards(stores, wordy=self._wordy, lost=self._lost.__setitem__)
            self._finders[key] = Finder(shards, self._embedder, self._weights)
            self._tell_wordy(self._finders[key])
        if len(self._finders) > SIGHTS:
            self._finders.popitem(last=False)
        self._finders.move_to_end(key)
        return self._finders[key]

    def _answer(self, question: Callable[[Finder], T], visible: Collection[str] | None, discreet: bool) -> T:
        """What a question is answered with. Where a store cannot be read any more all are opened again, since it may
        have been made anew; if it cannot be read then either, it is left out.
        """
        suspected: set[str] = set()
        while True:
            self._lost.clear()
            try:
                return question(self.finder(visible, discreet=discreet))
            except StoreError:
                if not self._lost:
                    raise
            for name in suspected & self._lost.keys():
                self._leave_out(name, self._lost[name])
            suspected |= self._lost.keys()
            self._closing.close()
            self._open()

    def _open(self) -> None:
        self._closing = ExitStack()
        self._finders.clear()
        self._stores.clear()
        self._wordy.clear()
        self._short = {name: why for name, why in self._short.items() if name not in self._folders}
        for name, folder in list(self._folders.items()):
            try:
                store = Store.existing(folder).__enter__()
                self._closing.callback(self._close, name, store)
                with store.complaining():
                    store.remember(CACHE)
                    if not store.searchable():
                        raise DataError("the index holds no commits", "run `treering index` first")
                    self._look_at_vectors(name, store)
            except (DataError, StoreError) as error:
                self._leave_out(name, error)
            except OSError as error:
                self._leave_out(name, StoreError(f"{folder}: {error.strerror}", "check its permissions"))
            else:
                self._stores[name] = store

    def _close(self, name: str, store: Store) -> None:
        try:
            store.__exit__(None, None, None)
        except StoreBusy as error:  # it could only be read as it lay
            self._warn(f"{name}: {error.message} ({error.hint})")

    def _look_at_vectors(self, name: str, store: Store) -> None:
        if not self._embedder:
            return
        made = self._embedder.fingerprint
        try:
            FlatMatrix(store.folder / "vectors" / made, self._embedder.dimensions).rows(store.vectors(made))
        except StoreError as error:
            self._wordy[name] = f"{error.message} ({error.hint})"

    def _tell_wordy(self, finder: Finder) -> None:
        """Say which repositories answer by words alone, and why."""
        why = defaultdict(list)
        if finder.dense:
            for name, telling in zip(finder.store.repositories, finder.dense.telling_in, strict=True):
                if not telling:
                    few = "too few of the commits have vectors of this model (run `treering index`)"
                    why[self._wordy.get(name, few)].append(name)
        for cause, names in why.items():
            self._short |= dict.fromkeys(names, ("searching by words only in", cause))
            self._warn(f"searching by words only in {', '.join(names)}: {cause}")

    def _leave_out(self, name: str, error: DataError | StoreError) -> None:
        self._folders.pop(name)
        self._short[name] = "searching without", f"{error.message} ({error.hint})"
        self._warn(f"searching without {name}: {error.message} ({error.hint})")

    def _warn(self, text: str) -> None:
        if text not in self._warned:
            self._warned.add(text)
            self._report.warn(text)
