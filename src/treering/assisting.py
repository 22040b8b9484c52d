"""The operations that assist whoever decides and works: context, answers, routes, briefs. On an open index."""

from treering.assist import brief as brief_stage
from treering.assist.brief import Brief as Brief
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
