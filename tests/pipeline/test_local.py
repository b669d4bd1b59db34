"""What the caches of a run hang on."""

import pytest

from components.errors import UsageError
from components.image_files import Digest
from components.publishing import newest
from components.sources import Sources
from pipeline import config as configuration
from pipeline.local import _inputs, _mark, _Memory, run
from pipeline.output import Output


@pytest.fixture
def output(tmp_path):
    output = Output(tmp_path / "out")
    output.prepare()
    return output


def ingest(output, inputs, run_id, adds="") -> str:
    """The name under which a run looks for a cached ingestion; what it adds to the remembered splits."""
    memory = _Memory(output, inputs, run_id)
    if adds:
        with (output.schema / "splits.jsonl").open("a") as file:
            file.write(adds)
    memory.keep()
    return memory.name


def test_remembered_splits_are_part_of_what_must_hold_for_unchanged(output):
    assert newest(output.serving) is None
    before = _mark(output, "fingerprint")
    (output.schema / "splits.jsonl").write_text("x")
    assert _mark(output, "fingerprint") != before


def test_ingestion_is_not_run_again_for_what_it_remembered_itself(output):
    assert ingest(output, "A", "1", adds="x") == "1"
    assert ingest(output, "A", "2") == ingest(output, "A", "3") == "1"


def test_ingestion_that_remembers_nothing_new_leaves_earlier_results_in_the_cache(output):
    assert [ingest(output, inputs, run) for inputs, run in (("A", "1"), ("B", "2"), ("A", "3"))] == ["1"] * 3


def test_ingestion_is_run_again_when_others_remembered_something_since(output):
    assert ingest(output, "A", "1") == "1"
    assert ingest(output, "B", "2", adds="x") == "1"
    assert ingest(output, "A", "3") == "3"


@pytest.mark.parametrize("splits", [None, "y"])
def test_ingestion_is_run_again_when_the_remembered_splits_are_lost_or_edited(output, splits):
    ingest(output, "A", "1", adds="x")
    (output.schema / "splits.jsonl").unlink()
    if splits:
        (output.schema / "splits.jsonl").write_text(splits)
    assert ingest(output, "A", "2", adds="x") == "2"


def test_damaged_note_means_one_more_ingestion(output):
    first = ingest(output, "inputs", "run-1")
    assert ingest(output, "inputs", "run-2") == first
    (output.cache / "memory.json").write_text('{"splits": ')
    assert ingest(output, "inputs", "run-3") == "run-3"
    assert ingest(output, "inputs", "run-4") == "run-3"


def test_only_what_changes_an_outcome_makes_a_run_another_one():
    def fingerprint(*settings: str) -> str:
        loaded = configuration.load(None, ["model.backbone=graft_tiny", "model.weights=bundled", *settings])
        return _inputs(loaded, Sources(["/images"]), Digest("digest", frozenset())).fingerprint

    assert fingerprint() != fingerprint("training.seed=2")
    assert fingerprint() == fingerprint("runner.beam=processes", "runner.labels={team: vision}")


# ---- a place of its own to publish to -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("destination", "words"),
    [
        ("{tmp}/images/cat/serving", "lies inside the image folder"),
        ("{tmp}/images/cat/1.jpg/serving", "lies inside the image folder"),
        ("{tmp}/file/serving", r"push.destination: .*file/serving cannot be written"),
        ("nowhere://bucket/serving", r"no file system for nowhere:// is installed"),
        ("gs://bucket/[a]", "leave them out"),
    ],
)
def test_destination_that_cannot_be_published_to_is_refused_before_anything_runs(tmp_path, destination, words):
    for name in ("cat", "dog"):
        (tmp_path / "images" / name).mkdir(parents=True)
        (tmp_path / "images" / name / "1.jpg").write_bytes(b"x")
    (tmp_path / "file").touch()
    config = configuration.load(None, [f"push.destination={destination.format(tmp=tmp_path)}"])
    with pytest.raises(UsageError, match=words):
        run(config, [str(tmp_path / "images")], tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "images" / "cat").iterdir()) == ["1.jpg"]
    assert not list((tmp_path / "out" / "artifacts").glob("*"))
