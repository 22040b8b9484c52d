"""The operations that assist whoever acts on a history. Above ``learning.py``."""

import time

from treering.assist.overview import Overview as Overview
from treering.assist.overview import overview_of
from treering.finding import Desk


def overview(desk: Desk) -> Overview:
    """The history in figures: its activity by week, its themes over time, the paths that change most, and what was
    made of it: the training of the model, the quality of search, what Claude cost.
    """
    return overview_of(desk.finder.history, desk.where.folder / "reports", time.time(), spent=None)
