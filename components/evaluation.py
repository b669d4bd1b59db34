"""GatedEvaluator: TFMA on the test split against the model in service, and the decision whether to publish.

TFX's executor runs TFMA; an extra extractor writes what both models said of each image, and `components.gate` decides
on that. TFMA's own thresholds are not used: they cannot express the paired test, and are skipped without a baseline.
"""

import json
import os
import shutil
from pathlib import Path

import apache_beam as beam
import numpy as np
import tensorflow_model_analysis as tfma
from tfx import types
from tfx.components.evaluator import constants
from tfx.components.evaluator import executor as tfx_evaluator
from tfx.dsl.components.base import base_beam_component, executor_spec
from tfx.types import artifact_utils, standard_artifacts, standard_component_specs
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter
from tfx.utils import io_utils, json_utils, proto_utils

from components import features
from components.examples_schema import SCHEMA_FILE, read_class_names
from components.files import read_json_lines
from components.gate import GateRules, decide, per_class_metrics
from components.publishing import local_copy, newest

DECISION_FILE = "decision.json"
PREDICTIONS_PREFIX = "predictions"
PREDICTIONS_FOLDER = "graft_predictions_folder"
CANDIDATE, BASELINE = "candidate", "baseline"


def eval_config(with_baseline: bool) -> tfma.EvalConfig:
    """Accuracy, loss and count, overall and by true class."""
    names = [CANDIDATE, BASELINE] if with_baseline else [CANDIDATE]
    metrics = ("ExampleCount", "SparseCategoricalAccuracy", "SparseCategoricalCrossentropy")
    return tfma.EvalConfig(
        model_specs=[
            tfma.ModelSpec(
                # TFMA wants a lone model unnamed.
                name=name if with_baseline else "",
                is_baseline=name == BASELINE,
                signature_name="serving_examples",
                label_key=features.LABEL,
                prediction_key="probabilities",
                preprocessing_function_names=["transform_features"],
            )
            for name in names
        ],
        metrics_specs=[
            tfma.MetricsSpec(
                metrics=[tfma.MetricConfig(class_name=name) for name in metrics],
                model_names=names if with_baseline else [],
            )
        ],
        slicing_specs=[tfma.SlicingSpec(), tfma.SlicingSpec(feature_keys=[features.CLASS_NAME])],
    )


# ---- what each model said of each image -----------------------------------------------------------------------------


def custom_extractors(eval_shared_model, eval_config, tensor_adapter_config):
    """TFMA's extractors, and one that writes a line an image; TFX calls this by its name."""
    extractors = tfma.default_extractors(
        eval_shared_model=eval_shared_model, eval_config=eval_config, tensor_adapter_config=tensor_adapter_config
    )
    folder = os.environ[PREDICTIONS_FOLDER]
    # Before the extractors that slice: up to there extracts come in batches.
    at = next(i for i, extractor in enumerate(extractors) if extractor.stage_name == "ExtractUnbatchedInputs")
    extractors.insert(at, tfma.extractors.Extractor(stage_name="WritePredictions", ptransform=WritePredictions(folder)))
    return extractors


class WritePredictions(beam.PTransform):
    """Writes `{key, filename, label, candidate: {id, score}, baseline: …}` lines and passes the extracts on."""

    def __init__(self, folder: str):
        super().__init__()
        self._folder = folder

    def expand(self, extracts):
        _ = (
            extracts
            | "Lines" >> beam.FlatMap(prediction_lines)
            | "Write" >> beam.io.WriteToText(os.path.join(self._folder, PREDICTIONS_PREFIX), file_name_suffix=".jsonl")
        )
        return extracts


def prediction_lines(extracts: dict) -> list[str]:
    """One JSON line an image of a batch of TFMA's extracts."""
    predictions = extracts[tfma.PREDICTIONS_KEY]
    labels = extracts[tfma.LABELS_KEY]
    if isinstance(predictions, dict) and CANDIDATE in predictions:
        by_model = {name: _probabilities(predictions[name]) for name in (CANDIDATE, BASELINE)}
        labels = labels[CANDIDATE] if isinstance(labels, dict) and CANDIDATE in labels else labels
    else:
        by_model = {CANDIDATE: _probabilities(predictions)}
    if isinstance(labels, dict):
        labels = labels[features.LABEL]
    keys = np.ravel(extracts[tfma.FEATURES_KEY][features.SHA256])
    filenames = np.ravel(extracts[tfma.FEATURES_KEY][features.FILENAME])
    lines = []
    for row, label in enumerate(np.ravel(labels)):
        line = {"key": keys[row].decode(), "filename": os.fsdecode(filenames[row]), "label": int(label)}
        for name, probabilities in by_model.items():
            best = int(probabilities[row].argmax())
            line[name] = {"id": best, "score": float(probabilities[row][best])}
            if 0 <= label < probabilities.shape[1]:
                line[name]["true_score"] = float(probabilities[row][label])
        lines.append(json.dumps(line))
    return lines


def _probabilities(predictions) -> np.ndarray:
    return predictions["probabilities"] if isinstance(predictions, dict) else predictions


# ---- the baseline ---------------------------------------------------------------------------------------------------


def class_names_of(model: Path) -> list[str]:
    """Class names that an exported model carries, by id; loads the model, so that one that cannot load is found out."""
    import tensorflow as tf

    return [name.decode() for name in tf.saved_model.load(str(model)).class_names.numpy()]


def choose_baseline(serving: Path, class_names: list[str]) -> tuple[Path | None, str]:
    """The model in service if it can be compared, and a sentence that says why there is one or none."""
    version = newest(serving)
    if version is None:
        return None, "nothing is in service yet"
    try:
        names = class_names_of(version)
    # A broken model fails in as many ways as it can be broken; none of them may keep a good one from replacing it.
    except Exception as error:
        return (
            None,
            f"version {version.name} in service cannot be loaded ({type(error).__name__}); not compared with it",
        )
    if names != class_names:
        gone, new = sorted(set(names) - set(class_names)), sorted(set(class_names) - set(names))
        changes = [f"{text} {', '.join(some)}" for text, some in (("new:", new), ("gone:", gone)) if some]
        return None, f"classes changed since version {version.name} ({'; '.join(changes)}); not compared with it"
    return version, f"compared with version {version.name} in service"


# ---- the component --------------------------------------------------------------------------------------------------


class Executor(tfx_evaluator.Executor):
    """Finds the baseline, runs TFMA, decides, blesses."""

    def Do(self, input_dict, output_dict, exec_properties) -> None:
        model = artifact_utils.get_single_instance(input_dict[standard_component_specs.MODEL_KEY])
        evaluation = Path(artifact_utils.get_single_uri(output_dict[standard_component_specs.EVALUATION_KEY]))
        schema = artifact_utils.get_single_uri(input_dict[standard_component_specs.SCHEMA_KEY])
        class_names = read_class_names(str(Path(schema, SCHEMA_FILE)))
        serving = local_copy(exec_properties["serving"], Path(self._get_tmp_dir(), "in_service"))
        # Before anything is compared: the Pusher publishes only if it is still in service then.
        in_service = newest(serving)
        baseline, reason = choose_baseline(serving, class_names)
        inputs = dict(input_dict)
        if baseline:
            inputs[standard_component_specs.BASELINE_MODEL_KEY] = [_as_artifact(baseline, self._get_tmp_dir())]
        # The extractor is built inside TFX's executor, which hands it nothing of ours; this process is the way.
        os.environ[PREDICTIONS_FOLDER] = str(evaluation / PREDICTIONS_PREFIX)
        super().Do(
            inputs,
            output_dict,
            {
                standard_component_specs.EVAL_CONFIG_KEY: proto_utils.proto_to_json(eval_config(baseline is not None)),
                standard_component_specs.EXAMPLE_SPLITS_KEY: json_utils.dumps(["test"]),
                standard_component_specs.MODULE_PATH_KEY: __name__,
            },
        )
        rows = read_predictions(evaluation)
        rules = GateRules(**json.loads(exec_properties["rules"]))
        result = judge(rows, class_names, rules)
        result |= {"baseline_version": int(baseline.name) if baseline else None, "baseline_reason": reason}
        result["in_service_version"] = int(in_service.name) if in_service else None
        (evaluation / DECISION_FILE).write_text(json.dumps(result, indent=1))
        _bless(output_dict, result["blessed"], model, baseline)


def read_predictions(evaluation: Path) -> list[dict]:
    """The prediction lines, sorted by key so that no runner's order matters."""
    rows = []
    for path in (evaluation / PREDICTIONS_PREFIX).glob("*.jsonl"):
        rows += read_json_lines(path)
    return sorted(rows, key=lambda row: row["key"])


def judge(rows: list[dict], class_names: list[str], rules: GateRules) -> dict:
    """The decision and the candidate's metrics from the prediction lines."""
    labels = np.array([row["label"] for row in rows], int)
    predicted = np.array([row[CANDIDATE]["id"] for row in rows], int)
    before = np.array([row[BASELINE]["id"] for row in rows], int) if rows and BASELINE in rows[0] else None
    true_scores = np.array([row[CANDIDATE]["true_score"] for row in rows])
    metrics = {
        "accuracy": float((labels == predicted).mean()) if rows else 0.0,
        "loss": float(-np.log(np.maximum(true_scores, 1e-7)).mean()) if rows else 0.0,
        "examples": len(rows),
        "per_class": per_class_metrics(labels, predicted, class_names),
    }
    if before is not None:
        metrics["baseline_accuracy"] = float((labels == before).mean())
    return decide(labels, predicted, before, class_names, rules).to_json() | {"metrics": metrics}


def _as_artifact(version: Path, scratch: str) -> types.Artifact:
    """A published version as the Model artifact that TFX's executor expects (it looks for `Format-Serving`)."""
    folder = Path(scratch, "baseline")
    # A copy: TensorFlow's file system takes a link to a folder for a file.
    shutil.copytree(version, folder / "Format-Serving")
    artifact = standard_artifacts.Model()
    artifact.uri = str(folder)
    return artifact


def _bless(output_dict, blessed: bool, model: types.Artifact, baseline: Path | None) -> None:
    blessing = artifact_utils.get_single_instance(output_dict[standard_component_specs.BLESSING_KEY])
    blessing.set_string_custom_property(constants.ARTIFACT_PROPERTY_CURRENT_MODEL_URI_KEY, model.uri)
    blessing.set_int_custom_property(constants.ARTIFACT_PROPERTY_CURRENT_MODEL_ID_KEY, model.id)
    if baseline:
        blessing.set_string_custom_property(constants.ARTIFACT_PROPERTY_BASELINE_MODEL_URI_KEY, str(baseline))
    name = constants.BLESSED_FILE_NAME if blessed else constants.NOT_BLESSED_FILE_NAME
    io_utils.write_string_file(os.path.join(blessing.uri, name), "")
    value = constants.BLESSED_VALUE if blessed else constants.NOT_BLESSED_VALUE
    blessing.set_int_custom_property(constants.ARTIFACT_PROPERTY_BLESSED_KEY, value)


class GatedEvaluatorSpec(ComponentSpec):
    PARAMETERS = {
        "serving": ExecutionParameter(type=str),
        "rules": ExecutionParameter(type=str),
    }
    INPUTS = {
        standard_component_specs.EXAMPLES_KEY: ChannelParameter(type=standard_artifacts.Examples),
        standard_component_specs.MODEL_KEY: ChannelParameter(type=standard_artifacts.Model),
        standard_component_specs.SCHEMA_KEY: ChannelParameter(type=standard_artifacts.Schema),
    }
    OUTPUTS = {
        standard_component_specs.EVALUATION_KEY: ChannelParameter(type=standard_artifacts.ModelEvaluation),
        standard_component_specs.BLESSING_KEY: ChannelParameter(type=standard_artifacts.ModelBlessing),
    }


class GatedEvaluator(base_beam_component.BaseBeamComponent):
    """Judges a model on the test split.

    Outputs: `evaluation` (TFMA's files, the prediction lines and `decision.json`) and `blessing`.

    Args:
      examples: raw examples with a test split.
      model: the candidate.
      schema: of the raw examples.
      serving: base path or URI; what is in service there is the baseline. Read when the step runs, so the step is never
        cached.
      rules: fields of `GateRules`.
    """

    SPEC_CLASS = GatedEvaluatorSpec
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(Executor)

    def __init__(self, examples, model, schema, serving: str, rules: dict):
        spec = GatedEvaluatorSpec(
            examples=examples,
            model=model,
            schema=schema,
            serving=serving,
            rules=json.dumps(rules, sort_keys=True),
            evaluation=types.Channel(type=standard_artifacts.ModelEvaluation),
            blessing=types.Channel(type=standard_artifacts.ModelBlessing),
        )
        super().__init__(spec=spec)
