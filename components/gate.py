"""The rules that decide whether a model may be published.

Pure functions over per-image predictions of the candidate and of the model in service (the baseline) on the same test
images. The default rules are statistical, so that noise on a small test set neither blocks nor passes:

* floor: the lower 95 % Wilson bound of the accuracy must exceed the share of the largest class, which is what always
  answering that class would score (Wilson 1927; Brown, Cai, DasGupta 2001, "Interval Estimation for a Binomial
  Proportion");
* no regression: among the images on which the two models disagree in being right, the exact one-sided sign test (the
  small-sample form of McNemar's test) must not find the candidate worse at the 5 % level; per class the level is
  divided by the number of judged classes (Bonferroni), so that many classes do not make a false alarm likely.

Configured floors come on top.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

LEVEL = 0.05
Z_ONE_SIDED_95 = 1.6448536269514722
OVERALL = "overall"


@dataclass(frozen=True)
class GateRules:
    """What `evaluation` in the configuration sets; None switches a floor off.

    Attributes:
      default_rules: whether the statistical rules above apply.
      min_accuracy: 0 to 1, floor of the accuracy itself.
      min_class_recall: 0 to 1, floor of every judged class's recall.
      max_accuracy_drop: 0 to 1, largest loss of accuracy against the baseline.
      min_examples: with fewer test images the gate refuses to judge.
      min_class_examples: with fewer test images a class is reported as not judged.
    """

    default_rules: bool = True
    min_accuracy: float | None = None
    min_class_recall: float | None = None
    max_accuracy_drop: float | None = None
    min_examples: int = 20
    min_class_examples: int = 20


@dataclass(frozen=True)
class Check:
    """One line of the decision.

    Attributes:
      metric: what was compared.
      slice: `overall` or a class name.
      value: what the candidate reached.
      bound: what it had to reach (or stay under, for `accuracy_drop`).
      passed: None where the slice was not judged.
    """

    metric: str
    slice: str
    value: float
    bound: float | None
    passed: bool | None


@dataclass(frozen=True)
class Decision:
    """Whether the candidate is blessed, and every check that was made."""

    blessed: bool
    checks: list[Check]

    def to_json(self) -> dict:
        return {"blessed": self.blessed, "checks": [asdict(check) for check in self.checks]}


def decide(
    labels: np.ndarray,
    candidate: np.ndarray,
    baseline: np.ndarray | None,
    class_names: Sequence[str],
    rules: GateRules,
) -> Decision:
    """Applies the rules.

    Args:
      labels: int [examples], true class ids.
      candidate: int [examples], class ids that the candidate predicts.
      baseline: int [examples], those of the model in service, or None where nothing can be compared.
      class_names: by id.
      rules: see `GateRules`.
    """
    count = len(labels)
    checks = [Check("test_examples", OVERALL, count, rules.min_examples, count >= rules.min_examples)]
    if not checks[0].passed:
        return Decision(False, checks)
    right = candidate == labels
    accuracy = float(right.mean())
    if rules.default_rules:
        bound = float(np.bincount(labels).max() / count)
        value = wilson_lower_bound(int(right.sum()), count)
        checks.append(Check("accuracy_lower_bound", OVERALL, value, bound, value > bound))
    if rules.min_accuracy is not None:
        checks.append(Check("accuracy", OVERALL, accuracy, rules.min_accuracy, accuracy >= rules.min_accuracy))
    right_before = None if baseline is None else baseline == labels
    if right_before is not None:
        if rules.default_rules:
            checks.append(_no_regression(right, right_before, OVERALL, LEVEL))
        if rules.max_accuracy_drop is not None:
            drop = float(right_before.mean()) - accuracy
            # Both are ratios of counts; the tolerance keeps 0.8 - 0.7 from exceeding 0.1.
            passed = drop <= rules.max_accuracy_drop + 1e-9
            checks.append(Check("accuracy_drop", OVERALL, drop, rules.max_accuracy_drop, passed))
    checks += _class_checks(labels, right, right_before, class_names, rules)
    return Decision(all(check.passed is not False for check in checks), checks)


def _class_checks(labels, right, right_before, class_names, rules: GateRules) -> list[Check]:
    members = {name: labels == index for index, name in enumerate(class_names)}
    judged = [name for name, of_class in members.items() if of_class.sum() >= rules.min_class_examples]
    checks = []
    for name, of_class in members.items():
        recall = float(right[of_class].mean()) if of_class.any() else 0.0
        if name not in judged:
            checks.append(Check("recall", name, recall, None, None))
            continue
        if rules.min_class_recall is not None:
            floor = rules.min_class_recall
            checks.append(Check("recall", name, recall, floor, recall >= floor))
        if right_before is not None and rules.default_rules:
            checks.append(_no_regression(right[of_class], right_before[of_class], name, LEVEL / len(judged)))
    return checks


def _no_regression(right: np.ndarray, right_before: np.ndarray, where: str, level: float) -> Check:
    p_value = sign_test(lost=int((right_before & ~right).sum()), gained=int((right & ~right_before).sum()))
    return Check("no_regression_p_value", where, p_value, level, p_value >= level)


def wilson_lower_bound(successes: int, count: int, z: float = Z_ONE_SIDED_95) -> float:
    """Lower one-sided 95 % bound of a proportion, in [0, 1]; 0 for an empty sample."""
    if not count:
        return 0.0
    share = successes / count
    centre = share + z * z / (2 * count)
    margin = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return max(0.0, (centre - margin) / (1 + z * z / count))


def sign_test(lost: int, gained: int) -> float:
    """Probability of at least `lost` losses among `lost + gained` if each were as likely a gain (one-sided)."""
    from scipy.stats import binomtest

    return float(binomtest(lost, lost + gained, 0.5, alternative="greater").pvalue) if lost + gained else 1.0


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
