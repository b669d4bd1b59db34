"""The EXIF orientation of an encoded image, read from its bytes with TensorFlow operations.

It must be part of the graph: the exported model gets files as they are on disk, and a phone's photograph that lay on
its side in training must lie the same way in service.
"""

import functools
from collections.abc import Callable, Sequence

import tensorflow as tf

# EXIF 2.32, section 4.6.4.
ORIENTATION_TAG = 0x0112
LONG = 4
# What a JPEG's block begins with; a PNG's and a WebP's chunks are called `eXIf` and `EXIF`.
PREFIX = b"Exif\0\0"
# Of blocks, and bytes between them, that a walk looks at before it gives up; files have fewer than twenty.
MOST_BLOCKS = 500

Step = Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor, tf.Tensor]]


def orientation(encoded: tf.Tensor) -> tf.Tensor:
    """Orientation of a JPEG, of a PNG with an `eXIf` chunk before its pixels, or of a WebP with an `EXIF` chunk.

    It takes a fifth to a third of a millisecond (`benchmarks/ingest.py orientation`).

    Args:
      encoded: string scalar, a file's bytes.

    Returns:
      int32 scalar, 1 to 8; 1 where there is none, or none that can be read.
    """
    length = tf.strings.length(encoded)
    start = tf.strings.substr(encoded, 0, 3)

    def upright() -> tf.Tensor:
        return tf.constant(1)

    def after_walk(first: int, width: int, step: Step) -> tf.Tensor:
        begin, size = _walk(encoded, length, first, width, step)
        return tf.cond(size > 0, lambda: _in_tiff(tf.strings.substr(encoded, begin, size)), upright)

    kind = tf.where(start == b"\xff\xd8\xff", 1, tf.where(start == b"\x89PN", 2, tf.where(start == b"RIF", 3, 0)))
    walks = [(2, 10, _jpeg_segment), (8, 8, _png_chunk), (12, 8, _webp_chunk)]
    branches = [upright, *(functools.partial(after_walk, *walk) for walk in walks)]
    return choose(kind, branches)


def choose(index: tf.Tensor, branches: Sequence[Callable]) -> tf.Tensor:
    """`tf.switch_case` made of conds: TensorFlow Transform cannot serialise its operation beside analyzers."""
    if len(branches) == 1:
        return branches[0]()
    return tf.cond(index == 0, branches[0], lambda: choose(index - 1, branches[1:]))


def _walk(encoded: tf.Tensor, length: tf.Tensor, first: int, width: int, step: Step) -> tuple[tf.Tensor, tf.Tensor]:
    """Goes from block to block until `step` finds the one; (0, 0) where it does not.

    Args:
      encoded: the file.
      length: its bytes.
      first: position of the first block.
      width: bytes that `step` looks at.
      step: (int32 [width], position) to (position of the next block or -1, the content's position, its size or 0).

    Returns:
      Where the block's content begins, and how many bytes it has.
    """

    def goes_on(position: tf.Tensor, _: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
        return (position > 0) & (position < length) & (size == 0)

    def body(position: tf.Tensor, _: tf.Tensor, __: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        return step(_padded(tf.strings.substr(encoded, position, width), width), position)

    start = (tf.constant(first), tf.constant(0), tf.constant(0))
    _, begin, size = tf.while_loop(goes_on, body, start, maximum_iterations=MOST_BLOCKS, parallel_iterations=1)
    # A broken file may announce a block that begins beyond its end.
    return begin, tf.where(begin < length, size, 0)


def _jpeg_segment(block: tf.Tensor, position: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """A marker, then the length of its segment; fill bytes and markers without a segment are stepped over."""
    marker, length = block[1], _short(block[2:4], big=True)
    alone = (marker == 0x01) | ((marker >= 0xD0) & (marker <= 0xD8))
    # Bytes between segments are passed over, as libjpeg does.
    junk = (block[0] != 0xFF) | (marker == 0x00)
    after = tf.where(junk | (marker == 0xFF), position + 1, position + 2 + tf.where(alone, 0, length))
    # The image ends, or its pixels begin.
    last = ~junk & ((marker == 0xD9) | (marker == 0xDA))
    # Other things than EXIF come under the same marker.
    found = ~junk & (marker == 0xE1) & _is(block[4:], PREFIX)
    return tf.where(last, -1, after), position + 4, tf.where(found, length - 2, 0)


def _png_chunk(block: tf.Tensor, position: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Length, then name; nothing is looked for behind the first `IDAT`."""
    length, name = _long(block[:4], big=True), block[4:]
    last = _is(name, b"IDAT") | (length < 0)
    return tf.where(last, -1, position + 12 + length), position + 8, tf.where(_is(name, b"eXIf"), length, 0)


def _webp_chunk(block: tf.Tensor, position: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Name, then length, with a byte of padding after an odd one."""
    name, length = block[:4], _long(block[4:], big=False)
    after = tf.where(length < 0, -1, position + 8 + length + length % 2)
    return after, position + 8, tf.where(_is(name, b"EXIF"), length, 0)


def _in_tiff(block: tf.Tensor) -> tf.Tensor:
    """The orientation in the first directory of a TIFF structure; `Exif` and two zeros may come before it."""
    block = tf.strings.regex_replace(block, f"^{PREFIX[:4].decode()}\\x00\\x00", "")
    values = tf.cast(tf.io.decode_raw(block, tf.uint8), tf.int32)
    # Whatever a broken block says its sizes are, what is read lies inside it or in these zeros.
    values = tf.concat([values, tf.zeros([16], tf.int32)], 0)
    end = tf.size(values) - 2
    big = values[0] == ord("M")
    directory = _long(values[4:8], big)
    directory = tf.where((directory < 0) | (directory > end), end, directory)
    rows = tf.minimum(_short(values[directory : directory + 2], big), (end - directory) // 12)
    fields = tf.reshape(values[directory + 2 : directory + 2 + rows * 12], [-1, 12])
    tags, kinds = _short(fields[:, 0:2], big), _short(fields[:, 2:4], big)
    # A 32-bit number has its low half in the first two bytes or in the last two.
    numbers = tf.where((kinds == LONG) & big, _short(fields[:, 10:12], big), _short(fields[:, 8:10], big))
    number = tf.concat([tf.boolean_mask(numbers, tags == ORIENTATION_TAG), [1]], 0)[0]
    return tf.where((number >= 1) & (number <= 8), number, 1)


def _padded(text: tf.Tensor, count: int) -> tf.Tensor:
    """int32 [count], the bytes of a string of at most that many, zeros behind them."""
    return tf.cast(tf.io.decode_raw(text, tf.uint8, fixed_length=count), tf.int32)


def _is(values: tf.Tensor, name: bytes) -> tf.Tensor:
    return tf.reduce_all(values == list(name))


def _short(values: tf.Tensor, big: bool | tf.Tensor) -> tf.Tensor:
    """int32 [...] from bytes [..., 2]."""
    return tf.where(big, values[..., 0] * 256 + values[..., 1], values[..., 1] * 256 + values[..., 0])


def _long(values: tf.Tensor, big: bool | tf.Tensor) -> tf.Tensor:
    """int32 scalar from bytes [4]; negative from 2 GiB on."""
    high, low = _short(values[:2], big), _short(values[2:], big)
    return tf.where(big, high * 65536 + low, low * 65536 + high)
