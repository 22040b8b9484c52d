"""A fleet behind a server (`treering serve --fleet`), asked as one that lies here is asked."""

from typing import Self
from urllib.parse import urlsplit

import httpx2
import msgspec
from msgspec import Struct

from treering.config import Settings
from treering.errors import NoKey, ServiceError, UsageError
from treering.finding import question_of, text_of, texts_of
from treering.operate.rest import bounded, check_token, check_way, client_of
from treering.report import Reporter
from treering.types import NO_FILTERS, Filters, Hit

SECONDS = 120.0
"""For so long the next piece of an answer is waited for: the first one of a server may open many stores."""


class _Said(Struct, frozen=True):
    message: str = ""
    hint: str = ""


class _Failure(Struct, frozen=True):
    error: _Said = _Said()


class Remote:
    """All repositories that a server shows to the token of the settings; use ``with``. What falls short there is
    warned of as here.

    Raises :class:`UsageError` for an address that cannot be, or that a token is not sent to.
    """

    def __init__(self, address: str, settings: Settings, report: Reporter) -> None:
        token = settings.serve.token
        check_token(token, "TREERING_SERVE_TOKEN")
        try:
            parts = urlsplit(address)
            _ = parts.port
        except ValueError:
            parts = urlsplit("")
        strange = "@" in parts.netloc or parts.query or parts.fragment
        if parts.scheme not in ("http", "https") or not parts.hostname or strange:
            raise UsageError("--fleet is no address of a server", "give it like https://host:8080, or a folder")
        if token:
            check_way(parts, "the server", "give an https address")
        self._base, self._host = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}", parts.hostname
        self._limit, self._report, self._warned = settings.search.limit, report, set[str]()
        try:
            self._client = client_of(parts, {"Authorization": f"Bearer {token}"} if token else {}, SECONDS)
        except (ValueError, ImportError) as error:
            raise UsageError(
                f"no way leads to {parts.hostname}: {error}", "look at HTTPS_PROXY and ALL_PROXY"
            ) from None

    def __enter__(self) -> Self:
        self._client.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._client.__exit__(None, None, None)

    def search(self, query: str, *, limit: int = 0, filters: Filters = NO_FILTERS, at: str = "") -> list[Hit]:
        """The commits of all repositories that answer a question in words, best first."""
        return self._asked("search", {"query": question_of(query), "at": text_of(at)}, limit, filters)

    def similar(self, commit: str, *, limit: int = 0, filters: Filters = NO_FILTERS) -> list[Hit]:
        """The commits of all repositories that do most nearly what one commit does."""
        return self._asked("similar", {"commit": text_of(commit)}, limit, filters)

    def _asked(self, what: str, question: dict[str, str], limit: int, filters: Filters) -> list[Hit]:
        asked = question | msgspec.structs.asdict(texts_of(filters)) | {"limit": limit or self._limit}
        try:
            with self._client.stream(
                "POST", f"{self._base}/v1/{what}?repository=*", content=msgspec.json.encode(asked),
                headers={"Content-Type": "application/json"},
            ) as response:  # fmt: skip
                content = bounded(response, self._host)
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            told = " ".join(str(error).split())[:200] or type(error).__name__
            raise ServiceError(
                f"{self._host} does not answer: {told}", "look whether `treering serve` runs there"
            ) from None
        if response.status_code != 200:
            raise self._refused(response.status_code, content)
        if (note := response.headers.get("treering-note", "")) and note not in self._warned:
            self._warned.add(note)
            self._report.warn(note)
        try:
            return msgspec.json.decode(content, type=list[Hit])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise self._strange(error) from None

    def _refused(self, status: int, content: bytes) -> ServiceError | UsageError:
        if status == 401:
            return NoKey(f"{self._host} does not take the token: it is missing or wrong", "set TREERING_SERVE_TOKEN")
        try:
            said = msgspec.json.decode(content, type=_Failure).error
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            return self._strange(error)
        if not said.message:
            return self._strange(status)
        return (UsageError if status == 400 else ServiceError)(f"{self._host}: {said.message}", said.hint)

    def _strange(self, answer: object) -> ServiceError:
        return ServiceError(f"{self._host} answers otherwise than treering: {answer}", "look at the address")
