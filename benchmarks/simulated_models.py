"""Pairs of models of known accuracy whose errors go together, as those of retrained models do."""

from collections.abc import Sequence

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit
from scipy.stats import norm

from components.gate import Images
from components.metrics import Answers

# Correlation of what is hard for both models, and of their luck (benchmarks/gate.py compares with retrained networks).
TOGETHER = 0.9
_SPREAD = 2.5


class Pairs:
    """Draws test sets with the answers of a candidate and a baseline.

    Args:
      count: test images, spread evenly over the classes.
      classes: at least 2.
      accuracies: of the candidate and the baseline, 0 to 1.
      together: 0 to 1; 0 makes the errors independent.
      weak_class: accuracy that the candidate loses on class 0 alone.
      seed: of the draws.
    """

    def __init__(
        self,
        count: int,
        classes: int,
        accuracies: Sequence[float],
        together: float = TOGETHER,
        weak_class: float = 0.0,
        seed: int = 0,
    ):
        self._random = np.random.default_rng([seed, count, classes])
        self.labels = np.arange(count) % classes
        self.class_names = [f"class {number}" for number in range(classes)]
        self._classes, self._together = classes, together
        weak = np.where(self.labels == 0, weak_class, 0.0)
        self._centres = [self._centre(accuracies[0] - weak), self._centre(np.full(count, accuracies[1]))]

    def _centre(self, accuracies: np.ndarray) -> np.ndarray:
        """Where the images' logits lie, so that the mean score, and with it the accuracy, is the wanted one."""
        grid = norm.ppf((np.arange(400) + 0.5) / 400) * _SPREAD
        found = {
            accuracy: brentq(lambda at, wanted=accuracy: self._score(at + grid).mean() - wanted, -30, 30)
            for accuracy in np.unique(accuracies)
        }
        return np.array([found[accuracy] for accuracy in accuracies])

    def _score(self, logits: np.ndarray) -> np.ndarray:
        """Between guessing and certainty."""
        return 1 / self._classes + (1 - 1 / self._classes) * expit(logits)

    def draw(self) -> Images:
        """Scores are chances: a model that says 0.7 is right in 70 % of such cases."""
        count, share = len(self.labels), self._together

        def normal(common: np.ndarray) -> np.ndarray:
            return np.sqrt(share) * common + np.sqrt(1 - share) * self._random.standard_normal(count)

        hardness, luck = self._random.standard_normal((2, count))
        # The mistake that suggests itself is the same for both.
        mistake = (self.labels + self._random.integers(1, self._classes, count)) % self._classes
        answers = []
        for centre in self._centres:
            scores = self._score(centre + _SPREAD * normal(hardness))
            hits = norm.cdf(normal(luck)) < scores
            true_scores = np.where(hits, scores, (1 - scores) / (self._classes - 1))
            answers.append(Answers(np.where(hits, self.labels, mistake), scores, true_scores))
        return Images(self.labels, self.class_names, *answers)
