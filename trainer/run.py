"""`run_fn`: what TFX's Trainer calls."""

import json
import math
import shutil
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from tfx.components.trainer.fn_args_utils import FnArgs

from components import progress
from components.examples_schema import read_class_names
from components.features import TENSORBOARD_FOLDER, TRAINING_FILE
from trainer import backbones, dataset, export, training
from trainer import model as network

SCRATCH_PREFIX = "graft-training-"


def run_fn(args: FnArgs) -> None:
    """Trains and exports.

    Args:
      args: TFX's; `custom_config` holds `model`, `training` and `transform` (sections of the configuration with every
        `auto` resolved) and `scratch` (where decoded pixels go, or None for the system's temporary folder).
    """
    settings = args.custom_config
    class_names = read_class_names(args.schema_path)
    scratch = _fresh_scratch(settings["scratch"])
    try:
        result = train(args, settings, class_names, scratch)
    finally:
        shutil.rmtree(scratch)
    folder = Path(args.model_run_dir)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / TRAINING_FILE).write_text(json.dumps(result, indent=1))
    write_tensorboard(folder, result)


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


def train(args: FnArgs, settings: dict[str, Any], class_names: list[str], scratch: Path) -> dict[str, Any]:
    """Both phases and the export; returns what `training.json` holds."""
    transform, training_settings, model_settings = (settings[name] for name in ("transform", "training", "model"))
    keras.utils.set_random_seed(training_settings["seed"])
    size, storage = transform["image_size"], transform["storage"]
    progress.start(None, "reading images")
    train_split = dataset.read_split(args.train_files, size, storage, scratch)
    eval_split = dataset.read_split(args.eval_files, size, storage, scratch)

    backbone = backbones.build(model_settings["backbone"], model_settings["alpha"], model_settings["weights"], size)
    backbone.trainable = False
    frozen_settings, fine_tune_settings = (training_settings[phase] for phase in ("frozen", "fine_tune"))
    # What is trained sees the output of a trunk that no phase changes, where there is one and its output can be kept.
    splits, top, trunk_seconds = [train_split, eval_split], backbone, 0.0
    unfreeze = fine_tune_settings["unfreeze"]
    if (count := backbones.block_count(unfreeze)) is not None:
        unfreeze = network.start_of_blocks(backbone, backbones.BACKBONES[model_settings["backbone"]].blocks, count)
    if fine_tune_settings["epochs"]:
        trunk, rest = network.divide(backbone, unfreeze)
        if trunk is not None and _can_be_kept(trunk.output_shape, sum(map(len, splits)), scratch):
            began = time.monotonic()
            splits, top = training.activations(trunk, splits, scratch), rest
            trunk_seconds = time.monotonic() - began
    head_settings = model_settings["head"]
    pooled = network.pooled(top, head_settings["pooling"])
    head = network.head(pooled.output_shape[-1], len(class_names), head_settings["hidden"], head_settings["dropout"])
    names = ("batch_size", "seed", "label_smoothing", "class_weights")
    shared = {name: training_settings[name] for name in names}
    frozen = training.train_frozen(pooled, head, *splits, frozen_settings | shared)
    frozen.seconds += trunk_seconds
    result: dict[str, Any] = {"frozen": asdict(frozen), "fine_tune": None}
    if fine_tune_settings["epochs"]:
        network.unfreeze(backbone, unfreeze)
        tuned, kept = training.fine_tune(
            network.joined(pooled, head), *splits, fine_tune_settings | shared, before=frozen
        )
        result["fine_tune"] = asdict(tuned) | {"kept": kept}
    progress.start(None, "exporting")
    classifier = network.joined(network.pooled(backbone, head_settings["pooling"]), head)
    result |= {"parameters": int(classifier.count_params()), "classes": class_names}
    preprocessing = {"size": size, "mode": transform["resize"], "storage": storage}
    export.export(classifier, class_names, preprocessing, train_split.constants, Path(args.serving_model_dir))
    return result


def _can_be_kept(shape: tuple[int | None, ...], count: int, scratch: Path) -> bool:
    """Whether a trunk's float32 output for `count` images is smaller than half of what is free on the disk."""
    return count * math.prod(shape[1:]) * 4 < shutil.disk_usage(scratch).free / 2


def _fresh_scratch(parent: str | None) -> Path:
    """A new folder; what killed runs left behind beside it is removed (the output folder is held by this run alone)."""
    if parent is not None:
        for leftover in Path(parent).glob(f"{SCRATCH_PREFIX}*"):
            shutil.rmtree(leftover)
    return Path(tempfile.mkdtemp(prefix=SCRATCH_PREFIX, dir=parent))
