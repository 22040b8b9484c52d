"""The promise of a vector back end, and what the points of one repository are kept under. Nothing is stored here."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from treering import __version__
from treering.errors import DataError, ModelError, StoreError
from treering.types import Point

T = TypeVar("T")

BATCH = 256
"""How many points travel at once."""

TENANT = "repo"
"""The key of the payload that says whose a point is."""

Matrix = npt.NDArray[np.float32]
"""Shape (texts, dimensions), rows of length 1."""
Vector = npt.NDArray[np.float32]
"""Shape (dimensions,), of length 1."""

Scored = list[tuple[str, float]]
"""Commit hashes with their cosines, best first; equal ones in any order."""


class VectorIndex(Protocol):
    """Points of one repository, made by one model. A commit has one point for each part of each kind of text, told
    apart by the payload: ``commit_hash`` and ``kind`` (``code``, and ``code-2``, ``code-3`` for its further parts).

    Every method raises :class:`StoreError` that names the place if it is away, slow, torn or refuses us.
    """

    def __len__(self) -> int:
        """How many points there are."""

    def upsert(self, points: Iterable[Point]) -> int:
        """Put points in, streamed; one of the same id is replaced by it. Returns how many. A kill loses at most the
        batch that was under way, and doing it again does no harm.
        """

    def nearest(self, vector: Vector, kind: str, limit: int) -> Scored:
        """The commits with a text of a kind nearest to a vector: each once, by its nearest part; at most ``limit``."""

    def points(self, keys: Sequence[str] | None = None) -> Iterator[Point]:
        """Every point; with ``keys``, only these of the payload, and no vector."""


class Mirror(VectorIndex, Protocol):
    """A back end that holds a copy of what the store holds, and can forget."""

    collection: "Collection"

    def remove(self, ids: Iterable[str]) -> int:
        """Take points out, those that are not there too. Returns how many ids were given."""


@dataclass(frozen=True, slots=True)
class Collection:
    """What the points of one repository are kept under: ``repo`` is whose they say they are. Its vectors are of one
    model, and are named by their kind. Where it is ``shared``, others' points lie there, too.
    """

    name: str
    repo: str
    model: str
    fingerprint: str
    dimensions: int
    kinds: tuple[str, ...]
    shared: bool = False

    @property
    def metadata(self) -> dict[str, object]:
        """What a server keeps beside the points, and :meth:`check` reads."""
        whose = {"tenant": TENANT} if self.shared else {"repo": self.repo}
        return {
            "treering": __version__, **whose, "model": self.model, "fingerprint": self.fingerprint,
            "dimensions": self.dimensions, "kinds": list(self.kinds),
        }  # fmt: skip

    def check(self, found: Mapping[str, object], where: str) -> None:
        """Raise :class:`ModelError` unless the metadata says that this very model made vectors of these very kinds, and
        :class:`StoreError` unless it is of as many repositories as is meant: of one, or of several.
        """
        other = "give another name with --collection (of a fleet --qdrant), or delete it there"
        if "fingerprint" not in found:
            raise ModelError(f"{where} was not made by treering, or by a Qdrant before 1.16", other)
        if self.shared and not is_shared(found):
            raise StoreError(f"{where} was made for one repository alone", "name another one, or delete it there")
        if is_shared(found) and not self.shared:
            raise StoreError(f"{where} is shared by several repositories", f"name this one with --tenant, or {other}")
        if any(found.get(key) != self.metadata[key] for key in ("fingerprint", "dimensions", "kinds")):
            raise ModelError(
                f"{where} holds vectors of {_told(found)}; here they are of {_told(self.metadata)}",
                f"set index.model to that model, or {other}",
            )


def is_shared(metadata: Mapping[str, object]) -> bool:
    return metadata.get("tenant") == TENANT


def _told(made: Mapping[str, object]) -> str:
    return "{0[model]} ({0[fingerprint]}, {0[dimensions]} dimensions, {0[kinds]})".format(defaultdict(str, made))


def place_of(point: Point) -> tuple[str, str, int] | None:
    """The commit, kind and part that a point is of; None for one that is not ours."""
    name, label = point.payload.get("commit_hash"), point.payload.get("kind")
    if not isinstance(name, str) or not isinstance(label, str):
        return None
    kind, _, part = label.partition("-")
    return (name, kind, int(part) - 1) if part.isdecimal() else (name, kind, 0) if not part else None


def kind_of(point: Point) -> str:
    """What a point's vector is named. Raises :class:`DataError` for one that is not ours."""
    place = place_of(point)
    if place is None:
        raise DataError(f"the point {point.id} names no commit and kind", "make the points again")
    return place[1]


def nearest_commits(ask: Callable[[int], Scored], limit: int) -> Scored:
    """The best of each commit, from a back end that ranks parts: it is asked for more until that many commits are
    there or it has no more.
    """
    wanted = limit
    while True:
        scored = ask(wanted)
        best: dict[str, float] = {}
        for name, score in scored:
            best.setdefault(name, score)
        if len(best) >= limit or len(scored) < wanted:
            return list(best.items())[:limit]
        wanted *= 2


def batches(items: Iterable[T]) -> Iterator[list[T]]:
    source = iter(items)
    while batch := list(islice(source, BATCH)):
        yield batch
