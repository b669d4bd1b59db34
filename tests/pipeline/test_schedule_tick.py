"""A tick's attempts, in real processes that are really killed."""

import json
import os
import signal
import time

import pytest

from pipeline.schedule import log
from pipeline.schedule.ticks import Tick
from tests.pipeline.scheduled import FOR_GOOD, MAY_PASS, PUBLISHED, Scheduled


@pytest.fixture
def scheduled(tmp_path) -> Scheduled:
    return Scheduled(tmp_path)


def wait_for(met, seconds: float = 20.0) -> None:
    late = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < late, "it did not happen"
        time.sleep(0.02)


def test_what_may_pass_is_tried_again_and_leaves_one_line(scheduled):
    tick = scheduled.tick({"does": "dies"}, {"does": "breaks"}, PUBLISHED)
    assert (tick.status, tick.attempts, tick.failures, tick.version) == ("published", 3, 0, "1800000001")
    assert tick.due == "2026-01-05T03:00:00+00:00"
    assert tick.events == ["published"]
    assert "The run was ended by signal 9, as the system does when memory runs out. Again in 0 s." in scheduled.log
    assert "/mnt/images/cat.jpg: Input/output error. Again in 0 s." in scheduled.log


def test_what_nobody_mended_is_not_tried_again(scheduled):
    tick = scheduled.tick(FOR_GOOD)
    assert (tick.status, tick.exit_code, tick.attempts, scheduled.runs) == ("failed", 3, 1, 1)
    assert tick.run_id == scheduled.output.all_runs()[0].name
    refused = scheduled.tick({"status": "refused", "exit_code": 4})
    assert (refused.status, refused.exit_code, refused.attempts, refused.failures) == ("refused", 4, 1, 0)
    assert refused.events == ["refused", "recovered"]


def test_reason_of_a_tick_is_not_told_as_the_cause_of_its_outcome(scheduled):
    scheduled.tick(PUBLISHED | {"reason": "nothing is in service"})
    assert "  Tick (nothing is in service): published after 0 s, run " in scheduled.log


def test_notice_that_cannot_be_kept_does_not_cost_the_line(scheduled):
    scheduled.configure(notices={"command": ["true"]})
    scheduled.places.outbox.rmdir()
    scheduled.places.outbox.write_text("no folder")
    scheduled.places.told.write_bytes(b"\xff")
    assert scheduled.tick(PUBLISHED).events == ["published"]
    assert "Nobody is told" in scheduled.log


def test_broken_configuration_fails_the_tick_without_an_attempt_and_the_next_reads_it_anew(scheduled):
    scheduled.configure(retrys=3)
    tick = scheduled.tick(PUBLISHED)
    assert (tick.status, tick.exit_code, tick.attempts, scheduled.runs) == ("failed", 2, 0, 0)
    assert "did you mean schedule.retries?" in tick.error
    scheduled.configure()
    assert scheduled.tick().events == ["published", "recovered"]


def test_s3_failing_ticks_are_told_of_once_do_not_storm_and_the_model_stays_in_service(scheduled):
    scheduled.serve("1700000000")
    scheduled.configure(retries=2, max_failures=3)
    scheduled.tick(MAY_PASS, ticks=3)
    assert [tick.failures for tick in scheduled.ticks] == [1, 2, 3]
    assert [tick.events for tick in scheduled.ticks] == [["failed"], ["failed"], ["failed", "failing"]]
    assert scheduled.runs == 3 * 3
    assert scheduled.log.count("3 failed in a row. From now on a tick tries once") == 1
    fourth = scheduled.tick()
    assert (fourth.attempts, fourth.failures, fourth.events) == (1, 4, ["failed"])
    assert [folder.name for folder in scheduled.output.serving.iterdir()] == ["1700000000"]
    good = scheduled.tick(PUBLISHED)
    assert (good.attempts, good.failures, good.events) == (1, 0, ["published", "recovered"])
    assert scheduled.tick(MAY_PASS).attempts == 3


def test_tick_while_another_run_goes_on_is_skipped_and_counts_neither_way(scheduled):
    scheduled.tick(FOR_GOOD)
    with scheduled.output.held():
        tick = scheduled.tick(PUBLISHED)
    assert (tick.status, tick.exit_code, tick.failures, tick.events) == ("skipped", 5, 1, [])
    assert str(os.getpid()) in tick.error


def test_refusal_and_drift_are_told_of_once_a_run(scheduled):
    refused = {"status": "refused", "exit_code": 4, "drift": ["image/height"]}
    first = scheduled.tick(refused)
    assert first.events == ["refused", "drift"]
    # A run that has nothing new says the same of the one before.
    again = {**refused, "run_id": first.run_id}
    assert scheduled.tick(again).events == []


@pytest.mark.parametrize(("status", "events"), [("killed", ["published"]), ("unchanged", [])])
def test_publication_whose_tick_was_cut_short_right_after_it_is_told_by_the_next(scheduled, status, events):
    before = Tick("2026-01-05T03:00:00+00:00", status, run_id="20260105-030000", failures=0)
    before.record(scheduled.output)
    stands = {"status": "unchanged", "exit_code": 0, "run_id": before.run_id}
    assert scheduled.tick(stands).events == events
    assert scheduled.tick().events == []


def test_full_disk_is_tidied_first_and_fails_the_tick_only_if_that_frees_nothing(scheduled):
    full = scheduled.output.root / "full"
    full.write_text("0.1 GiB are free, and a run needs 1.")
    tick = scheduled.tick(PUBLISHED)
    assert (tick.status, tick.exit_code, tick.attempts) == ("failed", 1, 0)
    assert tick.error == "0.1 GiB are free, and a run needs 1."
    (scheduled.output.root / "frees").touch()
    assert scheduled.tick().status == "published"
    # Both times before the attempt, and after what ran.
    assert (scheduled.output.root / "tidied").read_text().count("tidied") == 3
    assert scheduled.places.metrics.is_file()


@pytest.mark.parametrize("does", ["waits", "computes", "fails when it is stopped"])
def test_stop_ends_the_run_with_all_its_processes_and_counts_neither_way(scheduled, does):
    scheduled.tick(FOR_GOOD)
    scheduled.script({"does": does, "start": True})
    process = scheduled.start()
    wait_for((scheduled.output.root / "processes").is_file)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0
    tick = scheduled.ticks[-1]
    assert (tick.status, tick.failures, tick.events) == ("stopped", 1, [])
    assert tick.run_id == scheduled.output.all_runs()[0].name
    assert scheduled.left_over == []
    assert scheduled.cut_short is None


@pytest.mark.parametrize("does", ["waits", "computes"])
def test_s4_kill_of_the_supervisor_leaves_no_process_and_what_was_cut_short_is_known(scheduled, does):
    scheduled.script({"does": does, "start": True})
    process = scheduled.start()
    wait_for((scheduled.output.root / "processes").is_file)
    process.kill()
    process.wait()
    wait_for(lambda: not scheduled.left_over)
    left = scheduled.cut_short
    assert left["run_id"] == scheduled.output.all_runs()[0].name
    assert (left["due"], left["missed"]) == ("2026-01-05T03:00:00+00:00", 0)
    assert scheduled.ticks == []


def test_note_of_a_tick_that_a_full_disk_cut_off_still_says_that_one_was_cut_short(scheduled):
    scheduled.places.ticking.write_text('{"time": "20')
    assert set(scheduled.cut_short) == {"time", "due", "missed", "run_id"}


def test_s4_run_that_lost_its_supervisor_is_waited_for_and_makes_no_skipped_tick(scheduled):
    Tick(time="2026-01-05T03:00:00+00:00", status="killed").record(scheduled.output)
    with scheduled.output.held():
        scheduled.script(PUBLISHED)
        process = scheduled.start()
        wait_for(lambda: scheduled.places.log.is_file() and "has not ended yet" in scheduled.log)
    assert process.wait(20) == 0
    assert scheduled.ticks[-1].status == "published"


def test_wait_between_attempts_ends_at_a_stop(scheduled):
    scheduled.configure(retry_seconds=600)
    scheduled.script(MAY_PASS)
    process = scheduled.start()
    wait_for(lambda: scheduled.places.log.is_file() and "Again in" in scheduled.log)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0
    assert [tick.status for tick in scheduled.ticks] == ["stopped"]


def test_run_that_takes_too_long_is_ended_and_not_tried_again(scheduled):
    scheduled.configure(max_hours=0.5 / 3600)
    tick = scheduled.tick({"does": "waits", "start": True})
    assert (tick.status, tick.exit_code, tick.attempts) == ("failed", 1, 1)
    assert "schedule.max_hours" in tick.error
    assert scheduled.left_over == []


def test_supervisor_imports_nothing_heavy(scheduled):
    heavy = "{'tfx', 'tensorflow', 'ml_metadata', 'keras', 'requests'}"
    assert scheduled.say(f"import sys, pipeline.schedule.tick; print({heavy} & set(sys.modules))") == "set()\n"


def test_log_keeps_one_file_before_it(scheduled, monkeypatch):
    monkeypatch.setattr(log, "MOST", 1000)
    for number in range(200):
        log.say(scheduled.places, f"line {number}")
    files = sorted(scheduled.places.folder.glob("log.txt*"))
    assert [file.name for file in files] == ["log.txt", "log.txt.1"]
    assert all(file.stat().st_size <= 1000 for file in files)
    assert scheduled.log.rstrip().endswith("line 199")


def test_webhook_hears_of_a_configuration_that_broke_where_the_last_good_one_sent_it(scheduled):
    sink = scheduled.output.root / "told.jsonl"
    command = ["sh", "-c", f"cat >> {sink}; echo >> {sink}"]
    scheduled.configure(notices={"command": command})
    scheduled.tick(PUBLISHED)
    scheduled.configure(retrys=1)
    scheduled.tick()
    told = [json.loads(line) for line in sink.read_text().splitlines()]
    assert [row["event"] for row in told] == ["published", "failed"]
    assert told[0]["name"] == told[1]["name"] == "signs"
    assert "did you mean" in told[1]["text"]
