"""Flink: what Apache Beam is told of a cluster, and whether it is there. Nothing heavy is imported.

Beam's job server takes a pipeline and hands it to Flink, whose task managers have processes started that run Graft.
"""

import json
import socket
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING

from components.errors import UsageError, printable

if TYPE_CHECKING:
    from pipeline.config import Config, FlinkConfig

PATIENCE = 5  # seconds that a part of the cluster has to answer
START = "scripts/flink start starts a cluster on this machine (docs/clusters.md)."
# Seconds that the job server has to take a pipeline; the wait for the end of the work is not bounded.
JOB_SERVER_PATIENCE = 60
LOCAL = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Cluster:
    """What Flink says of itself: its version, and how many task managers and slots it has."""

    version: str
    task_managers: int
    slots: int


def arguments(config: "Config") -> list[str]:
    """Apache Beam's arguments for the cluster.

    Raises:
      UsageError: what the way to start workers needs is not configured.
    """
    flink = config.runner.flink
    kind, place = _environment(config)
    return [
        "--runner=PortableRunner",
        f"--job_endpoint={flink.job_server}",
        f"--job_server_timeout={JOB_SERVER_PATIENCE}",
        f"--environment_type={kind}",
        f"--environment_config={place}",
        f"--sdk_worker_parallelism={flink.worker_processes}",
        # The workers have Graft: nothing is packed up and sent, TFX neither, which looks for the image's name.
        "--sdk_location=container",
        f"--sdk_container_image={place if kind == 'DOCKER' else 'none'}",
        *([] if flink.parallelism is None else [f"--parallelism={flink.parallelism}"]),
    ]


def _environment(config: "Config") -> tuple[str, str]:
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
        return "PROCESS", json.dumps({"command": flink.worker_command})
    image = flink.worker_image or config.runner.image
    if image is None:
        raise UsageError(
            "runner.flink.workers: docker needs runner.flink.worker_image or runner.image, an image that has this "
            "version of Graft; set one."
        )
    return "DOCKER", image


def require_cluster(flink: "FlinkConfig") -> Cluster:
    """Asks the cluster whether it is there.

    Args:
      flink: `runner.flink`.

    Returns:
      What it says of itself.

    Raises:
      UsageError: a part of it does not answer, or it has no slot.
    """
    cluster = _overview(flink.master)
    if cluster.slots == 0:
        raise UsageError(
            f"Flink at {flink.master} has {cluster.task_managers} task managers and no slot; start a task manager. "
            f"{START}"
        )
    _require_port("runner.flink.job_server", flink.job_server, "Beam's job server")
    # As task managers see it: elsewhere it may well be that only they do.
    if flink.workers == "external" and _divided("runner.flink.worker_pool", flink.worker_pool)[0] in LOCAL:
        _require_port("runner.flink.worker_pool", flink.worker_pool, "the worker pool")
    return cluster


def _overview(master: str) -> Cluster:
    try:
        with urllib.request.urlopen(f"{master.rstrip('/')}/overview", timeout=PATIENCE) as answer:
            said = json.load(answer)
        return Cluster(said["flink-version"], said["taskmanagers"], said["slots-total"])
    except OSError as error:
        raise UsageError(
            f"Flink's job manager does not answer at {printable(master)} (runner.flink.master): "
            f"{getattr(error, 'reason', error)}. {START}"
        ) from None
    except (ValueError, KeyError, TypeError):
        raise UsageError(
            f"What answers at {printable(master)} is not Flink's job manager; set runner.flink.master to its REST "
            f"address, such as http://HOST:8081. {START}"
        ) from None


def _require_port(key: str, address: str, what: str) -> None:
    try:
        socket.create_connection(_divided(key, address), PATIENCE).close()
    except OSError as error:
        said = error.strerror or error
        raise UsageError(f"{what[0].upper()}{what[1:]} does not answer at {address} ({key}): {said}. {START}") from None


def _divided(key: str, address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise UsageError(f"{key} must be HOST:PORT. Received: {printable(address)}.")
    return host.strip("[]"), int(port)
