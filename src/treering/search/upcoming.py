"""What may come next, by the history alone: files that fade since they were last touched, and files that usually change
together and did not yet.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from treering.search.files import Touches
from treering.search.history import History, Mask, Scores

FADES = 30.0
"""After so many commits a touch counts 1/e of what it did."""
LAST = 10
"""How many of the last commits are looked at for what they leave open."""
OFTEN = 3
"""Two files that changed together less often than this did so by chance."""
USUALLY = 0.4
"""How large a part of a file's commits must touch the other one."""


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
    recent = np.unique(touches.files[seen & np.isin(touches.commits, last)])
    return beside(touches, seen & ~np.isin(touches.commits, last), recent.tolist(), there, most)


def beside(
    touches: Touches,
    seen: npt.NDArray[np.bool_],
    files: Sequence[int],
    there: Sequence[str],
    most: int,
    *,
    often: int = OFTEN,
    usually: float = USUALLY,
) -> list[Partner]:
    """The files that change together with some and are none of them, ``often`` and in so large a part of the commits of
    one of those: the surest first, by the touches that are ``seen``. Only files that are ``there``.
    """
    commits, touched = touches.commits[seen], touches.files[seen]
    exists = set(there)
    found: dict[str, tuple[float, Partner]] = {}
    for file in files:
        theirs = np.unique(commits[touched == file])
        counts = np.bincount(touched[np.isin(commits, theirs)], minlength=len(touches.names))
        counts[list(files)] = 0
        for other in np.flatnonzero(counts >= max(often, usually * len(theirs))).tolist():
            path = touches.names[other]
            # Of few times the share is drawn down: 3 of 3 tell less than 30 of 31.
            sure = counts[other] / (len(theirs) + 2)
            if path in exists and sure > found.get(path, (0.0, None))[0]:
                found[path] = sure, Partner(path, touches.names[file], int(counts[other]), len(theirs))
    best = sorted(found.values(), key=lambda item: (-item[0], item[1].path))
    return [partner for _, partner in best[:most]]
