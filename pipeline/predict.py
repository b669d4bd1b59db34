"""Classifies files with an exported model; needs TensorFlow, nothing else of the pipeline."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from components.errors import UsageError
from components.image_files import IMAGE_EXTENSIONS

BATCH = 32


def predict(model_folder: Path, paths: list[Path]) -> Iterator[dict[str, Any]]:
    """Yields `{path, label, score, probabilities}`, or `{path, error}` for a file that is no image it can read.

    Args:
      model_folder: a published version, or a serving folder, whose newest version is taken.
      paths: files, and folders that are searched for images.

    Raises:
      UsageError: there is no model, or a path does not exist.
    """
    model_folder = _version(model_folder)
    files = [file for path in paths for file in _files(path)]
    if not files:
        raise UsageError(f"No image was found in {', '.join(map(str, paths))}.")
    import tensorflow as tf

    try:
        model = tf.saved_model.load(str(model_folder))
        signature = model.signatures["serving_default"]
        names = [name.decode() for name in model.class_names.numpy()]
    except (OSError, KeyError, AttributeError, ValueError) as error:
        raise UsageError(f"{model_folder} is not a model that Graft exported ({type(error).__name__}).") from None
    for start in range(0, len(files), BATCH):
        yield from _predict_batch(signature, names, files[start : start + BATCH])


def _predict_batch(signature: Any, names: list[str], files: list[Path]) -> Iterator[dict[str, Any]]:
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
        answers = signature(tf.constant(contents))
    except tf.errors.InvalidArgumentError:
        if len(files) == 1:
            yield {"path": str(files[0]), "error": "is no image that the model can decode"}
            return
        # One bad file fails the batch: find it.
        for file in readable:
            yield from _predict_batch(signature, names, [file])
        return
    for row, file in enumerate(readable):
        yield {
            "path": str(file),
            "label": answers["label"][row].numpy().decode(),
            "score": float(answers["score"][row]),
            "probabilities": dict(zip(names, map(float, answers["probabilities"][row]), strict=True)),
        }


def _version(folder: Path) -> Path:
    from components.publishing import newest

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
