"""What is shipped to deploy, judged as far as it can be without a container engine: by the schemas of those who read
it, by our own commands, and by a server that runs.
"""

import json
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.resources import files
from pathlib import Path
from typing import Any

import click
import jsonschema
import promql_parser
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from deployed import (
    COMPOSE,
    DASHBOARD,
    DEPLOY,
    DOCKERFILE,
    IMAGE,
    KUBERNETES,
    MANIFESTS,
    OURS,
    PROJECT,
    ROOT,
    SERVICES,
    TOKEN,
    command_lines,
    containers,
    expressions,
    instruction,
    judge,
    of_kind,
    parsed,
    pods,
)  # fmt: skip
from repositories import Repo
from serving import Served, serving
from treering import opening
from treering.config import ServeSettings

OF_PROMETHEUS = {"up": {"job", "instance"}}
ADDED = {"job", "instance"}
"""Labels that Prometheus gives every series that it scrapes."""


# the schemas of those who read it -------------------------------------------------------------------------------------


def test_every_file_of_yaml_is_sound() -> None:
    rules = "{extends: default, rules: {document-start: disable, line-length: {max: 180}}}"
    told = subprocess.run(
        [sys.executable, "-m", "yamllint", "--strict", "--config-data", rules, str(DEPLOY)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (told.returncode, told.stdout) == (0, "")


def test_compose_is_as_its_specification_has_it() -> None:
    path = files("check_jsonschema") / "builtin_schemas" / "vendor" / "compose-spec.json"
    schema = json.loads(path.read_text("utf-8"))
    jsonschema.validate(COMPOSE, schema)
    with pytest.raises(jsonschema.ValidationError, match="portz"):
        jsonschema.validate({"services": {"treering": {"image": OURS, "portz": []}}}, schema)


@pytest.mark.parametrize("one", MANIFESTS, ids=lambda one: f"{one['kind']}-{one['metadata']['name']}")
def test_every_manifest_is_as_its_schema_has_it(one: dict[str, Any]) -> None:
    judge(one)


@pytest.mark.parametrize("pod", pods(), ids=lambda pod: pod["spec"]["containers"][0]["name"])
def test_every_pod_is_as_its_schema_has_it_and_has_few_rights(pod: dict[str, Any]) -> None:
    judge({"apiVersion": "v1", "kind": "PodTemplate", "template": pod})
    user = int(instruction("USER").partition(":")[0])
    assert pod["spec"]["securityContext"].items() >= {"runAsNonRoot": True, "runAsUser": user, "fsGroup": user}.items()
    assert pod["spec"]["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not pod["spec"]["automountServiceAccountToken"]
    # Kubernetes would set TREERING_PORT of a service of our name, which is no setting of ours.
    assert not pod["spec"]["enableServiceLinks"]
    volumes = {one["name"] for one in pod["spec"]["volumes"]}
    for container in pod["spec"]["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}
        }  # fmt: skip
        assert container["resources"]["limits"].keys() == {"cpu", "memory"}
        mounts = {one["mountPath"]: one["name"] for one in container["volumeMounts"]}
        assert {"/data", "/tmp"} <= mounts.keys()  # noqa: S108  those that the image writes to
        assert set(mounts.values()) <= volumes


def test_the_dockerfile_is_what_its_linter_wants() -> None:
    linter = Path(sys.executable).with_name("hadolint")
    told = subprocess.run(
        [str(linter), "--no-color", str(DEPLOY / "Dockerfile")], capture_output=True, text=True, check=False
    )
    assert (told.returncode, told.stdout) == (0, "")


# names that stand in several places -----------------------------------------------------------------------------------


def test_every_image_has_a_tag_and_ours_is_of_this_version() -> None:
    others = [one["image"] for one in SERVICES.values() if one["image"] != OURS]
    others += re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    for image in others:
        assert re.search(r":v?\d+\.\d+", image), image
    assert {one["image"] for one in containers()} == {IMAGE["name"]} == {"treering"}
    assert IMAGE["newTag"] == PROJECT["version"]
    assert OURS in DOCKERFILE.splitlines()[0]
    (job,) = of_kind("RayJob")
    major, minor, _ = job["spec"]["rayClusterSpec"]["rayVersion"].split(".")
    assert PROJECT["optional-dependencies"]["fleet"][0].startswith(f"ray[data]>={major}.{minor},")


def test_the_image_is_made_of_what_the_project_wants() -> None:
    torch = next(one for one in PROJECT["optional-dependencies"]["train"] if one.startswith("torch"))
    assert f"pip install {torch}\n" in DOCKERFILE
    copied = " ".join(re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.MULTILINE)).split()
    allowed = re.findall(r"^!(\S+)", (ROOT / ".dockerignore").read_text("utf-8"), re.MULTILINE)
    assert sorted(copied) == sorted(allowed)
    for name in copied:
        assert (ROOT / name).exists(), name


def test_every_program_has_one_port_and_none_is_published_beyond_this_machine() -> None:
    own = str(ServeSettings().port)
    assert instruction("EXPOSE") == own
    assert f"'127.0.0.1', {own}" in instruction("HEALTHCHECK")
    assert yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text("utf-8"))["scrape_configs"][0][
        "static_configs"
    ] == [{"targets": [f"treering:{own}"]}]
    published = {}
    for name, service in SERVICES.items():
        for port in service.get("ports", ()):
            address, outside, inside = port.split(":")
            assert (address, outside) == ("127.0.0.1", inside), name
            published[name] = inside
            if name != "treering":
                assert re.search(rf"127\.0\.0\.1[:/]{inside}\b", " ".join(service["healthcheck"]["test"])), name
    assert SERVICES["treering"]["environment"]["TREERING_VECTORS_QDRANT_URL"] == f"http://qdrant:{published['qdrant']}"
    sources = yaml.safe_load((DEPLOY / "grafana" / "datasources.yaml").read_text("utf-8"))["datasources"]
    assert [one["url"] for one in sources] == [f"http://prometheus:{published['prometheus']}"]
    (pod,) = [one["spec"]["template"] for one in of_kind("Deployment")]
    (port,) = pod["spec"]["containers"][0]["ports"]
    assert str(port["containerPort"]) == published["treering"] == own
    (service,) = of_kind("Service")
    assert service["spec"]["ports"] == [{"name": "http", "port": int(own), "targetPort": port["name"]}]


def test_every_service_is_watched_limited_and_started_again() -> None:
    for name, service in SERVICES.items():
        assert service["deploy"]["resources"]["limits"].keys() == {"cpus", "memory", "pids"}, name
        assert service["restart"] == "unless-stopped", name
        assert "no-new-privileges:true" in service["security_opt"], name
        # That of our image asks a server.
        assert service.get("healthcheck", {}).get("disable", False) == (name == "watch"), name
        assert "healthcheck" in service or name == "treering", name


def test_no_key_is_kept_and_nothing_starts_without_one() -> None:
    text = (DEPLOY / "compose.yaml").read_text("utf-8")
    wanted = set(re.findall(r"\$\{(\w+)", text))
    example = dict(re.findall(r"^(\w+)=(.*)$", (DEPLOY / ".env.example").read_text("utf-8"), re.MULTILINE))
    assert example == dict.fromkeys(wanted, "")
    for name in wanted - {"ANTHROPIC_API_KEY"}:
        assert f"${{{name}:?" in text, name
    assert not of_kind("Secret")
    assert "\n.env\n" in (ROOT / ".gitignore").read_text("utf-8")


def test_every_file_and_volume_that_is_named_is_there() -> None:
    for name, service in SERVICES.items():
        for volume in service["volumes"]:
            source = volume["source"] if isinstance(volume, dict) else volume.split(":")[0]
            if source.startswith("./"):
                assert (DEPLOY / source).exists(), f"{name}: {source}"
            else:
                assert source in COMPOSE["volumes"] or "$" in source, f"{name}: {source}"
    for path in KUBERNETES.rglob("kustomization.yaml"):
        told = yaml.safe_load(path.read_text("utf-8"))
        for named in (*told.get("resources", ()), *told.get("components", ())):
            assert (path.parent / named).exists(), named
        if path.parent.name != "common":
            assert {one.name for one in path.parent.glob("*.yaml")} - {path.name} <= set(told["resources"])
    provided = yaml.safe_load((DEPLOY / "grafana" / "dashboards.yaml").read_text("utf-8"))["providers"][0]
    assert any(f":{provided['options']['path']}/treering.json:" in one for one in SERVICES["grafana"]["volumes"])


def test_what_pods_and_policies_refer_to_is_there() -> None:
    text = json.dumps(pods())
    for kind, named in (("PersistentVolumeClaim", "claimName"), ("ConfigMap", 'configMap(?:Ref)?": {"name')):
        assert set(re.findall(rf'"{named}": "([^"]+)"', text)) == {one["metadata"]["name"] for one in of_kind(kind)}
    assert set(re.findall(r'"secret(?:Ref|KeyRef)": {"name": "([^"]+)"', text)) == {"treering"}
    labels = [pod["metadata"]["labels"].items() for pod in pods()]
    for one in of_kind("Service", "NetworkPolicy", "Deployment"):
        selector = one["spec"].get("selector") or one["spec"]["podSelector"]
        wanted = selector.get("matchLabels", selector).items()
        assert any(wanted <= pod for pod in labels), one["metadata"]["name"]


# our commands ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("line", [*command_lines()], ids=lambda line: " ".join(line))
def test_every_command_line_is_one_of_ours(line: list[str]) -> None:
    parsed(line)


def test_a_command_line_that_is_none_of_ours_is_told() -> None:
    with pytest.raises(click.NoSuchOption):
        parsed(["serve", "--hots", "0.0.0.0"])


# a server -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def served(indexed_story: Repo) -> Iterator[Served]:
    """A server as the containers start it: for others, by its names, with a token."""
    compose, kubernetes = (parsed(line).params for line in command_lines() if line[0] == "serve")
    assert compose["host"] == kubernetes["host"] == "0.0.0.0"
    assert {"treering"} == set(compose["names"]) < set(kubernetes["names"])
    places = {"project": opening.place(indexed_story.path)}
    with serving(places, host="0.0.0.0", names=kubernetes["names"], token=TOKEN) as one:
        one.client.headers["authorization"] = f"Bearer {TOKEN}"
        assert one.post("/v1/search", {"query": "parser"}).status_code == 200
        yield one


def test_who_asks_by_the_names_of_the_services_is_let_in(served: Served) -> None:
    addresses = ["treering:8080", "treering.treering:8080", "treering.treering.svc:8080", "10.42.0.17:8080"]
    for host in addresses:
        assert served.get("/metrics", headers={"host": host}).status_code == 200, host
        assert served.get("/metrics", headers={"host": host, "authorization": ""}).status_code == 401, host
        assert served.get("/readyz", headers={"host": host, "authorization": ""}).status_code == 200, host
    assert served.get("/metrics", headers={"host": "elsewhere.example"}).status_code == 421


def test_the_health_check_of_the_image_tells_a_server_that_lives(served: Served) -> None:
    command = json.loads(instruction("HEALTHCHECK").partition("CMD ")[2])
    assert command[0] == "python"

    def check(port: int) -> int:
        code = [sys.executable, *(one.replace(str(ServeSettings().port), str(port)) for one in command[1:])]
        return subprocess.run(code, capture_output=True, check=False, timeout=30).returncode

    assert check(int(served.url.rpartition(":")[2])) == 0
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    assert check(port) != 0


def health_of(service: str, port: int) -> list[str]:
    """The command of a service's health check, of another port."""
    kind, *command = SERVICES[service]["healthcheck"]["test"]
    inside = re.search(r"127\.0\.0\.1[:/](\d+)", " ".join(command))
    assert inside
    assert kind == "CMD"
    return [one.replace(inside[1], str(port)) for one in command]


@pytest.mark.parametrize("status", [200, 503])
@pytest.mark.parametrize(("service", "path"), [("qdrant", "/readyz"), ("n8n", "/healthz"), ("grafana", "/api/health")])
def test_the_health_check_of_a_service_reads_its_status(service: str, path: str, status: int) -> None:
    class Ready(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == path else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Ready) as server:
        command = health_of(service, server.server_port)
        if not shutil.which(command[0]):
            pytest.skip(f"there is no {command[0]} here, which the image of {service} has")
        answering = threading.Thread(target=server.handle_request)
        answering.start()
        told = subprocess.run(command, capture_output=True, check=False, timeout=30)
        answering.join(30)
    assert (told.returncode == 0) == (status == 200)


def metrics_of(served: Served) -> dict[str, set[str]]:
    """The names of all that a server tells, with the labels that each has."""
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(served.get("/metrics").text):
        for end in ("", "_total", "_bucket", "_sum", "_count") if not family.samples else ():
            found.setdefault(family.name + end, set())
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def test_dashboard_and_alerts_ask_for_what_a_server_tells(served: Served) -> None:
    known = metrics_of(served) | OF_PROMETHEUS
    for where, text in expressions():
        asked: set[str] = set()
        labels: set[str] = set()

        def visit(node: Any, asked: set[str] = asked, labels: set[str] = labels) -> None:
            if isinstance(node, promql_parser.VectorSelector):
                asked.add(node.name or "")
                labels.update(one.name for one in node.matchers.matchers)
            elif isinstance(node, promql_parser.AggregateExpr) and node.modifier:
                labels.update(node.modifier.labels)

        promql_parser.walk(promql_parser.parse(text), visit)
        assert asked, where
        assert asked <= known.keys(), where
        for name in asked:
            assert not known[name] or labels <= known[name] | ADDED, f"{where}: {name}"


def test_the_dashboard_is_drawn_without_overlap_from_the_source_that_is_provided() -> None:
    panels = DASHBOARD["panels"]
    assert [one["id"] for one in panels] == list(range(1, len(panels) + 1))
    cells = [
        (x, y)
        for at in (one["gridPos"] for one in panels)
        for x in range(at["x"], at["x"] + at["w"])
        for y in range(at["y"], at["y"] + at["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) == 23
    source, *variables = DASHBOARD["templating"]["list"]
    provided = yaml.safe_load((DEPLOY / "grafana" / "datasources.yaml").read_text("utf-8"))["datasources"][0]
    assert (source["query"], source["current"]["value"]) == (provided["type"], provided["uid"])
    wanted = {"type": "prometheus", "uid": f"${{{source['name']}}}"}
    assert all(one["datasource"] == wanted for one in (*panels, *variables))
    used = set(re.findall(r"\$(\w+)", json.dumps([one["targets"] for one in panels]))) - {"__rate_interval"}
    assert used == {one["name"] for one in variables}
