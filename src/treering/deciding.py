"""The operations for whoever decides: a brief, a history in figures, where a task goes, and what was spent."""

import os
import time
from collections.abc import Sequence
from datetime import date
from functools import partial

from msgspec.structs import replace

from treering.assist import brief as brief_stage
from treering.assist import route as routing
from treering.assist.brief import Brief as Brief
from treering.assist.budget import Budget, spending
from treering.assist.budget import Spending as Spending
from treering.assist.claude import KEY, key_of
from treering.assist.features import LIKELY, Measures, features, tokens_of
from treering.assist.overview import Overview as Overview
from treering.assist.overview import overview_of
from treering.assist.route import Route as Route
from treering.assist.route import Where
from treering.assisting import CONTEXT_TOKENS
from treering.errors import BudgetError, StoreError
from treering.files import read_json
from treering.finding import Desk, text_of
from treering.git.blame import texts
from treering.git.history import timestamp
from treering.learning import current_model
from treering.opening import Place
from treering.store.ledger import BILLION, Ledger
from treering.text.paths import matching
from treering.types import day_of

PREDICTED = 10


def brief(desk: Desk, *, since: str = "", until: str = "", limit: int = 8) -> Brief:
    """What happened in a period: its themes, the files most changed, what stalled, what may come next, and the question
    to Claude, so nothing of it is private. Without dates, the 30 days that end with the newest commit.
    """
    where = desk.where
    return brief_stage.brief(
        desk.discreet.finder, where.source, where.settings, current_model(where), since=since, until=until, limit=limit
    )


def overview(desk: Desk) -> Overview:
    """The history in figures: its activity by week, its themes over time, the paths that change most, and what was
    made of it: the training of the model, the quality of search, what Claude cost.
    """
    return overview_of(desk.finder, desk.where.folder / "reports", time.time(), lambda: spend(desk.where))


def route(desk: Desk, task: str, *, given: Sequence[str] = (), budget: int = CONTEXT_TOKENS) -> Route:
    """Say whether a task is simple enough for this machine or worth asking Claude, why, and what that would cost at
    most and in all likelihood. Nothing is asked and nothing is spent.
    """
    task = text_of(task)
    predicted = desk.files(task, limit=PREDICTED, given=given)
    read = partial(texts, desk.shadow, desk.tip)
    mask = desk.finder.history.everything
    measures = Measures(desk.finder.history, desk.predictor)
    found, tokens = features(desk.finder, measures, task, predicted, mask=mask, contents=read)
    tokens |= {path: tokens_of(text) for path, text in read(list(given)).items()} if given else {}
    where = desk.where
    purse, settings = Budget(where.folder, where.settings.budget), where.settings.assist
    price = purse.prices.models.get(settings.claude_model)
    own, files = tokens_of(task), sum(tokens.values())
    with Ledger(where.folder, reading=True) as ledger:
        model, by = routing.chosen_model(ledger.outcomes(routing.REMEMBERED), routing.cold_start())
        output = min(settings.answer_tokens, ledger.typical_output("ask") or routing.TYPICAL_OUTPUT)
    named = [*given, *(one.path for one in predicted if one.score >= LIKELY), *routing.words_like_paths(task)]
    near = [path for hit in desk.finder.search(task, limit=PREDICTED) for path in hit.files]
    facts = routing.Facts(
        private=matching([*named, *near], where.settings.route.private_paths),
        refused=_refused(purse, settings.claude_model, routing.most_tokens(task, budget), settings.answer_tokens),
        task_tokens=own,
        tokens=own + files,
        claude_window=price.window if price else 0,
        local_window=_window(desk),
    )
    to, rule, why = routing.decided(facts, found, model, by)
    worst = price.worst(routing.most_tokens(task, budget), settings.answer_tokens) / BILLION if price else None
    likely = routing.expected(price, routing.call_tokens(own, files, budget), output) if price else None
    made = Route(
        id="", task=task, to=to, why=why, rule=rule, probability=round(model.chance(found), 4),
        model=settings.claude_model, dollars_worst=worst, dollars_expected=likely, tokens=own + files,
        files=tuple(one.path for one in predicted if one.score >= LIKELY), features=found,
    )  # fmt: skip
    try:
        with Ledger(where.folder) as ledger:
            return replace(made, id=ledger.routed(to, rule, found, purse.now()))
    except StoreError as error:  # it may only be read: then nothing can be reserved there either
        if to == "local":
            return made
        return replace(made, to="local", rule="budget", why=f"nothing can be reserved: {error.message}")


def feedback(where: Place, route: str, *, good: bool) -> Where:
    """Say whether the outcome of a routed task was good; where it had gone is returned."""
    return routing.record_outcome(where.folder, route, good=good, source="feedback")


def spend(where: Place, *, since: str = "") -> Spending:
    """Tell what was spent on Claude by model and purpose, what is reserved, and what is left today and this month."""
    return spending(where.folder, where.settings.budget, _day(since) if since.strip() else "")


def _day(since: str) -> str:
    """A day as it stands, which is one of UTC as in the ledger; else the day of that time."""
    try:
        return date.fromisoformat(since.strip()).isoformat()
    except ValueError:
        return day_of(timestamp(since, end=False))


def _refused(purse: Budget, model: str, input_tokens: int, output_tokens: int) -> str:
    """Why Claude cannot be asked; empty if it can."""
    if not key_of(os.environ):
        return f"Claude cannot be asked: {KEY} is not in the environment"
    try:
        purse.check(model, input_tokens=input_tokens, output_tokens=output_tokens)
    except BudgetError as error:
        return error.message
    return ""


def _window(desk: Desk) -> int:
    """How many tokens the current model reads, by its config; 0 if there is none."""
    model = current_model(desk.where)
    if model is None:
        return 0
    config = read_json(model / "config.json", dict[str, object])
    window = config.get("max_position_embeddings", config.get("n_positions", 0))
    return window if isinstance(window, int) else 0
