"""The serving check: a model that answers otherwise than it did in training is found out, in a process of its own."""

import io
import shutil
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from components import pixels, progress, serving_check
from components.errors import GraftError
from components.odd_inputs import odd_inputs
from components.serving_check import Sent, check
from trainer import export

NAMES = ["cat", "dog", "line\nbreak"]
PREPROCESSING = {"size": 32, "mode": "stretch", "storage": "png"}
CONSTANTS = (np.array([0, 1, 2]), np.full(3, 1 / 127.5, np.float32), np.full(3, -1, np.float32))


def network() -> keras.Model:
    keras.utils.set_random_seed(7)
    inputs = keras.Input((32, 32, 3))
    x = keras.layers.Conv2D(8, 5, activation="relu")(inputs)
    x = keras.layers.Dense(3, activation="softmax", kernel_initializer="orthogonal")(keras.layers.Flatten()(x))
    return keras.Model(inputs, x)


def picture(number: int) -> bytes:
    random = np.random.default_rng(number)
    file = io.BytesIO()
    Image.fromarray(random.integers(0, 256, (48, 40, 3), np.uint8)).save(file, "JPEG")
    return file.getvalue()


@pytest.fixture(scope="module")
def sent() -> list[Sent]:
    """Six pictures, with what the network says of their pixels."""
    contents = [picture(number) for number in range(6)]
    prepared = pixels.normalise(pixels.prepare(tf.constant(contents), **PREPROCESSING), *CONSTANTS)
    rows = network()(prepared, training=False).numpy()
    return [
        Sent(content, row.tolist(), float(row.max()), int(row.argmax()))
        for content, row in zip(contents, rows, strict=True)
    ]


def exported(folder: Path, names: list[str] = NAMES) -> Path:
    export.export(network(), names, PREPROCESSING, CONSTANTS, folder)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return exported(tmp_path_factory.mktemp("model") / "model")


@pytest.fixture(scope="module")
def result(model, sent):
    return check(model, sent, NAMES)


def failed(result) -> list[str]:
    return [check.metric for check in result.checks if not check.passed]


def test_g11_model_that_answers_as_trained_passes_with_its_latency(result):
    assert result.passed and result.problem is None
    assert [check.metric for check in result.checks if check.passed] == [
        "serving_training_difference",
        "serving_evaluation_difference",
        "serving_class_order",
        "serving_odd_inputs",
    ]
    assert 0 < result.latency_ms["median"] <= result.latency_ms["p95"]
    assert result.images == 6


def test_what_the_process_does_is_told_while_it_runs(model, sent, monkeypatch):
    said = []
    monkeypatch.setattr(progress, "say", said.append)
    check(model, sent, NAMES)
    assert said[:2] == ["importing TensorFlow", "loading the model"]
    assert "classifying images, 6 of 6" in said


def test_g12_odd_inputs_are_answered_or_refused_cleanly(result):
    assert set(result.odd) == set(odd_inputs(picture(0)))
    whole = {"one pixel", "one row of 5,000 pixels", "20 megapixels", "PNG for a JPEG"}
    # Grey where its data ends: decoded at an eighth, so that it costs little.
    whole.add("JPEG that claims 20,000 x 20,000")
    assert {name for name, outcome in result.odd.items() if outcome == "answered"} == whole
    assert set(result.odd.values()) == {"answered", "refused"}


def test_g12_jpeg_that_claims_more_than_tensorflow_decodes_is_refused_before_it_is_decoded(model):
    """An eighth of 60,000 x 60,000 pixels would be decoded in a second and 170 MB."""
    classify = tf.saved_model.load(str(model)).signatures["serving_default"]
    hostile = tf.constant([odd_inputs(picture(0))["JPEG that claims 60,000 x 60,000"]])
    with pytest.raises(tf.errors.InvalidArgumentError):
        classify(image_bytes=hostile)


def test_g16_label_map_in_another_order_is_caught(tmp_path, sent):
    result = check(exported(tmp_path / "model", NAMES[::-1]), sent, NAMES)
    assert failed(result) == ["serving_class_order"]
    assert "another order than training: line\nbreak, dog, cat" in result.problem
    assert not result.passed


# What a process would answer, changed in one place: no process is needed to compare.


@pytest.fixture(scope="module")
def answers(model, sent, tmp_path_factory) -> dict:
    """As the process writes them."""
    signature = tf.saved_model.load(str(model)).signatures["serving_default"]
    found = signature(image_bytes=tf.constant([image.content for image in sent]))
    rows = zip(found["label"].numpy(), found["score"].numpy(), found["probabilities"].numpy(), strict=True)
    return {
        "class_names": NAMES,
        "labels": ["cat", "dog", "line\\nbreak"],
        "odd": {"empty string": "refused"},
        "images": [
            {"label": label.decode(), "score": float(score), "probabilities": row.tolist()}
            for label, score, row in rows
        ],
    }


def compared(answers, sent) -> list[str]:
    return [one.metric for one in serving_check._compare(answers, sent, NAMES, 1e-5) if not one.passed]


def test_answers_as_they_should_be_pass(answers, sent):
    assert compared(answers, sent) == []


def test_g16_labels_file_in_another_order_is_caught(answers, sent):
    assert compared(answers | {"labels": answers["labels"][::-1]}, sent) == ["serving_class_order"]


def test_g11_probability_that_is_off_by_more_than_allowed_is_caught(answers, sent):
    near, far = (
        replace(sent[0], probabilities=[value + off for value in sent[0].probabilities]) for off in (8e-6, 2e-5)
    )
    assert compared(answers, [near, *sent[1:]]) == []
    assert compared(answers, [far, *sent[1:]]) == ["serving_training_difference"]
    other = replace(sent[0], score=sent[0].score - 2e-5)
    assert compared(answers, [other, *sent[1:]]) == ["serving_evaluation_difference"]


def test_g11_answer_that_is_no_number_is_caught(answers, sent):
    """NaN is not greater than any bound."""
    nothing = {"label": "cat", "score": float("nan"), "probabilities": [float("nan")] * 3}
    found = answers | {"images": [nothing, *answers["images"][1:]]}
    assert {"serving_training_difference", "serving_evaluation_difference"} <= set(compared(found, sent))


def test_evaluation_that_answered_another_class_is_caught(answers, sent):
    other = replace(sent[0], class_id=(sent[0].class_id + 1) % 3)
    assert compared(answers, [other, *sent[1:]]) == ["serving_evaluation_difference"]


def test_g12_odd_input_with_another_outcome_is_caught_and_named(answers, sent):
    odd = {"one pixel": "answered", "text": "InternalError: oops"}
    assert compared(answers | {"odd": odd}, sent) == ["serving_odd_inputs"]
    result = serving_check.Result(serving_check._compare(answers | {"odd": odd}, sent, NAMES, 1e-5))
    assert "'text' with InternalError" in serving_check._problem(result, answers | {"odd": odd}, NAMES)


# ---- the process itself ---------------------------------------------------------------------------------------------


def test_model_that_cannot_be_loaded_is_an_error_that_says_where_it_ended(model, sent, tmp_path):
    shutil.copytree(model, tmp_path / "broken")
    (tmp_path / "broken" / "saved_model.pb").write_bytes(b"not a model")
    with pytest.raises(GraftError, match="failed while loading the model"):
        check(tmp_path / "broken", sent, NAMES)


def test_g12_process_that_dies_is_an_error_that_names_the_input(model, sent, tmp_path, monkeypatch):
    script = tmp_path / "dies.py"
    script.write_text(
        "import os, signal\nprint('answering an odd input: one pixel', flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    monkeypatch.setattr(serving_check, "SCRIPT", script)
    with pytest.raises(GraftError, match="ended by signal 9 while answering an odd input: one pixel"):
        check(model, sent, NAMES)


def test_process_that_does_not_answer_in_time_is_given_up(model, sent, tmp_path, monkeypatch):
    script = tmp_path / "hangs.py"
    script.write_text("import time\nprint('loading the model', flush=True)\ntime.sleep(60)")
    monkeypatch.setattr(serving_check, "SCRIPT", script)
    monkeypatch.setattr(serving_check, "LIMIT", 1)
    with pytest.raises(GraftError, match="no answer within 1 s while loading the model"):
        check(model, sent, NAMES)


def test_environment_of_this_process_does_not_reach_the_other(model, sent, tmp_path, monkeypatch):
    """TensorFlow Transform sets TF_USE_LEGACY_KERAS, with which TensorFlow asks for a package that servers lack."""
    script = tmp_path / "shows.py"
    script.write_text(
        "import os, sys\n"
        "print(sorted(n for n in os.environ if n.startswith('TF_')), sys.flags.isolated, flush=True)\nsys.exit(3)"
    )
    monkeypatch.setattr(serving_check, "SCRIPT", script)
    monkeypatch.setenv("TF_USE_LEGACY_KERAS", "1")
    with pytest.raises(GraftError, match=r"failed while \['TF_CPP_MIN_LOG_LEVEL'\] 1"):
        check(model, sent, NAMES)
