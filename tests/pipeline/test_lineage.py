"""What ML Metadata is asked, and that asking changes nothing and disturbs nobody."""

import hashlib
import signal
import sqlite3
import subprocess
import sys
import time

import pytest

from components.errors import UsageError
from pipeline import lineage
from pipeline.lineage import artifacts_of_run
from tests.conftest import ROOT
from tests.pipeline.outputs import Recorder

FIRST, SECOND, THIRD = "20260101-000000", "20260102-000000", "20260103-000000"
CACHED = ("ImageExampleGen", "Transform", "Trainer")


@pytest.fixture
def recorded(output):
    """A run, one that had its model from the cache, and one that failed."""
    recorder = Recorder(output)
    recorder.run(FIRST, properties={"Trainer": {"custom_config": '{"code": "abc"}'}}, pushed="/serving/7")
    recorder.run(SECOND, CACHED, pushed="/serving/8")
    recorder.run(THIRD, ends="Transform")
    return recorder


def test_artifacts_of_a_run_are_there_by_component_and_key_from_the_cache_too(output, recorded):
    first, second = artifacts_of_run(output.metadata, FIRST), artifacts_of_run(output.metadata, SECOND)
    assert first.keys() == second.keys() >= {"ImageExampleGen", "AtomicPusher"}
    assert second["Trainer"]["model"].uri == first["Trainer"]["model"].uri
    assert second["GatedEvaluator"]["evaluation"].uri != first["GatedEvaluator"]["evaluation"].uri
    assert second["AtomicPusher"]["pushed_model"].custom_properties["pushed_version"].string_value == "8"


def test_step_that_failed_left_nothing(output, recorded):
    assert artifacts_of_run(output.metadata, THIRD).keys() == {"ImageExampleGen"}
    assert artifacts_of_run(output.metadata, "20990101-000000") == {}
    with lineage.opened(output.metadata) as history:
        assert not history.run(THIRD)["Transform"].done
        assert history.run_ids() == [FIRST, SECOND, THIRD]


def test_version_is_traced_to_the_runs_that_really_made_it(output, recorded):
    with lineage.opened(output.metadata) as history:
        made = history.origins(history.pushed(8, "/serving/8"))
        assert history.pushed(9) is None
    assert {name: step.run_id for name, step in made.items()} == dict.fromkeys(CACHED, FIRST) | dict.fromkeys(
        ("GatedEvaluator", "AtomicPusher"), SECOND
    )
    assert made["Trainer"].code == "abc"


def test_versions_of_one_number_at_two_places_are_told_apart(output):
    recorder = Recorder(output)
    recorder.run(FIRST, pushed="/here/7")
    recorder.run(SECOND, pushed="/there/7")
    with lineage.opened(output.metadata) as history:
        assert history.origins(history.pushed(7, "/there/7"))["AtomicPusher"].run_id == SECOND
        # What was moved is known by its number alone.
        assert history.pushed(7, "/elsewhere/7") is not None


def test_artifacts_are_found_where_the_output_folder_is_by_now(output, recorded, tmp_path):
    artifact = artifacts_of_run(output.metadata, FIRST)["Trainer"]["model"]
    assert lineage.place_of(artifact, output.artifacts) == output.artifacts / "Trainer" / "model" / "3"
    output.root.rename(tmp_path / "moved")
    moved = tmp_path / "moved" / "artifacts"
    assert lineage.place_of(artifact, moved) == moved / "Trainer" / "model" / "3"


# ---- nobody is disturbed --------------------------------------------------------------------------------------------

WRITER = """
import sys
from pathlib import Path
from pipeline.output import Output
from tests.pipeline.outputs import Recorder
recorder = Recorder(Output(Path(sys.argv[1])))
print("ready", flush=True)
number = 0
while True:
    recorder.run(f"20270101-{number:06}")
    number += 1
"""


def test_p4_reading_works_while_a_run_writes_and_does_not_disturb_it(output, recorded):
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, output.root], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "ready\n"
        until, reads, written = time.monotonic() + 30, 0, 0
        while reads < 5 or written <= 3:
            assert time.monotonic() < until, "it did not get to write"
            assert artifacts_of_run(output.metadata, FIRST).keys() >= {"Trainer"}
            with lineage.opened(output.metadata) as history:
                reads, written = reads + 1, len(history.run_ids())
        assert process.poll() is None
    finally:
        process.send_signal(signal.SIGKILL)
        _, error = process.communicate()
    assert "Traceback" not in error
    # It was killed anywhere in its writing.
    assert artifacts_of_run(output.metadata, FIRST).keys() >= {"Trainer"}


def digest_of(path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


KILLED_IN_THE_MIDDLE = """
import os, signal, sqlite3, sys
store = sqlite3.connect(sys.argv[1], isolation_level=None)
store.execute("pragma cache_size = 1")
store.execute("begin exclusive")
store.execute("update Context set name = 'spoiled ' || id")
store.execute("create table Much as select a.uri, b.uri, c.uri from Artifact a, Artifact b, Artifact c")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_p2_what_a_killed_run_was_writing_is_undone_in_a_copy(output, recorded):
    subprocess.run([sys.executable, "-c", KILLED_IN_THE_MIDDLE, output.metadata], check=False)
    journal = output.metadata.with_name("metadata.db-journal")
    before = digest_of(output.metadata), digest_of(journal)
    assert artifacts_of_run(output.metadata, FIRST).keys() >= {"Trainer"}
    assert (digest_of(output.metadata), digest_of(journal)) == before


def test_reading_changes_nothing(output, recorded):
    before = digest_of(output.metadata), sorted(output.root.iterdir())
    artifacts_of_run(output.metadata, FIRST)
    assert (digest_of(output.metadata), sorted(output.root.iterdir())) == before


def test_database_of_another_version_is_not_migrated(output, recorded):
    with sqlite3.connect(output.metadata) as store:
        store.execute("update MLMDEnv set schema_version = 9")
    before = digest_of(output.metadata)
    with pytest.raises(UsageError, match=r"metadata.db cannot be read as a database of ML Metadata"):
        artifacts_of_run(output.metadata, FIRST)
    assert digest_of(output.metadata) == before


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, r"There is no .*metadata\.db"),
        (b"", "it holds no tables"),
        (b"no database at all" * 100, "file is not a database"),
        ("half", "malformed"),
    ],
)
def test_missing_or_damaged_database_is_one_sentence_and_stays_as_it_is(output, recorded, content, words):
    whole = output.metadata.read_bytes()
    output.metadata.unlink()
    if content is not None:
        output.metadata.write_bytes(whole[: len(whole) // 2] if content == "half" else content)
    with pytest.raises(UsageError, match=words) as raised:
        artifacts_of_run(output.metadata, FIRST)
    assert "\n" not in str(raised.value)
    assert output.metadata.is_file() == (content is not None)
