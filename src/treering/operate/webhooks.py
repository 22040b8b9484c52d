"""Webhooks: whether a delivery is from the forge that shares a secret with us, and what it says. Pure; keeps nothing.

GitHub signs the body (HMAC-SHA256 in ``X-Hub-Signature-256``). GitLab sends its secret as it is (``X-Gitlab-Token``),
or signs ``{webhook-id}.{webhook-timestamp}.{body}`` as Standard Webhooks has it (``webhook-signature: v1,<base64>``).
Payloads are read tolerantly: what is not needed may be missing or anything.
"""

import base64
import binascii
import hashlib
import hmac
import re
import secrets as randomness
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal
from urllib.parse import parse_qs

import msgspec
from msgspec import Struct

from treering.errors import DataError, TreeringError, UsageError

Forge = Literal["github", "gitlab"]
Kind = Literal["push", "request", "ping", "other"]

SIGNING = "whsec_"
"""What a secret begins with whose rest is a key in base64."""
SHORTEST = 16

_HEX = re.compile(r"sha256=([0-9a-f]{64})")
_ID = re.compile(r"[\w.:=+/-]{1,200}")
_OBJECT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_NAME = re.compile(r"[\w.-]+(?:/[\w.-]+)+")
_PUSHES = {"github": ("push", "create", "delete"), "gitlab": ("push", "tag_push", "repository_update")}
_REQUESTS = {"github": ("pull_request",), "gitlab": ("merge_request",)}
COMMENTED = frozenset({"opened", "reopened", "synchronize", "ready_for_review", "open", "reopen", "update"})
"""What happens to a request that its comment should follow."""


class Unverified(TreeringError):  # noqa: N818  it is what the delivery is
    """Nobody who knows a secret sent this, or not now."""


class Delivery(Struct, frozen=True):
    """What a delivery says. ``event`` and ``action`` are the forge's words; ``after`` is where the ref is now, empty if
    it is gone; ``number`` is that of a request.
    """

    forge: Forge
    id: str
    event: str
    kind: Kind
    repository: str = ""
    ref: str = ""
    after: str = ""
    number: int = 0
    action: str = ""


def check_secrets(secrets: Sequence[str]) -> None:
    """Raises :class:`UsageError` where one could be guessed. None is ever repeated."""
    for number, secret in enumerate(secrets, start=1):
        if len(secret) < SHORTEST or not secret.isascii() or " " in secret:
            raise UsageError(
                f"secret {number} of `forge.secrets` is too weak",
                f"TREERING_FORGE_SECRETS wants {SHORTEST} or more ASCII characters, no blanks: openssl rand -hex 24",
            )


def signed(forge: Forge, headers: Mapping[str, str]) -> bool:
    """Whether a delivery says at all that it is from a forge; who does not need not be read."""
    names = {"github": ("x-hub-signature-256",), "gitlab": ("x-gitlab-token", "webhook-signature")}[forge]
    return any(headers.get(name) for name in names)


def verify(
    forge: Forge, headers: Mapping[str, str], body: bytes, secrets: Sequence[str], *, now: float, tolerance: float
) -> None:
    """Raises :class:`Unverified` unless a delivery bears what only who knows one of ``secrets`` can make. ``headers``
    are by their names in lower case.
    """
    if forge == "github":
        fits = _of_github(headers.get("x-hub-signature-256", ""), body, secrets)
    elif "webhook-signature" in headers:
        fits = _standard(headers, body, secrets, now, tolerance)
    else:
        given = headers.get("x-gitlab-token", "").encode()
        fits = _any([hmac.compare_digest(given, secret.encode()) for secret in secrets])
    if not fits:
        raise Unverified(
            "the signature is missing or wrong", "give the forge and TREERING_FORGE_SECRETS the same secret"
        )


def _of_github(signature: str, body: bytes, secrets: Sequence[str]) -> bool:
    found = _HEX.fullmatch(signature)
    given = found[1] if found else ""
    made = [hmac.new(secret.encode(), body, hashlib.sha256).hexdigest() for secret in secrets]
    return _any([hmac.compare_digest(given, one) for one in made])


def _standard(headers: Mapping[str, str], body: bytes, secrets: Sequence[str], now: float, tolerance: float) -> bool:
    name, at = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not (at.isascii() and at.isdigit() and len(at) < 16) or abs(now - int(at)) > tolerance:
        raise Unverified("the delivery's time is missing or too far from ours", "look at both clocks")
    content = f"{name}.{at}.".encode() + body
    made = [
        base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()) for secret in secrets for key in _keys(secret)
    ]
    given = [
        one.removeprefix("v1,").encode() for one in headers["webhook-signature"].split()[:8] if one.startswith("v1,")
    ]
    return _any([hmac.compare_digest(one, other) for one in made for other in given])


def _keys(secret: str) -> list[bytes]:
    keys = [secret.encode()]
    if secret.startswith(SIGNING):
        with suppress(binascii.Error):
            keys.append(base64.b64decode(secret.removeprefix(SIGNING), validate=True))
    return keys


def _any(fits: Sequence[bool]) -> bool:
    """As ``any``, of all of them: which secret it was is told by no time."""
    return any(fits)


def read(forge: Forge, headers: Mapping[str, str], body: bytes) -> Delivery:
    """What a verified delivery says. Raises :class:`DataError` where it is not what its event should be."""
    said = _decoded(headers.get("content-type", ""), body)
    return _github(headers, said) if forge == "github" else _gitlab(headers, said)


def _decoded(kind: str, body: bytes) -> dict[str, Any]:
    if kind.partition(";")[0].strip().lower() == "application/x-www-form-urlencoded":
        try:
            body = parse_qs(body.decode("ascii"), max_num_fields=4).get("payload", [""])[0].encode()
        except (UnicodeDecodeError, ValueError):
            raise DataError("the delivery is no form with a payload", "choose application/json at the forge") from None
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"the delivery is no JSON object: {error}", "choose application/json at the forge") from None


def _github(headers: Mapping[str, str], said: dict[str, Any]) -> Delivery:
    event, name = headers.get("x-github-event", ""), headers.get("x-github-delivery", "")
    if not _ID.fullmatch(event) or not _ID.fullmatch(name):
        raise DataError("X-GitHub-Event or X-GitHub-Delivery is missing", "send what GitHub sends")
    repository = _text(said, "repository", "full_name")
    kind = _kind("github", event)
    return _whole(
        Delivery(
            "github",
            name,
            event,
            kind,
            repository,
            ref=_text(said, "ref"),
            after=_object(_text(said, "after")) if event == "push" else "",
            number=_number(said, "number") or _number(said, "pull_request", "number"),
            action=_text(said, "action"),
        )
    )


def _gitlab(headers: Mapping[str, str], said: dict[str, Any]) -> Delivery:
    event = _text(said, "object_kind") or _text(said, "event_name")
    # X-Gitlab-Event-UUID is none: deliveries that follow from one another share it.
    given = (headers.get(one, "") for one in ("webhook-id", "idempotency-key"))
    # An old GitLab names no delivery: then each is one of its own.
    name = next((one for one in given if _ID.fullmatch(one)), "") or f"unnamed-{randomness.token_hex(16)}"
    if not _ID.fullmatch(event):
        raise DataError("the delivery has no object_kind", "send what GitLab sends")
    return _whole(
        Delivery(
            "gitlab",
            name,
            event,
            _kind("gitlab", event),
            _text(said, "project", "path_with_namespace"),
            ref=_text(said, "ref"),
            after=_object(_text(said, "checkout_sha") or _text(said, "after")),
            number=_number(said, "object_attributes", "iid"),
            action=_text(said, "object_attributes", "action"),
        )
    )


def _kind(forge: Forge, event: str) -> Kind:
    if event in _PUSHES[forge]:
        return "push"
    if event in _REQUESTS[forge]:
        return "request"
    return "ping" if event == "ping" else "other"


def _whole(delivery: Delivery) -> Delivery:
    if delivery.kind in ("push", "request") and not _NAME.fullmatch(delivery.repository):
        raise DataError(f"the {delivery.event} names no repository", "send what the forge sends")
    if delivery.kind == "request" and not delivery.number:
        raise DataError(f"the {delivery.event} has no number", "send what the forge sends")
    return delivery


def _text(said: Any, *path: str) -> str:
    found = _at(said, path)
    return found[:1000] if isinstance(found, str) else ""


def _number(said: Any, *path: str) -> int:
    found = _at(said, path)
    return found if isinstance(found, int) and not isinstance(found, bool) and 0 < found < 1 << 31 else 0


def _at(said: Any, path: Sequence[str]) -> Any:
    for name in path:
        said = said.get(name) if isinstance(said, dict) else None
    return said


def _object(name: str) -> str:
    """The full name of an object; empty for what is none, and for the zeros of a ref that is gone."""
    return name if _OBJECT.fullmatch(name) and name.strip("0") else ""
