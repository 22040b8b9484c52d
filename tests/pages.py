"""A server of the page for its tests: the real page, and the real operations on a real repository behind it.

Run as a program it serves one repository: ``python tests/pages.py REPOSITORY [STORE]``.
"""

import asyncio
import json
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse

from treering import finding, opening, operations
from treering.errors import TreeringError
from treering.offered import OFFERS
from treering.opening import Place
from treering.report import Reporter
from treering.serve import pages


class Answering:
    """Repositories by name, each with a desk on a thread of its own."""

    def __init__(self, places: Mapping[str, Place], stack: ExitStack) -> None:
        self.places, self.stack = places, stack
        self.threads = {name: stack.enter_context(ThreadPoolExecutor(1)) for name in places}
        self.desks: dict[str, finding.Desk] = {}
        for name, thread in self.threads.items():
            stack.callback(thread.submit(self._open, name).result())

    def _open(self, name: str) -> Any:
        own = ExitStack()
        with own:
            self.desks[name] = own.enter_context(finding.desk(self.places[name], Reporter()))
            left = own.pop_all()
        return lambda: self.threads[name].submit(left.close).result()

    def answer(self, repository: str, offer: str, body: bytes) -> object:
        name = repository or next(iter(self.places))
        if offer == "status":
            return operations.status(self.places[name])
        asked = msgspec.json.decode(body or b"{}", type=OFFERS[offer].asked)
        return self.threads[name].submit(OFFERS[offer].answer, self.desks[name], asked).result()


def application(places: Mapping[str, Place], stack: ExitStack, token: str = "") -> FastAPI:
    """The page's router with ``/v1/`` behind it, as the page speaks to it."""
    app, answering = FastAPI(), Answering(places, stack)
    app.include_router(pages.router())

    def answered(value: object, status: int = 200) -> Response:
        return Response(msgspec.json.encode(value), status, media_type="application/json")

    def failed(error: Exception) -> Response:
        told = {"message": getattr(error, "message", str(error)), "hint": getattr(error, "hint", ""), "code": ""}
        return answered({"error": told}, 400)

    @app.middleware("http")
    async def guard(request: Request, follow: Any) -> Any:
        if token and request.url.path.startswith("/v1/"):
            given = request.headers.get("authorization")
            if given != f"Bearer {token}":
                return answered({"error": {"message": "a token is needed", "hint": "give it", "code": ""}}, 401)
        return await follow(request)

    @app.get("/v1/repositories")
    def repositories() -> Response:
        return answered({"repositories": [{"name": name} for name in answering.places]})

    @app.post("/v1/ask")
    async def ask(request: Request, repository: str = "") -> Response:
        body = await request.json()
        hits: Any = await asyncio.to_thread(
            answering.answer, repository, "search", json.dumps({"query": body["question"], "limit": 3}).encode()
        )
        return StreamingResponse(_told(body["question"], hits), media_type="text/event-stream")

    @app.post("/v1/{offer}")
    async def offer(offer: str, request: Request, repository: str = "") -> Response:
        body = await request.body()
        try:
            value = await asyncio.to_thread(partial(answering.answer, repository, offer, body))
        except (TreeringError, msgspec.ValidationError) as error:
            return failed(error)
        return answered(value)

    return app


async def _told(question: str, hits: list[Any]) -> AsyncIterator[str]:
    """What the history answers, word by word, as ``/v1/ask`` streams it: the commits that were found, told."""
    said = [f"{hit.subject or 'A commit without a message'} [{hit.commit_hash[:10]}]." for hit in hits]
    answer = " ".join(said) or "The history tells nothing of this."
    for piece in answer.split(" "):
        yield f"data: {json.dumps({'delta': f'{piece} '})}\n\n"
        await asyncio.sleep(0.05)
    cited = [{"commit_hash": hit.commit_hash, "subject": hit.subject, "date": hit.date} for hit in hits]
    whole = {
        "question": question, "answer": answer, "answered_by": "history", "why": "there is no model here",
        "citations": cited, "unsupported": [], "thin": not hits, "model": "", "input_tokens": 0, "output_tokens": 0,
        "dollars": 0.0, "context": None,
    }  # fmt: skip
    yield f"data: {json.dumps({'answer': whole})}\n\ndata: [DONE]\n\n"


class Served:
    """A server on a loopback port of its own, until it is stopped."""

    def __init__(self, app: FastAPI, port: int = 0) -> None:
        self.socket = socket.create_server(("127.0.0.1", port))
        self.port = int(self.socket.getsockname()[1])
        config = uvicorn.Config(app, log_level="error", ws="none", lifespan="off", timeout_graceful_shutdown=1)
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.socket]})
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join()
        self.socket.close()


@contextmanager
def served(places: Mapping[str, Place], token: str = "") -> Iterator[Served]:
    with ExitStack() as stack:
        server = Served(application(places, stack, token))
        try:
            yield server
        finally:
            server.stop()


def main(repository: str, store: str | None = None, port: str = "0") -> None:
    where = opening.place(Path(repository), Path(store) if store else None)
    with ExitStack() as stack:
        server = Served(application({where.source.name: where}, stack), int(port))
        sys.stderr.write(f"{server.address}\n")
        server.thread.join()


if __name__ == "__main__":
    main(*sys.argv[1:])
