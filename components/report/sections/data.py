"""What went in, and what was kept out and why."""

from typing import Any

from components.features import SPLITS
from components.report import charts
from components.report.facts import Facts
from components.report.thumbnails import Room
from components.report.wording import count, number, size

MOST_CLASSES = 200  # rows of a table of classes
MOST_PICTURED = 120  # classes with example pictures
MOST_FILES = 40  # of each outcome
# What became of files that were not simply kept: outcome, heading.
OUTCOMES = {
    "quarantined": "Quarantined",
    "duplicate": "Duplicates",
    "leak": "Left out of a split",
    "mismatched": "Name and content differ",
    "converted": "Converted",
    "skipped": "Skipped",
}


def view(facts: Facts, kept_out_room: Room, room: Room) -> dict[str, Any]:
    """Args:
    kept_out_room: for pictures of what was kept out.
    room: for examples.
    """
    data = facts.summary.get("data") or {}
    classes = data.get("classes") or {}
    return {
        "reached": bool(classes),
        "images": data.get("images"),
        "splits": {split: sum(counts.get(split, 0) for counts in classes.values()) for split in SPLITS},
        "chart": charts.class_counts(classes, SPLITS) if classes else None,
        "profile": len(classes) > charts.MOST_BARS,
        "classes": [
            {"name": name, "counts": [counts.get(split, 0) for split in SPLITS], "total": sum(counts.values())}
            for name, counts in list(classes.items())[:MOST_CLASSES]
        ],
        "class_count": len(classes),
        "more_classes": max(0, len(classes) - MOST_CLASSES),
        "formats": sorted((data.get("formats") or {}).items(), key=lambda row: -row[1]),
        "sizes": _sizes(data.get("sizes") or {}),
        "counts": _counts(data, facts),
        "groups": _groups(facts, kept_out_room),
        "examples": _examples(facts, room),
        "pictured": sum(bool(pictures) for pictures in facts.examples.values()),
        "anomalies": facts.anomalies,
        "drift": sorted(facts.drift, key=lambda row: row.threshold - row.value),
        "judged": bool(classes) and _was_judged(facts),
        "sources": facts.summary.get("images") or [],
        "digest": data.get("digest"),
    }


def _was_judged(facts: Facts) -> bool:
    """Whether the data gate came to its end."""
    timings = facts.summary.get("timings") or {}
    return "DataGate" in timings or facts.summary.get("status") != "failed"


def _sizes(sizes: dict[str, Any]) -> list[tuple[str, list[str]]]:
    """`(what, [smallest, median, largest])`."""
    rows = []
    for name, title, shown in (
        ("width", "Width, pixels", count),
        ("height", "Height, pixels", count),
        ("bytes", "File", size),
    ):
        if found := sizes.get(name):
            rows.append((title, [shown(found.get(key)) for key in ("smallest", "median", "largest")]))
    return rows


def _counts(data: dict[str, Any], facts: Facts) -> list[dict[str, Any]]:
    """Kinds of files that were not simply kept, with what that means; only those that there are."""
    quarantined = dict(data.get("quarantined") or {})
    if not quarantined and not data.get("classes"):
        # The data was refused: there are no counts, only the files.
        for row in facts.kept_out:
            if row["outcome"] == "quarantined":
                reason = row["reason"].split(":")[0]
                quarantined[reason] = quarantined.get(reason, 0) + 1
    leakage = data.get("leakage") or {}
    conflicts = "the same picture in two classes; no copy is kept, as none can be trusted"
    spread = "your folders spread a group over several splits: the test may be too easy"
    rows = [
        ("Label conflicts", data.get("label_conflicts"), conflicts, "contents"),
        *((f"Quarantined: {reason}", files, "not in the data", "") for reason, files in quarantined.items()),
        ("Duplicates", data.get("duplicates"), "further copies within a class; one is kept", ""),
        ("Copies in a later split", leakage.get("copies"), "left out, so that no test image is trained on", ""),
        ("Converted", data.get("converted"), "formats that TensorFlow does not read; kept, stored as PNG", ""),
        ("Name and content differ", data.get("mismatched_extensions"), "read by content; kept", ""),
        ("Skipped", data.get("skipped"), "no images by name and content, hidden files, links out of the folder", ""),
        ("Groups in several splits", leakage.get("groups"), spread, "groups"),
    ]
    return [
        {"what": what, "files": files, "meaning": meaning, "unit": unit}
        for what, files, meaning, unit in rows
        if number(files)
    ]


def _groups(facts: Facts, room: Room) -> list[dict[str, Any]]:
    """The files themselves, by what became of them; those with a picture first."""
    groups = []
    for outcome in dict.fromkeys([*OUTCOMES, *(row["outcome"] for row in facts.kept_out)]):
        rows = [row for row in facts.kept_out if row["outcome"] == outcome]
        if not rows:
            continue
        shown = sorted(rows, key=lambda row: row["path"] not in facts.kept_out_pictures)[:MOST_FILES]
        files = [row | {"picture": room.take(facts.kept_out_pictures.get(row["path"]))} for row in shown]
        groups.append(
            {
                "title": OUTCOMES.get(outcome, outcome),
                "files": files,
                "total": len(rows),
                "more": len(rows) - len(files),
                "pictures": any(row["picture"] for row in files),
                "open": outcome == "quarantined",
            }
        )
    return groups


def _examples(facts: Facts, room: Room) -> list[dict[str, Any]]:
    """Pictures by class: a first one of each, then a second, as long as there is room."""
    names = [name for name, pictures in facts.examples.items() if pictures][:MOST_PICTURED]
    each = 6 if len(names) <= 12 else 3 if len(names) <= 40 else 1
    taken: dict[str, list] = {name: [] for name in names}
    for turn in range(each):
        for name in names:
            pictures = facts.examples[name]
            if turn < len(pictures) and (thumbnail := room.take(pictures[turn])):
                taken[name].append(thumbnail)
    return [{"name": name, "pictures": pictures} for name, pictures in taken.items() if pictures]
