"""What a killed training goes on from."""

import json
import time
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from components.files import whole

# Saving may take this share of the time between two of them, and is not done more often than that.
SHARE, SECONDS = 0.05, 0.5


class Checkpoints:
    """Named states in a folder, each a note and some arrays; a file is whole or not there."""

    def __init__(self, folder: Path | None):
        """Keeps states.

        Args:
          folder: an existing one; None keeps nothing.
        """
        self._folder = folder
        self._next = 0.0

    def offer(self, name: str, note: dict[str, Any], arrays: Callable[[], Sequence[np.ndarray]]) -> None:
        """Saves in the place of what has that name, unless the last time was a moment ago."""
        if time.monotonic() >= self._next:
            self.save(name, note, arrays)

    def save(self, name: str, note: dict[str, Any], arrays: Callable[[], Sequence[np.ndarray]]) -> None:
        """Saves in the place of what has that name.

        Args:
          name: of the state.
          note: of what JSON takes.
          arrays: gives numbers.
        """
        if self._folder is None:
            return
        began = time.monotonic()
        named = {f"array-{number}": array for number, array in enumerate(arrays())}
        with whole(self._path(name)) as file:
            np.savez(file, note=np.frombuffer(json.dumps(note).encode(), np.uint8), **named)
        now = time.monotonic()
        self._next = now + max(SECONDS, (now - began) / SHARE)

    def read(self, name: str) -> tuple[dict[str, Any], list[np.ndarray]] | None:
        """What was saved last under a name; None where there is nothing, or nothing that can be read."""
        if self._folder is None:
            return None
        try:
            # Nothing but numbers: numpy's own objects would be code.
            with np.load(self._path(name), allow_pickle=False) as content:
                arrays = [content[f"array-{number}"] for number in range(len(content.files) - 1)]
                return json.loads(content["note"].tobytes()), arrays
        except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile):
            return None

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.npz"
