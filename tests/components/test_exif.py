"""EXIF orientations, in the bytes of every container that the graph reads them from."""

import io
import struct

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from components import exif, inspection, pixels


@pytest.fixture(scope="module")
def orientation():
    """The function as a graph, which is how it is used."""
    function = tf.function(exif.orientation, input_signature=[tf.TensorSpec([], tf.string)])
    return lambda data: int(function(data))


@pytest.fixture(scope="module")
def decode():
    function = tf.function(pixels.decode, input_signature=[tf.TensorSpec([], tf.string)])
    return lambda data: function(data).numpy()


def picture() -> Image.Image:
    """48 by 32, a different colour in each corner, so that no two orientations look the same."""
    image = Image.new("RGB", (48, 32), "black")
    for box, colour in (((0, 0), "red"), ((32, 0), "green"), ((0, 16), "blue"), ((32, 16), "white")):
        image.paste(colour, (*box, box[0] + 16, box[1] + 16))
    return image


def tiff(number: int, big: bool = False, kind: int = 3, before: int = 0) -> bytes:
    """An EXIF block with an orientation behind `before` other fields."""
    order = ">" if big else "<"
    header = (b"MM\0*" if big else b"II*\0") + struct.pack(order + "I", 8)
    fields = [struct.pack(order + "HHII", 0x100 + index, 4, 1, 99) for index in range(before)]
    value = struct.pack(order + ("I" if kind == 4 else "HH"), *([number] if kind == 4 else [number, 0]))
    fields.append(struct.pack(order + "HHI", 0x112, kind, 1) + value)
    return header + struct.pack(order + "H", len(fields)) + b"".join(fields) + b"\0\0\0\0"


def jpeg(*segments: tuple[int, bytes]) -> bytes:
    """A JPEG with these application segments behind its JFIF header."""
    plain = io.BytesIO()
    picture().save(plain, "JPEG", quality=95, subsampling=0)
    data = plain.getvalue()
    added = b"".join(
        bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content for marker, content in segments
    )
    return data[:20] + added + data[20:]


def saved(kind: str, number: int, **options) -> bytes:
    """What Pillow writes with an orientation."""
    tags = Image.Exif()
    tags[0x112] = number
    file = io.BytesIO()
    picture().save(file, kind, exif=tags, **options)
    return file.getvalue()


CONTAINERS = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "PNG": {},
    "WEBP": {"lossless": True},
}


@pytest.mark.parametrize("kind", CONTAINERS)
@pytest.mark.parametrize("number", range(1, 9))
def test_d6_all_eight_orientations_are_read_and_turned_as_pillow_turns_them(orientation, decode, kind, number):
    data = saved(kind, number, **CONTAINERS[kind])
    assert orientation(data) == number
    with Image.open(io.BytesIO(data)) as image:
        upright = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    decoded = decode(data)
    assert decoded.shape == upright.shape
    # Decoders may round differently; a wrong turn would be off by 255.
    assert np.abs(decoded.astype(int) - upright).max() <= 6


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("kind", [3, 4])
@pytest.mark.parametrize("before", [0, 7])
def test_byte_orders_and_integer_widths(orientation, big, kind, before):
    assert orientation(jpeg((0xE1, b"Exif\0\0" + tiff(6, big, kind, before)))) == 6


def test_block_behind_other_segments_is_found(orientation):
    xmp = (0xE1, b"http://ns.adobe.com/xap/1.0/\0<x/>")
    colour_profile = [(0xE2, b"ICC_PROFILE\0" + bytes(60_000))] * 4
    assert orientation(jpeg(xmp, *colour_profile, (0xE1, b"Exif\0\0" + tiff(8)))) == 8


def test_block_behind_stray_bytes_or_tables_is_found(orientation):
    data = jpeg((0xE1, b"Exif\0\0" + tiff(6)))
    assert orientation(data[:20] + b"\x01\x02" + data[20:]) == 6
    tables = b"\xff\xdb" + struct.pack(">H", 67) + bytes(65)
    assert orientation(data[:2] + tables + data[2:]) == 6


def test_block_inside_another_segment_is_not_taken_for_the_files_own(orientation):
    thumbnail = jpeg((0xE1, b"Exif\0\0" + tiff(3)))
    assert orientation(jpeg((0xED, b"Photoshop 3.0\0" + thumbnail))) == 1


@pytest.mark.parametrize(
    "block",
    [
        b"",
        b"I",
        b"II*\0",
        b"II*\0\xff\xff\xff\xff",
        b"II*\0\x08\0\0\0\xff\xff",
        b"MM\0*\x7f\xff\xff\xff" + bytes(40),
        tiff(6)[:-8],
        tiff(0),
        tiff(9),
        tiff(65535),
        bytes(30),
    ],
)
def test_broken_block_means_upright(orientation, block):
    assert orientation(jpeg((0xE1, b"Exif\0\0" + block))) == 1


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"\xff\xd8\xff",
        b"\xff\xd8\xff\xe1Exif",
        b"\xff\xd8\xff\xe1\0\0Exif\0\0" + tiff(6),
        b"\x89PNG\r\n\x1a\n\xff\xff\xff\xffeXIf",
        b"\x89PNG\r\n\x1a\n\x7f\xff\xff\xffeXIf" + tiff(6)[:9],
        b"RIFF\0\0\0\0WEBPVP8X\xff\xff\xff\xffEXIF",
        b"Exif eXIf EXIF",
    ],
)
def test_broken_file_means_upright_and_ends(orientation, data):
    assert orientation(data) == 1


@pytest.mark.parametrize("kind", ["TIFF", "AVIF"])
def test_converted_files_are_turned_when_they_are_converted(orientation, decode, kind):
    data = saved(kind, 6, **({"quality": 100} if kind == "AVIF" else {}))
    png = inspection.to_png(data)
    assert orientation(png) == 1
    with Image.open(io.BytesIO(data)) as image:
        upright = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    assert upright.shape[:2] == (48, 32)
    np.testing.assert_array_equal(decode(png), upright)


def test_images_of_one_batch_are_turned_each_its_own_way():
    files = [saved("JPEG", number, quality=95, subsampling=0) for number in range(1, 9)]
    prepared = pixels.prepare(tf.constant(files), size=32, mode="stretch", storage="png").numpy()
    with Image.open(io.BytesIO(files[0])) as image:
        first = np.asarray(image.resize((32, 32), Image.Resampling.BILINEAR))
    assert np.abs(prepared[0].astype(int) - first).mean() < 3
    assert all((prepared[0] != other).any() for other in prepared[1:])
