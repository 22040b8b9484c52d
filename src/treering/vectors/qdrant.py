"""The vector back end on a Qdrant server, through qdrant-client. The only module that speaks to one."""

import json
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Self, TypeVar

from treering.config import VectorSettings
from treering.errors import StoreAway, StoreError, UsageError, needs
from treering.files import address
from treering.types import Point
from treering.vectors.index import (
    BATCH,
    TENANT,
    Collection,
    Scored,
    Vector,
    batches,
    is_shared,
    kind_of,
    nearest_commits,
)

T = TypeVar("T")

KEY = "QDRANT_API_KEY"
"""The environment variable that holds the key. A setting would be written down."""
PAUSES = (0.25, 0.5, 1.0, 2.0)
"""Seconds between the tries of a batch while the server is away, slow or out of order."""
INDEXED = {
    "commit_hash": "keyword", "author": "keyword", "branch": "keyword", "kind": "keyword", TENANT: "keyword",
    "timestamp": "integer",
}  # fmt: skip
"""What of the payload can be filtered by quickly, and how."""


class Server:
    """A Qdrant server; use with ``with``. Whatever is asked of it raises :class:`StoreAway` if it is away, slow or out
    of order, and :class:`StoreError` if it refuses us.
    """

    def __init__(self, url: str, timeout: int) -> None:
        self.url = url
        self.shown = address(url)
        self.timeout = timeout
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
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def forget(self, collection: str, repos: Iterable[str]) -> None:
        """Take out of a shared collection what is of some repositories. One that is not there, or is not shared, holds
        nothing of theirs.
        """
        if self._ask(self._client.collection_exists, collection):
            found = self._ask(self._client.get_collection, collection)
            for repo in repos if is_shared(found.config.metadata or {}) else ():
                theirs = self.models.FilterSelector(filter=self._only(repo))
                self._ask(self._client.delete, collection, points_selector=theirs, wait=True, patient=True)

    def _only(self, repo: str) -> Any:
        """The filter that lets a repository's points through."""
        whose = self.models.FieldCondition(key=TENANT, match=self.models.MatchValue(value=repo))
        return self.models.Filter(must=[whose])

    def _ask(self, request: Callable[..., T], collection: str, *, patient: bool = False, **arguments: object) -> T:
        """Send a request about a collection; a ``patient`` one is sent again after a while if that may help."""
        from qdrant_client.common.client_exceptions import QdrantException
        from qdrant_client.http.exceptions import ApiException

        pauses = iter(PAUSES if patient else ())
        while True:
            try:
                return request(collection, **arguments)
            except (ApiException, QdrantException, AssertionError, json.JSONDecodeError) as error:
                meant = self._meant(error)
                pause = next(pauses, None)
                if pause is None or not isinstance(meant, StoreAway):
                    raise meant from error
                time.sleep(pause)

    def _meant(self, error: Exception) -> StoreError:
        """What an error of the client means to a user. Never with the key."""
        from httpx import TimeoutException, TransportError
        from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
        from qdrant_client.http.exceptions import UnexpectedResponse

        source = getattr(error, "source", error)
        if isinstance(source, TimeoutException):
            hint = "raise TREERING_VECTORS_QDRANT_TIMEOUT, or look why it is slow"
            return StoreAway(f"Qdrant at {self.shown} gave no answer within {self.timeout} s", hint)
        if isinstance(source, TransportError):
            hint = "start one: `docker run -p 6333:6333 qdrant/qdrant`; or name another with --qdrant-url"
            return StoreAway(f"no Qdrant answers at {self.shown}", hint)
        if isinstance(error, ResourceExhaustedResponse):
            return StoreAway(f"Qdrant at {self.shown} is asked too much", "try again later")
        if not isinstance(error, UnexpectedResponse) or error.status_code is None:
            return StoreError(f"what answers at {self.shown} is no Qdrant", "check --qdrant-url")
        if error.status_code in (401, 403):
            said = f"refuses the key in {KEY}" if self._key else "wants a key"
            return StoreError(f"Qdrant at {self.shown} {said}", f"set {KEY} to a key that may do this")
        said = re.sub(r"\s+", " ", error.content.decode("utf-8", "replace"))[:300]
        said = said.replace(self._key, "…") if self._key else said
        kind = StoreAway if error.status_code >= 500 or error.status_code == 429 else StoreError
        return kind(f"Qdrant at {self.shown} answers {error.status_code}: {said}", "see its log")


class QdrantIndex(Server):
    """A collection on a server, open; use with ``with``. With ``create`` it is made if it is not there. Of a shared one
    nothing is read, changed or removed but what is the repository's own.

    Entering raises :class:`StoreError` if the server is away, slow or refuses the key, or has no such collection, and
    :class:`ModelError` if the collection is of another model.
    """

    def __init__(self, collection: Collection, settings: VectorSettings, *, create: bool = False) -> None:
        super().__init__(settings.qdrant_url, settings.qdrant_timeout)
        self.collection = collection
        self.settings = settings
        self.create = create

    def __enter__(self) -> Self:
        super().__enter__()
        self._ours = self._only(self.collection.repo) if self.collection.shared else None
        try:
            self._open()
        except BaseException:
            self._client.close()
            raise
        return self

    def __len__(self) -> int:
        return int(self._ask(self._client.count, self.collection.name, count_filter=self._ours, exact=True).count)

    def upsert(self, points: Iterable[Point]) -> int:
        count = 0
        for batch in batches(points):
            structs = [
                self.models.PointStruct(id=point.id, vector={kind_of(point): point.vector}, payload=point.payload)
                for point in batch
            ]
            self._ask(self._client.upsert, self.collection.name, points=structs, wait=True, patient=True)
            count += len(batch)
        return count

    def remove(self, ids: Iterable[str]) -> int:
        count = 0
        for batch in batches(ids):
            chosen = self.models.PointIdsList(points=batch)
            if self._ours:
                named = self.models.HasIdCondition(has_id=batch)
                chosen = self.models.FilterSelector(filter=self.models.Filter(must=[*self._ours.must, named]))
            self._ask(self._client.delete, self.collection.name, points_selector=chosen, wait=True, patient=True)
            count += len(batch)
        return count

    def nearest(self, vector: Vector, kind: str, limit: int) -> Scored:
        query = vector.tolist()
        # Cosines of the vectors themselves: of quantised ones they would be others than ours.
        exactly = self.models.SearchParams(quantization=self.models.QuantizationSearchParams(rescore=True))

        def ask(most: int) -> Scored:
            found = self._ask(
                self._client.query_points, self.collection.name, query=query, using=kind, query_filter=self._ours,
                search_params=exactly, limit=most, with_payload=["commit_hash"],
            )  # fmt: skip
            return [(str((one.payload or {}).get("commit_hash")), one.score) for one in found.points]

        return nearest_commits(ask, limit)

    def points(self, keys: Sequence[str] | None = None) -> Iterator[Point]:
        offset = None
        while True:
            records, offset = self._ask(
                self._client.scroll,
                self.collection.name,
                scroll_filter=self._ours,
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
        if not self._ask(self._client.collection_exists, name):
            if not self.create:
                raise StoreError(f"there is no collection `{name}` at {self.shown}", "run `treering qdrant push` first")
            try:
                self._make()
            except StoreError:
                if not self._ask(self._client.collection_exists, name):  # else another one made it meanwhile
                    raise
        info = self._ask(self._client.get_collection, name)
        self.collection.check(info.config.metadata or {}, where)
        if self.create:  # a kill may have come before these were made
            for field in INDEXED.keys() - info.payload_schema.keys():
                schema: Any = INDEXED[field]
                if field == TENANT and self.collection.shared:
                    schema = self.models.KeywordIndexParams(type=self.models.KeywordIndexType.KEYWORD, is_tenant=True)
                self._ask(self._client.create_payload_index, name, field_name=field, field_schema=schema, wait=True)

    def _make(self) -> None:
        chosen = self.settings
        # `on_disk` and `always_ram`, not `memory`: that came with Qdrant 1.19.
        vectors = self.models.VectorParams(
            size=self.collection.dimensions,
            distance=self.models.Distance.COSINE,
            on_disk=chosen.qdrant_on_disk or None,
        )
        scalar = self.models.ScalarQuantizationConfig(type=self.models.ScalarType.INT8, always_ram=True)
        quantised = self.models.ScalarQuantization(scalar=scalar)
        self._ask(
            self._client.create_collection,
            self.collection.name,
            vectors_config=dict.fromkeys(self.collection.kinds, vectors),
            quantization_config=quantised if chosen.qdrant_quantization == "scalar" else None,
            shard_number=chosen.qdrant_shards or None,
            replication_factor=chosen.qdrant_replicas or None,
            metadata=self.collection.metadata,
        )
