"""How fast a history is read: treering beside one `git log` and the usual PyDriller and GitPython scrapers.

All make the inserted and deleted lines of every file of every commit, each as a whole process from its start (Python's
too) to its end. The scrapers come in two sizes: the least loop over files that people write, and the one that fills the
record of the seed (added, modified, deleted and renamed files told apart; lines of every file and of every commit, of
merges too). Every row says which commits it read:

    whole   every commit of all branches
    newest  the N newest of them, the same hashes for everyone (`--peer-commits 0`: the slow ones read the whole too)

    python benchmarks/extraction.py REPO [--peer-commits N] [--peers-python PATH] [--rounds R] [--json]

The peers come with `pip install -r benchmarks/requirements.txt`, best in an environment of their own. They see a copy
of the repository, made before the clock starts, because PyDriller writes into the config of what it opens.
What they do not do as treering does: PyDriller gives merges no files, `commit.stats` of GitPython knows no renames.
Memory is read in one more run of its own, because reading it takes time.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.measuring import Finished, Memory, branch_tips, describe, git, git_dir_of, machine, table, timed


@dataclass(slots=True)
class Totals:
    """What a reader found. The lines of merges are also told apart: PyDriller gives a merge none."""

    commits: int = 0
    files: int = 0
    insertions: int = 0
    deletions: int = 0
    merges: int = 0
    merge_insertions: int = 0
    merge_deletions: int = 0
    unread: int = 0

    def add(self, changes: Sequence[tuple[str, str, int, int]], *, merge: bool) -> None:
        insertions = sum(change[2] for change in changes)
        deletions = sum(change[3] for change in changes)
        self.commits += 1
        self.files += len(changes)
        self.insertions += insertions
        self.deletions += deletions
        if merge:
            self.merges += 1
            self.merge_insertions += insertions
            self.merge_deletions += deletions


def by_treering(repo: Path, wanted: list[str]) -> Totals:
    """All commits, or those wanted, by treering with its default settings."""
    from treering.git.reader import open_reader

    totals = Totals()
    with open_reader(repo) as reader:
        for commit in reader.commits(wanted or [node.hash for node in reader.nodes]):
            changes = [(file.status, file.path, file.insertions, file.deletions) for file in commit.changes]
            totals.add(changes, merge=len(commit.parents) > 1)
            totals.unread += not commit.diff_complete
    return totals


def by_pydriller(repo: Path, wanted: list[str], *, record: bool) -> Totals:
    """The usual loop over ``modified_files``; for a whole ``record``, with the lines of the commit."""
    from git.exc import GitCommandError
    from pydriller import Git

    totals = Totals()
    miner = Git(str(repo))
    for name in wanted:
        commit = miner.get_commit(name)
        try:
            files = [
                (file.change_type.name, file.new_path or file.old_path, file.added_lines, file.deleted_lines)
                for file in commit.modified_files
            ]
            if record:
                facts = (commit.author.name, commit.author.email, commit.msg, commit.committer_date, commit.parents)
                assert facts[0] is not None and commit.insertions + commit.deletions >= 0  # noqa: S101, PT018
        except GitCommandError:  # objects are missing
            files, totals.unread = [], totals.unread + 1
        totals.add(files, merge=commit.merge)
    return totals


def by_gitpython(repo: Path, wanted: list[str], *, record: bool) -> Totals:
    """The usual loop over ``commit.stats``; for a whole ``record``, with ``diff`` to tell the kinds of change."""
    from git import NULL_TREE, Repo
    from git.exc import GitCommandError

    totals = Totals()
    with Repo(repo) as opened:
        for name in wanted:
            commit = opened.commit(name)
            try:
                files = [
                    (str(file["change_type"]), str(path), file["insertions"], file["deletions"])
                    for path, file in commit.stats.files.items()
                ]
                if record:
                    facts = (commit.author.name, commit.author.email, commit.message, commit.committed_datetime)
                    assert len(facts) == 4  # noqa: S101
                    changes = commit.parents[0].diff(commit) if commit.parents else commit.diff(NULL_TREE)
                    for change in changes:
                        assert change.change_type  # noqa: S101  (what a scraper would read)
            except GitCommandError:  # objects are missing
                files, totals.unread = [], totals.unread + 1
            totals.add(files, merge=len(commit.parents) > 1)
    return totals


READERS: dict[str, Callable[[Path, list[str]], Totals]] = {
    "treering": by_treering,
    "PyDriller, files": partial(by_pydriller, record=False),
    "PyDriller, record": partial(by_pydriller, record=True),
    "GitPython, stats": partial(by_gitpython, record=False),
    "GitPython, record": partial(by_gitpython, record=True),
}
PEERS = {reader: "pydriller" if reader.startswith("PyDriller") else "git" for reader in READERS if reader != "treering"}
GIT_LOG = ["--raw", "--numstat", "-M", "--diff-merges=first-parent"]


@dataclass(slots=True)
class Measured:
    """One reader on one set of commits, over all rounds. ``problem`` is why there are no figures."""

    reader: str
    set_name: str
    commits: int
    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    totals: Totals | None = None
    memory: Memory | None = None
    problem: str = ""

    @property
    def rate(self) -> float:
        """Commits per second of the median round."""
        return self.commits / statistics.median(self.seconds)

    def take(self, done: Finished) -> None:
        if done.code:
            self.problem = f"ended with {done.code}: {done.complaint}"
            return
        self.seconds.append(done.seconds)
        self.cpu.append(done.cpu)
        if done.stdout:
            self.totals = Totals(**json.loads(done.stdout))


def measure(repo: Path, count: int, peers_python: Path, rounds: int) -> Iterator[Measured]:
    """Every reader on its sets of commits, in turn, ``rounds`` times or more: a busy minute falls on all."""
    tips = branch_tips(repo)
    whole = git(repo, "rev-list", "--date-order", "--stdin", stdin=tips).split()
    newest = whole[: count or None]

    def log(*walk: str) -> list[str | Path]:
        return ["git", "-C", repo, "log", *GIT_LOG, *walk, "--stdin"]

    def inner(python: str | Path, reader: str, folder: Path) -> list[str | Path]:
        return [python, __file__, folder, "--inner", reader]

    def lines(hashes: list[str]) -> bytes:
        return "".join(f"{name}\n" for name in hashes).encode()

    with tempfile.TemporaryDirectory(prefix="treering-benchmark-") as temporary:
        # Making the copy also brings the objects into the page cache, for everyone.
        copy = Path(temporary) / "copy"
        shutil.copytree(git_dir_of(repo), copy / ".git", symlinks=True)
        plan = [
            (Measured("treering", "whole", len(whole)), inner(sys.executable, "treering", repo), b""),
            (Measured("git log", "whole", len(whole)), log(), tips),
        ]
        if len(newest) < len(whole):
            plan += [
                (Measured("treering", "newest", len(newest)), inner(sys.executable, "treering", repo), lines(newest)),
                (Measured("git log", "newest", len(newest)), log("--no-walk=unsorted"), lines(newest)),
            ]
        for peer, module in PEERS.items():
            measured = Measured(peer, plan[-1][0].set_name, len(newest))
            plan.append((measured, inner(peers_python, peer, copy), lines(newest)))
            if subprocess.run([peers_python, "-c", f"import {module}"], capture_output=True).returncode:
                measured.problem = "not installed: pip install -r benchmarks/requirements.txt"
        quick = [row for row in plan if row[0].reader not in PEERS]
        slow = [row for row in plan if row[0].reader in PEERS and not row[0].problem]
        for _ in range(rounds):
            # The quick ones again before each slow one: seconds are easily disturbed, half minutes are not.
            for measured, command, stdin in [row for peer in slow for row in (*quick, peer)] or quick:
                measured.take(timed(command, stdin=stdin, discard=measured.reader == "git log", watched=False))
        for measured, command, stdin in plan:
            if measured.reader == "treering" and not measured.problem:
                measured.memory = timed(command, stdin=stdin).memory
    for measured, command, stdin in plan:
        if measured.reader == "git log" and not measured.problem:
            measured.totals = _totals_of_git_log(command, stdin, measured.commits)
        yield measured


def _totals_of_git_log(command: list[str | Path], stdin: bytes, commits: int) -> Totals:
    """What `git log` said to /dev/null, asked once more outside the timing. Does not tell merges apart."""
    said = timed([*command, "--format="], stdin=stdin).stdout.decode("utf-8", "replace")
    rows = [line.split("\t") for line in said.splitlines() if line[:1].isdigit() or line.startswith("-\t-\t")]
    insertions, deletions = (sum(int(row[side]) for row in rows if row[side] != "-") for side in (0, 1))
    return Totals(commits, len(rows), insertions, deletions)


def show(results: list[Measured]) -> None:
    ours = {measured.set_name: measured for measured in results if measured.reader == "treering"}
    rows: list[Sequence[str]] = [
        ("", "commits", "seconds", "of all rounds", "CPU", "commits/s", "x same", "x whole", "files", "+", "-")
    ]
    for measured in results:
        which = f"{measured.commits:,} {measured.set_name}"
        if not measured.seconds:
            rows.append((measured.reader, which, *["-"] * (len(rows[0]) - 2)))
            continue
        totals = measured.totals or Totals()
        times = ratios(measured, ours)
        rows.append(
            (
                measured.reader,
                which,
                f"{statistics.median(measured.seconds):.2f}",
                f"{min(measured.seconds):.2f} to {max(measured.seconds):.2f}",
                f"{statistics.median(measured.cpu):.2f}",
                f"{measured.rate:,.0f}",
                *(f"{times[kind]:.2f}" if kind in times else "-" for kind in ("same", "whole")),
                f"{totals.files:,}",
                f"{totals.insertions:,}",
                f"{totals.deletions:,}",
            )
        )
    print(table(rows))
    print("\nx same: how many times as many commits a second treering reads of the same commits;")
    print("x whole: the same with treering's speed over the whole history, which are other commits where N are fewer.")
    for measured in results:
        if measured.problem:
            print(f"{measured.reader}, {measured.set_name}: {measured.problem}")
        elif measured.totals and measured.totals.unread:
            print(f"{measured.reader}, {measured.set_name}: {measured.totals.unread} commits could not be read whole")
    for name, measured in ours.items():
        if found := measured.totals:
            print(
                f"treering, {name}: {found.merges:,} merges with +{found.merge_insertions:,}"
                f" -{found.merge_deletions:,} are among them; PyDriller gives merges no files"
            )
        print(f"treering, {name}: peak memory {measured.memory}")


def ratios(measured: Measured, ours: dict[str, Measured]) -> dict[str, float]:
    """Treering's commits per second over this reader's: on the same commits, and over the whole history."""
    compared = {"same": ours[measured.set_name], "whole": ours["whole"]}
    return {kind: other.rate / measured.rate for kind, other in compared.items() if other.seconds and measured.seconds}


def as_json(results: list[Measured]) -> list[dict[str, object]]:
    ours = {measured.set_name: measured for measured in results if measured.reader == "treering"}
    return [
        asdict(measured)
        | {
            "commits_per_second": measured.rate if measured.seconds else None,
            "treering_times": ratios(measured, ours),
        }
        for measured in results
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repo", type=Path)
    parser.add_argument("--peer-commits", type=int, default=300, metavar="N")
    parser.add_argument("--peers-python", type=Path, default=Path(sys.executable), metavar="PATH")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured; the median counts")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--inner", choices=list(READERS), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.inner:
        # The measured process: hashes on standard input, none for all.
        totals = READERS[chosen.inner](chosen.repo, sys.stdin.read().split())
        print(json.dumps(asdict(totals)))
        return
    where = machine()
    results = list(measure(chosen.repo.resolve(), chosen.peer_commits, chosen.peers_python, chosen.rounds))
    if chosen.json:
        print(json.dumps({"machine": where, "repo": str(chosen.repo), "results": as_json(results)}, indent=2))
        return
    print(f"{chosen.repo}: the median of {chosen.rounds} round(s); {describe(where)}\n")
    show(results)


if __name__ == "__main__":
    main()
