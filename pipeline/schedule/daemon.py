"""The process that keeps a schedule: it waits for ticks, and runs one at a time.

APScheduler waits, by a clock that nobody moves, and remembers the next tick in SQLite. What it does not know is here:
for which time a tick is run and how many were missed, clocks that are moved, and a store that is lost.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from apscheduler.events import EVENT_JOB_MAX_INSTANCES, JobSubmissionEvent
from apscheduler.executors.base import BaseExecutor
from apscheduler.job import Job
from apscheduler.schedulers.blocking import BlockingScheduler

from components.errors import OutputBusy
from components.run_summary import timestamp
from pipeline.output import Output
from pipeline.schedule import metrics
from pipeline.schedule.log import say
from pipeline.schedule.places import Places
from pipeline.schedule.plan import Plan
from pipeline.schedule.said import due_at, moment, tick_line
from pipeline.schedule.store import JOB, open_store, remove
from pipeline.schedule.tick import run_tick
from pipeline.schedule.ticks import FAILED, SKIPPED, Tick, failures_in_a_row, read_ticks
from pipeline.schedule.trigger import CronTrigger

# Seconds between two looks at the clock: it may be moved, or the machine suspended, and nobody says so.
LOOK_AGAIN = 15.0
# A clock that is set back by no more does not run a tick again; after one that was wrong by more, ticks begin anew.
SET_BACK = timedelta(hours=1)
# A tick that is run later than this after its time was missed.
LATE = timedelta(minutes=1)
# Seconds that a run has to end in when the schedule is stopped.
STOP_WITHIN = 14.0


@dataclass(frozen=True)
class Occasion:
    """Why a tick is run.

    Attributes:
      due: when; None where that is not known.
      missed: ticks that were due while nobody ran, and are made up for by it.
    """

    due: str | None
    missed: int = 0


class Schedule(BlockingScheduler):
    """Keeps a schedule from `start` on until it is stopped.

    Args:
      plan: checked, with an expression.
      output: prepared, as `Places` are; this process keeps the schedule.
      changed: whether the plan is another one than before: what was due by that one is not made up for.
      interrupted: the newest tick, if it did not come to its end: it is run again at once.
      stop: ends the schedule, and a tick that is going on, when it is set; `wakeup` makes that known.
    """

    def __init__(self, plan: Plan, output: Output, changed: bool, interrupted: Tick | None, stop: threading.Event):
        self._plan, self._output, self._places, self._stop = plan, output, Places(output), stop
        self._trigger = CronTrigger(plan.cron, plan.time_zone)
        self._interrupted, self._resumed = interrupted, None
        # What was due until then was run, was skipped, or need not be run; None where nothing is known of it.
        self._done = _now() if changed else _newest(output)
        self._upcoming: datetime | None = None
        self._trouble: str | None = None
        executor = _OneAtATime(self._occasion, self._tick)
        _tell_errors(self._say)
        super().__init__(
            timezone=UTC, executors={"default": executor}, jobstores={"default": open_store(self._places.store)}
        )
        self.add_listener(self._skip, EVENT_JOB_MAX_INSTANCES)

    # ---- the clock ----

    def _main_loop(self) -> None:
        """Instead of APScheduler's, which sleeps until the next tick by a clock that is not the wall's."""
        while not self._stop.is_set():
            wait = None
            try:
                self._look()
                wait = self._process_jobs()
                self._tell(self.get_job(JOB))
                self._trouble = None
            # A disk that is full or gone: the schedule goes on as soon as it can.
            except Exception as error:
                self._say_once(f"The schedule cannot be kept: {_sentence(error)}. It is tried again.")
            self._event.wait(LOOK_AGAIN if wait is None else min(wait, LOOK_AGAIN))
            self._event.clear()
        self.shutdown()

    def _look(self) -> None:
        """Puts the next tick right where the store was lost, or the clock was wrong when it was reckoned."""
        now, job = _now(), self._job()
        if job is None:
            job = self._added(self._trigger.after(self._done_by(now) or now))
        if self._interrupted is not None:
            # With ticks that were missed since, one run is for all of them.
            if job.next_run_time > now:
                job.modify(next_run_time=now)
                self._resumed = Occasion(self._interrupted.due)
            self._say(_resumes(self._interrupted, self._plan.time_zone))
            self._interrupted = None
        elif job.next_run_time > now and job.next_run_time != (upcoming := self._after(now)):
            self._say(f"The clock was set: the next tick is {self._at(upcoming)}, not {self._at(job.next_run_time)}.")
            job.modify(next_run_time=upcoming)

    def _after(self, now: datetime) -> datetime:
        """The next tick, by a clock that may have been set back a little."""
        return self._trigger.after(max(now, self._done_by(now) or now))

    def _done_by(self, now: datetime) -> datetime | None:
        """What a clock said that was far ahead is of no account."""
        return self._done if self._done is not None and self._done <= now + SET_BACK else None

    def _job(self) -> Job | None:
        """As it is stored; None where it is lost, or another expression's."""
        try:
            job = self.get_job(JOB)
        # Whatever SQLite and pickle make of a damaged file.
        except Exception as error:
            self._places.prepare()
            remove(self._places.store)
            # Before the old one goes: where this fails, as on a disk that is away, it is tried again.
            store = open_store(self._places.store)
            self.remove_jobstore("default")
            self.add_jobstore(store, "default")
            self._say(f"{self._places.store} cannot be read ({_sentence(error)}): it is made anew.")
            return None
        return job if job is not None and job.trigger == self._trigger else None

    def _added(self, upcoming: datetime) -> Job:
        return self.add_job(
            due,
            self._trigger,
            id=JOB,
            next_run_time=upcoming,
            coalesce=True,
            max_instances=1,
            # However late it is.
            misfire_grace_time=None,
            replace_existing=True,
        )

    # ---- ticks ----

    def _occasion(self, first: datetime) -> Occasion | None:
        """What a tick is run for; None where everything that is due was done already.

        Args:
          first: the first tick that is due, as it is stored.
        """
        resumed, self._resumed = self._resumed, None
        if resumed is not None:
            return resumed
        now = _now()
        if (done := self._done_by(now)) is not None:
            # The store may not have been told, as on a full disk.
            first = max(first, self._trigger.after(done))
        if first > now:
            return None
        found = self._trigger.due(first, now)
        self._done = found.latest
        missed = found.count if now - found.latest > LATE else found.count - 1
        return Occasion(timestamp(found.latest.timestamp()), missed)

    def _tick(self, occasion: Occasion) -> None:
        began = time.time()
        try:
            run_tick(self._plan, self._output, occasion.due, occasion.missed, self._stop)
        # What goes wrong in a run is in its tick; this is a disk that is full, or a fault of ours.
        except Exception as error:
            self._failed(began, occasion, error)
        if not self._stop.is_set():
            upcoming = self._after(_now())
            self._say(f"Next tick {self._at(upcoming)}.")
            metrics.write(self._output, self._plan, upcoming)

    def _failed(self, began: float, occasion: Occasion, error: Exception) -> None:
        tick = Tick(
            time=timestamp(began),
            status=FAILED,
            due=occasion.due,
            exit_code=1,
            error=f"The tick could not be run: {_sentence(error)}.",
            failures=failures_in_a_row(read_ticks(self._output)) + 1,
            missed=occasion.missed or None,
        )
        try:
            tick.record(self._output)
            self._places.ticking.unlink(missing_ok=True)
        except OSError as unwritten:
            self._say(f"The tick cannot be recorded: {_sentence(unwritten)}.")
        self._say(tick_line(tick, self._plan.time_zone))

    def _skip(self, event: JobSubmissionEvent) -> None:
        """Records a tick that is due while one is going on."""
        occasion = self._occasion(event.scheduled_run_times[-1])
        if occasion is None:
            return
        run = next((run for run in self._output.all_runs()[:1] if self._output.is_running(run)), None)
        tick = Tick(
            time=timestamp(time.time()),
            status=SKIPPED,
            run_id=run.name if run else None,
            due=occasion.due,
            why="the tick before it is still going on",
            exit_code=OutputBusy.exit_code,
            failures=failures_in_a_row(read_ticks(self._output)),
            missed=occasion.missed or None,
        )
        tick.record(self._output)
        self._say(tick_line(tick, self._plan.time_zone))

    # ---- what is said ----

    def _tell(self, job: Job) -> None:
        """Whoever looks is told of a next tick when it changes."""
        if job.next_run_time == self._upcoming:
            return
        if self._upcoming is None and job.next_run_time > _now():
            self._say(f"Next tick {self._at(job.next_run_time)}.")
        self._upcoming = job.next_run_time
        metrics.write(self._output, self._plan, self._upcoming)

    def _at(self, tick: datetime) -> str:
        return moment(tick, self._plan.time_zone)

    def _say(self, sentence: str) -> None:
        say(self._places, sentence)

    def _say_once(self, trouble: str) -> None:
        if trouble != self._trouble:
            self._say(trouble)
        self._trouble = trouble


class _OneAtATime(BaseExecutor):
    """Runs a tick in a thread; APScheduler tells no job for which time it is run.

    Args:
      occasion: called with the time that is stored; says what the tick is for, or None for nothing to do.
      run: runs it.
    """

    def __init__(self, occasion: Callable[[datetime], Occasion | None], run: Callable[[Occasion], None]):
        super().__init__()
        self._occasion, self._run = occasion, run
        self._thread: threading.Thread | None = None

    def _do_submit_job(self, job: Job, run_times: list[datetime]) -> None:
        # Not one that the interpreter waits for: a run that does not end in time ends with this process.
        self._thread = threading.Thread(
            target=self._work, args=(job.id, self._occasion(run_times[-1])), name="tick", daemon=True
        )
        self._thread.start()

    def _work(self, job_id: str, occasion: Occasion | None) -> None:
        try:
            if occasion is not None:
                self._run(occasion)
        finally:
            self._run_job_success(job_id, [])

    def shutdown(self, wait: bool = True) -> None:
        if wait and self._thread is not None:
            self._thread.join(STOP_WITHIN)


def due() -> None:
    """The name of the job in the store; what is run is the executor's."""


def _now() -> datetime:
    return datetime.fromtimestamp(time.time(), UTC)


def _newest(output: Output) -> datetime | None:
    """When the newest tick began, or was due."""
    for tick in reversed(read_ticks(output)):
        try:
            return max(datetime.fromisoformat(text).astimezone(UTC) for text in (tick.time, tick.due) if text)
        except (ValueError, OverflowError):
            continue
    return None


def _resumes(tick: Tick, zone: str) -> str:
    when = due_at(tick.due, zone)
    return f"The tick{f' of {when}' if when else ''} was {tick.status} in mid-run: it is run again now."


def _sentence(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


def _tell_errors(tell: Callable[[str], None]) -> None:
    """What APScheduler logs as an error is said; the rest is known, or of no interest."""

    class Teller(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            tell(record.getMessage())

    logger = logging.getLogger("apscheduler")
    logger.propagate = False
    logger.handlers = [Teller(logging.ERROR)]
