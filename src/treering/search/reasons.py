"""Why a commit answers: the words that it holds, its nearest text, and the hunk to show."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from treering.search.lexical import DIFF, ISSUE, MESSAGE, OWN, REQUEST
from treering.text.document import FIELDS
from treering.text.words import STEM, vocabulary
from treering.types import FilePatch

HUNK_LINES = 12
WORDS = 6


def why(held: Mapping[int, list[str]], cosines: Mapping[str, np.float64]) -> str:
    """The words of the question by the fields that hold them, and which of its texts is nearest to it in meaning."""
    reasons = []
    known: set[str] = set()
    brought = [word for word in held.get(MESSAGE, ()) if word not in held.get(OWN, ())]
    for field, name in ((OWN, "message"), *((place, FIELDS[place]) for place in range(1, len(FIELDS)))):
        shared = held.get(field, [])
        if field == DIFF:  # it repeats the others
            shared = [word for word in shared if word not in known]
        known.update(shared)
        reasons += _named(name, shared)
    around = (
        ("text of its merge", brought), ("text of its request", held.get(REQUEST, [])),
        ("text of its issue", held.get(ISSUE, [])),
    )  # fmt: skip
    for name, there in around:
        reasons += _named(name, [word for word in there if word not in known])
        known.update(there)
    if near := {kind: cosine for kind, cosine in cosines.items() if not np.isnan(cosine)}:
        kind = max(near, key=lambda kind: near[kind])
        reasons.append(f"meaning of the {kind}: {near[kind]:.2f}")
    return " · ".join(reasons)


def _named(name: str, shared: list[str]) -> list[str]:
    whole = [word for word in shared if not word.endswith(STEM)]
    # A stem is named only where no word that has it is: `expir` for `expiring`, but not beside `expire`.
    stems = [word.rstrip(STEM) for word in shared if word.endswith(STEM)]
    named = whole + [stem for stem in stems if not any(word.startswith(stem) for word in whole)]
    return [f"{name}: {', '.join(named[:WORDS])}"] if named else []


def best_hunk(patches: Iterable[FilePatch], wanted: set[str], quoted: Sequence[str] = ()) -> FilePatch | None:
    """The hunk that holds most of the words and the quoted phrases, at most :data:`HUNK_LINES` of its lines around the
    first of them.
    """
    hunks = [(patch.path, text) for patch in patches for text in patch.text.split("\n@@ -")]
    if not hunks:
        return None
    # What cannot hold a word, or more words than the best so far, is not cut into words. A stem may end otherwise than
    # its word.
    phrases = [phrase.lower() for phrase in quoted]
    stubs = phrases + [word[: -len(STEM) - 1] if word.endswith(STEM) else word for word in wanted]

    def could_hold(text: str) -> int:
        lowered = text.lower()
        return sum([stub in lowered for stub in stubs])

    def held(text: str) -> int:
        return len(wanted & vocabulary(text)) + sum(phrase in text.lower() for phrase in phrases)

    most = [could_hold(text) for _, text in hunks]
    best, shared = 0, -1
    for place in sorted(range(len(hunks)), key=lambda place: -most[place]):
        if most[place] < shared:
            break
        if most[place] > shared or place < best:
            own = held(hunks[place][1])
            if own > shared or (own == shared and place < best):
                best, shared = place, own
    path, text = hunks[best]
    head, *lines = (text if text.startswith("@@ -") else f"@@ -{text}").rstrip("\n").split("\n")
    telling = (place for place, line in enumerate(lines) if line[:1] in ("+", "-") and could_hold(line) and held(line))
    start = max(0, min(next(telling, 0) - 2, len(lines) - HUNK_LINES))
    shown = lines[start : start + HUNK_LINES]
    return FilePatch(path, "\n".join((head, *shown)), len("\n".join(lines)) - len("\n".join(shown)))
