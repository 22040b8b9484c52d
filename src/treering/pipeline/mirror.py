"""vectors → a mirror of them in Qdrant, and back: push, pull, verify. The store's own matrix stays the truth."""

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import msgspec
import numpy as np
from msgspec.structs import replace

from treering.config import Settings, VectorSettings
from treering.errors import ModelError, StoreError, TreeringError, UsageError
from treering.git.reader import Source
from treering.pipeline import index as index_stage
from treering.pipeline.common import write_manifest
from treering.report import Reporter
from treering.store import Store
from treering.text import document
from treering.types import Point
from treering.vectors.edge import EdgeIndex
from treering.vectors.embedder import Embedder
from treering.vectors.flat import FlatMatrix
from treering.vectors.index import (
    Collection,
    Mirror,
    Scored,
    Vector,
    VectorIndex,
    batches,
    nearest_commits,
    place_of,
)
from treering.vectors.qdrant import QdrantIndex

MIRRORS: dict[str, Callable[[Collection, VectorSettings, Path, bool], AbstractContextManager[Mirror]]] = {
    "qdrant": lambda collection, settings, _, create: QdrantIndex(collection, settings, create=create),
    "edge": lambda collection, _, folder, create: EdgeIndex(collection, folder, create=create),
}
"""Every back end but `flat`, which is the store itself: name to what opens it, given the store's folder and whether to
make it."""

CLOSE = 1e-3
"""How far a cosine may be from ours. A server normalises again, and two runtimes of one model differ by .0002."""
PROBES = 20
"""How many vectors :func:`verify` asks the neighbours of."""


def opened(
    store: Store, settings: VectorSettings, embedder: Embedder, *, create: bool = False
) -> AbstractContextManager[Mirror]:
    """The mirror that the settings name; a Qdrant server if they name none.

    Raises :class:`UsageError` for a tenant of no collection.
    """
    repo, tenant = store.fact("repo") or "", "" if settings.backend == "edge" else settings.qdrant_tenant
    if tenant and not settings.qdrant_collection:
        raise UsageError(f"{tenant} is to share a collection, but which?", "name it with --collection")
    safe = "".join(char if char.isascii() and (char.isalnum() or char in "._-") else "-" for char in repo)
    name = settings.qdrant_collection or f"{safe.strip('.-')[:200] or 'repository'}-commits"
    collection = Collection(
        name, tenant or repo, embedder.name, embedder.fingerprint, embedder.dimensions, document.KINDS, bool(tenant)
    )
    backend = "qdrant" if settings.backend == "flat" else settings.backend
    return MIRRORS[backend](collection, settings, store.folder, create)


@contextmanager
def for_search(
    store: Store, settings: VectorSettings, embedder: Embedder, report: Reporter
) -> Iterator[VectorIndex | None]:
    """The mirror that answers a search's dense leg, or None where the store's own matrix does: it was chosen, or the
    mirror cannot be had, which is said.
    """
    with ExitStack() as stack:
        index = None
        if settings.backend != "flat":
            try:
                mirror = stack.enter_context(opened(store, settings, embedder))
                if not len(mirror):
                    raise StoreError("the mirror is empty", "run `treering qdrant push`")
                index = mirror
            except (ModelError, StoreError) as error:
                told_lost(report, error)
        yield index


def told_lost(report: Reporter, error: TreeringError) -> None:
    """Say that a mirror does not answer."""
    report.warn(f"searching by the store's own vectors: {error.message} ({error.hint})")


class StoreIndex:
    """The vectors of one model in a store, under the promise of every back end. Whoever upserts is its writer.

    What the store has is the truth: a point of which it has a vector is passed over, and so is one of no reachable
    commit. Of a text's points the first part must come last: where it is, all are.
    """

    def __init__(self, store: Store, embedder: Embedder) -> None:
        self.store = store
        self.embedder = embedder
        self._matrix = FlatMatrix(store.folder / "vectors" / embedder.fingerprint, embedder.dimensions)

    def __len__(self) -> int:
        return self.store.vectors(self.embedder.fingerprint)

    @cached_property
    def rows(self) -> dict[tuple[str, str, int], int]:
        """The row of each commit's kind and part, of reachable commits."""
        names = dict(zip(self.store.ids(), self.store.order(), strict=True))
        return {
            (names[commit_id], kind, part): row
            for row, (commit_id, kind, part) in enumerate(self.store.vector_names(self.embedder.fingerprint))
            if commit_id in names
        }

    @cached_property
    def vectors(self) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        return self._matrix.rows(len(self))

    def upsert(self, points: Iterable[Point]) -> int:
        ids = dict(zip(self.store.order(), self.store.ids(), strict=True))
        count = 0
        for batch in batches(points):
            fresh: dict[tuple[str, str, int], Point] = {}
            for point in batch:
                place = place_of(point)
                if place and place[0] in ids and place not in self.rows:
                    fresh[place] = point
            if fresh:
                named = len(self)
                self._matrix.append(named, np.array([point.vector for point in fresh.values()], np.float32))
                names = [(ids[name], kind, part) for name, kind, part in fresh]
                self.store.name_vectors(self.embedder.fingerprint, named, names)
                self.rows.update({place: named + number for number, place in enumerate(fresh)})
                self.__dict__.pop("vectors", None)
            count += len(fresh)
        return count

    def nearest(self, vector: Vector, kind: str, limit: int) -> Scored:
        places = [(row, name) for (name, of, _), row in self.rows.items() if of == kind]
        cosines = self.vectors[[row for row, _ in places]] @ vector
        scored = [(places[place][1], float(cosines[place])) for place in np.argsort(-cosines, kind="stable")]
        return nearest_commits(lambda most: scored[:most], limit)

    def points(self, keys: Sequence[str] | None = None) -> Iterator[Point]:
        for point in index_stage.points(self.store, self.embedder):
            if keys is None:
                yield point
            else:
                yield Point(point.id, [], {key: point.payload[key] for key in keys if key in point.payload})


def marked(store: Store, embedder: Embedder, repo: str) -> Iterator[Point]:
    """The store's points as a mirror has them, with three more keys: ``text`` says what text the vector was made of,
    ``parts`` in how many parts it was, and ``digest`` changes with anything about the point. ``repo`` is by what name
    the mirror has the repository.
    """
    ids = dict(zip(store.order(), store.ids(), strict=True))
    parts = Counter((commit_id, kind) for commit_id, kind, _ in store.vector_names(embedder.fingerprint))
    told: tuple[str, dict[str, str]] = ("", {})
    for point in index_stage.points(store, embedder, repo):
        place = place_of(point)
        if place is None:
            continue
        name, kind, _ = place
        if told[0] != name:
            told = name, text_digests(store, ids[name], [kind for kind in document.KINDS if (ids[name], kind) in parts])
        payload = point.payload | {"text": told[1][kind], "parts": parts[ids[name], kind]}
        yield replace(point, payload=payload | {"digest": _digest(payload)})


def text_digests(store: Store, commit_id: int, kinds: Iterable[str]) -> dict[str, str]:
    """For these kinds of a commit's texts what tells whether a vector is of that very text: a digest of what it is made
    of, which costs less than making it.
    """
    ((_, said),) = store.features([commit_id])
    made_of: dict[str, Callable[[], object]] = {
        "message": lambda: said.message,
        "code": lambda: (said.paths, said.identifiers, said.functions),
        "hunks": lambda: store.hunks(commit_id),
    }
    return {kind: _digest([document.FINGERPRINT, made_of[kind]()]) for kind in kinds}


def _digest(value: object) -> str:
    return hashlib.sha256(msgspec.json.encode(value, order="sorted")).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Pushed:
    """What a push changed in the mirror; ``points`` are in it now."""

    points: int
    written: int
    removed: int


def push(store: Store, embedder: Embedder, mirror: Mirror, report: Reporter, *, everything: bool = False) -> Pushed:
    """Bring a mirror to what the store holds: write what is missing or changed, or ``everything``, then take out what
    is gone.

    Raises :class:`StoreError` if not every text has its vector, because what lacks one would seem gone, and if the
    mirror holds points but of no commit that the store knows: it is another repository's.
    """
    with store.writing("treering qdrant push"):
        if store.undocumented() or store.unembedded(embedder.fingerprint):
            raise StoreError(
                f"not everything in {store.folder} has its vectors of {embedder.name} yet", "run `treering index` first"
            )
        there: dict[str, object] = {}
        known, ours = store.known(), False
        for point in mirror.points(("commit_hash", "digest")):
            there[point.id] = point.payload.get("digest")
            ours = ours or point.payload.get("commit_hash") in known
        if there and not ours:
            option = "--tenant (of a fleet --qdrant)" if mirror.collection.shared else "--collection"
            raise StoreError(
                f"{len(there):,} points are there of {mirror.collection.repo}, but of no commit of this repository",
                f"give another name with {option}, or delete them there if the history was rewritten",
            )
        total = store.vectors(embedder.fingerprint)
        points = report.track(marked(store, embedder, mirror.collection.repo), total, "comparing points")
        written = mirror.upsert(
            point for point in points if there.pop(point.id, None) != point.payload["digest"] or everything
        )
        removed = mirror.remove(there)
        return Pushed(len(mirror), written, removed)


@dataclass(frozen=True, slots=True)
class Pulled:
    """What a pull took; ``missing`` texts have no vector still, because the mirror has none of the very text."""

    vectors: int
    missing: int


def pull(
    store: Store, source: Source, settings: Settings, embedder: Embedder, mirror: VectorIndex, report: Reporter
) -> Pulled:
    """Fill the store's matrix from a mirror: the vectors of exactly the texts that it has none of."""
    started = time.time()
    with store.writing("treering qdrant pull"):
        index_stage.clear_if_changed(store, settings, report)
        index_stage.read_hunks(store, source, settings, report)
        index_stage.index_words(store, report)
        matrix = FlatMatrix(store.folder / "vectors" / embedder.fingerprint, embedder.dimensions)
        if not matrix.holds(store.vectors(embedder.fingerprint)):
            report.warn("the file of vectors is gone or torn: they are fetched again")
            store.forget_vectors(embedder.fingerprint)
        names = dict(zip(store.ids(), store.order(), strict=True))
        wanted = {
            (names[commit_id], kind): digests[kind]
            for commit_id, kinds in store.unembedded(embedder.fingerprint).items()
            if commit_id in names and (digests := text_digests(store, commit_id, kinds))
            for kind in kinds
        }
        total = len(wanted)
        points = report.track(mirror.points() if wanted else (), len(mirror), "fetching points")
        count = StoreIndex(store, embedder).upsert(_whole_texts(points, wanted, embedder.dimensions))
        report.detail(f"{total - len(wanted):,} texts of {total:,} fetched")
        pulled = Pulled(count, len(wanted))
        store.log_run("pull", started, asdict(pulled))
        write_manifest(store)
    return pulled


def _whole_texts(points: Iterable[Point], wanted: dict[tuple[str, str], str], dimensions: int) -> Iterator[Point]:
    """The points of the texts wanted, once all parts of one are there, its first part last. A text that was passed on
    is wanted no more; what has another text, or no unit vector, is passed over.
    """
    waiting: dict[tuple[str, str], dict[int, Point]] = {}
    for point in points:
        place = place_of(point)
        if place is None or point.payload.get("text") != wanted.get(place[:2], ""):
            continue
        vector = np.array(point.vector)
        if vector.shape != (dimensions,) or not abs(np.linalg.norm(vector) - 1) < 1e-3:
            continue
        found = waiting.setdefault(place[:2], {})
        found[place[2]] = point
        if found.keys() == set(range(_parts(point))):
            yield from (found[part] for part in sorted(found, reverse=True))
            del waiting[place[:2]], wanted[place[:2]]


def _parts(point: Point) -> int:
    parts = point.payload.get("parts")
    return parts if isinstance(parts, int) else 0


@dataclass(frozen=True, slots=True)
class Compared:
    """How a mirror differs from the store: points that it lacks, has too many, or has otherwise. ``agreement`` is the
    share of the ten nearest commits that it finds as an exact search does.
    """

    here: int
    there: int
    missing: int
    extra: int
    different: int
    agreement: float
    examples: tuple[str, ...]

    @property
    def same(self) -> bool:
        return not (self.missing or self.extra or self.different)


def verify(store: Store, embedder: Embedder, mirror: Mirror, report: Reporter) -> Compared:
    """Compare every point of a mirror with the store: ids, what is said of them, and vectors.

    In memory: a short text for each point, and the matrix as the system pages it.
    """
    with store.writing("treering qdrant verify"):  # nothing may be indexed meanwhile
        mine = StoreIndex(store, embedder)
        rows, vectors = mine.rows, mine.vectors
        ours = marked(store, embedder, mirror.collection.repo)
        here = {point.id: (place_of(point), str(point.payload["digest"])) for point in ours}
        count, extra, different, examples = len(here), 0, 0, list[str]()
        for point in report.track(mirror.points(), len(mirror), "comparing points"):
            place, digest = here.pop(point.id, (None, ""))
            if place is None:
                extra += 1
                examples.append(f"extra: {point.id}")
            elif digest != point.payload.get("digest") or not _close(point.vector, vectors[rows[place]]):
                different += 1
                examples.append(f"different: {point.id} ({place[0]}, {point.payload.get('kind')})")
        examples += [f"missing: {name} ({place[0]})" for name, (place, _) in here.items() if place]
        return Compared(
            count, len(mirror), len(here), extra, different, round(_agreement(mine, mirror), 4), tuple(examples[:10])
        )


def _close(theirs: Sequence[float], ours: Vector) -> bool:
    vector = np.array(theirs)
    return vector.shape == ours.shape and bool(vector @ ours > (1 - CLOSE) * np.linalg.norm(vector))


def _agreement(mine: StoreIndex, mirror: VectorIndex) -> float:
    """Over :data:`PROBES` of our own vectors, spread over the history."""
    places = list(mine.rows)
    shares = []
    for place in places[:: max(1, len(places) // PROBES)][:PROBES]:
        vector = mine.vectors[mine.rows[place]]
        exact = dict(mine.nearest(vector, place[1], 10))
        # One that is as near as the last of ours is as good.
        least = min(exact.values()) - CLOSE
        found = mirror.nearest(vector, place[1], 10)
        shares.append(sum(score >= least for _, score in found) / len(exact))
    return float(np.mean(shares)) if shares else 1.0
