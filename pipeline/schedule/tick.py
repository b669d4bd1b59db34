"""One tick, supervised: attempts, what they ended with, and the line that is left of it."""

import contextlib
import dataclasses
import json
import random
import threading
import time
from typing import Any

from components.errors import GraftError, OutputBusy, UsageError
from components.files import write_whole
from components.run_summary import timestamp
from pipeline.config import Config, ScheduleConfig
from pipeline.output import Output
from pipeline.schedule import child, housekeeping, metrics, notices
from pipeline.schedule.attempt import GRACE, Answer
from pipeline.schedule.log import say
from pipeline.schedule.places import Places
from pipeline.schedule.plan import Plan
from pipeline.schedule.ticks import (
    FAILED,
    KILLED,
    PUBLISHED,
    REFUSED,
    SKIPPED,
    STOPPED,
    UNCHANGED,
    Tick,
    failures_in_a_row,
    is_sound,
    read_ticks,
)

BUSY = OutputBusy.exit_code
JITTER = 0.1  # of a wait, so that what failed together does not come back together
LONGEST_WAIT = 3600.0  # seconds between two attempts


def run_tick(
    plan: Plan, output: Output, due: str | None = None, missed: int = 0, stop: threading.Event | None = None
) -> Tick:
    """Runs the pipeline, again where that may help, records what became of it, and tells people.

    Args:
      plan: what is run; its configuration is read anew.
      output: prepared, as `Places` are.
      due: when the tick was due; None for one that was asked for by hand.
      missed: ticks that were due while nobody ran, and are made up for by it.
      stop: ends the tick when it is set; what was run goes on with the next one.
    """
    return _Running(plan, output, due, missed, stop or threading.Event()).run()


def cut_short(places: Places) -> dict[str, Any] | None:
    """The tick that was going on when whoever supervised it was killed; None where none was.

    Returns:
      `time`, `due`, `missed`, as in its line, and `run_id` of what it had begun (each but `time` may be None).
    """
    try:
        left = json.loads(places.ticking.read_text())
        newest = _newest_run(places.output)
        found = {
            "time": left["time"],
            "due": left.get("due"),
            "missed": left.get("missed"),
            "run_id": None if newest == left.get("newest_run") else newest,
        }
        if is_sound(Tick(**found, status=KILLED)):
            return found
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    # What a full disk, a power cut or somebody left of it.
    return {"time": timestamp(time.time()), "due": None, "missed": None, "run_id": None}


def _newest_run(output: Output) -> str | None:
    return next((run.name for run in output.all_runs()), None)


class _Running:
    """A tick while it goes on."""

    def __init__(self, plan: Plan, output: Output, due: str | None, missed: int, stop: threading.Event):
        self.plan, self.output, self.places, self.stop = plan, output, Places(output), stop
        self.due, self.missed = due, missed
        self.began, self._clock = time.time(), time.monotonic()
        self.before = read_ticks(output)
        self.failures = failures_in_a_row(self.before)
        self.attempts = 0

    def run(self) -> Tick:
        newest = _newest_run(self.output)
        note = {"time": timestamp(self.began), "due": self.due, "missed": self.missed, "newest_run": newest}
        # It is for whoever finds it; a full disk stops the tick later, with a sentence.
        with contextlib.suppress(OSError):
            write_whole(self.places.ticking, json.dumps(note))
        config, answer = self._ended()
        if answer.run_id is None and (begun := _newest_run(self.output)) != newest:
            answer = dataclasses.replace(answer, run_id=begun)
        tick = self._tick(config, answer)
        say(self.places, _story(tick))
        # Before the line: a notice that comes twice has the same id, and one that was lost nobody misses.
        for event in tick.events:
            try:
                notices.tell(config, self.places, event, notices.payload_of(tick, answer, self.output))
            # A notice must not cost the line.
            except Exception as error:
                say(self.places, f"Nobody is told that the tick {event}: {type(error).__name__}: {error}")
        try:
            tick.record(self.output)
            self.places.ticking.unlink(missing_ok=True)
        except OSError as error:
            say(self.places, f"The tick could not be recorded ({error}).")
        self._afterwards(config, answer)
        return tick

    def _afterwards(self, config: Config | None, answer: Answer) -> None:
        """What comes after each tick must not fail one that is over."""
        # Something was run, and left something.
        ran = config is not None and self.attempts and not self._known(answer.run_id) and not self.stop.is_set()
        steps = [lambda: say(self.places, housekeeping.tidy(config, self.output))] if ran else []
        # Before somebody is waited for who does not answer, too.
        steps += [self._measure, lambda: self._deliver(config)]
        for step in steps:
            try:
                step()
            except Exception as error:
                say(self.places, f"After the tick: {type(error).__name__}: {error}")

    def _deliver(self, config: Config | None) -> None:
        if any(self.places.outbox.glob("*.json")):
            notices.deliver(config, self.places, self.stop)
            self._measure()

    def _measure(self) -> None:
        metrics.write(self.output, self.plan, None)

    def _ended(self) -> tuple[Config | None, Answer]:
        try:
            config = self.plan.configuration()
        except UsageError as error:
            return None, Answer(FAILED, error.exit_code, error=str(error))
        try:
            if no_room := self._no_room(config):
                return config, Answer(FAILED, 1, error=no_room, may_pass=True)
            return config, self._attempts(config.schedule)
        # Whatever becomes of one tick, there is another one.
        except Exception as error:
            code = error.exit_code if isinstance(error, GraftError) else 1
            return config, Answer(FAILED, code, error=f"The tick could not be supervised ({error!r}).")

    def _no_room(self, config: Config) -> str | None:
        if housekeeping.room_for_a_run(config, self.output) is None:
            return None
        say(self.places, "The disk is nearly full: tidying up before the run.")
        say(self.places, housekeeping.tidy(config, self.output))
        return housekeeping.room_for_a_run(config, self.output)

    def _attempts(self, rules: ScheduleConfig) -> Answer:
        """Until one does not fail, fails for good, or all are used up."""
        # No storm: what failed so often will hardly pass within minutes.
        most = 1 if self.failures >= rules.max_failures else 1 + rules.retries
        while True:
            self.attempts += 1
            answer = self._attempt(rules)
            if answer.status != FAILED or not answer.may_pass or self.attempts >= most or self.stop.is_set():
                return answer
            wait = min(rules.retry_seconds * 2 ** (self.attempts - 1), LONGEST_WAIT)
            wait *= random.uniform(1 - JITTER, 1 + JITTER)
            say(self.places, f"Attempt {self.attempts} of {most} failed: {answer.error} Again in {wait:.0f} s.")
            if self.stop.wait(wait):
                return dataclasses.replace(answer, status=STOPPED)

    def _attempt(self, rules: ScheduleConfig) -> Answer:
        answer = self._once(rules)
        if answer.exit_code == BUSY and self.before and self.before[-1].status == KILLED:
            # The run that lost its supervisor ends in these seconds.
            say(self.places, "The run whose schedule was killed has not ended yet: waiting for it.")
            if not self.stop.wait(GRACE + 2):
                answer = self._once(rules)
        if answer.exit_code == BUSY:
            return dataclasses.replace(answer, status=SKIPPED)
        if answer.status == STOPPED and not self.stop.is_set():
            # By somebody else.
            return dataclasses.replace(answer, status=FAILED)
        if answer.status == FAILED and answer.may_pass and self.stop.is_set():
            # A library may have made an error of its own of being interrupted.
            return dataclasses.replace(answer, status=STOPPED)
        return answer

    def _once(self, rules: ScheduleConfig) -> Answer:
        try:
            return child.attempt(self.plan, self.places, rules.max_hours, self.stop)
        except OSError as error:
            return Answer(FAILED, 1, error=f"No process could be started ({error}).", may_pass=True)

    def _tick(self, config: Config | None, answer: Answer) -> Tick:
        status = answer.status
        failures = self.failures + 1 if status == FAILED else 0 if status not in (SKIPPED, STOPPED) else self.failures
        tick = Tick(
            time=timestamp(self.began),
            status=status,
            run_id=answer.run_id,
            due=self.due,
            why=answer.why,
            exit_code=answer.exit_code,
            error=answer.error,
            attempts=self.attempts,
            seconds=round(time.monotonic() - self._clock, 1),
            version=answer.version,
            failures=failures,
            missed=self.missed or None,
        )
        return dataclasses.replace(tick, events=self._events(config, tick, answer))

    def _events(self, config: Config | None, tick: Tick, answer: Answer) -> list[str]:
        """What happened that people may want to know of; what they know of a run is not told again."""
        most = (config.schedule if config else ScheduleConfig()).max_failures
        happened = {
            notices.PUBLISHED: tick.status == PUBLISHED or self._came_out_untold(tick),
            notices.REFUSED: tick.status == REFUSED and not self._known(tick.run_id),
            notices.FAILED: tick.status == FAILED,
            notices.FAILING: tick.status == FAILED and self.failures < most <= tick.failures,
            notices.RECOVERED: self.failures > 0 and tick.failures == 0,
            notices.DRIFT: bool(answer.drift) and not self._known(tick.run_id),
        }
        return [event for event, did in happened.items() if did]

    def _came_out_untold(self, tick: Tick) -> bool:
        """Whether a tick before it was cut short when its run had published already."""
        cut_short = any(each.run_id == tick.run_id for each in self.before if each.status in (STOPPED, KILLED))
        return tick.status == UNCHANGED and cut_short and not self._known(tick.run_id)

    def _known(self, run_id: str | None) -> bool:
        """Whether a tick before this one ended with that run."""
        return any(tick.run_id == run_id for tick in self.before if tick.status not in (STOPPED, KILLED))


def _story(tick: Tick) -> str:
    """The tick in a line."""
    parts = [f"{tick.status} after {tick.seconds:.0f} s"]
    if tick.run_id:
        parts.append(f"run {tick.run_id}")
    if tick.version:
        parts.append(f"version {tick.version}")
    if tick.attempts and tick.attempts > 1:
        parts.append(f"{tick.attempts} attempts")
    if tick.failures:
        parts.append(f"{tick.failures} failed in a row")
    if tick.missed:
        parts.append(f"made up for {tick.missed} missed")
    # Not beside the outcome, which it is no cause of: what was refused was trained for it.
    told = f"Tick{f' ({tick.why})' if tick.why else ''}: {', '.join(parts)}."
    if notices.FAILING in tick.events:
        told += " From now on a tick tries once, until one does not fail; what is in service stays."
    return f"{told} {tick.error}" if tick.error else told
