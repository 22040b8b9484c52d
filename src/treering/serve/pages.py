"""The page for people: one document, its style and its scripts, as they lie in ``static/``. Knows no repository: what
the page shows it asks of ``/v1/`` itself.

Nothing it loads comes from elsewhere, and the browser is told so: repository text that is a script runs nothing.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from fastapi import APIRouter, HTTPException, Request, Response

STATIC = Path(__file__).with_name("static")

POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "connect-src": "'self'",
    "img-src": "'self' data:",
    "base-uri": "'none'",
    "frame-ancestors": "'none'",
    "form-action": "'none'",
    "require-trusted-types-for": "'script'",
    "trusted-types": "'none'",
}
"""The page's Content-Security-Policy. The last two forbid every way to make markup of a text, ours included."""

HEADERS = {
    "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in POLICY.items()),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",  # kept, but asked for again: a newer treering is seen at once
}
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True, slots=True)
class _File:
    content: bytes
    media_type: str
    etag: str


def router() -> APIRouter:
    """``/`` and ``/static/<name>``. The files are read once; no other file can be asked for. They hold nothing of a
    repository, so whoever may not read one may still be shown where to give the token.
    """
    files = {path.name: _read(path) for path in STATIC.iterdir() if path.suffix in TYPES}
    made = APIRouter(include_in_schema=False)

    @made.api_route("/", methods=["GET", "HEAD"])
    def page(request: Request) -> Response:
        return _answer(files["index.html"], request)

    @made.api_route("/static/{name}", methods=["GET", "HEAD"])
    def static(name: str, request: Request) -> Response:
        if name not in files:
            raise HTTPException(404)
        return _answer(files[name], request)

    return made


def _read(path: Path) -> _File:
    content = path.read_bytes()
    return _File(content, TYPES[path.suffix], f'"{hashlib.sha256(content).hexdigest()[:32]}"')


def _answer(file: _File, request: Request) -> Response:
    headers = HEADERS | {"ETag": file.etag}
    known = {one.strip().removeprefix("W/") for one in request.headers.get("if-none-match", "").split(",")}
    if file.etag in known or "*" in known:
        return Response(status_code=304, headers=headers)
    return Response(file.content, media_type=file.media_type, headers=headers)
