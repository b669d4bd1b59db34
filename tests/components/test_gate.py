"""The gate: which models may be published, and how often noise decides."""

import json

import numpy as np
import pytest

from benchmarks.simulated_models import Pairs
from components import gate
from components.gate import ACCURACY_SHARE, LEVEL, Check, GateRules, Images, detectable_drop
from components.gate_statistics import PERMUTATIONS, wilson_lower_bound
from components.gate_terms import COMPARABLE
from components.metrics import Answers
from components.slices import MAX_SLICES

NAMES = ("cat", "dog")


def answers(labels, ids, sure=0.9) -> Answers:
    """The same score everywhere; what is left goes to the other class."""
    scores = np.full(len(labels), sure)
    return Answers(ids, scores, np.where(ids == labels, scores, 1 - scores))


def decide(labels, candidate, baseline, names, rules, slices=None):
    """`gate.decide` on class ids, or on answers where scores matter."""
    both = [
        each if each is None or isinstance(each, Answers) else answers(labels, each) for each in (candidate, baseline)
    ]
    return gate.decide(Images(labels, names, *both, slices or {}), rules)


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
    assert ("no_regression_accuracy", "overall") in failed(decision)
    check = check_of(decision, "no_regression_accuracy")
    assert (check.value, check.baseline, check.p_value) == (0.9, 1.0, pytest.approx(0.5**10))
    # Of five coins five tails are not likely enough, of four four are: without a gain four may be lost.
    assert check.level == LEVEL
    assert check.bound == pytest.approx(0.96)


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
        check = check_of(decision, "no_regression_accuracy")
        assert (check.p_value, check.value) == (1.0, check.baseline)


def test_g2_worse_on_one_class_only_is_refused():
    labels = labels_of(100, 100)
    # Ten cats won, ten dogs lost: overall nothing changed.
    candidate, baseline = predictions(labels, range(100, 110)), predictions(labels, range(10))
    decision = decide(labels, candidate, baseline, NAMES, GateRules())
    assert failed(decision) == [("no_regression_recall", "dog")]
    check = check_of(decision, "no_regression_recall", "dog")
    assert (check.value, check.baseline) == (0.9, 1.0)


def test_the_checks_of_a_decision_share_one_level():
    labels = np.repeat([0, 1, 2, 3], [30, 30, 30, 19])
    names = ("a", "b", "c", "rare")
    candidate, baseline = labels.copy(), labels.copy()
    for start in (0, 30, 60):  # Seven lost and seven won of each class that is judged.
        candidate[start : start + 7] = 3
        baseline[start + 7 : start + 14] = 3
    decision = decide(labels, candidate, baseline, names, GateRules())
    levels = [check.level for check in decision.checks if check.level]
    assert levels == pytest.approx([LEVEL * ACCURACY_SHARE, *[LEVEL * (1 - ACCURACY_SHARE) / 3] * 3])
    assert sum(levels) == pytest.approx(LEVEL)
    assert decision.blessed


def test_class_on_which_the_models_hardly_differ_takes_no_level_from_the_others():
    labels = np.repeat([0, 1, 2], 30)
    candidate = labels.copy()
    candidate[:7] = 1
    decision = decide(labels, candidate, labels, ("a", "b", "c"), GateRules())
    check = check_of(decision, "no_regression_recall", "a")
    # b and c could not be refused however their answers fell.
    assert check.level == pytest.approx(LEVEL * (1 - ACCURACY_SHARE))
    assert check.p_value == pytest.approx(1 / 128)
    assert not check.passed


def test_accuracy_has_the_whole_level_where_no_class_could_be_refused():
    labels = labels_of(15, 15)
    candidate = predictions(labels, range(5))
    decision = decide(labels, candidate, labels, NAMES, GateRules())
    check = check_of(decision, "no_regression_accuracy")
    assert (check.level, check.p_value) == (LEVEL, pytest.approx(1 / 32))
    assert failed(decision) == [("no_regression_accuracy", "overall")]


def test_group_that_could_not_refuse_at_its_share_does_not_get_a_larger_one():
    labels = labels_of(30, 30)
    candidate = predictions(labels, range(7))
    decision = decide(labels, candidate, labels, NAMES, GateRules(no_regression=["accuracy", "recall", "precision"]))
    # 1/128 lies between half of the share and all of it.
    for metric, where in (("recall", "cat"), ("precision", "dog")):
        check = check_of(decision, f"no_regression_{metric}", where)
        assert (check.p_value, check.level) == (pytest.approx(1 / 128), LEVEL * (1 - ACCURACY_SHARE) / 2)
        assert check.passed
    assert failed(decision) == [("no_regression_accuracy", "overall")]


def test_every_share_of_the_level_can_be_reached_by_random_swaps():
    most_groups = 7
    assert LEVEL * (1 - ACCURACY_SHARE) / most_groups / MAX_SLICES > 1 / (PERMUTATIONS + 1)


@pytest.mark.parametrize("metric", COMPARABLE)
def test_g2_each_metric_is_compared_where_it_is_asked_for_and_only_there(metric):
    labels = labels_of(60, 60)
    good = answers(labels, predictions(labels, range(0, 60, 30)))
    # Of the dogs many are called cats, and all that with more certainty.
    poor = answers(labels, predictions(labels, range(60, 90)), sure=0.99)
    decision = decide(labels, poor, good, NAMES, GateRules(no_regression=[metric]))
    compared = [check for check in decision.checks if check.metric.startswith("no_regression_")]
    assert {check.metric for check in compared} == {f"no_regression_{metric}"}
    where = {"recall": "dog", "precision": "cat"}.get(metric, "overall")
    assert failed(decision) == [(f"no_regression_{metric}", where)]
    check = check_of(decision, f"no_regression_{metric}", where)
    assert check.p_value < check.level
    worse = np.sign(check.value - check.baseline)
    assert np.sign(check.value - check.bound) == worse
    assert check.relation == ("<=" if worse > 0 else ">=")
    assert decide(labels, good, poor, NAMES, GateRules(no_regression=[metric])).blessed


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


def test_g4_floors_that_no_class_is_large_enough_for_do_not_make_a_model_pass_unseen():
    labels = labels_of(15, 15)
    rules = GateRules(default_rules=False, min_class_recall=0.5)
    assert failed(decide(labels, labels, None, NAMES, rules)) == [("judged_checks", "overall")]


# ---- floors of your own ---------------------------------------------------------------------------------------------


def test_g2_class_below_its_precision_floor_is_refused_though_its_recall_is_perfect():
    labels = labels_of(70, 30)
    called_dog = predictions(labels, range(20))
    decision = decide(labels, called_dog, labels, NAMES, GateRules(default_rules=False, min_class_precision=0.8))
    assert failed(decision) == [("precision", "dog")]
    check = check_of(decision, "precision", "dog")
    assert (check.value, check.bound, check.baseline) == (pytest.approx(30 / 50), 0.8, 1.0)


def test_g4_precision_of_what_was_rarely_predicted_is_not_judged():
    labels = labels_of(80, 40)
    rarely_dog = predictions(labels, range(90, 120))
    rules = GateRules(default_rules=False, min_accuracy=0.1, min_class_precision=0.99)
    check = check_of(decide(labels, rarely_dog, None, NAMES, rules), "precision", "dog")
    assert (check.value, check.passed) == (1.0, None)


@pytest.mark.parametrize(("sure", "passes"), [(0.9, True), (0.6, False)])
def test_g2_log_loss_above_its_ceiling_is_refused(sure, passes):
    labels = labels_of(50, 50)
    decision = decide(labels, answers(labels, labels, sure), None, NAMES, GateRules(max_log_loss=0.2))
    check = check_of(decision, "log_loss")
    assert (check.value, check.relation) == (pytest.approx(-np.log(sure)), "<=")
    assert decision.blessed == check.passed == passes


@pytest.mark.parametrize(("sure", "error"), [(0.8, 0.0), (0.95, 0.15)])
def test_g2_calibration_error_above_its_ceiling_is_refused(sure, error):
    labels = labels_of(50, 50)
    model = answers(labels, predictions(labels, range(20)), sure)
    decision = decide(labels, model, None, NAMES, GateRules(max_calibration_error=0.1))
    check = check_of(decision, "calibration_error")
    assert check.value == pytest.approx(error)
    assert decision.blessed == check.passed == (error < 0.1)


# ---- slices ---------------------------------------------------------------------------------------------------------


def test_g2_slice_below_its_floor_and_slice_worse_than_before_are_refused_by_name():
    labels = labels_of(100, 100)
    dark = np.arange(200) % 4 == 0
    candidate = predictions(labels, range(0, 80, 4))
    rules = GateRules(min_slice_accuracy=0.7, no_regression=["accuracy"])
    slices = {"light=dark": dark, "light=bright": ~dark, "light=none": np.arange(200) < 5}
    decision = decide(labels, candidate, labels, NAMES, rules, slices)
    assert {("accuracy", "light=dark"), ("no_regression_accuracy", "light=dark")} <= set(failed(decision))
    assert all(where != "light=bright" for _, where in failed(decision))
    check = check_of(decision, "accuracy", "light=none")
    assert (check.passed, check.baseline) == (None, 1.0)


def test_slice_that_holds_every_image_is_not_compared_twice():
    labels = labels_of(50, 50)
    decision = decide(labels, labels, labels, NAMES, GateRules(), {"format=jpeg": np.ones(100, bool)})
    assert all(check.slice != "format=jpeg" for check in decision.checks)


def test_decision_survives_json():
    labels = labels_of(50, 50)
    decision = decide(labels, labels, labels, NAMES, GateRules(min_accuracy=0.5, min_class_recall=0.5))
    again = json.loads(json.dumps(decision.to_json(), allow_nan=False))
    assert again["blessed"] is True
    assert len(again["checks"]) == len(decision.checks)


def test_check_made_elsewhere_counts():
    labels = labels_of(50, 50)
    further = [Check("class_order", "overall", 1, 2, False)]
    assert not gate.decide(Images(labels, NAMES, answers(labels, labels)), GateRules(), further).blessed


def test_detectable_drop_is_that_of_the_test_set_and_not_of_a_bad_candidate():
    labels = labels_of(100, 100)
    baseline, poor, good = (predictions(labels, wrong) for wrong in (range(10), range(4, 180), range(4, 14)))
    for candidate in (good, poor):
        images = Images(labels, NAMES, answers(labels, candidate), answers(labels, baseline))
        assert 0.03 < detectable_drop(images, gate.decide(images, GateRules())) < 0.08
    alone = Images(labels, NAMES, answers(labels, good))
    assert detectable_drop(alone, gate.decide(alone, GateRules())) is None


# ---- how often noise decides ----------------------------------------------------------------------------------------


def refused(pairs: Pairs, trials: int, rules: GateRules | None = None) -> float:
    """Share of simulated candidates that a comparison with the baseline refuses."""
    count = 0
    for _ in range(trials):
        checks = gate.decide(pairs.draw(), rules or GateRules()).checks
        count += any(check.metric.startswith("no_regression_") and check.passed is False for check in checks)
    return count / trials


def three_errors(share: float, trials: int) -> float:
    return 3 * (share * (1 - share) / trials) ** 0.5


@pytest.mark.parametrize("together", [0.0, 0.9])
@pytest.mark.parametrize(("count", "classes"), [(50, 2), (200, 2), (200, 10), (1000, 10), (1000, 100)])
def test_equal_model_is_refused_by_all_comparisons_together_at_most_one_time_in_twenty(count, classes, together):
    trials = 1000
    share = refused(Pairs(count, classes, (0.85, 0.85), together), trials)
    assert share <= LEVEL + three_errors(LEVEL, trials)


def test_equal_model_is_refused_no_more_often_when_everything_is_compared():
    trials = 60
    share = refused(Pairs(200, 2, (0.85, 0.85)), trials, GateRules(no_regression=COMPARABLE))
    assert share <= LEVEL + three_errors(LEVEL, trials)


# A worse model that the gate did not notice would be published.
@pytest.mark.parametrize(
    ("count", "classes", "drop", "at_least"),
    [(50, 2, 0.1, 0.35), (200, 2, 0.05, 0.5), (200, 10, 0.1, 0.93), (1000, 10, 0.02, 0.5), (1000, 100, 0.05, 0.97)],
)
def test_worse_model_is_refused_as_often_as_the_docs_say(count, classes, drop, at_least):
    assert refused(Pairs(count, classes, (0.85 - drop, 0.85)), 200) >= at_least


@pytest.mark.parametrize(("count", "classes"), [(50, 2), (200, 10), (1000, 10)])
def test_better_model_is_hardly_ever_refused(count, classes):
    assert refused(Pairs(count, classes, (0.87, 0.85)), 200) <= 0.02


def test_model_worse_on_one_class_alone_is_refused():
    assert refused(Pairs(1000, 10, (0.85, 0.85), weak_class=0.2), 100) >= 0.9


def test_drop_that_is_said_to_be_noticed_is_noticed():
    pairs = Pairs(200, 2, (0.85, 0.85))
    images = [pairs.draw() for _ in range(20)]
    said = np.mean([detectable_drop(each, gate.decide(each, GateRules())) for each in images])
    assert 0.05 < said < 0.1
    assert 0.7 < refused(Pairs(200, 2, (0.85 - said, 0.85)), 200) < 0.93
