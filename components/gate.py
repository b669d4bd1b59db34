"""The rules that decide whether a model may be published; docs/gate.md explains them to people.

Pure functions over per-image answers of the candidate and of the model in service (the baseline) on the same test
images. The default rules are statistical, so that noise on a small test set neither blocks nor passes:

* floor: the lower 95 % Wilson bound of the accuracy must exceed the share of the largest class, which is what always
  answering that class would score;
* no regression: no paired test (`components.gate_statistics`) may find the candidate worse than the baseline. All tests
  of a decision share one level of 5 %, so that an equal model is refused in at most one of twenty decisions.

Configured floors come on top; they are on the plain value.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from components import gate_statistics as statistics
from components.gate_statistics import wilson_lower_bound
from components.gate_terms import (
    ACCURACY,
    BY_CLASS,
    CALIBRATION_ERROR,
    LOG_LOSS,
    OVERALL,
    PRECISION,
    RECALL,
    Check,
)
from components.gate_wording import NO_REGRESSION
from components.measured import (
    Images,
    Measured,
    concerned,
    measure,
    of_class,
    overall,
)

LEVEL = 0.05
# Of the level, to the accuracy over all images; the other groups of tests divide the rest.
ACCURACY_SHARE = 0.7
LOWER_IS_BETTER = (LOG_LOSS, CALIBRATION_ERROR)
_ROUNDING = 1e-9


@dataclass(frozen=True)
class GateRules:
    """What `evaluation` in the configuration sets; None switches a floor off.

    Attributes:
      default_rules: whether the statistical rules above apply.
      no_regression: which of `COMPARABLE` the default rules compare with the baseline.
      min_accuracy: 0 to 1, floor of the accuracy itself.
      min_class_recall: 0 to 1, floor of every judged class's recall.
      min_class_precision: 0 to 1, floor of every judged class's precision.
      min_slice_accuracy: 0 to 1, floor of every judged slice's accuracy.
      max_log_loss: nats, ceiling of the mean log loss.
      max_calibration_error: 0 to 1, ceiling of the expected calibration error.
      max_accuracy_drop: 0 to 1, largest loss of accuracy against the baseline.
      slices: what the images are sliced by besides classes (`components.slices`).
      min_examples: with fewer test images the gate refuses to judge.
      min_class_examples: with fewer test images a class or slice is reported as not judged.
    """

    default_rules: bool = True
    no_regression: Sequence[str] = (ACCURACY, RECALL)
    min_accuracy: float | None = None
    min_class_recall: float | None = None
    min_class_precision: float | None = None
    min_slice_accuracy: float | None = None
    max_log_loss: float | None = None
    max_calibration_error: float | None = None
    max_accuracy_drop: float | None = None
    slices: Sequence[str | dict[str, str]] = ()
    min_examples: int = 20
    min_class_examples: int = 20


@dataclass(frozen=True)
class Decision:
    """Whether the candidate is blessed, and every check that was made: overall, then classes, then slices."""

    blessed: bool
    checks: list[Check]

    def to_json(self) -> dict:
        return asdict(self)


def decide(images: Images, rules: GateRules, further: Sequence[Check] = ()) -> Decision:
    """Applies the rules.

    Args:
      images: the test images and the answers.
      rules: see `GateRules`.
      further: checks that were made elsewhere and count as well.
    """
    count = len(images.labels)
    checks = [Check("test_examples", OVERALL, count, rules.min_examples, count >= rules.min_examples), *further]
    if count < rules.min_examples:
        return Decision(False, checks)
    judged = _overall_floors(images, rules) + _class_floors(images, rules) + _slice_floors(images, rules)
    judged += _comparisons(images, rules)
    if all(check.passed is None for check in judged):
        # Every class and slice that has a floor is too small: passing would mean that nobody looked.
        judged.append(Check("judged_checks", OVERALL, 0, 1, False))
    judged.sort(key=lambda check: check.slice != OVERALL)
    checks += judged
    return Decision(all(check.passed is not False for check in checks), checks)


def detectable_drop(images: Images, decision: Decision) -> float | None:
    """The smallest drop in accuracy that the comparison notices with a probability of 80 % on these images, 0 to 1.

    Returns:
      None where the accuracy was not compared, or no drop at all would be noticed.
    """
    metric = (f"{NO_REGRESSION}{ACCURACY}", OVERALL)
    check = next((check for check in decision.checks if (check.metric, check.slice) == metric), None)
    if check is None:
        return None
    right, before = images.candidate.ids == images.labels, images.baseline.ids == images.labels
    lost, gained = int((before & ~right).sum()), int((right & ~before).sum())
    # What a candidate that is worse has lost is no sign of how much two good ones would differ.
    differ = lost + gained if check.passed else 2 * min(lost, gained)
    return statistics.detectable_drop(len(right), differ, check.level)


# ---- floors ---------------------------------------------------------------------------------------------------------


def _overall_floors(images: Images, rules: GateRules) -> list[Check]:
    accuracy, losses, error = (overall(images, metric) for metric in (ACCURACY, LOG_LOSS, CALIBRATION_ERROR))
    checks = []
    if rules.default_rules:
        count = len(images.labels)
        bound = float(np.bincount(images.labels).max() / count)
        value = wilson_lower_bound(round(accuracy.value * count), count)
        before = accuracy.baseline and wilson_lower_bound(round(accuracy.baseline * count), count)
        checks.append(Check("accuracy_lower_bound", OVERALL, value, bound, value > bound, before, ">"))
    if rules.max_accuracy_drop is not None and accuracy.baseline is not None:
        drop, bound = accuracy.baseline - accuracy.value, rules.max_accuracy_drop
        # Both are ratios of counts; the tolerance keeps 0.8 - 0.7 from exceeding 0.1.
        checks.append(Check("accuracy_drop", OVERALL, drop, bound, drop <= bound + _ROUNDING, None, "<="))
    floors = ((accuracy, rules.min_accuracy), (losses, rules.max_log_loss), (error, rules.max_calibration_error))
    return checks + [_floor(measured, bound) for measured, bound in floors if bound is not None]


def _class_floors(images: Images, rules: GateRules) -> list[Check]:
    checks = []
    for index in range(len(images.class_names)):
        if (images.labels == index).sum() < rules.min_class_examples:
            checks.append(_not_judged(of_class(images, RECALL, index)))
        elif rules.min_class_recall is not None:
            checks.append(_floor(of_class(images, RECALL, index), rules.min_class_recall))
        if rules.min_class_precision is not None:
            precision = of_class(images, PRECISION, index)
            enough = (images.candidate.ids == index).sum() >= rules.min_class_examples
            checks.append(_floor(precision, rules.min_class_precision) if enough else _not_judged(precision))
    return checks


def _slice_floors(images: Images, rules: GateRules) -> list[Check]:
    checks = []
    for name, members in images.slices.items():
        accuracy = measure(images, ACCURACY, name, members)
        if members.sum() < rules.min_class_examples:
            checks.append(_not_judged(accuracy))
        elif rules.min_slice_accuracy is not None:
            checks.append(_floor(accuracy, rules.min_slice_accuracy))
    return checks


def _floor(measured: Measured, bound: float) -> Check:
    """Of a metric of which less is better, the bound is a ceiling."""
    less = measured.metric in LOWER_IS_BETTER
    passed = measured.value <= bound if less else measured.value >= bound
    return Check(
        measured.metric, measured.slice, measured.value, bound, passed, measured.baseline, "<=" if less else ">="
    )


def _not_judged(measured: Measured) -> Check:
    return Check(measured.metric, measured.slice, measured.value, None, None, measured.baseline)


# ---- no regression --------------------------------------------------------------------------------------------------


def _comparisons(images: Images, rules: GateRules) -> list[Check]:
    if images.baseline is None or not rules.default_rules:
        return []
    first = [overall(images, ACCURACY, tested=True)] if ACCURACY in rules.no_regression else []
    groups = [group for metric in rules.no_regression for group in _groups(images, metric, rules) if group]
    share = LEVEL * (1 - ACCURACY_SHARE) if first else LEVEL
    # What the images leave no chance to be significant needs no share: two models that differ on three of a class.
    able = [min(each.test.least for each in group) <= share / len(groups) for group in groups]
    checks = [_comparison(each, LEVEL * ACCURACY_SHARE if any(able) else LEVEL) for each in first]
    for group, is_able in zip(groups, able, strict=True):
        part = share / (sum(able) if is_able else len(groups))
        level = statistics.shared_level(part, [each.test for each in group])
        checks += [_comparison(each, level) for each in group]
    return checks


def _groups(images: Images, metric: str, rules: GateRules) -> list[list[Measured]]:
    """The tests of a metric but that of the overall accuracy, in groups that get an equal share of the level each."""
    enough = rules.min_class_examples
    if metric in BY_CLASS:
        classes = range(len(images.class_names))
        return [
            [
                of_class(images, metric, index, tested=True)
                for index in classes
                if concerned(images, metric, index).sum() >= enough
            ]
        ]
    first = [] if metric == ACCURACY else [overall(images, metric, tested=True)]
    # A slice that holds every image would be the same test again.
    slices = {name: members for name, members in images.slices.items() if enough <= members.sum() < len(members)}
    return [first, [measure(images, metric, name, members, tested=True) for name, members in slices.items()]]


def _comparison(measured: Measured, level: float) -> Check:
    less, test = measured.metric in LOWER_IS_BETTER, measured.test
    margin = test.margin(level)
    bound = measured.baseline + margin if less else max(measured.baseline - margin, 0.0)
    passed = test.observed <= margin + _ROUNDING
    return Check(
        f"{NO_REGRESSION}{measured.metric}",
        measured.slice,
        measured.value,
        bound,
        bool(passed),
        measured.baseline,
        "<=" if less else ">=",
        test.p_value,
        level,
    )
