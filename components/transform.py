"""ImageTransform: TensorFlow Transform over the images, on Beam.

TFX's own Transform does more (statistics, analyzer cache, several schemas) and writes every record through gzip, which
costs as much as decoding the image did and gains nothing on what is compressed already.
"""

import functools
import json
import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import tensorflow as tf
import tensorflow_transform as tft
import tensorflow_transform.beam as tft_beam
from apache_beam.transforms.window import GlobalWindows
from tensorflow_metadata.proto.v0 import schema_pb2
from tensorflow_transform.tf_metadata import dataset_metadata
from tfx import types
from tfx.components.util import tfxio_utils
from tfx.dsl.components.base import base_beam_component, base_beam_executor, executor_spec
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter
from tfx.utils import io_utils
from tfx_bsl.coders import example_coder
from tfx_bsl.tfxio import tensor_adapter, tensor_to_arrow
from tfx_bsl.tfxio.tensor_adapter import TensorAdapterConfig
from tfx_bsl.tfxio.tfxio import TFXIO

from components import broken_image, features, in_hand, pixels, png, progress
from components.example_files import WriteExamples
from components.examples_schema import SCHEMA_FILE, class_names
from components.ingestion import image_count
from components.preprocessing import preprocessing_fn

# Images that one call of the graph decodes side by side. More would only need more memory: 64 photographs of twelve
# megapixels are 2.3 GB.
BATCH_SIZE = 16
DECODED = "cannot be decoded"


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
        sources = {
            split: make_source(pattern).Project([features.ENCODED, features.CLASS_NAME, features.SHA256])
            for split, pattern in patterns.items()
        }
        notes = in_hand.folder(self._get_tmp_dir(), "decoded", self._beam_pipeline_args)
        files = list(patterns.values())
        with (
            broken_image.looked_for(files, lambda: _probe(settings), DECODED),
            in_hand.blamed(notes, _Decode(settings), broken_image.of_key, DECODED, functools.partial(_fetch, files)),
        ):
            self._write_graph(sources["train"], schema, settings, graph_uri)
            with self._make_beam_pipeline() as pipeline:
                for split, source in sources.items():
                    _ = (
                        pipeline
                        | f"Read {split}" >> source.BeamSource(BATCH_SIZE)
                        | f"Transform {split}"
                        >> beam.ParDo(TransformBatch(graph_uri, source.TensorAdapterConfig(), notes))
                        | f"Encode {split}"
                        >> beam.ParDo(EncodeExamples(graph_uri, settings["image_size"], settings["storage"]))
                        | f"Write {split}"
                        >> WriteExamples(os.path.join(transformed.uri, f"Split-{split}", "transformed_examples"))
                    )

    def _write_graph(self, train: TFXIO, schema: schema_pb2.Schema, settings: dict[str, Any], graph_uri: str) -> None:
        """The graph, in a pipeline of its own.

        What comes out of one stage and is asked for in another as a side input keeps them apart: with the graph in
        files, an image is read, computed and written in one stage, and its bytes never cross from one to the next.
        """
        with (
            self._make_beam_pipeline() as pipeline,
            tft_beam.Context(self._get_tmp_dir(), desired_batch_size=BATCH_SIZE, use_deep_copy_optimization=True),
        ):
            batches = pipeline | "Read train" >> train.BeamSource(BATCH_SIZE)
            graph = (batches, train.TensorAdapterConfig()) | tft_beam.AnalyzeDataset(
                lambda inputs: preprocessing_fn(inputs, settings)
            )
            _ = graph | tft_beam.WriteTransformFn(graph_uri)
            raw = dataset_metadata.DatasetMetadata(schema)
            raw_folder = os.path.join(graph_uri, tft.TFTransformOutput.RAW_METADATA_DIR)
            _ = raw | tft_beam.WriteMetadata(raw_folder, pipeline)


def _probe(settings: dict[str, Any]) -> broken_image.Probe:
    """What `preprocessing_fn` does to the pixels of one raw example."""
    how = {"size": settings["image_size"], "mode": settings["resize"], "storage": settings["storage"]}

    @tf.function(input_signature=[tf.TensorSpec([1], tf.string)], autograph=False)
    def prepared(encoded: tf.Tensor) -> tf.Tensor:
        return pixels.prepare(encoded, **how)

    return lambda record: prepared([broken_image.value_of(record, features.ENCODED)])


class _Decode:
    """`_probe` in another process, to which a function of TensorFlow's cannot be sent."""

    def __init__(self, settings: dict[str, Any]):
        self._settings = settings
        self._decode: broken_image.Probe | None = None

    def __call__(self, record: bytes) -> object:
        self._decode = self._decode or _probe(self._settings)
        return self._decode(record)


def _fetch(patterns: list[str], keys: list[str]) -> Iterator[tuple[str, bytes]]:
    """The examples of some images."""
    wanted = set(keys)
    for record in broken_image.records_of(patterns):
        key = broken_image.value_of(record, features.SHA256).decode()
        if key in wanted:
            yield key, record
            wanted.remove(key)
        if not wanted:
            return


class TransformBatch(beam.DoFn):
    """Record batch of raw features -> record batch of what the graph makes of them; notes what it has in hand."""

    def __init__(self, graph_uri: str, config: TensorAdapterConfig, notes: str | None = None):
        self._graph_uri, self._config, self._notes = graph_uri, config, notes

    def setup(self) -> None:
        self._hand = in_hand.InHand(self._notes)
        self._adapter = tensor_adapter.TensorAdapter(self._config)
        graph = tft.TFTransformOutput(self._graph_uri)
        self._layer = graph.transform_features_layer()
        self._converter = tensor_to_arrow.TensorsToRecordBatchConverter(
            {
                name: tf.TensorSpec([None, *feature.shape], feature.dtype)
                for name, feature in graph.transformed_feature_spec().items()
            }
        )

    def teardown(self) -> None:
        self._hand.close()

    def process(self, batch: pa.RecordBatch):
        keys = [key.decode() for key in batch.column(features.SHA256).flatten().to_pylist()]
        with self._hand.holding(keys):
            transformed = self._layer(self._adapter.ToBatchTensors(batch))
        yield self._converter.convert(transformed)


class EncodeExamples(beam.DoFn):
    """Record batch -> serialised `tf.Example`s, bare pixels made PNGs on the way.

    A batch is encoded in a thread while the graph computes the next one: the graph does not keep every core busy.
    """

    def __init__(self, graph_uri: str, image_size: int, storage: str):
        self._graph_uri, self._image_size, self._storage = graph_uri, image_size, storage

    def setup(self) -> None:
        schema = tft.TFTransformOutput(self._graph_uri).transformed_metadata.schema
        self._coder = example_coder.RecordBatchToExamplesEncoder(schema)
        self._thread = ThreadPoolExecutor(1)

    def start_bundle(self) -> None:
        self._encoding: Future[list[bytes]] | None = None

    def process(self, batch: pa.RecordBatch):
        before, self._encoding = self._encoding, self._thread.submit(self._encode, batch)
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
