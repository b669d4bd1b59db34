"""What the steps of a run leave, for tests that need no pipeline."""

import json
from pathlib import Path

from components.data_findings import Findings
from components.files import write_json_lines
from components.run_summary import Produced
from tests.components.raw import picture, write_split

NAMES = ["<script>alert(1)</script>", "b", "ü" * 100]
KEPT_OUT = [
    {"outcome": "quarantined", "path": "b/\udcff\n.jpg", "reason": "not an image"},
    {"outcome": "skipped", "path": "notes.txt", "reason": "not an image by name or content"},
]
CLEAN = {"quarantined": {}, "label_conflicts": 0, "leakage": {"copies": 0, "groups": 0}}
ANOMALY = {"feature": "image/height", "problem": "High drift", "detail": "too far"}
DRIFT = {"feature": "image/height", "measure": "L-infinity distance", "value": 0.5, "threshold": 0.3}


def line(key: str, number: int, label: int, answer: int, score: float, baseline: int | None = None) -> dict:
    row = {"key": key, "filename": f"{number}.jpg", "label": label}
    row["candidate"] = {"id": answer, "score": score, "true_score": score if label == answer else 0.01}
    return row if baseline is None else row | {"baseline": {"id": baseline, "score": 0.9, "true_score": 0.9}}


def whole_run(folder: Path) -> Produced:
    """What a run leaves: 12 test images of 3 classes, 4 of them wrong."""
    root = folder / "artifacts"
    names = ("catalog", "examples", "data_gate", "model_run", "evaluation", "formats", "serving_check", "pushed")
    left = Produced(**{name: root / name / "1" for name in names}, published=str(folder / "serving" / "17"))
    for name in names:
        getattr(left, name).mkdir(parents=True)
    Path(left.published).mkdir(parents=True)
    counts = {name: {"train": 9, "eval": 1, "test": 4} for name in NAMES}
    (left.catalog / "catalog.json").write_text(json.dumps({"images": 42, "classes": counts} | CLEAN))
    write_json_lines(left.catalog / "quarantine.jsonl", KEPT_OUT)
    train = [(name, f"{i}.jpg", picture((i, 0, 0), (20 + i, 20))) for name in NAMES for i in range(9)]
    test = [(NAMES[i % 3], f"{i}.jpg", picture((0, i, 0), (20 + i, 20))) for i in range(12)]
    write_split(left.examples, "train", train)
    keys = write_split(left.examples, "test", test)
    rows = [line(key, i, i % 3, i % 3, 0.5 + i / 100, baseline=1) for i, key in enumerate(keys)]
    for i, score in ((1, 0.6), (4, 0.99), (7, 0.8), (11, 0.7)):
        rows[i] = line(keys[i], i, i % 3, 0, score, baseline=1)
    (left.evaluation / "predictions").mkdir()
    write_json_lines(left.evaluation / "predictions" / "predictions-0.jsonl", rows[::2])
    write_json_lines(left.evaluation / "predictions" / "predictions-1.jsonl", rows[1::2])
    decision = {"metrics": {"accuracy": 8 / 12, "examples": 12}, "baseline_status": "first_run", "checks": []}
    (left.evaluation / "decision.json").write_text(json.dumps(decision))
    training = {"frozen": {"history": {"loss": [1.0]}}, "fine_tune": None}
    (left.model_run / "training.json").write_text(json.dumps(training))
    Findings([ANOMALY], [DRIFT]).write(left.data_gate)
    return left
