"""What the data gate found in new data: files of its artifact and, where it stopped the run, of the run's folder."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ANOMALIES_FILE = "anomalies.json"
DRIFT_FILE = "drift.json"


@dataclass(frozen=True)
class Findings:
    """Of the train split's metadata.

    Attributes:
      anomalies: `{feature, problem, detail}` each, sorted by feature.
      drift: `{feature, measure, value, threshold}` of each feature that could be compared with what the model in
        service was trained on, sorted by feature; distance and threshold from 0 to 1.
    """

    anomalies: list[dict[str, str]] = field(default_factory=list)
    drift: list[dict[str, Any]] = field(default_factory=list)

    def write(self, folder: Path) -> None:
        """Both lists, a file each."""
        for name, rows in ((ANOMALIES_FILE, self.anomalies), (DRIFT_FILE, self.drift)):
            (folder / name).write_text(json.dumps(rows, indent=1))
