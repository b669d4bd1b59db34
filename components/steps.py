"""The steps of the graph by name, and what a runner notes of them while they run."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from components.files import write_whole

# What lies in the folder of a run.
NOTES_FILE = "steps.json"
SUMMARY_FILE = "summary.json"
REPORT_FILE = "report.html"
LOG_FILE = "log.txt"
# Names for people, in the order of the graph.
STEPS = {
    "ImageExampleGen": "Ingest images",
    "StatisticsGen": "Compute statistics",
    "MetadataSchemaGen": "Read or infer the schema",
    "ExampleValidator": "Validate metadata",
    "DataGate": "Judge the data",
    "Transform": "Resize and normalise",
    "Trainer": "Train",
    "GatedEvaluator": "Evaluate",
    "ModelFormats": "Convert",
    "ServingCheck": "Check the served model",
    "AtomicPusher": "Publish",
    "Report": "Write the report",
}


# Where output folders share a server, the names of a run and its pipeline in ML Metadata end in it and the folder's id.
# It is in no run's id, here or on a cluster.
OF_FOLDER = "@"


@dataclass
class Notes:
    """What a runner knows of a run and the steps themselves do not. Kept in the run's folder while it goes on.

    Attributes:
      run_id: of the run.
      began: seconds since 1970; None where the runner keeps no notes.
      step: name for people of what is running, or ran last.
      timings: seconds of each component that ended.
      cached: components whose result came from the cache.
      warnings: sentences that the person saw.
      reason: why a schedule had it train; None where a person asked for it.
    """

    run_id: str
    began: float | None = None
    step: str = ""
    timings: dict[str, float] = field(default_factory=dict)
    cached: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    reason: str | None = None

    def write(self, folder: Path) -> None:
        """Into the run's folder, whole or not at all."""
        write_whole(folder / NOTES_FILE, json.dumps(asdict(self), indent=1) + "\n")


def run_id_of(name: str) -> str:
    """The id of a run by its name in ML Metadata."""
    return name.partition(OF_FOLDER)[0]


def read_notes(folder: Path) -> Notes | None:
    """What was noted in a run's folder; None where nothing was, or it cannot be read."""
    try:
        left: dict[str, Any] = json.loads((folder / NOTES_FILE).read_text())
        return Notes(**left)
    except (OSError, ValueError, TypeError):
        return None
