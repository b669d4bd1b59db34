"""What the report shows, gathered from the summary and from what the steps left, whatever there is of it."""

import os
import traceback
import urllib.parse
from dataclasses import replace
from pathlib import Path
from typing import Any

from components import data_report, features, progress, steps, storage
from components.data_findings import ANOMALIES_FILE, DRIFT_FILE
from components.files import read_json, read_json_lines
from components.gate_statistics import wilson_interval
from components.prediction_lines import BASELINE, CANDIDATE, read_predictions
from components.report import pictures
from components.report.facts import Answer, Drift, Facts, Link
from components.run_summary import Produced

MISTAKES = 24
HESITANT = 12
# What lies beside the page in the folder of a run.
BESIDE = {
    steps.SUMMARY_FILE: "Summary",
    data_report.QUARANTINE_FILE: "Files that were not simply kept",
    features.TRAINING_FILE: "Training curves",
    features.TENSORBOARD_FOLDER: "Curves for TensorBoard",
    steps.LOG_FILE: "Log",
}
ARTIFACTS = {
    "catalog": "Counts of the data set",
    "examples": "Examples",
    "data_gate": "What the data gate found",
    "model_run": "What training left",
    "evaluation": "Evaluation",
    "formats": "Other formats",
    "serving_check": "Serving check",
    "pushed": "Publication",
}


def gather(
    summary: dict[str, Any],
    left: Produced,
    page: Path,
    kept_out: list[dict] | None = None,
    folder: Path | None = None,
) -> Facts:
    """Everything that the page shows. A part that cannot be read is left out, and the person is warned.

    Summaries of earlier releases have fewer fields.

    Args:
      summary: of the run.
      left: by its steps.
      page: where the page will be; links start there.
      kept_out: rows of `quarantine.jsonl`; None where the catalog has them.
      folder: of the run; None where the page will be in it.
    """
    facts = Facts(summary)
    parts = {
        "links": lambda: {"links": _links(summary, left, page.absolute().parent, (folder or page.parent).absolute())},
        "times": lambda: {"steps": _steps(summary)},
        "pictures of the classes": lambda: {"examples": _examples(summary, left)},
        "files that were kept out": lambda: _kept_out(summary, left, kept_out),
        "anomalies": lambda: {"anomalies": read_json(left.data_gate, ANOMALIES_FILE, [])},
        "drift": lambda: {"drift": [Drift(**row) for row in read_json(left.data_gate, DRIFT_FILE, [])]},
        "training curves": lambda: {"training": read_json(left.model_run, features.TRAINING_FILE, {})},
        "interval of the accuracy": lambda: {"interval": _interval(summary)},
        "answers to the test images": lambda: _evaluation(summary, left),
    }
    for name, part in parts.items():
        try:
            facts = replace(facts, **part())
        # What a broken step or a full disk left may hold anything.
        except Exception as error:
            traceback.print_exc()
            progress.warn(f"The report lacks the {name}: {type(error).__name__}: {error}")
    return facts


def _interval(summary: dict[str, Any]) -> tuple[float, float] | None:
    test = summary["metrics"]["test"]
    if not test:
        return None
    return wilson_interval(round(test["accuracy"] * test["examples"]), test["examples"])


def _steps(summary: dict[str, Any]) -> list[tuple[str, float | None, bool]]:
    timings, cached, failed = summary["timings"], summary.get("cached", ()), summary.get("step")
    rows = [(name, timings[key], key in cached) for key, name in steps.STEPS.items() if key in timings]
    # The one that failed was not measured, or not to its end.
    rows = [row for row in rows if row[0] != failed]
    return [*rows, (failed, None, False)] if failed else rows


# ---- data -----------------------------------------------------------------------------------------------------------


def _examples(summary: dict[str, Any], left: Produced) -> dict[str, list[pictures.Picture]]:
    return pictures.of_classes(left.examples, summary["data"].get("classes", ())) if left.examples else {}


def _kept_out(summary: dict[str, Any], left: Produced, rows: list[dict] | None) -> dict[str, Any]:
    if rows is None:
        path = left.catalog / data_report.QUARANTINE_FILE if left.catalog else None
        rows = read_json_lines(path) if path and path.is_file() else []
    return {"kept_out": rows, "kept_out_pictures": pictures.of_kept_out(rows, summary.get("images", []))}


# ---- evaluation -----------------------------------------------------------------------------------------------------


def _evaluation(summary: dict[str, Any], left: Produced) -> dict[str, Any]:
    rows = read_predictions(left.evaluation) if left.evaluation else []
    if not rows:
        return {}
    # Labels are ids of the sorted names.
    names = sorted(summary["data"]["classes"])
    confusion = [[0] * len(names) for _ in names]
    for row in rows:
        confusion[row["label"]][row[CANDIDATE]["id"]] += 1
    wrong = [row for row in rows if row[CANDIDATE]["id"] != row["label"]]
    right = [row for row in rows if row[CANDIDATE]["id"] == row["label"]]
    mistakes = sorted(wrong, key=lambda row: -row[CANDIDATE]["score"])[:MISTAKES]
    hesitant = sorted(right, key=lambda row: row[CANDIDATE]["score"])[:HESITANT]
    keys = [row["key"] for row in mistakes + hesitant]
    found = pictures.by_key(left.examples, keys) if left.examples else {}

    def answers(rows: list[dict[str, Any]]) -> list[Answer]:
        return [replace(_answer(row, names), picture=found.get(row["key"])) for row in rows]

    return {
        "classes": names,
        "confusion": confusion,
        "mistakes": answers(mistakes),
        "hesitant": answers(hesitant),
        "wrong": len(wrong),
    }


def _answer(row: dict[str, Any], names: list[str]) -> Answer:
    given = row[CANDIDATE]
    return Answer(
        filename=row["filename"],
        true=names[row["label"]],
        predicted=names[given["id"]],
        score=given["score"],
        true_score=given["true_score"],
        in_service=names[row[BASELINE]["id"]] if BASELINE in row else None,
    )


# ---- links ----------------------------------------------------------------------------------------------------------


def _links(summary: dict[str, Any], left: Produced, start: Path, folder: Path) -> list[Link]:
    """From the folder `start` to what is there of a run."""
    places = {title: folder / name for name, title in BESIDE.items()}
    places |= {title: getattr(left, name) for name, title in ARTIFACTS.items()}
    links = [_link(title, str(place), start) for title, place in places.items() if place and place.exists()]
    published = summary["model"]["path"]
    return [_link("Published model", published, start), *links] if published else links


def _link(title: str, place: str, folder: Path) -> Link:
    if not storage.is_uri(place) and not os.path.lexists(place):
        # Versions are removed in time.
        return Link(title, None, place)
    if storage.is_uri(place):
        # Browsers do not open the others, and must not run what `javascript:` begins.
        return Link(title, place if place.startswith(("http://", "https://")) else None, place)
    return Link(title, urllib.parse.quote(os.fsencode(os.path.relpath(place, folder))), place)
