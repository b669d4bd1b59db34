"""How far probabilities can be trusted: temperature scaling (Guo et al. 2017, https://arxiv.org/abs/1706.04599)."""

import math
from typing import Any

import numpy as np
import scipy.optimize

from components import metrics
from components.temperature import SMALLEST, scaled

# A factor of 20 either way: a small eval split must not make the network sure of everything, or of nothing.
BOUNDS = (-3.0, 3.0)


def losses_of(probabilities: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Cross-entropy of each example, float64 [examples].

    Args:
      probabilities: [examples, classes].
      labels: int64 [examples].
      weights: float32 [classes], what an example of each class counts; None for 1 each.
    """
    true = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    losses = -np.log(np.maximum(true, metrics.SMALLEST))
    return losses if weights is None else losses * weights[labels]


def calibrated(probabilities: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Probabilities at the temperature that gives these examples the lowest loss: for comparing networks on them.

    Args:
      probabilities: [examples, classes].
      labels: int64 [examples].
      weights: float32 [classes], what an example of each class counts.

    Returns:
      float64 [examples, classes].
    """

    def loss(log_temperature: float) -> float:
        return float(losses_of(scaled(probabilities, math.exp(log_temperature)), labels, weights).mean())

    return scaled(probabilities, math.exp(_lowest(loss)))


def temperature(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The temperature for examples that are not these: above 1 where the network is too sure, below 1 where not enough.

    A small split on which everything is right would call for certainty. So the examples count as right with a
    probability of (n + 1) / (n + 2) only, as Platt 1999, "Probabilistic outputs for support vector machines", has it.

    Args:
      probabilities: [examples, classes].
      labels: int64 [examples].
    """
    count, classes = probabilities.shape
    targets = np.full(probabilities.shape, 1 / (count + 2) / max(classes - 1, 1))
    targets[np.arange(count), labels] = (count + 1) / (count + 2)

    def loss(log_temperature: float) -> float:
        at = scaled(probabilities, math.exp(log_temperature))
        return float(-(targets * np.log(np.maximum(at, SMALLEST))).sum(axis=1).mean())

    best = _lowest(loss)
    return math.exp(best) if loss(best) < loss(0.0) else 1.0


def _lowest(loss: Any) -> float:
    return float(scipy.optimize.minimize_scalar(loss, bounds=BOUNDS, method="bounded").x)


def reliability(probabilities: np.ndarray, labels: np.ndarray) -> list[dict[str, Any]]:
    """`metrics.reliability` of probabilities.

    Args:
      probabilities: [examples, classes].
      labels: int64 [examples].
    """
    return metrics.reliability(probabilities.max(axis=1), probabilities.argmax(axis=1) == labels)


def report(probabilities: np.ndarray, labels: np.ndarray, degrees: float) -> dict[str, Any]:
    """What a temperature does to these examples: `temperature`, and before and after it `loss` and `reliability`."""
    after = scaled(probabilities, degrees)
    return {
        "temperature": degrees,
        "loss": float(losses_of(probabilities, labels).mean()),
        "scaled_loss": float(losses_of(after, labels).mean()),
        "reliability": reliability(probabilities, labels),
        "scaled_reliability": reliability(after, labels),
    }
