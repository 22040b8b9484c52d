"""The four workflows in a real n8n, over a real `treering serve`. What is not real: Anthropic's API, and a model that
calls tools, which is told what to call.
"""

import hashlib
import hmac
import json
import os
import queue
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

import fake_claude
from automation import N8n
from repositories import Repo, at_home, tell_story
from treering import learning, opening, operations
from treering.report import Reporter

INSTALLED = os.environ.get("N8N", "")
pytestmark = [
    pytest.mark.n8n,
    pytest.mark.skipif(not INSTALLED, reason="N8N names no folder with an n8n: `make n8n-test` makes one"),
]

SCRATCH: dict[str, dict[str, object]] = {
    "train": {"model": "scratch", "method": "full", "minutes": 0.02, "gpu": False},
    "tokens": {"sequence_length": 2048},
}
TOKEN, CALLER, HUB, LAB = "a-token-of-twenty-eight-letters", "a-token-of-callers", "secret-of-hub", "secret-of-lab"
CALLS = {"authorization": f"Bearer {CALLER}"}
SIMPLE = "what did the gateway bridge do"
COMPLEX = "Bridge receipts over the gateway. Start the energy market. Move the market. Add the settlement rule. " * 150
"""Longer than the local model reads."""
PATCH = """\
It is the market's readme [{commit}].

```diff
diff --git a/README.md b/README.md
--- a/README.md
+++ b/README.md
@@ -1 +1,2 @@
 # x
+{line}
```
"""


@contextmanager
def answering(post: Callable[[str, dict[str, Any], dict[str, str]], tuple[int, Any]]) -> Iterator[str]:
    """A server on the loopback that answers POSTs of JSON, and its address."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            status, told = post(self.path, body, {name.lower(): value for name, value in self.headers.items()})
            content = json.dumps(told).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@dataclass
class Stack:
    """All that runs together: the repository, `treering serve`, Claude, n8n, and what was notified."""

    repo: Repo
    url: str
    serve: "subprocess.Popen[str]"
    claude: fake_claude.FakeClaude
    n8n: N8n
    exported: Path
    credentials: list[dict[str, Any]]
    notified: "queue.Queue[dict[str, Any]]"

    def ask(self, ending: str, body: object = None, **more: Any) -> httpx.Response:
        return self.n8n.post(f"treering/market/{ending}", body, **more)

    def pushed(self, secret: str = HUB, event: str = "push") -> httpx.Response:
        content = json.dumps({"ref": "refs/heads/main", "after": "0" * 40}).encode()
        signature = hmac.new(secret.encode(), content, hashlib.sha256).hexdigest()
        headers = {"x-github-event": event, "x-hub-signature-256": f"sha256={signature}"}
        return self.ask("github", content=content, headers={**headers, "content-type": "application/json"})

    def told(self, workflow: str) -> dict[str, Any]:
        """What is notified next, which must be of this workflow."""
        told = self.notified.get(timeout=600)
        assert told["workflow"] == workflow, told
        return told

    def get(self, path: str) -> Any:
        found = httpx.get(f"{self.url}{path}", headers={"authorization": f"Bearer {TOKEN}"}, trust_env=False)
        return found.raise_for_status().json()


def calling_tools(url: Callable[[], str], path: str, asked: dict[str, Any], headers: dict[str, str]) -> tuple[int, Any]:
    """A model that calls a tool and answers with the first hash it is told, where the question says so. All else is
    answered by treering's own model, as it is.
    """
    said = json.dumps(asked["messages"])
    if "By tools:" not in said:
        there = httpx.post(
            f"{url()}{path}", json=asked, headers={"authorization": headers["authorization"]}, timeout=300,
            trust_env=False,
        )  # fmt: skip
        return there.status_code, there.json()
    made: dict[str, Any] = {"role": "assistant", "content": None}
    if asked["messages"][-1]["role"] != "tool":
        (name,) = (
            tool["function"]["name"] for tool in asked["tools"] if tool["function"]["name"].endswith("search_commits")
        )
        call = {"name": name, "arguments": json.dumps({"query": "gateway bridge", "limit": 2})}
        made["tool_calls"] = [{"id": "call_1", "type": "function", "function": call}]
    else:
        found = re.search(r"\b[0-9a-f]{12,40}\b", said)
        made["content"] = f"It brought the gateway [{found[0] if found else 'nothing'}]."
    choice = {"index": 0, "message": made, "finish_reason": "tool_calls" if "tool_calls" in made else "stop"}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    return 200, {"id": "1", "object": "chat.completion", "created": 0, "model": asked["model"], "choices": [choice],
                 "usage": usage}  # fmt: skip


def treering(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "treering", *arguments], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with pytest.MonkeyPatch.context() as patch:
        at_home(patch, tmp_path_factory.mktemp("home"))
        repo = tell_story(Repo(tmp_path_factory.mktemp("one") / "market"))
        repo.commit("Check the readme", check__sh="grep -q market README.md\n")
        place = opening.place(repo.path, None, SCRATCH)
        operations.index(place, Reporter())
        learning.train(place, Reporter())
        notified: queue.Queue[dict[str, Any]] = queue.Queue()
        served: list[str] = []

        def take(_: str, told: dict[str, Any], __: dict[str, str]) -> tuple[int, Any]:
            notified.put(told)
            return 200, {}

        with (
            fake_claude.serving(fake_claude.FakeClaude()) as claude,
            answering(take) as listener,
            answering(lambda *told: calling_tools(lambda: served[0], *told)) as tools,
        ):
            serve = subprocess.Popen(
                [sys.executable, "-P", "-m", "treering", "serve", "--port", "0", "--json", "--repo", str(repo.path)],
                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                env=os.environ | {
                    "ANTHROPIC_API_KEY": fake_claude.KEY, "TREERING_ASSIST_CLAUDE_URL": claude.url,
                    "TREERING_SERVE_TOKEN": TOKEN, "TREERING_SERVE_SECONDS": "600", "OMP_NUM_THREADS": "1",
                    "TREERING_GATE_COMMAND": "sh check.sh", "TREERING_LEARN_AFTER": "2",
                    "TREERING_LEARN_MINUTES": "0.02", "TREERING_TRAIN_MODEL": "scratch",
                    "TREERING_TRAIN_METHOD": "full", "TREERING_TOKENS_SEQUENCE_LENGTH": "2048",
                },
            )  # fmt: skip
            try:
                assert serve.stdout
                served.append(json.loads(serve.stdout.readline())["url"])
                exported = tmp_path_factory.mktemp("exported")
                where = ("--url", served[0], "--notify", f"{listener}/told", "--repo", str(repo.path))
                treering("n8n", "export", str(exported), *where)
                credentials = json.loads((exported / "credentials.example.json").read_text())
                secrets = {
                    "treering-server": {"value": f"Bearer {TOKEN}"}, "treering-callers": {"value": f"Bearer {CALLER}"},
                    "treering-github": {"hmacSecret": HUB}, "treering-gitlab": {"value": LAB},
                    "treering-local-model": {"apiKey": TOKEN},
                    "treering-agent-model": {"apiKey": TOKEN, "url": f"{tools}/v1"},
                }  # fmt: skip
                for one in credentials:
                    one["data"] |= secrets[one["id"]]
                n8n = N8n(Path(INSTALLED).resolve(), tmp_path_factory.mktemp("n8n"))
                n8n.take(exported, credentials)
                with n8n.running():
                    n8n.publish()
                    yield Stack(repo, served[0], serve, claude, n8n, exported, credentials, notified)
            finally:
                serve.terminate()
                serve.communicate(timeout=120)


def test_the_static_check_knows_the_nodes_of_this_n8n() -> None:
    shipped: dict[str, set[float]] = {}
    for package in ("n8n-nodes-base", "@n8n/n8n-nodes-langchain"):
        file = Path(INSTALLED) / "node_modules" / package / "dist" / "types" / "nodes.json"
        for node in json.loads(file.read_text("utf-8")):
            versions = node["version"] if isinstance(node["version"], list) else [node["version"]]
            shipped.setdefault(f"{package}.{node['name']}", set()).update(versions)
    known = json.loads((Path(__file__).parents[1] / "cases" / "n8n_nodes.json").read_text("utf-8"))
    assert known["n8n"] == json.loads((Path(INSTALLED) / "node_modules/n8n/package.json").read_text("utf-8"))["version"]
    assert {name: set(versions) for name, versions in known["nodes"].items()} == {
        name: shipped[name] for name in known["nodes"]
    }


def test_what_is_imported_twice_is_there_once_and_is_at_work_again(stack: Stack) -> None:
    stack.n8n.take(stack.exported, stack.credentials)
    found = stack.n8n.publish()
    exported = [json.loads(one.read_text()) for one in (stack.exported / "workflows").glob("*.json")]
    assert {one["id"] for one in found} == {one["id"] for one in exported}
    assert len(found) == len(exported) == 4
    assert all(one["activeVersionId"] for one in found)
    end = time.monotonic() + 60
    while stack.ask("task", {}, headers=CALLS).status_code != 400:  # it is registered a moment later
        assert time.monotonic() < end
        time.sleep(0.5)


def test_a_signed_push_is_indexed_and_what_came_of_it_is_told(stack: Stack) -> None:
    made = stack.repo.commit("Teach the quokka to sing", src_0_quokka__py="def sing():\n    return 'la'\n")
    assert stack.pushed().status_code == 202
    told = stack.told("push")
    assert (told["ok"], told["state"], told["ref"]) == (True, "done", "refs/heads/main")
    assert re.fullmatch(r"market: \d commits? added to the index", told["text"])
    assert stack.get("/v1/search?query=quokka")[0]["commit_hash"] == made


def test_gitlabs_push_is_taken_too(stack: Stack) -> None:
    made = stack.repo.commit("Teach the wombat to dance", src_0_wombat__py="def dance():\n    return 1\n")
    headers = {"x-gitlab-token": LAB, "x-gitlab-event": "Push Hook"}
    assert stack.ask("gitlab", {"ref": "refs/heads/main"}, headers=headers).status_code == 202
    assert stack.told("push")["ok"]
    assert stack.get("/v1/search?query=wombat")[0]["commit_hash"] == made


def test_a_push_with_a_wrong_signature_or_token_does_nothing(stack: Stack) -> None:
    before = stack.get("/v1/index")["id"]
    assert stack.pushed("another-secret").status_code == 401
    assert stack.ask("github", {"ref": "refs/heads/main"}, headers={"x-github-event": "push"}).status_code == 401
    assert stack.ask("gitlab", {}, headers={"x-gitlab-token": "wrong"}).status_code == 403
    assert stack.pushed(event="ping").json() == {"ignored": "ping"}
    assert stack.get("/v1/index")["id"] == before


def test_who_bears_no_token_may_not_ask(stack: Stack) -> None:
    for ending in ("task", "learn", "agent"):
        assert stack.ask(ending, {"task": SIMPLE}).status_code == 403
    assert not stack.claude.asked


def test_a_simple_task_is_answered_on_this_machine(stack: Stack) -> None:
    told = stack.ask("task", {"task": SIMPLE}, headers=CALLS).json()
    assert (told["ok"], told["to"]) == (True, "local")
    assert told["files"][0] == "src/gateway.py"
    assert told["found"][0]["subject"] == "Bridge receipts over the gateway"
    assert told["answer"]["answered_by"] in ("local", "history")
    assert told["answer"]["commits"]
    assert not stack.claude.asked


@pytest.mark.parametrize(("line", "verdict"), [("A market.", "passed"), ("A shop.", "failed")])
def test_a_complex_task_goes_to_claude_and_its_patch_through_the_gate(stack: Stack, line: str, verdict: str) -> None:
    def answer(asked: dict[str, Any]) -> str:
        (commit, *_) = re.findall(r'commit=\\+"([0-9a-f]{12})', json.dumps(asked))
        return PATCH.format(commit=commit, line=line)

    stack.claude.answer = answer
    head = stack.repo.git("rev-parse", "HEAD")
    before, spent = len(stack.claude.asked), stack.get("/v1/spend")["today"]["spent"]
    told = stack.ask("task", {"task": COMPLEX}, headers=CALLS).json()
    assert (told["to"], told["answer"]["answered_by"]) == ("claude", "claude"), told
    assert len(stack.claude.asked) == before + 1
    assert stack.get("/v1/spend")["today"]["spent"] > spent
    assert f"+{line}" in told["answer"]["patch"]
    assert (told["ok"], told["gate"]["verdict"]) == (verdict == "passed", verdict)
    assert bool(told["gate"]["commit"]) == (verdict == "passed")
    if told["gate"]["commit"]:
        assert stack.repo.git("show", f"{told['gate']['commit']}:README.md").endswith(line)
    assert stack.repo.git("rev-parse", "HEAD") == head
    assert stack.repo.git("status", "--porcelain") == ""


def test_where_claude_fails_the_history_answers_and_it_is_said(stack: Stack) -> None:
    stack.claude.failures = ["bad"]
    told = stack.ask("task", {"task": COMPLEX, "change": False}, headers=CALLS).json()
    assert (told["to"], told["answer"]["answered_by"]) == ("claude", "history")
    assert told["answer"]["note"].startswith("502: ")


def test_a_task_of_nothing_is_refused(stack: Stack) -> None:
    for task in ({}, {"task": " "}, {"task": 3}, {"task": "x" * 20_000}):
        assert stack.ask("task", task, headers=CALLS).status_code == 400


def test_the_model_is_taught_and_what_came_of_it_is_told(stack: Stack) -> None:
    for number, animal in enumerate(("penguin", "walrus", "otter", "heron", "lynx") * 4):
        code = f"def feed_{animal}_{number}(fish):\n    return fish * {number}\n" * 5
        stack.repo.commit(f"Feed the {animal} {number} fish", **{f"src_0_{animal}__py": code})
    started = stack.ask("learn", {}, headers=CALLS)
    assert (started.status_code, started.json()["state"]) == (202, "running")
    told = stack.told("learn")
    assert told["state"] == "done", told
    assert told["trained"]["documents"] > 0
    assert told["outcome"] in ("promoted", "kept")
    assert told["promoted"] == (told["outcome"] == "promoted")
    assert told["tested"]["commits"] > 0
    assert told["ok"] == (not told["alerts"])


def test_the_clock_starts_it_as_well(stack: Stack) -> None:
    """The clock's node is run as the editor does it."""
    stack.n8n.start("treering 3: learn every night: market", "Every night")
    assert stack.told("learn")["outcome"] == "waiting"


def test_an_agent_whose_model_calls_tools_asks_the_history_by_mcp(stack: Stack) -> None:
    told = stack.ask("agent", {"question": "By tools: what brought the gateway?"}, headers=CALLS).json()
    found = stack.get("/v1/search?query=gateway+bridge&limit=1")[0]["commit_hash"]
    assert (told["ok"], told["by"], told["note"]) == (True, "agent", "")
    assert found.startswith(re.findall(r"\[([0-9a-f]+)\]", told["output"])[0])


def test_without_such_a_model_the_local_one_answers_from_the_history(stack: Stack) -> None:
    told = stack.ask("agent", {"question": SIMPLE}, headers=CALLS).json()
    assert (told["ok"], told["by"]) == (True, "local model"), told
    assert told["output"]
    assert told["note"].startswith("the agent could not answer: ")


def test_a_treering_that_is_away_is_reported_and_nothing_is_lost(stack: Stack) -> None:
    stack.serve.terminate()
    stack.serve.wait(60)
    assert stack.pushed().status_code == 502
    told = stack.told("push")
    assert (told["ok"], told["state"]) == (False, "Index")
    for ending, body in (("task", {"task": SIMPLE}), ("agent", {"question": SIMPLE}), ("learn", {})):
        away = stack.ask(ending, body, headers=CALLS)
        assert away.status_code == 502, away.text
        told = stack.told(ending)
        assert (told["ok"], told["text"]) == (False, away.json().get("text", told["text"]))
        assert "connect" in told["text"] or "not reached by MCP" in told["text"], told
    with stack.n8n.owner() as owner:
        time.sleep(1)
        runs = owner.get("/rest/executions", params={"filter": "{}", "limit": 4}).json()["data"]["results"]
    assert {one["status"] for one in runs if "push" in one["workflowName"]} == {"error"}
