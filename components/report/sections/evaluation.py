"""Where the model is wrong."""

from typing import Any

from components.gate_statistics import wilson_interval
from components.report import charts
from components.report.facts import Answer, Facts
from components.report.thumbnails import Room
from components.report.wording import loss, number, percent, points, shortened, sign, visible

MOST_CLASSES = 200
MOST_CONFUSIONS = 15
MOST_DRAWN = 2_000  # classes of a confusion matrix; each has a row and a column of pixels
MOST_CARDS = 24
MOST_CELLS = 25_000  # that the script can name


def view(facts: Facts, room: Room) -> dict[str, Any]:
    test = (facts.summary.get("metrics") or {}).get("test") or {}
    counts = facts.confusion if facts.classes and any(map(any, facts.confusion)) else []
    matrix = charts.confusion(facts.classes, counts) if 0 < len(counts) <= MOST_DRAWN else None
    bins, baseline = test.get("reliability") or [], test.get("baseline") or {}
    per_class, pairs = _per_class(test, _never_said(facts.classes, counts)), _pairs(counts)
    return {
        "reached": bool(test.get("examples")),
        "examples": test.get("examples"),
        "overall": _overall(test),
        "compared": bool(baseline),
        "per_class": per_class[:MOST_CLASSES],
        "more_classes": max(0, len(per_class) - MOST_CLASSES),
        "matrix": matrix,
        "too_large": len(counts) if len(counts) > MOST_DRAWN else None,
        "large": len(counts) > charts.MOST_WRITTEN,
        "cells": _cells(facts.classes, counts, matrix) if matrix else None,
        "confusions": _confusions(facts.classes, counts, pairs[:MOST_CONFUSIONS]),
        "more_confusions": max(0, len(pairs) - MOST_CONFUSIONS),
        "reliability": charts.reliability(bins, baseline.get("reliability")) if bins else None,
        "reliability_compared": bool(baseline.get("reliability")),
        "wrong": facts.wrong,
        "mistakes": [_card(answer, room) for answer in facts.mistakes[:MOST_CARDS]],
        "hesitant": [_card(answer, room) for answer in facts.hesitant[:MOST_CARDS]],
    }


def _overall(test: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """`(metric, this model, in service, difference)`."""
    baseline = test.get("baseline") or {}
    rows = []
    for key, title, shown in (
        ("accuracy", "Accuracy", percent),
        ("loss", "Log loss, nats", loss),
        ("calibration_error", "Calibration error", percent),
    ):
        value, before = number(test.get(key)), number(baseline.get(key))
        if key == "accuracy" and before is None:
            before = number(test.get("baseline_accuracy"))
        if value is None:
            continue
        difference = None if before is None else value - before
        changed = points(difference) + " points" if shown is percent else _signed(difference)
        rows.append((title, shown(value), shown(before), changed if difference is not None else ""))
    return rows


def _signed(difference: float | None) -> str:
    if difference is None:
        return ""
    return sign(difference) + loss(abs(difference))


def _never_said(classes: list[str], counts: list[list[int]]) -> set[str]:
    """Classes that no image was taken for: their precision, written as 0, is unknown."""
    return {name for name, images in zip(classes, map(sum, zip(*counts, strict=True)), strict=False) if not images}


def _per_class(test: dict[str, Any], never_said: set[str]) -> list[dict[str, Any]]:
    """The worst recall first; classes without a test image last."""
    before = (test.get("baseline") or {}).get("per_class") or {}
    rows = []
    for name, found in (test.get("per_class") or {}).items():
        examples, recall = found.get("examples") or 0, number(found.get("recall"))
        known = examples > 0 and recall is not None
        earlier = number((before.get(name) or {}).get("recall")) if known else None
        rows.append(
            {
                "name": name,
                "examples": examples,
                "recall": recall if known else None,
                "precision": None if name in never_said else number(found.get("precision")),
                "interval": wilson_interval(round(recall * examples), examples) if known else None,
                "before": earlier,
                "difference": recall - earlier if known and earlier is not None else None,
            }
        )
    return sorted(rows, key=lambda row: (row["recall"] is None, row["recall"] or 0, -row["examples"], row["name"]))


def _pairs(counts: list[list[int]]) -> list[tuple[int, int, int]]:
    """`(images, true, predicted)` of every confusion, the most frequent first."""
    pairs = [
        (images, true, predicted)
        for true, row in enumerate(counts)
        for predicted, images in enumerate(row)
        if images and true != predicted
    ]
    return sorted(pairs, key=lambda pair: (-pair[0], pair[1:]))


def _confusions(classes: list[str], counts: list[list[int]], pairs: list[tuple[int, int, int]]) -> list[dict[str, Any]]:
    return [
        {"true": classes[true], "predicted": classes[predicted], "images": images, "share": images / sum(counts[true])}
        for images, true, predicted in pairs
    ]


def _cells(classes: list[str], counts: list[list[int]], matrix: charts.Matrix) -> dict[str, Any]:
    """What the script needs to name a cell: `[true, predicted, images]` of those with images, the largest first."""
    cells = [[row, column, images] for row, line in enumerate(counts) for column, images in enumerate(line) if images]
    cells.sort(key=lambda cell: -cell[2])
    return {
        "left": matrix.left,
        "top": matrix.top,
        "cell": matrix.cell,
        "names": [shortened(name, 60) for name in classes],
        "cells": cells[:MOST_CELLS],
        # What an unnamed cell may hold.
        "most": cells[MOST_CELLS][2] if len(cells) > MOST_CELLS else 0,
    }


def _card(answer: Answer, room: Room) -> dict[str, Any]:
    return {
        "picture": room.take(answer.picture),
        "filename": visible(answer.filename),
        "true": answer.true,
        "predicted": answer.predicted,
        "score": percent(answer.score),
        "true_score": percent(answer.true_score),
        "in_service": answer.in_service,
        "in_service_right": answer.in_service == answer.true,
        "wrong": answer.predicted != answer.true,
    }
