"""The lines that a person reads: a few words a step, and the end of a run."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components import conversion, data_report, features, run_summary, serving_check, training_concerns, training_starts
from components.data_findings import ANOMALIES_FILE
from components.errors import printable
from components.files import read_json
from components.gate_wording import floor_out_of_reach
from components.steps import REPORT_FILE
from components.storage import is_uri, join, read_bytes

if TYPE_CHECKING:
    from pipeline.console import Steps
    from pipeline.failure import Failure
    from pipeline.local import _Run

MAX_REFUSALS = 10


def note(node_id: str, outputs: dict[str, Any]) -> str:
    """A few words about what a step gave."""
    if node_id == "ImageExampleGen":
        data = json.loads(Path(outputs["catalog"].uri, data_report.CATALOG_FILE).read_text())
        bad = sum(data["quarantined"].values())
        return f"{data['images']} images in {len(data['classes'])} classes" + (f", {bad} quarantined" if bad else "")
    if node_id == "Trainer":
        result = json.loads(Path(outputs["model_run"].uri, features.TRAINING_FILE).read_text())
        parts = [f"{frozen['eval_accuracy']:.3f}"] if (frozen := result["frozen"]) else []
        if tuned := result["fine_tune"]:
            parts.append(f"fine-tuned {tuned['eval_accuracy']:.3f}" + ("" if tuned["kept"] else " (undone)"))
        if both := training_starts.told(result.get("starts")):
            parts.append(both)
        elif result["start_from"]:
            parts.append(f"begun from version {result['start_from']}")
        if after := [f"{name.replace('_', '-')} epoch {done}" for name, done in _resumed(result) if done]:
            parts.append(f"gone on with after {after[-1]}")
        return f"eval accuracy {', '.join(parts)}"
    if node_id == "GatedEvaluator":
        # Workers elsewhere may have written it, under a URI.
        decision = json.loads(read_bytes(join(outputs["evaluation"].uri, features.DECISION_FILE)))
        return f"test accuracy {decision['metrics']['accuracy']:.3f}, {'passed' if decision['blessed'] else 'refused'}"
    if node_id == "ServingCheck":
        found = serving_check.read_result(Path(outputs["infra_blessing"].uri))
        if not found:
            return "nothing to be published"
        return found["problem"] or f"{found['latency_ms']['median']:.0f} ms an image"
    if node_id == "AtomicPusher":
        if run_summary.text(outputs["pushed_model"], features.REFUSAL):
            return "not published, because it was rolled back from"
        version = run_summary.text(outputs["pushed_model"], run_summary.PUSHED_VERSION)
        return f"version {version}" if version else "nothing to be published"
    if node_id == "DataGate":
        found = json.loads(Path(outputs["result"].uri, ANOMALIES_FILE).read_text())
        return f"unlike earlier images in {', '.join(row['feature'] for row in found)}" if found else ""
    if node_id == "ModelFormats":
        found = conversion.read_result(Path(outputs["formats"].uri))
        lines = [_format_note(name, row) for name, row in found["formats"].items()]
        return "; ".join(lines) if found["blessed"] else "not converted, because the gate refused the model"
    return ""


def concerns_of(node_id: str, outputs: dict[str, Any]) -> list[str]:
    """What a step warned of when it ran, for a run that takes its result from the cache."""
    if node_id == "ImageExampleGen":
        return data_report.concerns_of(read_json(Path(outputs["catalog"].uri), data_report.CATALOG_FILE))
    if node_id == "Trainer":
        return training_concerns.of_training(
            json.loads(Path(outputs["model_run"].uri, features.TRAINING_FILE).read_text())
        )
    return []


def _format_note(name: str, row: dict[str, Any]) -> str:
    if "error" in row:
        return f"{name}: {row['error']}"
    size = f"{row['bytes'] / 1e6:.1f} MB"
    failed = "" if row["passed"] else " (fails its check)"
    return f"{name}: accuracy {row['accuracy_difference']:+.3f}, {size}{failed}"


def _resumed(training: dict[str, Any]) -> list[tuple[str, int]]:
    return [(name, phase["resumed_after"]) for name in ("frozen", "fine_tune") if (phase := training[name])]


# ---- the end of a run -----------------------------------------------------------------------------------------------


def print_end(summary: dict[str, Any], run: "_Run", steps: "Steps") -> None:
    """Accuracy, the worst classes, what was kept out, the decision, where the model is, what to type next."""
    steps.say()
    test = summary["metrics"]["test"]
    steps.say(f"{summary['status']}: test accuracy {test['accuracy']:.3f} on {test['examples']} images")
    worst = sorted(test["per_class"].items(), key=lambda item: item[1]["recall"])[:3]
    listed = ", ".join(f"{printable(name)} {row['recall']:.2f} (of {row['examples']})" for name, row in worst)
    steps.say(f"Lowest recall: {listed}")
    print_kept_out(summary["data"], run, steps)
    steps.say(f"Gate: {printable(summary['gate']['baseline_reason'])}")
    steps.say(f"Every check: graft show {run.folder}", whole=True)
    if summary["status"] == "refused":
        print_refusal(summary, steps)
        steps.say(f"Nothing was published; what is in service stays. Details: {run.folder / 'summary.json'}")
        print_report(run, steps)
        return
    steps.say(f"Model: {summary['model']['path']}")
    steps.say(f"Summary: {run.folder / 'summary.json'}")
    print_report(run, steps)
    path = summary["model"]["path"]
    if not is_uri(path):
        steps.say(f"Next: graft serve {path.rpartition('/')[0]}", whole=True)
        steps.say(f"  or: graft predict {path} IMAGE", whole=True)


def print_report(run: "_Run", steps: "Steps") -> None:
    """Where the page is, if it could be written."""
    if (page := run.folder / REPORT_FILE).is_file():
        steps.say(f"Report: {page}")


def print_failure(failure: "Failure", run: "_Run", steps: "Steps") -> None:
    """The step, the cause, what to try, and the log, if there is one still."""
    steps.say()
    steps.say(f"failed in {run.notes.step}: {failure.sentence}")
    if failure.advice:
        steps.say(f"Try: {failure.advice}")
    print_report(run, steps)
    if run.log.is_file():
        steps.say(f"Log: {run.log}")


def print_kept_out(data: dict[str, Any], run: "_Run", steps: "Steps") -> None:
    """Counts of what is not in the data set, and where the list is; nothing where everything is in."""
    parts = [f"{count} {reason}" for reason, count in data["quarantined"].items()]
    parts += [
        f"{data[key]} {text}" for key, text in (("duplicates", "duplicates"), ("skipped", "skipped")) if data[key]
    ]
    if parts:
        steps.say(f"Kept out: {', '.join(parts)}; listed in {run.folder / data_report.QUARANTINE_FILE}")


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
