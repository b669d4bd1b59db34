"""Classifies files with an exported model; needs TensorFlow and, for rare formats, Pillow."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.errors import UsageError
from components.image_files import IMAGE_EXTENSIONS
from components.inspection import to_png
from components.publishing import newest

BATCH = 32


@dataclass(frozen=True)
class Loaded:
    """An exported model that is ready to answer: its signature for raw bytes, and its class names by id."""

    signature: Any
    names: list[str]


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


def find_files(paths: list[Path]) -> list[Path]:
    """The given files, and the images in the given folders.

    Raises:
      UsageError: a path does not exist, or there is no image.
    """
    files = [file for path in paths for file in _files(path)]
    if not files:
        raise UsageError(f"No image was found in {', '.join(map(str, paths))}.")
    return files


def classify(loaded: Loaded, files: list[Path]) -> Iterator[dict[str, Any]]:
    """Yields `{path, label, score, probabilities}`, or `{path, error}` for a file that is no image it can read."""
    for start in range(0, len(files), BATCH):
        yield from _classify_batch(loaded, files[start : start + BATCH])


def _classify_batch(loaded: Loaded, files: list[Path]) -> Iterator[dict[str, Any]]:
    import tensorflow as tf

    readable, contents = [], []
    for file in files:
        try:
            contents.append(file.read_bytes())
            readable.append(file)
        except OSError as error:
            yield {"path": str(file), "error": f"cannot be read ({error.strerror})"}
    if not readable:
        return
    try:
        answers = loaded.signature(tf.constant(contents))
    except tf.errors.OpError:
        if len(files) > 1:
            # One bad file fails the batch: find it.
            for file in readable:
                yield from _classify_batch(loaded, [file])
            return
        try:
            # TIFF, AVIF and the like: converted as ingestion converts them.
            answers = loaded.signature(tf.constant([to_png(contents[0])]))
        # Pillow's plugins raise whatever broken bytes lead them into.
        except Exception:
            yield {"path": str(files[0]), "error": "is no image that can be decoded"}
            return
    for row, file in enumerate(readable):
        yield {
            "path": str(file),
            "label": answers["label"][row].numpy().decode(),
            "score": float(answers["score"][row]),
            "probabilities": dict(zip(loaded.names, map(float, answers["probabilities"][row]), strict=True)),
        }


def find_model(folder: Path) -> Path:
    """A published version, or the newest version of a serving folder.

    Raises:
      UsageError: there is none.
    """
    if (folder / "saved_model.pb").is_file():
        return folder
    version = newest(folder)
    if version is None:
        raise UsageError(f"There is no model in {folder}; give a published version, such as OUTPUT/serving/1700000000.")
    return version


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if file.is_file() and file.suffix.lower() in IMAGE_EXTENSIONS)
    if not path.exists():
        raise UsageError(f"There is no file or folder {path}.")
    return [path]
