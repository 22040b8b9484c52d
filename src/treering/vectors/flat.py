"""The vector back end that needs nothing: one float32 matrix in a file, memory-mapped and scanned exactly.

The database names its rows. A row counts once it is named there, so the file is written and flushed first; rows that
a kill left without a name are overwritten by the next append.
"""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from treering.errors import StoreError
from treering.files import os_errors
from treering.vectors.index import Matrix

MEND = "run `treering verify --repair`, or `treering index --rebuild`"
LOOKED_AT = 1000
"""On so many rows, throughout the file, is seen whether they have length 1."""


class FlatMatrix:
    """``vectors.f32`` in a folder: rows of ``dimensions`` little-endian float32."""

    def __init__(self, folder: Path, dimensions: int) -> None:
        self.path = folder / "vectors.f32"
        self.dimensions = dimensions

    def append(self, named: int, rows: Matrix) -> None:
        """Put ``rows`` after the first ``named`` ones and flush them to the disk."""
        with os_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("r+b" if self.path.exists() else "w+b") as file:
                start = named * self.dimensions * 4
                if os.fstat(file.fileno()).st_size < start:
                    raise self._torn()
                file.seek(start)
                file.write(np.ascontiguousarray(rows, dtype="<f4").tobytes())
                file.flush()
                os.fsync(file.fileno())

    def mend(self, rows: Mapping[int, Matrix]) -> None:
        """Put other vectors in the place of some rows, those that are lost too, and flush them to the disk."""
        with os_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.touch()
        with os_errors(self.path), self.path.open("r+b") as file:
            for row, vector in rows.items():
                file.seek(row * self.dimensions * 4)
                file.write(np.ascontiguousarray(vector, dtype="<f4").tobytes())
            file.flush()
            os.fsync(file.fileno())

    def holds(self, named: int) -> bool:
        """Whether the file has that many rows."""
        return not named or (self.path.is_file() and self.path.stat().st_size >= named * self.dimensions * 4)

    def rows(self, named: int) -> Matrix:
        """The first ``named`` rows, memory-mapped: shape (named, dimensions)."""
        if not named:
            return np.zeros((0, self.dimensions), dtype=np.float32)
        try:
            rows = np.memmap(self.path, dtype="<f4", mode="r", shape=(named, self.dimensions))
        except (OSError, ValueError) as error:
            raise self._torn() from error
        with np.errstate(invalid="ignore", over="ignore"):
            some = np.array(rows[:: max(1, named // LOOKED_AT)], np.float64)
            whole = np.abs(np.einsum("ij,ij->i", some, some) - 1) < 1e-2
        if not whole.all():
            raise StoreError(
                f"{self.path} is damaged: it holds what is no vector",
                MEND,
            )
        return rows

    def _torn(self) -> StoreError:
        return StoreError(
            f"{self.path} is torn: it has fewer vectors than the index names",
            MEND,
        )
