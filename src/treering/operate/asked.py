"""The queue between hooks and the watcher: two empty files in a folder of the store.

A hook makes ``asked`` if it is not there. The watcher renames it to ``taken`` before it looks at the repository, and
removes that only when the index holds what it saw: killed at any moment, one of the two is still there.
"""

import os
from pathlib import Path

from treering.files import os_errors
from treering.store.database import make_folder

FOLDER = "queue"
ASKED = "asked"


def queue_of(store: Path) -> Path:
    return store / FOLDER


class Queue:
    """The queue of a store."""

    def __init__(self, store: Path) -> None:
        self.folder = queue_of(store)
        self.lock = self.folder / "watcher.lock"
        """Held by the one watcher of the store."""
        self._asked, self._taken = self.folder / ASKED, self.folder / "taken"

    def make(self) -> None:
        make_folder(self.folder.parent)
        with os_errors(self.folder):
            self.folder.mkdir(exist_ok=True)

    @property
    def waits(self) -> bool:
        """Whether something was asked for that no index run has answered yet."""
        return os.path.lexists(self._asked) or os.path.lexists(self._taken)

    def take(self) -> bool:
        """Take what was asked for since the last time, if anything was: what is asked from now on is asked anew."""
        with os_errors(self._taken):
            try:
                self._asked.replace(self._taken)
            except FileNotFoundError:
                return False
        return True

    def begin(self) -> None:
        """Say that work is under way which nobody asked for."""
        with os_errors(self._taken):
            self._taken.touch()

    def done(self) -> None:
        """All that was taken is answered."""
        with os_errors(self._taken):
            self._taken.unlink(missing_ok=True)
