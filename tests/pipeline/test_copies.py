"""Local copies of artifacts: all of what lies under a URI, nothing beside it, and nothing of an earlier try."""

from pathlib import Path

import pytest

from components.errors import UsageError
from components.storage import download_folder
from pipeline import copies
from pipeline.copies import Copies
from tests.memory_files import MemoryFiles

URI = "mem://bucket/run/examples"


@pytest.fixture
def memory(monkeypatch):
    """A bucket; no launcher of Kubeflow's is about."""
    monkeypatch.delenv(copies.LAUNCHED, raising=False)
    MemoryFiles.clear()
    yield MemoryFiles
    MemoryFiles.clear()


def content(memory) -> dict[str, bytes]:
    return {uri: data for uri, (data, _) in memory.files.items()}


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_everything_under_a_uri_is_read_and_nothing_beside_it(memory, tmp_path):
    wanted = {f"Split-{number % 3}/data-{number}.gz": str(number).encode() for number in range(100)} | {"BLESSED": b""}
    for name, data in wanted.items():
        memory.put(f"{URI}/{name}", data)
    memory.put(f"{URI}-of-others/x", b"theirs")
    # What stands for a folder in some buckets.
    memory.put(f"{URI}/Split-0/", b"")
    found = Copies(tmp_path / "scratch")
    assert files(Path(found.read(URI))) == wanted
    assert files(Path(found.read("mem://bucket/nothing"))) == {}


def test_what_was_written_is_stored_once_the_step_has_ended(memory, tmp_path):
    found = Copies(tmp_path)
    folder = Path(found.write(URI))
    (folder / "a" / "b").mkdir(parents=True)
    (folder / "a" / "b" / "ü x.json").write_bytes(b"1")
    (folder / "empty").touch()
    assert content(memory) == {}
    found.store()
    assert content(memory) == {f"{URI}/a/b/ü x.json": b"1", f"{URI}/empty": b""}


def test_what_an_earlier_try_left_does_not_get_among_what_this_one_writes(memory, tmp_path):
    memory.put(f"{URI}/data-00000-of-00007", b"half")
    memory.put(f"{URI}-of-others/x", b"theirs")
    found = Copies(tmp_path / "scratch")
    Path(found.write(URI), "data-00000-of-00001").write_bytes(b"whole")
    found.store()
    assert content(memory) == {f"{URI}/data-00000-of-00001": b"whole", f"{URI}-of-others/x": b"theirs"}
    volume = tmp_path / "volume" / "examples"
    volume.mkdir(parents=True)
    (volume / "data-00000-of-00007").touch()
    assert found.write(str(volume)) == str(volume)
    assert list(volume.iterdir()) == []


def test_what_lies_on_a_volume_is_read_where_it_is(memory, tmp_path):
    found = Copies(tmp_path / "scratch")
    assert found.read(str(tmp_path / "volume")) == str(tmp_path / "volume")
    found.store()
    assert not (tmp_path / "scratch").exists()


@pytest.mark.parametrize("name", ["../escaped", "a/../../escaped", "../../escaped"])
def test_names_that_lead_out_of_the_folder_are_refused(memory, tmp_path, name):
    memory.put(f"{URI}/fine", b"x")
    memory.put(f"{URI}/{name}", b"x")
    with pytest.raises(UsageError, match="has a name that no file can have; remove it"):
        download_folder(URI, tmp_path / "a" / "b")
    assert not list(tmp_path.rglob("escaped"))


def test_file_that_cannot_be_read_or_stored_is_an_error(memory, tmp_path):
    memory.broken.add(memory.put(f"{URI}/x", b"x"))
    with pytest.raises(OSError, match="503 try again"):
        Copies(tmp_path / "a").read(URI)
    memory.clear()

    def full(change: str) -> None:
        raise RuntimeError("507 full")

    found = Copies(tmp_path / "b")
    for number in range(50):
        Path(found.write(f"{URI}/{number}"), "x").write_bytes(b"x")
    memory.before_change = staticmethod(full)
    with pytest.raises(OSError, match="507 full"):
        found.store()


def test_places_in_a_copy_are_told_as_those_that_they_are_copies_of(memory, tmp_path):
    found = Copies(tmp_path)
    folder = found.read(URI)
    assert found.uri_of(folder) == URI
    assert found.uri_of(f"{folder}/Split-train") == f"{URI}/Split-train"
    for other in (f"{folder}9/x", "gs://bucket/serving/1", "words"):
        assert found.uri_of(other) == other


@pytest.mark.parametrize("scheme", ["gs", "minio", "s3"])
def test_launcher_of_kubeflow_moves_what_it_knows(memory, tmp_path, monkeypatch, scheme):
    """The test plays its part: it puts inputs into its folder, and takes outputs from there."""
    monkeypatch.setenv(copies.LAUNCHED, "graft-trainer")
    known = {f"{name}://": f"{tmp_path}/{name}/" for name in ("gs", "minio", "s3")}
    assert {name: f"/{name.removesuffix('://')}/".replace("/gs/", "/gcs/") for name in known} == copies.LAUNCHER_FOLDERS
    monkeypatch.setattr(copies, "LAUNCHER_FOLDERS", known)
    downloaded = tmp_path / scheme / "bucket" / "root" / "input"
    downloaded.mkdir(parents=True)
    (downloaded / "x").write_bytes(b"x")
    found = Copies(tmp_path / "scratch")
    assert files(Path(found.read(f"{scheme}://bucket/root/input"))) == {"x": b"x"}
    written = Path(found.write(f"{scheme}://bucket/root/output/"))
    (written / "y").write_bytes(b"y")
    found.store()
    assert files(tmp_path / scheme / "bucket" / "root" / "output") == {"y": b"y"}
    assert found.uri_of(f"{written}/y").startswith(f"{scheme}://bucket/root/output/")
    assert not (tmp_path / "scratch").exists()


def test_what_the_launcher_does_not_know_is_moved_by_the_step(memory, tmp_path, monkeypatch):
    monkeypatch.setenv(copies.LAUNCHED, "graft-trainer")
    memory.put(f"{URI}/x", b"x")
    assert files(Path(Copies(tmp_path).read(URI))) == {"x": b"x"}
