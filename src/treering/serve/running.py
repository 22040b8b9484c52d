"""A server from its socket to its end: uvicorn in this process, which answers all it accepted before it ends."""

import asyncio
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import h11
import msgspec
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from treering.config import ForgeSettings, ServeSettings
from treering.opening import Place
from treering.report import Reporter
from treering.serve.answers import JSON, failure
from treering.serve.app import application
from treering.serve.fleet import Fleet
from treering.serve.guard import HEADERS, READ_HEAD_BYTES, Guard
from treering.serve.house import House
from treering.serve.webhooks import Taking

DRAINING_SECONDS = 1.0
"""For so long those who are connected are answered and sent away, before the connections that are left are closed."""
HEADER_SECONDS = 15.0
"""For so long a connection may take to say what it asks, from its first moment on."""
KEEP_SECONDS = 20
BACKLOG = 512


class Connection(H11Protocol):
    """uvicorn's, which would wait for a request's headers without end; and what is no HTTP is told in our shape."""

    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._late:
            self._late.cancel()

    def _wait(self) -> None:
        """While a request has begun and its headers are not there, its time runs."""
        if self.conn.their_state is h11.IDLE:
            self._late = self._late or self.loop.call_later(HEADER_SECONDS, self.timeout_keep_alive_handler)
        elif self._late:
            self._late.cancel()
            self._late = None

    def send_400_response(self, msg: str) -> None:
        told = failure(400, "no_http", f"this is no request that can be read: {msg}", "URL and headers may be 32 KiB")
        body = msgspec.json.encode(told)
        headers = [(b"content-type", JSON.encode()), (b"connection", b"close"), *HEADERS.items()]
        for event in (h11.Response(status_code=400, headers=headers), h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()


class Server(uvicorn.Server):
    """uvicorn that first closes its door, then sends its guests away one by one with their answers, and only then ends.
    A second signal ends it at once.
    """

    def __init__(self, config: uvicorn.Config, guard: Guard) -> None:
        super().__init__(config)
        self._guard = guard

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """A signal asks for an end, and that it came is no failure: uvicorn's own way raises it again afterwards."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {sent: signal.signal(sent, self.handle_exit) for sent in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for sent, handler in before.items():
                signal.signal(sent, handler)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for listening in self.servers:
            listening.close()
        self._guard.draining = True
        waited = 0.0
        while self.server_state.connections and waited < DRAINING_SECONDS and not self.force_exit:
            await asyncio.sleep(0.05)
            waited += 0.05
        await super().shutdown(sockets)


def listening(host: str, port: int) -> socket.socket:
    """A socket at an address. Raises :class:`OSError` where it is taken or not ours."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named because asyncio sends without delay only where it is.
    made = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if os.name == "posix":
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host.strip("[]"), port))
        made.listen(BACKLOG)
    except OSError:
        made.close()
        raise
    return made


def configured(app: Guard, settings: ServeSettings) -> uvicorn.Config:
    """How uvicorn runs an application: it logs nothing of its own but failures, and speaks only plain HTTP."""
    return uvicorn.Config(
        app, log_config=None, access_log=False, lifespan="on", server_header=False, ws="none", http=Connection,
        h11_max_incomplete_event_size=READ_HEAD_BYTES, timeout_keep_alive=KEEP_SECONDS, proxy_headers=False,
        timeout_graceful_shutdown=int(settings.seconds) or 1,
    )  # fmt: skip


def serve(
    places: Mapping[str, Place],
    settings: ServeSettings,
    report: Reporter,
    begun: Callable[[str], None],
    *,
    preload: bool = False,
    forge: ForgeSettings | None = None,
    taken: Mapping[str, Taking] | None = None,
    fleet: Fleet | None = None,
) -> None:
    """Serve until a signal ends it. ``begun`` gets the address as soon as it can be asked.

    Raises :class:`OSError` where the address cannot be had.
    """
    door = listening(settings.host, settings.port)
    host, port = door.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    house = House(places, threads=settings.threads, waiting=settings.waiting, processes=settings.processes, fleet=fleet)
    app = application(house, settings, report.say, preload=preload, forge=forge, taken=taken)
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    server = Server(configured(app, settings), app)

    async def run() -> None:
        announced = asyncio.ensure_future(_announce(server, lambda: begun(f"http://{shown}:{port}")))
        try:
            await server.serve(sockets=[door])
        finally:
            announced.cancel()

    with door:
        asyncio.run(run())


async def _announce(server: Server, tell: Callable[[], None]) -> None:
    while not server.started:
        await asyncio.sleep(0.01)
    tell()
