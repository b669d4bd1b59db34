"""One image file: what is kept, what is converted, and what is refused before it costs anything."""

import csv
import io
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from components.inspection import inspect, readable

MAX_PIXELS = 100_000_000
SIZE = (24, 16)


def picture(mode="RGB") -> Image.Image:
    """A smooth picture that no flip, rotation or swap of channels leaves as it is."""
    x, y = np.meshgrid(np.linspace(0, 1, SIZE[0]), np.linspace(0, 1, SIZE[1]))
    rgb = np.stack([200 * x, 150 * y, 60 + 0 * x], axis=-1).astype(np.uint8)
    image = Image.fromarray(rgb).convert(mode)
    if mode == "RGBA":
        image.putalpha(Image.linear_gradient("L").resize(SIZE))
    return image


def encoded(image=None, kind="PNG", **options) -> bytes:
    file = io.BytesIO()
    (image or picture()).save(file, kind, **options)
    return file.getvalue()


def decoded(data: bytes) -> np.ndarray:
    """As Transform decodes what ingestion stores."""
    return tf.io.decode_image(data, channels=3, expand_animations=False).numpy()


def kept(data: bytes, name: str):
    found = inspect(data, name, MAX_PIXELS)
    assert found.reason is None
    return found


# ---- D1: what is no image -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (encoded(kind="JPEG")[:-200], "jpeg cannot be decoded"),
        (encoded(kind="JPEG")[:20], "jpeg cannot be decoded"),
        (encoded(kind="PNG")[:-60], "png cannot be decoded"),
        (encoded(kind="PNG")[:20], "not an image"),
        (encoded(kind="GIF")[:-60], "gif cannot be decoded"),
        (encoded(kind="BMP")[:-60], "bmp cannot be decoded"),
        (encoded(kind="WEBP")[:-60], "webp cannot be decoded"),
        (encoded(kind="TIFF")[:-60], "tiff cannot be decoded"),
        (np.random.default_rng(1).bytes(4000), "not an image"),
        (b"<!DOCTYPE html><title>404</title>", "not an image"),
        (b"\xff\xd8\xff", "jpeg cannot be decoded"),
        (b"BM", "not an image"),
        (b"RIFF\0\0\0\0WEBP", "not an image"),
    ],
)
def test_d1_broken_file_named_jpg_is_quarantined_with_a_reason(data, reason):
    assert inspect(data, "cat/1.jpg", MAX_PIXELS).reason == reason


def test_every_verdict_has_the_digest_and_size_of_the_file():
    found = inspect(b"abc", "1.jpg", MAX_PIXELS)
    assert found.sha256 == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert found.bytes == 3


# ---- D3: named as another format ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["PNG", "GIF", "WEBP", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM"])
def test_d3_content_of_another_format_in_a_jpg_is_kept_and_counted(kind):
    data = encoded(kind=kind)
    found = kept(data, "cat/1.jpg")
    assert (found.format, found.mismatched) == (kind.lower(), True)
    assert decoded(readable(data, found.converted)).shape == (16, 24, 3)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("JPEG", "1.JPG"),
        ("JPEG", "1.jpeg"),
        ("JPEG", "1.jfif"),
        ("PNG", "1.png"),
        ("GIF", "1.gif"),
        ("BMP", "1.bmp"),
        ("WEBP", "1.webp"),
        ("TIFF", "1.tif"),
        ("TIFF", "1.tiff"),
        ("AVIF", "1.avif"),
        ("JPEG2000", "1.jp2"),
        ("PPM", "1.pnm"),
        ("ICO", "1.ico"),
        ("JPEG", "no-extension"),
    ],
)
def test_name_that_fits_the_content_is_no_mismatch(kind, name):
    assert not kept(encoded(kind=kind), f"cat/{name}").mismatched


# ---- D4: warned about, but decoded ----------------------------------------------------------------------------------


def test_d4_jpeg_with_extraneous_bytes_is_kept():
    data = encoded(kind="JPEG")
    # Before the quantisation tables; libjpeg warns of it.
    at = data.index(b"\xff\xdb")
    found = kept(data[:at] + b"\x12\x34" + data[at:], "1.jpg")
    assert (found.format, found.width, found.height, found.converted) == ("jpeg", 24, 16, False)


# ---- D5: headers that claim too much --------------------------------------------------------------------------------


def jpeg_of(width, height) -> bytes:
    data = bytearray(encoded(kind="JPEG"))
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def png_of(width, height) -> bytes:
    data = bytearray(encoded(kind="PNG"))
    data[16:24] = struct.pack(">II", width, height)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


def gif_of(width, height) -> bytes:
    data = bytearray(encoded(kind="GIF"))
    data[6:10] = struct.pack("<HH", width, height)
    return bytes(data)


def gif_with_frame_of(width, height) -> bytes:
    """A modest screen and, after another frame, one that is larger."""
    data = bytearray(encoded(kind="GIF", save_all=True, append_images=[picture().rotate(180)]))
    at = data.rindex(b"\x2c\0\0\0\0" + struct.pack("<HH", *SIZE))
    data[at + 5 : at + 9] = struct.pack("<HH", width, height)
    return bytes(data)


def bmp_of(width, height) -> bytes:
    data = bytearray(encoded(kind="BMP"))
    data[18:26] = struct.pack("<ii", width, -height)
    return bytes(data)


def webp_of(width, height) -> bytes:
    data = bytearray(encoded(picture("RGBA"), kind="WEBP"))
    assert data[12:16] == b"VP8X"
    data[24:30] = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return bytes(data)


CLAIMS = [jpeg_of, png_of, gif_of, gif_with_frame_of, bmp_of, webp_of]


@pytest.mark.parametrize("make", CLAIMS)
def test_d5_header_claiming_60000_pixels_is_refused_undecoded(make):
    # Only the check of the header says this; a decoder would be the one to give up otherwise.
    assert inspect(make(60_000, 60_000), "1.jpg", MAX_PIXELS).reason == "too large: 60000x60000 pixels"


@pytest.mark.parametrize(
    ("lossless", "bits"), [(False, struct.pack("<HH", 16383, 16383)), (True, struct.pack("<I", 16382 | 16382 << 14))]
)
def test_d5_plain_webp_header_claiming_its_largest_size_is_refused_undecoded(lossless, bits):
    data = bytearray(encoded(kind="WEBP", lossless=lossless))
    at = 21 if lossless else 26
    data[at : at + 4] = bits
    assert inspect(bytes(data), "1.webp", MAX_PIXELS).reason == "too large: 16383x16383 pixels"


def test_d5_whole_bombs_are_refused_within_the_bounds_of_time_and_memory():
    """With a body that a decoder would follow for a while, so that the bounds mean something."""
    bombs = [make(60_000, 60_000) + b"\0" * 4_000_000 for make in CLAIMS]
    # The first thousand rows, grey: 60 MB of them in 60 KB.
    packed = zlib.compress(b"\0" * 60_001 * 1000)
    bombs.append(png_of(60_000, 60_000)[:33] + struct.pack(">I", len(packed)) + b"IDAT" + packed)
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("needs Linux to measure a peak of memory")
    inspect(encoded(), "1.png", MAX_PIXELS)
    for bomb in bombs:
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
        before = resident("VmRSS")
        began = time.process_time()
        found = inspect(bomb, "1.jpg", MAX_PIXELS)
        seconds = time.process_time() - began
        assert found.reason == "too large: 60000x60000 pixels"
        assert seconds < 0.1
        assert resident("VmHWM") - before < 50_000_000


def resident(row: str) -> int:
    """Bytes of this process's memory, now (`VmRSS`) or at the peak (`VmHWM`)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(row)).split()[1])


def test_d5_jpeg_of_megabytes_before_its_size_is_read_in_time():
    data = encoded(kind="JPEG")
    stuffed = data[:2] + data[2:20] + b"\0" * 50_000_000 + data[20:]
    began = time.process_time()
    assert inspect(stuffed, "1.jpg", 1).reason.startswith("too large: ")
    assert time.process_time() - began < 1


@pytest.mark.parametrize("kind", ["TIFF", "PPM"])
def test_d5_limit_holds_for_what_only_pillow_reads(kind):
    assert inspect(encoded(kind=kind), "1", 24 * 16 - 1).reason.startswith("too large: ")
    assert inspect(encoded(kind=kind), "1", 24 * 16).reason is None


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "WEBP"])
def test_image_of_exactly_the_limit_is_kept(kind):
    assert inspect(encoded(kind=kind), "1", 24 * 16).reason is None
    assert inspect(encoded(kind=kind), "1", 24 * 16 - 1).reason.startswith("too large: ")


# ---- what the metadata says -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "AVIF", "JPEG2000", "PPM"])
@pytest.mark.parametrize("level", [0, 100, 255])
def test_size_channels_and_brightness_are_those_of_the_pixels(kind, level):
    found = kept(encoded(Image.new("RGB", SIZE, (level,) * 3), kind), "1")
    assert (found.width, found.height) == SIZE
    assert found.channels == (1 if kind == "GIF" and found.converted else 3)
    assert found.brightness == pytest.approx(level, abs=3)


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("LA", 2), ("RGB", 3), ("RGBA", 4)])
def test_channels_of_a_png_are_counted(mode, channels):
    assert kept(encoded(picture(mode)), "1.png").channels == channels


# ---- D7: what only Pillow reads -------------------------------------------------------------------------------------


def png_with_bad_checksum() -> bytes:
    data = bytearray(encoded())
    at = data.index(b"IDAT")
    (length,) = struct.unpack(">I", data[at - 4 : at])
    data[at + 4 + length] ^= 0xFF
    return bytes(data)


def os2_bmp() -> bytes:
    """With the 12-byte header of OS/2 1.x, 24 bits, bottom row first."""
    rows = b"".join(row[:, ::-1].tobytes() for row in np.asarray(picture())[::-1])
    header = struct.pack("<IHHHH", 12, *SIZE, 1, 24)
    return b"BM" + struct.pack("<IHHI", 26 + len(rows), 0, 0, 26) + header + rows


def rle_bmp() -> bytes:
    """Eight rows of eight pixels of colour 1 (red), each row one run."""
    palette = bytes([0, 0, 0, 0, 0, 0, 255, 0])
    body = b"\x08\x01\0\0" * 8 + b"\0\1"
    start = 14 + 40 + len(palette)
    info = struct.pack("<IiiHHIIiiII", 40, 8, 8, 1, 8, 1, len(body), 0, 0, 2, 0)
    return b"BM" + struct.pack("<IHHI", start + len(body), 0, 0, start) + info + palette + body


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (encoded(kind="TIFF"), "tiff"),
        (encoded(kind="TIFF", compression="tiff_lzw"), "tiff"),
        (encoded(kind="PPM"), "ppm"),
        (encoded(kind="JPEG2000", irreversible=False), "jpeg2000"),
        (encoded(picture("RGBA"), kind="WEBP", lossless=True, exact=True), "webp"),
        (encoded(kind="WEBP", lossless=True, save_all=True, append_images=[picture().rotate(180)]), "webp"),
        (encoded(kind="ICO", sizes=[SIZE]), "ico"),
        (png_with_bad_checksum(), "png"),
        (os2_bmp(), "bmp"),
    ],
    ids=["tiff", "tiff-lzw", "ppm", "jpeg2000", "webp-alpha", "webp-animated", "ico", "png-checksum", "bmp-os2"],
)
def test_d7_what_only_pillow_reads_is_converted_without_loss(data, kind):
    with pytest.raises(tf.errors.InvalidArgumentError):
        decoded(data)
    found = kept(data, f"1.{kind}")
    assert (found.format, found.converted, found.width, found.height) == (kind, True, 24, 16)
    np.testing.assert_array_equal(decoded(readable(data, True)), np.asarray(picture()))


def test_d7_animated_webp_without_alpha_harms_nothing():
    """TensorFlow overruns its buffer on some ways to decode it; the process would end here or later."""
    frames = [Image.effect_noise((200, 200), 50).convert("RGB") for _ in range(3)]
    data = encoded(frames[0], "WEBP", lossless=True, save_all=True, append_images=frames[1:])
    for _ in range(20):
        assert kept(data, "1.webp").converted
    np.testing.assert_array_equal(decoded(readable(data, True)), np.asarray(frames[0]))


def test_d7_run_length_bmp_is_converted():
    found = kept(rle_bmp(), "1.bmp")
    assert found.converted
    np.testing.assert_array_equal(decoded(readable(rle_bmp(), True)), np.full((8, 8, 3), (255, 0, 0)))


def test_d7_avif_is_converted_to_what_pillow_decodes():
    data = encoded(kind="AVIF")
    assert kept(data, "1.avif").converted
    np.testing.assert_array_equal(decoded(readable(data, True)), np.asarray(Image.open(io.BytesIO(data))))


@pytest.mark.parametrize("kind", ["TIFF", "PPM", "JPEG2000"])
def test_d7_16_bit_grey_keeps_its_greys_as_a_16_bit_png_does(kind):
    ramp = np.tile(np.linspace(0, 65535, SIZE[0]).astype(np.uint16), (SIZE[1], 1))
    data = encoded(Image.fromarray(ramp), kind)
    found = kept(data, "1")
    assert (found.converted, found.channels) == (True, 1)
    assert found.brightness == pytest.approx(127.5, abs=1)
    np.testing.assert_array_equal(decoded(readable(data, True)), decoded(encoded(Image.fromarray(ramp))))


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_pixels_without_a_known_white_are_quarantined_and_not_clipped(kind):
    data = encoded(Image.fromarray(np.zeros(SIZE[::-1], kind)), "TIFF")
    assert "float or 32-bit" in inspect(data, "1.tif", MAX_PIXELS).reason


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "CMYK"])
def test_d7_every_mode_of_a_tiff_becomes_its_rgb(mode):
    data = encoded(picture(mode), "TIFF")
    assert kept(data, "1.tif").converted
    np.testing.assert_array_equal(decoded(readable(data, True)), np.asarray(picture(mode).convert("RGB")))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "WEBP"])
def test_what_tensorflow_reads_is_stored_as_it_is(kind):
    data = encoded(kind=kind)
    assert not kept(data, "1").converted
    assert readable(data, False) is data


@pytest.mark.parametrize("kind", ["PCX", "TGA", "SGI"])
def test_formats_beyond_the_list_are_not_opened(kind):
    assert inspect(encoded(kind=kind), "1.jpg", MAX_PIXELS).reason == "not an image"


# ---- a collection of odd files --------------------------------------------------------------------------------------


def test_odd_images_end_kept_converted_or_with_a_reason(shared):
    with open(shared / "odd_images" / "INDEX.tsv", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    assert len(rows) > 100
    for row in rows:
        name = row["file"]
        data = (shared / "odd_images" / name).read_bytes()
        found = inspect(data, name, MAX_PIXELS)
        pillow, tensorflow = row["pillow_12.3_result"].endswith("ok"), row["tf_decode_image_result"].startswith("ok")
        assert (found.reason is None) == (pillow or tensorflow), (name, found.reason)
        assert found.converted == (pillow and not tensorflow), name
        assert found.mismatched == ("renamed for this corpus" in row["what_is_odd"] and "named" in name), name
        if found.reason is None:
            assert decoded(readable(data, found.converted)).ndim == 3, name
            assert found.width > 0, name
            assert found.height > 0, name


def test_d5_animation_of_more_pixels_than_allowed_is_kept_as_its_first_frame():
    """TensorFlow would unpack all of it at once."""
    frames = [Image.new("RGB", (40, 30), (number, 0, 200)) for number in range(10)]
    data = io.BytesIO()
    frames[0].save(data, "GIF", save_all=True, append_images=frames[1:])
    whole = inspect(data.getvalue(), "a.gif", 40 * 30 * 10)
    first = inspect(data.getvalue(), "a.gif", 40 * 30 * 9)
    assert (whole.reason, whole.converted) == (None, False)
    assert (first.reason, first.converted) == (None, True)
    with Image.open(io.BytesIO(readable(data.getvalue(), True))) as png:
        assert png.size == (40, 30)


def test_d7_greyscale_png_with_a_transparent_colour_and_a_bad_checksum_is_converted():
    data = io.BytesIO()
    Image.new("1", (8, 8), 1).save(data, "PNG", transparency=0)
    broken = bytearray(data.getvalue())
    broken[-1] ^= 1  # the last chunk's checksum
    found = inspect(bytes(broken), "a.png", 10**6)
    assert (found.reason, found.converted) == (None, True)
    assert decoded(readable(bytes(broken), True)).min() == 255


def test_d5_limit_holds_for_the_image_inside_an_icon():
    inside = io.BytesIO()
    Image.new("RGB", (3000, 3000)).save(inside, "PNG")
    png = inside.getvalue()
    icon = struct.pack("<HHH", 0, 1, 1) + struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, len(png), 22) + png
    began = time.process_time()
    assert inspect(icon, "a.ico", 10**6).reason == "too large: Pillow refuses the header"
    assert time.process_time() - began < 0.1
    assert inspect(icon, "a.ico", 10**7).reason is None
