"""Search over commits: both legs' candidates, scored by both, fused, and told with a reason."""

import time
from collections.abc import Iterator
from itertools import islice

import numpy as np

from treering.search.fusion import fused
from treering.search.lexical import FIELDS, lexical
from treering.store import Store
from treering.text.words import words
from treering.types import Features, Hit, Record
from treering.vectors.embedder import Embedder, embed
from treering.vectors.flat import FlatMatrix

DENSE_CANDIDATES = 200


def search_commits(
    store: Store, query: str, *, limit: int, embedder: Embedder | None, dense_weight: float = 0.5
) -> list[Hit]:
    """The commits that best answer ``query``, best first. Without an embedder the lexical leg answers alone."""
    by_words = lexical(store, query)
    by_meaning, kinds = _dense(store, query, embedder) if embedder and query.strip() else ({}, {})
    nearest = sorted(by_meaning, key=lambda commit_id: -by_meaning[commit_id])[:DENSE_CANDIDATES]
    candidates = sorted({*by_words, *nearest})
    farthest = min(by_meaning.values(), default=0.0)  # where a commit with no vector yet is put
    scores = fused(
        np.array([by_words.get(commit_id, 0.0) for commit_id in candidates]),
        np.array([by_meaning.get(commit_id, farthest) for commit_id in candidates]),
        dense_weight,
    )
    ranked = sorted(zip(candidates, scores, strict=True), key=lambda pair: (-pair[1], pair[0]))
    best = list(islice(_once(store, ranked), limit))
    ids = [commit_id for commit_id, _ in best]
    said = dict(store.features(ids))
    asked = set(words(query))
    return [
        _hit(
            record,
            float(score),
            _why(asked, said[commit_id], by_meaning.get(commit_id), kinds.get(commit_id)),
        )
        for record, (commit_id, score) in zip(store.records(ids=ids), best, strict=True)
    ]


def _once(store: Store, ranked: list[tuple[int, float]]) -> Iterator[tuple[int, float]]:
    """Of commits with the same patch (a merge and its only commit, a cherry-pick) the best one alone."""
    seen: set[str] = set()
    for commit_id, score in ranked:
        patch = store.patch_ids([commit_id])[commit_id]
        if not patch or patch not in seen:
            seen.add(patch)
            yield commit_id, score


def _dense(store: Store, query: str, embedder: Embedder) -> tuple[dict[int, float], dict[int, str]]:
    """Commit id to its best cosine over its vectors, and the kind of vector that gave it."""
    names = store.vector_names(embedder.fingerprint)
    matrix = FlatMatrix(store.folder / "vectors" / embedder.fingerprint, embedder.dimensions).rows(len(names))
    cosines = matrix @ embed(embedder, [query])[0]
    best: dict[int, float] = {}
    kinds: dict[int, str] = {}
    for (commit_id, kind, reachable), cosine in zip(names, cosines.tolist(), strict=True):
        if reachable and cosine > best.get(commit_id, -2.0):
            best[commit_id] = cosine
            kinds[commit_id] = kind
    return best, kinds


def _why(asked: set[str], said: Features, cosine: float | None, kind: str | None) -> str:
    texts = (said.message, " ".join(said.paths), " ".join(said.functions), " ".join(said.identifiers))
    reasons = []
    for field, text in zip(FIELDS, texts, strict=True):
        if shared := [word for word in dict.fromkeys(words(text)) if word in asked]:
            reasons.append(f"{field}: {', '.join(shared[:6])}")
    if cosine is not None:
        reasons.append(f"meaning of the {kind}: {cosine:.2f}")
    return " · ".join(reasons)


def _hit(record: Record, score: float, why: str) -> Hit:
    return Hit(
        commit_hash=record.commit_hash,
        score=round(score, 4),
        subject=record.message_subject,
        author=record.author_name,
        date=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.commit_timestamp)),
        branch=record.branch,
        files=record.paths,
        why=why,
    )
