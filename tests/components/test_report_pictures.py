"""The report's pictures: from damaged, hostile and many files, within what the page may hold."""

import base64
import io
import json
import os
import struct
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components import features
from components.report import gather, pictures
from components.report.page import MISTAKES_SHARE, MOST_PICTURES
from components.report.raw_examples import feature, walk
from tests.components.raw import picture, write_split

RED, GREEN, BLUE = (200, 20, 20), (20, 200, 20), (20, 20, 200)


def seen(found: pictures.Picture) -> np.ndarray:
    """Its pixels; the numbers that stand beside it agree with them."""
    image = Image.open(io.BytesIO(found.jpeg))
    assert image.format == "JPEG"
    assert image.size == (found.width, found.height)
    return np.asarray(image.convert("RGB"), int)


def is_red(pixel: np.ndarray) -> bool:
    return pixel[0] > 150 and pixel[1] < 80 and pixel[2] < 80


# ---- thumbnails -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "WEBP"])
def test_every_format_that_examples_hold_becomes_a_small_jpeg(kind):
    found = pictures.thumbnail(picture(RED, (640, 480), kind))
    assert (found.width, found.height) == (112, 84)
    assert is_red(seen(found)[40, 50])
    assert pictures.thumbnail(picture(RED, (20, 10), kind)).width == 20


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_as_ingestion_does(orientation):
    """Where the red corner is must agree with what TensorFlow's graph makes of the same file."""
    import tensorflow as tf

    from components import pixels

    image = Image.new("RGB", (48, 32), BLUE)
    image.paste(RED, (0, 0, 16, 16))
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    image.save(file, "JPEG", exif=exif, quality=95)
    expected = pixels.decode(tf.constant(file.getvalue())).numpy()
    found = seen(pictures.thumbnail(file.getvalue()))
    assert found.shape == expected.shape
    corners = [(4, 4), (4, -5), (-5, 4), (-5, -5)]
    assert [is_red(found[at]) for at in corners] == [is_red(expected[at]) for at in corners]


def test_sixteen_bit_grey_is_not_white():
    file = io.BytesIO()
    Image.fromarray(np.full((20, 20), 0x4000, np.uint16)).save(file, "PNG")
    assert abs(seen(pictures.thumbnail(file.getvalue())).mean() - 0x40) < 3


def png_that_claims(width: int, height: int) -> bytes:
    data = bytearray(picture(RED, (8, 8), "PNG"))
    data[16:24] = struct.pack(">II", width, height)
    return bytes(data)


def jpeg_that_claims(width: int, height: int) -> bytes:
    data = bytearray(picture(RED, (8, 8)))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(data)


@pytest.mark.parametrize("bomb", [png_that_claims(60_000, 60_000), jpeg_that_claims(60_000, 60_000)])
def test_d5_header_that_claims_60000_by_60000_is_not_decoded(bomb):
    pictures.thumbnail(picture(RED))  # imports
    tracemalloc.start()
    began = time.perf_counter()
    assert pictures.thumbnail(bomb) is None
    assert time.perf_counter() - began < 0.1
    assert tracemalloc.get_traced_memory()[1] < 1e6
    tracemalloc.stop()


@pytest.mark.parametrize(("size", "kind"), [((6_000, 5_000), "PNG"), ((8_000, 7_000), "JPEG")])
def test_image_that_takes_long_to_decode_has_no_picture(size, kind):
    file = io.BytesIO()
    Image.new("L", size).save(file, kind)
    assert pictures.thumbnail(file.getvalue()) is None


@pytest.mark.parametrize("content", [b"", b"\xff\xd8\xff", b"GIF89a", b"<html>", b"\x89PNG\r\n\x1a\n" + b"\0" * 40])
def test_what_is_no_image_has_no_picture(content):
    assert pictures.thumbnail(content) is None


def test_jpeg_that_is_cut_off_shows_what_is_there():
    noise = np.random.default_rng(1).integers(0, 60, (200, 200, 3), np.uint8) + np.array([150, 0, 0], np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "JPEG", quality=90)
    found = seen(pictures.thumbnail(file.getvalue()[: file.tell() // 2]))
    assert found[10].mean(0)[0] > 150
    assert np.ptp(found[-3].reshape(-1)) < 20, "the lower part is of one colour"


def test_picture_of_noise_stays_within_its_share():
    noise = np.random.default_rng(1).integers(0, 255, (300, 300, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "PNG")
    for most in (8_000, 4_000, 2_000):
        assert 0 < len(pictures.thumbnail(file.getvalue(), most).jpeg) <= most


# ---- raw examples ---------------------------------------------------------------------------------------------------


def test_classes_have_pictures_of_their_own_whatever_order_the_runner_wrote(tmp_path):
    rows = [
        (name, f"{name}/{i}.jpg", picture(colour, (30 + i, 30)))
        for name, colour in (("é\n<b>", RED), ("green", GREEN))
        for i in range(40)
    ]
    write_split(tmp_path / "one", "train", rows)
    write_split(tmp_path / "other", "train", rows[1::2])
    write_split(tmp_path / "other", "train", rows[::2][::-1], shard=1)
    found = pictures.of_classes(tmp_path / "one", ["é\n<b>", "green", "nothing in train"])
    assert {name: len(each) for name, each in found.items()} == {"é\n<b>": 8, "green": 8}
    assert all(is_red(seen(each)[5, 5]) for each in found["é\n<b>"])
    assert pictures.of_classes(tmp_path / "other", ["é\n<b>", "green"]) == found
    assert len({each.width for each in found["green"]}) > 4, "not one image again and again"


def test_large_data_set_is_not_read_whole_and_every_class_of_it_is_found(tmp_path, monkeypatch):
    """In-memory runners write class after class, so that the beginning of a file is of one class."""
    names = [f"class {i:02d}" for i in range(16)]
    rows = [(name, f"{name}/{i}.jpg", picture((i, 7, 7))) for name in names for i in range(100)]
    write_split(tmp_path, "train", rows)
    (path,) = (tmp_path / "Split-train").iterdir()
    looked = [feature(data, record, features.CLASS_NAME).decode() for data, record in walk([path], 128)]
    assert len(looked) <= 128
    assert set(looked) == set(names)
    monkeypatch.setattr(pictures, "MOST_RECORDS", 128)
    assert set(pictures.of_classes(tmp_path, names)) == set(names)


def test_all_records_of_a_small_data_set_are_seen_once(tmp_path):
    keys = write_split(tmp_path, "test", [("a", str(i), picture((i, 0, 0), (i + 1, 9))) for i in range(200)])
    (path,) = (tmp_path / "Split-test").iterdir()
    assert [feature(data, record, features.SHA256).decode() for data, record in walk([path], 10_000)] == keys


def test_test_images_are_found_by_key(tmp_path):
    rows = [("a", f"{i}.jpg", picture(RED if i == 3 else BLUE, (30, 20 + i))) for i in range(9)]
    keys = write_split(tmp_path, "test", rows)
    found = pictures.by_key(tmp_path, [keys[3], "not there"])
    assert list(found) == [keys[3]]
    assert is_red(seen(found[keys[3]])[5, 5])
    assert pictures.by_key(tmp_path / "nothing", [keys[3]]) == {}


def test_pictures_of_answers_are_large_enough_to_be_judged_and_36_have_room_in_the_page(tmp_path):
    noise = np.random.default_rng(1).integers(0, 255, (600, 800, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "JPEG", quality=90)
    keys = write_split(tmp_path, "test", [("a", "1.jpg", picture(RED, (800, 600))), ("a", "2.jpg", file.getvalue())])
    red, noisy = (pictures.by_key(tmp_path, keys)[key] for key in keys)
    assert (red.width, red.height) == (256, 192)
    room = MISTAKES_SHARE * MOST_PICTURES / (gather.MISTAKES + gather.HESITANT)
    assert max(len(red.jpeg), len(noisy.jpeg)) * 4 / 3 < room - 30


@pytest.mark.parametrize("damage", [lambda d: d[: len(d) // 2], lambda d: b"", lambda d: b"\xff" * 5000 + d[5000:]])
def test_damaged_files_of_examples_give_what_they_can(tmp_path, damage):
    rows = [("a", f"{i}.jpg", picture((i, 0, 0), (30, 20 + i))) for i in range(60)]
    keys = write_split(tmp_path, "test", rows)
    write_split(tmp_path, "train", rows)
    for path in tmp_path.glob("*/*"):
        path.write_bytes(damage(path.read_bytes()))
    assert len(pictures.by_key(tmp_path, keys)) < 60
    assert set(pictures.of_classes(tmp_path, ["a"])) <= {"a"}


def photograph(number: int) -> bytes:
    """About as hard to compress as one."""
    random = np.random.default_rng(number)
    small = Image.fromarray(random.integers(0, 255, (24, 24, 3), np.uint8)).resize((200, 150))
    noisy = np.clip(np.asarray(small, int) + random.integers(-25, 25, (150, 200, 3)), 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(noisy).save(file, "JPEG", quality=90)
    return file.getvalue()


@pytest.mark.parametrize("classes", [2, 100, 1_000])
def test_pictures_of_any_number_of_classes_fit_into_the_page(tmp_path, classes):
    contents = [photograph(i) for i in range(20)]
    names = [f"{i:04d}" for i in range(classes)]
    write_split(tmp_path, "train", [(name, "x", contents[i]) for name in names for i in range(10)])
    found = pictures.of_classes(tmp_path, names)
    assert set(found) == set(names)
    held = sum(len(base64.b64encode(each.jpeg)) for group in found.values() for each in group)
    assert held < 2_600_000
    assert {len(each) for each in found.values()} == {{2: 8, 100: 2, 1_000: 1}[classes]}


# ---- a user's files -------------------------------------------------------------------------------------------------


def quarantined(path: str, reason: str) -> dict[str, str]:
    return {"outcome": "quarantined", "path": path, "reason": reason}


def test_quarantined_files_are_shown_where_ingestion_found_their_header_harmless(tmp_path):
    files = {
        "a/conflict \udcff é.jpg": (picture(RED), "label conflict: the same bytes as b/x.jpg in class b"),
        "a/cut.jpg": (picture(RED, (300, 200))[:-40], "jpeg cannot be decoded"),
        "a/bomb.jpg": (picture(BLUE), "too large: 60000x60000 pixels"),
        "a/page.jpg": (b"<html>", "not an image"),
        "a/gone.jpg": (None, "label conflict: the same bytes as b/x.jpg in class b"),
    }
    (tmp_path / "a").mkdir()
    for name, (content, _) in files.items():
        if content is not None:
            Path(os.fsencode(tmp_path / name).decode("utf-8", "surrogateescape")).write_bytes(content)
    os.mkfifo(tmp_path / "a" / "pipe.jpg")
    rows = [quarantined(name, reason) for name, (_, reason) in files.items()]
    rows.append(quarantined("a/pipe.jpg", "label conflict: it was a file then"))
    rows.append({"outcome": "duplicate", "path": "a/bomb.jpg", "reason": "the same bytes are in already"})
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    shown = ["a/conflict \udcff é.jpg", "a/cut.jpg"]
    assert list(pictures.of_kept_out(rows, [str(tmp_path)])) == shown
    # A manifest's paths start from its folder; of several sources, paths are absolute.
    assert list(pictures.of_kept_out(rows, [f"{tmp_path}/list.csv"])) == shown
    absolute = [row | {"path": f"{tmp_path}/{row['path']}"} for row in rows]
    assert len(pictures.of_kept_out(absolute, [str(tmp_path), "/elsewhere"])) == 2
    assert pictures.of_kept_out(rows, []) == {}
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_d5_quarantined_file_that_grew_a_bomb_since_is_not_decoded(tmp_path):
    (tmp_path / "a.jpg").write_bytes(jpeg_that_claims(60_000, 60_000))
    assert pictures.of_kept_out([quarantined("a.jpg", "jpeg cannot be decoded")], [str(tmp_path)]) == {}


def test_quarantine_of_a_thousand_files_stays_small(tmp_path):
    content = photograph(1)
    rows = []
    for i in range(1_000):
        (tmp_path / f"{i}.jpg").write_bytes(content)
        rows.append(quarantined(f"{i}.jpg", "label conflict: the same bytes as everything"))
    found = pictures.of_kept_out(json.loads(json.dumps(rows)), [str(tmp_path)])
    assert len(found) == 24
    assert sum(len(each.jpeg) for each in found.values()) < 24 * 8_000


def test_quarantine_of_a_place_that_cannot_be_reached_has_no_pictures():
    assert pictures.of_kept_out([quarantined("a.jpg", "jpeg cannot be decoded")], ["nowhere://bucket/images"]) == {}
