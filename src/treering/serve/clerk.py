"""One thread that answers questions to several repositories, for a program that asks one after the other.

Each repository is opened by the first question to it, and anew once somebody wrote its index.
"""

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from treering.finding import Desk, desk
from treering.offered import OFFERS, Asked
from treering.opening import Place
from treering.report import Reporter


class Clerk:
    """Use with ``with``; :meth:`answer` from a running event loop. A question that is no longer wanted before its turn
    is not asked; one that is being answered is answered to nobody.
    """

    def __init__(self, places: Mapping[str, Place], report: Reporter) -> None:
        self._places, self._report = places, report
        self._open: dict[str, tuple[Desk, int, ExitStack]] = {}

    def __enter__(self) -> "Clerk":
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="clerk")
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.submit(self._close).result()  # a database is closed by the thread that opened it
        self._thread.shutdown()

    async def answer(self, repository: str, name: str, asked: Asked) -> object:
        """What the offer ``name`` answers for a repository. Raises what it raises."""
        return await asyncio.wrap_future(self._thread.submit(self._answer, repository, name, asked))

    def _answer(self, repository: str, name: str, asked: Asked) -> object:
        return OFFERS[name].answer(self._desk(repository), asked)

    def _desk(self, repository: str) -> Desk:
        if repository in self._open:
            opened, touched, stack = self._open[repository]
            if opened.touched == touched:
                return opened
            del self._open[repository]
            stack.close()
        with ExitStack() as opening:
            opened = opening.enter_context(desk(self._places[repository], self._report))
            self._open[repository] = opened, opened.touched, opening.pop_all()
        return opened

    def _close(self) -> None:
        for _, _, stack in self._open.values():
            stack.close()
        self._open.clear()
