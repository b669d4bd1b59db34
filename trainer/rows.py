"""Arrays in files, read row by row: what was read does not stay in memory, as it would with a memory map."""

import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from components.files import whole


class Rows:
    """A file of equally large rows.

    Attributes:
      shape: as of a numpy array: number of rows, then the shape of one.
      dtype: of the numbers.
    """

    def __init__(self, path: Path, shape: Sequence[int], dtype: np.dtype | type):
        """Opens a file.

        Args:
          path: holds exactly the bytes of such an array.
          shape: number of rows, then the shape of one.
          dtype: of the numbers.

        Raises:
          ValueError: the file has another size.
        """
        self.shape, self.dtype = tuple(shape), np.dtype(dtype)
        self._row_bytes = math.prod(self.shape[1:]) * self.dtype.itemsize
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115 - closed with the object; rows are read all along
        if (size := os.fstat(self._file.fileno()).st_size) != self._row_bytes * len(self):
            raise ValueError(f"{path} holds {size} bytes; {self.shape} of {self.dtype} are not that many.")

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: np.ndarray) -> np.ndarray:
        """The rows of those numbers, [len(index), ...], in that order; safe to call from several threads."""
        rows = np.empty((len(index), *self.shape[1:]), self.dtype)
        target, size = memoryview(rows.reshape(-1).view(np.uint8)), self._row_bytes
        for position, row in enumerate(np.asarray(index).tolist()):
            # A short read is possible only past the end, which the size that was checked rules out.
            os.preadv(self._file.fileno(), [target[position * size : (position + 1) * size]], row * size)
        return rows


def write(path: Path, batches: Iterable[np.ndarray]) -> None:
    """Writes rows; the file has its name only when it is whole.

    Args:
      path: in an existing folder.
      batches: arrays of the same dtype and shape of a row.
    """
    with whole(path) as file:
        for batch in batches:
            # Not `tofile`, whose error does not say why.
            file.write(np.ascontiguousarray(batch).data)
