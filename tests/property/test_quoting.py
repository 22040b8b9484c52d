"""Laws of quotations: whatever a repository holds, it stays within its marks and drives nothing."""

import re
import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from treering.assist.citations import Checked
from treering.assist.quoting import LONGEST_LINE, MARK, harmless, mark_of, nonce_of, quoted, rules

NONCES = st.text("0123456789abcdef", min_size=12, max_size=12)
PIECES = st.sampled_from(
    [
        "</evidence-", "<evidence-", "< / evidence", "<\\evidence-", "</EVIDENCE-", ">", "\n", "\r", "\r\n", "\x1b[31m",
        "\u202e", "\u2066", "\u200b", "\ufe0f", "\u3164\u115f", "\u2800", "\U000e0101", "\U000e0041", "\x00",
        "\x9b", "\u2028",
        '" hash="', "&lt;", "Human:", "<|im_start|>system", "x" * 900, "[mark]", "\ud800",
    ]
)  # fmt: skip


@st.composite
def hostile(draw: st.DrawFn) -> tuple[str, str]:
    """A nonce, and a text that may know it."""
    nonce = draw(NONCES)
    parts = st.one_of(PIECES, st.text(max_size=20), st.just(nonce), st.just(nonce.upper()), st.just(mark_of(nonce)))
    return nonce, "".join(draw(st.lists(parts, max_size=30)))


@given(hostile(), st.text(max_size=300))
def test_no_text_closes_its_marks_or_opens_others(case: tuple[str, str], path: str) -> None:
    nonce, text = case
    made = quoted(text, nonce, {"hash": text, "path": path})
    mark = re.escape(mark_of(nonce))
    assert re.findall(mark, made, re.IGNORECASE) == [mark_of(nonce)] * 2
    assert re.fullmatch(rf'<{mark}(?: \w+="[^"<>\n]*")*>\n.*\n</{mark}>\n', made, re.DOTALL)
    assert not re.search(rf"<\s*/?\s*{MARK}", made.partition("\n")[2].rpartition("\n</")[0], re.IGNORECASE)


@given(hostile())
def test_no_character_that_cannot_be_seen_passes_and_no_line_is_long(case: tuple[str, str]) -> None:
    nonce, text = case
    for line in quoted(text, nonce, {"path": text}).split("\n"):
        for char in line.replace("\t", " "):
            assert unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"), hex(ord(char))
            assert not 0xFE00 <= ord(char) <= 0xFE0F
            assert char not in "\u034f\u115f\u1160\u17b4\u17b5\u180b\u180f\u2800\u3164\uffa0"
            assert not 0xE0000 <= ord(char) <= 0xE01EF
    # The nonce is a few letters longer where it was taken out.
    assert max(map(len, harmless(text, "").split("\n"))) <= LONGEST_LINE + 50 + text.count("<")


@given(hostile())
def test_the_same_nonce_makes_the_same_quotation(case: tuple[str, str]) -> None:
    nonce, text = case
    assert quoted(text, nonce, {"path": text}) == quoted(text, nonce, {"path": text})
    assert mark_of(nonce) in rules(nonce)


@given(st.lists(st.text(max_size=30), min_size=1, max_size=6), st.text(min_size=1, max_size=5))
def test_a_nonce_is_of_all_texts_and_where_each_begins(texts: list[str], more: str) -> None:
    assert nonce_of(texts) == nonce_of(list(texts))
    assert nonce_of(texts) != nonce_of([texts[0] + more, *texts[1:]])
    assert nonce_of(texts) != nonce_of([*texts, ""])
    assert nonce_of([more + more]) != nonce_of([more, more])


@given(st.text(st.characters(codec="ascii", categories=["L", "N", "P", "Zs"]), max_size=200))
def test_plain_text_is_quoted_as_it_is(text: str) -> None:
    if MARK not in text.lower():
        assert harmless(text) == text


SAID = st.sampled_from(
    ["[abc1234]", "abc1234", "deadbee1", "[", "]", "`", "\n", " ", ", ", ".", "#", "-", "commit ", "x", "1234567", "a0"]
)


@given(st.lists(SAID, max_size=14).map("".join), st.data())
def test_however_an_answer_comes_in_pieces_the_same_is_cited_and_told(text: str, data: st.DataObject) -> None:
    def read(pieces: list[str]) -> tuple[str, list[str], list[str]]:
        told: list[str] = []
        checked = Checked(["abc1234" + "0" * 33], told.append)
        for piece in pieces:
            checked.feed(piece)
        whole = checked.close()
        assert "".join(told) == (whole if checked.cited else "")
        return whole, checked.cited, checked.unsupported

    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    pieces = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert read(pieces) == read([text])
