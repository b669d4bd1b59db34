"""The command's contract: one sentence and the documented exit code, never a traceback."""

import hashlib
import json
import os
import re
import subprocess
import sys
import time

import pytest
from PIL import Image

from tests.conftest import ROOT


def graft(*arguments, **environment) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "pipeline", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | environment,
    )


def refuses(done: subprocess.CompletedProcess, code: int, *words: str) -> None:
    text = done.stdout + done.stderr
    assert done.returncode == code, text
    assert "Traceback" not in text
    for word in words:
        assert word in text


@pytest.fixture
def classes(tmp_path):
    """Two classes of four distinct images."""
    for index, name in enumerate(("cat", "dog")):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(4):
            colour = (index * 100, number * 50, 7)
            Image.new("RGB", (40, 40), colour).save(tmp_path / "images" / name / f"{number}.png")
    return tmp_path / "images"


TINY = ("--set", "model.backbone=graft_tiny", "--set", "model.weights=bundled")


def test_help_is_instant_and_names_the_exit_codes():
    began = time.monotonic()
    done = graft("--help")
    assert time.monotonic() - began < 0.5
    assert done.returncode == 0
    for code in range(6):
        assert f"\n    {code}  " in done.stdout or f"\n  {code}  " in done.stdout


@pytest.mark.parametrize("command", ["run", "tune", "demo"])
def test_verbose_and_quiet_exclude_each_other(command, tmp_path):
    options = {"run": ("--images", "x"), "tune": ("--images", "x", "--recipe", tmp_path / "y"), "demo": ()}[command]
    done = graft(command, *options, "--output", tmp_path / "out", "--quiet", "--verbose")
    refuses(done, 2, "Give --verbose or --quiet, not both.")
    assert not (tmp_path / "out").exists()


def test_command_whose_reader_has_enough_ends_without_a_word():
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "pipeline", "check", "--print-config"]
    done = subprocess.run(command, cwd=ROOT, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (done.returncode, done.stderr) == (1, "")


def test_quiet_run_that_fails_says_how_it_ended_and_no_step(classes, tmp_path):
    settings = ("--set", "model.backbone=vgg16", "--set", "training.fine_tune.unfreeze=100")
    done = graft("run", "--images", classes, "--output", tmp_path / "out", "--quiet", *settings)
    assert done.returncode == 2
    first, *rest = done.stdout.splitlines()
    assert first.startswith("failed") and "vgg16 has 19 layers" in first
    assert not [line for line in rest if re.match(r"\d\d:", line) or not line]


def test_missing_image_folder_is_a_usage_error(tmp_path):
    refuses(graft("run", "--images", tmp_path / "no", "--output", tmp_path / "out"), 2, str(tmp_path / "no"))


def test_empty_image_folder_is_refused(tmp_path):
    (tmp_path / "images").mkdir()
    refuses(graft("run", "--images", tmp_path / "images", "--output", tmp_path / "out"), 3, "class folders")


def test_folder_of_text_files_is_refused(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / "images" / name).mkdir(parents=True)
        (tmp_path / "images" / name / "notes.txt").write_text("no picture")
    done = graft("run", "--images", tmp_path / "images", "--output", tmp_path / "out", *TINY)
    refuses(done, 3, "No image was found")


def test_one_class_is_refused(classes, tmp_path):
    for file in (classes / "dog").iterdir():
        file.unlink()
    (classes / "dog").rmdir()
    done = graft("run", "--images", classes, "--output", tmp_path / "out", *TINY)
    refuses(done, 3, "at least two classes", "'cat'")


def test_misspelt_key_is_answered_with_the_right_one(classes, tmp_path):
    done = graft("run", "--images", classes, "--output", tmp_path / "out", "--set", "training.batchsize=8")
    refuses(done, 2, "training.batchsize", "did you mean training.batch_size?")


def test_output_that_cannot_be_written_is_named(classes, tmp_path):
    (tmp_path / "file").write_text("in the way")
    done = graft("run", "--images", classes, "--output", tmp_path / "file" / "out", *TINY)
    refuses(done, 2, str(tmp_path / "file" / "out"), "cannot be written")


def test_p8_weights_that_cannot_be_had_are_named_with_their_place(classes, tmp_path):
    # A proxy where nothing listens: as good as no network, wherever the test runs.
    offline = {name: "http://127.0.0.1:9" for name in ("https_proxy", "HTTPS_PROXY", "http_proxy", "HTTP_PROXY")}
    done = graft(
        "run", "--images", classes, "--output", tmp_path / "out", KERAS_HOME=str(tmp_path / "keras"), **offline
    )
    file = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5"
    refuses(done, 2, file, str(tmp_path / "keras" / "models"), "model.weights")
    arguments = ("run", "--images", classes, "--output", tmp_path / "out", "--verbose")
    verbose = graft(*arguments, KERAS_HOME=str(tmp_path / "keras"), **offline)
    assert verbose.returncode == 2
    log, failed, end = verbose.stdout.partition("\nfailed")
    assert failed and "Traceback" in log and "Traceback" not in end, "what goes to the log comes where it belongs"


@pytest.mark.parametrize("command", ["check", "run"])
def test_fine_tuning_past_the_last_layer_is_a_usage_error_before_any_compute(command, classes, tmp_path):
    settings = ("model.backbone=vgg16", "model.weights=none", "training.fine_tune.unfreeze=100")
    options = [part for setting in settings for part in ("--set", setting)]
    done = graft(command, "--images", classes, "--output", tmp_path / "out", *options)
    refuses(done, 2, "vgg16 has 19 layers, so an index must be 0 to 18. Received: 100.")
    assert "Load TFX" not in done.stdout
    assert not [*tmp_path.glob("out/artifacts/*")]


def test_check_says_what_a_run_would_start_from(classes):
    (classes / "cat" / "empty.jpg").write_bytes(b"")
    done = graft("check", "--images", classes, *TINY, "--set", "data.max_bad_fraction=0.5")
    assert done.returncode == 0, done.stderr
    assert re.search(r"cat +2 +1 +1\n", done.stdout)
    assert "quarantined: 1\n  cat/empty.jpg: empty file\n" in done.stdout
    assert "Ready: 8 images, graft_tiny at 64 px" in done.stdout
    assert done.stderr == ""


def test_check_as_json_is_the_data_section_of_the_summary_and_a_line_a_file(classes):
    (classes / "cat" / "copy.png").write_bytes((classes / "cat" / "0.png").read_bytes())
    done = graft("check", "--images", classes, *TINY, "--json")
    report = json.loads(done.stdout)
    assert report["data"]["images"] == 8
    assert report["data"]["formats"] == {"png": 8}
    assert report["data"]["sizes"]["width"] == {"smallest": 40, "median": 40, "largest": 40}
    assert report["files"] == [
        {"outcome": "duplicate", "path": "cat/copy.png", "reason": "the same bytes are in already"}
    ]


def test_check_with_an_output_folder_says_what_a_run_there_would_do_and_leaves_it_alone(classes, tmp_path):
    def splits(*more):
        done = graft("check", "--images", classes, *TINY, *more)
        assert done.returncode == 0, done.stderr
        return re.search(r"cat .*", done.stdout).group().split()[1:]

    assert splits() == splits("--output", tmp_path / "none") == ["2", "1", "1"]
    assert not (tmp_path / "none").exists()
    images = (classes / "cat").iterdir()
    rows = [{"sha256": hashlib.sha256(image.read_bytes()).hexdigest(), "split": "test"} for image in images]
    rows[0]["split"], rows[1]["split"] = "train", "eval"
    file = tmp_path / "out" / "schema" / "splits.jsonl"
    file.parent.mkdir(parents=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert splits("--output", tmp_path / "out") == ["1", "1", "2"]
    assert sorted(path.name for path in (tmp_path / "out").rglob("*")) == ["schema", "splits.jsonl"]
    file.write_text("damaged\n")
    refuses(graft("check", "--images", classes, *TINY, "--output", tmp_path / "out"), 2, f"{file}, line 1")


def test_check_refuses_what_a_run_would_refuse(classes):
    (classes / "cat" / "empty.jpg").write_bytes(b"")
    refuses(graft("check", "--images", classes, *TINY), 3, "'cat'", "data.max_bad_fraction", "cat/empty.jpg")


def test_check_prints_the_whole_configuration():
    done = graft("check", "--print-config", "--set", "training.seed=7")
    assert done.returncode == 0
    assert "seed: 7" in done.stdout
    assert "max_accuracy_drop: null" in done.stdout


def test_predict_without_a_model_is_a_usage_error(tmp_path):
    refuses(graft("predict", tmp_path, tmp_path / "x.jpg"), 2, "There is no model in")


def test_output_inside_the_image_folder_is_refused_before_it_becomes_a_class(classes):
    refuses(graft("run", "--images", classes, "--output", classes / "out", *TINY), 2, "inside the image folder")
    assert not (classes / "out").exists()


def test_missing_image_folder_leaves_no_output_behind(tmp_path):
    graft("run", "--images", tmp_path / "no", "--output", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_output_inside_any_image_folder_is_refused_and_beside_a_manifest_is_not(classes, tmp_path):
    other = tmp_path / "other"
    (other / "cat").mkdir(parents=True)
    refuses(
        graft("run", "--images", classes, "--images", other, "--output", other / "out", *TINY),
        2,
        f"inside the image folder {other}",
    )
    assert not (other / "out").exists()
    (other / "list.csv").write_text("path,lable\n")
    refuses(graft("run", "--images", other / "list.csv", "--output", other / "out", *TINY), 2, "'lable'", "line 1")


def test_check_reads_folders_manifests_and_spans_together(classes, tmp_path):
    for number in range(3):
        (tmp_path / f"week-{number}.csv").write_text("path,label\n")
    colours = [(9, number, 9) for number in range(2)]
    for number, colour in enumerate(colours):
        Image.new("RGB", (40, 40), colour).save(tmp_path / f"{number}.png")
    (tmp_path / "week-10.csv").write_text("path,label\n0.png,cat\n1.png,dog\n")
    done = graft("check", "--images", classes, "--images", tmp_path / "week-{SPAN}.csv", *TINY)
    assert done.returncode == 0, done.stderr
    assert re.search(r"cat +3 +1 +1\n", done.stdout)
    assert re.search(r"dog +3 +1 +1\n", done.stdout)


def test_uri_that_nothing_reads_is_a_usage_error(tmp_path):
    done = graft("run", "--images", "nowhere://bucket/images", "--output", tmp_path / "out", *TINY)
    refuses(done, 2, "nowhere://", "apache-beam[")
    assert not (tmp_path / "out").exists()


def test_bad_file_with_a_name_that_is_no_text_is_listed_escaped(classes):
    with open(os.fsencode(classes / "cat") + b"/\xff.jpg", "wb"):
        pass
    refuses(graft("check", "--images", classes, *TINY), 3, "\\udcff.jpg (empty file)")


def test_tune_refuses_before_any_work_what_it_could_not_end_with(classes, tmp_path):
    (tmp_path / "recipe.yaml").write_text("mine")
    arguments = ("tune", "--images", classes, "--output", tmp_path / "out", *TINY)
    refuses(graft(*arguments, "--recipe", tmp_path / "recipe.yaml"), 2, "recipe.yaml is there already")
    refuses(graft(*arguments, "--recipe", tmp_path / "new.yaml", "--trials", 1), 2, "--trials")
    assert (tmp_path / "recipe.yaml").read_text() == "mine"
    assert not (tmp_path / "out").exists()


def test_tune_refuses_data_as_a_run_does(classes, tmp_path):
    for file in (classes / "dog").iterdir():
        file.write_text("no picture")
    done = graft("tune", "--images", classes, "--output", tmp_path / "out", *TINY, "--recipe", tmp_path / "recipe.yaml")
    refuses(done, 3, "'dog'", "log.txt")
    assert list((tmp_path / "out" / "tune").glob("*/quarantine.jsonl"))
    assert not (tmp_path / "recipe.yaml").exists()


def test_threads_that_outlive_an_interruption_say_nothing():
    """Those of Beam end at length where Ctrl-C reached its worker processes, too."""
    code = """
import threading
from pipeline import cli

def interrupted(**options):
    ended = threading.main_thread().join
    threading.Thread(target=lambda: (ended(), 1 / 0)).start()
    raise KeyboardInterrupt

cli.graft.main = interrupted
cli.main()
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (1, "")
