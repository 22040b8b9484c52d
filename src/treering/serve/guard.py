"""What stands before every request: whose it is, where it comes from, how large, how many, how long. Pure ASGI.

A server on one's own machine is reachable by every page in one's browser: so the ``Host`` must be ours (a name that was
rebound to this address is not), and a request from another site is refused. Nothing here knows what is asked.
"""

import asyncio
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any

import msgspec

from treering.config import LOOPBACK, ServeSettings
from treering.errors import UsageError
from treering.serve.access import EVERYTHING, Sight, Tokens
from treering.serve.answers import failure
from treering.serve.metrics import Metrics
from treering.tracing import span

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

OPEN = ("/", "/static/", "/healthz", "/readyz")
"""Paths that need no token: the page without what it shows, and whether the server lives."""
SIGHT = "treering.sight"
"""Where the application finds in a request's scope what whoever asks sees."""
BODY_SECONDS = 15.0
MOST_HEADERS = 100
HEAD_BYTES = 32 * 1024
"""How long a URL and the headers may be together."""
READ_HEAD_BYTES = 1 << 20
"""So much of them is read, so that who sends more than they may is told; at more the connection is closed."""
CLIENTS = 10_000
"""How many clients' rates are remembered."""
BURST = 2.0
"""How many seconds' worth of requests may come at once."""
HEADERS = {
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"cache-control": b"no-store",
    b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'",
    b"cross-origin-resource-policy": b"same-origin",
}
"""Sent with every answer that does not say them itself."""
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::\d{1,5})?", re.IGNORECASE)
_ID = re.compile(rb"[\w.-]{1,64}")


def is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def check(settings: ServeSettings) -> None:
    """Raises :class:`UsageError` where others could reach the server and no token is asked of them, and for tokens that
    are none.
    """
    if not Tokens(settings) and not is_loopback(settings.host):
        raise UsageError(
            f"{settings.host} can be reached by others, and no token is set",
            "set TREERING_SERVE_TOKEN to a long random text, or serve on 127.0.0.1",
        )


@dataclass(slots=True)
class Rates:
    """A bucket for each client, that fills with time and is emptied by requests."""

    per_second: float
    clock: Callable[[], float] = time.monotonic
    _left: "OrderedDict[str, tuple[float, float]]" = field(default_factory=OrderedDict)

    def wait(self, client: str) -> float:
        """How many seconds a client must wait; 0 where it may ask now."""
        if not self.per_second:
            return 0.0
        most, now = max(1.0, BURST * self.per_second), self.clock()
        left, at = self._left.pop(client, (most, now))
        left = min(most, left + (now - at) * self.per_second)
        self._left[client] = (left - 1 if left >= 1 else left, now)
        if len(self._left) > CLIENTS:
            self._left.popitem(last=False)
        return 0.0 if left >= 1 else (1 - left) / self.per_second


class _No(Exception):  # noqa: N818
    """A request that is not let in."""

    def __init__(self, status: int, code: str, message: str, hint: str, *headers: tuple[bytes, bytes]) -> None:
        super().__init__(message)
        self.status, self.body = status, msgspec.json.encode(failure(status, code, message, hint))
        self.headers = [(b"content-type", b"application/json"), *headers]


@dataclass(frozen=True, slots=True)
class Signed:
    """What is known of a request that is let in by its signature, which is asked for on its path: whether it bears one
    at all, and how large it may be.
    """

    bears: Callable[[dict[str, str]], bool]
    most: int


class Guard:
    """The application behind a guard, which is told what whoever asks may see. ``say`` gets a line for every request:
    method, path, status, milliseconds and the request's id; never what is asked. ``draining`` sends every client away
    after its answer.

    ``signed`` are the paths whose POSTs prove themselves by a signature of their body, which no page and no name that
    was pointed here can make: they need neither the token nor our own name as ``Host``, and count for no client's
    rate: behind a proxy the forge has the address of whoever else comes that way.
    """

    def __init__(
        self,
        app: App,
        settings: ServeSettings,
        metrics: Metrics,
        say: Callable[[str], None] = lambda _: None,
        signed: Mapping[str, Signed] | None = None,
    ) -> None:
        self.app, self.settings, self.metrics, self.say = app, settings, metrics, say
        self.rates = Rates(settings.rate)
        self._tokens = Tokens(settings)
        self._signed = signed or {}
        self._held = 0
        self.draining = False
        self._names = frozenset(name.lower() for name in (settings.host.strip("[]"), *settings.names)) | (
            LOOPBACK if is_loopback(settings.host) or settings.host in ("0.0.0.0", "::") else frozenset()  # noqa: S104
        )

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        with span("HTTP", **{"http.request.method": scope["method"][:16]}) as tell:
            status = await self._answered(scope, receive, send)
            path = self.metrics.path_of(scope["path"])
            tell("http.route", path)
            tell("http.response.status_code", status)

    async def _answered(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> int:
        """Answer a request; returns the status, 0 where the client left before there was one."""
        started, status = time.monotonic(), 0
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        asked = next((value for name, value in headers if name == b"x-request-id"), b"")
        name = asked if _ID.fullmatch(asked) else secrets.token_hex(8).encode()

        async def told(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                there = {key for key, _ in message["headers"]}
                message["headers"] = [
                    *message["headers"],
                    *((key, value) for key, value in HEADERS.items() if key not in there),
                    (b"x-request-id", name),
                    *([(b"connection", b"close")] if self.draining else ()),
                ]
            await send(message)

        self.metrics.begun()
        try:
            await self._let_in(scope, receive, told)
        except _No as refusal:
            if not status:
                await told({"type": "http.response.start", "status": refusal.status, "headers": refusal.headers})
                content = b"" if scope["method"] == "HEAD" else refusal.body
                await told({"type": "http.response.body", "body": content})
        finally:
            seconds = time.monotonic() - started
            self.metrics.ended(scope["method"], scope["path"], status, seconds)
            path = scope["path"].encode("unicode_escape").decode()[:200]
            self.say(f"{scope['method'][:16]} {path} {status or 'left'} {seconds * 1000:.0f} ms {name.decode()}")
        return status

    async def _let_in(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        found = self._headers(scope)
        by_signature = self._signed.get(scope["path"]) if scope["method"] == "POST" else None
        self._check_host(found, ours=by_signature is None)
        self._check_origin(scope, found)
        client = (scope.get("client") or ("",))[0]
        if by_signature is None:
            self._check_rate(self.rates.wait(client))
            scope[SIGHT] = self._sight(scope["path"], found)
            content = await self._read(found, receive, self.settings.body_bytes)
        else:
            scope[SIGHT] = EVERYTHING
            if not by_signature.bears(
                {key.decode("latin-1"): values[0].decode("latin-1") for key, values in found.items()}
            ):
                raise _No(
                    401, "no_signature", "the delivery is not signed", "give the forge a secret, and here the same"
                )
            content = await self._read(found, receive, by_signature.most, shared=True)
        begun = False

        async def replay() -> Message:
            nonlocal begun
            if not begun:
                begun = True
                return {"type": "http.request", "body": content, "more_body": False}
            return await receive()

        answering = asyncio.Event()

        async def noticed(message: Message) -> None:
            answering.set()
            await send(message)

        await self._in_time(self.app(scope, replay, noticed), answering)

    async def _in_time(self, answer: Any, answering: asyncio.Event) -> None:
        """An answer must begin in time; one that has begun may go on."""
        task = asyncio.ensure_future(answer)
        begun = asyncio.ensure_future(answering.wait())
        try:
            await asyncio.wait((task, begun), timeout=self.settings.seconds, return_when=asyncio.FIRST_COMPLETED)
            if not task.done() and not answering.is_set():
                limit = f"no answer within {self.settings.seconds:g} s"
                raise _No(504, "too_slow", limit, "ask for less, or raise TREERING_SERVE_SECONDS")
            await task
        finally:
            begun.cancel()
            task.cancel()

    def _headers(self, scope: MutableMapping[str, Any]) -> dict[bytes, list[bytes]]:
        if len(scope["headers"]) > MOST_HEADERS:
            raise _No(431, "too_many_headers", f"more than {MOST_HEADERS} headers", "send fewer")
        size = (
            len(scope["query_string"])
            + len(scope["path"])
            + sum(len(key) + len(value) for key, value in scope["headers"])
        )
        if size > HEAD_BYTES:
            raise _No(431, "too_long", f"URL and headers have more than {HEAD_BYTES:,} bytes", "ask by POST")
        found: dict[bytes, list[bytes]] = {}
        for key, value in scope["headers"]:
            found.setdefault(key, []).append(value)
        return found

    @staticmethod
    def _check_rate(seconds: float) -> None:
        if seconds:
            after = (b"retry-after", str(int(seconds) + 1).encode())
            raise _No(429, "too_many", "too many requests from one client", f"wait {seconds:.1f} s", after)

    def _check_host(self, found: dict[bytes, list[bytes]], *, ours: bool = True) -> None:
        hosts = found.get(b"host", [])
        named = _HOST.fullmatch(hosts[0].decode("latin-1")) if len(hosts) == 1 else None
        if not named:
            raise _No(400, "bad_host", "the request has no valid Host header", "send one, as HTTP/1.1 demands")
        name = named[1].lower().strip("[]")
        if not ours or name in self._names or (self.settings.host in ("0.0.0.0", "::") and _is_address(name)):  # noqa: S104
            return
        raise _No(421, "wrong_host", f"this server is not {name}", "ask it by its address, or name it with --name")

    def _check_origin(self, scope: MutableMapping[str, Any], found: dict[bytes, list[bytes]]) -> None:
        """No other site may ask: not one that says so by ``Origin``, nor by what the browser says of it."""
        host = found[b"host"][0].decode("latin-1").lower()
        for origin in found.get(b"origin", []):
            _, _, of = origin.decode("latin-1").lower().partition("://")
            if of != host:
                raise _No(403, "other_origin", "a page of another origin asks", "ask from a page of this server")
        site = found.get(b"sec-fetch-site", [b"none"])[0]
        follows = scope["method"] == "GET" and found.get(b"sec-fetch-mode", [b""])[0] == b"navigate"
        if site in (b"cross-site", b"same-site") and not follows:
            raise _No(403, "other_origin", "a page of another site asks", "ask from a page of this server")

    def _sight(self, path: str, found: dict[bytes, list[bytes]]) -> Sight:
        """What the token sees that is borne."""
        if not self._tokens or path in OPEN or path.startswith("/static/"):
            return EVERYTHING
        given = found.get(b"authorization", [b""])[0]
        kind, _, token = given.partition(b" ")
        if kind.lower() == b"bearer" and (sight := self._tokens.sight(token.strip())):
            return sight
        ask = (b"www-authenticate", b"Bearer")
        raise _No(401, "no_token", "the token is missing or wrong", "send Authorization: Bearer TOKEN", ask)

    async def _read(
        self, found: dict[bytes, list[bytes]], receive: Receive, most: int, *, shared: bool = False
    ) -> bytes:
        """The whole body, within its limit of bytes and of time; with ``shared``, of four such together too."""
        large = _No(413, "too_large", f"the body has more than {most:,} bytes", "send less", (b"connection", b"close"))
        length = found.get(b"content-length", [b"0"])[0]
        if length.isdigit() and int(length) > most:
            raise large
        parts, size = [], 0
        try:
            async with asyncio.timeout(BODY_SECONDS):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise _No(400, "left", "the body ended early", "send all of it")
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    self._held += len(parts[-1]) if shared else 0
                    if size > most:
                        raise large
                    if shared and self._held > 4 * most:
                        raise _No(503, "busy", "too many large deliveries at once", "send it again",
                                  (b"retry-after", b"10"), (b"connection", b"close"))  # fmt: skip
                    if not message.get("more_body"):
                        return b"".join(parts)
        except TimeoutError:
            slow = f"the body was not there within {BODY_SECONDS:g} s"
            raise _No(408, "slow_body", slow, "send it at once", (b"connection", b"close")) from None
        finally:
            self._held -= size if shared else 0


def _is_address(name: str) -> bool:
    """Nobody can point an address elsewhere, as a name can be."""
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
