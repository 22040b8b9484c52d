"""`treering n8n export`: what it writes, and what it leaves alone."""

import json
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from repositories import Repo
from treering.cli.main import main


def export(folder: Path, repo: Repo, *options: str) -> Result:
    return CliRunner().invoke(main, ["n8n", "export", str(folder), "--repo", str(repo.path), *options])


def settings(file: Path) -> dict[str, object]:
    (node,) = (node for node in json.loads(file.read_text("utf-8"))["nodes"] if node["name"] == "Settings")
    return {one["name"]: one["value"] for one in node["parameters"]["assignments"]["assignments"]}


def test_four_workflows_know_their_server_and_their_repository(tmp_path: Path, repo: Repo) -> None:
    told = export(tmp_path / "out", repo, "--url", "http://10.0.0.1:99/", "--notify", "https://e.com/n", "--json")
    assert told.exit_code == 0
    written = json.loads(told.stdout)
    files = [Path(one["file"]) for one in written["workflows"]]
    assert [one.name for one in files] == ["push.json", "task.json", "learn.json", "agent.json"]
    for one in files:
        known = settings(one)
        assert (known["server"], known["repository"], known["notify"]) == (
            "http://10.0.0.1:99", "project", "https://e.com/n",
        )  # fmt: skip
    assert written["workflows"][0]["webhooks"] == ["treering/project/github", "treering/project/gitlab"]
    models = [
        one["data"]["url"] for one in json.loads(Path(written["credentials"]).read_text()) if "url" in one["data"]
    ]
    assert models == ["http://10.0.0.1:99/v1"] * 2


def test_a_second_export_replaces_the_workflows_and_leaves_the_credentials(tmp_path: Path, repo: Repo) -> None:
    out = tmp_path / "out"
    export(out, repo)
    credentials = out / "credentials.example.json"
    assert stat.S_IMODE(credentials.stat().st_mode) == 0o600
    credentials.write_text("[]")
    before = (out / "workflows" / "task.json").read_bytes()
    (out / "workflows" / "task.json").write_text("torn")
    told = export(out, repo)
    assert (out / "workflows" / "task.json").read_bytes() == before
    assert credentials.read_text() == "[]"
    assert "left as it is" in told.stdout


@pytest.mark.parametrize(
    "url",
    ["nowhere", "ftp://e.com", "http://", "http://e.com:x", "http://me:pw@e.com", "ftp://me:pw@e.com", "http://a b"],
)
@pytest.mark.parametrize("flag", ["--url", "--notify"])
def test_an_address_that_is_none_or_holds_a_password_is_refused(
    tmp_path: Path, repo: Repo, flag: str, url: str
) -> None:
    told = export(tmp_path / "out", repo, flag, url)
    assert told.exit_code == 2
    assert told.stderr.startswith(f"error: {flag}: ")
    assert ":pw@" not in told.stderr
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, repo: Repo) -> None:
    (tmp_path / "out").write_text("a file")
    told = export(tmp_path / "out", repo)
    assert told.exit_code == 4
    assert str(tmp_path / "out") in told.stderr
