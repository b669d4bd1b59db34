"""The disk as the process that keeps a schedule sees it: room for a run, and housekeeping beside a tick."""

import errno
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from pipeline.config import load
from pipeline.retention import clean, disk, needed
from pipeline.schedule import housekeeping
from pipeline.schedule.housekeeping import room_for_a_run, tidy
from pipeline.schedule.places import Places
from tests.conftest import ROOT
from tests.pipeline.retained import Retained, run_id, settings, tree, versions

MIB = 2**20


@pytest.fixture
def made(tmp_path, monkeypatch) -> Retained:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return filled(tmp_path / "out")


def filled(root: Path) -> Retained:
    made = Retained(root)
    Places(made.output).prepare()
    for number in range(4):
        made.run(run_id(number))
    return made


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", folder]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs root, to mount a small disk")
    yield folder
    # ML Metadata keeps its database open.
    subprocess.run(["umount", "--lazy", folder], check=True)


# ---- tidy -----------------------------------------------------------------------------------------------------------


def test_s5_tidy_works_in_another_process_and_says_what_went(made):
    said = tidy(settings(runs=2), made.output)
    assert said.startswith("Removed ") and " things, 0." in said
    assert sorted(path.name for path in made.output.all_runs()) == [run_id(2), run_id(3)]
    known, newest = needed.read(made.output), made.output.serving / str(versions(made.output)[-1])
    assert (known.run_id, known.version) == (run_id(3), disk.size(newest)) and known.output > 50_000


def test_tidy_of_a_folder_that_a_run_holds_waits_for_the_next_tick(made):
    before = tree(made.output)
    with made.output.held():
        assert "a run holds the output folder" in tidy(settings(runs=2), made.output)
    assert tree(made.output) == before


def test_tidy_fails_no_tick_whatever_is_wrong(made, monkeypatch):
    made.output.metadata.write_text("no database")
    assert tidy(settings(runs=2), made.output).startswith("Nothing more was removed: ")
    monkeypatch.setattr(housekeeping.sys, "executable", "/bin/false")
    assert "ended with 1 without a word" in tidy(settings(), made.output)
    monkeypatch.setattr(housekeeping.sys, "executable", "/nothing")
    assert "could not be started" in tidy(settings(), made.output)


def test_supervisor_imports_no_ml_metadata_for_it():
    code = "import sys, pipeline.schedule.housekeeping; print({'ml_metadata', 'tfx'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_p3_full_disk_is_tidied_up(small_disk):
    made = filled(small_disk / "out")
    features = made.output.cache / "in_service"
    features.mkdir()
    (features / "model").write_bytes(b"x" * 100_000)
    with pytest.raises(OSError) as caught, open(small_disk / "filling", "wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)
    assert caught.value.errno == errno.ENOSPC and room_for_a_run(settings(), made.output)
    done = clean.apply(settings(runs=1), made.output)
    assert sorted(path.name for path in made.output.all_runs()) == [run_id(2), run_id(3)]
    assert done["bytes"] > 200_000 and not clean.apply(settings(runs=1), made.output)["removed"]


# ---- room for a run -------------------------------------------------------------------------------------------------


def config(gib: float, **keys: str):
    return load(None, [f"schedule.min_free_gib={gib}", *(f"{key.replace('__', '.')}={v}" for key, v in keys.items())])


def test_room_is_what_is_configured_or_what_the_last_run_needed_and_a_fifth_more(made):
    assert room_for_a_run(config(0), made.output) is None
    said = room_for_a_run(config(1e6), made.output)
    assert f" are free where {made.output.root} is, and a run may need 1073741.8 GB: " in said
    clean.apply(settings(), made.output)
    assert room_for_a_run(config(0), made.output) is None
    (Places(made.output).folder / needed.NEEDED_FILE).write_text(
        '{"run_id": "r", "output": 800000000000000, "version": 200000000000000}'
    )
    assert "a run may need 1200000.0 GB" in room_for_a_run(config(0), made.output)
    # Elsewhere, the version takes no room there.
    assert "a run may need 960000.0 GB" in room_for_a_run(config(0, push__destination="gs://bucket/x"), made.output)


def test_room_is_looked_for_on_every_disk_that_a_run_writes_to(made, small_disk, monkeypatch):
    least = config(10 * MIB / 2**30)
    assert room_for_a_run(least, made.output) is None
    serving = small_disk / "serving"
    there = config(10 * MIB / 2**30, push__destination=str(serving))
    assert f"are free where {serving} is, and a run may need 10.5 MB" in room_for_a_run(there, made.output)
    monkeypatch.setattr(tempfile, "tempdir", str(small_disk))
    assert f"are free where {small_disk} is" in room_for_a_run(least, made.output)
