"""The store of one repository: one SQLite file, and folders named by what decided their content."""

from treering.store.commits import BATCH
from treering.store.database import FOLDER, Ran, store_folder
from treering.store.rows import Rows

__all__ = ["BATCH", "FOLDER", "Ran", "Store", "store_folder"]


class Store(Rows):
    """An open store, with all of its tables."""

    repositories: tuple[str, ...] = ("",)
    """The names of those it is of. Of one that is not said."""
