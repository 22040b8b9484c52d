"""A server that is killed between its answer and its work."""

import hashlib
import hmac
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from repositories import Repo

SECRET = "a-secret-of-this-test"


@contextmanager
def server(environment: dict[str, str], sent: signal.Signals, said: list[str]) -> Iterator[httpx.Client]:
    """A server that is ended by a signal, and what it said then."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "treering", "serve", "--port", "0", "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    try:
        assert process.stdout
        url = json.loads(process.stdout.readline())["url"]
        with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
            yield client
    finally:
        process.send_signal(sent)
        said.append(process.communicate(timeout=120)[1])


def test_what_was_acknowledged_is_done_after_a_kill(repo: Repo, tmp_path: Path) -> None:
    repo.commit("Begin", a__py="x = 1\n")
    remote = tmp_path / "remote.git"
    repo.git("clone", "--quiet", "--bare", str(repo.path), str(remote))
    environment = os.environ | {
        "TREERING_FORGE_SECRETS": SECRET, "TREERING_FORGE_REPOSITORIES": f"acme/shop=file://{remote}",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }  # fmt: skip
    said: list[str] = []
    with server(environment, signal.SIGKILL, said) as client:
        name = repo.commit("Go on", a__py="x = 2\n")
        repo.git("push", "--quiet", str(remote), "main")
        body = json.dumps({"ref": "refs/heads/main", "after": name, "repository": {"full_name": "acme/shop"}}).encode()
        headers = {
            "x-github-event": "push", "x-github-delivery": "one", "content-type": "application/json",
            "x-hub-signature-256": f"sha256={hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()}",
        }  # fmt: skip
        answer = client.post("/v1/webhooks/github", content=body, headers=headers)
    assert answer.json()["state"] == "accepted"
    (inbox,) = (Path(environment["XDG_DATA_HOME"]) / "treering").glob("stores/*/deliveries.db")
    with sqlite3.connect(inbox) as db:
        assert db.execute("SELECT state FROM deliveries").fetchall() == [("waiting",)]
    with server(environment, signal.SIGTERM, said) as client:
        until = time.monotonic() + 120
        while not (told := client.get("/v1/webhooks").json()["repositories"][0]["deliveries"])["done"]:
            assert time.monotonic() < until, told
            time.sleep(0.1)
        assert client.post("/v1/webhooks/github", content=body, headers=headers).json()["state"] == "duplicate"
        assert client.get("/v1/search", params={"query": "go on"}).json()[0]["commit_hash"] == name
    assert SECRET not in "".join(said)
    assert "acme/shop: " in said[1]
