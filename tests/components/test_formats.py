"""Other formats of the exported model: what is written answers as it does, and what does not is found out."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

from components import features, png, progress
from components.conversion import (
    FILES,
    QUANTISED,
    Images,
    answers_of,
    check,
    convert,
    convert_and_check,
    gate_checks,
    passed_files,
    predictor,
    problem,
    read_result,
    require_packages,
    saved_model_predictor,
)
from components.errors import UsageError
from components.features import CLASSIFIER_FILE, TRAINING_FILE
from components.transformed import read_images
from trainer import export

SIZE = 16
CONSTANTS = (np.array([2, 1, 0]), np.float32([1 / 58, 1 / 57, 1 / 127.5]), np.float32([-2.1, -2, -1]))
TEMPERATURE = 0.5


def draw(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise in which red, green or blue is a little stronger."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    tint = np.eye(3)[labels][:, None, None, :] * random.integers(0, 60, (count, 1, 1, 1))
    return (random.integers(0, 190, (count, SIZE, SIZE, 3)) + tint).astype(np.uint8), labels


def classifier(order: list[int]) -> keras.Model:
    """Tells the colours apart; the classes come in that order."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((SIZE, SIZE, 3))
    x = keras.layers.Conv2D(3, 3, padding="same", use_bias=False)(inputs)
    x = keras.layers.Dense(3, activation="softmax")(keras.layers.GlobalAveragePooling2D()(x))
    model = keras.Model(inputs, x)
    kernel = np.zeros((3, 3, 3, 3), np.float32)
    # Channels come as BGR, on scales of their own.
    kernel[1, 1] = np.diag(1 / CONSTANTS[1] / 20)[::-1].T
    bias = -(CONSTANTS[2] / CONSTANTS[1] / 20)[::-1]
    model.set_weights([kernel, np.eye(3, dtype=np.float32)[:, order], bias[order]])
    return model


def write_model(folder: Path, order: list[int]) -> SimpleNamespace:
    model = classifier(order)
    preprocessing = {"size": SIZE, "mode": "stretch", "storage": "png"}
    export.export(model, ["a", "b", "c"], preprocessing, CONSTANTS, folder / "model", TEMPERATURE)
    model.save(folder / CLASSIFIER_FILE)
    return SimpleNamespace(folder=folder / "model", keras=folder / CLASSIFIER_FILE)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> SimpleNamespace:
    return write_model(tmp_path_factory.mktemp("model"), [0, 1, 2])


@pytest.fixture(scope="module")
def swapped(tmp_path_factory) -> SimpleNamespace:
    """The same network with two of its classes in each other's place."""
    return write_model(tmp_path_factory.mktemp("swapped"), [0, 2, 1])


@pytest.fixture(scope="module")
def tested() -> Images:
    return Images(*draw(40, 0), CONSTANTS)


@pytest.fixture(scope="module")
def expected(model, tested) -> np.ndarray:
    return answers_of(saved_model_predictor(model.folder), tested.pixels)


def installed(name: str) -> str:
    if name == "onnx":
        for package in ("tf2onnx", "onnx", "onnxruntime"):
            pytest.importorskip(package)
    return name


def verdict(name: str, made_from: SimpleNamespace, expected, tested: Images, path: Path) -> dict:
    convert(name, made_from.folder, made_from.keras, draw(30, 1)[0], path)
    answers = answers_of(predictor(name, path, CONSTANTS, TEMPERATURE), tested.pixels)
    return check(name, answers, expected, tested.labels, 0.02)


# ---- conversion -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(FILES))
def test_format_answers_as_the_saved_model_does(name, model, expected, tested, tmp_path):
    assert 0.7 < (expected.argmax(axis=1) == tested.labels).mean() < 1
    found = verdict(installed(name), model, expected, tested, tmp_path / FILES[name])
    assert found["passed"]
    assert found["examples"] == 40
    assert found["max_probability_difference"] < (0.05 if name in QUANTISED else 1e-5)


@pytest.mark.parametrize("name", list(FILES))
def test_g16_format_with_its_classes_in_another_order_is_found_out(name, swapped, expected, tested, tmp_path):
    found = verdict(installed(name), swapped, expected, tested, tmp_path / FILES[name])
    assert not found["passed"]
    assert found["accuracy_difference"] < -0.3


@pytest.mark.parametrize("name", ["tflite", "tflite_int8"])
def test_tflite_takes_batches_of_any_size(name, model, tested, tmp_path):
    convert(name, model.folder, model.keras, draw(30, 1)[0], tmp_path / "model.tflite")
    one_by_one = predictor(name, tmp_path / "model.tflite", CONSTANTS, 1.0)(tested.pixels[:7])
    runner = tf.lite.Interpreter(str(tmp_path / "model.tflite")).get_signature_runner("serving_pixels")
    for count in (1, 7, 3):
        together = runner(pixels=tested.pixels[:count])["probabilities"]
        np.testing.assert_allclose(together, one_by_one[:count], atol=1e-6)


def test_quantised_weights_are_integers_of_8_bits(model, tmp_path):
    convert("tflite_int8", model.folder, model.keras, draw(30, 1)[0], tmp_path / "model.tflite")
    interpreter = tf.lite.Interpreter(str(tmp_path / "model.tflite"))
    details = interpreter.get_signature_runner("serving_pixels")
    assert details.get_input_details()["pixels"]["dtype"] == np.uint8
    assert details.get_output_details()["probabilities"]["dtype"] == np.float32
    kernels = [each for each in interpreter.get_tensor_details() if tuple(each["shape"]) == (3, 3, 3, 3)]
    assert [each["dtype"] for each in kernels] == [np.int8]
    # A scale for each output channel.
    assert len(kernels[0]["quantization_parameters"]["scales"]) == 3


def test_g15_a_keras_file_with_code_inside_fails_without_running_it_and_the_others_are_made(model, tested, tmp_path):
    trace = tmp_path / "trace"
    inputs = keras.Input((SIZE, SIZE, 3))
    leave = keras.layers.Lambda(lambda x, path=str(trace): [x, __import__("pathlib").Path(path).touch()][0])
    keras.Model(inputs, keras.layers.Flatten()(leave(inputs))).save(tmp_path / "unsafe.keras")
    # Keras ran it to find out its output's shape, as it would when it loads the file.
    trace.unlink()
    found = convert_and_check(
        ["keras", "tflite"], model.folder, tmp_path / "unsafe.keras", TEMPERATURE, tested, None, 0.02, tmp_path
    )
    assert found["keras"]["passed"] is False
    assert "safe" in found["keras"]["error"]
    assert not trace.exists()
    assert found["tflite"]["passed"] is True


def test_conversion_that_raises_is_a_failed_format_with_its_cause(model, tested, tmp_path):
    broken = tmp_path / "broken.keras"
    broken.write_bytes(b"no model")
    found = convert_and_check(["keras"], model.folder, broken, 1.0, tested, None, 0.02, tmp_path)["keras"]
    assert (found["file"], found["passed"]) == ("classifier.keras", False)
    assert found["error"].startswith("ValueError: ") and "\n" not in found["error"]
    (check,) = gate_checks({"keras": found})
    assert (check.metric, check.passed) == ("keras_written", False)
    assert "leave keras out of push.formats" in problem({"keras": found})


def test_images_that_are_compared_are_counted_for_each_format(model, tested, tmp_path, monkeypatch):
    counts, start = [], progress.start
    monkeypatch.setattr(progress, "start", lambda *args: (counts.append(progress.now()), start(*args)))
    convert_and_check(["keras", "tflite"], model.folder, model.keras, 1.0, tested, None, 0.02, tmp_path)
    done = [(state.text, state.done, state.total) for state in [*counts, progress.now()] if state.done]
    asked = ("the SavedModel", "classifier.keras", "model.tflite")
    assert done[-3:] == [(f"asking {name}", len(tested), len(tested)) for name in asked]


def test_p3_fault_of_the_machine_is_an_error_and_refuses_no_model(model, tested, tmp_path):
    """A refusal would be remembered after the disk is free again."""
    with pytest.raises(OSError):
        convert_and_check(["keras"], model.folder, tmp_path / "gone.keras", 1.0, tested, None, 0.02, tmp_path)


def test_onnx_without_its_packages_is_refused_in_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    require_packages(["keras", "tflite"])
    with pytest.raises(UsageError, match=r"onnx needs tf2onnx, not installed here; install the extra with pip install"):
        require_packages(["keras", "onnx"])


# ---- the check ------------------------------------------------------------------------------------------------------


def answers(hits: int, count: int = 40) -> np.ndarray:
    """Probabilities of two classes, of which the first is right."""
    return np.array([[0.9, 0.1]] * hits + [[0.1, 0.9]] * (count - hits))


@pytest.mark.parametrize(
    ("lost", "drop", "passed"), [(1, 0.02, True), (2, 0.02, False), (1, 0.0, False), (2, 0.05, True)]
)
def test_quantised_format_may_lose_the_bound_rounded_up_to_a_whole_image(lost, drop, passed):
    found = check("tflite_int8", answers(30 - lost), answers(30), np.zeros(40, int), drop)
    assert found["passed"] is passed
    assert found["accuracy_difference"] == pytest.approx(-lost / 40)
    assert found["tolerance"] is None


def test_float_format_may_differ_by_rounding_whatever_that_makes_of_a_tie():
    labels, right = np.zeros(40, int), answers(30)
    assert check("onnx", right + 5e-4, right, labels, 0.5)["passed"]
    off = check("onnx", right + 2e-3, right, labels, 0.5)
    assert not off["passed"]
    (line,) = gate_checks({"onnx": {"file": "model.onnx"} | off})
    assert (line.metric, line.passed, line.bound) == ("onnx_probability_difference", False, 1e-3)
    even = np.full((40, 2), 0.5)
    tied = check("onnx", even - [[1e-6, 0]], even, labels, 0.0)
    assert tied["passed"] and tied["accuracy"] == 0


def test_quantised_format_that_loses_more_than_allowed_is_a_failed_check():
    found = {"file": "model_int8.tflite"} | check("tflite_int8", answers(25), answers(30), np.zeros(40, int), 0.1)
    (line,) = gate_checks({"tflite_int8": found})
    assert (line.metric, line.value, line.bound, line.passed) == ("tflite_int8_accuracy_drop", 0.125, 0.1, False)
    assert "accuracy -0.125 on 40 images" in problem({"tflite_int8": found})
    assert problem({"tflite_int8": found | {"passed": True}}) is None


@pytest.mark.parametrize("name", list(FILES))
def test_answers_that_are_no_numbers_fail(name):
    found = check(name, np.full((40, 2), np.nan), answers(0), np.zeros(40, int), 1.0)
    assert found["passed"] is False
    json.dumps(found, allow_nan=False)


def test_format_with_another_number_of_classes_is_an_error():
    with pytest.raises(ValueError, match="gives"):
        check("onnx", answers(30)[:, :1], answers(30), np.zeros(40, int), 0.02)


# ---- the images that it is made and checked with --------------------------------------------------------------------


def stored(image: np.ndarray, storage: str) -> tf.train.Feature:
    if storage == "float":
        order, scale, offset = CONSTANTS
        values = image.astype(np.float32)[..., order] * scale + offset
        return tf.train.Feature(float_list=tf.train.FloatList(value=values.ravel()))
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[png.encode(image)]))


def write_examples(folder: Path, images: np.ndarray, labels: np.ndarray, storage: str = "png", files: int = 1) -> str:
    """Transformed examples in an order of no meaning; returns their pattern."""
    folder.mkdir(parents=True)
    order = np.random.default_rng(files).permutation(len(images))
    for number in range(files):
        with tf.io.TFRecordWriter(str(folder / f"transformed_examples-{number:05d}")) as writer:
            for index in order[number::files]:
                numbers = tf.train.Int64List(value=[labels[index]])
                feature = {
                    features.IMAGE: stored(images[index], storage),
                    features.LABEL: tf.train.Feature(int64_list=numbers),
                    features.KEY: tf.train.Feature(bytes_list=tf.train.BytesList(value=[b"%05d" % index])),
                    features.CHANNEL_ORDER: tf.train.Feature(int64_list=tf.train.Int64List(value=CONSTANTS[0])),
                    features.SCALE: tf.train.Feature(float_list=tf.train.FloatList(value=CONSTANTS[1])),
                    features.OFFSET: tf.train.Feature(float_list=tf.train.FloatList(value=CONSTANTS[2])),
                }
                example = tf.train.Example(features=tf.train.Features(feature=feature))
                writer.write(example.SerializeToString())
    return str(folder / "*")


@pytest.mark.parametrize("storage", ["png", "float"])
def test_pixels_come_back_from_the_transformed_examples(storage, tmp_path):
    images, labels = draw(9, 0)
    read = read_images(write_examples(tmp_path / "split", images, labels, storage), SIZE, storage, 100)
    np.testing.assert_array_equal(read.pixels, images[::-1])
    np.testing.assert_array_equal(read.labels, labels[::-1])
    for one, other in zip(read.constants, CONSTANTS, strict=True):
        np.testing.assert_array_equal(one, other)


def test_sample_is_the_same_whatever_files_the_runner_wrote_and_has_every_class(tmp_path):
    images, _ = draw(30, 0)
    labels = np.array([0] * 26 + [1] * 3 + [2])
    one = read_images(write_examples(tmp_path / "one", images, labels), SIZE, "png", 9, 3)
    other = read_images(write_examples(tmp_path / "other", images, labels, files=4), SIZE, "png", 9, 3)
    np.testing.assert_array_equal(one.pixels, other.pixels)
    assert np.bincount(one.labels).tolist() == [3, 3, 1]
    assert len(read_images(str(tmp_path / "one" / "*"), SIZE, "png", 9)) == 9


# ---- the component --------------------------------------------------------------------------------------------------


def execute(model: SimpleNamespace, folder: Path, blessed: bool) -> Path:
    """Runs ModelFormats as a pipeline does; returns its artifact's folder."""
    from tfx.types import artifact_utils, standard_artifacts

    from components.formats import Executor, FormatFiles

    run, trained, blessing, examples, formats = (
        standard_artifacts.ModelRun(),
        standard_artifacts.Model(),
        standard_artifacts.ModelBlessing(),
        standard_artifacts.Examples(),
        FormatFiles(),
    )
    trained.uri, run.uri, formats.uri = str(folder / "trained"), str(model.keras.parent), str(folder / "formats")
    examples.uri, examples.split_names = str(folder / "examples"), artifact_utils.encode_split_names(["train", "test"])
    blessing.set_int_custom_property("blessed", int(blessed))
    Path(trained.uri).mkdir()
    Path(formats.uri).mkdir()
    (Path(trained.uri) / "Format-Serving").symlink_to(model.folder)
    training = {"classes": ["a", "b", "c"], "calibration": {"temperature": TEMPERATURE}}
    (model.keras.parent / TRAINING_FILE).write_text(json.dumps(training))
    write_examples(Path(examples.uri, "Split-train"), *draw(30, 1))
    write_examples(Path(examples.uri, "Split-test"), *draw(40, 0))
    settings = {
        "formats": ["keras", "tflite", "tflite_int8"],
        "max_accuracy_drop": 0.05,
        "image_size": SIZE,
        "storage": "png",
    }
    inputs = {"model": [trained], "model_run": [run], "blessing": [blessing], "transformed_examples": [examples]}
    Executor().Do(inputs, {"formats": [formats]}, {"settings": json.dumps(settings)})
    return Path(formats.uri)


def test_component_leaves_the_files_and_what_was_found(model, tmp_path):
    folder = execute(model, tmp_path, blessed=True)
    result = read_result(folder)
    assert result["blessed"] is True
    assert list(result["formats"]) == ["keras", "tflite", "tflite_int8"]
    for row in result["formats"].values():
        assert row["passed"] and row["examples"] == 40
        assert row["bytes"] == (folder / row["file"]).stat().st_size
    assert passed_files(folder) == {
        name: folder / name for name in (CLASSIFIER_FILE, "model.tflite", "model_int8.tflite")
    }


def test_component_converts_nothing_that_the_gate_refused(model, tmp_path):
    folder = execute(model, tmp_path, blessed=False)
    assert read_result(folder) == {"blessed": False, "formats": {}}
    assert passed_files(folder) == {}
    assert [path.name for path in folder.iterdir()] == ["formats.json"]
