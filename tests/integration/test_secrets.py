"""Secrets planted in a real repository leave no trace in anything that is written."""

import json
import os
import sqlite3
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from repositories import Repo
from treering import exports, learning, opening, operations, publishing
from treering.opening import Place
from treering.report import Reporter
from treering.store import Store
from treering.tokens.pack import read_stream
from treering.tokens.tokenizer import load_tokenizer

CASES = tomllib.loads((Path(__file__).parent.parent / "cases" / "secrets.toml").read_text("utf-8"))["secret"]
PART = 12
"""How many characters of a secret, in a row, are a trace of it."""
CODE = "def settle(order):\n    return order\n"
PUBLIC = ("-----", "PuTTY-", "Encryption:", "Comment:", "Private-Lines", "Version:", "Proc-Type:", "DEK-Info:", "    ")


def value_of(case: dict[str, Any]) -> str:
    return "".join(case["value"])


def told(case: dict[str, Any]) -> str:
    """The line with its secret."""
    return str(case["line"].replace("{}", value_of(case)))


def parts(value: str) -> set[bytes]:
    """Every part of a secret that would be a trace of it. What all keys of a kind have is none."""
    lines = [line.strip(' "\r') for line in value.replace("\\n", "\n").splitlines()]
    secret = [line.encode() for line in lines if not any(mark in line for mark in PUBLIC) and len(line) >= 8]
    return {line[at : at + PART] for line in secret for at in range(max(1, len(line) - PART + 1))}


def traces(texts: Iterable[bytes], secrets: Iterable[str]) -> set[bytes]:
    """The parts of the secrets that are in one of the texts."""
    wanted = {part for secret in secrets for part in parts(secret)}
    sizes = {len(part) for part in wanted}
    return {
        text[at : at + size]
        for text in texts
        for size in sizes
        for at in range(len(text))
        if text[at : at + size] in wanted
    }


def files(*folders: Path) -> list[bytes]:
    return [path.read_bytes() for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()]


def place(repo: Repo, **scrape: object) -> Place:
    return opening.place(
        repo.path,
        None,
        {"scrape": scrape, "tokens": {"strategy": "diff-aware"}, "train": {"model": "scratch"}},
    )


def key(case: dict[str, Any]) -> bool:
    return str(case["kind"]).startswith("private-key")


@dataclass(frozen=True)
class Planted:
    repo: Repo
    commits: dict[str, str]
    """The commits that hold a secret, and where."""
    written: Path
    """What was exported."""


def plant(repo: Repo) -> dict[str, str]:
    commits = {}
    repo.commit("Start", src_0_market__py=CODE * 20)
    named = next(case for case in CASES if case["kind"] == "in-a-file-name")
    inside = [case for case in CASES if case is not named]
    for number, case in enumerate(inside[::7]):
        commits[repo.commit(f"Rotate what leaked\n\nIt was this.\n{told(case)}\n")] = f"message {number}"
    for number, case in enumerate(inside[3::25]):
        if "\n" not in told(case):
            commits[repo.commit(told(case))] = f"subject {number}"
    for number in range(0, len(inside), 5):  # five files a commit: the cap of a commit's hunks must take nothing away
        some = {f"src/{number + at}.py": told(case) for at, case in enumerate(inside[number : number + 5])}
        for path, text in some.items():
            repo.write(path, f"{CODE}{text}\n{CODE}")
        commits[repo.commit(f"Add some {number}")] = f"added {number}"
        for path, text in some.items():
            repo.write(path, f"{CODE}{text}\n{CODE * 2}")
        commits[repo.commit(f"Go on {number}")] = f"context {number}"
        for path in some:
            repo.write(path, CODE * 2)
        commits[repo.commit(f"Take some out {number}")] = f"removed {number}"
    path = told(named)
    repo.write(path, "nothing\n")
    commits[repo.commit("Add a backup")] = "path"
    repo.git("mv", path, f"{path}.old")
    commits[repo.commit("Move the backup")] = "renamed path"
    return commits


def plant_broken_keys(repo: Repo) -> dict[str, str]:
    """Keys of which a hunk shows a part: the beginning, the middle, the end, or a line in its head."""
    commits = {}
    for number, case in enumerate(case for case in CASES if key(case) and case["line"] == "{}"):
        lines = value_of(case).splitlines()
        path = f"keys/{number}.pem"
        repo.write(path, "\n".join(lines) + "\n" + "port: 1\n" * 12)
        commits[repo.commit(f"Add key {number}")] = f"whole {number}"
        body = [at for at, line in enumerate(lines) if line and not any(mark in line for mark in (*PUBLIC, ": "))]
        for at in (body[0], body[len(body) // 2], body[-1]):
            changed = lines.copy()
            changed[at] = changed[at][::-1]
            repo.write(path, "\n".join(changed) + "\n" + "port: 1\n" * 12)
            commits[repo.commit(f"Change line {at} of key {number}")] = f"line {at} of {number}"
            repo.write(path, "\n".join(lines) + "\n" + "port: 1\n" * 12)
            commits[repo.commit(f"Change line {at} of key {number} back")] = f"line {at} of {number} again"
        repo.write(path, "\n".join(lines) + "\n" + "port: 1\n" * 11 + "port: 2\n")
        repo.commit(f"Change what is below key {number}")
    return commits


def write_everything(repo: Repo, written: Path) -> None:
    report = Reporter()
    where = place(repo)
    operations.scrape(where, report, patches=True)
    operations.index(where, report)
    for table in ("commits", "changes"):
        for form in ("jsonl", "json", "csv", "parquet"):
            operations.export(
                where, written / f"{table}.{form}", report, table=table, as_format=None, patches=table == "commits"
            )
    publishing.publish(where, str(written / "dataset"), report)
    exports.export_history(repo.path, written / "history.jsonl", written / "history.json", report)
    folder, _ = learning.tokenize(where, report)
    tokenizer = load_tokenizer("gpt2")
    (written / "tokens.txt").write_text(tokenizer.decode(read_stream(folder)[1].tolist()))
    import pyarrow.parquet as pq

    for path in sorted(written.rglob("*.parquet")):  # what it holds is packed
        rows = pq.read_table(path, partitioning=None).to_pylist()
        path.with_name(f"{path.name}.txt").write_text(json.dumps(rows, ensure_ascii=False))


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("GIT_", "TREERING_"))]:
            patch.delenv(name)
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        repo = Repo(tmp_path_factory.mktemp("planted") / "project")
        commits = plant(repo) | plant_broken_keys(repo)
        written = tmp_path_factory.mktemp("written")
        write_everything(repo, written)
    return Planted(repo, commits, written)


def manifest(repo: Repo) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((repo.path / ".treering" / "manifest.json").read_text())
    return loaded


def test_the_cases_are_many_and_of_many_kinds() -> None:
    assert len(CASES) >= 70
    assert len({case["kind"] for case in CASES}) >= 20
    assert all(parts(value_of(case)) for case in CASES)


def test_the_cases_trip_no_scanner() -> None:
    """A value is in the file in parts, so that a forge takes the repository."""
    text = (Path(__file__).parent.parent / "cases" / "secrets.toml").read_text("utf-8")
    assert [case["kind"] for case in CASES if value_of(case) in text] == []


def test_git_itself_shows_every_planted_secret(planted: Planted) -> None:
    """Or the test below would find nothing because nothing was there."""
    shown = planted.repo.git("log", "-p", "--all").replace("\n+", "\n").encode()
    assert {case["kind"] for case in CASES if not traces([shown], [value_of(case)])} == set()


def test_no_planted_secret_leaves_a_trace_in_any_file(planted: Planted) -> None:
    everything = files(planted.repo.path / ".treering", planted.written)
    assert len(everything) > 15
    assert traces(everything, map(value_of, CASES)) == set()
    reversed_lines = (line[::-1] for case in CASES if key(case) for line in value_of(case).splitlines())
    assert traces(everything, reversed_lines) == set()


def test_what_is_no_secret_is_still_there(planted: Planted) -> None:
    text = (planted.written / "history.jsonl").read_text()
    assert "def settle(order)" in text
    assert "Rotate what leaked" in text
    assert "port: 2" in text
    assert "-p db app" not in text
    assert "[redacted:github-token]" in text
    assert "backup/[redacted:github-token].txt" in text


def test_the_manifest_counts_secrets_by_rule_and_by_commit(planted: Planted) -> None:
    told_of = manifest(planted.repo)["secrets"]
    assert {where for name, where in planted.commits.items() if name not in told_of["by_commit"]} == set()
    total = sum(told_of["by_rule"].values())
    assert total == sum(sum(rules.values()) for rules in told_of["by_commit"].values())
    assert total > 3 * len(CASES)
    assert len(told_of["by_rule"]) >= 20


def test_a_dataset_tells_of_secrets_and_holds_what_was_put_in_their_place(planted: Planted) -> None:
    card = json.loads((planted.written / "dataset" / "card.json").read_text("utf-8"))
    assert card["secrets"] == dict(sorted(manifest(planted.repo)["secrets"]["by_rule"].items()))
    for table in ("commits", "changes", "documents", "hunks"):
        (text,) = (path.read_text() for path in (planted.written / "dataset").glob(f"{table}/*/*.txt"))
        assert "[redacted:github-token]" in text, table


def test_check_secrets_lists_the_commits(planted: Planted) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "treering", "scrape", "--repo", str(planted.repo.path), "--check-secrets", "--json"],
        capture_output=True, check=True, timeout=300,
    )  # fmt: skip
    answer = json.loads(done.stdout)
    assert set(planted.commits) <= {commit["commit_hash"] for commit in answer["commits"]}
    assert answer["total"] == sum(answer["by_rule"].values())
    assert answer["by_rule"] == manifest(planted.repo)["secrets"]["by_rule"]
    assert traces([done.stdout, done.stderr], map(value_of, CASES)) == set()


def test_an_allowed_value_is_kept_and_taken_out_again_when_it_is_no_longer_allowed(repo: Repo) -> None:
    first, second = (value_of(case) for case in CASES if case["kind"] == "github-classic")
    commit = repo.commit(f"Use {first}", app__py=f"TOKEN = '{first}'\nOTHER = '{second}'\n")
    allowed = place(repo, allow_secrets=(f"{first[:8]}*",))
    operations.index(allowed, Reporter())
    store = repo.path / ".treering"
    assert traces(files(store), [first])
    assert traces(files(store), [second]) == set()
    assert manifest(repo)["secrets"]["by_commit"] == {commit: {"github-token": 1}}

    operations.index(place(repo), Reporter())
    with Store.existing(store) as kept:
        (record,) = kept.records()
        assert record.message == "Use [redacted:github-token]"
    assert manifest(repo)["secrets"]["by_commit"] == {commit: {"github-token": 3}}
    database = sqlite3.connect(next(store.glob("*.db")))
    rows = "\n".join(database.iterdump()).encode()
    database.close()
    assert traces([rows], [first, second]) == set()
    assert traces(files(store), [first, second]) == set()


def test_secrets_in_names_of_people_and_branches_are_taken_out(repo: Repo) -> None:
    token = "ghp_" + "Ab3dE6gH9jK2mN5pQ8sT1vW4yZ7bC0dF3hJ6"
    repo.commit("base")
    repo.git("switch", "--quiet", "-c", f"fix-{token}")
    repo.git("commit", "--quiet", "--allow-empty", "-m", "x", f"--author={token} <a@b>")
    where = opening.place(repo.path)
    found = operations.check_secrets(where, Reporter())
    assert found.by_rule["github-token"] >= 1
    with where.store(existing=True) as store:
        assert token not in repr(list(store.records()))
    assert token.encode() not in b"".join(files(where.folder))


def test_the_manifest_tells_what_hunks_that_were_read_later_held(repo: Repo) -> None:
    repo.commit("base", f=f"token = 'ghp_{'Ab3dE6gH9jK2mN5pQ8sT1vW4yZ7bC0dF3hJ6'}'\n")
    where = opening.place(repo.path)
    operations.scrape(where, Reporter())
    operations.scrape(where, Reporter(), patches=True)
    manifest = json.loads((where.folder / "manifest.json").read_text())
    assert manifest["secrets"]["by_rule"] == {"github-token": 1}
