"""GatedEvaluator: TFMA on the test split against the model in service, and the decision whether to publish.

TFX's executor runs TFMA; an extra extractor writes what both models said of each image, and `components.gate` decides
on that. TFMA's own thresholds are not used: they cannot express the paired test, and are skipped without a baseline.
"""

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import tensorflow_model_analysis as tfma
from tfx import types
from tfx.components.evaluator import constants
from tfx.components.evaluator import executor as tfx_evaluator
from tfx.dsl.components.base import base_beam_component, executor_spec
from tfx.types import artifact_utils, standard_artifacts, standard_component_specs
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter
from tfx.utils import io_utils, json_utils, path_utils, proto_utils

from components import broken_image, causes, concerns, features, metrics, predictions, progress, storage
from components.baseline import Baseline, choose_baseline, failure_of, probe, stored_class_names
from components.examples_schema import SCHEMA_FILE, read_class_names
from components.gate import OVERALL, Check, GateRules, Images, decide, detectable_drop
from components.ingestion import image_count
from components.metrics import Answers
from components.prediction_lines import BASELINE, CANDIDATE, PREDICTIONS, read_predictions
from components.publishing import local_copy, newest
from components.slices import slices_of


def eval_config(with_baseline: bool) -> tfma.EvalConfig:
    """Accuracy, loss and count, overall and by true class."""
    names = [CANDIDATE, BASELINE] if with_baseline else [CANDIDATE]
    computed = ("ExampleCount", "SparseCategoricalAccuracy", "SparseCategoricalCrossentropy")
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
                metrics=[tfma.MetricConfig(class_name=name) for name in computed],
                model_names=names if with_baseline else [],
            )
        ],
        slicing_specs=[tfma.SlicingSpec(), tfma.SlicingSpec(feature_keys=[features.CLASS_NAME])],
    )


# ---- the component --------------------------------------------------------------------------------------------------


class Executor(tfx_evaluator.Executor):
    """Finds the baseline, runs TFMA, decides, blesses.

    TFMA may run on workers elsewhere. Then examples and evaluation lie under URIs, and so does the temporary folder, in
    which workers find both models; all other artifacts are local, and the decision is made here.
    """

    def Do(self, input_dict, output_dict, exec_properties) -> None:
        temporary = self._get_tmp_dir()
        with contextlib.ExitStack() as opened:
            if storage.is_uri(temporary):
                self._scratch = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="graft-evaluation-")))
            else:
                self._scratch = Path(temporary)
            self._judge(input_dict, output_dict, exec_properties)

    def _judge(self, input_dict, output_dict, exec_properties) -> None:
        model = artifact_utils.get_single_instance(input_dict[standard_component_specs.MODEL_KEY])
        evaluation = artifact_utils.get_single_uri(output_dict[standard_component_specs.EVALUATION_KEY])
        schema = artifact_utils.get_single_uri(input_dict[standard_component_specs.SCHEMA_KEY])
        class_names = read_class_names(str(Path(schema, SCHEMA_FILE)))
        serving = local_copy(exec_properties["serving"], self._scratch / "in_service")
        # Before anything is compared: the Pusher publishes only if it is still in service then.
        in_service = newest(serving)
        baseline = choose_baseline(serving, class_names)
        try:
            self._evaluate(input_dict, output_dict, baseline, class_names)
        except Exception as error:
            if causes.of_the_machine(error):
                raise
            self._raise_for_image(error, input_dict, class_names)
            # Only a model in service that fails when it is asked again may be left out: a full disk, say, must not let
            # a worse candidate pass.
            cause = baseline.version and failure_of(baseline.version, _test_files(input_dict), len(class_names))
            if not cause:
                raise
            reason = (
                f"version {baseline.version.name} in service fails when it is called ({cause}); not compared with it"
            )
            baseline = Baseline("not_callable", reason)
            self._evaluate(input_dict, output_dict, baseline, class_names)
        rules = GateRules(**json.loads(exec_properties["rules"]))
        # Where it lies is TFX's affair, as in its own executor.
        names = stored_class_names(Path(path_utils.serving_model_path(model.uri)))
        result = judge(read_predictions(evaluation), class_names, rules, [class_order(names, class_names)])
        result |= {
            "baseline_version": int(baseline.version.name) if baseline.version else None,
            "baseline_status": baseline.status,
            "baseline_reason": baseline.reason,
            "in_service_version": int(in_service.name) if in_service else None,
        }
        storage.write(storage.join(evaluation, features.DECISION_FILE), json.dumps(result, indent=1).encode())
        progress.warn_of(concerns.of_decision(result, asdict(rules)))
        _bless(output_dict, result["blessed"], model, baseline.version)

    def _raise_for_image(self, error: Exception, input_dict, class_names: list[str]) -> None:
        """Raises where the candidate cannot answer either: then it is not the fault of what is in service."""
        model = artifact_utils.get_single_instance(input_dict[standard_component_specs.MODEL_KEY])
        path = Path(path_utils.serving_model_path(model.uri))
        if not failure_of(path, _test_files(input_dict), len(class_names)):
            return
        (examples,) = input_dict[standard_component_specs.EXAMPLES_KEY]
        pattern = io_utils.all_files_pattern(artifact_utils.get_split_uri([examples], "test"))
        failed = broken_image.find([pattern], probe(path), "cannot be classified")
        if failed:
            raise failed from error
        raise error

    def _evaluate(self, input_dict, output_dict, baseline: Baseline, class_names: list[str]) -> None:
        """TFX's Evaluator, which leaves the prediction lines besides TFMA's files."""
        evaluation = artifact_utils.get_single_uri(output_dict[standard_component_specs.EVALUATION_KEY])
        folder = storage.join(evaluation, PREDICTIONS)
        storage.empty(folder)
        inputs, columns = dict(input_dict), {CANDIDATE: list(range(len(class_names)))}
        if baseline.version:
            inputs[standard_component_specs.BASELINE_MODEL_KEY] = [_as_artifact(baseline.version, self._scratch)]
            columns[BASELINE] = [baseline.class_names.index(name) for name in class_names]
        settings = self._scratch / "predictions.json"
        settings.parent.mkdir(parents=True, exist_ok=True)
        (examples,) = input_dict[standard_component_specs.EXAMPLES_KEY]
        progress.start(image_count(examples, "test"), "evaluating")
        written = {"folder": folder, "class_names": class_names, "columns": columns}
        settings.write_text(json.dumps({"written": written, "stored": self._stored(inputs)}))
        # The extractor is built inside TFX's executor, which hands it nothing of ours; this process is the way.
        os.environ[predictions.SETTINGS] = str(settings)
        config = proto_utils.proto_to_json(eval_config(baseline.version is not None))
        super().Do(
            inputs,
            output_dict,
            {
                standard_component_specs.EVAL_CONFIG_KEY: config,
                standard_component_specs.EXAMPLE_SPLITS_KEY: json_utils.dumps(["test"]),
                standard_component_specs.MODULE_PATH_KEY: predictions.__name__,
            },
        )

    def _stored(self, inputs) -> dict[str, str]:
        """Where workers elsewhere find the models, by name; empty where they find them where they are.

        They are stored once more: the one in service may lie where only this step reaches it, or be removed meanwhile.
        """
        temporary = self._get_tmp_dir()
        if not storage.is_uri(temporary):
            return {}
        keys = {
            CANDIDATE: standard_component_specs.MODEL_KEY,
            BASELINE: standard_component_specs.BASELINE_MODEL_KEY,
        }
        found = {name: storage.join(temporary, name) for name, key in keys.items() if key in inputs}
        for name, uri in found.items():
            model = Path(path_utils.serving_model_path(artifact_utils.get_single_uri(inputs[keys[name]])))
            storage.upload_folder(model, uri)
        return found


def _test_files(input_dict) -> list[str]:
    folders = artifact_utils.get_split_uris(input_dict[standard_component_specs.EXAMPLES_KEY], "test")
    return [place for folder in folders for place in storage.files_in(folder)]


def class_order(names: list[str], class_names: list[str]) -> Check:
    """Whether the candidate gives its outputs the names that the examples' ids have (G16): how many are in place.

    Which of the outputs is right is no help to a client that is told another name.
    """
    in_place = sum(mine == wanted for mine, wanted in zip(names, class_names, strict=False))
    return Check("class_order", OVERALL, in_place, len(class_names), names == class_names)


def judge(rows: list[dict], class_names: list[str], rules: GateRules, further: Sequence[Check] = ()) -> dict:
    """The decision and both models' metrics from the prediction lines."""
    labels = np.array([row["label"] for row in rows], int)
    candidate = _answers(rows, CANDIDATE)
    baseline = _answers(rows, BASELINE) if rows and BASELINE in rows[0] else None
    slices, beyond = slices_of(rows, class_names, rules.slices)
    images = Images(labels, class_names, candidate, baseline, slices)
    decision = decide(images, rules, [*further, *beyond])
    measured = metrics.summarise(labels, candidate, class_names)
    if baseline is not None:
        measured["baseline"] = metrics.summarise(labels, baseline, class_names)
        measured["baseline_accuracy"] = measured["baseline"]["accuracy"]
    return decision.to_json() | {"detectable_drop": detectable_drop(images, decision), "metrics": measured}


def _answers(rows: list[dict], model: str) -> Answers:
    ids = np.array([row[model]["id"] for row in rows], int)
    scores, true_scores = (np.array([row[model][key] for row in rows], float) for key in ("score", "true_score"))
    return Answers(ids, scores, true_scores)


def _as_artifact(version: Path, scratch: Path) -> types.Artifact:
    """A published version as the Model artifact that TFX's executor expects (it looks for `Format-Serving`)."""
    folder = scratch / "baseline"
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
