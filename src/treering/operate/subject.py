"""What is looked at when a store is verified, and what was seen of one part of it."""

import random
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from treering.config import Settings
from treering.git.reader import Source
from treering.report import Reporter
from treering.store import Store
from treering.vectors.embedder import Embedder

T = TypeVar("T")

ASIDE = "aside"
"""The folder of a store that holds what a repair took out, until ``treering gc`` removes it."""
EXAMPLES = 5


@dataclass(slots=True)
class Seen:
    """What was seen of one part: what was looked at, what is wrong with it, and what is worth a note and no fault: what
    the next run does anyway. ``concerned`` are the commits, rows or folders that are to be mended.
    """

    looked_at: str = ""
    wrong: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    commits: set[int] = field(default_factory=set)
    rows: set[int] = field(default_factory=set)
    folders: list[Path] = field(default_factory=list)

    def fault(self, what: str, examples: Sequence[object] = ()) -> None:
        """Say that something is wrong, with the first few that show it."""
        shown = ", ".join(str(one) for one in examples[:EXAMPLES])
        self.wrong.append(f"{what}: {shown}{', …' if len(examples) > EXAMPLES else ''}" if examples else what)


@dataclass(frozen=True, slots=True)
class Aside:
    """Where a repair puts what it takes out. Nothing is made before something comes in."""

    folder: Path

    @classmethod
    def of(cls, store: Path) -> "Aside":
        return cls(store / ASIDE / time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()))

    def take(self, path: Path) -> None:
        """Move a file or a folder here."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path.rename(self._free(path.name))

    def copy(self, path: Path) -> None:
        """Copy a file here, before it is changed."""
        self.folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, self._free(path.name))

    def _free(self, name: str) -> Path:
        names = (name, *(f"{name}.{number}" for number in range(1, 10_000)))
        return next(self.folder / one for one in names if not (self.folder / one).exists())


@dataclass(slots=True)
class Subject:
    """An open store and all that it is compared with. ``embedder`` is None where its model is not on this machine.
    ``suspect`` are commits whose texts were mended, so that their vectors are looked at again.
    """

    store: Store
    source: Source
    settings: Settings
    report: Reporter
    embedder: Embedder | None
    everything: bool
    aside: Aside
    suspect: set[int] = field(default_factory=set)
    torn: set[int] = field(default_factory=set)
    """Commits whose documents cannot be read."""

    def some(self, of: Sequence[T], most: int) -> list[T]:
        """A sample spread over all of ``of``, another one each time; all of it where everything is looked at."""
        if self.everything or len(of) <= most:
            return list(of)
        step = len(of) / most
        start = random.random() * step  # noqa: S311  (it chooses a sample)
        return [of[int(start + number * step)] for number in range(most)]
