"""`graft show RUN`: what a run did in a few lines, and the gate's decision about it as a table."""

import json
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from components import training_starts
from components.gate_wording import failed_names, floor_out_of_reach, metric_name
from components.sentences import some
from components.steps import LOG_FILE, REPORT_FILE, STEPS
from pipeline import terminal
from pipeline.output import read_summary
from pipeline.pace import duration
from pipeline.run_folder import find_run

MOST_PASSED, MOST_NOT_JUDGED, MOST_NAMED = 20, 5, 8
VERDICTS = {False: Text("refused", "bold red"), True: Text("passed", "green"), None: Text("not judged", "dim")}


def show(given: Path, as_json: bool) -> None:
    """Prints what a run did, and the decision about it.

    Args:
      given: as `find_run` takes it.
      as_json: one JSON object instead of the table: `run_id`, `status`, `error`, and the summary's `gate` and
        `metrics.test`; besides them the whole of it as `summary`, and `report`, where its page is.

    Raises:
      UsageError: there is no such run.
    """
    folder = find_run(given)
    summary = read_summary(folder)
    gate = summary.get("gate") or {}
    report = folder / REPORT_FILE if (folder / REPORT_FILE).is_file() else None
    if as_json:
        test = (summary.get("metrics") or {}).get("test")
        told = {key: summary.get(key) for key in ("run_id", "status", "error")} | {"gate": gate, "test": test}
        print(json.dumps(told | {"summary": summary, "report": str(report) if report else None}))
        return

    out = terminal.console()
    for line in _before(summary, gate):
        terminal.say(out, line)
    if checks := gate.get("checks"):
        out.print(_table(checks))
        for line in _left_out(checks):
            terminal.say(out, line)
    for line in _after(summary, gate):
        terminal.say(out, line)
    for line in _where(folder, report):
        terminal.say_whole(out, line)


def _before(summary: dict[str, Any], gate: dict[str, Any]) -> list[str]:
    """What was judged, and against what."""
    lines = [f"Run {summary.get('run_id', 'unknown')}: {summary.get('status', 'unknown')}"]
    lines += _what(summary)
    if summary.get("error"):
        step = f" in {summary['step']}" if summary.get("step") else ""
        lines.append(f"It failed{step}: {summary['error']}")
    if summary.get("advice"):
        lines.append(f"What to try: {summary['advice']}")
    lines += [f"warning: {warning}" for warning in summary.get("warnings") or []]
    if not gate.get("checks"):
        return [*lines, "It ended before the gate: there is no decision to explain."]
    if test := (summary.get("metrics") or {}).get("test"):
        before = test.get("baseline_accuracy")
        in_service = "" if before is None else f"; the model in service {before:.3f}"
        lines.append(f"Test accuracy {test['accuracy']:.3f} on {test['examples']} images{in_service}.")
    if reason := gate.get("baseline_reason"):
        lines.append(f"Baseline: {reason}.")
    return lines


def _what(summary: dict[str, Any]) -> list[str]:
    """Images, duration, and what came from the cache, as far as the summary says it."""
    lines, data = [], summary.get("data") or {}
    if summary.get("reason"):
        lines.append(f"Why it ran: {summary['reason']}.")
    if data.get("images"):
        kept_out = sum((data.get("quarantined") or {}).values())
        more = f"; {kept_out} quarantined" if kept_out else ""
        lines.append(f"{data['images']} images in {len(data.get('classes') or {})} classes{more}.")
    if summary.get("seconds") is not None:
        took = f"It took {duration(summary['seconds'])}"
        cached = [STEPS.get(name, name) for name in summary.get("cached") or []]
        lines.append(f"{took}; from the cache: {', '.join(cached)}." if cached else f"{took}.")
    if both := training_starts.told((summary.get("training") or {}).get("starts")):
        lines.append(f"Training: {both}.")
    return lines


def _where(folder: Path, report: Path | None) -> list[str]:
    """Where there is more to look at."""
    files = [("Report", report), ("Log", folder / LOG_FILE)]
    return [f"{name}: {path}" for name, path in files if path and path.is_file()]


def _after(summary: dict[str, Any], gate: dict[str, Any]) -> list[str]:
    if not gate.get("checks"):
        return []
    failed = failed_names(gate["checks"])
    lines = []
    if (drop := gate.get("detectable_drop")) is not None:
        lines.append(
            f"A drop in accuracy of {100 * drop:.1f} points or more would be noticed here with a probability of 80 %."
        )
    if hint := floor_out_of_reach(gate["checks"]):
        lines.append(hint)
    if failed:
        lines.append(f"Decision: refused by {some(failed, MOST_NAMED)}.")
    elif path := (summary.get("model") or {}).get("path"):
        lines.append(f"Decision: passed; published as {path}")
    else:
        lines.append("Decision: passed.")
    return lines


def _table(checks: list[dict[str, Any]]) -> Table:
    """Failed checks first, then passed, then not judged; those of all images before those of slices."""
    table = terminal.table(
        ("metric", "left"),
        ("slice", "left"),
        ("candidate", "right"),
        ("baseline", "right"),
        ("bound", "right"),
        ("verdict", "left"),
    )
    table.columns[-1].no_wrap = True
    for check in _shown(checks):
        table.add_row(
            terminal.cell(metric_name(check["metric"])),
            terminal.cell(check["slice"]),
            terminal.number(check["value"]),
            terminal.number(check.get("baseline")),
            f"{check.get('relation', '')} {terminal.number(check['bound'])}".strip()
            if check["bound"] is not None
            else "-",
            VERDICTS[check["passed"]],
        )
    return table


def _by_verdict(checks: list[dict[str, Any]], passed: bool | None) -> list[dict[str, Any]]:
    return [check for check in checks if check["passed"] is passed]


def _shown(checks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    not_judged = _by_verdict(checks, None)
    return [
        *_by_verdict(checks, False),
        *_by_verdict(checks, True)[:MOST_PASSED],
        *(not_judged if len(not_judged) <= MOST_NOT_JUDGED else []),
    ]


def _left_out(checks: list[dict[str, Any]]) -> list[str]:
    """What the table does not hold."""
    lines = []
    if (more := len(_by_verdict(checks, True)) - MOST_PASSED) > 0:
        lines.append(f"{more} more checks passed; --json lists them.")
    not_judged = _by_verdict(checks, None)
    if len(not_judged) > MOST_NOT_JUDGED:
        for metric in dict.fromkeys(check["metric"] for check in not_judged):
            names = [str(check["slice"]) for check in not_judged if check["metric"] == metric]
            more = f" and {len(names) - MOST_NAMED} more; --json lists them" if len(names) > MOST_NAMED else ""
            named = ", ".join(names[:MOST_NAMED])
            lines.append(f"Not judged, for too few test images: {metric_name(metric)} of {named}{more}.")
    return lines
