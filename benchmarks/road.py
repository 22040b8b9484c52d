"""How long the road takes: a scrape alone, scrape and index in one pass, index again with nothing new, and a search,
each as a whole process.

Nothing is compared with another tool: a first index is beside a second that finds nothing new, and a search by its
whole process is what a user waits for. All in a store of its own, gone at the end.

    python benchmarks/road.py REPO [--query TEXT ...] [--json]
"""

import argparse
import json
import statistics
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.measuring import TREERING, Finished, branch_tips, describe, git, machine, table, timed

SEARCHES = 7
SEARCH_AND_TELL = """
import json, sys
from treering.cli.main import main
try:
    main()
finally:
    heavy = [name for name in ("torch", "transformers", "lightning") if name in sys.modules]
    print(f"\\n{json.dumps(heavy)}", file=sys.stderr)
"""


@dataclass(frozen=True, slots=True)
class Searched:
    """One query in whole processes."""

    query: str
    seconds: list[float]
    first: str
    talk: str

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def treering(*arguments: str | Path) -> Finished:
    """One command to its end; a failure is the benchmark's end, with what it said."""
    done = timed([TREERING, *arguments])
    if done.code:
        raise SystemExit(f"treering {arguments[0]} ended with {done.code}: {done.complaint}")
    return done


def queries_of(repo: Path) -> list[str]:
    """Three subjects of five to nine words, a quarter, half and three quarters along the history: something that
    somebody who knows the repository could ask.
    """
    log = git(repo, "log", "--no-merges", "--reverse", "--format=%s", "--stdin", stdin=branch_tips(repo))
    subjects = [subject for subject in dict.fromkeys(log.splitlines()) if 5 <= len(subject.split()) <= 9]
    if not subjects:
        return ["fix a bug", "add a test", "change the documentation"]
    return [subjects[len(subjects) * quarter // 4] for quarter in (1, 2, 3)]


def search(repo: Path, store: Path, query: str) -> Searched:
    runs = [treering("search", query, "--repo", repo, "--store", store, "--json") for _ in range(SEARCHES)]
    hits = json.loads(runs[0].stdout)
    return Searched(
        query,
        [run.seconds for run in runs],
        f"{hits[0]['subject']} ({hits[0]['commit_hash'][:7]})" if hits else "nothing",
        runs[0].stderr.decode("utf-8", "replace").strip(),
    )


def heavy_imports(repo: Path, store: Path, query: str) -> list[str]:
    """Which of the heavy libraries a search has imported when it ends, told by the process itself."""
    done = timed([sys.executable, "-c", SEARCH_AND_TELL, "search", query, "--repo", repo, "--store", store])
    if done.code:
        raise SystemExit(f"treering search ended with {done.code}: {done.complaint}")
    heavy: list[str] = json.loads(done.complaint)
    return heavy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repo", type=Path)
    parser.add_argument("--query", action="append", help="what to search, instead of three subjects of the repository")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    repo = chosen.repo.resolve()
    where = machine()
    with tempfile.TemporaryDirectory(prefix="treering-benchmark-") as folder:
        store = Path(folder) / "store"
        place = ("--repo", repo, "--store", store, "--json")
        steps = {
            "scrape alone": treering("scrape", "--repo", repo, "--store", Path(folder) / "alone", "--json"),
            "scrape and index": treering("index", *place),
            "index, nothing new": treering("index", *place),
        }
        searches = [search(repo, store, query) for query in chosen.query or queries_of(repo)]
        heavy = heavy_imports(repo, store, searches[0].query)
        size = sum(path.stat().st_size for path in store.rglob("*") if path.is_file())
    told = {
        "machine": where,
        "repo": str(chosen.repo),
        "steps": {
            name: {"seconds": step.seconds, "memory": asdict(step.memory), "told": json.loads(step.stdout)}
            for name, step in steps.items()
        },
        "store_bytes": size,
        "searches": [asdict(searched) | {"median_seconds": searched.median} for searched in searches],
        "imported_by_search": heavy,
    }
    if chosen.json:
        print(json.dumps(told, indent=2, ensure_ascii=False))
        return
    print(f"{chosen.repo}: {describe(where)}\n")
    rows = [("step", "seconds", "what it told")]
    for name, step in steps.items():
        answer = {key: value for key, value in json.loads(step.stdout).items() if key != "seconds"}
        rows.append((name, f"{step.seconds:.2f}", ", ".join(f"{value:,} {key}" for key, value in answer.items())))
    print(table(rows))
    print(f"the store: {size / 1e6:.1f} MB")
    for name, step in steps.items():
        print(f"peak memory of {name}: {step.memory}")
    print(f"\nsearch, the median of {SEARCHES} whole processes each:")
    for searched in searches:
        spread = f"{min(searched.seconds):.2f} to {max(searched.seconds):.2f}"
        print(f"  {searched.median:.2f} s ({spread}): {searched.query!r} -> {searched.first}")
        if searched.talk:
            print(f"    it said: {searched.talk}")
    print(f"torch imported by a search: {'yes' if 'torch' in heavy else 'no'}")


if __name__ == "__main__":
    main()
