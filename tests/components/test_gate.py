"""The gate: which models may be published, and how often noise decides."""

import numpy as np
import pytest
from scipy import stats

from components.gate import (
    LEVEL,
    GateRules,
    decide,
    per_class_metrics,
    sign_test,
    wilson_lower_bound,
)

NAMES = ("cat", "dog")


def predictions(labels, wrong) -> np.ndarray:
    """Right everywhere but at the given places."""
    predicted = labels.copy()
    predicted[list(wrong)] = 1 - predicted[list(wrong)]
    return predicted


def labels_of(cats, dogs) -> np.ndarray:
    return np.array([0] * cats + [1] * dogs)


def failed(decision) -> list[tuple[str, str]]:
    return [(check.metric, check.slice) for check in decision.checks if check.passed is False]


def check_of(decision, metric, where="overall"):
    (found,) = (check for check in decision.checks if (check.metric, check.slice) == (metric, where))
    return found


# ---- G1, G2: floors -------------------------------------------------------------------------------------------------


def test_g1_default_floor_refuses_what_always_answering_one_class_would_score():
    labels = labels_of(70, 30)
    decision = decide(labels, np.zeros(100, int), None, NAMES, GateRules())
    assert not decision.blessed
    check = check_of(decision, "accuracy_lower_bound")
    assert check.bound == pytest.approx(0.7)
    assert check.value == pytest.approx(wilson_lower_bound(70, 100))


def test_g1_default_floor_passes_a_good_model_without_a_baseline():
    labels = labels_of(50, 50)
    assert decide(labels, predictions(labels, range(10)), None, NAMES, GateRules()).blessed


def test_g6_model_that_guesses_is_refused():
    labels = labels_of(50, 50)
    guesses = np.random.default_rng(3).integers(0, 2, 100)
    assert ("accuracy_lower_bound", "overall") in failed(decide(labels, guesses, None, NAMES, GateRules()))


def test_g2_candidate_below_the_configured_floor_is_refused_with_value_and_bound():
    labels = labels_of(50, 50)
    rules = GateRules(min_accuracy=0.9)
    decision = decide(labels, predictions(labels, range(11)), None, NAMES, rules)
    assert failed(decision) == [("accuracy", "overall")]
    check = check_of(decision, "accuracy")
    assert (check.value, check.bound) == (pytest.approx(0.89), 0.9)
    assert decide(labels, predictions(labels, range(10)), None, NAMES, rules).blessed


def test_g2_class_below_its_recall_floor_is_refused_though_the_rest_is_perfect():
    labels = labels_of(80, 20)
    rules = GateRules(min_class_recall=0.8)
    decision = decide(labels, predictions(labels, range(80, 85)), None, NAMES, rules)
    assert failed(decision) == [("recall", "dog")]
    assert check_of(decision, "recall", "dog").value == pytest.approx(0.75)


def test_configured_floors_apply_without_the_default_rules():
    labels = labels_of(70, 30)
    always_cat = np.zeros(100, int)
    assert decide(labels, always_cat, None, NAMES, GateRules(default_rules=False, min_accuracy=0.7)).blessed
    assert not decide(labels, always_cat, None, NAMES, GateRules(default_rules=False, min_accuracy=0.71)).blessed


# ---- G2, G3, G7: against the baseline -------------------------------------------------------------------------------


def test_g2_candidate_worse_than_the_baseline_is_refused():
    labels = labels_of(50, 50)
    decision = decide(labels, predictions(labels, range(45, 55)), predictions(labels, ()), NAMES, GateRules())
    assert ("no_regression_p_value", "overall") in failed(decision)
    check = check_of(decision, "no_regression_p_value")
    assert (check.value, check.bound) == (pytest.approx(0.5**10), LEVEL)


def test_g7_better_candidate_passes_and_the_swapped_pair_does_not():
    """A gate that compared the candidate with itself would let both through."""
    labels = labels_of(50, 50)
    good, poor = predictions(labels, range(5)), predictions(labels, range(0, 40, 2))
    assert decide(labels, good, poor, NAMES, GateRules()).blessed
    assert not decide(labels, poor, good, NAMES, GateRules()).blessed


def test_g3_candidate_identical_to_the_baseline_passes():
    labels = labels_of(50, 50)
    for wrong in (0, 10, 30):
        same = predictions(labels, range(wrong))
        decision = decide(labels, same, same.copy(), NAMES, GateRules(max_accuracy_drop=0.0))
        assert decision.blessed
        assert check_of(decision, "no_regression_p_value").value == 1.0


def test_g2_worse_on_one_class_only_is_refused():
    labels = labels_of(100, 100)
    # Ten cats won, ten dogs lost: overall nothing changed.
    candidate, baseline = predictions(labels, range(100, 110)), predictions(labels, range(10))
    decision = decide(labels, candidate, baseline, NAMES, GateRules())
    assert failed(decision) == [("no_regression_p_value", "dog")]


def test_level_of_a_class_is_divided_by_the_number_of_judged_classes():
    labels = np.repeat([0, 1, 2, 3], [30, 30, 30, 19])
    names = ("a", "b", "c", "rare")
    candidate = labels.copy()
    candidate[:5] = 1  # five of class a lost: p = 1/32, between 5 % and 5 % of three
    decision = decide(labels, candidate, labels, names, GateRules())
    check = check_of(decision, "no_regression_p_value", "a")
    assert check.value == pytest.approx(1 / 32)
    assert check.bound == pytest.approx(LEVEL / 3)
    assert check.passed
    assert failed(decision) == [("no_regression_p_value", "overall")]


def test_g2_drop_beyond_the_allowed_one_is_refused_and_the_allowed_one_is_not():
    labels = labels_of(50, 50)
    rules = GateRules(default_rules=False, min_accuracy=0.1, max_accuracy_drop=0.1)
    baseline = predictions(labels, range(20))
    # 0.8 - 0.7 is a little more than 0.1 in floating point.
    assert decide(labels, predictions(labels, range(30)), baseline, NAMES, rules).blessed
    decision = decide(labels, predictions(labels, range(31)), baseline, NAMES, rules)
    assert failed(decision) == [("accuracy_drop", "overall")]
    assert check_of(decision, "accuracy_drop").value == pytest.approx(0.11)


# ---- G4: too few examples -------------------------------------------------------------------------------------------


def test_g4_too_few_examples_overall_are_not_judged_and_that_is_all_that_is_said():
    labels = labels_of(10, 9)
    decision = decide(labels, labels, None, NAMES, GateRules())
    assert not decision.blessed
    assert [(check.metric, check.value, check.bound) for check in decision.checks] == [("test_examples", 19, 20)]
    assert decide(labels_of(10, 10), labels_of(10, 10), None, NAMES, GateRules()).blessed


def test_g4_no_example_at_all_is_refused():
    assert not decide(np.array([], int), np.array([], int), None, NAMES, GateRules()).blessed


def test_g4_class_with_too_few_examples_is_reported_as_not_judged():
    labels = labels_of(60, 19)
    rules = GateRules(min_class_recall=0.9)
    lost = predictions(labels, range(60, 67))
    decision = decide(labels, lost, labels, NAMES, rules)
    check = check_of(decision, "recall", "dog")
    assert (check.passed, check.bound, check.value) == (None, None, pytest.approx(12 / 19))
    assert all(where != "dog" for _, where in failed(decision))


def test_class_without_examples_is_reported_as_not_judged():
    labels = np.zeros(30, int)
    check = check_of(decide(labels, labels, None, NAMES, GateRules()), "recall", "dog")
    assert (check.value, check.passed) == (0.0, None)


def test_decision_survives_json():
    import json

    labels = labels_of(50, 50)
    decision = decide(labels, labels, labels, NAMES, GateRules(min_accuracy=0.5, min_class_recall=0.5))
    again = json.loads(json.dumps(decision.to_json()))
    assert again["blessed"] is True
    assert len(again["checks"]) == len(decision.checks)


# ---- the statistics -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("successes", "count"), [(0, 10), (1, 10), (9, 10), (10, 10), (70, 100), (995, 1000)])
def test_wilson_bound_is_scipys(successes, count):
    # The lower end of the two-sided 90 % interval is the one-sided 95 % bound.
    expected = stats.binomtest(successes, count).proportion_ci(0.9, method="wilson").low
    assert wilson_lower_bound(successes, count) == pytest.approx(expected, abs=1e-9)


def test_wilson_bound_of_published_examples():
    # Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I, 95 % Wilson.
    assert wilson_lower_bound(81, 263, 1.959964) == pytest.approx(0.2553, abs=1e-4)
    assert wilson_lower_bound(15, 148, 1.959964) == pytest.approx(0.0624, abs=1e-4)
    assert wilson_lower_bound(1, 29, 1.959964) == pytest.approx(0.0061, abs=1e-4)
    assert wilson_lower_bound(0, 0) == 0.0


@pytest.mark.parametrize(("lost", "gained"), [(0, 0), (5, 0), (0, 5), (8, 2), (10, 10), (60, 40)])
def test_sign_test_is_the_tail_of_a_fair_coin(lost, gained):
    assert sign_test(lost, gained) == pytest.approx(stats.binom.sf(lost - 1, lost + gained, 0.5))


def test_precision_and_recall_of_each_class():
    labels = np.array([0, 0, 0, 1, 1, 2])
    predicted = np.array([0, 0, 1, 1, 0, 1])
    assert per_class_metrics(labels, predicted, ("a", "b", "c", "d")) == {
        "a": {"precision": 2 / 3, "recall": 2 / 3, "examples": 3},
        "b": {"precision": 1 / 3, "recall": 1 / 2, "examples": 2},
        "c": {"precision": 0.0, "recall": 0.0, "examples": 1},
        "d": {"precision": 0.0, "recall": 0.0, "examples": 0},
    }


# ---- how often noise decides ----------------------------------------------------------------------------------------


def refusals(accuracy, baseline_accuracy, count, classes, trials, where=None) -> float:
    """Share of simulated candidates that a no-regression check refuses; the two models err independently."""
    generator = np.random.default_rng(11)
    labels = np.arange(count) % classes
    names = [str(index) for index in range(classes)]

    def model(accuracy):
        wrong = generator.random(count) >= accuracy
        return np.where(wrong, (labels + generator.integers(1, classes, count)) % classes, labels)

    refused = 0
    for _ in range(trials):
        decision = decide(labels, model(accuracy), model(baseline_accuracy), names, GateRules())
        refused += any(
            check.metric == "no_regression_p_value" and check.passed is False and check.slice in (where or names)
            for check in decision.checks
        )
    return refused / trials


ALLOWANCE = 0.02  # three standard errors of a share of 5 % in 1000 trials


@pytest.mark.parametrize("count", [50, 200, 1000])
def test_equal_model_is_refused_overall_at_most_one_time_in_twenty(count):
    assert refusals(0.8, 0.8, count, 2, 1000, ["overall"]) <= LEVEL + ALLOWANCE


@pytest.mark.parametrize(("count", "classes"), [(50, 2), (200, 2), (1000, 10)])
def test_equal_model_is_refused_for_any_of_its_classes_at_most_one_time_in_twenty(count, classes):
    assert refusals(0.8, 0.8, count, classes, 500) <= LEVEL + 1.5 * ALLOWANCE


@pytest.mark.parametrize(("count", "accuracy"), [(50, 0.6), (200, 0.75), (1000, 0.82)])
def test_much_worse_model_is_mostly_refused(count, accuracy):
    assert refusals(accuracy, 0.9, count, 2, 200, ["overall"]) > 0.9
