"""What is done to the bytes of an image before a model gets them: nothing that a header could make expensive.

For whoever asks a published model: files on a disk, and requests from a network.
"""

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass

from components.inspection import MAX_PIXELS, checked_header, claimed_size, to_png

UNREADABLE = "is no image that can be decoded"
# Pillow holds all pixels of what it converts, so that not every thread may at once.
_converting = threading.Semaphore(2)


class NoImage(Exception):
    """Why an image cannot be classified: the end of a sentence that begins with which one."""


class TooLarge(NoImage):
    """It claims more pixels than are allowed."""


@dataclass(frozen=True)
class Image:
    """An image file whose header was looked at.

    Attributes:
      data: the file.
      pixels: that decoding it unpacks.
      ready: the model should be able to decode it; what is not must be `converted` first.
    """

    data: bytes
    pixels: int
    ready: bool = True


def decodable(data: bytes, max_pixels: int = MAX_PIXELS) -> Image:
    """Looks at the header only; what TensorFlow does not decode is converted, as ingestion does it.

    Args:
      data: a file as it is on disk.
      max_pixels: width x height that a header may claim (`data.max_pixels`).

    Raises:
      NoImage: the bytes are empty or no image; `TooLarge` where they claim too many pixels.
    """
    image = checked(data, max_pixels)
    return image if image.ready else converted(data, max_pixels)


def checked(data: bytes, max_pixels: int = MAX_PIXELS) -> Image:
    """As `decodable`, but converts nothing, which may take seconds."""
    if not data:
        raise NoImage("is empty")
    header = checked_header(data)
    if header and header.width * header.height > max_pixels:
        raise TooLarge(f"claims {header.width}x{header.height} pixels, and at most {max_pixels} are allowed")
    if header and 0 < header.unpacked <= max_pixels:
        return Image(data, header.unpacked)
    with _through_pillow(max_pixels):
        width, height = claimed_size(data, max_pixels)
    if width * height > max_pixels:
        raise TooLarge(f"claims {width}x{height} pixels, and at most {max_pixels} are allowed")
    return Image(data, width * height, ready=False)


def converted(data: bytes, max_pixels: int = MAX_PIXELS) -> Image:
    """The image as a PNG, through Pillow: TIFF, AVIF and the like, and what TensorFlow should read and does not.

    Raises:
      NoImage: Pillow cannot read it either; `TooLarge` where it claims too many pixels.
    """
    with _converting, _through_pillow(max_pixels):
        png = to_png(data, max_pixels)
    return Image(png, checked_header(png).unpacked)


@contextlib.contextmanager
def _through_pillow(max_pixels: int) -> Iterator[None]:
    from PIL.Image import DecompressionBombError

    try:
        yield
    except DecompressionBombError:
        raise TooLarge(f"claims too many pixels, and at most {max_pixels} are allowed") from None
    # Pillow's plugins raise whatever broken bytes lead them into.
    except Exception:
        raise NoImage(UNREADABLE) from None
