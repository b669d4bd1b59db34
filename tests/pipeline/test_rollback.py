"""`graft rollback`, and what it means for the next run."""

import shutil
import subprocess
import sys
import time

import pytest

from components.errors import UsageError
from components.publishing import publish, versions
from pipeline.local import _mark, _same_run, in_service_line
from pipeline.output import write_json
from pipeline.rollback import rollback
from tests.conftest import ROOT
from tests.memory_files import MemoryFiles


@pytest.fixture
def two(output, model):
    return [int(publish(model, output.serving, 5).name) for _ in range(2)]


def graft(*arguments) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "pipeline", "rollback", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


# ---- the command ----------------------------------------------------------------------------------------------------


def test_rollback_says_in_one_line_what_is_in_service(output, two):
    done = graft(output.serving)
    version = versions(output.serving)[-1]
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"Version {version} is in service: the model of version {two[0]} instead of {two[1]}.\n"
    done = graft(output.serving, "--to", two[1])
    assert f"the model of version {two[1]} instead of {version}." in done.stdout


def test_rollback_to_an_unknown_version_exits_2_and_lists_those_there_are(output, two):
    done = graft(output.serving, "--to", 3)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"There is no version 3 in {output.serving}; --to takes one of {two[0]}, {two[1]}." in done.stderr


def test_rollback_works_while_a_run_holds_the_output_folder(output, two):
    with output.held():
        assert graft(output.serving).returncode == 0


def test_unverified_version_and_file_that_was_not_copied_are_said(output, two, model, capsys):
    shutil.copytree(model, output.serving / "5")
    rollback(str(output.serving), 5)
    assert "It has no checksums, so that it could not be verified." in capsys.readouterr().out
    (output.serving / str(two[0]) / "a\nb").write_text("mine")
    rollback(str(output.serving), two[0])
    (line,) = capsys.readouterr().out.splitlines()
    assert line.endswith(r"Not copied, as they were not published with it: a\nb.")


def test_output_folder_is_told_where_its_serving_folder_is(output, two):
    with pytest.raises(UsageError, match=f"its serving folder is {output.serving}: graft rollback {output.serving}"):
        rollback(str(output.root), None)
    (output.runs / "latest").mkdir()
    write_json(output.runs / "latest" / "summary.json", {"model": {"path": "gs://bucket/serving/7"}})
    with pytest.raises(UsageError, match="its serving folder is gs://bucket/serving: "):
        rollback(str(output.root), None)


def test_version_is_told_its_serving_folder_and_a_folder_without_versions_stays_as_it_is(output, two, tmp_path):
    with pytest.raises(UsageError, match=f"graft rollback {output.serving} --to {two[0]}"):
        rollback(str(output.serving / str(two[0])), None)
    with pytest.raises(UsageError, match="There is no version in"):
        rollback(str(tmp_path / "nothing"), None)
    assert not (tmp_path / "nothing").exists()
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="There is no version in"):
        rollback(str(tmp_path / "empty"), None)
    assert not list((tmp_path / "empty").iterdir())


# ---- the next run ---------------------------------------------------------------------------------------------------


def test_version_of_a_rollback_stands_for_what_was_published_last(output, two, model, capsys):
    published = _mark(output, "inputs")
    rollback(str(output.serving), None)
    assert _mark(output, "inputs") == published
    rollback(str(output.serving), two[1])
    rollback(str(output.serving), two[0])
    assert _mark(output, "inputs") == published
    assert f"to the model of version {two[0]} instead of version" in in_service_line(str(output.serving))
    publish(model, output.serving, 5)
    assert _mark(output, "inputs") != published


@pytest.mark.parametrize("status", ["published", "refused"])
def test_refused_model_is_judged_again_after_a_rollback_and_a_published_one_is_not(output, two, status, capsys):
    run = output.new_run()
    write_json(run / "summary.json", {"status": status})
    (run / "fingerprint").write_text(_mark(output, "inputs", None, status == "published"))
    assert _same_run(output, "inputs", None) == {"status": status}
    rollback(str(output.serving), None)
    assert (_same_run(output, "inputs", None) is None) == (status == "refused")


def test_deleted_version_is_noticed_also_after_a_rollback(output, two, capsys):
    published = _mark(output, "inputs")
    rollback(str(output.serving), None)
    shutil.rmtree(output.serving / str(versions(output.serving)[-1]))
    assert _mark(output, "inputs") == published
    shutil.rmtree(output.serving / str(two[1]))
    assert _mark(output, "inputs") != published


def test_destination_of_its_own_decides_what_is_in_service(output, two, model, tmp_path, monkeypatch):
    MemoryFiles.clear()
    inside = _mark(output, "inputs")
    monkeypatch.chdir(tmp_path)
    # Not the same second, which would be the same version.
    monkeypatch.setattr(time, "time", lambda: 1_600_000_000.0)
    publish(model, tmp_path / "elsewhere", 5)
    assert len({inside, _mark(output, "inputs", "elsewhere"), _mark(output, "inputs", "mem://bucket/serving")}) == 3
    before = _mark(output, "inputs", "mem://bucket/serving")
    publish(model, "mem://bucket/serving", 5)
    assert _mark(output, "inputs", "mem://bucket/serving") != before
    MemoryFiles.clear()
