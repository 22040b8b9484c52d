"""The Action for GitHub and the template for GitLab: what they hold, and that their scripts do what they say."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from fake_forge import NAME, TOKEN, fake_forge
from repositories import Repo
from treering import opening, operations
from treering.operate.comment import MARKER
from treering.report import Reporter

ROOT = Path(__file__).parents[2]
ACTION: dict[str, Any] = yaml.safe_load((ROOT / "action.yml").read_text("utf-8"))
TEMPLATE: dict[str, Any] = yaml.safe_load((ROOT / "ci" / "gitlab.yml").read_text("utf-8"))
STEPS: list[dict[str, Any]] = ACTION["runs"]["steps"]
SCRIPTS = {step["name"]: str(step["run"]) for step in STEPS if "run" in step} | {
    f"GitLab {number}": line for number, line in enumerate(TEMPLATE["treering"]["script"])
}
JOB = {"stage", "image", "rules", "allow_failure", "variables", "cache", "script"}
"""Keys of a job, as GitLab's CI/CD YAML reference has them."""


def test_the_action_is_a_composite_one_whose_parts_fit() -> None:
    assert ACTION["runs"]["using"] == "composite"
    assert {"name", "description", "inputs", "outputs", "runs"} == set(ACTION)
    for one in ACTION["inputs"].values():
        assert set(one) == {"description", "default"}
    text = (ROOT / "action.yml").read_text("utf-8")
    assert set(re.findall(r"inputs\.([\w-]+)", text)) == set(ACTION["inputs"])
    ids = {step["id"] for step in STEPS if "id" in step}
    assert set(re.findall(r"steps\.([\w-]+)\.outputs", text)) == ids
    for step in STEPS:
        assert ("run" in step) != ("uses" in step)
        assert "run" not in step or step["shell"] == "bash"
        assert "uses" not in step or re.fullmatch(r"[\w/-]+@v\d+", step["uses"])


def test_nothing_that_others_write_is_put_into_a_script() -> None:
    for name, script in SCRIPTS.items():
        assert "${{" not in script, name


def test_a_token_is_given_to_the_comment_alone_and_told_to_nobody() -> None:
    holders = [step["name"] for step in STEPS if "TREERING_FORGE_TOKEN" in step.get("env", {})]
    assert holders == ["Comment"]
    for name, script in SCRIPTS.items():
        assert "TOKEN" not in script, name
        assert not re.search(r"\bset -\w*x|\benv\b|\bprintenv\b", script), name


@pytest.mark.parametrize("name", sorted(SCRIPTS))
def test_every_script_is_one_that_bash_reads(name: str) -> None:
    subprocess.run(["bash", "-n"], input=SCRIPTS[name].encode(), check=True)
    assert name.startswith("GitLab") or SCRIPTS[name].startswith("set -euo pipefail\n")


def test_the_template_is_a_job_of_gitlab_for_merge_requests_alone() -> None:
    (job,) = TEMPLATE.values()
    assert set(job) == JOB
    assert job["variables"]["GIT_DEPTH"] == "0"
    assert all(isinstance(value, str) for value in job["variables"].values())
    assert all('"merge_request_event"' in rule["if"] for rule in job["rules"])
    assert job["cache"]["paths"] == [".treering-store/"]


def test_the_actions_own_steps_comment_on_a_pull_request(repo: Repo, tmp_path: Path) -> None:
    repo.commit("Open the shop", shop__py="OPEN = True\n")
    runner = tmp_path / "runner"
    programs = runner / "treering" / "bin"
    programs.mkdir(parents=True)
    for name in ("python", "treering"):
        module = " -P -m treering" if name == "treering" else ""
        (programs / name).write_text(f'#!/bin/sh\nexec "{sys.executable}"{module} "$@"\n')
        (programs / name).chmod(0o755)
    operations.index(opening.place(repo.path, runner / "treering-store"), Reporter())
    event, output = tmp_path / "event.json", tmp_path / "output"
    event.write_text(json.dumps({"action": "opened", "pull_request": {"number": 3}}))
    (step,) = (one for one in STEPS if one["name"] == "Comment")
    with fake_forge("github") as forge:
        forge.me = None  # as the token of Actions
        forge.add_request(3, title="Close the shop", files=[("shop.py", 1, 1)])
        done = subprocess.run(
            ["bash", "-c", step["run"]], capture_output=True, text=True, check=False,
            env=os.environ | {
                "PYTHONPATH": os.pathsep.join(sys.path), "RUNNER_TEMP": str(runner), "REPOSITORY": str(repo.path),
                "TREERING_STORE": str(runner / "treering-store"), "TREERING_FORGE_TOKEN": TOKEN,
                "GITHUB_ACTIONS": "true", "GITHUB_API_URL": forge.api, "GITHUB_REPOSITORY": NAME,
                "GITHUB_EVENT_PATH": str(event), "GITHUB_OUTPUT": str(output),
            },
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert TOKEN not in done.stdout + done.stderr
    (comment,) = forge.comments
    assert comment["body"].startswith(MARKER)
    assert output.read_text() == f"url=https://github.example/{NAME}/pull/3#issuecomment-{comment['id']}\n"
