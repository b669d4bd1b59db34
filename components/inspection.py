"""One image file, checked: what it is, whether it can be decoded, and a lossless copy where only Pillow can read it."""

import hashlib
import io
import struct
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import PurePosixPath
from typing import Any

from components import storage
from components.image_files import ImageFile

# What Pillow may open for conversion. Its other plugins are old, rare and a larger surface for hostile files.
PILLOW_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "AVIF", "JPEG2000", "PPM", "ICO", "MPO")
IO_ERROR = "I/O error"
UNDECODABLE = "cannot be decoded"
MAX_PIXELS = 100_000_000  # the default of data.max_pixels
EXTENSIONS = {
    "jpeg": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "png": (".png",),
    "gif": (".gif",),
    "bmp": (".bmp", ".dib"),
    "webp": (".webp",),
    "tiff": (".tif", ".tiff"),
    "avif": (".avif",),
    "jpeg2000": (".jp2", ".j2k"),
    "ppm": (".ppm", ".pgm", ".pbm", ".pnm"),
    "ico": (".ico",),
    "mpo": (".mpo", ".jpg", ".jpeg"),
}


@dataclass(frozen=True)
class Inspected:
    """The verdict on one file.

    Attributes:
      reason: why the file is quarantined; None for a usable image.
      sha256: hexadecimal digest of the file's bytes.
      bytes: size of the file.
      format: `jpeg`, `png`, `gif`, `bmp` or `webp`; for a converted image the format it had.
      height: pixels, as stored.
      width: pixels, as stored.
      channels: of the decoded image, 1 to 4.
      brightness: mean of the decoded pixels, 0 to 255.
      mismatched: the name says another format.
      converted: only Pillow reads it; `readable` gives it as PNG.
    """

    reason: str | None
    sha256: str = ""
    bytes: int = 0
    format: str = ""
    height: int = 0
    width: int = 0
    channels: int = 0
    brightness: float = 0.0
    mismatched: bool = False
    converted: bool = False


def inspect_file(file: ImageFile, max_pixels: int, max_bytes: int) -> dict[str, Any]:
    """Reads and checks one file; one that cannot be read is a quarantined record, not an error.

    Args:
      file: what was listed.
      max_pixels: see `inspect`.
      max_bytes: a larger file is not read.

    Returns:
      A record for `build_catalog`: the file's path, location, class, split and group, and the fields of `Inspected`.
    """
    found = Inspected(None)
    if file.size > max_bytes:
        found = replace(found, reason=f"too large: {file.size} bytes")
    else:
        try:
            found = inspect(storage.read_bytes(file.location), file.path, max_pixels)
        except OSError as error:
            found = replace(found, reason=f"{IO_ERROR}: {error.strerror}")
    names = ("path", "location", "class_name", "split", "group")
    return {name: getattr(file, name) for name in names} | asdict(found)


def inspect(data: bytes, name: str, max_pixels: int) -> Inspected:
    """Checks the header before anything is decoded, then that the whole image decodes.

    Args:
      data: the file's bytes.
      name: its name or path, for the extension.
      max_pixels: a header that claims more is refused undecoded.
    """
    sha256 = hashlib.sha256(data).hexdigest()
    found = Inspected(None, sha256=sha256, bytes=len(data))
    if not data:
        return replace(found, reason="empty file")
    header = checked_header(data)
    if header:
        found = replace(
            found,
            format=header.format,
            width=header.width,
            height=header.height,
            mismatched=_mismatched(header.format, name),
        )
        if header.width * header.height > max_pixels:
            return replace(found, reason=f"too large: {header.width}x{header.height} pixels")
        # TensorFlow unpacks every frame of an animation to get at the first; Pillow stops there.
        if 0 < header.unpacked <= max_pixels:
            decoded = _decode(data, header.format)
            if decoded:
                channels, brightness = decoded
                return replace(found, channels=channels, brightness=brightness)
    return _through_pillow(found, data, name, max_pixels)


def readable(data: bytes, converted: bool, max_pixels: int = MAX_PIXELS) -> bytes:
    """The bytes to store: as they are, or as PNG where TensorFlow cannot read them."""
    return to_png(data, max_pixels) if converted else data


def _mismatched(kind: str, name: str) -> bool:
    extension = PurePosixPath(name).suffix.lower()
    return bool(extension) and extension not in EXTENSIONS.get(kind, (extension,))


def _decode(data: bytes, kind: str) -> tuple[int, float] | None:
    """(channels, mean brightness) as TensorFlow decodes it, or None where it does not."""
    import tensorflow as tf

    with tf.device("/CPU:0"):
        try:
            # What Transform will ask for; formats differ in which channel counts they can convert. It comes first:
            # not told how many, TensorFlow 2.21 writes four channels of an opaque animated WebP into room for three.
            if kind in ("webp", "bmp"):
                tf.io.decode_image(data, channels=3, expand_animations=False)
            if kind == "jpeg":
                # All the compressed data is read, but only 1/64 of the pixels are computed.
                image = tf.io.decode_jpeg(data, ratio=8)
            else:
                image = tf.io.decode_image(data, expand_animations=False)
        except tf.errors.OpError:
            return None
    return int(image.shape[-1]), float(image.numpy().mean())


def _through_pillow(found: Inspected, data: bytes, name: str, max_pixels: int) -> Inspected:
    import numpy as np
    from PIL import Image

    try:
        with _opened(data, max_pixels) as image:
            kind, (width, height) = image.format.lower(), image.size
            found = replace(found, format=kind, width=width, height=height, mismatched=_mismatched(kind, name))
            if width * height > max_pixels:
                return replace(found, reason=f"too large: {width}x{height} pixels")
            if image.mode == "F" or (image.mode == "I" and kind != "ppm"):
                return replace(found, reason=f"{kind} of float or 32-bit pixels: which of them is white is not known")
            channels = len(image.getbands())
            upright = _upright(image)
            # All that will be done to store it: what fails here would fail later, far from a quarantine.
            _saved(upright)
            pixels = np.asarray(upright)
            brightness = float(pixels.mean()) / (256 if pixels.dtype == np.uint16 else 1)
            return replace(found, channels=channels, brightness=brightness, converted=True)
    # Pillow's plugins raise whatever the broken bytes lead them into; each means that the image cannot be read.
    except Exception as error:
        kind = found.format or "image"
        reason = f"{kind} {UNDECODABLE}" if found.format else "not an image"
        if isinstance(error, Image.DecompressionBombError):
            reason = "too large: Pillow refuses the header"
        return replace(found, reason=reason)


def to_png(data: bytes, max_pixels: int = MAX_PIXELS) -> bytes:
    """The image as PNG, for what only Pillow reads; raises whatever Pillow does where it cannot."""
    with _opened(data, max_pixels) as image:
        return _saved(_upright(image))


def claimed_size(data: bytes, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """(width, height) as Pillow reads them from the header; raises whatever Pillow does where it cannot."""
    with _opened(data, max_pixels) as image:
        return image.size


def _opened(data: bytes, max_pixels: int):
    """A Pillow image, not decoded yet; an error where its header claims more pixels than are allowed."""
    from PIL import Image

    # Pillow refuses twice this, also inside containers such as ICO that it unpacks while it opens them. The limit is
    # the process's; every caller in it has the same.
    Image.MAX_IMAGE_PIXELS = max(1, max_pixels // 2)
    return Image.open(io.BytesIO(data), formats=PILLOW_FORMATS)


def _upright(image):
    """RGB, or 16-bit grey as it is: TensorFlow reads that as any 16-bit PNG, whereas Pillow would clip it to white.

    Turned as its EXIF orientation says, because the PNG does not carry that on.
    """
    from PIL import ImageOps

    turned = ImageOps.exif_transpose(image)
    storable = turned.convert("I").convert("I;16") if turned.mode.startswith("I") else turned.convert("RGB")
    # Alpha is dropped; what is left of it in a greyscale or palette file is none that an RGB file could have.
    storable.info.pop("transparency", None)
    return storable


def _saved(image) -> bytes:
    png = io.BytesIO()
    image.save(png, "PNG", compress_level=1)
    return png.getvalue()


# ---- headers --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Header:
    """What the first bytes of a file say that TensorFlow decodes.

    Attributes:
      format: `jpeg`, `png`, `gif`, `bmp` or `webp`.
      width: pixels, as stored.
      height: pixels, as stored.
      unpacked: pixels that TensorFlow would unpack to decode it, all frames of an animation; 0 where the header does
        not say: TensorFlow must not be given that.
    """

    format: str
    width: int
    height: int
    unpacked: int


def checked_header(data: bytes) -> Header | None:
    """`read_header` of what may be cut off, with what decoding would cost; None where TensorFlow reads no such file."""
    try:
        header = read_header(data)
    except (struct.error, IndexError):
        return None
    if header is None:
        return None
    kind, width, height = header
    unpacked = width * height
    if kind == "gif" and unpacked:
        unpacked = max(unpacked, sum(w * h for w, h in _gif_frames(data)))
    return Header(kind, width, height, unpacked)


def read_header(data: bytes) -> tuple[str, int, int] | None:
    """(format, width, height) from the first bytes of what TensorFlow decodes; None for anything else.

    Nothing is decoded: the cost does not depend on the size that the header claims.
    """
    if data.startswith(b"\xff\xd8\xff"):
        return _jpeg_header(data)
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return ("png", *struct.unpack(">II", data[16:24]))
    if data[:6] in (b"GIF87a", b"GIF89a"):
        return _gif_header(data)
    if data.startswith(b"BM"):
        (header_size,) = struct.unpack("<I", data[14:18])
        # OS/2's first header, of 12 bytes, has shorter fields.
        width, height = struct.unpack("<HH", data[18:22]) if header_size == 12 else struct.unpack("<ii", data[18:26])
        return "bmp", abs(width), abs(height)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _webp_header(data)
    return None


def _jpeg_header(data: bytes) -> tuple[str, int, int] | None:
    position = 2
    while position + 9 <= len(data):
        if data[position] != 0xFF:
            position = data.find(b"\xff", position)  # libjpeg, too, skips bytes between segments
            if position < 0:
                break
            continue
        marker = data[position + 1]
        if marker in (0xFF, 0x00, 0x01) or 0xD0 <= marker <= 0xD8:
            position += 1 if marker == 0xFF else 2
            continue
        (length,) = struct.unpack(">H", data[position + 2 : position + 4])
        # SOF0 to SOF15 without DHT (C4), JPG (C8) and DAC (CC).
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">HH", data[position + 5 : position + 9])
            return "jpeg", width, height
        position += 2 + length
    return "jpeg", 0, 0


def _gif_header(data: bytes) -> tuple[str, int, int]:
    """The screen, or the largest frame where that is larger: the decoder allocates what each frame claims."""
    sizes = [struct.unpack("<HH", data[6:10]), *_gif_frames(data)]
    return "gif", max(width for width, _ in sizes), max(height for _, height in sizes)


def _gif_frames(data: bytes) -> Iterator[tuple[int, int]]:
    """Width and height of each frame; a file that is cut off ends them, the decoder will say so."""
    try:
        position = 13 + _colours(data[10])
        while data[position] in (0x21, 0x2C):
            if data[position] == 0x2C:
                yield struct.unpack("<HH", data[position + 5 : position + 9])
                position += 11 + _colours(data[position + 9])
            else:
                position += 2
            while data[position]:
                position += 1 + data[position]
            position += 1
    except (IndexError, struct.error):
        return


def _colours(flags: int) -> int:
    """Bytes of the colour table that a GIF's flags announce."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _webp_header(data: bytes) -> tuple[str, int, int] | None:
    kind = data[12:16]
    if kind == b"VP8X":
        return "webp", 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if kind == b"VP8L":
        bits = struct.unpack("<I", data[21:25])[0]
        return "webp", 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        width, height = struct.unpack("<HH", data[26:30])
        return "webp", width & 0x3FFF, height & 0x3FFF
    return None
