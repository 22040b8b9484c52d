"""What every test has: its own home, no user config, and repositories made by real git."""

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from repositories import Repo, at_home, tell_story

# A shell's background job ignores it, and so would every program that a test starts.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    at_home(monkeypatch, tmp_path_factory.mktemp("home"))


@pytest.fixture
def make_repo(tmp_path: Path) -> Callable[..., Repo]:
    def make(name: str = "project", *init: str) -> Repo:
        return Repo(tmp_path / name, *init)

    return make


@pytest.fixture
def repo(make_repo: Callable[..., Repo]) -> Repo:
    return make_repo()


@pytest.fixture
def story(repo: Repo) -> Repo:
    return tell_story(repo)
