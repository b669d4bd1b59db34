"""`graft runs`: what was run in an output folder, how it ended and which model is in service."""

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from components.data_report import CATALOG_FILE
from components.errors import UsageError
from components.features import DECISION_FILE
from components.run_summary import PUSHED_DESTINATION, text, timestamp
from pipeline import in_service, lineage, terminal
from pipeline.again import about
from pipeline.output import Output
from pipeline.run_folder import KILLED, RUNNING, Run, find_output, read_run

SHORT_DIGEST = 8
MOST_ROWS = 30
STYLES = {"published": "green", "refused": "bold red", "failed": "bold red", KILLED: "bold red", RUNNING: "cyan"}


def runs(folder: Path, last: int | None, as_json: bool) -> None:
    """Prints the runs of an output folder, newest first.

    Args:
      folder: the output folder.
      last: how many; None for all in JSON, and for `MOST_ROWS` in the table.
      as_json: one JSON object: `runs`, `in_service`, `ticks` (those that belong to no run) and `problems`.

    Raises:
      UsageError: it is no output folder.
    """
    output = find_output(folder)
    found = [read_run(path) for path in output.all_runs()]
    serving, problems = in_service.everywhere(output, found)
    rows = [_row(run) for run in found]
    try:
        rows += _from_metadata(output, rows)
    except UsageError as error:
        problems += [str(error)] if rows else []
    rows.sort(key=lambda row: row["run_id"], reverse=True)
    ticks = _ticks(output)
    for row in rows:
        row["ticks"] = ticks.pop(row["run_id"], {})
        row["in_service"] = any(_is(row, there) for there in serving)
    shown = rows[: last or (None if as_json else MOST_ROWS)]
    if as_json:
        answer = {"runs": shown, "in_service": [asdict(there) for there in serving], "ticks": ticks}
        print(json.dumps(answer | {"problems": problems}))
        return
    _print(folder, shown, len(rows) - len(shown), serving, _stray(ticks), problems)


def _is(row: dict[str, Any], there: in_service.InService) -> bool:
    """Whether a run published the model that is in service."""
    if row["version"] != str(there.original):
        return False
    return row["place"] == there.place or Path(row["place"]).resolve() == Path(there.place).resolve()


def _row(run: Run) -> dict[str, Any]:
    return {
        "run_id": run.run_id,
        "folder": str(run.folder),
        "status": run.state,
        "step": run.step,
        "started": run.part("started") or (timestamp(run.notes.began) if run.notes and run.notes.began else None),
        "seconds": run.part("seconds"),
        "digest": run.part("data", "digest"),
        "images": run.part("data", "images"),
        "classes": len(run.part("data", "classes") or {}) or None,
        "accuracy": run.part("metrics", "test", "accuracy"),
        "version": run.version,
        "place": run.serving if run.path else None,
        "error": run.part("error"),
    }


# ---- what only ML Metadata knows ------------------------------------------------------------------------------------


def _from_metadata(output: Output, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of runs whose folders were removed; the rows of runs without a summary are filled in.

    Raises:
      UsageError: the database is missing, or not to be read.
    """
    there = {row["run_id"]: row for row in rows}
    gone = []
    with lineage.of(output) as history:
        for run_id in history.run_ids():
            row = there.get(run_id)
            if row is not None and row["digest"]:
                continue
            steps = history.run(run_id)
            known = _known(output, steps)
            if row is not None:
                row |= {key: known[key] for key in ("digest", "images", "classes", "accuracy", "version", "place")}
            # A search (`graft tune`) does not get that far.
            elif "AtomicPusher" in steps:
                gone.append(known | {"run_id": run_id, "status": "published" if known["version"] else "refused"})
    return gone


def _known(output: Output, steps: dict[str, lineage.Execution]) -> dict[str, Any]:
    """A row without `run_id` and `status`."""

    def left(component: str, key: str, name: str) -> dict[str, Any]:
        return lineage.read_left(lineage.folder_of(steps, component, key, output.artifacts), name)

    catalog = left("ImageExampleGen", "catalog", CATALOG_FILE)
    decision = left("GatedEvaluator", "evaluation", DECISION_FILE)
    pushed = steps["AtomicPusher"].outputs.get("pushed_model") if "AtomicPusher" in steps else None
    path = text(pushed, PUSHED_DESTINATION) if pushed else None
    return {
        "folder": None,
        "step": None,
        "started": timestamp(min(step.began for step in steps.values())) if steps else None,
        "seconds": None,
        "digest": about(steps).digest,
        "images": catalog.get("images"),
        "classes": len(catalog.get("classes") or {}) or None,
        "accuracy": (decision.get("metrics") or {}).get("accuracy"),
        "version": path.rpartition("/")[2] if path else None,
        "place": path.rpartition("/")[0] if path else None,
        "error": None,
    }


# ---- ticks ----------------------------------------------------------------------------------------------------------


def _ticks(output: Output) -> dict[str, dict[str, Any]]:
    """Of each run, what later calls that had nothing to do said, how often and when the last time."""
    found: dict[str, dict[str, Any]] = {}
    try:
        lines = output.ticks.read_text().splitlines()
    except OSError:
        return found
    for line in lines:
        try:
            tick = json.loads(line)
            seen = found.setdefault(str(tick.get("run_id")), {"counts": Counter(), "last": None})
            seen["counts"][str(tick.get("status"))] += 1
            seen["last"] = tick.get("time")
        # The last line of a process that was killed may be half a line.
        except (ValueError, AttributeError):
            continue
    return found


def _said(ticks: dict[str, Any]) -> str:
    return ", ".join(f"{status} {count} x" for status, count in sorted(ticks["counts"].items()))


def _stray(ticks: dict[str, dict[str, Any]]) -> list[str]:
    """Ticks that name no run that is known."""
    return [f"Without a run of their own: {_said(each)}, the last time at {each['last']}." for each in ticks.values()]


# ---- what a person sees ---------------------------------------------------------------------------------------------


def _print(
    folder: Path,
    rows: list[dict[str, Any]],
    more: int,
    serving: list[in_service.InService],
    notes: list[str],
    problems: list[str],
) -> None:
    out = terminal.console()
    if not rows:
        terminal.say(out, f"Nothing was run yet in {folder}: graft run --images IMAGES --output {folder}")
    else:
        out.print(_table(rows))
    if more > 0:
        terminal.say(out, f"and {more} older runs: --last {len(rows) + more}")
    out.print()
    for there in serving:
        terminal.say_whole(out, there.sentence)
    if not serving:
        terminal.say(out, "Nothing is in service.")
    for note in notes:
        terminal.say(out, note)
    for problem in problems:
        terminal.say_whole(out, problem)


def _table(rows: list[dict[str, Any]]):
    table = terminal.table(
        ("run (UTC)", "left"),
        ("data", "left"),
        ("images", "right"),
        ("accuracy", "right"),
        ("decision", "left"),
        ("version", "left"),
    )
    for row in rows:
        version = terminal.cell(row["version"], "bold green" if row["in_service"] else "")
        if row["in_service"]:
            version.append("\nin service", "green")
        table.add_row(
            terminal.cell(row["run_id"], "" if row["folder"] else "dim"),
            terminal.cell((row["digest"] or terminal.NOTHING)[:SHORT_DIGEST]),
            terminal.cell(row["images"]),
            terminal.share(row["accuracy"]),
            _decision(row),
            version,
        )
    return table


def _decision(row: dict[str, Any]):
    text = terminal.cell(row["status"], STYLES.get(row["status"], ""))
    if row["step"]:
        text.append(f": {row['step']}")
    if row["ticks"]:
        text.append(f"\n{_said(row['ticks'])} since", "dim")
    if not row["folder"]:
        text.append("\nfolder removed", "dim")
    return text
