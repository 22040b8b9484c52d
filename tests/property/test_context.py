"""Laws of context packs: the count is exact and never above the budget, whatever is told and however it is counted."""

from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treering.assist.context import Count, counter, pack
from treering.assist.facts import Fact
from treering.errors import UsageError

TEXTS = st.text(st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from("\n\n\n ab")), max_size=400)
FACTS = st.builds(
    Fact,
    kind=st.sampled_from(["commit", "hunk", "file", "related"]),
    commit_hash=st.text("0123456789abcdef", min_size=40, max_size=40),
    path=TEXTS,
    text=TEXTS,
    why=TEXTS,
)  # fmt: skip


@cache
def gpt2() -> Count:
    return counter("claude", None)


COUNTS: dict[str, Count] = {
    "GPT-2's": lambda text: gpt2()(text),
    "bytes": lambda text: len(text.encode()),
    # Two texts that are joined are more than both.
    "grudging": lambda text: len(text) // 4 + text.count(">\n<"),
}


@pytest.mark.parametrize("how", COUNTS)
@settings(deadline=None)
@given(told=st.lists(FACTS, max_size=8), budget=st.integers(1, 3000), question=TEXTS)
def test_a_pack_is_within_its_budget_or_says_what_is_needed(
    how: str, told: list[Fact], budget: int, question: str
) -> None:
    count = COUNTS[how]
    try:
        made = pack(question, told, count, budget=budget, audience="claude")
    except UsageError as error:
        needed = int(error.message.rsplit(" ", 1)[1].replace(",", ""))
        assert needed > budget
        return
    assert made.tokens == count(made.text) <= budget
    assert bool(made.facts) == bool(told)
    left = [one for one in made.left_out if not one.endswith("shortened")]
    assert len(made.facts) + len(left) == len(told)
    assert pack(question, told, count, budget=budget, audience="claude") == made
    order = [told.index(next(one for one in told if one.commit_hash == fact.commit_hash)) for fact in made.facts]
    if len({one.commit_hash for one in told}) == len(told):
        assert order == sorted(order)
