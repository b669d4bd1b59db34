"""ServingCheck: the step between the gate and publication that asks the exported model itself (`serving_check`)."""

import json
import os
from collections import defaultdict
from collections.abc import Iterable
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

import tensorflow as tf
from tfx import types
from tfx.components.util import model_utils
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec
from tfx.utils import io_utils, path_utils

from components import conversion, features
from components.examples_schema import SCHEMA_FILE, read_class_names
from components.formats import FormatFiles
from components.prediction_lines import CANDIDATE, read_predictions
from components.serving_check import RESULT_FILE, TOLERANCE, TOLERANCE_ACROSS_DEVICES, Result, Sent, check

TEST_IMAGES = 32
# The names that TFX's InfraValidator gives them.
BLESSED_FILE, NOT_BLESSED_FILE = "INFRA_BLESSED", "INFRA_NOT_BLESSED"


class Executor(base_executor.BaseExecutor):
    """Collects images and what was computed from them, asks, and blesses."""

    def Do(self, input_dict, output_dict, exec_properties) -> None:
        inputs = {key: artifact_utils.get_single_instance(value) for key, value in input_dict.items() if value}
        blessing = artifact_utils.get_single_instance(output_dict["infra_blessing"])
        if not model_utils.is_model_blessed(inputs["model_blessing"]):
            # Nothing will be published, whatever would be found.
            bless(blessing, None)
            return
        class_names = read_class_names(str(Path(inputs["schema"].uri, SCHEMA_FILE)))
        model = path_utils.serving_model_path(inputs["model"].uri, path_utils.is_old_model_artifact(inputs["model"]))
        evaluated = TOLERANCE_ACROSS_DEVICES if tf.config.list_physical_devices("GPU") else TOLERANCE
        result = check(Path(model), _images(inputs), class_names, evaluated)
        # Who asked for a format relies on it: without it nothing goes out.
        formats = conversion.read_result(Path(inputs["formats"].uri))["formats"]
        result.checks += conversion.gate_checks(formats)
        result.problem = result.problem or conversion.problem(formats)
        bless(blessing, result)


def _images(inputs: dict[str, types.Artifact]) -> list[Sent]:
    """Test images with the evaluation's answers, and images of the eval split with those of the training path."""
    rows = spread(read_predictions(Path(inputs["evaluation"].uri)), TEST_IMAGES)
    tested = {row["key"]: {"score": row[CANDIDATE]["score"], "class_id": row[CANDIDATE]["id"]} for row in rows}
    answers = json.loads(Path(inputs["model_run"].uri, features.ANSWERS_FILE).read_text())
    trained = {row["key"]: {"probabilities": row["probabilities"]} for row in answers}
    found = []
    for split, wanted in (("test", tested), ("eval", trained)):
        contents = read_contents(artifact_utils.get_split_uri([inputs["examples"]], split), wanted)
        found += [Sent(contents[key], **expected) for key, expected in wanted.items()]
    return found


def spread(rows: Iterable[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """Rows of as many classes as there are, in turn: the first of each `label`, then the second, and so on."""
    by_label = defaultdict(list)
    for row in rows:
        by_label[row["label"]].append(row)
    in_turn = chain.from_iterable(zip_longest(*(by_label[label] for label in sorted(by_label))))
    return [row for row in in_turn if row is not None][:count]


def read_contents(folder: str, keys: Iterable[str]) -> dict[str, bytes]:
    """The encoded bytes of those raw examples, by key; reads no further than the last of them."""
    missing = set(keys)
    contents = {}
    files = sorted(tf.io.gfile.glob(os.path.join(folder, "*")))
    for record in tf.data.TFRecordDataset(files).as_numpy_iterator() if missing else ():
        feature = tf.train.Example.FromString(record).features.feature
        key = feature[features.SHA256].bytes_list.value[0].decode()
        if key in missing:
            contents[key] = feature[features.ENCODED].bytes_list.value[0]
            missing.remove(key)
            if not missing:
                break
    return contents


def bless(blessing: types.Artifact, result: Result | None) -> None:
    """Writes what was found and the marker that Pusher looks for; None where nothing was asked."""
    passed = result is not None and result.passed
    if result is not None:
        io_utils.write_string_file(os.path.join(blessing.uri, RESULT_FILE), json.dumps(result.to_json(), indent=1))
    io_utils.write_string_file(os.path.join(blessing.uri, BLESSED_FILE if passed else NOT_BLESSED_FILE), "")
    blessing.set_int_custom_property("blessed", int(passed))


class ServingCheckSpec(ComponentSpec):
    PARAMETERS = {}
    INPUTS = {
        "model": ChannelParameter(type=standard_artifacts.Model),
        "model_run": ChannelParameter(type=standard_artifacts.ModelRun),
        "model_blessing": ChannelParameter(type=standard_artifacts.ModelBlessing),
        "evaluation": ChannelParameter(type=standard_artifacts.ModelEvaluation),
        "examples": ChannelParameter(type=standard_artifacts.Examples),
        "schema": ChannelParameter(type=standard_artifacts.Schema),
        "formats": ChannelParameter(type=FormatFiles),
    }
    OUTPUTS = {"infra_blessing": ChannelParameter(type=standard_artifacts.InfraBlessing)}


class ServingCheck(base_component.BaseComponent):
    """Asks the exported model in a fresh process, with TensorFlow alone.

    Output: `infra_blessing`, which Pusher obeys, with `serving_check.json` in it.

    Args:
      model: of the Trainer.
      model_run: of the Trainer; what the training path says of a few images.
      model_blessing: of the gate; a model that it refused is not asked.
      evaluation: of the gate; what the evaluation says of the test images.
      examples: raw examples.
      schema: of the examples; holds the class names by id.
      formats: of ModelFormats; one that does not answer as the model does holds it back.
    """

    SPEC_CLASS = ServingCheckSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(self, model, model_run, model_blessing, evaluation, examples, schema, formats):
        spec = ServingCheckSpec(
            model=model,
            model_run=model_run,
            model_blessing=model_blessing,
            evaluation=evaluation,
            examples=examples,
            schema=schema,
            formats=formats,
            infra_blessing=types.Channel(type=standard_artifacts.InfraBlessing),
        )
        super().__init__(spec=spec)
