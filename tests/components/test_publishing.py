"""Publication: no reader ever sees half a version, whatever ends the publisher."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from components.checksums import verify
from components.publishing import newest, publish, versions
from tests.conftest import ROOT

FILES = {
    "saved_model.pb": 40_000,
    "fingerprint.pb": 60,
    "variables/variables.index": 3_000,
    "variables/variables.data-00000-of-00001": 300_000,
    "assets/classes.txt": 0,
    "assets.extra/a.bin": 10_000,
    "assets.extra/b.bin": 10_000,
}


@pytest.fixture
def model(tmp_path):
    """The layout of a SavedModel, of known sizes."""
    folder = tmp_path / "model"
    for name, size in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x" * size)
    return folder


@pytest.fixture
def serving(tmp_path):
    return tmp_path / "serving"


def sizes_of(folder) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_size for path in folder.rglob("*") if path.is_file()}


def is_whole(version) -> bool:
    """Whether the model's files are there, with checksums that hold."""
    found = sizes_of(version)
    found.pop("model_card.json", None)
    return found.pop("checksums.sha256", None) is not None and found == FILES and verify(version).clean


def names(serving) -> set[str]:
    """All but the lock, which stays."""
    return {path.name for path in serving.iterdir()} - {".publishing.lock"}


# ---- G8: a reader ---------------------------------------------------------------------------------------------------

READER = """
import hashlib, json, os, sys
serving, stop, files = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
listings, seen, broken = 0, set(), []

def right(version):
    if any(os.stat(os.path.join(version, file)).st_size != size for file, size in files.items()):
        return False
    lines = open(os.path.join(version, "checksums.sha256")).read().splitlines()
    sums = {name: value for value, _, name in (line.partition("  ") for line in lines)}
    read = {name: hashlib.sha256(open(os.path.join(version, name), "rb").read()).hexdigest() for name in sums}
    return sums == read and sums.keys() == files.keys()

print("reading", flush=True)
while not os.path.exists(stop):
    listings += 1
    for name in os.listdir(serving):
        if not name.isdecimal():
            continue
        version = os.path.join(serving, name)
        try:
            whole = right(version)
        except FileNotFoundError:
            whole = False
        # One that was retired meanwhile is gone under its numeric name.
        if not whole and os.path.isdir(version):
            broken.append(name)
        seen.add(name)
    os.sched_yield()
print(json.dumps({"listings": listings, "seen": len(seen), "broken": broken[:3]}))
"""


def test_g8_reader_never_sees_an_incomplete_version_during_100_publications(model, serving, tmp_path):
    serving.mkdir()
    stop = tmp_path / "stop"
    reader = subprocess.Popen(
        [sys.executable, "-c", READER, serving, stop, json.dumps(FILES)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert reader.stdout.readline() == "reading\n"
        for _ in range(100):
            publish(model, serving, keep=3)
        stop.touch()
        report = json.loads(reader.communicate()[0])
    finally:
        reader.kill()
        reader.wait()
    assert report["broken"] == []
    assert report["listings"] >= 20
    assert report["seen"] >= 5


# ---- G9: a publisher that is killed ---------------------------------------------------------------------------------

# Python announces what it is about to do; the process kills itself at the given announcement.
KILLED = """
import os, signal, sys
from pathlib import Path
from components.publishing import publish
event, count = sys.argv[3], int(sys.argv[4])
def listen(name, arguments):
    global count
    if name == event:
        count -= 1
        if count == 0:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(listen)
publish(Path(sys.argv[1]), Path(sys.argv[2]), keep=2)
"""


def killed(model, serving, event, count) -> None:
    """Publishes in another process, which is killed (SIGKILL) at the `count`th event."""
    done = subprocess.run([sys.executable, "-c", KILLED, model, serving, event, str(count)], cwd=ROOT)
    assert done.returncode == -signal.SIGKILL


@pytest.mark.parametrize(
    ("event", "count"),
    [("shutil.copyfile", 1), ("shutil.copyfile", 4), ("shutil.copyfile", 7), ("os.rename", 1)],
    ids=["first file", "middle of the copy", "last file", "before the rename"],
)
def test_g9_kill_before_the_rename_leaves_no_numeric_name_and_the_next_publication_cleans_up(
    model, serving, event, count
):
    before = publish(model, serving, keep=2)
    killed(model, serving, event, count)
    (leftover,) = names(serving) - {before.name}
    assert not leftover.isdecimal()
    assert is_whole(serving / leftover) == (event == "os.rename")
    assert newest(serving) == before
    after = publish(model, serving, keep=2)
    assert names(serving) == {before.name, after.name}
    assert is_whole(before)
    assert is_whole(after)


@pytest.mark.parametrize(
    ("event", "count"), [("os.rename", 2), ("shutil.rmtree", 1), ("os.remove", 3)], ids=["rename", "start", "middle"]
)
def test_g9_kill_while_an_old_version_is_removed_leaves_whole_versions(model, serving, event, count):
    for _ in range(2):
        publish(model, serving, keep=2)
    oldest = versions(serving)[0]
    killed(model, serving, event, count)
    assert all(is_whole(serving / str(version)) for version in versions(serving))
    assert (oldest in versions(serving)) == (event == "os.rename")
    publish(model, serving, keep=2)
    assert len(versions(serving)) == len(names(serving)) == 2
    assert all(is_whole(serving / str(version)) for version in versions(serving))


def test_p3_copy_that_fails_leaves_the_version_in_service(model, serving):
    before = publish(model, serving, keep=1)
    (model / "assets" / "gone").symlink_to("nowhere")
    with pytest.raises(OSError):
        publish(model, serving, keep=1)
    assert newest(serving) == before
    assert is_whole(before)


# ---- G10: the clock -------------------------------------------------------------------------------------------------


def test_version_is_the_time_in_seconds(model, serving, monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 1_700_000_000.9)
    assert publish(model, serving, keep=5).name == "1700000000"


def test_g10_publications_in_one_second_get_increasing_versions(model, serving, monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 1_700_000_000.9)
    published = [int(publish(model, serving, keep=5).name) for _ in range(3)]
    assert published == [1_700_000_000, 1_700_000_001, 1_700_000_002]
    assert versions(serving) == published


def test_g10_clock_that_goes_backwards_still_gives_a_newer_version(model, serving, monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 1_700_000_000)
    first = publish(model, serving, keep=5)
    monkeypatch.setattr(time, "time", lambda: 1_600_000_000)
    second = publish(model, serving, keep=5)
    assert int(second.name) > int(first.name)
    assert newest(serving) == second


def test_newest_is_by_number_not_by_spelling(serving):
    for name in ("9", "10", "latest", ".unfinished-11"):
        (serving / name).mkdir(parents=True)
    (serving / "12").touch()
    assert versions(serving) == [9, 10]
    assert newest(serving) == serving / "10"


def test_nothing_is_in_service_where_nothing_was_published(serving):
    assert newest(serving) is None
    serving.mkdir()
    assert newest(serving) is None


# ---- keep -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_s5_only_the_newest_versions_stay(model, serving, keep):
    published = [publish(model, serving, keep).name for _ in range(5)]
    assert names(serving) == set(published[-keep:])


def test_what_others_put_into_the_serving_folder_stays(model, serving):
    serving.mkdir()
    (serving / "models.config").write_text("theirs")
    (serving / "canary").mkdir()
    for _ in range(3):
        publish(model, serving, keep=1)
    assert names(serving) > {"models.config", "canary"}


def test_published_version_is_a_copy_and_the_model_stays(model, serving):
    version = publish(model, serving, keep=1)
    assert sizes_of(model) == FILES
    os.truncate(model / "saved_model.pb", 0)
    assert is_whole(version)


def test_folder_with_leading_zeros_is_no_version(tmp_path):
    (tmp_path / "0001").mkdir()
    assert versions(tmp_path) == []
