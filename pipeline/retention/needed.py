"""How much a run of an output folder needs on the disk, noted for the process that keeps a schedule."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from components.files import write_whole
from pipeline.output import Output
from pipeline.retention import disk
from pipeline.schedule.places import Places

NEEDED_FILE = "needed.json"


@dataclass(frozen=True)
class Needed:
    """What the last finished run left on the disk.

    Attributes:
      run_id: of it.
      output: bytes of its folder, of its artifacts, those from the cache included, and of the features.
      version: bytes of the version that it published; 0 for none, or one that is remote.
    """

    run_id: str
    output: int
    version: int


def note(output: Output, run: Path, folders: list[Path], version: Path | None) -> None:
    """Measures what a run left; nothing is noted where no schedule is kept."""
    places = Places(output)
    if places.folder.is_dir():
        needed = Needed(run.name, disk.size(run, *folders), disk.size(version) if version else 0)
        write_whole(places.folder / NEEDED_FILE, json.dumps(asdict(needed)) + "\n")


def read(output: Output) -> Needed | None:
    """What was noted; None where nothing was, or it cannot be read."""
    try:
        return Needed(**json.loads((Places(output).folder / NEEDED_FILE).read_text()))
    except (OSError, ValueError, TypeError):
        return None
