"""Inputs that a served model meets sooner or later: each must get an answer, or a clean error (G12).

Made here rather than kept as files: most of them are what a few bytes of a header claim.
"""

import io
import struct
import zlib

CLAIMED = 60_000  # pixels each way, as a hostile header has it
LARGE = 4_480  # pixels each way: 20 megapixels, what a telephone takes


def odd_inputs(image: bytes) -> dict[str, bytes]:
    """The inputs by name.

    Args:
      image: a whole file of the kind that the model is for; the truncated one is made of it.
    """
    return {
        "empty string": b"",
        "text": b"<!DOCTYPE html><title>404</title>",
        "truncated file": image[: len(image) // 2],
        "one pixel": png(1, 1),
        "one row of 5,000 pixels": png(5_000, 1),
        "20 megapixels": _large_jpeg(),
        "PNG for a JPEG": png(64, 48),
        "JPEG that claims 60,000 x 60,000": jpeg_claiming(CLAIMED, CLAIMED),
        "JPEG that claims 20,000 x 20,000": jpeg_claiming(20_000, 20_000),
        "PNG that claims 60,000 x 60,000": png_header(CLAIMED, CLAIMED),
        "GIF that claims 60,000 x 60,000": gif_header(CLAIMED, CLAIMED),
        "BMP that claims 60,000 x 60,000": bmp_header(CLAIMED, CLAIMED),
        "WebP that claims 16,383 x 16,383": webp_header(16_383, 16_383),
    }


def _large_jpeg() -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.linear_gradient("L").resize((LARGE, LARGE)).convert("RGB").save(file, "JPEG", quality=80)
    return file.getvalue()


def png(width: int, height: int) -> bytes:
    """A whole grey PNG."""
    rows = b"".join(b"\0" + b"\x80" * width for _ in range(height))
    return png_header(width, height) + _chunk(b"IDAT", zlib.compress(rows)) + _chunk(b"IEND", b"")


def png_header(width: int, height: int) -> bytes:
    """The beginning of a grey PNG of that size, without pixels."""
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def jpeg_claiming(width: int, height: int) -> bytes:
    """A whole JPEG of 8x8 grey pixels whose frame header says that it has that size."""
    from PIL import Image

    file = io.BytesIO()
    Image.new("L", (8, 8), 128).save(file, "JPEG")
    content = bytearray(file.getvalue())
    at = content.index(b"\xff\xc0")
    content[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(content)


def gif_header(width: int, height: int) -> bytes:
    """A GIF whose screen and only frame have that size, without pixels."""
    screen = struct.pack("<HHBBB", width, height, 0x80, 0, 0) + b"\0" * 6
    return b"GIF89a" + screen + b"\x2c" + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\x02\x02\x44\x01\0\x3b"


def bmp_header(width: int, height: int) -> bytes:
    """The header of a 24-bit bitmap of that size, and a few pixels."""
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 2_835, 2_835, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + 300, 0, 0, 54) + info + b"\x80" * 300


def webp_header(width: int, height: int) -> bytes:
    """The beginning of a lossless WebP of that size, without pixels."""
    bits = (width - 1) | (height - 1) << 14
    stream = b"\x2f" + struct.pack("<I", bits) + b"\0" * 11
    content = b"WEBPVP8L" + struct.pack("<I", len(stream)) + stream
    return b"RIFF" + struct.pack("<I", len(content)) + content
