"""How a server holds up: one client, then many at once, memory over thousands of requests, and an end under load.

    python benchmarks/serving.py REPO --store STORE [--clients 50] [--seconds 20] [--requests 10000] [--json]

STORE must be indexed with `treering index`. A real `treering serve` is started on a free port of the loopback; what
asks it runs in this process, on the same cores, over plain sockets that stay open, so that it costs the server little.
Each question is the subject of another commit and is asked once in a round. An end under load: every client goes on
asking while the server is told to end; what it does not answer although the connection stood is lost.
"""

import argparse
import asyncio
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.measuring import describe, git, machine, plain_environment, table

WARM = 20
"""Questions before anything is timed, from each client."""
SAMPLES = 10

Figures = dict[str, float]


@dataclass
class Round:
    """What came of a round of questions; seconds of each answer."""

    seconds: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    refused: int = 0
    lost: list[str] = field(default_factory=list)
    took: float = 0.0
    cpu: float = 0.0

    def figures(self) -> Figures:
        ordered = sorted(self.seconds)
        return {
            "requests": len(ordered),
            "errors": len(self.errors),
            "server's CPU, ms": round(1000 * self.cpu / len(ordered), 1),
            "requests a second": round(len(ordered) / self.took, 1),
            "p50, ms": round(1000 * ordered[len(ordered) // 2], 1),
            "p99, ms": round(1000 * ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)], 1),
            "slowest, ms": round(1000 * ordered[-1], 1),
        }


class Client:
    """One connection that stays open, and asks by plain HTTP/1.1."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def ask(self, question: str) -> tuple[int, bytes]:
        """The status and the body. Raises :class:`ConnectionRefusedError` where there is no server, and any other
        :class:`OSError` or :class:`EOFError` where one was there and did not answer.
        """
        if self._writer is None or self._reader is None:
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self.port)
        body = json.dumps({"query": question}).encode()
        self._writer.write(
            b"POST /v1/search HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n" % len(body) + body
        )
        head = await self._reader.readuntil(b"\r\n\r\n")
        lines = head.lower().split(b"\r\n")
        length = next(int(line.partition(b":")[2]) for line in lines if line.startswith(b"content-length:"))
        answer = await self._reader.readexactly(length)
        if b"connection: close" in lines:
            self.close()
        return int(head.split()[1]), answer

    def close(self) -> None:
        if self._writer:
            self._writer.close()
        self._reader = self._writer = None


async def asked(port: int, clients: int, questions: Iterator[str], until: float, most: int = 1 << 60) -> Round:
    """Let so many clients ask, each its next question once it has its answer."""
    made, left = Round(), itertools.count()
    started = time.perf_counter()

    async def go_on(client: Client) -> None:
        while time.perf_counter() < until and next(left) < most:
            question, begun = next(questions), time.perf_counter()
            try:
                status, answer = await client.ask(question)
            except ConnectionRefusedError:
                made.refused += 1
                return
            except (OSError, EOFError) as error:
                made.lost.append(repr(error))
                return
            made.seconds.append(time.perf_counter() - begun)
            if status != 200 or not answer.startswith(b"["):
                made.errors.append(f"{status} {answer[:200]!r} to {question!r}")

    connected = [Client(port) for _ in range(clients)]
    await asyncio.gather(*map(go_on, connected))
    made.took = time.perf_counter() - started
    for client in connected:
        client.close()
    return made


def family(pid: int) -> list[int]:
    """A process and those that it started."""
    children = [child for told in Path(f"/proc/{pid}/task").glob("*/children") for child in told.read_text().split()]
    return [pid, *(one for child in children for one in family(int(child)))]


def cpu(pid: int) -> float:
    """Seconds that a process, its threads and those it started have computed."""
    total = 0
    for one in family(pid):
        fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


def memory(pid: int) -> Figures:
    """Resident memory in MB, of the processes it started too: what is their own, and what the first maps from files,
    which they share.
    """
    found = {"own": 0.0, "mapped": 0.0}
    for one in family(pid):
        lines = dict(line.partition(":")[::2] for line in Path(f"/proc/{one}/status").read_text().splitlines())
        found["own"] += int(lines["RssAnon"].split()[0]) / 1024
        found["mapped"] = max(found["mapped"], int(lines["RssFile"].split()[0]) / 1024)
    return {name: round(megabytes, 1) for name, megabytes in found.items()}


def serve(repo: Path, store: Path, threads: int, processes: int) -> tuple[subprocess.Popen[str], int]:
    where = ["--repo", str(repo), "--store", str(store), "--port", "0", "--json", "--preload"]
    many = ["--threads", str(threads)] if threads else []
    many += ["--processes", str(processes)]
    source = str(Path(__file__).resolve().parents[1] / "src")
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "treering", "serve", *where, *many],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        env=plain_environment() | {"TREERING_SERVE_RATE": "0", "PYTHONPATH": source},
    )  # fmt: skip
    line = process.stdout.readline() if process.stdout else ""
    if not line:
        raise SystemExit("the server did not start: run `treering serve` to see why")
    return process, int(json.loads(line)["url"].rpartition(":")[2])


async def measured(
    process: subprocess.Popen[str], port: int, subjects: list[str], chosen: argparse.Namespace
) -> dict[str, object]:
    questions = itertools.cycle(subjects)
    made: dict[str, object] = {}

    async def round_of(clients: int, seconds: float, most: int = 1 << 60) -> Round:
        before = cpu(process.pid)
        found = await asked(port, clients, questions, time.perf_counter() + seconds, most)
        found.cpu = cpu(process.pid) - before if process.poll() is None else 0.0
        return found

    opened = memory(process.pid)
    await round_of(chosen.clients, 3600, WARM * chosen.clients)
    one = await round_of(1, chosen.seconds)
    many = await round_of(chosen.clients, chosen.seconds)
    made["one client"] = one.figures()
    made[f"{chosen.clients} clients"] = many.figures()
    made["times one client"] = round(many.figures()["requests a second"] / one.figures()["requests a second"], 2)
    made["first errors"] = (one.errors + many.errors + one.lost + many.lost)[:3]
    samples = []
    for _ in range(SAMPLES):
        await round_of(chosen.clients, 3600, chosen.requests // SAMPLES)
        samples.append(memory(process.pid))
    made["memory, MB"] = {"opened": opened, f"over {chosen.requests:,} requests": samples}
    ending = asyncio.ensure_future(round_of(chosen.clients, 60))
    await asyncio.sleep(min(3.0, chosen.seconds))
    process.send_signal(signal.SIGTERM)
    ended = await ending
    process.wait(60)
    made["an end under load"] = {
        "answered": len(ended.seconds), "sent away at the door": ended.refused, "lost": len(ended.lost),
        "errors": len(ended.errors), "exit code": process.returncode, "first lost": ended.lost[:3],
    }  # fmt: skip
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repo", type=Path)
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=20.0, help="how long each of the two rounds takes")
    parser.add_argument("--requests", type=int, default=10_000, help="over how many memory is watched")
    parser.add_argument("--threads", type=int, default=0, help="threads of the server; 0: as many as cores")
    parser.add_argument("--processes", type=int, default=0, help="processes that answer in place of the threads")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    where = machine()
    subjects = list(dict.fromkeys(git(chosen.repo, "log", "--all", "--no-merges", "--format=%s").splitlines()))
    subjects = [subject for subject in subjects if len(subject.split()) > 1]
    process, port = serve(chosen.repo, chosen.store, chosen.threads, chosen.processes)
    try:
        made = asyncio.run(measured(process, port, subjects, chosen))
    finally:
        if process.poll() is None:
            process.kill()
    if chosen.json:
        print(json.dumps({"machine": where, "questions": len(subjects), **made}, indent=2))
        return
    print(f"{describe(where)}; {len(subjects):,} questions; {os.cpu_count()} cores for clients and server\n")
    rows = [(name, value) for name, value in made.items() if "client" in name and isinstance(value, dict)]
    columns = list(rows[0][1])
    print(table([["", *columns], *([name, *(f"{row[column]:,}" for column in columns)] for name, row in rows)]))
    for name in ("times one client", "first errors", "memory, MB", "an end under load"):
        print(f"\n{name}: {json.dumps(made[name])}")


if __name__ == "__main__":
    main()
