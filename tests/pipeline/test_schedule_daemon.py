"""A schedule that is kept by a process: killed, stopped, started again, under clocks that are moved."""

import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from components.errors import UsageError
from pipeline import cli
from pipeline.output import Output
from tests.pipeline.daemons import HEAVY, Scheduled, copied_source, until

MONDAY, BEFORE = "2026-11-30T03:00:00", "2026-11-30T02:50:00"


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return copied_source(tmp_path_factory.mktemp("source"))


@pytest.fixture
def schedule(source, tmp_path):
    schedule = Scheduled(source, tmp_path)
    schedule.set_clock(BEFORE)
    yield schedule
    schedule.end()


def dues(schedule: Scheduled) -> list[str | None]:
    return [tick["due"][:16] if tick.get("due") else None for tick in schedule.ticks]


def test_tick_is_run_at_its_time_in_its_zone_and_the_next_is_told(schedule):
    daemon = schedule.keep("--time-zone", "Europe/Paris")
    assert "0 3 * * 1 (Europe/Paris)" in schedule.printed
    assert "Next tick Mon 2026-12-07 03:00 CET." in schedule.printed
    schedule.set_clock("2026-12-07T02:00:01")
    until(lambda: schedule.ticks)
    (tick,) = schedule.ticks
    assert (tick["status"], tick["due"], tick.get("missed")) == ("unchanged", "2026-12-07T02:00:00+00:00", None)
    until(lambda: _next_in_metrics(schedule) == "2026-12-14T02:00:00+00:00")
    until(lambda: schedule.printed.count("Next tick ") == 2)
    assert "Tick: unchanged after " in schedule.printed
    assert schedule.stop(daemon) == 0
    assert schedule.printed.rstrip().endswith("Stopped by SIGTERM.")
    assert "Next tick Mon 2026-12-14 03:00 CET." in (schedule.output / "schedule" / "log.txt").read_text()


def _next_in_metrics(schedule: Scheduled) -> str | None:
    text = (schedule.output / "schedule" / "metrics.prom").read_text()
    found = re.findall(r"^graft_next_tick_timestamp_seconds (\S+)$", text, re.MULTILINE)
    return datetime.fromtimestamp(float(found[0]), UTC).isoformat() if found else None


def test_s1_tick_while_a_run_is_active_is_skipped_and_recorded(schedule):
    schedule.hold()
    schedule.keep(cron="0 * * * *")
    schedule.set_clock("2026-11-30T03:00:01")
    until(lambda: schedule.attempts == 1)
    # The run of which the attempt is: its id is of the moved clock, and whoever holds the folder began before that.
    with Output(schedule.output).held():
        (schedule.output / "runs" / "20991130-030001").mkdir()
        for hour in (4, 5):
            schedule.set_clock(f"2026-11-30T0{hour}:00:01")
            until(lambda hour=hour: len(schedule.ticks) == hour - 3)
    schedule.let_go()
    until(lambda: len(schedule.ticks) == 3)
    assert [tick["status"] for tick in schedule.ticks] == ["skipped", "skipped", "unchanged"]
    assert dues(schedule) == ["2026-11-30T04:00", "2026-11-30T05:00", "2026-11-30T03:00"]
    assert schedule.ticks[0]["why"] == "the tick before it is still going on"
    assert schedule.ticks[0]["exit_code"] == 5 and schedule.attempts == 1
    assert schedule.ticks[0]["run_id"] == "20991130-030001"


def test_s1_run_that_somebody_started_by_hand_is_not_disturbed(schedule):
    schedule.answer("failed", 5, "Another run (process 7) holds it.")
    schedule.keep()
    schedule.set_clock("2026-11-30T03:00:01")
    until(lambda: schedule.ticks)
    assert (schedule.ticks[0]["status"], schedule.ticks[0]["error"]) == ("skipped", "Another run (process 7) holds it.")


def test_s4_ticks_that_were_missed_while_the_process_was_killed_are_one_run(schedule):
    daemon = schedule.keep()
    daemon.kill()
    daemon.wait()
    schedule.set_clock("2026-12-15T09:00:00")
    status = schedule.status()
    assert (status["process"], status["missed"], status["next_tick"][:10]) == (None, 3, "2026-12-21")
    schedule.keep(cron=None)
    until(lambda: schedule.ticks)
    (tick,) = schedule.ticks
    assert (tick["status"], tick["due"][:16], tick["missed"]) == ("unchanged", "2026-12-14T03:00", 3)
    until(lambda: "made up for 3 missed" in schedule.printed)
    assert schedule.attempts == 1


def test_s4_a_year_of_missed_minutes_is_one_run_and_no_wait(schedule):
    daemon = schedule.keep(cron="* * * * *")
    schedule.stop(daemon)
    before = len(schedule.ticks)
    schedule.set_clock("2027-11-30T09:00:10")
    schedule.keep(cron=None)
    until(lambda: len(schedule.ticks) > before)
    tick = schedule.ticks[before]
    assert (tick["due"][:16], tick["missed"]) == ("2027-11-30T09:00", 999)


def test_clock_that_jumps_over_ticks_gives_one_run(schedule):
    schedule.keep()
    schedule.set_clock("2026-12-15T09:00:00")
    until(lambda: schedule.ticks and "made up for 3 missed" in schedule.printed)
    schedule.set_clock("2026-12-21T03:00:01")
    until(lambda: len(schedule.ticks) == 2)
    assert dues(schedule) == ["2026-12-14T03:00", "2026-12-21T03:00"]


def test_clock_that_was_years_ahead_does_not_stop_the_schedule(schedule):
    schedule.set_clock("2030-06-06T10:00:00")
    daemon = schedule.keep()
    schedule.set_clock("2030-06-10T03:00:01")
    until(lambda: len(schedule.ticks) == 1)
    schedule.set_clock(BEFORE)
    until(lambda: "The clock was set: the next tick is Mon 2026-11-30 03:00 UTC" in schedule.printed)
    schedule.set_clock("2026-11-30T03:00:01")
    until(lambda: len(schedule.ticks) == 2)
    # Also where nobody kept the schedule while the clock was put right.
    schedule.set_clock("2030-06-06T10:00:00")
    until(lambda: len(schedule.ticks) == 3)
    schedule.stop(daemon)
    schedule.set_clock("2026-12-01T10:00:00")
    schedule.keep(cron=None)
    until(lambda: schedule.printed.rstrip().endswith("Next tick Mon 2026-12-07 03:00 UTC."))
    assert schedule.status()["next_tick"][:10] == "2026-12-07"


def test_clock_that_is_set_back_a_little_does_not_run_a_tick_twice(schedule):
    daemon = schedule.keep()
    schedule.set_clock("2026-11-30T03:00:01")
    until(lambda: len(schedule.ticks) == 1)
    schedule.set_clock("2026-11-30T02:59:58")
    until(lambda: len(schedule.ticks) == 1 and schedule.status()["next_tick"][:10] == "2026-12-07")
    schedule.set_clock("2026-11-30T03:00:10")
    assert schedule.status()["next_tick"][:10] == "2026-12-07"
    schedule.set_clock("2026-11-30T02:59:59")
    schedule.stop(daemon)
    schedule.keep(cron=None)
    schedule.set_clock("2026-11-30T03:00:30")
    assert schedule.status()["next_tick"][:10] == "2026-12-07"
    assert len(schedule.ticks) == 1


def test_stopped_run_is_resumed_at_the_next_start(schedule):
    schedule.hold()
    daemon = schedule.keep()
    schedule.set_clock("2026-11-30T03:00:01")
    until(lambda: schedule.attempts == 1)
    began = time.monotonic()
    assert schedule.stop(daemon) == 0
    assert time.monotonic() - began < 15
    assert [tick["status"] for tick in schedule.ticks] == ["stopped"]
    schedule.let_go()
    daemon = schedule.keep(cron=None)
    until(lambda: len(schedule.ticks) == 2)
    assert "The tick of Mon 2026-11-30 03:00 UTC was stopped in mid-run: it is run again now." in schedule.printed
    assert schedule.ticks[1]["status"] == "unchanged" and schedule.ticks[1]["due"] == schedule.ticks[0]["due"]
    assert schedule.stop(daemon, signal.SIGINT) == 0
    schedule.keep(cron=None)
    assert schedule.attempts == 2 and len(schedule.ticks) == 2


def test_killed_run_is_recorded_once_and_resumed(schedule):
    schedule.hold()
    daemon = schedule.keep()
    schedule.set_clock("2026-11-30T03:00:01")
    until(lambda: schedule.attempts == 1)
    ticking = schedule.output / "schedule" / "tick.json"
    found = ticking.read_text()
    daemon.kill()
    daemon.wait()
    # The child does not outlive the process that supervises it.
    child = int((schedule.folder / "attempts").read_text())
    until(lambda: not _is_there(child))
    daemon = schedule.keep(cron=None)
    until(lambda: schedule.attempts == 2)
    assert [tick["status"] for tick in schedule.ticks] == ["killed"]
    assert "was killed in mid-run: it is run again now." in schedule.printed
    schedule.let_go()
    until(lambda: len(schedule.ticks) == 2)
    schedule.stop(daemon)
    # Killed after the line was written, and before the file was removed.
    ticking.write_text(found)
    daemon = schedule.keep(cron=None)
    assert [tick["status"] for tick in schedule.ticks] == ["killed", "unchanged"]
    assert dues(schedule) == ["2026-11-30T03:00"] * 2


def _is_there(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_two_daemons_on_one_output(schedule):
    daemon = schedule.keep()
    for arguments in ((), ("--once", "--images", schedule.folder / "images")):
        code, said = schedule.done("run", "--output", schedule.output, *arguments)
        assert code == 5 and f"Another process ({daemon.pid}) keeps the schedule" in said


def test_plan_is_kept_and_what_is_given_replaces_it(schedule):
    schedule.stop(schedule.keep("--set", "data.spans=2"))
    schedule.stop(schedule.keep(cron=None))
    plan = json.loads((schedule.output / "schedule" / "schedule.json").read_text())
    assert (plan["cron"], plan["overrides"]) == ("0 3 * * 1", ["data.spans=2"])
    # By a new expression nothing was missed.
    schedule.set_clock("2026-12-15T09:00:00")
    schedule.keep("--cron", "0 4 * * 2", cron=None)
    until(lambda: schedule.printed.rstrip().endswith("Next tick Tue 2026-12-22 04:00 UTC."))
    plan = json.loads((schedule.output / "schedule" / "schedule.json").read_text())
    assert (plan["cron"], plan["images"], plan["overrides"]) == (
        "0 4 * * 2",
        [str(schedule.folder / "images")],
        ["data.spans=2"],
    )
    assert schedule.ticks == []


def test_plan_with_images_and_expression_is_all_that_counts(schedule):
    schedule.stop(schedule.keep("--set", "data.spans=2"))
    schedule.stop(schedule.keep())
    assert json.loads((schedule.output / "schedule" / "schedule.json").read_text())["overrides"] == []


def _no_file(store: Path) -> None:
    store.unlink()


def _no_database(store: Path) -> None:
    store.write_bytes(b"no database" * 1000)


def _no_pickle(store: Path) -> None:
    with sqlite3.connect(store) as connection:
        connection.execute("UPDATE apscheduler_jobs SET job_state = x'00'")


@pytest.mark.parametrize("damage", [_no_file, _no_database, _no_pickle])
def test_store_that_is_lost_or_damaged_is_made_anew(schedule, damage):
    daemon = schedule.keep()
    schedule.set_clock("2026-11-30T03:00:01")
    until(lambda: len(schedule.ticks) == 1)
    store = schedule.output / "schedule" / "jobs.sqlite"
    # While it is kept.
    damage(store)
    schedule.set_clock("2026-12-07T03:00:01")
    until(lambda: len(schedule.ticks) == 2)
    # While it is not: the ticks tell what was missed.
    schedule.stop(daemon)
    damage(store)
    schedule.set_clock("2026-12-15T09:00:00")
    schedule.keep(cron=None)
    until(lambda: len(schedule.ticks) == 3)
    assert dues(schedule)[1:] == ["2026-12-07T03:00", "2026-12-14T03:00"]
    assert (schedule.ticks[1].get("missed"), schedule.ticks[2]["missed"]) == (None, 1)


def test_store_that_cannot_be_made_anew_is_tried_again(schedule):
    schedule.keep()
    store = schedule.output / "schedule" / "jobs.sqlite"
    store.unlink()
    # Stands for a disk that is away: neither read nor removed.
    (store / "x").mkdir(parents=True)
    until(lambda: "The schedule cannot be kept: " in schedule.printed)
    shutil.rmtree(store)
    schedule.set_clock("2026-11-30T03:00:01")
    until(lambda: schedule.ticks)
    assert dues(schedule) == ["2026-11-30T03:00"] and "No such job store" not in schedule.printed


def test_folder_that_was_removed_while_the_schedule_is_kept_costs_no_tick(schedule):
    (schedule.folder / "mine.yaml").write_text("schedule: {notices: {command: ['true']}}\n")
    schedule.keep("--config", schedule.folder / "mine.yaml")
    schedule.answer("failed", 3, "No usable image.")
    shutil.rmtree(schedule.output / "schedule")
    schedule.set_clock("2026-11-30T03:00:01")
    until(lambda: schedule.ticks)
    assert schedule.ticks[0]["events"] == ["failed"]


@pytest.mark.parametrize("note", ["[]", "null", '{"time": 5, "missed": "x"}', '{"time": "2026-11-30'])
def test_note_of_a_tick_that_is_damaged_does_not_keep_the_schedule_from_starting(schedule, note):
    schedule.stop(schedule.keep())
    (schedule.output / "schedule" / "tick.json").write_text(note)
    assert schedule.keep(cron=None).poll() is None
    until(lambda: [tick["status"] for tick in schedule.ticks] == ["killed", "unchanged"])
    assert schedule.ticks[0]["time"].startswith("2026-11-30T02:5")


def test_damaged_plan_is_an_error_only_where_it_is_needed(schedule):
    schedule.stop(schedule.keep())
    plan = schedule.output / "schedule" / "schedule.json"
    for damaged in ("", '{"images": [5]}', '{"images": ["/images"], "cron": 5}'):
        plan.write_text(damaged)
        code, said = schedule.done("run", "--output", schedule.output)
        assert code == 2 and "remove it, and give --cron and --images again" in said
    # As the unit of systemd does after a power cut; what was missed meanwhile is made up for.
    schedule.answer("unchanged", 0)
    schedule.set_clock("2026-12-01T10:00:00")
    assert schedule.keep().poll() is None
    until(lambda: dues(schedule) == ["2026-11-30T03:00"])
    assert json.loads(plan.read_text())["cron"] == "0 3 * * 1"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--cron", "0 25 * * *", "--images", "."), "25 is no hour"),
        (("--cron", "0 3 31 2 */2", "--images", "."), "there is no such day in any year"),
        (("--cron", "0 3 * * 1", "--images", ".", "--time-zone", "Mars"), "There is no time zone 'Mars'"),
        (("--cron", "0 3 * * 1", "--images", "no/such"), "/no/such does not exist"),
        (("--cron", "0 3 * * 1", "--images", ""), "--images is empty"),
        (("--cron", "0 3 * * 1", "--images", "a{SPAN}{SPAN}"), "must hold {SPAN} once"),
        (("--cron", "0 3 * * 1", "--images", ".", "--set", "data.spam=1"), "data.spam"),
        (("--cron", "0 3 * * 1", "--images", ".", "--config", "no.yaml"), "no.yaml cannot be read"),
        (
            ("--cron", "0 3 * * 1", "--images", ".", "--set", "schedule.notices.webhook=${GRAFT_NO_SUCH}"),
            "needs the environment variable GRAFT_NO_SUCH",
        ),
        (("--cron", "0 3 * * 1"), "give --images SOURCE"),
        ((), "give --images SOURCE and --cron EXPRESSION"),
        (("--once",), "give --images SOURCE"),
    ],
)
def test_what_cannot_be_kept_is_refused_at_once(schedule, options, said):
    asked = ["schedule", "run", "--output", str(schedule.output), *options]
    with pytest.raises(UsageError) as refused:
        cli.graft.main(asked, standalone_mode=False)
    assert said in str(refused.value) and not schedule.output.exists()


def test_configuration_that_becomes_invalid_is_not_the_end_of_the_schedule(schedule):
    file = schedule.folder / "mine.yaml"
    file.write_text("training: {seed: 1}\n")
    daemon = schedule.keep("--config", file)
    file.write_text("training: {sed: 1}\n")
    schedule.answer("failed", 2, "training.sed is no key.")
    schedule.set_clock("2026-11-30T03:00:01")
    until(lambda: "Next tick Mon 2026-12-07" in schedule.printed)
    assert "Tick: failed after" in schedule.printed and daemon.poll() is None
    assert [tick["exit_code"] for tick in schedule.ticks] == [2]


def test_process_is_small_and_stays_so(schedule):
    """No TFX, TensorFlow or NumPy; from tick to tick the same memory."""
    daemon = schedule.keep(cron="0 * * * *")
    sizes = []
    start = datetime.fromisoformat("2026-12-01T00:00:00").timestamp()
    for hour in range(9):
        schedule.set_clock(datetime.fromtimestamp(start + hour * 3600 + 1).isoformat())
        until(lambda hour=hour: len(schedule.ticks) > hour)
        sizes.append(_memory(daemon))
    assert max(sizes[5:]) - sizes[4] < 2**20
    maps = Path(f"/proc/{daemon.pid}/maps").read_text()
    assert not [name for name in HEAVY if f"/{name}" in maps]


def _memory(process: subprocess.Popen) -> int:
    """Resident, in bytes."""
    return int(Path(f"/proc/{process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_nothing_heavy_is_imported(source):
    code = "import sys; from pipeline.schedule import daemon, run, status; "
    code += f"sys.exit(' '.join(name for name in {HEAVY} if name in sys.modules) or 0)"
    environment = os.environ | {"PYTHONPATH": str(source)}
    done = subprocess.run([sys.executable, "-c", code], cwd=source, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_single_tick_ends_with_the_code_of_its_run(schedule):
    schedule.answer("failed", 3, "No usable image.")
    code, said = schedule.done("run", "--once", "--output", schedule.output, "--images", schedule.folder / "images")
    assert code == 3 and "failed" in said and "No usable image." in said
    assert not (schedule.output / "schedule" / "schedule.json").exists()
    assert schedule.status()["failures"] == 1
