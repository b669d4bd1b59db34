"""`run_fn`: what TFX's Trainer calls."""

import json
import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import keras
from tfx.components.trainer.fn_args_utils import FnArgs

from components import progress
from components.examples_schema import read_class_names
from trainer import backbones, dataset, export, training
from trainer import model as network

RESULT_FILE = "training.json"
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
    (folder / RESULT_FILE).write_text(json.dumps(result, indent=1))


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
    pooled = network.pooled(backbone, model_settings["head"]["pooling"])
    head = network.head(
        pooled.output_shape[-1], len(class_names), model_settings["head"]["hidden"], model_settings["head"]["dropout"]
    )
    shared = {"batch_size": training_settings["batch_size"], "seed": training_settings["seed"]}
    frozen = training.train_frozen(pooled, head, train_split, eval_split, training_settings["frozen"] | shared)
    result: dict[str, Any] = {"frozen": asdict(frozen), "fine_tune": None}
    classifier = network.joined(pooled, head)
    if training_settings["fine_tune"]["epochs"]:
        tuned, kept = training.fine_tune(
            classifier, backbone, train_split, eval_split, training_settings["fine_tune"] | shared, before=frozen
        )
        result["fine_tune"] = asdict(tuned) | {"kept": kept}
    progress.start(None, "exporting")
    result |= {"parameters": int(classifier.count_params()), "classes": class_names}
    preprocessing = {"size": size, "mode": transform["resize"], "storage": storage}
    export.export(classifier, class_names, preprocessing, train_split.constants, Path(args.serving_model_dir))
    return result


def _fresh_scratch(parent: str | None) -> Path:
    """A new folder; what killed runs left behind beside it is removed (the output folder is held by this run alone)."""
    if parent is not None:
        for leftover in Path(parent).glob(f"{SCRATCH_PREFIX}*"):
            shutil.rmtree(leftover)
    return Path(tempfile.mkdtemp(prefix=SCRATCH_PREFIX, dir=parent))
