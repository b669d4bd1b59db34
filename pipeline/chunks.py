"""Batch prediction's work in pieces: a listing in numbered chunks, and for each of them a part of the answers.

Both lie in a scratch folder, so that no process holds more than the chunk that it works on, however many files there
are, and so that it does not matter which process answers a chunk, in which order, or how often.
"""

import contextlib
import itertools
import json
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from components import progress
from components.errors import UsageError
from components.files import whole, write_whole
from pipeline.answer_files import AnswerFile
from pipeline.predict import Limits, Loaded, classify, find_model
from pipeline.repeated import repeatedly

# Files in a chunk: a second of work, or a few.
CHUNK = 256
# What a SavedModel consists of; a published version also has things that only people read.
MODEL_PARTS = ("saved_model.pb", "fingerprint.pb", "variables", "assets")
SECONDS_BETWEEN_LOOKS = 0.5


class Chunks:
    """Work on files in a scratch folder.

    Args:
      folder: of this work alone; every process that takes part reaches it.

    Attributes:
      model: where `copy_model` puts the model.
      sizes: files in each chunk, after `divide`.
    """

    def __init__(self, folder: Path):
        self.model = folder / "model"
        self.sizes: list[int] = []
        self._listed, self._parts, self._failed = folder / "listed", folder / "parts", folder / "failed"

    def copy_model(self, model: Path) -> None:
        """Takes the version in service, so that workers which load it later get the same, even if it is retired.

        Args:
          model: a version, or a serving folder.

        Raises:
          UsageError: there is none.
        """
        version = find_model(model)
        try:
            _copy_model(version, self.model)
        except FileNotFoundError:
            # Retired while it was copied; then there is a newer one, unless that very version was asked for.
            shutil.rmtree(self.model, ignore_errors=True)
            if version == model:
                raise UsageError(f"The model {model} was removed while it was read.") from None
            self.copy_model(model)

    def divide(self, paths: Iterable[str]) -> None:
        """Writes the listing down."""
        for made in (self._listed, self._parts, self._failed):
            made.mkdir()
        paths = iter(paths)
        while chunk := list(itertools.islice(paths, CHUNK)):
            (self._listed / str(len(self.sizes))).write_text(json.dumps(chunk))
            self.sizes.append(len(chunk))

    def first(self) -> list[str]:
        """The path of the first file, where there is one."""
        return self.listed(0)[:1] if self.sizes else []

    def listed(self, number: int) -> list[str]:
        """The paths in a chunk."""
        return json.loads((self._listed / str(number)).read_text())

    def answer(self, number: int, loaded: Loaded, answers: AnswerFile, limits: Limits, at_once: int) -> None:
        """Makes a chunk's part, whole or not at all; where there is one already nothing is done.

        Args:
          number: of the chunk, from 0.
          loaded: the copied model.
          answers: the format.
          limits: as for `classify`.
          at_once: as for `classify`.
        """
        part = self._parts / str(number)
        if part.exists():
            return
        rows = list(classify(loaded, self.listed(number), limits, at_once))
        if failed := [(row["path"], row["error"]) for row in rows if "error" in row]:
            write_whole(self._failed / str(number), json.dumps(failed))
        with whole(part) as file:
            answers.write_part(rows, file)

    def parts(self) -> Iterator[Path]:
        """The parts in the order of the listing."""
        return (self._parts / str(number) for number in range(len(self.sizes)))

    def failed(self) -> Iterator[tuple[str, str]]:
        """(path, error) of files that could not be classified, in the order of the listing."""
        for number in range(len(self.sizes)):
            file = self._failed / str(number)
            if file.exists():
                yield from map(tuple, json.loads(file.read_text()))

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Tells `components.progress` of finished parts while the body runs, whichever process makes them."""
        told = 0

        def look() -> None:
            nonlocal told
            # A part that is being written has a hidden name.
            done = sum(self.sizes[int(part.name)] for part in self._parts.iterdir() if part.name.isdecimal())
            progress.advance(done - told)
            told = done

        progress.start(sum(self.sizes), unit="files")
        with repeatedly(look, SECONDS_BETWEEN_LOOKS):
            yield


def _copy_model(version: Path, to: Path) -> None:
    """Raises `FileNotFoundError` where the version is gone before all of it was copied."""
    found = [path for name in MODEL_PARTS for path in (version / name, *(version / name).rglob("*")) if path.is_file()]
    for path in found:
        copy = to / path.relative_to(version)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    # A version goes as a whole: if this is there, so was everything else.
    (version / MODEL_PARTS[0]).stat()
