"""Finding on real repositories: filters, exact answers, what was known when, reasons, files, batches, the bench."""

import json
import re
import shutil
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from repositories import Repo, at_home
from treering import benching, finding, modelpack, opening, operations
from treering.cli.main import main
from treering.git import blame
from treering.git.reader import open_reader
from treering.opening import Place
from treering.report import Reporter
from treering.search import benchmark
from treering.search.lexical import asked_words
from treering.store import Store
from treering.text.words import words
from treering.types import FilePrediction, Filters, Hit

EVERYTHING = 1000

CLIENT = "RETRY_LIMIT = {0}\n\n\ndef fetch(url):\n    # give up after {0} attempts\n    return url\n"
CLIENT_TEST = "def test_fetch_gives_up():\n    assert RETRY_LIMIT == {0}\n"


class Workshop(Repo):
    """A repository whose commits have names."""

    def __init__(self, path: Path, *init: str) -> None:
        super().__init__(path, *init)
        self.named: dict[str, str] = {}

    def step(self, name: str, message: str, **files: str | bytes | None) -> None:
        self.named[name] = self.commit(message, **files)

    def grow(self) -> None:
        """What may come later: the same words again, merges of what was there, and clocks that went wrong."""
        self.commit("Raise the retry limit again (#57)", src_0_client__py=CLIENT.format(90))
        self.commit("Parse header lines anew", src_0_parser__py="def parse_header(line):\n    return line\n")
        for number in range(4):  # from now on such a message says nothing
            self.commit("wip", **{f"notes/{number}.txt": f"{number}\n"})
        self.clock = 1_500_000_000
        self.git("switch", "--quiet", "-c", "older", self.named["start"])
        self.commit("The retry limit of old", src_0_old__py="RETRY_LIMIT = 1\n", src_0_client__py="RETRY_LIMIT = 1\n")
        self.commit("Gateway receipts and header lines of old", src_0_gateway__py="class OldGateway:\n    pass\n")
        self.git("switch", "--quiet", "-c", "skewed", self.named["comments"])
        self.commit("A child older than its parents")
        self.git("switch", "--quiet", "-c", "elsewhere", self.named["retry"])
        self.commit("Elsewhere", src_0_elsewhere__py="def elsewhere():\n    pass\n")
        self.git("merge", "--quiet", "--no-ff", "-m", "Merge the gateway for the retry limit (#57)", "feature/bridge")
        self.git("switch", "--quiet", "main")


def tell(repo: Workshop) -> Workshop:
    repo.step("start", "Start the energy market", src_0_market__py="def settle(order):\n    return order\n" * 3)
    repo.step("readme", "Say what it is", README__md="# Market\nIt settles orders.\n")
    repo.step("retry", "Raise the retry limit", src_0_client__py=CLIENT.format(9))
    repo.step(
        "silent", "wip", src_0_parser__py="class TokenParser:\n    def parse_header(self, line):\n        return line\n"
    )
    repo.step("tested", "Cover the client", tests_0_test_client__py=CLIENT_TEST.format(9))
    for limit in (10, 11, 12):
        files = {"src_0_client__py": CLIENT.format(limit), "tests_0_test_client__py": CLIENT_TEST.format(limit)}
        repo.step(f"limit {limit}", f"Allow {limit} attempts", **files)
    repo.step("ledger", "Explain the ledger", docs_0_ledger__md="The ledger keeps receipts of every chain.\n")
    repo.write(
        "src/parser.py",
        "class TokenParser:\n    def parse_header(self, line):\n        # comments begin with a hash\n"
        "        return line.partition('#')[0]\n",
    )
    repo.git("add", "--all")
    repo.git("commit", "--quiet", "--author=Grace Hopper <grace@navy.example>", "-m", "Teach the parser comments")
    repo.named["comments"] = repo.git("rev-parse", "HEAD")
    repo.git("switch", "--quiet", "-c", "feature/bridge")
    repo.step("gateway", "Add a class", src_0_gateway__py="class GatewayBridge:\n    pass\n")
    repo.step("cross", "wip", src_0_gateway__py="class GatewayBridge:\n    def cross(self, receipt):\n        pass\n")
    repo.git("switch", "--quiet", "main")
    repo.step(
        "move", "Move the market", src_0_market__py=None, core_0_market__py="def settle(order):\n    return order\n" * 3
    )
    title = "Merge pull request #41 from ada/bridge\n\nLet zebras travel between chains"
    repo.git("merge", "--quiet", "--no-ff", "-m", title, "feature/bridge")
    repo.named["merge"] = repo.git("rev-parse", "HEAD")
    repo.step(
        "dispute", "Settle disputes early (#57)", src_0_dispute__py="def settle_dispute(case):\n    return case\n"
    )
    repo.step("removed", "Less", src_0_dispute__py="def decide(case):\n    return case\n")
    repo.git("switch", "--quiet", "-c", "hotfix")
    repo.step("hotfix", "Guard the empty oracle", src_0_oracle__py="def oracle_price(feed):\n    return feed or 0\n")
    repo.git("switch", "--quiet", "main")
    repo.git("merge", "--quiet", "--no-ff", "-m", "Merge hotfix", "hotfix")
    repo.named["hotfix merge"] = repo.git("rev-parse", "HEAD")
    repo.git("switch", "--quiet", "-c", "release", repo.named["readme"])
    repo.git("cherry-pick", repo.named["retry"])
    repo.named["picked"] = repo.git("rev-parse", "HEAD")
    repo.git("switch", "--quiet", "main")
    repo.clock += 90 * 86400
    entry = "# Changes\n- Receipts can now cross from one chain into another (#41)\n"
    repo.step("changes", "Prepare the release", CHANGES__md=entry)
    archive = "def archive(receipts):\n    return sorted(receipts)\n"
    repo.step("last", "Archive receipts", src_0_archive__py=archive, README__md="# Market\nIt archives receipts.\n")
    return repo


def place(repo: Repo, store: Path | None = None, limit: int = EVERYTHING) -> Place:
    return opening.place(repo.path, store, {"search": {"limit": limit}})


def search(repo: Repo, query: str, *, at: str = "", report: Reporter | None = None, **filters: Any) -> list[Hit]:
    return finding.search(place(repo), query, report or Reporter(), filters=Filters(**filters), at=at)


def named(repo: Workshop, hits: list[Hit]) -> list[str]:
    names = {long: name for name, long in repo.named.items()}
    return [names[hit.commit_hash] for hit in hits]


def treering(repo: Repo, *arguments: str, stdin: bytes = b"", code: int = 0) -> Result:
    done = CliRunner().invoke(main, [*arguments, "--repo", str(repo.path)], input=stdin)
    assert done.exit_code == code, f"{done.output}\n{done.exception!r}"
    return done


BEHIND = "the index is behind the repository: run `treering index`, or keep `treering watch` on\n"


def without_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        modelpack.PACK, "minilm.weights", modelpack.PackFile("no-such-package", "model.safetensors", "0")
    )


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """The workshop with its index, made once; what writes takes a copy."""
    with pytest.MonkeyPatch.context() as patch:
        at_home(patch, tmp_path_factory.mktemp("home"))
        made = tell(Workshop(tmp_path_factory.mktemp("template") / "project"))
        operations.index(place(made), Reporter())
    return made


@pytest.fixture
def workshop(template: Workshop, tmp_path: Path) -> Workshop:
    mine = template.copied(tmp_path / "project")
    mine.named = dict(template.named)
    return mine


@pytest.fixture(params=["with vectors", "by words"])
def either(request: pytest.FixtureRequest, workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    """The workshop, with the model of meaning and without."""
    if request.param == "by words":
        without_model(monkeypatch)
    return workshop


# what may be found -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("filters", "git"),
    [
        ({}, ["--all"]),
        ({"author": "GRACE@navy"}, ["--all", "--author=grace@navy"]),
        ({"since": "2024-01-01"}, ["--all", "--since=2024-01-01T00:00:00"]),
        ({"until": "2024-01-01"}, ["--all", "--until=2024-01-01T23:59:59"]),
        ({"since": "2023-01-01", "until": "2023-01-02"}, ["--all", "--until=2023-01-02T00:00:00"]),
        ({"branch": "release"}, ["release"]),
        ({"path": "src/parser.py"}, ["--all", "--", "src/parser.py"]),
        ({"path": "src/market.py"}, ["--all", "--", "src/market.py"]),
        ({"path": "docs"}, ["--all", "--", "docs"]),
        ({"path": "docs/"}, ["--all", "--", "docs"]),
        ({"path": "*_client.py"}, ["--all", "--", "*_client.py"]),
        ({"kind": "test"}, ["--all", "--", "tests"]),
        ({"kind": "docs"}, ["--all", "--", "docs", "*.md"]),
        ({"path": "src", "author": "grace"}, ["--all", "--author=grace", "--", "src"]),
    ],
)
def test_a_filter_lets_through_what_git_log_would(template: Workshop, filters: dict[str, Any], git: list[str]) -> None:
    wanted = template.git("log", "--no-merges", "--full-history", "--format=%s", *git).splitlines()
    hits = search(template, "receipts and the retry limit", **filters)
    assert {hit.subject for hit in hits} == set(wanted)


def test_merges_are_found_only_if_asked_for(template: Workshop) -> None:
    merges = {template.named["merge"], template.named["hotfix merge"]}
    assert not merges & {hit.commit_hash for hit in search(template, "zebras travel between chains")}
    (first, *_) = search(template, "merge pull request bridge zebras", include_merges=True)
    assert first.commit_hash == template.named["merge"]


def test_the_text_of_a_merge_counts_for_the_commits_it_brought(either: Workshop) -> None:
    hits = search(either, "zebras")
    assert set(named(either, hits[:2])) == {"gateway", "cross"}
    assert {hit.merged_by for hit in hits[:2]} == {either.named["merge"]}
    assert all("text of its merge: zebras" in hit.why for hit in hits[:2])


@pytest.mark.parametrize("filters", [{"author": "nobody"}, {"path": "no/such/file"}, {"branch": "none"}])
def test_an_author_path_or_branch_that_is_not_there_has_no_hits_and_that_is_said(
    template: Workshop, filters: dict[str, Any]
) -> None:
    options = [word for name, value in filters.items() for word in (f"--{name}", value)]
    done = treering(template, "search", "retry", *options)
    assert done.stdout == ""
    assert "no commit answers that" in done.stderr
    assert json.loads(treering(template, "search", "retry", "--json", *options).stdout) == []


@pytest.mark.parametrize(
    ("options", "said"), [(["--since", "someday"], "no date"), (["--kind", "poem"], "no kind of file")]
)
def test_a_date_or_a_kind_that_is_none_is_an_error(template: Workshop, options: list[str], said: str) -> None:
    assert said in treering(template, "search", "retry", *options, code=2).stderr


# exact answers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [7, 12, 40])
@pytest.mark.parametrize("which", ["silent", "merge"])
def test_a_hash_finds_its_commit(template: Workshop, which: str, length: int) -> None:
    name = template.named[which]
    hits = search(template, name[:length].upper() if length == 40 else name[:length])
    assert [(hit.commit_hash, hit.why) for hit in hits] == [(name, "that hash")]


def test_a_number_finds_who_mentions_it_and_who_came_in_with_it(template: Workshop) -> None:
    assert named(template, search(template, "#57")) == ["dispute"]
    hits = search(template, "#41")
    assert named(template, hits) == ["cross", "gateway"]
    assert {hit.why for hit in hits} == {"mentions it"}
    assert named(template, search(template, "#41", include_merges=True)) == ["merge", "cross", "gateway"]


def test_a_path_finds_who_changed_it_newest_first(template: Workshop) -> None:
    hits = search(template, "src/market.py")
    assert named(template, hits) == ["move", "start"]
    assert {hit.why for hit in hits} == {"changes it"}
    assert named(template, search(template, "src/parser.py", author="grace")) == ["comments"]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ('"the retry LIMIT"', {"Raise the retry limit"}),
        ('who said "limit retry"', set()),
        ('"give up after 11 attempts"', {"Allow 11 attempts", "Allow 12 attempts"}),
        ("\"return line.partition('#')\"", {"Teach the parser comments"}),
        ('"():"', {"Cover the client", *(f"Allow {limit} attempts" for limit in (10, 11, 12))}),
    ],
)
def test_a_quoted_phrase_is_held_word_for_word(either: Workshop, query: str, found: set[str]) -> None:
    assert {hit.subject for hit in search(either, query)} == found


def test_a_phrase_without_a_word_finds_who_holds_it_newest_first(either: Workshop) -> None:
    hits = search(either, '"():"')
    assert named(either, hits) == ["limit 12", "limit 11", "limit 10", "tested"]
    assert {hit.why for hit in hits} == {"holds it"}
    assert all("():" in hit.hunk for hit in hits)
    assert named(either, search(either, '"():" "=="', path="tests", until="2023-11-15"))[-1] == "tested"
    assert search(either, '"()=>"') == []


def test_what_looks_like_a_hash_and_is_none_is_a_word_and_a_number_that_nobody_mentions_has_no_hits(
    template: Workshop,
) -> None:
    assert "that hash" not in {hit.why for hit in search(template, "deadbeef1234567")}
    assert search(template, "#999") == []


@pytest.mark.parametrize(
    "query",
    [
        "NEAR(retry limit, 3) AND message:retry OR NOT *",
        "'; DROP TABLE commits; -- retry",
        'retry "limit',
        "retry\0limit\x1b[31m\udcff",
        "retry " + "x" * 100_000,
        "retry limit " * 9_000,
    ],
)
def test_whatever_is_asked_is_text(either: Workshop, query: str) -> None:
    before = len(search(either, "retry"))
    assert "retry" in search(either, query)[0].hunk.lower()
    assert len(search(either, "retry")) == before


# what was known then ---------------------------------------------------------------------------------------------

ASKED = (
    "raise the retry limit",
    "parse_header of lines",
    "gateway receipts zebras",
    "wip",
    "#57",
    "#41",
    "src/client.py",
    '"RETRY_LIMIT =" attempts',
    '"():"',
)
TASKS = ("raise the retry limit", "teach the parser about header lines", "let receipts cross the gateway")


def test_at_a_commit_only_what_it_reaches_is_found(either: Workshop) -> None:
    reached = set(either.git("rev-list", either.named["comments"]).split())
    for query in ASKED:
        hits = search(either, query, at=either.named["comments"][:10], include_merges=True)
        assert {hit.commit_hash for hit in hits} <= reached
    assert len(search(either, "retry receipts", at=either.named["start"])) <= 1


@pytest.mark.parametrize("moment", ["comments", "cross", "merge"])
def test_no_answer_of_a_day_shows_a_commit_that_came_later(either: Workshop, moment: str) -> None:
    at = either.named[moment]
    reached = set(either.git("rev-list", at).split())
    later = sorted(set(either.named.values()) - reached)
    queries = [*ASKED, *later, *(name[:7] for name in later), "CHANGES.md", "src/dispute.py", "class `GatewayBridge`"]
    asked = [{"id": number, "query": query, "n": 100, "at": at} for number, query in enumerate(queries)]
    answers = treering(either, "search", "--batch", stdin=lines(*asked)).stdout.splitlines()
    for query, answer in zip(queries, answers, strict=True):
        for hit in json.loads(answer)["hits"]:
            assert {hit["commit_hash"], hit["merged_by"] or at} <= reached, query
            assert not any(name[:7] in json.dumps(hit) for name in later)
            shown = either.git("show", "--first-parent", "--format=%B", hit["commit_hash"])
            assert all(line in shown for line in hit["hunk"].split("\n")[1:]), query


@pytest.mark.parametrize("moment", ["comments", "cross", "merge", "removed"])
def test_what_comes_later_does_not_change_the_answer_of_that_day(either: Workshop, moment: str) -> None:
    at = either.named[moment]

    def answers() -> list[list[Hit]]:
        return [search(either, query, at=at) for query in ASKED]

    before = answers()
    either.grow()
    operations.index(place(either), Reporter())
    assert answers() == before


@pytest.mark.parametrize("moment", ["comments", "merge", "removed"])
def test_what_comes_later_does_not_change_the_files_foretold_that_day(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    without_model(monkeypatch)
    at = workshop.named[moment]

    def answers(store: Path | None = None) -> list[list[FilePrediction]]:
        given = ["src/client.py"]
        return [finding.files(place(workshop, store), task, Reporter(), given=given, at=at) for task in TASKS]

    before = answers()
    workshop.grow()
    operations.index(place(workshop), Reporter())
    assert answers() == before
    operations.index(place(workshop, tmp_path / "fresh"), Reporter())
    assert answers(tmp_path / "fresh") == before


def test_before_a_merge_its_number_names_none_of_the_commits_it_will_bring(template: Workshop) -> None:
    assert search(template, "#41", at=template.named["cross"]) == []
    assert {hit.why for hit in search(template, "#41", at=template.named["merge"])} == {"mentions it"}


@pytest.mark.parametrize("command", ["search", "files"])
def test_an_unknown_moment_is_an_error(template: Workshop, command: str) -> None:
    assert "no commit fffffff" in treering(template, command, "retry limit", "--at", "fffffff", code=2).stderr


# one hit for one change, with its reason -------------------------------------------------------------------------


def test_repetitions_of_a_change_are_one_hit(template: Workshop) -> None:
    found = named(template, search(template, "retry limit oracle", include_merges=True))
    assert len({"retry", "picked"} & set(found)) == 1
    assert len({"hotfix", "hotfix merge"} & set(found)) == 1


@pytest.mark.parametrize(
    "query", ["retry limit", "parse_header", "settle_dispute", "zebras", "receipts of every chain", "market"]
)
def test_every_hit_says_why_and_shows_the_words_where_its_diff_has_them(either: Workshop, query: str) -> None:
    hits = search(either, query)
    assert hits
    asked = set(asked_words(query))
    with Store.existing(place(either).folder) as store:
        ids = dict(zip(store.order(), store.ids(), strict=True))
        for hit in hits:
            assert hit.why
            patches = store.hunks(ids[hit.commit_hash])
            if any(asked & set(words(patch.text)) for patch in patches):
                assert asked & set(words(hit.hunk)), hit
                assert hit.hunk_path in hit.files


def test_a_commit_that_only_removes_the_words_is_found_and_says_so(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_model(monkeypatch)
    hits = {hit.subject: hit for hit in search(workshop, "settle_dispute")}
    assert "diff: settle_dispute" in hits["Less"].why
    assert "-def settle_dispute(case):" in hits["Less"].hunk


def test_hostile_text_formats_nothing_in_markdown(repo: Repo) -> None:
    evil = "</b> **bold** [link](http://evil.example) `tick` ``` ~~~ # heading | <img src=x onerror=y> \x1b[31m"
    repo.write("evil`file`.md\n# forged", f"```\n# Injected heading\n{evil}\n~~~\n")
    repo.git("add", "--all")
    repo.git(
        "commit", "--quiet", f"--author={evil.replace('<', '').replace('>', '')} <e@x>", "-m", f"{evil}\n\n```\n# h"
    )
    repo.commit("```")
    repo.commit("")
    operations.index(place(repo), Reporter())
    printed = treering(repo, "search", "bold link heading tick", "--format", "markdown").stdout
    assert "\x1b" not in printed
    outside, fenced = [], False
    for line in printed.splitlines():
        if line.strip().startswith(("```", "~~~")) and not (fenced and line.strip().startswith("~~~")):
            fenced = not fenced
        elif not fenced:
            outside.append(line)
    assert not fenced
    assert "Injected heading" in printed
    plain = re.sub(r"``[^`]*``", "", "\n".join(outside))
    assert re.fullmatch(r"(?:- (?: ,|[\d -])*\n|  - (?:why|files): (?:none|[, ])*\n?)+", plain + "\n"), plain


# likeness, lines, files ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["limit 11", "retry", "picked", "hotfix"])
def test_similar_leaves_out_the_commit_and_its_repetitions(either: Workshop, which: str) -> None:
    with finding.desk(place(either), Reporter()) as desk:
        hits = desk.similar(either.named[which][:12], filters=Filters(include_merges=True))
    copies = {"retry": {"retry", "picked"}, "hotfix": {"hotfix", "hotfix merge"}}
    left_out = next((names for names in copies.values() if which in names), {which})
    assert not left_out & set(named(either, hits))
    if which == "limit 11":
        assert set(named(either, hits[:2])) == {"limit 10", "limit 12"}


def test_similar_takes_filters_and_refuses_what_is_no_commit(template: Workshop) -> None:
    done = treering(template, "similar", template.named["limit 11"], "--path", "docs", "--json")
    assert [hit["subject"] for hit in json.loads(done.stdout)] == ["Explain the ledger"]
    assert "there is no commit nonsense" in treering(template, "similar", "nonsense", code=2).stderr


@pytest.mark.parametrize(("file", "line"), [("src/client.py", 1), ("src/client.py", 5), ("src/parser.py", 3)])
def test_why_of_a_line_names_the_commit_that_blame_names(either: Workshop, file: str, line: int) -> None:
    wrote = either.git("blame", "--porcelain", "-w", "-L", f"{line},{line}", "main", "--", file).split()[0]
    first, *rest = finding.why(place(either), f"{file}:{line}", Reporter())
    assert (first.commit_hash, first.why) == (wrote, "wrote it")
    told = either.git("log", "--format=%H", "--no-patch", f"-L{line},{line}:{file}", "main").split()
    before = [name for name in told if name != wrote]
    assert [hit.commit_hash for hit in rest if hit.why == "changed it before"] == before
    assert all(hit.why for hit in rest)


def test_why_of_a_file_names_its_writers_with_their_lines(template: Workshop) -> None:
    blame = template.git("blame", "-w", "-l", "-s", "--root", "main", "--", "src/client.py").splitlines()
    counts = {name: sum(line.startswith(name) for line in blame) for name in {line.split()[0] for line in blame}}
    hits = finding.why(place(template), "src/client.py", Reporter())
    wrote = {hit.commit_hash: hit.why for hit in hits[: len(counts)]}
    assert wrote == {name: f"wrote {count} of its lines" for name, count in counts.items()}
    assert [counts[name] for name in wrote] == sorted(counts.values(), reverse=True)


@pytest.mark.parametrize(
    "what", ["nowhere.py", "src/client.py:99", "src/market.py", "src", ":3", "", "src/client.py:0"]
)
def test_why_of_what_is_not_there_is_an_error(template: Workshop, what: str) -> None:
    assert "git cannot tell who wrote" in treering(template, "why", what, code=2).stderr


def test_a_task_finds_its_file_and_a_given_file_its_companion(template: Workshop) -> None:
    assert finding.files(place(template), "comments in the parser", Reporter())[0].path == "src/parser.py"
    given = finding.files(place(template), "tidy", Reporter(), given=["src/client.py"])
    assert given[0].path == "tests/test_client.py"
    assert "changed with the given" in given[0].why
    assert "src/client.py" not in [one.path for one in given]
    assert [one.score for one in given] == sorted((one.score for one in given), reverse=True)
    assert all(0 <= one.score <= 1 for one in given)
    report = Reporter()
    finding.files(place(template), "tidy", report, given=["src/client.py", "src/planned.py"])
    assert report.warnings == ["src/planned.py says nothing: no commit of the history changed it"]


@pytest.mark.parametrize("moment", ["start", "silent", "comments", "merge"])
def test_only_files_of_that_days_tree_are_foretold(template: Workshop, moment: str) -> None:
    there = template.git("ls-tree", "-r", "--name-only", template.named[moment]).splitlines()
    found = finding.files(place(template), "archive the ledger of disputes", Reporter(), at=template.named[moment])
    assert {one.path for one in found} == set(there)


@pytest.mark.parametrize("lost", ["", "src"])
def test_where_the_trees_of_that_day_are_lost_the_files_changed_so_far_are_foretold(
    workshop: Workshop, lost: str
) -> None:
    at = workshop.named["move"]
    tree = workshop.git("rev-parse", f"{at}:{lost}")
    (workshop.path / ".git" / "objects" / tree[:2] / tree[2:]).unlink()
    found = finding.files(place(workshop), "settle the orders of the market", Reporter(), at=at)
    changed = workshop.git("log", "--no-merges", "--format=", "--name-only", "--no-renames", f"{at}~1").splitlines()
    assert {one.path for one in found} == {name for name in changed if name} | {"core/market.py"}
    assert found[0].path == "core/market.py"


@pytest.mark.parametrize("task", ["?!", "x" * 5000])
def test_a_task_without_a_word_that_is_looked_up_has_files_all_the_same(template: Workshop, task: str) -> None:
    assert json.loads(treering(template, "files", task, "--json").stdout)


def test_without_a_moment_the_files_of_the_newest_commit_are_foretold(template: Workshop) -> None:
    found = finding.files(place(template), "settle the market", Reporter())
    assert {one.path for one in found} == set(template.git("ls-tree", "-r", "--name-only", "main").splitlines())


@pytest.mark.parametrize("arguments", [["search", " "], ["files", "\n"], ["search"], ["files"]])
def test_nothing_asked_is_an_error(template: Workshop, arguments: list[str]) -> None:
    assert re.search("is empty|is missing", treering(template, *arguments, code=2).stderr)


def test_a_history_that_was_read_and_not_indexed_says_so(repo: Repo) -> None:
    repo.commit("Start", a__py="x = 1\n")
    operations.scrape(place(repo), Reporter())
    for arguments in (
        ["search", "start"],
        ["search", "--batch"],
        ["similar", repo.git("rev-parse", "HEAD")],
        ["why", "a.py"],
        ["files", "start"],
        ["files", "--batch"],
        ["bench"],
    ):
        said = treering(repo, *arguments, code=5).stderr
        assert said == "error: the index holds no commits\nhint: run `treering index` first\n"


def test_that_commits_were_read_and_not_indexed_is_said(workshop: Workshop) -> None:
    workshop.commit("Raise the retry limit to the sky")
    operations.scrape(place(workshop), Reporter())
    for arguments in (["search", "retry"], ["files", "retry"]):
        assert (
            "the index is behind the repository: run `treering index`, or keep `treering watch` on"
            in treering(workshop, *arguments).stderr
        )


@pytest.mark.parametrize("what", ["src/client.py:²", "src/client.py:" + "1" * 5000, "caf\udce9.txt", "src/client.py:0"])
def test_why_of_a_place_that_is_none_is_an_error_in_a_line(template: Workshop, what: str) -> None:
    assert treering(template, "why", what, code=2).stderr.startswith("error: git cannot tell who wrote")


def test_why_takes_a_path_however_it_is_written(template: Workshop) -> None:
    plain = treering(template, "why", "src/client.py:1", "--json").stdout
    for written in ("./src/client.py:1", "src/../src/client.py:01"):
        assert treering(template, "why", written, "--json").stdout == plain


def test_a_phrase_may_begin_and_end_within_a_word(template: Workshop) -> None:
    plain = treering(template, "search", '"def parse_header"', "--json").stdout
    assert json.loads(plain)
    found = treering(template, "search", '"ef parse_hea"', "--json").stdout
    assert {hit["commit_hash"] for hit in json.loads(found)} == {hit["commit_hash"] for hit in json.loads(plain)}


def test_a_hash_is_found_only_where_the_filters_let_it_through(template: Workshop) -> None:
    name = template.named["silent"]
    assert json.loads(treering(template, "search", name, "--json").stdout)
    assert "no commit answers" in treering(template, "search", name, "--author", "nobody").stderr
    merge = template.named["merge"]
    assert json.loads(treering(template, "search", merge, "--json").stdout)[0]["commit_hash"] == merge


# many at once ----------------------------------------------------------------------------------------------------


def lines(*values: object) -> bytes:
    return b"".join(json.dumps(value).encode() + b"\n" for value in values)


def test_a_batch_answers_each_line_in_order_as_if_it_were_asked_alone(template: Workshop) -> None:
    at = template.named["comments"]
    asked = [
        {"id": "b", "query": "zebras", "n": 2},
        {"id": 7, "query": "raise the retry limit", "at": at},
        {"id": "empty", "query": " "},
        {"id": "a", "query": "#41"},
    ]
    done = treering(template, "search", "--batch", stdin=lines(*asked[:2]) + b"\n" + lines(*asked[2:]))
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer["id"] for answer in answers] == ["b", 7, "empty", "a"]
    assert [len(answer["hits"]) for answer in answers][::2] == [2, 0]
    alone = treering(template, "search", "raise the retry limit", "--at", at, "--json")
    assert answers[1]["hits"] == json.loads(alone.stdout)
    assert list(answers[0]["hits"][0]) == [
        "commit_hash", "score", "subject", "author", "date", "branch", "files", "why", "merged_by", "hunk_path", "hunk",
    ]  # fmt: skip


def test_a_batch_of_tasks_answers_each_line_in_order(template: Workshop) -> None:
    asked = [
        {"id": 2, "task": "tidy", "n": 1, "given": ["src/client.py"]},
        {"id": 1, "task": "comments in the parser", "at": template.named["comments"]},
    ]
    done = treering(template, "files", "--batch", stdin=lines(*asked))
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer["id"] for answer in answers] == [2, 1]
    assert [hit["path"] for hit in answers[0]["hits"]] == ["tests/test_client.py"]
    alone = treering(template, "files", "comments in the parser", "--at", template.named["comments"], "--json")
    assert answers[1]["hits"] == json.loads(alone.stdout)
    assert list(answers[1]["hits"][0]) == ["path", "score", "why"]


@pytest.mark.parametrize(
    "torn",
    [b'{"id": 2, "que', b'{"id": 2}', b'{"id": 2, "query": "x", "limit": 3}', b"\xff", b'{"id":2,"query":"x","n":-1}'],
)
def test_a_torn_line_is_named_by_its_number_after_the_answers_before_it(template: Workshop, torn: bytes) -> None:
    done = treering(template, "search", "--batch", stdin=lines({"id": 1, "query": "retry"}) + b"\n" + torn, code=5)
    assert [json.loads(line)["id"] for line in done.stdout.splitlines()] == [1]
    assert "line 3 of stdin is no question" in done.stderr


# answers that are less than whole --------------------------------------------------------------------------------


def test_while_vectors_are_missing_words_answer_and_that_is_said(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(place(workshop).folder)
    with monkeypatch.context() as gone:
        without_model(gone)
        operations.index(place(workshop), Reporter())
        report = Reporter()
        assert search(workshop, "raise the retry limit", report=report)
        assert "searching by words only: the model package" in report.warnings[0]
    report = Reporter()
    hits = search(workshop, "raise the retry limit", report=report)
    assert hits[0].subject == "Raise the retry limit"
    assert "meaning" not in "".join(hit.why for hit in hits)
    (warning,) = report.warnings
    assert "searching by words only: the index has no vectors of this model yet" in warning


@pytest.mark.parametrize(("made", "said"), [(0.5, "searching by words only"), (0.97, "are found by words only")])
def test_half_of_the_vectors_do_not_put_their_commits_first(workshop: Workshop, made: float, said: str) -> None:
    for first, second in product("abcdefghi", repeat=2):
        workshop.commit(f"Keep page {first}{second} of the diary", **{f"diary/{first}{second}.txt": f"{first}\n"})
    operations.index(place(workshop), Reporter())
    with place(workshop).store() as store, store.writing("a test"), store.transaction():
        (count,) = store.db.execute("SELECT count(*) FROM vectors").fetchone()
        store.db.execute("DELETE FROM vectors WHERE row >= ?", (int(made * count),))
    report = Reporter()
    hits = search(workshop, "raise the retry limit", report=report)
    assert hits[0].subject == "Raise the retry limit"
    assert ("meaning" in "".join(hit.why for hit in hits)) is (made > 0.9)
    (warning,) = report.warnings
    assert said in warning


def test_a_later_merge_does_not_take_away_what_an_earlier_one_said(workshop: Workshop) -> None:
    workshop.git("switch", "--quiet", "-c", "gadget", workshop.named["retry"])
    workshop.commit("add gadget", src_0_gadget__py="def gadget():\n    pass\n")
    workshop.git("switch", "--quiet", "-c", "edition", workshop.named["retry"])
    workshop.git("merge", "--quiet", "--no-ff", "-m", "Support zanzibar calibration", "gadget")
    merge = workshop.git("rev-parse", "HEAD")
    workshop.git("switch", "--quiet", "main")
    operations.index(place(workshop), Reporter())
    known = search(workshop, "zanzibar calibration", at=merge)
    assert known[0].subject == "add gadget"
    assert known[0].merged_by == merge
    workshop.git("merge", "--quiet", "--no-ff", "-m", "Merge the gadget", "gadget")
    operations.index(place(workshop), Reporter())
    assert search(workshop, "zanzibar calibration", at=merge) == known


def test_a_branch_and_head_name_commits(workshop: Workshop) -> None:
    head = workshop.git("rev-parse", "HEAD")
    assert search(workshop, "retry limit", at="HEAD") == search(workshop, "retry limit", at=head)
    assert search(workshop, "retry limit", at="main") == search(workshop, "retry limit", at=head)
    workshop.git("branch", "2024", head)
    assert search(workshop, "retry limit", at="2024") == search(workshop, "retry limit", at=head)
    treering(workshop, "search", "retry limit", "--at", "no/branch", code=2)


def test_that_the_repository_has_moved_on_is_said(workshop: Workshop) -> None:
    assert "behind" not in treering(workshop, "search", "retry").stderr
    workshop.commit("Raise the retry limit to the sky")
    for arguments in (
        ["search", "retry"],
        ["similar", workshop.named["retry"]],
        ["why", "src/client.py"],
        ["files", "x"],
    ):
        done = treering(workshop, *arguments)
        assert BEHIND in done.stderr
        assert "sky" not in done.stdout


def test_a_history_of_nothing_but_a_merge_is_searched(workshop: Workshop) -> None:
    workshop.git("reset", "--quiet", "--hard", workshop.named["hotfix merge"])
    where = opening.place(
        workshop.path, workshop.path.parent / "short", {"scrape": {"branches": ["main"], "max_commits": 1}}
    )
    operations.index(where, Reporter())
    (hit,) = finding.search(where, "oracle", Reporter(), filters=Filters(include_merges=True))
    assert hit.commit_hash == workshop.named["hotfix merge"]
    assert hit.score == hit.score  # a number


# the bench -------------------------------------------------------------------------------------------------------

WAYS = ["git log --grep", "BM25 on messages", "dense on messages", "treering"]
FILE_WAYS = [
    "treering", "vote of the nearest commits", "plain vote of the 10 nearest", "changed often", "changed last",
]  # fmt: skip


def test_the_bench_measures_every_way_and_writes_what_it_found(workshop: Workshop, tmp_path: Path) -> None:
    asked = {
        "repository": "workshop",
        "questions": [
            {"id": "q1", "query": "how are header lines taken apart", "answers": [workshop.named["silent"][:10]]}
        ],
    }
    (tmp_path / "questions.json").write_text(json.dumps(asked))
    done = treering(workshop, "bench", "--questions", str(tmp_path / "questions.json"), "--most", "10", "--json")
    made = json.loads(done.stdout)
    assert json.loads((place(workshop).folder / "reports" / "bench.json").read_text("utf-8")) == made
    assert list(made) == ["repo", "commits", "made", "seconds", "rows", "files"]
    assert made["commits"] == len(workshop.git("rev-list", "--all").split())
    cases: dict[str, list[dict[str, Any]]] = {}
    for row in made["rows"]:
        cases.setdefault(row["cases_of"], []).append(row)
    assert {"merge titles", "changelog entries", "questions", "all"} <= set(cases)
    for rows in cases.values():
        assert [row["way"] for row in rows] == WAYS
        assert all(0 <= row["mrr"] <= 1 and 0 <= row["recall"] <= 1 for row in rows)
    assert {row["cases"] for row in cases["all"]} == {3}
    baseline = next(row for row in cases["all"] if row["way"] == "BM25 on messages")
    assert baseline["mrr_difference"] == [0, 0]
    ours = next(row for row in cases["questions"] if row["way"] == "treering")
    assert ours["recall"] == 1
    assert [row["way"] for row in made["files"]] == FILE_WAYS


def outcomes(repo: Workshop) -> dict[tuple[str, str], list[benchmark.Outcome]]:
    """What each way made of each case, by its source and its question."""
    where = place(repo)
    with opening.finder(where, Reporter()) as opened, open_reader(where.source, where.settings.scrape) as reader:
        messages = benching.messages_of(opened)
        cases = benching.cases_of(opened, reader, messages, None, EVERYTHING)
        judged = benchmark.judged(opened, cases, messages)
    found = zip(*(judged.outcomes[way] for way in WAYS), strict=True)
    return {(case.source, case.query): list(of) for case, of in zip(cases, found, strict=True)}


def test_the_bench_asks_the_history_of_the_day_and_nothing_later_changes_what_it_finds(workshop: Workshop) -> None:
    known = outcomes(workshop)
    assert {source for source, _ in known} == {"merge titles", "changelog entries"}
    workshop.grow()
    operations.index(place(workshop), Reporter())
    later = outcomes(workshop)
    assert {case: later[case] for case in known} == known


def test_equal_scores_share_their_ranks_and_equal_patches_are_one(template: Workshop) -> None:
    with opening.finder(place(template), Reporter()) as opened:
        history = opened.history
        ids = {benchmark.change(history, number): number for number in range(len(history))}
        first, second, *rest = ids.values()

        def judged(numbers: list[int], scores: list[float]) -> benchmark.Outcome:
            case = benchmark.Case("", "", frozenset({first, second}), -1)
            return benchmark.outcome(history, case, (np.array(numbers, np.int64), np.array(scores)))

        assert judged([first, rest[0], second], [3, 2, 1]) == benchmark.Outcome(1, 1)
        assert judged([rest[0], first], [2, 2]) == benchmark.Outcome(1.5, 0.5)
        assert judged(rest[:3], [3, 2, 1]) == benchmark.Outcome(0, 0)
        assert judged([], []).reciprocal == 0


def test_the_bench_prints_a_table(template: Workshop) -> None:
    printed = treering(template, "bench").stdout
    assert f"Report: {place(template).folder / 'reports' / 'latest.html'}\n" in printed
    assert "merge titles (1 cases)" in printed
    assert all(printed.count(f"  {way} ") >= 2 for way in WAYS)
    assert all(f"  {way} " in printed for way in FILE_WAYS)


def test_the_bench_is_in_the_report_and_stays_there_when_a_run_makes_it_again(workshop: Workshop) -> None:
    page = place(workshop).folder / "reports" / "latest.html"
    shutil.rmtree(page.parent, ignore_errors=True)  # of the template, where a bench may have been
    treering(workshop, "run", "--minutes", "0")
    assert '<svg class="bars"' not in page.read_text("utf-8")
    treering(workshop, "bench")
    shown = page.read_text("utf-8")
    assert "No model was trained" in shown
    assert shown.count('<svg class="bars"') >= 4
    assert all(f'<th scope="row">{way}</th>' in shown for way in (*WAYS, *FILE_WAYS))
    treering(workshop, "run", "--minutes", "0")
    bench = re.compile(r"<h2>How well it finds</h2>.*(?=<h2>Time)", re.DOTALL)
    assert bench.findall(page.read_text("utf-8")) == bench.findall(shown)


def test_a_history_with_nothing_to_ask_about_says_so(repo: Repo) -> None:
    repo.commit("Start", a__py="x = 1\n")
    operations.index(place(repo), Reporter())
    assert "no titles of merges and no changelog" in treering(repo, "bench").stderr
    assert "no titles of merges and no changelog" in (place(repo).folder / "reports" / "latest.html").read_text("utf-8")


@pytest.mark.parametrize(
    ("written", "code"),
    [
        ("{", 5),
        ('{"questions": [{"query": "x", "answers": ["fffffff"]}]}', 2),
        ('{"a": 1}', 5),
        ('{"questions": [{"query": "x", "answers": []}]}', 5),
    ],
)
def test_questions_that_are_none_are_an_error(template: Workshop, tmp_path: Path, written: str, code: int) -> None:
    (tmp_path / "questions.json").write_text(written)
    treering(template, "bench", "--questions", str(tmp_path / "questions.json"), code=code)


def test_files_are_read_as_text_where_they_are_some_and_not_too_large(tmp_path: Path) -> None:
    repo = Repo(tmp_path / "project")
    data = "x" * (blame.LARGEST + 1)
    tip = repo.commit(empty="", a__py="a = 1\n", binary=b"\0", data__json=data, of_0_more__py="é\n" * 9, last__py="b")
    asked = ["data.json", "empty", "binary", "of", "missing one", "a.py", "of/more.py", "../a.py", "a\nb", "last.py"]
    operations.index(place(repo), Reporter())
    with finding.desk(place(repo), Reporter()) as desk:
        assert blame.texts(desk.shadow, tip, asked, most=3) == {
            "empty": "", "a.py": "a =", "of/more.py": "é\n", "last.py": "b"
        }  # fmt: skip
        assert blame.texts(desk.shadow, tip, []) == {}
