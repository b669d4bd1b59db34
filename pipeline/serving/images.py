"""What is done to the bytes of an image before a model gets them: nothing that a header could make expensive."""

from collections.abc import Callable
from dataclasses import dataclass

from components import features
from components.inspection import MAX_PIXELS, checked_header, to_png

UNREADABLE = "is no image that can be decoded"


class BadImage(Exception):
    """One image that cannot be classified: the end of a sentence that begins with which one."""


@dataclass(frozen=True)
class Image:
    """Bytes that the model should be able to decode, and how many pixels it will unpack."""

    data: bytes
    pixels: int


def prepared(data: bytes) -> Image:
    """Looks at the header only; what TensorFlow does not decode is converted, as ingestion does it.

    Raises:
      BadImage: it is no image, or its header claims too many pixels.
    """
    if not data:
        raise BadImage("is empty")
    header = checked_header(data)
    if header and header.width * header.height > MAX_PIXELS:
        size = f"{header.width}x{header.height}"
        raise BadImage(f"is too large: its header claims {size} pixels, and at most {MAX_PIXELS} are allowed")
    if header and 0 < header.unpacked <= MAX_PIXELS:
        return Image(data, header.unpacked)
    return converted(data)


def converted(data: bytes) -> Image:
    """The image as a PNG, through Pillow.

    Raises:
      BadImage: Pillow cannot read it either.
    """
    from PIL.Image import DecompressionBombError

    try:
        png = to_png(data)
    except DecompressionBombError:
        raise BadImage(f"is too large: at most {MAX_PIXELS} pixels are allowed") from None
    # Pillow's plugins raise whatever broken bytes lead them into.
    except Exception:
        raise BadImage(UNREADABLE) from None
    return Image(png, checked_header(png).unpacked)


def prepared_example(example: bytes) -> Image:
    """A serialised raw `tf.Example` whose image is as `prepared` makes it.

    Raises:
      BadImage: its image is none, or there is no image in it.
    """
    return _example_with(example, prepared)


def converted_example(example: bytes) -> Image:
    """As `converted`, of the image in a serialised raw `tf.Example`."""
    return _example_with(example, converted)


def _example_with(example: bytes, change: Callable[[bytes], Image]) -> Image:
    from google.protobuf.message import DecodeError
    from tensorflow.core.example.example_pb2 import Example

    try:
        parsed = Example.FromString(example)
    except DecodeError:
        raise BadImage("is no serialised tf.Example") from None
    values = parsed.features.feature[features.ENCODED].bytes_list.value
    if len(values) != 1:
        raise BadImage(f"has no image in its feature {features.ENCODED}")
    image = change(values[0])
    if image.data == values[0]:
        return Image(example, image.pixels)
    values[0] = image.data
    return Image(parsed.SerializeToString(), image.pixels)
