"""A real watcher over real repositories: what it sees, what it survives, how it ends."""

import asyncio
import json
import os
import plistlib
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from moving import Moving, bare_of_vectors, searchable, until, watching
from repositories import Repo
from treering import hooking, opening, operations
from treering import watching as chapter
from treering.cli.main import main
from treering.git.moved import RefFiles
from treering.opening import Place
from treering.report import Reporter
from treering.watching import Added, Event

QUICK = {"TREERING_WATCH_LOOK_SECONDS": "0.2", "TREERING_WATCH_QUIET_SECONDS": "0.1", "TREERING_WATCH_NICE": "0"}


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the lowest priority they would wait for all other tests."""
    for name, value in QUICK.items():
        monkeypatch.setenv(name, value)


def store(repo: Repo) -> Path:
    return repo.path / ".treering"


def treering(*arguments: str, code: int = 0) -> Result:
    done = CliRunner().invoke(main, list(arguments))
    assert done.exit_code == code, f"{done.output}\n{done.exception!r}"
    return done


def test_what_moves_becomes_searchable_with_hooks_or_without(repo: Repo) -> None:
    first = repo.commit("Begin with the zeppelin", a__py="x = 1\n")
    with watching(repo.path) as watcher:
        assert watcher.next("watching")["repository"] == "project"
        assert watcher.next("indexed")["commits"] == 1
        second = repo.commit("Weigh the walrus", a__py="x = 2\n")
        watcher.next("indexed")
        assert searchable(store(repo)) == {first, second}
        treering("hooks", "install", "--repo", str(repo.path))
        third = repo.commit("Paint the pelican", a__py="x = 3\n")
        assert watcher.next("indexed")["commits"] == 1
        assert searchable(store(repo)) == {first, second, third}
        repo.git("reset", "--quiet", "--hard", first)
        watcher.next("indexed")
        assert searchable(store(repo)) == {first}
        until(lambda: not hooking.status(opening.place(repo.path)).waits)
        assert hooking.status(opening.place(repo.path)).watcher.startswith("treering watch (process ")
        assert watcher.end() == 0
    assert "pelican" not in treering("search", "--repo", str(repo.path), "pelican").stdout


def test_a_story_with_no_hand_on_it_stays_searchable(repo: Repo) -> None:
    moving = Moving(repo)
    treering("hooks", "install", "--repo", str(repo.path))
    with watching(repo.path) as watcher:
        watcher.next("indexed")
        while moving.commits < 25:
            moving.step()
        until(lambda: searchable(store(repo)) == moving.reachable())
        until(lambda: bare_of_vectors(store(repo)) == 0)
    assert len(moving.steps) > 4
    assert opening.place(repo.path).source.objects.is_dir()


def test_nothing_is_lost_when_it_is_killed(repo: Repo) -> None:
    repo.commit("Begin", a__py="x = 1\n")
    treering("hooks", "install", "--repo", str(repo.path))
    operations.index(opening.place(repo.path), Reporter())
    made = {repo.git("rev-parse", "HEAD")}
    for wait in (0.3, 1.1, 1.5):
        with watching(repo.path) as watcher:
            made.add(repo.commit(f"Go on {wait}", a__py=f"x = {wait}\n"))
            time.sleep(wait)
            watcher.process.kill()
    place = opening.place(repo.path)
    chapter.watch([repo.path], None, lambda _: None, once=True)
    assert searchable(store(repo)) == made
    assert bare_of_vectors(store(repo)) == 0
    assert not hooking.status(place).waits


def test_every_way_in_which_refs_move_is_seen_in_their_files(repo: Repo) -> None:
    repo.commit("Begin", a__py="x = 1\n")
    repo.git("remote", "add", "team", ".")
    refs = RefFiles(opening.place(repo.path).source)
    for step in (
        ["commit", "--allow-empty", "-m", "Go on"],
        ["branch", "deep/in/folders"],
        ["update-ref", "refs/heads/deep/in/other", "HEAD"],
        ["update-ref", "refs/heads/deep/in/other", "HEAD~1"],
        ["pack-refs", "--all"],
        ["branch", "-D", "deep/in/other"],
        ["switch", "--detach", "HEAD~1"],
        ["worktree", "add", "../linked", "deep/in/folders"],
        ["-C", "../linked", "switch", "--detach"],
        ["fetch", "--quiet", "team"],
    ):
        before = refs.state()
        assert refs.state() == before
        time.sleep(0.01)  # a tick of the file system's clock
        repo.git(*step)
        assert refs.state() != before, step
    linked = RefFiles(opening.place(repo.path.with_name("linked")).source)
    before = linked.state()
    time.sleep(0.01)
    repo.git("switch", "--quiet", "--detach", "HEAD~0")
    repo.git("commit", "--quiet", "--allow-empty", "-m", "Go on without a branch")
    assert linked.state() != before


def test_once_works_off_what_is_there_and_ends(repo: Repo) -> None:
    repo.commit("Begin", a__py="x = 1\n")
    lines = treering("watch", "--once", "--json", "--repo", str(repo.path)).stdout.splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["indexed", "ended"]
    assert len(searchable(store(repo))) == 1
    said = treering("watch", "--once", "--repo", str(repo.path)).stderr  # the same in words
    assert re.fullmatch(
        r"project: 0 commits and 0 vectors added, [\d.]+ s after the first sign\nproject: ended\n", said
    )


def test_once_ends_with_what_an_index_run_failed_of_after_all_were_tried(make_repo: Callable[..., Repo]) -> None:
    empty, good = make_repo("empty"), make_repo("good")
    good.commit("Begin", a__py="x = 1\n")
    done = treering("watch", "--once", "--repo", str(empty.path), "--repo", str(good.path), code=3)
    assert "no commit" in done.stderr
    assert len(searchable(store(good))) == 1


def test_one_watcher_a_store(repo: Repo) -> None:
    repo.commit("Begin", a__py="x = 1\n")
    with watching(repo.path) as watcher:
        watcher.next("watching")
        done = treering("watch", "--repo", str(repo.path), code=4)
        assert f"in use by treering watch (process {watcher.process.pid}" in done.stderr


def test_it_ends_in_the_middle_of_an_index_run(story: Repo) -> None:
    for number in range(120):
        story.git("commit", "--quiet", "--allow-empty", "-m", f"Go on {number}")
    for sent in (signal.SIGTERM, signal.SIGINT):
        with watching(story.path) as watcher:
            watcher.next("watching")
            until(lambda: (store(story) / "treering.db").exists())
            before = time.monotonic()
            assert watcher.end(sent) == 0
            assert time.monotonic() - before < 12
            assert [event["event"] for event in watcher.rest()] == ["ended"]
    assert hooking.status(opening.place(story.path)).waits  # what was not finished is known
    chapter.watch([story.path], None, lambda _: None, once=True)
    assert len(searchable(store(story))) > 120


def test_a_repository_that_goes_and_comes_back_is_told_once_each(make_repo: Callable[..., Repo]) -> None:
    repo, other = make_repo("project"), make_repo("other")
    repo.commit("Begin", a__py="x = 1\n")
    other.commit("Begin", a__py="x = 1\n")
    away = repo.path.with_name("away")
    with watching(repo.path, other.path) as watcher:
        watcher.next("indexed")
        watcher.next("indexed")
        repo.path.rename(away)
        failed = watcher.next("failed")
        assert failed["error"] == f"there is no repository in {repo.path} any more"
        other.commit("Go on", a__py="x = 2\n")
        assert watcher.next("indexed")["repository"] == "other"
        time.sleep(0.6)
        assert list(watcher.rest()) == []
        away.rename(repo.path)
        made = repo.commit("Go on", a__py="x = 2\n")
        assert watcher.next("back")["repository"] == "project"
        until(lambda: made in searchable(store(repo)))
        assert watcher.process.poll() is None


def test_a_store_that_was_taken_away_is_not_made_again_unasked(repo: Repo) -> None:
    repo.commit("Begin", a__py="x = 1\n")
    with watching(repo.path) as watcher:
        watcher.next("indexed")
        shutil.rmtree(store(repo))
        assert watcher.next("failed")["hint"] == "`treering index` makes it again"
        repo.commit("Go on", a__py="x = 2\n")
        time.sleep(0.6)
        assert not store(repo).exists()
        operations.index(opening.place(repo.path), Reporter())
        watcher.next("back")
        watcher.next("indexed")
        made = repo.commit("And on", a__py="x = 3\n")
        until(lambda: made in searchable(store(repo)))


def test_an_index_run_that_fails_is_told_once_and_works_again(repo: Repo) -> None:
    with watching(repo.path) as watcher:  # it has no commit
        failed = watcher.next("failed")
        assert "no commit" in failed["error"]
        assert failed["hint"]
        time.sleep(2.5)
        repo.commit("Begin", a__py="x = 1\n")
        watcher.next("back")
        assert watcher.next("indexed")["commits"] == 1
        assert [event["event"] for event in watcher.events].count("failed") == 1


def test_a_changed_setting_is_taken_and_one_that_cannot_be_is_told(repo: Repo) -> None:
    repo.commit("Begin", a__py="x = 1\n")
    repo.git("tag", "first")
    kept = repo.git("commit-tree", "-m", "Only a tag reaches the walrus", "HEAD^{tree}")
    repo.git("tag", "kept", kept)
    with watching(repo.path) as watcher:
        watcher.next("indexed")
        repo.write("treering.toml", "[scrape]\nrefs = 'all'\n")
        watcher.next("indexed")
        assert kept in searchable(store(repo))
        repo.write("treering.toml", "[scrape]\nreefs = 'all'\n")
        assert "reefs" in watcher.next("failed")["error"]
        repo.write("treering.toml", "")
        watcher.next("back")


def test_what_follows_an_index_run_is_started_beside_it_and_not_twice_at_once(repo: Repo) -> None:
    repo.commit("Begin", a__py="x = 1\n")
    seen: list[tuple[str, int]] = []
    told: list[Event] = []

    async def follow(place: Place, added: Added) -> None:
        seen.append((place.source.name, added.commits))
        raise ValueError("it does not work")

    chapter.watch([repo.path], None, told.append, once=True, followers=[follow])
    assert seen == [("project", 1)]
    assert [event.event for event in told] == ["indexed", "failed", "ended"]
    assert told[1].error == "ValueError: it does not work"


def test_what_follows_the_runs_of_several_repositories_takes_turns(make_repo: Callable[..., Repo]) -> None:
    repos = [make_repo(name) for name in ("one", "two")]
    for repo in repos:
        repo.commit("Begin", a__py="x = 1\n")
    steps: list[str] = []

    async def follow(place: Place, _: Added) -> None:
        steps.append("begins")
        await asyncio.sleep(3)
        steps.append("ends")

    chapter.watch([repo.path for repo in repos], None, lambda _: None, once=True, followers=[follow])
    assert steps == ["begins", "ends"] * 2


def test_a_unit_of_systemd_is_one(repo: Repo, tmp_path: Path) -> None:
    repo.commit("Begin", a__py="x = 1\n")
    odd = repo.copied(tmp_path / 'it\'s 100% of "$HOME" \\ here')
    text = treering("watch", "--print-unit", "systemd", "--repo", str(odd.path), "--store", str(tmp_path / "s")).stdout
    start = next(line for line in text.splitlines() if line.startswith("ExecStart="))
    assert f' "--repo" "{tmp_path}/it\'s 100%% of \\"$$HOME\\" \\\\ here" "--store" "{tmp_path}/s"' in start
    verify = shutil.which("systemd-analyze")
    if verify is None:
        pytest.skip("systemd-analyze is not on this machine: the unit was not verified")
    unit = tmp_path / "treering-watch.service"
    unit.write_text(text)
    done = subprocess.run([verify, "verify", str(unit)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_agent_of_launchd_is_one(repo: Repo) -> None:
    text = treering("watch", "--print-unit", "launchd", "--repo", str(repo.path)).stdout
    read = plistlib.loads(text.encode())
    program, *arguments = read["ProgramArguments"]
    assert Path(program).is_absolute()
    assert arguments[-3:] == ["watch", "--repo", str(repo.path)]
    assert read["KeepAlive"] == {"SuccessfulExit": False}
    treering("watch", "--print-unit", "launchd", "--once", code=2)
    strange = repo.copied(repo.path.with_name("two\nlines"))
    assert "cannot be named in a unit" in treering(
        "watch", "--print-unit", "systemd", "--repo", str(strange.path), code=2
    ).stderr  # fmt: skip


def test_whoever_reads_may_go_away(repo: Repo) -> None:
    repo.commit("Begin", a__py="x = 1\n")
    command = [sys.executable, "-P", "-m", "treering", "watch", "--json", "--repo", str(repo.path)]
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, check=False, timeout=60)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")
