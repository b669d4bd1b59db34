"""The answer: what became of the model, how good it is, what it is made of."""

from typing import Any

from components.gate_wording import metric_name
from components.report import charts
from components.report.facts import Facts
from components.report.wording import (
    count,
    counted,
    listed,
    moment,
    number,
    points,
    seconds,
    sentence,
    shortened,
    version_of,
    visible,
)
from components.steps import STEPS

PACKAGES = {"tfx": "TFX", "tensorflow": "TensorFlow", "keras": "Keras", "apache-beam": "Apache Beam", "numpy": "NumPy"}
STATUSES = {"published": "Published", "refused": "Refused", "failed": "Failed", "unchanged": "Unchanged"}
MOST_FAILED = 6
MOST_WARNINGS = 50
MOST_CHARACTERS = 4_000  # of a sentence


def view(facts: Facts) -> dict[str, Any]:
    summary, gate = facts.summary, facts.summary.get("gate") or {}
    status = summary.get("status") or "failed"
    warnings = [shortened(sentence(text), MOST_CHARACTERS) for text in summary.get("warnings") or []]
    test = (summary.get("metrics") or {}).get("test") or {}
    # That of no image is written as 0.
    accuracy = number(test.get("accuracy")) if test.get("examples") else None
    before = None if accuracy is None else number(test.get("baseline_accuracy"))
    return {
        "status": status if status in STATUSES else "failed",
        "word": STATUSES.get(status, status),
        "title": _title(summary),
        "lines": _lines(summary, gate),
        "error": _said(summary.get("error")),
        "advice": _said(summary.get("advice")),
        "name": (summary.get("configuration") or {}).get("name"),
        "run_id": summary.get("run_id"),
        "accuracy": accuracy,
        "examples": test.get("examples"),
        "interval": facts.interval,
        "chart": _chart(facts, accuracy, before, gate),
        "before": before,
        "baseline": gate.get("baseline_version"),
        "difference": None if before is None else points(accuracy - before),
        "better": before is not None and accuracy >= before,
        "rows": _rows(facts, gate),
        "warnings": warnings[:MOST_WARNINGS],
        "warning_count": len(warnings),
    }


def _said(text: str | None) -> str | None:
    return shortened(sentence(text), MOST_CHARACTERS) if text else None


def _title(summary: dict[str, Any]) -> str:
    """What follows the verdict."""
    path = (summary.get("model") or {}).get("path")
    if summary.get("status") == "published":
        version = version_of(path)
        return f" as version {visible(version)}" if version else ""
    if summary.get("status") == "refused":
        return ": the model was not published"
    step = summary.get("step")
    return f" at the step “{visible(step)}”" if step else ""


def _lines(summary: dict[str, Any], gate: dict[str, Any]) -> list[str]:
    """Why, and what that means for what is in service."""
    status, version = summary.get("status"), gate.get("baseline_version")
    if status == "published":
        return [_passed(gate.get("checks") or []), _replaced(gate)]
    stays = f"Version {version} stays in service." if version else "What is in service stays as it is."
    if gate.get("baseline_status") == "first_run":
        stays = "Nothing is in service yet."
    if status == "refused":
        return [*_reasons(summary, gate), stays]
    path = (summary.get("model") or {}).get("path")
    if path:
        return [f"Before that it had published version {visible(version_of(path))}."]
    if summary.get("step") == STEPS["AtomicPusher"]:
        return ["It ended while it published: the serving folder tells whether a new version came out."]
    return [f"Nothing was published. {stays}"]


def _passed(checks: list[dict[str, Any]]) -> str:
    passed, left = (sum(check["passed"] is verdict for check in checks) for verdict in (True, None))
    if not passed:
        return ""
    told = f"It passed {'the' if passed == 1 else 'all'} {counted(passed, 'check')} of the gate"
    return f"{told} that could be judged; {count(left)} could not, for too few test images." if left else f"{told}."


def _replaced(gate: dict[str, Any]) -> str:
    if version := gate.get("baseline_version"):
        return f"It replaces version {version}."
    if gate.get("baseline_status") == "first_run":
        return "It replaces nothing: it is the first version here."
    reason = gate.get("baseline_reason")
    return f"What was in service before could not be compared: {visible(reason)}." if reason else ""


def _reasons(summary: dict[str, Any], gate: dict[str, Any]) -> list[str]:
    """Why a model was refused."""
    lines = [sentence(visible(gate["refusal"]))] if gate.get("refusal") else []
    if problem := (summary.get("serving") or {}).get("problem"):
        lines.append(sentence(visible(problem)))
    checks = gate.get("checks") or []
    failed = [check for check in checks if check["passed"] is False]
    judged = sum(check["passed"] is not None for check in checks)
    if failed:
        names = [f"{metric_name(check['metric'])}{_where(check['slice'])}" for check in failed]
        lines.append(f"It failed {len(failed)} of {counted(judged, 'check')}: {listed(names, MOST_FAILED)}.")
    return lines


def _where(place: str) -> str:
    return "" if place == "overall" else f" ({visible(place)[:60]})"


def _chart(facts: Facts, accuracy: float | None, before: float | None, gate: dict[str, Any]) -> Any:
    if accuracy is None or facts.interval is None:
        return None
    floors = [check["bound"] for check in gate.get("checks") or [] if check["metric"] == "accuracy_lower_bound"]
    floor = number(floors[0]) if floors else None
    return charts.interval(accuracy, facts.interval, before, floor)


def _kept_out(data: dict[str, Any]) -> str:
    quarantined = sum((data.get("quarantined") or {}).values())
    copies = (data.get("duplicates") or 0) + ((data.get("leakage") or {}).get("copies") or 0)
    parts = [counted(quarantined, "file")] if quarantined else []
    return listed(parts + ([counted(copies, "copy", "copies")] if copies else []))


def _rows(facts: Facts, gate: dict[str, Any]) -> list[tuple[str, str]]:
    """What the model is made of, a line each."""
    summary = facts.summary
    data, model = summary.get("data") or {}, summary.get("model") or {}
    rows = []
    if data.get("classes"):
        images, classes = counted(data.get("images", 0), "image"), counted(len(data["classes"]), "class", "classes")
        rows.append(("Data", f"{images} in {classes}"))
    if kept_out := _kept_out(data):
        rows.append(("Kept out", kept_out))
    if model.get("backbone"):
        weights = f", weights {visible(str(model['weights']))}" if model.get("weights") else ""
        rows.append(("Backbone", f"{visible(str(model['backbone']))}{weights}"))
    if number(model.get("parameters")):
        rows.append(("Network", counted(model["parameters"], "parameter")))
    # The others are said above.
    if gate.get("baseline_reason") and gate.get("baseline_status") not in ("compared", "first_run"):
        rows.append(("Baseline", sentence(visible(gate["baseline_reason"]))))
    # On a cluster nobody measures them.
    if summary.get("started"):
        rows.append(("Started", moment(summary["started"])))
    if number(summary.get("seconds")) is not None:
        rows.append(("Took", seconds(summary["seconds"])))
    versions = summary.get("versions") or {}
    named = [f"{title} {visible(str(versions[name]))}" for name, title in PACKAGES.items() if name in versions]
    if named:
        rows.append(("With", ", ".join(named[:3])))
    return rows
