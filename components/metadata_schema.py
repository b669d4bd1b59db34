"""MetadataSchemaGen: the schema that new images' metadata are held to, inferred once and kept from then on.

TFX has a component for either, SchemaGen and ImportSchemaGen. Which of them it is would be decided when the graph is
built, and a graph that a cluster runs every week was built before the first model was published.
"""

from tfx import types
from tfx.components.schema_gen import executor as schema_gen
from tfx.dsl.components.base import base_component, executor_spec
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter
from tfx.utils import io_utils

from components import storage
from components.examples_schema import SCHEMA_FILE


class Executor(schema_gen.Executor):
    """Copies the kept schema; infers one where there is none."""

    def Do(self, input_dict, output_dict, exec_properties) -> None:
        kept = exec_properties["kept_schema"]
        if storage.exists(kept):
            folder = artifact_utils.get_single_uri(output_dict["schema"])
            io_utils.write_bytes_file(f"{folder}/{SCHEMA_FILE}", storage.read_bytes(kept))
        else:
            super().Do(input_dict, output_dict, {})


class MetadataSchemaGenSpec(ComponentSpec):
    PARAMETERS = {"kept_schema": ExecutionParameter(type=str)}
    INPUTS = {"statistics": ChannelParameter(type=standard_artifacts.ExampleStatistics)}
    OUTPUTS = {"schema": ChannelParameter(type=standard_artifacts.Schema)}


class MetadataSchemaGen(base_component.BaseComponent):
    """Gives the metadata schema.

    Output: `schema`, a copy of `kept_schema`, or inferred from the statistics of all splits where that does not exist.

    Args:
      statistics: of the metadata examples.
      kept_schema: path or URI of the schema that the first publication kept (`metadata.pbtxt`). Read when the step
        runs, so the step is never cached.
    """

    SPEC_CLASS = MetadataSchemaGenSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(self, statistics, kept_schema: str):
        spec = MetadataSchemaGenSpec(
            statistics=statistics, kept_schema=kept_schema, schema=types.Channel(type=standard_artifacts.Schema)
        )
        super().__init__(spec=spec)
