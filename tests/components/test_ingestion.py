"""How ingestion reads the images: through one door, whatever lies behind it."""

import io
import json

import pytest
from PIL import Image

from components import features
from components.image_files import scan
from components.ingestion import MakeExample, _read_json_lines
from components.inspection import inspect_file
from tests.memory_files import MemoryFiles


def png() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (4, 6), (1, 2, 3)).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture(params=["local", "remote"])
def pets(request, tmp_path):
    """(the only image of a folder, how to lose it)."""
    if request.param == "local":
        path = tmp_path / "cat" / "1.png"
        path.parent.mkdir()
        path.write_bytes(png())
        yield scan(tmp_path).files[0], path.unlink
        return
    MemoryFiles.clear()
    uri = MemoryFiles.put("mem://bucket/cat/1.png", png())
    yield scan("mem://bucket").files[0], lambda: MemoryFiles.broken.add(uri)
    MemoryFiles.clear()


def inspected(file, **limits) -> dict:
    return inspect_file(file, **({"max_pixels": 100, "max_bytes": 10_000} | limits))


def test_image_is_checked_and_written_from_where_it_lies(pets):
    file, _ = pets
    record = inspected(file)
    assert (record["reason"], record["path"], record["group"]) == (None, "cat/1.png", None)
    made = MakeExample(100).made(record | {"split": "train"})
    assert made.tag == "train"
    assert png() in made.value[0]
    assert features.ENCODED.encode() in made.value[0]


def test_d14_image_that_cannot_be_read_is_quarantined_with_a_reason(pets):
    file, lose = pets
    lose()
    reason = inspected(file)["reason"]
    assert reason.startswith("I/O error: ")
    assert reason.split(": ")[1] not in ("", "None")


def test_d14_image_lost_after_it_was_checked_is_told_apart(pets):
    file, lose = pets
    record = inspected(file) | {"split": "train"}
    lose()
    made = MakeExample(100).made(record)
    assert made.tag == MakeExample.LOST
    assert json.loads(made.value)["reason"].startswith("I/O error: ")


def test_p9_picture_that_cannot_be_converted_is_kept_out_by_name_and_the_run_goes_on(pets):
    file, _ = pets
    record = inspected(file) | {"split": "train", "converted": True, "format": "tiff"}
    # More pixels than allowed, as if the file's limit had been another when it was checked.
    lost = MakeExample(4).made(record)
    assert lost.tag == MakeExample.LOST
    kept_out = json.loads(lost.value)
    assert kept_out["path"] == "cat/1.png"
    assert kept_out["reason"].startswith("tiff cannot be converted: ")


def test_records_of_all_images_share_the_names_of_their_fields(tmp_path):
    (tmp_path / "records-00000-of-00001").write_text('{"path": "a", "sha256": "1"}\n{"path": "b", "sha256": "2"}\n')
    first, second = _read_json_lines(str(tmp_path), "records")
    assert (first["path"], second["path"]) == ("a", "b")
    assert all(mine is theirs for mine, theirs in zip(first, second, strict=True))
