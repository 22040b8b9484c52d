"""How treering holds up on a very long history: speed and memory, beside one `git log` of the same.

    python benchmarks/scale.py REPO             a repository that is there, as large as you have one
    python benchmarks/scale.py --commits N      a synthetic history of N commits, a tenth of them merges, made first

Measured are, each in a process of its own: the metadata of every commit (with memory at every tenth of the way), and
for a repository that is there also a scrape with statistics into a new store and another one after one new commit,
which goes into a copy that borrows the repository's objects.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.measuring import TREERING, describe, git, machine, plain_environment, timed

LOG = ["git", "log", "--branches", "--format=%H%n%P%n%an%n%ae%n%at%n%cn%n%ce%n%ct%n%B"]


def synthetic(folder: Path, commits: int) -> None:
    """A bare repository of so many commits: one line of work with short branches merged back into it."""
    git(folder.parent, "init", "--quiet", "--bare", str(folder))
    process = subprocess.Popen(
        ["git", "-C", folder, "fast-import", "--quiet", "--depth=0"], stdin=subprocess.PIPE, env=plain_environment()
    )
    assert process.stdin is not None  # noqa: S101
    for piece in _stream(commits):
        process.stdin.write(piece)
    process.stdin.close()
    if process.wait():
        raise SystemExit("git fast-import failed")


def _stream(commits: int) -> Iterator[bytes]:
    tip, side = 0, 0
    for mark in range(1, commits + 1):
        message = (
            f"Change {mark} of the {('parser', 'store', 'index')[mark % 3]}\n\nBecause of #{mark % 997}.\n".encode()
        )
        person = f"Author {mark % 50} <author{mark % 50}@example.com> {1_200_000_000 + mark * 60} +0000\n"
        head = f"commit refs/heads/main\nmark :{mark}\nauthor {person}committer {person}data {len(message)}\n".encode()
        merge = mark % 10 == 9 and side
        lines = [f"from :{tip}\n"] if tip and mark % 10 != 5 else [f"from :{max(tip - 2, 1)}\n"] if tip else []
        if merge:
            lines.append(f"merge :{side}\n")
        content = f"{mark}\n"
        lines.append(f"M 100644 inline src/part{mark % 20}.txt\ndata {len(content)}\n{content}\n")
        yield head + message + "".join(lines).encode()
        if mark % 10 == 5:
            side = mark
        else:
            tip = mark


def metadata(repo: Path) -> dict[str, object]:
    """Every commit's metadata in this process: commits per second, and resident megabytes at each tenth."""
    from treering.git.history import read_commits
    from treering.git.reader import open_reader

    started = time.monotonic()
    with open_reader(repo) as reader:
        walked = time.monotonic() - started
        step = max(1, len(reader.nodes) // 10)
        memory = [_resident()]
        for count, _ in enumerate(read_commits(reader.shadow, reader.nodes), start=1):
            if count % step == 0:
                memory.append(_resident())
    seconds = time.monotonic() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return {"commits": len(reader.nodes), "seconds": seconds, "walk": walked, "memory": memory, "peak": peak}


def _resident() -> int:
    fields = dict(line.partition(":")[::2] for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["VmRSS"].split()[0]) // 1024


def scraped(repo: Path, folder: Path) -> None:
    """A scrape with statistics, and one more after one new commit."""
    copy, store = folder / "copy", folder / "store"
    git(folder, "clone", "--quiet", "--bare", "--shared", str(repo), str(copy))
    for what in ("everything", "one new commit"):
        done = timed([TREERING, "scrape", "--repo", copy, "--store", store])
        print(
            f"scrape, {what}: {done.seconds:.1f} s; {done.memory}; {done.stdout.decode().strip()}{done.stderr.decode()}"
        )
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        commit = git(copy, *identity, "commit-tree", "HEAD^{tree}", "-p", "HEAD", "-m", "One more").strip()
        git(copy, "update-ref", git(copy, "symbolic-ref", "HEAD").strip(), commit)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repo", type=Path, nargs="?")
    parser.add_argument("--commits", type=int, default=1_000_000, metavar="N")
    parser.add_argument("--inner", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.inner:
        print(json.dumps(metadata(chosen.repo)))
        return
    print(describe(machine()))
    with tempfile.TemporaryDirectory(prefix="treering-benchmark-") as temporary:
        repo = chosen.repo.resolve() if chosen.repo else Path(temporary) / "synthetic"
        if not chosen.repo:
            synthetic(repo, chosen.commits)
        ours = timed([sys.executable, __file__, str(repo), "--inner"], watched=False)
        if ours.code:
            raise SystemExit(ours.complaint)
        told = json.loads(ours.stdout)
        log = timed([*LOG[:1], "-C", repo, *LOG[1:]], discard=True, watched=False)
        print(
            f"metadata: {told['commits']:,} commits in {ours.seconds:.1f} s (the walk {told['walk']:.1f}),"
            f" {told['commits'] / ours.seconds:,.0f} commits/s; `git log` with the same fields {log.seconds:.1f} s"
        )
        print(f"memory at each tenth of the way: {told['memory']} MB; peak {told['peak']} MB")
        if chosen.repo:
            scraped(repo, Path(temporary))


if __name__ == "__main__":
    main()
