"""The image inside a request for the signature `serving_examples`; for bare bytes see `components.decodable`."""

from collections.abc import Callable

from components import features
from components.decodable import Image, NoImage, checked, converted


def checked_example(example: bytes) -> Image:
    """A serialised raw `tf.Example`, with what `checked` finds out about its image.

    Raises:
      NoImage: its image is none, or there is no image in it.
    """
    return _example_with(example, checked)


def converted_example(example: bytes) -> Image:
    """As `converted`, of the image in a serialised raw `tf.Example`."""
    return _example_with(example, converted)


def _example_with(example: bytes, change: Callable[[bytes], Image]) -> Image:
    from google.protobuf.message import DecodeError
    from tensorflow.core.example.example_pb2 import Example

    try:
        parsed = Example.FromString(example)
    except DecodeError:
        raise NoImage("is no serialised tf.Example") from None
    values = parsed.features.feature[features.ENCODED].bytes_list.value
    if len(values) != 1:
        raise NoImage(f"has no image in its feature {features.ENCODED}")
    image = change(values[0])
    if image.data == values[0]:
        return Image(example, image.pixels, image.ready)
    values[0] = image.data
    return Image(parsed.SerializeToString(), image.pixels)
