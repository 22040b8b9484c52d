"""The dense leg: how near a commit's texts are to a query, kind by kind."""

import numpy as np
import numpy.typing as npt

from treering.search.history import History, Scores
from treering.text.document import KINDS
from treering.vectors.embedder import Embedder, embed
from treering.vectors.flat import FlatMatrix
from treering.vectors.index import Scored, VectorIndex

NEAREST = 1000
"""How many commits of each kind a back end is asked for that is not the store's own matrix."""


class Dense:
    """The vectors of one embedder over a history, open: the store's own, or those of ``index``, which knows no part of
    the history: of one the store's own answer, where there are any. ``count`` is how many there are.
    """

    def __init__(self, history: History, embedder: Embedder, index: VectorIndex | None = None) -> None:
        self.embedder = embedder
        self.index = index
        self._number = history.number
        self._commits = len(history)
        names = history.store.vector_names(embedder.fingerprint)
        self.count = len(names) if index is None else len(index)
        self.rows = FlatMatrix(history.store.folder / "vectors" / embedder.fingerprint, embedder.dimensions).rows(
            len(names)
        )
        numbers = history.numbers(np.array([name[0] for name in names], np.int64))
        kinds = np.array([KINDS.index(name[1]) for name in names], np.int64)
        self._of_kind = []
        for kind in range(len(KINDS)):
            rows = np.flatnonzero((kinds == kind) & (numbers >= 0))
            rows = rows[np.argsort(numbers[rows], kind="stable")]
            self._of_kind.append((rows, *np.unique(numbers[rows], return_index=True)))

    def cosines(self, query: npt.NDArray[np.float32], *, whole: bool = True) -> dict[str, Scores]:
        """For each kind of text the cosine of a commit's nearest part; NaN where a commit has no such text, or is none
        of the :data:`NEAREST` that a back end names.
        """
        if self.index is not None and (whole or not len(self.rows)):
            return {kind: self._named(self.index.nearest(query, kind, NEAREST)) for kind in KINDS}
        of_rows = np.asarray(self.rows @ query, np.float64)
        found = {}
        for kind, (rows, numbers, firsts) in zip(KINDS, self._of_kind, strict=True):
            best = found[kind] = np.full(self._commits, np.nan)
            if len(rows):
                best[numbers] = np.maximum.reduceat(of_rows[rows], firsts)
        return found

    def _named(self, scored: Scored) -> Scores:
        found = np.full(self._commits, np.nan)
        for name, cosine in scored:
            if name in self._number:  # a mirror may know commits that are not reachable here
                found[self._number[name]] = cosine
        return found

    def ask(self, query: str, *, whole: bool = True) -> dict[str, Scores]:
        """The cosines of a query in words; ``whole`` where all of the history may answer."""
        return self.cosines(embed(self.embedder, [query])[0], whole=whole)
