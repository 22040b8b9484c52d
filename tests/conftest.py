"""What every test has: its own home, no user config, and repositories made by real git."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from repositories import Repo, at_home, tell_story
from warm import Warm, warmed_up

# A shell's background job ignores it, and so would every program that a test starts.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Models this small gain nothing from a second thread, which waits for the first by spinning: on the core of the tests
# beside these.
os.environ["OMP_NUM_THREADS"] = "1"


@pytest.fixture(autouse=True, scope="session")
def _loaded_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The files of the model pack are checked once, not in each home: what is kept of them has a folder of its own. And
    the model of meaning is loaded once, by whoever embeds first.
    """
    from treering.vectors.minilm import MiniLM

    session: Any = MiniLM.__dict__["session"]
    first: dict[Path, MiniLM] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(
            MiniLM, "session", property(lambda one: session.__get__(first.setdefault(one._weights, one), MiniLM))
        )
        yield


@pytest.fixture(autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    at_home(monkeypatch, tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="session")
def minilm() -> Any:
    """The built-in model of meaning."""
    from treering.vectors.embedder import load_embedder

    return load_embedder("all-MiniLM-L6-v2")


@pytest.fixture
def make_repo(tmp_path: Path) -> Callable[..., Repo]:
    def make(name: str = "project", *init: str) -> Repo:
        return Repo(tmp_path / name, *init)

    return make


@pytest.fixture
def repo(make_repo: Callable[..., Repo]) -> Repo:
    return make_repo()


@pytest.fixture(scope="session")
def told_story(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """The story, told once; tests take copies."""
    with pytest.MonkeyPatch.context() as patch:
        at_home(patch, tmp_path_factory.mktemp("home"))
        return tell_story(Repo(tmp_path_factory.mktemp("told") / "project"))


@pytest.fixture
def story(told_story: Repo, tmp_path: Path) -> Repo:
    return told_story.copied(tmp_path / "project")


@pytest.fixture(scope="session")
def indexed_story(told_story: Repo, tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """The story with its index; tests take copies."""
    from treering import opening, operations
    from treering.report import Reporter

    with pytest.MonkeyPatch.context() as patch:
        at_home(patch, tmp_path_factory.mktemp("home"))
        made = told_story.copied(tmp_path_factory.mktemp("indexed") / "project")
        operations.index(opening.place(made.path), Reporter())
        return made


@pytest.fixture(scope="session")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of Hugging Face's cache for programs of ``warm``: empty, until a test puts models there."""
    return tmp_path_factory.mktemp("hub")


@pytest.fixture(scope="session")
def warm(tmp_path_factory: pytest.TempPathFactory, hub: Path) -> Iterator[Warm]:
    with pytest.MonkeyPatch.context() as patch:
        at_home(patch, tmp_path_factory.mktemp("home"))
        with warmed_up(HF_HOME=str(hub), HF_HUB_OFFLINE="1") as waiting:
            yield waiting
