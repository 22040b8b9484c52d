"""Every error treering raises on purpose, and the exit code each one ends a command with.

    TreeringError            1  the root: catch this to catch all of ours
    ├── UsageError           2  an argument, flag or setting that cannot be
    ├── RepositoryError      3  not a repository, no commits, no permission, no git
    │   └── DamagedRepository   a corrupt pack or a missing commit: the history cannot be told truthfully
    ├── StoreError           4  the store cannot be opened, read or written
    │   ├── NoStore             nothing was indexed yet
    │   ├── StoreBusy           another process is writing, or wrote what was read without a lock; the message names it
    │   ├── StoreAway           a Qdrant server does not answer, or not now: the same again may go well
    │   └── DiskFull            nothing was lost: what was committed stays, the rest is made next time
    ├── DataError            5  a file given as input is torn, empty or made for something else; an index holds nothing
    ├── ModelError           6  a model is not on this machine, or is not what it should be
    │   └── MissingExtra        an optional part of treering is not installed
    ├── Incomplete           7  the work was done but is partial, and --strict was given, or a part of it failed
    ├── BudgetError          8  a ceiling of spending is reached, or a price is not known: nothing was spent
    ├── ServiceError         9  a service that is asked does not answer or refuses, or ours cannot start
    │   ├── NoKey               there is no key to ask it with
    │   └── NoSandbox           tests cannot be run apart from this machine
    └── Unsound             14  `doctor` or `verify` found what is wrong; what it is, is on stdout

A verdict of ``treering gate`` is no error, and has codes of its own: 10 to 13.

130 is an interrupt (Ctrl-C). Codes are part of the command line's promise: docs/errors.md.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar


class TreeringError(Exception):
    """A failure that names the thing and, in ``hint``, the way out."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(TreeringError):
    exit_code = 2


class RepositoryError(TreeringError):
    exit_code = 3


class DamagedRepository(RepositoryError):  # noqa: N818  (it is what the repository is)
    pass


class StoreError(TreeringError):
    exit_code = 4


class NoStore(StoreError):  # noqa: N818
    pass


class StoreBusy(StoreError):  # noqa: N818
    pass


class StoreAway(StoreError):  # noqa: N818
    pass


class DiskFull(StoreError):  # noqa: N818
    pass


class DataError(TreeringError):
    exit_code = 5


class ModelError(TreeringError):
    exit_code = 6


class MissingExtra(ModelError):  # noqa: N818
    pass


class Incomplete(TreeringError):  # noqa: N818
    exit_code = 7


class BudgetError(TreeringError):
    exit_code = 8


class ServiceError(TreeringError):
    exit_code = 9


class NoKey(ServiceError):  # noqa: N818
    pass


class NoSandbox(ServiceError):  # noqa: N818
    pass


class Unsound(TreeringError):  # noqa: N818
    exit_code = 14


@contextmanager
def needs(extra: str) -> Iterator[None]:
    """Turn a missing optional library inside the block into an error that names the extra."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingExtra(
            f"this needs the package `{error.name}`, which is not installed",
            f"pip install '.[{extra}]' in the folder of treering",
        ) from error
