"""Bringing an index up to date while it is served."""

from collections.abc import Mapping

import msgspec

from treering.opening import Place
from treering.serve.jobs import Jobs, Work


class Job(Work, kw_only=True):
    """A run of ``treering index``; ``commits`` and ``vectors`` are what it added."""

    commits: int = 0
    vectors: int = 0


class _Told(msgspec.Struct):
    commits: int
    vectors: int


class Indexing(Jobs[Job]):
    """The index of each repository, made by ``treering index``."""

    def __init__(self, places: Mapping[str, Place]) -> None:
        super().__init__(places, "index", Job, _Told)
