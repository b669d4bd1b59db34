"""`run_fn`: what TFX's Trainer calls."""

import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tfx.components.trainer.fn_args_utils import FnArgs

from components import progress, training_concerns
from components.examples_schema import read_class_names
from components.features import ANSWERS_FILE, CLASSIFIER_FILE, TENSORBOARD_FOLDER, TRAINING_FILE
from components.publishing import local_copy, newest
from components.temperature import scaled
from trainer import dataset, export, starts, warmup
from trainer.cache_names import FEATURES_PREFIX, SCRATCH_PREFIX, UNFINISHED_PREFIX
from trainer.dataset import Split
from trainer.stored import Store

ANSWERS = 16


def run_fn(args: FnArgs) -> None:
    """Trains and exports.

    Args:
      args: TFX's; `custom_config` holds `model`, `training` and `transform` (sections of the configuration with every
        `auto` resolved), `start_from` (folder of the published version to begin from, or None for the backbone's
        weights), `serving` (base path or URI whose version in service is that version, if there is one; or None),
        `cache` (where features and unfinished trainings are kept, or None for nowhere), and digests of what
        the result depends on besides.
    """
    settings = args.custom_config
    class_names = read_class_names(args.schema_path)
    cache = settings["cache"]
    folder = Path(args.model_run_dir)
    folder.mkdir(parents=True, exist_ok=True)
    with scratch_folder(cache) as scratch:
        if settings.get("serving"):
            in_service = newest(local_copy(settings["serving"], scratch / "in_service"))
            settings = settings | {"start_from": str(in_service) if in_service else None}
        result, stores = train(args, settings, class_names, scratch)
    (folder / TRAINING_FILE).write_text(json.dumps(result, indent=1))
    write_tensorboard(folder, result)
    progress.warn_of(training_concerns.of_training(result))
    if cache is not None:
        _tidy(Path(cache), stores)


def _tidy(cache: Path, stores: Sequence[Store]) -> None:
    """Removes checkpoints, also of trainings that were killed and never wanted again, and features that another
    training used."""
    unwanted = [*cache.glob(f"{UNFINISHED_PREFIX}*")]
    if stores:
        used = {store.folder for store in stores}
        unwanted += [folder for folder in cache.glob(f"{FEATURES_PREFIX}*") if folder not in used]
        for store in stores:
            store.prune()
    for folder in unwanted:
        shutil.rmtree(folder)


def write_tensorboard(folder: Path, result: dict[str, Any]) -> None:
    """The curves of both phases as TensorBoard logs, a run a phase; epochs are counted on from phase to phase."""
    # What `tf.summary.scalar` writes; that one asks for the tensorboard package, which only the reader needs.
    plugin = tf.compat.v1.SummaryMetadata.PluginData(plugin_name="scalars")
    metadata = tf.compat.v1.SummaryMetadata(plugin_data=plugin)
    begins = 0
    for phase in ("frozen", "fine_tune"):
        if result[phase] is None:
            continue
        history = result[phase]["history"]
        with tf.summary.create_file_writer(str(folder / TENSORBOARD_FOLDER / phase)).as_default():
            for name, values in history.items():
                for epoch, value in enumerate(values, begins + 1):
                    tf.summary.write(name, value, step=epoch, metadata=metadata)
        begins += len(history["loss"])


def train(
    args: FnArgs, settings: dict[str, Any], class_names: list[str], scratch: Path
) -> tuple[dict[str, Any], list[Store]]:
    """Both phases and the export; returns what `training.json` holds, and where features are kept."""
    transform = settings["transform"]
    splits = read_splits((args.train_files, args.eval_files), transform, scratch)
    training, result, stores = starts.train(settings, class_names, splits, scratch)
    progress.start(None, "exporting")
    classifier = training.classifier()
    result |= {"parameters": int(classifier.count_params()), "classes": class_names}
    preprocessing = {"size": transform["image_size"], "mode": transform["resize"], "storage": transform["storage"]}
    degrees = result["calibration"]["temperature"]
    exported = Path(args.serving_model_dir)
    export.export(classifier, class_names, preprocessing, splits[0].constants, exported, degrees)
    warmup.write(exported, transform["image_size"])
    answers = sample_answers(classifier, splits[1], degrees)
    Path(args.model_run_dir, ANSWERS_FILE).write_text(json.dumps(answers))
    # Normalised pixels to probabilities before calibration: Keras' own layers and numbers, so that safe mode loads it.
    classifier.save(Path(args.model_run_dir, CLASSIFIER_FILE))
    return result, stores


def sample_answers(classifier: keras.Model, split: Split, degrees: float) -> list[dict[str, Any]]:
    """What the network says of a few images by way of the transformed examples.

    The serving check holds the exported model, which gets the files' bytes, to it.

    Args:
      classifier: normalised pixels to probabilities.
      split: images with their `keys`; not the test split.
      degrees: the temperature of what is exported.

    Returns:
      `{key, probabilities}` of the first images in the order of their keys.
    """
    count = min(ANSWERS, len(split))
    # Where and how the exported model will be asked: layer by layer, TensorFlow rounds otherwise than in a graph.
    with tf.device("/CPU:0"):
        found = tf.function(lambda images: classifier(split.normalised(images), training=False))(
            tf.constant(split.take(np.arange(count)))
        ).numpy()
    rows = found if degrees == 1 else scaled(found, degrees)
    return [
        {"key": key.decode(), "probabilities": [float(value) for value in row]}
        for key, row in zip(split.keys[:count], rows, strict=True)
    ]


def read_splits(files: Iterable[Sequence[str]], transform: dict[str, Any], scratch: Path) -> list[Split]:
    """Decodes the splits whose file patterns these are; `transform` is that section of the settings."""
    progress.start(None, "reading images")
    return [dataset.read_split(each, transform["image_size"], transform["storage"], scratch) for each in files]


@contextlib.contextmanager
def scratch_folder(parent: str | None) -> Iterator[Path]:
    """A new folder; what killed runs left behind beside it is removed (the output folder is held by this run alone)."""
    if parent is not None:
        for leftover in Path(parent).glob(f"{SCRATCH_PREFIX}*"):
            shutil.rmtree(leftover)
    with tempfile.TemporaryDirectory(prefix=SCRATCH_PREFIX, dir=parent) as folder:
        yield Path(folder)
