"""What a request says, as the values of an operation, and an answer or an error as a response. One shape of errors for
all paths: OpenAI's, with a ``hint``.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from typing import Any, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from treering.errors import (
    BudgetError,
    DataError,
    ModelError,
    NoKey,
    NoSandbox,
    NoStore,
    RepositoryError,
    ServiceError,
    StoreError,
    TreeringError,
    UsageError,
)
from treering.serve.lanes import Busy

T = TypeVar("T")

JSON = "application/json"
STREAM = "text/event-stream"
STATUS: dict[type[TreeringError], tuple[int, str]] = {
    Busy: (503, "busy"),
    UsageError: (400, "invalid_request"),
    DataError: (409, "no_index"),
    BudgetError: (402, "budget"),
    ModelError: (409, "no_model"),
    NoKey: (409, "no_key"),
    NoSandbox: (409, "no_sandbox"),
    ServiceError: (502, "service"),
    NoStore: (409, "no_index"),
    StoreError: (503, "store"),
    RepositoryError: (503, "repository"),
}
"""The status and the code of each error; the first that fits."""


class Refused(Exception):  # noqa: N818  it is what the request is
    """A request that is answered with an error of HTTP's own."""

    def __init__(
        self, status: int, code: str, message: str, hint: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.hint = status, code, message, hint
        self.headers = dict(headers or {})


class Gone(Exception):  # noqa: N818
    """Whoever asked has left."""


class ErrorBody(msgspec.Struct, frozen=True):
    """What is wrong, the way out, and a short name of it; ``type`` and ``param`` are there for OpenAI's clients."""

    message: str
    hint: str
    code: str
    type: str
    param: str | None = None


class Failure(msgspec.Struct, frozen=True):
    error: ErrorBody


def answered(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(value), status, headers, JSON)


def failure(status: int, code: str, message: str, hint: str = "") -> Failure:
    kind = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}.get(status, "")
    kind = kind or ("server_error" if status >= 500 else "invalid_request_error")
    named = re.match(r"`([\w.\[\]]+)`", message)
    return Failure(ErrorBody(_text(message), _text(hint), code, kind, named[1] if named else None))


def status_of(error: TreeringError) -> tuple[int, str]:
    """The status and the code of an error of ours."""
    return next((told for kind, told in STATUS.items() if isinstance(error, kind)), (500, "error"))


def refused(error: Exception) -> Response:
    """The response to an error of ours, or a request's."""
    if isinstance(error, Refused):
        told = failure(error.status, error.code, error.message, error.hint)
        return answered(told, error.status, error.headers)
    if isinstance(error, TreeringError):
        status, code = status_of(error)
        headers = {"retry-after": str(error.seconds)} if isinstance(error, Busy) else {}
        return answered(failure(status, code, error.message, error.hint), status, headers)
    return answered(failure(500, "internal", "this is a bug of ours", "the server's log has its trace"), 500)


def _text(text: str) -> str:
    """Encodable, whatever it was made of."""
    return text.encode("utf-8", "replace").decode()


async def body(request: Request) -> bytes:
    """The body of a request that may only be JSON."""
    content = await request.body()
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content and kind != JSON:
        raise Refused(415, "not_json", f"the body is {kind or 'of no type'}", f"send Content-Type: {JSON}")
    return content


def decoded(content: bytes, kind: type[T]) -> T:
    """A body as a value. Raises :class:`UsageError` that names the field."""
    try:
        return msgspec.json.decode(content or b"{}", type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise wrong(error) from error


def converted(value: object, kind: type[T]) -> T:
    try:
        return msgspec.convert(value, kind)
    except (msgspec.ValidationError, RecursionError) as error:
        raise wrong(error) from error


def wrong(error: Exception) -> UsageError:
    """What msgspec says is wrong, with the field first."""
    if not isinstance(error, msgspec.ValidationError):
        return UsageError(f"the body is no JSON: {error}", "send one JSON object in UTF-8")
    problem, _, place = str(error).partition(" - at `$")
    named = place.rstrip("`").lstrip(".") or next(iter(re.findall(r"field `(\w+)`", problem)), "")
    return UsageError(f"`{named}`: {problem}" if named else problem, "/openapi.json says what may be asked")


def of_query(request: Request, kind: type[T], apart: frozenset[str] = frozenset()) -> T:
    """A query string as a value: each name once, but those of lists, which are repeated."""
    import typing

    hints = typing.get_type_hints(kind)
    found: dict[str, Any] = {}
    for name in request.query_params:
        if name not in apart:
            given = request.query_params.getlist(name)
            listed = typing.get_origin(hints.get(name)) is tuple
            if len(given) > 1 and not listed:
                raise UsageError(f"`{name}`: given {len(given)} times", "give it once")
            found[name] = given if listed else given[0]
    try:
        return msgspec.convert(found, kind, strict=False)
    except msgspec.ValidationError as error:
        raise wrong(error) from error


async def while_there(request: Request, answer: Awaitable[T]) -> T:
    """An answer, unless whoever asked leaves before it is there: then what makes it is cancelled. The body must have
    been read.
    """
    made = asyncio.ensure_future(answer)
    left = asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait((made, left), return_when=asyncio.FIRST_COMPLETED)
        if not made.done():
            raise Gone
        return made.result()
    finally:
        left.cancel()
        made.cancel()


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def event(value: object) -> bytes:
    """One Server-Sent Event."""
    return b"data: " + msgspec.json.encode(value) + b"\n\n"


async def streamed(
    request: Request,
    run: Callable[[Callable[..., None]], Awaitable[T]],
    *,
    piece: Callable[..., bytes],
    ended: Callable[[T], Iterable[bytes]],
    begun: Iterable[bytes] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """An answer as Server-Sent Events: those of its beginning, one for each ``piece`` that is told while it is made,
    those of its end, and ``[DONE]``. What goes wrong before the first piece is an error like any other.
    """
    pieces: asyncio.Queue[tuple[Any, ...] | None] = asyncio.Queue()
    made = asyncio.ensure_future(run(lambda *told: pieces.put_nowait(told)))
    made.add_done_callback(lambda _: pieces.put_nowait(None))
    try:
        first = await while_there(request, pieces.get())
        if first is None:
            made.result()
    except BaseException:
        made.cancel()
        raise

    async def events() -> AsyncIterator[bytes]:
        told = first
        try:
            for one in begun:
                yield one
            while told is not None:
                yield piece(*told)
                told = await pieces.get()
            for one in ended(made.result()):
                yield one
        except Exception as error:  # noqa: BLE001  the status is sent: the stream itself must tell
            yield event(msgspec.Raw(bytes(refused(error).body)))
        finally:
            made.cancel()
        yield b"data: [DONE]\n\n"

    return StreamingResponse(events(), media_type=STREAM, headers=headers)
