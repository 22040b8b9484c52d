"""Claude over a real connection to a server that speaks its API: answers, failures, and what each costs."""

import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from fake_claude import KEY, FakeClaude, Till, serving
from treering.assist.claude import Claude, Prompt, key_of
from treering.config import AssistSettings
from treering.errors import BudgetError, ServiceError, UsageError
from treering.store.ledger import Usage

REAL_KEY = key_of(os.environ)
"""The user's own, which no test but one is given."""
PROMPT = Prompt("You answer.", "The evidence: größe.", "What was done?")


@pytest.fixture
def fake() -> Iterator[FakeClaude]:
    with serving(FakeClaude(lambda _: "It was the oracle [abc1234], und größer.")) as served:
        yield served


def claude(fake: FakeClaude, till: Till, key: str = KEY, **settings: Any) -> Claude:
    return Claude(key, AssistSettings(claude_url=fake.url, claude_seconds=5.0, **settings), till)


def test_an_answer_comes_piece_by_piece_and_costs_what_it_took(fake: FakeClaude) -> None:
    till, pieces = Till(), list[str]()
    fake.cached = 40
    said = claude(fake, till, answer_tokens=500).ask(PROMPT, purpose="ask", tell=pieces.append)
    assert said.text == "".join(pieces) == "It was the oracle [abc1234], und größer."
    assert len(pieces) > 2
    assert (said.model, said.ended_by) == ("claude-sonnet-5-5", "end_turn")
    (model, purpose, most, answer), usage = till.told
    assert (model, purpose, answer) == ("claude-sonnet-5-5", "ask", 500)
    assert most >= len(f"{PROMPT.system}{PROMPT.context}{PROMPT.question}".encode())
    assert usage == said.usage == Usage(said.usage.input_tokens, 10, 200, 100, 40)
    assert till.reserved == pytest.approx(0)
    assert till.spent == said.dollars
    assert fake.keys == [KEY]


def test_what_stays_the_same_is_marked_for_the_cache_and_the_question_is_not(fake: FakeClaude) -> None:
    claude(fake, Till()).ask(PROMPT, purpose="ask")
    (asked,) = fake.asked
    (system,), (message,) = asked["system"], asked["messages"]
    context, question = message["content"]
    assert system["text"] == PROMPT.system
    assert system["cache_control"] == context["cache_control"] == {"type": "ephemeral"}
    assert (context["text"], question) == (PROMPT.context, {"type": "text", "text": PROMPT.question})
    assert (asked["max_tokens"], asked["stream"]) == (4096, True)


def test_a_ceiling_that_is_reached_is_told_before_anything_is_sent(fake: FakeClaude) -> None:
    with pytest.raises(BudgetError):
        claude(fake, Till(0.1)).ask(PROMPT, purpose="ask")
    assert fake.asked == []


@pytest.mark.parametrize("failure", ["limit", "overloaded"])
def test_it_asks_again_where_it_was_surely_not_answered(fake: FakeClaude, failure: str) -> None:
    till = Till()
    fake.failures = [failure, failure]
    assert claude(fake, till).ask(PROMPT, purpose="ask").text.startswith("It was")
    assert len(fake.asked) == 3
    assert till.reserved == pytest.approx(0)


@pytest.mark.parametrize(
    ("failure", "said", "hint"),
    [
        ("bad", "refuses the question (400): messages: something is wrong", "later"),
        ("long", "the context is too long", "--budget"),
        ("credit", "no credit", "--by"),
        ("model", "has no model claude-sonnet-5-5", "TREERING_ASSIST_CLAUDE_MODEL"),
        ("limit", "rate limit", "minute"),
        ("overloaded", "overloaded", "later"),
        ("elsewhere", "refuses the question (307)", "later"),
    ],
)
def test_a_refusal_is_one_line_with_a_way_out_and_costs_nothing(
    fake: FakeClaude, failure: str, said: str, hint: str
) -> None:
    till = Till()
    fake.failures = [failure]
    with pytest.raises(ServiceError, match=r".") as told:
        claude(fake, till, claude_retries=0).ask(PROMPT, purpose="ask")
    assert said in told.value.message
    assert hint in told.value.hint
    assert "\n" not in told.value.message
    assert till.reserved == pytest.approx(0)
    assert till.spent == 0


def test_a_refused_key_is_told_without_the_key(fake: FakeClaude) -> None:
    till = Till()
    with pytest.raises(ServiceError, match="refuses the key") as told:
        claude(fake, till, key="sk-ant-wrong").ask(PROMPT, purpose="ask")
    assert "sk-ant-wrong" not in f"{told.value.message} {told.value.hint}"
    assert till.reserved == pytest.approx(0)
    assert len(fake.asked) == 1


@pytest.mark.parametrize(
    ("failure", "said"),
    [("broken", "(500)"), ("cut", "broke off"), ("overloaded within", "overloaded"), ("html", "broke off"),
     ("hangup", "broke off"), ("slow", "silent"), ("late", "silent")],
)  # fmt: skip
def test_where_the_end_is_not_known_the_worst_case_stays_counted_and_it_is_asked_once(
    fake: FakeClaude, failure: str, said: str
) -> None:
    till = Till()
    fake.failures = [failure]
    asked = Claude(KEY, AssistSettings(claude_url=fake.url, claude_seconds=0.5, claude_retries=2), till)
    with pytest.raises(ServiceError) as told:
        asked.ask(PROMPT, purpose="ask")
    assert said in told.value.message, told.value.message
    assert till.reserved > 0
    assert till.spent == 0
    assert len(fake.asked) == 1


def test_a_server_that_is_not_there_costs_nothing() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        till, url = Till(), f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ServiceError, match=f"cannot be reached at {url}"):
            Claude(KEY, AssistSettings(claude_url=url, claude_retries=0), till).ask(PROMPT, purpose="ask")
    assert till.reserved == pytest.approx(0)


def test_whoever_leaves_ends_the_answer_and_the_worst_case_stays_counted(fake: FakeClaude) -> None:
    till, pieces = Till(), list[str]()
    said = claude(fake, till).ask(PROMPT, purpose="ask", tell=pieces.append, unwanted=lambda: len(pieces) == 2)
    assert (said.ended_by, len(pieces), said.text) == ("left", 2, "".join(pieces))
    assert till.reserved > 0


def test_the_key_is_of_the_environment_and_must_be_one() -> None:
    assert key_of({}) == ""
    assert key_of({"ANTHROPIC_API_KEY": " k \n"}) == "k"
    with pytest.raises(ServiceError, match="ANTHROPIC_API_KEY is not in the environment"):
        Claude("", AssistSettings(), Till())
    with pytest.raises(ServiceError, match="characters that no key has"):
        Claude("sk-\x1b[31m", AssistSettings(), Till())


@pytest.mark.parametrize(
    "url", ["http://example.com", "ftp://127.0.0.1", "example.com", "http://localhost.example.com"]
)
def test_a_key_is_not_sent_in_the_clear(url: str) -> None:
    with pytest.raises(UsageError, match="https"):
        Claude(KEY, AssistSettings(claude_url=url), Till())


@pytest.mark.claude
@pytest.mark.skipif(not REAL_KEY, reason="ANTHROPIC_API_KEY is not set: Claude is not asked")
def test_the_real_claude_answers() -> None:
    till = Till()
    prompt = Prompt("Answer in one word.", "The colour of the sky is green.", "Which colour is named?")
    said = Claude(REAL_KEY, AssistSettings(answer_tokens=1024), till).ask(prompt, purpose="test")
    assert "green" in said.text.lower()
    assert 0 < said.usage.input_tokens < prompt.worst
    assert till.reserved == pytest.approx(0)
