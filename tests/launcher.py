"""What Kubeflow Pipelines' driver and launcher do with a compiled specification, and Vertex AI's, but for the cluster.

Every task runs in a process of its own: its container's command and arguments, with the `ExecutorInput` that the
platform would put in the place of `{{$}}`. What is here was read from the source of Kubeflow Pipelines 2.17.
"""

import json
import os
import subprocess
from pathlib import Path
from typing import Any


class Launcher:
    """Runs the tasks of a specification.

    Args:
      spec: `PipelineSpec` as JSON.
      root: pipeline root, a folder or URI.
      python: what `python` in a container's command stands for.
      env: environment of the containers.
      scratch: a folder; takes logs, and is where the containers run.
      kubeflow: whether inputs come without their types, and a log is asked for that no step declares.
    """

    def __init__(
        self, spec: dict[str, Any], root: str, python: str, env: dict[str, str], scratch: Path, kubeflow: bool = True
    ):
        self.spec, self.root, self.kubeflow = spec, root, kubeflow
        self._python, self._env, self._scratch = python, env, scratch
        self.run_id = "11111111-2222-3333-4444-555555555555"
        self.outputs: dict[str, dict[str, dict[str, Any]]] = {}

    @property
    def order(self) -> list[str]:
        """Names of the tasks, none before one that it depends on."""
        tasks, order = self.spec["root"]["dag"]["tasks"], []
        while len(order) < len(tasks):
            ready = [name for name in tasks if name not in order and self._needs(tasks[name]) <= set(order)]
            assert ready, "the tasks depend on one another in a circle"
            order += sorted(ready)
        return order

    def run(self, parameters: dict[str, Any] | None = None) -> None:
        """Runs every task; `AssertionError` with the end of its log where one fails."""
        for name in self.order:
            ended = self.run_task(name, parameters)
            assert ended.returncode == 0, f"{name}: {ended.stdout[-3000:]}"

    def run_task(self, name: str, parameters: dict[str, Any] | None = None) -> subprocess.CompletedProcess:
        """Runs one task, whose inputs are there; its log is `stdout`, and a file in the scratch folder."""
        task = self.spec["root"]["dag"]["tasks"][name]
        component = self.spec["components"][task["componentRef"]["name"]]
        container = self.spec["deploymentSpec"]["executors"][component["executorLabel"]]["container"]
        asked = self._executor_input(name, task, component, parameters or {})
        words = [self._word(word, asked) for word in [*container["command"], *container["args"]]]
        assert words[0] == "python"
        env = self._env | {pair["name"]: pair["value"] for pair in container.get("env", [])}
        folder = self._scratch / name
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / "log", "w") as log:
            code = subprocess.run([self._python, *words[1:]], cwd=folder, env=env, stdout=log, stderr=log).returncode
        if code == 0:
            self.outputs[name] = self._told(asked)
        return subprocess.CompletedProcess(words, code, (folder / "log").read_text(errors="replace"))

    def _needs(self, task: dict[str, Any]) -> set[str]:
        artifacts = task.get("inputs", {}).get("artifacts", {}).values()
        return {each["taskOutputArtifact"]["producerTask"] for each in artifacts} | set(task.get("dependentTasks", []))

    def _word(self, word: str, asked: dict[str, Any]) -> str:
        """Kubernetes and Argo expand a few things on the way; nothing of that may be in what Graft writes."""
        if word == "{{$}}":
            return json.dumps(asked)
        assert "{{" not in word and "$$" not in word and "$(" not in word, word
        return word

    def _executor_input(
        self, name: str, task: dict[str, Any], component: dict[str, Any], parameters: dict[str, Any]
    ) -> dict[str, Any]:
        inputs = task.get("inputs", {})
        artifacts = {}
        for key, each in inputs.get("artifacts", {}).items():
            source = each["taskOutputArtifact"]
            artifact = self.outputs[source["producerTask"]][source["outputArtifactKey"]]
            declared = component["inputDefinitions"]["artifacts"][key]["artifactType"]
            kind = {"instanceSchema": ""} if self.kubeflow else declared
            artifacts[key] = {"artifacts": [artifact | {"type": kind}]}
        folder = f"{self.root}/{self.spec['pipelineInfo']['name']}/{self.run_id}/{name}"
        outputs = {
            key: {"artifacts": [{"name": key, "uri": f"{folder}/{key}", "type": declared["artifactType"]}]}
            for key, declared in component.get("outputDefinitions", {}).get("artifacts", {}).items()
        }
        if self.kubeflow:
            log = {
                "name": "executor-logs",
                "uri": f"{folder}/executor-logs",
                "type": {"schemaTitle": "system.Artifact"},
            }
            outputs["executor-logs"] = {"artifacts": [log]}
        return {
            "inputs": {"parameterValues": self._values(inputs, parameters), "artifacts": artifacts},
            "outputs": {"artifacts": outputs, "outputFile": str(self._scratch / name / "output_metadata.json")},
        }

    def _values(self, inputs: dict[str, Any], parameters: dict[str, Any]) -> dict[str, Any]:
        declared = self.spec["root"].get("inputDefinitions", {}).get("parameters", {})
        assert set(parameters) <= set(declared), "a run may be given the parameters that are declared"
        values = {}
        for name, given in inputs.get("parameters", {}).items():
            if parameter := given.get("componentInputParameter"):
                value = parameters.get(parameter, declared[parameter].get("defaultValue"))
            else:
                value = given["runtimeValue"]["constant"]
                value = self.run_id if value == "{{$.pipeline_job_uuid}}" else value
            # As in JSON, where every number has a fraction.
            values[name] = float(value) if isinstance(value, int) and not isinstance(value, bool) else value
        return values

    def _told(self, asked: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """The artifacts that the platform registers: as it asked for them, and what the step said of them."""
        told = json.loads(Path(asked["outputs"]["outputFile"]).read_text())["artifacts"]
        found = {}
        for number, (key, artifacts) in enumerate(asked["outputs"]["artifacts"].items()):
            (artifact,), said = artifacts["artifacts"], told.get(key, {"artifacts": [{}]})["artifacts"][0]
            metadata = said.get("metadata", {})
            assert None not in metadata.values(), f"Kubeflow refuses a null in the metadata of {key}"
            uri = said.get("uri", artifact["uri"])
            assert uri.startswith(f"{self.root}/"), f"{key} lies outside of the run's root: {uri}"
            metadata |= {"display_name": key, "store_session_info": "{}"}
            found[key] = {"name": str(number + 1), "uri": uri, "metadata": metadata}
        return found


def container_environment(site: Path | None = None) -> dict[str, str]:
    """An environment without anything of the tests', in which Python finds an installed package first."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "HOME", "TMPDIR") if name in os.environ}
    return kept | ({"PYTHONPATH": str(site)} if site else {})
