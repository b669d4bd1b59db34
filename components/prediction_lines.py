"""The lines that the evaluation leaves of each test image, read without TFMA.

Each is `{key, filename, label, format, height, width, channels, candidate: {id, score, true_score}, baseline: …}`;
`baseline` only where a model in service was asked, too.
"""

import json
from pathlib import Path

from components import storage

PREDICTIONS = "predictions"
CANDIDATE, BASELINE = "candidate", "baseline"


def read_predictions(evaluation: Path | str) -> list[dict]:
    """The prediction lines of an evaluation at a path or URI, sorted by key so that no runner's order matters."""
    rows = []
    for place in storage.files_in(f"{evaluation}/{PREDICTIONS}", ".jsonl"):
        rows += [json.loads(line) for line in storage.read_bytes(place).splitlines()]
    return sorted(rows, key=lambda row: row["key"])
