"""index and model → proposals: what a change is called, how its message goes on, what comes next.

What is evaluated and what answers a user is made here, so that the figures are of the answers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from treering.lm.completion import Completer, Draft, Position, Weights, joined, mixed
from treering.lm.scorer import Scorer
from treering.search.commits import Finder
from treering.search.history import Mask
from treering.text.document import best_names
from treering.text.words import identifiers, plain_words
from treering.types import Features, Record

NEAR = 8
"""How many of the nearest commits are asked for their words."""
SHOWN, SHOWN_PATHS = 5, 4
"""How many of them are shown to the model, and how many paths of each."""
SUBJECT = 120
"""Characters of a subject that count."""
READ = 10_000
"""How many of the newest messages are counted."""


@dataclass(frozen=True, slots=True)
class Change:
    """What is known of a commit before it has a message."""

    paths: tuple[str, ...]
    functions: tuple[str, ...]
    names: tuple[str, ...]

    @property
    def query(self) -> str:
        return " ".join((*self.paths[:8], *self.names, *self.functions[:4]))

    @property
    def words(self) -> list[str]:
        """The names in it that a message may hold: of files, folders, functions, and those that it adds."""
        found: list[str] = []
        for path in self.paths[: NEAR * SHOWN_PATHS]:
            *folders, name = path.split("/")
            found += [name, name.rpartition(".")[0], *folders, *plain_words(name)]
        inside = (name for function in self.functions for name in identifiers(function))
        return [name for name in (*found, *self.names, *inside) if name]


def change_of(said: Features) -> Change:
    return Change(said.paths, said.functions, tuple(best_names(said)))


def nearest(finder: Finder, change: Change, mask: Mask) -> list[int]:
    """The commits of ``mask`` that did most nearly the same and have a message that says something."""
    if not change.query.strip():
        return []
    through = ~finder.history.merges & ~finder.history.empty(mask)
    found: list[int] = finder.ask(change.query, mask=mask, through=through).numbers[:NEAR].tolist()
    return found
