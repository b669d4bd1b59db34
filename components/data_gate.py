"""DataGate: stops the run before Transform when new data breaks the kept schema or drifts from what was published.

TFX's ExampleValidator writes anomalies and goes on, and never compares with earlier statistics.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tfx import types
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter
from tfx.utils import io_utils

from components import comparison, concerns, features, progress, storage
from components.data_findings import Findings
from components.errors import DataRefused

CATEGORIES = (features.CLASS_NAME, features.FORMAT)
NUMBERS = (features.HEIGHT, features.WIDTH, features.CHANNELS, features.BRIGHTNESS)
# TFDV's names of distances as people write them; a schema that somebody edited may ask for others.
MEASURES = {"L_INFTY": "L-infinity distance", "JENSEN_SHANNON_DIVERGENCE": "Jensen-Shannon divergence"}


class DataGateResult(types.Artifact):
    """`anomalies.json`: `[{feature, problem, detail}]`, empty when nothing was found.

    `drift.json`: `[{feature, measure, value, threshold}]` of what was compared with the statistics of what the model in
    service was trained on; empty where nothing is in service.
    """

    TYPE_NAME = "graft.DataGateResult"


class Executor(base_executor.BaseExecutor):
    def Do(self, input_dict, output_dict, exec_properties) -> None:
        import tensorflow_data_validation as tfdv

        statistics = tfdv.load_stats_binary(
            str(Path(artifact_utils.get_split_uri(input_dict["statistics"], "train"), features.STATISTICS_FILE))
        )
        schema_uri = artifact_utils.get_single_uri(input_dict["schema"])
        schema = io_utils.SchemaReader().read(io_utils.get_only_uri_in_dir(schema_uri))
        previous = _published(exec_properties["serving"], exec_properties["published_statistics"])
        found = find_anomalies(statistics, schema, previous, exec_properties["drift_threshold"])
        found.write(Path(artifact_utils.get_single_uri(output_dict["result"])))
        if found.anomalies and exec_properties["on_anomaly"] == "stop":
            listed = "; ".join(f"{row['feature']}: {row['detail']}" for row in found.anomalies)
            refused = DataRefused(
                f"The new images are unlike the ones that the schema describes: {listed}. Look at them; to go on, edit "
                f"the schema ({exec_properties['kept_schema']}) or set data.on_anomaly to warn."
            )
            # The launcher removes the output of a step that failed.
            refused.found = found
            raise refused
        progress.warn_of(concerns.of_anomalies(found.anomalies))


def _published(serving: str, folder: str):
    """TFDV statistics of what the model in service was trained on; None where there is none, or nothing is known."""
    from tensorflow_metadata.proto.v0 import statistics_pb2

    place = comparison.statistics_of(serving, folder)
    if place is None:
        return None
    if storage.exists(place):
        return statistics_pb2.DatasetFeatureStatisticsList.FromString(storage.read_bytes(place))
    version = Path(place).stem
    progress.warn(
        f"Nothing is known of the images of version {version}, which is in service, so that drift from them was not "
        "looked for."
    )
    return None


def find_anomalies(statistics, schema, previous, drift_threshold: float) -> Findings:
    """Validates against the schema and, where there are earlier statistics, against those.

    Args:
      statistics: TFDV statistics of the train split's metadata.
      schema: the kept schema; not changed.
      previous: statistics of what the model in service was trained on, or None.
      drift_threshold: 0 to 1; the largest change in a category's share (L-infinity), or Jensen-Shannon divergence of a
        number's distribution, that is not drift.

    Returns:
      Anomalies and distances, each sorted by feature.
    """
    import tensorflow_data_validation as tfdv
    from tensorflow_metadata.proto.v0 import schema_pb2

    compared = schema_pb2.Schema()
    compared.CopyFrom(schema)
    for feature in compared.feature:
        if feature.name in CATEGORIES:
            feature.drift_comparator.infinity_norm.threshold = drift_threshold
        elif feature.name in NUMBERS:
            feature.drift_comparator.jensen_shannon_divergence.threshold = drift_threshold
    anomalies = tfdv.validate_statistics(statistics, compared, previous_statistics=previous)
    found = [
        {"feature": name, "problem": info.short_description, "detail": info.description}
        for name, info in sorted(anomalies.anomaly_info.items())
    ]
    return Findings(found, sorted(_distances(anomalies), key=lambda row: row["feature"]))


def _distances(anomalies) -> Iterator[dict[str, Any]]:
    for info in anomalies.drift_skew_info:
        for measured in info.drift_measurements:
            name = measured.Type.Name(measured.type)
            # Rounding may put what has nothing in common a hair above 1.
            yield {
                "feature": ".".join(info.path.step),
                "measure": MEASURES.get(name, name.lower()),
                "value": min(max(measured.value, 0.0), 1.0),
                "threshold": measured.threshold,
            }


class DataGateSpec(ComponentSpec):
    PARAMETERS = {
        "on_anomaly": ExecutionParameter(type=str),
        "drift_threshold": ExecutionParameter(type=float),
        "serving": ExecutionParameter(type=str),
        "published_statistics": ExecutionParameter(type=str),
        "kept_schema": ExecutionParameter(type=str),
    }
    INPUTS = {
        "statistics": ChannelParameter(type=standard_artifacts.ExampleStatistics),
        "schema": ChannelParameter(type=standard_artifacts.Schema),
        "anomalies": ChannelParameter(type=standard_artifacts.ExampleAnomalies),
    }
    OUTPUTS = {"result": ChannelParameter(type=DataGateResult)}


class DataGate(base_component.BaseComponent):
    """Validates the metadata statistics.

    Args:
      statistics: of the metadata examples.
      schema: the metadata schema.
      anomalies: of ExampleValidator, so that its findings are on record before this step judges.
      on_anomaly: `stop` (the run ends with exit code 3 before Transform) or `warn`.
      drift_threshold: see `find_anomalies`.
      serving: base path or URI of published versions.
      published_statistics: path or URI of the folder with the statistics of each version's images (see
        `components.comparison`).
      kept_schema: where the schema is kept, for the person who has to edit it.
    """

    SPEC_CLASS = DataGateSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(
        self,
        statistics,
        schema,
        anomalies,
        on_anomaly: str,
        drift_threshold: float,
        serving: str,
        published_statistics: str,
        kept_schema: str,
    ):
        spec = DataGateSpec(
            statistics=statistics,
            schema=schema,
            anomalies=anomalies,
            on_anomaly=on_anomaly,
            drift_threshold=drift_threshold,
            serving=serving,
            published_statistics=published_statistics,
            kept_schema=kept_schema,
            result=types.Channel(type=DataGateResult),
        )
        super().__init__(spec=spec)
