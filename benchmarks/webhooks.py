"""Whether webhooks are taken right: each commit indexed once, nothing forged let in, nothing acknowledged lost.

    python benchmarks/webhooks.py [--deliveries 1000] [--clients 8] [--kill] [--json]

A bare repository in a temporary folder is the forge: its branches and tags move (commits, force pushes, deletions,
tags) while GitHub's deliveries of each move are sent to a real `treering serve`, each over a connection of its own. A
third of them is sent twice, a third is sent again with a broken signature, and all come out of order. With `--kill` the
server is killed (SIGKILL) when half of them are answered, and started again; what was not answered then is sent again,
as from a forge, and what was answered is not.
"""

import argparse
import hashlib
import hmac
import http.client
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.measuring import describe, git, machine, plain_environment, table

SECRET = "a secret for the benchmark alone"[:30].replace(" ", "-")
NAME = "acme/shop"
ZEROS = "0" * 40
WINDOW = 25
"""Deliveries come out of order within so many."""
FORCED, DELETED, TAGGED = 20, 30, 10
"""After so many pushes comes a force push, a deleted branch, a tag."""
PATIENCE = 600.0


@dataclass
class Forge:
    """The remote, and each of its moves as it is to be told: when it is sent, the ref is there already."""

    path: Path
    hashes: list[str]
    moves: list[tuple[str, str, str]] = field(default_factory=list)

    def move(self, number: int) -> tuple[str, str, str]:
        """Make the next move; returns ref, before and after."""
        chain, aside = self.hashes[0::2], self.hashes[1::2]
        place = number % len(chain)
        main, branch, tag = "refs/heads/main", f"refs/heads/topic-{number // DELETED}", f"refs/tags/v{number}"
        if number % DELETED == DELETED - 1:
            return self._set(branch, ZEROS)
        if number % FORCED == FORCED - 1:
            return self._set(branch, aside[place])
        if number % TAGGED == TAGGED - 1:
            return self._set(tag, chain[place])
        return self._set(main if number % 3 else branch, chain[place])

    def _set(self, ref: str, after: str) -> tuple[str, str, str]:
        before = git(self.path, "for-each-ref", "--format=%(objectname)", ref).strip() or ZEROS
        git(self.path, "update-ref", *(["-d", ref] if after == ZEROS else [ref, after]))
        self.moves.append((ref, before, after))
        return ref, before, after


def forge(folder: Path, commits: int) -> Forge:
    """A bare repository with a line of commits, and beside each one that is no part of it, to be forced to."""
    path = folder / "forge" / "shop.git"
    git(folder, "init", "--quiet", "--bare", "--initial-branch=main", str(path))
    words = [
        "ledger",
        "invoice",
        "basket",
        "refund",
        "courier",
        "voucher",
        "warehouse",
        "shipment",
        "customer",
        "order",
    ]
    lines: list[str] = []
    for number in range(commits):
        topic = words[number % len(words)]
        for side, mark in (("main", 2 * number + 1), ("aside", 2 * number + 2)):
            text = f"def {topic}_{side}_{number}(value):\n    return value + {number}\n"
            said = f"{'Add' if side == 'main' else 'Try'} the {topic} rule {number}"
            come = f"from :{2 * number - 1}\n" if number else ""
            lines.append(
                f"commit refs/all/{mark}\nmark :{mark}\n"
                f"committer A <a@example.com> {1_700_000_000 + 60 * number} +0000\n"
                f"data {len(said)}\n{said}\n{come}M 644 inline src/{topic}{number % 40}.py\ndata {len(text)}\n{text}\n"
            )
    marks = folder / "marks"
    git(path, "fast-import", "--quiet", f"--export-marks={marks}", stdin="".join(lines).encode())
    named = dict(line.split() for line in marks.read_text().splitlines())
    hashes = [named[f":{mark}"] for mark in range(1, 2 * commits + 1)]
    for name in git(path, "for-each-ref", "--format=%(refname)").splitlines():
        git(path, "update-ref", "-d", name)
    made = Forge(path, hashes)
    git(path, "update-ref", "refs/heads/main", hashes[0])
    return made


@dataclass(frozen=True)
class Sent:
    """A delivery as it goes over the wire."""

    id: str
    body: bytes
    broken: bool = False


def delivery(number: int, ref: str, before: str, after: str) -> Sent:
    """As GitHub tells of a push: its own fields, those that nobody here reads among them."""
    owner = {"login": "acme", "id": 1, "type": "Organization"}
    head = {"id": after, "message": "a change", "timestamp": "2026-01-01T00:00:00Z", "added": [], "removed": []}
    said = {
        "ref": ref, "before": before, "after": after, "created": before == ZEROS, "deleted": after == ZEROS,
        "forced": False, "base_ref": None, "compare": "", "commits": [head] * 20, "head_commit": head,
        "repository": {"id": 1, "name": "shop", "full_name": NAME, "private": True, "owner": owner, "size": 1},
        "pusher": {"name": "ada", "email": "ada@example.com"}, "sender": {"login": "ada", "id": 2, "type": "User"},
    }  # fmt: skip
    return Sent(f"{number:08d}-0000-4000-8000-000000000000", json.dumps(said).encode())


@dataclass
class Server:
    """A `treering serve` that can be killed and started again at the same port."""

    folder: Path
    remote: Path
    port: int = 0
    process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        source = str(Path(__file__).resolve().parents[1] / "src")
        environment = plain_environment() | {
            "PYTHONPATH": source, "XDG_DATA_HOME": str(self.folder / "data"), "TREERING_FORGE_SECRETS": SECRET,
            "TREERING_FORGE_REPOSITORIES": f"{NAME}=file://{self.remote}",
        }  # fmt: skip
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "treering", "serve", "--port", str(self.port), "--json"],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment,
        )  # fmt: skip
        line = self.process.stdout.readline() if self.process.stdout else ""
        if not line:
            raise SystemExit("the server did not start: run `treering serve` to see why")
        self.port = int(json.loads(line)["url"].rpartition(":")[2])

    def kill(self) -> None:
        assert self.process  # noqa: S101  it was started
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def end(self) -> None:
        if self.process and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(60)

    def send(self, sent: Sent) -> tuple[int, dict[str, Any]]:
        digest = hmac.new(SECRET.encode(), sent.body, hashlib.sha256).hexdigest()
        digest = digest[:-4] + ("0000" if digest[-4:] != "0000" else "1111") if sent.broken else digest
        headers = {
            "Content-Type": "application/json", "X-GitHub-Event": "push", "X-GitHub-Delivery": sent.id,
            "X-Hub-Signature-256": f"sha256={digest}", "User-Agent": "GitHub-Hookshot/0000000",
        }  # fmt: skip
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request("POST", "/v1/webhooks/github", sent.body, headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def standing(self) -> dict[str, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request("GET", "/v1/webhooks")
            told: dict[str, Any] = json.loads(connection.getresponse().read())["repositories"][0]["deliveries"]
            return told
        finally:
            connection.close()


class Run:
    """What came of the deliveries."""

    def __init__(self, server: Server, clients: int) -> None:
        self.server, self.clients = server, clients
        self.seconds: list[float] = []
        self.accepted: set[str] = set()
        self.answers: Counter[str] = Counter()
        self.unanswered: list[Sent] = []
        self._lock = threading.Lock()

    def one(self, sent: Sent) -> None:
        started = time.perf_counter()
        try:
            status, said = self.server.send(sent)
        except (OSError, http.client.HTTPException, ValueError):
            with self._lock:
                self.unanswered.append(sent)
            return
        with self._lock:
            self.seconds.append(time.perf_counter() - started)
            word = said.get("state") or said.get("error", {}).get("code", "")
            self.answers[f"{'broken' if sent.broken else 'signed'}: {status} {word}"] += 1
            if status == 202 and not sent.broken:
                self.accepted.add(sent.id)

    def all(self, stream: Iterator[list[Sent]]) -> None:
        with ThreadPoolExecutor(self.clients) as pool:
            for window in stream:
                list(pool.map(self.one, window))


def stream(of: Forge, deliveries: int, luck: random.Random) -> Iterator[list[Sent]]:
    """Windows of deliveries, out of order: each once, a third again, a third again with a broken signature."""
    for start in range(0, deliveries, WINDOW):
        window = []
        for number in range(start, min(start + WINDOW, deliveries)):
            sent = delivery(number, *of.move(number))
            window.append(sent)
            if number % 3 == 0:
                window.append(sent)
            if number % 3 == 1:
                window.append(Sent(sent.id, sent.body, broken=True))
        luck.shuffle(window)
        yield window


def measured(folder: Path, chosen: argparse.Namespace) -> dict[str, object]:
    remote = forge(folder, chosen.deliveries // 2)
    server = Server(folder, remote.path)
    server.start()
    luck = random.Random(chosen.seed)  # noqa: S311  an order, no secret
    run = Run(server, chosen.clients)
    started, killed = time.perf_counter(), False
    try:
        for window in stream(remote, chosen.deliveries, luck):
            if chosen.kill and not killed and len(run.accepted) >= chosen.deliveries // 2:
                killed = True
                sending = threading.Thread(target=run.all, args=(iter([window]),))
                sending.start()
                time.sleep(0.02)
                server.kill()
                sending.join()
                server.start()
                again, run.unanswered = run.unanswered, []
                run.all(iter([again]))
            else:
                run.all(iter([window]))
        sending_took = time.perf_counter() - started
        until = time.perf_counter() + PATIENCE
        while server.standing()["waiting"] and time.perf_counter() < until:
            time.sleep(0.2)
        took = time.perf_counter() - started
    finally:
        server.end()
    return {
        "deliveries": chosen.deliveries, "requests": sum(run.answers.values()), "killed": killed,
        **answered(run, sending_took), "all done after, s": round(took, 1), **kept(folder, remote, run),
    }  # fmt: skip


def answered(run: Run, took: float) -> dict[str, object]:
    ordered = sorted(run.seconds)
    return {
        "answers": dict(sorted(run.answers.items())), "unanswered": len(run.unanswered),
        "p50, ms": round(1000 * ordered[len(ordered) // 2], 1),
        "p99, ms": round(1000 * ordered[len(ordered) * 99 // 100], 1),
        "slowest, ms": round(1000 * ordered[-1], 1), "answers a second": round(len(ordered) / took, 1),
    }  # fmt: skip


def kept(folder: Path, remote: Forge, run: Run) -> dict[str, object]:
    """What is on the disk at the end, beside what was acknowledged and what the forge has."""
    (store,) = (folder / "data" / "treering" / "stores").iterdir()
    (mirror,) = (folder / "data" / "treering" / "mirrors").glob("*/shop.git")
    with sqlite3.connect(store / "deliveries.db") as db:
        states = dict(db.execute("SELECT id, state FROM deliveries"))
    with sqlite3.connect(store / "treering.db") as db:
        commits = [row[0] for row in db.execute("SELECT hash FROM commits WHERE position IS NOT NULL")]
        runs = [json.loads(row[0])["commits"] for row in db.execute("SELECT summary FROM runs WHERE stage = 'index'")]
        indexed = db.execute("SELECT count(*) FROM documents WHERE lengths IS NOT NULL").fetchone()[0]
    refs = ["for-each-ref", "--format=%(objectname) %(refname)", "refs/heads", "refs/tags"]
    there = set(git(remote.path, "rev-list", "--branches").split())
    return {
        "acknowledged": len(run.accepted), "acknowledged and lost": len(run.accepted - states.keys()),
        "acknowledged and not done": sum(states.get(one) != "done" for one in run.accepted),
        "forged let in": sum(count for name, count in run.answers.items() if name.startswith("broken: 2")),
        "refs as the forge's": git(mirror, *refs) == git(remote.path, *refs),
        "commits of the forge": len(there), "missing in the index": len(there - set(commits)),
        "commits indexed": indexed, "indexed by all runs together": sum(runs), "runs of the index": len(runs),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--deliveries", type=int, default=1000)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--kill", action="store_true", help="kill the server in the middle")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    where = machine()
    with tempfile.TemporaryDirectory() as folder:
        made = measured(Path(folder), chosen)
    if chosen.json:
        print(json.dumps({"machine": where, **made}, indent=2))
        return
    print(f"{describe(where)}; {os.cpu_count()} cores for clients and server\n")
    print(table([["", ""], *([name, json.dumps(value)] for name, value in made.items())]))


if __name__ == "__main__":
    main()
