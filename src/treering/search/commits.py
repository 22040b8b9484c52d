"""Search over commits: the candidates of every leg, scored by all, made one, folded, and told with a reason."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from copy import copy
from dataclasses import dataclass, field
from itertools import islice
from typing import Self

import numpy as np
import numpy.typing as npt
from msgspec import UNSET
from msgspec.structs import replace

from treering.errors import DataError, StoreError, UsageError
from treering.search.dense import Dense
from treering.search.discussed import Discussed, Texts
from treering.search.fusion import LEARNED, Legs, Weights, fused, with_silent, z_scores
from treering.search.history import History, Mask, Numbers, Scores
from treering.search.lexical import (
    DIFF,
    FUNCTIONS,
    IDENTIFIERS,
    ISSUE,
    MESSAGE,
    OWN,
    PATHS,
    PROSE,
    REQUEST,
    Lexical,
    Scope,
    asked_words,
)
from treering.search.query import chosen, code_words, exact, phrases
from treering.search.reasons import best_hunk, why
from treering.store import Store
from treering.text.words import words
from treering.types import NO_FILTERS, Filters, Hit
from treering.vectors.embedder import Embedder, embed
from treering.vectors.index import VectorIndex

CANDIDATES = 200
"""How many commits each leg puts up."""
PHRASE_CANDIDATES = 5000
"""How many commits that hold the inner words of a quoted phrase are read for the phrase itself."""
PHRASE_HOLDERS = 20_000
"""How many that hold all of its words are."""

TEXT = {MESSAGE: 2.0, PATHS: 1.0, IDENTIFIERS: 1.0, PROSE: 1.0}
"""BM25 over one text of these: the best mix of its kind over six repositories (docs/quality.md)."""
DISCUSSED = {REQUEST: 1.0, ISSUE: 0.5}
"""What was said at the forge counts so beside it, where it is asked."""

DIFF_SIDE = (PATHS, FUNCTIONS, IDENTIFIERS, PROSE, DIFF)
"""The fields that are not of the message."""


@dataclass(slots=True)
class Asked:
    """One question with everything that was computed to answer it: parallel arrays over ``numbers``, best first."""

    query: str
    numbers: npt.NDArray[np.int64]
    scores: Scores
    cosines: Mapping[str, Scores] = field(default_factory=dict)
    lexical: Lexical | None = None
    legs: Legs | None = None


class Finder:
    """An index, open for many questions. Without an embedder the words answer alone."""

    def __init__(
        self,
        store: Store,
        embedder: Embedder | None,
        weights: Weights = LEARNED,
        index: VectorIndex | None = None,
        lost: Callable[[StoreError], None] = lambda _: None,
    ) -> None:
        self._beside = ThreadPoolExecutor(1)  # its thread ends with the finder
        if embedder:
            self._beside.submit(embed, embedder, ["loaded"])  # loaded while the history is read
        self.store = store
        self.history = History(store)
        self.dense = Dense(self.history, embedder, index, lost) if embedder else None
        self.weights = weights
        self.discussed: Discussed | None = None
        self._whole = self._discussed = Scope(self.history, self.history.everything)
        self._part: tuple[Mask, Scope] | None = None  # of the last question that knew less
        self.private: frozenset[str] = frozenset()
        """Paths of which nothing is told."""
        self.open = self.history.everything
        """The commits of which something is: those that touch none of these paths."""

    def without(self, paths: Iterable[str]) -> Self:
        """The same index for whom some paths are kept from: the commits that touch one are left out whole, and so is
        what such a merge says of those that it brought in.
        """
        found = copy(self)
        found.private = frozenset(paths)
        ids = np.array(self.store.touching(found.private), np.int64)
        numbers = self.history.numbers(ids)
        found.open = self.history.everything.copy()
        found.open[numbers[numbers >= 0]] = False
        found.discussed, found._part = None, None  # a text may be of a commit that is left out, too
        found._whole = found._discussed = Scope(self.history, found.open, merged_by=self.history.merged_by)
        return found

    def discussing(self, texts: Texts, lost: Callable[[StoreError], None] = lambda _: None) -> None:
        """Let commits be found by what was said of them at the forge from now on. ``lost`` is told if it cannot be
        read; then the commits answer alone.
        """
        self.discussed = Discussed(self.history, texts, lost)
        self._discussed = Scope(self.history, self.history.everything, discussed=self.discussed)

    def ask(
        self,
        query: str,
        *,
        mask: Mask | None = None,
        through: Mask | None = None,
        merge_texts: bool = True,
        discussed: bool = False,
    ) -> Asked:
        """Rank the commits of ``mask`` (what the question may know of: all, by default) that are let ``through``; by
        the history alone, or by what was ``discussed`` at the forge too.
        """
        mask = self.history.everything if mask is None else mask
        cosines = self._beside.submit(self._cosines, query, mask)  # computed while the words are looked up
        leg = Lexical(self._scope(mask, merge_texts=merge_texts, discussed=discussed), asked_words(query))
        through = mask & self.open if through is None else mask & self.open & through
        legs = self._legs(query, leg, cosines, mask, through)
        scores = fused(legs, self.weights)
        order = np.lexsort((-legs.numbers, -scores))
        return Asked(query, legs.numbers[order], scores[order], cosines.result(), leg, legs)

    def _cosines(self, query: str, mask: Mask) -> Mapping[str, Scores]:
        """How near the texts of the commits of ``mask`` are; nothing where there are no vectors or no query."""
        if not self.dense or not self.dense.telling or not query.strip():
            return {}
        try:
            found = self.dense.ask(query, whole=mask is self.history.everything)
        except StoreError:  # a mirror that was told to be lost, and the store has none
            return {}
        # A message may have come to say nothing later: the vectors of its hunks are not of that day.
        seen = {"hunks": mask & self.history.empty(mask)}
        return {kind: np.where(seen.get(kind, mask), near, np.nan) for kind, near in found.items()}

    def _scope(self, mask: Mask, *, merge_texts: bool = True, discussed: bool = False) -> Scope:
        seen = mask & self.open if self.private else mask
        if not merge_texts:
            return Scope(self.history, seen, merge_texts=False)
        if mask is self.history.everything:
            return self._discussed if discussed else self._whole
        of = self.discussed if discussed else None
        if self._part is None or self._part[0] is not mask or self._part[1].discussed is not of:
            self._part = mask, Scope(self.history, seen, merged_by=self.history.brought(mask), discussed=of)
        return self._part[1]

    def _filled(self, cosines: Scores, mask: Mask, kind: str) -> Scores:
        """A commit without such a text is as far away as the farthest of ``mask``; one whose vector is still to be made
        as the mean, so that its words decide.
        """
        known = cosines[mask & ~np.isnan(cosines)]
        farthest, mean = (known.min(), known.mean()) if len(known) else (0.0, 0.0)
        waiting = self.dense.waiting[kind] if self.dense else mask
        return np.where(np.isnan(cosines), np.where(waiting, mean, farthest), cosines)

    def _legs(self, query: str, leg: Lexical, asked: Future[Mapping[str, Scores]], mask: Mask, through: Mask) -> Legs:
        """The best :data:`CANDIDATES` commits of the text and of each kind of vectors, scored by all."""
        fields = {number: leg.bm25({number: 1.0}) for number in (OWN, *DIFF_SIDE)}
        text, coverage = leg.bm25(TEXT | DISCUSSED), leg.coverage()
        cosines = asked.result()
        near = [self._filled(cosines[kind], mask, kind) for kind in ("message", "code")] if cosines else []
        legs = (text, *(near or [fields[DIFF]]), *([np.nan_to_num(cosines["hunks"], nan=-np.inf)] if cosines else []))
        telling = np.logical_or.reduce([coverage > 0, *(~np.isnan(of) for of in cosines.values())])
        numbers = _best(legs, through & telling)

        def z(scores: Scores) -> Scores:
            return z_scores(scores[numbers])

        literal = np.zeros(len(numbers))
        if code := code_words(query):
            whole = {word for name in code for word in list(words(name))[:1]}
            literal = z(Lexical(leg.scope, whole).coverage())
        message, code_near = map(z, near) if near else (np.zeros(len(numbers)), np.zeros(len(numbers)))
        diff = np.sum([*(z(fields[number]) for number in DIFF_SIDE), code_near], axis=0)
        empty, plain = self.history.empty(mask), mask & ~self.history.merges
        silent, repository = empty[numbers], self.history.repository[numbers]
        hunks = cosines["hunks"][numbers] if cosines else np.full(len(numbers), np.nan)
        meant = np.zeros(len(numbers))
        for own in with_silent(repository, silent):
            meant[own] = _meant(diff[own], np.where(silent[own], hunks[own], np.nan))
        own_share = self.history.of_each(plain & empty) / np.maximum(self.history.of_each(plain), 1)
        return Legs(
            numbers, z(text), z(fields[OWN]), message, code_near, z(coverage), literal, diff, silent, meant,
            share=float(empty[plain].mean()) if plain.any() else 0.0,
            repository=repository, own_share=own_share[repository],
        )  # fmt: skip

    def search(self, query: str, *, limit: int, filters: Filters = NO_FILTERS, at: str = "") -> list[Hit]:
        """The commits that best answer a query, best first. ``at`` shows it only what is reachable from a commit."""
        mask = self.history.at(at) if at else self.history.everything
        through = mask & self.open & chosen(self.history, filters)
        named = exact(self.history, query, mask, lambda: self._scope(mask).merged_by)
        if named:
            reason, found = named
            seen = through
            if reason == "that hash":  # a merge that is named is wanted
                seen = mask & self.open & chosen(self.history, replace(filters, include_merges=True))
            numbers = [number for number in found if seen[number]]
            if numbers or reason != "changes it":  # a file may be called as words are that mean something else
                return self._hits(_in_order(query, numbers), limit, mask, reason)
        quoted = phrases(query)
        for phrase in quoted:
            through = through & self._holding(phrase, mask)
        if quoted and not asked_words(query):  # nothing to rank them by
            return self._hits(_in_order(query, np.flatnonzero(through)[::-1]), limit, mask, "holds it")
        return self._hits(self.ask(query, mask=mask, through=through, discussed=True), limit, mask)

    def similar(self, name: str, *, limit: int, filters: Filters = NO_FILTERS) -> list[Hit]:
        """The commits that do most nearly what one commit does, itself and its repetitions left out."""
        number = self.number(name)
        ((_, said),) = self.store.features([int(self.history.ids[number])])
        through = chosen(self.history, filters)
        through[number] = False
        if (patch := self.history.patch[number]) >= 0:
            through &= self.history.patch != patch
        names = sorted(said.identifiers, key=lambda name: -said.identifiers[name])[:20]
        text = " ".join((said.message.partition("\n")[0], *said.paths[:8], *names))
        return self._hits(self.ask(text, through=through), limit, self.history.everything)

    def number(self, name: str) -> int:
        """The number of a commit by its hash, or the beginning of it. Raises :class:`UsageError`."""
        number = self.history.find(name)
        if not self.open[number]:
            raise UsageError(f"{name} touches a private path", "ask on the machine of its repository")
        return number

    def nearest(self, vector: Scores, *, limit: int) -> list[int]:
        """The numbers of the commits one of whose texts is nearest to a vector, nearest first."""
        if not self.dense or not self.dense.count:
            raise DataError("the index has no vectors to compare with", "ask in words, or run `treering index`")
        wanted = self.dense.embedder.dimensions
        if vector.shape != (wanted,):
            raise UsageError(
                f"the vector has {vector.size} numbers, those of the index {wanted}", "embed with its model"
            )
        largest = float(np.abs(vector).max())
        if not np.isfinite(largest) or not largest:
            raise UsageError("the vector has no direction", "give finite numbers, not all of them 0")
        vector = vector / largest  # the square of a huge number is none
        length = float(np.linalg.norm(vector))
        cosines = np.stack(list(self.dense.cosines((vector / length).astype(np.float32)).values()))
        near = np.where(self.open, np.nan_to_num(cosines, nan=-np.inf).max(axis=0), -np.inf)
        order = np.argsort(-near, kind="stable")[:limit]
        return [int(number) for number in order if near[number] > -np.inf]

    def told(self, reasons: Mapping[str, str], query: str) -> list[Hit]:
        """Commits by their hashes, in the order given, each with the reason given."""
        numbers = [self.history.number[name] for name in reasons]
        asked = _in_order(query, [number for number in numbers if self.open[number]])
        hits = self._hits(asked, len(reasons), self.history.everything, "-")
        return [replace(hit, why=reasons[hit.commit_hash]) for hit in hits]

    def _holding(self, phrase: str, mask: Mask) -> Mask:
        """The commits that hold a phrase literally, in any case."""

        def newest(said: str, most: int) -> Numbers:
            asked = asked_words(said)
            seen = mask & (Lexical(self._scope(mask), asked).coverage() > 1 - 1e-9) if asked else mask
            return np.flatnonzero(seen)[-most:]

        # The first and the last word may be parts of longer ones.
        numbers = newest(phrase.partition(" ")[2].rpartition(" ")[0], PHRASE_CANDIDATES)
        if asked_words(phrase):
            numbers = np.union1d(numbers, newest(phrase, PHRASE_HOLDERS))
        ids = self.history.ids[numbers]
        held = np.isin(ids, list(self.store.holding(phrase, ids.tolist())))
        found = np.zeros(len(self.history), bool)
        found[numbers[held]] = True
        return found

    def _hits(self, asked: Asked, limit: int, mask: Mask, reason: str = "") -> list[Hit]:
        """The best of what was asked, as ``mask`` knows them."""
        best = list(islice(self._once(asked), limit))
        ids = [int(self.history.ids[number]) for number, _ in best]
        wanted, quoted = set(asked_words(asked.query)), phrases(asked.query)
        hits = []
        whole = mask is self.history.everything
        numbers = np.array([number for number, _ in best], np.int64)
        held = asked.lexical.held_by(numbers) if asked.lexical else [{}] * len(best)
        merged_by = (asked.lexical.scope if asked.lexical else self._scope(mask)).merged_by
        for told, (number, score), commit_id, shared in zip(self.store.headlines(ids), best, ids, held, strict=True):
            hunks = self.store.hunks(commit_id)
            hunk = best_hunk(hunks, wanted, quoted)
            merge = int(merged_by[number])
            nearness = {kind: of[number] for kind, of in asked.cosines.items()}
            hits.append(
                Hit(
                    commit_hash=told.hash,
                    score=round(float(score), 4),
                    subject=told.subject,
                    author=told.author,
                    date=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(told.time)),
                    branch=told.branch if whole else "",  # a fact of the refs as they are now
                    files=told.paths,
                    why=reason or why(shared, nearness),
                    merged_by=self.history.hashes[merge] if merge >= 0 else None,
                    hunk_path=hunk.path if hunk else "",
                    hunk=hunk.text if hunk else "",
                    repository=self.store.repositories[self.history.repository[number]] or UNSET,
                )
            )
        return hits

    def _once(self, asked: Asked) -> Iterator[tuple[int, float]]:
        """Of commits with the same patch (a merge and its only commit, a cherry-pick) the best one alone."""
        seen: set[int] = set()
        for number, score in zip(asked.numbers.tolist(), asked.scores.tolist(), strict=True):
            patch = int(self.history.patch[number])
            if patch < 0 or patch not in seen:
                seen.add(patch)
                yield number, score


def _meant(diff: Scores, hunks: Scores) -> Scores:
    """How well the diffs of a repository's commits answer, and their hunks where those were embedded."""
    meant = z_scores(diff)
    if (told := ~np.isnan(hunks)).any():
        meant[told] += z_scores(hunks[told])
        meant /= np.sqrt(2)
    return meant


def _in_order(query: str, numbers: Sequence[int] | Numbers) -> Asked:
    """Commits that are in order already: their scores only count down."""
    return Asked(query, np.array(numbers, np.int64), np.arange(len(numbers), 0, -1, dtype=np.float64))


def _best(legs: Iterable[Scores], through: Mask) -> npt.NDArray[np.int64]:
    """The numbers of the best :data:`CANDIDATES` of every leg, in order of the history."""
    allowed = np.flatnonzero(through)
    most = min(CANDIDATES, len(allowed))
    put_up = [allowed[:0]]
    for leg in legs if most else ():
        top = allowed[np.argpartition(-leg[allowed], most - 1)[:most]]
        put_up.append(top[leg[top] > -np.inf])
    return np.unique(np.concatenate(put_up))
