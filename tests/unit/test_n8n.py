"""The workflows for n8n as they are shipped: what they name exists, in n8n 2.41.1 and in our own HTTP schema."""

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from treering.config import ServeSettings, Settings
from treering.git.reader import Source
from treering.opening import Place
from treering.operate.n8n.workflows import KINDS, WEBHOOK, Workflow, credentials, literal, segment, workflow
from treering.serve.app import application
from treering.serve.house import House

NODES = json.loads((Path(__file__).parents[1] / "cases" / "n8n_nodes.json").read_text("utf-8"))["nodes"]
HTTP = "n8n-nodes-base.httpRequest"
NOTE = "n8n-nodes-base.stickyNote"
SERVER = "={{ $('Settings').first().json.server }}"
TELLING = {f"={{{{ $('Settings').first().json.{one} }}}}" for one in ("notify", "alert")}
OPENING, CLOSING = "([{", ")]}"


@pytest.fixture(scope="module", params=KINDS)
def made(request: pytest.FixtureRequest) -> Workflow:
    return workflow(request.param, "the-block", "http://127.0.0.1:8080", "http://127.0.0.1:9/told")


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    here = Path("nowhere")
    place = Place(Source(here, None, here, here, "sha1", "the-block"), Settings(), here)

    async def told() -> dict[str, Any]:
        door = httpx.ASGITransport(application(House({"the-block": place}), ServeSettings()))
        async with httpx.AsyncClient(transport=door, base_url="http://localhost") as client:
            found: dict[str, Any] = (await client.get("/openapi.json")).json()
            return found

    return asyncio.run(told())


def nodes(made: Workflow, kind: str = "") -> dict[str, dict[str, Any]]:
    return {node["name"]: node for node in made["nodes"] if kind in ("", node["type"]) and node["type"] != NOTE}


def texts(value: Any) -> Iterator[str]:
    """Every text that a value holds."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from texts(one)


def expressions(node: dict[str, Any]) -> list[str]:
    """What n8n evaluates of a node: what stands in double braces where a text begins with ``=``."""
    found: list[str] = []
    for text in texts(node["parameters"]):
        if text.startswith("="):
            parts = re.findall(r"\{\{(.*?)\}\}(?!\})", text[1:], re.DOTALL)
            assert parts or "{{" not in text, text
            found += parts
    return found


def outside(code: str) -> str:
    """JavaScript without what stands in its quotes and regular expressions; raises where one does not end."""
    left: list[str] = []
    rest = code
    while rest:
        if rest[0] in "'\"`":
            end = re.match(r"(['\"`])(?:\\.|(?!\1).)*\1", rest, re.DOTALL)
        elif rest[0] == "/" and "".join(left).rstrip()[-1:] in ("(", ",", "=", ":"):
            end = re.match(r"/(?:\\.|\[(?:\\.|[^\]])*\]|[^/\\\[])+/[a-z]*", rest)
        else:
            left.append(rest[0])
            rest = rest[1:]
            continue
        assert end, f"what begins here does not end: {rest}"
        left.append("0")
        rest = rest[end.end() :]
    return "".join(left)


def ancestors(made: Workflow, name: str) -> set[str]:
    """All from which a node can be reached; of a node that serves another, those of that one too."""
    before: dict[str, set[str]] = {}
    for source, kinds in made["connections"].items():
        for kind, outputs in kinds.items():
            for target in (one["node"] for links in outputs for one in links):
                before.setdefault(target, set()).add(source)
                if kind != "main":  # it is asked by what it serves, which has run what is before that
                    before.setdefault(source, set()).add(target)
    found: set[str] = set()
    waiting = [name]
    while waiting:
        for one in before.get(waiting.pop(), set()) - found:
            found.add(one)
            waiting.append(one)
    return found


def keys(code: str) -> set[str]:
    """The names of a JavaScript object that is written out; those of what is spread into it, too."""
    return set(re.findall(r"[{,]\s*([a-z_]+)\s*:", outside(code)))


def outputs(node: dict[str, Any]) -> int:
    count = {"n8n-nodes-base.if": 2}.get(node["type"], 1)
    if node["type"] == "n8n-nodes-base.switch":
        count = len(node["parameters"]["rules"]["values"])
    return count + (node.get("onError") == "continueErrorOutput")


def test_n8n_knows_each_node_and_its_version(made: Workflow) -> None:
    for node in made["nodes"]:
        assert node["typeVersion"] in NODES[node["type"]], node["name"]


def test_connections_lead_from_outputs_to_nodes_that_are_there(made: Workflow) -> None:
    known = nodes(made)
    for source, kinds in made["connections"].items():
        assert len(kinds.get("main", [])) <= outputs(known[source]), source
        for links in (links for outs in kinds.values() for links in outs):
            assert {one["node"] for one in links} <= set(known), source


def test_no_node_is_left_alone_and_every_error_goes_somewhere(made: Workflow) -> None:
    triggers = {name for name, node in nodes(made).items() if "rigger" in node["type"] or node["type"] == WEBHOOK}
    for name, node in nodes(made).items():
        linked = made["connections"].get(name, {})
        assert name in triggers or ancestors(made, name) & triggers, name
        if node.get("onError") == "continueErrorOutput":
            assert len(linked["main"]) == outputs(node), name
            assert linked["main"][-1], name


def test_each_request_is_one_that_the_server_knows(made: Workflow, schema: dict[str, Any]) -> None:
    for name, node in nodes(made, HTTP).items():
        asked = node["parameters"]
        if asked["url"] in TELLING:
            continue
        assert asked["url"].startswith(SERVER), name
        operation = schema["paths"][asked["url"].removeprefix(SERVER)][asked["method"].lower()]
        in_query = {one["name"] for one in operation["parameters"]}
        assert {one["name"] for one in asked["queryParameters"]["parameters"]} <= in_query
        if not asked.get("sendBody"):
            assert not operation.get("requestBody", {}).get("required"), name
            continue
        reference = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
        wanted = schema["components"]["schemas"][reference.rpartition("/")[2]]
        given = keys(asked["jsonBody"])
        assert given <= set(wanted["properties"]), name
        assert set(wanted.get("required", ())) <= given, name
        for field, value in re.findall(r"\b([a-z_]+): (?:'(\w+)'|\d+)(?= [},]|,)", asked["jsonBody"]):
            assert not value or value in wanted["properties"][field].get("enum", [value]), f"{name}: {field}"


def test_expressions_parse_and_name_what_has_run(made: Workflow) -> None:
    for name, node in nodes(made).items():
        for code in expressions(node):
            left: list[str] = []
            for char in outside(code):
                if char in OPENING:
                    left.append(CLOSING[OPENING.index(char)])
                elif char in CLOSING:
                    assert left, f"{name}: {code}"
                    assert left.pop() == char, f"{name}: {code}"
            assert not left, f"{name}: {code}"
            assert set(re.findall(r"\$\('([^']*)'\)", code)) <= ancestors(made, name) | {name}, f"{name}: {code}"


def test_no_secret_is_in_a_workflow(made: Workflow) -> None:
    known = {one["id"]: one for one in credentials("http://127.0.0.1:8080")}
    for name, node in nodes(made).items():
        for kind, named in node.get("credentials", {}).items():
            assert set(named) == {"id", "name"}, name
            assert (known[named["id"]]["type"], known[named["id"]]["name"]) == (kind, named["name"]), name
        if node["parameters"].get("authentication", "none") != "none":
            assert node["credentials"], name
    assert not re.search(r"bearer|password|api.?key", json.dumps(nodes(made)), re.IGNORECASE)


def test_every_credential_is_used_and_holds_a_text_to_be_replaced() -> None:
    used = {
        named["id"]
        for kind in KINDS
        for node in workflow(kind, "one", "http://127.0.0.1:8080", "")["nodes"]
        for named in node.get("credentials", {}).values()
    }
    told = credentials("http://127.0.0.1:8080")
    assert {one["id"] for one in told} == used
    for one in told:
        (secret,) = (value for name, value in one["data"].items() if name in ("value", "apiKey", "hmacSecret"))
        assert re.fullmatch(r"(Bearer )?[A-Z0-9-]+", secret), one["name"]


def test_only_the_callers_who_bear_a_token_are_let_in(made: Workflow) -> None:
    for name, node in nodes(made, WEBHOOK).items():
        signed = made["connections"][name]["main"][0] == [{"node": "Signature", "type": "main", "index": 0}]
        assert signed or node["parameters"]["authentication"] == "headerAuth", name


def test_what_may_cost_money_is_asked_once(made: Workflow) -> None:
    for name, node in nodes(made, HTTP).items():
        if node["parameters"]["url"].endswith(("/v1/ask", "/v1/gate")):
            assert not node.get("retryOnFail"), name


def test_the_same_repository_is_the_same_workflow_and_another_one_another() -> None:
    one, again, other = (
        [workflow(kind, name, "http://127.0.0.1:8080", "") for kind in KINDS] for name in ("a.b", "a.b", "a-b")
    )
    assert one == again
    seen: set[str] = set()
    for made in (*one, *other):
        told = [made["id"], *(node["webhookId"] for node in made["nodes"] if node["type"] == WEBHOOK)]
        told += [node["parameters"]["path"] for node in made["nodes"] if node["type"] == WEBHOOK]
        assert not seen & set(told)
        seen |= set(told)
        assert len(made["id"]) <= 36
    for made in one:
        ids = [node["id"] for node in made["nodes"]]
        assert len(ids) == len(set(ids))


@pytest.mark.parametrize("name", ["the-block", "a.b", "two words", "größe", "..", "={{ $env }}", "=1", "x" * 300])
def test_a_name_can_be_anything(name: str) -> None:
    for kind in KINDS:
        made = workflow(kind, name, "http://127.0.0.1:8080", "")
        for node in nodes(made, WEBHOOK).values():
            assert re.fullmatch(r"treering/[\w.-]+/[a-z]+", node["parameters"]["path"])
        (settings,) = (node for node in made["nodes"] if node["name"] == "Settings")
        for one in settings["parameters"]["assignments"]["assignments"]:
            if one["name"] == "repository":
                assert one["value"] == (name if not name.startswith("=") else literal(name))
    assert segment("two words") != segment("two-words")


def test_a_text_that_looks_like_an_expression_stays_a_text() -> None:
    assert literal("plain {{ text }}") == "plain {{ text }}"
    assert literal("={{ $env }}") == '={{ "=\\u007b\\u007b $env \\u007d\\u007d" }}'
