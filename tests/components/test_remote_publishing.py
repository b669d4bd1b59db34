"""Publication under a URI: what is in service is what the pointer names, wherever a publisher stops."""

import hashlib
import json

import pytest

from components import progress, storage
from components.checksums import verify
from components.errors import GraftError, UsageError
from components.publishing import local_copy, newest, open_serving, publish, rollback, versions
from tests.gcs_server import GcsServer
from tests.memory_files import MemoryFiles

SERVING = "mem://bucket/serving"
FILES = ("saved_model.pb", "variables/variables.index", "variables/variables.data-00000-of-00001", "assets/labels.txt")


@pytest.fixture
def memory():
    MemoryFiles.clear()
    yield MemoryFiles
    MemoryFiles.clear()


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    for name in FILES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode() * 50)
    return folder


def add(model, keep=5, number=0, **options) -> int:
    """Publishes a model of its own for each number."""
    (model / "assets" / "labels.txt").write_text(f"model {number}")
    extras = {"model_card.json": lambda version: json.dumps({"name": number, "version": version}).encode()}
    return int(publish(model, SERVING, keep, extras, **options).rpartition("/")[2])


def names(memory) -> set[str]:
    return {uri.removeprefix(f"{SERVING}/") for uri in memory.files}


def is_whole(version, tmp_path) -> bool:
    return verify(open_serving(SERVING).fetch(version, tmp_path / "fetched")).clean


class Stopped(BaseException):
    """The end of a process: nothing that catches errors catches it."""


def stop_at(memory, count) -> None:
    """Ends the process right before its `count`th change."""
    memory.changes.clear()

    def before(change):
        if len(memory.changes) == count - 1:
            raise Stopped

    memory.before_change = before


# ---- order ----------------------------------------------------------------------------------------------------------


def test_model_is_written_before_saved_model_and_the_pointer_last(memory, model):
    version = add(model)
    written = [change.removeprefix(f"write {SERVING}/") for change in memory.changes if change.startswith("write")]
    assert written[-2:] == [f"{version}/saved_model.pb", "latest.json"]
    assert names(memory) == {
        "latest.json",
        *(f"{version}/{name}" for name in (*FILES, "model_card.json", "checksums.sha256")),
    }
    pointer = json.loads(memory.files[f"{SERVING}/latest.json"][0])
    assert pointer["version"] == version
    checksums = memory.files[f"{SERVING}/{version}/checksums.sha256"][0]
    assert pointer["checksums"] == hashlib.sha256(checksums).hexdigest()
    assert (versions(SERVING), newest(SERVING)) == ([version], f"{SERVING}/{version}")
    state = progress.now()
    assert (state.done, state.total, state.unit) == (len(FILES) + 2, len(FILES) + 2, "files")


def test_s5_old_versions_go_saved_model_first_and_what_others_put_there_stays(memory, model):
    memory.put(f"{SERVING}/models.config", b"theirs")
    memory.put(f"{SERVING}/7/saved_model.pb", b"theirs")
    published = [add(model, keep=2) for _ in range(3)]
    assert versions(SERVING) == [7, *published[1:]]
    assert {name.partition("/")[0] for name in names(memory)} == {
        *map(str, [7, *published[1:]]),
        "latest.json",
        "models.config",
    }
    deleted = [change for change in memory.changes if change.startswith(f"delete {SERVING}/{published[0]}/")]
    assert deleted[0].endswith("/saved_model.pb")
    assert len(deleted) == len(FILES) + 2


# ---- G9: a publisher that stops anywhere ----------------------------------------------------------------------------


def changes_of_a_publication(memory, model, keep) -> int:
    begun = len(memory.changes)
    add(model, keep)
    return len(memory.changes) - begun


def test_g9_wherever_a_publication_stops_what_is_in_service_is_whole_and_the_next_one_cleans_up(
    memory, model, tmp_path
):
    add(model, keep=1)
    steps = changes_of_a_publication(memory, model, keep=1)
    assert steps > 12
    for count in range(1, steps + 1):
        before = add(model, keep=1)
        stop_at(memory, count)
        with pytest.raises(Stopped):
            add(model, keep=1)
        memory.before_change = lambda change: None
        pointed = json.loads(memory.files[f"{SERVING}/latest.json"][0])["version"]
        assert newest(SERVING) == f"{SERVING}/{pointed}"
        # In service is the one before until the pointer is written.
        assert (pointed == before) == (f"write {SERVING}/latest.json" not in memory.changes)
        assert all(is_whole(version, tmp_path) for version in versions(SERVING))
        after = add(model, keep=1)
        assert {name.partition("/")[0] for name in names(memory)} == {"latest.json", str(after)}


def test_g9_folder_without_saved_model_is_no_version_and_only_ours_is_removed(memory, model):
    memory.put(f"{SERVING}/8/variables/variables.index", b"theirs")
    version = add(model)
    assert versions(SERVING) == [version]
    assert f"{SERVING}/8/variables/variables.index" in memory.files


def test_failed_write_leaves_what_is_in_service(memory, model):
    before = add(model)

    def fail(change):
        if change.endswith("/saved_model.pb"):
            raise RuntimeError("503 try again\nlater")

    memory.before_change = fail
    with pytest.raises(OSError, match="503 try again") as caught:
        add(model)
    assert caught.value.filename.endswith("/saved_model.pb")
    assert newest(SERVING) == f"{SERVING}/{before}"
    assert versions(SERVING) == [before]


# ---- numbers and pointer --------------------------------------------------------------------------------------------


def test_g10_versions_increase_past_unfinished_ones(memory, model, monkeypatch):
    monkeypatch.setattr("time.time", lambda: 1_700_000_000.5)
    memory.put(f"{SERVING}/1800000000/variables/variables.index", b"unfinished")
    assert [add(model), add(model)] == [1_800_000_001, 1_800_000_002]


@pytest.mark.parametrize("pointer", [None, b"{", b"[]", b'{"version": 12}'])
def test_without_a_pointer_to_a_version_that_is_there_the_newest_is_in_service(memory, pointer):
    for version in (5, 10):
        memory.put(f"{SERVING}/{version}/saved_model.pb", b"x")
    if pointer is not None:
        memory.put(f"{SERVING}/latest.json", pointer)
    assert newest(SERVING) == f"{SERVING}/10"
    memory.put(f"{SERVING}/latest.json", b'{"version": 5}')
    assert newest(SERVING) == f"{SERVING}/5"


def test_nothing_is_in_service_under_an_empty_uri(memory):
    assert newest(SERVING) is None
    assert versions(SERVING) == []


def test_uri_with_characters_of_a_pattern_is_refused_before_it_could_delete_others_files():
    with pytest.raises(UsageError, match="leave them out"):
        open_serving("mem://bucket/a[1]")


# ---- two at a time --------------------------------------------------------------------------------------------------


def test_publication_that_another_overtook_leaves_the_pointer_alone(memory, model):
    before = add(model)
    overtaken = []

    def overtake(change):
        if change.endswith("/saved_model.pb") and not overtaken:
            overtaken.append(None)
            memory.put(f"{SERVING}/{before + 50}/saved_model.pb", b"theirs")
            memory.put(f"{SERVING}/latest.json", json.dumps({"version": before + 50}).encode())

    memory.before_change = overtake
    with pytest.raises(GraftError, match=f"from version {before} to version {before + 50} meanwhile"):
        add(model)
    assert newest(SERVING) == f"{SERVING}/{before + 50}"


def test_publication_whose_files_another_removed_leaves_the_pointer_alone(memory, model):
    before = add(model)

    def remove(change):
        if change.endswith("/saved_model.pb"):
            memory.files.pop(f"{change.removeprefix('write ').rpartition('/')[0]}/assets/labels.txt")

    memory.before_change = remove
    with pytest.raises(GraftError, match="publish from one place at a time"):
        add(model)
    assert newest(SERVING) == f"{SERVING}/{before}"


def test_expected_version_that_is_no_longer_in_service_means_nothing_is_written(memory, model):
    first = add(model)
    second = add(model, expected=first)
    memory.changes.clear()
    with pytest.raises(GraftError, match="run again"):
        add(model, expected=first)
    assert memory.changes == []
    assert versions(SERVING) == [first, second]


# ---- the way back, and copies ---------------------------------------------------------------------------------------


def test_rollback_publishes_the_version_before_again(memory, model, tmp_path):
    published = [add(model, number=number) for number in range(3)]
    done = rollback(SERVING)
    assert (done.of, done.instead_of, done.verified) == (published[1], published[2], True)
    assert newest(SERVING) == f"{SERVING}/{done.version}"
    assert is_whole(done.version, tmp_path)
    assert memory.files[f"{SERVING}/{done.version}/assets/labels.txt"][0] == b"model 1"
    card = json.loads(memory.files[f"{SERVING}/{done.version}/model_card.json"][0])
    assert (card["name"], card["version"], card["rollback"]["of"]) == (1, done.version, published[1])
    memory.put(f"{SERVING}/{published[0]}/saved_model.pb", b"damaged")
    with pytest.raises(GraftError, match=r"saved_model\.pb is damaged"):
        rollback(SERVING)


def test_wherever_a_rollback_stops_the_model_in_service_is_the_one_before_or_the_one_wanted(memory, model, tmp_path):
    count = 0
    while True:
        count += 1
        memory.clear()
        wanted, before = add(model, number=0), add(model, number=1)
        stop_at(memory, count)
        try:
            rollback(SERVING)
        except Stopped:
            memory.before_change = lambda change: None
            version = int(newest(SERVING).rpartition("/")[2])
            assert is_whole(version, tmp_path)
            finished = version != before
            assert memory.files[f"{SERVING}/{version}/assets/labels.txt"][0] == (b"model 0" if finished else b"model 1")
            assert rollback(SERVING, wanted).of == wanted
        else:
            break
    assert count > 8


def test_local_copy_holds_what_is_in_service_alone(memory, model, tmp_path):
    for number in range(2):
        add(model, number=number)
        folder = local_copy(SERVING, tmp_path / "copy")
        assert [str(version) for version in versions(folder)] == [newest(SERVING).rpartition("/")[2]]
        assert (newest(folder) / "assets" / "labels.txt").read_text() == f"model {number}"
    assert local_copy(tmp_path / "elsewhere", tmp_path / "copy") == tmp_path / "elsewhere"


def test_names_that_lead_out_of_the_folder_are_not_downloaded(memory, model, tmp_path):
    version = add(model)
    memory.put(f"{SERVING}/{version}/../../escaped", b"x")
    folder = open_serving(SERVING).fetch(version, tmp_path / "a" / "b")
    assert verify(folder).clean
    assert not list(tmp_path.rglob("escaped"))


# ---- Google Cloud Storage's own client ------------------------------------------------------------------------------


@pytest.fixture
def bucket(monkeypatch):
    """A server on loopback that stands for Google Cloud Storage; nothing but its address and credentials is faked."""
    from apache_beam.internal.gcp import auth

    monkeypatch.setattr(auth._Credentials, "_credentials_init", True)
    monkeypatch.setattr(auth._Credentials, "_credentials", None)
    with GcsServer() as server:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.address)
        yield server


def test_publication_retention_and_rollback_through_the_client_of_google_cloud_storage(bucket, model, tmp_path):
    place = "gs://bucket/serving"
    bucket.objects["bucket", "serving-of-others/1/saved_model.pb"] = b"theirs"
    published = [int(publish(model, place, keep=2).rpartition("/")[2]) for _ in range(3)]
    assert versions(place) == published[1:]
    done = rollback(place)
    assert (done.of, done.instead_of, done.verified) == (published[1], published[2], True)
    assert newest(local_copy(place, tmp_path / "copy")).name == str(done.version)
    assert verify(tmp_path / "copy" / str(done.version)).clean
    assert json.loads(bucket.objects["bucket", "serving/latest.json"])["version"] == done.version
    assert {name.split("/")[1] for _, name in bucket.objects} - {"1"} == {
        "latest.json",
        *map(str, [*published[1:], done.version]),
    }
    writes = [line for line in bucket.requests if line.startswith("PUT")]
    assert len(writes) == 3 * (len(FILES) + 3) + 1 + len(FILES) + 4


def test_objects_that_stand_for_folders_are_removed_and_nothing_in_the_folders(bucket):
    names = ["x", "x/", "x/fn/", "x/fn/saved_model.pb", "x/fn/variables/", "x/fn/variables/v", "xy/", "y/"]
    bucket.objects |= {("bucket", f"root/{name}"): b"" for name in names}
    storage.remove_folder_objects("gs://bucket/root/x")
    left = [name for _, name in bucket.objects]
    assert left == [f"root/{name}" for name in ("x", "x/fn/saved_model.pb", "x/fn/variables/v", "xy/", "y/")]
