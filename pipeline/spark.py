"""Spark: what its standalone master says of a cluster. Nothing heavy is imported."""

from typing import TYPE_CHECKING, Any

from pipeline.engine import Cluster, Engine, NotThere, counted

if TYPE_CHECKING:
    from pipeline.config import EngineConfig


class Spark(Engine):
    """Spark, whose workers have cores. What is more than they do at a time waits for its turn."""

    name, title, master, page, port = "spark", "Spark", "master", "web page", 8080

    def look(self, options: "EngineConfig") -> Cluster:
        workers = self._workers(options)
        cores = sum(worker["cores"] for worker in workers)
        cluster = Cluster("Spark", f"{counted(len(workers), 'worker')} and {counted(cores, 'core')}", cores)
        if not cores:
            raise NotThere(f"Spark at {options.master} has {cluster.has}; start a worker. {self.start}")
        return cluster

    def hosts(self, options: "EngineConfig") -> list[str]:
        return [worker["host"] for worker in self._workers(options)]

    def _workers(self, options: "EngineConfig") -> list[dict[str, Any]]:
        """Those that are alive, with `host` and `cores`."""
        try:
            said = [
                {"host": str(worker["host"]), "cores": int(worker["cores"]), "state": worker["state"]}
                for worker in self.asked(options.master, "/json/")["workers"]
            ]
        except (KeyError, TypeError, ValueError):
            raise self.another(options.master) from None
        return [worker for worker in said if worker["state"] == "ALIVE"]
