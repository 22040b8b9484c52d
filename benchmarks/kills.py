"""Kill treering again and again at random moments (`kill -9`), in whatever it does, and see that nothing is lost.

    python benchmarks/kills.py [REPO] [--kills 200] [--only index,ledger] [--seed 7]

A victim is a process that is killed while it works on one store, which all of them share. After each kill the same
process runs to its end, `treering verify` must find nothing wrong, and what was acknowledged before the kill must be
there: what the store held, and what the victim said it had done. How often `verify` finds nothing right after the kill
is counted too. At the end everything is verified (`--full`), and the records are compared with those of an undisturbed
store. Exits 1 at the first loss. Compares with nobody: no peer can resume. Without a repository a synthetic one of 300
commits is made. It grows while it is watched.

Another victim is a row of :data:`VICTIMS`.
"""

import argparse
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.measuring import git, plain_environment
from benchmarks.scale import synthetic

FRESH = 12
"""So many commits are added before each round, so that there is something to do."""
SMALL = {
    "TREERING_TRAIN_METHOD": "full", "TREERING_TRAIN_GPU": "false", "TREERING_TRAIN_BATCH_SIZE": "1",
    "TREERING_TOKENS_SEQUENCE_LENGTH": "64",
}  # fmt: skip
"""What a training of a moment wants."""
SOURCES = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
LEDGER = """
import sys
from pathlib import Path
from treering.assist.budget import Budget
from treering.config import BudgetSettings
from treering.store.ledger import Usage

budget = Budget(Path(sys.argv[1]), BudgetSettings(per_day=1e6, per_month=1e6))
for turn in range(int(sys.argv[2])):
    made = budget.reserve("claude-haiku-5-5", f"call {sys.argv[3]}-{turn}", input_tokens=10, output_tokens=10)
    print(f"reserved {sys.argv[3]}-{turn}", flush=True)
    if turn % 2:
        made.settle(Usage(9, 8))
        print(f"settled {sys.argv[3]}-{turn}", flush=True)
"""


@dataclass(slots=True)
class Bed:
    """The repository and the store that all victims work on, and what they said that they had done."""

    repo: Path
    store: Path
    folder: Path
    dice: random.Random
    rounds: int = 0
    said: set[str] = field(default_factory=set)

    def treering(self, command: str, *options: str) -> list[str]:
        chosen = ["--repo", str(self.repo), "--store", str(self.store)]
        return [sys.executable, "-P", "-m", "treering", command, *chosen, *options]

    def tiny(self) -> str:
        """A base model that trains in a moment, with GPT-2's vocabulary."""
        base = self.folder / "tiny"
        if not base.is_dir():
            from transformers import GPT2Config, GPT2LMHeadModel

            from treering.tokens.tokenizer import load_tokenizer

            tokenizer = load_tokenizer("gpt2")
            config = GPT2Config(
                vocab_size=tokenizer.vocab_size, n_positions=64, n_embd=16, n_layer=1, n_head=2,
                bos_token_id=tokenizer.eos_id, eos_token_id=tokenizer.eos_id,
            )  # fmt: skip
            GPT2LMHeadModel(config).save_pretrained(base)
            tokenizer.save(base)
        return str(base)

    def patch(self) -> Path:
        """A patch that adds a file."""
        path = self.folder / "patch"
        name = f"gated_{self.rounds}.txt"
        path.write_text(f"--- /dev/null\n+++ b/{name}\n@@ -0,0 +1 @@\n+round {self.rounds}\n")
        return path

    def grow(self) -> None:
        """Some commits more."""
        tip = git(self.repo, "rev-parse", "refs/heads/main").strip()
        lines = []
        for number in range(FRESH):
            message = f"Round {self.rounds}, change {number} of the {'parser' if number % 2 else 'store'}\n"
            who = f"Ada <ada@example.com> {int(time.time()) + number} +0000"
            content = f"def round_{self.rounds}_{number}(value):\n    return value + {number}\n"
            begin = f"from {tip}\n" if not number else ""
            lines.append(
                f"commit refs/heads/main\nauthor {who}\ncommitter {who}\ndata {len(message)}\n{message}{begin}"
                f"M 100644 inline src/round{self.rounds % 7}_{number}.py\ndata {len(content)}\n{content}\n"
            )
        git(self.repo, "fast-import", "--quiet", stdin="".join(lines).encode())


@dataclass(frozen=True, slots=True)
class Victim:
    """A process that is killed: its command, what it needs before (more commits, mostly), and how often it is chosen.
    ``use`` is what somebody does with it while it runs.
    """

    command: Callable[[Bed], list[str]]
    share: int
    before: Callable[[Bed], None] = Bed.grow
    use: Callable[[Bed, "subprocess.Popen[bytes]"], None] = lambda _, __: None
    ends: bool = True
    """Whether it ends by itself."""
    seconds: float = 3.0
    """How long it takes, until an undisturbed run has said so."""


def _port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


PORT = _port()


def _ask(bed: Bed, process: "subprocess.Popen[bytes]") -> None:
    """Search, and have the index brought up to date, until the server is gone. What it says is done, is done."""
    url = f"http://127.0.0.1:{PORT}/v1"

    def asked(path: str, body: object = None) -> dict[str, object]:
        data = None if body is None else json.dumps(body).encode()
        kind = {"Content-Type": "application/json"}
        question = urllib.request.Request(f"{url}/{path}", data, kind)  # noqa: S310  (our own server)
        with urllib.request.urlopen(question, timeout=30) as answer:  # noqa: S310
            told: dict[str, object] = json.loads(answer.read())
            return told

    tip = git(bed.repo, "rev-parse", "refs/heads/main").strip()
    while process.poll() is None:
        with suppress(OSError, ValueError):
            asked("index", {})
            asked("search", {"query": "change of the parser"})
            if asked("index").get("state") == "done":
                bed.said.add(f"commit {tip}")
        time.sleep(0.1)


def _grow_on(bed: Bed, process: "subprocess.Popen[bytes]") -> None:
    """Commit while it is watched."""
    while process.poll() is None:
        bed.grow()
        time.sleep(0.5)


VICTIMS: dict[str, Victim] = {
    "scrape": Victim(lambda bed: bed.treering("scrape", "--patches"), 2),
    "index": Victim(lambda bed: bed.treering("index"), 4),
    "rebuild": Victim(lambda bed: bed.treering("index", "--rebuild"), 1),
    "ledger": Victim(
        lambda bed: [sys.executable, "-P", "-c", LEDGER, str(bed.store), "400", str(bed.rounds)],
        3,
        before=lambda _: None,
    ),
    "train": Victim(
        lambda bed: bed.treering(
            "train", "--model", bed.tiny(), "--method", "full", "--minutes", "1000", "--epochs", "1000", "--no-gpu",
            "--max-steps", "20", "--batch-size", "1", "--save-seconds", "0", "--sequence-length", "64",
        ),
        1,
    ),
    "serve": Victim(
        lambda bed: [*bed.treering("serve"), "--port", str(PORT)], 2, use=_ask, ends=False, seconds=20.0
    ),
    "watch": Victim(lambda bed: bed.treering("watch", "--json"), 2, use=_grow_on, ends=False, seconds=10.0),
    "learn": Victim(lambda bed: bed.treering("learn", "--index", "--after", "10", "--minutes", "0.05"), 1),
    "gate": Victim(lambda bed: [*bed.treering("gate", str(bed.patch())), "--", "sleep", "0.5"], 2),
}  # fmt: skip


def run(bed: Bed, victim: Victim, seconds: float | None) -> tuple[bool, float]:
    """Run a victim, killed with all that it started after so many seconds; whether it was, and how long it ran. What it
    printed, line by line, it has said.
    """
    process = subprocess.Popen(
        victim.command(bed), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True,
        env=plain_environment() | SMALL | {"TREERING_TRAIN_MODEL": bed.tiny()} | SOURCES,
    )  # fmt: skip
    started = time.monotonic()
    lines: list[str] = []

    def listen() -> None:
        lines.extend(line.decode("utf-8", "replace").strip() for line in process.stdout or ())

    helpers = [threading.Thread(target=listen), threading.Thread(target=victim.use, args=(bed, process))]
    for helper in helpers:
        helper.start()
    killed = False
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        killed = True
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for helper in helpers:
        helper.join()
    bed.said |= {line for line in lines if line.startswith(("reserved ", "settled "))}
    if not killed and process.returncode:
        raise SystemExit(f"a run that nothing disturbed failed: {victim.command(bed)}")
    return killed, time.monotonic() - started


def held(bed: Bed) -> set[str]:
    """All that the store acknowledges: commits, calls and what they cost, models."""
    from treering.store import Store
    from treering.store.ledger import Ledger

    found = set()
    with Store(bed.store) as store:
        found |= {f"commit {name}" for name in store.known()}
    with Ledger(bed.store, reading=True) as ledger:
        for purpose, spent in ledger.db.execute("SELECT purpose, spent FROM spending"):
            found.add(f"reserved {purpose.removeprefix('call ')}")
            if spent is not None:
                found.add(f"settled {purpose.removeprefix('call ')}")
    current = bed.store / "models" / "current"
    if current.is_file():
        found.add("a current model")
    return found


def sound(bed: Bed, *, everything: bool = False) -> list[str]:
    """What is wrong with the store."""
    from treering import caring, opening
    from treering.report import Reporter

    found = caring.verify(opening.place(bed.repo, bed.store), Reporter(), everything=everything)
    return [f"{part.name}: {wrong}" for part in found.parts for wrong in part.wrong]


def lost(bed: Bed, before: set[str], when: str) -> None:
    missing = sorted((before | bed.said) - held(bed))
    if missing:
        raise SystemExit(f"{when} this is lost: {missing[:5]} ({len(missing)})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repo", type=Path, nargs="?", help="a bare repository; it is copied, and the copy grows")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--only", default=",".join(VICTIMS), help="victims, parted by commas")
    parser.add_argument("--seed", type=int, default=7)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="treering-benchmark-") as temporary:
        folder = Path(temporary)
        bed = Bed(folder / "repo", folder / "store", folder, random.Random(chosen.seed))  # noqa: S311  (it chooses moments)
        if chosen.repo:
            git(folder, "clone", "--quiet", "--bare", str(chosen.repo.resolve()), str(bed.repo))
        else:
            synthetic(bed.repo, 300)
        git(bed.repo, "symbolic-ref", "HEAD", "refs/heads/main")
        told = work(bed, {name: VICTIMS[name] for name in chosen.only.split(",")}, chosen.kills)
        compare(bed)
        print(json.dumps(told))


def work(bed: Bed, victims: dict[str, Victim], kills: int) -> dict[str, object]:
    """Kill so many times; what came of it."""
    run(bed, VICTIMS["index"], None)
    typical = {name: victim.seconds for name, victim in victims.items()}
    done: Counter[str] = Counter()
    finished = at_once = 0
    names: Sequence[str] = [name for name, victim in victims.items() for _ in range(victim.share)]
    while done.total() < kills:
        bed.rounds += 1
        name = names[done.total() % len(names)]
        victim = victims[name]
        victim.before(bed)
        before = held(bed)
        killed, seconds = run(bed, victim, bed.dice.uniform(0.05, 1.0) * typical[name])
        if not killed:
            finished += 1
            typical[name] = seconds
            continue
        done[name] += 1
        lost(bed, before, f"right after kill {done.total()} ({name})")
        at_once += not sound(bed)
        if victim.ends:
            _, typical[name] = run(bed, victim, None)
        else:
            run(bed, VICTIMS["index"], None)
        wrong = sound(bed)
        if wrong:
            raise SystemExit(f"after kill {done.total()} ({name}) and the next run: {wrong}")
        lost(bed, before, f"after kill {done.total()} ({name}) and the next run")
        print(f"{done.total():>4} {name:<8} after {seconds:5.2f} s: nothing wrong, nothing lost", file=sys.stderr)
    return {
        "kills": done.total(), "by_victim": dict(done), "finished_before_the_kill": finished,
        "sound_right_after_the_kill": at_once, "wrong_after_the_next_run": 0, "lost": 0,
        "acknowledged": len(bed.said),
    }  # fmt: skip


def compare(bed: Bed) -> None:
    """Everything of the store, and its records beside those of an undisturbed one."""
    run(bed, VICTIMS["index"], None)
    if wrong := sound(bed, everything=True):
        raise SystemExit(f"at the end: {wrong}")
    calm = Bed(bed.repo, bed.folder / "calm", bed.folder, bed.dice)
    run(calm, VICTIMS["scrape"], None)
    if _records(bed.store) != _records(calm.store):
        raise SystemExit("the store differs from that of an undisturbed run")


def _records(store: Path) -> list[str]:
    from treering.store import Store

    with Store.existing(store) as opened:
        said = {number: repr(features) for number, features in opened.features()}
        pairs = zip(opened.ids(), opened.records(), strict=True)
        return [f"{record!r} {said.get(number)}" for number, record in pairs]


if __name__ == "__main__":
    main()
