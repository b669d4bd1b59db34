"""`graft diff`: what differs between two runs."""

import json
from pathlib import Path
from typing import Any

from rich.console import Console

from components.features import SPLITS
from components.sentences import counted, some
from components.steps import STEPS
from pipeline import terminal
from pipeline.compare import compare, read_side
from pipeline.pace import duration
from pipeline.settings import shown

MOST_CLASSES, MOST_NAMED, SHORT_DIGEST = 20, 5, 12
FILES_THAT_STAYED = {
    "class": "Another class",
    "split": "Another split",
    "renamed": "Another name",
}


def diff(a: Path, b: Path, as_json: bool) -> None:
    """Prints what differs between two runs.

    Args:
      a: the one, as `find_folder` takes it.
      b: the other; differences are of it from the one.
      as_json: one JSON object with all of it.

    Raises:
      UsageError: one of them is no run.
    """
    found = compare(read_side(a), read_side(b))
    if as_json:
        print(json.dumps(found))
        return
    out = terminal.console()
    names = [run["run_id"] for run in found["runs"]]
    for part in (_runs, _configuration, _data, _code, _metrics, _test_images, _per_class):
        part(out, found, names)
    terminal.say_problems(out, found["problems"])


def _rows(out: Console, title: str, names: list[str], rows: list[tuple[str, Any, Any, str]]) -> None:
    """A table of what both runs have, and the change."""
    numbers = any(row[3] for row in rows)
    columns = [("", "left"), *((name, "left") for name in names), *([("change", "right")] if numbers else [])]
    table = terminal.table(*columns)
    for name, a, b, change in rows:
        cells = [terminal.cell(name), terminal.cell(a), terminal.cell(b)]
        table.add_row(*cells, *([terminal.cell(change)] if numbers else []))
    if title:
        terminal.heading(out, title)
    out.print(table)


def _runs(out: Console, found: dict[str, Any], names: list[str]) -> None:
    a, b = found["runs"]
    rows = [
        ("Decision", _ended(a), _ended(b), ""),
        ("Version", a["version"], b["version"], ""),
        (
            "Took",
            *(terminal.NOTHING if run["seconds"] is None else duration(run["seconds"]) for run in (a, b)),
            "",
        ),
        ("Compared with", *(gate["baseline_version"] for gate in found["gate"]), ""),
        ("Refused by", *(_refused(gate) for gate in found["gate"]), ""),
    ]
    _rows(out, "", names, [row for row in rows if row[1:3] not in ((None, None), ("", ""))])


def _ended(run: dict[str, Any]) -> str:
    return run["status"] + (f": {run['step']}" if run["step"] else "")


def _refused(gate: dict[str, Any]) -> str:
    return terminal.listed(gate["failed"], MOST_NAMED) or gate["refusal"] or ""


def _configuration(out: Console, found: dict[str, Any], names: list[str]) -> None:
    differ = found["configuration"]
    if differ is None:
        terminal.heading(out, "Configuration: not known of both")
    elif not differ:
        terminal.heading(out, "Configuration: the same")
    else:
        rows = [(key, *map(shown, both), "") for key, both in differ.items()]
        _rows(out, "Configuration", names, rows)


def _data(out: Console, found: dict[str, Any], names: list[str]) -> None:
    data = found["data"]
    # The same files may have been split or kept out otherwise.
    same = all(data[key][0] == data[key][1] for key in ("sources", "digest", "images", "quarantined"))
    if same and data["digest"][0] and not data["classes"]:
        terminal.heading(out, f"Data: the same ({data['digest'][0][:SHORT_DIGEST]})")
        return
    rows = [
        ("sources", *(", ".join(each or ["-"]) for each in data["sources"]), ""),
        ("digest", *((each or "-")[:SHORT_DIGEST] for each in data["digest"]), ""),
        ("images", *data["images"], _change(*data["images"])),
        ("quarantined", *(_total(each) for each in data["quarantined"]), ""),
    ]
    if data["sources"][0] == data["sources"][1]:
        rows = rows[1:]
    _rows(out, "Data", names, rows)
    for line in _files(data["files"]):
        terminal.say(out, line)
    if data["classes"]:
        _classes(out, data["classes"], names)


def _total(reasons: dict[str, int] | None) -> int | None:
    return None if reasons is None else sum(reasons.values())


def _files(files: dict[str, Any] | None) -> list[str]:
    if files is None:
        return ["Which images came and went cannot be told: the list of those of one run is not there."]
    lines = [
        f"{counted(len(names), 'image')} {what}: {terminal.listed(names, MOST_NAMED)}"
        for what in ("came", "went")
        if (names := files[what])
    ]
    relabelled = {row["path"] for row in files["class"]}
    for key, what in FILES_THAT_STAYED.items():
        # In folders, another class is another path.
        rows = [row for row in files[key] if key != "renamed" or row["path"] not in relabelled]
        if rows:
            named = [f"{terminal.short(row['path'])} (was {terminal.short(row['was'])})" for row in rows]
            lines.append(f"{what} of {counted(len(rows), 'image')}: {some(named, MOST_NAMED)}")
    return lines or ["The images are the same."]


def _classes(out: Console, classes: dict[str, list[dict[str, int] | None]], names: list[str]) -> None:
    table = terminal.table(("class", "left"), *((name, "right") for name in names), ("change", "right"))
    totals = {name: [sum((each or {}).values()) for each in both] for name, both in classes.items()}
    order = sorted(totals, key=lambda name: (-abs(totals[name][1] - totals[name][0]), name))
    for name in order[:MOST_CLASSES]:
        both = [_counts(each) for each in classes[name]]
        table.add_row(terminal.cell(terminal.short(name)), *both, _change(*totals[name]))
    terminal.heading(out, f"Classes with other numbers of images ({', '.join(SPLITS)})")
    out.print(table)
    _more(out, len(order))


def _counts(counts: dict[str, int] | None) -> str:
    return terminal.NOTHING if counts is None else " ".join(f"{counts.get(split, 0):>5}" for split in SPLITS)


def _more(out: Console, count: int) -> None:
    if count > MOST_CLASSES:
        terminal.say(out, f"and {count - MOST_CLASSES} more classes: --json")


def _code(out: Console, found: dict[str, Any], names: list[str]) -> None:
    code = found["code"]
    if None in code["digest"] and not code["steps"]:
        terminal.heading(out, "Code: not known of both")
        return
    if code["digest"][0] == code["digest"][1] and not code["libraries"]:
        terminal.heading(out, "Code: the same")
        return
    rows = [("digest", *((each or "-")[:SHORT_DIGEST] for each in code["digest"]), "")]
    rows += [
        (STEPS[name], *((each or "-")[:SHORT_DIGEST] for each in both), "") for name, both in code["steps"].items()
    ]
    rows += [(name, *both, "") for name, both in code["libraries"].items()]
    _rows(out, "Code", names, rows)


def _metrics(out: Console, found: dict[str, Any], names: list[str]) -> None:
    metrics = found["metrics"]
    if metrics["examples"] == [None, None]:
        terminal.heading(out, "Test split: neither run got that far")
        return
    a, b = metrics["accuracy"]
    rows = [
        ("accuracy", terminal.share(a), terminal.share(b), "" if None in (a, b) else f"{100 * (b - a):+.1f} points"),
        *(
            (title, *(terminal.share(each) for each in metrics[name]), _change(*metrics[name]))
            for name, title in (("loss", "log loss"), ("calibration_error", "calibration error"))
        ),
        ("images", *metrics["examples"], _change(*metrics["examples"])),
    ]
    _rows(out, "Test split", names, rows)


def _change(a: float | None, b: float | None) -> str:
    if a is None or b is None or a == b:
        return ""
    return f"{b - a:+d}" if isinstance(a, int) and isinstance(b, int) else f"{b - a:+.3f}"


def _test_images(out: Console, found: dict[str, Any], names: list[str]) -> None:
    if None in found["metrics"]["examples"]:
        return
    images = found["test_images"]
    if images is None:
        terminal.say(out, "Whether these are the same test images cannot be told: the predictions are gone.")
        return
    if images["same"]:
        terminal.say(out, f"Both were tested on the same {counted(images['in_both'], 'image')}.")
    else:
        parts = [f"{images['in_both'] or 'none'} in both"]
        parts += [f"{count} only in {name}" for count, name in zip(images["only_in"], names, strict=True) if count]
        parts += [f"{images['relabelled']} with another class"] if images["relabelled"] else []
        terminal.say(
            out, f"These are not the same test images ({', '.join(parts)}), which alone can make a difference above."
        )
    if images["in_both"]:
        a, b = images["one_right"]
        terminal.say(
            out,
            f"Of those in both, {images['both_right']} are right in both runs and {images['both_wrong']} in neither; "
            f"{a} only in {names[0]}, {b} only in {names[1]}. {_chance(images['p_value'], a + b)}",
        )


def _chance(p_value: float, differ: int) -> str:
    if not differ:
        return "They agree on every image."
    said = "that is more than chance would do" if p_value <= 0.05 else "chance alone could do that"
    return f"If both models were equally good, {said} (p = {p_value:.2g})."


def _per_class(out: Console, found: dict[str, Any], names: list[str]) -> None:
    classes = found["per_class"]
    differ = {
        name: row
        for name, row in classes.items()
        if any(row[what][0] != row[what][1] for what in ("recall", "precision"))
    }
    if not classes or None in found["metrics"]["examples"]:
        return
    if not differ:
        terminal.heading(out, "Classes: recall and precision are the same")
        return
    table = terminal.table(
        ("class", "left"),
        ("recall", "right"),
        ("", "left"),
        ("precision", "right"),
        ("", "left"),
        ("test images", "right"),
    )
    for name, row in list(differ.items())[:MOST_CLASSES]:
        cells = [each for what in ("recall", "precision") for each in (_both(row[what]), _change(*row[what]))]
        table.add_row(terminal.cell(terminal.short(name)), *cells, _both(row["examples"], terminal.number))
    terminal.heading(out, "Classes that differ, first run -> second run, lost recall first")
    out.print(table)
    _more(out, len(differ))


def _both(pair: list[Any], shown=terminal.share) -> str:
    return f"{shown(pair[0])} -> {shown(pair[1])}"
