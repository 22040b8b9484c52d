"""Many repositories at once: two workers beside one, and beside what one would write in the shell; what a second run
takes; and what a killed worker and a killed driver cost.

    python benchmarks/fleet.py REPO [REPO ...] [--count 200] [--commits 100] [--predict REPO]... [--keep DIR] [--json]

The fleet is made of slices of these repositories: all that came in between two commits of the main line, merges and
branches with it, some `--commits` each, written anew by `git fast-export` and `fast-import`. Five of them are broken,
each in another way. From what each of these took, by its commits and the bytes of its objects, it is told beforehand
what ten slices of another repository, five times as long, will take (`--predict`); then they are indexed. Counts
seconds of the whole command, Ray's start included; exits 1 where anything is not as it should be.
"""

import argparse
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks import measuring
from benchmarks.measuring import (
    TREERING,
    Finished,
    descendants,
    describe,
    git,
    machine,
    plain_environment,
    table,
    timed,
)

measuring.SAMPLE_SECONDS = 1.0  # looking at a cluster's dozens of processes takes as long as their work; peaks are kept

PROBES = 4
"""So many repositories of the fleet are compared with what one command makes of each alone."""
BY_SHELL = 4
"""One of so many is indexed by the shell, and its time is taken for that of as many."""
QUERIES = ("fix a crash", "add a test", "update the documentation")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repos", nargs="+", type=Path, metavar="REPO")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--commits", type=int, default=100)
    parser.add_argument("--predict", type=Path, metavar="REPO", action="append", default=[])
    parser.add_argument("--keep", type=Path, help="where the repositories and the last fleet are left")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    where = machine()
    with tempfile.TemporaryDirectory(prefix="treering-benchmark-") as temporary:
        folder = chosen.keep or Path(temporary)
        names = made(folder / "repositories", chosen.repos, chosen.count, chosen.commits)
        told = measured(folder, names)
        took, start = told.pop("took"), told.pop("start")
        told["told"] += [predicted(folder, repo, chosen.commits * 5, took, start) for repo in chosen.predict]
    if chosen.json:
        print(json.dumps({"machine": where, **told}, indent=2))
        return
    print(f"{chosen.count} repositories, {told['commits']:,} commits, {told['vectors']:,} vectors: {describe(where)}\n")
    print(table([("way", "seconds", "beside two workers"), *told["ways"]]))
    print("\n" + "\n".join(told["told"]))


# the repositories -----------------------------------------------------------------------------------------------------


def made(folder: Path, repos: list[Path], count: int, commits: int) -> list[str]:
    """The repositories of the fleet, four of them broken, and a dead address."""
    folder.mkdir(parents=True, exist_ok=True)
    slices = (one for repo in repos for one in _slices(repo, folder, commits))
    places = []
    for number, (repo, older, newer) in zip(range(count - 1), slices, strict=False):
        place = folder / f"slice-{number:04}.git"
        if not (place / "HEAD").exists():
            _slice(repo, older, newer, place)
        places.append(place)
    if len(places) < count - 1:
        raise SystemExit(f"there are {len(places)} slices of {commits} commits only: name more repositories")
    for place, harm in zip(places[-4:], (_empty, _torn, _lost, _none), strict=True):
        harm(place)
    return [*map(str, places), "http://127.0.0.1:9/dead.git"]


def _slices(repo: Path, folder: Path, commits: int) -> Iterator[tuple[Path, str, str]]:
    """(repository, commit, later commit) of the main line, with about so many commits in between."""
    shared = folder.parent / f"{repo.name}.shared"
    if not shared.exists():
        git(repo, "clone", "--quiet", "--bare", "--shared", str(repo.absolute()), str(shared.absolute()))
    line = git(shared, "rev-list", "--first-parent", "--reverse", "HEAD").split()
    step = max(1, round(commits * len(line) / int(git(shared, "rev-list", "--count", "HEAD"))))
    for start in range(0, len(line) - step, step):
        yield shared, line[start], line[start + step]


def _slice(repo: Path, older: str, newer: str, place: Path) -> None:
    git(repo, "update-ref", "refs/heads/slice", newer)
    git(repo, "init", "--quiet", "--bare", "--initial-branch=slice", str(place.absolute()))
    export: list[str | Path] = ["git", "-C", repo, "fast-export", "--full-tree"]
    export += ["refs/heads/slice", f"^{older}"]
    with subprocess.Popen(export, stdout=subprocess.PIPE, env=plain_environment()) as exported:
        imported = subprocess.run(
            ["git", "-C", place, "fast-import", "--quiet", "--date-format=raw-permissive"],
            stdin=exported.stdout,
            env=plain_environment(),
        )
    if exported.returncode or imported.returncode:
        raise SystemExit(f"no slice {older}..{newer} of {repo}")


def _empty(place: Path) -> None:
    git(place, "update-ref", "-d", "refs/heads/slice")


def _torn(place: Path) -> None:
    for pack in (place / "objects" / "pack").glob("*.pack"):
        pack.chmod(0o600)
        os.truncate(pack, pack.stat().st_size // 2)


def _lost(place: Path) -> None:
    (place / "refs" / "heads" / "slice").write_text("1" * 40 + "\n")


def _none(place: Path) -> None:
    (place / "HEAD").unlink(missing_ok=True)
    (place / "broken").touch()


# the measurement ------------------------------------------------------------------------------------------------------


def measured(folder: Path, names: list[str]) -> dict[str, Any]:
    listed, whole = folder / "list", len(names) - 5
    listed.write_text("".join(f"{name}\n" for name in names))
    told: list[str] = []

    def update(fleet: str, workers: int, *more: str | Path) -> tuple[Finished, dict[str, Any]]:
        done = timed([TREERING, "fleet", "update", folder / fleet, "--workers", str(workers), "--json", *more])
        found = json.loads(done.stdout)
        if found["states"] != {"complete": whole, "failed": 5}:
            raise SystemExit(f"{fleet}, {workers} workers: {found['states']}; {done.complaint}")
        print(f"{fleet}: {done.seconds:.1f} s", file=sys.stderr)
        return done, found

    two, found = update("two", 2, "--list", listed)
    took = _status(folder / "two")["repositories"]  # before what the next run takes, which does nothing, is there
    one, _ = update("one", 1, "--list", listed)
    again, nothing = update("two", 2)
    if nothing["new"]:
        raise SystemExit(f"a second run read {nothing['new']} commits anew")
    few = folder / "few"
    few.write_text("".join(f"{name}\n" for name in (*names[: max(1, len(names) // 10)], *names[-5:])))
    driver = timed([TREERING, "fleet", "update", folder / "part", "--workers", "2", "--json", "--list", few])
    shell = _shell(folder, names)
    told.append(_killed(folder, listed, whole))
    told.append(_compared(folder, names))
    told.append(
        f"memory of the driver: {two.memory.process / 1e6:.0f} MB, of a tenth of the repositories"
        f" {driver.memory.process / 1e6:.0f} MB; largest other process {two.memory.largest_child / 1e6:.0f} MB"
    )
    told += [f"failed: {one['name'] or one['source']}: {one['cause']}" for one in found["incomplete"]]
    ways = [
        ("two workers", two.seconds), ("one worker", one.seconds), ("two workers, nothing new", again.seconds),
        ("xargs -P 2 treering index", shell),
    ]  # fmt: skip
    return {
        "commits": found["commits"], "vectors": found["vectors"], "told": told, "took": took,
        "start": two.seconds - sum(one["seconds"] for one in took) / 2,
        "ways": [(way, f"{seconds:.1f}", f"{seconds / two.seconds:.2f}") for way, seconds in ways],
    }  # fmt: skip


def predicted(folder: Path, repo: Path, commits: int, took: list[dict[str, Any]], start: float) -> str:
    """What a run will take by what the repositories of other ones took, and what it takes."""
    known = [one for one in took if one["state"] == "complete"]
    seconds = np.array([one["seconds"] for one in known])
    sizes = np.array([(one["commits"], _megabytes(Path(one["source"])), 1) for one in known])
    cost, *_ = np.linalg.lstsq(sizes, seconds, rcond=None)
    slices = list(itertools.islice(_slices(repo, folder / "repositories", commits), 10))
    places = [folder / "repositories" / f"{repo.stem}-{number:02}.git" for number in range(len(slices))]
    for place, one in zip(places, slices, strict=True):
        if not (place / "HEAD").exists():
            _slice(*one, place)
    sizes = np.array([(int(git(place, "rev-list", "--count", "slice")), _megabytes(place), 1) for place in places])
    told = start + float(np.sum(sizes @ cost)) / 2
    done = timed([TREERING, "fleet", "update", folder / repo.stem, "--workers", "2", "--json", *places])
    found = json.loads(done.stdout)
    if found["states"] != {"complete": len(places)}:
        raise SystemExit(f"{repo.stem}: {found['states']}; {done.complaint}")
    each, megabyte, fixed = cost
    return (
        f"told beforehand, by {fixed:.2f} s a repository, {1000 * each:.1f} ms a commit, {megabyte:.2f} s a MB of"
        f" objects and {start:.1f} s beside: {told:.0f} s for {sizes[:, 0].sum():,.0f} commits and"
        f" {sizes[:, 1].sum():,.0f} MB of {repo.stem} in {len(places)} repositories; it took {done.seconds:.0f} s"
        f" ({done.seconds / told - 1:+.0%})"
    )


def _megabytes(place: Path) -> float:
    return sum(path.stat().st_size for path in (place / "objects").rglob("*") if path.is_file()) / 1e6


def _status(fleet: Path) -> dict[str, Any]:
    done = timed([TREERING, "fleet", "status", fleet, "--json"])
    return json.loads(done.stdout) if not done.code else {"states": {}, "repositories": []}


def _shell(folder: Path, names: list[str]) -> float:
    """What one would write in the place of all this."""
    command = f"xargs -P 2 -I % sh -c '{TREERING} index --repo % --store {folder}/shell/$(basename %) || true'"
    started = time.monotonic()
    subprocess.run(
        ["bash", "-c", command], input="\n".join(names[:-5:BY_SHELL]).encode(),
        env=plain_environment() | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True,
    )  # fmt: skip
    return (time.monotonic() - started) * BY_SHELL


def _killed(folder: Path, listed: Path, whole: int) -> str:
    """Kill a worker, then the driver; then run to the end."""
    fleet = folder / "killed"
    command: list[str | Path] = [TREERING, "fleet", "update", fleet, "--workers", "2", "--json", "--list", listed]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=plain_environment())
    _until(process, lambda: _complete(fleet) > whole / 3)
    # `ray::…` alone works; `ray::IDLE` waits.
    victims = [one for one in descendants(process.pid) if _command(one).startswith("ray::MapWorker")]
    os.kill(victims[0], signal.SIGKILL)
    killed = {one.name for one in (fleet / "running").iterdir()}
    _until(process, lambda: _complete(fleet) > whole * 2 / 3)
    killed |= {one.name for one in (fleet / "running").iterdir()}
    process.kill()
    process.wait()
    done = _complete(fleet)
    last = timed([TREERING, "fleet", "update", fleet, "--workers", "2", "--json"])
    found = json.loads(last.stdout)
    if found["states"] != {"complete": whole, "failed": 5}:
        raise SystemExit(f"after the kills: {found['states']}; {last.complaint}")
    return (
        f"a worker killed, then the driver, when {done} of {whole} were complete; {len(killed)} were being worked on,"
        f" {len(killed) / whole:.1%}: nothing else was done again. The rest took {last.seconds:.1f} s; all is complete"
    )


def _until(process: "subprocess.Popen[bytes]", true: Callable[[], bool]) -> None:
    while not true():
        if process.poll() is not None:
            raise SystemExit(f"the update ended with {process.returncode} before it could be killed")
        time.sleep(0.1)


def _complete(fleet: Path) -> int:
    return int(_status(fleet)["states"].get("complete", 0))


def _command(process: int) -> str:
    try:
        return Path(f"/proc/{process}/cmdline").read_text("utf-8", "replace")
    except OSError:
        return ""


def _compared(folder: Path, names: list[str]) -> str:
    """Some of the repositories against what one process makes of each alone."""
    probes = names[: -5 : max(1, (len(names) - 5) // PROBES)]
    asked: list[list[Any]] = [["export", folder / "rows.jsonl", "--table", "commits"]]
    asked += [["search", query, "--json"] for query in QUERIES]
    for name in probes:
        alone, stem = folder / "alone" / Path(name).stem, Path(name).stem
        timed([TREERING, "index", "--repo", name, "--store", alone])
        for fleet in ("one", "two", "killed"):
            store = folder / fleet / "stores" / stem
            for ask in asked:
                told = [_asked(folder, ask, name, place) for place in (alone, store)]
                if told[0] != told[1]:
                    raise SystemExit(f"{fleet}/{stem} answers `{ask[0]}` otherwise than alone")
    return f"{len(probes)} repositories: records byte for byte, and hits of {len(QUERIES)} searches, as indexed alone"


def _asked(folder: Path, ask: list[Any], repo: str, store: Path) -> bytes:
    done = timed([TREERING, *ask, "--repo", repo, "--store", store])
    return (folder / "rows.jsonl").read_bytes() if ask[0] == "export" else done.stdout


if __name__ == "__main__":
    main()
