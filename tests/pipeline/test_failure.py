"""What is told of errors as they really come, and what is advised."""

import errno
import os
import re
import resource
from dataclasses import replace
from pathlib import Path

import apache_beam as beam
import numpy as np
import pytest
import tensorflow as tf
from apache_beam.options.pipeline_options import PipelineOptions

from components import features
from components.data_report import IMAGES_FILE
from components.errors import DataRefused, GraftError, ImageFailed, Passing, UsageError
from components.files import write_json_lines
from components.ingestion import _example
from pipeline.failure import Scene, explain
from pipeline.output import Output
from pipeline.runners import BEAM_ARGUMENTS
from pipeline.stopping import Stopped


@pytest.fixture
def scene(tmp_path) -> Scene:
    """An output folder in which ingestion left examples."""
    output = Output(tmp_path / "out")
    output.prepare()
    run = output.new_run()
    examples = output.artifacts / "ImageExampleGen" / "examples" / "1"
    for split in features.SPLITS:
        (examples / f"Split-{split}").mkdir(parents=True)
        with tf.io.TFRecordWriter(str(examples / f"Split-{split}" / "data_tfrecord-00000-of-00001")) as writer:
            for number in range(3):
                writer.write(_example({features.SHA256: f"{split} {number}", features.FILENAME: f"cat/{number}\n.jpg"}))
    statistics = output.artifacts / "StatisticsGen" / "statistics" / "2"
    (statistics / "Split-eval").mkdir(parents=True)
    (statistics / "Split-eval" / "FeatureStats.pb").write_bytes(b"no records")
    catalog = output.artifacts / "ImageExampleGen" / "catalog" / "1"
    catalog.mkdir(parents=True)
    write_json_lines(
        catalog / IMAGES_FILE, [{"sha256": f"key {number}", "path": f"cat/{number}\n.jpg"} for number in (0, 1)]
    )
    return Scene("Train", output.root, run / "log.txt", [str(statistics), str(examples)], catalog)


def examples_of(scene: Scene) -> Path:
    """The folder of the examples in it."""
    return Path(scene.artifacts[1])


def raised(function) -> BaseException:
    with pytest.raises(BaseException) as caught:
        function()
    return caught.value


def test_interruption_is_none_of_the_programs_faults(scene):
    failure = explain(KeyboardInterrupt(), scene)
    assert failure.sentence == "interrupted."
    assert "finished steps come from the cache" in failure.advice


def test_interruption_over_which_cleaning_up_failed_is_one(scene):
    def interrupted():
        try:
            raise KeyboardInterrupt
        finally:
            raise OSError("Directory not empty")

    assert explain(raised(interrupted), scene).sentence == "interrupted."


def test_ctrl_c_while_the_cause_is_looked_for_does_not_hide_the_error(scene, monkeypatch):
    monkeypatch.setattr("pipeline.failure.causes.disk_full", interrupt)
    assert explain(ValueError("broken"), scene).sentence == "ValueError: broken"


def interrupt(*arguments):
    raise KeyboardInterrupt


@pytest.mark.parametrize("kind", [ImageFailed, DataRefused])
def test_sentence_of_ours_comes_through_beam_as_it_was(scene, kind):
    """Beam makes the error anew, with the name of a transform behind it."""

    def fail(number):
        raise kind("cat/1.jpg is too odd.")

    def run():
        with beam.Pipeline(options=PipelineOptions(BEAM_ARGUMENTS["local"])) as pipeline:
            _ = pipeline | beam.Create([0]) | "Inspect" >> beam.Map(fail)

    assert explain(raised(run), scene).sentence == "cat/1.jpg is too odd."


@pytest.mark.parametrize("error", [UsageError("The weights x are missing; put them there."), DataRefused("No images.")])
def test_sentence_of_ours_stays_and_needs_no_advice(scene, error):
    failure = explain(error, scene)
    assert (failure.sentence, failure.advice) == (str(error), None)


def test_p3_full_disk_is_named_with_what_is_free(scene):
    def write():
        with open("/dev/full", "w") as file:
            file.write("x")

    error = raised(write)
    error.filename = str(scene.output / "artifacts" / "Trainer" / "model")
    failure = explain(error, scene)
    assert failure.sentence.startswith(f"{error.filename} could not be written: the disk of /")
    assert re.search(r"was full \([0-9.]+ [GM]B of [0-9.]+ GB are free now\)\.$", failure.sentence)
    assert "give --output a folder on another disk" in failure.advice


def test_p3_full_disk_for_temporary_files_is_told_from_that_of_the_output(scene):
    failure = explain(OSError(errno.ENOSPC, "No space left on device", "/dev/shm/x"), scene)
    assert "the disk of /dev/shm was full" in failure.sentence
    assert "TMPDIR" in failure.advice


def test_p3_transform_of_beam_is_not_taken_for_the_path_that_could_not_be_written(scene):
    text = "[Errno 28] No space left on device [while running 'Write train/Write/WriteImpl/WriteBundles']"
    sentence = explain(OSError(errno.ENOSPC, text), scene).sentence
    assert "WriteBundles" not in sentence
    assert sentence.startswith("/")


def test_error_that_a_worker_process_reports_as_a_stack_is_told_as_its_own(scene):
    stack = 'Traceback (most recent call last):\n  File "/usr/lib/python3/x.py", line 1, in run\n    write()\n'
    full = f"{stack}OSError: [Errno 28] No space left on device [while running 'Write']\n"
    assert explain(RuntimeError(full), scene).sentence.startswith(str(scene.output))
    (file,) = (examples_of(scene) / "Split-eval").iterdir()
    file.write_bytes(file.read_bytes()[:40])
    damaged = f"{stack}ValueError: Not a valid TFRecord. Fewer than 9 bytes: b'00' [while running 'Read']\n"
    said = explain(RuntimeError(damaged), scene).sentence
    assert said == f"{file} is damaged (Not a valid TFRecord. Fewer than 9 bytes)."


@pytest.mark.parametrize("step", ["Train", "Trial 2 of 12"])
def test_lack_of_memory_says_what_to_lower(scene, step):
    failure = explain(raised(lambda: np.empty((1 << 55,), np.uint8)), replace(scene, step=step))
    assert failure.sentence.startswith("This machine's memory did not suffice (Unable to allocate 32.0 PiB")
    assert "Lower training.batch_size or transform.image_size" in failure.advice


@pytest.mark.parametrize("processes", [False, True])
def test_lack_of_memory_in_beam_names_the_runner_only_where_it_has_several_processes(scene, processes):
    failure = explain(MemoryError(), Scene("Resize and normalise", scene.output, scene.log, processes=processes))
    assert failure.sentence == "This machine's memory did not suffice (MemoryError)."
    assert "data.max_pixels" in failure.advice
    assert ("runner.beam: local" in failure.advice) == processes


def test_lack_of_gpu_memory_is_told_from_that_of_the_machine(scene):
    text = (
        "Graph execution error:\n\nDetected at node model/conv defined at (most recent call last):\n<stack traces "
        "unavailable>\nOOM when allocating tensor with shape[512,112,112,96] and type float on "
        "/job:localhost/replica:0/task:0/device:GPU:0 by allocator GPU_0_bfc\n\t [[{{node model/conv}}]]\nHint: If you "
        "want to see a list of allocated tensors [Op:__inference_step_9]"
    )
    failure = explain(tf.errors.ResourceExhaustedError(None, None, text), scene)
    assert failure.sentence.startswith("The GPU's memory did not suffice (OOM when allocating tensor with shape[512,")
    assert "training.precision: mixed_float16" in failure.advice


def test_too_many_open_files_says_how_to_allow_more(scene):
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = []

    def open_many():
        while True:
            files.append(open(os.devnull))  # noqa: SIM115

    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 4, limits[1]))
        error = raised(open_many)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for file in files:
            file.close()
    failure = explain(error, scene)
    assert failure.sentence == f"too many files were open at once: this process may open {limits[0]}."
    assert "ulimit -n" in failure.advice


def test_damaged_database_says_what_to_remove(scene):
    from ml_metadata.metadata_store import metadata_store
    from ml_metadata.proto import metadata_store_pb2

    database = scene.output / "metadata.db"
    database.write_text("no database" * 1000)
    config = metadata_store_pb2.ConnectionConfig()
    config.sqlite.filename_uri = str(database)
    error = raised(lambda: metadata_store.MetadataStore(config))
    failure = explain(error, scene)
    assert failure.sentence == f"{database} is damaged (file is not a database)."
    assert f"Remove {database} and {scene.output / 'artifacts'}" in failure.advice
    journal = scene.output / "metadata.db-journal"
    journal.touch()
    assert f"Remove {database}, {journal} and " in explain(error, scene).advice, "it would damage the next one"


def test_damaged_file_of_examples_is_named_with_the_folder_to_remove(scene):
    file = next((scene.output / "artifacts" / "ImageExampleGen" / "examples" / "1" / "Split-eval").iterdir())
    data = bytearray(file.read_bytes())
    data[30] ^= 0xFF
    file.write_bytes(data)
    failure = explain(raised(lambda: list(tf.data.TFRecordDataset(str(file)))), scene)
    assert failure.sentence == f"{file} is damaged (corrupted record at 12)."
    assert failure.advice.startswith(f"Remove {examples_of(scene)} and run the same command again")


def test_file_that_is_gone_from_an_artifact_says_which_folder_to_remove(scene):
    gone = f"{examples_of(scene)}/Split-train/*"
    failure = explain(OSError(f"No files found based on the file pattern {gone}"), scene)
    assert (
        failure.sentence
        == f"Files are missing in {examples_of(scene)} (No files found based on the file pattern {gone})."
    )
    assert failure.advice.startswith(f"Remove {examples_of(scene)} and")


def test_artifact_with_a_number_that_begins_alike_is_not_to_be_removed(scene):
    gone = f"{examples_of(scene)}2/Split-train/*"
    assert "Remove" not in explain(OSError(f"No files found based on the file pattern {gone}"), scene).advice


def test_output_that_was_removed_meanwhile_is_told(scene):
    os.rename(scene.output, scene.output.with_name("elsewhere"))
    failure = explain(FileNotFoundError(errno.ENOENT, "No such file", str(scene.output / "x")), scene)
    assert failure.sentence == f"{scene.output} was removed while the run went on."


def test_denied_path_is_named_with_the_user(scene):
    denied = scene.output / "artifacts" / "Trainer" / "model" / "7"
    failure = explain(PermissionError(errno.EACCES, "Permission denied", str(denied)), scene)
    assert failure.sentence.startswith(f"{denied} may not be read or written by the user ")
    assert f"have {scene.output / 'artifacts'} (ls -ld" in failure.advice, "what is there of it"
    assert "chown" in failure.advice


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EIO, "403 trainer@x does not have storage.objects.create access", "gs://pets/serving/1/a"),
        ValueError("gs://pets/images: Your default credentials were not found."),
    ],
)
def test_bucket_that_cannot_be_used_says_how_to_look(scene, error):
    failure = explain(error, scene)
    assert "gs://pets/" in failure.sentence
    assert "gcloud auth application-default login" in failure.advice


def test_error_of_protobuf_is_not_one_of_the_network(scene):
    from google.protobuf.message import DecodeError

    failure = explain(DecodeError("Error parsing message"), replace(scene, destination="gs://pets/serving"))
    assert "credentials" not in failure.advice


def test_page_that_a_message_names_is_no_place_that_could_not_be_reached(scene):
    failure = explain(ValueError("unknown layer: see https://keras.io/guides and permission"), scene)
    assert "credentials" not in failure.advice


def test_p9_key_of_an_image_becomes_its_name(scene):
    error = ImageFailed("The image key 1… cannot be decoded (no image).")
    error.key, error.happened, error.damaged = "key 1", "cannot be decoded (no image).", True
    error.artifact = str(scene.output / "artifacts" / "Transform" / "transformed_examples" / "6")
    failure = explain(error, scene)
    assert failure.sentence == r"cat/1\n.jpg cannot be decoded (no image)."
    assert f"remove {error.artifact} and run the same command again" in failure.advice


def test_p9_key_that_ingestion_did_not_note_stays(scene):
    error = ImageFailed("The image key 7… cannot be decoded (no image).")
    error.key, error.happened = "key 7", "cannot be decoded (no image)."
    assert explain(error, scene).sentence == str(error)
    (scene.catalog / IMAGES_FILE).unlink()
    assert explain(error, scene).sentence == str(error)


def test_p9_image_whose_copy_is_sound_is_to_be_moved_away(scene):
    error = ImageFailed("cat/1.jpg cannot be decoded (no image).")
    error.image = "cat/1.jpg"
    failure = explain(error, scene)
    assert failure.sentence == str(error)
    assert failure.advice.startswith("Move it out of the image folder")


def test_what_nobody_foresaw_is_one_line_and_says_what_to_report(scene):
    failure = explain(ValueError("one\nTraceback\n\x1b[2Jtwo"), scene)
    assert failure.sentence == "ValueError: one"
    assert str(scene.log) in failure.advice


def test_explanation_that_fails_does_not_hide_the_error(scene, monkeypatch):
    monkeypatch.setattr("pipeline.failure.shutil.disk_usage", lambda path: 1 / 0)
    failure = explain(OSError(errno.ENOSPC, "No space left on device"), scene)
    assert failure.sentence == "OSError: [Errno 28] No space left on device"


def _image_too_large() -> ImageFailed:
    failed = ImageFailed("cat/1.jpg is too large.")
    failed.__cause__ = MemoryError()
    return failed


@pytest.mark.parametrize(
    ("error", "may_pass"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/dev/shm/x"), True),
        (OSError(errno.EIO, "Input/output error", "/mnt/images/cat.jpg"), True),
        (MemoryError(), True),
        (RuntimeError("OOM when allocating tensor on /device:GPU:0"), True),
        (RuntimeError("a worker process of Beam ended before its work was done"), True),
        (OSError(errno.EMFILE, "Too many open files", "x"), True),
        (ValueError("nobody knows this one"), True),
        (Stopped(), True),
        (_image_too_large(), True),
        (Passing("The process that serves the exported model was ended by signal 9."), True),
        (ImageFailed("cat/1.jpg cannot be decoded."), False),
        (UsageError("The weights x are missing."), False),
        (DataRefused("Class 'cat' has no images."), False),
        (GraftError("The loss became nan in epoch 1."), False),
        (RuntimeError("database disk image is malformed"), False),
        (PermissionError(errno.EACCES, "Permission denied", "/root/x"), False),
        (OSError(errno.EROFS, "Read-only file system", "/mnt/x"), False),
    ],
)
def test_what_nobody_has_to_mend_may_pass(scene, error, may_pass):
    assert explain(error, scene).may_pass is may_pass


@pytest.mark.parametrize(
    ("text", "may_pass"),
    [
        ("Max retries exceeded with url: /storage/v1 (Connection reset)", True),
        ("ann@example.org does not have storage.objects.create access", False),
    ],
)
def test_store_that_is_not_reached_may_be_back_and_one_that_refuses_will_not(scene, text, may_pass):
    failure = explain(OSError(text), replace(scene, destination="gs://bucket/models"))
    assert "gs://bucket/models" in failure.sentence
    assert failure.may_pass is may_pass


def test_stop_by_sigterm_is_told_from_ctrl_c(scene):
    failure = explain(Stopped(), scene)
    assert failure.sentence == "stopped (SIGTERM)."
    assert "run the same command again" in failure.advice.lower()


def _answers() -> None:
    pass


def _is_gone() -> None:
    raise UsageError("Flink's job manager does not answer at http://localhost:8081.")


@pytest.mark.parametrize(
    ("state", "cluster", "sentence"),
    [
        ("FAILED", _answers, "The job on the cluster failed (java.net.ConnectException: Connection refused)."),
        (
            "FAILED",
            _is_gone,
            "The job on the cluster failed (java.net.ConnectException: Connection refused). Flink's job manager does "
            "not answer at http://localhost:8081.",
        ),
        ("CANCELLED", _answers, "The job was cancelled on the cluster."),
    ],
)
def test_job_that_ends_on_a_cluster_is_told_with_the_part_that_does_not_answer(scene, state, cluster, sentence):
    text = f"Pipeline beam-job-1 failed in state {state}: java.net.ConnectException: Connection refused"
    failure = explain(RuntimeError(text), replace(scene, cluster=cluster))
    assert (failure.sentence, failure.may_pass) == (sentence, True)


@pytest.mark.parametrize("said", ["No space left on device", "a (Permission denied)", "Too many open files"])
def test_fault_of_a_machine_of_the_cluster_is_not_told_of_this_one_or_of_the_store(scene, said):
    error = RuntimeError(f"Pipeline beam-job-1 failed in state FAILED: java.io.IOException: {said}")
    failure = explain(error, replace(scene, destination="gs://bucket/serving", cluster=_answers))
    assert failure.sentence == f"The job on the cluster failed (java.io.IOException: {said})."
    assert failure.may_pass


def test_error_of_a_worker_on_a_cluster_is_told_by_what_the_worker_said(scene):
    said = 'Traceback (most recent call last):\n  File "/a.py", line 1, in f\nValueError: it is what it is'
    text = f"Pipeline beam-job-1 failed in state FAILED: java.lang.RuntimeException: Error received from SDK: {said}"
    assert explain(RuntimeError(text), replace(scene, cluster=_is_gone)).sentence == "ValueError: it is what it is"
