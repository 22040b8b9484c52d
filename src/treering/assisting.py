"""The operations that assist whoever decides and works: context, answers, routes, briefs. On an open index."""

import time

from treering.assist import brief as brief_stage
from treering.assist.brief import Brief as Brief
from treering.assist.overview import Overview as Overview
from treering.assist.overview import overview_of
from treering.finding import Desk
from treering.learning import current_model


def brief(desk: Desk, *, since: str = "", until: str = "", limit: int = 8) -> Brief:
    """What happened in a period: its themes, the files most changed, what stalled, what may come next, and the question
    to Claude. Without dates, the 30 days that end with the newest commit.
    """
    where = desk.where
    return brief_stage.brief(
        desk.finder, where.source, where.settings, current_model(where), since=since, until=until, limit=limit
    )


def overview(desk: Desk) -> Overview:
    """The history in figures: its activity by week, its themes over time, the paths that change most, and what was
    made of it: the training of the model, the quality of search, what Claude cost.
    """
    return overview_of(desk.finder, desk.where.folder / "reports", time.time(), spent=None)
