"""`summary.json` and the lines that a person reads at the end of a run."""

import datetime
import importlib.metadata
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components import conversion, data_report, features, model_card, serving_check
from components.errors import GraftError, printable
from components.storage import is_uri
from pipeline.show import floor_out_of_reach

if TYPE_CHECKING:
    from pipeline.console import Steps
    from pipeline.local import _Run

SCHEMA_VERSION = 1
MAX_REFUSALS = 10
PACKAGES = ("tfx", "tensorflow", "keras", "apache-beam", "tensorflow-transform", "tensorflow-model-analysis", "numpy")


def timestamp(seconds: float) -> str:
    """ISO 8601 in UTC."""
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="seconds")


def collect(run: "_Run", error: BaseException | None) -> dict[str, Any]:
    """The summary of a run that ended, with what there is of it."""
    data = _read(run, "ImageExampleGen", "catalog", data_report.CATALOG_FILE)
    training = _read(run, "Trainer", "model_run", features.TRAINING_FILE)
    decision = _read(run, "GatedEvaluator", "evaluation", features.DECISION_FILE)
    served = _served(run)
    pushed = run.artifacts.get("AtomicPusher", {}).get("pushed_model")
    path = pushed.custom_properties["pushed_destination"].string_value if pushed else ""
    if error is not None:
        status, code = "failed", getattr(error, "exit_code", 1)
    else:
        status, code = ("published", 0) if path else ("refused", 4)
    metrics = decision.get("metrics")
    return {
        "schema_version": SCHEMA_VERSION,
        "status": status,
        "exit_code": code,
        "run_id": run.folder.name,
        "started": timestamp(run.began),
        "seconds": round(time.time() - run.began, 1),
        "data": data | {"digest": run.digest.value},
        "model": {
            "backbone": run.config.model.backbone,
            "weights": run.config.model.weights,
            "parameters": training.get("parameters"),
            "path": path or None,
        },
        "training": {name: model_card.without_curves(training.get(name)) for name in ("frozen", "fine_tune")},
        "metrics": {"test": metrics},
        "gate": {
            "blessed": decision.get("blessed", False) and served.get("problem") is None,
            "baseline_version": decision.get("baseline_version"),
            "baseline_status": decision.get("baseline_status"),
            "baseline_reason": decision.get("baseline_reason"),
            "detectable_drop": decision.get("detectable_drop"),
            "refusal": pushed.custom_properties[features.REFUSAL].string_value or None if pushed else None,
            "checks": decision.get("checks", []) + served.get("checks", []),
        },
        "serving": {name: served.get(name) for name in ("problem", "latency_ms", "load_seconds", "images", "odd")},
        "formats": _read(run, "ModelFormats", "formats", conversion.RESULT_FILE).get("formats", {}),
        "timings": run.timings,
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "error": None if error is None else sentence(error, run),
    }


def _read(run: "_Run", node: str, key: str, name: str) -> dict[str, Any]:
    artifact = run.artifacts.get(node, {}).get(key)
    return json.loads(Path(artifact.uri, name).read_text()) if artifact else {}


def _served(run: "_Run") -> dict[str, Any]:
    """What the serving check found; empty where nothing was asked."""
    blessing = run.artifacts.get("ServingCheck", {}).get("infra_blessing")
    return serving_check.read_result(Path(blessing.uri)) if blessing else {}


def sentence(error: BaseException, run: "_Run") -> str:
    """What went wrong, in one sentence."""
    if isinstance(error, GraftError):
        return str(error)
    if isinstance(error, KeyboardInterrupt):
        return f"{run.step_name} was interrupted; run the same command again, finished steps come from the cache."
    lines = str(error).strip().splitlines()
    cause = lines[0][:300] if lines else type(error).__name__
    return f"{run.step_name} failed: {type(error).__name__}: {cause}"


def note(node_id: str, outputs: dict[str, Any]) -> str:
    """A few words about what a step gave."""
    if node_id == "ImageExampleGen":
        data = json.loads(Path(outputs["catalog"].uri, data_report.CATALOG_FILE).read_text())
        bad = sum(data["quarantined"].values())
        return f"{data['images']} images in {len(data['classes'])} classes" + (f", {bad} quarantined" if bad else "")
    if node_id == "Trainer":
        result = json.loads(Path(outputs["model_run"].uri, features.TRAINING_FILE).read_text())
        parts = [f"{frozen['eval_accuracy']:.3f} frozen"] if (frozen := result["frozen"]) else []
        if tuned := result["fine_tune"]:
            parts.append(f"{tuned['eval_accuracy']:.3f} fine-tuned" + ("" if tuned["kept"] else " (undone)"))
        if result["start_from"]:
            parts.append(f"begun from version {result['start_from']}")
        if after := [f"{name.replace('_', '-')} epoch {done}" for name, done in _resumed(result) if done]:
            parts.append(f"gone on with after {after[-1]}")
        return f"eval accuracy {', '.join(parts)}"
    if node_id == "GatedEvaluator":
        decision = json.loads(Path(outputs["evaluation"].uri, features.DECISION_FILE).read_text())
        return f"test accuracy {decision['metrics']['accuracy']:.3f}, {'passed' if decision['blessed'] else 'refused'}"
    if node_id == "ServingCheck":
        found = serving_check.read_result(Path(outputs["infra_blessing"].uri))
        if not found:
            return "nothing to be published"
        return found["problem"] or f"{found['latency_ms']['median']:.0f} ms an image"
    if node_id == "DataGate":
        found = json.loads(Path(outputs["result"].uri, "anomalies.json").read_text())
        return "; ".join(f"{row['feature']}: {row['problem']}" for row in found)
    if node_id == "ModelFormats":
        found = conversion.read_result(Path(outputs["formats"].uri))
        lines = [_format_note(name, row) for name, row in found["formats"].items()]
        return "; ".join(lines) if found["blessed"] else "not converted, because the gate refused the model"
    return ""


def _format_note(name: str, row: dict[str, Any]) -> str:
    if "error" in row:
        return f"{name}: {row['error']}"
    size = f"{row['bytes'] / 1e6:.1f} MB"
    difference = f"accuracy {row['accuracy_difference']:+.3f} on {row['examples']} images"
    return f"{name}: {difference}, {size}" + ("" if row["passed"] else " (fails its check)")


def _resumed(training: dict[str, Any]) -> list[tuple[str, int]]:
    return [(name, phase["resumed_after"]) for name in ("frozen", "fine_tune") if (phase := training[name])]


# ---- the end of a run -----------------------------------------------------------------------------------------------


def print_end(summary: dict[str, Any], run: "_Run", steps: "Steps", error: BaseException | None) -> None:
    """Accuracy, the worst classes, what was kept out, the decision, where the model is, what to type next."""
    steps.say()
    if error is not None:
        steps.say(f"failed: {summary['error']}")
        steps.say(f"The full log is {run.log}")
        return
    test = summary["metrics"]["test"]
    steps.say(f"{summary['status']}: test accuracy {test['accuracy']:.3f} on {test['examples']} images")
    worst = sorted(test["per_class"].items(), key=lambda item: item[1]["recall"])[:3]
    listed = ", ".join(f"{printable(name)} {row['recall']:.2f} (of {row['examples']})" for name, row in worst)
    steps.say(f"Lowest recall: {listed}")
    print_kept_out(summary["data"], run, steps)
    steps.say(f"Gate: {printable(summary['gate']['baseline_reason'])}. Every check: graft show {run.folder}")
    if summary["status"] == "refused":
        print_refusal(summary, steps)
        steps.say(f"Nothing was published; what is in service stays. Details: {run.folder / 'summary.json'}")
        return
    steps.say(f"Model: {summary['model']['path']}")
    steps.say(f"Summary: {run.folder / 'summary.json'}")
    path = summary["model"]["path"]
    if not is_uri(path):
        steps.say(f"Next: graft serve {path.rpartition('/')[0]}, or graft predict {path} IMAGE")


def print_kept_out(data: dict[str, Any], run: "_Run", steps: "Steps") -> None:
    """Counts of what is not in the data set, and where the list is; nothing where everything is in."""
    parts = [f"{count} {reason}" for reason, count in data["quarantined"].items()]
    parts += [
        f"{data[key]} {text}" for key, text in (("duplicates", "duplicates"), ("skipped", "skipped")) if data[key]
    ]
    if parts:
        steps.say(f"Kept out: {', '.join(parts)}; listed in {run.folder / data_report.QUARANTINE_FILE}")
    if data["leakage"]["groups"]:
        steps.say(f"Your folders put {data['leakage']['groups']} groups into several splits: the test may be too easy.")


def print_refusal(summary: dict[str, Any], steps: "Steps") -> None:
    """Why a model that passed was not published; the checks that failed: metric, slice, value, bound.

    Where there are many, the first ones and how many more.
    """
    if summary["gate"].get("refusal"):
        steps.say(f"  not published: {summary['gate']['refusal']}")
    failed = [check for check in summary["gate"]["checks"] if check["passed"] is False]
    for check in failed[:MAX_REFUSALS]:
        where = f"{check['metric']} ({printable(check['slice'])})"
        if check["metric"] == "test_examples":
            steps.say(
                f"  the gate refuses to judge: {check['value']} test images, and evaluation.min_examples asks for "
                f"{check['bound']}; add images"
            )
        elif check.get("baseline") is not None:
            steps.say(
                f"  refused by {where}: {check['value']:.4g} against {check['bound']:.4g}; in service "
                f"{check['baseline']:.4g}"
            )
        else:
            steps.say(f"  refused by {where}: {check['value']:.4g} against {check['bound']:.4g}")
    if hint := floor_out_of_reach(summary["gate"]["checks"]):
        steps.say(f"  {hint}")
    if len(failed) > MAX_REFUSALS:
        steps.say(f"  and by {len(failed) - MAX_REFUSALS} more checks")
    # A summary of an earlier release has none.
    if problem := summary.get("serving", {}).get("problem"):
        steps.say(f"  {printable(problem)}")
