"""`graft deploy --target kubeflow` against a server that speaks Kubeflow Pipelines' REST."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from kfp.client import Client

from pipeline import compiled, config, platforms
from pipeline.kubeflow import MARK
from tests.conftest import ROOT
from tests.kubeflow_server import KubeflowServer
from tests.local_server import Refused
from tests.pipeline.deployed import PIPELINE, certificate, command, id_in, same_requests  # noqa: F401

MONDAYS = ("--cron", "0 3 * * 1")


@pytest.fixture
def server(monkeypatch, tmp_path):
    for name in ("KF_PIPELINES_ENDPOINT", "KF_PIPELINES_UI_ENDPOINT", "KF_PIPELINES_SA_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    # kfp worked out where that is when it was imported.
    monkeypatch.setattr(Client, "_LOCAL_KFP_CONTEXT", str(tmp_path / "home" / "context.json"))
    with KubeflowServer() as server:
        yield server
        assert not server.wrong


@pytest.fixture
def kubeflow(command, server):  # noqa: F811
    """Calls the command with that server's address."""
    command.there = ("--target", "kubeflow", "--host", server.address)
    return command


def test_run_is_of_the_version_that_was_uploaded(kubeflow, server):
    settings = ("--set", "runner.service_account=runner", "--parameter", "training_frozen_epochs=3")
    text = kubeflow.done(*kubeflow.there, *PIPELINE, *settings)
    ((run_id, run),) = server.runs.items()
    assert f"id {run_id}" in text and f"Watch it: {server.address}/#/runs/details/{run_id}\n" in text
    ((version_id, version),) = server.versions.items()
    assert run["pipeline_version_reference"] == {
        "pipeline_id": version["pipeline_id"],
        "pipeline_version_id": version_id,
    }
    assert run["service_account"] == "runner"
    assert run["runtime_config"]["pipeline_root"] == "gs://bucket/signs"
    parameters = run["runtime_config"]["parameters"]
    assert parameters["training_frozen_epochs"] == 3 and parameters["images"] == "gs://bucket/photos"
    assert [each["display_name"] for each in server.experiments.values()] == ["signs"]
    assert not server.recurring_runs


def test_uploaded_file_is_what_compile_writes(kubeflow, server):
    kubeflow.done(*kubeflow.there, *PIPELINE)
    settings = [word for word in PIPELINE if "=" in word]
    bound = compiled.bind(config.load(None, settings), ["gs://bucket/photos"])
    ((_, upload),) = server.sent("POST", "/pipelines/upload")
    assert upload["uploadfile"].decode() == compiled.dump("kubeflow", bound, "registry.example/graft:1")
    cached = {
        name: task["cachingOptions"]
        for name, task in yaml.load(upload["uploadfile"], yaml.CSafeLoader)["root"]["dag"]["tasks"].items()
    }
    assert cached["ImageExampleGen"] == {} and cached["Transform"] == {"enableCache": True}


def test_second_deployment_adds_a_version_to_the_same_pipeline(kubeflow, server):
    kubeflow.done(*kubeflow.there, *PIPELINE)
    kubeflow.done(*kubeflow.there, *PIPELINE, "--set", "training.frozen.epochs=7")
    assert len(server.pipelines) == len(server.experiments) == 1
    _, second = server.versions.values()
    assert second["display_name"].startswith("signs-20")
    assert (
        list(server.runs.values())[1]["pipeline_version_reference"]["pipeline_version_id"]
        == (second["pipeline_version_id"])
    )


def test_schedule_does_not_overlap_and_starts_no_run(kubeflow, server):
    text = kubeflow.done(*kubeflow.there, *PIPELINE, *MONDAYS, "--parameter", "data_spans=2")
    ((schedule_id, made),) = server.recurring_runs.items()
    assert f"Schedule: signs (0 3 * * 1), id {schedule_id}" in text
    assert f"{server.address}/#/recurringrun/details/{schedule_id}\n" in text
    # Seconds first, and every value that was given.
    assert made["trigger"] == {"cron_schedule": {"cron": "0 0 3 * * 1"}}
    assert (made["max_concurrency"], made["no_catchup"]) == (1, True)
    assert made["runtime_config"]["parameters"]["data_spans"] == 2
    assert not server.runs


def foreign(server) -> dict:
    made = {"recurring_run_id": "theirs", "display_name": "signs", "status": "ENABLED", "description": "by hand"}
    server.recurring_runs["theirs"] = made
    return made


def active(server) -> list[str]:
    return [name for name, each in server.recurring_runs.items() if each["status"] == "ENABLED"]


def test_schedule_takes_the_place_of_ours_and_leaves_others_alone(kubeflow, server):
    theirs = foreign(server)
    first = id_in(kubeflow.done(*kubeflow.there, *PIPELINE, *MONDAYS).partition("Schedule:")[2])
    text = kubeflow.done(*kubeflow.there, *PIPELINE, "--cron", "30 4 * * SUN")
    second = id_in(text.partition("Schedule:")[2])
    assert f"Replaced: schedule {first} (0 3 * * 1)\n" in text
    assert set(server.recurring_runs) == {"theirs", second} and server.recurring_runs["theirs"] == theirs
    # Ours were never both active: the old one was paused before the new one was there, and its runs go on.
    changes = [(method, path.rpartition("/")[2]) for method, path, _, _ in server.requests if "recurringruns" in path]
    wanted = [("POST", f"{first}:disable"), ("POST", "recurringruns"), ("DELETE", first)]
    assert [each for each in changes if each[0] != "GET"][1:] == wanted
    assert server.sent("DELETE", first) == [({"propagation_policy": "ORPHAN"}, None)]


def test_schedule_goes_on_if_the_new_one_is_not_made(kubeflow, server):
    kubeflow.done(*kubeflow.there, *PIPELINE, *MONDAYS)
    before = active(server)
    server.faults["POST", "/recurringruns"] = Refused(500, server.error(500, "database is full"))
    text = kubeflow.refused(*kubeflow.there, *PIPELINE, *MONDAYS, code=1)
    assert "did not make the schedule (500: database is full)" in text
    assert active(server) == before


def test_schedules_are_listed_paused_resumed_and_removed(kubeflow, server):
    there = kubeflow.there
    assert kubeflow.done(*there, "--list") == "There is no schedule that Graft made.\n"
    theirs = foreign(server)
    for name in ("signs", "boards", "arrows"):
        kubeflow.done(*there, *PIPELINE, *MONDAYS, "--set", f"name={name}")
    # More than fit on a page of the server.
    listed = kubeflow.done(*there, "--list").splitlines()
    assert [line.split("  ")[:3] for line in listed[:3]] == [
        [name, "active", "0 3 * * 1"] for name in ("arrows", "boards", "signs")
    ]
    assert listed[3] == "Not made by Graft, and left alone: 1"
    boards = id_in(listed[1])
    assert kubeflow.done(*there, "--pause", "boards") == f"Paused: boards (0 3 * * 1), id {boards}\n"
    assert boards not in active(server)
    assert kubeflow.done(*there, "--list").splitlines()[1].split("  ")[:2] == ["boards", "paused"]
    kubeflow.done(*there, "--resume", boards)
    assert boards in active(server)
    kubeflow.done(*there, "--delete", "boards")
    assert boards not in server.recurring_runs
    assert "did you mean arrows?" in kubeflow.refused(*there, "--delete", "arrow")
    assert "not one that Graft made" in kubeflow.refused(*there, "--delete", "theirs")
    assert server.recurring_runs["theirs"] == theirs


FAULTS = {
    "credentials": (401, "who are you", 2, "(401: who are you); give a token"),
    "permission": (403, "no access to the namespace", 2, "(403: no access to the namespace); ask for the role"),
    "not there": (404, "experiment not found", 2, "(404: experiment not found); look at --host"),
    "conflict": (409, "name already exists", 1, "(409: name already exists); look at what is there"),
    "failure": (500, "internal", 1, "(500: internal); its log says more: kubectl logs"),
    "gateway": (503, None, 1, "(503); its log says more"),
    "sign-in page": (403, None, 2, "(403)"),
    "redirect": (302, None, 2, "a sign-in in front of it"),
    "web page": (200, None, 2, "a sign-in in front of it"),
    "no such page": (404, None, 2, "a sign-in in front of it"),
}


@pytest.mark.parametrize("at", [("GET", "/healthz"), ("POST", "/runs")])
@pytest.mark.parametrize("fault", FAULTS)
def test_fault_is_one_sentence(kubeflow, server, fault, at):
    status, message, code, words = FAULTS[fault]
    body = "<html>Sign in</html>" if message is None else server.error(status, message)
    server.faults[at] = Refused(status, body)
    text = kubeflow.refused(*kubeflow.there, *PIPELINE, code=code)
    assert words in text and server.address in text and "<html>" not in text
    # Not tried again, and nothing else was sent after it.
    assert [each[0:2] for each in server.requests].count(server.requests[-1][0:2]) == 1


@pytest.mark.parametrize("at", [("GET", "/healthz"), ("POST", "/upload")])
def test_server_that_never_answers_is_given_up(kubeflow, server, monkeypatch, at):
    monkeypatch.setattr(platforms, "TIMEOUT", 1)
    server.faults[at] = None
    assert "within 1 s; look there" in kubeflow.refused(*kubeflow.there, *PIPELINE, code=1)
    assert len(server.sent(*at)) == 1


def test_answer_that_kfp_cannot_use_is_one_sentence(kubeflow, server):
    for one in ("a", "b"):
        server.experiments[one] = {"experiment_id": one, "display_name": "signs", "namespace": ""}
    text = kubeflow.refused(*kubeflow.there, *PIPELINE, code=1)
    assert "did not take the pipeline" in text and "Multiple experiments is found with name signs" in text
    assert not server.runs


def test_server_that_is_not_there_is_one_sentence(command):  # noqa: F811
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    text = command.refused("--target", "kubeflow", "--host", f"http://127.0.0.1:{port}", "--list")
    assert "connection refused" in text and "kubectl port-forward -n kubeflow svc/ml-pipeline-ui 8080:80" in text


def test_host_with_the_wrong_scheme_or_a_password_is_one_sentence(kubeflow, server):
    secure = server.address.replace("http:", "https:")
    assert "begins with http or https" in kubeflow.refused("--target", "kubeflow", "--host", secure, "--list")
    for host in ("http://me:secret@x", "http://[::1", "http://x:port", "ftp://x"):
        assert "--host takes an address" in kubeflow.refused("--target", "kubeflow", "--host", host, "--list")
    assert "secret" not in kubeflow.printed


def test_certificate_of_ones_own_is_trusted_where_the_environment_says_so(command, monkeypatch, tmp_path):  # noqa: F811
    secure = KubeflowServer()
    secure.tls = certificate(tmp_path / "ca.pem")
    with secure:
        words = ("--target", "kubeflow", "--host", secure.address, "--list")
        assert "no encryption that can be trusted" in command.refused(*words)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "ca.pem"))
        command.done(*words)


def test_host_of_the_environment_is_taken(kubeflow, server, monkeypatch):
    monkeypatch.setenv("KF_PIPELINES_ENDPOINT", server.address)
    kubeflow.done("--target", "kubeflow", "--list")


def test_help_imports_no_client():
    words = "from pipeline.cli import graft; graft.main(['deploy', '--help'], standalone_mode=False)"
    heavy = "import sys; assert not {'tfx', 'kfp', 'google.cloud.aiplatform_v1', 'google.auth'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", f"{words}; {heavy}"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "--cron" in done.stdout, done.stderr


def test_missing_host_is_one_sentence(command, monkeypatch, tmp_path):  # noqa: F811
    for name in ("KF_PIPELINES_ENDPOINT", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    assert "needs --host" in command.refused("--target", "kubeflow", "--list")


def test_token_is_sent_and_never_printed(kubeflow, server, monkeypatch, tmp_path):
    token = "a-secret-of-the-cluster"
    (tmp_path / "token").write_text(f"{token}\n")
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(tmp_path / "token"))
    kubeflow.done(*kubeflow.there, *PIPELINE, *MONDAYS)
    assert server.tokens == {f"Bearer {token}"}
    said = f"Authorization: Bearer {token} / {token} is not valid"
    server.faults["GET", "/recurringruns"] = Refused(401, server.error(401, said))
    assert "is not valid" in kubeflow.refused(*kubeflow.there, "--list")
    kubeflow.dry(*kubeflow.there, *PIPELINE)
    assert token not in kubeflow.printed
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(tmp_path / "none"))
    assert "cannot be read" in kubeflow.refused(*kubeflow.there, "--list")


@pytest.mark.parametrize("content", ["a-secret\nof two lines", "a-secret\N{EURO SIGN}", ""])
def test_token_that_is_none_is_one_sentence_without_it(kubeflow, server, monkeypatch, tmp_path, content):
    (tmp_path / "token").write_text(content)
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(tmp_path / "token"))
    assert "must be one word in ASCII" in kubeflow.refused(*kubeflow.there, "--list")
    assert "a-secret" not in kubeflow.printed and not server.requests


@pytest.mark.parametrize("content", ["{", "{}"])
def test_settings_that_kfp_cannot_use_are_one_sentence(kubeflow, server, content):
    context = Path(Client._LOCAL_KFP_CONTEXT)
    context.parent.mkdir()
    context.write_text(content)
    assert f"look at {context}" in kubeflow.refused(*kubeflow.there, "--list")
    assert not server.requests


def test_namespace_is_asked_for_where_several_people_share_and_nothing_is_stored(kubeflow, server):
    server.multi_user = True
    assert "give --namespace" in kubeflow.refused(*kubeflow.there, *PIPELINE)
    kubeflow.done(*kubeflow.there, *PIPELINE, *MONDAYS, "--namespace", "alice")
    assert {each["namespace"] for each in (*server.pipelines.values(), *server.experiments.values())} == {"alice"}
    assert server.sent("GET", "/recurringruns")[0][0]["namespace"] == "alice"
    assert not Path(Client._LOCAL_KFP_CONTEXT).parent.exists()


def test_sign_in_that_kfp_would_store_is_refused(kubeflow, monkeypatch):
    monkeypatch.setenv("KF_PIPELINES_APP_OAUTH2_CLIENT_ID", "id")
    assert "would keep in a file" in kubeflow.refused(*kubeflow.there, "--list")


@pytest.mark.parametrize("cron", [(), MONDAYS])
def test_dry_run_names_the_requests_of_a_first_deployment_without_a_connection(kubeflow, server, cron):
    dry = kubeflow.dry(*kubeflow.there, *PIPELINE, *cron)
    assert not server.requests
    kubeflow.done(*kubeflow.there, *PIPELINE, *cron)
    same_requests(dry["requests"], server.requests)
    last, sent = dry["requests"][-1]["body"], server.requests[-1][3]
    assert last["runtime_config"] == sent["runtime_config"] and set(last) == set(sent)
    upload = next(each for each in dry["requests"] if each["path"].endswith("/upload"))
    assert upload["body"]["uploadfile"] == dry["specification"]


def test_dry_run_of_a_change_names_it(kubeflow):
    paths = [(each["method"], each["path"]) for each in kubeflow.dry(*kubeflow.there, "--pause", "signs")["requests"]]
    assert paths[1:] == [
        ("GET", "/apis/v2beta1/recurringruns"),
        ("POST", "/apis/v2beta1/recurringruns/SCHEDULE_ID:disable"),
    ]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("training_frozen_epoch=3", "did you mean training_frozen_epochs?"),
        ("training_frozen_epochs=three", "takes a whole number"),
        ("training_frozen_epochs=0", "training.frozen.epochs"),
        ("evaluation_min_accuracy=2", "evaluation.min_accuracy"),
        ("data_spans", "takes NAME=VALUE"),
    ],
)
def test_parameter_is_checked_before_anything_is_sent(kubeflow, server, given, words):
    assert words in kubeflow.refused(*kubeflow.there, *PIPELINE, "--parameter", given)
    assert not server.requests


def test_pipeline_root_that_kubeflow_cannot_take_is_not_sent_and_said(kubeflow, server):
    volume = ("--set", "runner.volumes=[{name: data, path: /data}]", "--pipeline-root", "/data/signs")
    text = kubeflow.done(*kubeflow.there, *PIPELINE, *volume)
    assert "Note: artifacts go to the cluster's own pipeline root, and not to" in text
    (run,) = server.runs.values()
    assert "pipeline_root" not in run["runtime_config"]


def test_time_zone_is_refused(kubeflow, server):
    text = kubeflow.refused(*kubeflow.there, *PIPELINE, *MONDAYS, "--time-zone", "Europe/Paris")
    assert "CRON_SCHEDULE_TIMEZONE" in text and not server.requests


def test_schedule_mark_is_in_its_description(kubeflow, server):
    kubeflow.done(*kubeflow.there, *PIPELINE, *MONDAYS)
    (made,) = server.recurring_runs.values()
    assert made["description"] == MARK
