"""Citations are checked while an answer is written."""

import pytest

from treering.assist.citations import Checked

ONE = "abc1234" + "0" * 33
TWO = "def5678" + "1" * 33


def written(text: str, size: int) -> tuple[str, list[str], Checked]:
    told: list[str] = []
    checked = Checked([ONE, TWO], told.append)
    for start in range(0, len(text), size):
        checked.feed(text[start : start + size])
    return checked.close(), told, checked


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50, 1000])
def test_citations_that_hold_stay_and_others_go_however_the_answer_is_cut(size: int) -> None:
    said = f"It began here [abc1234]. Then [deadbee] [{TWO}], and [ABC1234, 1234567; def5678]. See [docs](x) or a[0]."
    text, told, checked = written(said, size)
    assert text == f"It began here [abc1234]. Then [{TWO}], and [abc1234][def5678]. See [docs](x) or a[0]."
    assert checked.cited == [ONE, TWO]
    assert checked.unsupported == ["deadbee", "1234567"]
    assert "".join(told) == text


@pytest.mark.parametrize("size", [1, 9, 1000])
def test_an_answer_without_a_citation_that_holds_is_never_told(size: int) -> None:
    text, told, checked = written("Surely it was [deadbeef], or `abc1234`.", size)
    assert text == "Surely it was, or `abc1234`."
    assert (told, checked.cited, checked.unsupported) == ([], [], ["deadbeef"])


def test_what_was_held_back_is_told_with_the_first_citation_that_holds() -> None:
    told: list[str] = []
    checked = Checked([ONE], told.append)
    for piece in ("First words", " and more", " [abc", "1234]", " then", " the end"):
        checked.feed(piece)
    assert checked.close() == "First words and more [abc1234] then the end"
    assert told == ["First words and more [abc1234]", " then", " the end"]


def test_a_hash_of_a_commit_is_cited_by_seven_digits_or_more() -> None:
    assert written("[abc123] [abc1234] [abc12345]", 4)[0] == "[abc123] [abc1234]"


def test_a_bracket_that_never_closes_is_told_at_the_end() -> None:
    assert written("It is so [abc1234], see [abc12", 5)[0] == "It is so [abc1234], see [abc12"


@pytest.mark.parametrize("said", ["[commit abc1234]", "[`abc1234`]", "[ abc1234 ]", "[commits abc1234, def5678]"])
def test_the_ways_in_which_models_write_a_citation(said: str) -> None:
    assert ONE in written(f"so {said}", 3)[2].cited


@pytest.mark.parametrize(
    "said",
    [
        "[deadbee1,\n beefbee2]", "[\ndeadbee1]", "[see deadbee1]", "[commit: deadbee1]", "(deadbee1)", "`deadbee1`",
        "commit deadbee1.", "[abc1234 and deadbee1]", "[" + "abc1234, " * 80 + "deadbee1]", "https://x/commit/deadbee1",
    ],
)  # fmt: skip
@pytest.mark.parametrize("size", [1, 3, 11, 5000])
def test_no_way_of_writing_brings_in_a_commit_that_was_not_in_the_context(said: str, size: int) -> None:
    text, told, checked = written(f"So [abc1234]: {said} it is.", size)
    assert "deadbee1" not in text
    assert "deadbee1" in checked.unsupported
    assert "".join(told) == text


@pytest.mark.parametrize(
    "said", ["0xdeadbee1", "#aabbcc12", "deadbee1.bin", "deadbee1-0000-4000", "defaced", "1234567"]
)
@pytest.mark.parametrize("size", [1, 2, 5, 100])
def test_what_is_no_commit_stays(said: str, size: int) -> None:
    assert written(f"So [abc1234] {said} it is.", size)[0] == f"So [abc1234] {said} it is."
