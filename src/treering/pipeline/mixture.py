"""Token streams of many repositories → one, read where they lie: weighted, without what repeats, the newest last."""

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from msgspec.structs import replace

from treering.errors import DataError
from treering.lm.data import HOLD_OUT_DOCUMENTS
from treering.pipeline.common import fingerprint_of
from treering.tokens.pack import Ids
from treering.types import Corpus, FilePatch, Span

FINGERPRINT = "mixture-3"
MOST = 64
"""How often a document is repeated at most."""
PASSES = 100
"""Where the newest begin is found in one to four; where a few patches are all that light histories have, some more of
the newest come once.
"""


class Said(NamedTuple):
    """What a commit did: its patch, and what became of each file, by names that are equal for the same anywhere."""

    patch: str = ""
    files: tuple[int, ...] = ()

    def names(self, commit: str) -> set[str | int]:
        return {commit, self.patch or commit, *self.files}

    def is_told(self, commit: str, told: Collection[str | int]) -> bool:
        """Whether nothing of it is new beside what was told."""
        return commit in told or self.patch in told or bool(self.files and all(one in told for one in self.files))


def said_of(patch: str | None, files: Iterable[FilePatch]) -> Said:
    """A file is named by its lines, wherever it lies and wherever in it they stand."""
    return Said(patch or "", tuple(map(_named, files)))


def _named(file: FilePatch) -> int:
    lines = "\n".join(line for line in file.text.split("\n") if not line.startswith("@@"))
    return int.from_bytes(hashlib.blake2b(f"{file.cut}\n{lines}".encode(), digest_size=8).digest())


@dataclass(frozen=True, slots=True)
class Shard:
    """The token stream of one repository, and what each of its commits did."""

    name: str
    corpus: Corpus
    ids: Ids
    said: Mapping[str, Said]
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Share:
    """What of a repository is in a mixture: ``repeats`` are documents that another one says, here or elsewhere."""

    name: str
    sha256: str
    weight: float
    documents: int
    tokens: int
    repeats: int


class Shards:
    """Documents of several memory maps, as if they lay end to end in one. A slice is of one document."""

    def __init__(self, streams: Sequence[Ids], of: npt.ArrayLike, places: npt.ArrayLike, sizes: npt.ArrayLike) -> None:
        """For each document the number of its stream, where it begins there, and how many tokens it has."""
        self._streams = streams
        self._of, self._places = np.asarray(of, np.int64), np.asarray(places, np.int64)
        self._starts = np.concatenate(([0], np.cumsum(np.asarray(sizes, np.int64))))

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, wanted: slice) -> Ids:
        start, stop, _ = wanted.indices(len(self))
        document = int(np.searchsorted(self._starts, start, "right")) - 1
        if stop > start and stop > self._starts[document + 1]:
            raise IndexError(f"the tokens {start} to {stop} are of more than one document")
        place = int(self._places[document] + start - self._starts[document]) if stop > start else 0
        return self._streams[int(self._of[document]) if stop > start else 0][place : place + max(0, stop - start)]


def mixed(
    shards: Sequence[Shard], name: str, seed: int, *, told: Iterable[str | int] = ()
) -> tuple[Corpus, Shards, list[Share]]:
    """One corpus of all: each history spread over the whole, so that its end holds the newest of every repository, from
    which a split in time holds out. Of what comes before that, a document comes as often as its repository's weight
    says, by the seed where that is no whole number. A commit whose patch, or each of whose files' changes, was told
    before, or elsewhere (``told``), is not in it; what several have is told by the one that comes most often.

    Raises :class:`DataError` where the streams do not fit together.
    """
    first = shards[0].corpus
    for shard in shards:
        for what in ("tokenizer_fingerprint", "vocab_size", "strategy", "eos_id", "added_tokens"):
            if getattr(shard.corpus, what) != getattr(first, what):
                raise DataError(
                    f"the tokens of {shard.name} were made otherwise than those of {shards[0].name} ({what})",
                    "make all anew: `treering fleet update --tokens`, with the same --model and --strategy",
                )
    random = np.random.default_rng(seed)
    turns = random.permutation(len(shards)).tolist()  # at the end are the newest of all, and not all are held out
    order = sorted(
        (
            ((number + 1) / len(shard.corpus.documents), turns[one], one, number)
            for one, shard in enumerate(shards)
            for number in range(len(shard.corpus.documents))
        )
    )
    drawn = [_times(shards[one].weight, random) for *_, one, _ in order]
    chosen = _settled(shards, [(one, number) for *_, one, number in order], drawn, frozenset(told))
    ends = 1 if first.eos_id >= 0 else 0
    places = [np.cumsum([0, *(span.tokens + ends for span in shard.corpus.documents)]) for shard in shards]
    documents = tuple(span for *_, span in chosen)
    ids = Shards(
        [shard.ids for shard in shards], [one for one, *_ in chosen],
        [places[one][number] for one, number, _ in chosen], [span.tokens + ends for span in documents],
    )  # fmt: skip
    shares = [_share(one, shard, chosen) for one, shard in enumerate(shards)]
    corpus = replace(
        first, repo=name, documents=documents, total_tokens=len(ids),
        num_sequences=-(-len(ids) // first.sequence_length),
        sha256=fingerprint_of(
            FINGERPRINT, seed, [(one.name, one.sha256, one.weight) for one in shares],
            hashlib.sha256(
                np.array([(*at, span.duplicate_of is None) for *at, span in chosen], "<i8").tobytes()
            ).hexdigest(),
        ),
    )  # fmt: skip
    return corpus, ids, shares


def _times(weight: float, random: np.random.Generator) -> int:
    return min(MOST, int(weight) + (random.random() < weight % 1))


def _settled(
    shards: Sequence[Shard], order: Sequence[tuple[int, int]], drawn: Sequence[int], told: Collection[str | int]
) -> list[tuple[int, int, Span]]:
    """The documents that come, each as often as it was drawn, but the newest unique ones once. Who does not come says
    nothing: another one that has the same does.
    """
    spans = [shards[one].corpus.documents[number] for one, number in order]
    saids = [shards[one].said.get(span.commit_hash, Said()) for (one, _), span in zip(order, spans, strict=True)]
    newest = 0  # from this one on each comes once
    for _ in range(PASSES):  # where fewer are told before it, more of what follows is unique, and it moves on
        often = [*drawn[:newest], *[1] * (len(drawn) - newest)]
        repeats, seen = set[int](), set(told)
        for place in sorted(range(len(order)), key=lambda place: (place >= newest, -often[place])):
            span, said = spans[place], saids[place]
            if span.duplicate_of is not None:
                continue
            if said.is_told(span.commit_hash, seen):
                repeats.add(place)
            if often[place] and span.tokens:
                seen |= said.names(span.commit_hash)
        unique = [
            place
            for place, span in enumerate(spans)
            if often[place] and span.tokens and span.duplicate_of is None and place not in repeats
        ]
        before, newest = newest, unique[-HOLD_OUT_DOCUMENTS:][0] if unique else newest
        if all(times == 1 for times in drawn[before:newest]):
            break
    return [
        (*at, replace(span, duplicate_of=span.commit_hash) if place in repeats else span)
        for place, (at, span) in enumerate(zip(order, spans, strict=True))
        for _ in range(1 if place in repeats or span.duplicate_of is not None else often[place])
    ]


def _share(one: int, shard: Shard, chosen: Sequence[tuple[int, int, Span]]) -> Share:
    mine = [span for of, _, span in chosen if of == one]
    learned = [span for span in mine if span.duplicate_of is None]
    return Share(
        shard.name, shard.corpus.sha256, shard.weight, len(learned), sum(span.tokens for span in learned),
        len(mine) - len(learned),
    )  # fmt: skip
