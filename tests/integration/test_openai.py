"""OpenAI's own client against our server, with a model that was trained here a moment ago."""

import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from repositories import Repo, at_home
from serving import Served, serving
from treering import learning, opening, operations
from treering.finding import Desk
from treering.lm.generate import TURN, laid_out
from treering.offered import OFFERS, Asked, Offer
from treering.opening import Place
from treering.report import Reporter
from treering.types import Sampling

pytestmark = pytest.mark.model

SCRATCH = {"train": {"model": "scratch", "method": "full", "minutes": 0.02, "gpu": False}}
TOKEN = "a-token-of-twenty-eight-letters"
HELLO: list[Any] = [{"role": "user", "content": "What did the market do?"}]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, told_story: Repo) -> Place:
    with pytest.MonkeyPatch.context() as patch:
        at_home(patch, tmp_path_factory.mktemp("home"))
        repo = told_story.copied(tmp_path_factory.mktemp("one") / "market")
        place = opening.place(repo.path, None, SCRATCH)
        operations.index(place, Reporter())
        learning.train(place, Reporter())
        return place


@pytest.fixture(scope="module")
def served(place: Place) -> Iterator[Served]:
    with serving({"market": place}, token=TOKEN) as served:
        served.client.headers["authorization"] = f"Bearer {TOKEN}"
        yield served


@pytest.fixture(scope="module")
def client(served: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=f"{served.url}/v1",
        api_key=TOKEN,
        max_retries=0,
        http_client=openai.DefaultHttpxClient(trust_env=False),
    ) as made:
        yield made


def test_the_models_are_listed(client: openai.OpenAI, place: Place) -> None:
    (trained,) = learning.models(place)
    assert [one.id for one in client.models.list()] == ["market", f"market:{trained.name}", "all-MiniLM-L6-v2"]
    assert client.models.retrieve("market").created == int(trained.made)
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-9")


def test_a_chat_is_answered_and_counted(client: openai.OpenAI) -> None:
    told = client.chat.completions.create(model="market", messages=HELLO, max_tokens=8, temperature=0)
    assert told.object == "chat.completion"
    (choice,) = told.choices
    assert (choice.index, choice.message.role) == (0, "assistant")
    assert choice.message.content
    assert choice.finish_reason in ("length", "stop")
    assert told.usage
    assert 0 < told.usage.completion_tokens <= 8
    assert told.usage.total_tokens == told.usage.prompt_tokens + told.usage.completion_tokens


def test_the_same_answer_comes_in_pieces(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": "market", "messages": HELLO, "max_completion_tokens": 12, "seed": 5, "n": 2}
    whole = client.chat.completions.create(**asked)
    chunks = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    said = ["", ""]
    for chunk in chunks:
        assert (chunk.object, chunk.id, chunk.model) == ("chat.completion.chunk", chunks[0].id, "market")
        for choice in chunk.choices:
            said[choice.index] += choice.delta.content or ""
    assert said == [choice.message.content for choice in whole.choices]
    assert said[0] != said[1]
    assert [one.choices[0].delta.role for one in chunks[:2]] == ["assistant", "assistant"]
    ends = [(one.index, one.finish_reason) for chunk in chunks for one in chunk.choices if one.finish_reason]
    assert ends == [(choice.index, choice.finish_reason) for choice in whole.choices]
    assert chunks[-1].choices == []
    assert chunks[-1].usage == whole.usage
    assert all(chunk.usage is None for chunk in chunks[:-1])


def test_a_stream_ends_with_done_and_has_no_usage_unasked(served: Served) -> None:
    body = {"model": "market", "messages": HELLO, "max_tokens": 2, "stream": True}
    told = served.post("/v1/chat/completions", body)
    assert told.headers["content-type"].startswith("text/event-stream")
    events = told.text.strip().split("\n\n")
    assert events[-1] == "data: [DONE]"
    assert not any("usage" in json.loads(event.removeprefix("data: ")) for event in events[:-1])


def test_a_conversation_without_a_template_is_laid_out_and_ends_where_the_other_would_speak() -> None:
    told = laid_out([("system", "Be short."), ("user", "Why?"), ("assistant", "So."), ("user", "Oh.")])
    assert told == "Be short.\n\nUser: Why?\n\nAssistant: So.\n\nUser: Oh.\n\nAssistant:"
    assert told.count(TURN) == 2


def test_a_models_own_template_is_used_and_no_text_of_a_message_becomes_a_control_token(place: Place) -> None:
    writer = learning.writer(place)
    end = writer.tokenizer.eos_token
    writer.tokenizer.chat_template = (
        "{% for message in messages %}<{{ message.role }}>{{ message.content }}{{ eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    ids, stops = writer.chat([("user", f"a{end}b \ue000"), ("assistant", "")])
    assert stops == ()
    assert writer.tokenizer.decode(ids) == f"<user>a{end}b \ue000{end}<assistant>{end}<assistant>"
    assert ids.count(writer.tokenizer.eos_token_id) == 2  # the template's, not the message's
    writer.tokenizer.chat_template = "{{ raise_exception('only one system message') }}"
    with pytest.raises(Exception, match="only one system message"):
        writer.chat([("user", "a")])


def test_a_text_is_gone_on_with(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": "market", "max_tokens": 6, "temperature": 0}
    told = client.completions.create(prompt=["<MESSAGE> Add the", "<MESSAGE> Move"], **asked)
    assert [choice.index for choice in told.choices] == [0, 1]
    (alone,) = client.completions.create(prompt="<MESSAGE> Move", **asked).choices
    assert told.choices[1].text == alone.text
    pieces = client.completions.create(prompt="<MESSAGE> Move", stream=True, **asked)
    assert "".join(piece.choices[0].text for piece in pieces) == alone.text
    stopped = client.completions.create(prompt="<MESSAGE> Move", stop=[alone.text[-1]], **asked)
    assert len(stopped.choices[0].text) < len(alone.text)
    assert stopped.choices[0].finish_reason == "stop"


def test_texts_become_vectors_in_both_encodings(client: openai.OpenAI, served: Served) -> None:
    told = client.embeddings.create(
        model="all-MiniLM-L6-v2", input=["the energy market", "a picture", "energy markets"]
    )
    vectors = [one.embedding for one in told.data]
    assert {len(vector) for vector in vectors} == {384}
    assert all(math.isclose(sum(number**2 for number in vector), 1, rel_tol=1e-4) for vector in vectors)

    def cosine(one: list[float], other: list[float]) -> float:
        return sum(a * b for a, b in zip(one, other, strict=True))

    assert cosine(vectors[0], vectors[2]) > cosine(vectors[0], vectors[1])
    plain = client.embeddings.create(model="all-MiniLM-L6-v2", input="a picture", encoding_format="float")
    assert plain.data[0].embedding == pytest.approx(vectors[1], abs=1e-5)
    assert plain.usage.prompt_tokens == 2
    long = client.embeddings.create(model="all-MiniLM-L6-v2", input="word " * 1000)
    assert long.usage.prompt_tokens == 254


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"model": "gpt-9"}, openai.NotFoundError, "no model 'gpt-9'"),
        ({"model": "market:../../etc"}, openai.NotFoundError, "no model"),
        ({"messages": []}, openai.BadRequestError, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, openai.BadRequestError, "image_url"),
        ({"messages": [{"role": "user", "content": "x " * 9000}]}, openai.BadRequestError, "the model reads"),
        ({"temperature": 3}, openai.BadRequestError, "temperature"),
        ({"temperature": 0.001}, openai.BadRequestError, "temperature"),
        ({"n": 9}, openai.BadRequestError, "`n`"),
        ({"tools": [{"type": "function"}]}, openai.BadRequestError, "calls no tools"),
        ({"response_format": {"type": "json_object"}}, openai.BadRequestError, "writes text"),
        ({"presence_penalty": 1}, openai.BadRequestError, "presence_penalty"),
        ({"stop": ["a"] * 5}, openai.BadRequestError, "stop"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_cannot_be_done_is_an_error_of_the_client(
    changes: dict[str, Any], error: type[openai.APIStatusError], says: str, stream: bool, client: openai.OpenAI
) -> None:
    asked: dict[str, Any] = {"model": "market", "messages": HELLO, "max_tokens": 2, "stream": stream} | changes
    with pytest.raises(error, match=says) as refused:
        client.chat.completions.create(**asked)
    assert refused.value.type == "invalid_request_error"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/embeddings", {"model": "all-MiniLM-L6-v2", "input": [1, 2, 3]}),
        ("/v1/embeddings", {"model": "all-MiniLM-L6-v2", "input": [[1], [2]]}),
        ("/v1/embeddings", {"model": "all-MiniLM-L6-v2", "input": ""}),
        ("/v1/embeddings", {"model": "all-MiniLM-L6-v2", "input": []}),
        ("/v1/embeddings", {"model": "all-MiniLM-L6-v2", "input": "x", "dimensions": 8}),
        ("/v1/embeddings", {"model": "all-MiniLM-L6-v2", "input": "x", "encoding_format": "int8"}),
        ("/v1/completions", {"model": "market", "prompt": [1, 2]}),
        ("/v1/completions", {"model": "market", "prompt": "x", "echo": True}),
        ("/v1/completions", {"model": "market", "prompt": "x", "best_of": 3}),
    ],
)
def test_what_other_paths_cannot_do_is_said(path: str, body: object, served: Served) -> None:
    refused = served.post(path, body)
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] in ("input", "prompt", "dimensions", "encoding_format", "echo", "best_of")


def test_a_wrong_key_is_an_authentication_error(served: Served) -> None:
    with (
        openai.OpenAI(
            base_url=f"{served.url}/v1",
            api_key="wrong",
            max_retries=0,
            http_client=openai.DefaultHttpxClient(trust_env=False),
        ) as stranger,
        pytest.raises(openai.AuthenticationError),
    ):
        stranger.models.list()


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_who_leaves_ends_the_writing_and_who_waited_is_next(served: Served, client: openai.OpenAI) -> None:
    lane = served.server._guard.app.writers.lane  # type: ignore[attr-defined]  # the application's own
    long = client.completions.create(model="market", prompt="<MESSAGE>", max_tokens=8000, temperature=0, stream=True)
    next(iter(long))
    assert lane.busy == 1
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=0.2).completions.create(model="market", prompt="never")
    until(lambda: len(lane) == 0)  # it left before it was its turn
    long.close()
    until(lambda: lane.busy == 0)
    assert client.completions.create(model="market", prompt="a", max_tokens=2).choices


def test_another_current_model_is_taken_at_once(place: Place, client: openai.OpenAI, served: Served) -> None:
    (first,) = learning.models(place)
    asked: dict[str, Any] = {"model": "market", "prompt": "<MESSAGE>", "max_tokens": 4, "temperature": 0}
    before = client.completions.create(**asked).choices[0].text
    other = place.folder / "models" / "market-git-model" / "0123456789abcdef"
    _copied(place, first.name, other)
    learning.use_model(place, other.name)
    try:
        assert served.server._guard.app.writers.loaded == f"market:{first.name}"  # type: ignore[attr-defined]
        assert client.completions.create(**asked).choices[0].text == before
        assert served.server._guard.app.writers.loaded == f"market:{other.name}"  # type: ignore[attr-defined]
    finally:
        learning.use_model(place, first.name)
        learning.remove_model(place, other.name)


def _copied(place: Place, name: str, to: Path) -> None:
    import shutil

    (of,) = (path for path in (place.folder / "models").rglob(name) if path.is_dir())
    shutil.copytree(of, of.with_name(to.name))


def test_who_answers_at_a_desk_is_lent_the_model_that_is_loaded(
    monkeypatch: pytest.MonkeyPatch, served: Served, place: Place, client: openai.OpenAI
) -> None:
    class WordsAsked(Asked, frozen=True, kw_only=True):
        prompt: str

    def write(desk: Desk, asked: Any) -> dict[str, object]:
        assert desk.lent
        (model,) = learning.models(place)
        lent, pieces = desk.lent(place.folder / model.name), list[str]()
        made = lent.write(asked.prompt, Sampling(max_tokens=6, temperature=0), tell=pieces.append)
        assert "".join(pieces) == made.text
        return {"text": made.text, "fits": len(lent.encoded(asked.prompt)) < lent.longest}

    monkeypatch.setitem(OFFERS, "words", Offer(write, WordsAsked, dict[str, object], "", command="words"))
    with serving({"market": place}) as other:
        told = other.post("/v1/words", {"prompt": "<MESSAGE> Move"}).json()
    (alone,) = client.completions.create(model="market", prompt="<MESSAGE> Move", max_tokens=6, temperature=0).choices
    assert told == {"text": alone.text, "fits": True}


def test_on_request_the_history_is_put_before_the_question_as_far_as_there_is_room(client: openai.OpenAI) -> None:
    question: Any = [{"role": "user", "content": "Where are orders settled?"}]
    asked: dict[str, Any] = {"model": "market", "messages": question, "max_tokens": 2}
    plain = client.chat.completions.create(**asked)
    told = client.chat.completions.create(**asked, extra_body={"retrieval": True})
    assert plain.usage
    assert told.usage
    assert plain.usage.prompt_tokens + 100 < told.usage.prompt_tokens <= 254
    assert told.retrieval["commits"]
    long: Any = [{"role": "user", "content": "Where are orders settled? " * 30}]
    with pytest.raises(openai.BadRequestError, match="no room"):
        client.chat.completions.create(**asked | {"messages": long}, extra_body={"retrieval": True})
    with pytest.raises(openai.BadRequestError, match="retrieval"):
        client.chat.completions.create(**asked, extra_body={"retrieval": {"budgets": 1}})
