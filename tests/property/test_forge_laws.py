"""Laws of what is told at a forge, and of what is let in from one."""

import base64
import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treering.operate.review import wilson
from treering.operate.webhooks import Unverified, verify
from treering.report import in_code

SECRETS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=16, max_size=60)


@given(st.text())
def test_a_text_in_code_cannot_leave_it(text: str) -> None:
    shown = in_code(text)
    assert shown.startswith("``")
    assert shown.endswith("``")
    assert "`" not in shown[2:-2]
    assert shown[2:-2]
    assert len(shown.splitlines()) == 1


@given(st.binary(max_size=300), SECRETS, st.lists(SECRETS, max_size=3), st.data())
def test_only_the_body_that_was_signed_with_a_secret_is_let_in(
    body: bytes, secret: str, others: list[str], data: st.DataObject
) -> None:
    def signed(content: bytes, key: str) -> dict[str, str]:
        return {"x-hub-signature-256": f"sha256={hmac.new(key.encode(), content, hashlib.sha256).hexdigest()}"}

    verify("github", signed(body, secret), body, [*others, secret], now=0, tolerance=1)
    other = data.draw(st.binary(max_size=300).filter(lambda one: one != body))
    with pytest.raises(Unverified):
        verify("github", signed(body, secret), other, [*others, secret], now=0, tolerance=1)
    if secret not in others:
        with pytest.raises(Unverified):
            verify("github", signed(body, secret), body, others, now=0, tolerance=1)


@given(st.binary(max_size=200), SECRETS, st.integers(0, 2_000_000_000), st.integers(-1000, 1000))
def test_a_standard_signature_holds_for_its_time_alone(body: bytes, secret: str, at: int, late: int) -> None:
    digest = base64.b64encode(hmac.new(secret.encode(), f"one.{at}.".encode() + body, hashlib.sha256).digest()).decode()
    headers = {"webhook-id": "one", "webhook-timestamp": str(at), "webhook-signature": f"v1,{digest}"}
    if abs(late) <= 300:
        verify("gitlab", headers, body, [secret], now=at + late, tolerance=300)
    else:
        with pytest.raises(Unverified):
            verify("gitlab", headers, body, [secret], now=at + late, tolerance=300)


@given(st.integers(0, 5000), st.integers(0, 5000))
def test_an_interval_holds_its_share(hits: int, more: int) -> None:
    low, high = wilson(hits, hits + more)
    share = hits / (hits + more) if hits + more else 0.5
    assert 0 <= low <= share + 1e-12
    assert share - 1e-12 <= high <= 1
