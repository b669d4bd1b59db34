"""What Beam is told of a Flink cluster, and what is said where there is none."""

import contextlib
import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from apache_beam.options.pipeline_options import PipelineOptions, PortableOptions

from components.errors import UsageError
from pipeline import compiled, flink
from pipeline.config import Config
from pipeline.runners import local_arguments

OVERVIEW = {"taskmanagers": 2, "slots-total": 4, "flink-version": "1.20.5"}


def _config(**options) -> Config:
    given = options.pop("beam_options", [])
    return Config.model_validate({"runner": {"beam": "flink", "flink": options, "beam_options": given}})


@contextlib.contextmanager
def _master(body: bytes):
    """A job manager's address, at which that is answered."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = HTTPServer(("localhost", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://localhost:{server.server_port}"
    server.shutdown()
    server.server_close()


@contextlib.contextmanager
def _port():
    with socket.socket() as listening:
        listening.bind(("localhost", 0))
        listening.listen()
        yield f"localhost:{listening.getsockname()[1]}"


def _free_port() -> str:
    with _port() as address:
        return address


@pytest.mark.parametrize(
    ("options", "environment"),
    [
        ({"worker_pool": "pool:1"}, ("EXTERNAL", "pool:1")),
        ({"workers": "process", "worker_command": "/opt/boot"}, ("PROCESS", '{"command": "/opt/boot"}')),
        ({"workers": "docker", "worker_image": "place/graft:1"}, ("DOCKER", "place/graft:1")),
    ],
)
def test_beam_understands_what_it_is_told(options, environment):
    arguments = local_arguments(_config(job_server="server:7", parallelism=3, worker_processes=2, **options))
    told = PipelineOptions(arguments).view_as(PortableOptions)
    assert (told.environment_type, told.environment_config) == environment
    assert (told.job_endpoint, str(told.sdk_worker_parallelism)) == ("server:7", "2")
    assert "--parallelism=3" in arguments


def test_raw_options_come_last_and_win():
    arguments = local_arguments(_config(beam_options=["--job_endpoint=other:1"]))
    assert PipelineOptions(arguments).view_as(PortableOptions).job_endpoint == "other:1"


@pytest.mark.parametrize(
    ("options", "key"),
    [({"workers": "process"}, "runner.flink.worker_command"), ({"workers": "docker"}, "runner.flink.worker_image")],
)
def test_what_a_way_to_start_workers_lacks_is_named(options, key):
    with pytest.raises(UsageError, match=key):
        local_arguments(_config(**options))


def test_cluster_that_answers_says_what_it_is():
    with _master(json.dumps(OVERVIEW).encode()) as master, _port() as server, _port() as pool:
        options = _config(master=master, job_server=server, worker_pool=pool).runner.flink
        assert flink.require_cluster(options) == flink.Cluster("1.20.5", 2, 4)


def test_worker_pool_that_only_task_managers_see_is_not_asked_for():
    with _master(json.dumps(OVERVIEW).encode()) as master, _port() as server:
        flink.require_cluster(_config(master=master, job_server=server, worker_pool="no.such.host:1").runner.flink)


@pytest.mark.parametrize(
    ("body", "said"),
    [(b"<html>hello</html>", "is not Flink"), (b"[]", "is not Flink"), (b'{"error": "no"}', "is not Flink")],
)
def test_something_else_that_answers_is_said_to_be_something_else(body, said):
    with _master(body) as master, pytest.raises(UsageError, match=said):
        flink.require_cluster(_config(master=master).runner.flink)


def test_part_that_does_not_answer_is_named_with_its_key_and_what_to_start():
    with pytest.raises(UsageError, match=r"runner\.flink\.master.*scripts/flink start"):
        flink.require_cluster(_config(master=f"http://{_free_port()}").runner.flink)
    with _master(json.dumps(OVERVIEW).encode()) as master, _port() as server:
        with pytest.raises(UsageError, match=r"job server does not answer at .*runner\.flink\.job_server"):
            flink.require_cluster(_config(master=master, job_server=_free_port()).runner.flink)
        with pytest.raises(UsageError, match=r"worker pool does not answer at .*runner\.flink\.worker_pool"):
            flink.require_cluster(_config(master=master, job_server=server, worker_pool=_free_port()).runner.flink)
        with pytest.raises(UsageError, match=r"job_server must be HOST:PORT\. Received: nowhere"):
            flink.require_cluster(_config(master=master, job_server="nowhere").runner.flink)


def test_cluster_without_a_slot_is_none():
    with (
        _master(json.dumps(OVERVIEW | {"taskmanagers": 0, "slots-total": 0}).encode()) as master,
        pytest.raises(UsageError, match="no slot; start a task manager"),
    ):
        flink.require_cluster(_config(master=master).runner.flink)


def test_compiled_pipeline_is_refused_rather_than_run_elsewhere(tmp_path):
    config = _config().model_copy(update={"name": "flowers"})
    with pytest.raises(UsageError, match="flink is for graft run"):
        compiled.bind(config, [str(tmp_path)])
