"""Claude, asked over Anthropic's API. The only module that imports ``anthropic``.

No money is spent that was not reserved before: the worst case of a question, and once it is answered what it really
took. A question that was surely refused costs nothing; of one whose end is not known the worst case stays counted.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol
from urllib.parse import urlsplit

from msgspec import Struct

from treering.config import LOOPBACK, AssistSettings
from treering.errors import NoKey, ServiceError, TreeringError, UsageError, needs
from treering.store.ledger import Usage

KEY = "ANTHROPIC_API_KEY"
CONNECT_SECONDS = 5.0
FRAME_TOKENS = 64
"""What the API adds around our texts, amply."""


class Reservation(Protocol):
    """Money that is set aside for one question."""

    def settle(self, usage: Usage) -> float:
        """Count what it really took instead; dollars."""

    def release(self) -> object:
        """Count nothing: the question was surely not answered."""


class Purse(Protocol):
    """Whoever holds the money."""

    def reserve(self, model: str, purpose: str, *, input_tokens: int, output_tokens: int) -> Reservation:
        """Set the worst case aside. Raises :class:`BudgetError` where that is too much or no price is known."""


class Said(Struct, frozen=True):
    """An answer and what it cost. ``ended_by`` is the API's word for why it ended, or ``left``: whoever asked did."""

    text: str
    model: str
    usage: Usage
    dollars: float
    ended_by: str


class Prompt(Struct, frozen=True):
    """``system`` and ``context`` are kept in Claude's cache for some minutes; ``question`` is read anew each time."""

    system: str
    context: str
    question: str

    @property
    def worst(self) -> int:
        """More tokens than it can be: none stands for less than a byte."""
        return len(f"{self.system}{self.context}{self.question}".encode("utf-8", "replace")) + FRAME_TOKENS


def key_of(environment: Mapping[str, str]) -> str:
    """The key of the environment; empty where there is none."""
    return environment.get(KEY, "").strip()


class Claude:
    """One model of Claude, with the key and the purse it is asked with."""

    def __init__(self, key: str, settings: AssistSettings, purse: Purse) -> None:
        if not key:
            raise NoKey(f"Claude cannot be asked: {KEY} is not in the environment", "set it, or choose another --by")
        if not (key.isascii() and key.isprintable()) or " " in key:
            raise ServiceError(f"{KEY} holds characters that no key has", "set it anew")
        where = urlsplit(settings.claude_url)
        if where.scheme != "https" and not (where.scheme == "http" and where.hostname in LOOPBACK):
            raise UsageError(
                f"`claude_url` is {settings.claude_url}: a key is sent over https, or within this machine, only",
                "set TREERING_ASSIST_CLAUDE_URL to an https address",
            )
        with needs("claude"):
            import anthropic
        self._key, self._settings, self._purse = key, settings, purse
        self._anthropic: Any = anthropic
        self.model = settings.claude_model

    def ask(
        self,
        prompt: Prompt,
        *,
        purpose: str,
        tell: Callable[[str], None] = lambda _: None,
        unwanted: Callable[[], bool] = lambda: False,
    ) -> Said:
        """Ask once. ``tell`` gets every piece of the answer as it comes; once it is ``unwanted`` the rest is not read.

        Raises :class:`BudgetError` before anything is sent, :class:`ServiceError` where no whole answer came.
        """
        most = self._settings.answer_tokens
        reserved = self._purse.reserve(self.model, purpose, input_tokens=prompt.worst, output_tokens=most)
        pieces: list[str] = []
        with (
            self._told(reserved, pieces),
            self._client() as client,
            client.messages.stream(model=self.model, max_tokens=most, **_request(prompt)) as stream,
        ):
            for event in stream:
                if event.type == "text":
                    pieces.append(event.text)
                    tell(event.text)
                if unwanted():  # what was written after it is not known: the worst case stays counted
                    return Said("".join(pieces), self.model, Usage(0, 0), 0.0, "left")
            message = stream.get_final_message()
            if message.stop_reason is None:
                raise ServiceError("Claude's answer broke off", "ask again")
        usage = _usage(message.usage)
        return Said("".join(pieces), self.model, usage, reserved.settle(usage), message.stop_reason)

    def _client(self) -> Any:
        import httpx2

        seconds = self._settings.claude_seconds
        return self._anthropic.Anthropic(
            api_key=self._key, base_url=self._settings.claude_url, max_retries=self._settings.claude_retries,
            timeout=httpx2.Timeout(seconds, connect=min(seconds, CONNECT_SECONDS)), middleware=[self._at_most_once],
            open_telemetry=False, http_client=self._anthropic.DefaultHttpxClient(follow_redirects=False),
        )  # fmt: skip

    def _at_most_once(self, request: Any, call_next: Callable[[Any], Any]) -> Any:
        """The library asks again after any failure. A question that may have been answered would be paid for twice."""
        try:
            response = call_next(request)
        except self._anthropic.APIConnectionError as error:
            if _never_sent(error):
                raise
            raise self._said(error) from None  # with a cause, the library would look into it and ask again
        status = int(response.status_code)
        if status >= 300 and not _declined(status):
            raise ServiceError(f"Claude failed ({status})", "ask again later, or choose another --by")
        return response

    @contextmanager
    def _told(self, reserved: Reservation, pieces: list[str]) -> Iterator[None]:
        """What goes wrong as our errors; the money released where it was surely not spent."""
        import httpx2

        try:
            yield
        except TreeringError:
            raise
        except (self._anthropic.AnthropicError, httpx2.HTTPError, ValueError, AssertionError) as error:
            if not pieces and (_declined(getattr(error, "status_code", 0)) or _never_sent(error)):
                reserved.release()
            raise self._said(error) from error

    def _said(self, error: Exception) -> ServiceError:
        """One line and the way out."""
        kind, seconds = self._anthropic, f"{self._settings.claude_seconds:g} s"
        status = getattr(error, "status_code", 0)
        message = " ".join(str(getattr(error, "api_message", None) or "").split())[:300]
        if _never_sent(error):
            return ServiceError(f"Claude cannot be reached at {self._settings.claude_url}", "look at the network")
        if isinstance(error, kind.APITimeoutError) or "Timeout" in type(error).__name__:
            return ServiceError(
                f"Claude was silent for {seconds}", "ask later, or raise TREERING_ASSIST_CLAUDE_SECONDS"
            )
        if status in (401, 403):
            return ServiceError(f"Claude refuses the key ({status}): {message}", f"set {KEY} to a key that is valid")
        if status == 402 or "credit balance" in message:
            return ServiceError(f"Claude's account has no credit: {message}", "add credit, or choose another --by")
        if status == 404:
            return ServiceError(f"Claude has no model {self.model}", "set TREERING_ASSIST_CLAUDE_MODEL to one it has")
        if status == 413 or "too long" in message:
            return ServiceError(f"the context is too long for {self.model}: {message}", "give a smaller --budget")
        if status == 429:
            return ServiceError("Claude's rate limit is reached", "ask again in a minute, or choose another --by")
        if status == 529 or getattr(error, "type", "") == "overloaded_error":
            return ServiceError("Claude is overloaded", "ask again later, or choose another --by")
        if status >= 300:
            return ServiceError(f"Claude refuses the question ({status}): {message}", "ask again later")
        return ServiceError(f"Claude's answer broke off ({type(error).__name__})", "ask again")


def _request(prompt: Prompt) -> dict[str, Any]:
    def block(text: str) -> dict[str, Any]:
        return {"type": "text", "text": text.encode("utf-8", "replace").decode()}

    cached: dict[str, Any] = {"cache_control": {"type": "ephemeral"}}
    context, question = block(prompt.context) | cached, block(prompt.question)
    return {
        "system": [block(prompt.system) | cached],
        "messages": [{"role": "user", "content": [context, question]}],
    }


def _usage(told: Any) -> Usage:
    written, split = told.cache_creation_input_tokens or 0, told.cache_creation
    for_hours = split.ephemeral_1h_input_tokens if split else 0
    return Usage(
        input_tokens=told.input_tokens,
        output_tokens=told.output_tokens,
        cache_write_5m=split.ephemeral_5m_input_tokens if split else written,
        cache_write_1h=for_hours,
        cache_read=told.cache_read_input_tokens or 0,
    )


def _declined(status: int) -> bool:
    """Whether the API says that it does not answer, which costs nothing. Of other failures that is not known."""
    return 300 <= status < 500 or status in (503, 529)


def _never_sent(error: BaseException) -> bool:
    """Whether no connection came about."""
    causes = (error, error.__cause__, error.__context__)
    return any(type(one).__name__ in ("ConnectError", "ConnectTimeout", "PoolTimeout") for one in causes)
