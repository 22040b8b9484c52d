"""What a commit means: its message, paths, the functions its hunks are in, the names it adds, its prose, its lines.

Nothing here depends on other commits, so what is said of one stays as it is when the history grows.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import zip_longest

from treering.text.kinds import NOISE, Kind
from treering.text.words import identifiers, vocabulary, written
from treering.types import Features, FilePatch, LeftOut, Record

FINGERPRINT = "document-7"
"""Part of every fingerprint that covers what is made here: count it up when the output changes."""

PATHS = 200
FUNCTIONS = 60
IDENTIFIERS = 400
PROSE_CHARACTERS = 6000
DISCUSSION_CHARACTERS = 6000

FIELDS = ("message", "paths", "functions", "identifiers", "prose", "diff")
"""The fields of the lexical index, in the order of their numbers there."""

KINDS = ("message", "code", "hunks")
"""The kinds of texts that become vectors; ``hunks`` only of commits whose message says nothing."""

PATHS_EMBEDDED, NAMES_EMBEDDED, FUNCTIONS_EMBEDDED = 6, 16, 4
"""What of each makes the text that becomes a vector: some 150 tokens, because each costs as much time as another."""
HUNKS_EMBEDDED, HUNK_CHARACTERS = 8, 300

_HUNK = re.compile(r"^@@ -\d[^@]* @@ ?(.*)$")
_COMMENT = re.compile(
    r"^\s*(?:#+(?!!)|//+!?|/\*+|\*+(?!/)|--+|;+|%+|<!--|\"\"\"|''')\s*(.*?)\s*(?:\*/|-->|\"\"\"|''')?$"
)
_BEHIND = re.compile(r"\s(?:#|//|/\*)\s+(.{8,}?)\s*(?:\*/)?$")
_LETTERS = re.compile(r"[^\W\d_]{2,}")
_DOCS = r"\.(?:md|markdown|rst|txt|adoc|org|html?|textile)"
_HIDDEN = re.compile(r"<!--.*?(?:-->|\Z)", re.DOTALL)
_CHANGELOG = re.compile(
    rf"(?:^|/)(?:change(?:s|log)|news|history|releases?|release[-_ ]?notes|whats?[-_ ]?new|upgrading)(?:{_DOCS})?$"
    rf"|(?:^|/)(?:changelogs?|changes|newsfragments|release[-_]?notes)/(?:.*/)?(?:[+\d][^/]*|[^/]+{_DOCS})$",
    re.IGNORECASE,
)


def is_changelog(path: str) -> bool:
    """Whether a file tells what other commits did: its entries would find it in their place."""
    return bool(_CHANGELOG.search(path))


def telling(patches: Sequence[FilePatch], kind: Callable[[str], Kind]) -> tuple[FilePatch, ...]:
    """The hunks that say what this commit meant: those of noise and of changelogs are left out."""
    return tuple(patch for patch in patches if kind(patch.path) not in NOISE and not is_changelog(patch.path))


def features(record: Record, kind: Callable[[str], Kind]) -> Features:
    """The fields of one commit but its lines. Bounded, whatever the size of the commit."""
    functions: dict[str, None] = {}
    added: list[str] = []
    prose: list[str] = []
    for patch in telling(record.patches, kind):
        docs = kind(patch.path) == "docs"
        for line in patch.text.split("\n"):
            if line.startswith("+"):
                if not docs:
                    added += identifiers(line[1:])
                if (said := line[1:].strip() if docs else _said(line[1:])) and len(_LETTERS.findall(said)) > 1:
                    prose.append(said)
            elif line.startswith("@") and (hunk := _HUNK.match(line)) and hunk[1].strip():
                functions[hunk[1].strip()] = None
    renamed_from = (rename.old_path for rename in record.files_renamed)
    return Features(
        message=record.message,
        paths=tuple(dict.fromkeys((*record.paths, *renamed_from)))[:PATHS],
        functions=tuple(functions)[:FUNCTIONS],
        identifiers=dict(Counter(added).most_common(IDENTIFIERS)),
        prose="\n".join(dict.fromkeys(prose))[:PROSE_CHARACTERS],
    )


def _said(line: str) -> str:
    """The comment that a line of code is, or has behind it."""
    comment = _COMMENT.match(line) or _BEHIND.search(line)
    return comment[1] if comment else ""


def left_out(record: Record, kind: Callable[[str], Kind]) -> dict[str, LeftOut]:
    """What the index does not look at, by the kind of file; under ``cut`` what the caps took of the rest."""
    found: dict[str, LeftOut] = {}
    for patch in record.patches:
        of = kind(patch.path)
        unread = of if of in NOISE else "changelog" if is_changelog(patch.path) else ""
        size = patch.cut + (len(patch.text.encode()) if unread else 0)
        if size:
            before = found.get(unread or "cut", LeftOut(0, 0))
            found[unread or "cut"] = LeftOut(before.files + 1, before.bytes + size)
    return found


def word_counts(one: Features, hunks: Sequence[FilePatch]) -> tuple[Counter[str], ...]:
    """How often each word is written in each of :data:`FIELDS`."""
    lines = (line[1:] for patch in hunks for line in patch.text.split("\n") if line[:1] in ("+", "-"))
    return (
        written(one.message),
        written("\n".join(one.paths)),
        written("\n".join(one.functions)),
        written("\n".join(one.identifiers)),
        written(one.prose),
        written("\n".join(lines)),
    )


def discussion(title: str, body: str) -> str:
    """What is found of a request or an issue: its title and the beginning of its text, without what a template of the
    forge tells whoever fills it in.
    """
    return f"{title}\n{_HIDDEN.sub(' ', body)}"[:DISCUSSION_CHARACTERS]


def texts(one: Features) -> Iterator[tuple[str, str]]:
    """The texts of a commit that become vectors, each with its kind; empty ones are left out."""
    parts = (one.paths[:PATHS_EMBEDDED], best_names(one), one.functions[:FUNCTIONS_EMBEDDED])
    code = "\n".join(" ".join(part) for part in parts if part)
    for kind, text in (("message", one.message), ("code", code)):
        if text.strip():
            yield kind, text


def kinds_of(one: Features) -> list[str]:
    """The kinds of texts that :func:`texts` makes of a commit, without making them."""
    there = {"message": one.message.strip(), "code": one.paths or one.identifiers or one.functions}
    return [kind for kind, said in there.items() if said]


def hunk_texts(hunks: Sequence[FilePatch]) -> list[str]:
    """What the hunks of a commit add, for one whose message says nothing: the beginnings of :data:`HUNKS_EMBEDDED` of
    them, each behind its file's name; the largest of each file first, of more files than that some throughout.
    """
    files = [sorted(_added(patch), key=len, reverse=True) for patch in hunks]
    largest = [of[0] for of in files if of]
    if len(largest) > HUNKS_EMBEDDED:
        chosen = [largest[place * len(largest) // HUNKS_EMBEDDED] for place in range(HUNKS_EMBEDDED)]
    else:
        chosen = [text for turn in zip_longest(*files) for text in turn if text][:HUNKS_EMBEDDED]
    return [text[:HUNK_CHARACTERS] for text in chosen]


def _added(patch: FilePatch) -> list[str]:
    """For each hunk the lines that it adds, in one, behind the names of its file and of the function it is in."""
    found: list[list[str]] = []
    for line in patch.text.split("\n"):
        if hunk := _HUNK.match(line):
            found.append([patch.path.rpartition("/")[2], hunk[1].strip()])
        elif found and line.startswith("+") and line[1:].strip():
            found[-1].append(line[1:].strip())
    return [" ".join(filter(None, hunk)) for hunk in found if len(hunk) > 2]


def best_names(one: Features, most: int = NAMES_EMBEDDED) -> list[str]:
    """The added names that tell most: compound ones, and those that come often."""

    def weight(item: tuple[str, int]) -> tuple[float, str]:
        name, count = item
        return -(min(count, 5) ** 0.5) * len(vocabulary(name)), name

    return [name for name, _ in sorted(one.identifiers.items(), key=weight)[:most]]
