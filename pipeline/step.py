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
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components import data_report, progress
from components.steps import STEPS
from components.storage import is_uri
from pipeline.bound import PREFIX, RUN_ID, Bound
from pipeline.console import Steps
from pipeline.copies import Copies

# Kubernetes shows what is in there as the reason why a container ended.
TERMINATION_LOG = Path("/dev/termination-log")
# Lines of a refusal's quarantine that go to the log.
MOST_LINES = 1000
# Classes of artifacts by the name that a specification has for them; TFX knows its own.
ARTIFACTS = {
    "graft.ImageCatalog": "components.ingestion.ImageCatalog",
    "graft.DataGateResult": "components.data_gate.DataGateResult",
    "graft.FormatFiles": "components.formats.FormatFiles",
    "graft.RunReport": "components.report.component.RunReport",
}
# What workers on other machines read and write, where Beam has such: outputs, and inputs, by step.
BY_WORKERS = {
    "ImageExampleGen": {"examples", "metadata"},
    "StatisticsGen": {"examples", "statistics"},
    "Transform": {"examples", "schema", "transform_graph", "transformed_examples"},
}


def main() -> None:
    """Runs the step; ends with the exit code."""
    options, beam_arguments = _parser().parse_known_args()
    steps = Steps()
    with tempfile.TemporaryDirectory(prefix="graft-step-") as scratch, progress.heeded(steps.warn):
        try:
            with steps.step(STEPS[options.step]):
                Step(options, beam_arguments, Path(scratch)).run()
        # Whatever it is, the log ends with a sentence.
        except BaseException as error:
            sys.exit(_tell(error, options.step, Path(scratch)))


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


def _tell(error: BaseException, step: str, scratch: Path) -> int:
    """Ends the log with what went wrong, for people and for Kubernetes; returns the exit code."""
    from pipeline.failure import Scene, explain

    traceback.print_exception(error)
    for row in data_report.quarantined_lines(getattr(error, "quarantined", []))[:MOST_LINES]:
        print(json.dumps(row), file=sys.stderr)
    failure = explain(error, Scene(STEPS[step], scratch, Path("the log of this step")))
    told = f"graft: {STEPS[step]}: {failure.sentence}" + (f"\nTry: {failure.advice}" if failure.advice else "")
    print(told, file=sys.stderr, flush=True)
    with contextlib.suppress(OSError):
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

    def run(self) -> None:
        """Does what the step is for, and writes what the platform wants to know of its outputs.

        Raises:
          GraftError: for a reason that the person can mend.
        """
        from google.protobuf import json_format
        from kfp.pipeline_spec import pipeline_spec_pb2
        from tfx.dsl.io import fileio
        from tfx.orchestration.kubeflow.v2 import compiler_utils
        from tfx.orchestration.kubeflow.v2.container import kubeflow_v2_entrypoint_utils as entrypoint
        from tfx.orchestration.portable import outputs_utils

        asked, types = pipeline_spec_pb2.ExecutorInput(), pipeline_spec_pb2.ComponentInputsSpec()
        for text, message in (
            (self.options.json_serialized_invocation_args, asked),
            (self.options.json_serialized_inputs_spec_args, types),
        ):
            json_format.Parse(text, message, ignore_unknown_fields=True)
        _mend(asked, types)
        compiler_utils.TITLE_TO_CLASS_PATH.update(ARTIFACTS)
        names: dict[int, str] = {}
        inputs = entrypoint.parse_raw_artifact_dict(asked.inputs.artifacts, names)
        outputs = entrypoint.parse_raw_artifact_dict(asked.outputs.artifacts, names)
        _as_text(artifact for artifacts in inputs.values() for artifact in artifacts)
        given = entrypoint.parse_execution_properties(asked.inputs.parameter_values, asked.inputs.parameters, types)
        run_id = given.pop(RUN_ID, "")
        properties = self._properties(given)
        with self._copied(inputs, outputs):
            self._execute(inputs, outputs, properties, run_id)
        outputs_utils.tag_output_artifacts_with_version(outputs)
        told = pipeline_spec_pb2.ExecutorOutput()
        for key, artifacts in entrypoint.translate_executor_output(outputs, names).items():
            told.artifacts[key].CopyFrom(artifacts)
            # TFX says of a property without a value that it is null, for which Kubeflow lets the step fail.
            metadata = told.artifacts[key].artifacts[0].metadata
            for name in [name for name, value in metadata.fields.items() if value.HasField("null_value")]:
                del metadata.fields[name]
        fileio.makedirs(os.path.dirname(asked.outputs.output_file))
        with fileio.open(asked.outputs.output_file, "w") as file:
            file.write(json_format.MessageToJson(told))

    def _properties(self, given: dict[str, Any]) -> dict[str, Any]:
        """The execution properties, with what follows from other values than those that were compiled."""
        values = {name.removeprefix(PREFIX): value for name, value in given.items() if name.startswith(PREFIX)}
        properties = {name: value for name, value in given.items() if not name.startswith(PREFIX)}
        bound = Bound.parse(self.options.bound).given(values)
        return properties | (compiled_properties(bound, self.options.step) if bound else {})

    @contextlib.contextmanager
    def _copied(self, inputs: dict[str, list], outputs: dict[str, list]) -> Iterator[None]:
        """Has artifacts lie in local folders while the body runs; what it wrote is stored then."""
        copies, places = Copies(self.scratch / "artifacts"), {}
        for artifacts, local in ((inputs, copies.read), (outputs, copies.write)):
            for key, (artifact,) in artifacts.items():
                if not (self._has_workers and key in BY_WORKERS.get(self.options.step, ())):
                    places[artifacts is outputs, key] = artifact.uri
                    artifact.uri = local(artifact.uri)
        yield
        copies.store()
        for (is_output, key), uri in places.items():
            (artifact,) = (outputs if is_output else inputs)[key]
            artifact.uri = uri
        for (artifact,) in outputs.values():
            for value in artifact.mlmd_artifact.custom_properties.values():
                if value.HasField("string_value"):
                    value.string_value = copies.uri_of(value.string_value)

    @property
    def _has_workers(self) -> bool:
        """Whether Beam's work is done on other machines."""
        return "--runner=DataflowRunner" in self.beam_arguments

    def _execute(
        self, inputs: dict[str, list], outputs: dict[str, list], properties: dict[str, Any], run_id: str
    ) -> None:
        from tfx.dsl.components.base import base_beam_executor, base_executor
        from tfx.utils import import_utils

        executor = import_utils.import_class_by_path(self.options.executor_class_path)
        context = {
            "tmp_dir": self._temporary(outputs),
            "unique_id": self.options.step,
            "pipeline_run_id": run_id,
        }
        if issubclass(executor, base_beam_executor.BaseBeamExecutor):
            made = executor(
                base_beam_executor.BaseBeamExecutor.Context(beam_pipeline_args=list(self.beam_arguments), **context)
            )
        else:
            made = executor(base_executor.BaseExecutor.Context(extra_flags=list(self.beam_arguments), **context))
        made.Do(inputs, outputs, properties)

    def _temporary(self, outputs: dict[str, list]) -> str:
        """Where what is on its way goes: beside an output that workers write, if there are any."""
        shared = [artifact.uri for (artifact,) in outputs.values() if is_uri(artifact.uri)]
        return f"{shared[0].rstrip('/')}-temporary" if shared else str(self.scratch / "temporary")


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
