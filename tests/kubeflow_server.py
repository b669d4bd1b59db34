"""The part of Kubeflow Pipelines' REST API (v2beta1) that deploying uses, on loopback."""

import json
import re

import yaml
from aiohttp import web

from tests.local_server import Refused, RestServer

BASE = "/apis/v2beta1/"
LISTING = {"page_token", "page_size", "sort_by", "filter", "namespace"}
RUN = {"experiment_id", "display_name", "pipeline_version_reference", "runtime_config"}


class KubeflowServer(RestServer):
    """Keeps pipelines, experiments, runs and recurring runs.

    Attributes:
      multi_user: whether every request must name a namespace.
      page: recurring runs that a page of them has.
    """

    def __init__(self):
        super().__init__()
        self.multi_user, self.page = False, 2
        self.pipelines: dict[str, dict] = {}
        self.versions: dict[str, dict] = {}
        self.experiments: dict[str, dict] = {}
        self.runs: dict[str, dict] = {}
        self.recurring_runs: dict[str, dict] = {}
        self._made, self._documents = 0, {}

    def error(self, status: int, message: str) -> dict:
        return {"error": message, "code": 3, "message": message, "details": []}

    async def body_of(self, request: web.Request):
        if request.content_type != "multipart/form-data":
            return await super().body_of(request)
        part = await (await request.multipart()).next()
        return {part.name: bytes(await part.read())}

    def reply(self, method: str, path: str, query: dict, body) -> dict:
        if not path.startswith(BASE):
            raise self.unknown(path)
        words = re.split("[/:]", path.removeprefix(BASE))
        match method, *words:
            case ["GET", "healthz"]:
                return {"multi_user": self.multi_user}
            case ["GET", "pipelines"]:
                return {"pipelines": self._named(self.pipelines, query)}
            case ["GET", "pipelines", pipeline, "versions"]:
                self.exactly(query, {"page_token", "page_size", "sort_by"})
                assert query["sort_by"] == "created_at desc"
                found = [each for each in self.versions.values() if each["pipeline_id"] == pipeline]
                return {"pipeline_versions": found[::-1][: int(query["page_size"])]}
            case ["POST", "pipelines", "upload"]:
                self.exactly(query, {"name"}, {"namespace"})
                if self._has(self.pipelines, query["name"], query.get("namespace")):
                    raise Refused(409, {"error_message": f"the name {query['name']} already exists"})
                made = self._add(self.pipelines, "pipeline_id", {"display_name": query["name"]} | query)
                self._add_version(made["pipeline_id"], query["name"], body)
                return made
            case ["POST", "pipelines", "upload_version"]:
                self.exactly(query, {"name", "pipelineid"})
                self._known(self.pipelines, query["pipelineid"])
                return self._add_version(query["pipelineid"], query["name"], body)
            case ["GET", "experiments"]:
                return {"experiments": self._named(self.experiments, query)}
            case ["POST", "experiments"]:
                self.exactly(body, {"display_name"}, {"namespace"})
                return self._add(self.experiments, "experiment_id", body)
            case ["POST", "runs"]:
                self._check_run(body, RUN)
                return self._add(self.runs, "run_id", body | {"state": "PENDING"})
            case ["GET", "recurringruns"]:
                self.exactly(query, {"page_token", "page_size", "sort_by"}, {"namespace"})
                begin = int(query["page_token"] or 0)
                found = list(self.recurring_runs.values())
                more = {"next_page_token": str(begin + self.page)} if begin + self.page < len(found) else {}
                return {"recurringRuns": found[begin : begin + self.page]} | more
            case ["POST", "recurringruns"]:
                return self._add_recurring_run(body)
            case ["POST", "recurringruns", one, "disable" | "enable" as action]:
                status = "DISABLED" if action == "disable" else "ENABLED"
                self._known(self.recurring_runs, one)["status"] = status
                return {}
            case ["DELETE", "recurringruns", one]:
                self.exactly(query, set(), {"propagation_policy"})
                self._known(self.recurring_runs, one)
                del self.recurring_runs[one]
                return {}
        raise self.unknown(f"{method} {path}")

    def _add(self, kept: dict[str, dict], name: str, content: dict) -> dict:
        self._made += 1
        made = f"{name.removesuffix('_id')}-{self._made}"
        kept[made] = content | {name: made}
        return kept[made]

    def _add_version(self, pipeline: str, name: str, body: dict) -> dict:
        self.exactly(body, {"uploadfile"})
        if any(each["pipeline_id"] == pipeline and each["display_name"] == name for each in self.versions.values()):
            raise Refused(409, {"error_message": f"the version {name} already exists"})
        documents = list(yaml.load_all(body["uploadfile"], yaml.CSafeLoader))
        if documents[0].get("schemaVersion") != "2.1.0" or any(set(each) != {"platforms"} for each in documents[1:]):
            raise Refused(400, {"error_message": "Failed to create a pipeline version", "error_details": "x"})
        made = self._add(self.versions, "pipeline_version_id", {"pipeline_id": pipeline, "display_name": name})
        return made | {"pipeline_spec": self._documents.setdefault(made["pipeline_version_id"], documents)[0]}

    def _add_recurring_run(self, body: dict) -> dict:
        self._check_run(body, RUN | {"trigger", "mode", "max_concurrency", "no_catchup", "description"})
        self.exactly(body["trigger"], {"cron_schedule"})
        cron = body["trigger"]["cron_schedule"]["cron"]
        if len(cron.split()) != 6:
            raise self.unknown(f"cron {cron}")
        if not 1 <= body["max_concurrency"] <= 10 or body["mode"] != "ENABLE":
            raise self.unknown(f"max_concurrency {body['max_concurrency']}")
        return self._add(self.recurring_runs, "recurring_run_id", body | {"status": "ENABLED"})

    def _check_run(self, body: dict, fields: set[str]) -> None:
        """As the API server does; values of parameters against the specification."""
        self.exactly(body, fields, {"service_account"})
        self.exactly(body["runtime_config"], {"parameters"}, {"pipeline_root"})
        self.exactly(body["pipeline_version_reference"], {"pipeline_id", "pipeline_version_id"})
        self._known(self.experiments, body["experiment_id"])
        version = self._known(self.versions, body["pipeline_version_reference"]["pipeline_version_id"])
        if not body["runtime_config"].get("pipeline_root", "gs://").startswith(("gs://", "s3://", "minio://")):
            raise self.unknown(f"pipeline_root {body['runtime_config']['pipeline_root']}")
        known = self._documents[version["pipeline_version_id"]][0]["root"]["inputDefinitions"]["parameters"]
        if unknown := set(body["runtime_config"]["parameters"]) - set(known):
            raise self.unknown(f"parameter(s) provided are not required by pipeline: {sorted(unknown)}")

    def _named(self, kept: dict[str, dict], query: dict) -> list[dict]:
        self.exactly(query, {"filter"}, LISTING)
        (predicate,) = json.loads(query["filter"])["predicates"]
        assert (predicate["operation"], predicate["key"]) == (1, "display_name")
        if self.multi_user and "namespace" not in query:
            raise Refused(400, self.error(400, "Namespace is empty"))
        return [
            each
            for each in kept.values()
            if each["display_name"] == predicate["stringValue"] and each.get("namespace") == query.get("namespace")
        ]

    def _has(self, kept: dict[str, dict], name: str, namespace: str | None) -> bool:
        return any(each["display_name"] == name and each.get("namespace") == namespace for each in kept.values())

    def _known(self, kept: dict[str, dict], one: str) -> dict:
        if one not in kept:
            raise Refused(404, self.error(404, f"{one} not found"))
        return kept[one]
