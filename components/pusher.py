"""AtomicPusher: TFX's Pusher with an executor that publishes atomically (see `components.publishing`)."""

from pathlib import Path

from tfx.components.pusher import component, executor
from tfx.dsl.components.base import executor_spec
from tfx.proto import pusher_pb2
from tfx.types import artifact_utils, standard_component_specs
from tfx.utils import json_utils, proto_utils

from components.publishing import publish


class Executor(executor.Executor):
    """Checks the blessings as TFX does, then publishes."""

    def Do(self, input_dict, output_dict, exec_properties) -> None:
        self._log_startup(input_dict, output_dict, exec_properties)
        pushed = artifact_utils.get_single_instance(output_dict[standard_component_specs.PUSHED_MODEL_KEY])
        if not self.CheckBlessing(input_dict):
            self._MarkNotPushed(pushed)
            return
        destination = pusher_pb2.PushDestination()
        proto_utils.json_to_proto(exec_properties[standard_component_specs.PUSH_DESTINATION_KEY], destination)
        custom = json_utils.loads(exec_properties[standard_component_specs.CUSTOM_CONFIG_KEY])
        serving = Path(destination.filesystem.base_directory)
        version = publish(Path(self.GetModelPath(input_dict)), serving, custom["keep"])
        self._MarkPushed(pushed, pushed_destination=str(version), pushed_version=version.name)


class AtomicPusher(component.Pusher):
    """Arguments as TFX's Pusher; `custom_config={"keep": N}` says how many versions stay."""

    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)
