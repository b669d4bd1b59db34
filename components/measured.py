"""A metric on a slice of the test images: its value for candidate and baseline, and the paired test of the two."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from components import gate_statistics as statistics
from components.gate_statistics import PairedTest
from components.gate_terms import CALIBRATION_ERROR, LOG_LOSS, OVERALL, RECALL
from components.metrics import Answers, calibration_error


@dataclass(frozen=True)
class Images:
    """The test images and what both models say of them.

    Attributes:
      labels: int [examples], true class ids.
      class_names: by id.
      candidate: its answers.
      baseline: those of the model in service, or None where nothing can be compared.
      slices: for each slice by name, bool [examples], which images are in it.
    """

    labels: np.ndarray
    class_names: Sequence[str]
    candidate: Answers
    baseline: Answers | None = None
    slices: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Measured:
    """A metric on one slice: its value for both models, and the paired test where one was asked for."""

    metric: str
    slice: str
    value: float
    baseline: float | None
    test: PairedTest | None = None


def overall(images: Images, metric: str, tested: bool = False) -> Measured:
    return measure(images, metric, OVERALL, np.ones(len(images.labels), bool), tested)


def concerned(images: Images, metric: str, index: int) -> np.ndarray:
    """Images that a class's recall, or precision, depends on: those of the class, or those that a model calls so."""
    if metric == RECALL:
        return images.labels == index
    claimed = images.candidate.ids == index
    return claimed if images.baseline is None else claimed | (images.baseline.ids == index)


def of_class(images: Images, metric: str, index: int, tested: bool = False) -> Measured:
    name, members = images.class_names[index], concerned(images, metric, index)
    if metric == RECALL:
        return measure(images, metric, name, members, tested)
    right = images.labels == index

    def precision(answers: Answers) -> float:
        claimed = answers.ids == index
        return float((claimed & right).sum() / max(claimed.sum(), 1))

    test = None
    if tested:
        test = statistics.precision_test(right, images.candidate.ids == index, images.baseline.ids == index)
    return Measured(metric, name, *_both(images.candidate, images.baseline, precision), test)


def measure(images: Images, metric: str, name: str, members: np.ndarray, tested: bool = False) -> Measured:
    """Accuracy (or recall, which is the accuracy on a class), log loss or calibration error on some of the images."""
    labels, (mine, theirs) = images.labels[members], _answers_of(images, members)

    def accuracy(answers: Answers) -> float:
        return float((answers.ids == labels).mean()) if len(labels) else 0.0

    def log_loss(answers: Answers) -> float:
        return float(answers.losses.mean())

    def error(answers: Answers) -> float:
        return calibration_error(answers.scores, answers.ids == labels)

    value = {LOG_LOSS: log_loss, CALIBRATION_ERROR: error}.get(metric, accuracy)
    test = None
    if tested and metric == LOG_LOSS:
        test = statistics.log_loss_test(mine, theirs)
    elif tested and metric == CALIBRATION_ERROR:
        test = statistics.calibration_test(labels, mine, theirs)
    elif tested:
        right, before = mine.ids == labels, theirs.ids == labels
        test = statistics.sign_test(int((before & ~right).sum()), int((right & ~before).sum()), len(labels))
    return Measured(metric, name, *_both(mine, theirs, value), test)


def _answers_of(images: Images, members: np.ndarray) -> list[Answers | None]:
    return [
        answers and Answers(answers.ids[members], answers.scores[members], answers.true_scores[members])
        for answers in (images.candidate, images.baseline)
    ]


def _both(
    candidate: Answers, baseline: Answers | None, value: Callable[[Answers], float]
) -> tuple[float, float | None]:
    return value(candidate), None if baseline is None else value(baseline)
