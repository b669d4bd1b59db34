"""Flink: what Apache Beam is told of a cluster, and whether it is there. Nothing heavy is imported.

Beam's job server takes a pipeline and hands it to Flink, whose task managers have processes started that run Graft.
"""

import http.client
import json
import socket
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from components.errors import UsageError, printable
from components.parallel import PORTABLE_RUNNER

if TYPE_CHECKING:
    from pipeline.config import Config, FlinkConfig

FLINK = "flink"
PATIENCE = 5  # seconds that a part of the cluster has to answer
# Before every pipeline Beam would run `pip freeze`, and send workers a list that nobody reads.
NO_LIST_OF_PACKAGES = "--experiments=disable_logging_submission_environment"
# Where task managers are started as jobs ask for them.
ELASTIC = ("kubernetes-session", "yarn-session")
START = "scripts/flink start starts a cluster on this machine (docs/clusters.md)."
# Seconds that the job server has to take a pipeline; the wait for the end of the work is not bounded.
JOB_SERVER_PATIENCE = 60
LOCAL = ("localhost", "127.0.0.1", "::1")


class NotThere(UsageError):
    """A part of a cluster that does not answer. It may be back a while later."""

    may_pass = True


@dataclass(frozen=True)
class Cluster:
    """What Flink says of itself: its version, and how many task managers and slots it has."""

    version: str
    task_managers: int
    slots: int


def arguments(config: "Config", image: str | None = None) -> list[str]:
    """Apache Beam's arguments for the cluster.

    Args:
      config: `runner` counts.
      image: that workers in containers run where `worker_image` names none; None for `runner.image`.

    Raises:
      UsageError: what the way to start workers needs is not configured.
    """
    flink = config.runner.flink
    kind, place = _environment(config, image or config.runner.image)
    return [
        PORTABLE_RUNNER,
        f"--job_endpoint={flink.job_server}",
        f"--job_server_timeout={JOB_SERVER_PATIENCE}",
        f"--environment_type={kind}",
        f"--environment_config={place}",
        f"--sdk_worker_parallelism={flink.worker_processes}",
        # The workers have Graft: nothing is packed up and sent, TFX neither, which looks for the image's name.
        "--sdk_location=container",
        f"--sdk_container_image={place if kind == 'DOCKER' else 'none'}",
        NO_LIST_OF_PACKAGES,
        *([] if flink.parallelism is None else [f"--parallelism={flink.parallelism}"]),
    ]


def _environment(config: "Config", image: str | None) -> tuple[str, str]:
    """Beam's words for where the processes come from: its type of environment, and what it is configured with."""
    flink = config.runner.flink
    if flink.workers == "external":
        return "EXTERNAL", flink.worker_pool
    if flink.workers == "process":
        if flink.worker_command is None:
            raise UsageError(
                "runner.flink.workers: process needs runner.flink.worker_command, the path of Beam's boot program on "
                "the task managers' machines; set it."
            )
        # The boot program would make a virtual environment of its own, in which nothing is installed.
        env = {"RUN_PYTHON_SDK_IN_DEFAULT_ENVIRONMENT": "1"}
        return "PROCESS", json.dumps({"command": flink.worker_command, "env": env})
    image = flink.worker_image or image
    if image is None:
        raise UsageError(
            "runner.flink.workers: docker needs runner.flink.worker_image or runner.image, an image that has this "
            "version of Graft; set one."
        )
    return "DOCKER", image


def require_cluster(flink: "FlinkConfig") -> Cluster | None:
    """Asks the cluster whether it is there.

    Args:
      flink: `runner.flink`.

    Returns:
      What it says of itself; None where `master` is, and only the job server was asked.

    Raises:
      UsageError: a part of it does not answer (`NotThere`), or it has no room for a job.
    """
    cluster = None
    if flink.master is not None:
        cluster = _overview(flink.master)
        _require_room(flink, cluster)
    _require_job_server(flink.job_server)
    if flink.workers == "external" and flink.master is not None and _is_here(flink.worker_pool) and _works_here(flink):
        _require_port("runner.flink.worker_pool", flink.worker_pool, "the worker pool")
    return cluster


def _overview(master: str) -> Cluster:
    said = _asked(master, "/overview")
    try:
        return Cluster(printable(said["flink-version"]), int(said["taskmanagers"]), int(said["slots-total"]))
    except (ValueError, KeyError, TypeError):
        raise _another(master) from None


def _require_room(flink: "FlinkConfig", cluster: Cluster) -> None:
    has = f"{cluster.task_managers} task managers and {cluster.slots or 'no'} slot{'s' if cluster.slots > 1 else ''}"
    if cluster.slots >= (flink.parallelism or 1) or _grows(flink.master):
        return
    if cluster.slots == 0:
        raise NotThere(f"Flink at {flink.master} has {has}; start a task manager. {START}")
    raise UsageError(
        f"runner.flink.parallelism is {flink.parallelism}, and Flink at {flink.master} has {has}: lower it, or start "
        "more task managers."
    )


def _grows(master: str) -> bool:
    """Whether Flink starts task managers itself: then it is no wonder that there are too few."""
    try:
        settings = {row["key"]: row["value"] for row in _asked(master, "/jobmanager/config")}
    except (KeyError, TypeError):
        raise _another(master) from None
    return settings.get("execution.target") in ELASTIC or "kubernetes.cluster-id" in settings


def _works_here(flink: "FlinkConfig") -> bool:
    """Whether all task managers are on this machine: `localhost` is each machine's own name for itself.

    A forwarded port makes a job manager look as if it was here; what it says of its task managers does not.
    """
    try:
        paths = [manager["path"] for manager in _asked(flink.master, "/taskmanagers")["taskmanagers"]]
    except (KeyError, TypeError):
        raise _another(flink.master) from None
    return bool(paths) and all(_is_here(path.partition("@")[2].partition("/")[0]) for path in paths)


def _is_here(place: str) -> bool:
    host = urlsplit(f"//{place}").hostname or ""
    return host in LOCAL or host.startswith("127.")


def _asked(master: str, path: str) -> Any:
    """What Flink's REST API answers."""
    try:
        with urllib.request.urlopen(f"{master.rstrip('/')}{path}", timeout=PATIENCE) as answer:
            return json.load(answer)
    except OSError as error:
        raise NotThere(
            f"Flink's job manager does not answer at {printable(master)} (runner.flink.master): "
            f"{getattr(error, 'reason', error)}. {START}"
        ) from None
    except (ValueError, http.client.HTTPException):
        raise _another(master) from None


def _another(master: str) -> UsageError:
    return UsageError(
        f"What answers at {printable(master)} is not Flink's job manager; set runner.flink.master to its REST address, "
        f"such as http://HOST:8081. {START}"
    )


def _require_job_server(address: str) -> None:
    key = "runner.flink.job_server"
    _require_port(key, address, "Beam's job server")
    # Only now: it takes a second to import.
    import grpc
    from apache_beam.portability.api import beam_job_api_pb2, beam_job_api_pb2_grpc

    with grpc.insecure_channel(address) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=PATIENCE)
            asked = beam_job_api_pb2.DescribePipelineOptionsRequest()
            beam_job_api_pb2_grpc.JobServiceStub(channel).DescribePipelineOptions(asked, timeout=PATIENCE)
        except (grpc.FutureTimeoutError, grpc.RpcError):
            raise NotThere(
                f"What listens at {address} ({key}) does not answer as Beam's job server; give the port of its Job "
                f"API. {START}"
            ) from None


def _require_port(key: str, address: str, what: str) -> None:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), PATIENCE).close()
    except OSError as error:
        said = error.strerror or error
        raise NotThere(f"{what[0].upper()}{what[1:]} does not answer at {address} ({key}): {said}. {START}") from None
