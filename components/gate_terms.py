"""What a decision of the gate is told in: metrics, the slice of all images, a line. No NumPy, for who must be small."""

from dataclasses import dataclass

OVERALL = "overall"
ACCURACY, RECALL, PRECISION = "accuracy", "recall", "precision"
LOG_LOSS, CALIBRATION_ERROR = "log_loss", "calibration_error"
BY_CLASS = (RECALL, PRECISION)
COMPARABLE = (ACCURACY, RECALL, PRECISION, LOG_LOSS, CALIBRATION_ERROR)


@dataclass(frozen=True)
class Check:
    """One line of the decision.

    Attributes:
      metric: what was measured; `no_regression_` and a metric where it was compared with the baseline.
      slice: `overall`, a class name, or a slice's name.
      value: what the candidate reached.
      bound: what it had to reach, or stay under; for a comparison, where the paired test would begin to refuse.
      passed: None where the slice was not judged.
      baseline: what the model in service reaches, or None.
      relation: how the value must lie to the bound.
      p_value: of a comparison, how likely equal models look at least as different as these.
      level: of a comparison, the p-value under which it refuses.
    """

    metric: str
    slice: str
    value: float
    bound: float | None
    passed: bool | None
    baseline: float | None = None
    relation: str = ">="
    p_value: float | None = None
    level: float | None = None
