"""ModelFormats: the blessed model in the formats that were asked for, each compared with it on test images.

It decides nothing: a format that fails is on record in `formats.json`, and ServingCheck holds the model back.
"""

import json
from pathlib import Path

from tfx import types
from tfx.components.util.model_utils import is_model_blessed
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter
from tfx.utils import io_utils, path_utils

from components import progress
from components.conversion import QUANTISED, RESULT_FILE, convert_and_check
from components.features import CLASSIFIER_FILE, TRAINING_FILE
from components.transformed import read_images

# Enough to see a loss of one in a hundred, few enough for seconds; fewer show whether numbers are the same.
TEST_IMAGES = 500
TEST_IMAGES_UNQUANTISED = 100
# TensorFlow asks for "around 100-500": accuracy was the same with 20 and with 150 (docs/formats.md).
REPRESENTATIVE_IMAGES = 150


class FormatFiles(types.Artifact):
    """`classifier.keras`, `model.tflite`, `model_int8.tflite`, `model.onnx` (those asked for), and `formats.json`."""

    TYPE_NAME = "graft.FormatFiles"


class Executor(base_executor.BaseExecutor):
    def Do(self, input_dict, output_dict, exec_properties) -> None:
        folder = Path(artifact_utils.get_single_uri(output_dict["formats"]))
        settings = json.loads(exec_properties["settings"])
        # What will not be published needs no other formats.
        blessed = is_model_blessed(artifact_utils.get_single_instance(input_dict["blessing"]))
        results = self._results(input_dict, settings, folder) if blessed and settings["formats"] else {}
        (folder / RESULT_FILE).write_text(json.dumps({"blessed": blessed, "formats": results}, indent=1))

    def _results(self, input_dict, settings: dict, folder: Path) -> dict:
        model = artifact_utils.get_single_instance(input_dict["model"])
        run = Path(artifact_utils.get_single_uri(input_dict["model_run"]))
        examples = input_dict["transformed_examples"]
        stored = settings["image_size"], settings["storage"]

        def files(split: str) -> str:
            return io_utils.all_files_pattern(artifact_utils.get_split_uri(examples, split))

        training = json.loads((run / TRAINING_FILE).read_text())
        progress.start(None, "reading images")
        quantised = any(name in QUANTISED for name in settings["formats"])
        count = TEST_IMAGES if quantised else TEST_IMAGES_UNQUANTISED
        tested, representative = read_images(files("test"), *stored, count), None
        if quantised:
            drawn = read_images(files("train"), *stored, REPRESENTATIVE_IMAGES, len(training["classes"]))
            representative = drawn.pixels
        return convert_and_check(
            settings["formats"],
            Path(path_utils.serving_model_path(model.uri)),
            run / CLASSIFIER_FILE,
            training["calibration"]["temperature"],
            tested,
            representative,
            settings["max_accuracy_drop"],
            folder,
        )


class ModelFormatsSpec(ComponentSpec):
    PARAMETERS = {
        "settings": ExecutionParameter(type=str),
    }
    INPUTS = {
        "model": ChannelParameter(type=standard_artifacts.Model),
        "model_run": ChannelParameter(type=standard_artifacts.ModelRun),
        "blessing": ChannelParameter(type=standard_artifacts.ModelBlessing),
        "transformed_examples": ChannelParameter(type=standard_artifacts.Examples),
    }
    OUTPUTS = {"formats": ChannelParameter(type=FormatFiles)}


class ModelFormats(base_component.BaseComponent):
    """Converts a model and checks what came of it.

    Output: `formats`, the files and `formats.json`, which `conversion.read_result` reads.

    Args:
      model: the candidate.
      model_run: of the Trainer, with `classifier.keras` and the temperature.
      blessing: a model that was not blessed is not converted.
      transformed_examples: the test split's images are what is compared on, the train split's set the ranges of
        quantised activations.
      settings: `formats` and `max_accuracy_drop` of the configuration's section `push`, `image_size` and `storage`.
    """

    SPEC_CLASS = ModelFormatsSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(self, model, model_run, blessing, transformed_examples, settings: dict):
        spec = ModelFormatsSpec(
            model=model,
            model_run=model_run,
            blessing=blessing,
            transformed_examples=transformed_examples,
            settings=json.dumps(settings, sort_keys=True),
            formats=types.Channel(type=FormatFiles),
        )
        super().__init__(spec=spec)
