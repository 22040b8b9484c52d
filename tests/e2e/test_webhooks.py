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
from pathlib import Path

import httpx

from repositories import Repo

SECRET = "a-secret-of-this-test"


def start(environment: dict[str, str]) -> tuple[subprocess.Popen[str], str]:
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "treering", "serve", "--port", "0", "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    assert process.stdout
    return process, json.loads(process.stdout.readline())["url"]


def end(process: subprocess.Popen[str], sent: signal.Signals) -> str:
    process.send_signal(sent)
    _, said = process.communicate(timeout=60)
    return said


def test_what_was_acknowledged_is_done_after_a_kill(repo: Repo, tmp_path: Path) -> None:
    repo.commit("Begin", a__py="x = 1\n")
    remote = tmp_path / "remote.git"
    repo.git("clone", "--quiet", "--bare", str(repo.path), str(remote))
    environment = os.environ | {
        "TREERING_FORGE_SECRETS": SECRET, "TREERING_FORGE_REPOSITORIES": f"acme/shop=file://{remote}",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }  # fmt: skip
    process, url = start(environment)
    name = repo.commit("Go on", a__py="x = 2\n")
    repo.git("push", "--quiet", str(remote), "main")
    said = {"ref": "refs/heads/main", "after": name, "repository": {"full_name": "acme/shop"}}
    body = json.dumps(said).encode()
    headers = {
        "x-github-event": "push", "x-github-delivery": "one", "content-type": "application/json",
        "x-hub-signature-256": f"sha256={hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()}",
    }  # fmt: skip
    answer = httpx.post(f"{url}/v1/webhooks/github", content=body, headers=headers, trust_env=False)
    end(process, signal.SIGKILL)
    assert answer.json()["state"] == "accepted"
    data = Path(environment["XDG_DATA_HOME"]) / "treering"
    (inbox,) = data.glob("stores/*/deliveries.db")
    with sqlite3.connect(inbox) as db:
        assert db.execute("SELECT state FROM deliveries").fetchall() == [("waiting",)]
    process, url = start(environment)
    until = time.monotonic() + 120
    while True:
        told = httpx.get(f"{url}/v1/webhooks", trust_env=False).json()["repositories"][0]["deliveries"]
        if told["done"]:
            break
        assert time.monotonic() < until, told
        time.sleep(0.1)
    again = httpx.post(f"{url}/v1/webhooks/github", content=body, headers=headers, trust_env=False)
    assert again.json()["state"] == "duplicate"
    found = httpx.get(f"{url}/v1/search", params={"query": "go on"}, trust_env=False).json()
    assert found[0]["commit_hash"] == name
    said_on_stderr = end(process, signal.SIGTERM)
    assert process.returncode == 0
    assert SECRET not in said_on_stderr
    assert "acme/shop: " in said_on_stderr
