"""What a schedule tells Prometheus: a file for node_exporter's textfile collector, and an optional port.

Both say what is on the disk at that moment, so that a restart changes nothing. docs/monitoring.md explains each.
"""

import contextlib
import datetime
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest, start_http_server
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from components.errors import UsageError
from components.files import write_whole
from components.publishing import original, read_card
from components.serving_places import LocalServing, open_serving
from components.storage import is_uri
from pipeline.output import Output, read_summary
from pipeline.schedule.counters import Counters, count
from pipeline.schedule.places import Places
from pipeline.schedule.plan import Plan, read_plan
from pipeline.schedule.ticks import FAILED, KILLED, PUBLISHED, REFUSED, SKIPPED, STOPPED, UNCHANGED

# Each is told from the beginning, as 0: an alert on an increase would miss the first one otherwise.
STATUSES = (PUBLISHED, REFUSED, UNCHANGED, FAILED, SKIPPED, STOPPED, KILLED)
HOST = "127.0.0.1"


def write(output: Output, plan: Plan, next_tick: datetime.datetime | None) -> None:
    """Counts what is new, and writes `schedule/metrics.prom`, whole or not at all.

    A file that cannot be written, as on a full disk, stays as it was: nothing is lost, as the next call counts on.

    Args:
      output: prepared, as `Places` are.
      plan: what is run.
      next_tick: when it is due, aware of its time zone; None where nobody knows.
    """
    places = Places(output)
    totals = replace(count(places), next_tick=next_tick.timestamp() if next_tick else None)
    with contextlib.suppress(OSError):
        totals.keep(places)
        write_whole(places.metrics, generate_latest(_registry(places, plan)))


def serve(output: Output, port: int) -> WSGIServer:
    """Answers Prometheus on this machine's own address, in threads that end with the process.

    Args:
      output: prepared, as `Places` are.
      port: 0 takes a free one, which `server_port` of the answer names.

    Raises:
      UsageError: the port cannot be had.
    """
    registry = _registry(Places(output), None)
    # Of the file, node_exporter would not take them: it has the same for itself.
    ProcessCollector(registry=registry)
    try:
        server, _ = start_http_server(port, HOST, registry)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"--metrics-port: {HOST}:{port} cannot be had ({reason}); give a free port.") from None
    return server


def _registry(places: Places, plan: Plan | None) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(_Schedule(places, plan))
    return registry


@dataclass(eq=False)
class _Schedule(Collector):
    """Reads everything anew each time.

    Attributes:
      places: of the schedule.
      plan: what is run; None for the one that was kept.
    """

    places: Places
    plan: Plan | None

    def collect(self) -> Iterator[Metric]:
        output = self.places.output
        latest = read_summary(output.runs / "latest")
        yield from _of_plan(self.plan or _kept_plan(self.places))
        yield from _of_ticks(count(self.places))
        yield _gauge("tick_running", "1 while a tick is going on.", self.places.ticking.exists())
        yield from _of_run(latest)
        yield from _of_model(_model_in_service(output, latest))
        yield from _of_disk(output.root)
        yield _gauge("notices_pending", "Notices that were not delivered yet.", _count(self.places.outbox))


def _kept_plan(places: Places) -> Plan | None:
    with contextlib.suppress(UsageError):
        return read_plan(places.plan)
    return None


def _gauge(name: str, told: str, value: float | None) -> Metric:
    """A family of one number; of none where there is none."""
    family = GaugeMetricFamily(f"graft_{name}", told)
    if value is not None:
        family.add_metric([], float(value))
    return family


def _labelled(family: Metric, values: Any) -> Metric:
    """With one number for each value of its label; of none where `values` is no table."""
    for name, value in sorted(values.items()) if isinstance(values, dict) else ():
        family.add_metric([str(name)], float(value))
    return family


# ---- groups ---------------------------------------------------------------------------------------------------------


def _of_plan(plan: Plan | None) -> Iterator[Metric]:
    if plan and plan.cron:
        yield InfoMetricFamily(
            "graft_schedule", "When ticks are due.", {"cron": plan.cron, "time_zone": plan.time_zone}
        )


def _of_ticks(totals: Counters) -> Iterator[Metric]:
    ticks = CounterMetricFamily("graft_ticks", "Ticks by what became of them.", labels=["status"])
    yield _labelled(ticks, dict.fromkeys(STATUSES, 0) | totals.ticks)
    yield CounterMetricFamily("graft_attempts", "Times that a tick tried to run the pipeline.", totals.attempts)
    yield CounterMetricFamily("graft_ticks_missed", "Ticks that were due while nobody ran.", totals.missed)
    yield _gauge("consecutive_failures", "Failed ticks since one did not fail.", totals.failures)
    yield _gauge("last_tick_timestamp_seconds", "When the newest tick began.", totals.last_tick)
    yield _gauge("next_tick_timestamp_seconds", "When the next tick is due.", totals.next_tick)


def _of_run(summary: dict[str, Any]) -> Iterator[Metric]:
    """Of the newest run that executed the graph."""
    data = summary.get("data") or {}
    yield _gauge("run_seconds", "Duration of the newest run that executed steps.", summary.get("seconds"))
    steps = GaugeMetricFamily("graft_step_seconds", "Duration of each step of that run.", labels=["step"])
    yield _labelled(steps, summary.get("timings"))
    yield _gauge("images", "Images of that run's data set.", data.get("images"))
    reasons = GaugeMetricFamily("graft_images_quarantined", "Files kept out of that run, by reason.", labels=["reason"])
    yield _labelled(reasons, data.get("quarantined"))


@dataclass(frozen=True)
class _Model:
    version: int | None = None
    accuracy: float | None = None
    published: float | None = None


def _of_model(model: _Model) -> Iterator[Metric]:
    yield _gauge("model_version", "Version in service.", model.version)
    yield _gauge("model_accuracy", "Its accuracy on the test images when it was published.", model.accuracy)
    yield _gauge("model_published_timestamp_seconds", "When that model first went out.", model.published)


def _of_disk(root: Path) -> Iterator[Metric]:
    yield _gauge("output_bytes", "Size of the output folder.", _bytes(root))
    yield _gauge("disk_free_bytes", "Free where the output folder is.", shutil.disk_usage(root).free)


def _bytes(folder: Path) -> int:
    """Of the files below; what vanishes meanwhile has none."""
    total = 0
    for path, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(path, name)).st_size
    return total


def _count(outbox: Path) -> int:
    return sum(1 for _ in outbox.glob("*.json"))


# ---- the model in service -------------------------------------------------------------------------------------------


def _model_in_service(output: Output, latest: dict[str, Any]) -> _Model:
    """Of the place that the newest run publishes to. What lies under a URI is not asked at every scrape."""
    push = (latest.get("configuration") or {}).get("push") or {}
    place = output.serving_place(push.get("destination"))
    # A folder that a retention works on, and a card that somebody edited, are not worth an answer of 500.
    with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):
        return _by_last_publication(output) if is_uri(place) else _by_card(open_serving(place))
    return _Model()


def _by_card(place: LocalServing) -> _Model:
    version = place.in_service()
    if version is None:
        return _Model()
    first = original(place, version)
    metrics = read_card(place, version)["metrics"] or {}
    return _Model(version, metrics.get("accuracy"), _published(read_card(place, first)["published"], first))


def _by_last_publication(output: Output) -> _Model:
    for run in output.all_runs():
        summary = read_summary(run)
        if summary.get("status") == PUBLISHED:
            version = int(summary["model"]["path"].rpartition("/")[2])
            return _Model(version, summary["metrics"]["test"]["accuracy"], float(version))
    return _Model()


def _published(noted: str | None, version: int) -> float:
    """Unix seconds; a version whose card is gone tells them by its number."""
    return datetime.datetime.fromisoformat(noted).timestamp() if noted else float(version)
