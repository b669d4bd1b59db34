"""What a person is warned of; a healthy run is silent."""

import pytest

from components import concerns, training_concerns
from components.gate import GateRules
from trainer import concerns as of_trainer

UNJUDGED = {"metric": "recall", "slice": "cat", "value": 1.0, "bound": None, "passed": None}
FIRST = {"baseline_status": "first_run", "baseline_reason": "nothing is in service yet", "checks": [UNJUDGED]}


def decided(decision: dict, **rules) -> list[str]:
    return concerns.of_decision(FIRST | decision, vars(GateRules(**rules)))


def test_first_run_with_small_classes_and_no_rule_for_them_is_silent():
    assert decided({}) == []


@pytest.mark.parametrize(
    ("decision", "rules"),
    [({}, {"min_class_recall": 0.5}), ({"baseline_status": "compared"}, {})],
)
def test_class_that_a_rule_asks_for_and_that_is_too_small_to_be_judged_is_named(decision, rules):
    (sentence,) = decided(decision, **rules)
    assert "evaluation.min_class_examples asks for 20, and cat has fewer." in sentence


def test_many_small_classes_are_one_sentence():
    checks = [UNJUDGED | {"slice": f"class {number}"} for number in range(100)]
    (sentence,) = decided({"checks": checks}, min_class_recall=0.5)
    assert "class 0, class 1, class 10, class 11, class 12 and 95 more have fewer." in sentence


@pytest.mark.parametrize("status", ["classes_changed", "not_loadable", "not_callable"])
def test_model_in_service_that_cannot_be_compared_is_told(status):
    (sentence,) = decided({"baseline_status": status, "baseline_reason": "version 7 is broken; not compared with it"})
    assert sentence == "The gate judges without a comparison: version 7 is broken; not compared with it."


def test_anomalies_are_told_by_feature_and_many_are_counted():
    anomalies = [{"feature": f"feature {number}", "problem": "short", "detail": "it moved."} for number in range(8)]
    sentences = concerns.of_anomalies(anomalies)
    assert sentences[0] == "The images are unlike earlier ones in feature 0: it moved."
    assert len(sentences) == 6 and sentences[-1].endswith("3 more features.")
    assert concerns.of_anomalies([]) == []


def test_fine_tuning_that_was_undone_is_told():
    frozen = {"eval_accuracy": 0.9}
    assert training_concerns.of_training({"frozen": frozen, "fine_tune": {"kept": True}}) == []
    assert training_concerns.of_training({"frozen": frozen, "fine_tune": None}) == []
    (sentence,) = training_concerns.of_training({"frozen": frozen, "fine_tune": {"kept": False}})
    assert "undone" in sentence and "the frozen phase" in sentence


def test_settings_that_need_a_gpu_are_told_where_there_is_none():
    assert of_trainer.without_gpu({"precision": "float32", "devices": "one"}) == []
    (sentence,) = of_trainer.without_gpu({"precision": "mixed_float16", "devices": "all"})
    assert sentence.startswith("training.precision is mixed_float16 and training.devices is all, and TensorFlow finds")
