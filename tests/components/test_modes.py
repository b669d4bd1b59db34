"""D6: whatever way a picture is stored, the network sees the RGB that a person sees."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from components import pixels

RAMP = np.stack(np.meshgrid(np.arange(0, 256, 4), np.arange(0, 256, 8)), -1)
COLOURS = Image.fromarray(np.concatenate([RAMP, 255 - RAMP[..., :1]], -1).astype(np.uint8))
HALF_SEEN = Image.merge("RGBA", [*COLOURS.split(), Image.new("L", COLOURS.size, 128)])


def saved(image: Image.Image, kind: str, **options) -> bytes:
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


STORED = {
    "greyscale": (saved(COLOURS.convert("L"), "PNG"), COLOURS.convert("L"), 0),
    "greyscale JPEG": (saved(COLOURS.convert("L"), "JPEG", quality=100), COLOURS.convert("L"), 3),
    "one bit": (saved(COLOURS.convert("1"), "PNG"), COLOURS.convert("1"), 0),
    "palette": (saved(COLOURS.quantize(64), "PNG"), COLOURS.quantize(64), 0),
    "palette GIF": (saved(COLOURS.quantize(64), "GIF"), COLOURS.quantize(64), 0),
    "alpha is dropped": (saved(HALF_SEEN, "PNG"), COLOURS, 0),
    "greyscale and alpha": (saved(HALF_SEEN.convert("LA"), "PNG"), COLOURS.convert("L"), 0),
    "CMYK JPEG": (saved(COLOURS.convert("CMYK"), "JPEG", quality=95, subsampling=0), COLOURS.convert("CMYK"), 8),
    "animation": (
        saved(COLOURS.quantize(64), "GIF", save_all=True, append_images=[COLOURS.rotate(180).quantize(64)]),
        COLOURS.quantize(64),
        0,
    ),
    "bitmap": (saved(COLOURS, "BMP"), COLOURS, 0),
    "lossless WebP": (saved(COLOURS, "WEBP", lossless=True), COLOURS, 0),
}


@pytest.mark.parametrize("name", STORED)
def test_d6_every_way_of_storing_gives_the_rgb_of_the_picture(name):
    data, image, tolerance = STORED[name]
    decoded = pixels.decode(tf.constant(data)).numpy().astype(int)
    expected = np.asarray(image.convert("RGB")).astype(int)
    assert decoded.shape == expected.shape
    assert np.abs(decoded - expected).max() <= tolerance


def test_d6_16_bits_keep_the_upper_eight():
    wide = np.arange(0, 65536, 64, np.uint16).reshape(32, 32)
    decoded = pixels.decode(tf.constant(saved(Image.fromarray(wide), "PNG"))).numpy()
    np.testing.assert_array_equal(decoded, np.repeat((wide >> 8).astype(np.uint8)[:, :, None], 3, 2))


@pytest.mark.parametrize("name", ["ycck.jpg", "jpg-cmyk-2.jpg", "basn2c16.png", "basi3p01.png"])
def test_d6_real_files_look_as_pillow_shows_them(shared, name):
    path = shared / "odd_images" / name
    decoded = pixels.decode(tf.constant(path.read_bytes())).numpy().astype(int)
    with Image.open(path) as image:
        expected = np.asarray(image.convert("RGB")).astype(int)
    assert np.abs(decoded - expected).mean() < 3
