"""What a commit says: its words, its fields, the ways it is told, and whether it says something again."""

from typing import Any

import pytest
from msgspec.structs import replace

from treering.text import strategies
from treering.text.document import (
    FIELDS,
    FUNCTIONS,
    HUNK_CHARACTERS,
    HUNKS_EMBEDDED,
    IDENTIFIERS,
    NAMES_EMBEDDED,
    PATHS,
    PROSE_CHARACTERS,
    best_names,
    features,
    hunk_texts,
    is_changelog,
    kinds_of,
    left_out,
    telling,
    texts,
    word_counts,
)
from treering.text.kinds import kind_of
from treering.text.strategies import (
    BODY_CHARACTERS,
    DOCUMENT_CHARACTERS,
    MARKERS,
    STRATEGIES,
    Duplicates,
    Telling,
    documents,
)
from treering.text.words import STEM, forms, plain_words, words, written
from treering.types import Features, FilePatch, LeftOut, LineStats, Record, Rename

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
    assert list(plain_words(text)) == expected
    assert [word for word in words(text) if not word.endswith(STEM)] == expected


@pytest.mark.parametrize(
    ("one", "other"),
    [("expire", "expiring"), ("expire", "Expired"), ("dispute", "disputes"), ("settlement", "settlements")],
)
def test_a_word_and_its_inflections_meet_in_a_stem(one: str, other: str) -> None:
    shared = set(words(one)) & set(words(other))
    assert shared
    assert all(word.endswith(STEM) for word in shared)


def test_the_parts_of_a_compound_word_have_stems_too() -> None:
    assert list(words("expiringTokens")) == ["expiringtokens", "expiring", "tokens", "expir~", "token~"]


def test_a_short_word_and_one_of_another_language_have_no_stem() -> None:
    assert list(words("ran übung 2024")) == ["ran", "übung", "2024"]


def test_words_are_counted_as_they_are_written_and_found_by_their_parts_and_stems() -> None:
    assert written("gate Gate gate gateKeeper") == {"gate": 2, "Gate": 1, "gateKeeper": 1}
    assert forms("Gate") == ("gate", "gate~")
    assert forms("gateKeeper") == ("gatekeeper", "gate", "keeper", "gate~", "keeper~")


def test_long_data_is_no_word() -> None:
    assert list(plain_words(f"see {'x' * 64} and {'x' * 65}.")) == ["see", "x" * 64, "and"]


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
    assert (len(huge.paths), len(huge.functions), len(huge.identifiers)) == (PATHS, FUNCTIONS, IDENTIFIERS)


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


# what of the hunks is told ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "prose"),
    [
        ("    # Retries must not outlive the token", "Retries must not outlive the token"),
        ("    // Retries must not outlive the token", "Retries must not outlive the token"),
        ("/* Retries must not outlive it */", "Retries must not outlive it"),
        (" * Retries must not outlive it", "Retries must not outlive it"),
        ("-- Retries must not outlive it", "Retries must not outlive it"),
        ("<!-- Retries must not outlive it -->", "Retries must not outlive it"),
        ('"""Retries must not outlive it"""', "Retries must not outlive it"),
        ("retries = 3  # never more than that", "never more than that"),
        ("# ----------", ""),
        ("retries = 3", ""),
    ],
)
def test_the_prose_of_code_is_its_comments(line: str, prose: str) -> None:
    assert featured(FilePatch("a.py", f"@@ -0,0 +1 @@\n+{line}")).prose == prose


def test_the_prose_of_documents_is_every_added_line_and_no_name() -> None:
    said = featured(
        FilePatch("docs/guide.md", "@@ -1,2 +1,3 @@\n kept line\n-gone line\n+The bridge retries.\n+\n+---")
    )
    assert (said.prose, said.identifiers) == ("The bridge retries.", {})


def test_a_line_of_prose_that_comes_twice_is_told_once() -> None:
    assert (
        featured(FilePatch("a.py", "@@ -0,0 +1,2 @@\n+# the same words\n+# the same words")).prose == "the same words"
    )


def test_the_prose_of_a_huge_commit_is_bounded() -> None:
    lines = "\n".join(f"+# some words number {number}" for number in range(1000))
    assert len(featured(FilePatch("a.py", f"@@ -0,0 +1,1000 @@\n{lines}")).prose) == PROSE_CHARACTERS


@pytest.mark.parametrize(
    ("path", "tells"),
    [
        ("CHANGELOG.md", True),
        ("docs/changes.rst", True),
        ("NEWS", True),
        ("HISTORY.txt", True),
        ("doc/release-notes/1.2.md", True),
        ("newsfragments/123.bugfix", True),
        ("docs/whatsnew.rst", True),
        ("src/historical.py", False),
        ("src/newsletter.py", False),
        ("src/exchange.py", False),
        ("README.md", False),
    ],
)
def test_a_changelog_is_known_by_its_name(path: str, tells: bool) -> None:
    assert is_changelog(path) is tells


def test_the_hunks_of_changelogs_and_of_noise_tell_nothing_and_are_counted() -> None:
    text = "@@ -0,0 +1 @@\n+# the zeppelin flies: ünder\n+zeppelin_name"
    patches = tuple(FilePatch(path, text) for path in ("CHANGELOG.md", "NEWS", "package-lock.json", "src/a.py"))
    assert telling(patches, kind_of) == patches[-1:]
    assert featured(*patches) == featured(patches[-1])
    assert left_out(record(patches=patches), kind_of) == {
        "changelog": LeftOut(2, 2 * len(text.encode())),
        "lock": LeftOut(1, len(text.encode())),
    }


def test_what_the_caps_took_is_counted_where_the_hunk_belongs() -> None:
    patches = (FilePatch("CHANGES", "@@ -1 +1 @@", 100), FilePatch("src/a.py", "@@ -1 +1 @@", 30))
    assert left_out(record(patches=patches), kind_of) == {"changelog": LeftOut(1, 111), "cut": LeftOut(1, 30)}


# the names that tell most ----------------------------------------------------------------------------------------


def test_names_of_equal_weight_come_in_alphabetical_order() -> None:
    assert best_names(Features("", (), (), {"pear": 1, "apple": 1, "fig": 1})) == ["apple", "pear", "fig"]
    assert best_names(Features("", (), (), {"pear": 1, "plum": 1, "date": 1})) == ["date", "pear", "plum"]


def test_a_name_added_more_often_is_worth_more() -> None:
    assert best_names(Features("", (), (), {"once": 1, "often": 9})) == ["often", "once"]


def test_a_compound_name_is_worth_more_than_a_plain_one() -> None:
    assert best_names(Features("", (), (), {"self": 1, "settle_dispute": 1})) == ["settle_dispute", "self"]


def test_only_the_best_names_are_told() -> None:
    assert len(best_names(Features("", (), (), {f"name{n}": 1 for n in range(100)}))) == NAMES_EMBEDDED
    assert len(best_names(Features("", (), (), {f"name{n}": 1 for n in range(100)}), 3)) == 3


# texts for vectors, words for the index --------------------------------------------------------------------------


def test_the_text_of_code_is_paths_then_names_then_functions() -> None:
    one = Features("message", ("a.py", "b.py"), ("def f():",), {"betaName": 1, "alphaName": 1}, "prose")
    assert list(texts(one)) == [("message", "message"), ("code", "a.py b.py\nalphaName betaName\ndef f():")]
    assert [kind for kind, _ in texts(one)] == kinds_of(one)


def test_the_text_of_wide_code_does_not_drown_its_names_in_paths() -> None:
    one = Features("", tuple(f"{n}.py" for n in range(200)), tuple(f"f{n}()" for n in range(60)), {"name": 1})
    ((kind, text),) = texts(one)
    paths, names, functions = text.split("\n")
    assert (kind, len(paths.split()), names, len(functions.split())) == ("code", 6, "name", 4)


def test_the_texts_of_hunks_are_the_largest_of_each_file_first_behind_its_name() -> None:
    small, large = "@@ -1 +1,2 @@ def f():\n one\n+  two\n", "@@ -9 +9,3 @@\n-gone\n+three\n+\n+four and more"
    hunks = [FilePatch("dir/a.py", small + large), FilePatch("b.py", "@@ -0,0 +1 @@\n+five\n"), FilePatch("c.py", "")]
    assert hunk_texts(hunks) == ["a.py three four and more", "b.py five", "a.py def f(): two"]


def test_of_many_hunks_some_throughout_become_vectors_and_only_their_beginnings() -> None:
    many = [FilePatch(f"{number}.py", "@@ -0,0 +1 @@\n+" + "long " * 200) for number in range(80)]
    made = hunk_texts(many)
    assert [text.split()[0] for text in made] == [f"{number}.py" for number in range(0, 80, 10)]
    assert {len(text) for text in made} == {HUNK_CHARACTERS}
    one = FilePatch("a.py", "".join(f"@@ -{n} +{n} @@\n+line {n}\n" for n in range(80)))
    assert len(hunk_texts([one])) == HUNKS_EMBEDDED


def test_what_only_takes_away_has_no_hunk_that_becomes_a_vector() -> None:
    assert hunk_texts([FilePatch("a.py", "@@ -1 +0,0 @@\n-gone\n"), FilePatch("b.py", "")]) == []


def test_an_empty_text_becomes_no_vector() -> None:
    assert list(texts(Features("a message", (), (), {}))) == [("message", "a message")]
    assert list(texts(Features(" \n", (), (), {}, " "))) == []


def test_each_field_is_counted_as_words_of_its_own() -> None:
    one = Features("Fix the Bridge", ("src/a_b.py",), ("def settleOrder(x):",), {"gateName": 7}, "of gates, of order")
    hunks = [FilePatch("src/a_b.py", "@@ -1 +1 @@ head\n context\n-goneWord\n+newWord\n")]
    counts = word_counts(one, hunks)
    assert list(counts) == [
        {"Fix": 1, "the": 1, "Bridge": 1},
        {"src": 1, "a_b": 1, "py": 1},
        {"def": 1, "settleOrder": 1, "x": 1},
        {"gateName": 1},
        {"of": 2, "gates": 1, "order": 1},
        {"goneWord": 1, "newWord": 1},
    ]
    assert len(counts) == len(FIELDS)


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


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_parts_of_a_document_are_its_bytes_and_say_what_they_tell(strategy: str) -> None:
    rich = record(
        message_subject="größe",
        message_body="a body\n\nof two",
        patches=(FilePatch("src/lib.rs", "@@ -1 +1 @@\n-é\n"),),
    )
    ((_, document),) = documents([rich], strategy)
    content = document.text.encode()
    assert sum(size for _, size in document.parts) == len(content)
    end = 0
    pieces: dict[str, str] = {}
    for kind, size in document.parts:
        pieces[kind] = pieces.get(kind, "") + content[end : end + size].decode()
        end += size
    assert "größe" in pieces["message"]
    assert all(path in pieces["paths"] for path in rich.stats)
    assert rich.commit_hash[:7] in pieces["metadata"]
    assert pieces.get("body", "").strip().removeprefix("<BODY> ") == (
        "" if strategy == "diff-aware" else "a body\n\nof two"
    )
    assert pieces.get("hunks") == ("<HUNK> @@ -1 +1 @@\n-é\n" if strategy == "diff-aware" else None)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_giant_commit_is_told_no_longer_than_any_other(strategy: str) -> None:
    many = {f"{'long' * 300}/{number}.py": LineStats(1, 0) for number in range(40)}
    giant = record(
        author_name="a" * 3_000_000, message_subject="s" * 3_000_000, message_body="b\n" * 3_000_000, stats=many
    )
    hunks = record(1, stats=many, patches=tuple(FilePatch(path, "@@ -1 +1 @@\n+é\n" * 2000) for path in many))
    telling = Telling()
    made = [document.text for _, document in documents([giant, hunks], strategy, telling)]
    assert all(len(text) <= DOCUMENT_CHARACTERS and text.endswith("\n") for text in made)
    reason = f"documents from {DOCUMENT_CHARACTERS:,} characters on"
    assert telling.left_out[reason].bytes > 3_000_000


def test_a_long_document_ends_with_a_whole_line_of_its_hunk() -> None:
    text = "@@ -1 +1 @@\n" + "+0123456789\n" * 5000
    telling = Telling()
    ((_, document),) = documents([record(patches=(FilePatch("src/lib.rs", text),))], "diff-aware", telling)
    assert DOCUMENT_CHARACTERS - 12 < len(document.text) <= DOCUMENT_CHARACTERS
    assert "\n+0123456789\n" in document.text
    assert {line for line in document.text.split("\n") if line.startswith("+")} == {"+0123456789"}
    (left,) = [left for reason, left in telling.left_out.items() if reason.startswith("documents")]
    assert left.bytes >= len(text) - DOCUMENT_CHARACTERS


def test_hunks_of_noise_are_not_told_and_are_counted_by_kind() -> None:
    stats = {"package-lock.json": LineStats(1, 0), "src/a.py": LineStats(1, 0), "data.csv": LineStats(1, 0)}
    one = record(stats=stats, patches=tuple(FilePatch(path, f"@@ -0,0 +1 @@\n+of {path}\n", 5) for path in stats))
    telling = Telling()
    ((_, document),) = documents([one], "diff-aware", telling)
    assert "+of src/a.py" in document.text
    assert document.text.count("<HUNK>") == 1
    assert all(f"<PATH> {path} +1 -0\n" in document.text for path in stats)
    assert telling.left_out == {
        "hunks of lock": LeftOut(1, len("@@ -0,0 +1 @@\n+of package-lock.json\n") + 5),
        "hunks of data": LeftOut(1, len("@@ -0,0 +1 @@\n+of data.csv\n") + 5),
        "hunks cut at the caps": LeftOut(1, 5),
    }


def test_the_same_hunk_of_a_file_is_told_once_wherever_it_is() -> None:
    hunk, moved = "@@ -1 +1,2 @@ fn a()\n one\n+two\n", "@@ -70 +71,2 @@ fn b()\n one\n+two\n"
    history = [
        record(1, message_subject="child", patches=(FilePatch("src/lib.rs", hunk),)),
        record(
            2, message_subject="merge", patches=(FilePatch("src/lib.rs", moved), FilePatch("src/disputes.rs", hunk))
        ),
        record(3, message_subject="other", patches=(FilePatch("src/lib.rs", hunk.replace("two", "three")),)),
    ]
    for number, one in enumerate(history):
        history[number] = replace(one, patch_id=str(number))
    telling = Telling()
    child, merge, other = (document.text for _, document in documents(history, "diff-aware", telling))
    assert f"<HUNK> {hunk}" in child
    assert merge.count("<HUNK>") == 1
    assert f"<PATH> src/disputes.rs +230 -0\n<HUNK> {hunk}" in merge
    assert "+three" in other
    assert telling.left_out == {"hunks told before": LeftOut(1, len(moved))}


def test_what_a_commit_told_that_nothing_is_learned_from_is_told_again() -> None:
    patch = FilePatch("src/lib.rs", "@@ -1 +1 @@\n+two\n")
    history = [
        record(1, message_subject="fix", patch_id="1"),
        record(2, message_subject="fix", patch_id="2", patches=(patch,)),
        record(3, message_subject="merge", patch_id="3", patches=(patch,)),
        record(4, message_subject="another merge", patch_id="4", patches=(patch,)),
    ]
    made = [document for _, document in documents(history, "diff-aware")]
    assert [document.duplicate_of for document in made] == [None, f"{1:040x}", None, None]
    assert [document.text.count("+two") for document in made] == [0, 1, 1, 0]


def test_hunks_of_more_files_than_are_told_are_counted() -> None:
    stats = {f"src/{number}.py": LineStats(1, 0) for number in range(strategies.PATHS + 8)}
    telling = Telling()
    one = record(stats=stats, patches=tuple(FilePatch(path, f"@@ -0,0 +1 @@\n+{path}\n") for path in stats))
    ((_, document),) = documents([one], "diff-aware", telling)
    assert document.text.count("<HUNK>") == document.text.count("<PATH>") == strategies.PATHS
    assert [(reason, left.files) for reason, left in telling.left_out.items()] == [
        (f"hunks of more than {strategies.PATHS} files", 8)
    ]


def test_what_is_left_out_of_a_long_body_is_counted() -> None:
    telling = Telling()
    ((_, document),) = documents([record(message_body="é" * (BODY_CHARACTERS + 7))], "semantic", telling)
    assert document.text.count("é") == BODY_CHARACTERS
    assert telling.left_out == {f"bodies from {BODY_CHARACTERS:,} characters on": LeftOut(1, 14)}


def test_a_merge_and_what_it_brought_are_one_group() -> None:
    merge = f"{3:040x}"
    history = [
        record(1),
        record(2, merged_by=merge),
        record(3, is_merge=True, parent_hashes=(f"{1:040x}", f"{2:040x}")),
        record(4, is_merge=True, parent_hashes=(merge, f"{1:040x}")),
    ]
    assert [document.group for _, document in documents(history, "semantic")] == ["", merge, merge, ""]


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
