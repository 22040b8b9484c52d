"""Which commits are read: every way to choose them, against what ``git log`` lists, and what a changed choice costs."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from repositories import Repo
from treering import opening, operations
from treering.errors import UsageError
from treering.exports import export_history
from treering.files import read_json_lines
from treering.git.history import timestamp
from treering.pipeline.scrape import Scraped
from treering.report import Reporter
from treering.store import Store
from treering.types import Record

ROOT = Path(__file__).parents[2]
DAY = 86_400
MakeRepo = Callable[..., Repo]


def scrape(repo: Repo, **chosen: object) -> Scraped:
    return operations.scrape(opening.place(repo.path, None, {"scrape": chosen}), Reporter())


def stored(repo: Repo) -> list[str]:
    with Store.existing(repo.path / ".treering") as store:
        return [record.commit_hash for record in store.records()]


def chosen(repo: Repo, **choice: object) -> set[str]:
    """The commits of a choice, which are the same through the store and through a file, and in the same order."""
    scrape(repo, **choice)
    through_store = stored(repo)
    folder = repo.path.parent / "exported"
    export_history(repo.path, folder / "a.jsonl", folder / "a.json", Reporter(), {"scrape": choice})
    exported = read_json_lines(folder / "a.jsonl", Record) if through_store else []
    assert [record.commit_hash for record in exported] == through_store
    return set(through_store)


def listed(repo: Repo, *arguments: str) -> set[str]:
    return set(repo.git("rev-list", *arguments).split())


def at(repo: Repo, when: str, message: str = "x", **files: str) -> str:
    """A commit of that committer date."""
    for name, content in files.items():
        repo.write(name, content)
    repo.git("add", "--all")
    tree = repo.git("write-tree")
    head = repo.git("rev-parse", "--verify", "--quiet", "HEAD", check=False)
    content = f"tree {tree}\n" + (f"parent {head}\n" if head else "")
    person = f"Ada <ada@example.com> {when}"
    content += f"author {person}\ncommitter {person}\n\n{message}\n"
    name = repo.git("hash-object", "-t", "commit", "-w", "--stdin", stdin=content.encode())
    repo.git("update-ref", "HEAD", name)
    return name


def command(
    *arguments: str | bytes, code: int = 0, cwd: Path | None = None, **environment: str
) -> "subprocess.CompletedProcess[bytes]":
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env=os.environ | environment,
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert b"Traceback" not in done.stderr, done.stderr.decode()
    assert done.returncode == code, done.stderr.decode()
    return done


@pytest.fixture
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Local time is UTC, or what the test says."""

    def be(zone: str) -> None:
        monkeypatch.setenv("TZ", zone)
        time.tzset()

    be("UTC")
    yield be
    monkeypatch.undo()
    time.tzset()


# branches ----------------------------------------------------------------------------------------------------------


def branched(repo: Repo) -> Repo:
    repo.commit("base")
    for name in ("feature/a", "feature/b", "release"):
        repo.git("switch", "--quiet", "-c", name, "main")
        repo.commit(f"on {name}")
    repo.git("switch", "--quiet", "main")
    repo.commit("on main")
    repo.git("update-ref", "refs/remotes/origin/far", repo.git("commit-tree", "main^{tree}", "-p", "main", "-m", "far"))
    return repo


@pytest.mark.parametrize(
    ("patterns", "refs"),
    [
        (["main"], ["main"]),
        (["release"], ["release"]),
        (["feature/*"], ["feature/a", "feature/b"]),
        (["feature/?"], ["feature/a", "feature/b"]),
        (["main", "release"], ["main", "release"]),
        (["origin/far"], ["origin/far"]),
        (["*/far"], ["origin/far"]),
        (["*"], ["--all"]),
    ],
)
def test_a_branch_is_chosen_by_its_name_or_a_pattern(repo: Repo, patterns: list[str], refs: list[str]) -> None:
    branched(repo)
    assert chosen(repo, branches=patterns) == listed(repo, *refs)


def test_a_chosen_branch_is_the_branch_of_its_commits(repo: Repo) -> None:
    branched(repo)
    scrape(repo, branches=["feature/*"])
    with Store.existing(repo.path / ".treering") as store:
        branches = {record.message_subject: record.branches for record in store.records()}
    assert branches == {
        "base": ("feature/a", "feature/b"), "on feature/a": ("feature/a",), "on feature/b": ("feature/b",)
    }  # fmt: skip


@pytest.mark.parametrize(
    "name", ["nowhere", "Main", "feature", "nope/*", "", "refs/heads/main", "--all", "[", "\udce9"]
)
def test_a_branch_that_is_not_there_is_an_error_that_names_it(repo: Repo, name: str) -> None:
    branched(repo)
    with pytest.raises(UsageError) as caught:
        scrape(repo, branches=["main", name])
    assert name in caught.value.message
    assert not (repo.path / ".treering").exists()


# dates -------------------------------------------------------------------------------------------------------------


def dated(repo: Repo) -> dict[str, str]:
    """Commits at both ends of days, by their time in UTC."""
    times = {
        "30 23:59:59": 1_706_659_199, "31 00:00:00": 1_706_659_200, "31 12:00:00": 1_706_702_400,
        "31 23:59:59": 1_706_745_599, "01 00:00:00": 1_706_745_600,
    }  # fmt: skip
    return {at(repo, f"{seconds} +0500", name): name for name, seconds in times.items()}


@pytest.mark.parametrize(
    ("choice", "left"),
    [
        ({"since": "2024-01-31"}, ["31 00:00:00", "31 12:00:00", "31 23:59:59", "01 00:00:00"]),
        ({"until": "2024-01-31"}, ["30 23:59:59", "31 00:00:00", "31 12:00:00", "31 23:59:59"]),
        ({"since": "2024-01-31", "until": "2024-01-31"}, ["31 00:00:00", "31 12:00:00", "31 23:59:59"]),
        ({"since": " 20240131 ", "until": "2024-W05-3"}, ["31 00:00:00", "31 12:00:00", "31 23:59:59"]),
        ({"since": "2024-01-31T12:00"}, ["31 12:00:00", "31 23:59:59", "01 00:00:00"]),
        ({"until": "2024-01-31 12:00:00"}, ["30 23:59:59", "31 00:00:00", "31 12:00:00"]),
        ({"since": "2024-01-31T05:00:00+05:00"}, ["31 00:00:00", "31 12:00:00", "31 23:59:59", "01 00:00:00"]),
        ({"until": "2024-01-30T23:59:59Z"}, ["30 23:59:59"]),
        ({"since": "2024-02-02"}, []),
    ],
)
@pytest.mark.usefixtures("utc")
def test_dates_choose_commits_of_that_date_or_later_or_earlier(
    repo: Repo, choice: dict[str, object], left: list[str]
) -> None:
    names = dated(repo)
    scrape(repo, **choice)
    assert [names[name] for name in stored(repo)] == left


@pytest.mark.parametrize(("choice", "count"), [({"until": "1960-01-01"}, 0), ({"since": "1960-01-01"}, 5)])
@pytest.mark.usefixtures("utc")
def test_dates_before_1970_choose_nothing_or_all(repo: Repo, choice: dict[str, object], count: int) -> None:
    dated(repo)
    assert scrape(repo, **choice).commits == count


@pytest.mark.usefixtures("utc")
def test_until_long_ago_chooses_nothing(repo: Repo) -> None:
    dated(repo)
    assert scrape(repo, until="200 years ago").commits == 0


def test_a_day_ends_at_its_last_second_when_the_clocks_change(utc: Callable[[str], None]) -> None:
    utc("CET-1CEST,M3.5.0,M10.5.0/3")
    for day, following in (("2024-03-31", "2024-04-01"), ("2024-10-27", "2024-10-28"), ("2024-05-05", "2024-05-06")):
        assert timestamp(day, end=True) == timestamp(following, end=False) - 1


def test_a_relative_date_counts_from_now(repo: Repo) -> None:
    now = int(time.time())
    for days in (1000, 45, 20, 3):
        at(repo, f"{now - days * DAY} +0000", str(days))
    found = {
        since: scrape(repo, since=since).commits for since in ("1 day ago", "2 weeks ago", "1 month ago", "4 years ago")
    }
    assert found == {"1 day ago": 0, "2 weeks ago": 1, "1 month ago": 2, "4 years ago": 4}
    assert scrape(repo, until="1 month ago").commits == 2


@pytest.mark.parametrize(
    "date",
    ["soon", "2024-02-30", "2024-13-01", "31.01.2024", "ago", "-1 days ago", "3 months", "@5", "2024-01-31T25:00"],
)
@pytest.mark.parametrize("option", ["since", "until"])
def test_what_is_no_date_is_an_error_that_names_it(repo: Repo, option: str, date: str) -> None:
    repo.commit("base")
    with pytest.raises(UsageError) as caught:
        scrape(repo, **{option: date})
    assert repr(date) in caught.value.message


@pytest.mark.parametrize("date", ["0001-01-01", "9999-12-31"])
@pytest.mark.parametrize("zone", ["UTC", "XXX-14", "XXX+12"])
def test_the_ends_of_the_calendar_are_dates_or_errors(utc: Callable[[str], None], date: str, zone: str) -> None:
    utc(zone)
    try:
        timestamp(date, end=True)
    except UsageError as error:
        assert date in error.message  # noqa: PT017  (either is right)


@pytest.mark.usefixtures("utc")
def test_an_old_date_above_newer_ones_hides_none_of_them(repo: Repo) -> None:
    newer = at(repo, "1706702400 +0000", "newer")
    for number in range(12):
        at(repo, f"{1_000_000_000 + number} +0000", f"the clock was wrong {number}")
    newest = at(repo, "1706702500 +0000", "newest")
    assert chosen(repo, since="2024-01-01") == {newer, newest}
    assert len(chosen(repo, until="2023-12-31")) == 12
    assert chosen(repo, since="2024-01-01", max_commits=1) == {newest}


# paths, people, merges, numbers ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "paths",
    [
        ["src/market.py"], ["src"], ["src/", "README.md"], ["*.py"], [":(glob)core/*"], [":(exclude)src"], ["nowhere"],
        [":(icase)SRC/ORACLE.PY"], ["picture.png"],
    ],
)  # fmt: skip
def test_a_path_chooses_what_changes_it(story: Repo, paths: list[str]) -> None:
    if paths == ["nowhere"]:
        assert scrape(story, paths=paths).commits == 0
    else:
        assert chosen(story, paths=paths) == listed(story, "--all", "--full-history", "--", *paths)


@pytest.mark.parametrize("path", [":(bad)x", "../outside", "/etc/passwd"])
def test_a_path_that_git_does_not_take_is_an_error(story: Repo, path: str) -> None:
    with pytest.raises(UsageError, match="git does not take"):
        scrape(story, paths=[path])


def test_a_path_that_is_no_utf8_can_be_chosen(repo: Repo) -> None:
    repo.commit("base")
    repo.write(os.fsdecode(b"caf\xe9.txt"), "1\n")
    repo.commit("coffee")
    arguments = ("-m", "treering", "scrape", "--repo", str(repo.path), "--path", b"caf\xe9.txt")
    assert command(*arguments).stdout.startswith(b"1 commits")


def people(repo: Repo) -> dict[str, str]:
    names = {}
    everybody = {
        "Ada Lovelace": "ada@example.com", "Grace [Hopper]": "grace.hopper+git@example.com",
        "^Ada.*$": "odd@example.com", "\N{LATIN CAPITAL LETTER E WITH ACUTE}lodie": "e@x",
    }  # fmt: skip
    for name, email in everybody.items():
        repo.git("commit", "--quiet", "--allow-empty", "-m", "x", f"--author={name} <{email}>")
        names[repo.git("rev-parse", "HEAD")] = name
    return names


@pytest.mark.parametrize(
    ("author", "names"),
    [
        ("Ada Lovelace", ["Ada Lovelace"]),
        ("ADA L", ["Ada Lovelace"]),
        ("ada@EXAMPLE", ["Ada Lovelace"]),
        ("ada", ["Ada Lovelace", "^Ada.*$"]),
        ("^Ada", ["^Ada.*$"]),
        (".*", ["^Ada.*$"]),
        ("a.a", []),
        ("[Hopper]", ["Grace [Hopper]"]),
        ("hopper+git", ["Grace [Hopper]"]),
        ("lodie", ["\N{LATIN CAPITAL LETTER E WITH ACUTE}lodie"]),
        ("17000", []),
        ("--all", []),
        ("nobody", []),
    ],
)
def test_an_author_is_chosen_by_what_the_name_or_address_holds(repo: Repo, author: str, names: list[str]) -> None:
    known = people(repo)
    scrape(repo, author=author)
    assert [known[name] for name in stored(repo)] == names


def test_the_case_of_an_author_does_not_matter_outside_ascii(repo: Repo) -> None:
    people(repo)
    assert scrape(repo, author="\N{LATIN SMALL LETTER E WITH ACUTE}lodie").commits == 1


def test_an_author_is_chosen_by_the_name_that_the_mailmap_gives(repo: Repo) -> None:
    repo.commit("base", __mailmap="Grace Hopper <grace@example.com> <ada@example.com>\n")
    assert scrape(repo, author="Grace", mailmap=True).commits == 1
    assert scrape(repo, author="Lovelace", mailmap=True).commits == 0


def test_merges_can_be_left_out(story: Repo) -> None:
    assert chosen(story, merges=False) == listed(story, "--all", "--no-merges")
    assert chosen(story) == listed(story, "--all")


@pytest.mark.parametrize("count", [1, 5, 1000])
def test_so_many_of_the_newest_are_chosen(story: Repo, count: int) -> None:
    assert chosen(story, max_commits=count) == listed(story, "--all", "--date-order", f"--max-count={count}")


def test_choices_hold_together(story: Repo) -> None:
    assert chosen(story, branches=["main"], merges=False, paths=["src"], author="ada", max_commits=3) == listed(
        story, "main", "--full-history", "--no-merges", "--max-count=3", "--date-order", "--", "src"
    )


def test_a_choice_of_nothing_is_an_empty_history(repo: Repo) -> None:
    repo.commit("base")
    assert chosen(repo, author="nobody") == set()


# all refs ----------------------------------------------------------------------------------------------------------


def test_all_refs_are_tags_pull_requests_notes_and_the_stash(repo: Repo) -> None:
    base = repo.commit("base", f="1\n")
    tree = repo.git("rev-parse", "HEAD^{tree}")

    def loose(message: str) -> str:
        return repo.git("commit-tree", tree, "-p", base, "-m", message)

    repo.git("tag", "light", loose("light"))
    repo.git("tag", "-a", "-m", "told", "heavy", loose("heavy"))
    repo.git("tag", "a-tree", tree)
    repo.git("tag", "-a", "-m", "told", "a-told-tree", tree)
    repo.git("update-ref", "refs/pull/1/head", loose("pull"))
    repo.git("notes", "add", "-m", "a note")
    repo.write("f", "2\n")
    repo.git("stash", "push", "--quiet")
    assert chosen(repo) == {base}
    found = chosen(repo, refs="all")
    assert found == listed(repo, "--all")
    with Store.existing(repo.path / ".treering") as store:
        first = {record.message_subject: record.branch for record in store.records()}
        assert {record.branch for record in store.records()} == {
            "main", "tags/light", "tags/heavy", "pull/1/head", "notes/commits", "stash"
        }  # fmt: skip
    assert first["base"] == "main"
    assert (first["light"], first["heavy"], first["pull"]) == ("tags/light", "tags/heavy", "pull/1/head")
    assert chosen(repo, refs="all", branches=["tags/*"]) == listed(repo, "light", "heavy")
    with pytest.raises(UsageError, match="tags"):
        scrape(repo, branches=["tags/*"])


def test_what_the_gate_proposes_is_no_history_unless_it_is_chosen(repo: Repo) -> None:
    base = repo.commit("base")
    proposed = repo.git("commit-tree", "HEAD^{tree}", "-p", base, "-m", "proposed")
    repo.git("branch", "treering/gate-1", proposed)
    assert chosen(repo) == {base}
    assert chosen(repo, refs="all") == chosen(repo, branches=["treering/*"]) == {base, proposed}
    repo.git("checkout", "--quiet", "treering/gate-1")
    assert chosen(repo) == {base, proposed}


def test_what_the_gate_proposed_elsewhere_is_no_history_either(repo: Repo, tmp_path: Path) -> None:
    base = repo.commit("base")
    proposed, theirs = (repo.git("commit-tree", "HEAD^{tree}", "-p", base, "-m", name) for name in ("one", "two"))
    repo.git("branch", "treering/gate-1", proposed)
    repo.git("branch", "more/treering/gate-1", theirs)
    clone = repo.copied(tmp_path / "unused")
    repo.git("clone", "--quiet", str(repo.path), str(tmp_path / "clone"))
    clone.path = tmp_path / "clone"
    assert chosen(clone) == {base, theirs}
    assert chosen(clone, refs="all") == {base, theirs, proposed}
    assert chosen(clone, branches=["origin/treering/*"]) == {base, proposed}


def test_a_tag_of_a_tag_is_a_tag_of_the_commit(repo: Repo) -> None:
    base = repo.commit("base")
    lost = repo.git("commit-tree", "HEAD^{tree}", "-p", base, "-m", "lost")
    repo.git("tag", "-a", "-m", "one", "inner", lost)
    repo.git("tag", "-a", "-m", "two", "outer", "inner")
    repo.git("tag", "-d", "inner")
    repo.git("tag", "-a", "-m", "one", "inner", "HEAD^{tree}")
    repo.git("tag", "-a", "-m", "two", "a-tree-below", "inner")
    assert chosen(repo, refs="all") == {base, lost}


# a changed choice --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("patches", [False, True])
def test_what_is_chosen_again_is_not_read_again(story: Repo, patches: bool) -> None:
    def read(**chosen: object) -> Scraped:
        where = opening.place(story.path, None, {"scrape": chosen})
        return operations.scrape(where, Reporter(), patches=patches)

    whole = read()
    with Store.existing(story.path / ".treering") as store:
        before = list(store.records())
        documents = store.indexed(), len(store.undocumented())
    less = read(branches=["feature/bridge"], max_commits=4)
    assert (less.commits, less.new, less.vanished) == (4, 0, whole.commits - 4)
    again = read()
    assert (again.commits, again.new, again.vanished) == (whole.commits, 0, 0)
    with Store.existing(story.path / ".treering") as store:
        assert list(store.records()) == before
        assert (store.indexed(), len(store.undocumented())) == documents


def test_a_wider_choice_reads_only_what_is_new(story: Repo) -> None:
    assert scrape(story, max_commits=5).new == 5
    assert scrape(story, max_commits=9).new == 4
    total = len(listed(story, "--all"))
    assert scrape(story).new == total - 9
    assert scrape(story).new == 0


def test_a_choice_kept_in_the_file_holds_until_a_flag_says_otherwise(
    story: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    (story.path / "treering.toml").write_text('[scrape]\nbranches = ["feature/*"]\nmerges = false\nmax_commits = 2\n')
    assert chosen(story) == listed(story, "feature/bridge", "--no-merges", "--max-count=2")
    assert chosen(story, max_commits=3) == listed(story, "feature/bridge", "--no-merges", "--max-count=3")
    monkeypatch.setenv("TREERING_SCRAPE_BRANCHES", "main, feature/bridge")
    monkeypatch.setenv("TREERING_SCRAPE_MERGES", "true")
    monkeypatch.setenv("TREERING_SCRAPE_MAX_COMMITS", "0")
    assert chosen(story) == listed(story, "main", "feature/bridge")
    monkeypatch.setenv("TREERING_SCRAPE_AUTHOR", "nobody")
    assert scrape(story).commits == 0


@pytest.mark.parametrize(
    "line", ["branches = 3", "refs = 'some'", "max_commits = -1", "merges = 'perhaps'", "branch = 'main'"]
)
def test_a_choice_that_cannot_be_is_an_error_that_names_it(repo: Repo, line: str) -> None:
    repo.commit("base")
    (repo.path / "treering.toml").write_text(f"[scrape]\n{line}\n")
    with pytest.raises(UsageError, match=line.partition(" ")[0]):
        scrape(repo)


def test_the_scripts_and_the_command_take_the_same_choice(story: Repo, tmp_path: Path) -> None:
    flags = ("--branch", "main", "--branch", "feature/*", "--no-merges", "--path", "src", "--author", "ADA", "--since",
             "2020-01-01", "--until", "2040-01-01", "--max-commits", "4", "--refs", "all", "--mailmap")  # fmt: skip
    script = str(ROOT / "scrapers" / "git_scraper.py")
    told = command(script, "--repo", str(story.path), *flags, cwd=tmp_path)
    assert told.stdout.startswith(b"4 commits")
    records: list[Any] = list(read_json_lines(tmp_path / "data" / "git_history.jsonl", dict[str, Any]))
    assert {record["commit_hash"] for record in records} == listed(
        story, "main", "--full-history", "--no-merges", "--max-count=4", "--date-order", "--", "src"
    )
    command("-m", "treering", "scrape", "--repo", str(story.path), *flags, "--json")
    assert stored(story) == [record["commit_hash"] for record in records]
    done = command(script, "--repo", str(story.path), "--branch", "nowhere", code=2, cwd=tmp_path)
    assert b"nowhere" in done.stderr
