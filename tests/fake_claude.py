"""Anthropic's Messages API as far as it is used here: a real server on loopback that says what a test tells it to. And
a purse to pay it from.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from treering.errors import BudgetError
from treering.store.ledger import Usage

KEY = "sk-ant-test-0123456789"


@dataclass
class FakeClaude:
    """``answer`` makes the answer of what was asked; ``failures`` come first, one for each request. ``asked`` are the
    requests, with the key each came with.
    """

    answer: Callable[[dict[str, Any]], str] = lambda _: "Nothing is known [0000000]."
    failures: list[str] = field(default_factory=list)
    cached: int = 0
    asked: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    url: str = ""
    hold: threading.Event = field(default_factory=threading.Event)
    """What is slow waits for this, so that no test waits for it."""
    pause: float = 0.0
    """Seconds between the pieces of a stream."""


_ERRORS = {
    "bad": (400, "invalid_request_error", "messages: something is wrong"),
    "long": (400, "invalid_request_error", "prompt is too long: 210000 tokens > 200000 maximum"),
    "credit": (400, "invalid_request_error", "Your credit balance is too low to access the API"),
    "model": (404, "not_found_error", "model: claude-none"),
    "limit": (429, "rate_limit_error", "This request would exceed your rate limit"),
    "broken": (500, "api_error", "Internal server error"),
    "overloaded": (529, "overloaded_error", "Overloaded"),
}


def _handler(fake: FakeClaude) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            key = self.headers.get("x-api-key") or self.headers.get("authorization", "").removeprefix("Bearer ")
            fake.asked.append(asked)
            fake.keys.append(key)
            failure = fake.failures.pop(0) if fake.failures else ""
            if key != KEY:
                self.error(401, "authentication_error", "invalid x-api-key")
            elif failure in _ERRORS:
                self.error(*_ERRORS[failure])
            elif failure == "slow":
                fake.hold.wait(20)
                self.close_connection = True
            elif failure == "hangup":
                self.close_connection = True
            elif failure == "html":
                self.body(200, b"<html>not an API</html>", "text/html")
            elif failure == "elsewhere":
                self.send_response(307)
                self.send_header("location", "http://localhost:9/v1/messages")
                self.send_header("content-length", "0")
                self.end_headers()
            elif asked.get("stream"):
                self.stream(asked, failure)
            else:
                self.body(200, json.dumps(message(asked, fake.answer(asked), fake.cached)).encode())

        def error(self, status: int, kind: str, said: str) -> None:
            told = {"type": "error", "error": {"type": kind, "message": said}, "request_id": "req_1"}
            self.body(status, json.dumps(told).encode())

        def body(self, status: int, content: bytes, kind: str = "application/json") -> None:
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("retry-after-ms", "1")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def stream(self, asked: dict[str, Any], failure: str) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.send_header("connection", "close")
            self.end_headers()
            self.close_connection = True
            for event in _events(asked, fake, failure):
                if event == "wait":
                    fake.hold.wait(20)
                    return
                told = json.loads(event)
                self.wfile.write(f"event: {told['type']}\ndata: {event}\n\n".encode())
                self.wfile.flush()

    return Handler


def message(asked: dict[str, Any], text: str, cached: int) -> dict[str, Any]:
    said = json.dumps(asked)
    return {
        "id": "msg_1", "type": "message", "role": "assistant", "model": asked["model"],
        "content": [{"type": "text", "text": text}], "stop_reason": "end_turn", "stop_sequence": None,
        "usage": {
            "input_tokens": len(said) // 8, "output_tokens": len(text) // 4, "cache_read_input_tokens": cached,
            "cache_creation_input_tokens": 300,
            "cache_creation": {"ephemeral_5m_input_tokens": 200, "ephemeral_1h_input_tokens": 100},
        },
    }  # fmt: skip


def _events(asked: dict[str, Any], fake: FakeClaude, failure: str) -> Iterator[str]:
    text = fake.answer(asked)
    whole = message(asked, text, fake.cached)
    begun = whole | {"content": [], "stop_reason": None, "usage": whole["usage"] | {"output_tokens": 1}}
    yield json.dumps({"type": "message_start", "message": begun})
    yield json.dumps({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}})
    yield json.dumps({"type": "ping"})
    for start in range(0, len(text), 11):
        delta = {"type": "text_delta", "text": text[start : start + 11]}
        yield json.dumps({"type": "content_block_delta", "index": 0, "delta": delta})
        time.sleep(fake.pause)
        if failure == "cut":
            return
        if failure == "late":
            yield "wait"
        if failure == "overloaded within":
            yield json.dumps({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}})
            return
    yield json.dumps({"type": "content_block_stop", "index": 0})
    ended = {"stop_reason": "end_turn", "stop_sequence": None}
    usage = {"output_tokens": whole["usage"]["output_tokens"]}
    yield json.dumps({"type": "message_delta", "delta": ended, "usage": usage})
    yield json.dumps({"type": "message_stop"})


@contextmanager
def serving(fake: FakeClaude) -> Iterator[FakeClaude]:
    """The server, for as long as the block lasts."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(fake))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    fake.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield fake
    finally:
        fake.hold.set()
        server.shutdown()
        thread.join()
        server.server_close()


class Till:
    """A purse with a ceiling: what is reserved counts until it is settled or released. A dollar a thousand tokens."""

    def __init__(self, ceiling: float = 100.0) -> None:
        self.ceiling = ceiling
        self.reserved = 0.0
        self.spent = 0.0
        self.told: list[Any] = []

    def reserve(self, model: str, purpose: str, *, input_tokens: int, output_tokens: int) -> "Taken":
        worst = (input_tokens + output_tokens) / 1000
        if self.reserved + self.spent + worst > self.ceiling:
            raise BudgetError("the ceiling of today is reached", "wait, or raise it")
        self.told.append((model, purpose, input_tokens, output_tokens))
        self.reserved += worst
        return Taken(self, worst)


class Taken:
    def __init__(self, till: Till, worst: float) -> None:
        self.till, self.worst = till, worst

    def settle(self, usage: Usage) -> float:
        self.release()
        dollars = (usage.input_tokens + usage.output_tokens) / 1000
        self.till.spent += dollars
        self.till.told.append(usage)
        return dollars

    def release(self) -> None:
        self.till.reserved -= self.worst
