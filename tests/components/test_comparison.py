"""What publications keep for later runs to be compared with, in a folder and under a URI."""

import pytest

from components import comparison, storage
from components.publishing import publish, rollback
from tests.memory_files import MemoryFiles


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "saved_model.pb").write_bytes(b"1")
    return folder


def test_drift_is_measured_against_the_model_in_service_also_after_a_rollback(tmp_path, model):
    serving, folder = tmp_path / "serving", str(tmp_path)
    assert comparison.statistics_of(str(serving), folder) is None
    first = publish(model, serving, keep=5).name
    second = publish(model, serving, keep=5).name
    assert comparison.statistics_of(str(serving), folder) == f"{tmp_path}/{second}.pb"
    rollback(serving)
    assert comparison.statistics_of(str(serving), folder) == f"{tmp_path}/{first}.pb"


@pytest.fixture(params=["folder", "uri"])
def place(request, tmp_path):
    """Where versions, statistics and schema are kept."""
    if request.param == "folder":
        yield str(tmp_path / "kept")
    else:
        MemoryFiles.clear()
        yield "mem://bucket/kept"
        MemoryFiles.clear()


def test_statistics_stay_for_every_version_that_can_come_back_and_the_schema_is_kept_once(place, model):
    serving, schema = f"{place}/serving", f"{place}/schema/metadata.pbtxt"
    folder = f"{place}/schema/published_statistics"
    numbers = []
    for content in (b"first", b"second", b"third"):
        numbers.append(int(str(publish(model, serving, keep=2)).rpartition("/")[2]))
        comparison.keep(serving, numbers[-1], content, folder, content, schema)
    assert storage.files_in(folder) == [f"{folder}/{number}.pb" for number in numbers[1:]]
    assert storage.read_bytes(comparison.statistics_of(serving, folder)) == b"third"
    assert storage.read_bytes(schema) == b"first"
