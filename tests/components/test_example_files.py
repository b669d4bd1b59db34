"""How examples are written."""

import apache_beam as beam
import pytest
import tensorflow as tf
from apache_beam.options.pipeline_options import PipelineOptions

from components.example_files import WriteExamples, _name


def _written(folder, examples, suffix=""):
    options = PipelineOptions(["--runner=FnApiRunner"])
    with beam.Pipeline(options=options) as pipeline:
        _ = pipeline | beam.Create(examples, reshuffle=True) | WriteExamples(str(folder / "part"), suffix)
    files = sorted(folder.iterdir())
    kind = "GZIP" if suffix else ""
    return files, sorted(tf.data.TFRecordDataset(list(map(str, files)), kind).as_numpy_iterator())


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_every_example_is_in_a_named_file_and_nothing_else_is_left(tmp_path, suffix):
    examples = [f"example {number}".encode() for number in range(100)]
    files, read = _written(tmp_path, examples, suffix)
    assert read == sorted(examples)
    assert [file.name for file in files] == [
        f"part-{number:05d}-of-{len(files):05d}{suffix}" for number in range(len(files))
    ]


def test_a_split_without_examples_has_an_empty_file(tmp_path):
    files, read = _written(tmp_path, [])
    assert ([file.name for file in files], read) == (["part-00000-of-00001"], [])


def test_naming_again_after_some_of_it_was_done_does_the_rest(tmp_path):
    unnamed, prefix = tmp_path / ".part", str(tmp_path / "part")
    unnamed.mkdir()
    paths = [unnamed / name for name in ("a", "b")]
    # The first was named before the worker was lost; a bundle that was done twice left another file.
    (tmp_path / "part-00000-of-00002").write_bytes(b"first")
    paths[1].write_bytes(b"second")
    (unnamed / "done twice").write_bytes(b"second")
    _name([str(path) for path in reversed(paths)], str(unnamed), prefix, "")
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {
        "part-00000-of-00002": b"first",
        "part-00001-of-00002": b"second",
    }


def test_file_that_this_machine_does_not_see_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="do all workers see this folder"):
        _name([str(tmp_path / "elsewhere")], str(tmp_path / ".part"), str(tmp_path / "part"), "")
