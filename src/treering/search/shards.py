"""Several open stores, read as one by a search. The ids of a store's commits stand behind those of the store before it,
and the commits of all are in one order, so that whatever is counted is counted over all of them.
"""

import os
import sqlite3
import zlib
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import accumulate
from pathlib import Path
from typing import Concatenate, NoReturn, ParamSpec, TypeVar

import numpy as np
from msgspec import MsgspecError
from msgspec.structs import replace

from treering.errors import StoreError
from treering.store import Store
from treering.store.index import HOLDER, Holders
from treering.store.schema import REBUILD, meant
from treering.text.document import FIELDS
from treering.types import Features, FilePatch, Headline, IndexedCommit

P = ParamSpec("P")
T = TypeVar("T")
Name = tuple[int, str, int]

_DAMAGE = (MsgspecError, zlib.error, ValueError, LookupError)
"""What reading a store ends with if it is damaged, or was cleared meanwhile, and the database itself sees nothing."""


class Shards(Store):
    """What a search reads of a store, read of several, by the names of their repositories; all else is asked of the
    store of one. The stores stay whoever's opened them.

    ``lost`` is told of one that cannot be read, before the error is raised: whoever asks goes on without it. Of those
    that are ``wordy`` no vectors are told.
    """

    def __init__(
        self,
        stores: Mapping[str, Store],
        *,
        wordy: Collection[str] = (),
        lost: Callable[[str, StoreError], None] = lambda *_: None,
    ) -> None:
        super().__init__(Path(os.path.commonpath([store.folder.absolute() for store in stores.values()])))
        self.repositories = tuple(stores)
        self._stores = list(stores.values())
        self._wordy = [name in wordy for name in stores]
        self._lost = lost
        self._newest = [number for _, number in self._each(Store.newest_number)]
        """The newest id of each store. A later one would be an id of the next store."""
        self._before = [0, *accumulate(self._newest)]
        """What is put before the ids of each store; last, before those of one more."""

    def __enter__(self) -> NoReturn:
        raise StoreError("several stores have no one database", "ask the store of one repository")

    @property
    def db(self) -> NoReturn:
        self.__enter__()

    def complaining(self) -> AbstractContextManager[None]:
        return nullcontext()  # whoever reads a store names it

    # all stores ------------------------------------------------------------------------------------------------------

    def indexed_commits(self) -> list[IndexedCommit]:
        """The commits of all by their times; those of a store keep their own order, whatever their clocks say."""
        rows: list[IndexedCommit] = []
        times = [np.zeros(0, np.int64)]
        for place, own in self._each(_indexed):
            before, newest = self._before[place], self._newest[place]
            known = [replace(row, id=row.id + before, repository=place) for row in own if row.id <= newest]
            rows += known
            times.append(np.maximum.accumulate(np.array([row.time for row in known], np.int64)))
        return [rows[one] for one in np.argsort(np.concatenate(times), kind="stable").tolist()]

    def holders(self, words: Sequence[str]) -> list[Holders]:
        written: dict[str, list[bytes]] = defaultdict(list)
        places: dict[str, list[int]] = defaultdict(list)
        for place, own in self._each(_postings, words):
            for word, holders in own:
                written[word].append(holders)
                places[word].append(place)
        return [self._of_all(written[word], places[word]) for word in words]

    def _of_all(self, written: Sequence[bytes], places: Sequence[int]) -> Holders:
        """The records of some stores as one array."""
        records = np.frombuffer(bytearray().join(written), HOLDER)
        of = np.repeat(np.array(places, np.int64), [len(one) // HOLDER.itemsize for one in written])
        known = records["commit"] <= np.array(self._newest)[of]
        records["commit"] += np.array(self._before, np.uint32)[of]
        return records[known]

    def named_rows(self, fingerprint: str) -> list[tuple[Path, list[Name]]]:
        found: list[tuple[Path, list[Name]]] = []
        for place, ((folder, names),) in self._each(Store.named_rows, fingerprint):
            before, newest = self._before[place], self._newest[place]
            told = [(one + before if one <= newest else 0, kind, part) for one, kind, part in names]  # nobody's id is 0
            found.append((folder, [] if self._wordy[place] else told))
        return found

    def unembedded(self, fingerprint: str) -> dict[int, list[str]]:
        found: dict[int, list[str]] = {}
        for place, wordy in enumerate(self._wordy):
            own = self._ask(place, Store.unembedded, "" if wordy else fingerprint)
            found |= {self._before[place] + one: kinds for one, kinds in own.items() if one <= self._newest[place]}
        return found

    def of_author(self, author: str) -> list[int]:
        return self._ids(Store.of_author, author)

    def of_branch(self, branch: str) -> list[int]:
        return self._ids(Store.of_branch, branch)

    def of_path(self, path: str) -> list[int]:
        return self._ids(Store.of_path, path)

    def of_kind(self, kind: str) -> list[int]:
        return self._ids(Store.of_kind, kind)

    def mentioning(self, number: str) -> list[int]:
        return self._ids(Store.mentioning, number)

    def touching(self, paths: Iterable[str]) -> list[int]:
        return self._ids(Store.touching, list(paths))

    def knows_path(self, path: str) -> bool:
        return any(knows for _, knows in self._each(Store.knows_path, path))

    def paths(self) -> dict[str, str]:
        return {path: kind for _, own in self._each(Store.paths) for path, kind in own.items()}

    # the stores that have these commits ------------------------------------------------------------------------------

    def features(self, ids: Iterable[int] | None = None) -> Iterator[tuple[int, Features]]:
        for place, own in self._by_store(range(1, self._before[-1] + 1) if ids is None else ids):
            for one, said in self._ask(place, _features, own):
                yield self._before[place] + one, said

    def holding(self, text: str, ids: Sequence[int]) -> set[int]:
        found: set[int] = set()
        for place, own in self._by_store(ids):
            found.update(self._before[place] + one for one in self._ask(place, Store.holding, text, own))
        return found

    def headlines(self, ids: Sequence[int]) -> list[Headline]:
        found: dict[int, Headline] = {}
        for place, own in self._by_store(ids):
            told = self._ask(place, Store.headlines, own)
            found |= zip((self._before[place] + one for one in own), told, strict=True)
        return [found[one] for one in ids]

    def hunks(self, commit_id: int) -> tuple[FilePatch, ...]:
        ((place, (own,)),) = self._by_store([commit_id])
        return self._ask(place, Store.hunks, own)

    def _each(self, read: Callable[Concatenate[Store, P], T], *of: P.args, **how: P.kwargs) -> Iterator[tuple[int, T]]:
        """What each store says, with its place."""
        for place in range(len(self._stores)):
            yield place, self._ask(place, read, *of, **how)

    def _ask(self, place: int, read: Callable[Concatenate[Store, P], T], *of: P.args, **how: P.kwargs) -> T:
        store = self._stores[place]
        try:
            return read(store, *of, **how)
        except sqlite3.DatabaseError as error:
            lost = meant(error, store.path)
            cause: Exception = error
        except _DAMAGE as error:
            lost = StoreError(f"{store.path} is damaged: {error!r}", REBUILD)
            cause = error
        self._lost(self.repositories[place], lost)
        raise lost from cause

    def _ids(self, read: Callable[Concatenate[Store, P], list[int]], *of: P.args, **how: P.kwargs) -> list[int]:
        return [
            self._before[place] + one
            for place, own in self._each(read, *of, **how)
            for one in own
            if one <= self._newest[place]
        ]

    def _by_store(self, ids: Iterable[int]) -> Iterable[tuple[int, list[int]]]:
        """Some commits by the place of their store, as it has them."""
        found: dict[int, list[int]] = defaultdict(list)
        for one in ids:
            place = bisect_left(self._before, one) - 1
            found[place].append(one - self._before[place])
        return found.items()


def _indexed(store: Store) -> list[IndexedCommit]:
    rows = store.indexed_commits()
    if any(len(row.lengths) != 4 * len(FIELDS) for row in rows):
        raise ValueError("the lengths of a commit are torn")
    return rows


def _postings(store: Store, words: Sequence[str]) -> list[tuple[str, bytes]]:
    rows = list(store.postings(words))
    if any(len(holders) % HOLDER.itemsize for _, holders in rows):
        raise ValueError("the holders of a word are torn")
    return rows


def _features(store: Store, ids: Sequence[int]) -> list[tuple[int, Features]]:
    return list(store.features(ids))
