"""The README's commands, run."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from repositories import Repo

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
COMMANDS = [
    line.partition("  #")[0].strip()
    for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    for line in block.splitlines()
    if line and not line.startswith("#")
]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, told_story: Repo) -> Path:
    return told_story.copied(tmp_path_factory.mktemp("user") / "project").path


def test_make_run_does_the_main_job_on_a_repository(project: Path) -> None:
    """With the real base model, and the installation `make` made; without one it would take minutes to make it."""
    assert any(command.startswith("make run REPO=") for command in COMMANDS)
    if not (ROOT / ".venv" / "install.stamp").exists():
        pytest.skip("make has installed nothing here: `make test` runs this")
    done = subprocess.run(
        ["make", "run", f"REPO={project}", "MINUTES=0.05"],
        cwd=ROOT, env=os.environ | {"MAKEFLAGS": ""}, capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "bits per byte on later commits" in done.stdout
    assert "Try next:" in done.stdout
    assert (project / ".treering" / "reports" / "latest.html").is_file()


def test_make_test_runs_the_tests() -> None:
    assert "make test" in COMMANDS
    planned = subprocess.run(["make", "-n", "test"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "-m pytest" in planned


@pytest.mark.parametrize(
    "command", [command for command in COMMANDS if not command.startswith(("make", "git clone", "cd "))]
)
def test_every_other_command_works(project: Path, command: str) -> None:
    if not (project / ".treering").exists():
        subprocess.run(
            [sys.executable, "-m", "treering", "run", "--minutes", "0", "--repo", str(project)],
            check=True,
            capture_output=True,
        )
    if "generate" in command and not (project / ".treering" / "models").exists():
        pytest.skip("no model was trained here: `make test` runs this")
    command = command.replace(".venv/bin/treering", f"{sys.executable} -m treering").replace(
        "path/to/repo", str(project)
    )
    done = subprocess.run(
        ["bash", "-c", command], cwd=project, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, f"{command}\n{done.stderr}"
    assert done.stdout
