"""Getting better by itself, and seeing whether it does: ``treering learn`` and ``treering monitor``."""

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Literal

from msgspec import Struct

from treering import learning, operations
from treering.errors import DataError, Incomplete, MissingExtra, ModelError, StoreError
from treering.files import locked
from treering.git.history import timestamp
from treering.git.reader import read_refs
from treering.lm.base import check_base
from treering.opening import Place
from treering.operate import alerts, prequential, trends
from treering.operate.alerts import Alert as Alert
from treering.operate.courtesy import SUPPLIES, Power
from treering.operate.courtesy import lowest_priority as lowest_priority
from treering.operate.prequential import Tested as Tested
from treering.pipeline import learn as learn_stage
from treering.report import Reporter
from treering.store import Store
from treering.store.database import make_folder
from treering.summary import write_page
from treering.tokens.pack import read_stream
from treering.tracing import span
from treering.types import Trend

Outcome = Literal["waiting", "first", "promoted", "kept", "failed", "paused"]


class Trained(Struct, frozen=True):
    """The challenger: how it was trained and how it did on the newest commits, beside the model before it.
    ``difference`` is to that model, in bits per byte, with its 95 % interval: below zero throughout is better.
    """

    model: str
    parent: str
    documents: int
    bits_per_byte_before: float | None
    bits_per_byte_after: float | None
    difference: tuple[float, float, float] | None
    tokens: int
    steps: int
    seconds: float


class Learning(Struct, frozen=True):
    """What ``treering learn`` did. ``outcome``: `waiting` for more commits, `first` model, `promoted`, `kept` (the
    model before stays), `failed` (the challenger is no model; the one before stays), `paused` on battery. ``model`` is
    the current one afterwards; ``new`` are commits since the last learning, ``missing`` those still to come.
    """

    outcome: Outcome
    promoted: bool
    verdict: str
    model: str
    new: int
    missing: int
    tested: Tested | None
    trained: Trained | None
    seconds: float
    waited_for_power: float = 0.0


def learn(where: Place, report: Reporter, *, index: bool = False, supplies: Path = SUPPLIES) -> Learning:
    """Bring the model up to date: test it on the commits that came since, train a challenger on them and on a sample of
    the older ones, and let it take the place only if it is shown to be better. The first time, train the first model.

    Killed at any moment, the model that was current is; the next call goes on. Raises :class:`StoreBusy` while another
    one learns.
    """
    read_refs(where.source, where.settings.scrape)  # without a commit to start from, no store is made
    make_folder(where.folder)
    chosen = where.settings.learn
    power = Power(0.0 if chosen.on_battery else 60 * chosen.battery_minutes, report.say, supplies)
    go_on = (lambda: True) if chosen.on_battery else power
    where = replace(
        where, settings=replace(where.settings, train=replace(where.settings.train, minutes=chosen.minutes))
    )
    with locked(where.folder / "learn.lock", "treering learn"):
        if index:
            operations.index(where, report)
        else:
            operations.scrape(where, report, patches=True)
        started = time.time()
        with where.store() as store:
            made = _Round(where, store, report, started, power, go_on).told()
        if made.outcome != "waiting":
            operations.after_run(where, report)
            write_page(where.folder / "reports", report)
    return made


class _Round:
    """One round of learning, over an open store."""

    def __init__(
        self, where: Place, store: Store, report: Reporter, started: float, power: Power, go_on: learn_stage.GoesOn
    ) -> None:
        self.where, self.store, self.report, self.started = where, store, report, started
        self.power, self.go_on = power, go_on
        self.new = 0
        self.tested: Tested | None = None

    def told(self) -> Learning:
        after = self.where.settings.learn.after
        model = learn_stage.current_model(self.store)
        mark = prequential.mark(self.store, model, "learn") if model else 0
        if model and not mark:
            self.report.warn("what the model learned from is not in this store any more: a first model is trained anew")
        names = prequential.new_commits(self.store, mark)
        self.new = len(names)
        if self.new < after:
            missing = after - self.new
            return self._end("waiting", f"{missing} more commit{'s' * (missing > 1)} to come before it learns again")
        through = self.store.newest_number()
        if not self.go_on():
            return self._end("paused", "the machine is on battery: nothing was begun")
        onward = bool(model and mark)
        if not onward:
            check_base(self.where.settings.train.model)  # one that is not here is no challenger that failed
        if model and onward:
            self._test(model)
        try:
            with span("train"):
                learned = learning.train(self.where, self.report, onward=onward, may_go_on=self.go_on)
        except MissingExtra:
            raise
        except Incomplete as error:
            return self._end("paused", f"the machine is on battery: {error.hint}")
        except DataError as error:
            return self._end("waiting", error.message)
        except ModelError as error:
            self.report.warn(f"the challenger is no model: {error.message} ({error.hint})")
            made = self._end("failed", f"the challenger is no model: {error.message}")
            return self._kept(made, through)
        assert learned is not None  # noqa: S101  (for mypy: one process)
        return self._kept(self._judged(learned, onward=onward), through)

    def _test(self, model: Path) -> None:
        """Test the model on what it and its tests have not seen, before anything learns from it."""
        names = prequential.new_commits(self.store, prequential.mark(self.store, model, "test"))
        if not names:
            return  # it was tested, and killed before it trained
        where = learning.as_told(self.where, model)
        corpus, ids = read_stream(learning.tokenize(where, self.report)[0])
        self.report.say(f"testing the model on {len(names):,} commits that it never saw")
        with span("test"):
            self.tested = prequential.test(self.store, corpus, ids, model, names, gpu=where.settings.train.gpu)
        if self.tested:
            self.report.say(f"{self.tested.bits_per_byte:.3f} bits per byte on {self.tested.commits} of them")

    def _judged(self, learned: learn_stage.Learned, *, onward: bool) -> Learning:
        told = learned.report
        holdout, bits = told.holdout, told.holdout.bits_per_byte
        trained = Trained(
            model=learned.folder.name,
            parent=told.parent,
            documents=holdout.documents,
            bits_per_byte_before=bits.get("base"),
            bits_per_byte_after=bits.get("tuned"),
            difference=holdout.difference,
            tokens=told.training.tokens,
            steps=told.training.steps,
            seconds=told.training.seconds,
        )
        if not onward:
            return self._end("first", told.verdict, trained)
        if not learned.current:
            return self._end(
                "kept", f"The challenger is not shown to be better, and the model before stays. {told.verdict}", trained
            )
        return self._end("promoted", told.verdict, trained)

    def _end(self, outcome: Outcome, verdict: str, trained: Trained | None = None) -> Learning:
        current, after = learn_stage.current_model(self.store), self.where.settings.learn.after
        return Learning(
            outcome=outcome,
            promoted=outcome in ("first", "promoted"),
            verdict=verdict,
            model=current.name if current else "",
            new=self.new,
            missing=max(0, after - self.new) if outcome == "waiting" else 0,
            tested=self.tested,
            trained=trained,
            seconds=round(time.time() - self.started, 1),
            waited_for_power=round(self.power.waited, 1),
        )

    def _kept(self, made: Learning, through: int) -> Learning:
        """Remember that these commits had their turn."""
        with self.store.writing("treering learn"):
            self.store.log_run(
                "learn",
                self.started,
                {
                    "outcome": made.outcome,
                    "promoted": made.promoted,
                    "verdict": made.verdict,
                    "model": made.model,
                    "new": made.new,
                    "through": through,
                    "difference": made.trained.difference if made.trained else None,
                },
            )
        return made


def roll_back(where: Place) -> Path:
    """Make the model current again that was so before. Raises :class:`ModelError` where none is kept."""
    with where.store(existing=True) as store:
        return learn_stage.go_back(store)


# seeing --------------------------------------------------------------------------------------------------------------


def monitor(where: Place, *, since: str = "") -> Trend:
    """Tell how quality, speed, size and spend went over the runs, what each training brought and cost, and what
    changed, against the noise that a bootstrap finds. Nothing is measured, and nobody is told.
    """
    return operations.trend(where, since=float(timestamp(since, end=False)) if since.strip() else 0.0)


def alert(where: Place, trend: Trend, report: Reporter) -> list[Alert]:
    """Tell whoever the settings name of what got worse, and what is over, once each."""
    return alerts.tell(where.folder, trend, where.settings.monitor, report.warn)


def record_searches(where: Place, started: float, seconds: Sequence[float]) -> None:
    """Remember how long the searches took that a server answered since ``started``. A store that may only be read
    remembers none.
    """
    with suppress(StoreError), where.store(existing=True) as store:
        store.log_run("serve", started, trends.latencies(seconds))
        operations.keep_log(store, where.settings, Reporter())
