"""What people are told of the gate's checks, on a terminal and in the report. Imports nothing that takes time."""

import math
from typing import Any

NO_REGRESSION = "no_regression_"
_Z_SQUARED = 1.6448536269514722**2  # of the one-sided 95 % bound


def metric_name(metric: str) -> str:
    """For a person; a metric that is not known here, too."""
    words = metric.removeprefix(NO_REGRESSION).replace("_", " ")
    return f"{words} vs baseline" if metric.startswith(NO_REGRESSION) else words


def failed_names(checks: list[dict[str, Any]]) -> list[str]:
    """Of each check that failed, its metric and slice."""
    return [f"{metric_name(check['metric'])} ({check['slice']})" for check in checks if check["passed"] is False]


def floor_out_of_reach(checks: list[dict[str, Any]]) -> str | None:
    """What to do where even a perfect model would not exceed the default floor; None where one would."""
    count = next((check["value"] for check in checks if check["metric"] == "test_examples"), 0)
    share = next((check["bound"] for check in checks if check["metric"] == "accuracy_lower_bound"), 0.0)
    # With every image right, Wilson's lower bound is n / (n + z^2).
    needed = math.inf if share == 1 else math.floor(_Z_SQUARED * share / (1 - share)) + 1
    if not count or count >= needed:
        return None
    enough = "" if needed == math.inf else f", {needed} at the least if the classes stay as they are,"
    return (
        f"No model could pass: {share:.0%} of the {count} test images are of one class. Add test images of the others"
        f"{enough} or set evaluation.default_rules to false and a floor such as evaluation.min_class_recall."
    )
