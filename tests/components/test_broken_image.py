"""Which image broke a step: found by real steps on real files, and not found where none did."""

import hashlib
import json
import os

import apache_beam as beam
import pytest
import tensorflow as tf

from components import broken_image, causes, features
from components.errors import ImageFailed
from components.image_files import scan
from components.ingestion import InspectFiles, MakeExample, _example
from components.inspection import inspect_file
from pipeline.runners import BEAM_ARGUMENTS
from tests.components.test_pixels import SIZE, encoded, through_training, through_transform

KEYS = [hashlib.sha256(bytes([number])).hexdigest() for number in range(40)]


@pytest.fixture
def pets(tmp_path):
    """A folder of one image."""
    path = tmp_path / "cat" / "two\nlines.png"
    path.parent.mkdir()
    path.write_bytes(encoded("PNG"))
    return scan(tmp_path).files


@pytest.mark.parametrize("runner", list(BEAM_ARGUMENTS))
def test_p9_whatever_the_check_of_a_file_raises_names_the_file(pets, runner):
    """No file is known on which the check itself fails, so that it is given a limit that is no number."""
    options = beam.options.pipeline_options.PipelineOptions(BEAM_ARGUMENTS[runner])
    with pytest.raises(Exception) as caught, beam.Pipeline(options=options) as pipeline:
        _ = pipeline | beam.Create([pets]) | "Inspect" >> beam.ParDo(InspectFiles("many", 10**6, 1, None))
    said = {link.said for link in causes.links(caught.value) if link.kind == "ImageFailed"}
    assert said == {
        r"cat/two\nlines.png cannot be checked (TypeError: '>' not supported between instances of 'int' and 'str')."
    }


def test_p9_whatever_the_writing_of_an_example_raises_names_the_file(pets):
    record = inspect_file(pets[0], 10**6, 10**6) | {"split": "train", "brightness": None}
    with pytest.raises(ImageFailed, match=r"^cat/two\\nlines.png cannot be made an example \(TypeError: ") as caught:
        example = MakeExample(10**6)
        example.setup()
        list(example.process(json.dumps(record)))
    assert caught.value.image == "cat/two\nlines.png"


def test_p9_image_that_transform_cannot_decode_is_named(tmp_path):
    files = [encoded("JPEG", seed=1), encoded("PNG", seed=2), encoded("PNG", seed=3)[:60], encoded("JPEG", seed=4)]
    with pytest.raises(ImageFailed, match=r"^2.jpg cannot be decoded \(") as caught:
        through_transform(files, tmp_path, storage="png")
    assert (caught.value.key, caught.value.artifact) == ("2", str(tmp_path / "in"))
    assert caught.value.damaged, "it is not what the key says"


@pytest.fixture(scope="module")
def transformed(tmp_path_factory):
    """The pattern of transformed examples of which one does not hold an image any more."""
    folder = tmp_path_factory.mktemp("transformed")
    (path,) = through_transform([encoded("JPEG", seed=seed) for seed in range(3)], folder, storage="png")
    rows = list(tf.data.TFRecordDataset(path).as_numpy_iterator())
    example = tf.train.Example.FromString(rows[1])
    example.features.feature[features.IMAGE].bytes_list.value[0] = b"\0" * 99
    rows[1] = example.SerializeToString()
    with tf.io.TFRecordWriter(path) as writer:
        for row in rows:
            writer.write(row)
    return os.path.join(os.path.dirname(path), "*")


def test_p9_training_names_the_key_of_an_image_that_is_damaged_as_it_was_stored(transformed, tmp_path):
    with pytest.raises(ImageFailed, match="cannot be decoded as it was stored") as caught:
        through_training([transformed], "png", tmp_path)
    assert (caught.value.image, caught.value.key, caught.value.damaged) == (None, "1", True)
    assert caught.value.artifact == os.path.dirname(os.path.dirname(transformed))


def test_p9_conversion_names_the_key_of_an_image_that_is_damaged_as_it_was_stored(transformed):
    from components.transformed import read_images

    with pytest.raises(ImageFailed, match="cannot be decoded as it was stored") as caught:
        read_images(transformed, SIZE, "png", 100)
    assert caught.value.key == "1"


@pytest.fixture
def raw(tmp_path):
    """The pattern of forty raw examples."""
    (tmp_path / "Split-train").mkdir()
    with tf.io.TFRecordWriter(str(tmp_path / "Split-train" / "examples")) as writer:
        for number, key in enumerate(KEYS):
            row = {features.ENCODED: bytes([number]), features.SHA256: key, features.FILENAME: f"cat/{number}.jpg"}
            writer.write(_example(row))
    return str(tmp_path / "Split-train" / "*")


def refuses(*numbers):
    """A probe that fails on some of the raw examples."""

    def probe(record: bytes) -> None:
        if broken_image.value_of(record, features.ENCODED)[0] in numbers:
            raise ValueError("refused")

    return probe


@pytest.mark.parametrize("number", [0, 20, 39])
def test_image_is_found_wherever_it_is_and_is_no_damaged_copy_where_its_bytes_are_the_files(raw, number):
    failed = broken_image.find([raw], refuses(number), "fails")
    assert (str(failed), failed.image) == (f"cat/{number}.jpg fails (refused).", f"cat/{number}.jpg")
    assert not failed.damaged


def test_no_image_is_blamed_where_all_fail_or_none(raw):
    assert broken_image.find([raw], refuses(*range(40)), "fails") is None
    assert broken_image.find([raw], refuses(), "fails") is None


def test_no_image_is_looked_for_where_the_machine_is_at_fault(raw):
    with pytest.raises(MemoryError), broken_image.looked_for([raw], lambda: refuses(3), "fails"):
        raise MemoryError


def test_ctrl_c_ends_the_search_and_the_error_stays(raw):
    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(KeyError), broken_image.looked_for([raw], interrupted, "fails"):
        raise KeyError("another")


def test_error_stays_where_no_image_is_to_blame_or_the_search_fails(raw):
    for pattern, probe in ((raw, refuses()), ("/nowhere/*", refuses(3)), (raw, None)):
        with pytest.raises(KeyError), broken_image.looked_for([pattern], lambda probe=probe: probe, "fails"):
            raise KeyError("another")
