"""The handlers of a server that are not OpenAI's: the offers, the seed's search, the index, and the server's health.

What is asked and answered stands in ``offered.py``; which path each has, in ``app.py``.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from copy import copy
from functools import partial
from typing import Annotated, Any, Self

import msgspec
from msgspec import Meta, Struct
from starlette.requests import Request
from starlette.responses import Response

from treering import deciding, improving, operations
from treering.errors import TreeringError, UsageError
from treering.finding import Point
from treering.offered import Asked, NothingAsked, Offer
from treering.serve import metrics as counting
from treering.serve.answers import (
    Refused,
    answered,
    body,
    converted,
    decoded,
    event,
    of_query,
    status_of,
    streamed,
    while_there,
)
from treering.serve.house import House
from treering.serve.improving import LearnAsked, Learners, Searches
from treering.serve.indexing import Indexing
from treering.serve.jobs import Jobs, Under

Handler = Callable[[Request], Awaitable[Response]]

REPOSITORY = frozenset({"repository"})
STREAMING = "stream"


class PointsAsked(Struct, kw_only=True, forbid_unknown_fields=True):
    """The seed's search: a collection, and what to look for, as a vector of its model or in words."""

    collection_name: Annotated[str, Meta(max_length=1000, description="A repository, with or without `-commits`.")] = ""
    query_vector: Annotated[list[float], Meta(min_length=1, max_length=8192)] | None = None
    query: Annotated[str, Meta(min_length=1, max_length=20_000)] | None = None
    limit: Annotated[int, Meta(ge=1, le=100)] = 10


class Points(Struct):
    result: list[Point]


class Served(Struct):
    """A repository of the server; ``notes`` say where its answers fall short."""

    name: str
    notes: tuple[str, ...]


class Repositories(Struct):
    """What is served; ``fleet`` are those that ``*`` asks."""

    repositories: list[Served]
    fleet: tuple[str, ...] = ()


class Health(Struct):
    status: str


class Server:
    """The handlers of one server that are not OpenAI's."""

    def __init__(self, house: House, metrics: counting.Metrics) -> None:
        self.house, self.metrics = house, metrics
        self.indexing, self.learners = Indexing(house.places), Learners(house.places)
        self.searches = Searches(house.places)

    def seen(self, house: House) -> Self:
        """The same for somebody who does not see all of the house."""
        made = copy(self)
        made.house = house
        return made

    def offer(self, name: str, offer: Offer, posted: type[Asked]) -> Handler:
        async def handle(request: Request) -> Response:
            repository = self.house.meant(self._given(request), name)
            if request.method in ("GET", "HEAD"):
                asked = of_query(request, offer.asked, REPOSITORY)
            else:
                asked = decoded(await body(request), posted)
            if getattr(asked, STREAMING, False):
                return await streamed(
                    request, partial(self.house.told, repository, name, asked),
                    piece=lambda text: event({"delta": text}), ended=lambda answer: [event({"answer": answer})],
                    headers=self._notes(repository),
                )  # fmt: skip
            started = time.monotonic()
            answer = await while_there(request, self.house.answer(repository, name, asked))
            if name == "search" and repository in self.house.places:
                self.searches.took(repository, time.monotonic() - started)
            return answered(answer, headers=self._notes(repository))

        return handle

    def _repository(self, request: Request) -> str:
        return self.house.name(self._given(request))

    def _given(self, request: Request) -> str:
        given = request.query_params.getlist("repository")
        if len(given) > 1 or given == [""]:
            raise UsageError("`repository`: it is not one name", f"repositories: {', '.join(self.house.names)}")
        return "".join(given)

    def _notes(self, repository: str) -> dict[str, str]:
        """A header that says where an answer may fall short."""
        notes = "; ".join(self.house.notes(repository))
        return {"treering-note": notes.encode("ascii", "replace").decode()} if notes else {}

    async def points(self, request: Request) -> Response:
        """The seed's search: ``{"result": [{"id", "author", "message", "files"}]}``. A GET may have a body, too."""
        content = await body(request)
        in_body = content or request.method == "POST"
        asked = decoded(content, PointsAsked) if in_body else _points_of_query(request)
        if (asked.query is None) == (asked.query_vector is None):
            raise UsageError("`query_vector`: give it, or `query`, and not both", "see /openapi.json")
        repository = self._collection(asked.collection_name)
        question = asked.query_vector if asked.query_vector is not None else asked.query or ""
        found = self.house.ask(repository, lambda desk: desk.points(question, limit=asked.limit))
        return answered(Points(await while_there(request, found)), headers=self._notes(repository))

    def _collection(self, name: str) -> str:
        for repository, place in self.house.places.items() if name else ():
            if name in (repository, f"{repository}-commits", place.settings.vectors.qdrant_collection):
                return repository
        if name:
            known = ", ".join(f"{one}-commits" for one in self.house.places)
            raise Refused(404, "no_collection", f"there is no collection {name[:200]!r} here", f"collections: {known}")
        return self.house.name()

    async def index(self, request: Request) -> Response:
        repository = self._repository(request)
        if request.method != "POST":
            return answered(self.indexing.job(repository))
        decoded(await body(request), NothingAsked)
        return self._started(self.indexing, repository, "indexing")

    async def learn(self, request: Request) -> Response:
        repository = self._repository(request)
        if request.method != "POST":
            return answered(self.learners.job(repository))
        asked = decoded(await body(request), LearnAsked)
        return self._started(self.learners, repository, "learning", *asked.options)

    @staticmethod
    def _started(jobs: Jobs[Any], repository: str, code: str, *options: str) -> Response:
        try:
            return answered(jobs.start(repository, *options), 202)
        except Under as error:
            raise Refused(409, code, error.message, error.hint, {"retry-after": "10"}) from error

    async def repositories(self, _: Request) -> Response:
        house = self.house
        fleet = await asyncio.to_thread(house.fleet.names, house.sight) if house.fleet else ()
        return answered(Repositories([Served(name, house.notes(name)) for name in house.places], fleet))

    async def watched(self, _: Request) -> Response:
        for name, place in self.house.places.items():
            try:
                at = await asyncio.to_thread(operations.indexed_at, place)
                spent = await asyncio.to_thread(deciding.spend, place)
                trend = await asyncio.to_thread(improving.monitor, place)
            except TreeringError:  # who asks that repository is told; the others have their figures
                continue
            self.metrics.stood(name, time.time() - at, spent.today.spent + spent.today.reserved)
            self.metrics.went(name, trend)
        return Response(self.metrics.page(), media_type=counting.TYPE)

    async def healthy(self, _: Request) -> Response:
        return answered(Health("ok"))

    async def ready(self, request: Request) -> Response:
        """Whether the first repository can be searched; why not is told only to who may know of it."""
        try:
            await while_there(request, self.house.ready())
        except TreeringError as error:
            status, code = status_of(error)
            raise Refused(status, code, "the first repository cannot be searched", "a search of it says why") from error
        return answered(Health("ready"))


def _points_of_query(request: Request) -> PointsAsked:
    """The query string of the seed's search: the vector as JSON, or parted by commas."""
    found: dict[str, Any] = dict(request.query_params)
    if text := found.pop("query_vector", ""):
        try:
            found["query_vector"] = msgspec.json.decode(f"[{text.strip().strip('[]')}]", type=list[float])
        except msgspec.DecodeError as error:
            raise UsageError(f"`query_vector`: {error}", "numbers, parted by commas") from error
    if str(found.get("limit", "")).isdigit():
        found["limit"] = int(found["limit"])
    return converted(found, PointsAsked)
