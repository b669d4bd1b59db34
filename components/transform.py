"""ImageTransform: TensorFlow Transform over the images, on Beam.

TFX's own Transform does more (statistics, analyzer cache, several schemas) and writes every record through gzip, which
costs as much as decoding the image did and gains nothing on what is compressed already.
"""

import json
import os
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import tensorflow as tf
import tensorflow_transform as tft
import tensorflow_transform.beam as tft_beam
from apache_beam.transforms.window import GlobalWindows
from tensorflow_transform.tf_metadata import dataset_metadata
from tfx import types
from tfx.components.util import tfxio_utils
from tfx.dsl.components.base import base_beam_component, base_beam_executor, executor_spec
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter
from tfx.utils import io_utils
from tfx_bsl.coders import example_coder

from components import broken_image, features, pixels, png, progress
from components.examples_schema import SCHEMA_FILE, class_names
from components.ingestion import image_count
from components.preprocessing import preprocessing_fn

# Images that one call of the graph decodes side by side. More would only need more memory: 64 photographs of twelve
# megapixels are 2.3 GB.
BATCH_SIZE = 16


class Executor(base_beam_executor.BaseBeamExecutor):
    """Runs `preprocessing_fn` over every split; statistics that it asks for come from the train split."""

    def Do(self, input_dict, output_dict, exec_properties) -> None:
        examples = artifact_utils.get_single_instance(input_dict["examples"])
        transformed = artifact_utils.get_single_instance(output_dict["transformed_examples"])
        graph_uri = artifact_utils.get_single_uri(output_dict["transform_graph"])
        schema_uri = artifact_utils.get_single_uri(input_dict["schema"])
        schema = io_utils.SchemaReader().read(os.path.join(schema_uri, SCHEMA_FILE))
        settings = json.loads(exec_properties["settings"]) | {"class_names": class_names(schema)}
        transformed.split_names = artifact_utils.encode_split_names(list(features.SPLITS))
        progress.start(image_count(examples), "resizing")
        make_source = tfxio_utils.get_tfxio_factory_from_artifact([examples], ["graft", "ImageTransform"], schema)
        patterns = {
            split: io_utils.all_files_pattern(artifact_utils.get_split_uri([examples], split))
            for split in features.SPLITS
        }
        with (
            broken_image.looked_for(list(patterns.values()), lambda: _probe(settings), "cannot be decoded"),
            self._make_beam_pipeline() as pipeline,
            tft_beam.Context(self._get_tmp_dir(), desired_batch_size=BATCH_SIZE, use_deep_copy_optimization=True),
        ):
            columns = [features.ENCODED, features.CLASS_NAME, features.SHA256]
            sources = {split: make_source(pattern).Project(columns) for split, pattern in patterns.items()}
            data = {
                split: pipeline | f"Read {split}" >> source.BeamSource(BATCH_SIZE) for split, source in sources.items()
            }
            config = sources["train"].TensorAdapterConfig()
            graph = (data["train"], config) | tft_beam.AnalyzeDataset(lambda inputs: preprocessing_fn(inputs, settings))
            _ = graph | tft_beam.WriteTransformFn(graph_uri)
            raw = dataset_metadata.DatasetMetadata(schema)
            raw_folder = os.path.join(graph_uri, tft.TFTransformOutput.RAW_METADATA_DIR)
            _ = raw | tft_beam.WriteMetadata(raw_folder, pipeline)
            for split, batches in data.items():
                results, metadata = ((batches, config), graph) | f"Transform {split}" >> tft_beam.TransformDataset(
                    output_record_batches=True
                )
                prefix = os.path.join(transformed.uri, f"Split-{split}", "transformed_examples")
                _ = (
                    results
                    | f"Encode {split}"
                    >> beam.ParDo(EncodeExamples(metadata.schema, settings["image_size"], settings["storage"]))
                    | f"Write {split}" >> beam.io.WriteToTFRecord(prefix)
                )


def _probe(settings: dict[str, Any]) -> broken_image.Probe:
    """What `preprocessing_fn` does to the pixels of one raw example."""
    how = {"size": settings["image_size"], "mode": settings["resize"], "storage": settings["storage"]}

    @tf.function(input_signature=[tf.TensorSpec([1], tf.string)], autograph=False)
    def prepared(encoded: tf.Tensor) -> tf.Tensor:
        return pixels.prepare(encoded, **how)

    return lambda record: prepared([broken_image.value_of(record, features.ENCODED)])


class EncodeExamples(beam.DoFn):
    """(Record batch, pass-through features) -> serialised `tf.Example`s, bare pixels made PNGs on the way.

    A batch is encoded in a thread while the graph computes the next one: the graph does not keep every core busy.
    """

    def __init__(self, schema, image_size: int, storage: str):
        self._schema, self._image_size, self._storage = schema, image_size, storage

    def setup(self) -> None:
        self._coder = example_coder.RecordBatchToExamplesEncoder(self._schema)
        self._thread = ThreadPoolExecutor(1)

    def start_bundle(self) -> None:
        self._encoding: Future[list[bytes]] | None = None

    def process(self, element: tuple[pa.RecordBatch, dict]):
        before, self._encoding = self._encoding, self._thread.submit(self._encode, element[0])
        if before is not None:
            yield from before.result()

    def finish_bundle(self):
        if self._encoding is not None:
            yield from map(GlobalWindows.windowed_value, self._encoding.result())

    def teardown(self) -> None:
        self._thread.shutdown()

    def _encode(self, batch: pa.RecordBatch) -> list[bytes]:
        examples = self._coder.encode(self._with_pngs(batch) if self._storage == "png" else batch)
        progress.advance(batch.num_rows)
        return examples

    def _with_pngs(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        at = batch.schema.get_field_index(features.IMAGE)
        column = batch.column(at)
        pngs = [[self._png(stored)] for stored in column.flatten()]
        return batch.set_column(at, batch.schema.field(at), pa.array(pngs, column.type))

    def _png(self, stored: pa.LargeBinaryScalar) -> bytes:
        side = self._image_size
        # The pixels are the end of TensorFlow's serialised tensor, dtype and shape come before.
        content = np.frombuffer(stored.as_buffer(), np.uint8)[-side * side * 3 :]
        return png.encode(content.reshape(side, side, 3))


class ImageTransformSpec(ComponentSpec):
    PARAMETERS = {
        "settings": ExecutionParameter(type=str),
        "code": ExecutionParameter(type=str),
    }
    INPUTS = {
        "examples": ChannelParameter(type=standard_artifacts.Examples),
        "schema": ChannelParameter(type=standard_artifacts.Schema),
    }
    OUTPUTS = {
        "transform_graph": ChannelParameter(type=standard_artifacts.TransformGraph),
        "transformed_examples": ChannelParameter(type=standard_artifacts.Examples),
    }


class ImageTransform(base_beam_component.BaseBeamComponent):
    """Decodes, turns, resizes and stores every image, and looks its label up.

    Outputs: `transform_graph` (TensorFlow Transform's) and `transformed_examples` (see `components.preprocessing`).

    Args:
      examples: of ImageExampleGen.
      schema: of the examples; holds the class names by id.
      settings: what `preprocessing_fn` takes, but for the class names.
      code: digest of the source.
    """

    SPEC_CLASS = ImageTransformSpec
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(Executor)

    def __init__(self, examples, schema, settings: dict[str, Any], code: str):
        spec = ImageTransformSpec(
            examples=examples,
            schema=schema,
            settings=json.dumps(settings, sort_keys=True),
            code=code,
            transform_graph=types.Channel(type=standard_artifacts.TransformGraph),
            transformed_examples=types.Channel(type=standard_artifacts.Examples),
        )
        super().__init__(spec=spec)
