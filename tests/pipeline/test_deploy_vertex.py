"""`graft deploy --target vertex` against a server that speaks Vertex AI's REST."""

import json
import re
import socket
import time

import google.auth
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from google.auth.credentials import AnonymousCredentials, CredentialsWithRegionalAccessBoundary
from google.auth.exceptions import DefaultCredentialsError, TransportError
from google.cloud import aiplatform

from pipeline import compiled, config, platforms
from tests.local_server import Refused
from tests.pipeline.deployed import PIPELINE, certificate, command, id_in, same_requests  # noqa: F401
from tests.vertex_server import ACCESS_TOKEN, SUBJECT_TOKEN, VertexServer

MONDAYS = ("--cron", "0 3 * * 1")
PARENT = "projects/my-project/locations/europe-west4"
PLACE = ("--target", "vertex", "--project", "my-project", "--region", "europe-west4")


@pytest.fixture
def server(monkeypatch, tmp_path):
    monkeypatch.delenv("CLOUDSDK_API_ENDPOINT_OVERRIDES_AIPLATFORM", raising=False)
    # Google's library would ask another of its services, in the background, where the credentials may be used.
    monkeypatch.setattr(
        CredentialsWithRegionalAccessBoundary, "_is_regional_access_boundary_lookup_required", lambda _: False
    )
    with VertexServer() as server:
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", server.credentials(tmp_path))
        yield server
        assert not server.wrong


@pytest.fixture
def vertex(command, server):  # noqa: F811
    """Calls the command with that server's address."""
    command.there = (*PLACE, "--endpoint", server.address)
    return command


def test_run_carries_what_compile_writes_and_the_values_that_were_given(vertex, server):
    settings = ("--set", "runner.service_account=runner@x", "--set", "runner.labels={team: vision}")
    text = vertex.done(*vertex.there, *PIPELINE, *settings, "--parameter", "training_frozen_epochs=3")
    ((name, job),) = server.jobs.items()
    run = name.rpartition("/")[2]
    assert re.fullmatch(r"signs-\d{8}-\d{9}", run) and f"Run: {run}, id {name}\n" in text
    page = f"https://console.cloud.google.com/vertex-ai/locations/europe-west4/pipelines/runs/{run}?project=my-project"
    assert f"Watch it: {page}\n" in text
    overrides = [word for word in (*PIPELINE, *settings) if "=" in word]
    bound = compiled.bind(config.load(None, overrides), ["gs://bucket/photos"])
    wanted = json.loads(compiled.dump("vertex", bound, "registry.example/graft:1"))
    wanted["runtimeConfig"]["parameterValues"]["training_frozen_epochs"] = 3
    assert {key: job[key] for key in wanted} == wanted
    assert job["serviceAccount"] == "runner@x" and job["labels"] == {"team": "vision"}
    assert not server.schedules


def test_schedule_does_not_overlap_and_carries_its_values(vertex, server):
    zone = ("--time-zone", "Europe/Paris", "--parameter", "evaluation_min_accuracy=0.9")
    text = vertex.done(*vertex.there, *PIPELINE, *MONDAYS, *zone)
    ((name, made),) = server.schedules.items()
    schedule = name.rpartition("/")[2]
    assert f"Schedule: signs (TZ=Europe/Paris 0 3 * * 1), id {schedule}\n" in text
    assert f"/pipelines/schedules/{schedule}?project=my-project\n" in text
    assert made["cron"] == "TZ=Europe/Paris 0 3 * * 1"
    # The second is the one that bounds runs that go on.
    assert (made["maxConcurrentRunCount"], made["maxConcurrentActiveRunCount"]) == ("1", "1")
    assert not made.get("allowQueueing")
    job = made["createPipelineJobRequest"]["pipelineJob"]
    assert job["runtimeConfig"]["parameterValues"]["evaluation_min_accuracy"] == "0.9"
    assert job["runtimeConfig"]["gcsOutputDirectory"] == "gs://bucket/signs"
    assert not server.jobs


def test_requests_are_those_that_the_pipeline_job_of_google_would_send(vertex, server, tmp_path):
    """`PipelineJob.submit` would look for the bucket first, with waits of its own, and make it where it is missing."""
    settings = ("--set", "runner.labels={team: vision}", "--parameter", "data_spans=2")
    vertex.done(*vertex.there, *PIPELINE, *settings)
    vertex.done(*vertex.there, *PIPELINE, *settings, *MONDAYS)
    overrides = [word for word in (*PIPELINE, *settings) if "=" in word and word != "data_spans=2"]
    bound = compiled.bind(config.load(None, overrides), ["gs://bucket/photos"])
    template = tmp_path / "pipeline.json"
    template.write_text(compiled.dump("vertex", bound, "registry.example/graft:1"))
    given = {"project": "my-project", "location": "europe-west4", "credentials": AnonymousCredentials()}
    job = aiplatform.PipelineJob(
        "signs", str(template), parameter_values={"data_spans": 2}, labels={"team": "vision"}, **given
    )
    schedule = aiplatform.PipelineJobSchedule(job, "signs", **given)
    assert same(server.sent("POST", "/pipelineJobs")[0][1], job._gca_resource)
    sent = server.sent("POST", "/schedules")[0][1]
    for name in ("cron", "maxConcurrentRunCount", "maxConcurrentActiveRunCount"):
        del sent[name]
    del sent["createPipelineJobRequest"]["pipelineJob"]["displayName"]
    sent["createPipelineJobRequest"]["pipelineJob"]["labels"].pop("made-by")
    assert same(sent, schedule._gca_resource)


def same(sent: dict, message) -> bool:
    return sent == json.loads(type(message).to_json(message, including_default_value_fields=False))


def foreign(server) -> dict:
    name = f"{PARENT}/schedules/7"
    request = {"parent": PARENT, "pipelineJob": {"displayName": "x"}}
    server.schedules[name] = {"name": name, "displayName": "signs", "cron": "* * * * *", "state": "ACTIVE"}
    server.schedules[name]["createPipelineJobRequest"] = request
    return server.schedules[name]


def active(server) -> list[str]:
    return [name.rpartition("/")[2] for name, each in server.schedules.items() if each["state"] == "ACTIVE"]


def test_schedule_takes_the_place_of_ours_and_leaves_others_alone(vertex, server):
    theirs = foreign(server)
    first = id_in(vertex.done(*vertex.there, *PIPELINE, *MONDAYS).partition("Schedule:")[2])
    text = vertex.done(*vertex.there, *PIPELINE, "--cron", "30 4 * * SUN")
    second = id_in(text.partition("Schedule:")[2])
    assert f"Replaced: schedule {first} (0 3 * * 1)\n" in text
    assert active(server) == ["7", second] and server.schedules[theirs["name"]] == theirs
    changes = [(method, path.rpartition("/")[2]) for method, path, _, _ in server.requests if "/schedules" in path]
    wanted = [("POST", f"{first}:pause"), ("POST", "schedules"), ("DELETE", first)]
    assert [each for each in changes if each[0] != "GET"][1:] == wanted


@pytest.mark.parametrize(("status", "code"), [(500, 1), (403, 2)])
def test_schedule_goes_on_if_the_new_one_is_not_made(vertex, server, status, code):
    vertex.done(*vertex.there, *PIPELINE, *MONDAYS)
    before = active(server)
    server.faults["POST", "/schedules"] = Refused(status, server.error(status, "not today"))
    text = vertex.refused(*vertex.there, *PIPELINE, *MONDAYS, code=code)
    assert f"did not make the schedule ({status}: not today)" in text
    assert active(server) == before


def test_schedule_that_was_made_without_an_answer_is_taken_back(vertex, server, monkeypatch):
    vertex.done(*vertex.there, *PIPELINE, *MONDAYS)
    before, add = active(server), server._add_schedule

    def add_and_fail(*given):
        add(*given)
        raise Refused(504, server.error(504, "too slow"))

    server._add_schedule = add_and_fail
    vertex.refused(*vertex.there, *PIPELINE, *MONDAYS, code=1)
    assert active(server) == before and len(server.schedules) == 1


def test_schedule_before_that_stays_paused_is_said(vertex, server):
    vertex.done(*vertex.there, *PIPELINE, *MONDAYS)
    server.faults["POST", "/schedules"] = Refused(500, server.error(500, "down"))
    server.faults["POST", ":resume"] = Refused(500, server.error(500, "down"))
    text = vertex.refused(*vertex.there, *PIPELINE, *MONDAYS, code=1)
    assert "The schedule before it may be paused now" in text and "--resume signs" in text


def test_schedule_that_was_not_paused_is_not_said_to_be(vertex, server):
    vertex.done(*vertex.there, *PIPELINE, *MONDAYS)
    before = active(server)
    server.faults["POST", ":pause"] = Refused(403, server.error(403, "not yours"))
    # The service refuses to resume what is not paused.
    server.faults["POST", ":resume"] = Refused(400, server.error(400, "it is active"))
    text = vertex.refused(*vertex.there, *PIPELINE, *MONDAYS)
    assert "did not pause the schedule (403: not yours)" in text and "paused now" not in text
    assert active(server) == before and not server.sent("POST", ":resume")


def test_schedules_are_listed_paused_resumed_and_removed(vertex, server):
    there = vertex.there
    assert vertex.done(*there, "--list") == "There is no schedule that Graft made.\n"
    theirs = foreign(server)
    for name in ("signs", "boards"):
        vertex.done(*there, *PIPELINE, *MONDAYS, "--set", f"name={name}")
    listed = vertex.done(*there, "--list").splitlines()
    assert [line.split("  ")[:3] for line in listed[:2]] == [
        [name, "active", "0 3 * * 1"] for name in ("boards", "signs")
    ]
    assert listed[2] == "Not made by Graft, and left alone: 1"
    boards = id_in(listed[0])
    assert vertex.done(*there, "--pause", "boards") == f"Paused: boards (0 3 * * 1), id {boards}\n"
    assert boards not in active(server)
    assert vertex.done(*there, "--list").splitlines()[0].split("  ")[:2] == ["boards", "paused"]
    vertex.done(*there, "--resume", boards)
    assert boards in active(server)
    vertex.done(*there, "--delete", "boards")
    assert f"{PARENT}/schedules/{boards}" not in server.schedules
    assert "did you mean signs?" in vertex.refused(*there, "--delete", "sign")
    assert "not one that Graft made" in vertex.refused(*there, "--delete", "7")
    assert server.schedules[theirs["name"]] == theirs


FAULTS = {
    "credentials": (401, "Request is missing credentials", 2, "(401: Request is missing credentials); gcloud auth"),
    "permission": (403, "Permission denied", 2, "(403: Permission denied); ask for roles/aiplatform.user"),
    "not there": (404, "Project not found", 2, "(404: Project not found); look at --project"),
    "conflict": (409, "already exists", 1, "(409: already exists); look at what is there"),
    "quota": (429, "Quota exceeded", 1, "(429: Quota exceeded); try again later"),
    "failure": (500, "Internal error", 1, "(500: Internal error); try again later"),
    "page of a proxy": (502, None, 1, "(502); try again later"),
    "web page": (200, None, 2, "is not Vertex AI's API; look at --endpoint"),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize(("at", "words"), [(("POST", "/pipelineJobs"), PIPELINE), (("GET", "/schedules"), ("--list",))])
def test_fault_is_one_sentence(vertex, server, fault, at, words):
    status, message, code, said = FAULTS[fault]
    server.faults[at] = Refused(status, "<html>x</html>" if message is None else server.error(status, message))
    text = vertex.refused(*vertex.there, *words, code=code)
    assert said in text and server.address in text and "<html>" not in text
    # Google's library takes a new token after 401; nothing else is tried again.
    assert len(server.sent(*at)) == (3 if status == 401 else 1)


@pytest.mark.parametrize("at", [("POST", "/token"), ("POST", "/pipelineJobs")])
def test_server_that_never_answers_is_given_up(vertex, server, monkeypatch, at):
    monkeypatch.setattr(platforms, "TIMEOUT", 1)
    server.faults[at] = None
    vertex.refused(*vertex.there, *PIPELINE, code=1)
    assert len(server.sent(*at)) == 1


def test_what_looks_for_a_machine_of_googles_waits_no_longer_than_it_means_to(vertex, server, monkeypatch):
    monkeypatch.setattr(platforms, "TIMEOUT", 3)
    server.faults["GET", "/probe"] = None
    waited = []

    def default(scopes, request):
        began = time.monotonic()
        with pytest.raises(TransportError):
            request(f"{server.address}/probe", timeout=0.2)
        waited.append(time.monotonic() - began)
        raise DefaultCredentialsError("there are none")

    monkeypatch.setattr(google.auth, "default", default)
    assert "there are none" in vertex.refused(*vertex.there, "--list")
    assert waited[0] < 2


def test_certificates_that_are_not_there_are_one_sentence(vertex, server, monkeypatch, tmp_path):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "none.pem"))
    assert "none.pem, which REQUESTS_CA_BUNDLE names" in vertex.refused(*vertex.there, "--list")
    assert not server.requests


def test_server_that_is_not_there_is_one_sentence(vertex):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    text = vertex.refused(*PLACE, "--endpoint", f"http://127.0.0.1:{port}", "--list")
    assert "does not answer; look at --region, --endpoint" in text


def test_certificate_of_ones_own_is_trusted_where_the_environment_says_so(command, monkeypatch, tmp_path):  # noqa: F811
    secure = VertexServer()
    secure.tls = certificate(tmp_path / "ca.pem")
    with secure:
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", secure.credentials(tmp_path))
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "ca.pem"))
        command.done(*PLACE, "--endpoint", secure.address, "--list")
        assert secure.sent("GET", "/schedules") and not secure.wrong


def test_endpoint_of_gcloud_is_taken(vertex, server, monkeypatch):
    monkeypatch.setenv("CLOUDSDK_API_ENDPOINT_OVERRIDES_AIPLATFORM", f"{server.address}/")
    vertex.done(*PLACE, "--list")
    assert server.sent("GET", "/schedules")


def test_token_is_sent_and_no_secret_is_printed(vertex, server):
    vertex.done(*vertex.there, *PIPELINE)
    assert f"Bearer {ACCESS_TOKEN}" in server.tokens
    server.faults["GET", "/schedules"] = Refused(401, server.error(401, f"Authorization: Bearer {ACCESS_TOKEN} is bad"))
    assert "is bad" in vertex.refused(*vertex.there, "--list")
    said = {"error": "invalid_grant", "error_description": f"{SUBJECT_TOKEN} has expired"}
    server.faults["POST", "/token"] = Refused(400, said)
    assert "(invalid_grant); gcloud auth application-default login" in vertex.refused(*vertex.there, "--list")
    vertex.dry(*vertex.there, *PIPELINE)
    assert ACCESS_TOKEN not in vertex.printed and SUBJECT_TOKEN not in vertex.printed


def test_service_account_signs_its_token_itself_and_nothing_of_it_is_printed(vertex, server, monkeypatch, tmp_path):
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    account = {"type": "service_account", "client_email": "a@p.iam", "private_key": pem, "private_key_id": "k"}
    (tmp_path / "key.json").write_text(json.dumps(account | {"token_uri": f"{server.address}/token"}))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "key.json"))
    server.accepted = set()
    vertex.done(*vertex.there, *PIPELINE)
    (token,) = {token.removeprefix("Bearer ") for token in server.tokens}
    assert token.count(".") == 2 and not server.sent("POST", "/token")
    server.faults["GET", "/schedules"] = Refused(403, server.error(403, f"{token} is bad"))
    assert "(403: … is bad)" in vertex.refused(*vertex.there, "--list")
    assert not [line for line in (token, *pem.splitlines()) if line in vertex.printed]


def test_missing_credentials_are_one_sentence(vertex, server, monkeypatch, tmp_path):
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    text = vertex.refused(*vertex.there, *PIPELINE)
    assert "none.json" in text and "gcloud auth application-default login" in text and not server.requests


@pytest.mark.parametrize("cron", [(), MONDAYS])
def test_dry_run_names_the_requests_of_a_first_deployment_without_a_connection(vertex, server, monkeypatch, cron):
    with monkeypatch.context() as patched:
        patched.delenv("GOOGLE_APPLICATION_CREDENTIALS")
        dry = vertex.dry(*vertex.there, *PIPELINE, *cron)
    assert not server.requests
    vertex.done(*vertex.there, *PIPELINE, *cron)
    sent = [each for each in server.requests if each[1] != "/token"]
    same_requests(dry["requests"], sent)
    last, body = dry["requests"][-1]["body"], sent[-1][3]
    assert set(last) == set(body)
    job, wanted = (each["createPipelineJobRequest"]["pipelineJob"] if cron else each for each in (last, body))
    assert job["runtimeConfig"] == wanted["runtimeConfig"] and set(job["pipelineSpec"]) == {"sha256", "bytes"}


def test_dry_run_of_a_change_names_it(vertex):
    (_, change) = vertex.dry(*vertex.there, "--delete", "signs")["requests"]
    assert change == {"method": "DELETE", "path": f"/v1/{PARENT}/schedules/SCHEDULE_ID"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ("--pipeline-root", "s3://bucket/root"),
            "gs:// only; give --pipeline-root such a place. Received: s3://bucket/root",
        ),
        (("--set", "name=9signs"), "begin with a letter"),
        ((*MONDAYS, "--time-zone", "Europe/Pariss"), "did you mean Europe/Paris?"),
        (("--host", "http://x"), "--host is not for --target vertex"),
        (("--region", "europe west"), "--region takes an id"),
        (("--endpoint", "ftp://x"), "--endpoint takes an address"),
        (("--endpoint", "https://me:secret@x"), "--endpoint takes an address"),
        (("--endpoint", "http://[::1"), "--endpoint takes an address"),
        (("--endpoint", "http://127.0.0.1:port"), "--endpoint takes an address"),
        # What a variable that is not set leaves of an option must not start a run.
        (("--cron", ""), "--cron takes five fields"),
    ],
)
def test_what_vertex_cannot_take_is_refused_before_anything_is_sent(vertex, server, words, said):
    assert said in vertex.refused(*vertex.there, *PIPELINE, *words)
    assert not [path for _, path, _, _ in server.requests if path != "/token"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--list", "--pause", "x"), "Give --list or --pause, one at a time."),
        (("--list", "--images", "x"), "--list is about schedules that are there: give it no --images."),
        (("--delete", "x", "--cron", "* * * * *"), "give it no --cron."),
        (("--delete", "", "--images", "x"), "give it no --images."),
        ((), "Missing option '--images'."),
        (("--images", "x", "--time-zone", "UTC"), "--time-zone is for --cron."),
    ],
)
def test_options_that_exclude_each_other_are_refused(vertex, server, words, said):
    code, text = vertex(*vertex.there, *words)
    assert code == 2 and said in text and not server.requests
