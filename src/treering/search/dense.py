"""The dense leg: how near a commit's texts are to a query, kind by kind."""

from collections.abc import Callable
from functools import cached_property

import numpy as np
import numpy.typing as npt

from treering.errors import StoreError
from treering.search.history import History, Mask, Numbers, Scores
from treering.text.document import KINDS
from treering.vectors.embedder import Embedder, embed
from treering.vectors.flat import FlatMatrix
from treering.vectors.index import Matrix, Scored, VectorIndex

WAITING = 0.05
"""While a larger part of the commits lacks vectors, words alone answer."""
NEAREST = 1000
"""How many commits of each kind a back end is asked for that is not the store's own matrix."""


class Dense:
    """The vectors of one embedder over a history: the store's own, or those of a mirror, ``index``, for as long as it
    answers (``lost`` is told when it does not) and all of the history may: it knows no part of it.
    """

    def __init__(
        self,
        history: History,
        embedder: Embedder,
        index: VectorIndex | None = None,
        lost: Callable[[StoreError], None] = lambda _: None,
    ) -> None:
        self.embedder = embedder
        self._history = history
        self._index = index
        self._lost = lost
        self._lying = history.store.named_rows(embedder.fingerprint)
        self._names = [name for _, names in self._lying for name in names]
        self.waiting = {kind: np.zeros(len(history), bool) for kind in KINDS}
        """For each kind the commits of which such a text has no vector yet."""
        unembedded = history.store.unembedded(embedder.fingerprint) if index is None else {}
        numbers = history.numbers(np.array(list(unembedded), np.int64))
        for number, kinds in zip(numbers.tolist(), unembedded.values(), strict=True):
            for kind in kinds if number >= 0 else ():
                self.waiting[kind][number] = True
        lacking = np.logical_or.reduce(list(self.waiting.values()))
        self.lacking = int(lacking.sum())
        """How many commits lack a vector."""
        self.telling_in = history.of_each(lacking) <= WAITING * history.of_each(history.everything)
        """Which repositories have vectors enough to rank by: of some of their commits alone they would put these before
        all others.
        """
        self._untold = (self.telling_in.any() & ~self.telling_in)[history.repository]
        """The commits of the repositories that words alone answer for, beside others."""
        for waiting in self.waiting.values():
            waiting |= self._untold

    @cached_property
    def count(self) -> int:
        """How many vectors there are, when it was first asked."""
        return len(self._names) if self._index is None else len(self._index)

    @property
    def telling(self) -> bool:
        """Whether there are vectors enough to rank by, of any repository."""
        return bool(self.count) and bool(self.telling_in.any())

    @cached_property
    def matrices(self) -> list[Matrix]:
        """The stores' own vectors."""
        return [FlatMatrix(folder, self.embedder.dimensions).rows(len(names)) for folder, names in self._lying]

    @property
    def rows(self) -> Matrix:
        """The same of one store, as they lie; of several, a copy."""
        return self.matrices[0] if len(self.matrices) == 1 else np.concatenate(self.matrices)

    @cached_property
    def _of_kind(self) -> list[tuple[Numbers, Numbers, Numbers]]:
        """For each kind its rows, commit by commit, the commits, and where the rows of each begin."""
        numbers = self._history.numbers(np.array([name[0] for name in self._names], np.int64))
        numbers[np.append(self._untold, False)[numbers]] = -1
        kinds = np.array([KINDS.index(name[1]) for name in self._names], np.int64)
        found = []
        for kind in range(len(KINDS)):
            rows = np.flatnonzero((kinds == kind) & (numbers >= 0))
            rows = rows[np.argsort(numbers[rows], kind="stable")]
            found.append((rows, *np.unique(numbers[rows], return_index=True)))
        return found

    def cosines(self, query: npt.NDArray[np.float32], *, whole: bool = True) -> dict[str, Scores]:
        """For each kind of text the cosine of a commit's nearest part; NaN where a commit has no such text, or is none
        of the :data:`NEAREST` that a mirror names. ``whole`` where all of the history may answer.
        """
        if self._index is not None and (whole or not self._names):
            try:
                return {kind: self._named(self._index.nearest(query, kind, NEAREST)) for kind in KINDS}
            except StoreError as error:
                self._lost(error)
                if not self._names:
                    raise
                self._index = None
        # As fast as memory gives the rows, by one core: BLAS takes two for that, and its threads wait by spinning.
        of_rows = np.concatenate([np.einsum("ij,j->i", rows, query) for rows in self.matrices]).astype(np.float64)
        found = {}
        for kind, (rows, numbers, firsts) in zip(KINDS, self._of_kind, strict=True):
            best = found[kind] = np.full(len(self._history), np.nan)
            if len(rows):
                best[numbers] = np.maximum.reduceat(of_rows[rows], firsts)
        return found

    def middles(self, silent: Mask) -> npt.NDArray[np.float64]:
        """For each commit the mean of its texts' vectors, of length 1 (0 where it has none); of the ``silent`` ones
        their messages are left out.
        """
        found = np.zeros((len(self._history), self.embedder.dimensions))
        for kind, (rows, numbers, firsts) in zip(KINDS, self._of_kind, strict=True):
            if len(rows):
                mean = np.add.reduceat(np.asarray(self.rows[rows], np.float64), firsts, axis=0)
                mean /= np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-9)
                found[numbers] += np.where((silent[numbers] & (kind == "message"))[:, None], 0.0, mean)
        return np.asarray(found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-9), np.float64)

    def _named(self, scored: Scored) -> Scores:
        found = np.full(len(self._history), np.nan)
        for name, cosine in scored:
            if name in self._history.number:  # a mirror may know commits that are not reachable here
                found[self._history.number[name]] = cosine
        return found

    def ask(self, query: str, *, whole: bool = True) -> dict[str, Scores]:
        """The cosines of a query in words."""
        return self.cosines(embed(self.embedder, [query])[0], whole=whole)
