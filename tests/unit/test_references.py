"""What a message refers to, as people and forges write it, and what only looks like it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treering.text.references import pull_request, references

ABBREVIATED = "abcdef123456"
WHOLE = "0123456789abcdef0123456789abcdef01234567"
LONG = "0123456789abcdef" * 4

Found = dict[str, tuple[str, ...]]


@pytest.mark.parametrize(
    ("message", "found"),
    [
        # people
        ("x\n\nCo-authored-by: Ada Lovelace <ada@example.com>", {"co-authors": ("Ada Lovelace <ada@example.com>",)}),
        ("x\n\nCO-AUTHORED-BY : Ada <a@b>  ", {"co-authors": ("Ada <a@b>",)}),
        ("x\n\nCo-authored-by: <a@b>", {"co-authors": ("<a@b>",)}),
        ("x\n\nCo-authored-by: A <a@b>\nCo-authored-by: B <b@b>\r\n", {"co-authors": ("A <a@b>", "B <b@b>")}),
        ("x\n\nCo-authored-by: A <a@b>\nCo-authored-by: A <a@b>", {"co-authors": ("A <a@b>",)}),
        ("x\n\nCo-authored-by: somebody", {}),
        ("x\n\nSigned-off-by: Ada <a@b>", {}),
        # issues
        ("See #1", {"issues": ("#1",)}),
        ("See #1, #2 and #1.", {"issues": ("#1", "#2")}),
        ("(#1)", {"issues": ("#1",), "pull-requests": ("#1",)}),
        ("GH-5 is gone", {"issues": ("#5",)}),
        ("after owner/name#3", {"issues": ("owner/name#3",)}),
        ("https://github.com/owner/name/issues/3", {"issues": ("owner/name#3",)}),
        ("https://github.com/owner/name/issues/3#issuecomment-99", {"issues": ("owner/name#3",)}),
        ("https://github.com/owner/name/pull/4/files", {"issues": ("owner/name#4",)}),
        ("https://gitlab.com/group/proj/-/merge_requests/5", {"issues": ("group/proj#5",)}),
        ("https://gitlab.com/group/proj/-/issues/6.", {"issues": ("group/proj#6",)}),
        # what is mended
        ("fixes #1", {"fixes": ("#1",), "issues": ("#1",)}),
        ("Closes #1", {"fixes": ("#1",), "issues": ("#1",)}),
        ("This resolved: owner/name#1", {"fixes": ("owner/name#1",), "issues": ("owner/name#1",)}),
        ("FIX GH-7", {"fixes": ("#7",), "issues": ("#7",)}),
        ("Fixes: #1, #2", {"fixes": ("#1", "#2"), "issues": ("#1", "#2")}),
        ("x\n\nFixes: #1\nCloses: owner/name#2", {"fixes": ("#1", "owner/name#2"), "issues": ("#1", "owner/name#2")}),
        ("Close https://github.com/o/n/issues/8", {"fixes": ("o/n#8",), "issues": ("o/n#8",)}),
        (f'x\n\nFixes: {ABBREVIATED} ("net: the one before")', {"fixes": (ABBREVIATED,)}),
        (f"x\n\nFixes: {LONG}", {"fixes": (LONG,)}),
        (f'x\n\nFixes: {ABBREVIATED} ("mm: see #4")', {"fixes": ("#4", ABBREVIATED), "issues": ("#4",)}),
        ("prefix #7", {"issues": ("#7",)}),
        ("fixes the #7", {"issues": ("#7",)}),
        ("Fixes: the build", {}),
        ("x\n\nPR-URL: https://github.com/o/n/pull/9", {"issues": ("o/n#9",), "pull-requests": ("o/n#9",)}),
        # commits
        (f'Revert "x"\n\nThis reverts commit {WHOLE}.', {"reverts": (WHOLE,)}),
        (f"This reverts commit {WHOLE}, reversing\nchanges made to {LONG}.", {"reverts": (WHOLE,)}),
        (f"this partially reverts commit {WHOLE}", {"reverts": (WHOLE,)}),
        ("This reverts commit message checks", {}),
        (f"x\n\n(cherry picked from commit {WHOLE})", {"cherry-picked-from": (WHOLE,)}),
        (f"x\n\n(cherry-picked from commit {ABBREVIATED})", {"cherry-picked-from": (ABBREVIATED,)}),
        # pull and merge requests
        ("Merge pull request #12 from a/b\n\nTitle", {"issues": ("#12",), "pull-requests": ("#12",)}),
        ("Raise the limit (#12)", {"issues": ("#12",), "pull-requests": ("#12",)}),
        ("Raise the limit (#12) (#13)", {"issues": ("#12", "#13"), "pull-requests": ("#13",)}),
        ("Merge branch 'x'\n\nSee merge request group/proj!7", {"pull-requests": ("#7",)}),
        ("Merge branch 'x'\n\nSee merge request !7\n", {"pull-requests": ("#7",)}),
        ("Merged in x (pull request #12)", {"issues": ("#12",), "pull-requests": ("#12",)}),
        ("Merge branch 'x' of y (#12) into main", {"issues": ("#12",), "pull-requests": ("#12",)}),
        ("Raise the limit\n\nas in (#12)", {"issues": ("#12",)}),
        # things that are none
        ("", {}),
        ("Paint it #fff", {}),
        ("Paint it #abc123 on #123abc", {}),
        ("Number #1234567890", {}),
        ("# 1. A heading\n## 2", {}),
        ("##12", {}),
        ("text&#39;s", {}),
        ("C#8 and issue#8", {}),
        ("page#12 of https://example.com/#12", {}),
        ("https://github.com/owner/name/blob/main/x.py#L3", {}),
        ("https://github.com/owner/name/commit/0123456", {}),
        ("path/to/file#3", {}),
        ("see !7", {}),
        ("XGH-5 GH-x", {}),
    ],
)
def test_a_message_refers_to(message: str, found: Found) -> None:
    assert references(message) == found


@pytest.mark.parametrize("message", ["https://example.com/page#12", "my-site/docs/x https://my-site/docs#3"])
def test_the_fragment_of_a_url_is_no_issue(message: str) -> None:
    assert references(message) == {}


@pytest.mark.parametrize("after", [" (pair)", " # the tests", "."])
def test_what_follows_the_address_of_a_co_author_is_not_told(after: str) -> None:
    assert references(f"x\n\nCo-authored-by: Ada <ada@example.com>{after}") == {
        "co-authors": ("Ada <ada@example.com>",)
    }


@pytest.mark.parametrize("colour", ["#000", "#000000", "#012"])
def test_a_number_that_begins_with_zero_is_a_colour(colour: str) -> None:
    assert references(f"Paint it {colour}") == {}


def test_a_number_is_of_ascii_digits() -> None:
    assert references("#\N{FULLWIDTH DIGIT ONE}\N{FULLWIDTH DIGIT TWO}") == {}


def test_an_issue_of_a_group_inside_a_group_is_found() -> None:
    assert references("https://gitlab.com/group/sub/proj/-/issues/4") == {"issues": ("group/sub/proj#4",)}


@pytest.mark.parametrize(
    ("message", "number"),
    [
        ("Merge pull request #12 from a/b", 12),
        ("Raise the limit (#12)", 12),
        ("Merged in x (pull request #12)", 12),
        ("Merge branch 'x'\n\nTitle\n\nSee merge request group/sub/proj!7", 7),
        ("Raise (#12) the limit", None),
        ("Title\n\nMerge pull request #12 from a/b", None),
        ("I would see merge request !7", None),
        ("", None),
    ],
)
def test_the_number_of_a_pull_request_is_told(message: str, number: int | None) -> None:
    assert pull_request(message) == number


PARTS = st.sampled_from([
    "#", "1", "12", "GH-", "owner/name", "https://", "a.b/", "c/d/", "issues/", "/-/", "Fixes", ":", " ", "\n",
    "closes",
    "Co-authored-by: ", "<", ">", "Merge pull request #", "(", ")", "This reverts commit ", WHOLE, "!", "\r", "-", ".",
    "See merge request ", "(cherry picked from commit ", "pull request", "\0", "\N{COMBINING ACUTE ACCENT}",
])  # fmt: skip
MESSAGES = st.text() | st.lists(PARTS, max_size=30).map("".join)
KINDS = {"co-authors", "fixes", "reverts", "cherry-picked-from", "pull-requests", "issues"}


@given(MESSAGES)
def test_every_message_has_its_references(message: str) -> None:
    found = references(message)
    assert set(found) <= KINDS
    assert list(found) == sorted(found)
    for values in found.values():
        assert values
        assert len(values) == len(set(values))
        assert all(value.strip() == value and "\n" not in value for value in values)
    for kind in ("issues", "pull-requests"):
        assert all(value.rpartition("#")[2].isdigit() for value in found.get(kind, ()))
    for kind in ("reverts", "cherry-picked-from"):
        assert all(value in message for value in found.get(kind, ()))


HOSTILE = [
    " ", "\t", "\n", "#", "#1", "(#1)", "(#1) ", "/", "a/", "a/b#", "https://a/", "fix ", "fixes:", "\0",
    "Fixes: #1\n", "Co-authored-by:<", "Merged in (pull request #", "Merge branch (#1", "See merge request !1\n",
    "See merge request a/", "This reverts commit ", "abcdef0", "(cherry picked from commit ",
]  # fmt: skip


@pytest.mark.parametrize("part", HOSTILE)
def test_a_long_hostile_message_is_read(part: str) -> None:
    size = 200_000
    assert set(references(part * (size // len(part)) + "x")) <= KINDS
    assert set(references("Merged in x\n\n" + part * (size // len(part)) + "!")) <= KINDS


@pytest.mark.parametrize("part", ["-", ".", "a.", "GH-", "https://a-"])
def test_a_long_line_of_dashes_is_read(part: str) -> None:
    assert references(part * (20_000 // len(part)) + "x") == {}
