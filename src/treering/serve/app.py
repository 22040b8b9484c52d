"""The HTTP application: a path for every offer, the seed's search, the index, OpenAI's paths, and a server's health.

What is asked and answered stands in ``offered.py`` and ``openai.py``; this is where each gets its path.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, MutableMapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from typing import Annotated, Any, NamedTuple

import msgspec
from fastapi import FastAPI
from msgspec import Meta
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from treering.config import ForgeSettings, ServeSettings
from treering.errors import TreeringError
from treering.gating import Verdict
from treering.offered import ALL, OFFERS, QUICK, Asked, NothingAsked, SearchAsked
from treering.serve import mcp, openai, pages, schema
from treering.serve import metrics as counting
from treering.serve.access import EVERYTHING, Sight, Tokens
from treering.serve.answers import JSON, STREAM, Gone, Refused, refused
from treering.serve.gating import GateAsked, Gates
from treering.serve.guard import SIGHT, Guard, Receive, Send
from treering.serve.handling import STREAMING, Handler, Health, Points, PointsAsked, Repositories, Server
from treering.serve.house import House
from treering.serve.improving import LearnAsked, LearnJob
from treering.serve.indexing import Job
from treering.serve.lanes import Lane
from treering.serve.webhooks import PATHS as WEBHOOKS
from treering.serve.webhooks import Received, Receiver, Taking, Webhooks
from treering.serve.writers import Writers

NOTHING = "this token sees none of the repositories", "whoever set TREERING_SERVE_TOKENS can name some for it"
POST_ONLY = frozenset({"ask", "route"})
"""What may cost money, or is written down, is asked on purpose only: a GET may come from anywhere."""


class View(NamedTuple):
    """The application of those who see the same."""

    app: FastAPI
    house: House


class Views:
    """The applications of all, each for those who see the same. Pure ASGI."""

    def __init__(self, views: Mapping[Sight, View], writers: Writers) -> None:
        self.writers = writers
        self._views = views

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        app, house = self._views[scope[SIGHT] if scope["type"] == "http" else EVERYTHING]
        if scope["type"] == "http" and scope[SIGHT] != EVERYTHING and await asyncio.to_thread(lambda: house.empty):
            await refused(Refused(403, "nothing_to_see", *NOTHING))(scope, receive, send)
            return
        await app(scope, receive, send)


def application(
    house: House,
    settings: ServeSettings,
    say: Callable[[str], None] = lambda _: None,
    *,
    preload: bool = False,
    forge: ForgeSettings | None = None,
    taken: Mapping[str, Taking] | None = None,
) -> Guard:
    """The whole application, guarded: each of those who see different repositories has one of their own, in which there
    are no others. ``house`` is opened and closed by the one who serves it; ``preload`` opens the indexes and loads a
    model before anyone asks. Where ``forge`` has a secret, webhooks of what is ``taken`` are too.
    """
    metrics = counting.Metrics()
    server, writers = Server(house, metrics), Writers(house.places)
    receiver = Receiver(taken or {}, forge, server.indexing, say) if forge and forge.secrets else None
    house.opening.lent = writers.lent
    gates = Gates(settings, [one.name for one in (taken or {}).values()])

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
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
            for view in views.values():
                await _mount(view, settings, stack)
            if preload:
                try:
                    await _preload(house, writers)
                    stack.callback(asyncio.ensure_future(_warm(house)).cancel)
                except TreeringError as error:  # whoever asks is told the same: the rest can be served
                    say(f"warning: not loaded before it is asked for: {error.message} ({error.hint})")
            yield

    tokens = Tokens(settings)
    views: dict[Sight, View] = {}
    for sight in {EVERYTHING} | tokens.sights:
        whole = sight == EVERYTHING
        seen = house if whole else house.seen(sight)
        app = FastAPI(
            title="treering", openapi_url=None, docs_url=None, redoc_url=None, lifespan=lifespan if whole else None
        )
        spoken = openai.OpenAI(seen, writers, metrics)
        paths = _routes(app, server.seen(seen), spoken, gates, receiver)
        told = msgspec.json.encode(schema.document(paths, seen.names, token=bool(tokens)))
        app.add_route("/openapi.json", partial(_described, told), methods=["GET"])
        for kind in (TreeringError, Refused, Exception):
            app.add_exception_handler(kind, _told)
        app.add_exception_handler(HTTPException, _http)
        app.add_exception_handler(Gone, _gone)
        views[sight] = View(app, seen)
        metrics.paths |= {path.path for path in paths} | {"/openapi.json", "/", "/mcp"}

    def lanes() -> tuple[Lane[Any], ...]:
        return *house.lanes, writers.lane, gates.lane

    metrics.watch("waiting", "Questions that wait.", lambda: sum(map(len, lanes())))
    metrics.watch("busy_threads", "Threads that answer.", lambda: sum(lane.busy for lane in lanes()))
    metrics.watch("model_loaded", "Whether a local model is in memory.", lambda: float(bool(writers.loaded)))
    return Guard(Views(views, writers), settings, metrics, say, receiver.signed if receiver else None)


async def _described(told: bytes, _: Request) -> Response:
    return Response(told, media_type="application/json")


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
        fleet = server.house.fleet is not None
        asks: dict[str, Any] = {"across": fleet and offer.across is not None, "member": fleet and name in QUICK}
        told = [schema.Path("post", path, offer.told, offer.gives, posted, media=media, **asks)]
        if name not in POST_ONLY:
            told.append(schema.Path("get", path, offer.told, offer.gives, offer.asked, **asks))
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
    route(partial(gates.gate, server.house), schema.Path("post", "/v1/gate", judged, Verdict, GateAsked))
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
    whole = server.house.sight.whole  # what follows tells of all repositories
    if receiver and whole:
        for path, of in WEBHOOKS.items():
            told_of = f"A webhook of {of.title()}, by its signature."
            route(receiver.receive, schema.Path("post", path, told_of, Received, status=202, **plain))
        stand = "How the deliveries of the repositories stand whose webhooks are taken."
        route(receiver.standing, schema.Path("get", "/v1/webhooks", stand, Webhooks, **plain))
    route(server.healthy, schema.Path("get", "/healthz", "Whether the server lives.", Health, **plain))
    route(server.ready, schema.Path("get", "/readyz", "Whether the first repository can be searched.", Health, **plain))
    if whole:
        figures = "Figures for Prometheus."
        route(server.watched, schema.Path("get", "/metrics", figures, media=("text/plain",), **plain))
    return paths


async def _mount(view: View, settings: ServeSettings, stack: AsyncExitStack) -> None:
    """The page and MCP: last, so that they take no path of the others."""
    app, house = view
    app.include_router(pages.router())
    hosts = [form for name in (settings.host, *settings.names) for form in (name, f"{name}:*")]
    origins = [f"{scheme}://{host}" for scheme in ("http", "https") for host in hosts]
    routes, under_way = mcp.mounted(mcp.server(house.answer_discreetly, house.names), hosts, origins)
    app.router.routes.extend(routes)
    await stack.enter_async_context(under_way())


async def _preload(house: House, writers: Writers) -> None:
    from treering import learning

    first = SearchAsked(query="the first question")
    if house.fleet:
        await house.answer(ALL, "search", first)
    for repository, place in house.places.items():
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
