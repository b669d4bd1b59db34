"""The lines that the evaluation leaves of each test image, read without TFMA.

Each is `{key, filename, label, format, height, width, channels, candidate: {id, score, true_score}, baseline: …}`;
`baseline` only where a model in service was asked, too.
"""

from pathlib import Path

from components.files import read_json_lines

PREDICTIONS = "predictions"
CANDIDATE, BASELINE = "candidate", "baseline"


def read_predictions(evaluation: Path) -> list[dict]:
    """The prediction lines, sorted by key so that no runner's order matters."""
    rows = []
    for path in (evaluation / PREDICTIONS).glob("*.jsonl"):
        rows += read_json_lines(path)
    return sorted(rows, key=lambda row: row["key"])
