"""What is shipped to deploy, read: the files, and what of them several tests ask for."""

import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import jsonschema
import kubernetes_validate
import yaml

from treering.cli.main import main

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILE = (DEPLOY / "Dockerfile").read_text("utf-8").replace("\\\n", " ")
KUBERNETES = DEPLOY / "kubernetes"
MANIFESTS: list[dict[str, Any]] = [
    one
    for path in sorted(KUBERNETES.rglob("*.yaml"))
    if path.name != "kustomization.yaml"
    for one in yaml.safe_load_all(path.read_text("utf-8"))
]
IMAGE = yaml.safe_load((KUBERNETES / "common" / "kustomization.yaml").read_text("utf-8"))["images"][0]
DASHBOARD = json.loads((DEPLOY / "grafana" / "treering.json").read_text("utf-8"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
OURS = f"treering:{PROJECT['version']}"
TOKEN = "a-token-of-this-test"


def of_kind(*kinds: str) -> list[dict[str, Any]]:
    return [one for one in MANIFESTS if one["kind"] in kinds]


def pods() -> list[dict[str, Any]]:
    """The templates of all pods."""
    found = [one["spec"]["template"] for one in of_kind("Deployment")]
    found += [one["spec"]["jobTemplate"]["spec"]["template"] for one in of_kind("CronJob")]
    for cluster in (one["spec"]["rayClusterSpec"] for one in of_kind("RayJob")):
        found += [group["template"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]
    return found


def containers() -> list[dict[str, Any]]:
    return [one for pod in pods() for one in pod["spec"]["containers"]]


def instruction(name: str) -> str:
    """What the last such line of the Dockerfile says."""
    *_, last = re.finditer(rf"^{name} (.*)", DOCKERFILE, re.MULTILINE)
    return last[1].strip()


def judge(manifest: dict[str, Any]) -> None:
    """Raises what the validator raises for a manifest that its schema does not allow."""
    if manifest["kind"] == "RayJob":
        schema = json.loads((ROOT / "tests" / "cases" / "rayjob.json").read_text("utf-8"))["schema"]
        jsonschema.validate(manifest, schema)
    else:
        kubernetes_validate.validate(manifest, "1.37", strict=True)


def command_lines() -> Iterator[list[str]]:
    for service in SERVICES.values():
        if service["image"] == OURS:
            yield service["command"]
    for container in containers():
        if "args" in container:
            yield container["args"]
    for job in of_kind("RayJob"):
        program, *rest = shlex.split(job["spec"]["entrypoint"])
        assert program == "treering"
        yield rest
    page = (ROOT / "docs" / "deploying.md").read_text("utf-8")
    yield from map(shlex.split, re.findall(r" exec .*?treering (?:-- )?treering (.*)", page))


def parsed(line: list[str]) -> click.Context:
    """A command line as our command reads it, without running it. Raises click's errors for what it does not know."""
    command: click.Command = main
    context, rest = click.Context(command, info_name="treering"), line
    while isinstance(command, click.Group):
        name, found, rest = command.resolve_command(context, rest)
        assert found
        command, context = found, click.Context(found, info_name=name, parent=context)
    command.parse_args(context, [*rest])
    return context


def expressions() -> Iterator[tuple[str, str]]:
    """Every expression that is asked of Prometheus, and where it stands."""
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            text = target["expr"].replace("$__rate_interval", "5m")
            yield panel["title"], re.sub(r"\$\w+", ".*", text)
    for group in yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text("utf-8"))["groups"]:
        for rule in group["rules"]:
            yield rule["alert"], rule["expr"]
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            asked = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]["query"])
            assert asked
            yield variable["name"], f"sum by ({asked[2]}) ({asked[1]})"
