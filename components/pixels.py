"""From encoded bytes to what the network sees: the one definition that Transform, training and serving share.

Pure TensorFlow functions, each usable eagerly and inside any graph. Decoding and resizing end in uint8 on every path,
so that what Transform stores and what the exported model computes from raw bytes are the same pixels.
"""

import functools
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from components import exif

JPEG_QUALITY = 95
# A JPEG may be decoded smaller when this many times the wanted pixels remain for the antialiased resize.
OVERSAMPLING = 2
RATIOS = (1, 2, 4, 8)
# Pixels that TensorFlow decodes at most.
LARGEST = 2**29


def decode(encoded: tf.Tensor, size: int | None = None) -> tf.Tensor:
    """Decodes one image by its content, whatever its name said, and turns it upright.

    Args:
      encoded: string scalar, the bytes of a JPEG, PNG, GIF (first frame), BMP or WebP file.
      size: side in pixels of what it will be resized to; a JPEG much larger than that is decoded at a half, a quarter
        or an eighth of its size, whichever still leaves `OVERSAMPLING` times that many pixels on the shorter side.
        None decodes every pixel.

    Returns:
      uint8 [height, width, 3], RGB, turned as its EXIF orientation says.

    Raises:
      tf.errors.InvalidArgumentError: the bytes are no such image, or one of more than `LARGEST` pixels.
    """

    def other() -> tf.Tensor:
        return tf.io.decode_image(encoded, channels=3, expand_animations=False)

    def jpeg() -> tf.Tensor:
        if size is None:
            return tf.io.decode_jpeg(encoded, channels=3)
        sides = tf.image.extract_jpeg_shape(encoded)[:2]
        # Each halving of the size is one more of these.
        wide = [tf.reduce_min(sides) >= size * OVERSAMPLING * ratio for ratio in RATIOS[1:]]
        # TensorFlow's limit is on what comes out: an eighth of 60,000 x 60,000 claimed pixels would pass it, and take a
        # second. Undivided it is refused at once.
        possible = tf.reduce_prod(tf.cast(sides, tf.int64)) <= LARGEST
        halvings = tf.reduce_sum([tf.cast(one & possible, tf.int32) for one in wide])
        decoders = [functools.partial(tf.io.decode_jpeg, encoded, channels=3, ratio=ratio) for ratio in RATIOS]
        return exif.choose(halvings, decoders)

    image = tf.cond(tf.strings.substr(encoded, 0, 3) == b"\xff\xd8\xff", jpeg, other)
    image.set_shape([None, None, 3])
    return turn(image, exif.orientation(encoded))


def turn(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Turns an image as its EXIF orientation says.

    Args:
      image: uint8 [height, width, 3], as stored.
      orientation: int32 scalar, 1 to 8 (EXIF 2.32, tag 274).

    Returns:
      uint8 [height, width, 3], or [width, height, 3] for 5 to 8, upright.
    """
    image = tf.cond(orientation >= 5, lambda: tf.transpose(image, [1, 0, 2]), lambda: image)
    # Which of the transposed or stored image's axes run backwards.
    upside_down = tf.reduce_any(orientation == [3, 4, 7, 8])
    mirrored = tf.reduce_any(orientation == [2, 3, 6, 7])
    image = tf.cond(upside_down, lambda: image[::-1], lambda: image)
    image = tf.cond(mirrored, lambda: image[:, ::-1], lambda: image)
    return tf.ensure_shape(image, [None, None, 3])


def resize(image: tf.Tensor, size: int, mode: str = "stretch") -> tf.Tensor:
    """Resizes with antialiasing and rounds to uint8.

    Args:
      image: uint8 [height, width, 3].
      size: side of the square result, in pixels.
      mode: `stretch` ignores the aspect ratio; `crop` keeps it and cuts the middle square; `pad` keeps it and fills
        with black.

    Returns:
      uint8 [size, size, 3].
    """
    if mode == "crop":
        shape = tf.shape(image)
        side = tf.minimum(shape[0], shape[1])
        top, left = (shape[0] - side) // 2, (shape[1] - side) // 2
        image = image[top : top + side, left : left + side]
    resized = _resize_and_pad(image, size) if mode == "pad" else tf.image.resize(image, [size, size], antialias=True)
    # Rounds half up. Means of uint8 pixels lie between 0 and 255, so that nothing needs clipping; `tf.round` and
    # `tf.clip_by_value` took a fifth of the time of the whole resize.
    return tf.ensure_shape(tf.cast(resized + 0.5, tf.uint8), [size, size, 3])


def _resize_and_pad(image: tf.Tensor, size: int) -> tf.Tensor:
    """`tf.image.resize_with_pad`, which leaves nothing of a picture thinner than a pixel of the result."""
    shape = tf.cast(tf.shape(image)[:2], tf.float32)
    inner = tf.maximum(1, tf.cast(tf.floor(shape * (size / tf.reduce_max(shape))), tf.int32))
    # The longer side is exactly `size`, whatever the division says.
    inner = tf.where(shape == tf.reduce_max(shape), size, inner)
    top, left = (size - inner[0]) // 2, (size - inner[1]) // 2
    return tf.image.pad_to_bounding_box(tf.image.resize(image, inner, antialias=True), top, left, size, size)


def store(image: tf.Tensor, storage: str) -> tf.Tensor:
    """One resized image as a string for the transformed examples.

    Args:
      image: uint8 [size, size, 3].
      storage: `png` (lossless) or `jpeg` (quality 95).

    Returns:
      string scalar: a JPEG, or for `png` the bare pixels behind TensorFlow's header; TensorFlow's own PNG encoder is
      slow, so that `components.transform` writes the file.
    """
    return tf.io.encode_jpeg(image, quality=JPEG_QUALITY) if storage == "jpeg" else tf.io.serialize_tensor(image)


def restore(stored: tf.Tensor, size: int) -> tf.Tensor:
    """A stored PNG or JPEG to uint8 [size, size, 3]."""
    return tf.ensure_shape(tf.io.decode_image(stored, channels=3, expand_animations=False), [size, size, 3])


def prepare(encoded: tf.Tensor, *, size: int, mode: str, storage: str) -> tf.Tensor:
    """Raw bytes to the pixels that training saw.

    Where JPEG is stored, this encodes and decodes too, so that serving sees the same compression artefacts.

    Args:
      encoded: string [batch], files as they are on disk.
      size: side in pixels.
      mode: see `resize`.
      storage: `png`, `jpeg` or `float`.

    Returns:
      uint8 [batch, size, size, 3].
    """

    def one(item: tf.Tensor) -> tf.Tensor:
        image = resize(decode(item, size), size, mode)
        return restore(store(image, storage), size) if storage == "jpeg" else image

    return tf.map_fn(one, encoded, fn_output_signature=tf.TensorSpec([size, size, 3], tf.uint8))


def prepare_stored(encoded: tf.Tensor, *, size: int, mode: str, storage: str) -> tf.Tensor:
    """Raw bytes to what `store` makes of them: string [batch] to string [batch] (`png` and `jpeg`)."""
    one = functools.partial(_prepare_one_stored, size=size, mode=mode, storage=storage)
    return tf.map_fn(one, encoded, fn_output_signature=tf.TensorSpec([], tf.string))


def _prepare_one_stored(item: tf.Tensor, size: int, mode: str, storage: str) -> tf.Tensor:
    return store(resize(decode(item, size), size, mode), storage)


def normalise(
    pixels: tf.Tensor,
    channel_order: Sequence[int] | tf.Tensor,
    scale: Sequence[float] | tf.Tensor,
    offset: Sequence[float] | tf.Tensor,
) -> tf.Tensor:
    """Reorders the channels, then multiplies and adds per channel.

    Args:
      pixels: uint8 or float [..., 3], RGB, 0 to 255.
      channel_order: int64 [3], which input channel goes where; `(2, 1, 0)` makes BGR.
      scale: float32 [3], applied first.
      offset: float32 [3], applied second.

    Returns:
      float32 [..., 3].
    """
    values = tf.cast(pixels, tf.float32)
    order = tf.get_static_value(tf.convert_to_tensor(channel_order))
    # A gather costs as much again as all the rest; the two orders that occur need none.
    if order is not None and order.tolist() == [2, 1, 0]:
        values = tf.reverse(values, [-1])
    elif order is None or order.tolist() != [0, 1, 2]:
        values = tf.gather(values, tf.cast(channel_order, tf.int32), axis=-1)
    return values * tf.cast(scale, tf.float32) + tf.cast(offset, tf.float32)


def denormalise(values: np.ndarray, channel_order: np.ndarray, scale: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """The pixels that `normalise` was given.

    Args:
      values: float32 [..., 3], of uint8 pixels.
      channel_order: as for `normalise`.
      scale: as for `normalise`, not 0.
      offset: as for `normalise`.

    Returns:
      uint8 [..., 3], RGB.
    """
    restored = np.empty(values.shape, np.uint8)
    restored[..., channel_order] = np.rint((values.astype(np.float64) - offset) / scale)
    return restored
