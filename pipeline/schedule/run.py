"""`graft schedule run`."""

from pathlib import Path

from components.sources import absolute
from pipeline import config as configuration
from pipeline.output import Output
from pipeline.schedule.places import Places
from pipeline.schedule.plan import Plan
from pipeline.schedule.tick import kept, run_tick


def run_once(images: list[str], output_folder: Path, config: Path | None, overrides: list[str]) -> int:
    """One tick now; returns the exit code.

    Raises:
      UsageError: configuration or output folder are not what they should be.
      OutputBusy: another process keeps the schedule.
    """
    configuration.load(config, overrides)
    output = Output(output_folder.absolute())
    output.prepare()
    places = Places(output)
    places.prepare()
    plan = Plan(
        images=[absolute(image) for image in images],
        config=str(config.absolute()) if config else None,
        overrides=overrides,
    )
    with kept(places):
        tick = run_tick(plan, output)
    return tick.exit_code or 0
