"""The vector back end on a Qdrant server, through qdrant-client. The only module that speaks to one."""

import json
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Self, TypeVar

from treering.errors import StoreError, TreeringError, UsageError, needs
from treering.types import Point
from treering.vectors.index import BATCH, Collection, Scored, Vector, batches, kind_of, nearest_commits

T = TypeVar("T")

KEY = "QDRANT_API_KEY"
"""The environment variable that holds the key. A setting would be written down."""
PAUSES = (0.25, 0.5, 1.0, 2.0)
"""Seconds between the tries of a batch while the server is away, slow or out of order."""
INDEXED = {
    "commit_hash": "keyword", "author": "keyword", "branch": "keyword", "kind": "keyword", "repo": "keyword",
    "timestamp": "integer",
}  # fmt: skip
"""What of the payload can be filtered by quickly, and how."""


class QdrantIndex:
    """A collection on a server, open; use with ``with``. With ``create`` it is made if it is not there.

    Entering raises :class:`StoreError` if the server is away, slow or refuses the key, or has no such collection, and
    :class:`ModelError` if the collection is of another model.
    """

    def __init__(self, collection: Collection, url: str, timeout: int, *, create: bool = False) -> None:
        self.collection = collection
        self.url = url
        self.shown = re.sub(r"(?<=//)[^/@]*@", "", url)
        self.timeout = timeout
        self.create = create
        self._key = os.environ.get(KEY, "").strip()

    def __enter__(self) -> Self:
        with needs("qdrant"):
            from qdrant_client import QdrantClient, models

            self.models = models
        if not (self._key.isascii() and self._key.isprintable()):
            raise UsageError(f"{KEY} holds characters that no key has", "set it again")
        try:
            # As a header, not as `api_key`: that warns of plain HTTP in the middle of our output.
            headers = {"api-key": self._key} if self._key else None
            self._client: Any = QdrantClient(
                url=self.url, headers=headers, timeout=self.timeout, check_compatibility=False
            )
        except ValueError as error:
            raise UsageError(
                f"{self.shown} is no address of a Qdrant server", "http://localhost:6333 is one"
            ) from error
        try:
            self._open()
        except BaseException:
            self._client.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def __len__(self) -> int:
        return int(self._ask(self._client.count, exact=True).count)

    def upsert(self, points: Iterable[Point]) -> int:
        count = 0
        for batch in batches(points):
            structs = [
                self.models.PointStruct(id=point.id, vector={kind_of(point): point.vector}, payload=point.payload)
                for point in batch
            ]
            self._ask(self._client.upsert, points=structs, wait=True, patient=True)
            count += len(batch)
        return count

    def remove(self, ids: Iterable[str]) -> int:
        count = 0
        for batch in batches(ids):
            chosen = self.models.PointIdsList(points=[*batch])
            self._ask(self._client.delete, points_selector=chosen, wait=True, patient=True)
            count += len(batch)
        return count

    def nearest(self, vector: Vector, kind: str, limit: int) -> Scored:
        query = vector.tolist()

        def ask(most: int) -> Scored:
            found = self._ask(
                self._client.query_points, query=query, using=kind, limit=most, with_payload=["commit_hash"]
            )
            return [(str((one.payload or {}).get("commit_hash")), one.score) for one in found.points]

        return nearest_commits(ask, limit)

    def points(self, keys: Sequence[str] | None = None) -> Iterator[Point]:
        offset = None
        while True:
            records, offset = self._ask(
                self._client.scroll,
                limit=BATCH,
                offset=offset,
                with_payload=True if keys is None else list(keys),
                with_vectors=keys is None,
                patient=True,
            )
            for one in records:
                yield Point(str(one.id), next(iter((one.vector or {}).values()), []), one.payload or {})
            if offset is None:
                return

    def _open(self) -> None:
        name, where = self.collection.name, f"the collection `{self.collection.name}` at {self.shown}"
        if not self._ask(self._client.collection_exists):
            if not self.create:
                raise StoreError(f"there is no collection `{name}` at {self.shown}", "run `treering qdrant push` first")
            cosine = self.models.VectorParams(size=self.collection.dimensions, distance=self.models.Distance.COSINE)
            self._ask(
                self._client.create_collection,
                vectors_config=dict.fromkeys(self.collection.kinds, cosine),
                metadata=self.collection.metadata,
            )
        info = self._ask(self._client.get_collection)
        self.collection.check(info.config.metadata or {}, where)
        if self.create:  # a kill may have come before these were made
            for field in INDEXED.keys() - info.payload_schema.keys():
                self._ask(self._client.create_payload_index, field_name=field, field_schema=INDEXED[field], wait=True)

    def _ask(self, request: Callable[..., T], *, patient: bool = False, **arguments: object) -> T:
        """Send a request about the collection; a ``patient`` one is sent again after a while if that may help."""
        from qdrant_client.common.client_exceptions import QdrantException
        from qdrant_client.http.exceptions import ApiException

        pauses = iter(PAUSES if patient else ())
        while True:
            try:
                return request(self.collection.name, **arguments)
            except (ApiException, QdrantException, AssertionError, json.JSONDecodeError) as error:
                meant, may_help = self._meant(error)
                pause = next(pauses, None)
                if pause is None or not may_help:
                    raise meant from error
                time.sleep(pause)

    def _meant(self, error: Exception) -> tuple[TreeringError, bool]:
        """What an error of the client means to a user, and whether asking again may help. Never with the key."""
        from httpx import TimeoutException, TransportError
        from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
        from qdrant_client.http.exceptions import UnexpectedResponse

        source = getattr(error, "source", error)
        if isinstance(source, TimeoutException):
            hint = "raise TREERING_VECTORS_QDRANT_TIMEOUT, or look why it is slow"
            return StoreError(f"Qdrant at {self.shown} gave no answer within {self.timeout} s", hint), True
        if isinstance(source, TransportError):
            hint = "start one: `docker run -p 6333:6333 qdrant/qdrant`; or name another with --qdrant-url"
            return StoreError(f"no Qdrant answers at {self.shown}", hint), True
        if isinstance(error, ResourceExhaustedResponse):
            return StoreError(f"Qdrant at {self.shown} is asked too much", "try again later"), True
        if not isinstance(error, UnexpectedResponse) or error.status_code is None:
            return StoreError(f"what answers at {self.shown} is no Qdrant", "check --qdrant-url"), False
        if error.status_code in (401, 403):
            said = f"refuses the key in {KEY}" if self._key else "wants a key"
            return StoreError(f"Qdrant at {self.shown} {said}", f"set {KEY} to a key that may do this"), False
        said = re.sub(r"\s+", " ", error.content.decode("utf-8", "replace"))[:300]
        said = said.replace(self._key, "…") if self._key else said
        broken = error.status_code >= 500 or error.status_code == 429
        return StoreError(f"Qdrant at {self.shown} answers {error.status_code}: {said}", "see its log"), broken
