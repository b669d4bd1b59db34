"""A fast lossless PNG writer for small RGB images.

Transform stores every image; with libpng's level 1 that took longer than decoding and resizing it did. Intel's ISA-L
compresses as well six times faster, and of PNG's filters one that costs nothing does nearly as well as the best of each
row (67 against 62 KB for a photograph at 224 pixels; `docs/your_data.md`). What it writes, every PNG reader reads.
"""

import struct
import zlib

import numpy as np
from isal import isal_zlib

SIGNATURE = b"\x89PNG\r\n\x1a\n"
# ISA-L's levels go from 0 to 3; 1 is 12 % smaller than 0 at the same speed, 2 no smaller.
LEVEL = 1
UP = 2


def encode(image: np.ndarray) -> bytes:
    """A PNG file (ISO/IEC 15948).

    Args:
      image: uint8 [height, width, 3], RGB.
    """
    height, width, channels = image.shape
    rows = image.reshape(height, width * channels)
    filtered = np.empty((height, 1 + width * channels), np.uint8)
    # Filter "Up": every byte less the one above it, modulo 256.
    filtered[:, 0] = UP
    filtered[0, 1:] = rows[0]
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"".join(
        [
            SIGNATURE,
            _chunk(b"IHDR", header),
            _chunk(b"IDAT", isal_zlib.compress(filtered, LEVEL)),
            _chunk(b"IEND", b""),
        ]
    )


def _chunk(name: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(content, zlib.crc32(name))
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)
