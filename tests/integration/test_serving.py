"""Repositories over HTTP: by a real server on the loopback, with real indexes."""

import asyncio
import json
import multiprocessing
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from repositories import Repo, at_home
from serving import Served, serving
from treering import finding, offered, opening, operations
from treering.errors import ServiceError, StoreError, UsageError
from treering.finding import Desk
from treering.offered import OFFERS, Asked, FilesAsked, Offer, SearchAsked
from treering.report import Reporter
from treering.search import files
from treering.search.files import Predictor
from treering.search.history import Mask
from treering.serve.app import POST_ONLY
from treering.serve.house import House

EXAMPLES: dict[str, dict[str, object]] = {
    "search": {"query": "dispute rule", "limit": 3},
    "similar": {"commit": "HEAD", "limit": 3},
    "why": {"place": "core/market.py:1"},
    "files": {"task": "change the ledger rule", "given": ["src/ledger.py"]},
    "commit": {"commit": "HEAD"},
    "suggest": {"limit": 3},
    "brief": {"limit": 2},
    "overview": {},
    "status": {},
    "spend": {},
    "monitor": {"since": "2020-01-01"},
    "context": {"question": "what changed the dispute rule?", "budget": 1000},
    "ask": {"question": "what changed the dispute rule?", "by": "history"},
    "route": {"task": "change the ledger rule"},
}
"""Something to ask of every offer; HEAD is the newest commit's hash."""


@pytest.fixture(scope="module")
def stories(tmp_path_factory: pytest.TempPathFactory, told_story: Repo) -> dict[str, Repo]:
    """Two repositories with their indexes."""
    with pytest.MonkeyPatch.context() as patch:
        at_home(patch, tmp_path_factory.mktemp("home"))
        first = told_story.copied(tmp_path_factory.mktemp("one") / "market")
        second = Repo(tmp_path_factory.mktemp("two") / "bakery")
        second.commit("Bake the bread", oven__py="HEAT = 220\n")
        second.commit("Bake it longer", oven__py="HEAT = 220\nMINUTES = 50\n")
        for repo in (first, second):
            operations.index(opening.place(repo.path), Reporter())
    return {"market": first, "bakery": second}


@pytest.fixture(scope="module")
def served(stories: dict[str, Repo]) -> Iterator[Served]:
    with serving({name: opening.place(repo.path) for name, repo in stories.items()}) as served:
        yield served


def asked_of(name: str, repo: Repo) -> dict[str, object]:
    head = repo.git("rev-parse", "HEAD")
    return {key: head if value == "HEAD" else value for key, value in EXAMPLES[name].items()}


@pytest.mark.parametrize("name", sorted(OFFERS))
def test_every_offer_answers_over_http_as_it_does_at_a_desk(
    name: str, served: Served, stories: dict[str, Repo]
) -> None:
    asked, offer = asked_of(name, stories["market"]), OFFERS[name]
    answered = served.post(f"/v1/{name}", asked)
    assert answered.status_code == 200, answered.text
    with finding.desk(opening.place(stories["market"].path), Reporter()) as desk:
        wanted = offer.answer(desk, msgspec.convert(asked, offer.asked))
    made = (
        {**json.loads(msgspec.json.encode(wanted)), "id": answered.json()["id"]}
        if name == "route"
        else (json.loads(msgspec.json.encode(wanted)))
    )
    assert answered.json() == made
    told = served.get(f"/v1/{name}", params=asked)
    if name in POST_ONLY:
        assert told.status_code == 405
    else:
        assert told.json() == answered.json()


def test_another_repository_of_the_server_is_asked_by_its_name(served: Served) -> None:
    found = served.get("/v1/search", params={"query": "bread", "repository": "bakery"}).json()
    assert found[0]["subject"] == "Bake the bread"
    assert [one["name"] for one in served.get("/v1/repositories").json()["repositories"]] == ["market", "bakery"]
    refused = served.post("/v1/search?repository=cellar", {"query": "wine"})
    assert refused.status_code == 400
    assert refused.json()["error"]["hint"] == "repositories: market, bakery"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "query"),
        ({"query": 3}, "query"),
        ({"query": ""}, "query"),
        ({"query": "x", "limit": 0}, "limit"),
        ({"query": "x", "limit": "3"}, "limit"),
        ({"query": "x", "limits": 3}, "limits"),
        ({"query": "x" * 20_001}, "query"),
    ],
)
def test_what_is_wrong_with_a_question_is_said_with_its_field(body: object, field: str, served: Served) -> None:
    refused = served.post("/v1/search", body)
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == field
    assert refused.json()["error"]["code"] == "invalid_request"


@pytest.mark.parametrize(
    "content", [b"{", b'{"query": "\xff"}', b'"query"', b"[" * 100_000, b"null", b'{"query": "\\ud800"}', b"\x00"]
)
def test_a_body_that_is_no_question_is_refused(content: bytes, served: Served) -> None:
    refused = served.client.post("/v1/search", content=content, headers={"content-type": "application/json"})
    assert refused.status_code == 400
    assert refused.json()["error"]["message"]


def test_a_body_that_is_not_called_json_is_refused(served: Served) -> None:
    refused = served.client.post("/v1/search", content=b'{"query": "x"}', headers={"content-type": "text/plain"})
    assert refused.status_code == 415


@pytest.mark.parametrize("text", ["a\x00b", "\x1b[31mred", "\u202eevil", "' OR 1=1 --", "../../etc/passwd", "💥" * 100])
def test_any_text_may_be_asked(text: str, served: Served) -> None:
    for path, body in (
        ("/v1/search", {"query": text, "author": text, "path": text}),
        ("/v1/files", {"task": text, "given": [text]}),
        ("/v1/why", {"place": text}),
        ("/v1/commit", {"commit": text}),
        ("/v1/search", {"query": text, "since": text}),
        ("/v1/search", {"query": text, "at": text}),
    ):
        assert served.post(path, body).status_code in (200, 400), (path, body)


def test_the_seeds_search_is_answered_in_its_shape(served: Served, stories: dict[str, Repo]) -> None:
    asked = {"collection_name": "market-commits", "query": "gateway bridge", "limit": 2}
    found = served.client.request("GET", "/search", json=asked)
    assert found.status_code == 200
    first = found.json()["result"][0]
    assert set(first) == {"id", "author", "message", "files"}
    assert first["files"] == ["src/gateway.py"]
    assert first["author"] == "Ada Lovelace"
    assert served.get("/search", params=asked).json() == served.post("/search", asked).json() == found.json()


def test_the_seeds_search_takes_a_vector(served: Served) -> None:
    told = served.post("/v1/embeddings", {"model": "all-MiniLM-L6-v2", "input": "Bridge receipts over the gateway"})
    vector = told.json()["data"][0]["embedding"]
    asked = {"collection_name": "market", "query_vector": vector, "limit": 1}
    for found in (served.client.request("GET", "/search", json=asked), served.post("/search", asked)):
        assert found.json()["result"][0]["message"].startswith("Bridge receipts over the gateway")
    huge = [number * 1e300 for number in vector]  # a length is no direction
    assert served.post("/search", {**asked, "query_vector": huge}).json() == found.json()
    told = served.get("/search", params={"query_vector": json.dumps(vector), "limit": 1})
    assert told.json() == found.json()


@pytest.mark.parametrize(
    ("asked", "status", "says"),
    [
        ({"query_vector": [0.1, 0.2]}, 400, "the vector has 2 numbers, those of the index 384"),
        ({"query_vector": [0.0] * 384}, 400, "no direction"),
        ({"query": "x", "collection_name": "cellar"}, 404, "no collection 'cellar'"),
        ({"query": "x", "query_vector": [1.0] * 384}, 400, "not both"),
        ({}, 400, "not both"),
    ],
)
def test_the_seeds_search_says_what_it_cannot_do(asked: dict[str, Any], status: int, says: str, served: Served) -> None:
    refused = served.post("/search", asked)
    assert refused.status_code == status
    assert says in refused.json()["error"]["message"]


def test_a_path_or_a_method_that_is_not_there_is_said(served: Served) -> None:
    assert served.get("/v2/search").status_code == 404
    refused = served.client.delete("/v1/search")
    assert refused.status_code == 405
    assert set(refused.headers["allow"].split(", ")) == {"GET", "HEAD", "POST"}
    assert refused.json()["error"]["code"] == "no_method"


def test_health_and_figures_are_told(served: Served) -> None:
    assert served.get("/healthz").json() == {"status": "ok"}
    assert served.get("/readyz").json() == {"status": "ready"}
    served.get("/v1/search", params={"query": "dispute"})
    served.get("/secret/../path")
    figures = served.get("/metrics").text
    assert re.search(r'treering_requests_total\{method="GET",path="/v1/search",status="200"\} [1-9]', figures)
    assert re.search(r'treering_index_age_seconds\{repository="market"\} [0-9.]+', figures)
    assert 'treering_spent_today_dollars{repository="market"} 0.0' in figures
    assert "treering_waiting 0.0" in figures
    assert "secret" not in figures


def test_the_document_names_every_path_and_loads_nothing(served: Served) -> None:
    told = served.get("/openapi.json").json()
    assert {f"/v1/{name}" for name in OFFERS} <= set(told["paths"])
    assert {"/search", "/v1/index", "/v1/chat/completions", "/metrics"} <= set(told["paths"])
    for reference in re.findall(r'"\$ref":\s*"([^"]+)"', json.dumps(told)):
        assert reference.rpartition("/")[2] in told["components"]["schemas"]
    assert served.get("/docs").status_code == served.get("/redoc").status_code == 404


def test_the_log_tells_of_requests_and_not_of_what_is_asked(served: Served) -> None:
    served.get("/v1/search", params={"query": "my secret plan"}, headers={"x-request-id": "abc-1"})
    # The line is written once the answer is sent.
    until(lambda: any(re.fullmatch(r"GET /v1/search 200 \d+ ms abc-1", line) for line in served.said))
    assert not any("secret" in line for line in served.said)


def streamed_offer(wait: threading.Event | None = None, ended: list[str] | None = None) -> Offer:
    """An offer that tells its answer in pieces, as `ask` does, and goes on until it is unwanted where it may wait."""

    class EchoAsked(Asked, frozen=True, kw_only=True):
        text: str

    def told(desk: Desk, asked: Any, tell: Callable[[str], None], unwanted: Callable[[], bool]) -> object:
        if not asked.text:
            raise UsageError("`text`: it is empty", "say something")
        for word in asked.text.split():
            tell(word)
        while wait is not None and not wait.is_set():
            if unwanted():
                assert ended is not None
                ended.append("unwanted")
                break
            tell("…")
            time.sleep(0.01)
        return {"text": asked.text, "commits": len(desk.finder.history)}

    return Offer(
        lambda desk, asked: told(desk, asked, lambda _: None, lambda: False),
        EchoAsked, dict[str, object], "Say it again.", command="echo", streamed=told,
    )  # fmt: skip


def test_an_answer_is_streamed_piece_by_piece_where_it_is_asked_for(
    stories: dict[str, Repo], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(OFFERS, "echo", streamed_offer())
    with serving({"market": opening.place(stories["market"].path)}) as served:
        told = served.post("/v1/echo", {"text": "one two", "stream": True})
        assert told.headers["content-type"].startswith("text/event-stream")
        events = [line.removeprefix("data: ") for line in told.text.split("\n\n") if line]
        assert [json.loads(event) for event in events[:2]] == [{"delta": "one"}, {"delta": "two"}]
        assert json.loads(events[2])["answer"]["text"] == "one two"
        assert events[3:] == ["[DONE]"]
        assert served.post("/v1/echo", {"text": "one two"}).json() == json.loads(events[2])["answer"]
        refused = served.post("/v1/echo", {"text": "", "stream": True})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "text")
        assert served.post("/v1/echo", {"text": "x", "stream": 1}).status_code == 400
        assert served.post("/v1/echo", {"txt": "x", "stream": True}).status_code == 400
        described = served.get("/openapi.json").json()
        assert described["components"]["schemas"]["EchoAskedStreaming"]["properties"]["stream"]["type"] == "boolean"
        assert set(described["paths"]["/v1/echo"]["post"]["responses"]["200"]["content"]) == {
            "application/json", "text/event-stream"
        }  # fmt: skip


def test_who_leaves_a_stream_ends_the_work_for_it(stories: dict[str, Repo], monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[str] = []
    monkeypatch.setitem(OFFERS, "echo", streamed_offer(threading.Event(), ended))
    with serving({"market": opening.place(stories["market"].path)}) as served:
        with served.client.stream("POST", "/v1/echo", json={"text": "one", "stream": True}) as told:
            assert next(told.iter_lines()).startswith("data: ")
        until = time.monotonic() + 20
        while not ended and time.monotonic() < until:
            time.sleep(0.02)
    assert ended == ["unwanted"]


def test_a_store_that_is_deleted_while_it_is_served_is_missed_and_found_again(tmp_path: Path) -> None:
    repo = Repo(tmp_path / "project")
    repo.commit("Begin", a__py="x = 1\n")
    place = opening.place(repo.path)
    operations.index(place, Reporter())
    with serving({"project": place}) as served:
        assert served.post("/v1/search", {"query": "begin"}).json()
        assert served.get("/readyz").status_code == 200
        shutil.rmtree(place.folder)
        for path, asked in (("search", {"query": "x"}), ("files", {"task": "x"}), ("commit", {"commit": "HEAD"}),
                            ("brief", {}), ("status", {})):  # fmt: skip
            missed = served.post(f"/v1/{path}", asked)
            assert (missed.status_code, missed.json()["error"]["code"]) == (409, "no_index")
            assert "treering index" in missed.json()["error"]["hint"]
        assert served.get("/readyz").status_code == 409
        assert served.get("/healthz").status_code == served.get("/metrics").status_code == 200
        assert not place.folder.exists()
        operations.index(place, Reporter())
        assert served.get("/readyz").status_code == 200
        assert served.post("/v1/search", {"query": "begin"}).json()[0]["subject"] == "Begin"


def test_a_database_that_breaks_while_it_is_read_is_no_bug_of_ours(
    stories: dict[str, Repo], monkeypatch: pytest.MonkeyPatch
) -> None:
    def reading(desk: Desk, _: Asked) -> object:
        return desk.finder.store.db.execute("SELECT * FROM nowhere").fetchone()

    monkeypatch.setitem(OFFERS, "status", replace(OFFERS["status"], answer=reading))
    with serving({"bakery": opening.place(stories["bakery"].path)}) as served:
        told = served.post("/v1/status")
        assert (told.status_code, told.json()["error"]["code"]) == (503, "store")
        assert "treering.db" in told.json()["error"]["message"]


def test_what_was_fitted_before_anyone_asked_is_fitted_once_for_all(
    stories: dict[str, Repo], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "STEP", 2)
    fitted: list[int] = []
    before = Predictor.examples

    def examples(predictor: Predictor, past: Mask, most: int) -> object:
        fitted.append(int(past.sum()))
        return before(predictor, past, most)

    monkeypatch.setattr(Predictor, "examples", examples)
    asked = FilesAsked(task="change the ledger rule")
    with House({"market": opening.place(stories["market"].path)}, threads=1) as house:
        asyncio.run(house.warm("market"))
        assert asyncio.run(house.answer("market", "files", asked))
    assert len(fitted) == 1


class Slow:
    """An offer that is answered when it is let; counts who began."""

    def __init__(self) -> None:
        self.let = threading.Event()
        self.begun: list[str] = []
        self.offer = Offer(self._answer, offered.CommitAsked, str, "Wait.", command="wait")

    def _answer(self, _: Desk, asked: Any) -> str:
        self.begun.append(asked.commit)
        assert self.let.wait(30)
        return str(asked.commit)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[Slow]:
    made = Slow()
    monkeypatch.setitem(OFFERS, "wait", made.offer)
    monkeypatch.setattr("treering.serve.house.SLOW_THREADS", 1)
    yield made
    made.let.set()


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_full_queue_sends_away_and_says_when_to_come_back(stories: dict[str, Repo], slow: Slow) -> None:
    with (
        serving({"market": opening.place(stories["market"].path)}, waiting=1) as served,
        ThreadPoolExecutor(3) as clients,
    ):
        first = clients.submit(served.post, "/v1/wait", {"commit": "1"})
        until(lambda: slow.begun == ["1"])
        second = clients.submit(served.post, "/v1/wait", {"commit": "2"})
        until(lambda: len(served.house.slow) == 1)
        refused = served.post("/v1/wait", {"commit": "3"})
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert served.post("/v1/search", {"query": "ledger"}).status_code == 200  # it has another queue
        slow.let.set()
        assert [one.result().json() for one in (first, second)] == ["1", "2"]


def test_who_leaves_before_it_is_their_turn_is_forgotten(stories: dict[str, Repo], slow: Slow) -> None:
    with (
        serving({"market": opening.place(stories["market"].path)}) as served,
        ThreadPoolExecutor(3) as clients,
    ):
        first = clients.submit(served.post, "/v1/wait", {"commit": "1"})
        until(lambda: slow.begun == ["1"])
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{served.url}/v1/wait", json={"commit": "2"}, timeout=0.3, trust_env=False)
        until(lambda: len(served.house.slow) == 0)
        slow.let.set()
        assert first.result().json() == "1"
        assert served.post("/v1/wait", {"commit": "3"}).json() == "3"
    assert slow.begun == ["1", "3"]


def test_an_answer_that_does_not_begin_in_time_is_given_up(stories: dict[str, Repo], slow: Slow) -> None:
    with serving({"market": opening.place(stories["market"].path)}, seconds=0.3) as served:
        late = served.post("/v1/wait", {"commit": "1"})
        assert (late.status_code, late.json()["error"]["code"]) == (504, "too_slow")
        slow.let.set()


def test_what_is_accepted_is_answered_though_the_server_is_told_to_end(stories: dict[str, Repo], slow: Slow) -> None:
    with ThreadPoolExecutor(4) as clients, serving({"market": opening.place(stories["market"].path)}) as served:
        waiting = [clients.submit(served.post, "/v1/wait", {"commit": str(one)}) for one in range(3)]
        until(lambda: len(slow.begun) == 1 and len(served.house.slow) == 2)
        served.server.should_exit = True
        until(lambda: not served.server.servers[0].is_serving())
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{served.url}/healthz", trust_env=False)
        slow.let.set()
        assert sorted(one.result().json() for one in waiting) == ["0", "1", "2"]


def test_an_index_that_changes_while_it_is_served_is_seen(tmp_path: Path) -> None:
    repo = Repo(tmp_path / "project")
    repo.commit("Begin", a__py="x = 1\n")
    operations.index(opening.place(repo.path), Reporter())
    with serving({"project": opening.place(repo.path)}) as served:
        assert served.post("/v1/search", {"query": "zeppelin"}).json()[0]["subject"] == "Begin"
        repo.commit("Build the zeppelin", b__py="zeppelin = 2\n")
        begun = served.post("/v1/index")
        assert (begun.status_code, begun.json()["state"]) == (202, "running")
        assert served.post("/v1/index").json()["id"] == begun.json()["id"]  # never two at once
        while (job := served.get("/v1/index").json())["state"] == "running":
            time.sleep(0.05)
        assert (job["state"], job["commits"], job["error"]) == ("done", 1, "")
        until(lambda: served.post("/v1/search", {"query": "zeppelin"}).json()[0]["subject"] == "Build the zeppelin")


def test_a_repository_without_an_index_says_so_and_gets_one(tmp_path: Path) -> None:
    repo = Repo(tmp_path / "project")
    repo.commit("Begin", a__py="x = 1\n")
    with serving({"project": opening.place(repo.path)}) as served:
        for path in ("/v1/search", "/v1/commit"):
            refused = served.post(path, {"query": "x"} if path == "/v1/search" else {"commit": "a"})
            assert (refused.status_code, refused.json()["error"]["code"]) == (409, "no_index")
        assert served.get("/readyz").status_code == 409
        assert served.get("/v1/models").json()["data"] == [
            {"id": "all-MiniLM-L6-v2", "created": 0, "object": "model", "owned_by": "treering"}
        ]
        served.post("/v1/index")
        until(lambda: served.get("/v1/index").json()["state"] == "done")
        assert served.post("/v1/search", {"query": "begin"}).json()[0]["subject"] == "Begin"


def test_a_damaged_store_takes_nothing_from_the_other_repositories(tmp_path: Path) -> None:
    places = {}
    for name in ("well", "ill"):
        repo = Repo(tmp_path / name)
        repo.commit("Begin", a__py="x = 1\n")
        places[name] = opening.place(repo.path)
        operations.index(places[name], Reporter())
    (places["ill"].folder / "treering.db").write_bytes(b"no database" * 1000)
    with serving(places) as served:
        assert 'treering_index_age_seconds{repository="well"}' in served.get("/metrics").text
        assert served.get("/v1/models").status_code == 200
        asked = {"messages": [{"role": "user", "content": "x"}]}
        assert served.post("/v1/chat/completions", asked | {"model": "well"}).status_code == 404  # none was trained
        assert served.post("/v1/chat/completions", asked | {"model": "ill"}).json()["error"]["code"] == "store"
        assert served.get("/v1/status", params={"repository": "ill"}).json()["error"]["code"] == "store"


def test_an_index_that_fails_says_why(tmp_path: Path) -> None:
    repo = Repo(tmp_path / "project")
    place = opening.place(repo.path)  # it has no commit
    with serving({"project": place}) as served:
        assert served.get("/v1/index").json()["state"] == "none"
        served.post("/v1/index")
        until(lambda: served.get("/v1/index").json()["state"] == "failed")
        assert "commit" in served.get("/v1/index").json()["error"]


def test_a_process_that_cannot_be_started_is_told_each_time_and_the_next_one_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = Repo(tmp_path / "project")
    repo.commit("Begin", a__py="x = 1\n")
    with serving({"project": opening.place(repo.path)}) as served:
        with monkeypatch.context() as broken:
            broken.setattr(opening.Place, "command", lambda *_: ["/no/such/program"])
            for _ in range(2):
                assert served.post("/v1/index").status_code == 202
                until(lambda: served.get("/v1/index").json()["state"] == "failed")
                assert "cannot be started" in served.get("/v1/index").json()["error"]
        served.post("/v1/index")
        until(lambda: served.get("/v1/index").json()["state"] == "done")


def test_where_the_answers_fall_short_is_said_in_a_header(tmp_path: Path) -> None:
    repo = Repo(tmp_path / "project")
    repo.commit("Begin", a__py="x = 1\n")
    operations.index(opening.place(repo.path), Reporter())
    repo.commit("Go on", a__py="x = 2\n")
    with serving({"project": opening.place(repo.path)}) as served:
        told = served.post("/v1/search", {"query": "begin"})
        assert (
            told.headers["treering-note"]
            == "the index is behind the repository: run `treering index`, or keep `treering watch` on"
        )
        assert served.get("/v1/repositories").json()["repositories"][0]["notes"]
        assert served.get("/v1/status").json()["behind"] is True


def test_that_the_repository_moved_on_is_said_by_the_next_answer(tmp_path: Path) -> None:
    repo = Repo(tmp_path / "project")
    first = repo.commit("Begin", a__py="x = 1\n")
    operations.index(opening.place(repo.path), Reporter())
    with serving({"project": opening.place(repo.path)}) as served:
        assert "treering-note" not in served.post("/v1/search", {"query": "begin"}).headers
        repo.commit("Go on", a__py="x = 2\n")
        assert served.post("/v1/search", {"query": "begin"}).headers["treering-note"] == opening.BEHIND
        repo.git("reset", "--quiet", "--hard", first)
        assert "treering-note" not in served.post("/v1/search", {"query": "begin"}).headers


@pytest.mark.parametrize(("error", "times"), [(ServiceError("Claude is gone"), 1), (StoreError("it is torn"), 2)])
def test_only_what_cost_nothing_is_asked_again_where_the_index_changed(
    stories: dict[str, Repo], monkeypatch: pytest.MonkeyPatch, error: Exception, times: int
) -> None:
    asked: list[Desk] = []
    place = opening.place(stories["bakery"].path)

    def failing(desk: Desk, _: Asked) -> object:
        asked.append(desk)
        with place.store() as store, store.writing("a test"), store.transaction():
            store.set_fact("a test", str(len(asked)))
        raise error

    monkeypatch.setitem(OFFERS, "status", replace(OFFERS["status"], answer=failing))

    async def ask(house: House) -> None:
        with pytest.raises(type(error)):
            await house.answer("bakery", "status", OFFERS["status"].asked())

    with House({"bakery": place}) as house:
        asyncio.run(ask(house))
    assert len(asked) == times


def test_processes_answer_as_threads_do_and_one_that_was_killed_is_started_anew(stories: dict[str, Repo]) -> None:
    asked = SearchAsked(query="bake the bread")

    async def answers(house: House, asked: SearchAsked) -> tuple[object, object]:
        by_thread = await house.ask("bakery", lambda desk: OFFERS["search"].answer(desk, asked))
        return by_thread, await house.answer("bakery", "search", asked)

    with House({"bakery": opening.place(stories["bakery"].path)}, threads=1, processes=1) as house:
        by_thread, by_process = asyncio.run(answers(house, asked))
        assert by_thread
        assert by_process == by_thread
        with pytest.raises(UsageError, match="no commit nowhere"):
            asyncio.run(house.answer("bakery", "search", SearchAsked(query="x", at="nowhere")))
        (process,) = multiprocessing.active_children()
        process.kill()
        process.join()
        assert asyncio.run(answers(house, asked)) == (by_thread, by_thread)
        assert house.notes("bakery") == house.opening.notes["bakery"]
    assert not multiprocessing.active_children()
