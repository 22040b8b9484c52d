"""What the history says of a change that is proposed: the commits that it resembles, the files that usually change with
its files and do not here, who knows them, and how often changes of them had to be mended. Figures that were counted, no
model's opinion.
"""

import math
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from treering.operate.forge import Change
from treering.search.commits import Finder
from treering.search.files import Touches
from treering.search.history import History, Mask
from treering.search.upcoming import beside
from treering.types import Hit, day_of

MENDED_DAYS = 14
"""A change counts as mended if a fix or a revert touched the same file within so many days."""
ENOUGH = 10
"""Of fewer changes nothing is said of risk."""
HALF_LIFE_DAYS = 180.0
"""A touch counts half for who reviews after so long."""
MOST_RELATED = 5
MOST_MISSING = 3
TOGETHER, USUALLY = 5, 0.7
"""How often, and in how large a part of the commits of one of the changed files, a file must have been changed with it
to be missed. docs/forge.md has the figures.
"""
MOST_REVIEWERS = 3

_DAY = 86_400
_MENDS = re.compile(
    r"\b(?:fix(?:e[sd]|ing)?|hot-?fix|bug(?:s|fix(?:es)?)?|regressions?|reverts?|reverted)\b", re.IGNORECASE
)
_HANDLE = re.compile(r"(?:\d+\+)?([\w-]+)@users\.noreply\.", re.IGNORECASE)
_PROGRAM = re.compile(r"\[bot\]|^(?:dependabot|renovate|github-actions|pre-commit-ci)\b", re.IGNORECASE)


class Related(Struct, frozen=True):
    commit_hash: str
    subject: str
    author: str
    date: str
    why: str


class Absent(Struct, frozen=True):
    """A file that is not changed, and was ``together`` of the ``changed`` times that ``beside`` was."""

    path: str
    beside: str
    together: int
    changed: int


class Reviewer(Struct, frozen=True):
    """Somebody who changed these files, ``commits`` times, last on a day. ``handle`` is empty where none is known."""

    name: str
    handle: str
    commits: int
    last: str
    commit_hash: str


class Risk(Struct, frozen=True):
    """How often earlier changes of these files were mended: ``mended`` of ``changes`` that are old enough to tell, a
    ``share`` within an interval of 95 %; ``usual`` is the share over all files. ``larger_than`` is the part of the
    commits that change fewer lines; None where none is known.
    """

    level: Literal["higher", "usual", "lower", "unknown"]
    changes: int
    mended: int
    share: float
    low: float
    high: float
    usual: float
    lines: int
    larger_than: float | None


class Review(Struct, frozen=True):
    """Of ``files`` that change, the history knows ``known``, in ``commits`` that it may look at."""

    number: int
    url: str
    commits: int
    files: int
    known: int
    related: tuple[Related, ...]
    absent: tuple[Absent, ...]
    reviewers: tuple[Reviewer, ...]
    risk: Risk


def review(
    finder: Finder,
    touches: Touches,
    mask: Mask,
    change: Change,
    *,
    found: Sequence[Hit],
    there: Sequence[str],
    handle: Callable[[str], str],
) -> Review:
    """What the history in ``mask`` says of a change. ``found`` are commits that a search for it found, ``there`` the
    files of its base; ``handle`` tells the account of a commit's author, or nothing.
    """
    history = finder.history
    paths = {name for one in change.files for name in (one.path, one.old_path) if name}
    given = [touches.number[name] for name in sorted(paths) if name in touches.number]
    own = [history.number[name] for name in change.commits if name in history.number]
    seen = mask[touches.commits] & ~np.isin(touches.commits, own)
    seen_given = sorted(set(np.unique(touches.files[seen]).tolist()) & set(given))
    known = {touches.names[file] for file in seen_given}
    return Review(
        number=change.number, url=change.url, commits=int(mask.sum()), files=len(change.files),
        known=sum(bool({one.path, one.old_path} & known) for one in change.files),
        related=tuple(
            Related(hit.commit_hash, hit.subject, hit.author, hit.date[:10], hit.why)
            for hit in found if hit.commit_hash not in change.commits
        )[:MOST_RELATED],
        absent=tuple(
            Absent(one.path, one.beside, one.together, one.changed)
            for one in beside(touches, seen, given, there, MOST_MISSING, often=TOGETHER, usually=USUALLY)
        ),
        reviewers=tuple(_reviewers(history, touches, seen, seen_given, change, handle)),
        risk=_risk(history, touches, seen, seen_given, mask, change),
    )  # fmt: skip


def _reviewers(
    history: History,
    touches: Touches,
    seen: npt.NDArray[np.bool_],
    files: Sequence[int],
    change: Change,
    handle: Callable[[str], str],
) -> Iterable[Reviewer]:
    """Who changed the files, each commit the less the older it is; not who wrote the change, and no program."""
    theirs = touches.commits[seen & np.isin(touches.files, files)]
    if not len(theirs):
        return
    newest = int(history.times[touches.commits[seen]].max())
    commits, counts = np.unique(theirs, return_counts=True)
    ages = np.maximum(0, newest - history.times[commits]) / _DAY
    weights = counts * 0.5 ** (ages / HALF_LIFE_DAYS)
    number_of = {int(history.ids[number]): number for number in commits.tolist()}
    weight_of = dict(zip(commits.tolist(), weights.tolist(), strict=True))
    people: dict[str, tuple[str, str, list[int]]] = {}
    for commit_id, name, email in history.store.people_of(number_of):
        known = _HANDLE.match(email)
        login = known[1] if known else ""
        wrote = {name.lower(), email.lower(), login.lower()} & (change.authors | {change.author.lower()}) - {""}
        if wrote or _PROGRAM.search(name) or (known and "[bot]" in email):
            continue
        kept = people.setdefault(name.lower(), (name, login, []))
        kept[2].append(number_of[commit_id])
        if login and not kept[1]:
            people[name.lower()] = (name, login, kept[2])
    ranked = sorted(people.values(), key=lambda one: (-sum(weight_of[number] for number in one[2]), one[0]))
    given = 0
    for name, login, numbers in ranked:
        last = max(numbers)
        account = login or handle(history.hashes[last])
        if account and account.lower() in change.authors | {change.author.lower()}:
            continue  # the author again, by an address that only the forge knows
        yield Reviewer(name, account, len(numbers), day_of(int(history.times[last])), history.hashes[last])
        given += 1
        if given == MOST_REVIEWERS:
            return


def _risk(
    history: History,
    touches: Touches,
    seen: npt.NDArray[np.bool_],
    files: Sequence[int],
    mask: Mask,
    change: Change,
) -> Risk:
    told, mended = mended_touches(history, touches, seen)
    ours = np.isin(touches.files[seen], files)
    changes, bad = int((told & ours).sum()), int((mended & ours).sum())
    usual = float(mended.sum() / max(1, told.sum()))
    low, high = wilson(bad, changes)
    level: Literal["higher", "usual", "lower", "unknown"] = (
        "unknown" if changes < ENOUGH else "higher" if low > usual else "lower" if high < usual else "usual"
    )
    lines = sum(one.added + one.removed for one in change.files)
    sizes = np.array([row[::2] for row in history.store.sizes()], np.int64).reshape(-1, 2)
    numbers = history.numbers(sizes[:, 0])
    kept = numbers >= 0
    kept[kept] &= mask[numbers[kept]] & ~history.merges[numbers[kept]]
    smaller = float((sizes[kept, 1] < lines).mean()) if kept.any() else None
    return Risk(
        level, changes, bad, round(bad / changes, 4) if changes else 0.0, round(low, 4), round(high, 4),
        round(usual, 4), lines, None if smaller is None else round(smaller, 4),
    )  # fmt: skip


def mended_touches(
    history: History, touches: Touches, seen: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Of the touches that are seen, in their order: which are old enough to tell, and which of those were mended: a fix
    or a revert, by its subject, touched the same file within :data:`MENDED_DAYS` after.
    """
    commits, files = touches.commits[seen], touches.files[seen]
    mending = np.zeros(len(history), bool)
    ids = [commit_id for commit_id, subject in history.store.subjects() if _MENDS.search(subject)]
    numbers = history.numbers(np.array(ids, np.int64)) if ids else np.empty(0, np.int64)
    mending[numbers[numbers >= 0]] = True
    order = np.lexsort((commits, files))
    at, of = history.times[commits[order]], files[order]
    fixes = np.flatnonzero(mending[commits[order]])
    following = np.searchsorted(fixes, np.arange(len(order)), side="right")
    has = following < len(fixes)
    fix = fixes[np.minimum(following, max(0, len(fixes) - 1))] if len(fixes) else np.zeros(len(order), np.int64)
    after = at[fix] - at
    soon = has & (of[fix] == of) & (after <= MENDED_DAYS * _DAY) if len(order) else has
    newest = int(at.max(initial=0))
    told = newest - at >= MENDED_DAYS * _DAY
    back = np.empty(len(order), np.int64)
    back[order] = np.arange(len(order))
    return told[back], (soon & told)[back]


def wilson(hits: int, of: int) -> tuple[float, float]:
    """The interval of 95 % of a share (Wilson's score)."""
    if not of:
        return 0.0, 1.0
    z = 1.959964
    share, square = hits / of, z * z
    middle = (share + square / (2 * of)) / (1 + square / of)
    half = z / (1 + square / of) * math.sqrt(share * (1 - share) / of + square / (4 * of * of))
    return max(0.0, middle - half), min(1.0, middle + half)
