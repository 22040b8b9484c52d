"""The HTTP application: a path for every offer, the seed's search, the index, OpenAI's paths, and a server's health.

What is asked and answered stands in ``offered.py`` and ``openai.py``; this is where each gets its path.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from typing import Annotated, Any

import msgspec
from fastapi import FastAPI
from msgspec import Meta, Struct
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from treering import deciding, improving, operations
from treering.config import ForgeSettings, ServeSettings
from treering.errors import TreeringError, UsageError
from treering.finding import Point
from treering.gating import Verdict
from treering.offered import OFFERS, Asked, NothingAsked, Offer, SearchAsked
from treering.serve import mcp, openai, pages, schema
from treering.serve import metrics as counting
from treering.serve.answers import (
    JSON,
    STREAM,
    Gone,
    Refused,
    answered,
    body,
    converted,
    decoded,
    event,
    of_query,
    refused,
    streamed,
    while_there,
)
from treering.serve.gating import GateAsked, Gates
from treering.serve.guard import Guard
from treering.serve.house import House
from treering.serve.improving import LearnAsked, Learners, LearnJob, Searches
from treering.serve.indexing import Indexing, Job
from treering.serve.jobs import Jobs, Under
from treering.serve.lanes import Lane
from treering.serve.webhooks import PATHS as WEBHOOKS
from treering.serve.webhooks import Received, Receiver, Taking, Webhooks
from treering.serve.writers import Writers

Handler = Callable[[Request], Awaitable[Response]]

REPOSITORY = frozenset({"repository"})
STREAMING = "stream"
POST_ONLY = frozenset({"ask", "route"})
"""What may cost money, or is written down, is asked on purpose only: a GET may come from anywhere."""


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
    repositories: list[Served]


class Health(Struct):
    status: str


class Server:
    """The handlers of one server that are not OpenAI's."""

    def __init__(self, house: House, metrics: counting.Metrics) -> None:
        self.house, self.metrics = house, metrics
        self.indexing, self.learners = Indexing(house.places), Learners(house.places)
        self.searches = Searches(house.places)

    def offer(self, name: str, offer: Offer, posted: type[Asked]) -> Handler:
        async def handle(request: Request) -> Response:
            repository = self._repository(request)
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
            if name == "search":
                self.searches.took(repository, time.monotonic() - started)
            return answered(answer, headers=self._notes(repository))

        return handle

    def _repository(self, request: Request) -> str:
        given = request.query_params.getlist("repository")
        if len(given) > 1 or given == [""]:
            raise UsageError("`repository`: it is not one name", f"repositories: {', '.join(self.house.names)}")
        return self.house.name(*given)

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
            known = ", ".join(f"{one}-commits" for one in self.house.names)
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
        return answered(Repositories([Served(name, self.house.notes(name)) for name in self.house.names]))

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
        """Whether the first repository can be searched."""
        await while_there(request, self.house.ask("", lambda desk: len(desk.finder.history)))
        return answered(Health("ready"))


def application(
    house: House,
    settings: ServeSettings,
    say: Callable[[str], None] = lambda _: None,
    *,
    preload: bool = False,
    forge: ForgeSettings | None = None,
    taken: Mapping[str, Taking] | None = None,
) -> Guard:
    """The whole application, guarded. ``house`` is opened and closed by the one who serves it; ``preload`` opens the
    indexes and loads a model before anyone asks. Where ``forge`` has a secret, webhooks of what is ``taken`` are too.
    """
    metrics = counting.Metrics()
    server, writers = Server(house, metrics), Writers(house.places)
    receiver = Receiver(taken or {}, forge, server.indexing, say) if forge and forge.secrets else None
    house.opening.lent = writers.lent
    spoken = openai.OpenAI(house, writers, metrics)
    gates = Gates(house, settings, [one.name for one in (taken or {}).values()])

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            stack.enter_context(house)
            stack.enter_context(writers)
            stack.enter_context(gates)
            stack.push_async_callback(server.indexing.close)
            stack.push_async_callback(server.learners.close)
            await stack.enter_async_context(server.searches.kept())
            if receiver:
                await receiver.open()
                stack.push_async_callback(receiver.close)
            await _mount(app, house, settings, stack)
            if preload:
                try:
                    await _preload(house, writers)
                    stack.callback(asyncio.ensure_future(_warm(house)).cancel)
                except TreeringError as error:  # whoever asks is told the same: the rest can be served
                    say(f"warning: not loaded before it is asked for: {error.message} ({error.hint})")
            yield

    app = FastAPI(title="treering", openapi_url=None, docs_url=None, redoc_url=None, lifespan=lifespan)
    app.state.house, app.state.writers = house, writers
    paths = _routes(app, server, spoken, gates, receiver)
    told = msgspec.json.encode(schema.document(paths, house.names, token=bool(settings.token)))

    async def described(_: Request) -> Response:
        return Response(told, media_type="application/json")

    app.add_route("/openapi.json", described, methods=["GET"])
    metrics.paths = {path.path for path in paths} | {"/openapi.json", "/", "/mcp"}

    def lanes() -> tuple[Lane[Any], ...]:
        return *house.lanes, writers.lane, gates.lane

    metrics.watch("waiting", "Questions that wait.", lambda: sum(map(len, lanes())))
    metrics.watch("busy_threads", "Threads that answer.", lambda: sum(lane.busy for lane in lanes()))
    metrics.watch("model_loaded", "Whether a local model is in memory.", lambda: float(bool(writers.loaded)))
    for kind in (TreeringError, Refused, Exception):
        app.add_exception_handler(kind, _told)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Gone, _gone)
    return Guard(app, settings, metrics, say, receiver.signed if receiver else None)


def _routes(
    app: FastAPI, server: Server, spoken: openai.OpenAI, gates: Gates, receiver: Receiver | None
) -> list[schema.Path]:
    """Give every handler its path, and tell of it."""
    paths: list[schema.Path] = []

    def route(handler: Handler, *told: schema.Path) -> None:
        app.add_route(
            told[0].path.replace("{name}", "{name:path}"), handler, methods=[one.method.upper() for one in told]
        )
        paths.extend(told)

    for name, offer in OFFERS.items():
        path = f"/v1/{name}"
        posted, media = (_streaming(offer.asked), (JSON, STREAM)) if offer.streamed else (offer.asked, (JSON,))
        told = [schema.Path("post", path, offer.told, offer.gives, posted, media=media)]
        if name not in POST_ONLY:
            told.append(schema.Path("get", path, offer.told, offer.gives, offer.asked))
        route(server.offer(name, offer, posted), *told)
    searched = "The seed's search: the nearest commits to a vector, or those that answer a question."
    route(
        server.points,
        schema.Path("post", "/search", searched, Points, PointsAsked, of_repository=False),
        schema.Path("get", "/search", f"{searched} A JSON body works, too.", Points, PointsAsked, of_repository=False),
    )
    route(
        server.index,
        schema.Path("post", "/v1/index", "Bring the index up to date, beside the server.", Job, NothingAsked, 202),
        schema.Path("get", "/v1/index", "The last run of the index that was started here.", Job),
    )
    judged = "Test a patch in a sandbox with the command of the settings, and commit it if the tests pass."
    route(gates.gate, schema.Path("post", "/v1/gate", judged, Verdict, GateAsked))
    learns = "Bring the model up to date, beside the server: test it on new commits, train another, keep the better."
    route(
        server.learn,
        schema.Path("post", "/v1/learn", learns, LearnJob, LearnAsked, 202),
        schema.Path("get", "/v1/learn", "The last run of that which was started here.", LearnJob),
    )
    plain: dict[str, Any] = {"of_repository": False}
    route(server.repositories, schema.Path("get", "/v1/repositories", "What is served.", Repositories, **plain))
    route(spoken.models, schema.Path("get", "/v1/models", "OpenAI's list of models.", openai.ModelList, **plain))
    route(
        spoken.model, schema.Path("get", "/v1/models/{name}", "One model.", openai.ModelCard, named="name", **plain)
    )  # fmt: skip
    both = (JSON, STREAM)
    for handler, path, word, asked, gives, media in (
        (spoken.chat, "/v1/chat/completions", "chat", openai.ChatAsked, openai.Chat, both),
        (spoken.completions, "/v1/completions", "completions", openai.CompletionAsked, openai.Completion, both),
        (spoken.embeddings, "/v1/embeddings", "embeddings", openai.EmbeddingsAsked, openai.Embeddings, (JSON,)),
    ):
        route(
            handler,
            schema.Path("post", path, f"OpenAI's {word}, by a model of the store.", gives, asked, media=media, **plain),
        )
    if receiver:
        for path, of in WEBHOOKS.items():
            told_of = f"A webhook of {of.title()}, by its signature."
            route(receiver.receive, schema.Path("post", path, told_of, Received, status=202, **plain))
        stand = "How the deliveries of the repositories stand whose webhooks are taken."
        route(receiver.standing, schema.Path("get", "/v1/webhooks", stand, Webhooks, **plain))
    route(server.healthy, schema.Path("get", "/healthz", "Whether the server lives.", Health, **plain))
    route(server.ready, schema.Path("get", "/readyz", "Whether the first repository can be searched.", Health, **plain))
    route(server.watched, schema.Path("get", "/metrics", "Figures for Prometheus.", media=("text/plain",), **plain))
    return paths


async def _mount(app: FastAPI, house: House, settings: ServeSettings, stack: AsyncExitStack) -> None:
    """The page and MCP: last, so that they take no path of the others."""
    app.include_router(pages.router())
    hosts = [form for name in (settings.host, *settings.names) for form in (name, f"{name}:*")]
    origins = [f"{scheme}://{host}" for scheme in ("http", "https") for host in hosts]
    routes, under_way = mcp.mounted(mcp.server(house.answer_discreetly, house.names), hosts, origins)
    app.router.routes.extend(routes)
    await stack.enter_async_context(under_way())


async def _preload(house: House, writers: Writers) -> None:
    from treering import learning

    for repository, place in house.places.items():
        first = SearchAsked(query="the first question")
        asked = (house.answer(repository, "search", first) for _ in range(house.processes or house.threads))
        await asyncio.gather(*asked)  # each of them opens it
        if not writers.loaded and (model := await asyncio.to_thread(learning.model_name, place)):
            await writers.load(repository, model)


async def _warm(house: House) -> None:
    for repository in house.places:
        with suppress(TreeringError):  # whoever asks is told
            await house.warm(repository)


def _streaming(kind: type[Asked]) -> type[Asked]:
    """The same question, which may ask for its answer piece by piece."""
    wanted = Annotated[bool, Meta(description="Give the answer piece by piece, as Server-Sent Events.")]
    made: Any = msgspec.defstruct(
        f"{kind.__name__}Streaming", [(STREAMING, wanted, False)], bases=(kind,), frozen=True, kw_only=True
    )
    asked: type[Asked] = made
    return asked


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


async def _told(_: Request, error: Exception) -> Response:
    return refused(error)


async def _gone(_: Request, __: Exception) -> Response:
    return Response(status_code=499)


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101  it is registered for these
    if error.status_code == 404:
        said = Refused(404, "no_path", f"there is no {request.url.path[:200]} here", "/openapi.json tells what is")
    elif error.status_code == 405:
        said = Refused(405, "no_method", f"{request.method[:20]} is not for this path", "/openapi.json tells what is",
                       error.headers)  # fmt: skip
    else:
        said = Refused(error.status_code, "http", str(error.detail))
    return refused(said)
