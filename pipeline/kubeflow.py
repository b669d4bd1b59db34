"""Kubeflow Pipelines, by way of its own client."""

import contextlib
import json
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import urllib3
from google.auth.exceptions import GoogleAuthError
from kfp import client as kfp_client
from kfp.client import client as kfp_settings
from kfp.client.set_volume_credentials import ServiceAccountTokenVolumeCredentials
from kfp_server_api import Configuration, V2beta1GetHealthzResponse
from kfp_server_api.exceptions import ApiException
from kfp_server_api.rest import RESTClientObject

from components.errors import GraftError, UsageError
from pipeline import platforms
from pipeline.compiled import KUBEFLOW, ROOTS
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

# Says in a schedule's description who made it.
MARK = "Made by graft deploy."
PAGE = 100  # schedules that are asked for at a time
# Without it, Kubernetes removes with a schedule the runs of it that go on.
ORPHAN = "ORPHAN"
FORWARD = "kubectl port-forward -n kubeflow svc/ml-pipeline-ui 8080:80"
ADVICE = {
    400: "look at what was given",
    401: f"give a token in a file that {kfp_client.KF_PIPELINES_SA_TOKEN_ENV} names, or forward a port: {FORWARD}",
    403: "ask for the role kubeflow-edit in that namespace, or give another --namespace",
    404: "look at --host and --namespace: the API of Kubeflow Pipelines 2 must answer there",
    409: "look at what is there of that name, and try again",
    500: "its log says more: kubectl logs -n kubeflow deploy/ml-pipeline",
}


class _NoAnswer(Exception):
    """Something answered, but not the API."""


class _Connection(RESTClientObject):
    """Waits so long for an answer and no longer, and takes nothing but JSON; in a dry run it only notes requests."""

    def __init__(self, configuration: Configuration, recorder: Recorder | None):
        super().__init__(configuration)
        self._recorder, self._host = recorder, configuration.host

    def request(self, method: str, url: str, query_params: Any = None, **options: Any) -> Any:
        if self._recorder:
            return self._recorded(method, url, dict(query_params or []), options)
        response = super().request(
            method, url, query_params=query_params, **options | {"_request_timeout": platforms.TIMEOUT}
        )
        try:
            json.loads(response.data)
        except ValueError:
            raise _NoAnswer from None
        return response

    def _recorded(self, method: str, url: str, query: dict[str, Any], options: dict[str, Any]) -> "_Answer":
        files = {name: part[1] for name, part in options.get("post_params") or []}
        path = url.removeprefix(self._host)
        self._recorder.note(method, path, query, options.get("body") or files)
        return _Answer(_made_up(method, path, self._recorder))


class _Answer:
    """Of nobody."""

    status, reason = 200, "OK"

    def __init__(self, content: dict[str, Any]):
        self.data = json.dumps(content).encode()

    def getheader(self, name: str, default: str | None = None) -> str | None:
        return default

    def getheaders(self) -> dict[str, str]:
        return {}


def _made_up(method: str, path: str, recorder: Recorder) -> dict[str, Any]:
    """What a service that knows no pipeline would answer, ids in capitals."""
    kind = path.partition("v2beta1/")[2]
    if method == "GET" and kind == "recurringruns" and recorder.schedule:
        found = {"recurring_run_id": "SCHEDULE_ID", "display_name": recorder.schedule, "description": MARK}
        return {"recurringRuns": [found]}
    if method == "GET" and kind.endswith("/versions"):
        return {"pipeline_versions": [{"pipeline_version_id": "VERSION_ID"}]}
    made = {
        "pipelines/upload": {"pipeline_id": "PIPELINE_ID"},
        "experiments": {"experiment_id": "EXPERIMENT_ID"},
        "runs": {"run_id": "RUN_ID"},
        "recurringruns": {"recurring_run_id": "SCHEDULE_ID"},
    }
    return made.get(kind, {}) if method == "POST" else {}


class _Client(kfp_client.Client):
    """kfp's client. It reads its settings and credentials where it always does, but writes nothing there."""

    def __init__(self, host: str | None, recorder: Recorder | None, **options: Any):
        self._recorder = recorder
        super().__init__(host=host, **options)
        self.configuration = self._existing_config
        self._healthz_api.api_client.rest_client = _Connection(self.configuration, recorder)

    def _load_config(self, host: str | None, *given: Any) -> Configuration:
        # In a dry run nobody is asked for credentials.
        config = Configuration(host=host or "") if self._recorder else super()._load_config(host, *given)
        # Neither once more, nor on to the page where people sign in.
        config.retries = urllib3.Retry(total=0, redirect=False)
        return config

    def get_kfp_healthz(self, sleep_duration: int = 5) -> V2beta1GetHealthzResponse:
        # The constructor would ask five times, and write into a file of the person's what it learned.
        return V2beta1GetHealthzResponse(multi_user=False)

    def multi_user(self) -> bool:
        """Whether several people share it, a namespace each."""
        return bool(self._healthz_api.healthz_service_get_healthz().multi_user)

    def secrets(self) -> tuple[str, ...]:
        """What must not be printed."""
        names = ("client_authentication_cookie", "client_authentication_header_value")
        return (self.configuration.api_key.get("authorization", ""), *(self._context_setting.get(n, "") for n in names))


class Kubeflow:
    """A Kubeflow Pipelines; see `pipeline.platforms.Platform`."""

    def __init__(self, host: str | None, namespace: str | None, recorder: Recorder | None = None):
        self._client = None
        self._address = host or os.environ.get(kfp_settings.KF_PIPELINES_ENDPOINT_ENV) or ""
        if not recorder:
            _require_address(self._address)
            _require_no_sign_in()
        with self._in_words("did not answer as it should"):
            trusted = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("SSL_CERT_FILE")
            token = None if recorder else _token()
            self._client = _client(host, recorder, credentials=token, ssl_ca_cert=trusted)
            self._address = self._client.configuration.host
            self._namespace = namespace or self._client.get_user_namespace() or None
            shared = self._client.multi_user()
        if shared and not self._namespace:
            raise UsageError(f"Several people share Kubeflow Pipelines at {self._address}; give --namespace.")

    def upload(self, deployment: Deployment) -> tuple[Deployment, dict[str, Any]]:
        """Adds a version to the pipeline of that name, which is made where there is none."""
        client, name = self._client, deployment.name
        with self._in_words("did not take the pipeline"), tempfile.TemporaryDirectory() as folder:
            package = Path(folder) / "pipeline.yaml"
            package.write_text(deployment.text)
            found = self._found(client.list_pipelines, "pipelines", _named(name))
            if found:
                version = client.upload_pipeline_version(
                    str(package), deployment.version, pipeline_id=found[0].pipeline_id
                )
                pipeline_id, version_id = found[0].pipeline_id, version.pipeline_version_id
            else:
                pipeline_id = client.upload_pipeline(str(package), name, namespace=self._namespace).pipeline_id
                # The answer does not say which version the file became.
                versions = client.list_pipeline_versions(pipeline_id, page_size=1, sort_by="created_at desc")
                version_id = versions.pipeline_versions[0].pipeline_version_id
            experiment = client.create_experiment(name, namespace=self._namespace)
        return deployment, {
            "experiment_id": experiment.experiment_id,
            "pipeline_id": pipeline_id,
            "version_id": version_id,
            "params": deployment.parameters,
            "pipeline_root": deployment.root if deployment.root.startswith(ROOTS[KUBEFLOW]) else None,
            "service_account": deployment.service_account,
        }

    def run(self, uploaded: tuple[Deployment, dict[str, Any]]) -> Started:
        """Starts a run of the version."""
        deployment, options = uploaded
        with self._in_words("did not start the run"):
            run_id = self._client.run_pipeline(job_name=deployment.version, **options).run_id
        return Started(run_id, self._page(f"runs/details/{run_id}"))

    def schedule(self, uploaded: tuple[Deployment, dict[str, Any]], cron: str) -> Started:
        """Makes a recurring run of the version."""
        deployment, options = uploaded
        with self._in_words("did not make the schedule"):
            made = self._client.create_recurring_run(
                job_name=deployment.name,
                description=MARK,
                # Six fields, the first of them seconds: of five it would take the last for the month.
                cron_expression=f"0 {cron}",
                max_concurrency=1,
                no_catchup=True,
                **options,
            )
        return Started(made.recurring_run_id, self._page(f"recurringrun/details/{made.recurring_run_id}"))

    def schedules(self) -> list[Schedule]:
        """Every recurring run of the namespace."""
        with self._in_words("did not list the schedules"):
            found = self._found(self._client.list_recurring_runs, "recurring_runs", None)
        return [
            Schedule(
                each.recurring_run_id,
                each.display_name or "",
                _cron(each),
                paused=each.status != "ENABLED",
                ours=(each.description or "").startswith(MARK),
            )
            for each in found
        ]

    def pause(self, schedule: str) -> None:
        """Disables the recurring run."""
        with self._in_words("did not pause the schedule"):
            self._client.disable_recurring_run(schedule)

    def resume(self, schedule: str) -> None:
        """Enables the recurring run."""
        with self._in_words("did not resume the schedule"):
            self._client.enable_recurring_run(schedule)

    def delete(self, schedule: str) -> None:
        """Removes the recurring run; what it has started goes on."""
        with self._in_words("did not remove the schedule"):
            self._client.recurring_runs.recurring_run_service_delete_recurring_run(
                recurring_run_id=schedule, propagation_policy=ORPHAN
            )

    def _found(self, listing: Any, kind: str, condition: str | None) -> list[Any]:
        """Everything that a listing gives, page after page."""
        found, token = [], ""
        while True:
            answer = listing(page_token=token, page_size=PAGE, namespace=self._namespace, filter=condition)
            found += getattr(answer, kind) or []
            token = answer.next_page_token or ""
            if not token:
                return found

    def _page(self, part: str) -> str:
        interface = os.environ.get(kfp_settings.KF_PIPELINES_UI_ENDPOINT_ENV) or self._address
        return f"{interface.rstrip('/')}/#/{part}"

    @contextlib.contextmanager
    def _in_words(self, failed: str) -> Iterator[None]:
        """Turns what its client raises into one sentence."""
        where = f"Kubeflow Pipelines at {self._address}" if self._address else "Kubeflow Pipelines"
        try:
            yield
        except GraftError:
            raise
        except ApiException as error:
            raise self._refused(where, failed, error) from None
        except urllib3.exceptions.HTTPError as error:
            raise _unreachable(where, failed, getattr(error, "reason", None) or error) from None
        except (_NoAnswer, UnicodeDecodeError):
            raise _web_page(self._address) from None
        except GoogleAuthError as error:
            said = message_in(json.dumps(str(error)))
            raise UsageError(f"Google gave no token for the proxy in front of {where} ({said}).") from None
        except ValueError as error:
            # What kfp makes of an answer that it has no place for, such as a state that a newer server has.
            said = message_in(json.dumps(str(error)), self._secrets())
            raise ServiceError(
                f"{where} {failed}: kfp's client cannot use what it was answered ({said}); see that the server is one "
                "of Kubeflow Pipelines 2, and look what is there of that name."
            ) from None

    def _secrets(self) -> tuple[str, ...]:
        return self._client.secrets() if self._client else ()

    def _refused(self, where: str, failed: str, error: ApiException) -> GraftError:
        if not error.status:
            return _unencrypted(where)
        said = message_in(error.body or "", self._secrets())
        if 300 <= error.status < 400 or (error.status == 404 and not said):
            return _web_page(self._address)
        return refusal(f"{where} {failed}", error.status, said, ADVICE)


def _client(host: str | None, recorder: Recorder | None, **options: Any) -> _Client:
    """kfp's client; what it finds on this machine and cannot use is no fault of ours."""
    try:
        return _Client(host, recorder, **options)
    except (GoogleAuthError, ApiException, urllib3.exceptions.HTTPError):
        raise
    except Exception as error:
        # Not what it says: there may be a secret in it.
        raise UsageError(
            f"kfp's client cannot use the settings or credentials that it finds here ({type(error).__name__}); look at "
            f"{kfp_client.Client._LOCAL_KFP_CONTEXT}, at the variables KF_PIPELINES_... and, for a Google proxy, at "
            "GOOGLE_APPLICATION_CREDENTIALS, which must be a service account's."
        ) from None


def _named(name: str) -> str:
    equals = kfp_settings._FILTER_OPERATIONS["EQUALS"]
    return json.dumps({"predicates": [{"operation": equals, "key": "display_name", "stringValue": name}]})


def _cron(recurring_run: Any) -> str:
    """When it starts runs: its cron expression, of ours without the seconds."""
    trigger = recurring_run.trigger
    expression = (trigger and trigger.cron_schedule and trigger.cron_schedule.cron) or ""
    return expression.removeprefix("0 ") if len(expression.split()) == 6 else expression


def _require_address(address: str) -> None:
    """Where nothing says where it is, kfp's client would ask this machine's port 80."""
    kubeconfig = os.environ.get("KUBECONFIG") or "~/.kube/config"
    in_cluster = "KUBERNETES_SERVICE_HOST" in os.environ
    if not (address or in_cluster or any(Path(each).expanduser().is_file() for each in kubeconfig.split(os.pathsep))):
        raise UsageError(
            f"--target kubeflow needs --host, such as http://127.0.0.1:8080 after `{FORWARD}`; or set "
            f"{kfp_settings.KF_PIPELINES_ENDPOINT_ENV}."
        )
    if address and not split_address(address):
        raise UsageError("--host takes an address such as http://127.0.0.1:8080, without a user or password.")


def _require_no_sign_in() -> None:
    """kfp's client would open a browser and keep what it is given in a file."""
    name = kfp_settings.KF_PIPELINES_APP_OAUTH2_CLIENT_ID_ENV
    if os.environ.get(name):
        raise UsageError(
            f"{name} asks for a sign-in in a browser, which kfp would keep in a file; unset it, and use a service "
            "account's credentials: GOOGLE_APPLICATION_CREDENTIALS."
        )


def _token() -> ServiceAccountTokenVolumeCredentials | None:
    """The token in the file that kfp's standard variable names, or that is mounted where kfp looks for one."""
    path = os.environ.get(kfp_client.KF_PIPELINES_SA_TOKEN_ENV)
    if path:
        named = f"The token in {path}, which {kfp_client.KF_PIPELINES_SA_TOKEN_ENV} names,"
        try:
            token = Path(path).read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{named} cannot be read ({error}).") from None
        # Who refuses it later as a header would print it.
        if not re.fullmatch("[!-~]+", token):
            raise UsageError(f"{named} is none: it must be one word in ASCII; look what is in that file.")
    found = path or Path(kfp_client.KF_PIPELINES_SA_TOKEN_PATH).is_file()
    return ServiceAccountTokenVolumeCredentials(path) if found else None


def _unreachable(where: str, failed: str, error: BaseException) -> GraftError:
    # Some of the former are the latter, too.
    if isinstance(error, urllib3.exceptions.NameResolutionError):
        reason = "no such host"
    elif isinstance(error, urllib3.exceptions.NewConnectionError):
        reason = "connection refused"
    elif isinstance(error, urllib3.exceptions.TimeoutError):
        return late(where, failed)
    elif isinstance(error, urllib3.exceptions.SSLError):
        return _unencrypted(where)
    else:
        reason = "the connection broke"
    return UsageError(f"{where} does not answer ({reason}); look at --host, or forward a port: {FORWARD}.")


def _unencrypted(where: str) -> UsageError:
    return UsageError(
        f"{where} has no encryption that can be trusted; "
        "look whether --host begins with http or https, or name its certificate authority in REQUESTS_CA_BUNDLE."
    )


def _web_page(address: str) -> UsageError:
    return UsageError(
        f"What answers at {address} is not the API of Kubeflow Pipelines, but a page such as a sign-in in front of it; "
        f"give --host the API's address, credentials ({kfp_client.KF_PIPELINES_SA_TOKEN_ENV}, or for Google's "
        f"{kfp_settings.KF_PIPELINES_IAP_OAUTH2_CLIENT_ID_ENV}), or forward a port: {FORWARD}."
    )
