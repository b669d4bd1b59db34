"""Who is told of what a tick ended with: a notice is kept in `schedule/outbox` until it is delivered.

docs/notices.md describes events, fields and what is guaranteed.
"""

import json
import random
import socket
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from components.errors import GraftError, UsageError
from components.files import write_whole
from components.run_summary import timestamp
from components.steps import REPORT_FILE
from pipeline.config import Config, NoticesConfig
from pipeline.output import Output, read_summary
from pipeline.schedule import delivery
from pipeline.schedule.attempt import Answer
from pipeline.schedule.log import say
from pipeline.schedule.places import Places
from pipeline.schedule.secrets import filled_in
from pipeline.schedule.ticks import Tick

SCHEMA_VERSION = 1
PUBLISHED, REFUSED, FAILED = "published", "refused", "failed"
# So many ticks in a row; the first that did not fail after one that did; images unlike those of the model in service.
FAILING, RECOVERED, DRIFT = "failing", "recovered", "drift"
TEST = "test"
WAIT, LONGEST_WAIT = 1.0, 30.0  # seconds before the second try, and at most
MOST, DAYS = 100, 7.0  # notices that wait, and how long
TROUBLES = 3  # notices in a row that could not be delivered, after which the rest waits for the next tick
WAYS: dict[str, Callable[[NoticesConfig, dict[str, Any]], None]] = {
    "webhook": delivery.post,
    "command": delivery.run_command,
}


def tell(config: Config | None, places: Places, event: str, payload: dict[str, Any]) -> None:
    """Puts a notice into the outbox, if people want to know of such an event; `deliver` sends it.

    Args:
      config: as read for the tick; None where it cannot be read: then as it was when it could.
      places: prepared.
      event: of docs/notices.md.
      payload: the fields of the tick, see `payload_of`.
    """
    name, settings = _settings(config, places)
    ways = _ways(settings)
    if not ways or (event not in settings.events and event != TEST):
        return
    notice = _notice(name, places.output, event, payload)
    # They sort by age.
    path = places.outbox / f"{time.time_ns():020d}-{event}.json"
    places.prepare()
    write_whole(path, json.dumps({"ways": ways, "notice": notice}, indent=1) + "\n")


def payload_of(tick: Tick, answer: Answer, output: Output) -> dict[str, Any]:
    """What a notice tells of a tick; what there is not is null, empty or missing in its object.

    Args:
      tick: the line that is recorded of it.
      answer: of its last attempt.
      output: where the run lies.
    """
    run = output.runs / tick.run_id if tick.run_id else None
    summary = read_summary(run) if run else {}
    test = (summary.get("metrics") or {}).get("test") or {}
    gate = summary.get("gate") or {}
    page = run / REPORT_FILE if run else None
    path = (summary.get("model") or {}).get("path")
    failed = tick.status == FAILED
    return {
        "time": tick.time,
        "due": tick.due,
        "status": tick.status,
        "why": tick.why,
        "run_id": tick.run_id,
        "exit_code": tick.exit_code,
        "error": tick.error,
        "step": summary.get("step") if failed else None,
        "advice": summary.get("advice") if failed else None,
        "attempts": tick.attempts,
        "seconds": tick.seconds,
        "failures": tick.failures,
        "version": tick.version or (path.rpartition("/")[2] if path else None),
        "accuracy": test.get("accuracy"),
        "baseline": {"version": gate.get("baseline_version"), "accuracy": test.get("baseline_accuracy")},
        "checks": [check for check in gate.get("checks", []) if check.get("passed") is False],
        "drift": list(answer.drift),
        "report": str(page) if page and page.is_file() else None,
    }


def deliver(config: Config | None, places: Places, stop: threading.Event | None = None) -> int:
    """Sends what waits in the outbox, the oldest first; what cannot be sent waits for the next call.

    Args:
      config: as for `tell`.
      places: prepared.
      stop: ends it between two tries.

    Returns:
      How many still wait.
    """
    _, settings = _settings(config, places)
    stop, troubles = stop or threading.Event(), 0
    for path in sorted(places.outbox.glob("*.json")):
        if troubles == TROUBLES or stop.is_set():
            break
        # One that takes up all its tries speaks for the others.
        whole = _deliver_one(path, settings, places, settings.retries if not troubles else 0, stop)
        troubles = 0 if whole else troubles + 1
    return _drop_old(places)


def check(config: Config) -> None:
    """That notices can be sent, as far as it can be known without sending any.

    Raises:
      UsageError: a variable of the environment is not set.
    """
    settings = config.schedule.notices
    for key, texts in (("webhook", [settings.webhook or ""]), ("headers", settings.headers.values())):
        for text in texts:
            filled_in(text, f"schedule.notices.{key}")


# ---- what waits -----------------------------------------------------------------------------------------------------


def _deliver_one(path: Path, settings: NoticesConfig, places: Places, retries: int, stop: threading.Event) -> bool:
    """Whether it is delivered every way; if it is not, it stays for those that are left."""
    try:
        kept = json.loads(path.read_text())
        ways, notice = list(kept["ways"]), kept["notice"]
    except (OSError, ValueError, KeyError, TypeError):
        say(places, f"A notice could not be read and is dropped: {path.name}.")
        path.unlink(missing_ok=True)
        return True
    for way in ways[:]:
        # Somebody changed the configuration since.
        if way in _ways(settings) and (problem := _try(way, settings, notice, retries, stop)):
            say(places, f"The notice of {notice.get('event')} was not delivered by {way}: {problem}")
            continue
        ways.remove(way)
        if ways:
            # Should this process be killed now, it is not sent that way again.
            write_whole(path, json.dumps({"ways": ways, "notice": notice}, indent=1) + "\n")
    if not ways:
        path.unlink(missing_ok=True)
    return not ways


def _try(way: str, settings: NoticesConfig, notice: dict[str, Any], retries: int, stop: threading.Event) -> str | None:
    """None when it is delivered, otherwise why not."""
    for attempt in range(retries + 1):
        try:
            return WAYS[way](settings, notice)
        except delivery.NotDelivered as error:
            problem = str(error)
            if not error.may_pass:
                break
        # A notice must not fail a tick, whatever is wrong with it.
        except Exception as error:
            return f"{type(error).__name__}."
        wait = min(WAIT * 2**attempt, LONGEST_WAIT) * random.uniform(0.9, 1.1)
        if attempt < retries and stop.wait(wait):
            break
    return problem


def _drop_old(places: Places) -> int:
    waiting, now = sorted(places.outbox.glob("*.json")), time.time()
    old = [path for path in waiting if now - _made(path) > DAYS * 86400]
    dropped = {*old, *waiting[: max(len(waiting) - MOST, 0)]}
    for path in dropped:
        path.unlink(missing_ok=True)
    if dropped:
        say(places, f"{len(dropped)} notices could not be delivered and are dropped.")
    return len(waiting) - len(dropped)


def _made(path: Path) -> float:
    """Seconds since 1970."""
    try:
        return int(path.name.partition("-")[0]) / 1e9
    except ValueError:
        return 0.0


# ---- what is set up -------------------------------------------------------------------------------------------------


def _settings(config: Config | None, places: Places) -> tuple[str, NoticesConfig]:
    """The name and the settings; with a configuration that is broken, those that were good last, so that somebody hears
    of it. They hold no secrets, only names of variables.
    """
    if config is not None:
        name, settings = config.name, config.schedule.notices
        text = json.dumps({"name": name, "notices": settings.model_dump(mode="json")}, indent=1) + "\n"
        if not places.told.is_file() or places.told.read_bytes() != text.encode():
            write_whole(places.told, text)
        return name, settings
    try:
        kept = json.loads(places.told.read_text())
        return kept["name"], NoticesConfig(**kept["notices"])
    except (OSError, ValueError, KeyError, TypeError, ValidationError):
        return Config().name, NoticesConfig()


def _ways(settings: NoticesConfig) -> list[str]:
    return [way for way, given in (("webhook", settings.webhook), ("command", settings.command)) if given]


def _text(who: str, event: str, payload: dict[str, Any]) -> str:
    """One sentence that says it to somebody who sees nothing else."""
    accuracy, version, error = payload.get("accuracy"), payload.get("version"), payload.get("error") or ""
    baseline = (payload.get("baseline") or {}).get("accuracy")
    judged = "" if accuracy is None else f" with test accuracy {accuracy:.3f}"
    if baseline is not None:
        judged += f" (in service until now: {baseline:.3f})" if event == PUBLISHED else f" (in service: {baseline:.3f})"
    failed = ", ".join(f"{check['metric']} ({check['slice']})" for check in payload.get("checks", [])[:3])
    said = {
        PUBLISHED: f"published version {version}{judged}.",
        REFUSED: f"the gate refused a model{judged}{f': {failed}' if failed else ''}. What is in service stays.",
        FAILED: f"a tick failed: {error} What is in service stays.",
        FAILING: f"{payload.get('failures')} ticks failed in a row; from now on each is tried once. The last: {error} "
        "What is in service stays.",
        RECOVERED: f"a tick did not fail again: {payload.get('status')}.",
        DRIFT: f"the images drift from those of the model in service in {', '.join(payload.get('drift', []))}.",
        TEST: "this is a test of its notices.",
    }
    return " ".join(f"{who}: {said[event]}".split())


def _notice(name: str, output: Output, event: str, payload: dict[str, Any]) -> dict[str, Any]:
    host = socket.gethostname()
    head = {"schema_version": SCHEMA_VERSION, "id": uuid.uuid4().hex, "event": event}
    head |= {"text": _text(f"{name} on {host}", event, payload), "name": name, "host": host, "output": str(output.root)}
    return head | payload


def notify(config: Config, output_folder: Path) -> list[str]:
    """Sends a notice of the event `test` every way that is set up; nothing is written.

    Returns:
      The ways.

    Raises:
      UsageError: none is set up, or a variable of the environment is not set.
      GraftError: it could not be delivered.
    """
    settings = config.schedule.notices
    ways = _ways(settings)
    if not ways:
        raise UsageError("No notices are set up: give schedule.notices.webhook, or schedule.notices.command.")
    check(config)
    output = Output(output_folder.absolute())
    tick = Tick(time=timestamp(time.time()), status=TEST)
    notice = _notice(config.name, output, TEST, payload_of(tick, Answer(TEST, 0), output))
    for way in ways:
        if problem := _try(way, settings, notice, settings.retries, threading.Event()):
            raise GraftError(f"The notice was not delivered by {way}: {problem}")
    return ways
