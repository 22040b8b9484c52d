"""The vector back end in process: Qdrant's engine in a folder of the store, for one process at a time."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from treering.errors import StoreBusy, StoreError, needs
from treering.files import os_errors
from treering.types import Point
from treering.vectors.index import BATCH, Collection, Scored, Vector, batches, kind_of, nearest_commits


class EdgeIndex:
    """A shard of Qdrant Edge in ``<store>/edge/<fingerprint>``, open; use with ``with``. With ``create`` it is made if
    it is not there. Entering raises :class:`StoreBusy` if another process has it open.
    """

    def __init__(self, collection: Collection, store: Path, *, create: bool = False) -> None:
        self.collection = collection
        self.folder = store / "edge" / collection.fingerprint
        self.create = create

    def __enter__(self) -> Self:
        with needs("qdrant"):
            import qdrant_edge
        self._engine: Any = qdrant_edge
        there = (self.folder / "segments").is_dir()
        if not there and not self.create:
            raise StoreError(f"there are no points in {self.folder}", "run `treering qdrant push` first")
        with os_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        cosine = qdrant_edge.EdgeVectorParams(self.collection.dimensions, qdrant_edge.Distance.Cosine)
        config = qdrant_edge.EdgeConfig(dict.fromkeys(self.collection.kinds, cosine))
        with self._told():
            make = qdrant_edge.EdgeShard.load if there else qdrant_edge.EdgeShard.create
            self._shard: Any = make(str(self.folder), config)
        return self

    def __exit__(self, *_: object) -> None:
        self._shard.close()

    def __len__(self) -> int:
        with self._told():
            return int(self._shard.count(self._engine.CountRequest(exact=True)))

    def upsert(self, points: Iterable[Point]) -> int:
        count = 0
        for batch in batches(points):
            made = [self._engine.Point(one.id, {kind_of(one): one.vector}, one.payload) for one in batch]
            with self._told():
                self._shard.update(self._engine.UpdateOperation.upsert_points(made))
            count += len(batch)
        with self._told():
            if count:
                self._shard.optimize()
            self._shard.flush()
        return count

    def remove(self, ids: Iterable[str]) -> int:
        count = 0
        for batch in batches(ids):
            with self._told():
                self._shard.update(self._engine.UpdateOperation.delete_points(batch))
            count += len(batch)
        with self._told():
            self._shard.flush()
        return count

    def nearest(self, vector: Vector, kind: str, limit: int) -> Scored:
        query = self._engine.Query.Nearest(vector.tolist(), using=kind)

        def ask(most: int) -> Scored:
            with self._told():
                found = self._shard.query(self._engine.QueryRequest(most, query=query, with_payload=["commit_hash"]))
            return [(str((one.payload or {}).get("commit_hash")), one.score) for one in found]

        return nearest_commits(ask, limit)

    def points(self, keys: Sequence[str] | None = None) -> Iterator[Point]:
        offset = None
        while True:
            request = self._engine.ScrollRequest(
                offset=offset,
                limit=BATCH,
                with_payload=True if keys is None else list(keys),
                with_vector=keys is None,
            )
            with self._told():
                records, offset = self._shard.scroll(request)
            for one in records:
                yield Point(str(one.id), next(iter((one.vector or {}).values()), []), one.payload or {})
            if offset is None:
                return

    @contextmanager
    def _told(self) -> Iterator[None]:
        """The engine's errors as ours."""
        try:
            yield
        except Exception as error:
            if type(error) is not Exception:  # the engine's have no class of their own
                raise
            if "WouldBlock" in str(error):
                hint = "wait for it; only a Qdrant server can be asked by many"
                raise StoreBusy(f"another process has {self.folder} open", hint) from error
            hint = "delete the folder and run `treering qdrant push --backend edge`"
            raise StoreError(f"Qdrant Edge in {self.folder}: {error}", hint) from error
