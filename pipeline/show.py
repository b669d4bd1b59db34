"""Explains the gate's decision about a run as a table."""

import json
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from components.errors import UsageError, printable
from components.gate_wording import floor_out_of_reach, metric_name
from pipeline.output import Output, read_summary

MOST_PASSED, MOST_NOT_JUDGED, MOST_NAMED = 20, 5, 8
VERDICTS = {False: Text("refused", "bold red"), True: Text("passed", "green"), None: Text("not judged", "dim")}


def find_run(folder: Path) -> Path:
    """A run's folder, or the newest run of an output folder.

    Raises:
      UsageError: neither, or a run that left no summary.
    """
    runs = Output(folder).runs
    if not (folder / "summary.json").is_file() and runs.is_dir():
        started = sorted((run for run in runs.iterdir() if run.is_dir() and not run.is_symlink()), reverse=True)
        if not started:
            raise UsageError(f"Nothing was run yet in {folder}: graft run --images IMAGES --output {folder}")
        folder = started[0]
    if not (folder / "summary.json").is_file():
        if (folder / "log.txt").is_file():
            raise UsageError(f"The run {folder} left no summary: it is still running, or was killed.")
        raise UsageError(
            f"There is no run in {folder}; give a run's folder, such as OUTPUT/runs/latest, or an output folder."
        )
    if not read_summary(folder):
        raise UsageError(f"{folder / 'summary.json'} cannot be read as a summary.")
    return folder


def show(folder: Path, as_json: bool) -> None:
    """Prints the decision about a run.

    Args:
      folder: as `find_run` takes it.
      as_json: one JSON object instead of the table: `run_id`, `status`, `error`, and the summary's `gate` and
        `metrics.test`.

    Raises:
      UsageError: there is no such run.
    """
    summary = read_summary(find_run(folder))
    gate = summary.get("gate") or {}
    if as_json:
        test = (summary.get("metrics") or {}).get("test")
        print(
            json.dumps({key: summary.get(key) for key in ("run_id", "status", "error")} | {"gate": gate, "test": test})
        )
        return

    console = Console(file=sys.stdout, highlight=False)
    for line in _before(summary, gate):
        _say(console, line)
    if checks := gate.get("checks"):
        console.print(_table(checks))
        for line in _left_out(checks):
            _say(console, line)
    for line in _after(summary, gate):
        _say(console, line)


def _say(console: Console, line: str) -> None:
    console.print(Text(printable(line)), soft_wrap=False)


def _before(summary: dict[str, Any], gate: dict[str, Any]) -> list[str]:
    """What was judged, and against what."""
    lines = [f"Run {summary.get('run_id', 'unknown')}: {summary.get('status', 'unknown')}"]
    if summary.get("error"):
        lines.append(f"It failed: {summary['error']}")
    if not gate.get("checks"):
        return [*lines, "It ended before the gate: there is no decision to explain."]
    if test := (summary.get("metrics") or {}).get("test"):
        before = test.get("baseline_accuracy")
        in_service = "" if before is None else f"; the model in service {before:.3f}"
        lines.append(f"Test accuracy {test['accuracy']:.3f} on {test['examples']} images{in_service}.")
    if reason := gate.get("baseline_reason"):
        lines.append(f"Baseline: {reason}.")
    return lines


def _after(summary: dict[str, Any], gate: dict[str, Any]) -> list[str]:
    if not gate.get("checks"):
        return []
    failed = [check for check in gate["checks"] if check["passed"] is False]
    lines = []
    if (drop := gate.get("detectable_drop")) is not None:
        lines.append(
            f"A drop in accuracy of {100 * drop:.1f} points or more would be noticed here with a probability of 80 %."
        )
    if hint := floor_out_of_reach(gate["checks"]):
        lines.append(hint)
    if failed:
        named = [f"{metric_name(check['metric'])} ({check['slice']})" for check in failed]
        more = f" and {len(named) - MOST_NAMED} more" if len(named) > MOST_NAMED else ""
        lines.append(f"Decision: refused by {', '.join(named[:MOST_NAMED])}{more}.")
    elif path := (summary.get("model") or {}).get("path"):
        lines.append(f"Decision: passed; published as {path}")
    else:
        lines.append("Decision: passed.")
    return lines


def _table(checks: list[dict[str, Any]]) -> Table:
    """Failed checks first, then passed, then not judged; those of all images before those of slices."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for title, justify in (
        ("metric", "left"),
        ("slice", "left"),
        ("candidate", "right"),
        ("baseline", "right"),
        ("bound", "right"),
        ("verdict", "left"),
    ):
        table.add_column(title, justify=justify, overflow="fold", no_wrap=justify == "right" or title == "verdict")
    for check in _shown(checks):
        table.add_row(
            Text(printable(metric_name(check["metric"]))),
            Text(printable(str(check["slice"]))),
            _number(check["value"]),
            _number(check.get("baseline")),
            f"{check.get('relation', '')} {_number(check['bound'])}".strip() if check["bound"] is not None else "-",
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


def _number(value: float | None) -> str:
    """Counts as they are, everything else to four digits."""
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
