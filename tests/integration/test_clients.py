"""The entry of the server in the files of MCP clients: made with leave, everything else left alone."""

import json
import os
import pty
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from repositories import Repo
from treering.cli.main import main


@pytest.fixture
def project(repo: Repo) -> Repo:
    repo.commit("Begin", a__py="x = 1\n")
    return repo


def install(repo: Repo, *options: str) -> Result:
    return CliRunner().invoke(main, ["mcp", "install", "--repo", str(repo.path), *options])


def servers(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text("utf-8"))["mcpServers"]
    return found


def test_claude_code_is_told_in_the_project_and_once(project: Repo) -> None:
    done = install(project, "--yes")
    assert done.exit_code == 0
    path = project.path / ".mcp.json"
    (entry,) = servers(path).values()
    assert Path(entry["command"]).is_absolute()
    assert entry["args"][-3:] == ["mcp", "--repo", str(project.path)]
    assert f"+++ {path}" in done.stdout
    before = path.read_bytes()
    again = install(project, "--yes")
    assert "already" in again.stdout
    assert path.read_bytes() == before


def test_the_command_that_is_written_starts_the_server(project: Repo) -> None:
    install(project, "--yes")
    (entry,) = servers(project.path / ".mcp.json").values()
    hello = {
        "jsonrpc": "2.0", "id": 1, "method": "initialize",
        "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}},
    }  # fmt: skip
    done = subprocess.run(
        [entry["command"], *entry["args"]], input=json.dumps(hello) + "\n", capture_output=True, text=True, timeout=60,
        check=True, cwd="/",
    )  # fmt: skip
    assert json.loads(done.stdout)["result"]["serverInfo"]["name"] == "treering"


@pytest.mark.parametrize(("client", "file"), [
    ("cursor", ".cursor/mcp.json"),
    pytest.param(
        "claude-desktop", ".config/Claude/claude_desktop_config.json",
        marks=pytest.mark.skipif(sys.platform == "darwin", reason="its file lies elsewhere there"),
    ),
])  # fmt: skip
def test_the_others_are_told_in_their_own_file_and_all_else_in_it_stays(
    project: Repo, client: str, file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    path = Path(os.environ["HOME"]) / file
    path.parent.mkdir(parents=True)
    known = {"theme": "dârk", "mcpServers": {"other": {"command": "x", "env": {"KEY": "k"}}}, "last": [1, 2]}
    path.write_text(json.dumps(known, indent=4, ensure_ascii=False), "utf-8")
    assert install(project, "--client", client, "--yes").exit_code == 0
    after = json.loads(path.read_text("utf-8"))
    assert list(after) == list(known)
    assert after["mcpServers"].pop("treering-project")["args"][-1] == str(project.path)
    assert after == known
    assert '\n    "theme": "dârk"' in path.read_text("utf-8")


def test_what_an_entry_has_of_its_users_is_kept(project: Repo) -> None:
    path = project.path / ".mcp.json"
    path.write_text('{"mcpServers": {"treering": {"command": "old", "env": {"TREERING_STORE": "s"}}}}')
    install(project, "--yes")
    assert servers(path)["treering"]["env"] == {"TREERING_STORE": "s"}
    assert servers(path)["treering"]["command"] != "old"


def test_print_writes_nothing(project: Repo) -> None:
    done = install(project, "--print")
    assert json.loads(done.stdout)["mcpServers"]["treering"]
    assert not (project.path / ".mcp.json").exists()


@pytest.mark.parametrize(
    "broken",
    ['{"mcpServers": {', "[1]", '{"mcpServers": []}', "// comment\n{}", "\x00", "[" * 100_000, '{"a": NaN}',
     '{"a": 1e999}', '{"a": "\\ud800"}'],
)  # fmt: skip
def test_a_file_that_is_no_configuration_is_left_alone(project: Repo, broken: str) -> None:
    path = project.path / ".mcp.json"
    path.write_text(broken)
    done = install(project, "--yes")
    assert done.exit_code == 5
    assert "left as it is" in done.stderr
    assert path.read_text() == broken


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names")
def test_what_is_no_file_is_not_waited_for(project: Repo) -> None:
    os.mkfifo(project.path / ".mcp.json")
    done = install(project, "--yes")
    assert done.exit_code == 5
    assert "is no file" in done.stderr


def test_bytes_that_are_no_text_are_left_alone(project: Repo) -> None:
    path = project.path / ".mcp.json"
    path.write_bytes(b"\xff\xfe{}")
    assert install(project, "--yes").exit_code == 5
    assert path.read_bytes() == b"\xff\xfe{}"


@pytest.mark.parametrize("mode", [0o600, 0o640])
def test_who_could_not_read_a_file_still_cannot(project: Repo, mode: int) -> None:
    path = project.path / ".mcp.json"
    path.write_text('{"mcpServers": {"other": {"env": {"KEY": "secret"}}}}')
    path.chmod(mode)
    assert install(project, "--yes").exit_code == 0
    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_an_empty_file_is_filled(project: Repo) -> None:
    (project.path / ".mcp.json").write_text("\n")
    assert install(project, "--yes").exit_code == 0
    assert "treering" in servers(project.path / ".mcp.json")


def test_a_link_that_came_with_the_repository_is_not_followed(project: Repo, tmp_path: Path) -> None:
    target = tmp_path / "profile"
    target.write_text("{}")
    (project.path / ".mcp.json").symlink_to(target)
    done = install(project, "--yes")
    assert done.exit_code == 2
    assert "is a link" in done.stderr
    assert target.read_text() == "{}"


def test_without_a_terminal_nothing_is_written_unless_told(project: Repo) -> None:
    done = install(project)
    assert done.exit_code == 2
    assert "--yes" in done.stderr
    assert not (project.path / ".mcp.json").exists()


@pytest.mark.parametrize(("answer", "code"), [("y", 0), ("n", 2), ("", 2)])
def test_at_a_terminal_the_user_is_asked(project: Repo, answer: str, code: int) -> None:
    ours, theirs = pty.openpty()
    os.write(ours, f"{answer}\n".encode())
    done = subprocess.run(
        [sys.executable, "-m", "treering", "mcp", "install", "--repo", str(project.path)], stdin=theirs,
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    os.close(theirs)
    os.close(ours)
    assert done.returncode == code
    assert "Write " in done.stderr
    assert '+    "treering": {' in done.stdout
    assert (project.path / ".mcp.json").exists() == (code == 0)


def test_a_bare_repository_has_no_folder_for_claude_codes_file(project: Repo, make_repo: Callable[..., Repo]) -> None:
    bare = make_repo("bare.git", "--bare")
    bare.git("fetch", "--quiet", str(project.path), "main:main")
    done = install(bare, "--yes")
    assert done.exit_code == 2
    assert "work tree" in done.stderr
    assert install(bare, "--client", "cursor", "--yes").exit_code == 0


def test_several_repositories_are_one_server(project: Repo, make_repo: Callable[..., Repo]) -> None:
    other = make_repo("other")
    other.commit("Begin", a__py="x = 1\n")
    assert install(project, "--repo", str(other.path), "--yes").exit_code == 0
    assert servers(project.path / ".mcp.json")["treering"]["args"][-4:] == [
        "--repo", str(project.path), "--repo", str(other.path),
    ]  # fmt: skip
    wrong = install(project, "--repo", str(other.path), "--store", "s", "--yes")
    assert wrong.exit_code == 2
