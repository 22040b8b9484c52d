"""What is shipped to deploy in the hands of a real kubectl and Prometheus, which ``make deploy-test`` fetches."""

import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from deployed import DEPLOY, IMAGE, KUBERNETES, ROOT, TOKEN, expressions, judge
from repositories import Repo
from serving import serving
from treering import opening

TOOLS = os.environ.get("DEPLOY_TOOLS", "")
pytestmark = [
    pytest.mark.deploy,
    pytest.mark.skipif(not TOOLS, reason="DEPLOY_TOOLS is not set: run `make deploy-test`"),
]
KUBECTL, PROMTOOL, PROMETHEUS = (f"{TOOLS}/{one}" for one in ("bin/kubectl", "usr/bin/promtool", "usr/bin/prometheus"))
SERVER = ["ConfigMap", "Deployment", "Namespace", "NetworkPolicy", "NetworkPolicy", "PersistentVolumeClaim", "Service"]


def run(*command: str | Path) -> str:
    told = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, timeout=120)
    assert told.returncode == 0, told.stdout + told.stderr
    return told.stdout


@pytest.mark.parametrize(("folder", "kinds"), [
    ("server", SERVER), ("fleet", [*SERVER, "ConfigMap", "PersistentVolumeClaim", "CronJob"]),
    ("ray", ["NetworkPolicy", "RayJob"]),
])  # fmt: skip
def test_kustomize_makes_what_the_schemas_allow(folder: str, kinds: list[str]) -> None:
    made = [*yaml.safe_load_all(run(KUBECTL, "kustomize", KUBERNETES / folder))]
    assert sorted(one["kind"] for one in made) == sorted(kinds)
    for one in made:
        judge(one)
        assert one["kind"] == "Namespace" or one["metadata"]["namespace"] == "treering"
        for image in re.findall(r"'image': '([^']+)'", str(one)):
            assert image == f"{IMAGE['newName']}:{IMAGE['newTag']}"
    mounted = [one["spec"]["template"]["spec"] for one in made if one["kind"] == "Deployment"]
    assert ["fleet" in str(one["volumes"]) for one in mounted] == [folder == "fleet"] * len(mounted)


def test_prometheus_alerts_when_it_should() -> None:
    run(PROMTOOL, "check", "rules", DEPLOY / "prometheus" / "alerts.yml")
    run(PROMTOOL, "test", "rules", ROOT / "tests" / "cases" / "alerts.yml")


@pytest.fixture(scope="module")
def prometheus(indexed_story: Repo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """Prometheus by the shipped files, but for addresses and times, beside a server that wants a token."""
    folder = tmp_path_factory.mktemp("prometheus")
    shutil.copytree(DEPLOY / "prometheus", folder / "etc")
    (folder / "token").write_text(f"{TOKEN}\n")
    path = folder / "etc" / "prometheus.yml"
    told: dict[str, Any] = yaml.safe_load(path.read_text("utf-8"))
    told["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    job = told["scrape_configs"][0]
    job["authorization"]["credentials_file"] = str(folder / "token")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with serving({"project": opening.place(indexed_story.path)}, token=TOKEN) as served:
        job["static_configs"] = [{"targets": [served.url.removeprefix("http://")]}]
        path.write_text(yaml.safe_dump(told))
        run(PROMTOOL, "check", "config", path)
        started = [PROMETHEUS, f"--config.file={path}", f"--storage.tsdb.path={folder / 'data'}",
                   f"--web.listen-address=127.0.0.1:{port}"]  # fmt: skip
        with (folder / "log").open("wb") as log, subprocess.Popen(started, stdout=log, stderr=log) as process:
            try:
                with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
                    until = time.monotonic() + 60
                    while not scraped(client, served.client):
                        assert process.poll() is None, (folder / "log").read_text("utf-8")
                        assert time.monotonic() < until
                        time.sleep(0.5)
                    yield client
            finally:
                process.terminate()


def scraped(client: httpx.Client, server: httpx.Client) -> bool:
    """Whether Prometheus has rates of a server that is asked something meanwhile."""
    server.get("/v1/search", params={"query": "parser"}, headers={"authorization": f"Bearer {TOKEN}"})
    try:
        return bool(asked(client, "rate(treering_requests_total[1m]) > 0"))
    except httpx.TransportError:
        return False


def asked(client: httpx.Client, expression: str) -> list[Any]:
    answer = client.get("/api/v1/query", params={"query": expression})
    if answer.status_code == 503:  # it is still starting
        return []
    assert answer.status_code == 200, f"{expression}: {answer.text}"
    found: list[Any] = answer.json()["data"]["result"]
    return found


def test_prometheus_scrapes_with_the_token_and_answers_the_dashboard(prometheus: httpx.Client) -> None:
    assert [one["value"][1] for one in asked(prometheus, 'up{job="treering"}')] == ["1"]
    silent = {where for where, text in expressions() if not asked(prometheus, text)}
    assert silent == {
        "What got worse, against the noise of its own runs", "Tokens of the local model, a second",
        "TreeringDown", "TreeringFails", "TreeringGotWorse",
    }  # fmt: skip


def test_prometheus_has_our_rules(prometheus: httpx.Client) -> None:
    groups = prometheus.get("/api/v1/rules").json()["data"]["groups"]
    assert [one["name"] for one in groups[0]["rules"]] == ["TreeringDown", "TreeringFails", "TreeringGotWorse"]
    assert not any(one.get("lastError") for one in groups[0]["rules"])
