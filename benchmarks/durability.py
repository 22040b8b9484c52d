"""Kill a scrape with its patches again and again at random moments (`kill -9`), and see that nothing is lost.

    python benchmarks/durability.py [REPO] [--kills 200]

After every kill the next run goes on in the same store; when one gets through, the store's records must equal those of
an undisturbed run, and a new store is begun. Exits 1 at the first difference. Compares with nobody: no peer can resume.
Without a repository a synthetic one of 2,000 commits is made.
"""

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.measuring import TREERING, plain_environment
from benchmarks.scale import synthetic


def records(store: Path) -> list[str]:
    from treering.store import Store

    with Store.existing(store) as opened:
        said = {opened_id: repr(features) for opened_id, features in opened.features()}
        ids = opened.ids()
        return [f"{record!r} {said.get(number)}" for number, record in zip(ids, opened.records(), strict=True)]


def scrape(repo: Path, store: Path, seconds: float | None) -> bool:
    """Run a scrape; killed after so many seconds. Whether it got to its end."""
    process = subprocess.Popen(
        [TREERING, "scrape", "--patches", "--repo", repo, "--store", store],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=plain_environment(), start_new_session=True,
    )  # fmt: skip
    try:
        return process.wait(seconds) == 0
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
        return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repo", type=Path, nargs="?")
    parser.add_argument("--kills", type=int, default=200)
    chosen = parser.parse_args()
    seed = random.Random(7)  # noqa: S311  (it chooses moments)
    with tempfile.TemporaryDirectory(prefix="treering-benchmark-") as temporary:
        folder = Path(temporary)
        repo = chosen.repo or folder / "repo"
        if not chosen.repo:
            synthetic(repo, 2000)
        started = time.monotonic()
        if not scrape(repo, folder / "undisturbed", None):
            raise SystemExit("the undisturbed run failed")
        whole = time.monotonic() - started
        wanted = records(folder / "undisturbed")
        kills = rounds = 0
        while kills < chosen.kills:
            store = folder / f"store{rounds}"
            # Mostly a part of what a whole run takes, so that several kills fall on one history.
            while not scrape(repo, store, seed.uniform(0.05, 0.9) * whole):
                kills += 1
            rounds += 1
            if records(store) != wanted:
                raise SystemExit(f"after {kills} kills a store differs from that of an undisturbed run")
        print(json.dumps({"kills": kills, "stores": rounds, "commits": len(wanted), "differences": 0}))


if __name__ == "__main__":
    main()
