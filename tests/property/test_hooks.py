"""A law of hooks: what is put in is taken out, byte for byte."""

from hypothesis import given
from hypothesis import strategies as st

from treering.operate.hooks import parsed, with_lines

LINES = st.lists(
    st.binary(min_size=1, max_size=20).map(lambda target: target.replace(b"\n", b"?")), min_size=1, max_size=3
).map(lambda targets: [b"(set -C; : >" + target + b") 2>/dev/null || :\n" for target in targets])
PIECES = st.lists(
    st.one_of(
        st.binary(max_size=30),
        st.sampled_from([b"# >>> treering hooks: `treering hooks remove` takes these lines out\n",
                         b"# <<< treering hooks\n", b"(set -C; : >x) 2>/dev/null || :\n", b"exit 1\n"]),
    ),
    max_size=6,
).map(b"".join)  # fmt: skip


@given(PIECES, LINES)
def test_a_script_comes_back_byte_for_byte(rest: bytes, asks: list[bytes]) -> None:
    script = b"#!/bin/sh\n" + rest
    made = with_lines(script, asks)
    assert made is not None
    assert parsed(made) == (asks, script)
