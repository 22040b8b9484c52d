"""Is what treering reads what git says? Every complete commit beside its own `git diff-tree` against its first parent.

The reference is one fresh `git diff-tree -r --root -M --raw --numstat -z` process for each commit, in an empty
repository that borrows the objects, with a parser of its own: nothing is shared with treering but git. Compared are
the status, the old and new path, the lines, binary or not and submodule or not of every file; the parents of every
commit; and that both walk the same commits. A commit that git cannot diff must be one that treering calls partial,
and no other.

    python benchmarks/check_reference.py REPO

Ends with 1 if anything differs.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.measuring import branch_tips, git, git_dir_of, plain_environment

from treering.git.reader import open_reader
from treering.types import Commit

RAW = re.compile(rb":(\d{6}) (\d{6}) [0-9a-f]+ [0-9a-f]+ (?:([AMDT])\0([^\0]+)|([RC])\d+\0([^\0]+)\0([^\0]+))\0")
LINES = re.compile(rb"(\d+|-)\t(\d+|-)\t(?:([^\0]+)|\0([^\0]+)\0([^\0]+))\0")
SUBMODULE = b"160000"


@dataclass(frozen=True, slots=True, order=True)
class Row:
    """One file of one commit; the lines of a binary file are 0."""

    path: str
    old_path: str
    status: str
    insertions: int
    deletions: int
    binary: bool
    submodule: bool


class Reference:
    """An empty repository with the objects of another, so that no config or attributes of it count."""

    def __init__(self, repo: Path, folder: Path) -> None:
        self.folder = folder
        subprocess.run(["git", "init", "--quiet", "--bare", folder], env=plain_environment(), check=True)
        self.environment = plain_environment() | {
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": str(git_dir_of(repo) / "objects"),
            "GIT_ATTR_NOSYSTEM": "1",
            "XDG_CONFIG_HOME": os.devnull,
        }

    def rows(self, parents: list[str], commit: str) -> list[Row] | str:
        """The files of a commit against its first parent, or what git said when it failed."""
        done = subprocess.run(
            ["git", "-C", self.folder, "diff-tree", "-r", "--root", "-M", "--raw", "--numstat", "-z", "--no-commit-id",
             *parents[:1], commit],
            env=self.environment, capture_output=True,
        )  # fmt: skip
        if done.returncode:
            return done.stderr.decode("utf-8", "replace").strip()
        return sorted(parse(done.stdout))


def parse(answer: bytes) -> list[Row]:
    """Raw entries, then as many lines of figures, in the same order."""
    entries, at = [], 0
    while entry := RAW.match(answer, at):
        entries.append(entry)
        at = entry.end()
    rows = []
    for entry in entries:
        old_mode, new_mode, status, path, moved, old_path, new_path = entry.groups()
        lines = LINES.match(answer, at)
        if lines is None or (lines[3] or lines[5]) != (path or new_path) or lines[4] != old_path:
            raise SystemExit(f"cannot read what git answered: {answer[at : at + 200]!r}")
        at = lines.end()
        binary = lines[1] == b"-"
        rows.append(
            Row(
                path=(path or new_path).decode("utf-8", "replace"),
                old_path=(old_path or b"").decode("utf-8", "replace"),
                status=(status or moved).decode("ascii"),
                insertions=0 if binary else int(lines[1]),
                deletions=0 if binary else int(lines[2]),
                binary=binary,
                submodule=SUBMODULE in (old_mode, new_mode),
            )
        )
    if at != len(answer):
        raise SystemExit(f"cannot read what git answered: {answer[at : at + 200]!r}")
    return rows


def rows_of(commit: Commit) -> list[Row]:
    return sorted(
        Row(
            file.path,
            file.old_path or "",
            file.status,
            file.insertions,
            file.deletions,
            binary=file.binary,
            submodule=file.submodule,
        )
        for file in commit.changes
    )


def walked(repo: Path) -> dict[str, list[str]]:
    """Every commit of all branches, oldest first, with its parents."""
    listed = git(repo, "rev-list", "--reverse", "--date-order", "--parents", "--stdin", stdin=branch_tips(repo))
    return {commit: parents for commit, *parents in (line.split() for line in listed.splitlines())}


def compare(repo: Path) -> bool:
    """Print the comparison; returns whether all is equal."""
    commits = walked(repo)
    count: Counter[str] = Counter()
    found: list[str] = []
    partial: list[str] = []
    roots: list[str] = []
    unseen = set(commits)
    workers = os.cpu_count() or 1
    with (
        tempfile.TemporaryDirectory(prefix="treering-reference-") as folder,
        ThreadPoolExecutor(workers) as threads,
        open_reader(repo) as reader,
    ):
        reference = Reference(repo, Path(folder))
        expected = {name: threads.submit(reference.rows, parents, name) for name, parents in commits.items()}
        for commit in reader.commits(node.hash for node in reader.nodes):
            unseen.discard(commit.hash)
            count["commits"] += 1
            if commit.hash not in expected:
                found.append(f"{commit.hash}: treering has it, the branches do not")
                continue
            # Let go of each answer once it is compared: a history's rows are many.
            wanted = expected.pop(commit.hash).result()
            if list(commit.parents) != commits[commit.hash]:
                found.append(f"{commit.hash}: parents {commit.parents}, git says {commits[commit.hash]}")
            count["merges"] += len(commit.parents) > 1
            rows = rows_of(commit)
            if not commit.parents:
                roots.append(f"{commit.hash[:8]}: {_figures(rows)}")
            if not commit.diff_complete:
                partial.append(f"{commit.hash[:8]}: {_missing(commit)}")
                if not isinstance(wanted, str):
                    found.append(f"{commit.hash}: partial, but git reads it whole")
                continue
            count["complete"] += 1
            if isinstance(wanted, str):
                found.append(f"{commit.hash}: complete, but git says {wanted}")
            elif rows == wanted:
                count["equal"] += 1
                for row in rows:
                    count["files"] += 1
                    count["insertions"] += row.insertions
                    count["deletions"] += row.deletions
            else:
                found.append(f"{commit.hash}: {_difference(rows, wanted)}")
    found += [f"{commit}: on the branches, but treering has it not" for commit in sorted(unseen)]
    print(f"{count['commits']:,} commits on branches, {count['merges']:,} merges, {len(roots)} root(s)")
    for root in roots:
        print(f"  root {root}")
    print(f"{count['complete']:,} complete, {len(partial)} partial")
    for name in partial:
        print(f"  partial {name}")
    print(
        f"{count['equal']:,} of {count['complete']:,} complete commits equal `git diff-tree -M`:"
        f" {count['files']:,} files, +{count['insertions']:,} -{count['deletions']:,}"
    )
    for difference in found:
        print(f"  DIFFERENT {difference}")
    return not found


def _figures(rows: list[Row]) -> str:
    return f"{len(rows)} file(s) +{sum(row.insertions for row in rows)}/-{sum(row.deletions for row in rows)}"


def _missing(commit: Commit) -> str:
    if not commit.unreadable:
        return "its tree is missing"
    more = len(commit.unreadable) - 1
    return f"{commit.unreadable[0]}{f' and {more} more' if more else ''} missing; {_figures(rows_of(commit))} read"


def _difference(rows: list[Row], wanted: list[Row]) -> str:
    ours, theirs = Counter(rows), Counter(wanted)
    return f"only treering {sorted(ours - theirs)[:3]}, only git {sorted(theirs - ours)[:3]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repo", type=Path)
    sys.exit(0 if compare(parser.parse_args().repo.resolve()) else 1)


if __name__ == "__main__":
    main()
