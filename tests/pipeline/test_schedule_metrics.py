"""What Prometheus is told of a schedule: totals that outlive files and processes, in a text that it reads."""

import datetime
import shutil
import socket
import subprocess
import sys
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

from components.errors import UsageError
from components.publishing import rollback
from components.run_summary import timestamp
from pipeline.output import Output, write_json
from pipeline.schedule import metrics
from pipeline.schedule.places import Places
from pipeline.schedule.plan import Plan
from pipeline.schedule.ticks import Tick, read_ticks
from tests.pipeline.outputs import Runs, images_of

PLAN = Plan(["/data/images"], "0 3 * * 1", "Europe/Paris")
DUE = datetime.datetime(2027, 1, 4, 3, tzinfo=datetime.UTC)


@pytest.fixture
def output(tmp_path) -> Output:
    output = Output(tmp_path / "out")
    output.prepare()
    Places(output).prepare()
    return output


def ticked(output: Output, *statuses: str, first: int = 1000, **more) -> None:
    """One a second, from so many seconds after 1970 on."""
    for number, status in enumerate(statuses):
        Tick(timestamp(first + number), status, attempts=1, **more).record(output)


def trim(output: Output, lines: int) -> None:
    """As the retention does."""
    newest = output.ticks.read_text().splitlines(keepends=True)[-lines:]
    output.ticks.write_text("".join(newest))


def values(text: str) -> dict[str, float]:
    """Samples by name and label's value, read as Prometheus reads them."""
    return {
        " ".join([sample.name, *sample.labels.values()]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def written(output: Output) -> dict[str, float]:
    metrics.write(output, PLAN, DUE)
    return values(Places(output).metrics.read_text())


def asked(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        return answer.read().decode()


# ---- totals ---------------------------------------------------------------------------------------------------------


def test_totals_outlive_the_lines_that_the_retention_removes(output):
    for week in range(5):
        ticked(output, "published", "unchanged", "failed", first=1000 * week, missed=2)
        written(output)
        trim(output, 2)
    told = written(output)
    assert [told[f"graft_ticks_total {status}"] for status in ("published", "unchanged", "failed")] == [5, 5, 5]
    assert told["graft_ticks_total killed"] == 0
    assert told["graft_attempts_total"] == 15
    assert told["graft_ticks_missed_total"] == 30


def test_a_tick_is_counted_once_wherever_the_process_was_killed(output):
    ticked(output, "published")
    written(output)
    ticked(output, "failed")  # and killed before it was counted
    ticked(output, "failed")
    assert written(output)["graft_ticks_total failed"] == 2
    assert written(output)["graft_ticks_total failed"] == 2  # and killed before the next line


def test_every_line_counts_where_more_came_than_the_retention_leaves(output):
    ticked(output, "published")
    written(output)
    ticked(output, *["unchanged"] * 9)
    trim(output, 4)
    assert written(output)["graft_ticks_total unchanged"] == 4


def test_a_line_that_is_not_whole_waits_until_it_is(output):
    ticked(output, "published", "failed")
    whole = output.ticks.read_bytes()
    output.ticks.write_bytes(whole[:-7])
    assert written(output)["graft_ticks_total failed"] == 0
    output.ticks.write_bytes(whole)
    assert written(output)["graft_ticks_total failed"] == 1


def test_what_graft_run_leaves_is_no_tick(output):
    output.record_tick({"time": timestamp(0), "status": "unchanged", "run_id": "20270101-000000"})
    told = written(output)
    assert told["graft_ticks_total unchanged"] == 0
    assert "graft_last_tick_timestamp_seconds" not in told


@pytest.mark.parametrize(
    "damaged", ['{"ticks": 7', '{"ticks": []}', '{"counted": "x"}', '{"line": 3}', '{"counted": -1}']
)
def test_damaged_totals_begin_anew_with_the_lines_that_there_are(output, damaged):
    ticked(output, "published", "refused")
    written(output)
    Places(output).counters.write_text(damaged)
    assert written(output)["graft_ticks_total refused"] == 1


@pytest.mark.parametrize("line", [{"time": 5}, {"status": []}, {"missed": "x"}, {"attempts": [1]}, {"events": 7}])
def test_line_that_somebody_spoiled_is_passed_over(output, line):
    ticked(output, "published")
    output.record_tick({"time": timestamp(2000), "status": "failed", "attempts": 1} | line)
    assert written(output)["graft_ticks_total failed"] == 0
    assert len(read_ticks(output)) == 1


@pytest.mark.parametrize(
    ("statuses", "failures"),
    [(["failed", "failed"], 2), (["failed", "skipped", "killed", "failed"], 2), (["failed", "refused", "failed"], 1)],
)
def test_failures_in_a_row_are_those_of_the_schedule(output, statuses, failures):
    ticked(output, *statuses)
    assert written(output)["graft_consecutive_failures"] == failures
    Tick(timestamp(9), "failed", failures=7, attempts=1).record(output)
    assert written(output)["graft_consecutive_failures"] == 7


# ---- what is told ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Runs:
    """Two published runs, and a rollback to the first."""
    runs = Runs(tmp_path_factory.mktemp("metrics") / "out")
    Places(runs.output).prepare()
    runs.published("20270101-000000", images_of({"cat": 20, "dog": 20}))
    wrong = {"cat-0", "dog-0"}
    last = runs.run("20270108-000000", images_of({"cat": 20, "dog": 20}), wrong)
    last["timings"] = {"Trainer": 12.5, "Transform": 3.0}
    last["data"]["quarantined"] = {"empty file": 2, 'odd "name"\n': 1}
    write_json(runs.output.runs / "20270108-000000" / "summary.json", last)
    runs.output.point_latest(runs.output.runs / "20270108-000000")
    ticked(runs.output, "published", "published")
    return runs


def test_model_in_service_is_the_one_that_answers_and_as_old_as_its_first_publication(runs, tmp_path):
    output = Output(shutil.copytree(runs.output.root, tmp_path / "out", symlinks=True))
    first, second = sorted(int(path.name) for path in output.serving.iterdir() if path.name.isdecimal())
    told = written(output)
    assert (told["graft_model_version"], told["graft_model_accuracy"]) == (second, 0.5)
    back = rollback(output.serving).version
    told = written(output)
    assert (told["graft_model_version"], told["graft_model_accuracy"]) == (back, 1.0)
    assert abs(told["graft_model_published_timestamp_seconds"] - first) <= 1
    shutil.rmtree(output.serving / str(first))
    assert written(output)["graft_model_published_timestamp_seconds"] == first


def test_newest_run_and_the_disk_are_told_of(runs):
    told = written(runs.output)
    assert told["graft_run_seconds"] == 61
    assert (told["graft_step_seconds Trainer"], told["graft_step_seconds Transform"]) == (12.5, 3)
    assert told["graft_images"] == 40
    assert told["graft_images_quarantined empty file"] == 2
    assert told['graft_images_quarantined odd "name"\n'] == 1
    assert told["graft_next_tick_timestamp_seconds"] == DUE.timestamp()
    assert told["graft_last_tick_timestamp_seconds"] == 1001
    assert told["graft_schedule_info 0 3 * * 1 Europe/Paris"] == 1
    assert told["graft_output_bytes"] > runs.output.metadata.stat().st_size
    assert told["graft_disk_free_bytes"] > 0


def test_what_is_going_on_and_what_waits_is_told(output):
    places = Places(output)
    assert (written(output)["graft_tick_running"], written(output)["graft_notices_pending"]) == (0, 0)
    places.ticking.write_text("{}")
    (places.outbox / "1.json").write_text("{}")
    assert (written(output)["graft_tick_running"], written(output)["graft_notices_pending"]) == (1, 1)


def test_damaged_files_leave_numbers_out_and_stop_nothing(runs, tmp_path):
    output = Output(shutil.copytree(runs.output.root, tmp_path / "out", symlinks=True))
    for card in output.serving.glob("*/model_card.json"):
        card.write_text('{"metrics": 3}')
    (output.runs / "latest" / "summary.json").write_text('{"data": null, "timings": [1]}')
    told = written(output)
    assert "graft_model_accuracy" not in told
    assert "graft_images" not in told
    assert told["graft_ticks_total published"] == 2


def test_a_text_that_cannot_be_written_does_not_stop_the_schedule(output):
    Places(output).metrics.mkdir()
    metrics.write(output, PLAN, DUE)


def test_prometheus_own_tool_has_nothing_to_say_of_the_text(runs):
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("needs promtool, which comes with Prometheus")
    metrics.write(runs.output, PLAN, DUE)
    text = Places(runs.output).metrics.read_bytes()
    said = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True)
    assert (said.returncode, said.stdout + said.stderr) == (0, b"")


# ---- the port -------------------------------------------------------------------------------------------------------


def test_port_answers_with_what_is_on_the_disk_now(runs, tmp_path):
    output = Output(shutil.copytree(runs.output.root, tmp_path / "out", symlinks=True))
    PLAN.write(Places(output).plan)
    before = written(output)
    server = metrics.serve(output, 0)
    try:
        assert server.server_address[0] == "127.0.0.1"
        told = values(asked(server.server_port))
        assert {name: told[name] for name in before if "bytes" not in name} == {
            name: value for name, value in before.items() if "bytes" not in name
        }
        assert told["process_resident_memory_bytes"] > 0
        ticked(output, "failed")
        assert values(asked(server.server_port))["graft_ticks_total failed"] == 1
    finally:
        server.shutdown()
        server.server_close()


def test_port_that_is_taken_is_named(output):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(UsageError, match=f"--metrics-port: 127.0.0.1:{taken.getsockname()[1]} cannot be had"):
            metrics.serve(output, taken.getsockname()[1])


def test_supervisor_stays_small():
    """It lives for a year."""
    heavy = "('numpy', 'tensorflow', 'tfx', 'ml_metadata', 'apache_beam', 'PIL')"
    code = f"import sys, pipeline.schedule.metrics; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"
