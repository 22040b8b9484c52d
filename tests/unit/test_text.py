"""What a commit says: its words, its fields, the ways it is told, and whether it says something again."""

from typing import Any

import pytest
from msgspec.structs import replace

from treering.text.document import (
    FUNCTIONS,
    IDENTIFIERS_INDEXED,
    IDENTIFIERS_KEPT,
    PATHS,
    Rarity,
    diff_text,
    features,
    indexed_words,
)
from treering.text.kinds import kind_of
from treering.text.strategies import MARKERS, STRATEGIES, Duplicates, documents
from treering.text.words import words
from treering.types import Features, FilePatch, LineStats, Record, Rename

SEED = Record(
    commit_hash="a1b2c3d" + "0" * 33,
    author_name="Ian Reitsma",
    author_email="ian@example.com",
    message_subject="Add energy market dispute RPC",
    message_body="Implements dispute resolution",
    branch="main",
    is_merge=False,
    files_added=("src/disputes.rs",),
    files_modified=("src/energy_market.rs", "src/lib.rs"),
    files_deleted=(),
    insertions=245,
    deletions=18,
    diff_summary="Files changed: 3, Insertions: +245, Deletions: -18",
    stats={
        "src/disputes.rs": LineStats(230, 0),
        "src/energy_market.rs": LineStats(15, 18),
        "src/lib.rs": LineStats(0, 0),
    },
    commit_timestamp=1_702_000_000,
    parent_hashes=("f" * 40,),
)
"""The commit that the seed shows."""

SEMANTIC_LINES = """\
<COMMIT> a1b2c3d
<AUTHOR> Ian_Reitsma
<BRANCH> main
<MESSAGE> Add energy market dispute RPC
<FILE_ADD> 1
<FILE_MOD> 2
<INSERTIONS> 245
<DELETIONS> 18
""".splitlines()
"""What the seed shows of its semantic strategy."""


def record(number: int = 0, **changes: Any) -> Record:
    return replace(SEED, commit_hash=f"{number:040x}", **changes)


def told(one: Record, strategy: str) -> str:
    ((_, document),) = documents([one], strategy)
    return document.text


def featured(*patches: FilePatch, **changes: Any) -> Features:
    return features(record(patches=patches, **changes), kind_of)


# words -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("camelCase", ["camelcase", "camel", "case"]),
        ("snake_case", ["snake_case", "snake", "case"]),
        ("HTTPServer2", ["httpserver2", "http", "server", "2"]),
        ("parseJSON", ["parsejson", "parse", "json"]),
        ("MAX_SIZE", ["max_size", "max", "size"]),
        ("os.path.join", ["os", "path", "join"]),
        ("src/energy_market.rs", ["src", "energy_market", "energy", "market", "rs"]),
        ("plain", ["plain"]),
        ("Plain", ["plain"]),
        ("ABC", ["abc"]),
        ("fix #12, v2!", ["fix", "12", "v2", "v", "2"]),
        ("日本語 имя", ["日本語", "имя"]),
        ("", []),
        ("!?\n\t🎉", []),
    ],
)
def test_a_word_comes_whole_and_then_in_its_parts(text: str, expected: list[str]) -> None:
    assert list(words(text)) == expected


def test_long_data_is_no_word() -> None:
    assert list(words(f"see {'x' * 64} and {'x' * 65}.")) == ["see", "x" * 64, "and"]


# features --------------------------------------------------------------------------------------------------------


def test_functions_come_from_the_heads_of_hunks() -> None:
    patch = FilePatch(
        "a.py",
        "@@ -1,2 +1,3 @@ def settle(order):\n same\n+new\n@@ -9 +10 @@\n-old\n@@ -20,3 +20,3 @@ def settle(order):\n+x",
    )
    assert featured(patch).functions == ("def settle(order):",)


def test_a_line_of_code_that_looks_like_the_head_of_a_hunk_is_code() -> None:
    patch = FilePatch("a.py", "@@ -1 +1 @@ real\n+@@ -1 +1 @@ added\n-@@ -1 +1 @@ removed\n @@ -1 +1 @@ kept")
    assert featured(patch).functions == ("real",)


def test_identifiers_come_from_added_lines_only() -> None:
    patch = FilePatch(
        "a.py", "@@ -1,3 +1,3 @@ def around():\n context_name\n-removed_name\n+added_name = call(added_name)"
    )
    assert featured(patch).identifiers == {"added_name": 2, "call": 1}


def test_a_name_of_two_letters_is_not_kept() -> None:
    assert featured(FilePatch("a.py", "@@ -0,0 +1 @@\n+ab abc x _ok")).identifiers == {"abc": 1, "_ok": 1}


def test_the_fields_of_a_huge_commit_are_bounded() -> None:
    lines = "\n".join(f"@@ -{n},1 +{n},1 @@ def function_{n}():\n+name_{n}" for n in range(1, 1000))
    stats = {f"src/{n}.py": LineStats(1, 0) for n in range(1000)}
    huge = featured(FilePatch("a.py", lines), stats=stats)
    assert (len(huge.paths), len(huge.functions), len(huge.identifiers)) == (PATHS, FUNCTIONS, IDENTIFIERS_KEPT)


def test_a_renamed_file_is_found_by_both_names() -> None:
    moved = featured(
        stats={"core/market.py": LineStats(0, 0)}, files_renamed=(Rename("src/market.py", "core/market.py"),)
    )
    assert moved.paths == ("core/market.py", "src/market.py")


def test_the_message_is_subject_and_body() -> None:
    assert featured().message == "Add energy market dispute RPC\n\nImplements dispute resolution"
    assert featured(message_body="").message == "Add energy market dispute RPC"


def test_a_commit_without_changes_has_its_message_only() -> None:
    assert featured(stats={}) == Features(SEED.message, (), (), {})


# the names that tell a commit from the others --------------------------------------------------------------------


def test_a_name_that_every_commit_adds_is_worth_least() -> None:
    rarity = Rarity()
    commits = [Features("", (), (), {"self": 1, f"name_{number}": 1}) for number in range(5)]
    for one in commits:
        rarity.add(one)
    assert rarity.best(commits[3]) == ["name_3", "self"]


def test_names_of_equal_weight_come_in_alphabetical_order() -> None:
    rarity = Rarity()
    one = Features("", (), (), {"pear": 1, "apple": 1, "fig": 1})
    rarity.add(one)
    assert rarity.best(one) == ["apple", "fig", "pear"]


def test_a_name_added_more_often_is_worth_more() -> None:
    rarity = Rarity()
    one = Features("", (), (), {"once": 1, "often": 9})
    rarity.add(one)
    assert rarity.best(one) == ["often", "once"]


def test_only_the_best_names_are_indexed() -> None:
    assert len(Rarity().best(Features("", (), (), {f"n{n}": 1 for n in range(100)}))) == IDENTIFIERS_INDEXED


def test_the_text_of_a_diff_is_paths_then_names_then_functions() -> None:
    one = Features("message", ("a.py", "b.py"), ("def f():",), {"x": 1})
    assert diff_text(one, ["alpha", "beta"]) == "a.py b.py\nalpha beta\ndef f():"


def test_the_text_of_a_wide_diff_does_not_drown_its_names_in_paths() -> None:
    one = Features("", tuple(f"{n}.py" for n in range(200)), tuple(f"f{n}()" for n in range(60)), {})
    paths, names, functions = diff_text(one, ["name"]).split("\n")
    assert (len(paths.split()), names, len(functions.split())) == (6, "name", 4)


def test_the_text_of_no_change_is_empty() -> None:
    assert diff_text(Features("a message", (), (), {}), []) == ""


def test_each_field_is_indexed_as_words_of_its_own() -> None:
    one = Features("Fix the Bridge", ("src/a_b.py",), ("def settleOrder(x):",), {"ignored": 1})
    assert indexed_words(one, ["gateName"]) == (
        "fix the bridge",
        "src a_b a b py",
        "def settleorder settle order x",
        "gatename gate name",
    )


# strategies ------------------------------------------------------------------------------------------------------


def test_semantic_has_the_seeds_lines_in_the_seeds_order() -> None:
    lines = told(SEED, "semantic").splitlines()
    assert [line for line in lines if line in SEMANTIC_LINES] == SEMANTIC_LINES


def test_semantic_tells_the_body_and_the_paths() -> None:
    text = told(SEED, "semantic")
    assert "<BODY> Implements dispute resolution\n" in text
    assert all(f"<PATH> {path}\n" in text for path in SEED.stats)


def test_semantic_tells_of_merges_deletions_and_renames() -> None:
    merge = record(
        is_merge=True, parent_hashes=("1" * 40, "2" * 40), files_deleted=("old.rs",), files_renamed=(Rename("a", "b"),)
    )
    text = told(merge, "semantic")
    assert all(line in text.splitlines() for line in ("<MERGE> 2", "<FILE_DEL> 1", "<FILE_REN> 1"))
    assert not any(marker in told(SEED, "semantic") for marker in ("<MERGE>", "<FILE_REN>"))


def test_hierarchical_tells_the_chain_of_branches() -> None:
    assert "<CHAIN> main > feature/bridge\n" in told(record(branches=("main", "feature/bridge")), "hierarchical")
    assert "<CHAIN> main\n" in told(SEED, "hierarchical")


def test_hierarchical_tells_the_three_commits_before_nearest_last() -> None:
    line = [
        record(number, message_subject=f"step {number}", parent_hashes=(f"{number - 1:040x}",))
        for number in range(1, 6)
    ]
    *_, (_, last) = documents(line, "hierarchical")
    assert [one for one in last.text.splitlines() if one.startswith("<PREVIOUS>")] == [
        "<PREVIOUS> step 2",
        "<PREVIOUS> step 3",
        "<PREVIOUS> step 4",
    ]


def test_hierarchical_follows_the_first_parent_not_the_clock() -> None:
    main, side = record(1, message_subject="on main", parent_hashes=()), record(2, message_subject="beside")
    child = record(3, parent_hashes=(main.commit_hash, side.commit_hash))
    *_, (_, document) = documents([main, side, child], "hierarchical")
    assert "<PREVIOUS> on main\n" in document.text
    assert "beside" not in document.text


def test_the_first_commit_has_nobody_before_it() -> None:
    assert "<PREVIOUS>" not in told(record(parent_hashes=()), "hierarchical")


def test_diff_aware_tells_each_files_lines_and_hunks() -> None:
    hunk = "@@ -1 +1 @@ fn lib()\n-old\n+new"
    lines = told(record(patches=(FilePatch("src/lib.rs", hunk),)), "diff-aware")
    assert f"<PATH> src/lib.rs +0 -0\n<HUNK> {hunk}\n" in lines
    assert "<PATH> src/disputes.rs +230 -0\n" in lines
    assert "<PATH> src/energy_market.rs +15 -18\n" in lines
    assert lines.count("<HUNK>") == 1


def test_flat_has_no_markers() -> None:
    text = told(SEED, "flat")
    assert not any(marker in text for marker in MARKERS)
    assert "Ian Reitsma" in text
    assert SEED.message in text
    assert all(path in text for path in SEED.stats)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_tells_records_in_order_each_ended_by_a_newline(strategy: str) -> None:
    records = [record(number) for number in range(3)]
    made = list(documents(records, strategy))
    assert [one for one, _ in made] == records
    assert all(document.commit_hash == one.commit_hash and document.kind == strategy for one, document in made)
    assert all(document.text.endswith("\n") and not document.text.endswith("\n\n") for _, document in made)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_marker_a_strategy_writes_is_a_known_one(strategy: str) -> None:
    rich = record(
        is_merge=True,
        parent_hashes=("1" * 40, "2" * 40),
        files_renamed=(Rename("a", "b"),),
        patches=(FilePatch("src/lib.rs", "@@ -1 +1 @@"),),
    )
    first = [word for line in told(rich, strategy).splitlines() for word in line.split()[:1] if word.startswith("<")]
    assert set(first) <= set(MARKERS)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_commit_without_changes_is_told_all_the_same(strategy: str) -> None:
    empty = record(stats={}, files_added=(), files_modified=(), insertions=0, deletions=0)
    assert empty.message_subject in told(empty, strategy)


def test_the_order_of_paths_is_always_the_same_and_not_the_alphabets() -> None:
    wide = record(stats={f"{number:03}.py": LineStats(1, 0) for number in range(100)})
    paths = [line for line in told(wide, "semantic").splitlines() if line.startswith("<PATH>")]
    assert told(wide, "semantic") == told(replace(wide, stats=dict(reversed(wide.stats.items()))), "semantic")
    assert paths != sorted(paths)
    assert len(paths) == 32


# repeats ---------------------------------------------------------------------------------------------------------


def test_a_commit_with_the_diff_of_an_earlier_one_repeats_it() -> None:
    found = Duplicates()
    assert found.of(record(1, message_subject="one")) is None
    assert found.of(record(2, message_subject="two")) == f"{1:040x}"
    assert found.found == {"diff": 1}


def test_a_commit_with_the_message_of_an_earlier_one_repeats_it() -> None:
    found = Duplicates()
    assert found.of(record(1, stats={"a": LineStats(1, 0)})) is None
    same = record(2, stats={"b": LineStats(1, 0)}, message_subject="add  ENERGY market\tdispute rpc")
    assert found.of(same) == f"{1:040x}"
    assert found.found == {"message": 1}


def test_commits_without_a_diff_do_not_repeat_each_others_diff() -> None:
    found = Duplicates()
    assert [found.of(record(number, stats={}, message_subject=f"release {number}")) for number in range(3)] == [
        None
    ] * 3


def test_other_line_counts_are_another_diff() -> None:
    found = Duplicates()
    assert found.of(record(1, message_subject="one", stats={"a": LineStats(1, 0)})) is None
    assert found.of(record(2, message_subject="two", stats={"a": LineStats(0, 1)})) is None


def test_the_third_of_a_kind_repeats_the_first() -> None:
    found = Duplicates()
    assert [found.of(record(number)) for number in range(3)] == [None, f"{0:040x}", f"{0:040x}"]
