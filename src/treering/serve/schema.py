"""The OpenAPI document of the server, made of the values that it reads and writes: nothing of it is written twice."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from treering import __version__
from treering.offered import ALL
from treering.serve.answers import JSON, STREAM, Failure

REFERENCE = "#/components/schemas/{name}"


@dataclass(frozen=True, slots=True)
class Path:
    """One method of a path: what is asked of it (in the body; in the query where it is get), and what it gives."""

    method: str
    path: str
    told: str
    gives: Any = None
    asked: Any = None
    status: int = 200
    of_repository: bool = True
    across: bool = False
    """Whether all of a fleet may be asked, too."""
    member: bool = False
    """Whether one of a fleet may be asked by its name there."""
    media: tuple[str, ...] = (JSON,)
    named: str = ""
    """The name of a part of the path."""


def document(paths: Sequence[Path], repositories: Sequence[str], *, token: bool) -> dict[str, Any]:
    """An OpenAPI 3.1 document of a server that has these repositories; ``*`` is all of a fleet."""
    single = [name for name in repositories if name != ALL]
    paths = [path for path in paths if single or path.across or path.member or not path.of_repository]
    kinds = [Failure, *(kind for path in paths for kind in (path.asked, path.gives) if kind is not None)]
    schemas, components = msgspec.json.schema_components(kinds, schema_hook=_anything, ref_template=REFERENCE)
    of = dict(zip(map(_key, kinds), schemas, strict=True))
    told: dict[str, dict[str, Any]] = {}
    for path in paths:
        told.setdefault(path.path, {})[path.method] = _operation(path, repositories, of, components)
    made: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "treering", "version": __version__, "description": "The history of Git repositories, asked."},
        "paths": told,
        "components": {"schemas": components},
    }
    if token:
        made["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        made["security"] = [{"token": []}]
    return made


_EVENT = {
    "type": "object",
    "description": "Each event.",
    "properties": {"data": {"type": "string"}},
    "required": ["data"],
}


def _anything(kind: type) -> dict[str, Any]:
    """What may be any JSON value."""
    if kind is not object:
        raise NotImplementedError
    return {"description": "Any JSON value."}  # an empty one counts as none


def _key(kind: Any) -> str:
    return repr(kind)


def _operation(
    path: Path, repositories: Sequence[str], of: dict[str, Any], components: dict[str, Any]
) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for media in path.media:
        plain = _EVENT if media == STREAM else {"type": "string"}
        content[media] = {"schema": of[_key(path.gives)] if media == JSON and path.gives is not None else plain}
    error = {"description": "What is wrong, and the way out.", "content": {JSON: {"schema": of[_key(Failure)]}}}
    made: dict[str, Any] = {
        "summary": path.told.partition(". ")[0].rstrip("."),
        "description": path.told,
        "operationId": f"{path.method}_{path.path.strip('/').replace('/', '_').replace('{', '').replace('}', '')}",
        "responses": {str(path.status): {"description": "The answer.", "content": content}, "default": error},
    }
    parameters = []
    if path.named:
        parameters.append({"name": path.named, "in": "path", "required": True, "schema": {"type": "string"}})
    if path.of_repository:
        told = "Which repository; the first of the server by default." + " `*` is all of a fleet." * path.across
        known: dict[str, Any] = {"enum": [name for name in repositories if path.across or name != ALL]}
        if path.member:
            told += " Or one of the fleet, by its name there (/v1/repositories)."
            known = {"type": "string", "examples": known["enum"]}
        parameters.append({"name": "repository", "in": "query", "description": told, "schema": known})
    if path.asked is not None and path.method == "get":
        asked = _resolved(of[_key(path.asked)], components)
        for name, schema in asked["properties"].items():
            required = name in asked.get("required", ())
            parameters.append({"name": name, "in": "query", "required": required, "schema": schema})
    elif path.asked is not None:
        wanted = bool(_resolved(of[_key(path.asked)], components).get("required"))
        made["requestBody"] = {"required": wanted, "content": {JSON: {"schema": of[_key(path.asked)]}}}
    if parameters:
        made["parameters"] = parameters
    return made


def _resolved(schema: dict[str, Any], components: dict[str, Any]) -> dict[str, Any]:
    """The schema that a reference names."""
    reference = schema.get("$ref", "")
    found: dict[str, Any] = components[reference.rpartition("/")[2]] if reference else schema
    return found
