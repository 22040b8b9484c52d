"""Laws of money: whatever is reserved, settled and released, the sums are true and no ceiling is passed."""

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from treering.assist.budget import prices_of
from treering.errors import BudgetError
from treering.store.ledger import Ceilings, Ledger, Usage

TOKENS = st.integers(0, 2_000_000)
USAGES = st.builds(Usage, TOKENS, TOKENS, TOKENS, TOKENS, TOKENS)
MIDNIGHT = 1_799_971_200


@given(
    st.integers(0, 50),
    st.integers(0, 120),
    st.lists(st.tuples(st.sampled_from("rsx"), st.integers(0, 20), st.integers(0, 3)), max_size=25),
)
@settings(max_examples=40, deadline=None)
def test_no_ceiling_is_passed_and_every_sum_is_true(day: int, month: int, steps: list[tuple[str, int, int]]) -> None:
    ceilings = Ceilings(day, month)
    taken: dict[int, int] = {}
    open_ones: list[tuple[int, int, int]] = []
    with tempfile.TemporaryDirectory() as folder, Ledger(Path(folder)) as ledger:
        for step, amount, offset in steps:
            if step == "r":
                would = {**taken, offset: taken.get(offset, 0) + amount}
                try:
                    number = ledger.reserve("m", "law", amount, ceilings, MIDNIGHT + offset * 86_400)
                except BudgetError:
                    assert would[offset] > day or sum(would.values()) > month
                    continue
                assert would[offset] <= day
                assert sum(would.values()) <= month
                taken = would
                open_ones.append((number, offset, amount))
            elif open_ones:
                number, of, worst = open_ones.pop(amount % len(open_ones))
                if step == "s":
                    ledger.settle(number, min(worst, amount), Usage(1, 1))
                    taken[of] -= worst - min(worst, amount)
                else:
                    ledger.release(number)
                    taken[of] -= worst
            for offset, amount_taken in taken.items():
                assert ledger.sums(MIDNIGHT + offset * 86_400)[0].taken == amount_taken
        assert ledger.sums(MIDNIGHT)[1].taken == sum(taken.values())
        assert sum(one.spent + one.reserved for one in ledger.accounts()) == sum(taken.values())
        assert {one.number for one in ledger.unsettled(MIDNIGHT)} == {number for number, _, _ in open_ones}


@given(USAGES, USAGES, st.sampled_from(sorted(prices_of().models)))
def test_more_tokens_never_cost_less_and_no_call_is_cheaper_in_two(one: Usage, other: Usage, model: str) -> None:
    price = prices_of().of(model)
    both = Usage(*(getattr(one, name) + getattr(other, name) for name in Usage.__struct_fields__))
    assert price.cost(both) >= max(price.cost(one), price.cost(other))
    if not price.long_prompt:
        assert price.cost(both) <= price.cost(one) + price.cost(other)


@given(TOKENS, TOKENS, TOKENS, st.sampled_from(sorted(prices_of().models)))
def test_the_worst_case_is_never_passed(fresh: int, written: int, output: int, model: str) -> None:
    price = prices_of().of(model)
    worst = price.worst(fresh + written, output)
    for usage in (Usage(fresh, output, written), Usage(fresh, output, 0, written), Usage(fresh, output, 0, 0, written)):
        assert price.cost(usage) <= worst
