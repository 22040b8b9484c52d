"""A repository that moves as people move theirs, and the watcher that is to keep up with it."""

import json
import os
import queue
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from repositories import Repo
from treering.store import Store

SECONDS = 120.0
"""For so long something is waited for."""


class Moving:
    """A work tree with a remote and a colleague who pushes there too, moved by dice: each step is something that a
    user does, and most make commits. Every commit says a word that no other says.
    """

    def __init__(self, repo: Repo, seed: int = 7) -> None:
        self.repo, self.dice = repo, random.Random(seed)  # noqa: S311
        self.commits = self.number = 0
        self.steps: dict[str, int] = {}
        self.remote = Repo(repo.path.with_name("remote.git"), "--bare")
        if not repo.git("rev-parse", "--verify", "--quiet", "HEAD", check=False):
            self.commit(repo)
        self.main = repo.git("branch", "--show-current")
        repo.git("remote", "add", "team", str(self.remote.path))
        repo.git("push", "--quiet", "team", self.main)
        self.colleague = Repo(repo.path.with_name("colleague"))
        self.colleague.git("fetch", "--quiet", str(self.remote.path), f"{self.main}:theirs")
        self.colleague.git("switch", "--quiet", "theirs")

    def commit(self, repo: Repo, *options: str) -> None:
        """A commit of a file of its own, so that no merge and no rebase stops."""
        self.number += 1
        repo.write(f"moved/part{self.number}.py", f"def word{self.number:06}():\n    return {self.number}\n")
        repo.git("add", "--all")
        repo.git("commit", "--quiet", *options, "-m", f"Say word{self.number:06}")
        self.commits += 1

    def step(self) -> str:
        """Something that a user does; returns what."""
        weights = {
            self.go_on: 50, self.amend: 10, self.branch: 8, self.merge: 8, self.rebase: 6, self.pick: 3, self.delete: 5,
            self.force_push: 4, self.fetch: 5, self.reset: 2, self.plumb: 2, self.pack: 1,
        }  # fmt: skip
        (chosen,) = self.dice.choices(list(weights), list(weights.values()))
        name = chosen.__name__
        chosen()
        self.steps[name] = self.steps.get(name, 0) + 1
        return name

    def topics(self) -> list[str]:
        return self.repo.git("for-each-ref", "--format=%(refname:short)", "refs/heads/topic*").split()

    def any_topic(self) -> str | None:
        return self.dice.choice(self.topics()) if self.topics() else None

    def go_on(self) -> None:
        self.commit(self.repo)

    def amend(self) -> None:
        self.commit(self.repo, "--amend")

    def branch(self) -> None:
        self.number += 1
        self.repo.git("switch", "--quiet", "-c", f"topic{self.number}", self.main)
        self.commit(self.repo)

    def merge(self) -> None:
        topic = self.any_topic()
        self.repo.git("switch", "--quiet", self.main)
        if topic:
            self.repo.git("merge", "--quiet", "--no-ff", "-m", f"Bring in {topic}", topic)
            self.commits += 1

    def rebase(self) -> None:
        if topic := self.any_topic():
            self.repo.git("rebase", "--quiet", self.main, topic)

    def pick(self) -> None:
        if topic := self.any_topic():
            self.repo.git("switch", "--quiet", self.main)
            last = self.repo.git("rev-list", "--no-merges", "--max-count=1", topic)
            self.repo.git("cherry-pick", "--allow-empty", "--keep-redundant-commits", last)
            self.commits += 1

    def delete(self) -> None:
        topic = self.any_topic()
        self.repo.git("switch", "--quiet", self.main)
        if topic:
            self.repo.git("branch", "--quiet", "-D", topic)

    def force_push(self) -> None:
        self.commit(self.repo, "--amend")
        self.repo.git("push", "--quiet", "--force", "team", "HEAD")

    def fetch(self) -> None:
        """The colleague pushes, over what was there, and it is fetched."""
        self.commit(self.colleague, *self.dice.choice([[], ["--amend"]]))
        self.colleague.git("push", "--quiet", "--force", str(self.remote.path), "theirs")
        self.repo.git("fetch", "--quiet", "--prune", "team")

    def reset(self) -> None:
        if self.repo.git("rev-parse", "--verify", "--quiet", "HEAD~2", check=False):
            self.repo.git("reset", "--quiet", "--hard", "HEAD~1")

    def plumb(self) -> None:
        """A commit of which no hook is told."""
        self.number += 1
        made = self.repo.git("commit-tree", "-p", "HEAD", "-m", f"Say word{self.number:06}", "HEAD^{tree}")
        self.repo.git("update-ref", f"refs/heads/topic{self.number}", made)
        self.commits += 1

    def pack(self) -> None:
        self.repo.git("pack-refs", "--all")

    def reachable(self) -> set[str]:
        return set(self.repo.git("rev-list", "--branches", "--remotes", "HEAD").split())


def searchable(store: Path) -> set[str]:
    """The commits that the index finds."""
    with Store.existing(store) as opened:
        return {commit.hash for commit in opened.indexed_commits()}


def bare_of_vectors(store: Path) -> int:
    """How many commits lack a vector."""
    with Store.existing(store) as opened:
        ((fingerprint,),) = opened.db.execute("SELECT DISTINCT fingerprint FROM vectors")
        return len(opened.unembedded(fingerprint))


def until(true: Callable[[], bool], seconds: float = SECONDS) -> float:
    """Wait for something, and return how long it took."""
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < seconds, "it did not come"
        time.sleep(0.02)
    return time.monotonic() - began


class Watcher:
    """A `treering watch --json` that is under way, and what it says."""

    def __init__(self, repos: tuple[Path, ...], *options: str, **environment: str) -> None:
        command = [sys.executable, "-P", "-m", "treering", "watch", "--json", *options]
        for repo in repos:
            command += ["--repo", str(repo)]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | environment
        )
        self.events: list[dict[str, Any]] = []
        self._lines: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self._lines.put(json.loads(line))

    def next(self, event: str, seconds: float = SECONDS) -> dict[str, Any]:
        """The next event of that kind; those before it are passed over."""
        while True:
            found = self._lines.get(timeout=seconds)
            self.events.append(found)
            if found["event"] == event:
                return found

    def rest(self) -> Iterator[dict[str, Any]]:
        """What has been said and not yet been asked for."""
        while not self._lines.empty():
            yield self._lines.get()

    def end(self, sent: signal.Signals = signal.SIGTERM) -> int:
        """Tell it to end; returns its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(sent)
        code = self.process.wait(60)
        self._reader.join(10)
        for stream in (self.process.stdout, self.process.stderr):
            if stream:
                stream.close()
        return code


@contextmanager
def watching(*repos: Path, options: Sequence[str] = (), **environment: str) -> Iterator[Watcher]:
    watcher = Watcher(repos, *options, **environment)
    try:
        yield watcher
    finally:
        watcher.end(signal.SIGKILL)
