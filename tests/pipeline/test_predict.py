"""Prediction: a row for every file, in order and whole, whatever the files, their names, the runner or the end."""

import csv
import errno
import io
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import zlib

import numpy as np
import pyarrow.parquet
import pytest
from PIL import Image

from components.errors import UsageError
from pipeline import answer_files, chunks, image_paths, predict, predict_file
from pipeline.chunks import Chunks
from pipeline.config import Config, RunnerConfig
from pipeline.image_paths import find_images
from pipeline.predict import BATCH, BATCHES_AT_ONCE, Limits, classifier, classify
from pipeline.predict_file import predict_to_file
from pipeline.predict_printed import predict_printed
from pipeline.scratch import ENDING, scratch_beside
from tests.conftest import ROOT
from tests.memory_files import MemoryFiles
from tests.pipeline.exported import exported

# One for each channel, and then some; as hostile as a folder's name can be.
NAMES = ["path", 'green, "so" to say', "two\r\nlines", "error", "é"]
COLOURS = {"path": (250, 0, 0), NAMES[1]: (0, 250, 0), NAMES[2]: (0, 0, 250)}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Names the strongest channel."""
    return exported(tmp_path_factory.mktemp("serving") / "7", NAMES)


@pytest.fixture(scope="module")
def loaded(model):
    return classifier(model)


def picture(name: str, kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (12, 10), COLOURS[name]).save(stream, kind)
    return stream.getvalue()


def bomb() -> bytes:
    """A PNG whose header claims 60,000 x 60,000 pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))


GOOD = {f"{number}.png": NAMES[number % 3] for number in range(9)}
BAD = {
    "bomb.png": (bomb(), "claims 60000x60000 pixels"),
    "empty.jpg": (b"", "is empty"),
    "page.jpg": (b"<html>", "is no image that can be decoded"),
    "torn.png": (picture("path")[:40], "is no image that can be decoded"),
}


@pytest.fixture
def images(tmp_path):
    """Nine pictures, five bad files, and two pictures with names that most programs stumble over."""
    folder = tmp_path / "images"
    (folder / "deep").mkdir(parents=True)
    for name, label in GOOD.items():
        (folder / name).write_bytes(picture(label))
    for name, (data, _) in BAD.items():
        (folder / "deep" / name).write_bytes(data)
    (folder / "deep" / "gone.jpg").symlink_to("nowhere")
    (folder / 'line\nbreak,\r".png').write_bytes(picture("path"))
    with open(os.fsencode(folder) + b"/\xff.png", "wb") as file:
        file.write(picture("path"))
    return folder


@pytest.fixture
def small_chunks(monkeypatch):
    """Several chunks of the few files here."""
    monkeypatch.setattr(chunks, "CHUNK", 4)


@pytest.fixture
def on_beam(monkeypatch, small_chunks):
    monkeypatch.setattr(predict_file, "FEW", 0)


def config(runner="local") -> Config:
    return Config(runner=RunnerConfig(beam=runner))


# ---- answers --------------------------------------------------------------------------------------------------------


def test_answers_come_in_the_order_of_the_files_with_bad_ones_among_them(loaded, images):
    paths = [*find_images([str(images / "deep")]), *(str(images / name) for name in GOOD)]
    answers = list(classify(loaded, paths))
    assert [answer["path"] for answer in answers] == paths
    errors = [answer.get("error") for answer in answers]
    assert errors[len(BAD) + 1 :] == [None] * len(GOOD)
    expected = {name: text for name, (_, text) in BAD.items()} | {"gone.jpg": "cannot be read (No such file"}
    for (_, text), error in zip(sorted(expected.items()), errors, strict=False):
        assert text in error
    assert [answer["label"] for answer in answers[len(BAD) + 1 :]] == list(GOOD.values())
    assert list(answers[-1]["probabilities"]) == NAMES
    assert sum(answers[-1]["probabilities"].values()) == pytest.approx(1, abs=1e-6)


def test_one_bad_file_in_a_full_batch_costs_the_others_nothing(loaded, tmp_path):
    paths = [tmp_path / f"{number}.png" for number in range(BATCH)]
    for number, path in enumerate(paths):
        path.write_bytes(picture(NAMES[number % 3]))
    paths[11].write_bytes(BAD["torn.png"][0])
    answers = list(classify(loaded, paths))
    assert [answer.get("label") for answer in answers] == [NAMES[n % 3] if n != 11 else None for n in range(BATCH)]


@pytest.mark.parametrize("kind", ["TIFF", "AVIF", "JPEG2000", "PPM"])
def test_what_only_pillow_reads_is_converted(loaded, tmp_path, kind):
    (tmp_path / "picture").write_bytes(picture("path", kind))
    (answer,) = classify(loaded, [tmp_path / "picture"])
    assert answer["label"] == "path"


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_limits_of_the_configuration_hold_for_every_format(loaded, tmp_path, kind):
    (tmp_path / "picture").write_bytes(picture("path", kind))
    (answer,) = classify(loaded, [tmp_path / "picture"], Limits(max_pixels=40))
    assert "at most 40 are allowed (data.max_pixels)" in answer["error"]
    (answer,) = classify(loaded, [tmp_path / "picture"], Limits(max_bytes=20))
    assert "data.max_bytes allows (20)" in answer["error"]


def test_animation_of_many_frames_is_not_unpacked(loaded, tmp_path):
    frames = [Image.new("RGB", (10, 10), (0, 0, shade)) for shade in range(200, 240)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    (answer,) = classify(loaded, [tmp_path / "a.gif"], Limits(max_pixels=300))
    assert answer["label"] == NAMES[2]


def test_files_are_drawn_as_answers_are_taken(loaded, images):
    drawn = 0

    def endless():
        nonlocal drawn
        while True:
            drawn += 1
            yield images / "0.png"

    answers = classify(loaded, endless())
    next(answers)
    answers.close()
    assert drawn <= BATCH * (BATCHES_AT_ONCE + 3)


@pytest.mark.parametrize("kind, ahead", [("TIFF", 4_000_000), ("PNG", 20)], ids=["converted", "large"])
def test_what_costs_memory_is_not_made_before_its_turn(loaded, tmp_path, monkeypatch, kind, ahead):
    (tmp_path / "picture").write_bytes(picture("path", kind))
    made, decodable = [], predict.decodable
    monkeypatch.setattr(predict, "AHEAD_BYTES", ahead)
    monkeypatch.setattr(predict, "decodable", lambda *arguments: made.append(decodable(*arguments)) or made[-1])
    answers = list(classify(loaded, [tmp_path / "picture"] * BATCH))
    assert [answer["label"] for answer in answers] == ["path"] * BATCH == ["path"] * len(made)
    made.clear()
    answers = classify(loaded, [tmp_path / "picture"] * BATCH)
    next(answers)
    answers.close()
    assert len(made) <= BATCHES_AT_ONCE + 1


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_pipe_is_read_once_however_much_comes_out_of_it(loaded, monkeypatch, kind):
    monkeypatch.setattr(predict, "AHEAD_BYTES", 20)
    reading, writing = os.pipe()
    os.write(writing, picture("path", kind))
    os.close(writing)
    (answer,) = classify(loaded, [f"/dev/fd/{reading}"])
    os.close(reading)
    assert answer["label"] == "path"


# ---- the listing ----------------------------------------------------------------------------------------------------


def test_listing_is_sorted_however_few_names_fit_into_memory(images, monkeypatch):
    whole = list(find_images([str(images)]))
    monkeypatch.setattr(image_paths, "SORTED_AT_ONCE", 3)
    assert list(find_images([str(images)])) == whole == sorted(whole)
    assert len(whole) == len(GOOD) + len(BAD) + 3


def test_given_paths_keep_their_order_and_a_file_counts_whatever_its_name(images, tmp_path):
    (tmp_path / "no-extension").write_bytes(picture("path"))
    given = [str(tmp_path / "no-extension"), str(images / "8.png"), str(images / "0.png")]
    assert list(find_images(given)) == given


def test_hidden_files_pipes_and_links_to_folders_are_passed_over(images):
    before = list(find_images([str(images)]))
    (images / "._0.png").write_bytes(b"left by a Mac")
    (images / "__MACOSX").mkdir()
    (images / "__MACOSX" / "0.png").touch()
    os.mkfifo(images / "pipe.png")
    (images / "link.png").symlink_to(images)
    (images / "again").symlink_to(images)
    assert list(find_images([str(images)])) == before
    (images / "self.png").symlink_to("self.png")
    assert list(find_images([str(images)])) == sorted([*before, str(images / "self.png")])


def test_folder_that_cannot_be_listed_is_answered_with_an_error(loaded, images, monkeypatch):
    scandir = os.scandir

    def denied(folder):
        if str(folder).endswith("deep"):
            raise PermissionError(13, "Permission denied", folder)
        return scandir(folder)

    # As root, nothing is denied.
    monkeypatch.setattr(os, "scandir", denied)
    answers = {os.path.basename(answer["path"]): answer for answer in classify(loaded, find_images([str(images)]))}
    assert answers["deep"]["error"] == "is a folder that cannot be listed"
    assert len(answers) == len(GOOD) + 3


@pytest.mark.parametrize("wrong", ["nowhere", "empty", "mem://bucket/nowhere"])
def test_path_without_an_image_is_a_usage_error_before_anything_else(tmp_path, wrong):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"empty|nowhere"):
        find_images([wrong if "://" in wrong else str(tmp_path / wrong)])


def test_uris_are_listed_and_read_through_beam(loaded):
    MemoryFiles.clear()
    try:
        MemoryFiles.put("mem://bucket/pets/b.png", picture("path"))
        MemoryFiles.put("mem://bucket/pets/.hidden/c.png", picture("path"))
        MemoryFiles.put("mem://bucket/pets/notes.txt", b"no picture")
        MemoryFiles.broken.add(MemoryFiles.put("mem://bucket/pets/a.png", b""))
        found = list(find_images(["mem://bucket/pets/", "mem://bucket/pets/b.png"]))
        assert [uri[len("mem://bucket/pets/") :] for uri in found] == ["a.png", "b.png", "b.png"]
        broken, *answers = classify(loaded, found)
        assert broken["error"] == "cannot be read (503 try again)"
        assert [answer["label"] for answer in answers] == ["path"] * 2
    finally:
        MemoryFiles.clear()


# ---- the file -------------------------------------------------------------------------------------------------------


def read(path) -> list[dict]:
    """The rows of a file with the columns that CSV and Parquet have; None for what is not there."""
    if path.suffix == ".parquet":
        return pyarrow.parquet.read_table(path).to_pylist()
    if path.suffix == ".csv":
        with open(path, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        numbers = [name for name in rows[0] if name not in ("path", "label", "error")]
        texts = [{name: row[name] or None for name in ("path", "label", "error")} for row in rows]
        cells = [{name: float(row[name]) if row[name] else None for name in numbers} for row in rows]
        return [{name: (text | cell)[name] for name in row} for text, cell, row in zip(texts, cells, rows, strict=True)]
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    found = [row.pop("probabilities") or dict.fromkeys(NAMES) for row in rows]
    return [
        row | {f"probability_{name}": value for name, value in values.items()}
        for row, values in zip(rows, found, strict=True)
    ]


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_every_format_gives_back_what_was_answered_hostile_names_included(
    model, loaded, images, tmp_path, small_chunks, ending
):
    output = tmp_path / f"answers.{ending}"
    assert predict_to_file(model, [str(images)], output, config()) == len(BAD) + 1
    answers = list(classify(loaded, find_images([str(images)])))
    rows = read(output)
    assert len(rows) == len(answers) == len(GOOD) + len(BAD) + 3
    for row, answer in zip(rows, answers, strict=True):
        assert list(row) == ["path", "label", "score", "error", *(f"probability_{name}" for name in NAMES)]
        assert row["path"] == answer["path"].replace("\udcff", "\\udcff")
        assert (row["label"], row["error"]) == (answer.get("label"), answer.get("error"))
        probabilities = [row[f"probability_{name}"] for name in NAMES]
        # To the last bit of a float32.
        expected = [answer.get("score"), *answer.get("probabilities", dict.fromkeys(NAMES)).values()]
        np.testing.assert_array_equal(np.array([row["score"], *probabilities], np.float32), np.array(expected, "f4"))


def test_parquet_is_written_row_group_by_row_group(tmp_path, monkeypatch):
    monkeypatch.setattr(answer_files, "ROW_GROUP_ROWS", 4)
    form = answer_files.Parquet(["a"])
    for number in range(5):
        with open(tmp_path / str(number), "wb") as file:
            form.write_part([{"path": f"{number}-{row}", "error": "is empty"} for row in range(2)], file)
    with open(tmp_path / "whole", "wb") as file:
        form.join([tmp_path / str(number) for number in range(5)], file)
    whole = pyarrow.parquet.ParquetFile(tmp_path / "whole")
    assert [whole.metadata.row_group(n).num_rows for n in range(whole.num_row_groups)] == [4, 4, 2]
    assert whole.read()["path"].to_pylist() == [f"{number}-{row}" for number in range(5) for row in range(2)]


def test_p6_every_runner_and_the_quick_way_write_the_same_file(model, images, tmp_path, on_beam, monkeypatch, capfd):
    for runner in ("local", "processes"):
        assert predict_to_file(model, [str(images)], tmp_path / f"{runner}.csv", config(runner)) == len(BAD) + 1
    said = capfd.readouterr()
    assert "apache_beam" not in said.out + said.err
    assert f"{len(BAD) + 1} files could not be classified" in said.err
    assert f"{images}/deep/bomb.png: claims" in said.err
    monkeypatch.setattr(predict_file, "FEW", 100)
    predict_to_file(model, [str(images)], tmp_path / "quick.csv", config())
    first, *others = [(tmp_path / f"{name}.csv").read_bytes() for name in ("quick", "local", "processes")]
    assert others == [first, first]
    assert {path.name for path in tmp_path.iterdir()} == {"images", "quick.csv", "local.csv", "processes.csv"}


def test_defaults_of_the_limits_are_those_of_the_configuration():
    assert Limits.of(Config()) == Limits()


def test_output_is_refused_before_any_work(model, images, tmp_path):
    (tmp_path / "mine.csv").write_text("mine")
    for name, words in (
        ("mine.csv", "is there already"),
        ("answers.txt", ".csv, .jsonl, .parquet"),
        ("nowhere/answers.csv", "does not exist"),
    ):
        with pytest.raises(UsageError, match=words):
            predict_to_file(tmp_path / "no model is looked for", [str(images)], tmp_path / name, config())
    assert (tmp_path / "mine.csv").read_text() == "mine"


@pytest.mark.parametrize("links", [True, False], ids=["", "without links"])
def test_file_that_another_call_made_meanwhile_is_left_alone(model, images, tmp_path, monkeypatch, links):
    class Slow(answer_files.Csv):
        def join(self, parts, file):
            super().join(parts, file)
            (tmp_path / "answers.csv").write_text("the other's")

    def no_links(*_):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setitem(answer_files.FORMATS, ".csv", Slow)
    if not links:
        monkeypatch.setattr(os, "link", no_links)
    with pytest.raises(UsageError, match="is there already"):
        predict_to_file(model, [str(images / "0.png")], tmp_path / "answers.csv", config())
    assert (tmp_path / "answers.csv").read_text() == "the other's"
    monkeypatch.undo()
    if not links:
        monkeypatch.setattr(os, "link", no_links)
    predict_to_file(model, [str(images / "0.png")], tmp_path / "mine.csv", config())
    assert {path.name for path in tmp_path.iterdir()} == {"images", "answers.csv", "mine.csv"}


@pytest.mark.parametrize("length", [234, 237, 255])
def test_name_too_long_for_a_scratch_folder_is_refused_without_a_trace(model, images, tmp_path, length):
    output = tmp_path / f"{'a' * (length - 4)}.csv"
    if length == 234:
        predict_to_file(model, [str(images / "0.png")], output, config())
        output.unlink()
    else:
        with pytest.raises(UsageError, match="give a shorter one"):
            predict_to_file(model, [str(images / "0.png")], output, config())
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


# ---- the end, before its time ---------------------------------------------------------------------------------------

# Python announces what it is about to do; the process gets a signal when it is about to give a file its name.
SIGNALLED = """
import os, signal, sys
from pipeline import chunks, cli, predict_file
name, number, few, *arguments = sys.argv[1:]
chunks.CHUNK, predict_file.FEW = 4, int(few)
def listen(event, arguments):
    if event in ("os.rename", "os.link") and str(arguments[1]).endswith(name):
        os.kill(os.getpid(), int(number))
sys.addaudithook(listen)
sys.argv[1:] = arguments
cli.main()
"""


def signalled(name: str, number: signal.Signals, few: int, *arguments) -> subprocess.CompletedProcess:
    """`graft predict` in another process, which gets the signal when a file of this name is about to be there."""
    command = [sys.executable, "-c", SIGNALLED, *map(str, (name, int(number), few, "predict", *arguments))]
    with tempfile.TemporaryDirectory() as scratch:
        environment = os.environ | {"TMPDIR": scratch}
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
        # The log of a process that is killed stays.
        assert number == signal.SIGKILL or not os.listdir(scratch)
        return done


@pytest.mark.parametrize("when", ["parts/2", "answers.csv"], ids=["in the middle", "before the file has its name"])
def test_kill_leaves_no_output_and_the_next_call_cleans_up(model, images, tmp_path, small_chunks, when):
    output = tmp_path / "answers.csv"
    done = signalled(when, signal.SIGKILL, 1000, model, images, "--output", output)
    assert done.returncode == -signal.SIGKILL, done.stderr
    (leftover,) = {path.name for path in tmp_path.iterdir()} - {"images"}
    assert leftover.startswith(".answers.csv-")
    predict_to_file(model, [str(images)], output, config())
    assert {path.name for path in tmp_path.iterdir()} == {"images", "answers.csv"}
    assert len(read(output)) == len(GOOD) + len(BAD) + 3


def test_sigterm_on_beam_leaves_nothing_behind_as_an_interruption_does(model, images, tmp_path):
    # From there on it is a KeyboardInterrupt.
    done = signalled("parts/1", signal.SIGTERM, 0, model, images, "--output", tmp_path / "answers.csv")
    assert (done.returncode, done.stderr.strip()) == (1, "")
    assert {path.name for path in tmp_path.iterdir()} == {"images"}


def test_scratch_folder_of_a_living_process_stays(tmp_path):
    with scratch_beside(tmp_path / "a.csv") as mine:
        with scratch_beside(tmp_path / "a.csv"), scratch_beside(tmp_path / "b.csv"):
            assert mine.is_dir()
        assert [path.name for path in tmp_path.iterdir()] == [mine.name]
    (tmp_path / f".a.csv-theirs{ENDING}").mkdir()
    with scratch_beside(tmp_path / "b.csv"):
        assert len(list(tmp_path.iterdir())) == 2
    with scratch_beside(tmp_path / "a.csv"):
        assert len(list(tmp_path.iterdir())) == 1


# ---- the model ------------------------------------------------------------------------------------------------------


def test_s5_version_that_is_retired_meanwhile_still_answers(model, images, tmp_path):
    (tmp_path / "serving").mkdir()
    version = shutil.copytree(model, tmp_path / "serving" / "7")
    work = Chunks(tmp_path)
    work.copy_model(tmp_path / "serving")
    shutil.rmtree(version)
    (answer,) = classify(classifier(work.model), [images / "0.png"])
    assert answer["label"] == "path"


def test_s5_version_that_is_retired_while_it_is_copied_gives_way_to_the_newer_one(model, tmp_path, monkeypatch):
    serving = tmp_path / "serving"
    shutil.copytree(model, serving / "7")
    copyfile = shutil.copyfile

    def retires(source, target):
        if (serving / "7").exists():
            shutil.copytree(model, serving / "8", copy_function=copyfile, dirs_exist_ok=True)
            shutil.rmtree(serving / "7")
        return copyfile(source, target)

    work = Chunks(tmp_path)
    monkeypatch.setattr(shutil, "copyfile", retires)
    work.copy_model(serving)
    assert classifier(work.model).names == NAMES
    shutil.copytree(model, serving / "7", copy_function=copyfile)
    with pytest.raises(UsageError, match="was removed while it was read"):
        Chunks(tmp_path / "other").copy_model(serving / "7")


# ---- the quick way --------------------------------------------------------------------------------------------------


def test_names_cannot_pass_for_other_answers_in_the_terminal(model, images, capfd):
    (images / "\x1b[2J.png").write_bytes(b"")
    assert predict_printed(model, [str(images)], as_json=False) == len(BAD) + 2
    said = capfd.readouterr()
    assert len(said.out.splitlines()) == len(GOOD) + 2
    assert len(said.err.splitlines()) == len(BAD) + 2
    assert 'line\\nbreak,\\r".png: path (' in said.out
    assert "\\x1b[2J.png: is empty" in said.err


FEW_FILES = """
import sys
from pipeline import cli
for arguments in ([], ["--output", sys.argv[3]]):
    try:
        cli.graft.main(["predict", *sys.argv[1:3], *arguments], standalone_mode=False)
    except SystemExit as done:
        assert done.code == 0
assert not {"apache_beam", "tfx"} & set(sys.modules)
"""


def test_few_files_are_answered_without_importing_beam(model, images, tmp_path):
    command = [sys.executable, "-c", FEW_FILES, model, images / "0.png", tmp_path / "answers.csv"]
    # Without the setting that keeps TensorFlow quiet in tests.
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{images / '0.png'}: path (" in done.stdout
    assert len(read(tmp_path / "answers.csv")) == 1
