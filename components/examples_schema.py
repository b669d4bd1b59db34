"""The schema of the raw examples: what ImageExampleGen writes, and the classes by id."""

from pathlib import Path

from tensorflow_metadata.proto.v0 import schema_pb2
from tfx.utils import io_utils

from components import features

SCHEMA_FILE = "schema.pbtxt"

_INT, _BYTES = schema_pb2.INT, schema_pb2.BYTES
RAW_FEATURES = {
    features.ENCODED: _BYTES,
    features.FORMAT: _BYTES,
    features.HEIGHT: _INT,
    features.WIDTH: _INT,
    features.CHANNELS: _INT,
    features.FILENAME: _BYTES,
    features.SHA256: _BYTES,
    features.CLASS_NAME: _BYTES,
}


def write_schema(folder: Path, class_names: list[str]) -> None:
    """The schema of the examples: fixed, with the sorted class names as the domain of the label.

    It is ours and not inferred: a schema inferred without the image bytes would hide them from Transform.
    """
    schema = schema_pb2.Schema()
    for name, kind in RAW_FEATURES.items():
        feature = schema.feature.add(name=name, type=kind)
        feature.shape.SetInParent()
        feature.presence.min_fraction = 1.0
        feature.presence.min_count = 1
        if name == features.CLASS_NAME:
            feature.string_domain.name = name
            feature.string_domain.value.extend(class_names)
    io_utils.write_pbtxt_file(str(folder / SCHEMA_FILE), schema)


def read_class_names(schema_path: str) -> list[str]:
    """`class_names` of a schema file."""
    return class_names(io_utils.SchemaReader().read(schema_path))


def class_names(schema: schema_pb2.Schema) -> list[str]:
    """The class names by id: the domain that ImageExampleGen wrote into the examples' schema."""
    for feature in schema.feature:
        if feature.name == features.CLASS_NAME:
            return list(feature.string_domain.value)
    raise ValueError(f"The schema has no feature {features.CLASS_NAME}")
