"""What was computed from each image, on disk: in this training, after it was killed, and in the next one."""

import contextlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from trainer import rows
from trainer.dataset import Split


class Store:
    """A folder of arrays, a file a split, named after what was computed and from which images."""

    def __init__(self, folder: Path):
        """Opens a folder, made where it is missing; everything else that the results depend on belongs to its name.

        Half a file that a killed process left is removed: nobody else writes while the output folder is held.
        """
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in folder.glob(".*"):
            leftover.unlink()
        self.folder = folder
        self._used: set[Path] = set()

    def has(self, name: str, split: Split) -> bool:
        """Whether it was computed before."""
        return self._path(name, split).is_file()

    def computed(
        self, name: str, split: Split, shape: Sequence[int], compute: Callable[[Split], Iterable[np.ndarray]]
    ) -> Split:
        """The same examples with something computed from each image in its place, computed where it is not here.

        Args:
          name: of what is computed.
          split: of images.
          shape: of the result for one.
          compute: gives float32 [batch, *shape] batches in the sorted order.
        """
        path = self._path(name, split)
        self._used.add(path)
        with contextlib.suppress(OSError, ValueError):
            return split.replaced(rows.Rows(path, (len(split), *shape), np.float32))
        rows.write(path, compute(split))
        return split.replaced(rows.Rows(path, (len(split), *shape), np.float32))

    def prune(self) -> None:
        """Removes what this training did not use."""
        for path in self.folder.iterdir():
            if path not in self._used:
                path.unlink()

    def _path(self, name: str, split: Split) -> Path:
        if not split.digest:
            raise ValueError("A split without a digest cannot be kept: nothing would tell it from another.")
        return self.folder / f"{name}-{split.digest[:32]}"
