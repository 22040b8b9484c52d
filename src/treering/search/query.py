"""What a query asks for: words, and the things that have an exact answer (a hash, ``#123``, a path, a quoted phrase);
and which commits it asks about.
"""

import re
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import Literal

import numpy as np

from treering.errors import UsageError
from treering.git.history import timestamp
from treering.search.history import History, Mask, Numbers
from treering.text.kinds import KINDS
from treering.types import Filters

Exact = Literal["that hash", "mentions it", "changes it"]

NAMES_TOLD = 20
"""So many repositories are named where one is not found."""

_HASH = re.compile(r"[0-9a-f]{7,64}", re.IGNORECASE)
_NUMBER = re.compile(r"#\d{1,9}|[\w.-]+(?:/[\w.-]+)+#\d{1,9}")
_PHRASE = re.compile(r'"([^"]{2,200})"')
_CODE = re.compile(
    r"`([^`\s]{2,80})`|(?<![\w-])--?([a-z][\w-]{2,60})|\b(\w*[a-z0-9]_\w+|[a-z]+[A-Z]\w*|[A-Z]\w*[a-z][A-Z]\w*|\w+(?:\.\w+)+)\b"
)


def chosen(history: History, filters: Filters) -> Mask:
    """The commits that the filters let through. Raises :class:`UsageError` for a date or a kind that is none."""
    mask = history.everything.copy()
    if not filters.include_merges:
        mask &= ~history.merges
    if filters.since:
        mask &= history.times >= timestamp(filters.since, end=False)
    if filters.until:
        mask &= history.times <= timestamp(filters.until, end=True)
    if filters.kind and filters.kind not in KINDS:
        raise UsageError(f"there is no kind of file {filters.kind!r}", f"kinds: {', '.join(KINDS)}")
    store = history.store
    if filters.repositories:
        mask &= np.isin(history.repository, _named(store.repositories, filters.repositories))
    for wanted, ids in (
        (filters.author, store.of_author),
        (filters.branch, store.of_branch),
        (filters.path, store.of_path),
        (filters.kind, store.of_kind),
    ):
        if wanted:
            through = np.zeros(len(history), bool)
            through[_numbers(history, ids(wanted))] = True
            mask &= through
    return mask


def _named(names: Sequence[str], wanted: Sequence[str]) -> list[int]:
    """The places of the names that are wanted. Raises :class:`UsageError` for what is wanted and fits none."""
    found = {
        one: [place for place, name in enumerate(names) if one == name or fnmatchcase(name, one)] for one in wanted
    }
    for one, places in found.items():
        if not places:
            told = ", ".join(names[:NAMES_TOLD]) + (", …" if len(names) > NAMES_TOLD else "")
            raise UsageError(f"there is no repository {one!r} here", f"repositories: {told}")
    return sorted({place for places in found.values() for place in places})


def phrases(query: str) -> list[str]:
    """What stands in double quotes."""
    return [found.strip() for found in _PHRASE.findall(query) if found.strip()]


def code_words(query: str) -> list[str]:
    """What looks written in code: in backticks, flags, snake_case, camelCase, dotted names."""
    return list(dict.fromkeys(next(filter(None, found)) for found in _CODE.findall(query)))


def exact(history: History, query: str, mask: Mask, merged_by: Callable[[], Numbers]) -> tuple[Exact, list[int]] | None:
    """The commits that a query names outright, newest first; None if it is in words. Who came in with a merge that
    mentions a number is told only if the merge is in ``mask``; ``merged_by`` gives which that is, or -1.
    """
    text = query.strip()
    if _HASH.fullmatch(text):
        found = [number for number, name in enumerate(history.hashes) if name.startswith(text.lower())]
        if found:
            return "that hash", found[::-1]
    if _NUMBER.fullmatch(text):
        own = _numbers(history, history.store.mentioning(text))
        brought = np.flatnonzero(np.isin(merged_by(), own[mask[own]]))
        return "mentions it", np.union1d(own, brought)[::-1].tolist()
    if history.store.knows_path(text):
        return "changes it", np.sort(_numbers(history, history.store.of_path(text)))[::-1].tolist()
    return None


def _numbers(history: History, ids: Sequence[int]) -> Numbers:
    numbers = history.numbers(np.array(ids, np.int64))
    return numbers[numbers >= 0]
