"""Commits found by what was said of them at the forge."""

import json
import sqlite3
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import httpx2
import msgspec
import pytest
from click.testing import CliRunner

from fake_forge import NAME, TOKEN, fake_forge
from repositories import Repo
from treering import benching, caring, finding, opening, operations
from treering.cli.main import main
from treering.opening import Place
from treering.operate.forge import Thread
from treering.operate.threads import MIGRATIONS, Threads
from treering.report import Reporter
from treering.serve.crew import Bench, Opening

EARLY, LATE = "2023-11-14T22:00:00Z", "2026-01-02T00:00:00Z"


@dataclass(frozen=True)
class Shop:
    """A history with a merge that brought two commits, one that was squashed, and one that names an issue."""

    repo: Repo
    place: Place
    named: dict[str, str]

    def keep(self, *threads: Thread) -> None:
        with Threads(self.place.folder) as kept:
            kept.keep(threads, lambda text, _: text)

    def found(self, query: str, *, at: str = "") -> dict[str, str]:
        """Who is found by words, and why."""
        names = {commit: name for name, commit in self.named.items()}
        with finding.desk(self.place, Reporter(), vectors=False) as desk:
            hits = desk.search(query, at=at and self.named[at])
        return {names[hit.commit_hash]: hit.why for hit in hits}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    repo = Repo(tmp_path_factory.mktemp("discussed") / "shop")
    named = {"start": repo.commit("Open the shop", shop__py="OPEN = True\n")}
    for what in ("Paint the wall", "Sweep the floor", "Hang a sign", "Order more bread", "Wash every window"):
        named[what] = repo.commit(what, **{f"{what.split()[-1]}__py": f"DONE = {what!r}\n"})
    repo.git("switch", "--quiet", "-c", "topic")
    named["count"] = repo.commit("Count the till", till__py="COUNT = 1\n")
    named["close"] = repo.commit("Lock the door", door__py="LOCKED = True\n")
    repo.git("switch", "--quiet", "main")
    named["squashed"] = repo.commit("Light the lamp (#14)", lamp__py="LIT = True\n")
    repo.git("merge", "--quiet", "--no-ff", "-m", "Merge pull request #13 from acme/topic", "topic")
    named["merge"] = repo.git("rev-parse", "HEAD")
    named["fixed"] = repo.commit("Mend the roof\n\nFixes #31", roof__py="LEAKS = False\n")
    place = opening.place(repo.path)
    operations.index(place, Reporter())
    return Shop(repo, place, named)


@pytest.fixture
def shop(template: Shop, tmp_path: Path) -> Shop:
    repo = template.repo.copied(tmp_path / "shop")
    return Shop(repo, opening.place(repo.path), template.named)


def said(
    kind: Literal["request", "issue"],
    number: int,
    title: str,
    body: str = "",
    *,
    updated: str = EARLY,
    commits: tuple[str, ...] = (),
) -> Thread:
    return Thread(kind, number, title, body, "ada", "closed", EARLY, updated, "", commits)


@pytest.mark.parametrize("kind", ["github", "gitlab"])
def test_a_commit_is_found_by_the_words_of_its_request_and_its_issue(
    shop: Shop, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(httpx2, "Client", partial(httpx2.Client, verify=False))
    secret = "ghp_" + "a1B2c3D4e5" * 3 + "f6G7h8"
    command = partial(CliRunner().invoke, main)
    repo = ["--repo", str(shop.repo.path)]

    def search(query: str) -> dict[str, str]:
        done = command(["search", query, "--json", *repo])
        assert done.exit_code == 0, done.output
        names = {commit: name for name, commit in shop.named.items()}
        hits = ((names[hit["commit_hash"]], hit["why"].partition(" · ")[0]) for hit in json.loads(done.stdout))
        return {name: why for name, why in hits if "text of" in why}

    assert not search("wombat")
    with fake_forge(kind) as forge:
        for name, value in {"API": forge.api, "REPOSITORY": NAME, "TOKEN": TOKEN}.items():
            monkeypatch.setenv(f"TREERING_FORGE_{name}", value)
        merge = shop.named["merge"]
        forge.add_request(
            13, title="Twice", body=f"The wombat was miscounted, {secret}. Fixes #32", files=[], merged_as=merge
        )
        forge.add_request(14, title="A pangolin in the dark", files=[], merged_as=shop.named["squashed"])
        forge.add_issue(31, "A quokka gets wet")
        forge.add_issue(32, "The numbat is not counted")
        done = command(["forge", "pull", *repo])
        assert done.exit_code == 0, done.output
        assert search("wombat") == dict.fromkeys(["close", "count"], "text of its request: wombat")
        assert search("pangolin") == {"squashed": "text of its request: pangolin"}
        assert search("quokka") == {"fixed": "text of its issue: quokka"}
        assert search("numbat").keys() == {"close", "count"}  # by the request, which closes it
        forge.add_issue(31, "An echidna gets wet", updated="2026-02-01T00:00:00Z")
        assert command(["forge", "pull", *repo]).exit_code == 0
        assert search("echidna").keys() == {"fixed"}
        assert not search("quokka")
    with Threads(shop.place.folder, reading=True) as kept:
        words = {row[0] for row in kept.db.execute("SELECT word FROM words")}
    assert "wombat" in words
    assert not [word for word in words if secret[4:14].lower() in word]


def test_a_merge_is_found_by_its_own_request(shop: Shop) -> None:
    shop.keep(said("request", 13, "A wombat", commits=(shop.named["merge"],)))
    done = CliRunner().invoke(main, ["search", "wombat", "--include-merges", "--json", "--repo", str(shop.repo.path)])
    found = {hit["commit_hash"] for hit in json.loads(done.stdout) if "text of its request: wombat" in hit["why"]}
    assert found == {shop.named[name] for name in ("merge", "count", "close")}


def test_what_was_changed_after_a_commit_is_not_known_at_it(shop: Shop) -> None:
    shop.keep(
        said("issue", 31, "A quokka", updated=LATE),
        said("request", 14, "A pangolin", updated=EARLY),
        said("request", 13, "A wombat", updated=EARLY, commits=(shop.named["merge"],)),
    )
    assert shop.found("quokka").keys() == {"fixed"}
    assert not shop.found("quokka", at="fixed")
    assert shop.found("pangolin", at="fixed").keys() == {"squashed"}
    assert shop.found("wombat", at="merge").keys() == {"count", "close"}
    # Of what that commit reaches, nobody knew yet which request would bring it in.
    assert not shop.found("wombat", at="close")


def test_a_template_says_nothing_and_a_long_text_is_cut(shop: Shop) -> None:
    long = "A quokka. <!-- Please describe the platypus. -->" + "word " * 5000 + "echidna"
    shop.keep(said("issue", 31, "It leaks", long))
    assert shop.found("quokka")
    assert not shop.found("platypus")
    assert not shop.found("echidna")


def answers(shop: Shop) -> bytes:
    queries = ("lock the door", "paint", "count till roof", "#31", "COUNT")
    with finding.desk(shop.place, Reporter()) as desk:
        hits = [desk.search(query, at=at) for query in queries for at in ("", shop.named["merge"])]
    return msgspec.json.encode(hits)


def test_a_forge_that_says_nothing_of_the_commits_changes_no_answer(shop: Shop) -> None:
    before = answers(shop)
    shop.keep(said("issue", 99, "paint the door"), said("request", 98, "count the roof", commits=("e" * 40,)))
    assert answers(shop) == before
    shop.keep(said("issue", 31, "paint the door"))
    assert answers(shop) != before


def test_a_bench_asks_without_the_forge(shop: Shop) -> None:
    rows = benching.bench(shop.place, Reporter(), questions=None, most=5)[1].rows
    shop.keep(said("request", 14, "Light the lamp", "till till till"))
    assert benching.bench(shop.place, Reporter(), questions=None, most=5)[1].rows == rows


def test_the_texts_that_count_for_a_commit_are_those_that_are_shown_of_it(shop: Shop) -> None:
    shop.keep(
        said("request", 13, "A wombat", "Closes #32", commits=(shop.named["merge"],)),
        said("request", 14, "A pangolin"), said("issue", 31, "A quokka"), said("issue", 32, "A numbat"),
        said("issue", 33, "An emu"),
    )  # fmt: skip
    with finding.desk(shop.place, Reporter(), vectors=False) as desk:
        history, known = desk.finder.history, desk.finder.discussed
        assert known
        shown = {name: [(one.kind, one.number) for one in desk.commit(name).threads] for name in history.hashes}
        counted = {
            name: [key for key in shown[shop.named["merge"]] + [("request", 14), ("issue", 31), ("issue", 33)]
                   if number in (known.commits_of(*key) or ())]
            for number, name in enumerate(history.hashes)
        }  # fmt: skip
    assert {name: Counter(of) for name, of in shown.items()} == {name: Counter(of) for name, of in counted.items()}
    assert shown[shop.named["count"]] == [("request", 13), ("issue", 32)]


def test_a_server_notices_what_was_fetched(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("treering.serve.crew.REOPENING", 0.0)
    monkeypatch.setattr("time.monotonic", iter(range(0, 1000, 10)).__next__)
    bench = Bench(Opening({"shop": shop.place}))

    def found(query: str = "quokka") -> bool:
        hits = bench.answer("shop", lambda desk: desk.search(query))
        return any(f"text of its issue: {query}" in hit.why for hit in hits)

    try:
        assert not found()
        shop.keep(said("issue", 31, "A quokka"))
        assert found()
        opened = bench.desks["shop"]
        shop.keep(said("issue", 31, "A quokka"))
        assert found()
        assert bench.desks["shop"] is opened  # nothing is another one
        shop.keep(said("issue", 31, "An echidna"))
        assert not found()
        assert found("echidna")
        (shop.place.folder / "forge.db").unlink()
        assert not found("echidna")
    finally:
        bench.close()


def test_texts_of_an_earlier_version_are_found_once_it_is_indexed(
    shop: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    with closing(sqlite3.connect(shop.place.folder / "forge.db")) as db:
        for statement in MIGRATIONS[0].split(";\n"):
            db.execute(statement)
        db.execute("PRAGMA user_version=1")
        db.execute("INSERT INTO threads VALUES (31, 'issue', 'A quokka', '', 'ada', 'open', '', '', '', '[]')")
        db.commit()
    with finding.desk(shop.place, Reporter.to_stderr(), vectors=False) as desk:
        assert not desk.search("quokka")
    assert "the words of 1 texts of the forge wait" in capsys.readouterr().err
    operations.index(shop.place, Reporter())
    assert shop.found("quokka").keys() == {"fixed"}


@pytest.mark.parametrize("where", ["all", "the words"])
def test_a_damaged_file_leaves_the_commits_to_answer(
    shop: Shop, where: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shop.keep(*(said("issue", number, f"A quokka {number}", "word " * 500) for number in range(31, 60)))
    path = shop.place.folder / "forge.db"
    with closing(sqlite3.connect(path)) as db:
        (root,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'words'").fetchone()
        (size,) = db.execute("PRAGMA page_size").fetchone()
    with path.open("r+b") as file:
        file.seek(0 if where == "all" else (root - 1) * size)
        file.write(b"\xff" * size)
    with finding.desk(shop.place, Reporter.to_stderr(), vectors=False) as desk:
        assert [hit.commit_hash for hit in desk.search("mend the roof")] == [shop.named["fixed"]]
        assert desk.search("lock")
    told = capsys.readouterr().err
    assert told.count("searching without what was discussed at the forge") == 1
    assert "forge.db is damaged" in told
    assert "`treering forge pull` fetches it again" in told
    operations.index(shop.place, Reporter())


def test_words_that_are_not_those_of_the_texts_are_found(shop: Shop) -> None:
    shop.keep(said("issue", 31, "A quokka gets wet"))
    assert caring.verify(shop.place, Reporter()).sound
    with closing(sqlite3.connect(shop.place.folder / "forge.db")) as db:
        db.execute("DELETE FROM words WHERE word = 'quokka'")
        db.commit()
    (wrong,) = (part.wrong for part in caring.verify(shop.place, Reporter()).parts if part.wrong)
    assert wrong == ("forge.db: 1 texts are found by other words than they hold",)
