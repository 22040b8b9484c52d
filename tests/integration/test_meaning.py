"""What commits mean to each other and what their files are: merges, references, patches, people, attributes.

Each against git's own word for it.
"""

import json
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from repositories import Repo
from treering import finding, opening, operations
from treering.config import ScrapeSettings
from treering.exports import export_history
from treering.files import read_json_lines
from treering.git.reader import open_reader
from treering.pipeline.scrape import Scraped
from treering.report import Reporter
from treering.search.commits import Finder
from treering.store import Store
from treering.types import Placed, Record

MakeRepo = Callable[..., Repo]


def places(path: Path) -> dict[str, Placed]:
    with open_reader(path, ScrapeSettings(workers=1)) as reader:
        return {place.hash: place for place in reader.places()}


def scrape(repo: Repo, *, patches: bool = False, **chosen: object) -> Scraped:
    return operations.scrape(opening.place(repo.path, None, {"scrape": chosen}), Reporter(), patches=patches)


def stored(repo: Repo) -> dict[str, Record]:
    with Store.existing(repo.path / ".treering") as store:
        return {record.commit_hash: record for record in store.records()}


def through_the_store(repo: Repo, **chosen: object) -> dict[str, Record]:
    scrape(repo, patches=True, **chosen)
    return stored(repo)


def through_a_file(repo: Repo, **chosen: object) -> dict[str, Record]:
    folder = repo.path.parent / f"export of {repo.path.name}"
    export_history(repo.path, folder / "a.jsonl", folder / "a.json", Reporter(), {"scrape": chosen})
    return {record.commit_hash: record for record in read_json_lines(folder / "a.jsonl", Record)}


BOTH = pytest.mark.parametrize("told", [through_the_store, through_a_file])
Told = Callable[..., dict[str, Record]]


class Graph:
    """A repository of empty commits, made from its graph alone."""

    def __init__(self, repo: Repo) -> None:
        self.repo = repo
        self.tree = repo.git("mktree")
        self.names: dict[str, str] = {}

    def commit(self, name: str, *parents: str) -> str:
        given = [word for parent in parents for word in ("-p", self.names[parent])]
        self.names[name] = self.repo.git("commit-tree", self.tree, "-m", name, *given)
        return self.names[name]

    def branch(self, branch: str, name: str) -> None:
        self.repo.git("update-ref", f"refs/heads/{branch}", self.names[name])

    def merged_by(self) -> dict[str, str]:
        """Commit to merge, by the names given; what no merge brought is left out."""
        short = {long: name for name, long in self.names.items()}
        return {
            short[name]: short[place.merged_by] for name, place in places(self.repo.path).items() if place.merged_by
        }


@pytest.fixture
def graph(repo: Repo) -> Graph:
    return Graph(repo)


# which merge brought a commit in ---------------------------------------------------------------------------------


def test_a_merge_brought_the_commits_of_its_branch(graph: Graph) -> None:
    graph.commit("base")
    graph.commit("side 1", "base")
    graph.commit("side 2", "side 1")
    graph.commit("main", "base")
    graph.commit("merge", "main", "side 2")
    graph.commit("after", "merge")
    graph.branch("main", "after")
    assert graph.merged_by() == {"side 1": "merge", "side 2": "merge"}


def test_of_nested_merges_the_nearest_brought_a_commit(graph: Graph) -> None:
    graph.commit("base")
    graph.commit("inner", "base")
    graph.commit("outer", "base")
    graph.commit("inner merge", "outer", "inner")
    graph.commit("main", "base")
    graph.commit("outer merge", "main", "inner merge")
    graph.branch("main", "outer merge")
    assert graph.merged_by() == {"inner": "inner merge", "outer": "outer merge", "inner merge": "outer merge"}


def test_an_octopus_brought_all_its_branches(graph: Graph) -> None:
    graph.commit("base")
    for name in ("one", "two", "three"):
        graph.commit(name, "base")
    graph.commit("two more", "two")
    graph.commit("octopus", "base", "one", "two more", "three")
    graph.branch("main", "octopus")
    assert graph.merged_by() == dict.fromkeys(("one", "two", "two more", "three"), "octopus")


def test_a_fast_forward_is_no_merge(repo: Repo) -> None:
    repo.commit("base")
    repo.git("switch", "--quiet", "-c", "side")
    repo.commit("side", f="1\n")
    repo.git("switch", "--quiet", "main")
    repo.git("merge", "--quiet", "--ff-only", "side")
    assert {place.merged_by for place in places(repo.path).values()} == {None}


def test_of_a_criss_cross_each_merge_brought_the_other_side(graph: Graph) -> None:
    graph.commit("base")
    graph.commit("main 1", "base")
    graph.commit("side 1", "base")
    graph.commit("main 2", "main 1", "side 1")
    graph.commit("side 2", "side 1", "main 1")
    graph.commit("main 3", "main 2", "side 2")
    graph.branch("main", "main 3")
    graph.branch("side", "side 2")
    assert graph.merged_by() == {"side 1": "main 2", "side 2": "main 3"}


def test_what_two_branches_share_was_brought_by_the_first_merge(graph: Graph) -> None:
    graph.commit("base")
    graph.commit("shared", "base")
    graph.commit("left", "shared")
    graph.commit("right", "shared")
    graph.commit("merge left", "base", "left")
    graph.commit("merge right", "merge left", "right")
    graph.branch("main", "merge right")
    graph.branch("left", "left")
    assert graph.merged_by() == {"shared": "merge left", "left": "merge left", "right": "merge right"}


def test_a_commit_that_waits_for_its_merge_was_brought_by_none(graph: Graph) -> None:
    graph.commit("base")
    graph.commit("main", "base")
    graph.commit("waiting", "base")
    graph.commit("update from main", "waiting", "main")
    graph.branch("main", "main")
    graph.branch("waiting", "update from main")
    assert graph.merged_by() == {}


@pytest.mark.parametrize("seed", range(6))
def test_in_any_graph_a_merge_brought_what_git_says_it_did(graph: Graph, seed: int) -> None:
    dice = random.Random(seed)  # noqa: S311  (a test's dice, the same every time)
    names = [f"c{number}" for number in range(28)]
    for number, name in enumerate(names):
        recent = names[max(0, number - 6) : number]
        count = min(len(recent), dice.choice([0, 1, 1, 1, 2, 2, 3]) if number > 3 else 1)
        graph.commit(name, *dice.sample(recent, count))
    graph.branch("main", names[-1])
    for number, name in enumerate(dice.sample(names, 3)):
        graph.branch(f"other{number}", name)
    git = graph.repo.git
    found = places(graph.repo.path)
    brought: dict[str, list[str]] = {}
    for name, place in found.items():
        if place.merged_by:
            brought.setdefault(place.merged_by, []).append(name)
    parents = {line.split()[0]: line.split()[1:] for line in git("rev-list", "--all", "--parents").split("\n")}
    for merge, names_brought in brought.items():
        first, *others = parents[merge]
        assert others
        of_merge = set(git("rev-list", *others, f"^{first}").split())
        assert set(names_brought) <= of_merge
        # The nearest: no other merge stands between, on the lines of first parents that this one brought.
        lines = {name for other in others for name in git("rev-list", "--first-parent", other).split()}
        assert set(names_brought) <= lines
    # What the trunk reaches was brought by a merge, or is on its line of first parents.
    line = set(git("rev-list", "--first-parent", "main").split())
    assert {name for name in git("rev-list", "main").split() if not found[name].merged_by} == line


def test_a_merge_that_comes_later_is_told_at_the_next_run(repo: Repo) -> None:
    repo.commit("base")
    repo.git("switch", "--quiet", "-c", "side")
    side = repo.commit("side", f="1\n")
    repo.git("switch", "--quiet", "main")
    assert through_the_store(repo)[side].merged_by is None
    repo.git("merge", "--quiet", "--no-ff", "-m", "Merge it\n\nFor a reason.", "side")
    merge = repo.git("rev-parse", "HEAD")
    assert scrape(repo, patches=True).new == 1
    record = stored(repo)[side]
    assert (record.merged_by, record.merge_message) == (merge, "Merge it\n\nFor a reason.")
    repo.git("reset", "--quiet", "--hard", "HEAD^1")
    assert scrape(repo).vanished == 1
    record = stored(repo)[side]
    assert (record.merged_by, record.merge_message) == (None, "")


# what messages say of other commits --------------------------------------------------------------------------------


@BOTH
def test_a_commit_is_told_with_its_references_and_the_text_of_its_merge(repo: Repo, told: Told) -> None:
    base = repo.commit("base", f="1\n")
    repo.git("switch", "--quiet", "-c", "side")
    side = repo.commit("Raise it\n\nFixes #3\nCo-authored-by: Grace <grace@example.com>", f="1\n2\n")
    repo.git("switch", "--quiet", "main")
    text = "Merge pull request #12 from ada/side\n\nRaise the limit of retries\n\nIt was too low."
    repo.git("merge", "--quiet", "--no-ff", "-m", text, "side")
    merge = repo.git("rev-parse", "HEAD")
    found = told(repo)
    assert found[side].merged_by == merge
    assert found[side].merge_message == text
    assert found[side].references == {
        "co-authors": ("Grace <grace@example.com>",), "fixes": ("#3",), "issues": ("#3",)
    }  # fmt: skip
    assert found[merge].references == {"issues": ("#12",), "pull-requests": ("#12",)}
    assert (found[base].merged_by, found[base].merge_message, found[base].references) == (None, "", {})


@BOTH
def test_without_merges_a_commit_still_has_the_text_of_its_merge(repo: Repo, told: Told) -> None:
    repo.commit("base", f="1\n")
    repo.git("switch", "--quiet", "-c", "side")
    side = repo.commit("side", g="1\n")
    repo.git("switch", "--quiet", "main")
    repo.git("merge", "--quiet", "--no-ff", "-m", "Merge pull request #12 from ada/side", "side")
    found = told(repo, merges=False)
    assert len(found) == 2
    assert found[side].merge_message == "Merge pull request #12 from ada/side"


@BOTH
def test_a_secret_in_the_text_of_a_merge_is_taken_out(repo: Repo, told: Told) -> None:
    repo.commit("base", f="1\n")
    repo.git("switch", "--quiet", "-c", "side")
    side = repo.commit("side", g="1\n")
    repo.git("switch", "--quiet", "main")
    secret = "ghp_" + "aB3dE5fG7hJ9kL1mN2pQ4rS6tU8vW0xY1zA2"
    repo.git("merge", "--quiet", "--no-ff", "-m", f"Merge side\n\nUse {secret}", "side")
    assert secret not in told(repo)[side].merge_message
    assert "[redacted:" in told(repo)[side].merge_message


# the same patch and its inverse ------------------------------------------------------------------------------------


BODY = "".join(f"line {number}\n" for number in range(20))


@BOTH
def test_a_merge_has_the_patch_of_its_only_commit(repo: Repo, told: Told) -> None:
    repo.commit("base", f=BODY)
    repo.git("switch", "--quiet", "-c", "side")
    side = repo.commit("side", f=BODY.replace("line 9\n", "line nine\n"))
    repo.git("switch", "--quiet", "main")
    repo.commit("elsewhere", g="1\n")
    repo.git("merge", "--quiet", "--no-ff", "-m", "Merge side", "side")
    merge = repo.git("rev-parse", "HEAD")
    found = told(repo)
    assert found[merge].same_patch_as == side
    assert {name for name, record in found.items() if record.same_patch_as} == {merge}
    assert found[merge].patch_id == found[side].patch_id != ""
    assert {record.undoes for record in found.values()} == {None}


@BOTH
def test_a_cherry_pick_has_the_patch_of_its_original(repo: Repo, told: Told) -> None:
    repo.commit("base", f=BODY)
    repo.git("branch", "old")
    repo.commit("move the lines", f=f"a new first line\n{BODY}")
    mended = repo.commit("mend", f=f"a new first line\n{BODY}".replace("line 9\n", "line nine\n"))
    repo.git("switch", "--quiet", "old")
    repo.git("cherry-pick", "-x", mended)
    picked = repo.git("rev-parse", "HEAD")
    found = told(repo)
    assert found[picked].same_patch_as == mended
    assert found[mended].same_patch_as is None
    assert found[picked].references == {"cherry-picked-from": (mended,)}


@BOTH
def test_a_revert_undoes_the_newest_commit_with_that_patch(repo: Repo, told: Told) -> None:
    changed = BODY.replace("line 9\n", "line nine\n")
    repo.commit("base", f=BODY)
    first = repo.commit("change", f=changed)
    repo.git("revert", "--no-edit", first)
    reverted = repo.git("rev-parse", "HEAD")
    second = repo.commit("change again", f=changed)
    repo.git("revert", "--no-edit", second)
    last = repo.git("rev-parse", "HEAD")
    found = told(repo)
    assert [found[name].undoes for name in (first, reverted, second, last)] == [None, first, reverted, second]
    assert [found[name].same_patch_as for name in (first, reverted, second, last)] == [None, None, first, reverted]
    assert found[reverted].references == {"reverts": (first,)}


@BOTH
def test_commits_that_change_nothing_are_not_the_same(repo: Repo, told: Told) -> None:
    repo.commit("one")
    repo.commit("two")
    assert {(record.same_patch_as, record.undoes, record.patch_id) for record in told(repo).values()} == {
        (None, None, "")
    }


def test_equal_lines_in_another_file_are_another_patch(repo: Repo) -> None:
    repo.commit("base", f=BODY, g=BODY)
    repo.commit("f", f=BODY + "more\n")
    repo.commit("g", g=BODY + "more\n")
    assert {record.same_patch_as for record in through_the_store(repo).values()} == {None}


def test_a_search_shows_commits_with_the_same_patch_once(repo: Repo) -> None:
    repo.commit("base", f__py="def settle():\n    pass\n")
    repo.git("branch", "old")
    oracle = repo.commit("Consult the oracle", oracle__py="def oracle_of_delphi():\n    pass\n")
    repo.git("switch", "--quiet", "old")
    repo.commit("elsewhere", g__py="def other():\n    pass\n")
    repo.git("cherry-pick", oracle)
    operations.index(opening.place(repo.path), Reporter())
    with Store.existing(repo.path / ".treering") as store:
        hits = Finder(store, None).search("oracle of delphi", limit=10)
    assert [hit.subject for hit in hits].count("Consult the oracle") == 1
    hits = finding.search(opening.place(repo.path), "oracle of delphi", Reporter())
    assert [hit.subject for hit in hits].count("Consult the oracle") == 1


# people ------------------------------------------------------------------------------------------------------------


MAILMAP = """\
# a comment, then what is no line of a mailmap
<<<<
Grace Hopper <grace@example.com> <ada@example.com>
Countess <ADA@b.example> Ada Lovelace <ada@c.example>
"""


def written_by(repo: Repo, name: str, email: str) -> str:
    repo.git("commit", "--quiet", "--allow-empty", "-m", "x", f"--author={name} <{email}>")
    return repo.git("rev-parse", "HEAD")


@BOTH
def test_a_mailmap_unifies_people_as_git_does(repo: Repo, told: Told) -> None:
    repo.commit("base", __mailmap=MAILMAP)
    written_by(repo, "Ada Lovelace", "ADA@example.com")
    written_by(repo, "Ada Lovelace", "ada@c.example")
    written_by(repo, "Somebody", "ada@c.example")
    written_by(repo, "J\N{LATIN SMALL LETTER O WITH DIAERESIS}rg  von X", "j@example.com")
    log = repo.git("log", "--format=%H%x00%aN%x00%aE%x00%cN%x00%cE").split("\n")
    for name, record in told(repo, mailmap=True).items():
        people = (record.author_name, record.author_email, record.committer_name, record.committer_email)
        assert "\0".join((name, *(str(field) for field in people))) in log


@BOTH
def test_without_being_asked_no_mailmap_is_read(repo: Repo, told: Told) -> None:
    name = repo.commit("base", __mailmap=MAILMAP)
    assert (told(repo)[name].author_name, told(repo)[name].author_email) == ("Ada Lovelace", "ada@example.com")


def test_a_mailmap_turned_on_and_off_changes_what_is_in_the_store(repo: Repo) -> None:
    name = repo.commit("base", __mailmap=MAILMAP)
    assert through_the_store(repo)[name].author_name == "Ada Lovelace"
    assert through_the_store(repo, mailmap=True)[name].author_name == "Grace Hopper"
    repo.commit("mend", __mailmap="Grace B. Hopper <grace@example.com> <ada@example.com>\n")
    assert through_the_store(repo, mailmap=True)[name].author_name == "Grace B. Hopper"
    assert through_the_store(repo)[name].author_name == "Ada Lovelace"


def test_a_mailmap_holds_for_commits_that_were_not_chosen_when_it_came(repo: Repo) -> None:
    repo.commit("base", __mailmap=MAILMAP)
    repo.git("switch", "--quiet", "-c", "side")
    side = repo.commit("side", f="1\n")
    through_the_store(repo)
    repo.git("switch", "--quiet", "main")
    through_the_store(repo, mailmap=True, branches=["main"])
    assert through_the_store(repo, mailmap=True)[side].author_name == "Grace Hopper"


def test_a_change_of_what_is_secret_holds_for_commits_that_were_not_chosen_then(repo: Repo) -> None:
    secret = "ghp_" + "aB3dE5fG7hJ9kL1mN2pQ4rS6tU8vW0xY1zA2"
    repo.commit("base")
    repo.git("switch", "--quiet", "-c", "side")
    side = repo.commit(f"use {secret}", f="1\n")
    repo.git("switch", "--quiet", "main")
    assert secret in through_the_store(repo, allow_secrets=[secret])[side].message_subject
    through_the_store(repo, branches=["main"])
    assert secret not in through_the_store(repo)[side].message_subject


def _linked(repo: Repo) -> None:
    repo.write("people", MAILMAP)
    (repo.path / ".mailmap").symlink_to("people")


@pytest.mark.parametrize(
    "make",
    [
        lambda repo: repo.write("no mailmap", MAILMAP),
        _linked,
        lambda repo: repo.write(".mailmap/inside", MAILMAP),
        lambda repo: repo.write(".mailmap", b""),
        lambda repo: repo.write(".mailmap", b"\0\xff" * 1000),
        lambda repo: repo.write(".mailmap", "x" * 1_000_000),
        lambda repo: repo.write(".mailmap", "<" * 100_000 + "\n" + "A <b> " * 100_000),
    ],
    ids=["missing", "link", "folder", "empty", "bytes", "one long line", "brackets"],
)
def test_a_hostile_mailmap_names_nobody(repo: Repo, make: Callable[[Repo], None]) -> None:
    make(repo)
    name = repo.commit("base")
    record = through_the_store(repo, mailmap=True)[name]
    assert (record.author_name, record.author_email) == ("Ada Lovelace", "ada@example.com")


def test_a_mailmap_never_lets_odd_people_stop_it(repo: Repo) -> None:
    repo.commit("base", __mailmap=MAILMAP)
    tree = repo.git("write-tree")
    odd = [b"<>", b"< >", b" < x>", b"a\tb <c\td>", b"\xff\xfe <\xff>", b"x <a b <c>", b"", b"no address", b"\r <\r>"]
    parent = repo.git("rev-parse", "HEAD")
    for person in odd:
        content = b"tree %s\nparent %s\nauthor %s 1700000000 +0000\ncommitter %s 1700000000 +0000\n\nx\n" % (
            tree.encode(), parent.encode(), person, person
        )  # fmt: skip
        parent = repo.git("hash-object", "-t", "commit", "-w", "--stdin", "--literally", stdin=content)
    repo.git("update-ref", "refs/heads/main", parent)
    last = repo.commit("the last one")
    plain = through_a_file(repo)
    found = through_the_store(repo, mailmap=True)
    assert found[last].author_name == "Grace Hopper"
    for name, record in found.items():
        if plain[name].author_email != "ada@example.com":
            assert record.author_email == plain[name].author_email
            assert record.author_name == plain[name].author_name.strip()


# attributes and what is left out -----------------------------------------------------------------------------------


def kinds(repo: Repo) -> dict[str, str]:
    scrape(repo)
    with Store.existing(repo.path / ".treering") as store:
        return store.paths()


def test_linguists_attributes_are_taken_as_data(repo: Repo) -> None:
    repo.commit(
        "base",
        __gitattributes="*.sql linguist-generated\nlib/** linguist-vendored=true\nvendor/ours/* -linguist-vendored\n"
        "*.guide linguist-documentation\nx.py linguist-generated=false\n[attr]gen linguist-generated\n*.made gen\n",
        a__sql="1\n", lib_0_deep_0_b__py="1\n", vendor_0_c__py="1\n", vendor_0_ours_0_d__py="1\n", e__guide="1\n",
        dist_0_x__py="1\n", f__made="1\n",
    )  # fmt: skip
    assert kinds(repo) == {
        ".gitattributes": "config", "a.sql": "generated", "lib/deep/b.py": "vendored", "vendor/c.py": "vendored",
        "vendor/ours/d.py": "source", "e.guide": "docs", "dist/x.py": "source", "f.made": "generated",
    }  # fmt: skip


def test_attributes_of_a_subfolder_hold_in_it_and_beat_those_above(repo: Repo) -> None:
    repo.commit(
        "base", __gitattributes="*.py linguist-generated\n", api_0___gitattributes="*.py -linguist-generated\n",
        a__py="1\n", api_0_b__py="1\n", api_0_deep_0_c__py="1\n",
    )  # fmt: skip
    found = kinds(repo)
    assert (found["a.py"], found["api/b.py"], found["api/deep/c.py"]) == ("generated", "source", "source")


def test_attributes_of_the_newest_commit_hold_for_files_that_are_gone(repo: Repo) -> None:
    repo.commit("base", old__sql="1\n")
    assert kinds(repo)["old.sql"] == "source"
    repo.commit("mark", old__sql=None, __gitattributes="*.sql linguist-generated\n")
    assert kinds(repo)["old.sql"] == "generated"
    repo.commit("unmark", __gitattributes="\n")
    assert kinds(repo)["old.sql"] == "source"


def test_only_what_is_committed_is_an_attribute(repo: Repo) -> None:
    repo.commit("base", a__py="1\n", b__py="1\n")
    repo.write(".gitattributes", "a.py linguist-generated\n")
    repo.write(".git/info/attributes", "b.py linguist-generated\n")
    (Path(os.environ["HOME"]) / ".config" / "git").mkdir(parents=True)
    (Path(os.environ["HOME"]) / ".config" / "git" / "attributes").write_text("*.py linguist-generated\n")
    assert set(kinds(repo).values()) == {"source"}


def test_one_path_that_leaves_the_repository_takes_no_attribute_away(repo: Repo) -> None:
    repo.commit("base", a__sql="1\n")
    blob = repo.git("hash-object", "-w", "--stdin", stdin=b"1\n")
    inner = repo.git("mktree", stdin=f"100644 blob {blob}\tx\n".encode())
    content = b"40000 ..\0" + bytes.fromhex(inner)
    tree = repo.git("hash-object", "-t", "tree", "-w", "--literally", "--stdin", stdin=content)
    hostile = repo.git("commit-tree", tree, "-p", repo.git("rev-parse", "HEAD"), "-m", "leave")
    repo.git("branch", "hostile", hostile)
    repo.commit("mark", __gitattributes="*.sql linguist-generated\n")
    found = kinds(repo)
    assert "../x" in found
    assert found["a.sql"] == "generated"


def test_the_manifest_counts_what_the_index_leaves_out(repo: Repo) -> None:
    lock, made, code = '{"lock": 1}\n' * 30, "var a = 1;\n" * 30, "def settle():\n    return 1\n"
    repo.commit("one", package_lock__json="1\n", src_0_a__py=code)
    repo.write("package-lock.json", lock)
    repo.write("dist/app.js", made)
    repo.write("api/market.sql", made)
    repo.commit("two", __gitattributes="*.sql linguist-generated\n")
    repo.write("package-lock.json", lock + "more\n")
    repo.commit("three")
    operations.index(opening.place(repo.path), Reporter())
    told = json.loads((repo.path / ".treering" / "manifest.json").read_text("utf-8"))
    sizes = []
    for path in ("package-lock.json", "dist/app.js", "api/market.sql"):
        for name in repo.git("log", "--format=%H", "--", path).split():
            patch = repo.git("show", "--format=", name, "--", path) + "\n"
            sizes.append((path, len(patch[patch.index("@@ -") :])))
    locks = [size for path, size in sizes if path == "package-lock.json"]
    rest = [size for path, size in sizes if path != "package-lock.json"]
    assert told["left_out"]["index"] == {
        "generated": {"files": len(rest), "bytes": sum(rest)},
        "lock": {"files": len(locks), "bytes": sum(locks)},
    }
    assert told["commits"] == 3
    assert told["files_by_kind"] == {"config": 2, "generated": 2, "lock": 1, "source": 1}
    assert told["repeated_patches"] == 0


def test_words_of_a_generated_file_find_nothing(repo: Repo) -> None:
    repo.commit("one", dist_0_app__js="function xylophone_player() {}\n")
    repo.commit("two", src_0_app__js="function trumpet_player() {}\n")
    operations.index(opening.place(repo.path), Reporter())
    with Store.existing(repo.path / ".treering") as store:
        assert [hit.subject for hit in Finder(store, None).search("trumpet", limit=5)] == ["two"]
        assert Finder(store, None).search("xylophone", limit=5) == []


def test_words_of_a_changelog_find_the_commit_they_tell_of_and_are_counted(repo: Repo) -> None:
    repo.commit("one", src_0_app__py="def trumpet_player():\n    pass\n")
    repo.commit("two", CHANGELOG__md="- The trumpet_player plays.\n- The xylophone is gone.\n")
    operations.index(opening.place(repo.path), Reporter())
    with Store.existing(repo.path / ".treering") as store:
        finder = Finder(store, None)
        assert [hit.subject for hit in finder.search("trumpet player", limit=5)] == ["one"]
        assert finder.search("xylophone", limit=5) == []
    told = json.loads((repo.path / ".treering" / "manifest.json").read_text("utf-8"))
    patch = repo.git("show", "--format=", "HEAD") + "\n"
    assert told["left_out"]["index"] == {"changelog": {"files": 1, "bytes": len(patch[patch.index("@@ -") :])}}


def test_the_text_of_a_merge_finds_the_commit_that_it_brought(repo: Repo) -> None:
    repo.commit("base", f="1\n")
    repo.git("switch", "--quiet", "-c", "side")
    side = repo.commit("fix", f="1\n2\n")
    repo.git("switch", "--quiet", "main")
    repo.commit("elsewhere", g="1\n")
    repo.git("merge", "--quiet", "--no-ff", "-m", "Merge pull request #12\n\nStop the zeppelin from drifting", "side")
    operations.index(opening.place(repo.path), Reporter())
    (first, *_) = finding.search(opening.place(repo.path), "drifting zeppelin", Reporter())
    assert first.commit_hash == side
    assert first.merged_by == repo.git("rev-parse", "HEAD")
    (first, *_) = finding.search(opening.place(repo.path), "#12", Reporter())
    assert (first.commit_hash, first.why) == (side, "mentions it")
