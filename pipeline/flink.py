"""Flink: what its job manager says of a cluster. Nothing heavy is imported."""

from typing import TYPE_CHECKING

from components.errors import UsageError, printable
from pipeline.engine import Cluster, Engine, NotThere, counted

if TYPE_CHECKING:
    from pipeline.config import EngineConfig

# Where task managers are started as jobs ask for them.
ELASTIC = ("kubernetes-session", "yarn-session")


class Flink(Engine):
    """Flink, whose task managers have slots."""

    name, title, master, page, port = "flink", "Flink", "job manager", "REST address", 8081

    def look(self, options: "EngineConfig") -> Cluster:
        said = self.asked(options.master, "/overview")
        try:
            version, managers = printable(said["flink-version"]), int(said["taskmanagers"])
            slots = int(said["slots-total"])
        except (ValueError, KeyError, TypeError):
            raise self.another(options.master) from None
        cluster = Cluster(
            f"Flink {version}", f"{counted(managers, 'task manager')} and {counted(slots, 'slot')}", slots
        )
        self._require_room(options, cluster)
        return cluster

    def _require_room(self, options: "EngineConfig", cluster: Cluster) -> None:
        if cluster.slots >= (options.parallelism or 1) or self._grows(options.master):
            return
        if cluster.slots == 0:
            raise NotThere(f"Flink at {options.master} has {cluster.has}; start a task manager. {self.start}")
        raise UsageError(
            f"runner.flink.parallelism is {options.parallelism}, and Flink at {options.master} has {cluster.has}: "
            "lower it, or start more task managers."
        )

    def _grows(self, master: str) -> bool:
        """Whether Flink starts task managers itself: then it is no wonder that there are too few."""
        try:
            settings = {row["key"]: row["value"] for row in self.asked(master, "/jobmanager/config")}
        except (KeyError, TypeError):
            raise self.another(master) from None
        return settings.get("execution.target") in ELASTIC or "kubernetes.cluster-id" in settings

    def hosts(self, options: "EngineConfig") -> list[str]:
        try:
            paths = [manager["path"] for manager in self.asked(options.master, "/taskmanagers")["taskmanagers"]]
            return [path.partition("@")[2].partition("/")[0] for path in paths]
        except (KeyError, TypeError, AttributeError):
            raise self.another(options.master) from None
