"""The graph as a specification that Kubeflow Pipelines and Vertex AI run: schema 2.1, one container a step.

TFX translates the graph. What it leaves out is added here, for every step alike: resources, retries, run-time
parameters, and a cache that is off where an answer from it would be an old one.
"""

import importlib.metadata
import json
import re
from collections.abc import Iterator
from typing import Any

import yaml

from components.errors import UsageError
from components.sources import absolute
from components.storage import is_uri, join
from pipeline import dataflow
from pipeline.bound import PREFIX, RUN_ID, Bound
from pipeline.config import DEFAULT_RESOURCES, Config, ResourcesConfig
from pipeline.dataflow import DATAFLOW
from pipeline.engine import Engine
from pipeline.runners import BY_WORKERS, beam_arguments, engine_of

# -P: whatever packages of our names lie in the working folder of an image, they are not meant.
COMMAND = ("python", "-P", "-m", "pipeline.step")
# TFX takes no longer ones.
NAME = re.compile("[a-z0-9][a-z0-9-]{0,62}")
# What the backend, Kubernetes and Argo would expand. Inside of JSON, where it stands in texts only, it can be escaped.
EXPANDED = re.compile(r"\{\{|\$\(|\$\$")
ESCAPES = {"{{": r"\u007b\u007b", "$": r"\u0024"}
# What they are to put something in the place of.
INVOCATION, JOB = "{{$}}", "{{$.pipeline_job_uuid}}"
# Steps that write down what run they are of. To the others it is not told, as it is in the key of the cache.
TOLD_THE_RUN = ("AtomicPusher", "Report")
KUBEFLOW, VERTEX = "kubeflow", "vertex"
TARGETS = (KUBEFLOW, VERTEX)
# From the first try of a step to the last: Vertex allows no more; Kubeflow counts the time that the step runs, too.
LONGEST = {KUBEFLOW: "604800s", VERTEX: "3600s"}
# What a platform keeps artifacts on; without a cluster, a specification also runs in a folder.
ROOTS = {KUBEFLOW: ("gs://", "s3://", "minio://"), VERTEX: ("gs://",)}


def bind(config: Config, images: list[str], pipeline_root: str | None = None) -> Bound:
    """Decides where everything goes.

    Args:
      config: everything that a person chooses.
      images: folders, manifests and span patterns: URIs, or paths that every step can read.
      pipeline_root: `runner.pipeline_root` if not None.

    Raises:
      UsageError: the name, a place or `runner.beam` is not one that a cluster takes.
    """
    if not NAME.fullmatch(config.name):
        raise UsageError(
            "A cluster takes pipeline names of at most 63 lower case letters, digits and hyphens that begin with no "
            f"hyphen. Received: {config.name}; set name."
        )
    places = [absolute(place) for place in images]
    root = absolute(pipeline_root or config.runner.pipeline_root or _beside(places[0], config.name))
    if engine := engine_of(config):
        _require_engine(engine, config, root)
    if config.runner.beam == DATAFLOW:
        dataflow.require(config)
        dataflow.require_root(config, root)
    return Bound(config.model_dump(mode="json"), places, root)


def _require_engine(engine: Engine, config: Config, root: str) -> None:
    engine.arguments(config, image_of(config))
    if is_uri(root) and not root.startswith("gs://"):
        # TensorFlow, which reads and writes there, too, knows no other store.
        raise UsageError(
            f"runner.beam: {engine.name} needs a pipeline root that its workers reach: on gs://, or a folder of a "
            f"volume that they and the steps mount at the same path. Received: {root}."
        )


def _beside(place: str, name: str) -> str:
    """A folder beside the first source, above the part that is a pattern."""
    parent = place.partition("{SPAN")[0].rpartition("/")[0]
    if parent.endswith("/"):
        raise UsageError(
            f"--images {place} is a whole bucket, so that nothing can lie beside it; give --pipeline-root a place, "
            "such as gs://another-bucket/graft."
        )
    return join(parent or "/", name)


def image_of(config: Config, given: str | None = None) -> str:
    """The image that every step runs in: the one that was given, or configured, or what `make image` builds.

    Raises:
      UsageError: Dataflow's workers are to run in it, too, and cannot pull it.
    """
    image = given or config.runner.image or f"graft:{importlib.metadata.version('graft-pipeline')}"
    if config.runner.beam == DATAFLOW:
        dataflow.require_image(config, image)
    return image


def specification(target: str, bound: Bound, image: str) -> dict[str, Any]:
    """The `PipelineSpec` of schema 2.1, as JSON.

    Args:
      target: one of `TARGETS`.
      bound: what it is compiled for.
      image: that every step runs in.

    Raises:
      UsageError: it holds what a platform would not take as it is.
    """
    from tfx.orchestration.kubeflow.v2 import kubeflow_v2_dag_runner as runner

    if bound.config.runner.beam == DATAFLOW:
        dataflow.require_arguments(beam_arguments(bound.config, next(iter(BY_WORKERS)), bound.root, image))
    settings = runner.KubeflowV2DagRunnerConfig(
        default_image=image, default_commands=COMMAND, use_pipeline_spec_2_1=True
    )
    job = runner.KubeflowV2DagRunner(settings).run(bound.pipeline(), write_out=False)
    spec = complete(job["pipelineSpec"], target, bound, image)
    _require_plain([spec, kubernetes(spec, bound.config)])
    return spec


def complete(spec: dict[str, Any], target: str, bound: Bound, image: str) -> dict[str, Any]:
    """Adds to TFX's specification what it leaves out; changes it.

    Args:
      spec: as TFX compiles it.
      target: one of `TARGETS`.
      bound: what it was compiled for.
      image: that every step runs in.
    """
    from pipeline.graph import NEVER_CACHED

    config, parameters = bound.config, bound.parameters()
    spec["defaultPipelineRoot"] = bound.root
    spec["root"]["inputDefinitions"] = {
        "parameters": {
            name: {"parameterType": kind, "defaultValue": default} for name, (kind, default) in parameters.items()
        }
    }
    for step, task, component in _steps(spec):
        given = component.setdefault("inputDefinitions", {}).setdefault("parameters", {})
        taken = task.setdefault("inputs", {}).setdefault("parameters", {})
        for value in taken.values():
            constant = value["runtimeValue"]["constant"]
            value["runtimeValue"]["constant"] = escaped(constant) if isinstance(constant, str) else constant
        if step in TOLD_THE_RUN:
            given[RUN_ID] = {"parameterType": "STRING"}
            taken[RUN_ID] = {"runtimeValue": {"constant": JOB}}
        for name, (kind, _) in parameters.items():
            given[PREFIX + name] = {"parameterType": kind}
            taken[PREFIX + name] = {"componentInputParameter": name}
        cached = config.runner.cache and step not in ("ImageExampleGen", *NEVER_CACHED)
        task["cachingOptions"] = {"enableCache": True} if cached else {}
        resources = resources_of(config, step)
        _require_accelerator(target, step, resources.accelerator)
        retries = config.runner.retries if resources.retries is None else resources.retries
        task["retryPolicy"] = {
            "maxRetryCount": retries,
            "backoffDuration": f"{config.runner.retry_seconds}s",
            "backoffFactor": 2.0,
            "backoffMaxDuration": LONGEST[target],
        }
        container = spec["deploymentSpec"]["executors"][component["executorLabel"]]["container"]
        container["args"] = _arguments(container["args"], step, bound, component["inputDefinitions"], image)
        container["resources"] = _resources(resources)
        container["env"] = [{"name": name, "value": value} for name, value in sorted(config.runner.env.items())]
    return spec


def _steps(spec: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Id, task and component of every step."""
    for step, task in spec["root"]["dag"]["tasks"].items():
        yield step, task, spec["components"][task["componentRef"]["name"]]


def resources_of(config: Config, step: str) -> ResourcesConfig:
    """What a step asks for."""
    asked = config.runner.resources
    return asked.get(step) or asked.get(DEFAULT_RESOURCES) or ResourcesConfig()


def _require_accelerator(target: str, step: str, accelerator: str | None) -> None:
    """Refuses a name of the other platform, with which a step would never start; `UsageError`."""
    if accelerator is not None and ("/" in accelerator) != (target == KUBEFLOW):
        takes = (
            "Kubernetes takes a resource's name such as nvidia.com/gpu (node_labels choose the card)"
            if target == KUBEFLOW
            else "Vertex AI takes a type such as NVIDIA_TESLA_T4"
        )
        raise UsageError(f"runner.resources: {step} asks for the accelerator {accelerator}, but {takes}.")


def _resources(asked: ResourcesConfig) -> dict[str, Any]:
    """Both the fields of older backends, numbers, and those of newer ones, Kubernetes' quantities."""
    found: dict[str, Any] = {}
    if asked.cpu is not None:
        found |= {"cpuLimit": asked.cpu, "resourceCpuLimit": f"{asked.cpu:g}"}
        found |= {"cpuRequest": asked.cpu, "resourceCpuRequest": f"{asked.cpu:g}"}
    if asked.memory_gib is not None:
        # The numbers are in units of 10^9 bytes.
        number = round(asked.memory_gib * 1.073741824, 3)
        found |= {"memoryLimit": number, "resourceMemoryLimit": f"{asked.memory_gib:g}Gi"}
        found |= {"memoryRequest": number, "resourceMemoryRequest": f"{asked.memory_gib:g}Gi"}
    if asked.accelerator is not None:
        found["accelerator"] = {
            "type": asked.accelerator,
            "count": str(asked.accelerators),
            "resourceType": asked.accelerator,
            "resourceCount": str(asked.accelerators),
        }
    return found


def _arguments(arguments: list[str], step: str, bound: Bound, inputs: dict[str, Any], image: str) -> list[str]:
    """TFX's arguments with the types of all inputs, then ours, then Apache Beam's."""
    given = dict(zip(arguments[::2], arguments[1::2], strict=True))
    given |= {
        "--json_serialized_inputs_spec_args": escaped(json.dumps(inputs, sort_keys=True)),
        "--step": step,
        "--bound": escaped(bound.dump()),
    }
    return [word for pair in given.items() for word in pair] + beam_arguments(bound.config, step, bound.root, image)


def escaped(text: str) -> str:
    """JSON that nobody on the way expands anything in; other text as it is."""
    if text.startswith(("{", "[")) and text != INVOCATION:
        for expanded, escape in ESCAPES.items():
            text = text.replace(expanded, escape)
    return text


def _require_plain(value: Any) -> None:
    """Refuses what stands outside of JSON and would be expanded; `UsageError`."""
    if isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            _require_plain(each)
    elif isinstance(value, str) and value not in (INVOCATION, JOB) and EXPANDED.search(value):
        raise UsageError(
            f"Kubernetes or Argo would expand {EXPANDED.search(value)[0]} in {value}: a place, an option, a variable "
            "or a label of a compiled pipeline, and the default of a run-time parameter, must be without {{, $( and $$."
        )


# ---- files ----------------------------------------------------------------------------------------------------------


def kubernetes(spec: dict[str, Any], config: Config) -> dict[str, Any] | None:
    """The platform specification: what only Kubernetes has; None where nothing of it was asked for."""
    runner = config.runner
    asked: dict[str, Any] = {}
    if runner.labels:
        asked["podMetadata"] = {"labels": runner.labels}
    if runner.volumes:
        asked["pvcMount"] = [
            {"constant": mount.name, "pvcNameParameter": _constant(mount.name), "mountPath": mount.path}
            for mount in runner.volumes
        ]
    if runner.secrets:
        asked["secretAsVolume"] = [
            {"secretName": mount.name, "secretNameParameter": _constant(mount.name), "mountPath": mount.path}
            for mount in runner.secrets
        ]
    executors = {}
    for step, _, component in _steps(spec):
        executors[component["executorLabel"]] = asked | _nodes(resources_of(config, step))
    if not any(executors.values()):
        return None
    return {"platforms": {"kubernetes": {"deploymentSpec": {"executors": executors}}}}


def _constant(value: str) -> dict[str, Any]:
    return {"runtimeValue": {"constant": value}}


def _nodes(asked: ResourcesConfig) -> dict[str, Any]:
    """On which nodes a step may run. Those with accelerators often keep off what asks for none."""
    found: dict[str, Any] = {}
    if asked.node_labels:
        found["nodeSelector"] = {"labels": asked.node_labels}
    if asked.accelerator:
        found["tolerations"] = [{"key": asked.accelerator, "operator": "Exists", "effect": "NoSchedule"}]
    return found


def job(spec: dict[str, Any], config: Config) -> dict[str, Any]:
    """Vertex AI's `PipelineJob` around a specification."""
    defaults = spec["root"]["inputDefinitions"]["parameters"]
    return {
        "displayName": config.name,
        "labels": config.runner.labels,
        "pipelineSpec": spec,
        "runtimeConfig": {
            "gcsOutputDirectory": spec["defaultPipelineRoot"],
            "parameterValues": {name: given["defaultValue"] for name, given in defaults.items()},
        },
    } | ({"serviceAccount": config.runner.service_account} if config.runner.service_account else {})


def dump(target: str, bound: Bound, image: str) -> str:
    """What `graft compile` writes.

    Args:
      target: one of `TARGETS`.
      bound: what it is compiled for.
      image: that every step runs in.

    Raises:
      UsageError: as for `specification`.

    Returns:
      Kubeflow: YAML, the specification and, where something was asked for that only Kubernetes has, a second document.
      Vertex: JSON, a `PipelineJob`.
    """
    spec, config = specification(target, bound, image), bound.config
    if target == VERTEX:
        return json.dumps(job(spec, config), indent=1, sort_keys=True) + "\n"
    documents = [spec, *filter(None, [kubernetes(spec, config)])]
    return yaml.dump_all(documents, Dumper=_Dumper, sort_keys=True, width=120)


class _Dumper(yaml.SafeDumper):
    """Writes out what is there twice."""

    def ignore_aliases(self, data: Any) -> bool:
        return True
