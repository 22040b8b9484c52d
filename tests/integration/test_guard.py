"""Who is let in: whose host, whose page, whose token, how large, how often, how long."""

import json
import re
import socket
import threading
import time
from collections.abc import Iterator

import httpx
import pytest

from repositories import Repo, at_home
from serving import Served, serving
from treering import opening, operations
from treering.config import ServeSettings
from treering.errors import UsageError
from treering.opening import Place
from treering.report import Reporter
from treering.serve import guard, running
from treering.serve.metrics import Metrics

TOKEN = "a-token-of-twenty-eight-letters"
SEARCH = {"query": "begin"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    with pytest.MonkeyPatch.context() as patch:
        at_home(patch, tmp_path_factory.mktemp("home"))
        repo = Repo(tmp_path_factory.mktemp("one") / "project")
        repo.commit("Begin", a__py="x = 1\n")
        operations.index(opening.place(repo.path), Reporter())
        return opening.place(repo.path)


@pytest.fixture(scope="module")
def served(place: Place) -> Iterator[Served]:
    with serving({"project": place}, body_bytes=2048) as served:
        yield served


@pytest.fixture(scope="module")
def locked(place: Place) -> Iterator[Served]:
    with serving({"project": place}, token=TOKEN) as served:
        yield served


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "evil.example:80", "10.1.2.3", "[::2]"])
def test_a_name_that_is_not_ours_is_refused(host: str, served: Served) -> None:
    refused = served.post("/v1/search", SEARCH, headers={"host": host})
    assert (refused.status_code, refused.json()["error"]["code"]) == (421, "wrong_host")


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1", "[::1]:8080"])
def test_the_machines_own_names_are_let_in(host: str, served: Served) -> None:
    assert served.post("/v1/search", SEARCH, headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "lines", [b"", b"Host: \r\n", b"Host: a b\r\n", b"Host: 127.0.0.1\r\nHost: 127.0.0.1\r\n", b"Host: a/b\r\n"]
)
def test_a_request_without_one_valid_host_is_refused(lines: bytes, served: Served) -> None:
    told = served.raw(b"GET /healthz HTTP/1.1\r\n" + lines + b"Connection: close\r\n\r\n")
    assert told.startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:1"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"},
    ],
)
def test_a_page_of_another_site_cannot_ask(headers: dict[str, str], served: Served) -> None:
    refused = served.post("/v1/search", SEARCH, headers=headers)
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "other_origin")
    assert "access-control-allow-origin" not in refused.headers


def test_a_link_from_elsewhere_may_be_followed_and_our_own_page_may_ask(served: Served) -> None:
    followed = served.get("/healthz", headers={"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"})
    assert followed.status_code == 200
    own = {"origin": served.url, "sec-fetch-site": "same-origin"}
    assert served.post("/v1/search", SEARCH, headers=own).status_code == 200


def test_no_page_is_told_that_it_may_ask(served: Served) -> None:
    asked = {"origin": "http://evil.example", "access-control-request-method": "POST"}
    refused = served.client.options("/v1/search", headers=asked)
    assert refused.status_code == 403
    assert not any(name.startswith("access-control") for name in refused.headers)


def test_a_body_that_is_too_large_is_refused_before_it_is_read(served: Served) -> None:
    told = served.raw(
        b"POST /v1/search HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        b"Content-Length: 1000000000\r\n\r\n"
    )
    assert told.startswith(b"HTTP/1.1 413 ")
    assert b"2,048 bytes" in told


def test_a_body_in_chunks_that_grows_too_large_is_refused(served: Served) -> None:
    refused = served.client.post(
        "/v1/search", content=iter([b"x" * 1000] * 4), headers={"content-type": "application/json"}
    )
    assert refused.status_code == 413


def test_what_is_no_http_is_told_in_the_shape_of_every_error(served: Served) -> None:
    head, _, told = served.raw(b"GET / HTTP/1.1\r\n\r\n").partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"content-type: application/json" in head.lower()
    assert json.loads(re.search(rb"{.*}", told)[0])["error"]["code"] == "no_http"  # type: ignore[index]


@pytest.mark.parametrize("begun", [b"", b"GET /healthz HT", b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX: a"])
def test_headers_that_never_come_are_not_waited_for(
    begun: bytes, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "HEADER_SECONDS", 0.3)
    started = time.monotonic()
    assert served.raw(begun) == b""
    assert time.monotonic() - started < 5
    with httpx.Client(base_url=served.url, trust_env=False) as client:  # who has asked may wait between two questions
        assert client.get("/healthz").status_code == 200
        time.sleep(0.5)
        assert client.get("/healthz").status_code == 200


def test_too_many_headers_are_refused(served: Served) -> None:
    refused = served.get("/healthz", headers={f"x-{number}": "1" for number in range(150)})
    assert refused.status_code == 431


def test_who_asks_at_more_length_than_a_url_may_have_is_told(served: Served) -> None:
    query = b"query_vector=0.0&" * 8192
    refused = served.raw(b"GET /search?" + query + b" HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
    assert refused.startswith(b"HTTP/1.1 431 ")
    assert b'"hint":"ask by POST"' in refused


def test_a_body_that_never_comes_is_not_waited_for(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "BODY_SECONDS", 0.2)
    told = served.raw(
        b"POST /v1/search HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
    )
    assert told.startswith(b"HTTP/1.1 408 ")


def test_without_the_token_nothing_is_told(locked: Served) -> None:
    for path in ("/v1/status", "/v1/models", "/metrics", "/openapi.json", "/v1/search?query=begin", "/nothing"):
        for header in ({}, {"authorization": "Bearer wrong"}, {"authorization": f"Basic {TOKEN}"}):
            refused = locked.get(path, headers=header)
            assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
            assert refused.json()["error"]["type"] == "authentication_error"
    assert locked.get("/healthz").status_code == 200


def test_with_the_token_all_is_told_and_it_is_in_no_log(locked: Served) -> None:
    bearing = {"authorization": f"Bearer {TOKEN}"}
    assert locked.post("/v1/search", SEARCH, headers=bearing).status_code == 200
    assert locked.get("/openapi.json", headers=bearing).json()["security"] == [{"token": []}]
    assert not any(TOKEN in line for line in locked.said)


def test_who_asks_too_often_is_told_to_wait(place: Place) -> None:
    with serving({"project": place}, rate=0.05) as served:
        first, *others = [served.get("/healthz") for _ in range(5)]
    assert first.status_code == 200
    assert {one.status_code for one in others} == {429}
    assert all(10 <= int(one.headers["retry-after"]) <= 21 for one in others)


def test_a_bucket_fills_again_with_time_and_few_clients_are_remembered() -> None:
    now = [0.0]
    rates = guard.Rates(2.0, lambda: now[0])
    assert [rates.wait("a") for _ in range(5)] == [0, 0, 0, 0, 0.5]
    assert rates.wait("b") == 0
    now[0] = 0.5
    assert [rates.wait("a"), rates.wait("a")] == [0, 0.5]
    for number in range(guard.CLIENTS + 10):
        rates.wait(str(number))
    assert len(rates._left) == guard.CLIENTS


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.4", "server.example"])
def test_others_are_let_in_only_with_a_token(host: str) -> None:
    with pytest.raises(UsageError) as refusal:
        guard.check(ServeSettings(host=host))
    assert "TREERING_SERVE_TOKEN" in refusal.value.hint
    guard.check(ServeSettings(host=host, token=TOKEN))


@pytest.mark.parametrize("token", ["short", "with a blank in it, long enough", "nön-ascii-nön-ascii"])
def test_a_weak_token_is_refused(token: str) -> None:
    with pytest.raises(UsageError):
        guard.check(ServeSettings(token=token))


def test_on_all_addresses_any_address_is_ours_but_no_strange_name() -> None:
    async def app(*_: object) -> None: ...

    guarded = guard.Guard(app, ServeSettings(host="0.0.0.0", token=TOKEN, names=("box.example",)), Metrics())
    for name in ("10.1.2.3", "box.example", "BOX.example:80", "localhost", "[fe80::1]:80"):
        guarded._check_host({b"host": [name.encode()]})
    with pytest.raises(guard._No):
        guarded._check_host({b"host": [b"evil.example"]})


def test_many_who_ask_at_once_are_all_answered(served: Served) -> None:
    errors: list[object] = []

    def ask(number: int) -> None:
        with httpx.Client(base_url=served.url, timeout=60, trust_env=False) as client:
            for turn in range(5):
                answer = client.post("/v1/search", json={"query": f"begin {number} {turn}"})
                if answer.status_code != 200 or answer.json()[0]["subject"] != "Begin":
                    errors.append(answer.text)

    clients = [threading.Thread(target=ask, args=(number,)) for number in range(20)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    assert not errors


def test_a_client_that_hangs_up_in_the_middle_harms_nobody(served: Served) -> None:
    host, port = served.url.removeprefix("http://").split(":")
    for half in (b"POST /v1/se", b"POST /v1/search HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 50\r\n\r\n{"):
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(half)
    assert served.post("/v1/search", SEARCH).status_code == 200
