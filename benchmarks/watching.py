"""What hooks and the watcher cost, how soon a commit is found, and what survives `kill -9` and a story of commits.

    python benchmarks/watching.py REPO [--store STORE] [--only hooks,latency,idle,kills,story]
                                  [--commits 50] [--kills 30] [--story 500] [--learn]

Works on a clone, and on a copy of the store (one is made if none is given). What a user would do instead is measured
beside it: `treering index` in the hook itself. So is the hook that git has for every move of a ref. With `--learn` the
watcher of the story sees to the model too (as the environment's settings have it), and what came of that is told.
"""

import argparse
import json
import os
import random
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.measuring import describe, machine, table

from moving import Moving, bare_of_vectors, searchable, until, watching
from repositories import Repo
from treering import finding, hooking, opening, operations
from treering import watching as chapter
from treering.operate.asked import Queue
from treering.report import Reporter

PARTS = ("hooks", "latency", "idle", "kills", "story")
LONG = 900.0
"""Seconds that the index may take on a machine that is busy with something else."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repo", type=Path)
    parser.add_argument("--store", type=Path)
    parser.add_argument("--only", default=",".join(PARTS))
    parser.add_argument("--commits", type=int, default=50)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--story", type=int, default=500)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--learn", action="store_true")
    parser.add_argument("--nice", type=int, default=19, help="of the index runs; 0 on a machine that is busy")
    chosen = parser.parse_args()
    for name in [name for name in os.environ if name.startswith("TREERING_")]:
        if not (chosen.learn and name.startswith(("TREERING_TRAIN_", "TREERING_LEARN_", "TREERING_TOKENS_"))):
            del os.environ[name]
    os.environ["TREERING_WATCH_NICE"] = str(chosen.nice)
    print(f"{describe(machine())}, index runs at nice {chosen.nice}")
    with tempfile.TemporaryDirectory(prefix="treering-benchmark-", ignore_cleanup_errors=True) as folder:
        place = cloned(chosen.repo.resolve(), Path(folder) / "project", chosen.store)
        repo, dice = Repo(place), random.Random(chosen.seed)  # noqa: S311
        told = operations.status(opening.place(place))
        print(f"{told.commits:,} commits, {told.vectors:,} vectors")
        parts = {
            "hooks": lambda: hooks(repo, Path(folder) / "hooks", chosen.commits),
            "latency": lambda: latency(repo, chosen.commits, dice),
            "idle": lambda: idle(repo),
            "kills": lambda: kills(repo, chosen.kills, dice),
            "story": lambda: story(repo, chosen.story, chosen.seed, dice, learns=chosen.learn),
        }
        for part in chosen.only.split(","):
            print(f"\n{part} (load {os.getloadavg()[0]:.1f})")
            parts[part]()


def cloned(repo: Path, to: Path, store: Path | None) -> Path:
    subprocess.run(["git", "clone", "--quiet", repo, to], check=True)
    if store:
        shutil.copytree(store, to / ".treering")
    operations.index(opening.place(to), Reporter.to_stderr())
    return to


def hooks(repo: Repo, folder: Path, commits: int) -> None:
    """Milliseconds of `git commit`, in turn with each kind of hook."""
    queue = Queue(opening.place(repo.path).folder)
    queue.make()
    ask = f"#!/bin/sh\n(set -C; : >'{queue.folder}/asked') 2>/dev/null || :\n"
    whole = f"#!/bin/sh\nexec '{sys.executable}' -P -m treering index --repo '{repo.path}' >/dev/null 2>&1\n"
    kinds = {
        "none": {},
        "ours, nothing asked yet": {"post-commit": ask},
        "ours, asked already": {"post-commit": ask},
        "the same on every move of a ref": {"reference-transaction": ask},
        "an empty script": {"post-commit": "#!/bin/sh\n"},
        "treering index in the hook": {"post-commit": whole},
    }
    for kind, scripts in kinds.items():
        (folder / kind).mkdir(parents=True)
        for name, script in scripts.items():
            (folder / kind / name).write_text(script)
            (folder / kind / name).chmod(0o755)
    asked, times = queue.folder / "asked", {kind: list[float]() for kind in kinds}
    for number in range(commits):
        for kind in kinds:
            if "index" in kind and number % 10:
                continue
            asked.unlink(missing_ok=True)
            if "already" in kind:
                asked.touch()
            began = time.perf_counter()
            repo.git("-c", f"core.hooksPath={folder / kind}", "commit", "--quiet", "--allow-empty", "-m", "Go on")
            times[kind].append(1000 * (time.perf_counter() - began))
    base = statistics.median(times["none"])
    rows = [("hook", "commits", "median ms", "worst ms", "more than none")]
    for kind, took in times.items():
        middle = statistics.median(took)
        rows.append((kind, str(len(took)), f"{middle:.1f}", f"{max(took):.1f}", f"{middle - base:+.1f}"))
    print(table(rows))
    queue.take()
    queue.done()


def latency(repo: Repo, commits: int, dice: random.Random) -> None:
    """Seconds from the return of `git commit` until all of the commit is found, by words and by meaning."""
    place = opening.place(repo.path)
    rows = [("", "commits", "median s", "worst s")]
    for kind, change in (("with hooks", hooking.install), ("without", hooking.remove)):
        change(place)
        with watching(repo.path) as watcher:
            watcher.next("indexed")
            took = []
            for number in range(commits):
                time.sleep(dice.uniform(0.5, 2.5))
                made = repo.commit(f"Weigh the walrus {kind} {number}", **{f"w{number}__py": f"x = '{kind}'\n"})
                took.append(until(lambda made=made: _whole(place.folder, made), LONG))  # type: ignore[misc]  # of a default
        rows.append((kind, str(commits), f"{statistics.median(took):.2f}", f"{max(took):.2f}"))
    print(table(rows))


def _whole(store: Path, commit: str) -> bool:
    with sqlite3.connect(f"file:{store / 'treering.db'}?mode=ro", uri=True, timeout=30) as db:
        return bool(
            db.execute(
                "SELECT 1 FROM commits c JOIN documents d ON d.commit_id = c.id WHERE c.hash = ?"
                " AND position IS NOT NULL AND lengths IS NOT NULL"
                " AND EXISTS (SELECT 1 FROM vectors v WHERE v.commit_id = c.id)",
                (commit,),
            ).fetchone()
        )


def idle(repo: Repo, seconds: float = 60) -> None:
    """What a watcher takes while nothing moves."""
    with watching(repo.path) as watcher:
        watcher.next("indexed")
        time.sleep(3)
        pid = watcher.process.pid
        before, first = _cpu(pid), _memory(pid)
        time.sleep(seconds)
        used = _cpu(pid) - before
        held = f"{_memory(pid):.1f} MB, {first:.1f} MB before"
        print(f"{used:.2f} s of CPU in {seconds:.0f} s ({used / seconds:.2%}); {held}")


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _memory(pid: int) -> float:
    lines = dict(line.split(":") for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(lines["VmRSS"].split()[0]) / 1000


def kills(repo: Repo, times: int, dice: random.Random) -> None:
    """`kill -9` of the watcher again and again while commits come; then what it left undone is done."""
    place = opening.place(repo.path)
    hooking.install(place)
    made = []
    for number in range(times):
        with watching(repo.path) as watcher:
            for some in range(dice.randint(1, 3)):
                made.append(repo.commit(f"Survive {number} {some}", **{f"k{number}_{some}__py": f"x = {number}\n"}))
                time.sleep(dice.uniform(0.1, 1.5))
            watcher.process.kill()
    chapter.watch([repo.path], None, lambda _: None, once=True)
    lost = set(made) - searchable(place.folder)
    wanted = set(repo.git("rev-list", "--branches", "--remotes", "HEAD").split())
    print(
        json.dumps({
            "kills": times, "commits": len(made), "lost": len(lost), "not as the refs say":
            len(searchable(place.folder) ^ wanted), "without vectors": bare_of_vectors(place.folder),
            "left in the queue": hooking.status(place).waits,
        })
    )  # fmt: skip


def story(repo: Repo, commits: int, seed: int, dice: random.Random, *, learns: bool) -> None:
    """Commits, amends, rebases, merges, deletions, force-pushes and fetches, with nobody running an index."""
    place = opening.place(repo.path)
    hooking.install(place)
    moving, lags = Moving(repo, seed), list[float]()
    with watching(repo.path, options=["--learn"] if learns else []) as watcher:
        watcher.next("indexed")
        checked = 0
        while moving.commits < commits:
            moving.step()
            time.sleep(dice.choice([0.0, 0.0, 0.0, 0.1, 1.0]))
            if moving.commits >= checked + 25:
                checked = moving.commits
                wanted = moving.reachable()
                lags.append(until(lambda wanted=wanted: searchable(place.folder) == wanted, LONG))  # type: ignore[misc]
                print(f"{checked} commits: right after {lags[-1]:.1f} s", file=sys.stderr)
        wanted = moving.reachable()
        until(lambda: searchable(place.folder) == wanted and not bare_of_vectors(place.folder), LONG)
        runs = [event for event in watcher.rest() if event["event"] == "indexed"]
        if learns:
            until(lambda: _up_to_date(repo.path), LONG)
    said = [
        line.partition(" Say ") for line in repo.git("log", "--format=%H %s", "--branches", "--remotes").splitlines()
    ]
    words = Counter(word for _, _, word in said if word)  # a commit that was picked says what another one says
    asked = {word: name for name, _, word in said if words[word] == 1}
    with finding.desk(place, Reporter()) as desk:
        found = sum(desk.finder.search(word, limit=1)[0].commit_hash == name for word, name in asked.items())
    print(moving.steps)
    print(
        f"{moving.commits} commits, {len(runs)} index runs; at {len(lags)} looks the index was right after"
        f" {statistics.median(lags):.1f} s (median), {max(lags):.1f} s (worst); it holds the {len(wanted):,} reachable"
        f" commits and no other; of {len(asked)} asked for by their own word, {found} came first"
    )
    if learns:
        learned(place)


def _up_to_date(repo: Path) -> bool:
    """Whether no learning is under way and none is due."""
    command = [sys.executable, "-P", "-m", "treering", "learn", "--json", "--repo", str(repo)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode == 0 and json.loads(done.stdout)["outcome"] == "waiting"


def learned(place: opening.Place) -> None:
    """What the watcher learned by itself: each round, and the test of each model on commits that it never saw."""
    rows = [("round", "new commits", "outcome", "difference", "tested: model, commits, bits per byte")]
    with place.store(existing=True) as store:
        tests = {str(run.told["through"]): run.told for run in store.runs(stages=("test",))}
        for number, run in enumerate(store.runs(stages=("learn",)), start=1):
            test, span = tests.get(str(run.told["through"])), run.told["difference"]
            rows.append(
                (
                    str(number), str(run.told["new"]), str(run.told["outcome"]), json.dumps(span),
                    f"{test['model']}, {test['commits']}, {test['bits_per_byte']:.3f}" if test else "",
                )
            )  # fmt: skip
    print(table(rows))


if __name__ == "__main__":
    main()
