import keras
import numpy as np
import pytest
import tensorflow as tf

from components.temperature import scaled
from trainer import calibration, export


def examples(count: int, confidence: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of four classes, and labels drawn from them: calibrated at a confidence of 1, too sure above it."""
    random = np.random.default_rng(seed)
    true = random.dirichlet(np.ones(4), count)
    labels = np.array([random.choice(4, p=row) for row in true])
    return scaled(true, 1 / confidence), labels


@pytest.mark.parametrize("confidence", [0.5, 1.0, 3.0])
def test_temperature_undoes_how_sure_the_network_is_and_helps_on_other_examples(confidence):
    degrees = calibration.temperature(*examples(400, confidence, 0))
    assert degrees == pytest.approx(confidence, rel=0.2)
    probabilities, labels = examples(4000, confidence, 1)
    before = calibration.losses_of(probabilities, labels).mean()
    after = calibration.losses_of(scaled(probabilities, degrees), labels).mean()
    assert after <= before * (1.01 if confidence == 1 else 0.99)


def test_a_small_split_on_which_everything_is_right_does_not_make_the_network_sure_of_everything():
    probabilities = np.full((20, 3), 0.05)
    labels = np.arange(20) % 3
    probabilities[np.arange(20), labels] = 0.9
    sure = scaled(probabilities, calibration.temperature(probabilities, labels))
    assert 0.9 < sure.max() < 0.97


def test_scaling_changes_no_prediction_and_a_temperature_of_1_nothing():
    probabilities, _ = examples(50, 1.0, 0)
    for degrees in (0.2, 1.0, 5.0):
        after = scaled(probabilities, degrees)
        np.testing.assert_array_equal(after.argmax(axis=1), probabilities.argmax(axis=1))
        np.testing.assert_allclose(after.sum(axis=1), 1)
    np.testing.assert_allclose(scaled(probabilities, 1.0), probabilities, rtol=1e-6)


def test_reliability_counts_each_example_once_and_says_how_often_it_is_right():
    probabilities = np.array([[0.95, 0.05], [1.0, 0.0], [0.45, 0.55], [0.6, 0.4]])
    rows = calibration.reliability(probabilities, np.array([0, 1, 1, 0]))
    assert [(row["low"], row["examples"], row["accuracy"]) for row in rows] == [(0.5, 1, 1), (0.6, 1, 1), (0.9, 2, 0.5)]
    assert rows[-1]["score"] == pytest.approx(0.975)


def test_exported_model_gives_the_probabilities_at_the_temperature(tmp_path):
    inputs = keras.Input((2, 2, 3))
    outputs = keras.layers.Dense(3, activation="softmax")(keras.layers.Flatten()(inputs))
    model = keras.Model(inputs, outputs)
    model.set_weights([weight * 30 for weight in model.get_weights()])
    constants = (np.array([0, 1, 2]), np.full(3, 1 / 127.5, np.float32), np.full(3, -1, np.float32))
    preprocessing = {"size": 2, "mode": "stretch", "storage": "png"}
    images = np.random.default_rng(0).integers(0, 256, (5, 2, 2, 3), np.uint8)
    export.export(model, ["a", "b", "c"], preprocessing, constants, tmp_path / "model", 2.5)
    files = tf.constant([tf.io.encode_png(image).numpy() for image in images])
    answer = tf.saved_model.load(str(tmp_path / "model")).signatures["serving_default"](files)
    expected = scaled(model(images / 127.5 - 1).numpy(), 2.5)
    np.testing.assert_allclose(answer["probabilities"].numpy(), expected, atol=1e-5)
    np.testing.assert_allclose(answer["score"].numpy(), expected.max(axis=1), atol=1e-5)
