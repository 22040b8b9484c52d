"""Real repositories for tests, made by real git."""

import copy
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import pytest


def at_home(patch: pytest.MonkeyPatch, home: Path) -> None:
    """An environment without anything of the user's: a home of its own, no settings of git or treering, no key."""
    for name in [
        name for name in os.environ if name.startswith(("GIT_", "GITHUB_", "GITLAB_", "CI_", "TREERING_", "ANTHROPIC_"))
    ]:
        patch.delenv(name)
    patch.setenv("HOME", str(home))
    patch.setenv("XDG_DATA_HOME", str(home / "data"))
    patch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")


class Repo:
    """A real repository in a folder, driven by the git program with fixed names and a clock that ticks a minute."""

    def __init__(self, path: Path, *init: str) -> None:
        self.path = path
        self.clock = 1_700_000_000
        path.mkdir(parents=True, exist_ok=True)
        self.git("init", "--quiet", "--initial-branch=main", *init)

    def git(self, *arguments: str, stdin: bytes = b"", check: bool = True) -> str:
        self.clock += 60
        environment = os.environ | {
            "GIT_AUTHOR_NAME": "Ada Lovelace", "GIT_AUTHOR_EMAIL": "ada@example.com",
            "GIT_COMMITTER_NAME": "Ada Lovelace", "GIT_COMMITTER_EMAIL": "ada@example.com",
            "GIT_AUTHOR_DATE": f"{self.clock} +0100", "GIT_COMMITTER_DATE": f"{self.clock} +0100",
        }  # fmt: skip
        done = subprocess.run(
            ["git", "-C", str(self.path), *arguments], input=stdin, capture_output=True, check=False, env=environment
        )
        if check and done.returncode:
            raise AssertionError(f"git {arguments}: {done.stderr.decode()}")
        return done.stdout.decode("utf-8", "replace").strip()

    def commit(self, message: str = "a change", **files: str | bytes | None) -> str:
        """Write (None removes) files, commit, and return the hash. ``__`` in a name is a dot, ``_0_`` a slash."""
        for name, content in files.items():
            self.write(name.replace("_0_", "/").replace("__", "."), content)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--allow-empty-message", "-m", message)
        return self.git("rev-parse", "HEAD")

    def copied(self, to: Path) -> Self:
        """The same repository in another folder, at the same time of day."""
        shutil.copytree(self.path, to, symlinks=True)
        same = copy.copy(self)
        same.path = to
        return same

    def write(self, name: str, content: str | bytes | None) -> None:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            path.unlink()
        else:
            path.write_bytes(content.encode() if isinstance(content, str) else content)


def tell_story(repo: Repo) -> Repo:
    """A small history that has everything: two branches, a merge, a rename, a binary, a deletion, empty messages."""
    repo.commit(
        "Start the energy market", src_0_market__py="def settle(order):\n    return order\n", README__md="# x\n"
    )
    for number in range(16):
        words = ["dispute", "settlement", "ledger", "oracle", "bridge", "quota", "receipt", "validator"]
        topic = words[number % len(words)]
        repo.commit(
            f"Add the {topic} rule {number}" if number % 4 else "cli local changes",
            **{
                f"src_0_{topic}__py": f"def {topic}_rule_{number}(value):\n    return value + {number}\n" * (number + 1)
            },
        )
    repo.git("switch", "--quiet", "-c", "feature/bridge")
    repo.commit("Bridge receipts over the gateway", src_0_gateway__py="class GatewayBridge:\n    pass\n")
    repo.git("switch", "--quiet", "main")
    repo.commit("Move the market", src_0_market__py=None, core_0_market__py="def settle(order):\n    return order\n")
    repo.commit("Add a picture", picture__png=b"\x89PNG\x00\x01\x02")
    repo.git("merge", "--quiet", "--no-ff", "-m", "Merge feature/bridge\n\nIt brings the gateway.", "feature/bridge")
    repo.commit("Drop the picture", picture__png=None)
    repo.commit("Nothing at all")
    return repo


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Nothing in the folder may be written inside the block, by root neither: it is nobody meanwhile."""
    user = os.geteuid()
    for path in (*folder.iterdir(), folder):
        path.chmod(0o555)
    try:
        if user == 0:
            try:
                os.seteuid(65534)
            except OSError:
                pytest.skip("root cannot be anybody else here")
        yield
    finally:
        os.seteuid(user)
        for path in (folder, *folder.iterdir()):
            path.chmod(0o755)
