"""The workflows that n8n imports, made for one repository of one server. Pure: who writes them is elsewhere.

Each is a file beside this one, as the editor of n8n 2.41.1 shows it, with the values of its node ``Settings`` and the
paths of its webhooks left to be filled in. No secret is in any: nodes name credentials, which n8n keeps encrypted.
"""

import json
import re
from hashlib import blake2b
from importlib.resources import files
from typing import Any

import msgspec

Workflow = dict[str, Any]
KINDS = ("push", "task", "learn", "agent")
SETTINGS = "Settings"
"""The node of each workflow that holds what is told to it from here."""
WEBHOOK = "n8n-nodes-base.webhook"


def workflow(kind: str, repository: str, server: str, notify: str) -> Workflow:
    """The workflow of a kind. The same repository gives the same id each time, so that n8n brings its own up to date;
    another one gives another id and other webhooks.
    """
    made: Workflow = _shipped(kind)
    made["id"] = f"treering-{kind}-{_digest(repository)}"
    made["name"] = f"{made['name']}: {repository}"
    told = {"server": server, "repository": repository, "notify": notify, "alert": notify}
    for node in made["nodes"]:
        if node["name"] == SETTINGS:
            for assigned in node["parameters"]["assignments"]["assignments"]:
                if assigned["name"] in told:
                    assigned["value"] = literal(told[assigned["name"]])
        if node["type"] == WEBHOOK:
            ending = node["parameters"]["path"]
            node["parameters"]["path"] = f"treering/{segment(repository)}/{ending}"
            node["webhookId"] = f"{made['id']}-{ending}"
    return made


def credentials(server: str) -> list[dict[str, Any]]:
    """The credentials that the workflows name, with texts to be replaced instead of secrets."""
    made: list[dict[str, Any]] = _shipped("credentials")
    for one in made:
        if "url" in one["data"]:
            one["data"]["url"] = f"{server}/v1"
    return made


def webhooks(made: Workflow) -> tuple[str, ...]:
    """The paths under which n8n answers for a workflow, behind ``/webhook/``."""
    return tuple(node["parameters"]["path"] for node in made["nodes"] if node["type"] == WEBHOOK)


def segment(repository: str) -> str:
    """A name as one part of a path; of two names never the same."""
    if re.fullmatch(r"[A-Za-z0-9][\w.-]*", repository, re.ASCII):
        return repository
    plain = re.sub(r"[^a-z0-9]+", "-", repository.lower()).strip("-") or "repository"
    return f"{plain}-{_digest(repository)}"


def literal(text: str) -> str:
    """A text as n8n reads it back: what begins with ``=`` would be an expression, and is told as one."""
    if not text.startswith("="):
        return text
    said = json.dumps(text).replace("{", "\\u007b").replace("}", "\\u007d")
    return f"={{{{ {said} }}}}"


def _digest(repository: str) -> str:
    return blake2b(repository.encode(), digest_size=4).hexdigest()


def _shipped(name: str) -> Any:
    return msgspec.json.decode(files(__package__).joinpath(f"{name}.json").read_bytes())
