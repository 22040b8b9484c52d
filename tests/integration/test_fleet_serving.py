"""A fleet behind a server and MCP: all repositories asked as one, and tokens that see only some of them."""

import asyncio
import http.server
import json
import shutil
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import httpx
import httpx2
import msgspec
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from repositories import Repo, at_home
from serving import Served, serving
from treering import finding, opening, operations
from treering.cli.main import main
from treering.config import ServeSettings, Settings
from treering.errors import NoKey, ServiceError, UsageError
from treering.gathering import Gathering
from treering.offered import OFFERS, QUICK
from treering.operate import rest
from treering.remote import Remote
from treering.report import Reporter
from treering.serve import fleet as fleets
from treering.serve.access import EVERYTHING, Sight, Tokens
from treering.serve.crew import Bench, Opening
from treering.serve.fleet import Fleet, Members
from treering.serve.guard import check
from treering.serve.house import House
from treering.store.fleet import Fleet as Register
from treering.store.fleet import Repository
from treering.types import Filters

ADA, BOB, EVE, NOBODY = (f"{name}-0123456789abcdef==" for name in ("ada", "bob", "eve", "nobody"))
TOKENS = f"{BOB}=shop-*, market;{EVE}=vault-*;{NOBODY}=nothing-*"
"""Bob sees one repository that is served by itself, and two of the fleet; Eve one of the fleet."""
HIDDEN = ("bakery", "vault")
"""What is in the names of all that Bob does not see, and in nothing that he does."""

ASKED: dict[str, dict[str, object]] = {
    "search": {"query": "rule"}, "similar": {"commit": "0123abcd"}, "why": {"place": "oven.py:1"},
    "files": {"task": "bake"}, "commit": {"commit": "0123abcd"}, "context": {"question": "bread"},
    "ask": {"question": "bread", "by": "history"}, "route": {"task": "bake"},
}  # fmt: skip
"""Something to ask of those offers that need it."""


@pytest.fixture(scope="module")
def repos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Repo]:
    """Two repositories, and three of a fleet, each with an index of its own."""
    with pytest.MonkeyPatch.context() as patch:
        at_home(patch, tmp_path_factory.mktemp("home"))
        folder = tmp_path_factory.mktemp("repos")
        made = {name: Repo(folder / name) for name in ("market", "bakery", "shop-front", "shop-back", "vault-gold")}
        made["market"].commit("Settle a dispute by a rule", market__py="def settle(rule):\n    return rule\n")
        made["market"].commit("Keep the ledger", ledger__py="LEDGER = []\n")
        made["bakery"].commit("Bake the bread", oven__py="HEAT = 220\n")
        made["bakery"].commit("Bake it by a rule", oven__py="HEAT = 220\nMINUTES = 50\n")
        made["shop-front"].commit("Raise the retry limit", client__py="RETRY_LIMIT = 9\n")
        made["shop-front"].commit("Sell penguins", penguins__py="def sell(penguin):\n    return penguin\n")
        made["shop-back"].commit("Count penguins in the cellar", cellar__py="def count(penguins):\n    return 3\n")
        made["shop-back"].commit("Hide the price list", prices_0_fish__txt="penguin 12\n")
        made["vault-gold"].commit("Lock up golden penguins", vault__py="def lock(penguins):\n    return None\n")
        made["vault-gold"].commit("Open by a rule", vault__py="def lock(penguins):\n    return 'rule'\n")
        for name, repo in made.items():
            operations.index(opening.place(repo.path, folder / "stores" / name), Reporter())
    return made


def stores(repos: dict[str, Repo]) -> dict[str, Path]:
    return {name: repo.path.parent / "stores" / name for name, repo in repos.items() if "-" in name}


def registered(fleet: Path, repos: dict[str, Repo]) -> None:
    """A fleet that knows where its repositories lie, and has their stores."""
    with Register(fleet) as register:
        register.keep(Repository(source=str(repos[name].path), name=name) for name in stores(repos))
    for name, store in stores(repos).items():
        shutil.copytree(store, fleet / "stores" / name)


@pytest.fixture
def folder(repos: dict[str, Repo], tmp_path: Path) -> Path:
    for name, store in stores(repos).items():
        shutil.copytree(store, tmp_path / "fleet" / "stores" / name)
    return tmp_path / "fleet"


@pytest.fixture(scope="module")
def served(repos: dict[str, Repo]) -> Iterator[Served]:
    """Two repositories by their names and a fleet, for Ada, who sees all, and those of ``TOKENS``."""
    with pytest.MonkeyPatch.context() as patch:
        at_home(patch, repos["market"].path.parent)
        own = repos["market"].path.parent / "stores"
        fleet = repos["market"].path.parent / "fleet"
        registered(fleet, repos)
        places = {name: opening.place(repos[name].path, own / name) for name in ("market", "bakery")}
        with serving(places, fleet=Fleet(fleet, Settings()), token=ADA, tokens=TOKENS) as served:
            yield served


def bearing(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def search(served: Served, token: str = "", **asked: Any) -> httpx.Response:
    return served.get("/v1/search", params={"repository": "*", **asked}, headers=bearing(token) if token else {})


def of(answer: httpx.Response) -> set[str]:
    assert answer.status_code == 200, answer.text
    return {hit["repository"] for hit in answer.json()}


# asked as one ----------------------------------------------------------------------------------------------------


def test_all_repositories_of_a_fleet_are_searched_as_one(served: Served, repos: dict[str, Repo]) -> None:
    with Gathering(stores(repos), Settings(), Reporter()) as gathering:
        wanted = [(hit.repository, hit.commit_hash, hit.score) for hit in gathering.search("penguins", limit=10)]
    answer = search(served, ADA, query="penguins")
    assert [(hit["repository"], hit["commit_hash"], hit["score"]) for hit in answer.json()] == wanted
    assert of(answer) == {"shop-front", "shop-back", "vault-gold"}
    posted = served.post("/v1/search?repository=*", {"query": "penguins"}, headers=bearing(ADA))
    assert posted.json() == answer.json()


def test_some_of_them_are_chosen_by_name_or_pattern(served: Served) -> None:
    assert of(search(served, ADA, query="penguins", repositories="shop-*")) == {"shop-front", "shop-back"}
    both = search(served, ADA, query="penguins", repositories=["shop-front", "vault-gold"])
    assert of(both) == {"shop-front", "vault-gold"}
    refused = search(served, ADA, query="penguins", repositories="cellar")
    assert refused.status_code == 400
    assert refused.json()["error"]["hint"] == "repositories: shop-back, shop-front, vault-gold"


def test_the_commits_most_like_one_are_found_in_all(served: Served, repos: dict[str, Repo]) -> None:
    commit = repos["shop-front"].git("rev-parse", "HEAD")
    answer = served.get("/v1/similar", params={"repository": "*", "commit": commit}, headers=bearing(ADA))
    assert of(answer) == {"shop-front", "shop-back", "vault-gold"}
    hidden = repos["vault-gold"].git("rev-parse", "HEAD")
    kept = served.get("/v1/similar", params={"repository": "*", "commit": hidden}, headers=bearing(BOB))
    nowhere = served.get("/v1/similar", params={"repository": "*", "commit": "f" * 40}, headers=bearing(BOB))
    assert kept.status_code == nowhere.status_code == 400
    assert kept.text.replace(hidden, "") == nowhere.text.replace("f" * 40, "")


def remote(address: str, token: str = "") -> Remote:
    return Remote(address, Settings(serve=ServeSettings(token=token)), Reporter())


def test_from_elsewhere_it_is_asked_as_if_it_lay_here(served: Served, repos: dict[str, Repo]) -> None:
    few = Filters(author="Ada", repositories=("shop-*",))
    commit = repos["shop-front"].git("rev-parse", "HEAD")
    with Gathering(stores(repos), Settings(), Reporter()) as here, remote(f"{served.url}/", ADA) as there:
        assert there.search("penguins") == here.search("penguins") != []
        assert there.search("penguins", limit=1) == here.search("penguins", limit=1)
        assert there.search("penguins", filters=few) == here.search("penguins", filters=few)
        assert there.search("penguins", at=commit) == here.search("penguins", at=commit)
        assert there.similar(commit) == here.similar(commit)
        with pytest.raises(UsageError, match=r"no repository.*cellar"):
            there.search("penguins", filters=Filters(repositories=("cellar",)))
        with pytest.raises(UsageError, match="the query is empty"):
            there.search(" ")
    with remote(served.url, EVE) as there:
        assert {hit.repository for hit in there.search("penguins")} == {"vault-gold"}


def test_the_command_line_asks_a_server(
    served: Served, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TREERING_SERVE_TOKEN", BOB)
    with pytest.raises(SystemExit, match="0"):
        main(["search", "--fleet", served.url, "penguins", "--in", "shop-front", "--json"])
    assert {hit["repository"] for hit in json.loads(capsys.readouterr().out)} == {"shop-front"}


def test_what_comes_of_an_address_that_is_none(served: Served) -> None:
    for address in (
        "ftp://h.example/x", "https://ada:geheim@h.example", "http://", "http://[::1", "http://h.example:x",
        "https://h.example/?token=geheim", "https://h.example/#geheim",
    ):  # fmt: skip
        with pytest.raises(UsageError, match="no address of a server") as told:
            remote(address)
        assert "geheim" not in f"{told.value} {told.value.hint}"
    with pytest.raises(UsageError, match="a token is sent over https"):
        remote("http://h.example:8080", ADA)
    for token in ("geheim\nabcd", "geheim ", "gehéim"):
        with pytest.raises(NoKey, match="characters that no token has") as said:
            remote(served.url, token)
        assert "geh" not in f"{said.value} {said.value.hint}"
    with remote(served.url, ADA + "x") as there, pytest.raises(NoKey, match="does not take the token"):
        there.search("penguins")
    with remote(f"{served.url}/elsewhere", ADA) as there, pytest.raises(ServiceError, match=r"127\.0\.0\.1"):
        there.search("penguins")
    with remote("http://127.0.0.1:9", ADA) as there, pytest.raises(ServiceError, match="does not answer"):
        there.search("penguins")


@pytest.mark.parametrize("says", [b"<html>", b"[1]", b"\xff", b"[" * 9000, b'{"error": 1}', b'{"detail": "no"}'])
@pytest.mark.parametrize("status", [200, 502])
def test_a_server_of_another_kind_is_said_to_be(says: bytes, status: int) -> None:
    with answering(says, status) as url, remote(url) as there, pytest.raises(ServiceError, match="otherwise than"):
        there.search("penguins")


def test_no_proxy_is_told_a_token_that_stays_here(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "junk://h.example")
    with remote(served.url, ADA) as there:
        assert there.search("penguins")
    with pytest.raises(UsageError, match=r"no way leads to h\.example"):
        remote("https://h.example", ADA)


def test_an_answer_that_does_not_end_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rest, "MOST_BYTES", 1 << 20)
    with answering(b" " * (2 << 20)) as url, remote(url) as there, pytest.raises(ServiceError, match="more than 1 MB"):
        there.search("penguins")


@contextmanager
def answering(says: bytes, status: int = 200) -> Iterator[str]:
    """A server that says the same to everything."""

    class Same(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.send_header("Content-Length", str(len(says)))
            self.end_headers()
            with suppress(ConnectionError):
                self.wfile.write(says)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Same) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_what_is_of_one_repository_is_not_asked_of_all(served: Served) -> None:
    for name in OFFERS.keys() - {"search", "similar"}:
        refused = served.post(f"/v1/{name}?repository=*", ASKED.get(name, {}), headers=bearing(ADA))
        assert refused.status_code == 400, name
        assert "`*` is all of a fleet" in refused.json()["error"]["message"]
    assert served.post("/v1/index?repository=*", headers=bearing(ADA)).status_code == 400
    assert served.post("/v1/gate?repository=*", {"patch": "x"}, headers=bearing(ADA)).status_code == 400


def test_where_no_fleet_is_served_it_is_said(repos: dict[str, Repo]) -> None:
    place = opening.place(repos["market"].path, repos["market"].path.parent / "stores" / "market")
    with serving({"market": place}) as served:
        refused = search(served, query="rule")
        assert refused.status_code == 400
        assert "no fleet is served" in refused.json()["error"]["message"]
        assert refused.json()["error"]["hint"] == "serve with --fleet"
        assert "all of a fleet" not in served.get("/openapi.json").text


def test_a_fleet_alone_is_served_and_asked_where_nothing_is_named(folder: Path) -> None:
    with serving({}, fleet=Fleet(folder, Settings())) as served:
        assert served.get("/readyz").status_code == 200
        assert of(served.get("/v1/search", params={"query": "penguins"})) == {"shop-front", "shop-back", "vault-gold"}
        told = served.get("/v1/repositories").json()
        assert told == {"repositories": [], "fleet": ["shop-back", "shop-front", "vault-gold"]}
        paths = served.get("/openapi.json").json()["paths"]
        assert "/v1/brief" not in paths
        for path, known in (("/v1/search", ["*"]), ("/v1/files", [])):
            (named,) = (one for one in paths[path]["get"]["parameters"] if one["name"] == "repository")
            assert named["schema"] == {"type": "string", "examples": known}
        assert served.post("/v1/commit", {"commit": "0123abcd"}).status_code == 400
        assert served.post("/search", {"query": "penguins"}).status_code == 400
        assert served.get("/v1/models").json()["data"] == []
    with pytest.raises(UsageError):
        House({})


def test_one_of_them_is_asked_by_its_name(served: Served, repos: dict[str, Repo]) -> None:
    commit = repos["shop-front"].git("rev-parse", "HEAD")
    where = opening.place(repos["shop-front"].path, stores(repos)["shop-front"])
    asked = {**ASKED, "search": {"query": "penguins"}, "similar": {"commit": commit}, "commit": {"commit": commit}}
    with finding.desk(where, Reporter()) as desk:
        for name in QUICK:
            answer = served.post(f"/v1/{name}?repository=shop-front", asked[name], headers=bearing(BOB))
            offer = OFFERS[name]
            told = offer.answer(desk, msgspec.convert(asked[name], offer.asked))
            alone = msgspec.json.decode(msgspec.json.encode(told))
            if name == "context":  # its marks are others each time
                assert len(answer.json()["text"]) == len(alone["text"])
                alone["text"] = answer.json()["text"]
            assert (answer.status_code, answer.json()) == (200, alone), name
    hidden, nowhere = (
        served.get("/v1/files", params={"repository": name, "task": "lock"}, headers=bearing(BOB))
        for name in ("vault-gold", "cellar")
    )
    assert hidden.status_code == nowhere.status_code == 400
    assert hidden.text.replace("vault-gold", "") == nowhere.text.replace("cellar", "")
    for name in ("../stores/shop-front", "shop-" + "x" * 300, "shop-\0", ".."):
        assert (
            served.get("/v1/search", params={"repository": name, "query": "x"}, headers=bearing(BOB)).status_code == 400
        )


def test_what_takes_long_or_writes_is_not_asked_of_one_of_them(served: Served) -> None:
    for name in (*(OFFERS.keys() - QUICK), "index", "learn", "gate"):
        body = ASKED.get(name, {"patch": "x"} if name == "gate" else {})
        refused = served.post(f"/v1/{name}?repository=shop-front", body, headers=bearing(ADA))
        assert refused.status_code == 400, name
        assert name not in OFFERS or "in a fleet" in refused.text


def test_those_that_were_asked_last_are_open_and_choose_no_model(
    tmp_path: Path, repos: dict[str, Repo], monkeypatch: pytest.MonkeyPatch
) -> None:
    registered(tmp_path / "fleet", repos)
    fleet = Fleet(tmp_path / "fleet", Settings())
    bench = Bench(Members(fleet, Opening({})), most=2)
    for name in ("shop-front", "shop-back", "shop-front", "vault-gold"):
        assert bench.answer(name, lambda desk: len(desk.search("penguins")))
    assert list(bench.desks) == ["shop-front", "vault-gold"]
    bench.close()
    moved = repos["shop-back"].copied(tmp_path / "moved")
    moved.write("treering.toml", '[index]\nmodel = "/nowhere"\n[route]\nprivate_paths = ["prices"]\n')
    with Register(fleet.folder) as register:
        register.keep([Repository(source=str(moved.path), name="shop-back")])
        register.keep([Repository(source=str(tmp_path / "gone"), name="shop-front")])
        register.forget([str(repos["vault-gold"].path)])
    settings = opening.member(fleet.folder, "shop-back").settings
    assert (settings.index, settings.route.private_paths) == (Settings().index, ("prices",))
    with serving({}, fleet=fleet) as served:
        for name, said in (("shop-front", "there is no folder"), ("vault-gold", "is not known")):
            lost = served.get("/v1/search", params={"query": "penguins", "repository": name})
            assert lost.status_code == 503
            assert said in lost.text
        assert of(search(served, query="penguins")) == {"shop-front", "shop-back", "vault-gold"}


# who sees what ---------------------------------------------------------------------------------------------------


def test_a_token_is_answered_as_if_there_were_only_what_it_sees(served: Served, repos: dict[str, Repo]) -> None:
    seen = {name: store for name, store in stores(repos).items() if name.startswith("shop-")}
    with Gathering(seen, Settings(), Reporter()) as gathering:
        wanted = [(hit.repository, hit.commit_hash, hit.score) for hit in gathering.search("penguins by a rule")]
    answer = search(served, BOB, query="penguins by a rule")
    assert [(hit["repository"], hit["commit_hash"], hit["score"]) for hit in answer.json()] == wanted
    assert of(search(served, EVE, query="penguins by a rule")) == {"vault-gold"}


@pytest.mark.parametrize("name", sorted(OFFERS))
def test_what_a_token_does_not_see_is_answered_as_what_is_not_there(name: str, served: Served) -> None:
    def asked(repository: str, token: str) -> tuple[int, str]:
        answer = served.post(f"/v1/{name}?repository={repository}", ASKED.get(name, {}), headers=bearing(token))
        return answer.status_code, answer.text.replace(repository, "NAME")

    assert asked("bakery", BOB) == asked("cellar", BOB)
    assert asked("vault-gold", BOB) == asked("cellar", BOB)
    assert asked("bakery", BOB)[0] == 400
    assert asked("bakery", ADA) != asked("cellar", ADA)
    assert "bakery" not in asked("cellar", BOB)[1]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("post", "/v1/index?repository=NAME", {}),
        ("get", "/v1/index?repository=NAME", None),
        ("post", "/v1/learn?repository=NAME", {}),
        ("get", "/v1/learn?repository=NAME", None),
        ("post", "/v1/gate?repository=NAME", {"patch": "x"}),
        ("post", "/v1/gate", {"patch": "x", "repository": "NAME"}),
        ("get", "/v1/models/NAME", None),
        ("get", "/search?query=bread&collection_name=NAME", None),
        ("post", "/search", {"query": "bread", "collection_name": "NAME-commits"}),
        ("get", "/v1/search?repository=*&query=rule&repositories=NAME", None),
        ("get", "/v1/search?repository=*&query=rule&repositories=NAM*", None),
        ("post", "/v1/chat/completions", {"model": "NAME", "messages": [{"role": "user", "content": "bread"}]}),
        ("post", "/v1/completions", {"model": "NAME", "prompt": "bread"}),
        ("post", "/v1/embeddings", {"model": "NAME", "input": "bread"}),
    ],
)
@pytest.mark.parametrize("hidden", ["bakery", "vault-gold"])
def test_no_path_tells_that_it_is_there(method: str, path: str, body: Any, hidden: str, served: Served) -> None:
    def asked(repository: str) -> tuple[int, str, dict[str, str]]:
        def named(text: str) -> str:
            return text.replace("NAME", repository).replace("NAM*", f"{repository[:-1]}*")

        filled = {key: named(value) if isinstance(value, str) else value for key, value in (body or {}).items()}
        answer = served.client.request(
            method, named(path), json=filled if body is not None else None, headers=bearing(BOB)
        )
        text = answer.text.replace(f"{repository[:-1]}*", "NAM*").replace(repository, "NAME")
        kept = {"content-type", "treering-note", "allow", "retry-after"}
        return answer.status_code, text, {name: of for name, of in answer.headers.items() if name in kept}

    assert asked(hidden) == asked("cellar-x")
    assert asked(hidden)[0] in (400, 404)


def test_no_list_and_no_document_names_what_is_not_seen(served: Served) -> None:
    """Every path of the whole document, asked by somebody who does not see all, with what lies beside it."""
    whole = served.get("/openapi.json", headers=bearing(ADA)).json()["paths"]
    assert any(name in str(whole) for name in HIDDEN)
    asked = 0
    for path, methods in [
        *whole.items(),
        ("/openapi.json", {"get": {}}),
        ("/", {"get": {}}),
        ("/nothing", {"get": {}}),
    ]:
        for method in methods:
            for query in ("", "?repository=*", "?repository=market&limit=0"):
                if (method, path) in (("post", "/v1/index"), ("post", "/v1/learn")) and query != "?repository=*":
                    continue  # it would begin
                content = ASKED.get(path.removeprefix("/v1/"), {}) if method == "post" else None
                answer = served.client.request(
                    method, path.replace("{name}", "market") + query, json=content, headers=bearing(BOB)
                )
                said = answer.text + str(answer.headers)
                assert not [name for name in HIDDEN if name in said], f"{method} {path}{query}: {said[:500]}"
                asked += 1
    assert asked > 100
    listed = served.get("/v1/repositories", headers=bearing(BOB)).json()
    assert [one["name"] for one in listed["repositories"]] == ["market"]
    assert listed["fleet"] == ["shop-back", "shop-front"]
    assert served.get("/v1/repositories", headers=bearing(EVE)).json()["repositories"] == []


def test_who_must_wait_for_another_repository_is_not_told_which(
    repos: dict[str, Repo], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def endless(*_: object) -> bytes:
        await asyncio.sleep(60)
        return b""

    monkeypatch.setattr("treering.serve.jobs.worked", endless)
    own = repos["market"].path.parent / "stores"
    places = {name: opening.place(repos[name].path, own / name) for name in ("market", "bakery")}
    with serving(places, token=ADA, tokens=TOKENS) as served:
        assert served.post("/v1/index?repository=bakery", headers=bearing(ADA)).status_code == 202
        waits = served.post("/v1/index", headers=bearing(BOB))
        assert waits.status_code == 409
        assert "another repository" in waits.text
        assert "bakery" not in waits.text


def test_the_figures_of_all_are_for_who_sees_all(served: Served) -> None:
    assert "bakery" in served.get("/metrics", headers=bearing(ADA)).text
    refused = served.get("/metrics", headers=bearing(BOB))
    assert refused.status_code == 404
    assert refused.json() == {**refused.json(), "error": {**refused.json()["error"], "code": "no_path"}}
    assert "/metrics" not in served.get("/openapi.json", headers=bearing(BOB)).json()["paths"]


def test_a_token_without_a_first_repository_asks_its_own_first(served: Served) -> None:
    first = served.get("/v1/search", params={"query": "rule"}, headers=bearing(BOB)).json()
    assert first[0]["subject"] == "Settle a dispute by a rule"
    assert of(served.get("/v1/search", params={"query": "rule"}, headers=bearing(EVE))) == {"vault-gold"}


def test_a_token_that_sees_nothing_is_told_so(served: Served) -> None:
    for path in ("/v1/repositories", "/v1/search?query=x", "/openapi.json", "/metrics", "/mcp", "/nowhere"):
        refused = served.get(path, headers=bearing(NOBODY))
        assert refused.status_code == 403, path
        assert refused.json()["error"]["code"] == "nothing_to_see"
        assert "TREERING_SERVE_TOKENS" in refused.json()["error"]["hint"]


def test_no_other_token_is_let_in_and_none_is_logged(served: Served) -> None:
    for token in ("-", "x", BOB[:-1], f"{BOB}x", f"{BOB}=shop-*", TOKENS):
        assert served.get("/v1/repositories", headers=bearing(token)).status_code == 401
    assert served.get("/v1/repositories").status_code == 401
    assert served.get("/healthz").status_code == 200
    assert not [line for line in served.said for token in (ADA, BOB, EVE, NOBODY) if token in line]


@pytest.mark.parametrize(
    "tokens",
    ["short=market", "with a blank in it=market", "nön-ascii-nön-ascii=market", BOB, f"{BOB}=", "=market", ";", " ; ",
     f"{BOB}=,", f"{BOB}=market;;{EVE}=market", f"{BOB}=market;{BOB}=*", f"{ADA}=market"],
)  # fmt: skip
def test_tokens_that_are_weak_or_none_are_refused_and_not_shown(tokens: str) -> None:
    with pytest.raises(UsageError) as refusal:
        check(ServeSettings(token=ADA, tokens=tokens))
    said = f"{refusal.value.message} {refusal.value.hint}"
    assert "TREERING_SERVE_TOKENS" in said or "twice" in said
    assert not [one for one in (ADA, BOB, EVE, "short", "nön-ascii") if one in said]


def test_tokens_for_some_are_tokens_enough_for_a_server_that_others_reach() -> None:
    check(ServeSettings(host="0.0.0.0", tokens=f"{BOB}=market;"))
    tokens = Tokens(ServeSettings(tokens=f" {BOB} = shop-*, market ;{EVE}=vault,*"))
    assert tokens.sight(EVE.encode()) == EVERYTHING
    sight = tokens.sight(BOB.encode())
    assert sight == Sight(("market", "shop-*"))
    assert [name for name in ("market", "shop-", "shop-a/b", "Market", "market2", "a-shop-b") if sight.sees(name)] == [
        "market", "shop-", "shop-a/b",
    ]  # fmt: skip
    assert not Sight(("a.c", "[ab]", "x?")).sees("abc")
    assert not Sight(("[ab]", "x?")).sees("a")
    assert not Tokens(ServeSettings())


# while it is served ----------------------------------------------------------------------------------------------


def until(true: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_a_fleet_that_changes_is_seen_as_it_is(folder: Path, repos: dict[str, Repo]) -> None:
    new = folder / "stores" / "vault-gold"
    aside = folder / "aside"
    new.rename(aside)
    with serving({}, fleet=Fleet(folder, Settings()), tokens=f"{BOB}=shop-*;{EVE}=vault-*") as served:
        assert of(search(served, BOB, query="penguins")) == {"shop-front", "shop-back"}
        assert search(served, EVE, query="penguins").status_code == 403
        aside.rename(new)
        until(lambda: search(served, EVE, query="penguins").status_code == 200)
        assert of(search(served, EVE, query="penguins")) == {"vault-gold"}
        more = repos["shop-back"].copied(folder / "more")
        more.commit("Feed the walrus", walrus__py="def feed(walrus):\n    return walrus\n")
        operations.index(opening.place(more.path, folder / "stores" / "shop-back"), Reporter())
        until(lambda: search(served, BOB, query="walrus").json()[0]["subject"] == "Feed the walrus")
        shutil.rmtree(folder / "stores" / "shop-front")
        until(lambda: of(search(served, BOB, query="penguins")) == {"shop-back"})


def test_who_asks_while_the_stores_are_opened_anew_does_not_wait_for_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    aside = folder / "aside"
    (folder / "stores" / "vault-gold").rename(aside)
    with serving({}, fleet=Fleet(folder, Settings())) as served:
        assert of(search(served, query="penguins")) == {"shop-front", "shop-back"}
        opened, gate = Gathering.__enter__, threading.Event()

        def slowly(self: Gathering) -> Gathering:
            assert gate.wait(60)
            return opened(self)

        monkeypatch.setattr(Gathering, "__enter__", slowly)
        aside.rename(folder / "stores" / "vault-gold")
        time.sleep(1.1)
        begun = time.monotonic()
        for _ in range(40):
            assert of(search(served, query="penguins")) == {"shop-front", "shop-back"}
        assert time.monotonic() - begun < 40 * fleets.PATIENCE
        gate.set()
        until(lambda: "vault-gold" in of(search(served, query="penguins")))


def test_a_store_that_is_broken_is_left_out_and_named_to_who_sees_it(folder: Path) -> None:
    (folder / "stores" / "vault-gold" / "treering.db").write_bytes(b"no database" * 1000)
    with serving({}, fleet=Fleet(folder, Settings()), token=ADA, tokens=f"{BOB}=shop-*;{EVE}=vault-*") as served:
        answer = search(served, ADA, query="penguins")
        assert of(answer) == {"shop-front", "shop-back"}
        assert answer.headers["treering-note"].startswith("searching without vault-gold: ")
        assert "treering-note" not in search(served, BOB, query="penguins").headers
        lost = search(served, EVE, query="penguins")
        assert lost.status_code == 409
        assert lost.json()["error"]["code"] == "no_index"


def test_a_fleet_that_cannot_be_opened_is_an_error_that_is_tried_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("treering.gathering.resource.getrlimit", lambda _: (10, 10))
    with serving({}, fleet=Fleet(folder, Settings())) as served:
        assert search(served, query="penguins").status_code == 503
        assert served.get("/readyz").status_code == 503
        assert "ulimit" not in served.get("/readyz").text
        monkeypatch.undo()
        assert of(search(served, query="penguins")) == {"shop-front", "shop-back", "vault-gold"}


# MCP -------------------------------------------------------------------------------------------------------------


def by_mcp(served: Served, token: str, question: Callable[[Client], Awaitable[None]]) -> None:
    async def talk() -> None:
        async with httpx2.AsyncClient(headers=bearing(token), trust_env=False, timeout=60) as bears:
            door = streamable_http_client(f"{served.url}/mcp", http_client=bears)
            with anyio.fail_after(60):
                async with Client(door) as client:
                    await question(client)

    anyio.run(talk)


def test_mcp_searches_all_that_a_token_sees_and_names_nothing_else(served: Served) -> None:
    async def question(client: Client) -> None:
        tools = {tool.name: tool.input_schema for tool in (await client.list_tools()).tools}
        listed = [str(tools), str(await client.list_resources()), str(client.instructions)]
        assert not [name for name in HIDDEN for text in listed if name in text]
        assert tools["search_commits"]["properties"]["repository"]["examples"] == ["market", "*"]
        assert tools["files_for_task"]["properties"]["repository"]["examples"] == ["market"]
        assert "*" not in str(tools["brief"]["properties"].get("repository"))
        found = await client.call_tool("search_commits", {"repository": "*", "query": "penguins"})
        assert not found.is_error, found
        assert {one["repository"] for one in found.structured_content["commits"]} == {"shop-front", "shop-back"}
        assert "shop-back" in found.content[0].text  # type: ignore[union-attr]
        assert "treering://" not in str(found)
        hidden = await client.call_tool("search_commits", {"repository": "bakery", "query": "bread"})
        nowhere = await client.call_tool("search_commits", {"repository": "cellar", "query": "bread"})
        assert hidden.is_error
        assert str(hidden).replace("bakery", "") == str(nowhere).replace("cellar", "")
        for uri in ("treering://bakery/status", f"treering://bakery/commit/{'0' * 40}"):
            with pytest.raises(Exception) as refusal:  # noqa: PT011  the SDK's own
                await client.read_resource(uri)
            with pytest.raises(Exception) as same:  # noqa: PT011
                await client.read_resource(uri.replace("bakery", "cellar"))
            assert str(refusal.value).replace("bakery", "") == str(same.value).replace("cellar", "")

    by_mcp(served, BOB, question)


def test_mcp_asks_one_of_a_fleet_by_the_name_that_was_found(served: Served) -> None:
    async def question(client: Client) -> None:
        found = await client.call_tool("search_commits", {"repository": "*", "query": "sell penguins"})
        best = found.structured_content["commits"][0]
        detail = await client.call_tool(
            "commit_detail", {"repository": best["repository"], "commit": best["commit_hash"]}
        )
        assert not detail.is_error, detail
        assert "penguins.py" in str(detail)
        assert "treering://" not in str(detail)
        assert (await client.call_tool("commit_detail", {"repository": "*", "commit": best["commit_hash"]})).is_error
        assert (await client.call_tool("brief", {"repository": best["repository"]})).is_error

    by_mcp(served, BOB, question)


def test_mcp_of_a_fleet_alone_has_only_what_can_be_asked_of_it(served: Served) -> None:
    async def question(client: Client) -> None:
        tools = {tool.name: tool.input_schema for tool in (await client.list_tools()).tools}
        assert tools.keys() == {"search_commits", "files_for_task", "commit_detail", "context_pack"}
        assert "repository" not in tools["search_commits"]["required"]
        assert "repository" in tools["files_for_task"]["required"]
        assert not (await client.list_resources()).resources
        found = await client.call_tool("search_commits", {"query": "penguins"})
        assert {one["repository"] for one in found.structured_content["commits"]} == {"vault-gold"}

    by_mcp(served, EVE, question)


def test_a_session_of_mcp_is_of_the_token_that_began_it(served: Served) -> None:
    begun = {
        "jsonrpc": "2.0", "id": 1, "method": "initialize",
        "params": {"protocolVersion": "2025-03-26", "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}},
    }  # fmt: skip
    accept = {"accept": "application/json, text/event-stream"}
    session = served.post("/mcp", begun, headers=bearing(ADA) | accept).headers["mcp-session-id"]
    asked = {"jsonrpc": "2.0", "id": 2, "method": "tools/list"}
    stolen = served.post("/mcp", asked, headers=bearing(BOB) | accept | {"mcp-session-id": session})
    assert stolen.status_code == 404
    assert served.post("/mcp", asked, headers=bearing(ADA) | accept | {"mcp-session-id": session}).status_code == 200


def test_what_a_repository_keeps_private_is_not_told_by_mcp(folder: Path, repos: dict[str, Repo]) -> None:
    shop = repos["shop-back"].copied(folder / "shop-back")
    shop.write("treering.toml", '[route]\nprivate_paths = ["prices"]\n')
    with Register(folder / "register") as register:
        register.keep(
            [
                Repository(source=str(shop.path), name="shop-back"),
                Repository(source=str(repos["shop-front"].path), name="shop-front"),
                Repository(source=str(folder / "gone"), name="vault-gold"),
            ]
        )

    (folder / "register" / "fleet.db").rename(folder / "fleet.db")

    async def question(client: Client) -> None:
        found = await client.call_tool("search_commits", {"query": "price list penguins"})
        told = {(one["repository"], one["subject"]) for one in found.structured_content["commits"]}
        assert ("shop-front", "Sell penguins") in told
        assert ("shop-back", "Count penguins in the cellar") in told
        assert "price" not in str(told)
        assert "vault-gold" not in str(told)  # what it keeps to itself cannot be known

    with serving({}, fleet=Fleet(folder, Settings()), token=ADA) as served:
        assert "Hide the price list" in search(served, ADA, query="price list").text
        by_mcp(served, ADA, question)
        assert "Hide the price list" in search(served, ADA, query="price list").text


def test_a_state_is_another_one_where_a_store_was_written(folder: Path) -> None:
    fleet = Fleet(folder, Settings())
    before = fleet.state()
    assert fleet.state() == before
    (folder / "stores" / "shop-back" / "treering.db-wal").write_bytes(b"")
    assert fleet.state() == before  # a reader's
    (folder / "stores" / "shop-back" / "treering.db-wal").write_bytes(b"written")
    assert fleet.state() != before
    shutil.rmtree(folder / "stores")
    assert fleet.state() == ()
    assert fleets.Fleet(folder, Settings()).names(EVERYTHING) == ()
