"""Flink and Spark: what Apache Beam is told of a cluster. Nothing heavy is imported.

Both are spoken to in the same way: Beam's job server takes a pipeline and hands it to the engine, whose machines have
processes started that run Graft.
"""

import json
from typing import TYPE_CHECKING

from components.errors import UsageError

if TYPE_CHECKING:
    from pipeline.config import ClusterConfig, Config

CLUSTERS = ("flink", "spark")
# By this a step knows that its work is done by other processes, perhaps on other machines.
PORTABLE_RUNNER = "--runner=PortableRunner"


def cluster_arguments(config: "Config") -> list[str]:
    """Apache Beam's arguments for the cluster that `runner.beam` names.

    Raises:
      UsageError: what the way to start workers needs is not configured.
    """
    name = config.runner.beam
    cluster: ClusterConfig = getattr(config.runner, name)
    kind, place = _environment(config, name, cluster)
    parallelism = [] if cluster.parallelism is None else [f"--parallelism={cluster.parallelism}"]
    return [
        PORTABLE_RUNNER,
        f"--job_endpoint={cluster.job_server}",
        f"--environment_type={kind}",
        f"--environment_config={place}",
        f"--sdk_worker_parallelism={cluster.worker_processes}",
        *parallelism,
    ]


def _environment(config: "Config", name: str, cluster: "ClusterConfig") -> tuple[str, str]:
    """Beam's words for where the processes come from: its type of environment, and what it is configured with."""
    match cluster.workers:
        case "external":
            return "EXTERNAL", cluster.worker_pool
        case "process":
            if cluster.worker_command is None:
                raise UsageError(
                    f"runner.{name}.workers: process needs runner.{name}.worker_command, the path of Beam's boot "
                    "program on the machines of the cluster; set it."
                )
            return "PROCESS", json.dumps({"command": cluster.worker_command})
        case "docker":
            image = cluster.worker_image or config.runner.image
            if image is None:
                raise UsageError(
                    f"runner.{name}.workers: docker needs runner.{name}.worker_image or runner.image, an image that "
                    "has this version of Graft; set one."
                )
            return "DOCKER", image
