"""`graft schedule status`: how the last ticks ended, when the next one is due, and which model is in service."""

import contextlib
import json
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from components.errors import UsageError
from components.run_summary import timestamp
from pipeline import in_service, terminal
from pipeline.output import Output
from pipeline.run_folder import read_run
from pipeline.schedule.keeping import keeper
from pipeline.schedule.places import Places
from pipeline.schedule.plan import Plan, read_plan
from pipeline.schedule.said import counted, due_at, moment
from pipeline.schedule.store import stored_next
from pipeline.schedule.ticks import (
    FAILED,
    KILLED,
    PUBLISHED,
    REFUSED,
    SKIPPED,
    STOPPED,
    UNCHANGED,
    Tick,
    failures_in_a_row,
    read_ticks,
)
from pipeline.schedule.trigger import CronTrigger

STYLES = {PUBLISHED: "green", REFUSED: "bold red", FAILED: "bold red", KILLED: "bold red", STOPPED: "yellow"}
STYLES |= {SKIPPED: "dim", UNCHANGED: ""}


def status(folder: Path, last: int, as_json: bool) -> None:
    """Prints how a schedule is doing; it only reads.

    Args:
      folder: the output folder.
      last: how many ticks.
      as_json: one JSON object.

    Raises:
      UsageError: there is no schedule.
    """
    places = Places(Output(folder.absolute()))
    if not places.folder.is_dir():
        raise UsageError(f"There is no schedule in {folder}: graft schedule run --cron EXPRESSION --images SOURCE ...")
    known = _known(places, last)
    if as_json:
        print(json.dumps(known))
    else:
        _print(known, Path(folder))


def _known(places: Places, last: int) -> dict[str, Any]:
    """Everything that is told, as it is in JSON; times are ISO 8601 in UTC."""
    problems: list[str] = []
    plan, ticks, holder = _plan(places, problems), read_ticks(places.output), keeper(places)
    found = [read_run(run) for run in places.output.all_runs()]
    serving, unasked = in_service.everywhere(places.output, found)
    upcoming, missed = _next(places, plan, holder)
    return {
        "output": str(places.output.root),
        "plan": asdict(plan) if plan else None,
        "process": holder,
        "running": _running(places) if holder is not None else None,
        "next_tick": upcoming,
        "missed": missed,
        "failures": failures_in_a_row(ticks),
        "in_service": [asdict(there) | {"since": _since(there.version)} for there in serving],
        "ticks": [asdict(tick) for tick in reversed(ticks[-last:])],
        "problems": problems + unasked,
    }


def _plan(places: Places, problems: list[str]) -> Plan | None:
    try:
        return read_plan(places.plan)
    except UsageError as error:
        problems.append(str(error))
        return None


def _next(places: Places, plan: Plan | None, holder: int | None) -> tuple[str | None, int]:
    """The next tick, and how many were missed while nobody kept the schedule."""
    if plan is None or plan.cron is None:
        return None, 0
    now, stored = datetime.fromtimestamp(time.time(), UTC), stored_next(places.store)
    trigger = CronTrigger(plan.cron, plan.time_zone)
    upcoming = trigger.after(now)
    if holder is not None:
        upcoming = stored or upcoming
    missed = trigger.due(stored, now).count if holder is None and stored is not None and stored <= now else 0
    return timestamp(upcoming.timestamp()), missed


def _running(places: Places) -> dict[str, Any] | None:
    """The tick that is going on: `time`, `due`, and `run_id` and `step` where a run does."""
    try:
        note = json.loads(places.ticking.read_text())
        began = {"time": note.get("time"), "due": note.get("due")}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, AttributeError):
        began = {"time": None, "due": None}
    run = next((run for run in places.output.all_runs()[:1] if places.output.is_running(run)), None)
    going = read_run(run) if run else None
    return began | {"run_id": going.run_id if going else None, "step": going.step if going else None}


def _since(version: int) -> str | None:
    """A version's number is the second in which it was published."""
    with contextlib.suppress(ValueError, OverflowError, OSError):
        return timestamp(version)
    return None


# ---- what a person sees ---------------------------------------------------------------------------------------------


def _print(known: dict[str, Any], folder: Path) -> None:
    out = terminal.console()
    zone = (known["plan"] or {}).get("time_zone") or "UTC"
    if known["ticks"]:
        out.print(_table(known["ticks"]))
    else:
        terminal.say(out, "There was no tick yet.")
    out.print()
    terminal.say(out, _what_is_next(known, zone))
    if known["missed"]:
        terminal.say(
            out, f"{counted(known['missed']).capitalize()} missed since: the next start makes up for all by one."
        )
    if known["failures"]:
        terminal.say(out, f"{counted(known['failures']).capitalize()} failed in a row.", "bold red")
    for there in known["in_service"]:
        since = f", since {moment(datetime.fromisoformat(there['since']), zone)}" if there["since"] else ""
        terminal.say_whole(out, f"In service: {there['place']}/{there['version']}{since}")
    if not known["in_service"]:
        terminal.say(out, "Nothing is in service.")
    terminal.say_problems(out, known["problems"])


def _what_is_next(known: dict[str, Any], zone: str) -> str:
    lines = []
    if (running := known["running"]) is not None:
        what = f"run {running['run_id']}" if running["run_id"] else "a tick"
        lines.append(f"Going on: {what}{' (' + running['step'] + ')' if running['step'] else ''}.")
    upcoming = due_at(known["next_tick"], zone)
    if upcoming is None:
        lines.append("No times are kept here: ticks come from outside (--once).")
    elif known["process"] is None:
        lines.append(f"Nobody keeps the schedule: the next tick would be {upcoming}.")
    else:
        lines.append(f"Next tick {upcoming}, kept by process {known['process']}.")
    return " ".join(lines)


def _table(ticks: list[dict[str, Any]]):
    table = terminal.table(
        ("tick (UTC)", "left"), ("outcome", "left"), ("attempts", "right"), ("version", "left"), ("", "left")
    )
    for row in ticks:
        tick = Tick(**row)
        detail = tick.error or tick.why or (f"run {tick.run_id}" if tick.run_id else "")
        if tick.missed:
            detail = f"made up for {counted(tick.missed)}" + (f"; {detail}" if detail else "")
        table.add_row(
            terminal.cell(tick.time[:19].replace("T", " ")),
            terminal.cell(tick.status, STYLES.get(tick.status, "")),
            terminal.cell(tick.attempts),
            terminal.cell(tick.version),
            terminal.cell(detail),
        )
    return table
