"""What `graft schedule status` tells, and that it only reads."""

import json
import time

import pytest

from components.errors import OutputBusy, UsageError
from components.run_summary import timestamp
from pipeline import cli
from pipeline.schedule import keeping
from pipeline.schedule.places import Places
from pipeline.schedule.plan import Plan
from pipeline.schedule.ticks import Tick


def told(capsys, output, *options: str) -> str:
    cli.graft.main(["schedule", "status", str(output.root), *options], standalone_mode=False)
    return capsys.readouterr().out


@pytest.fixture
def kept(output):
    """A schedule that nobody keeps, with three ticks and a model in service."""
    places = Places(output)
    places.prepare()
    Plan(["/images"], "0 3 * * 1", "Europe/Paris").write(places.plan)
    version = output.serving / "1795516030"
    version.mkdir(parents=True)
    (version / "saved_model.pb").touch()
    Tick("2026-11-09T02:00:00+00:00", "published", run_id="20261109-020000", version="1795516030").record(output)
    for week in (16, 23):
        Tick(f"2026-11-{week}T02:00:00+00:00", "failed", error="No usable image.", failures=week // 7 - 1).record(
            output
        )
    return output


def test_status_for_a_person(kept, capsys):
    lines = told(capsys, kept, "--last", "2").splitlines()
    assert lines[0].split()[:3] == ["tick", "(UTC)", "outcome"]
    assert lines[1].startswith("2026-11-23 02:00:00  failed") and lines[2].startswith("2026-11-16")
    text = "\n".join(lines)
    assert "published" not in text and "Nobody keeps the schedule: the next tick would be Mon " in text
    assert "2 ticks failed in a row." in text
    assert f"In service: {kept.serving}/1795516030, since Tue 2026-11-24 11:27 CET" in text


def test_status_in_json_and_nothing_is_written(kept, capsys):
    before = sorted(path for path in kept.root.rglob("*"))
    known = json.loads(told(capsys, kept, "--json"))
    assert known["plan"]["cron"] == "0 3 * * 1" and known["process"] is None and known["running"] is None
    assert (known["failures"], known["missed"], len(known["ticks"])) == (2, 0, 3)
    assert known["next_tick"] > timestamp(time.time())
    (there,) = known["in_service"]
    assert (there["version"], there["since"]) == (1795516030, timestamp(1795516030))
    assert sorted(path for path in kept.root.rglob("*")) == before


def test_lock_that_somebody_wrote_to_is_still_held(kept, capsys):
    places = Places(kept)
    with keeping.kept(places):
        places.lock.write_bytes(b"\xff\xfe")
        assert "Nobody keeps the schedule" in told(capsys, kept)
        with pytest.raises(OutputBusy), keeping.kept(places):
            pass


def test_status_of_what_is_no_schedule(output, tmp_path):
    for folder in (output.root, tmp_path / "nothing"):
        with pytest.raises(UsageError, match="There is no schedule in "):
            cli.graft.main(["schedule", "status", str(folder)], standalone_mode=False)


def test_status_of_single_ticks(output, capsys):
    Places(output).prepare()
    text = told(capsys, output)
    assert "There was no tick yet." in text and "ticks come from outside (--once)" in text
    assert "Nothing is in service." in text


@pytest.mark.parametrize("note", ["", "[]", '{"time": 5, "due": 5}'])
def test_status_while_a_tick_goes_on_whose_note_is_damaged(kept, capsys, note):
    places = Places(kept)
    with keeping.kept(places):
        places.ticking.write_text(note)
        assert "Going on: a tick. Next tick Mon " in told(capsys, kept)
        assert sorted(json.loads(told(capsys, kept, "--json"))["running"]) == ["due", "run_id", "step", "time"]
