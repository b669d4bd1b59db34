"""What is done to the bytes of an image before a model gets them: nothing that a header could make expensive.

For whoever asks a published model: files on a disk, and requests from a network.
"""

import threading
from dataclasses import dataclass

from components.inspection import MAX_PIXELS, checked_header, to_png

UNREADABLE = "is no image that can be decoded"
# Pillow holds all pixels of what it converts, so that not every thread may at once.
_converting = threading.Semaphore(2)


class NoImage(Exception):
    """Why an image cannot be classified: the end of a sentence that begins with which one."""


class TooLarge(NoImage):
    """It claims more pixels than are allowed."""


@dataclass(frozen=True)
class Image:
    """Bytes that the model should be able to decode, and how many pixels it will unpack."""

    data: bytes
    pixels: int


def decodable(data: bytes, max_pixels: int = MAX_PIXELS) -> Image:
    """Looks at the header only; what TensorFlow does not decode is converted, as ingestion does it.

    Args:
      data: a file as it is on disk.
      max_pixels: width x height that a header may claim (`data.max_pixels`).

    Raises:
      NoImage: the bytes are empty or no image; `TooLarge` where they claim too many pixels.
    """
    return as_it_is(data, max_pixels) or converted(data, max_pixels)


def as_it_is(data: bytes, max_pixels: int = MAX_PIXELS) -> Image | None:
    """What `decodable` says of an image that needs no conversion; None for one that does, or is none.

    Raises:
      NoImage: as in `decodable`, but for bytes that are no image.
    """
    if not data:
        raise NoImage("is empty")
    header = checked_header(data)
    if header and header.width * header.height > max_pixels:
        raise TooLarge(f"claims {header.width}x{header.height} pixels, and at most {max_pixels} are allowed")
    if header and 0 < header.unpacked <= max_pixels:
        return Image(data, header.unpacked)
    return None


def converted(data: bytes, max_pixels: int = MAX_PIXELS) -> Image:
    """The image as a PNG, through Pillow: TIFF, AVIF and the like, and what TensorFlow should read and does not.

    Raises:
      NoImage: Pillow cannot read it either; `TooLarge` where it claims too many pixels.
    """
    from PIL.Image import DecompressionBombError

    try:
        with _converting:
            png = to_png(data, max_pixels)
    except DecompressionBombError:
        raise TooLarge(f"claims too many pixels, and at most {max_pixels} are allowed") from None
    # Pillow's plugins raise whatever broken bytes lead them into.
    except Exception:
        raise NoImage(UNREADABLE) from None
    return Image(png, checked_header(png).unpacked)
