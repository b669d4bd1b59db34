"""What is found behind the errors that Beam, TensorFlow and the system really raise."""

import errno
import os

import apache_beam as beam
import pytest
import tensorflow as tf

from components import causes
from components.errors import ImageFailed
from pipeline.runners import BEAM_ARGUMENTS


def raised(function, *arguments) -> BaseException:
    with pytest.raises(BaseException) as caught:
        function(*arguments)
    return caught.value


def divide(number: int) -> float:
    return 1 / number


def fail_on_image(number: int) -> None:
    try:
        divide(number)
    except ZeroDivisionError as error:
        raise ImageFailed("cat/1.jpg cannot be checked (ZeroDivisionError: division by zero).") from error


def fill_disk(number: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/somewhere/file")


def from_beam(function) -> list[causes.Link]:
    """What is behind the error of a pipeline in which a function fails."""

    def run():
        options = beam.options.pipeline_options.PipelineOptions(BEAM_ARGUMENTS["local"])
        with beam.Pipeline(options=options) as pipeline:
            _ = pipeline | beam.Create([0]) | "Work on it" >> beam.Map(function)

    return causes.links(raised(run))


def test_p9_our_own_sentence_comes_back_from_beam():
    links = from_beam(fail_on_image)
    assert {link.said for link in links if link.kind == "ImageFailed"} == {
        "cat/1.jpg cannot be checked (ZeroDivisionError: division by zero)."
    }
    assert causes.root(links).said == "division by zero"


def test_p9_error_of_beam_is_told_without_its_stack():
    link = causes.root(from_beam(divide))
    assert (link.kind, link.said) == ("ZeroDivisionError", "division by zero")


def test_full_disk_is_seen_through_beam():
    assert causes.disk_full(from_beam(fill_disk))


@tf.function(autograph=False)
def decode_all(encoded: tf.Tensor) -> tf.Tensor:
    return tf.map_fn(tf.io.decode_jpeg, tf.stack([encoded]), fn_output_signature=tf.uint8)


@pytest.mark.parametrize("decode", [tf.io.decode_jpeg, decode_all, tf.io.decode_image])
def test_p9_error_of_tensorflows_graph_is_one_line_without_nodes_and_places(decode):
    said = causes.brief(raised(decode, b"no image at all"))
    assert "image" in said.lower()
    for noise in ("{{", "[[", "[Op", "Detected at", "Graph execution", "\n", "name:"):
        assert noise not in said


def test_declared_cause_is_told_and_what_was_handled_meanwhile_is_not():
    def declared():
        try:
            {}["no such key"]
        except KeyError as error:
            raise ValueError("the setting is missing") from error

    def meanwhile():
        try:
            {}["no such key"]
        except KeyError:
            raise ValueError("the setting is missing")  # noqa: B904 - on purpose

    assert causes.root(causes.links(raised(declared))).kind == "KeyError"
    assert causes.root(causes.links(raised(meanwhile))).said == "the setting is missing"


def test_message_is_one_printable_line_of_bounded_length_without_data():
    text = f"\nbad \x1b[2J value in /opt/env/lib/site-packages/numpy/core.py: b'{'00' * 500}' {'long ' * 200}"
    said = causes.said(text)
    assert said.startswith("bad \\x1b[2J value in numpy/core.py: …")
    assert len(said) <= causes.LONGEST and said.isprintable()
    assert len(causes.said("word " * 200)) == causes.LONGEST
    assert causes.said("") == causes.said("Traceback (most recent call last):\n  File") == ""


@pytest.mark.parametrize(
    ("error", "test"),
    [
        (MemoryError(), causes.out_of_memory),
        (
            tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor with shape[9]"),
            causes.out_of_memory,
        ),
        (OSError(errno.EMFILE, os.strerror(errno.EMFILE), "x"), causes.too_many_files),
        (tf.errors.PermissionDeniedError(None, None, "/a/b; Permission denied"), causes.not_permitted),
        (RuntimeError("[sqlite] database or disk is full"), causes.disk_full),
        (RuntimeError("Pipeline job failed in state FAILED: java.net.ConnectException"), causes.job_ended),
    ],
)
def test_faults_of_the_machine_are_told_from_those_of_an_image(error, test):
    assert test(causes.links(error))
    assert causes.of_the_machine(error)
    assert not causes.of_the_machine(ValueError("not an image"))


@pytest.mark.parametrize(
    ("error", "path"),
    [
        (FileNotFoundError(errno.ENOENT, "gone", "/a/b c"), "/a/b c"),
        (tf.errors.ResourceExhaustedError(None, None, "/a/b; No space left on device"), "/a/b"),
        (ValueError("cannot read gs://bucket/images: no"), "gs://bucket/images"),
        (ValueError("no path"), None),
    ],
)
def test_path_that_an_error_is_about(error, path):
    assert causes.path_in(causes.links(error)[0]) == path
