"""A forge's API over HTTP: one request at a time, with what it takes to be a guest there. Knows no endpoint.

The token goes to the one address that was configured, over https or within this machine; no redirect to another one is
followed, no page's link is taken for more than its number, and nothing that is raised holds it. What may have been done
already is not done again here: who creates something looks first whether it is there.
"""

import random
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Self, TypeVar
from urllib.parse import SplitResult, parse_qs, urlsplit

import httpx2
import msgspec

from treering import __version__
from treering.config import LOOPBACK
from treering.errors import NoKey, ServiceError, UsageError

T = TypeVar("T")

SECONDS = 30.0
TRIES = 4
"""How often a request is made whose repetition does no harm."""
PAGE = 100
MOST_PAGES = 300
MOST_BYTES = 64 << 20
_NEXT = re.compile(r'<([^<>]*)>\s*;[^,]*\brel="?next"?')
_SAFE = frozenset({"GET", "PUT", "PATCH", "DELETE"})
_GONE_WRONG = (500, 502, 503, 504)


class Unclear(ServiceError):  # noqa: N818
    """Whether the request was done is not known."""


class Missing(ServiceError):  # noqa: N818
    """What was asked for is not there, or not for this token."""


class Refused(ServiceError):  # noqa: N818
    """The token may not do this."""


class Api:
    """One API with one token; use ``with``. ``pause`` waits; ``patience`` seconds in all are waited for a forge that
    asks to wait.
    """

    def __init__(
        self, base: str, headers: Mapping[str, str], *, patience: float, pause: Callable[[float], object] = time.sleep
    ) -> None:
        parts = urlsplit(base)
        check_way(parts, "the forge's API", "set TREERING_FORGE_API to an https address")
        for value in headers.values():
            check_token(value, "the forge's token")
        self.base, self.host = base.rstrip("/"), parts.hostname or ""
        self._origin = (parts.scheme, parts.netloc)
        self._left, self._pause = patience, pause
        self._client = client_of(parts, headers, SECONDS)

    def __enter__(self) -> Self:
        self._client.__enter__()
        return self

    def __exit__(self, *told: object) -> None:
        self._client.__exit__(None, None, None)

    def get(self, path: str, kind: type[T], **params: str | int) -> T:
        return self._decoded(self._asked("GET", path, params), kind)

    def send(self, method: str, path: str, body: object, kind: type[T]) -> T:
        """Raises :class:`Unclear` where a POST may have been done."""
        return self._decoded(self._asked(method, path, {}, body), kind)

    def delete(self, path: str) -> None:
        """Whether it was there or not."""
        with suppress(Missing):
            self._asked("DELETE", path, {})

    def pages(self, path: str, kind: type[T], **params: str | int) -> Iterator[list[T]]:
        """The pages of a list of ``kind``, as they come."""
        asked: dict[str, str | int] = {"per_page": PAGE, **params}
        for _ in range(MOST_PAGES):
            response = self._asked("GET", path, asked)
            yield self._decoded(response, list[kind])  # type: ignore[valid-type]  # the type is a value here
            following = _NEXT.search(response.headers.get("link", ""))
            if not following:
                return
            asked |= {name: values[-1] for name, values in parse_qs(urlsplit(following[1]).query).items()}

    def _decoded(self, response: httpx2.Response, kind: type[T]) -> T:
        try:
            return msgspec.json.decode(response.content, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ServiceError(
                f"{self.host} answers otherwise than its API should: {error}",
                "look whether TREERING_FORGE_API is the API's address",
            ) from None

    def _asked(self, method: str, path: str, params: Mapping[str, str | int], body: object = None) -> httpx2.Response:
        url = f"{self.base}{path}"
        content = None if body is None else msgspec.json.encode(body)
        for attempt in range(TRIES):
            last = attempt == TRIES - 1
            try:
                response = self._once(method, url, params, content)
            except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:  # it was never sent
                if last:
                    raise ServiceError(
                        f"{self.host} cannot be reached: {_cause(error)}", "look at the network"
                    ) from None
                self._wait(_backoff(attempt))
                continue
            except (httpx2.HTTPError, httpx2.InvalidURL) as error:
                if method not in _SAFE:
                    raise Unclear(f"{self.host} did not answer ({type(error).__name__})", "run it again") from None
                if last:
                    raise ServiceError(f"{self.host} did not answer ({type(error).__name__})", "ask later") from None
                self._wait(_backoff(attempt))
                continue
            status = response.status_code
            if status in (301, 302, 307, 308) and method == "GET" and not last:
                url, params = self._moved(response), {}
                continue
            if status < 300 or status == 304:
                return response
            if (seconds := _asks_to_wait(response)) is not None:
                if last or seconds > self._left:
                    at = time.strftime("%H:%M:%S UTC", time.gmtime(time.time() + seconds))
                    raise ServiceError(
                        f"the rate limit of {self.host} is reached until {at}",
                        "run it again then, or raise TREERING_FORGE_PATIENCE",
                    )
                self._wait(seconds)
                continue
            if status in _GONE_WRONG and not last and method in _SAFE:
                self._wait(_backoff(attempt))
                continue
            raise self._said(method, path, response)
        raise AssertionError  # each last attempt returns or raises

    def _once(self, method: str, url: str, params: Mapping[str, str | int], content: bytes | None) -> httpx2.Response:
        headers = {} if content is None else {"Content-Type": "application/json"}
        with self._client.stream(method, url, params=dict(params), content=content, headers=headers) as response:
            whole = bounded(response, self.host)
        return httpx2.Response(
            response.status_code, headers=[(k, v) for k, v in response.headers.items() if k != "content-encoding"],
            content=whole,
        )  # fmt: skip

    def _moved(self, response: httpx2.Response) -> str:
        """Where a repository that was renamed is now: at the same address only."""
        target = response.headers.get("location", "")
        parts = urlsplit(target)
        if (parts.scheme, parts.netloc) != self._origin:
            raise ServiceError(f"{self.host} sends us to another address", "set TREERING_FORGE_API to where it is")
        return target

    def _wait(self, seconds: float) -> None:
        self._left -= seconds
        self._pause(seconds)

    def _said(self, method: str, path: str, response: httpx2.Response) -> ServiceError:
        status, message = response.status_code, _message(response)
        said = f"{self.host}: {status} on {method} {path}" + (f": {message}" if message else "")
        if status == 401:
            return NoKey(f"{self.host} does not take the token: it is missing, wrong or expired", "set it anew")
        if status == 403:
            return Refused(said, "give the token the right to read the repository and write comments")
        if status in (404, 410):
            return Missing(said, "look at repository and number, and whether the token may see them")
        if status in (400, 409, 422):
            return ServiceError(said, "the forge refuses this as it is")
        if status in _GONE_WRONG and method not in _SAFE:
            return Unclear(said, "run it again")
        return ServiceError(said, "ask later")


def check_way(parts: SplitResult, named: str, hint: str) -> None:
    """Raise :class:`UsageError` for an address that no token is sent to."""
    if not (parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK)):
        where = f"{parts.scheme}://{parts.hostname}"
        raise UsageError(f"{named} is at {where}: a token is sent over https, or within this machine, only", hint)


def client_of(parts: SplitResult, headers: Mapping[str, str], seconds: float) -> httpx2.Client:
    """Who asks there, and nowhere that it is sent to. A proxy would see what is sent over http: none is asked."""
    return httpx2.Client(
        headers={"User-Agent": f"treering/{__version__}", **headers}, timeout=seconds, follow_redirects=False,
        trust_env=parts.scheme == "https",
    )  # fmt: skip


def check_token(token: str, named: str) -> None:
    """Raise :class:`NoKey` for one that cannot be sent; whoever tried would show it."""
    if not (token.isascii() and token.isprintable()) or token != token.strip():
        raise NoKey(f"{named} holds characters that no token has", "set it anew")


def bounded(response: httpx2.Response, host: str) -> bytes:
    """The body of an answer that is being received. Raises :class:`ServiceError` for one that does not end."""
    parts, size = [], 0
    for part in response.iter_bytes():
        size += len(part)
        if size > MOST_BYTES:
            raise ServiceError(f"{host} answers with more than {MOST_BYTES >> 20} MB", "ask for less")
        parts.append(part)
    return b"".join(parts)


def _asks_to_wait(response: httpx2.Response) -> float | None:
    """For how many seconds a forge wants to be left alone; None if that is not what it says."""
    limited = response.status_code == 429 or (
        response.status_code == 403
        and (
            "retry-after" in response.headers
            or response.headers.get("x-ratelimit-remaining") == "0"
            or "rate limit" in _message(response).lower()
        )
    )
    if not limited:
        return None
    for name in ("retry-after", "x-ratelimit-reset", "ratelimit-reset"):
        with suppress(ValueError):
            value = float(response.headers.get(name, ""))
            seconds = value if name == "retry-after" else value - time.time()
            return min(max(1.0, seconds), 86_400.0)
    return 60.0  # what GitHub asks of who is told nothing


def _backoff(attempt: int) -> float:
    return 0.5 * float(2**attempt) + random.uniform(0, 0.25)  # noqa: S311  it spreads clients, no more


def _message(response: httpx2.Response) -> str:
    """What the forge says is wrong, in one line."""
    try:
        said = msgspec.json.decode(response.content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""
    if not isinstance(said, dict):
        return ""
    told = said.get("message") or said.get("error") or ""
    return " ".join(str(told).split())[:300]


def _cause(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
