"""What a schedule runs: as it was asked for, and kept for the next start."""

import json
import os
import time
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from components.errors import UsageError
from components.files import write_whole
from components.sources import absolute, span_field
from components.storage import is_uri
from pipeline import config as configuration
from pipeline import cron
from pipeline.config import Config


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

    def configuration(self) -> Config:
        """As the file says now.

        Raises:
          UsageError: it is not what it should be.
        """
        return configuration.load(Path(self.config) if self.config else None, self.overrides)


@dataclass(frozen=True)
class Asked:
    """What was given on the command line; empty or None is what was not.

    Attributes:
      images, cron, time_zone, config, overrides: as the options, unchecked.
    """

    images: tuple[str, ...] = ()
    cron: str | None = None
    time_zone: str | None = None
    config: Path | None = None
    overrides: tuple[str, ...] = ()

    def plan(self, kept: Plan | None, once: bool = False) -> Plan:
        """What is run, checked.

        With images and expression (for a single tick, with images) nothing that is kept plays a part; otherwise each
        option that is given takes the place of what is kept.

        Raises:
          UsageError: something is missing, or is not what it should be.
        """
        base = kept if kept and not self.is_whole(once) else Plan([])
        # Not by `or`: a variable that is not set must not pass for an option that was not given.
        expression = self.cron if self.cron is not None else base.cron
        plan = Plan(
            images=[absolute(image) for image in self.images] or base.images,
            cron=cron.check(expression) if expression is not None else None,
            time_zone=cron.check_zone(self.time_zone if self.time_zone is not None else base.time_zone),
            config=str(self.config.absolute()) if self.config else base.config,
            overrides=list(self.overrides) or base.overrides,
        )
        _check(plan, kept, once)
        return plan

    def is_whole(self, once: bool) -> bool:
        """Whether nothing that is kept plays a part."""
        return bool(self.images) and (once or self.cron is not None)


def _check(plan: Plan, kept: Plan | None, once: bool) -> None:
    missing = [] if plan.images else ["--images SOURCE"]
    missing += [] if plan.cron or once else ["--cron EXPRESSION, such as '0 3 * * 1' for Mondays at three"]
    if missing:
        raise UsageError(f"Nothing is kept of a schedule here yet: give {' and '.join(missing)}.")
    if plan.cron:
        _check_ever(plan)
    plan.configuration()
    for image in plan.images:
        # What was there once may be mounted late, and is then the matter of a tick.
        known = kept is not None and image in kept.images
        if span_field(image) is None and not is_uri(image) and not known and not os.path.exists(image):
            raise UsageError(f"--images {image} does not exist; give a folder of class folders, or a manifest.")


def _check_ever(plan: Plan) -> None:
    from cronsim import CronSimError

    from pipeline.schedule.trigger import CronTrigger

    try:
        ever = CronTrigger(plan.cron, plan.time_zone).after(datetime.fromtimestamp(time.time(), UTC))
    except CronSimError:
        ever = None
    if ever is None:
        raise UsageError(f"--cron: there is no such day in any year. Received: {plan.cron!r}.")


def read_plan(path: Path) -> Plan | None:
    """What was kept; None where nothing was.

    Raises:
      UsageError: the file is damaged.
    """
    try:
        kept: dict[str, Any] = json.loads(path.read_text())
        plan = Plan(**kept)
        if not isinstance(plan.images, list) or not isinstance(plan.overrides, list):
            raise ValueError("images and overrides are lists")
        texts = (*plan.images, *plan.overrides, plan.time_zone, plan.cron or "", plan.config or "")
        if not all(isinstance(text, str) for text in texts):
            raise ValueError("what is in it is text")
        return plan
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UsageError(f"{path} cannot be read ({error}); remove it, and give --cron and --images again.") from None
