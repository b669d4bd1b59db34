"""The output folder: one holder at a time, and runs in the order in which they were made."""

import os
import subprocess
import sys
import time

import pytest

from components.errors import OutputBusy, UsageError
from components.steps import Notes
from pipeline.output import Output, read_summary, write_json
from tests.conftest import ROOT

HOLDER = """
import sys
from pathlib import Path
from pipeline.output import Output
with Output(Path(sys.argv[1])).held():
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(output):
    """Another process that holds the folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, output.root], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == b"held\n"
    yield process
    process.kill()
    process.communicate()


def run(output, name, status) -> None:
    (output.runs / name).mkdir()
    write_json(output.runs / name / "summary.json", {"status": status})


def test_p4_second_holder_is_refused_and_told_the_first_ones_process_id(output, holder):
    with pytest.raises(OutputBusy) as caught, output.held():
        raise AssertionError("two processes hold one folder")
    assert f"process {holder.pid}" in str(caught.value)
    assert str(output.root) in str(caught.value)
    assert caught.value.exit_code == 5


def test_p1_folder_of_a_killed_holder_is_free_again(output, holder):
    holder.kill()
    holder.wait()
    with output.held():
        assert (output.root / ".lock").read_text() == str(os.getpid())


def test_p4_folder_can_be_held_again_after_it_was_let_go(output):
    for _ in range(2):
        with output.held():
            pass


def test_p3_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UsageError, match="cannot be written") as caught:
        Output(tmp_path / "file" / "out").prepare()
    assert str(tmp_path / "file" / "out") in str(caught.value)


def test_last_finished_run_is_the_newest_that_neither_failed_nor_is_under_way(output):
    run(output, "20260101-000001", "published")
    run(output, "20260101-000003", "refused")
    run(output, "20260101-000002", "failed")
    run(output, "20251231-235959", "published")
    (output.runs / "20260101-000009").mkdir()
    output.point_latest(output.runs / "20260101-000001")
    assert output.last_finished().name == "20260101-000003"


def test_latest_points_to_the_last_run_and_moves_with_it(output):
    for name in ("20260101-000001", "20260101-000002"):
        run(output, name, "published")
        output.point_latest(output.runs / name)
        assert (output.runs / "latest").is_symlink()
        assert (output.runs / "latest").resolve() == (output.runs / name).resolve()
    assert sorted(path.name for path in output.runs.iterdir()) == ["20260101-000001", "20260101-000002", "latest"]


def test_latest_still_leads_to_the_run_after_the_output_was_moved(output, tmp_path):
    run(output, "20260101-000001", "published")
    output.point_latest(output.runs / "20260101-000001")
    output.root.rename(tmp_path / "moved")
    assert read_summary(tmp_path / "moved" / "runs" / "latest") == {"status": "published"}


def test_runs_of_one_second_get_folders_of_their_own(output, monkeypatch):
    seconds = iter([1_000_000_000, 1_000_000_000, 1_000_000_001])
    monkeypatch.setattr(time, "gmtime", lambda at=time.gmtime: at(next(seconds)))
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    first, second = output.new_run(), output.new_run()
    assert first != second
    assert first.name < second.name


def test_run_after_a_clock_that_was_years_ahead_is_the_newest(output):
    (output.runs / "20990101-000000").mkdir()
    first, second = output.new_run(), output.new_run()
    assert [run.name for run in output.all_runs()] == ["20990101-000002", "20990101-000001", "20990101-000000"]
    assert (first.name, second.name) == ("20990101-000001", "20990101-000002")


def test_half_a_line_that_a_full_disk_left_does_not_spoil_the_next(output):
    output.record_tick({"status": "published"})
    with open(output.ticks, "a") as file:
        file.write('{"status": "fai')
    output.record_tick({"status": "refused"})
    lines = output.ticks.read_text().splitlines()
    assert lines == ['{"status": "published"}', '{"status": "fai', '{"status": "refused"}']


def test_run_ids_sort_by_age_in_the_hour_that_comes_twice_in_autumn(output, monkeypatch):
    # 02:30 summer time and, half an hour later, 02:00 winter time.
    moments = iter([1_761_438_600, 1_761_440_400])
    strftime, localtime, gmtime = time.strftime, time.localtime, time.gmtime
    monkeypatch.setattr(time, "localtime", lambda: localtime(next(moments)))
    monkeypatch.setattr(time, "gmtime", lambda: gmtime(next(moments)))
    monkeypatch.setattr(time, "strftime", lambda form, at=None: strftime(form, at or time.localtime()))
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        first, second = output.new_run().name, output.new_run().name
    finally:
        monkeypatch.undo()
        time.tzset()
    assert first < second


def test_damaged_summary_counts_as_none(output):
    (output.runs / "20260101-000001").mkdir()
    (output.runs / "20260101-000001" / "summary.json").write_text('{"status": "publ')
    assert read_summary(output.runs / "20260101-000001") == {}
    assert output.last_finished() is None


def test_newest_run_that_left_notes_and_no_summary_ended_without_a_word(output):
    assert output.ended_without_a_word() is None
    run(output, "20260101-000001", "published")
    killed = output.runs / "20260101-000002"
    killed.mkdir()
    assert output.ended_without_a_word() is None, "nothing is known of it"
    Notes(killed.name, 0.0, "Train").write(killed)
    found = output.ended_without_a_word()
    assert (found.run_id, found.step) == (killed.name, "Train")
    run(output, "20260101-000003", "failed")
    assert output.ended_without_a_word() is None, "it was told of in the run after it"


def test_write_json_leaves_the_old_file_where_writing_fails(tmp_path):
    write_json(tmp_path / "summary.json", {"status": "published"})
    with pytest.raises(TypeError):
        write_json(tmp_path / "summary.json", {"status": object()})
    assert read_summary(tmp_path) == {"status": "published"}


def test_folder_with_other_peoples_files_is_refused_and_left_alone(tmp_path):
    (tmp_path / "cache" / "training").mkdir(parents=True)
    with pytest.raises(UsageError, match=r"was not made by Graft \(it holds cache\)"):
        Output(tmp_path).prepare()
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


def test_folder_of_an_earlier_run_is_taken_again(output):
    Output(output.root).prepare()
