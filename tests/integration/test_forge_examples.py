"""GitHub's own example payloads, and its API as its own schema mocks it. ``make forge-test`` fetches both; none of them
is kept here.
"""

import hashlib
import hmac
import json
import os
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from treering.errors import TreeringError
from treering.operate.forge import Address
from treering.operate.github import GitHub
from treering.operate.webhooks import read, verify

EXAMPLES = os.environ.get("FORGE_EXAMPLES", "")
pytestmark = [
    pytest.mark.examples,
    pytest.mark.skipif(not EXAMPLES, reason="FORGE_EXAMPLES is not set: run `make forge-test`"),
]
SECRET = "a-secret-of-this-test"
USED = (
    "/user", "/repos/{owner}/{repo}/pulls", "/repos/{owner}/{repo}/pulls/{pull_number}",
    "/repos/{owner}/{repo}/pulls/{pull_number}/files", "/repos/{owner}/{repo}/pulls/{pull_number}/commits",
    "/repos/{owner}/{repo}/issues", "/repos/{owner}/{repo}/issues/{issue_number}/comments",
    "/repos/{owner}/{repo}/issues/comments/{comment_id}", "/repos/{owner}/{repo}/commits/{ref}",
)  # fmt: skip


def test_every_example_of_a_webhook_is_read() -> None:
    path = Path(EXAMPLES) / "node_modules/@octokit/webhooks-examples/api.github.com/index.json"
    kinds: Counter[str] = Counter()
    for event in json.loads(path.read_text("utf-8")):
        for number, said in enumerate(event["examples"]):
            body = json.dumps(said).encode()
            headers = {
                "x-github-event": event["name"], "x-github-delivery": f"{event['name']}-{number}",
                "x-hub-signature-256": f"sha256={hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()}",
            }  # fmt: skip
            verify("github", headers, body, [SECRET], now=0.0, tolerance=1.0)
            found = read("github", headers, body)
            kinds[found.kind] += 1
            if found.kind in ("push", "request"):
                assert found.repository == said["repository"]["full_name"]
            if event["name"] == "push":
                assert (found.ref, found.after) == (said["ref"], "" if said["deleted"] else said["after"])
            if found.kind == "request":
                assert found.number == said["pull_request"]["number"]
    assert kinds["push"] >= 7
    assert kinds["request"] >= 29
    assert kinds["ping"] >= 1


@pytest.fixture(scope="module")
def mock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Prism over the part of GitHub's schema that is used: it refuses a request that the schema does not allow (422).
    Of answers nothing is checked: GitHub's own examples are not always what its schema says.
    """
    modules = Path(EXAMPLES) / "node_modules"
    whole: dict[str, Any] = json.loads((modules / "@octokit/openapi/generated/api.github.com.json").read_text("utf-8"))
    whole["paths"] = {name: whole["paths"][name] for name in USED}
    part = tmp_path_factory.mktemp("schema") / "used.json"
    part.write_text(json.dumps(whole))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    prism = [str(modules / ".bin" / "prism"), "mock", "--host", "127.0.0.1", "--port", str(port), str(part)]
    with (tmp_path_factory.mktemp("prism") / "log").open("wb") as log:
        process = subprocess.Popen(prism, stdout=log, stderr=log)
        try:
            until = time.monotonic() + 120
            while True:
                try:
                    urlopen(f"http://127.0.0.1:{port}/user", timeout=60).close()
                    break
                except OSError:
                    assert process.poll() is None
                    assert time.monotonic() < until
                    time.sleep(0.2)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(30)


def test_what_we_ask_and_read_is_as_the_schema_has_it(mock: str) -> None:
    where = Address("github", mock, "github.com", "acme/shop")
    with GitHub(where, "", patience=0, pause=lambda _: None) as forge:
        change = forge.change(1347)
        assert change.title
        assert change.files
        assert len(change.base) == 40
        assert forge.me()
        assert next(forge.comments(1347)).body
        made = forge.create(1347, "said")
        assert forge.update(1347, made.id, "said anew").id
        forge.delete(1347, made.id)
        assert forge.handle("6dcb09b5b57875f334f61aebed695e2e4193db5e")
        assert next(islice(forge.threads("2026-01-01T00:00:00Z"), 1))[0].title


def test_a_request_that_the_schema_does_not_allow_is_refused(mock: str) -> None:
    """The mock does judge."""
    where = Address("github", mock, "github.com", "acme/shop")
    with GitHub(where, "", patience=0, pause=lambda _: None) as forge, pytest.raises(TreeringError, match="422"):
        forge.create(1347, None)  # type: ignore[arg-type]
