"""What a commit means, field by field: its message, its paths, the functions its hunks are in, the names it adds.

Never the message alone: a quarter of a real history has messages that say nothing.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from msgspec import Struct, field

from treering.text.kinds import NOISE, Kind
from treering.text.words import identifiers, words
from treering.types import Features, LeftOut, Record

FINGERPRINT = "document-3"
"""Part of every fingerprint that covers what is made here: count it up when the output changes."""

PATHS = 200
FUNCTIONS = 60
IDENTIFIERS_KEPT = 400
IDENTIFIERS_INDEXED = 40
"""The best by tf-idf; 40 was best over six repositories."""

PATHS_EMBEDDED, NAMES_EMBEDDED, FUNCTIONS_EMBEDDED = 6, 16, 4
"""What of each makes the text that becomes a vector: some 150 tokens, because each costs as much time as another."""

_HUNK = re.compile(r"^@@ -\d[^@]* @@ ?(.*)$")


def features(record: Record, kind: Callable[[str], Kind]) -> Features:
    """The fields of one commit. Bounded, whatever the size of the commit. Hunks of noise are not read."""
    functions: dict[str, None] = {}
    added: Counter[str] = Counter()
    for patch in record.patches:
        if kind(patch.path) in NOISE:
            continue
        for line in patch.text.split("\n"):
            if line.startswith("+"):
                added.update(identifiers(line[1:]))
            elif (hunk := _HUNK.match(line)) and hunk[1].strip():
                functions[hunk[1].strip()] = None
    renamed_from = (rename.old_path for rename in record.files_renamed)
    return Features(
        message=record.message,
        paths=tuple(dict.fromkeys((*record.paths, *renamed_from)))[:PATHS],
        functions=tuple(functions)[:FUNCTIONS],
        identifiers=dict(added.most_common(IDENTIFIERS_KEPT)),
    )


def left_out(record: Record, kind: Callable[[str], Kind]) -> dict[str, LeftOut]:
    """What :func:`features` does not look at, by the kind of file; under ``cut`` what the caps took of the rest."""
    found: dict[str, LeftOut] = {}
    for patch in record.patches:
        of = kind(patch.path)
        size = patch.cut + (len(patch.text.encode()) if of in NOISE else 0)
        if size:
            reason = of if of in NOISE else "cut"
            before = found.get(reason, LeftOut(0, 0))
            found[reason] = LeftOut(before.files + 1, before.bytes + size)
    return found


class Rarity(Struct):
    """How rare a name is in the repository: the inverse document frequency behind tf-idf."""

    documents: int = 0
    frequency: Counter[str] = field(default_factory=Counter)

    def add(self, one: Features) -> None:
        self.documents += 1
        self.frequency.update(one.identifiers.keys())

    def best(self, one: Features) -> list[str]:
        """The names that tell this commit from the others, best first; ties in alphabetical order."""

        def weight(item: tuple[str, int]) -> tuple[float, str]:
            name, count = item
            idf = math.log((1 + self.documents) / (1 + self.frequency[name])) + 1
            return -(1 + math.log(count)) * idf, name

        return [name for name, _ in sorted(one.identifiers.items(), key=weight)[:IDENTIFIERS_INDEXED]]


def indexed_words(one: Features, names: Iterable[str]) -> tuple[str, str, str, str]:
    """The text of words of each field of the lexical index: message, paths, functions, identifiers."""
    return (
        " ".join(words(one.message)),
        " ".join(words(" ".join(one.paths))),
        " ".join(words(" ".join(one.functions))),
        " ".join(words(" ".join(names))),
    )


def diff_text(one: Features, names: Sequence[str]) -> str:
    """What the diff says, in the order that survives a cut at the embedding model's length. Empty for no change."""
    parts = (one.paths[:PATHS_EMBEDDED], names[:NAMES_EMBEDDED], one.functions[:FUNCTIONS_EMBEDDED])
    return "\n".join(" ".join(part) for part in parts if part)
