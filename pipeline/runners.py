"""Where Apache Beam runs: what `runner.beam` stands for. Nothing heavy is imported."""

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from components.causes import WORKER_ENDED
from components.errors import UsageError
from components.parallel import PORTABLE_RUNNERS
from pipeline import dataflow
from pipeline.dataflow import DATAFLOW, DATAFLOW_RUNNER
from pipeline.engine import Cluster, Engine
from pipeline.flink import Flink
from pipeline.spark import Spark

if TYPE_CHECKING:
    from pipeline.config import Config

# Before every step on Beam TFX packs itself up for workers that may not have it: 2 s, and 52 MB in the system's
# temporary folder that nobody removes. It lets that be where an image for the workers is named. This runner has no use
# for one.
_WORKERS_HAVE_TFX = "--sdk_container_image=none"
# By this a step knows that its work is done in a worker process for each core.
PROCESSES = "--direct_running_mode=multi_processing"
BEAM_ARGUMENTS = {
    # Named, because Beam's default tries to download another runner first.
    "local": ["--runner=FnApiRunner", _WORKERS_HAVE_TFX],
    "processes": [
        "--runner=FnApiRunner",
        PROCESSES,
        "--direct_num_workers=0",
        _WORKERS_HAVE_TFX,
    ],
}
# Engines with a cluster and a job server, by what `runner.beam` calls them.
ENGINES: dict[str, Engine] = {engine.name: engine for engine in (Flink(), Spark())}
# Steps of a compiled pipeline whose work is done by workers elsewhere, on Dataflow or an engine, if there are any, with
# the inputs and outputs that those read and write. The others look at less than the whole data set.
BY_WORKERS = {
    "ImageExampleGen": {"examples", "metadata"},
    "StatisticsGen": {"examples", "statistics"},
    "Transform": {"examples", "schema", "transform_graph", "transformed_examples"},
    "GatedEvaluator": {"examples", "evaluation"},
}


def engine_of(config: "Config") -> Engine | None:
    """The engine that `runner.beam` names; None where it names none with a cluster and a job server."""
    return ENGINES.get(config.runner.beam)


def local_arguments(config: "Config") -> list[str]:
    """Apache Beam's arguments for what is started on this machine.

    Raises:
      UsageError: `runner.beam` is for compiled pipelines only, or lacks an option.
    """
    if config.runner.beam == DATAFLOW:
        raise UsageError(
            "runner.beam: dataflow is for pipelines that `graft compile` makes, as Dataflow reaches no folder of this "
            "machine; set it to local, processes, flink or spark."
        )
    if engine := engine_of(config):
        return [*engine.arguments(config), *config.runner.beam_options]
    return [*BEAM_ARGUMENTS[config.runner.beam], *config.runner.beam_options]


def require_runner(config: "Config") -> Cluster | None:
    """Sees to it that what is started on this machine can have its work on Beam done.

    Raises:
      UsageError: as for `local_arguments`, or what `runner.beam` names does not answer.

    Returns:
      What an engine says of its cluster, where it is one and was asked.
    """
    local_arguments(config)
    engine = engine_of(config)
    return engine.require_cluster(config) if engine else None


def beam_arguments(config: "Config", step: str, root: str, image: str) -> list[str]:
    """Apache Beam's arguments for a step of a compiled pipeline.

    Args:
      config: everything that a person chooses.
      step: its id.
      root: folder or URI that artifacts go to.
      image: that the steps run in, and workers in containers, too.

    Raises:
      UsageError: the cluster lacks an option.
    """
    runner = config.runner
    engine = engine_of(config)
    has_workers = engine is not None or runner.beam == DATAFLOW
    if not has_workers or step not in BY_WORKERS:
        name = "processes" if runner.beam == "processes" else "local"
        return [*BEAM_ARGUMENTS[name], *([] if has_workers else runner.beam_options)]
    if engine:
        return [*engine.arguments(config, image), *runner.beam_options]
    return [*dataflow.arguments(config, root, image), *runner.beam_options]


def has_workers_elsewhere(arguments: Sequence[str]) -> bool:
    """Whether Apache Beam's arguments have the work done by processes that reach no folder of this one's own."""
    return any(runner in arguments for runner in (DATAFLOW_RUNNER, *PORTABLE_RUNNERS))


def notice_dead_workers() -> None:
    """Has Beam raise where a worker process ends too early: it would wait for its answers for ever.

    A system that is short of memory ends processes, some before they have come up, and a library may crash on a
    picture. Whatever was asked, or is asked later, is answered with an error then. (Seen with Beam 2.77.)

    Raises:
      ImportError, AttributeError: Beam is another one, and has to be looked at again.
    """
    from apache_beam.portability.api import beam_fn_api_pb2
    from apache_beam.runners.portability.fn_api_runner import worker_handlers

    connections, handlers = worker_handlers.ControlConnection, worker_handlers.SubprocessSdkWorkerHandler
    if connections.__name__ == "ToldOfTheEnd":
        return
    start_worker, done = handlers.start_worker, worker_handlers.BeamFnControlServicer._DONE_MARKER

    class ToldOfTheEnd(connections):
        """A connection that answers for its worker when that has ended."""

        ended = False

        def push(self, request):
            future = super().push(request)
            if self.ended and future is not None:
                self._answer(request.instruction_id)
            return future

        def end(self) -> None:
            self.ended = True
            for instruction in list(self._futures_by_id):
                self._answer(instruction)

        def _answer(self, instruction: str) -> None:
            # By now it may have been answered.
            if future := self._futures_by_id.pop(instruction, None):
                future.set(beam_fn_api_pb2.InstructionResponse(instruction_id=instruction, error=WORKER_ENDED))

        def close(self) -> None:
            # A worker may not have come up yet when the pipeline ends over another one. Beam would wait for its end,
            # and it for work.
            self.push(done)
            super().close()

    def start_and_watch(handler: worker_handlers.SubprocessSdkWorkerHandler) -> None:
        start_worker(handler)

        def watch() -> None:
            handler.worker_thread.join()
            handler.control_conn.end()

        threading.Thread(target=watch, daemon=True).start()

    worker_handlers.ControlConnection, handlers.start_worker = ToldOfTheEnd, start_and_watch
