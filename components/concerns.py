"""What steps that decide should warn a person of, although the run goes on: a sentence each, none where all is well.

Steps whose results are cached have theirs elsewhere (`data_report`, `training_concerns`): another sentence here must
not make them run again.
"""

from typing import Any

from components.sentences import some

# Names of classes, or findings, that are listed.
NAMED = 5


def of_anomalies(anomalies: list[dict[str, Any]]) -> list[str]:
    """About data that is unlike the kept schema or the images of the model in service, and is used all the same.

    Args:
      anomalies: `feature` and `detail` of each.
    """
    found = [f"The images are unlike earlier ones in {row['feature']}: {row['detail']}" for row in anomalies[:NAMED]]
    if len(anomalies) > NAMED:
        found.append(f"The images are unlike earlier ones in {len(anomalies) - NAMED} more features.")
    return found


def of_decision(decision: dict[str, Any], rules: dict[str, Any]) -> list[str]:
    """About what the gate could not look at.

    Args:
      decision: what `decision.json` holds.
      rules: the fields of `GateRules`.
    """
    found = []
    if decision["baseline_status"] not in ("compared", "first_run"):
        found.append(f"The gate judges without a comparison: {decision['baseline_reason']}.")
    checks = decision["checks"]
    # Where no rule asks for a single class, nothing is lost.
    compared = decision["baseline_status"] == "compared" and rules["default_rules"]
    wanted = {
        "recall": rules["min_class_recall"] is not None or (compared and "recall" in rules["no_regression"]),
        "precision": rules["min_class_precision"] is not None or (compared and "precision" in rules["no_regression"]),
        "accuracy": rules["min_slice_accuracy"] is not None,
    }
    passed_over = {check["slice"] for check in checks if check["passed"] is None and wanted.get(check["metric"])}
    if passed_over:
        least = rules["min_class_examples"]
        found.append(
            "Too few test images to judge each class or slice by itself: evaluation.min_class_examples asks for "
            f"{least}, and {some(sorted(passed_over), NAMED)} {'has' if len(passed_over) == 1 else 'have'} fewer."
        )
    return found
