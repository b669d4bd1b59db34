"""What became of every file of a data set: counts for people and the summary, and a line a file that needs one.

Only the standard library, so that the command can read a report without importing TFX.
"""

import json
import statistics
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from components.features import SPLITS
from components.files import write_json_lines
from components.inspection import IO_ERROR
from components.sentences import counted
from components.splits import Catalog

CATALOG_FILE = "catalog.json"
QUARANTINE_FILE = "quarantine.jsonl"
IMAGES_FILE = "images.jsonl"


def summarise(catalog: Catalog, skipped: list[tuple[str, str]], digest: str | None = None) -> dict[str, Any]:
    """The counts (`docs/summary.md` names them, under `data`), and the digest of the images that were counted."""
    kept = catalog.kept
    classes: dict[str, dict[str, int]] = {}
    for record in kept:
        counts = classes.setdefault(record["class_name"], dict.fromkeys(SPLITS, 0))
        counts[record["split"]] += 1
    return {
        "images": len(kept),
        "classes": dict(sorted(classes.items())),
        # "too large: 60000x60000 pixels" counts under "too large".
        "quarantined": _counts(record["reason"].split(":")[0] for record in catalog.quarantined),
        "skipped": len(skipped),
        "converted": sum(record["converted"] for record in kept),
        "mismatched_extensions": sum(record["mismatched"] for record in kept),
        "duplicates": len(catalog.duplicates),
        "label_conflicts": len(catalog.conflicts),
        "leakage": {"copies": len(catalog.leaked_copies), "groups": len(catalog.leaks)},
        "formats": _counts(record["format"] for record in kept),
        "sizes": {name: _range(record[name] for record in kept) for name in ("width", "height", "bytes")},
        "digest": digest,
    }


def _counts(values: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(values).items()))


def _range(values: Iterable[int]) -> dict[str, int] | None:
    numbers = list(values)
    if not numbers:
        return None
    return {"smallest": min(numbers), "median": int(statistics.median(numbers)), "largest": max(numbers)}


def concerns_of(counts: dict[str, Any]) -> list[str]:
    """What a person should be warned of, although the run goes on: a sentence each, and none where all is well.

    Args:
      counts: as `summarise` gives them.
    """
    found, leakage = [], counts["leakage"]
    if number := counts["quarantined"].get(IO_ERROR, 0):
        it = "it" if number == 1 else "them"
        found.append(
            f"{counted(number, 'file')} could not be read and stayed out: {QUARANTINE_FILE} lists {it}; once that has "
            f"passed, a run takes {it} in."
        )
    if number := counts["label_conflicts"]:
        lie = "lies" if number == 1 else "lie"
        found.append(
            f"{counted(number, 'image')} {lie} in several classes, so that all copies stayed out: decide on a class "
            f"for each; {QUARANTINE_FILE} lists them."
        )
    if number := leakage["copies"]:
        found.append(f"{counted(number, 'file')} stayed out as a later one of your split folders holds the same image.")
    if number := leakage["groups"]:
        found.append(f"Your folders put {counted(number, 'group')} into several splits: the test may be too easy.")
    return found


def lines(catalog: Catalog, skipped: list[tuple[str, str]]) -> list[dict[str, str]]:
    """`{outcome, path, reason}` of every file that was not simply kept."""
    rows = [("duplicate", path, "the same bytes are in already") for path in catalog.duplicates]
    rows += [("leak", path, "the same bytes are in a later split") for path in catalog.leaked_copies]
    rows += [
        ("leak", group, f"{count} images of this group are in an earlier split than others of it")
        for group, count in catalog.leaks
    ]
    rows += [
        ("converted", record["path"], f"{record['format']} that TensorFlow does not read; stored as PNG")
        for record in catalog.kept
        if record["converted"]
    ]
    rows += [
        ("mismatched", record["path"], f"the name says something else than {record['format']}; kept")
        for record in catalog.kept
        if record["mismatched"]
    ]
    rows += [("skipped", path, reason) for path, reason in skipped]
    told = [{"outcome": outcome, "path": path, "reason": reason} for outcome, path, reason in rows]
    return quarantined_lines(catalog.quarantined) + told


def quarantined_lines(records: list[dict[str, Any]]) -> list[dict[str, str]]:
    """The part of `lines` that is there even where the data was refused and there is no catalog."""
    return [{"outcome": "quarantined", "path": row["path"], "reason": row["reason"]} for row in records]


def image_lines(catalog: Catalog) -> list[dict[str, str]]:
    """`{sha256, path, class, split}` of every image of the data set, by path."""
    return [
        {"sha256": row["sha256"], "path": row["path"], "class": row["class_name"], "split": row["split"]}
        for row in catalog.kept
    ]


def write(folder: Path, catalog: Catalog, skipped: list[tuple[str, str]], digest: str) -> dict[str, Any]:
    """Writes `catalog.json`, `quarantine.jsonl` (lines), `images.jsonl` (what was kept); returns the first."""
    folder.mkdir(parents=True, exist_ok=True)
    counts = summarise(catalog, skipped, digest)
    (folder / CATALOG_FILE).write_text(json.dumps(counts, indent=1))
    write_json_lines(folder / QUARANTINE_FILE, lines(catalog, skipped))
    # The examples hold all of this, but among gigabytes: for whoever asks which images made a model.
    write_json_lines(folder / IMAGES_FILE, image_lines(catalog))
    return counts
