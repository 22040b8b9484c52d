"""Whether the gate keeps its word under tests of every bad kind, and what it costs.

    python benchmarks/gating.py [REPO] [--gates 100] [--at-once 4] [--rounds 10] [--json]

The first part: so many gates on a small repository, several at once, each with tests that pass, fail, hang, fork, write
everywhere or eat memory, in turn; for each kind how many verdicts were right, and afterwards what of them is left. The
second part: a patch to REPO (the small repository, without one) whose tests do next to nothing, by the gate, and by
hand as a script would: a plain clone, `git apply`, the tests, a commit, a push.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.measuring import describe, git, machine, table

from treering import gating, opening
from treering.gating import Verdict

MARK = "sleep 8642"
"""What hangs and flees, so that it can be looked for afterwards."""
LIMITS: dict[str, object] = {"seconds": 8.0, "memory_mb": 256, "disk_mb": 64, "processes": 128}
EAT = "import os\nwhile True:\n    os.fork() if len(eaten) == 2 else 0\n    eaten.append(bytearray(b'x') * (40 << 20))"


@dataclass(frozen=True)
class Kind:
    """One kind of tests: what they do, and what the gate must say. A fork bomb may die out at the kernel's limit before
    it is seen; what it left behind then sleeps until time is up, and ``or_else`` is right.
    """

    name: str
    command: tuple[str, ...]
    verdict: str
    or_else: str = ""

    def right(self, verdict: str) -> bool:
        return verdict in (self.verdict, self.or_else)


KINDS = (
    Kind("pass", ("sh", "-c", "grep -q VALUE value.py"), "passed"),
    Kind("fail", ("sh", "-c", "grep -q OTHER value.py"), "failed"),
    Kind("hang, deaf to signals", ("sh", "-c", f"trap '' TERM INT HUP; (setsid {MARK} &); {MARK}"), "timed_out"),
    Kind("fork bomb", ("sh", "-c", f"f() {{ f | f & }}; f; {MARK}"), "failed", "timed_out"),
    Kind("write everywhere", ("sh", "-c",
         "for to in $VICTIM $HOME /usr /etc / /tmp . ..; do echo x > $to/x; done; rm -rf .git *; exit 1"), "failed"),
    Kind("write gigabytes", ("sh", "-c", "dd if=/dev/zero of=big bs=1M count=4000"), "failed"),
    Kind("say gigabytes", ("sh", "-c", "yes"), "timed_out"),
    Kind("eat memory", ("/usr/bin/python3", "-c", f"eaten = []\n{EAT}"), "failed"),
    Kind("leave a daemon, pass", ("sh", "-c", f"(setsid {MARK} >/dev/null 2>&1 &); exit 0"), "passed"),
    Kind("die", ("sh", "-c", "kill -9 -1; kill -9 $$"), "failed"),
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repo", nargs="?", type=Path)
    parser.add_argument("--gates", type=int, default=100)
    parser.add_argument("--at-once", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gating-") as folder:
        small = made(Path(folder) / "project")
        storm = weather(small, Path(folder), asked.gates, asked.at_once)
        cost = costs(asked.repo or small, Path(folder), asked.rounds)
    if asked.json:
        print(json.dumps({"machine": machine(), "storm": storm, "cost": cost}, indent=2))
        return
    print(f"{describe(machine())}\n")
    print(table([("tests that", "gates", "right", "seconds, median", "slowest"), *shown(storm["kinds"])]))
    for one in storm["wrong"]:
        print(f"wrong: {one}")
    print(f"\n{asked.gates} gates, {asked.at_once} at once, in {storm['seconds']:.0f} s; afterwards: {storm['left']}\n")
    print(table([("way", "seconds, median", "slowest"), *shown(cost["ways"])]))
    print(f"\nthe gate takes {cost['ratio']:.2f} times as long as a clone by hand, on {cost['files']} files")


def shown(rows: list[dict[str, object]]) -> list[tuple[str, ...]]:
    return [tuple(str(value) for value in row.values()) for row in rows]


def made(path: Path) -> Path:
    path.mkdir()
    git(path, "init", "--quiet", "--initial-branch=main")
    (path / "value.py").write_text("VALUE = 1\n")
    committed(path, "Start")
    return path


def committed(path: Path, message: str) -> None:
    git(path, "add", "--all")
    git(path, "-c", "user.name=Ada", "-c", "user.email=ada@example.com", "commit", "--quiet", "-m", message)


def patch_for(number: int) -> bytes:
    name = f"new-{number}"
    head = f"diff --git a/{name} b/{name}\nnew file mode 100644\n--- /dev/null\n+++ b/{name}\n"
    return f"{head}@@ -0,0 +1 @@\n+x\n".encode()


def weather(repo: Path, folder: Path, gates: int, at_once: int) -> dict[str, Any]:
    """All kinds of tests, several at once; what they did, and what is left of them."""
    where = opening.place(repo, None, {"gate": LIMITS})
    victim = folder / "victim"
    victim.mkdir()
    before = outside(repo, victim)

    def judge(number: int) -> tuple[Kind, Verdict, float]:
        kind, began = KINDS[number % len(KINDS)], time.monotonic()
        command = tuple(word.replace("$VICTIM", str(victim)) for word in kind.command)
        return kind, gating.gate(where, patch_for(number), command), time.monotonic() - began

    began = time.monotonic()
    with ThreadPoolExecutor(at_once) as pool:
        found = list(pool.map(judge, range(gates)))
    seconds = time.monotonic() - began
    rows = []
    for kind in KINDS:
        own = [(verdict, took) for one, verdict, took in found if one is kind]
        if own:
            took = sorted(took for _, took in own)
            right = sum(kind.right(verdict.verdict) for verdict, _ in own)
            rows.append({"tests that": kind.name, "gates": len(own), "right": right,
                         "median": round(statistics.median(took), 2), "slowest": round(took[-1], 2)})  # fmt: skip
    wrong = [
        (kind.name, verdict.verdict, verdict.reason) for kind, verdict, _ in found if not kind.right(verdict.verdict)
    ]
    passed = sum(verdict.verdict == "passed" for _, verdict, _ in found)
    branches = len(git(repo, "for-each-ref", "refs/heads/treering/").splitlines())
    left = {
        "processes": left_running(),
        "temporary folders": len(list(Path(tempfile.gettempdir()).glob(f"treering-shadow-{os.getpid()}-*"))),
        "changed outside": outside(repo, victim) != before,
        "branches that nothing passed for": branches - passed,
    }
    return {
        "kinds": rows,
        "seconds": seconds,
        "left": left,
        "wrong": wrong,
        "verdicts": Counter(one.verdict for _, one, _ in found),
    }


def outside(repo: Path, victim: Path) -> tuple[object, ...]:
    """What tests might have changed: the work tree and index, a folder that all may write, the home, the system's."""
    home = Path.home()
    return (
        git(repo, "status", "--porcelain", "--ignored"),
        git(repo, "ls-files", "--stage"),
        git(repo, "rev-parse", "HEAD"),
        sorted(victim.iterdir()),
        sorted(home.iterdir()),
        *((place, (Path(place) / "x").exists()) for place in ("/", "/usr", "/etc", tempfile.gettempdir())),
    )


def left_running() -> int:
    told = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    return sum(line.startswith((MARK, "sh -c f()", "yes", "bwrap")) for line in told.splitlines())


def costs(repo: Path, folder: Path, rounds: int) -> dict[str, Any]:
    """The same patch and the same small test, by the gate and by hand."""
    mirror = folder / "mirror.git"
    git(folder, "clone", "--quiet", "--bare", "--no-local", str(repo.resolve()), str(mirror))
    where = opening.place(mirror)
    files = len(git(mirror, "ls-tree", "-r", "--name-only", "HEAD").splitlines())

    def by_gate(number: int) -> None:
        found = gating.gate(where, patch_for(number), ("true",), ref=f"gate-{number}")
        if found.verdict != "passed":
            sys.exit(f"the gate said: {found.reason}")

    def by_hand(number: int) -> None:
        with tempfile.TemporaryDirectory(dir=folder) as clone:
            git(folder, "clone", "--quiet", str(mirror), clone)
            place = Path(clone)
            subprocess.run(["git", "-C", clone, "apply", "-"], input=patch_for(number), check=True)
            subprocess.run(["true"], cwd=clone, check=True)
            committed(place, "Change")
            git(place, "push", "--quiet", "origin", f"HEAD:refs/heads/hand-{number}")

    ways: tuple[tuple[str, Callable[[int], None]], ...] = (("treering gate", by_gate), ("clone, by hand", by_hand))
    took: dict[str, list[float]] = {name: [] for name, _ in ways}
    for number in range(rounds + 1):
        for name, way in ways:
            began = time.monotonic()
            way(number)
            if number:  # the first one warms the caches
                took[name].append(time.monotonic() - began)
    rows = [
        {"way": name, "median": round(statistics.median(times), 3), "slowest": round(max(times), 3)}
        for name, times in took.items()
    ]
    ratio = statistics.median(took["treering gate"]) / statistics.median(took["clone, by hand"])
    return {"ways": rows, "ratio": round(ratio, 2), "files": files}


if __name__ == "__main__":
    main()
