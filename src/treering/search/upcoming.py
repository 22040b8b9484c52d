"""What may come next, by the history alone: files that fade since they were last touched, files that usually change
together and did not yet, and what the last commits are about.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from treering.search.files import Touches
from treering.search.history import History, Mask, Scores
from treering.search.lexical import STOP_WORDS
from treering.text.words import STEM, vocabulary

FADES = 30.0
"""After so many commits a touch counts 1/e of what it did."""
LAST = 10
"""How many of the last commits are looked at for what they leave open."""
OFTEN = 3
"""Two files that changed together less often than this did so by chance."""
USUALLY = 0.4
"""How large a part of a file's commits must touch the other one."""
RECENT = 30
"""How many of the last commits make a theme."""


def plain(history: History, mask: Mask) -> list[int]:
    """The commits of ``mask`` that are no merges, oldest first."""
    found: list[int] = np.flatnonzero(mask & ~history.merges).tolist()
    return found


def fading(history: History, touches: Touches, mask: Mask, fades: float = FADES) -> Scores:
    """For each file how often it was touched, each touch fading with every commit after it: with ``fades`` of infinity
    a plain count, near 0 an order by the last touch.
    """
    known = mask & ~history.merges
    age = known.sum() - np.cumsum(known)
    seen = known[touches.commits]
    weights = np.exp(-age[touches.commits[seen]] / fades)
    return np.asarray(np.bincount(touches.files[seen], weights, len(touches.names)), np.float64)


@dataclass(frozen=True, slots=True)
class Partner:
    """A file that usually changes with one that did, and has not since: ``together`` of ``changed`` times."""

    path: str
    beside: str
    together: int
    changed: int


def partners(history: History, touches: Touches, mask: Mask, there: Sequence[str], most: int) -> list[Partner]:
    """What the last commits leave open, the surest first. Only files that are ``there``."""
    last = plain(history, mask)[-LAST:]
    seen = mask[touches.commits]
    commits, files = touches.commits[seen], touches.files[seen]
    recent = np.unique(files[np.isin(commits, last)])
    exists = set(there)
    found: dict[str, tuple[float, Partner]] = {}
    for file in recent.tolist():
        theirs = np.unique(commits[(files == file) & ~np.isin(commits, last)])
        counts = np.bincount(files[np.isin(commits, theirs)], minlength=len(touches.names))
        counts[recent] = 0
        for other in np.flatnonzero(counts >= max(OFTEN, USUALLY * len(theirs))).tolist():
            path = touches.names[other]
            # Of few times the share is drawn down: 3 of 3 tell less than 30 of 31.
            sure = counts[other] / (len(theirs) + 2)
            if path in exists and sure > found.get(path, (0.0, None))[0]:
                found[path] = sure, Partner(path, touches.names[file], int(counts[other]), len(theirs))
    best = sorted(found.values(), key=lambda item: (-item[0], item[1].path))
    return [partner for _, partner in best[:most]]


@dataclass(frozen=True, slots=True)
class Theme:
    """A word that the last commits use more than those before, and which of them do, newest first."""

    word: str
    commits: tuple[str, ...]


def themes(history: History, messages: dict[int, str], most: int) -> list[Theme]:
    """What the last commits of ``messages`` (by number) are about, most telling first: log odds with a prior from all
    of them (Monroe, Colaresi and Quinn, 2008).
    """
    numbers = sorted(messages)
    last, before = numbers[-RECENT:], numbers[:-RECENT]
    words = {number: {word for word in vocabulary(messages[number]) if _tells(word)} for number in numbers}
    often: dict[str, list[int]] = {}
    for number in last:
        for word in words[number]:
            often.setdefault(word, []).append(number)
    found = []
    for word, holding in often.items():
        if len(holding) < 2:
            continue
        old = sum(word in words[number] for number in before)
        prior = (old + len(holding)) / len(numbers)
        odds = np.log((len(holding) + prior) / (len(last) - len(holding) + 1))
        odds -= np.log((old + prior) / (len(before) - old + 1))
        score = odds / np.sqrt(1 / (len(holding) + prior) + 1 / (old + prior))
        found.append((float(score), word, tuple(history.hashes[number] for number in holding[::-1])))
    found.sort(key=lambda item: (-item[0], item[1]))
    return [Theme(word, commits) for _, word, commits in found[:most]]


def _tells(word: str) -> bool:
    return len(word) > 2 and word.isalpha() and not word.endswith(STEM) and word not in STOP_WORDS
