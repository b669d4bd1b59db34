"""`graft schedule run`."""

import threading
from pathlib import Path

from components.errors import UsageError
from pipeline.output import Output
from pipeline.schedule.interrupted import interrupted
from pipeline.schedule.keeping import kept
from pipeline.schedule.log import say
from pipeline.schedule.places import Places
from pipeline.schedule.plan import Asked, Plan, read_plan
from pipeline.schedule.signals import on_stop
from pipeline.schedule.tick import run_tick


def run_once(asked: Asked, output_folder: Path) -> int:
    """One tick now; returns the exit code.

    Raises:
      UsageError: configuration or output folder are not what they should be.
      OutputBusy: another process keeps the schedule.
    """
    places = Places(Output(output_folder.absolute()))
    plan = asked.plan(_kept_plan(places, asked.is_whole(once=True)), once=True)
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
    before = _kept_plan(places, asked.is_whole(once=False))
    plan = asked.plan(before)

    from pipeline.schedule import metrics, notices

    # Later it would only be in the log, which notices are to spare people.
    notices.check(plan.configuration())
    _prepare(places)

    from pipeline.schedule.daemon import Schedule

    with kept(places):
        if metrics_port is not None:
            metrics.serve(places.output, metrics_port)
        say(places, f"Keeps {places.output.root}: {plan.cron} ({plan.time_zone}), images {', '.join(plan.images)}.")
        stop = threading.Event()
        changed = _is_changed(places, before, plan)
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


def _kept_plan(places: Places, replaced: bool) -> Plan | None:
    """What was asked for before; one that is damaged is an error only if it is needed."""
    try:
        return read_plan(places.plan)
    except UsageError:
        if not replaced:
            raise
        return None


def _is_changed(places: Places, before: Plan | None, plan: Plan) -> bool:
    """Whether it ticks at other times than before; of a plan that is damaged, that is not assumed."""
    if before is None:
        return not places.plan.exists()
    return (before.cron, before.time_zone) != (plan.cron, plan.time_zone)


def _prepare(places: Places) -> None:
    places.output.prepare()
    places.prepare()
