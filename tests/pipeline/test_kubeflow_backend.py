"""The compiled specification before Kubeflow Pipelines' own backend, where a build of its compiler is at hand.

The environment variable `GRAFT_KUBEFLOW_COMPILER` names a program that is called as `PROGRAM [options] FILE`. It loads
the file, compiles it and validates the result as the API server does when a run is created, prints Argo's workflow and
ends with 0, or says why not and ends with 1. `-parameters JSON` are the run's, `-schedule` has the recurring run
compiled as well, and `-tasks` prints what Kubeflow's driver and launcher make of each task instead.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.steps import STEPS

ROOT = Path(__file__).resolve().parents[2]
COMPILER = os.environ.get("GRAFT_KUBEFLOW_COMPILER")
# Nobody on the way to a step may expand anything of these.
GROUP = r"^(.{3}){{workflow.name}}$$(KFP_POD_NAME)"
SETTINGS = {
    "data.split.group": GROUP,
    "runner.resources": '{default: {cpu: 2, memory_gib: 8}, Trainer: {accelerator: "nvidia.com/gpu"}}',
    "runner.labels": "{team: vision}",
    "runner.volumes": "[{name: photos, path: /photos}]",
    "runner.env": "{KERAS_HOME: /photos/keras}",
}
RESOURCES = {"limits": {"cpu": "2", "memory": "8Gi"}, "requests": {"cpu": "2", "memory": "8Gi"}}

pytestmark = pytest.mark.skipif(not COMPILER, reason="GRAFT_KUBEFLOW_COMPILER names no build of Kubeflow's compiler")


@pytest.fixture(scope="module")
def specification(tmp_path_factory) -> Path:
    """What `graft compile` writes, with everything in it that only some have."""
    path = tmp_path_factory.mktemp("compiled") / "pipeline.yaml"
    command = [sys.executable, "-m", "pipeline", "compile", "--target", "kubeflow", "--images", "gs://bucket/images"]
    for key, value in SETTINGS.items():
        command += ["--set", f"{key}={value}"]
    made = subprocess.run(
        [*command, "-o", path], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert made.returncode == 0, made.stderr
    return path


@pytest.fixture(scope="module")
def tasks(specification) -> dict[str, dict[str, Any]]:
    """What Kubeflow would run, by task, in the order in which it may."""
    found = json.loads(backend("-tasks", specification).stdout)
    return {task["task"]: task for task in found}


def backend(*arguments: Path | str) -> subprocess.CompletedProcess:
    return subprocess.run([str(COMPILER), *map(str, arguments)], capture_output=True, text=True)


def dag(said: subprocess.CompletedProcess) -> dict[str, dict[str, str]]:
    """Arguments of the tasks of the workflow that the backend printed."""
    (root,) = (template for template in json.loads(said.stdout)["spec"]["templates"] if template["name"] == "root")
    return {
        task["name"]: {given["name"]: given.get("value") for given in task["arguments"]["parameters"]}
        for task in root["dag"]["tasks"]
    }


def test_backend_compiles_the_specification_and_its_schedule(specification):
    said = backend("-schedule", specification)
    assert said.returncode == 0, said.stderr
    assert set(dag(said)) == {name for step in STEPS for name in (step, f"{step}-driver")}


def test_run_is_refused_parameters_that_the_pipeline_does_not_have(specification):
    assert backend("-parameters", '{"training_frozen_epochs": 3}', "-quiet", specification).returncode == 0
    for wrong, reason in (
        ('{"training_frozen_epochs": "3"}', "not of number value type"),
        ('{"epochs": 3}', "not required by pipeline: epochs"),
    ):
        said = backend("-parameters", wrong, specification)
        assert (said.returncode, reason in said.stderr) == (1, True), said.stderr


def test_every_step_is_run_by_our_command_with_the_resources_labels_and_volumes_asked_for(specification, tasks):
    assert list(tasks) == list(STEPS)
    for step, task in tasks.items():
        assert task["command"][:4] == ["python", "-P", "-m", "pipeline.step"]
        assert task["env"] == {"KERAS_HOME": "/photos/keras"}
        container = task["podSpecPatch"]["containers"][0]
        accelerator = {"nvidia.com/gpu": "1"} if step == "Trainer" else {}
        assert container["resources"] == RESOURCES | {"limits": RESOURCES["limits"] | accelerator}
        assert container["volumeMounts"] == [{"name": "photos", "mountPath": "/photos"}]
    workflow = dag(backend(specification))
    for step in STEPS:
        given = workflow[step]
        assert (given["pod-metadata-label-key"], given["pod-metadata-label-val"]) == ("team", "vision")


def test_configuration_reaches_the_steps_as_it_was_written(tasks):
    for task in tasks.values():
        words = task["command"]
        assert json.loads(words[words.index("--bound") + 1])["configuration"]["data"]["split"]["group"] == GROUP
        # Argo expands the one, Kubernetes the other, in what it starts the container with.
        container = task["podSpecPatch"]["containers"][0]
        for word in [*container["command"], *container["args"]]:
            assert word == "{{$}}" or word in ("$(KFP_POD_NAME)", "$(KFP_POD_UID)") or not ("{{" in word or "$" in word)


def test_ingestion_and_what_asks_what_is_in_service_are_computed_in_every_run(tasks):
    cached = {step for step, task in tasks.items() if task.get("fingerprint")}
    assert cached == {"StatisticsGen", "ExampleValidator", "Transform", "Trainer"}


def test_backend_refuses_a_resolver(specification, tmp_path):
    spec = next(yaml.safe_load_all(specification.read_text()))
    spec["deploymentSpec"]["executors"]["Trainer_executor"] = {"resolver": {"outputArtifactQueries": {}}}
    path = tmp_path / "resolver.yaml"
    path.write_text(yaml.safe_dump(spec))
    said = backend(path)
    assert (said.returncode, "not implemented" in said.stderr) == (1, True), said.stderr
