"""The evaluation step on real exported models and real files: which model in service a candidate is compared with."""

import io
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from components import features, progress, records
from components.baseline import choose_baseline, failure_of
from components.errors import ImageFailed
from components.examples_schema import write_schema
from tests.memory_files import MemoryFiles

SIZE = 8
NAMES = ["blue", "green", "red"]
CHANNEL = {"red": 0, "green": 1, "blue": 2}
STRENGTH = {"faint": 4, "strong": 40}
CONSTANTS = (np.array([0, 1, 2]), np.full(3, 0.1, np.float32), np.zeros(3, np.float32))
ONE_CLASS, TIMES = 30, 2
WITH_SLICES = {"slices": ["format", {"strength": "/([a-z]+)-"}], "no_regression": ["accuracy", "recall", "precision"]}


class Fails(keras.layers.Layer):
    """Traces and saves like any other, and fails whenever it is called."""

    def call(self, inputs):
        with tf.control_dependencies([tf.debugging.assert_negative(inputs)]):
            return tf.identity(inputs)


def export_model(folder: Path, names=NAMES, outputs=NAMES, shy=None, fails=False) -> Path:
    """A classifier of plain colours.

    Args:
      folder: where to; made.
      names: what it calls its outputs.
      outputs: what they stand for.
      shy: a class that it recognises only where it is strong.
      fails: whether it fails when it is called.
    """
    from trainer.export import export

    inputs = keras.Input((SIZE, SIZE, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(Fails()(inputs) if fails else inputs)
    head = keras.layers.Dense(len(outputs), activation="softmax")
    model = keras.Model(inputs, head(pooled))
    kernel = np.zeros((3, len(outputs)))
    for column, name in enumerate(outputs):
        kernel[CHANNEL[name], column] = 1
    head.set_weights([kernel, np.array([-1.0 if name == shy else 0.0 for name in outputs])])
    export(model, names, {"size": SIZE, "mode": "stretch", "storage": "png"}, CONSTANTS, folder)
    return folder


def png(class_name: str, strength: str, number: int) -> bytes:
    pixels = np.full((SIZE, SIZE, 3), 100, np.uint8)
    pixels[..., CHANNEL[class_name]] += STRENGTH[strength]
    pixels[0, 0, 0] = number  # Other bytes for every image.
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def write_examples(folder: Path) -> None:
    from components.ingestion import _example

    (folder / "Split-test").mkdir(parents=True)
    with tf.io.TFRecordWriter(str(folder / "Split-test" / "data_tfrecord-00000-of-00001")) as writer:
        for class_name in NAMES:
            for number in range(ONE_CLASS):
                strength = "faint" if number % TIMES else "strong"
                row = {
                    features.ENCODED: png(class_name, strength, number),
                    features.CLASS_NAME: class_name,
                    features.SHA256: f"{class_name} {number:03}",
                    features.FILENAME: f"{class_name}/{strength}-{number}.png",
                    features.FORMAT: "png" if number % 3 else "jpeg",
                    features.HEIGHT: 100,
                    features.WIDTH: 200,
                    features.CHANNELS: 3,
                }
                writer.write(_example(row))


@dataclass
class Outcome:
    decision: dict
    rows: list[dict]
    blessed: bool

    def check(self, metric: str, where: str = "overall") -> dict:
        (found,) = (row for row in self.decision["checks"] if (row["metric"], row["slice"]) == (metric, where))
        return found

    @property
    def failed(self) -> list[tuple[str, str]]:
        return [(row["metric"], row["slice"]) for row in self.decision["checks"] if row["passed"] is False]


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    """`good`, `shy` (worse on blue only), and one without anything that the evaluation calls."""
    folder = tmp_path_factory.mktemp("models")
    export_model(folder / "good")
    export_model(folder / "shy", shy="blue")
    tf.saved_model.save(tf.Module(), str(folder / "foreign"))
    return folder


@pytest.fixture(scope="module")
def examples(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("examples")
    write_examples(folder)
    return folder


@pytest.fixture
def evaluate(examples, tmp_path):
    """Runs the real step on a candidate and what is in service."""

    def run(candidate: Path, in_service: Path | None = None, examples: Path = examples, **rules) -> Outcome:
        from tfx.dsl.components.base import base_beam_executor
        from tfx.types import artifact_utils, standard_artifacts

        from components import evaluation

        artifacts = {
            "examples": standard_artifacts.Examples(),
            "model": standard_artifacts.Model(),
            "schema": standard_artifacts.Schema(),
            "evaluation": standard_artifacts.ModelEvaluation(),
            "blessing": standard_artifacts.ModelBlessing(),
        }
        for name, artifact in artifacts.items():
            artifact.uri = str(tmp_path / name)
        artifacts["examples"].uri = str(examples)
        artifacts["examples"].split_names = artifact_utils.encode_split_names(["test"])
        # As ingestion notes it.
        artifacts["examples"].set_int_custom_property("test_images", 90)
        (tmp_path / "schema").mkdir()
        write_schema(tmp_path / "schema", NAMES)
        shutil.copytree(candidate, tmp_path / "model" / "Format-Serving")
        if in_service:
            shutil.copytree(in_service, tmp_path / "serving" / "7")
        context = base_beam_executor.BaseBeamExecutor.Context(
            beam_pipeline_args=["--runner=FnApiRunner"], tmp_dir=str(tmp_path / "tmp"), unique_id="1"
        )
        inputs, outputs = ("examples", "model", "schema"), ("evaluation", "blessing")
        evaluation.Executor(context).Do(
            {name: [artifacts[name]] for name in inputs},
            {name: [artifacts[name]] for name in outputs},
            {"serving": str(tmp_path / "serving"), "rules": json.dumps(rules)},
        )
        decision = json.loads((tmp_path / "evaluation" / features.DECISION_FILE).read_text())
        rows = evaluation.read_predictions(tmp_path / "evaluation")
        return Outcome(decision, rows, (tmp_path / "blessing" / "BLESSED").is_file())

    return run


def test_g2_g7_candidate_worse_on_one_class_is_refused_by_name_and_both_models_were_asked(evaluate, models):
    outcome = evaluate(models / "shy", models / "good", **WITH_SLICES)
    assert not outcome.blessed
    check = outcome.check("no_regression_recall", "blue")
    assert (check["value"], check["baseline"], check["passed"]) == (0.5, 1.0, False)
    assert 0.5 < check["bound"] < 1
    assert ("no_regression_recall", "green") not in outcome.failed
    assert ("no_regression_accuracy", "strength=faint") in outcome.failed
    assert outcome.check("no_regression_accuracy", "strength=strong")["passed"]
    assert outcome.check("no_regression_accuracy", "format=png")["value"] == pytest.approx(5 / 6)
    assert outcome.decision["baseline_status"] == "compared"
    assert outcome.decision["baseline_version"] == 7
    assert outcome.decision["metrics"]["per_class"]["blue"]["recall"] == 0.5
    assert outcome.decision["metrics"]["baseline"]["per_class"]["blue"]["recall"] == 1.0
    assert outcome.decision["metrics"]["loss"] > outcome.decision["metrics"]["baseline"]["loss"]
    (row,) = (row for row in outcome.rows if row["key"] == "blue 001")
    assert (row["label"], row["candidate"]["id"] != 0, row["baseline"]["id"]) == (0, True, 0)
    assert row["baseline"]["true_score"] > row["candidate"]["true_score"]


def test_p9_test_image_that_cannot_be_classified_is_named_and_what_is_in_service_not_blamed(
    evaluate, examples, models, tmp_path
):
    (file,) = examples.glob("Split-test/*")
    rows = list(tf.data.TFRecordDataset(str(file)).as_numpy_iterator())
    example = tf.train.Example.FromString(rows[40])
    example.features.feature[features.ENCODED].bytes_list.value[0] = b"no image"
    rows[40] = example.SerializeToString()
    damaged = tmp_path / "damaged"
    (damaged / "Split-test").mkdir(parents=True)
    with tf.io.TFRecordWriter(str(damaged / "Split-test" / file.name)) as writer:
        for row in rows:
            writer.write(row)
    with pytest.raises(ImageFailed, match=r"^green/strong-10.png cannot be classified \(.*image") as caught:
        evaluate(models / "good", models / "good", examples=damaged)
    assert (caught.value.artifact, caught.value.damaged) == (str(damaged), True)


def test_g3_g7_the_swapped_pair_gets_the_swapped_answer_also_with_its_classes_in_another_order(
    evaluate, models, tmp_path
):
    order = ["red", "blue", "green"]
    other = export_model(tmp_path / "other", names=order, outputs=order, shy="blue")
    outcome = evaluate(models / "good", other, max_accuracy_drop=0.0)
    assert outcome.blessed
    assert outcome.decision["baseline_status"] == "compared"
    check = outcome.check("no_regression_recall", "blue")
    assert (check["value"], check["baseline"]) == (1.0, 0.5)
    for name in ("green", "red"):
        check = outcome.check("no_regression_recall", name)
        assert (check["value"], check["baseline"], check["p_value"]) == (1.0, 1.0, 1.0)


def test_g16_candidate_whose_class_names_are_in_another_order_is_refused(evaluate, tmp_path):
    swapped = export_model(tmp_path / "swapped", names=["blue", "red", "green"])
    outcome = evaluate(swapped)
    assert outcome.failed == [("class_order", "overall")]
    check = outcome.check("class_order")
    assert (check["value"], check["bound"]) == (1, 3)
    # By id it is right everywhere: nothing else could have told.
    assert outcome.decision["metrics"]["accuracy"] == 1.0
    assert outcome.decision["baseline_status"] == "first_run"


def test_g5_model_in_service_that_fails_when_called_is_said_aloud_and_the_floors_decide(evaluate, models, tmp_path):
    failing = export_model(tmp_path / "failing", fails=True)
    told = []
    with progress.heeded(told.append):
        outcome = evaluate(models / "good", failing, min_accuracy=0.9)
    assert [sentence for sentence in told if "version 7 in service fails when it is called" in sentence]
    state = progress.now()
    assert (state.done, state.total) == (90, 90), "test images are counted, anew when they are judged anew"
    assert outcome.blessed
    assert outcome.decision["baseline_status"] == "not_callable"
    assert "version 7 in service fails when it is called (InvalidArgumentError" in outcome.decision["baseline_reason"]
    assert outcome.decision["baseline_version"] is None
    assert outcome.check("accuracy")["passed"]
    assert "baseline" not in outcome.rows[0]
    assert len(outcome.rows) == 90


# ---- what workers elsewhere read (tests/pipeline/test_dataflow_jobs.py has the whole step) ---------------------------


@pytest.fixture
def memory():
    MemoryFiles.clear()
    yield MemoryFiles
    MemoryFiles.clear()


def test_records_are_the_same_in_a_store_as_in_a_folder_and_a_file_that_is_cut_off_is_told(examples, memory):
    (file,) = examples.glob("Split-test/*")
    wanted = list(records.read([str(file)]))
    whole, cut = (f"mem://bucket/{name}" for name in ("whole", "cut"))
    memory.put(whole, file.read_bytes())
    memory.put(cut, file.read_bytes()[:-10])
    assert len(wanted) == 90 and list(records.read([whole, whole])) == 2 * wanted
    with pytest.raises(OSError, match="mem://bucket/cut is cut off"):
        list(records.read([cut]))


def test_g5_model_that_fails_is_asked_about_the_images_that_workers_read(examples, memory, models):
    (file,) = examples.glob("Split-test/*")
    place = memory.put("mem://bucket/data", file.read_bytes())
    assert failure_of(models / "good", [place], 3) is None
    assert failure_of(models / "good", [place], 4).startswith("probabilities of the shape (32, 3)")


# ---- the choice alone, without TFMA ---------------------------------------------------------------------------------


def in_service(tmp_path: Path, model: Path) -> Path:
    shutil.copytree(model, tmp_path / "serving" / "7")
    return tmp_path / "serving"


def test_g5_nothing_in_service_is_a_first_run(tmp_path):
    assert choose_baseline(tmp_path / "serving", NAMES).status == "first_run"


def test_g5_changed_classes_are_named_and_not_compared(tmp_path, models):
    baseline = choose_baseline(in_service(tmp_path, models / "good"), ["blue", "green", "yellow"])
    assert (baseline.status, baseline.version) == ("classes_changed", None)
    assert "new: yellow; gone: red" in baseline.reason


def test_g5_foreign_model_is_not_compared(tmp_path, models):
    baseline = choose_baseline(in_service(tmp_path, models / "foreign"), NAMES)
    assert (baseline.status, baseline.version) == ("not_callable", None)
    assert "version 7 in service is no model that Graft exported" in baseline.reason


@pytest.mark.parametrize("broken", ["saved_model.pb", "variables/variables.index"])
def test_g5_broken_model_in_service_is_not_compared(tmp_path, models, broken):
    serving = in_service(tmp_path, models / "good")
    (serving / "7" / broken).write_bytes(b"broken")
    baseline = choose_baseline(serving, NAMES)
    assert (baseline.status, baseline.version) == ("not_loadable", None)
    assert "version 7 in service cannot be loaded" in baseline.reason


def test_g5_the_choice_has_a_model_to_compare_with(tmp_path, models):
    baseline = choose_baseline(in_service(tmp_path, models / "good"), NAMES)
    assert (baseline.status, baseline.version.name, list(baseline.class_names)) == ("compared", "7", NAMES)


def test_many_changed_classes_stay_one_readable_sentence(tmp_path, models):
    names = [f"class {number:04}" for number in range(1000)]
    reason = choose_baseline(in_service(tmp_path, models / "good"), names).reason
    assert "class 0009 and 990 more; gone: blue, green, red" in reason
