"""Classifies files with an exported model; needs TensorFlow and, for rare formats, Pillow."""

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components import parallel, storage
from components.decodable import UNREADABLE, NoImage, TooLarge, checked, converted, decodable
from components.errors import UsageError
from components.inspection import MAX_PIXELS
from components.publishing import newest
from components.serving_places import SAVED_MODEL

if TYPE_CHECKING:
    from pipeline.config import Config

# Images that go through the network together.
BATCH = 32
# Batches that are worked on side by side: one is decoded while another is in the network.
BATCHES_AT_ONCE = 2
# More would cost memory: some 150 MB each.
MOST_BATCHES_AT_ONCE = 8
READERS = 8
# Of files, in one batch.
BATCH_BYTES = 64_000_000
# Of one file that is read before its turn; `BATCH` of them are.
AHEAD_BYTES = 4_000_000


@dataclass(frozen=True)
class Loaded:
    """An exported model that is ready to answer: its signature for raw bytes, and its class names by id."""

    signature: Any
    names: list[str]


@dataclass(frozen=True)
class Limits:
    """What a file may cost.

    Attributes:
      max_pixels: a header that claims more is answered with an error and not decoded (`data.max_pixels`).
      max_bytes: a larger file is answered with an error (`data.max_bytes`).
    """

    max_pixels: int = MAX_PIXELS
    max_bytes: int = 200_000_000

    @classmethod
    def of(cls, config: "Config") -> "Limits":
        return cls(config.data.max_pixels, config.data.max_bytes)


# ---- the model ------------------------------------------------------------------------------------------------------


def find_model(folder: Path) -> Path:
    """A published version, or the newest version of a serving folder.

    Raises:
      UsageError: there is none.
    """
    if (folder / SAVED_MODEL).is_file():
        return folder
    version = newest(folder)
    if version is None:
        raise UsageError(f"There is no model in {folder}; give a published version, such as OUTPUT/serving/1700000000.")
    return version


def classifier(folder: Path) -> Loaded:
    """Loads what `find_model` found.

    Raises:
      UsageError: it is no model that Graft exported.
    """
    import tensorflow as tf

    try:
        model = tf.saved_model.load(str(folder))
        return Loaded(model.signatures["serving_default"], [name.decode() for name in model.class_names.numpy()])
    except (OSError, KeyError, AttributeError, ValueError, tf.errors.OpError) as error:
        raise UsageError(f"{folder} is not a model that Graft exported ({type(error).__name__}).") from None


def share_cores(processes: int = 1) -> int:
    """Gives each batch cores of its own, which costs less than giving every batch all of them (docs/predict.md).

    Call it before TensorFlow has begun to work; later it keeps the threads that it has.

    Args:
      processes: that share the machine's cores.

    Returns:
      How many batches to work on at once, for `classify`.
    """
    import tensorflow as tf

    cores = max(1, parallel.cores() // processes)
    at_once = min(max(cores, BATCHES_AT_ONCE), MOST_BATCHES_AT_ONCE)
    with contextlib.suppress(RuntimeError):
        tf.config.threading.set_intra_op_parallelism_threads(max(1, cores // at_once))
        # With one of these, batches would wait for each other.
        tf.config.threading.set_inter_op_parallelism_threads(cores)
    return at_once


# ---- files ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _File:
    """What was read of a file: bytes that the model takes and the pixels that they claim, or an error.

    Attributes:
      waits: it is large or must be converted, and `_finished` does the rest when it is its turn; `data` are the file's
        bytes, or empty where it was not read.
    """

    path: str
    data: bytes = b""
    pixels: int = 0
    error: str | None = None
    waits: bool = False


def _read(path: str, limits: Limits) -> _File:
    """Many files are read before their turn; so this keeps no more than `AHEAD_BYTES` of each."""

    def look() -> _File:
        # A pipe can be read only once.
        again = storage.is_uri(path) or os.path.isfile(path)
        most = min(limits.max_bytes, AHEAD_BYTES) if again else limits.max_bytes
        # One more: a remote file does not tell its size before.
        data = storage.read_bytes(path, most + 1)
        if most < len(data) and most < limits.max_bytes:
            return _File(path, waits=True)
        image = checked(_within(data, limits), limits.max_pixels)
        return _File(path, image.data, image.pixels, waits=not image.ready)

    return _or_error(path, look)


def _finished(file: _File, limits: Limits) -> _File:
    """A file that waited."""

    def finish() -> _File:
        data = file.data or _within(storage.read_bytes(file.path, limits.max_bytes + 1), limits)
        image = decodable(data, limits.max_pixels)
        return _File(file.path, image.data, image.pixels)

    return _or_error(file.path, finish)


def _within(data: bytes, limits: Limits) -> bytes:
    if len(data) > limits.max_bytes:
        raise NoImage(f"has more bytes than data.max_bytes allows ({limits.max_bytes})")
    return data


def _or_error(path: str, read: Callable[[], _File]) -> _File:
    try:
        return read()
    except IsADirectoryError:
        # Only a folder that the listing could not look into is taken for a file.
        return _File(path, error="is a folder that cannot be listed")
    except OSError as error:
        return _File(path, error=f"cannot be read ({error.strerror})")
    except TooLarge as error:
        return _File(path, error=f"{error} (data.max_pixels)")
    except NoImage as error:
        return _File(path, error=str(error))


# ---- answers --------------------------------------------------------------------------------------------------------


def classify(
    loaded: Loaded, paths: Iterable[str | Path], limits: Limits | None = None, at_once: int = BATCHES_AT_ONCE
) -> Iterator[dict[str, Any]]:
    """Answers for files, in their order, in memory that does not grow with their number.

    Args:
      loaded: from `classifier`.
      paths: local files, or URIs that Beam reads.
      limits: what a file may cost; None for the defaults.
      at_once: batches that are worked on side by side.

    Yields:
      `{path, label, score, probabilities}`, the last by class name, or `{path, error}` for what is no image that it
      can read.
    """
    limits = limits or Limits()
    with parallel.pool(READERS) as readers, parallel.pool(at_once) as classifiers:
        files = parallel.ordered(readers, lambda path: _read(str(path), limits), paths, ahead=BATCH)
        batches = _batches(files, limits.max_pixels)
        answers = parallel.ordered(
            classifiers, lambda batch: _answers(loaded, batch, limits), batches, ahead=at_once + 1
        )
        for batch in answers:
            yield from batch


def _batches(files: Iterable[_File], max_pixels: int) -> Iterator[list[_File]]:
    """`BATCH` files or, where they are large, fewer: together no more pixels than one alone may have.

    What waits is alone: nobody knows yet how large it is.
    """
    batch: list[_File] = []
    for file in files:
        full = (
            len(batch) == BATCH
            or file.waits
            or any(other.waits for other in batch)
            or sum(other.pixels for other in batch) + file.pixels > max_pixels
            or sum(len(other.data) for other in batch) + len(file.data) > BATCH_BYTES
        )
        if batch and full:
            yield batch
            batch = []
        batch.append(file)
    if batch:
        yield batch


def _answers(loaded: Loaded, batch: list[_File], limits: Limits) -> list[dict[str, Any]]:
    batch = [_finished(file, limits) if file.waits else file for file in batch]
    answered = iter(_classified(loaded, [file for file in batch if file.error is None], limits))
    return [{"path": file.path, "error": file.error} if file.error else next(answered) for file in batch]


def _classified(loaded: Loaded, files: list[_File], limits: Limits) -> list[dict[str, Any]]:
    import tensorflow as tf

    if not files:
        return []
    try:
        found = loaded.signature(tf.constant([file.data for file in files]))
    except tf.errors.OpError:
        if len(files) > 1:
            # One bad file fails the batch: it is in one of the halves.
            middle = len(files) // 2
            return _classified(loaded, files[:middle], limits) + _classified(loaded, files[middle:], limits)
        return [_converted_and_classified(loaded, files[0], limits)]
    return _rows(loaded, files, found)


def _rows(loaded: Loaded, files: list[_File], found: dict[str, Any]) -> list[dict[str, Any]]:
    labels, scores, probabilities = (found[name].numpy() for name in ("label", "score", "probabilities"))
    return [
        {
            "path": file.path,
            "label": labels[row].decode(),
            "score": float(scores[row]),
            "probabilities": dict(zip(loaded.names, probabilities[row].tolist(), strict=True)),
        }
        for row, file in enumerate(files)
    ]


def _converted_and_classified(loaded: Loaded, file: _File, limits: Limits) -> dict[str, Any]:
    """For a WebP with alpha, a run-length BMP and others that TensorFlow should read, and does not."""
    import tensorflow as tf

    try:
        png = converted(file.data, limits.max_pixels)
        found = loaded.signature(tf.constant([png.data]))
    except (NoImage, tf.errors.OpError):
        return {"path": file.path, "error": UNREADABLE}
    return _rows(loaded, [file], found)[0]
