"""What the candidate and the model in service say of each test image: a line an image, written while TFMA runs."""

import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import tensorflow as tf
import tensorflow_model_analysis as tfma

from components import features, progress, storage
from components.prediction_lines import CANDIDATE, PREDICTIONS

SETTINGS = "graft_predictions_settings"
NUMBERS = {"height": features.HEIGHT, "width": features.WIDTH, "channels": features.CHANNELS}


def _settings() -> dict[str, Any]:
    return json.loads(Path(os.environ[SETTINGS]).read_text())


def custom_eval_shared_model(eval_saved_model_path, model_name, eval_config, add_metrics_callbacks=None):
    """TFMA's model, loaded from a store where workers elsewhere are to load it; TFX calls this by its name."""
    uri = _settings()["stored"].get(model_name or CANDIDATE)
    loader = tfma.types.ModelLoader(StoredModel(uri), [tf.saved_model.SERVING]) if uri else None
    return tfma.default_eval_shared_model(
        eval_saved_model_path,
        add_metrics_callbacks,
        model_name=model_name,
        eval_config=eval_config,
        custom_model_loader=loader,
    )


@dataclass(frozen=True)
class StoredModel:
    """Loads a SavedModel from a URI, read by Beam's file systems as everything else is: TensorFlow's know fewer.

    Attributes:
      uri: of the folder.
    """

    uri: str

    def __call__(self) -> Any:
        with tempfile.TemporaryDirectory(prefix="graft-model-") as folder:
            storage.download_folder(self.uri, Path(folder))
            # Nothing is read later: variables are in memory then, and tables are filled.
            return tf.saved_model.load(folder, tags=[tf.saved_model.SERVING])


def custom_extractors(eval_shared_model, eval_config, tensor_adapter_config):
    """TFMA's extractors, and one that writes a line an image; TFX calls this by its name."""
    extractors = tfma.default_extractors(
        eval_shared_model=eval_shared_model, eval_config=eval_config, tensor_adapter_config=tensor_adapter_config
    )
    # Before the extractors that slice: up to there extracts come in batches.
    at = next(i for i, extractor in enumerate(extractors) if extractor.stage_name == "ExtractUnbatchedInputs")
    write = WritePredictions(**_settings()["written"])
    extractors.insert(at, tfma.extractors.Extractor(stage_name="WritePredictions", ptransform=write))
    return extractors


class WritePredictions(beam.PTransform):
    """Writes a line an image and passes the extracts on.

    See `components.prediction_lines` for what is in it.

    Args:
      folder: where to write.
      class_names: of the examples, by id.
      columns: for each model, which of its outputs belongs to each of these classes.
    """

    def __init__(self, folder: str, class_names: list[str], columns: dict[str, list[int]]):
        super().__init__()
        self._folder, self._class_names, self._columns = folder, class_names, columns

    def expand(self, extracts):
        _ = (
            extracts
            | "Lines" >> beam.FlatMap(prediction_lines, self._class_names, self._columns)
            | "Write" >> beam.io.WriteToText(os.path.join(self._folder, PREDICTIONS), file_name_suffix=".jsonl")
        )
        return extracts


def prediction_lines(extracts: dict, class_names: list[str], columns: dict[str, list[int]]) -> list[str]:
    """One JSON line an image of a batch of TFMA's extracts.

    The label is what the example says, not what a model makes of it: a model with its classes in another order would
    agree with itself.
    """
    predictions, read = extracts[tfma.PREDICTIONS_KEY], extracts[tfma.FEATURES_KEY]
    if not (isinstance(predictions, dict) and CANDIDATE in predictions):
        predictions = {CANDIDATE: predictions}
    answers = {name: _probabilities(predictions[name], columns[name]) for name in columns}
    ids = {name.encode(): index for index, name in enumerate(class_names)}
    lines = []
    for row, name in enumerate(np.ravel(read[features.CLASS_NAME])):
        label = ids[name]
        line = {
            "key": np.ravel(read[features.SHA256])[row].decode(),
            "filename": os.fsdecode(np.ravel(read[features.FILENAME])[row]),
            "label": label,
            "format": np.ravel(read[features.FORMAT])[row].decode(),
            **{key: int(np.ravel(read[feature])[row]) for key, feature in NUMBERS.items()},
        }
        for model, probabilities in answers.items():
            best = int(probabilities[row].argmax())
            line[model] = {
                "id": best,
                "score": float(probabilities[row][best]),
                "true_score": float(probabilities[row][label]),
            }
        lines.append(json.dumps(line))
    progress.advance(len(lines))
    return lines


def _probabilities(predictions, columns: list[int]) -> np.ndarray:
    """Probabilities in the order of the examples' classes; what is no number counts as no probability."""
    values = np.asarray(predictions["probabilities"] if isinstance(predictions, dict) else predictions)
    if values.shape[1] != len(columns):
        raise ValueError(f"A model gives {values.shape[1]} probabilities for {len(columns)} classes.")
    return np.nan_to_num(values[:, columns], nan=0.0, posinf=0.0, neginf=0.0)
