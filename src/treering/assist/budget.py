"""Money: what a call costs, and that no more is spent than was allowed. The only module that knows prices.

Before a call the most that it can cost is reserved, after it what it did cost is settled; a crash in between leaves the
most counted. Prices come from a dated file, and a model that is not in it is refused. What was spent is kept by
``store/ledger.py``.
"""

import time
from collections import Counter
from collections.abc import Callable
from datetime import date
from decimal import ROUND_CEILING, Decimal
from functools import cache
from pathlib import Path

from msgspec import Struct

from treering.config import BudgetSettings
from treering.errors import BudgetError, DataError
from treering.files import read_json
from treering.store.ledger import BILLION, Ceilings, Ledger, Usage, check
from treering.types import day_of

STALE_DAYS = 90
"""Prices that nobody looked at for so long are doubted aloud."""


class Rates(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Dollars for a million tokens."""

    input: Decimal
    output: Decimal
    cache_write_5m: Decimal
    cache_write_1h: Decimal
    cache_read: Decimal

    def cost(self, usage: Usage) -> int:
        """In billionths of a dollar, rounded up."""
        exact = (
            self.input * usage.input_tokens
            + self.output * usage.output_tokens
            + self.cache_write_5m * usage.cache_write_5m
            + self.cache_write_1h * usage.cache_write_1h
            + self.cache_read * usage.cache_read
        )
        return int((exact * (BILLION // 10**6)).to_integral_value(ROUND_CEILING))


class LongPrompt(Rates, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What holds for every token of a call whose prompt has more tokens than ``over``."""

    over: int


class ModelPrice(Rates, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What one model costs, and how many tokens it reads and writes at most in one call."""

    window: int
    long_prompt: LongPrompt | None = None
    as_of: str = ""
    """The day of these, where it is not the file's."""

    def cost(self, usage: Usage) -> int:
        if self.long_prompt and usage.prompt > self.long_prompt.over:
            return self.long_prompt.cost(usage)
        return super().cost(usage)

    def worst(self, input_tokens: int, output_tokens: int) -> int:
        """The most that a call can cost: whatever the cache does, and a prompt of no more than ``input_tokens``."""
        return max(
            self.cost(Usage(output_tokens=output_tokens, **{"input_tokens": 0, kind: input_tokens}))
            for kind in ("input_tokens", "cache_write_5m", "cache_write_1h", "cache_read")
        )


class Prices(Struct, frozen=True, forbid_unknown_fields=True):
    """A file of prices: of which day, from where, and what each model costs."""

    as_of: str
    source: str
    models: dict[str, ModelPrice]

    def of(self, model: str) -> ModelPrice:
        """Raises :class:`BudgetError` for a model without a price: it is never taken to cost nothing."""
        if model not in self.models:
            raise BudgetError(
                f"the price of {model!r} is not known",
                "choose a model that treering has a price for, or name a file of prices: TREERING_BUDGET_PRICES",
            )
        return self.models[model]

    def doubt(self, today: str) -> str:
        """Why the prices may not be true any more; empty where they are recent."""
        age = (date.fromisoformat(today) - date.fromisoformat(self.as_of)).days
        if age <= STALE_DAYS:
            return ""
        return f"the prices are {age} days old: compare them with Anthropic's and name a file of your own"


def prices_of(path: str = "") -> Prices:
    """The prices of a file, or those that come with treering. Raises :class:`DataError` for a file that cannot be."""
    return _read(Path(path).expanduser()) if path else _shipped()


@cache
def _shipped() -> Prices:
    return _read(Path(__file__).with_name("prices.json"))


def _read(path: Path) -> Prices:
    found = read_json(path, Prices)
    way_out = "docs/routing.md shows one"
    for name, told in (
        ("the file", found.as_of),
        *((name, one.as_of or found.as_of) for name, one in found.models.items()),
    ):
        try:
            date.fromisoformat(told)
        except ValueError as error:
            raise DataError(f"{path}: {told!r}, the day of {name}, is no date", way_out) from error
    for name, one in found.models.items():
        for rates in filter(None, (one, one.long_prompt)):
            for kind in Rates.__struct_fields__:
                rate: Decimal = getattr(rates, kind)
                if not rate.is_finite() or rate < 0 or (rate == 0 and kind in ("input", "output")):
                    raise DataError(f"{path}: the price of {kind} of {name} is {rate}", "a price is a number over 0")
        if one.window < 1:
            raise DataError(f"{path}: the window of {name} is {one.window}", way_out)
    return found


class Reservation:
    """What is set aside for one call. Settle it when the call was answered, release it if it surely was never sent;
    neither leaves the most it can cost counted for good.
    """

    def __init__(self, folder: Path, number: int, cost: Callable[[Usage], int], worst: int) -> None:
        self.folder, self.number, self.worst = folder, number, worst / BILLION
        self._cost = cost

    def settle(self, usage: Usage) -> float:
        """Count what the call used, and return it in dollars. More than was reserved is counted too: it was spent."""
        if min(getattr(usage, name) for name in Usage.__struct_fields__) < 0:
            raise DataError(f"a call cannot use {usage}", "the reservation stays")
        spent = self._cost(usage)
        with Ledger(self.folder) as ledger:
            ledger.settle(self.number, spent, usage)
        return spent / BILLION

    def release(self) -> None:
        with Ledger(self.folder) as ledger:
            ledger.release(self.number)


class Budget:
    """What may be spent from one store. Opens the ledger for each question: any thread may ask, and none waits long."""

    def __init__(self, folder: Path, settings: BudgetSettings, now: Callable[[], float] = time.time) -> None:
        self.folder = folder
        self.prices = prices_of(settings.prices)
        self.ceilings = Ceilings(nano(settings.per_day), nano(settings.per_month))
        self.now = now

    def reserve(self, model: str, purpose: str, *, input_tokens: int, output_tokens: int) -> Reservation:
        """Set aside the most that a call can cost whose prompt has at most so many tokens, and its answer, thinking
        included. Raises :class:`BudgetError`: no price, or a ceiling would be passed.
        """
        found = self.prices.of(model)
        worst = found.worst(input_tokens, output_tokens)
        with Ledger(self.folder) as ledger:
            number = ledger.reserve(model, purpose, worst, self.ceilings, self.now())
        return Reservation(self.folder, number, found.cost, worst)

    def check(self, model: str, *, input_tokens: int, output_tokens: int) -> None:
        """Raise what :meth:`reserve` would, and reserve nothing."""
        worst = self.prices.of(model).worst(input_tokens, output_tokens)
        with Ledger(self.folder, reading=True) as ledger:
            check(worst, ledger.sums(self.now()), self.ceilings)


class Spent(Struct, frozen=True):
    """What was spent by one model for one purpose, in dollars. ``reserved`` is the most that unsettled calls cost."""

    model: str
    purpose: str
    calls: int
    dollars: float
    reserved: float
    input_tokens: int
    output_tokens: int
    cache_write_tokens: int
    cache_read_tokens: int


class Left(Struct, frozen=True):
    """A ceiling in dollars, and what is under it."""

    ceiling: float
    spent: float
    reserved: float
    left: float


class Open(Struct, frozen=True):
    """A reservation that was not settled. ``left_behind``: its process is gone, so it counts for good."""

    since: str
    model: str
    purpose: str
    dollars: float
    left_behind: bool


class Spending(Struct, frozen=True):
    """What was spent from one store. Days and months are those of UTC."""

    since: str
    dollars: float
    rows: tuple[Spent, ...]
    days: dict[str, float]
    unsettled: tuple[Open, ...]
    today: Left
    this_month: Left
    prices_as_of: str
    doubt: str


def spending(folder: Path, settings: BudgetSettings, since: str = "", now: float | None = None) -> Spending:
    """What was spent from a day on (all of it, by default), and what is left. Makes nothing."""
    now = time.time() if now is None else now
    budget = Budget(folder, settings)
    with Ledger(folder, reading=True) as ledger:
        accounts = ledger.accounts(since)
        today, month = ledger.sums(now)
        unsettled = ledger.unsettled(now)
    days: Counter[str] = Counter()
    for account in accounts:
        days[account.day] += account.spent
    rows = []
    for model, purpose in sorted({(one.model, one.purpose) for one in accounts}):
        of = [one for one in accounts if (one.model, one.purpose) == (model, purpose)]
        rows.append(
            Spent(
                model, purpose, sum(one.calls for one in of),
                sum(one.spent for one in of) / BILLION, sum(one.reserved for one in of) / BILLION,
                sum(one.usage.input_tokens for one in of), sum(one.usage.output_tokens for one in of),
                sum(one.usage.cache_write_5m + one.usage.cache_write_1h for one in of),
                sum(one.usage.cache_read for one in of),
            )
        )  # fmt: skip
    return Spending(
        since=since,
        dollars=sum(one.spent for one in accounts) / BILLION,
        rows=tuple(rows),
        days={day: amount / BILLION for day, amount in days.items()},
        unsettled=tuple(
            Open(time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(one.at)), one.model, one.purpose, one.worst / BILLION,
                 one.left)
            for one in unsettled
        ),
        today=_left(budget.ceilings.day, today.spent, today.reserved),
        this_month=_left(budget.ceilings.month, month.spent, month.reserved),
        prices_as_of=budget.prices.as_of,
        doubt=budget.prices.doubt(day_of(now)),
    )  # fmt: skip


def _left(ceiling: int, spent: int, reserved: int) -> Left:
    return Left(ceiling / BILLION, spent / BILLION, reserved / BILLION, max(0, ceiling - spent - reserved) / BILLION)


def nano(amount: float) -> int:
    """Dollars in billionths of them, as they were written."""
    return int(Decimal(str(amount)) * BILLION)
