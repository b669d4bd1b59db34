"""ImageExampleGen: class folders and lists of images in, checked and split examples out.

Two Beam passes over the files. The first checks each one and yields a small record; the records (no image bytes) come
together for everything that needs the whole view: duplicates, label conflicts, splits, budgets. The second reads the
kept files again and writes them. Image bytes never cross a shuffle, so the in-memory runner does not hold them.
"""

import functools
import hashlib
import json
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import apache_beam as beam
import tensorflow as tf
from tfx import types
from tfx.dsl.components.base import base_beam_component, base_beam_executor, executor_spec
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter

from components import broken_image, data_report, features, in_hand, parallel, progress, storage
from components.chunked_list import ReadChunks, write_chunks
from components.errors import ImageFailed
from components.example_files import WriteExamples
from components.examples_schema import write_schema
from components.image_files import ImageFile, images_digest, records_digest
from components.inspection import IO_ERROR, inspect_file, readable
from components.remembered import read_remembered, write_remembered
from components.sources import list_images, resolve
from components.splits import Catalog, SplitRules, build_catalog, without_lost

IMAGE_COUNT = "images"
# What could not be done where an image fails.
CHECKED, MADE = "cannot be checked", "cannot be made an example"


class ImageCatalog(types.Artifact):
    """What `components.data_report` writes."""

    TYPE_NAME = "graft.ImageCatalog"


# ---- the two passes -------------------------------------------------------------------------------------------------


class InspectFiles(beam.DoFn):
    """ImageFiles -> a record each for `build_catalog`; a file that cannot be read is a quarantined record, no error.

    Records travel as JSON: Beam's coder for dictionaries takes no file names that are not UTF-8.
    """

    def __init__(self, max_pixels: int, max_bytes: int, threads: int, notes: str | None):
        self._max_pixels, self._max_bytes, self._threads, self._notes = max_pixels, max_bytes, threads, notes

    def setup(self) -> None:
        self._hand = in_hand.InHand(self._notes)

    def teardown(self) -> None:
        self._hand.close()

    def process(self, files: list[ImageFile]):
        with parallel.pool(self._threads) as pool:
            for record in pool.map(self._inspect, files):
                yield json.dumps(record)
                progress.advance()

    def _inspect(self, file: ImageFile) -> dict:
        with self._hand.holding([vars(file)]), broken_image.naming(file.path, CHECKED):
            return inspect_file(file, self._max_pixels, self._max_bytes)


class MakeExample(beam.DoFn):
    """A kept record as JSON -> (serialised example with bytes, serialised metadata example), tagged with its split.

    A file that changed or vanished since it was checked goes to the tag `lost` as a quarantined record.
    """

    LOST = "lost"

    def __init__(self, max_pixels: int, notes: str | None = None):
        self._max_pixels, self._notes = max_pixels, notes

    def setup(self) -> None:
        self._hand = in_hand.InHand(self._notes)

    def teardown(self) -> None:
        self._hand.close()

    def process(self, line: str):
        record = json.loads(line)
        with self._hand.holding([record]), broken_image.naming(record["path"], MADE):
            made = self.made(record)
        yield made

    def made(self, record: dict) -> beam.pvalue.TaggedOutput:
        try:
            data = storage.read_bytes(record["location"])
        except OSError as error:
            return self._lost(record, f"{IO_ERROR}: {error.strerror}")
        if hashlib.sha256(data).hexdigest() != record["sha256"]:
            return self._lost(record, f"{IO_ERROR}: changed while it was read")
        metadata = {
            features.FORMAT: record["format"],
            features.HEIGHT: record["height"],
            features.WIDTH: record["width"],
            features.CHANNELS: record["channels"],
            features.FILENAME: record["path"],
            features.SHA256: record["sha256"],
            features.CLASS_NAME: record["class_name"],
        }
        for_statistics = {
            name: value for name, value in metadata.items() if name not in (features.FILENAME, features.SHA256)
        } | {features.BYTES: record["bytes"], features.BRIGHTNESS: record["brightness"]}
        progress.advance()
        try:
            encoded = readable(data, record["converted"], self._max_pixels)
        # Pillow's plugins raise what they like; one picture must not end the run, nor go without a line.
        except Exception as error:
            return self._lost(record, f"{record['format']} cannot be converted: {type(error).__name__}")
        return beam.pvalue.TaggedOutput(
            record["split"], (_example(metadata | {features.ENCODED: encoded}), _example(for_statistics))
        )

    def _lost(self, record: dict, reason: str):
        return beam.pvalue.TaggedOutput(self.LOST, json.dumps(record | {"reason": reason}))


def _check(max_pixels: int, max_bytes: int, file: dict[str, Any]) -> None:
    inspect_file(ImageFile(**file), max_pixels, max_bytes)


def _of_record(record: dict[str, Any], happened: str) -> ImageFailed:
    return broken_image.of_path(record["path"], happened)


def _example(values: dict[str, Any]) -> bytes:
    """A serialised tf.Example with one value a feature; text as the bytes that the file system uses."""
    example = tf.train.Example()
    for name, value in values.items():
        feature = example.features.feature[name]
        if isinstance(value, int):
            feature.int64_list.value.append(value)
        elif isinstance(value, float):
            feature.float_list.value.append(value)
        else:
            feature.bytes_list.value.append(value if isinstance(value, bytes) else os.fsencode(value))
    return example.SerializeToString(deterministic=True)


class Executor(base_beam_executor.BaseBeamExecutor):
    """Runs the two passes and writes examples, metadata, schema and catalog."""

    def Do(self, input_dict, output_dict, exec_properties) -> None:
        outputs = {key: artifact_utils.get_single_instance(value) for key, value in output_dict.items()}
        settings = json.loads(exec_properties["settings"])
        rules = SplitRules(**settings["rules"])
        splits_file = exec_properties["splits_file"]
        remembered = read_remembered(splits_file, rules)
        places = resolve(json.loads(exec_properties["images"]), settings["spans"]).places
        listing = list_images(places, settings["follow_symlinks"], rules.group)
        records = self._inspect(listing.files, settings, self._get_tmp_dir())
        catalog = build_catalog(records, listing.classes, rules, remembered)
        lost = self._write(
            catalog, settings["max_pixels"], outputs["examples"].uri, outputs["metadata"].uri, self._get_tmp_dir()
        )
        catalog = without_lost(catalog, lost, records, listing.classes, rules)
        for key in ("examples", "metadata"):
            outputs[key].split_names = artifact_utils.encode_split_names(list(features.SPLITS))
        write_schema(Path(outputs["schema"].uri), sorted({record["class_name"] for record in catalog.kept}))
        outputs["examples"].set_int_custom_property(IMAGE_COUNT, len(catalog.kept))
        for split, count in Counter(record["split"] for record in catalog.kept).items():
            outputs["examples"].set_int_custom_property(f"{split}_{IMAGE_COUNT}", count)
        digest = images_digest(exec_properties["digest"]) or records_digest(records, listing)
        counts = data_report.write(Path(outputs["catalog"].uri), catalog, listing.skipped, digest, places)
        progress.warn_of(data_report.concerns_of(counts))
        write_remembered(splits_file, catalog.remembered, rules)

    def _inspect(self, files: list[ImageFile], settings: dict, scratch: str) -> list[dict]:
        progress.start(len(files), "checking images")
        threads = parallel.threads_of_a_worker(self._beam_pipeline_args or [])
        limits = settings["max_pixels"], settings["max_bytes"]
        notes = in_hand.folder(scratch, "checked", self._beam_pipeline_args)
        chunks = write_chunks([vars(file) for file in files], os.path.join(scratch, "files"))
        with (
            in_hand.blamed(notes, functools.partial(_check, *limits), _of_record, CHECKED),
            self._make_beam_pipeline() as pipeline,
        ):
            _ = (
                pipeline
                | "Files" >> ReadChunks(chunks)
                | "Batch" >> beam.Map(lambda lines: [ImageFile(**json.loads(line)) for line in lines])
                | "Inspect" >> beam.ParDo(InspectFiles(*limits, threads, notes))
                | "WriteRecords" >> beam.io.WriteToText(os.path.join(scratch, "records"))
            )
        return _read_json_lines(scratch, "records")

    def _write(self, catalog: Catalog, max_pixels: int, examples: str, metadata: str, scratch: str) -> list[dict]:
        progress.start(len(catalog.kept), "writing examples")
        chunks = write_chunks(catalog.kept, os.path.join(scratch, "kept"))
        notes = in_hand.folder(scratch, "made", self._beam_pipeline_args)
        with (
            in_hand.blamed(notes, MakeExample(max_pixels).made, _of_record, MADE),
            self._make_beam_pipeline() as pipeline,
        ):
            made = (
                pipeline
                | "Kept" >> ReadChunks(chunks)
                | "Lines" >> beam.FlatMap(lambda lines: lines)
                | "Read" >> beam.ParDo(MakeExample(max_pixels, notes)).with_outputs(*features.SPLITS, MakeExample.LOST)
            )
            for split in features.SPLITS:
                # Images are compressed already: gzip would cost as much time as checking them did.
                for index, (name, uri, suffix) in enumerate(
                    (("examples", examples, ""), ("metadata", metadata, ".gz"))
                ):
                    _ = (
                        made[split]
                        | f"Take {name} {split}" >> beam.Map(lambda pair, index=index: pair[index])
                        | f"Write {name} {split}"
                        >> WriteExamples(os.path.join(uri, f"Split-{split}", "data_tfrecord"), suffix)
                    )
            _ = made[MakeExample.LOST] | "WriteLost" >> beam.io.WriteToText(os.path.join(scratch, "lost"))
        return _read_json_lines(scratch, "lost")


def _read_json_lines(folder: str, prefix: str) -> list[dict]:
    rows = []
    for place in storage.files_in(folder):
        if place.rpartition("/")[2].startswith(f"{prefix}-"):
            lines = storage.read_bytes(place).decode().splitlines()
            rows += [json.loads(line, object_hook=_with_shared_keys) for line in lines]
    return rows


def _with_shared_keys(row: dict[str, Any]) -> dict[str, Any]:
    """The same, without names of keys of its own: they would be half of what the records of all images take."""
    return {sys.intern(key): value for key, value in row.items()}


def image_count(examples: types.Artifact, split: str | None = None) -> int | None:
    """Images in an Examples artifact of this component, or in one split, for a step that shows how far it is."""
    return examples.get_int_custom_property(f"{split}_{IMAGE_COUNT}" if split else IMAGE_COUNT) or None


# ---- the component --------------------------------------------------------------------------------------------------


class ImageExampleGenSpec(ComponentSpec):
    PARAMETERS = {
        "images": ExecutionParameter(type=str),
        "digest": ExecutionParameter(type=str),
        "settings": ExecutionParameter(type=str),
        "splits_file": ExecutionParameter(type=str),
        "code": ExecutionParameter(type=str),
    }
    INPUTS = {}
    OUTPUTS = {
        "examples": ChannelParameter(type=standard_artifacts.Examples),
        "metadata": ChannelParameter(type=standard_artifacts.Examples),
        "schema": ChannelParameter(type=standard_artifacts.Schema),
        "catalog": ChannelParameter(type=ImageCatalog),
    }


class ImageExampleGen(base_beam_component.BaseBeamComponent):
    """Ingests images from folders and manifests.

    Outputs: `examples` (encoded bytes and metadata, splits train, eval, test), `metadata` (the same images without
    their bytes, for statistics and validation), `schema` (of `examples`), `catalog` (`ImageCatalog`).

    Args:
      images: folders that hold class folders, or split folders with class folders inside, manifests, and span patterns
        of either, which are resolved when the step runs.
      digest: what `content_digest` says of them, and what tells states of `splits_file` apart, so that the cache
        notices every change; empty where the cache is off.
      settings: `rules` (the fields of `SplitRules`), `max_pixels`, `max_bytes`, `follow_symlinks`, `spans` (how many of
        the newest are read of each pattern).
      splits_file: where the choices for small classes are remembered (`schema/splits.jsonl`).
      code: digest of the source.
    """

    SPEC_CLASS = ImageExampleGenSpec
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(Executor)

    def __init__(self, images: list[str], digest: str, settings: dict[str, Any], splits_file: str, code: str):
        spec = ImageExampleGenSpec(
            images=json.dumps(images),
            digest=digest,
            settings=json.dumps(settings, sort_keys=True),
            splits_file=splits_file,
            code=code,
            examples=types.Channel(type=standard_artifacts.Examples),
            metadata=types.Channel(type=standard_artifacts.Examples),
            schema=types.Channel(type=standard_artifacts.Schema),
            catalog=types.Channel(type=ImageCatalog),
        )
        super().__init__(spec=spec)
