"""Why the model was, or was not, let out."""

from typing import Any

from components.gate_wording import NO_REGRESSION, floor_out_of_reach, metric_name
from components.report.facts import Facts
from components.report.wording import MINUS, NONE, count, digits, number, percent, sentence, visible

MOST_ROWS = 100  # of each verdict
SHARES = ("accuracy", "recall", "precision", "calibration_error", "accuracy_lower_bound", "accuracy_drop")
# What a check asks, in the words of docs/gate.md.
ASKS = {
    "test_examples": "Are there enough test images to judge?",
    "class_order": "Do the outputs carry the names that the ids stand for?",
    "accuracy_lower_bound": "Is it better than always answering the largest class, beyond chance?",
    "accuracy": "Is the accuracy at least what was asked for?",
    "recall": "Are enough of the class's images called so?",
    "precision": "Is enough of what is called so of the class?",
    "log_loss": "Does it give the true class enough probability?",
    "calibration_error": "Do its scores say how often it is right?",
    "accuracy_drop": "Does it lose no more accuracy than allowed?",
    "judged_checks": "Was anything large enough to be judged?",
    "serving_training_difference": "Does the served model answer as it did in training?",
    "serving_evaluation_difference": "Does the served model answer as it did in the evaluation?",
    "serving_class_order": "Does the served model name the classes in the right order?",
    "serving_odd_inputs": "Does the served model survive broken and odd files?",
}


def view(facts: Facts) -> dict[str, Any]:
    gate = facts.summary.get("gate") or {}
    checks = gate.get("checks") or []
    by_verdict = {verdict: [check for check in checks if check["passed"] is verdict] for verdict in (False, True, None)}
    drop = number(gate.get("detectable_drop"))
    return {
        "reached": bool(checks),
        "compared": any(number(check.get("baseline")) is not None for check in checks),
        "tested": any(number(check.get("p_value")) is not None for check in checks),
        "judged": [_row(check) for verdict in (False, True) for check in by_verdict[verdict][:MOST_ROWS]],
        "more": sum(max(0, len(by_verdict[verdict]) - MOST_ROWS) for verdict in (False, True)),
        "failed": len(by_verdict[False]),
        "passed": len(by_verdict[True]),
        "not_judged": [_row(check) for check in by_verdict[None][:MOST_ROWS]],
        "not_judged_count": len(by_verdict[None]),
        "baseline": sentence(visible(gate["baseline_reason"])) if gate.get("baseline_reason") else None,
        "refusal": sentence(visible(gate["refusal"])) if gate.get("refusal") else None,
        "drop": None if drop is None else f"{100 * drop:.1f} points",
        "hint": floor_out_of_reach(checks),
    }


def _row(check: dict[str, Any]) -> dict[str, Any]:
    metric = check["metric"]
    relation = {">=": "≥", "<=": "≤"}.get(check.get("relation"), check.get("relation") or "")
    bound = _value(metric, check.get("bound"))
    return {
        "name": metric_name(metric).capitalize(),
        "slice": None if check["slice"] == "overall" else check["slice"],
        "asks": _asks(metric),
        "value": _value(metric, check.get("value")),
        "baseline": _value(metric, check.get("baseline")),
        "bound": bound if bound == NONE else f"{relation} {bound}",
        "p_value": digits(number(check.get("p_value"))),
        "level": digits(number(check.get("level"))),
        "passed": check["passed"],
    }


def _asks(metric: str) -> str:
    if metric.startswith(NO_REGRESSION):
        return "Is it worse than the model in service, beyond chance?"
    if metric in ASKS:
        return ASKS[metric]
    kind, _, rest = metric.partition("_")
    if rest == "written":
        return f"Could the {kind} file be made?"
    if rest in ("accuracy_drop", "probability_difference"):
        return f"Does the {kind} file answer as the model does?"
    return ""


def _value(metric: str, value: Any) -> str:
    """As a share where it is one."""
    if number(value) is None:
        return NONE
    plain = metric.removeprefix(NO_REGRESSION)
    if plain in SHARES or plain.endswith("_accuracy_drop"):
        return percent(value) if value >= 0 else f"{MINUS}{percent(-value)}"
    return count(value) if isinstance(value, int) else digits(float(value))
