"""A collection in Qdrant that repositories share: each pushed with patience under its own name, and taken out again."""

import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from treering import operations
from treering.config import VectorSettings, load
from treering.errors import StoreAway, StoreError
from treering.opening import Place
from treering.report import Reporter
from treering.vectors.embedder import Embedder
from treering.vectors.qdrant import Server

PATIENCE = (2.0, 4.0, 8.0, 16.0, 30.0, 30.0)
"""Seconds between the tries of a push while the server is away: it may be started anew meanwhile."""


def shared(collection: str, url: str | None = None) -> VectorSettings:
    """What holds here for a collection, and so for all that is pushed into it: no repository has a say in it.

    Raises :class:`UsageError` for an address or a key that can be none.
    """
    settings = load(None, os.environ, {"vectors": {"qdrant_url": url}}).vectors
    with Server(settings.qdrant_url, settings.qdrant_timeout):
        pass  # it is not asked yet: what cannot be is said once, and not of each repository
    return replace(settings, backend="qdrant", qdrant_collection=collection)


class Sharing:
    """Pushes one repository after the other into a collection. There is one in each process."""

    def __init__(self, settings: VectorSettings) -> None:
        self.settings = settings
        self._away = False

    def push(self, where: Place, name: str, embedder: Callable[[], Embedder]) -> None:
        """Bring a repository's points, by its name there, to what its store holds. After the server was waited for in
        vain once, it is not waited for again until it has answered.

        Raises what :func:`operations.qdrant_push` does.
        """
        vectors = replace(self.settings, qdrant_tenant=name)
        where = replace(where, settings=replace(where.settings, vectors=vectors))
        pauses = iter(() if self._away else PATIENCE)
        while True:
            try:
                operations.qdrant_push(where, Reporter(), embedder=embedder)
            except StoreAway:
                if (pause := next(pauses, None)) is None:
                    self._away = True
                    raise
                time.sleep(pause)
            else:
                self._away = False
                return


def forget(collections: Iterable[tuple[str, str, Sequence[str]]]) -> None:
    """Take repositories out of collections, each given by its server's address, its name there, and who is in it.

    Raises :class:`StoreError` for the first server that does not let us, or is away.
    """
    timeout = load(None, os.environ).vectors.qdrant_timeout
    for url, collection, names in collections:
        try:
            with Server(url, timeout) as server:
                server.forget(collection, names)
        except StoreError as error:
            hint = f"run it again when it does, or leave its points in `{collection}`: --leave-points"
            raise type(error)(f"nothing was forgotten here: {error.message}", hint) from error
