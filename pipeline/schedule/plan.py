"""What a schedule runs: as it was asked for, and kept for the next start."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from components.errors import UsageError
from components.files import write_whole


@dataclass(frozen=True)
class Plan:
    """What is run, and when.

    Attributes:
      images: as `--images` takes them; absolute paths or URIs.
      cron: five fields, checked; None for `--once`.
      time_zone: name that the fields are read in.
      config: absolute path of the configuration; read anew at every tick. None for the defaults.
      overrides: of `--set`.
    """

    images: list[str]
    cron: str | None = None
    time_zone: str = "UTC"
    config: str | None = None
    overrides: list[str] = field(default_factory=list)

    def write(self, path: Path) -> None:
        """Whole or not at all."""
        write_whole(path, json.dumps(asdict(self), indent=1) + "\n")


def read_plan(path: Path) -> Plan | None:
    """What was kept; None where nothing was.

    Raises:
      UsageError: the file is damaged.
    """
    try:
        kept: dict[str, Any] = json.loads(path.read_text())
        return Plan(**kept)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(f"{path} cannot be read ({error}); remove it, and give --cron and --images again.") from None
