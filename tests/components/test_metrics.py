"""What is measured on test images."""

import numpy as np
import pytest

from components.metrics import Answers, calibration_error, per_class_metrics, reliability, summarise


def test_precision_and_recall_of_each_class():
    labels = np.array([0, 0, 0, 1, 1, 2])
    predicted = np.array([0, 0, 1, 1, 0, 1])
    assert per_class_metrics(labels, predicted, ("a", "b", "c", "d")) == {
        "a": {"precision": 2 / 3, "recall": 2 / 3, "examples": 3},
        "b": {"precision": 1 / 3, "recall": 1 / 2, "examples": 2},
        "c": {"precision": 0.0, "recall": 0.0, "examples": 1},
        "d": {"precision": 0.0, "recall": 0.0, "examples": 0},
    }


def test_calibration_error_is_what_the_reliability_points_say():
    random = np.random.default_rng(0)
    scores = random.uniform(0, 1, 500)
    hits = random.random(500) < scores**2
    points = reliability(scores, hits)
    expected = sum(row["examples"] * abs(row["score"] - row["accuracy"]) for row in points) / 500
    assert calibration_error(scores, hits) == pytest.approx(expected)
    assert sum(row["examples"] for row in points) == 500


def test_calibration_error_of_a_model_that_is_always_right_and_never_sure():
    assert calibration_error(np.full(10, 0.6), np.ones(10, bool)) == pytest.approx(0.4)
    assert calibration_error(np.array([]), np.array([], bool)) == 0.0


def test_summary_without_an_image_is_no_error():
    nothing = np.array([], int)
    empty = Answers(nothing, np.array([]), np.array([]))
    assert summarise(nothing, empty, ("a",))["accuracy"] == 0.0
