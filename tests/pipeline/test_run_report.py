"""The report of runs that end badly, and reports that cannot be written."""

import json
import os
import signal
import subprocess
import sys

import pytest
from PIL import Image

from components import run_summary
from components.files import write_json_lines
from components.run_summary import About, Produced
from components.steps import Notes
from pipeline import config as configuration
from pipeline import local, run_report
from pipeline.console import Detail

SUMMARY = run_summary.collect(Produced(), About(), Notes("20260101-000000", 1.7e9, "Train"), "it broke")


@pytest.fixture
def images(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(3):
            Image.new("RGB", (9, 9), (number, 9, 9)).save(tmp_path / "images" / name / f"{number}.png")
    return tmp_path / "images"


def test_run_that_ends_before_tfx_is_imported_has_a_report(images, tmp_path, capfd):
    loaded = configuration.load(None, ["model.backbone=graft_tiny", f"model.weights={tmp_path}/no.weights.h5"])
    summary = local.run(loaded, [str(images)], tmp_path / "out")
    assert (summary["exit_code"], summary["step"]) == (2, "Find the weights")
    page = tmp_path / "out" / "runs" / summary["run_id"] / "report.html"
    assert f"Report: {page}" in capfd.readouterr().out
    assert "no.weights.h5" in page.read_text()
    assert json.loads((page.parent / "steps.json").read_text())["step"] == "Find the weights"


@pytest.mark.parametrize(("number", "how"), [(signal.SIGINT, "interrupted."), (signal.SIGTERM, "stopped (SIGTERM).")])
def test_interrupted_run_has_a_report(images, tmp_path, number, how):
    command = [sys.executable, "-m", "pipeline", "run", "--images", images, "--output", tmp_path / "out"]
    tiny = ["--set", "model.backbone=graft_tiny", "--set", "model.weights=bundled"]
    process = subprocess.Popen([*command, *tiny], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    lines = []
    for line in process.stdout:
        lines.append(line)
        # Once: what is being printed when the signal comes may be printed again.
        if "Load TFX ..." in line and lines.count(line) == 1:
            process.send_signal(number)
    assert process.wait(60) == 1
    page = tmp_path / "out" / "runs" / "latest" / "report.html"
    assert f"Report: {page.resolve()}\n" in lines
    summary = json.loads((page.parent / "summary.json").read_text())
    assert (summary["status"], summary["exit_code"], summary["error"]) == ("failed", 1, how)
    assert "Run the same command again" in summary["advice"]


def test_report_shows_what_the_run_folder_says_of_refused_data(tmp_path):
    rows = [{"outcome": "quarantined", "path": "a/1.jpg", "reason": "not an image"}]
    write_json_lines(tmp_path / "quarantine.jsonl", rows)
    (tmp_path / "anomalies.json").write_text('[{"feature": "image/height", "problem": "p", "detail": "d"}]')
    text = run_report.write(tmp_path, SUMMARY, Produced()).read_text()
    assert "a/1.jpg" in text
    assert "image/height" in text


def test_report_that_cannot_be_written_is_a_warning(tmp_path, caplog, capfd):
    (tmp_path / "report.html").mkdir()
    assert run_report.write(tmp_path, SUMMARY, Produced()) is None
    assert f"The report {tmp_path}/report.html could not be written (IsADirectoryError" in caplog.text
    assert "Traceback" in capfd.readouterr().err
    assert os.listdir(tmp_path) == ["report.html"]


def test_person_who_does_not_wait_for_the_report_keeps_the_run(tmp_path, caplog, monkeypatch):
    def interrupted(facts):
        raise KeyboardInterrupt

    monkeypatch.setattr("components.report.write.render", interrupted)
    assert run_report.write(tmp_path, SUMMARY, Produced()) is None
    assert "it was interrupted" in caplog.text


def test_run_whose_traces_for_later_runs_cannot_be_kept_is_what_it_was(images, tmp_path, caplog):
    loaded = configuration.load(None, ["model.backbone=graft_tiny", "model.weights=bundled"])
    with local._opened(loaded, [str(images)], tmp_path / "out", Detail.QUIET) as (output, sources, digest, _):
        run = local._Run(loaded, sources, digest, output, output.new_run(), 1.7e9)
        # The mark has no place where a folder is.
        (run.folder / local.MARK_FILE).mkdir()
        run._note_finished(SUMMARY | {"status": "refused"}, "fingerprint")
    assert "That this run is finished could not be noted (IsADirectoryError" in caplog.text


def test_only_the_step_that_writes_the_report_may_fail_without_ending_the_run():
    with run_report.never_fatal("Report"):
        raise OSError("disk full")
    with pytest.raises(OSError, match="disk full"), run_report.never_fatal("AtomicPusher"):
        raise OSError("disk full")
