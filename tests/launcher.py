"""What Kubeflow Pipelines' driver and launcher do with a compiled specification, and Vertex AI's, but for the cluster.

Every task runs in a process of its own: its container's command and arguments, with the `ExecutorInput` that the
platform would put in the place of `{{$}}`. What is here was read from the source of Kubeflow Pipelines 2.17.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Ended:
    """A task that came to its end.

    Attributes:
      code: exit code.
      log: what it printed.
    """

    code: int
    log: str


class Launcher:
    """Runs the tasks of a specification.

    Args:
      spec: `PipelineSpec` as JSON.
      root: pipeline root, a folder or URI.
      env: environment of the containers.
      scratch: a folder; takes logs, and is where the containers run.
      kubeflow: whether inputs come without their types, and a log is asked for that no step declares.
      run_id: of the run.
      read: gives the content of a path or URI.

    Attributes:
      outputs: artifacts by key of every task that ran, as the platform registers them; another run's may be put there.
      read: as given.
    """

    def __init__(
        self,
        spec: dict[str, Any],
        root: str,
        env: dict[str, str],
        scratch: Path,
        *,
        kubeflow: bool,
        run_id: str,
        read: Callable[[str], bytes] = lambda place: Path(place).read_bytes(),
    ):
        self.spec, self.root, self.kubeflow, self.run_id = spec, root, kubeflow, run_id
        self.read, self._env, self._scratch = read, env, scratch
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

    def run(self, name: str, parameters: dict[str, Any] | None = None) -> Ended:
        """Runs one task, whose inputs are there."""
        with self.started(name, parameters) as (process, folder, asked):
            code = process.wait()
        if code == 0:
            self.outputs[name] = self._told(asked)
        return Ended(code, (folder / "log").read_text(errors="replace"))

    @contextmanager
    def started(
        self, name: str, parameters: dict[str, Any] | None = None
    ) -> Iterator[tuple[subprocess.Popen, Path, dict[str, Any]]]:
        """Starts one task; yields its process, the folder of its log, and its `ExecutorInput`."""
        task = self.spec["root"]["dag"]["tasks"][name]
        component = self.spec["components"][task["componentRef"]["name"]]
        container = self.spec["deploymentSpec"]["executors"][component["executorLabel"]]["container"]
        asked = self._executor_input(name, task, component, parameters or {})
        program, *words = [self._word(word, asked) for word in [*container["command"], *container["args"]]]
        env = self._env | {pair["name"]: pair["value"] for pair in container.get("env", [])}
        env |= {"KFP_POD_NAME": f"graft-{name.lower()}"} if self.kubeflow else {}
        folder = self._scratch / self.run_id / name
        folder.mkdir(parents=True, exist_ok=True)
        # A folder of the container's image, in which something may have the names of our packages.
        with open(folder / "log", "w") as log:
            process = subprocess.Popen(
                [shutil.which(program, path=env["PATH"]), *words], cwd=self._scratch, env=env, stdout=log, stderr=log
            )
            try:
                yield process, folder, asked
            finally:
                process.kill()
                process.wait()

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
        """The same for every try of a task in a run, places of outputs included."""
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
        told = self._scratch / self.run_id / name / "output_metadata.json"
        # Empty maps are left out.
        given = {"parameterValues": self._values(inputs, parameters), "artifacts": artifacts}
        return {
            "inputs": {field: value for field, value in given.items() if value},
            "outputs": {
                "artifacts": outputs,
                "outputFile": str(told) if self.kubeflow else f"{folder}/executor_output.json",
            },
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
        told = json.loads(self.read(asked["outputs"]["outputFile"]))["artifacts"]
        found = {}
        for number, (key, artifacts) in enumerate(asked["outputs"]["artifacts"].items()):
            (artifact,), said = artifacts["artifacts"], told.get(key, {"artifacts": [{}]})["artifacts"][0]
            metadata = said.get("metadata", {})
            assert None not in metadata.values(), f"Kubeflow refuses a null in the metadata of {key}"
            assert said.get("uri", artifact["uri"]) == artifact["uri"], "a step may not move what it was asked for"
            metadata |= {"display_name": key, "store_session_info": "{}"}
            found[key] = {"name": str(number + 1), "uri": artifact["uri"], "metadata": metadata}
        return found


def container_environment(folder: Path) -> dict[str, str]:
    """An environment without anything of the tests': a container's.

    Args:
      folder: of the programs that come first, `python` one of them.
    """
    kept = {name: os.environ[name] for name in ("LANG", "TMPDIR") if name in os.environ}
    return kept | {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}", "HOME": str(folder)}
