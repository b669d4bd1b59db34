"""`graft show --model`: which images, code, configuration and metrics made a version."""

import json
import time
from pathlib import Path
from typing import Any

from components.gate_wording import failed_names
from components.sentences import counted
from components.steps import STEPS
from pipeline import terminal
from pipeline.in_service import by_rollback
from pipeline.settings import shown
from pipeline.version import facts, find_version

MOST_CLASSES, MOST_NAMED = 20, 8


def show_version(wanted: str, folder: Path | None, as_json: bool) -> None:
    """Prints what made a version.

    Args:
      wanted: a number, a version's folder or URI, or `in-service`.
      folder: the output folder; None for the one that the version lies in, or the current folder.
      as_json: one JSON object with all of it.

    Raises:
      UsageError: there is no such version.
    """
    found = facts(find_version(wanted, folder))
    if as_json:
        print(json.dumps(found))
        return
    out = terminal.console()
    terminal.say(out, _head(found), "bold")
    rows = terminal.pairs()
    for name, value in _about(found):
        rows.add_row(name, terminal.cell(value))
    out.print(rows)
    if found["configuration"] and not found["changed"]:
        terminal.heading(out, "Configuration: the defaults")
    if found["changed"]:
        terminal.heading(out, "Configuration that differs from the defaults (--json has the whole)")
        out.print(_configuration(found["changed"]))
    if found["data"]["classes"]:
        terminal.heading(out, "Classes" + ("" if not found["metrics"] else ", worst recall first"))
        out.print(_classes(found["data"]["classes"], (found["metrics"] or {}).get("per_class") or {}))
        if (more := len(found["data"]["classes"]) - MOST_CLASSES) > 0:
            terminal.say(out, f"and {more} more classes: --json")
    terminal.say_problems(out, found["problems"])


def _head(found: dict[str, Any]) -> str:
    state = "is in service" if found["in_service"] else "is not in service"
    if not found["there"]:
        state = f"is not in {found['location'].rpartition('/')[0]} any more"
    line = f"Version {found['version']} {state}"
    if noted := found["rollback"]:
        line += by_rollback(noted["of"], noted["instead_of"])
    return line


def _about(found: dict[str, Any]) -> list[tuple[str, Any]]:
    """(name, what it is) of everything that is known."""
    rows = [
        ("Folder", found["location"] if found["there"] else None),
        ("Published", _published(found)),
        ("Trained", _trained(found)),
        ("Replaced", _replaced(found)),
        *_images(found["data"]),
        ("Code", _code(found["code"])),
        ("Libraries", _libraries(found["code"]["other_libraries"])),
        ("Test split", _metrics(found["metrics"])),
        ("Gate", _gate(found["gate"], found["serving_check"] or {})),
        ("Formats", ", ".join(["SavedModel", *(found["formats"] or {})]) if found["there"] else None),
        ("Checksums", _checksums(found["checksums"]) if found["there"] else None),
        ("License", found["license"]),
    ]
    return [(name, value) for name, value in rows if value]


def _run(run: dict[str, Any]) -> str:
    return f"run {run['run_id']}" + ("" if run["folder"] else " (its folder was removed)")


def _time(text: str | None) -> str:
    return (text or "").replace("T", " ").replace("+00:00", " UTC")


def _published(found: dict[str, Any]) -> str | None:
    by = f"by {_run(found['published_by'])}" if found["published_by"] else "by a run that is not known"
    if found["rollback"]:
        first = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(found["original"]))
        return f"{first} as version {found['original']}, {by}; rolled back to {_time(found['published'])}"
    return f"{_time(found['published'])}, {by}".strip(", ")


def _trained(found: dict[str, Any]) -> str | None:
    run = found["trained_by"]
    if not run:
        return None
    published = (found["published_by"] or {}).get("run_id")
    line = "by the same run" if run["run_id"] == published else f"by {_run(run)}; later runs had it from the cache"
    return f"{line}, begun from version {found['start_from']}" if found["start_from"] else line


def _replaced(found: dict[str, Any]) -> str | None:
    if noted := found["rollback"]:
        return f"version {noted['instead_of']}"
    if not found["gate"]:
        return None
    return "nothing: it was the first" if found["replaced"] is None else f"version {found['replaced']}"


def _images(data: dict[str, Any]) -> list[tuple[str, Any]]:
    counted = f"{data['images']} in {len(data['classes'] or {})} classes" if data["images"] else "not known"
    return [
        ("Images", counted),
        *(("  from" if number == 0 else "", source) for number, source in enumerate(data["sources"] or [])),
        ("  digest", data["digest"]),
        ("  listed in", data["listed_in"]),
        ("  kept out", _kept_out(data)),
    ]


def _kept_out(data: dict[str, Any]) -> str | None:
    reasons = [f"{count} {reason}" for reason, count in (data["quarantined"] or {}).items()]
    counted = ", ".join(reasons) if reasons else None if data["quarantined"] is None else "nothing quarantined"
    listed = f"listed in {data['kept_out_in']}" if data["kept_out_in"] else None
    return "; ".join(each for each in (counted, listed) if each) or None


def _code(code: dict[str, Any]) -> str | None:
    if not code["digest"]:
        return None
    if code["same_here"]:
        return f"{code['digest'][:12]}, the same as here"
    other = [STEPS[name] for name, step in code["steps"].items() if step["same_here"] is False]
    same = [STEPS[name] for name, step in code["steps"].items() if step["same_here"]]
    line = f"{code['digest'][:12]}; here it is {code['here'][:12]}"
    if other:
        return f"{line}, with other code for: {', '.join(other)}"
    return f"{line}, with the same code for: {', '.join(same)}" if same else line


def _libraries(other: dict[str, list[str | None]]) -> str | None:
    return ", ".join(f"{name} {was} (here {now or 'none'})" for name, (was, now) in other.items()) or None


def _metrics(metrics: dict[str, Any] | None) -> str | None:
    if not metrics:
        return None
    line = f"accuracy {metrics['accuracy']:.3f} on {metrics['examples']} images"
    for name, title in (("loss", "log loss"), ("calibration_error", "calibration error")):
        if metrics.get(name) is not None:
            line += f", {title} {metrics[name]:.3f}"
    return line


def _gate(gate: dict[str, Any], served: dict[str, Any]) -> str | None:
    checks = [*(gate.get("checks") or []), *(served.get("checks") or [])]
    if not checks:
        return None
    failed = failed_names(checks)
    passed = sum(check["passed"] is True for check in checks)
    line = f"refused by {terminal.listed(failed, MOST_NAMED)}" if failed else f"passed, {counted(passed, 'check')}"
    if skipped := sum(check["passed"] is None for check in checks):
        line += f" and {skipped} not judged"
    return f"{line}; {gate['baseline_reason']}" if gate.get("baseline_reason") else line


def _checksums(found: dict[str, Any] | None) -> str:
    if found is None:
        return "it has none"
    wrong = [f"{name} is damaged" for name in found["damaged"]] + [f"{name} is missing" for name in found["missing"]]
    if wrong:
        return f"NOT what was published: {terminal.listed(wrong, MOST_NAMED)}"
    line = "every file is as it was published" if found["contents"] else "every file is there (contents not read)"
    return line + (f"; besides it: {terminal.listed(found['extra'], MOST_NAMED)}" if found["extra"] else "")


def _configuration(changed: dict[str, dict[str, Any]]):
    table = terminal.table(("key", "left"), ("value", "left"), ("default", "left"))
    for key, both in changed.items():
        table.add_row(terminal.cell(key), *(terminal.cell(shown(both[name])) for name in ("value", "default")))
    return table


def _classes(classes: dict[str, dict[str, int]], measured: dict[str, dict[str, Any]]):
    table = terminal.table(
        ("class", "left"), *((title, "right") for title in ("train", "eval", "test", "recall", "precision"))
    )
    for name in sorted(classes, key=lambda name: (measured.get(name, {}).get("recall", 0), name))[:MOST_CLASSES]:
        counts = [terminal.number(classes[name].get(split)) for split in ("train", "eval", "test")]
        shares = [terminal.share(measured.get(name, {}).get(metric)) for metric in ("recall", "precision")]
        table.add_row(terminal.cell(terminal.short(name)), *counts, *shares)
    return table
