"""An engine on a cluster: what Apache Beam is told of it, and whether it is there. Nothing heavy is imported.

Beam's job server takes a pipeline and hands it to the engine, which has processes started that run Graft.
"""

import http.client
import json
import socket
import urllib.request
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from components.errors import UsageError, printable
from components.parallel import PORTABLE_RUNNER

if TYPE_CHECKING:
    from pipeline.config import Config, EngineConfig

PATIENCE = 5  # seconds that a part of the cluster has to answer
# Before every pipeline Beam would run `pip freeze`, and send workers a list that nobody reads.
NO_LIST_OF_PACKAGES = "--experiments=disable_logging_submission_environment"
# Seconds that the job server has to take a pipeline; the wait for the end of the work is not bounded.
JOB_SERVER_PATIENCE = 60
LOCAL = ("localhost", "127.0.0.1", "::1")


class NotThere(UsageError):
    """A part of a cluster that does not answer. It may be back a while later."""

    may_pass = True


@dataclass(frozen=True)
class Cluster:
    """What a cluster says of itself: its engine, what it has, and how many parts of a job it does at a time."""

    engine: str
    has: str
    slots: int


class Engine(ABC):
    """Attributes of an engine, and what is asked of its clusters.

    Attributes:
      name: in `runner.beam`, of its options in `runner`, and of its program in `scripts`.
      title: for people.
      master: what the part is called that `master` is the address of.
      page: what that is the address of.
      port: that is usual there.
    """

    name: str
    title: str
    master: str
    page: str
    port: int

    def options(self, config: "Config") -> "EngineConfig":
        """Those of the engine."""
        return getattr(config.runner, self.name)

    def arguments(self, config: "Config", image: str | None = None) -> list[str]:
        """Apache Beam's arguments for the cluster.

        Args:
          config: `runner` counts.
          image: that workers in containers run where `worker_image` names none; None for `runner.image`.

        Raises:
          UsageError: what the way to start workers needs is not configured.
        """
        options = self.options(config)
        kind, place = self._environment(options, image or config.runner.image)
        return [
            PORTABLE_RUNNER,
            f"--job_endpoint={options.job_server}",
            f"--job_server_timeout={JOB_SERVER_PATIENCE}",
            f"--environment_type={kind}",
            f"--environment_config={place}",
            f"--sdk_worker_parallelism={options.worker_processes}",
            # The workers have Graft: nothing is packed up and sent, TFX neither, which looks for the image's name.
            "--sdk_location=container",
            f"--sdk_container_image={place if kind == 'DOCKER' else 'none'}",
            NO_LIST_OF_PACKAGES,
            *([] if options.parallelism is None else [f"--parallelism={options.parallelism}"]),
        ]

    def _environment(self, options: "EngineConfig", image: str | None) -> tuple[str, str]:
        """Beam's words for where the processes come from: its type of environment, and what it is configured with."""
        if options.workers == "external":
            return "EXTERNAL", options.worker_pool
        if options.workers == "process":
            if options.worker_command is None:
                raise UsageError(
                    f"{self._key('workers')}: process needs {self._key('worker_command')}, the path of Beam's boot "
                    "program on the cluster's machines; set it."
                )
            # The boot program would make a virtual environment of its own, in which nothing is installed.
            env = {"RUN_PYTHON_SDK_IN_DEFAULT_ENVIRONMENT": "1"}
            return "PROCESS", json.dumps({"command": options.worker_command, "env": env})
        image = options.worker_image or image
        if image is None:
            raise UsageError(
                f"{self._key('workers')}: docker needs {self._key('worker_image')} or runner.image, an image that has "
                "this version of Graft; set one."
            )
        return "DOCKER", image

    def require_cluster(self, config: "Config") -> Cluster | None:
        """Asks the cluster whether it is there.

        Returns:
          What it says of itself; None where `master` is, and only the job server was asked.

        Raises:
          UsageError: a part of it does not answer (`NotThere`), or it has no room for a job.
        """
        options = self.options(config)
        cluster = None if options.master is None else self.look(options)
        self._require_job_server(options.job_server)
        # `localhost` is each machine's own name for itself. A forwarded port makes a master look as if it was here;
        # what it says of the others does not.
        if options.workers == "external" and options.master is not None and is_here(options.worker_pool):
            hosts = self.hosts(options)
            if hosts and all(is_here(host) for host in hosts):
                self._require_port("worker_pool", options.worker_pool, "the worker pool")
        return cluster

    @abstractmethod
    def look(self, options: "EngineConfig") -> Cluster:
        """Asks the master.

        Raises:
          UsageError: it does not answer (`NotThere`), or the cluster has no room for a job.
        """

    @abstractmethod
    def hosts(self, options: "EngineConfig") -> list[str]:
        """Names of the machines that do the work, as the master has them."""

    @property
    def start(self) -> str:
        """How to start a cluster, in a sentence."""
        return f"scripts/{self.name} start starts a cluster on this machine (docs/clusters.md)."

    def asked(self, master: str, path: str) -> Any:
        """JSON that the master answers.

        Raises:
          UsageError: it does not answer (`NotThere`), or with something else.
        """
        try:
            with urllib.request.urlopen(f"{master.rstrip('/')}{path}", timeout=PATIENCE) as answer:
                return json.load(answer)
        except OSError as error:
            raise NotThere(
                f"{self.title}'s {self.master} does not answer at {printable(master)} ({self._key('master')}): "
                f"{getattr(error, 'reason', error)}. {self.start}"
            ) from None
        except (ValueError, http.client.HTTPException):
            raise self.another(master) from None

    def another(self, master: str) -> UsageError:
        """The error where what answers is not this engine."""
        return UsageError(
            f"What answers at {printable(master)} is not {self.title}'s {self.master}; set {self._key('master')} to "
            f"its {self.page}, such as http://HOST:{self.port}. {self.start}"
        )

    def _key(self, option: str) -> str:
        return f"runner.{self.name}.{option}"

    def _require_job_server(self, address: str) -> None:
        self._require_port("job_server", address, "Beam's job server")
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
                    f"What listens at {address} ({self._key('job_server')}) does not answer as Beam's job server; give "
                    f"the port of its Job API. {self.start}"
                ) from None

    def _require_port(self, option: str, address: str, what: str) -> None:
        host, _, port = address.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), PATIENCE).close()
        except OSError as error:
            said = error.strerror or error
            raise NotThere(
                f"{what[0].upper()}{what[1:]} does not answer at {address} ({self._key(option)}): {said}. {self.start}"
            ) from None


def is_here(place: str) -> bool:
    """Whether the host of HOST or HOST:PORT is this machine's own name for itself."""
    host = urlsplit(f"//{place}").hostname or ""
    return host in LOCAL or host.startswith("127.")


def counted(number: int, what: str) -> str:
    """A number of things, such as `no slots` or `1 slot`."""
    return f"{number or 'no'} {what}{'' if number == 1 else 's'}"
