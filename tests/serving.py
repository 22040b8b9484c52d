"""A real server for tests: uvicorn on a free port of the loopback, in a thread of this process."""

import asyncio
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import httpx

from treering.config import ForgeSettings, ServeSettings
from treering.opening import Place
from treering.serve.app import application
from treering.serve.fleet import Fleet
from treering.serve.house import House
from treering.serve.running import Server, configured, listening
from treering.serve.webhooks import Taking

SETTINGS = ServeSettings(rate=0)


class Served:
    """A server that is under way: its address, its house, what it said of each request, and a client of it."""

    def __init__(self, url: str, house: House, said: list[str], server: Server) -> None:
        self.url, self.house, self.said, self.server = url, house, said, server
        self.client = httpx.Client(base_url=url, timeout=60, trust_env=False)

    def post(self, path: str, body: object = None, **more: Any) -> httpx.Response:
        return self.client.post(path, json={} if body is None else body, **more)

    def get(self, path: str, **more: Any) -> httpx.Response:
        return self.client.get(path, **more)

    def raw(self, request: bytes) -> bytes:
        """What is answered to these very bytes, until the server has no more to say."""
        host, port = self.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=30) as connection:
            connection.sendall(request)
            parts = []
            while part := connection.recv(65536):
                parts.append(part)
        return b"".join(parts)


@contextmanager
def serving(
    places: Mapping[str, Place],
    *,
    waiting: int = 256,
    threads: int = 2,
    port: int = 0,
    forge: ForgeSettings | None = None,
    taken: Mapping[str, Taking] | None = None,
    fleet: Fleet | None = None,
    **changes: Any,
) -> Iterator[Served]:
    settings = replace(SETTINGS, **changes)
    said: list[str] = []
    house = House(places, threads=threads, waiting=waiting, fleet=fleet)
    app = application(house, settings, said.append, forge=forge, taken=taken)
    door = listening("127.0.0.1", port)
    url = f"http://127.0.0.1:{door.getsockname()[1]}"
    server = Server(configured(app, settings), app)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[door])))
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            thread.join(0.01)
        served = Served(url, house, said, server)
        with served.client:
            yield served
    finally:
        server.should_exit = True
        thread.join(60)
        door.close()
        assert not thread.is_alive()
