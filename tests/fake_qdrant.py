"""A Qdrant server over loopback for tests: qdrant-client's own in-memory engine behind Qdrant's routes.

Every body is read by the models that qdrant-client generates from Qdrant's OpenAPI document, which forbid fields that
the document does not name; where ``QDRANT_OPENAPI`` names a copy of that document, by the document itself too.
"""

import functools
import json
import os
import re
import threading
import time
import uuid
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from qdrant_client import QdrantClient, models

COLLECTION = "/collections/{collection_name}"
BODIES: dict[tuple[str, str], Any] = {
    ("PUT", COLLECTION): models.CreateCollection,
    ("PUT", f"{COLLECTION}/index"): models.CreateFieldIndex,
    ("PUT", f"{COLLECTION}/points"): models.PointInsertOperations,
    ("POST", f"{COLLECTION}/points/delete"): models.PointsSelector,
    ("POST", f"{COLLECTION}/points/scroll"): models.ScrollRequest,
    ("POST", f"{COLLECTION}/points/count"): models.CountRequest,
    ("POST", f"{COLLECTION}/points/query"): models.QueryRequest,
    ("POST", f"{COLLECTION}/points/query/groups"): models.QueryGroupsRequest,
}
"""The requests with a body that this server knows: method and route to what the body must be."""


def problem(method: str, route: str, body: Any) -> str:
    """What is wrong with a body, or nothing."""
    try:
        TypeAdapter(BODIES[method, route]).validate_python(body)
    except ValidationError as error:
        return str(error)
    if os.environ.get("QDRANT_OPENAPI"):
        for wrong in published(method, route).iter_errors(body):
            return f"{method} {route}: {wrong.message[:300]}"
    return ""


@functools.cache
def published(method: str, route: str) -> Any:
    """The validator of a body by the document that ``QDRANT_OPENAPI`` names."""
    import jsonschema

    document = json.loads(Path(os.environ["QDRANT_OPENAPI"]).read_text("utf-8"))
    content = document["paths"][route][method.lower()]["requestBody"]["content"]
    schema = content["application/json"]["schema"] | {"components": document["components"]}
    return jsonschema.Draft7Validator(_nullable(schema))


def _nullable(schema: Any) -> Any:
    """OpenAPI's ``nullable`` in the words of JSON Schema."""
    if isinstance(schema, list):
        return [_nullable(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    if schema == {"nullable": True}:
        return {"type": "null"}
    said = {key: _nullable(value) for key, value in schema.items() if key != "nullable"}
    return {"anyOf": [said, {"type": "null"}]} if schema.get("nullable") is True else said


class FakeQdrant:
    """The server's state. ``faults`` are answered first, one a request: a status, seconds to wait, or both."""

    def __init__(self) -> None:
        self.engine = QdrantClient(":memory:")
        self.indexes: dict[str, dict[str, Any]] = {}
        self.faults: deque[tuple[int, float]] = deque()
        self.requests: list[tuple[str, str, Any]] = []
        self.invalid: list[str] = []
        self.key = ""
        self.url = ""

    def bodies(self, route: str) -> list[Any]:
        return [body for _, path, body in self.requests if path == COLLECTION + route and body is not None]

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        match = re.fullmatch(r"/collections/([^/]+)(/.*)?", path)
        if not match:
            return 404, "no such route"
        name, rest = match[1], match[2] or ""
        route = COLLECTION + rest
        self.requests.append((method, route, body))
        known = (method, route) in BODIES
        if body is not None and (said := problem(method, route, body) if known else f"{method} {route}?"):
            self.invalid.append(said)
            return 400, said
        there = self.engine.collection_exists(name)
        if (method, rest) == ("GET", "/exists"):
            return 200, {"exists": there}
        if (method, rest) == ("PUT", ""):
            return self._create(name, body) if not there else (409, f"Collection `{name}` already exists!")
        if not there:
            return 404, f"Not found: Collection `{name}` doesn't exist!"
        try:
            return 200, self._of_collection(method, rest, name, body)
        except ValueError as error:  # the engine's word for a wrong input
            return 400, str(error)

    def _create(self, name: str, body: Any) -> tuple[int, Any]:
        wanted = models.CreateCollection(**body)
        self.engine.create_collection(name, vectors_config=wanted.vectors, metadata=wanted.metadata)
        self.indexes[name] = {}
        return 200, True

    def _of_collection(self, method: str, rest: str, name: str, body: Any) -> Any:
        engine = self.engine
        match method, rest:
            case "GET", "":
                return engine.get_collection(name).model_copy(update={"payload_schema": self.indexes[name]})
            case "DELETE", "":
                return engine.delete_collection(name)
            case "PUT", "/index":
                wanted = body["field_schema"]
                told = (
                    {"data_type": wanted["type"], "params": wanted}
                    if isinstance(wanted, dict)
                    else {"data_type": wanted}
                )
                self.indexes[name][body["field_name"]] = told | {"points": 0}
            case "PUT", "/points":
                for one in body["points"]:
                    uuid.UUID(one["id"])  # the models take any text, the server does not
                engine.upsert(name, [models.PointStruct(**one) for one in body["points"]])
            case "POST", "/points/delete":
                engine.delete(name, TypeAdapter(models.PointsSelector).validate_python(body))
            case "POST", "/points/count":
                return engine.count(name, models.CountRequest(**body).filter)
            case "POST", "/points/scroll":
                points, following = engine.scroll(
                    name,
                    models.ScrollRequest(**body).filter,
                    limit=body["limit"],
                    offset=body.get("offset"),
                    with_payload=body["with_payload"],
                    with_vectors=body["with_vector"],
                )
                return {"points": points, "next_page_offset": following}
            case "POST", "/points/query":
                asked = models.QueryRequest(**body)
                return engine.query_points(
                    name,
                    asked.query,
                    using=asked.using,
                    query_filter=asked.filter,
                    limit=asked.limit or 10,
                    with_payload=asked.with_payload or False,
                )
        return {"operation_id": 1, "status": "completed"}


@contextmanager
def serving() -> Iterator[FakeQdrant]:
    """A server on a free port of the loopback device. Raises if it was ever sent what Qdrant would not take."""
    fake = FakeQdrant()
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            size = int(self.headers.get("Content-Length") or 0)
            content = self.rfile.read(size)
            status, wait = fake.faults.popleft() if fake.faults else (0, 0.0)
            time.sleep(wait)
            if status:
                result: Any = "out of order"
            elif fake.key and self.headers.get("api-key") != fake.key:
                status, result = 401, f"Must provide an API key, not {self.headers.get('api-key')}"
            else:
                with lock:
                    path = self.path.partition("?")[0]
                    status, result = fake.answer(self.command, path, json.loads(content) if content else None)
            said = {"result": result, "status": "ok"} if status == 200 else {"status": {"error": result}}
            text = TypeAdapter(dict[str, Any]).dump_json(said | {"time": 0.0}, warnings=False)
            try:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)
            except (BrokenPipeError, ConnectionResetError):
                pass  # who asked has given up

        do_GET = do_PUT = do_POST = do_DELETE = _answer  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    fake.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield fake
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        fake.engine.close()
    assert not fake.invalid, fake.invalid
