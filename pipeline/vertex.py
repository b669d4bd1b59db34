"""Vertex AI, by way of Google's own clients, over REST."""

import contextlib
import json
import os
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import google.auth
import requests
from google.api_core.client_options import ClientOptions
from google.api_core.exceptions import GoogleAPICallError
from google.auth.credentials import AnonymousCredentials
from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError, TransportError
from google.auth.transport.requests import Request
from google.cloud import aiplatform_v1
from google.protobuf import json_format

from components.errors import GraftError, UsageError
from pipeline import platforms
from pipeline.platforms import (
    Deployment,
    Recorder,
    Schedule,
    ServiceError,
    Started,
    late,
    message_in,
    refusal,
    split_address,
)

# What gcloud takes the address of the API from, too.
ENDPOINT = "CLOUDSDK_API_ENDPOINT_OVERRIDES_AIPLATFORM"
SCOPE = "https://www.googleapis.com/auth/cloud-platform"
# A label that says of the runs of a schedule who made it.
MARK = ("made-by", "graft")
CONSOLE = "https://console.cloud.google.com/vertex-ai/locations"
LOGIN = "gcloud auth application-default login, or GOOGLE_APPLICATION_CREDENTIALS, gives credentials"
ADVICE = {
    401: LOGIN,
    403: "ask for roles/aiplatform.user in the project and roles/iam.serviceAccountUser on runner.service_account; the "
    "API must be on: gcloud services enable aiplatform.googleapis.com",
    404: "look at --project and --region",
    409: "look at what is there of that name, and try again",
}
# What a token service says of a refusal.
OAUTH_ERROR = re.compile(r"\b(?:invalid|unauthorized|access|unsupported)_[a-z_]+\b")
# Of the id of a run: a letter first, and room for the time.
NAME = re.compile("[a-z][a-z0-9-]{0,107}")


class _Recording(requests.adapters.BaseAdapter):
    """Notes requests instead of sending them."""

    def __init__(self, recorder: Recorder):
        super().__init__()
        self._recorder = recorder

    def send(self, request: requests.PreparedRequest, **_: Any) -> requests.Response:
        split = urlsplit(request.url)
        body = json.loads(request.body) if request.body else None
        query = {name: value for name, value in parse_qsl(split.query) if name != "$alt"}
        self._recorder.note(request.method, split.path, query, body)
        answer = requests.Response()
        answer.status_code, answer.request, answer.url = 200, request, request.url
        answer._content = json.dumps(_made_up(request.method, split.path, query, self._recorder)).encode()
        return answer

    def close(self) -> None:
        pass


def _made_up(method: str, path: str, query: dict[str, str], recorder: Recorder) -> dict[str, Any]:
    """What a service that has nothing would answer."""
    parent, _, kind = path.removeprefix("/v1/").rpartition("/")
    if method == "GET" and recorder.schedule:
        request = {"parent": parent, "pipelineJob": {"labels": dict([MARK])}}
        name = f"{parent}/schedules/SCHEDULE_ID"
        return {"schedules": [{"name": name, "displayName": recorder.schedule, "createPipelineJobRequest": request}]}
    if method == "POST":
        return {"name": f"{parent}/{kind}/{query.get('pipelineJobId', 'SCHEDULE_ID')}"}
    return {}


class Vertex:
    """Vertex AI in one region of a project; see `pipeline.platforms.Platform`."""

    def __init__(self, project: str | None, region: str | None, endpoint: str | None, recorder: Recorder | None = None):
        for option, value in (("--project", project), ("--region", region)):
            if not value:
                raise UsageError(f"--target vertex needs {option}, as in --project my-project --region europe-west4.")
            if not re.fullmatch("[A-Za-z0-9.:-]+", value):
                raise UsageError(f"{option} takes an id such as my-project or europe-west4. Received: {value!r}.")
        self._project, self._region = project, region
        self._parent = f"projects/{project}/locations/{region}"
        self._address = _address(endpoint or os.environ.get(ENDPOINT), region)
        self._credentials = AnonymousCredentials() if recorder else _credentials()
        options = {
            "credentials": self._credentials,
            "client_options": ClientOptions(api_endpoint=self._address),
            # Through proxies, and with the timeouts of HTTP; gRPC waits for a host that is not there.
            "transport": "rest",
        }
        self._jobs = aiplatform_v1.PipelineServiceClient(**options)
        self._schedules = aiplatform_v1.ScheduleServiceClient(**options)
        for client in (self._jobs, self._schedules) if recorder else ():
            client.transport._session.mount(f"{urlsplit(self._address).scheme}://", _Recording(recorder))

    def upload(self, deployment: Deployment) -> tuple[Deployment, dict[str, Any]]:
        """Nothing is uploaded: every request carries the specification."""
        if not NAME.fullmatch(deployment.name):
            raise UsageError(
                "Vertex AI takes names of lower case letters, digits and hyphens that begin with a letter, up to 108 "
                f"of them. Received: {deployment.name}; set name."
            )
        job = json.loads(deployment.text)
        job["runtimeConfig"]["parameterValues"] = deployment.parameters
        return deployment, job

    def run(self, uploaded: tuple[Deployment, dict[str, Any]]) -> Started:
        """Starts a run."""
        deployment, job = uploaded
        request = aiplatform_v1.CreatePipelineJobRequest(
            parent=self._parent, pipeline_job=_message(job), pipeline_job_id=deployment.version
        )
        with self._in_words("did not start the run"):
            made = self._jobs.create_pipeline_job(request, timeout=platforms.TIMEOUT, retry=None)
        return Started(made.name, self._page("runs", made.name))

    def schedule(self, uploaded: tuple[Deployment, dict[str, Any]], cron: str) -> Started:
        """Makes a schedule, which carries the specification and the values of its parameters."""
        deployment, job = uploaded
        marked = job | {"labels": job["labels"] | dict([MARK])}
        schedule = aiplatform_v1.Schedule(
            display_name=deployment.name,
            cron=cron,
            # The first bounds how many runs are being started; only the second, how many go on.
            max_concurrent_run_count=1,
            max_concurrent_active_run_count=1,
            allow_queueing=False,
            create_pipeline_job_request=aiplatform_v1.CreatePipelineJobRequest(
                parent=self._parent, pipeline_job=_message(marked)
            ),
        )
        with self._in_words("did not make the schedule"):
            made = self._schedules.create_schedule(
                parent=self._parent, schedule=schedule, timeout=platforms.TIMEOUT, retry=None
            )
        return Started(_last(made.name), self._page("schedules", made.name))

    def schedules(self) -> list[Schedule]:
        """Every schedule of the project and region that starts pipelines."""
        request = aiplatform_v1.ListSchedulesRequest(parent=self._parent, filter="create_pipeline_job_request:*")
        with self._in_words("did not list the schedules"):
            found = list(self._schedules.list_schedules(request, timeout=platforms.TIMEOUT, retry=None))
        return [
            Schedule(
                _last(each.name),
                each.display_name,
                each.cron,
                paused=each.state == aiplatform_v1.Schedule.State.PAUSED,
                ours=each.create_pipeline_job_request.pipeline_job.labels.get(MARK[0]) == MARK[1],
            )
            for each in found
        ]

    def pause(self, schedule: str) -> None:
        """Pauses the schedule."""
        with self._in_words("did not pause the schedule"):
            self._schedules.pause_schedule(name=self._named(schedule), timeout=platforms.TIMEOUT, retry=None)

    def resume(self, schedule: str) -> None:
        """Resumes the schedule."""
        with self._in_words("did not resume the schedule"):
            self._schedules.resume_schedule(name=self._named(schedule), timeout=platforms.TIMEOUT, retry=None)

    def delete(self, schedule: str) -> None:
        """Asks for the removal of the schedule, which the service then does by itself; its runs go on."""
        with self._in_words("did not remove the schedule"):
            self._schedules.delete_schedule(name=self._named(schedule), timeout=platforms.TIMEOUT, retry=None)

    def _named(self, schedule: str) -> str:
        return f"{self._parent}/schedules/{schedule}"

    def _page(self, kind: str, name: str) -> str:
        return f"{CONSOLE}/{self._region}/pipelines/{kind}/{_last(name)}?project={self._project}"

    @contextlib.contextmanager
    def _in_words(self, failed: str) -> Iterator[None]:
        """Turns what the clients raise into one sentence."""
        where = f"Vertex AI at {self._address}"
        try:
            yield
        except GoogleAPICallError as error:
            body = error.response.text if error.response is not None else json.dumps(error.message)
            said = message_in(body, (getattr(self._credentials, "token", None) or "",))
            raise refusal(f"{where} {failed}", error.code, said, ADVICE) from None
        except requests.Timeout:
            raise late(where, failed) from None
        except requests.ConnectionError:
            raise UsageError(
                f"{where} does not answer; look at --region, --endpoint and whether this machine reaches it."
            ) from None
        except GoogleAuthError as error:
            raise _no_credentials(error) from None
        except (json_format.ParseError, requests.RequestException, UnicodeDecodeError):
            raise UsageError(
                f"What answers at {self._address} is not Vertex AI's API; look at --endpoint and at proxies between."
            ) from None


def _address(given: str | None, region: str) -> str:
    """Of the API; without a scheme, https."""
    address = (given or f"{region}-aiplatform.googleapis.com").rstrip("/")
    address = address if "://" in address else f"https://{address}"
    split = split_address(address)
    if not split or split.path or split.query or split.fragment:
        raise UsageError(
            "--endpoint takes an address such as https://my-endpoint.p.googleapis.com, with no path, user or password."
        )
    return address


def _last(name: str) -> str:
    return name.rpartition("/")[2]


def _message(job: dict[str, Any]) -> aiplatform_v1.PipelineJob:
    """What `graft compile` writes, as the clients take it."""
    return aiplatform_v1.PipelineJob.wrap(json_format.ParseDict(job, aiplatform_v1.PipelineJob.pb()()))


def _require_bundle() -> None:
    """What requests says of one that is not there names no variable."""
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        if (path := os.environ.get(name)) and not os.path.exists(path):
            raise UsageError(f"There are no certificates at {path}, which {name} names; correct it or unset it.")


def _credentials() -> Any:
    """Application Default Credentials, with a token where one has to be asked for."""
    request = Request(requests.Session())
    _require_bundle()

    def bounded(*given: Any, **options: Any) -> Any:
        # What looks whether this is a machine of Google's waits for less.
        return request(*given, **{"timeout": platforms.TIMEOUT} | options)

    try:
        credentials, _ = google.auth.default(scopes=[SCOPE], request=bounded)
        # Those of a service account sign their tokens themselves.
        if not hasattr(credentials, "with_always_use_jwt_access"):
            credentials.refresh(bounded)
    except (GoogleAuthError, ValueError) as error:
        raise _no_credentials(error) from None
    return credentials


def _no_credentials(error: Exception) -> GraftError:
    if isinstance(error, DefaultCredentialsError):
        return UsageError(
            f"No credentials of Google's can be used ({message_in(json.dumps(str(error.args[0])))}); {LOGIN}."
        )
    if isinstance(error.__cause__, requests.Timeout):
        return ServiceError(f"Google gave no token within {platforms.TIMEOUT} s; try again later.")
    if isinstance(error, TransportError):
        return UsageError(
            "Google was not reached for a token; look whether this machine reaches oauth2.googleapis.com."
        )
    # What else was said may hold what was sent.
    code = OAUTH_ERROR.search(str(error))
    said = f" ({code[0]})" if code else ""
    return UsageError(f"Google gave no token for the credentials that are set{said}; {LOGIN}.")
