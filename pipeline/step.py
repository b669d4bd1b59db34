"""One step of a compiled pipeline: the command that its container runs, on Kubeflow Pipelines and on Vertex AI.

TFX has such an entry point, `tfx.orchestration.kubeflow.v2.container.kubeflow_v2_run_executor`, whose first arguments
these are. This one gives the step local copies of its artifacts, works out what follows from the values that the run
was given, and tells of an error in one sentence, with the exit code that the command `graft` has for it.
"""

import argparse
import contextlib
import json
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components import data_report, progress, storage
from components.errors import UsageError, printable
from components.files import read_json
from components.parallel import PORTABLE_RUNNER
from components.steps import STEPS, SUMMARY_FILE
from pipeline.bound import PREFIX, RUN_ID, Bound
from pipeline.config import Config
from pipeline.console import Steps
from pipeline.copies import Copies
from pipeline.dataflow import DATAFLOW_RUNNER, job_name
from pipeline.runners import (
    BY_WORKERS,
    PROCESSES,
    engine_of,
    has_workers_elsewhere,
    notice_dead_workers,
)
from pipeline.stopping import stop_at_sigterm
from pipeline.summary import note, print_refusal

# Kubernetes shows what is in there as the reason why a container ended.
TERMINATION_LOG = Path("/dev/termination-log")
# What to try is another thing than on one's own machine.
ON_A_CLUSTER = {
    "again": "start the run again",
    "more_room": "give the step a larger disk",
    "more_memory": "give the step more memory (memory_gib in runner.resources)",
    "finished": "all steps run anew",
}
# Lines of a refusal's quarantine that go to the log.
MOST_LINES = 1000
# Classes of artifacts by the name that a specification has for them; TFX knows its own.
ARTIFACTS = {
    "graft.ImageCatalog": "components.ingestion.ImageCatalog",
    "graft.DataGateResult": "components.data_gate.DataGateResult",
    "graft.FormatFiles": "components.formats.FormatFiles",
    "graft.RunReport": "components.report.component.RunReport",
}


def main() -> None:
    """Runs the step; ends with the exit code."""
    # As this process was started with -P, so those that it starts: a working folder may have packages of our names.
    os.environ |= {"PYTHONSAFEPATH": "1", "KERAS_BACKEND": "tensorflow"}
    options, beam_arguments = _parser().parse_known_args()
    # Kubernetes ends a pod by SIGTERM; a job on a cluster is cancelled then.
    stop_at_sigterm()
    steps = Steps()
    with tempfile.TemporaryDirectory(prefix="graft-step-") as scratch, progress.heeded(steps.warn):
        try:
            with steps.step(STEPS[options.step]) as result:
                result["note"] = Step(options, beam_arguments, Path(scratch)).run(steps)
        # Whatever it is, the log ends with a sentence.
        except BaseException as error:
            sys.exit(_tell(error, options.step, Path(scratch), PROCESSES in beam_arguments))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.step", description="Runs one step of a pipeline that `graft compile` made."
    )
    parser.add_argument("--executor_class_path", required=True, metavar="CLASS", help="Executor of the step.")
    parser.add_argument("--json_serialized_invocation_args", required=True, metavar="JSON", help="ExecutorInput.")
    parser.add_argument(
        "--json_serialized_inputs_spec_args", required=True, metavar="JSON", help="Types of the inputs."
    )
    parser.add_argument("--step", required=True, choices=STEPS, help="Id of the step.")
    parser.add_argument("--bound", required=True, metavar="JSON", help="Configuration and places.")
    return parser


def _tell(error: BaseException, step: str, scratch: Path, processes: bool) -> int:
    """Ends the log with what went wrong, for people and for Kubernetes; returns the exit code."""
    from pipeline.failure import Scene, explain

    traceback.print_exception(error)
    for row in data_report.quarantined_lines(getattr(error, "quarantined", []))[:MOST_LINES]:
        print(json.dumps(row), file=sys.stderr)
    failure = explain(
        error, Scene(STEPS[step], scratch, Path("the log of this step"), processes=processes, **ON_A_CLUSTER)
    )
    told = f"graft: {STEPS[step]}: {failure.sentence}" + (f"\nTry: {failure.advice}" if failure.advice else "")
    print(told, file=sys.stderr, flush=True)
    with contextlib.suppress(OSError):
        # Only where Kubernetes has put one.
        if TERMINATION_LOG.is_file():
            TERMINATION_LOG.write_text(told[:4000])
    return getattr(error, "exit_code", 1)


@dataclass
class Step:
    """A step and what the platform gave it.

    Attributes:
      options: of the command.
      beam_arguments: Apache Beam's.
      scratch: an empty folder.
    """

    options: argparse.Namespace
    beam_arguments: Sequence[str]
    scratch: Path

    def run(self, steps: Steps) -> str:
        """Does what the step is for, and writes what the platform wants to know of its outputs.

        Args:
          steps: takes what is to be said besides.

        Returns:
          A few words about what it gave.

        Raises:
          GraftError: for a reason that the person can mend.
        """
        asked = _parsed("--json_serialized_invocation_args", self.options.json_serialized_invocation_args, json.loads)
        types = _parsed("--json_serialized_inputs_spec_args", self.options.json_serialized_inputs_spec_args, json.loads)
        bound = _parsed("--bound", self.options.bound, Bound.parse)
        # What is not allowed is refused before anything is imported or read.
        other = bound.given(_run_time_parameters(asked))
        config = (other or bound).config
        if self.options.step == "Trainer":
            _require_weights(config)
        if PORTABLE_RUNNER in self.beam_arguments and (engine := engine_of(config)):
            engine.require_cluster(config)
        if DATAFLOW_RUNNER in self.beam_arguments and not any("job_name" in word for word in self.beam_arguments):
            self.beam_arguments = [*self.beam_arguments, f"--job_name={job_name(bound.config.name, self.options.step)}"]
        given = Given.parse(asked, types)
        run_id = given.properties.pop(RUN_ID, "")
        properties = given.properties | (compiled_properties(other, self.options.step) if other else {})
        with self._copied(given.inputs, given.outputs):
            self._execute(given.inputs, given.outputs, properties, run_id)
            words = note(self.options.step, {key: artifact.mlmd_artifact for key, (artifact,) in given.outputs.items()})
            if self.options.step == "Report":
                words = _outcome(Path(given.outputs["report"][0].uri), steps)
        storage.write(asked["outputs"]["outputFile"], given.told().encode())
        return words

    @contextlib.contextmanager
    def _copied(self, inputs: dict[str, list], outputs: dict[str, list]) -> Iterator[None]:
        """Has artifacts lie in local folders while the body runs; what it wrote is stored then."""
        copies, places = Copies(self.scratch / "artifacts"), {}
        for artifacts, local in ((inputs, copies.read), (outputs, copies.write)):
            for key, (artifact,) in artifacts.items():
                if key not in self._by_workers:
                    places[artifacts is outputs, key] = artifact.uri
                    artifact.uri = local(artifact.uri)
                elif artifacts is outputs:
                    storage.empty(artifact.uri)
        yield
        copies.store()
        for key, (artifact,) in outputs.items():
            # Kubeflow's launcher takes an object that stands for a folder for a file, and then cannot make the folder.
            if (True, key) not in places and artifact.uri.startswith("gs://"):
                storage.remove_folder_objects(artifact.uri)
        for (is_output, key), uri in places.items():
            (artifact,) = (outputs if is_output else inputs)[key]
            artifact.uri = uri
        for (artifact,) in outputs.values():
            for value in artifact.mlmd_artifact.custom_properties.values():
                if value.HasField("string_value"):
                    value.string_value = copies.uri_of(value.string_value)

    @property
    def _by_workers(self) -> Collection[str]:
        """The inputs and outputs that are read and written by workers elsewhere."""
        return BY_WORKERS.get(self.options.step, ()) if has_workers_elsewhere(self.beam_arguments) else ()

    def _execute(
        self, inputs: dict[str, list], outputs: dict[str, list], properties: dict[str, Any], run_id: str
    ) -> None:
        from tfx.dsl.components.base import base_beam_executor, base_executor
        from tfx.utils import import_utils

        if PROCESSES in self.beam_arguments:
            notice_dead_workers()
        executor = import_utils.import_class_by_path(self.options.executor_class_path)
        temporary = self._temporary(outputs)
        context = {"tmp_dir": temporary, "unique_id": self.options.step, "pipeline_run_id": run_id}
        if issubclass(executor, base_beam_executor.BaseBeamExecutor):
            made = executor(
                base_beam_executor.BaseBeamExecutor.Context(beam_pipeline_args=list(self.beam_arguments), **context)
            )
        else:
            made = executor(base_executor.BaseExecutor.Context(extra_flags=list(self.beam_arguments), **context))
        # An earlier try that was killed had the same place.
        storage.empty(temporary)
        try:
            made.Do(inputs, outputs, properties)
        finally:
            storage.empty(temporary)

    def _temporary(self, outputs: dict[str, list]) -> str:
        """Where what is on its way goes: beside an output that workers write, if there are any."""
        shared = [artifact.uri for key, (artifact,) in outputs.items() if key in self._by_workers]
        return f"{shared[0].rstrip('/')}-temporary" if shared else str(self.scratch / "temporary")


def _parsed(option: str, text: str, parse: Callable[[str], Any]) -> Any:
    try:
        return parse(text)
    except (ValueError, TypeError, AttributeError):
        raise UsageError(
            f"{option} is damaged: it must be what `graft compile` wrote. Received {len(text)} characters: "
            f"{printable(text[:60])!r}; compile the pipeline again, with the version of Graft that is in the image."
        ) from None


def _require_weights(config: Config) -> None:
    """Says in a sentence what a training lacks; `graft run` does so before its first step."""
    from trainer import backbones

    model, fine_tune = config.model, config.training.fine_tune
    if fine_tune.epochs:
        backbones.require_start(model.backbone, model.alpha, fine_tune.unfreeze)
    backbones.require_weights(model.backbone, model.alpha, model.weights, config.image_size)


def _outcome(report: Path, steps: Steps) -> str:
    """How the run ended, in a few words; why nothing was published is said, as a platform shows such a run as well."""
    summary = read_json(report, SUMMARY_FILE)
    if not summary:
        return "could not be written"
    if summary["status"] == "published":
        return f"published: {summary['model']['path']}"
    print_refusal(summary, steps)
    return "refused: nothing was published, and what is in service stays"


def _run_time_parameters(asked: dict[str, Any]) -> dict[str, Any]:
    values = asked.get("inputs", {}).get("parameterValues", {})
    return {name.removeprefix(PREFIX): value for name, value in values.items() if name.startswith(PREFIX)}


@dataclass
class Given:
    """What a platform gives a step, as TFX has it.

    Attributes:
      inputs: lists of one artifact by key.
      outputs: the same, to be filled.
      properties: execution properties; none of those that carry run-time parameters.
    """

    inputs: dict[str, list]
    outputs: dict[str, list]
    properties: dict[str, Any]
    _names: dict[int, str]

    @classmethod
    def parse(cls, asked: dict[str, Any], types: dict[str, Any]) -> "Given":
        """From an `ExecutorInput` and the `ComponentInputsSpec`, as JSON."""
        from google.protobuf import json_format
        from kfp.pipeline_spec import pipeline_spec_pb2
        from tfx.orchestration.kubeflow.v2 import compiler_utils
        from tfx.orchestration.kubeflow.v2.container import kubeflow_v2_entrypoint_utils as entrypoint

        invocation, declared = pipeline_spec_pb2.ExecutorInput(), pipeline_spec_pb2.ComponentInputsSpec()
        json_format.ParseDict(asked, invocation, ignore_unknown_fields=True)
        json_format.ParseDict(types, declared, ignore_unknown_fields=True)
        _mend(invocation, declared)
        compiler_utils.TITLE_TO_CLASS_PATH.update(ARTIFACTS)
        names: dict[int, str] = {}
        inputs = entrypoint.parse_raw_artifact_dict(invocation.inputs.artifacts, names)
        outputs = entrypoint.parse_raw_artifact_dict(invocation.outputs.artifacts, names)
        _as_text(artifact for artifacts in inputs.values() for artifact in artifacts)
        values = invocation.inputs.parameter_values.items()
        own = {name: value for name, value in values if not name.startswith(PREFIX)}
        return cls(inputs, outputs, entrypoint.parse_execution_properties(own, {}, declared), names)

    def told(self) -> str:
        """An `ExecutorOutput` as JSON, of what lies in the outputs now."""
        from google.protobuf import json_format
        from kfp.pipeline_spec import pipeline_spec_pb2
        from tfx.orchestration.kubeflow.v2.container import kubeflow_v2_entrypoint_utils as entrypoint
        from tfx.orchestration.portable import outputs_utils

        outputs_utils.tag_output_artifacts_with_version(self.outputs)
        told = pipeline_spec_pb2.ExecutorOutput()
        for key, artifacts in entrypoint.translate_executor_output(self.outputs, self._names).items():
            told.artifacts[key].CopyFrom(artifacts)
            # TFX says of a property without a value that it is null, for which Kubeflow lets the step fail.
            metadata = told.artifacts[key].artifacts[0].metadata
            for name in [name for name, value in metadata.fields.items() if value.HasField("null_value")]:
                del metadata.fields[name]
        return json_format.MessageToJson(told)


def _mend(asked: Any, types: Any) -> None:
    """Brings an `ExecutorInput` into the form that TFX reads.

    Kubeflow does not say of what type an input is, and asks for an output, its log, that no step declares.
    """
    for key, artifacts in asked.inputs.artifacts.items():
        declared = types.artifacts[key].artifact_type
        for artifact in artifacts.artifacts:
            artifact.type.CopyFrom(declared)
    for key, artifacts in list(asked.outputs.artifacts.items()):
        if any(artifact.type.schema_title.startswith("system.") for artifact in artifacts.artifacts):
            del asked.outputs.artifacts[key]


def _as_text(artifacts: Iterable[Any]) -> None:
    """Makes texts of the properties that are such, as they are in a local run; TFX reads all as structures."""
    for artifact in artifacts:
        for value in artifact.mlmd_artifact.custom_properties.values():
            if value.HasField("struct_value") and "__value__" in value.struct_value.fields:
                plain = value.struct_value.fields["__value__"]
                if plain.HasField("string_value"):
                    value.string_value = plain.string_value


def compiled_properties(bound: Bound, step: str) -> dict[str, Any]:
    """The execution properties of a step of the graph, as a specification holds them: text and numbers."""
    from google.protobuf import json_format
    from tfx.orchestration.kubeflow.v2 import compiler_utils

    (node,) = (node for node in bound.pipeline().components if node.id == step)
    values = {name: compiler_utils.value_converter(value) for name, value in node.exec_properties.items()}
    return {name: json_format.MessageToDict(value.constant) for name, value in values.items() if value is not None}


if __name__ == "__main__":
    main()
