"""What is measured on test images: hits, log loss, calibration error, precision and recall of each class."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

BINS = 10
# A true class that was given no probability at all costs 16.1, not infinity.
SMALLEST = 1e-7


@dataclass(frozen=True)
class Answers:
    """What a model says of each test image.

    Attributes:
      ids: int [examples], the class with the highest probability.
      scores: float [examples], 0 to 1, that probability.
      true_scores: float [examples], 0 to 1, probability of the true class.
    """

    ids: np.ndarray
    scores: np.ndarray
    true_scores: np.ndarray

    @property
    def losses(self) -> np.ndarray:
        """Log loss of each image in nats, float [examples]."""
        return -np.log(np.maximum(self.true_scores, SMALLEST))


def bin_of(scores: np.ndarray, bins: int = BINS) -> np.ndarray:
    """Which of `bins` equal ranges from 0 to 1 a score falls into, int [examples]."""
    return np.minimum((scores * bins).astype(int), bins - 1)


def reliability(scores: np.ndarray, hits: np.ndarray, bins: int = BINS) -> list[dict[str, Any]]:
    """How often predictions of about the same score are right: what a reliability diagram shows.

    Args:
      scores: float [examples], 0 to 1.
      hits: bool [examples], whether the prediction is right.
      bins: equal ranges of the score from 0 to 1.

    Returns:
      For each range that has examples, from the lowest: `low`, `high`, `examples`, mean `score`, `accuracy`.
    """
    number = bin_of(scores, bins)
    return [
        {
            "low": each / bins,
            "high": (each + 1) / bins,
            "examples": int((number == each).sum()),
            "score": float(scores[number == each].mean()),
            "accuracy": float(hits[number == each].mean()),
        }
        for each in sorted(set(number.tolist()))
    ]


def calibration_error(scores: np.ndarray, hits: np.ndarray) -> float:
    """Expected calibration error, 0 to 1: the mean distance of score and accuracy in ten equal ranges of the score.

    Weighted by the images in each (Naeini et al. 2015; Guo et al. 2017, https://arxiv.org/abs/1706.04599). On few
    images it is above zero even for a model that knows its chances exactly: docs/gate.md says by how much.
    """
    if not len(scores):
        return 0.0
    gaps = np.bincount(bin_of(scores), weights=hits - scores, minlength=BINS)
    return float(np.abs(gaps).sum() / len(scores))


def summarise(labels: np.ndarray, answers: Answers, class_names: Sequence[str]) -> dict[str, Any]:
    """`accuracy`, `loss`, `calibration_error`, `examples`, `reliability` and `per_class` of one model."""
    hits, empty = answers.ids == labels, not len(labels)
    return {
        "accuracy": 0.0 if empty else float(hits.mean()),
        "loss": 0.0 if empty else float(answers.losses.mean()),
        "calibration_error": calibration_error(answers.scores, hits),
        "examples": len(labels),
        "reliability": reliability(answers.scores, hits),
        "per_class": per_class_metrics(labels, answers.ids, class_names),
    }


def per_class_metrics(labels: np.ndarray, predicted: np.ndarray, class_names: Sequence[str]) -> dict[str, dict]:
    """Precision over what was predicted as the class, recall over what is of the class, and the number of examples."""
    metrics = {}
    for index, name in enumerate(class_names):
        hits = int(((labels == index) & (predicted == index)).sum())
        examples, claimed = int((labels == index).sum()), int((predicted == index).sum())
        metrics[name] = {
            "precision": hits / claimed if claimed else 0.0,
            "recall": hits / examples if examples else 0.0,
            "examples": examples,
        }
    return metrics
