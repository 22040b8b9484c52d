"""Whether a delivery is from who knows the secret, and what it says; by payloads of the published shapes."""

import base64
import hashlib
import hmac
import json
from typing import Any
from urllib.parse import urlencode

import pytest

from treering.errors import DataError, UsageError
from treering.operate.webhooks import Delivery, Unverified, check_secrets, read, signed, verify

OLD, NEW = "the-old-secret-of-ours", "the-new-secret-of-ours"
NOW = 1_800_000_000.0
AFTER, ZEROS = "6113728f27ae82c7b1a177c8d03f9e96e0adf246", "0" * 40

PUSH: dict[str, Any] = {
    "ref": "refs/heads/main", "before": ZEROS, "after": AFTER, "created": True, "deleted": False, "forced": False,
    "repository": {"id": 1, "full_name": "acme/shop", "owner": {"name": "acme", "email": None}, "private": False},
    "pusher": {"name": "ada", "email": "ada@example.com"}, "commits": [], "head_commit": None,
}  # fmt: skip
PULL: dict[str, Any] = {
    "action": "opened", "number": 7, "pull_request": {"number": 7, "title": "x", "body": None},
    "repository": {"full_name": "acme/shop"}, "sender": {"login": "ada"},
}  # fmt: skip
GITLAB_PUSH: dict[str, Any] = {
    "object_kind": "push", "event_name": "push", "before": ZEROS, "after": AFTER, "ref": "refs/heads/main",
    "checkout_sha": AFTER, "project": {"id": 15, "path_with_namespace": "acme/group/shop"}, "commits": [],
}  # fmt: skip
MERGE: dict[str, Any] = {
    "object_kind": "merge_request", "event_type": "merge_request", "project": {"path_with_namespace": "acme/shop"},
    "object_attributes": {"id": 90, "iid": 16, "action": "open", "title": "x"},
}  # fmt: skip


def of_github(said: Any, secret: str = NEW, event: str = "push") -> tuple[dict[str, str], bytes]:
    body = json.dumps(said).encode()
    digest = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return {
        "x-hub-signature-256": f"sha256={digest}",
        "x-github-event": event,
        "x-github-delivery": "72d3162e-cc78",
    }, body


def standard(said: Any, key: bytes, at: float = NOW, name: str = "msg_1") -> tuple[dict[str, str], bytes]:
    body = json.dumps(said).encode()
    digest = hmac.new(key, f"{name}.{int(at)}.".encode() + body, hashlib.sha256).digest()
    made = {"webhook-id": name, "webhook-timestamp": str(int(at))}
    return made | {"webhook-signature": f"v1,{base64.b64encode(digest).decode()}"}, body


def check(forge: Any, headers: dict[str, str], body: bytes, *secrets: str) -> None:
    verify(forge, headers, body, secrets or (OLD, NEW), now=NOW, tolerance=300)


def test_githubs_published_example_verifies() -> None:
    """The values that GitHub's documentation gives to test an implementation with."""
    digest = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    check("github", {"x-hub-signature-256": digest}, b"Hello, World!", "It's a Secret to Everybody")


@pytest.mark.parametrize("secret", [OLD, NEW])
def test_each_secret_of_a_rotation_is_taken(secret: str) -> None:
    check("github", *of_github(PUSH, secret))
    check("gitlab", {"x-gitlab-token": secret}, b"{}")
    check("gitlab", *standard(GITLAB_PUSH, secret.encode()))


@pytest.mark.parametrize(
    "signature", ["", "sha256=", "sha1=" + "0" * 40, "sha256=" + "0" * 64, "sha256=é", "SHA256=" + "0" * 64]
)
def test_a_wrong_signature_of_github_is_refused(signature: str) -> None:
    headers, body = of_github(PUSH)
    with pytest.raises(Unverified, match="missing or wrong"):
        check("github", headers | {"x-hub-signature-256": signature}, body)


def test_a_body_that_was_changed_is_refused() -> None:
    headers, body = of_github(PUSH)
    with pytest.raises(Unverified):
        check("github", headers, body + b" ")
    headers, body = standard(GITLAB_PUSH, NEW.encode())
    with pytest.raises(Unverified):
        check("gitlab", headers, body + b" ")
    with pytest.raises(Unverified):
        check("gitlab", headers | {"webhook-id": "msg_2"}, body)


def test_a_signature_of_gitlab_is_not_passed_over_for_its_token() -> None:
    headers, body = standard(GITLAB_PUSH, b"somebody else's")
    with pytest.raises(Unverified):
        check("gitlab", headers | {"x-gitlab-token": NEW}, body)


@pytest.mark.parametrize("at", [NOW - 301, NOW + 301, 0])
def test_a_delivery_of_another_time_is_refused(at: float) -> None:
    with pytest.raises(Unverified, match="time"):
        check("gitlab", *standard(GITLAB_PUSH, NEW.encode(), at))


@pytest.mark.parametrize("at", ["", "now", "-5", "1e9", "9" * 40, "١٢٣"])
def test_a_time_that_is_none_is_refused(at: str) -> None:
    headers, body = standard(GITLAB_PUSH, NEW.encode())
    with pytest.raises(Unverified, match="time"):
        check("gitlab", headers | {"webhook-timestamp": at}, body)


def test_a_signing_key_in_base64_and_several_signatures_are_taken() -> None:
    key = bytes(range(32))
    secret = f"whsec_{base64.b64encode(key).decode()}"
    headers, body = standard(GITLAB_PUSH, key)
    check("gitlab", headers, body, secret)
    check("gitlab", headers | {"webhook-signature": f"v1,AAAA v2,x {headers['webhook-signature']}"}, body, secret)


def test_what_bears_no_signature_need_not_be_read() -> None:
    assert not signed("github", {"x-hub-signature": "sha1=0", "x-gitlab-token": "x"})
    assert signed("github", {"x-hub-signature-256": "x"})
    assert not signed("gitlab", {"x-hub-signature-256": "x", "x-gitlab-token": ""})
    assert signed("gitlab", {"webhook-signature": "x"})


@pytest.mark.parametrize("weak", ["short", "with a blank in it, long", "schlüssel-schlüssel"])
def test_a_secret_that_could_be_guessed_is_named_by_its_number(weak: str) -> None:
    with pytest.raises(UsageError, match="secret 2") as error:
        check_secrets([NEW, weak])
    assert weak not in f"{error.value.message} {error.value.hint}"


def test_a_push_says_where_its_ref_is() -> None:
    headers, body = of_github(PUSH)
    wanted = Delivery("github", "72d3162e-cc78", "push", "push", "acme/shop", ref="refs/heads/main", after=AFTER)
    assert read("github", headers, body) == wanted
    form = urlencode({"payload": body.decode()}).encode()
    headers |= {"content-type": "application/x-www-form-urlencoded"}
    assert read("github", headers, form) == wanted


def test_a_branch_that_is_gone_is_at_nothing() -> None:
    headers, body = of_github(PUSH | {"before": AFTER, "after": ZEROS, "deleted": True})
    assert read("github", headers, body).after == ""
    gone = GITLAB_PUSH | {"after": ZEROS, "checkout_sha": None}
    assert read("gitlab", {"idempotency-key": "1"}, json.dumps(gone).encode()).after == ""


def test_requests_have_their_numbers() -> None:
    headers, body = of_github(PULL, event="pull_request")
    found = read("github", headers, body)
    assert (found.kind, found.number, found.action) == ("request", 7, "opened")
    found = read("gitlab", {"idempotency-key": "u-1"}, json.dumps(MERGE).encode())
    assert (found.kind, found.number, found.action, found.id) == ("request", 16, "open", "u-1")


def test_a_gitlab_delivery_is_named_by_what_it_is_signed_with() -> None:
    names = {"webhook-id": "a", "idempotency-key": "b", "x-gitlab-event-uuid": "c"}
    assert read("gitlab", names, json.dumps(GITLAB_PUSH).encode()).id == "a"
    old = [read("gitlab", {"x-gitlab-event-uuid": "c"}, json.dumps(GITLAB_PUSH).encode()).id for _ in range(2)]
    assert old[0] != old[1]


@pytest.mark.parametrize(("event", "kind"), [("ping", "ping"), ("star", "other"), ("create", "push"), ("x" * 300, "")])
def test_every_event_has_a_kind(event: str, kind: str) -> None:
    headers, body = of_github({"repository": {"full_name": "acme/shop"}}, event=event)
    if kind:
        assert read("github", headers, body).kind == kind
    else:
        with pytest.raises(DataError, match="X-GitHub-Event"):
            read("github", headers, body)


@pytest.mark.parametrize(
    "said",
    [
        [], 7, None, {}, {"repository": None}, {"repository": {"full_name": 7}},
        {"repository": {"full_name": "acme"}}, {"repository": {"full_name": "a/b\n"}},
    ],
)  # fmt: skip
def test_a_push_that_names_no_repository_is_an_error_that_says_so(said: Any) -> None:
    headers, body = of_github(said)
    with pytest.raises(DataError, match=r"no JSON object|names no repository"):
        read("github", headers, body)


@pytest.mark.parametrize("after", ["-rf", "HEAD", "a" * 39, "a" * 41, "G" * 40, "a" * 40 + "\n", 7, None])
def test_what_is_no_object_is_asked_of_no_git(after: Any) -> None:
    headers, body = of_github(PUSH | {"after": after})
    assert read("github", headers, body).after == ""


@pytest.mark.parametrize("body", [b"", b"\xff", b"{", b"[" * 100_000, b"nul"])
def test_what_is_no_json_is_an_error(body: bytes) -> None:
    headers, _ = of_github({})
    with pytest.raises(DataError, match="no JSON"):
        read("github", headers, body)
