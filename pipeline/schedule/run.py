"""`graft schedule run`."""

import threading
from pathlib import Path

from pipeline.output import Output
from pipeline.schedule.interrupted import interrupted
from pipeline.schedule.keeping import kept
from pipeline.schedule.log import say
from pipeline.schedule.places import Places
from pipeline.schedule.plan import Asked, read_plan
from pipeline.schedule.signals import on_stop
from pipeline.schedule.tick import run_tick


def run_once(asked: Asked, output_folder: Path) -> int:
    """One tick now; returns the exit code.

    Raises:
      UsageError: configuration or output folder are not what they should be.
      OutputBusy: another process keeps the schedule.
    """
    places = Places(Output(output_folder.absolute()))
    plan = asked.plan(read_plan(places.plan), once=True)
    _prepare(places)
    with kept(places):
        interrupted(places)
        stop = threading.Event()
        on_stop(lambda _: stop.set())
        tick = run_tick(plan, places.output, stop=stop)
    return tick.exit_code or 0


def keep(asked: Asked, output_folder: Path, metrics_port: int | None) -> int:
    """Keeps the schedule until the process is stopped; returns the exit code.

    Args:
      asked: what takes the place of what is kept from the last time.
      output_folder: as for `graft run`.
      metrics_port: of this machine, on which Prometheus is answered; None for none.

    Raises:
      UsageError: something is not what it should be.
      OutputBusy: another process keeps the schedule.
    """
    places = Places(Output(output_folder.absolute()))
    before = read_plan(places.plan)
    plan = asked.plan(before)
    _prepare(places)

    from pipeline.schedule import metrics
    from pipeline.schedule.daemon import Schedule

    with kept(places):
        if metrics_port is not None:
            metrics.serve(places.output, metrics_port)
        say(places, f"Keeps {places.output.root}: {plan.cron} ({plan.time_zone}), images {', '.join(plan.images)}.")
        stop = threading.Event()
        changed = before is None or (before.cron, before.time_zone) != (plan.cron, plan.time_zone)
        schedule = Schedule(plan, places.output, changed, interrupted(places), stop)
        if plan != before:
            plan.write(places.plan)

        def stopped(by: str) -> None:
            say(places, f"Stopped by {by}.")
            stop.set()
            schedule.wakeup()

        on_stop(stopped)
        schedule.start()
    return 0


def _prepare(places: Places) -> None:
    places.output.prepare()
    places.prepare()
