"""Publication: no reader ever sees half a version, whatever ends the publisher."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from components import progress, serving_places
from components.checksums import verify
from components.errors import GraftError, OutputBusy, UsageError
from components.publishing import newest, publish, rollback, taken_back, versions
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


def test_old_version_that_cannot_be_removed_is_told_and_the_new_one_is_out(model, serving, monkeypatch):
    publish(model, serving, keep=1)

    def refuse(self, version):
        raise PermissionError(13, "Permission denied")

    # As root, who runs the tests in containers, may remove anything.
    monkeypatch.setattr(serving_places.LocalServing, "remove", refuse)
    told = []
    with progress.heeded(told.append):
        version = publish(model, serving, keep=1)
    assert newest(serving) == version
    (sentence,) = told
    assert "cannot be removed" in sentence and "Permission denied" in sentence and "push.keep" in sentence


def test_files_of_a_version_are_counted(model, serving):
    publish(model, serving, keep=1)
    state = progress.now()
    assert (state.done, state.total, state.unit) == (len(FILES) + 1, len(FILES) + 1, "files")


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


# ---- checksums and what lies beside the model -----------------------------------------------------------------------


def test_checksums_are_of_every_file_but_themselves_and_sha256sum_reads_them(model, serving, tmp_path):
    (tmp_path / "model.tflite").write_bytes(b"other format")
    extras = {"model.tflite": tmp_path / "model.tflite", "model_card.json": lambda version: str(version).encode()}
    version = publish(model, serving, 5, extras)
    assert (version / "model.tflite").read_bytes() == b"other format"
    assert (version / "model_card.json").read_text() == version.name
    done = subprocess.run(
        ["sha256sum", "--strict", "-c", "checksums.sha256"], cwd=version, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert {line.removesuffix(": OK") for line in done.stdout.splitlines()} == {*FILES, *extras}
    (version / "fingerprint.pb").write_bytes(b"y" * 60)
    assert subprocess.run(["sha256sum", "--status", "-c", "checksums.sha256"], cwd=version).returncode == 1


def test_damaged_missing_and_extra_files_are_named(model, serving):
    version = publish(model, serving, keep=1)
    (version / "fingerprint.pb").write_bytes(b"y" * 60)
    (version / "assets.extra" / "a.bin").unlink()
    (version / "assets.extra" / "notes.txt").write_text("mine")
    found = verify(version)
    assert (found.damaged, found.missing, found.extra) == (
        ["fingerprint.pb"],
        ["assets.extra/a.bin"],
        ["assets.extra/notes.txt"],
    )


def test_names_in_the_checksums_lead_to_no_file_outside(model, serving, tmp_path):
    (tmp_path / "secret").write_text("x")
    version = publish(model, serving, keep=1)
    with open(version / "checksums.sha256", "a") as file:
        file.write(f"{'0' * 64}  ../../secret\n")
    assert verify(version).missing == ["../../secret"]


def test_local_publication_and_rollback_import_neither_beam_nor_tensorflow(model, serving):
    code = (
        "import sys; from pathlib import Path; from components import publishing as p;"
        "m, s = map(Path, sys.argv[1:]); p.publish(m, s, 3); p.publish(m, s, 3); p.rollback(s);"
        "print(len(p.versions(s)), *{'apache_beam', 'tensorflow'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code, model, serving], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.split() == ["3"], done.stderr


# ---- two at a time --------------------------------------------------------------------------------------------------

PUBLISHER = """
import sys
from pathlib import Path
from components.errors import GraftError
from components.publishing import publish
print("ready", flush=True)
sys.stdin.readline()
try:
    print(publish(Path(sys.argv[1]), Path(sys.argv[2]), 9, expected=int(sys.argv[3])).name)
except GraftError as error:
    print(error)
"""


def test_of_two_processes_that_judged_against_the_same_version_one_publishes(model, serving):
    before = publish(model, serving, keep=9)
    command = [sys.executable, "-c", PUBLISHER, model, serving, before.name]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, cwd=ROOT, **pipes) for _ in range(2)]
    assert [process.stdout.readline() for process in processes] == ["ready\n"] * 2
    said = sorted(process.communicate("go\n")[0].strip() for process in processes)
    assert versions(serving) == [int(before.name), int(said[0])]
    assert f"from version {before.name} to version {said[0]}" in said[1]
    assert said[1].endswith("nothing was published; run again.")


@pytest.mark.parametrize("expected", [None, 5])
def test_rollback_between_judging_and_publishing_is_not_undone(model, serving, expected):
    for _ in range(2):
        publish(model, serving, keep=5)
    done = rollback(serving)
    with pytest.raises(GraftError, match=f"to version {done.version} meanwhile.*run again"):
        publish(model, serving, keep=5, expected=done.instead_of if expected else None)
    assert versions(serving)[-1] == done.version
    assert publish(model, serving, keep=5, expected=done.version).name == str(versions(serving)[-1])


HOLDER = """
import os, sys
from pathlib import Path
from components.serving_places import LocalServing
with LocalServing(Path(sys.argv[1])).held():
    print(os.getpid(), flush=True)
    sys.stdin.readline()
"""


def test_publication_waits_for_another_then_names_it_and_a_killed_one_holds_nothing(model, serving, monkeypatch):
    monkeypatch.setattr(serving_places, "PATIENCE_SECONDS", 0.1)
    first = publish(model, serving, keep=5)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", HOLDER, serving], cwd=ROOT, **pipes) as holder:
        assert holder.stdout.readline() == f"{holder.pid}\n"
        with pytest.raises(OutputBusy, match=f"Process {holder.pid} is publishing to .*run again"):
            publish(model, serving, keep=5)
        assert names(serving) == {first.name}
        holder.kill()
    publish(model, serving, keep=5)
    assert len(versions(serving)) == 2


# ---- a disk that is full --------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", folder]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs root, to mount a small disk")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_p3_full_disk_leaves_what_is_in_service_and_no_leftover_and_is_named(model, small_disk):
    serving = small_disk / "serving"
    before = publish(model, serving, keep=5)
    with pytest.raises(OSError, match="No space left") as caught:
        publish(model, serving, keep=5)
    assert caught.value.filename == str(serving)
    assert names(serving) == {before.name}
    assert is_whole(before)


# ---- keep: what is never removed ------------------------------------------------------------------------------------


def test_version_that_somebody_changed_or_put_there_is_not_removed(model, serving):
    published = [publish(model, serving, keep=9) for _ in range(4)]
    (published[0] / "notes.txt").write_text("mine")
    (published[1] / "fingerprint.pb").write_bytes(b"patched")
    shutil.copytree(model, serving / "7")
    shutil.move(published[2], serving / "kept")
    published[2].symlink_to("kept")
    after = publish(model, serving, keep=1)
    assert names(serving) == {"7", "kept", *(version.name for version in published[:3]), after.name}


def test_rollback_removes_nothing_and_its_copies_do_not_count_beside_what_they_are_copies_of(model, serving):
    published = [int(publish(model, serving, keep=3).name) for _ in range(3)]
    copy = rollback(serving).version
    assert versions(serving) == [*published, copy]
    after = int(publish(model, serving, keep=3).name)
    # Three models: the new one, the second with its copy, and the third.
    assert versions(serving) == [*published[1:], copy, after]


# ---- rollback -------------------------------------------------------------------------------------------------------


def card_of(version) -> dict:
    return json.loads((version / "model_card.json").read_text())


@pytest.fixture
def three(model, serving):
    """Three versions whose models differ, with cards."""
    published = []
    for number in range(3):
        (model / "fingerprint.pb").write_bytes(b"%060d" % number)
        extras = {"model_card.json": json.dumps({"name": f"model {number}"}).encode()}
        published.append(int(publish(model, serving, 5, extras).name))
    return published


def test_rollback_publishes_a_copy_of_the_version_before_as_the_newest(three, serving):
    done = rollback(serving)
    assert (done.of, done.instead_of, done.verified) == (three[1], three[2], True)
    assert newest(serving).name == str(done.version)
    assert done.version > three[2]
    assert is_whole(newest(serving))
    assert (newest(serving) / "fingerprint.pb").read_bytes() == b"%060d" % 1
    card = card_of(newest(serving))
    assert (card["name"], card["version"]) == ("model 1", done.version)
    assert card["rollback"] == {"of": three[1], "instead_of": three[2], "stands_for": three[2]}


def test_second_rollback_goes_further_back_and_then_there_is_nothing(three, serving):
    first, second = rollback(serving), rollback(serving)
    assert (second.of, second.instead_of) == (three[0], first.version)
    assert card_of(newest(serving))["rollback"]["stands_for"] == three[2]
    with pytest.raises(UsageError, match=f"Nothing was in service before version {second.version}.*push.keep"):
        rollback(serving)


def test_rollback_after_a_new_publication_returns_to_what_it_replaced_and_not_to_what_was_rolled_back_from(
    three, model, serving
):
    rollback(serving)
    publish(model, serving, keep=5)
    assert rollback(serving).of == three[1]
    assert rollback(serving).of == three[0]


def test_rollback_to_a_given_version_may_go_forward_again(three, serving):
    assert rollback(serving, three[0]).of == three[0]
    done = rollback(serving, three[2])
    assert done.of == three[2]
    assert rollback(serving).of == three[1]


@pytest.mark.parametrize("to", ["unknown", "in service"])
def test_rollback_to_no_other_version_lists_those_there_are(three, serving, to):
    with pytest.raises(UsageError, match=", ".join(map(str, three))):
        rollback(serving, {"unknown": 3, "in service": three[2]}[to])
    assert versions(serving) == three


def test_damaged_version_is_not_rolled_back_to_and_its_files_are_named(three, serving):
    target = serving / str(three[1])
    (target / "assets.extra" / "a.bin").write_bytes(b"z")
    (target / "assets.extra" / "b.bin").unlink()
    with pytest.raises(GraftError, match=r"a.bin is damaged, assets.extra/b.bin is missing; nothing was changed"):
        rollback(serving)
    assert versions(serving) == three
    assert rollback(serving, three[0]).of == three[0]


def test_file_that_was_not_published_is_not_copied_and_said(three, serving):
    (serving / str(three[1]) / "notes.txt").write_text("mine")
    assert rollback(serving).left_out == ["notes.txt"]
    assert is_whole(newest(serving))
    assert (serving / str(three[1]) / "notes.txt").is_file()


def test_version_without_checksums_or_card_is_rolled_back_to_unverified(model, serving):
    for name in ("5", "6"):
        shutil.copytree(model, serving / name)
    done = rollback(serving)
    assert (done.of, done.instead_of, done.verified) == (5, 6, False)
    assert is_whole(newest(serving))
    assert card_of(newest(serving))["rollback"]["of"] == 5
    (serving / "5" / "saved_model.pb").unlink()
    with pytest.raises(GraftError, match="no SavedModel"):
        rollback(serving, 5)


@pytest.mark.parametrize(("event", "count"), [("shutil.copyfile", 1), ("shutil.copyfile", 6), ("os.rename", 1)])
def test_kill_during_a_rollback_changes_nothing_and_the_next_one_cleans_up(three, serving, event, count):
    code = KILLED.replace("import publish", "import rollback").replace(
        "publish(Path(sys.argv[1]), Path(sys.argv[2]), keep=2)", "rollback(Path(sys.argv[2]))"
    )
    done = subprocess.run([sys.executable, "-c", code, "", serving, event, str(count)], cwd=ROOT)
    assert done.returncode == -signal.SIGKILL
    assert versions(serving) == three
    (leftover,) = names(serving) - set(map(str, three))
    assert not leftover.isdecimal()
    assert rollback(serving).of == three[1]
    assert names(serving) == set(map(str, versions(serving)))


def test_model_that_was_rolled_back_from_is_known_again_until_something_else_is_published(three, model, serving):
    def candidate(number):
        (model / "fingerprint.pb").write_bytes(b"%060d" % number)
        return taken_back(serving, versions(serving)[-1], model)

    assert candidate(2) is None
    rollback(serving)
    assert (candidate(2), candidate(1), candidate(0), candidate(9)) == (three[2], None, None, None)
    second = rollback(serving)
    assert candidate(2) == three[2]
    assert candidate(1) == second.instead_of
    assert candidate(0) is None
    rollback(serving, three[2])
    assert candidate(2) is None
    rollback(serving)
    candidate(9)
    publish(model, serving, keep=9)
    assert candidate(2) is None
