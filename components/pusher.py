"""AtomicPusher: TFX's Pusher, but it publishes atomically and with a model card (see `components.publishing`)."""

import importlib.metadata
import platform
import traceback
from pathlib import Path
from typing import Any

from tfx import types
from tfx.components.pusher import executor
from tfx.dsl.components.base import base_component, executor_spec
from tfx.proto import pusher_pb2
from tfx.types import artifact_utils, standard_artifacts, standard_component_specs
from tfx.types.component_spec import ChannelParameter
from tfx.utils import json_utils, proto_utils

from components import comparison, conversion, model_card, progress, serving_check
from components.data_report import CATALOG_FILE
from components.examples_schema import SCHEMA_FILE
from components.features import DECISION_FILE, REFUSAL, STATISTICS_FILE, TRAINING_FILE
from components.files import read_json
from components.formats import FormatFiles
from components.ingestion import ImageCatalog
from components.publishing import holds, publish, read_card, taken_back
from components.serving_places import open_serving
from components.source import LIBRARIES
from components.steps import run_id_of


class Executor(executor.Executor):
    """Checks the blessings as TFX does, writes the card, publishes."""

    def Do(self, input_dict, output_dict, exec_properties) -> None:
        self._log_startup(input_dict, output_dict, exec_properties)
        pushed = artifact_utils.get_single_instance(output_dict[standard_component_specs.PUSHED_MODEL_KEY])
        if not self.CheckBlessing(input_dict):
            self._MarkNotPushed(pushed)
            return
        destination = pusher_pb2.PushDestination()
        proto_utils.json_to_proto(exec_properties[standard_component_specs.PUSH_DESTINATION_KEY], destination)
        serving = destination.filesystem.base_directory
        custom = json_utils.loads(exec_properties[standard_component_specs.CUSTOM_CONFIG_KEY])
        model = Path(self.GetModelPath(input_dict))
        decision = read(input_dict, "evaluation", DECISION_FILE)
        if refused := taken_back(serving, decision["in_service_version"], model):
            pushed.set_string_custom_property(
                REFUSAL,
                f"this is the model of version {refused}, which was rolled back from; to have it in service again, "
                f"graft rollback {serving} --to {refused}",
            )
            self._MarkNotPushed(pushed)
            return
        card = self._card(input_dict, decision, custom["about"])
        # Here the version comes into it, and nowhere else.
        extras = formats_of(input_dict) | {model_card.CARD_FILE: lambda version: model_card.dump(card, version)}
        expected = decision["in_service_version"]
        version = published_before(serving, card["run_id"], model)
        version = version or publish(model, serving, custom["keep"], extras, expected=expected)
        number = str(version).rpartition("/")[2]
        self._MarkPushed(pushed, pushed_destination=str(version), pushed_version=number)
        keep_for_comparison(input_dict, serving, int(number), custom)

    def _card(self, input_dict, decision: dict[str, Any], about: dict[str, Any]) -> dict[str, Any]:
        return model_card.build(
            about=about
            | {
                "run_id": run_id_of(self._context.pipeline_run_id) if self._context else None,
                "versions": {name: importlib.metadata.version(name) for name in LIBRARIES},
                "python": platform.python_version(),
            },
            catalog=read(input_dict, "catalog", CATALOG_FILE),
            training=read(input_dict, "model_run", TRAINING_FILE),
            decision=decision,
            serving_check=read(input_dict, standard_component_specs.INFRA_BLESSING_KEY, serving_check.RESULT_FILE),
            formats=(read(input_dict, "formats", conversion.RESULT_FILE) or {}).get("formats"),
        )


def published_before(serving: str, run_id: str | None, model: Path) -> Path | str | None:
    """The version in service, if this step published it before it was killed, and a platform started it again."""
    place = open_serving(serving)
    in_service = place.in_service()
    if in_service is None or not run_id:
        return None
    card = read_card(place, in_service)
    # Runs of two output folders have one id where they began in the same second.
    same = card["run_id"] == run_id and model_card.rollback_of(card) is None and holds(place, in_service, model)
    return place.location(in_service) if same else None


def keep_for_comparison(input_dict, serving: str, version: int, custom: dict[str, Any]) -> None:
    """Keeps what later runs compare their images with; the model is out by now, whatever becomes of that."""
    try:
        statistics = artifact_utils.get_split_uri(input_dict["statistics"], "train")
        schema = artifact_utils.get_single_uri(input_dict["schema"])
        comparison.keep(
            serving,
            version,
            Path(statistics, STATISTICS_FILE).read_bytes(),
            custom["published_statistics"],
            Path(schema, SCHEMA_FILE).read_bytes(),
            custom["kept_schema"],
        )
    except Exception as error:
        traceback.print_exc()
        lines = str(error).strip().splitlines() or [type(error).__name__]
        progress.warn(f"What later runs compare their images with could not be kept ({lines[0]}).")


def read(input_dict, key: str, name: str) -> dict[str, Any] | None:
    """A file of an input artifact; None where the input is not given or has no such file."""
    return read_json(Path(artifact_utils.get_single_uri(input_dict[key])), name) if input_dict.get(key) else None


def formats_of(input_dict) -> dict[str, Path]:
    """The files of `formats`, by name in the version."""
    if not input_dict.get("formats"):
        return {}
    return conversion.passed_files(Path(artifact_utils.get_single_uri(input_dict["formats"])))


class AtomicPusherSpec(standard_component_specs.PusherSpec):
    INPUTS = standard_component_specs.PusherSpec.INPUTS | {
        "evaluation": ChannelParameter(type=standard_artifacts.ModelEvaluation),
        "model_run": ChannelParameter(type=standard_artifacts.ModelRun),
        "catalog": ChannelParameter(type=ImageCatalog),
        "statistics": ChannelParameter(type=standard_artifacts.ExampleStatistics),
        "schema": ChannelParameter(type=standard_artifacts.Schema),
        "formats": ChannelParameter(type=FormatFiles, optional=True),
    }


class AtomicPusher(base_component.BaseComponent):
    """Publishes what was blessed, whole or not at all.

    Output: `pushed_model`, as TFX's Pusher leaves it; with the custom property `refusal` where a blessed model was not
    pushed because a person had taken it out of service.

    Args:
      model: the candidate.
      model_blessing: of the gate.
      evaluation: of the gate; its decision says with what the candidate was compared, and nothing is published when
        something else is in service by now.
      model_run: of the Trainer.
      catalog: of the ingestion.
      statistics: of the metadata.
      schema: of the metadata.
      serving: base path or URI.
      published_statistics: folder that takes the statistics of each version's images, as for DataGate.
      kept_schema: where the schema of the metadata is kept, as for MetadataSchemaGen.
      keep: how many models stay.
      about: what the card says that is known before anything runs (see `model_card.build`).
      infra_blessing: of the serving check; None where there is none.
      formats: the model in other formats; None where there are none.
    """

    SPEC_CLASS = AtomicPusherSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(
        self,
        model,
        model_blessing,
        evaluation,
        model_run,
        catalog,
        statistics,
        schema,
        serving: str,
        published_statistics: str,
        kept_schema: str,
        keep: int,
        about: dict[str, Any],
        infra_blessing=None,
        formats=None,
    ):
        spec = AtomicPusherSpec(
            model=model,
            model_blessing=model_blessing,
            infra_blessing=infra_blessing,
            evaluation=evaluation,
            model_run=model_run,
            catalog=catalog,
            statistics=statistics,
            schema=schema,
            formats=formats,
            push_destination=pusher_pb2.PushDestination(
                filesystem=pusher_pb2.PushDestination.Filesystem(base_directory=serving)
            ),
            custom_config=json_utils.dumps(
                {
                    "keep": keep,
                    "about": about,
                    "published_statistics": published_statistics,
                    "kept_schema": kept_schema,
                }
            ),
            pushed_model=types.Channel(type=standard_artifacts.PushedModel),
        )
        super().__init__(spec=spec)
