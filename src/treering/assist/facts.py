"""What can be told of the commits that answer a question, most telling first: their messages, their best hunks, the
files as they are now, and the commits they belong with. Values only; how they are quoted is said elsewhere.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Literal

import numpy as np
from msgspec import Struct

from treering.assist.evidence import Evidence, weight_of
from treering.errors import UsageError
from treering.git.blame import texts
from treering.git.shadow import Shadow
from treering.report import one_line
from treering.search.commits import Finder
from treering.search.files import Touches
from treering.search.lexical import asked_words
from treering.search.query import phrases
from treering.search.reasons import best_hunk
from treering.search.upcoming import OFTEN
from treering.text.words import vocabulary
from treering.types import Hit, Record, day_of

BEST = 3
"""Of so many of the best commits more than one hunk, and what belongs with them, is told."""
HUNKS = 2
FILES = 4
READ_FILES = 8
READ_BYTES = 1 << 16
WINDOW = 40
"""Lines of a file around the words."""
LINKS = 8
"""How many commits are told of as belonging with one."""
MESSAGE = 1500
"""Characters of a message."""
PARTNERS = 3
"""How many files that change together with one are told at most."""

Kind = Literal["commit", "hunk", "file", "related"]
Redact = Callable[[str, Counter[str]], str]


class Fact(Struct, frozen=True):
    """One thing that is told, of one commit; a file as it is now is told of the newest one. ``text`` has no secrets;
    in a pack, nothing that cannot be seen. ``tokens`` is what it takes there, its marks included.
    """

    kind: Kind
    commit_hash: str
    path: str
    text: str
    why: str
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Sources:
    """What facts are taken from: an open index, the files of ``tip``, which files changed together (asked for only if
    it is needed), and what takes secrets out of text.

    Of what the finder keeps to itself nothing is told, whatever was found before.
    ``discussed`` gives what was said of a commit at the forge, a text for each request and issue, without secrets.
    """

    finder: Finder
    shadow: Shadow
    tip: str
    touches: Callable[[], Touches]
    redact: Redact
    discussed: Callable[[Record], Sequence[str]] = lambda _: ()


def facts(sources: Sources, found: Evidence) -> Iterator[Fact]:
    """All there is to tell, in the order in which it is worth telling."""
    finder = sources.finder
    hits = [hit for hit in found.hits if finder.open[finder.history.number[hit.commit_hash]]]
    records = [_record(finder, hit.commit_hash) for hit in hits]
    told = [
        _told(finder, record, hit.why, found, rank)
        for rank, (record, hit) in enumerate(zip(records, hits, strict=True))
    ]
    now = list(_files(sources, hits, found))
    yield from chain.from_iterable(told[:BEST])
    yield from now[:1]
    for record in records[:BEST]:
        for text in sources.discussed(record):
            yield Fact("related", record.commit_hash, "", _short(text, MESSAGE), "what was said of it at the forge")
    yield from _once(chain.from_iterable(_related(sources, record) for record in records[:BEST]))
    yield from _together(sources, next(iter(told), []))
    for one, file in zip_longest(told[BEST:], now[1:], fillvalue=None):
        yield from one or ()
        if isinstance(file, Fact):
            yield file


def _record(finder: Finder, name: str) -> Record:
    return next(finder.store.records(ids=[int(finder.history.ids[finder.history.number[name]])]))


def _told(finder: Finder, record: Record, why: str, found: Evidence, rank: int) -> list[Fact]:
    """A commit's message with what it touched, and its best hunks."""
    body = record.message_body.strip()
    files = ", ".join(map(one_line, record.paths[:8])) + (
        f" and {len(record.paths) - 8} more" if len(record.paths) > 8 else ""
    )
    lines = [
        record.message_subject,
        *(["", _short(body, MESSAGE)] if body else []),
        "",
        f"{day_of(record.commit_timestamp)}, {record.author_name}; {record.diff_summary}",
        *([f"in {files}"] if files else []),
    ]
    name = record.commit_hash
    made = [Fact("commit", name, "", "\n".join(lines), why)]
    wanted, quoted = set(asked_words(found.question)), phrases(found.question)
    commit_id = int(finder.history.ids[finder.history.number[name]])
    hunks = [best_hunk([patch], wanted, quoted) for patch in finder.store.hunks(commit_id)]
    ranked = sorted(
        (hunk for hunk in hunks if hunk), key=lambda hunk: -len(wanted & vocabulary(f"{hunk.path} {hunk.text}"))
    )
    made += [
        Fact("hunk", name, hunk.path, hunk.text, "what it changed") for hunk in ranked[: HUNKS if rank < BEST else 1]
    ]
    return made


def _files(sources: Sources, hits: Sequence[Hit], found: Evidence) -> Iterator[Fact]:
    """Of the files that the commits changed, as they are now, the parts that hold most of the question's words."""
    votes: dict[str, float] = {}
    for rank, hit in enumerate(hits):
        for path in hit.files[:20]:
            votes[path] = votes.get(path, 0.0) + 1 / (rank + 1) / len(hit.files[:20]) ** 0.5
    likely = sorted(votes, key=lambda path: (-votes[path], path))[:READ_FILES]
    parts = []
    for path, content in texts(sources.shadow, sources.tip, likely, READ_BYTES).items():
        lines = sources.redact(content, Counter()).split("\n")
        if len(content.encode("utf-8", "replace")) >= READ_BYTES:
            lines.pop()  # half of a line may be half of a secret, which no rule knows
        weights = np.array([weight_of(line, found.rarity) for line in lines])
        if not weights.any():
            continue
        sums = np.convolve(weights, np.ones(WINDOW))[WINDOW - 1 :] if len(lines) > WINDOW else np.array([weights.sum()])
        start = int(np.argmax(sums))
        part = lines[start : start + WINDOW]
        worth = votes[path] * weight_of("\n".join([path, *part]), found.rarity)
        why = f"lines {start + 1}-{start + len(part)} of {len(lines)}, as they are now"
        parts.append((-worth, path, Fact("file", sources.tip, path, "\n".join(part), why)))
    yield from (fact for *_, fact in sorted(parts, key=lambda part: part[:2])[:FILES])


def _related(sources: Sources, record: Record) -> Iterator[Fact]:
    """The commits that one belongs with: what it undoes or repeats, what undoes, fixes or repeats it, and its merge."""
    finder, short = sources.finder, record.commit_hash[:7]
    links: list[tuple[str, str]] = []
    if record.undoes:
        links.append((record.undoes, f"{short} undoes it"))
    if record.same_patch_as:
        links.append((record.same_patch_as, f"{short} has the same patch"))
    for kind, said in (("reverts", "reverts it"), ("fixes", "fixes it"), ("cherry-picked-from", "was picked from it")):
        links += [(name, f"{short} says that it {said}") for name in record.references.get(kind, ()) if "#" not in name]
    if record.merged_by:
        links.append((record.merged_by, f"the merge that brought {short}"))
    links += [(name, why.format(short)) for name, why in finder.store.later(record.commit_hash)]
    for name, why in links[:LINKS]:
        try:
            other = _record(finder, finder.history.hashes[finder.number(name)])
        except UsageError:  # it is not in what is indexed, or not told of
            continue
        body = _short(other.message_body.strip(), MESSAGE // 5)
        lines = [
            other.message_subject,
            *([body] if body else []),
            f"{day_of(other.commit_timestamp)}, {other.author_name}",
        ]
        yield Fact("related", other.commit_hash, "", "\n".join(lines), why)


def _once(related: Iterator[Fact]) -> Iterator[Fact]:
    """Each commit by the first of its links."""
    seen: set[str] = set()
    for fact in related:
        if fact.commit_hash not in seen:
            seen.add(fact.commit_hash)
            yield fact


def _together(sources: Sources, best: list[Fact]) -> Iterator[Fact]:
    """The files that change together with that of the best hunk, with the newest commit that changed both."""
    path = next((fact.path for fact in best if fact.kind == "hunk"), "")
    known = sources.touches() if path else None
    if known is None or path not in known.number:
        return
    theirs = np.unique(known.commits[(known.files == known.number[path]) & sources.finder.open[known.commits]])
    beside = np.isin(known.commits, theirs)
    counts = np.bincount(known.files[beside], minlength=len(known.names))
    counts[known.number[path]] = 0
    for other in np.argsort(-counts, kind="stable")[:PARTNERS].tolist():
        if counts[other] >= OFTEN and known.names[other] not in sources.finder.private:
            last = int(known.commits[beside & (known.files == other)].max())
            text = f"{known.names[other]} changed in {counts[other]} of the {len(theirs)} commits that changed {path}"
            text = one_line(text)
            yield Fact(
                "related", sources.finder.history.hashes[last], known.names[other], text, "the newest that changed both"
            )


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]} [… {len(text) - most:,} characters left out]"
