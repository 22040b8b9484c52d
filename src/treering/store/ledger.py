"""The ledger of a store: what was reserved and spent, and which tasks were routed where, with what came of it.

A SQLite file of its own, so that a long run that writes the index never holds up a call. Money is in whole billionths
of a dollar. What a call costs belongs to the day (UTC) on which it was reserved. What anything costs, and how much may
be spent, is told by who asks: this module knows no prices.
"""

import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from msgspec import Struct

from treering.errors import BudgetError, UsageError
from treering.store.apart import Apart
from treering.types import day_of

FILE = "ledger.db"
BILLION = 10**9
"""Of these is a dollar."""

STALE_SECONDS = 3600
"""No call takes so long: a reservation that is older was left behind, whatever process has its number now."""

MIGRATIONS = (
    """
    CREATE TABLE spending (
        id INTEGER PRIMARY KEY,
        at INTEGER NOT NULL,
        day TEXT NOT NULL, -- of that, UTC
        process INTEGER NOT NULL,
        model TEXT NOT NULL,
        purpose TEXT NOT NULL,
        worst INTEGER NOT NULL CHECK (worst >= 0), -- billionths of a dollar, as is all money
        spent INTEGER CHECK (spent >= 0), -- NULL until it is settled
        input_tokens INTEGER NOT NULL DEFAULT 0,
        output_tokens INTEGER NOT NULL DEFAULT 0,
        cache_write_5m INTEGER NOT NULL DEFAULT 0,
        cache_write_1h INTEGER NOT NULL DEFAULT 0,
        cache_read INTEGER NOT NULL DEFAULT 0
    ) STRICT;
    CREATE INDEX spending_day ON spending (day);
    CREATE TABLE routes (
        id TEXT PRIMARY KEY,
        at INTEGER NOT NULL,
        went TEXT NOT NULL,
        rule TEXT NOT NULL,
        features TEXT NOT NULL, -- as JSON; the task itself is not kept
        good INTEGER, -- NULL until something is known of the outcome
        source TEXT NOT NULL DEFAULT '' -- who said so
    ) STRICT, WITHOUT ROWID;
    """,
)

KEPT = "it says what was spent: move it away only if you know that from elsewhere"
"""The way out of a damaged one."""


class Usage(Struct, frozen=True):
    """What a call used, in tokens. ``input_tokens`` are those that no cache had a part in, as Anthropic counts."""

    input_tokens: int
    output_tokens: int
    cache_write_5m: int = 0
    cache_write_1h: int = 0
    cache_read: int = 0

    @property
    def prompt(self) -> int:
        """All that was read."""
        return self.input_tokens + self.cache_write_5m + self.cache_write_1h + self.cache_read


@dataclass(frozen=True, slots=True)
class Ceilings:
    """How much may be spent and reserved together in a day and in a month (UTC), in billionths of a dollar."""

    day: int
    month: int


@dataclass(frozen=True, slots=True)
class Sums:
    """What is spent and what is reserved, in billionths of a dollar."""

    spent: int
    reserved: int

    @property
    def taken(self) -> int:
        return self.spent + self.reserved


@dataclass(frozen=True, slots=True)
class Account:
    """What was spent on one day by one model for one purpose."""

    day: str
    model: str
    purpose: str
    calls: int
    spent: int
    reserved: int
    usage: Usage


@dataclass(frozen=True, slots=True)
class Unsettled:
    """A reservation that nobody settled yet. ``left`` is whether its process is gone, and nobody ever will."""

    number: int
    at: int
    model: str
    purpose: str
    worst: int
    left: bool


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a routed task."""

    at: int
    went: str
    features: Mapping[str, float]
    good: bool


class Ledger(Apart):
    """An open ledger: a reservation is on the disk before its call is sent."""

    file, migrations, lost, promises = FILE, MIGRATIONS, KEPT, True
    newest = "SELECT max((SELECT coalesce(max(at), 0) FROM spending), (SELECT coalesce(max(at), 0) FROM routes))"

    # money -----------------------------------------------------------------------------------------------------------

    def reserve(self, model: str, purpose: str, worst: int, ceilings: Ceilings, now: float) -> int:
        """Set aside the most that a call can cost, and return the reservation's number. In one transaction, so that
        any number of processes together stay below the ceilings. Raises :class:`BudgetError` if this would not.
        """
        with self._changing() as db:
            check(worst, self.sums(now), ceilings)
            made = db.execute(
                "INSERT INTO spending (at, day, process, model, purpose, worst) VALUES (?, ?, ?, ?, ?, ?)",
                (int(now), day_of(now), os.getpid(), model, purpose, worst),
            )
            assert made.lastrowid is not None  # noqa: S101  (for mypy: a row was made)
            return made.lastrowid

    def settle(self, number: int, spent: int, usage: Usage) -> None:
        """Put what a call did cost in the place of the most it could."""
        with self._changing() as db:
            done = db.execute(
                "UPDATE spending SET spent = ?, input_tokens = ?, output_tokens = ?, cache_write_5m = ?,"
                " cache_write_1h = ?, cache_read = ? WHERE id = ? AND spent IS NULL",
                (spent, usage.input_tokens, usage.output_tokens, usage.cache_write_5m, usage.cache_write_1h,
                 usage.cache_read, number),
            )  # fmt: skip
            if not done.rowcount:
                raise BudgetError(f"reservation {number} is settled or released already", "settle each call once")

    def release(self, number: int) -> None:
        """Take a reservation back: its call was never sent."""
        with self._changing() as db:
            if not db.execute("DELETE FROM spending WHERE id = ? AND spent IS NULL", (number,)).rowcount:
                raise BudgetError(f"reservation {number} is settled or released already", "settle each call once")

    def sums(self, now: float) -> tuple[Sums, Sums]:
        """Of the day and of the month."""
        day = day_of(now)
        today, month = (
            self.db.execute(
                "SELECT coalesce(sum(spent), 0), coalesce(sum(CASE WHEN spent IS NULL THEN worst END), 0)"
                " FROM spending WHERE day >= ? AND day <= ?",
                (first, day if first == day else f"{day[:7]}-31"),
            ).fetchone()
            for first in (day, f"{day[:7]}-01")
        )
        return Sums(*today), Sums(*month)

    def accounts(self, since: str = "") -> list[Account]:
        """What was spent from a day on, by day, model and purpose."""
        rows = self.db.execute(
            "SELECT day, model, purpose, count(*), coalesce(sum(spent), 0),"
            " coalesce(sum(CASE WHEN spent IS NULL THEN worst END), 0), sum(input_tokens), sum(output_tokens),"
            " sum(cache_write_5m), sum(cache_write_1h), sum(cache_read)"
            " FROM spending WHERE day >= ? GROUP BY day, model, purpose ORDER BY day, model, purpose",
            (since,),
        )
        return [
            Account(day, model, purpose, calls, spent, reserved, Usage(*tokens))
            for day, model, purpose, calls, spent, reserved, *tokens in rows
        ]

    def unsettled(self, now: float) -> list[Unsettled]:
        """Reservations that are neither settled nor released. All of them count."""
        rows = self.db.execute(
            "SELECT id, at, model, purpose, worst, process FROM spending WHERE spent IS NULL ORDER BY id"
        )
        return [
            Unsettled(number, at, model, purpose, worst, left=now - at > STALE_SECONDS or not _lives(process))
            for number, at, model, purpose, worst, process in rows
        ]

    def typical_output(self, purpose: str) -> int | None:
        """How many tokens the last calls for a purpose answered with, in the mean."""
        (found,) = self.db.execute(
            "SELECT avg(output_tokens) FROM (SELECT output_tokens FROM spending"
            " WHERE purpose = ? AND spent IS NOT NULL ORDER BY id DESC LIMIT 50)",
            (purpose,),
        ).fetchone()
        return None if found is None else round(found)

    # routes ----------------------------------------------------------------------------------------------------------

    def routed(self, went: str, rule: str, features: Mapping[str, float], now: float) -> str:
        """Remember where a task went, and return the name by which its outcome is told later."""
        name = secrets.token_hex(4)
        with self._changing() as db:
            db.execute(
                "INSERT INTO routes (id, at, went, rule, features) VALUES (?, ?, ?, ?, ?)",
                (name, int(now), went, rule, json.dumps(dict(features))),
            )
        return name

    def judge(self, route: str, source: str, *, good: bool) -> Literal["local", "claude"]:
        """Say how it went, and where it had gone; what is said last holds."""
        with self._changing() as db:
            found = db.execute(
                "UPDATE routes SET good = ?, source = ? WHERE id = ? RETURNING went", (good, source, route)
            ).fetchone()
        if not found:
            raise UsageError(f"there is no route {route!r}", "`treering route` prints the name of each")
        went: Literal["local", "claude"] = found[0]
        return went

    def outcomes(self, most: int) -> list[Outcome]:
        """The newest ``most`` routes of which the outcome is known, oldest first."""
        rows = self.db.execute(
            "SELECT at, went, features, good FROM routes WHERE good IS NOT NULL ORDER BY at DESC, id LIMIT ?", (most,)
        ).fetchall()
        return [Outcome(at, went, json.loads(features), bool(good)) for at, went, features, good in reversed(rows)]


def check(worst: int, sums: tuple[Sums, Sums], ceilings: Ceilings) -> None:
    """Raise :class:`BudgetError` if a call that may cost ``worst`` would pass a ceiling."""
    for name, taken, ceiling, until in (
        ("day", sums[0], ceilings.day, "wait until tomorrow (UTC)"),
        ("month", sums[1], ceilings.month, "wait until next month (UTC)"),
    ):
        if taken.taken + worst > ceiling:
            raise BudgetError(
                f"the ceiling of {dollars(ceiling)} a {name} is reached: {dollars(taken.spent)} is spent and"
                f" {dollars(taken.reserved)} reserved, and this call may cost {dollars(worst)}",
                f"{until}, ask for less, or raise TREERING_BUDGET_PER_{name.upper()}",
            )


def dollars(amount: int) -> str:
    """An amount as people write it: cents, and what is smaller with as many places as it takes."""
    whole_part, rest = divmod(amount, BILLION)
    places = f"{rest:09d}".rstrip("0")
    return f"${whole_part:,}.{places:0<2}"


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
