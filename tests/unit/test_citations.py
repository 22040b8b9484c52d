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
