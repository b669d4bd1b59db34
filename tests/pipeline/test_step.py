"""The command of a container: what it does before and after the step itself. tests/e2e/test_compiled.py runs steps."""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from components.parallel import PORTABLE_RUNNER
from pipeline import compiled
from pipeline.config import Config
from pipeline.console import Steps
from pipeline.failure import Scene, explain
from pipeline.runners import BY_WORKERS
from pipeline.step import ON_A_CLUSTER, Step, _outcome
from tests.conftest import ROOT
from tests.memory_files import MemoryFiles

GIVEN = {"inputs": {}, "outputs": {"outputFile": "/nowhere/told.json"}}
WORDS = {
    "--executor_class_path": "components.data_gate.Executor",
    "--json_serialized_invocation_args": json.dumps(GIVEN),
    "--json_serialized_inputs_spec_args": "{}",
    "--step": "DataGate",
    "--bound": compiled.bind(Config(), ["gs://bucket/images"]).dump(),
}

REFUSED = {"checks": [{"passed": False, "metric": "recall", "slice": "cat", "value": 0.5, "bound": 0.9}]}


def run(tmp_path: Path, **words: str) -> subprocess.CompletedProcess:
    (tmp_path / "temporary").mkdir()
    given = WORDS | {f"--{name}": value for name, value in words.items()}
    command = [sys.executable, *compiled.COMMAND[1:], *(word for pair in given.items() for word in pair)]
    env = os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path / "temporary")}
    return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("json_serialized_invocation_args", '{"inputs": {"parameterValues": {'),
        ("json_serialized_inputs_spec_args", ""),
        ("bound", '{"configuration": {}, "somewhere": "else"}'),
        ("bound", "[]"),
    ],
)
def test_damaged_arguments_are_told_in_a_sentence(tmp_path, name, value):
    ended = run(tmp_path, **{name: value})
    assert ended.returncode == 2
    last = ended.stderr.splitlines()[-1]
    assert last.startswith(f"graft: Judge the data: --{name} is damaged: it must be what `graft compile` wrote.")
    assert list((tmp_path / "temporary").iterdir()) == []


def test_whatever_goes_wrong_the_log_ends_with_a_sentence_and_what_to_try(tmp_path):
    ended = run(tmp_path, json_serialized_invocation_args="[]")
    assert ended.returncode == 1
    sentence, advice = ended.stderr.splitlines()[-2:]
    assert sentence.startswith("graft: Judge the data: AttributeError: ")
    assert advice.startswith(
        "Try: Start the run again, in case it passes. If it fails in the same way, report it with the log"
    )
    assert list((tmp_path / "temporary").iterdir()) == []


def test_advice_is_about_a_cluster_and_not_about_this_machine(tmp_path):
    scene = Scene("Resize and normalise", tmp_path, tmp_path / "log", processes=True, **ON_A_CLUSTER)
    advice = explain(MemoryError(), scene).advice
    assert advice.startswith("Set runner.beam: local") and "memory_gib in runner.resources" in advice
    assert "programs" not in advice and "all steps run anew" in explain(KeyboardInterrupt(), scene).advice


@pytest.mark.parametrize(
    ("summary", "words", "said"),
    [
        ({"status": "published", "model": {"path": "gs://b/serving/1"}}, "published: gs://b/serving/1", ""),
        ({"status": "refused", "gate": REFUSED}, "refused: nothing was published", "refused by recall (cat): 0.5"),
        (None, "could not be written", ""),
    ],
)
def test_log_of_the_last_step_tells_how_the_run_ended(tmp_path, capsys, summary, words, said):
    if summary:
        (tmp_path / "summary.json").write_text(json.dumps(summary))
    assert _outcome(tmp_path, Steps()).startswith(words)
    assert said in capsys.readouterr().out


def test_weights_that_are_not_there_are_told_before_anything_is_read(tmp_path):
    config = Config.model_validate({"model": {"weights": "/no/such.keras"}})
    bound = compiled.bind(config, ["gs://bucket/images"]).dump()
    ended = run(tmp_path, step="Trainer", bound=bound)
    assert ended.returncode == 2
    assert ended.stderr.splitlines()[-1].startswith("graft: Train: model.weights: there is no file /no/such.keras;")


@pytest.fixture
def memory(monkeypatch):
    monkeypatch.delenv("KFP_POD_NAME", raising=False)
    MemoryFiles.clear()
    yield MemoryFiles
    MemoryFiles.clear()


@pytest.mark.parametrize("runner", ["DataflowRunner", "pipeline.job.Runner", "FnApiRunner"])
def test_what_workers_elsewhere_read_and_write_stays_in_the_store_and_all_else_is_copied(memory, tmp_path, runner):
    from tfx.types import standard_artifacts

    def artifact(key: str) -> list:
        made = standard_artifacts.Examples()
        made.uri = f"mem://bucket/{key}"
        memory.put(f"{made.uri}/left", b"by an earlier try" if key in outputs else b"")
        return [made]

    outputs = ("examples", "metadata", "schema", "catalog")
    step = Step(argparse.Namespace(step="ImageExampleGen"), [f"--runner={runner}"], tmp_path)
    given = {key: artifact(key) for key in outputs}
    stays = BY_WORKERS["ImageExampleGen"] if runner != "FnApiRunner" else set()
    with step._copied({}, given):
        assert {key for key in outputs if given[key][0].uri == f"mem://bucket/{key}"} == stays
        for key in set(outputs) - stays:
            Path(given[key][0].uri, "new").write_text(key)
        temporary = step._temporary(given)
    assert (temporary == "mem://bucket/examples-temporary") == bool(stays)
    assert [given[key][0].uri for key in outputs] == [f"mem://bucket/{key}" for key in outputs]
    assert set(memory.files) == {f"mem://bucket/{key}/new" for key in set(outputs) - stays}


def test_workers_of_a_cluster_find_what_is_on_its_way_on_the_volume_that_they_share(tmp_path):
    from tfx.types import standard_artifacts

    made = {key: standard_artifacts.Model() for key in ("catalog", "examples")}
    for key, artifact in made.items():
        artifact.uri = f"/volume/{key}"
    outputs = {key: [artifact] for key, artifact in made.items()}
    step = Step(argparse.Namespace(step="ImageExampleGen"), [PORTABLE_RUNNER], tmp_path)
    assert step._temporary(outputs) == "/volume/examples-temporary"
    # What no worker writes may lie in this container alone.
    step = Step(argparse.Namespace(step="Trainer"), [PORTABLE_RUNNER], tmp_path)
    assert step._temporary(outputs) == str(tmp_path / "temporary")


def test_folders_that_workers_made_in_the_store_are_no_objects_that_the_launcher_of_kubeflow_stumbles_over(
    monkeypatch, tmp_path
):
    from tfx.types import standard_artifacts

    made, tidied = {key: standard_artifacts.Model() for key in ("examples", "catalog")}, []
    for key, artifact in made.items():
        artifact.uri = f"gs://bucket/{key}"
    monkeypatch.setenv("KFP_POD_NAME", "a pod's")
    monkeypatch.setattr("pipeline.copies.LAUNCHER_FOLDERS", {"gs://": f"{tmp_path}/"})
    monkeypatch.setattr("pipeline.step.storage.empty", lambda place: None)
    monkeypatch.setattr("pipeline.step.storage.remove_folder_objects", tidied.append)
    step = Step(argparse.Namespace(step="ImageExampleGen"), ["--runner=DataflowRunner"], tmp_path)
    with step._copied({}, {key: [artifact] for key, artifact in made.items()}):
        assert tidied == []
    assert tidied == ["gs://bucket/examples"]
