"""The part of Vertex AI's REST API (v1) that deploying uses, and of Google's token service, on loopback."""

import json
import re
from pathlib import Path

from aiohttp import web

from tests.local_server import Refused, RestServer

PARENT = r"/v1/(projects/[^/]+/locations/[^/]+)"
JOB = {"displayName", "pipelineSpec", "runtimeConfig"}
SCHEDULE = {"displayName", "cron", "maxConcurrentRunCount", "createPipelineJobRequest"}
ACCESS_TOKEN = "access-token-of-the-test"
SUBJECT_TOKEN = "subject-token-of-the-test"


class VertexServer(RestServer):
    """Keeps pipeline jobs and schedules, by their full names.

    Attributes:
      accepted: the tokens that are taken.
    """

    def __init__(self):
        super().__init__()
        self.jobs: dict[str, dict] = {}
        self.schedules: dict[str, dict] = {}
        self.accepted, self._made = {ACCESS_TOKEN}, 1000

    def credentials(self, folder: Path) -> str:
        """The path of Application Default Credentials that get their token here, in exchange for another one."""
        (folder / "subject").write_text(SUBJECT_TOKEN)
        path = folder / "credentials.json"
        content = {
            "type": "external_account",
            "audience": "//iam.googleapis.com/locations/global/workforcePools/pool/providers/test",
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "token_url": f"{self.address}/token",
            "credential_source": {"file": str(folder / "subject")},
        }
        path.write_text(json.dumps(content))
        return str(path)

    def error(self, status: int, message: str) -> dict:
        return {"error": {"code": status, "message": message, "status": "X"}}

    async def body_of(self, request: web.Request):
        if request.content_type == "application/x-www-form-urlencoded":
            return dict(await request.post())
        return await super().body_of(request)

    def reply(self, method: str, path: str, query: dict, body) -> dict:
        if (method, path) == ("POST", "/token"):
            if body["subject_token"] != SUBJECT_TOKEN:
                raise Refused(400, {"error": "invalid_grant"})
            kind = "urn:ietf:params:oauth:token-type:access_token"
            return {
                "access_token": ACCESS_TOKEN,
                "issued_token_type": kind,
                "expires_in": 3600,
                "token_type": "Bearer",
            }
        if self.accepted and self.tokens - {"", *(f"Bearer {token}" for token in self.accepted)}:
            raise Refused(401, self.error(401, "Request had invalid authentication credentials."))
        query.pop("$alt", None)
        if found := re.fullmatch(PARENT + "/pipelineJobs", path):
            self.exactly(query, {"pipelineJobId"})
            return self._add_job(method, f"{found[1]}/pipelineJobs/{query['pipelineJobId']}", body)
        if found := re.fullmatch(PARENT + "/schedules", path):
            if method == "GET":
                self.exactly(query, {"filter"}, {"pageToken", "pageSize"})
                assert query["filter"] == "create_pipeline_job_request:*"
                return {"schedules": [each for each in self.schedules.values() if each["name"].startswith(found[1])]}
            self.exactly(query, set())
            return self._add_schedule(method, found[1], body)
        if found := re.fullmatch(r"/v1/(projects/[^/]+/locations/[^/]+/schedules/\d+)(:pause|:resume)?", path):
            if found[1] not in self.schedules:
                raise Refused(404, self.error(404, f"Schedule {found[1]} is not found."))
            if found[2] and method == "POST":
                self.exactly(body, set(), {"name", "catchUp"})
                self.schedules[found[1]]["state"] = "PAUSED" if found[2] == ":pause" else "ACTIVE"
                return {}
            if not found[2] and method == "DELETE":
                del self.schedules[found[1]]
                return {"name": f"{found[1]}/operations/1", "done": True}
        raise self.unknown(f"{method} {path}")

    def _add_job(self, method: str, name: str, body: dict) -> dict:
        assert method == "POST" and re.fullmatch("[a-z][a-z0-9-]{0,127}", name.rpartition("/")[2])
        if name in self.jobs:
            raise Refused(409, self.error(409, f"{name} already exists"))
        self._check_job(body)
        self.jobs[name] = body | {"name": name, "state": "PIPELINE_STATE_PENDING"}
        return self.jobs[name]

    def _add_schedule(self, method: str, parent: str, body: dict) -> dict:
        assert method == "POST"
        self.exactly(body, SCHEDULE, {"maxConcurrentActiveRunCount", "allowQueueing"})
        self.exactly(body["createPipelineJobRequest"], {"parent", "pipelineJob"})
        if body["createPipelineJobRequest"]["parent"] != parent:
            raise self.unknown(f"parent {body['createPipelineJobRequest']['parent']}")
        if not re.fullmatch(r"(TZ=\S+ )?\S+( \S+){4}", body["cron"]):
            raise self.unknown(f"cron {body['cron']}")
        self._check_job(body["createPipelineJobRequest"]["pipelineJob"])
        self._made += 1
        name = f"{parent}/schedules/{self._made}"
        self.schedules[name] = body | {"name": name, "state": "ACTIVE"}
        return self.schedules[name]

    def _check_job(self, job: dict) -> None:
        self.exactly(job, JOB, {"labels", "serviceAccount"})
        self.exactly(job["runtimeConfig"], {"gcsOutputDirectory", "parameterValues"})
        if not job["runtimeConfig"]["gcsOutputDirectory"].startswith("gs://"):
            raise self.unknown(f"gcsOutputDirectory {job['runtimeConfig']['gcsOutputDirectory']}")
        spec = job["pipelineSpec"]
        assert spec["schemaVersion"] == "2.1.0" and spec["pipelineInfo"]["name"]
        known = spec["root"]["inputDefinitions"]["parameters"]
        if set(job["runtimeConfig"]["parameterValues"]) != set(known):
            raise self.unknown(f"parameterValues {job['runtimeConfig']['parameterValues']}")
