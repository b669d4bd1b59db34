"""What Beam is told of a cluster, and what is said where there is none: Flink, and where it is another, Spark."""

import contextlib
import socket
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from aiohttp import web
from apache_beam.options.pipeline_options import PipelineOptions, PortableOptions
from apache_beam.options.pipeline_options_validator import PipelineOptionsValidator
from apache_beam.portability.api import beam_job_api_pb2, beam_job_api_pb2_grpc
from apache_beam.runners.portability.portable_runner import PortableRunner
from tfx.utils.dependency_utils import make_beam_dependency_flags

from components import parallel
from components.errors import UsageError
from pipeline import engine
from pipeline.config import Config, load
from pipeline.engine import Cluster
from pipeline.runners import BEAM_ARGUMENTS, ENGINES, local_arguments, require_runner
from tests.local_server import LocalServer

PROCESS = '{"command": "/opt/boot", "env": {"RUN_PYTHON_SDK_IN_DEFAULT_ENVIRONMENT": "1"}}'
OVERVIEW = {"taskmanagers": 2, "slots-total": 4, "flink-version": "1.20.5"}


def _config(name: str = "flink", /, **options) -> Config:
    given = options.pop("beam_options", [])
    return Config.model_validate({"runner": {"beam": name, name: options, "beam_options": given}})


def _workers(*hosts: str, state: str = "ALIVE") -> dict:
    """What Spark's master says."""
    workers = [{"host": host, "cores": 3, "state": state} for host in hosts]
    return {"/json/": {"workers": [*workers, {"host": "gone", "cores": 8, "state": "DEAD"}]}}


def _managers(*hosts: str) -> dict:
    return {"taskmanagers": [{"path": f"pekko.tcp://flink@{host}:4/user/rpc/taskmanager_0"} for host in hosts]}


@pytest.fixture
def job_server():
    class Jobs(beam_job_api_pb2_grpc.JobServiceServicer):
        def DescribePipelineOptions(self, request, context):
            return beam_job_api_pb2.DescribePipelineOptionsResponse()

    server = grpc.server(ThreadPoolExecutor(1))
    beam_job_api_pb2_grpc.add_JobServiceServicer_to_server(Jobs(), server)
    port = server.add_insecure_port("localhost:0")
    server.start()
    yield f"localhost:{port}"
    server.stop(0)


class JobManager(LocalServer):
    """Answers everywhere the same, or JSON by path."""

    def __init__(self, pages: dict | bytes):
        super().__init__()
        self._pages = pages

    async def answer(self, request: web.Request) -> web.Response:
        if isinstance(self._pages, bytes):
            return web.Response(body=self._pages)
        return web.json_response(self._pages.get(request.path, []))


@contextlib.contextmanager
def _master(pages: dict | bytes | None = None):
    """A job manager's address, at which that is answered."""
    pages = {"/overview": OVERVIEW, "/taskmanagers": _managers("localhost")} if pages is None else pages
    with JobManager(pages) as manager:
        yield manager.address


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
        ({"workers": "process", "worker_command": "/opt/boot"}, ("PROCESS", PROCESS)),
        ({"workers": "docker", "worker_image": "place/graft:1"}, ("DOCKER", "place/graft:1")),
    ],
)
@pytest.mark.parametrize("name", ENGINES)
def test_beam_understands_what_it_is_told(name, options, environment):
    arguments = local_arguments(_config(name, job_server="server:7", parallelism=3, worker_processes=2, **options))
    told = PipelineOptions(arguments).view_as(PortableOptions)
    assert (told.environment_type, told.environment_config) == environment
    assert (told.job_endpoint, str(told.sdk_worker_parallelism)) == ("server:7", "2")
    assert "--parallelism=3" in arguments


def test_raw_options_come_last_and_win():
    arguments = local_arguments(_config(beam_options=["--job_endpoint=other:1"]))
    assert PipelineOptions(arguments).view_as(PortableOptions).job_endpoint == "other:1"


@pytest.mark.parametrize(
    ("options", "key"),
    [({"workers": "process"}, "worker_command"), ({"workers": "docker"}, "worker_image")],
)
@pytest.mark.parametrize("name", ENGINES)
def test_what_a_way_to_start_workers_lacks_is_named(name, options, key):
    with pytest.raises(UsageError, match=f"runner.{name}.{key}"):
        local_arguments(_config(name, **options))


def test_cluster_that_answers_says_what_it_is(job_server):
    with _master() as master, _port() as pool:
        options = _config(master=master, job_server=job_server, worker_pool=pool)
        assert require_runner(options) == Cluster("Flink 1.20.5", "2 task managers and 4 slots", 4)


def test_spark_that_answers_says_what_it_is(job_server):
    with _master(_workers("localhost", "127.0.0.2")) as master, _port() as pool:
        options = {"master": master, "job_server": job_server}
        assert require_runner(_config("spark", worker_pool=pool, **options)) == Cluster(
            "Spark", "2 workers and 6 cores", 6
        )
        # More parts than cores wait for their turn.
        assert require_runner(_config("spark", worker_pool=pool, parallelism=50, **options))
        with pytest.raises(UsageError, match=r"worker pool does not answer at .*runner\.spark\.worker_pool"):
            require_runner(_config("spark", worker_pool=_free_port(), **options))


def test_worker_pool_that_only_task_managers_see_is_not_asked_for(job_server):
    with _master() as master:
        require_runner(_config(master=master, job_server=job_server, worker_pool="no.such.host:1"))


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"<html>hello</html>", "is not (Flink|Spark)"),
        (b"[]", "is not (Flink|Spark)"),
        (b'{"error": "no"}', "is not (Flink|Spark)"),
    ],
)
def test_something_else_that_answers_is_said_to_be_something_else(body, said):
    for name in ENGINES:
        with _master(body) as master, pytest.raises(UsageError, match=f"{said}.*runner.{name}.master"):
            require_runner(_config(name, master=master))


def test_part_that_does_not_answer_is_named_with_its_key_and_what_to_start(job_server):
    with pytest.raises(UsageError, match=r"runner\.flink\.master.*scripts/flink start"):
        require_runner(_config(master=f"http://{_free_port()}"))
    with _master() as master:
        with pytest.raises(UsageError, match=r"job server does not answer at .*runner\.flink\.job_server"):
            require_runner(_config(master=master, job_server=_free_port()))
        with pytest.raises(UsageError, match=r"worker pool does not answer at .*runner\.flink\.worker_pool"):
            require_runner(_config(master=master, job_server=job_server, worker_pool=_free_port()))


def test_cluster_without_a_slot_is_none():
    with (
        _master({"/overview": OVERVIEW | {"taskmanagers": 0, "slots-total": 0}}) as master,
        pytest.raises(UsageError, match="no task managers and no slots; start a task manager"),
    ):
        require_runner(_config(master=master))


@pytest.mark.parametrize("said", [_workers(), _workers("localhost", state="UNKNOWN")])
def test_spark_without_a_worker_that_lives_is_none(said):
    with _master(said) as master, pytest.raises(engine.NotThere, match="has no workers and no cores; start a worker"):
        require_runner(_config("spark", master=master))


def test_flink_that_starts_task_managers_itself_may_have_none(job_server):
    none = OVERVIEW | {"taskmanagers": 0, "slots-total": 0}
    for key, value in (("execution.target", "yarn-session"), ("kubernetes.cluster-id", "mine")):
        settings = [{"key": key, "value": value}]
        with _master({"/overview": none, "/jobmanager/config": settings, "/taskmanagers": _managers()}) as master:
            found = require_runner(_config(master=master, job_server=job_server))
        assert found.slots == 0


def test_more_parts_than_slots_are_refused_before_flink_waits_for_slots():
    with _master() as master, pytest.raises(UsageError, match=r"parallelism is 5, and Flink at .* and 4 slots: lower"):
        require_runner(_config(master=master, parallelism=5))


@pytest.mark.parametrize("where", ["10.0.0.7", "task-manager-1"])
def test_worker_pool_beside_task_managers_elsewhere_is_not_looked_for_here(job_server, where):
    """Their localhost is not this machine's, though a forwarded port makes Flink look as if it was here."""
    with _master({"/overview": OVERVIEW, "/taskmanagers": _managers("localhost", where)}) as master:
        assert require_runner(_config(master=master, job_server=job_server, worker_pool=_free_port()))
    with _master(_workers("localhost", where)) as master:
        assert require_runner(_config("spark", master=master, job_server=job_server, worker_pool=_free_port()))


def test_what_listens_and_is_no_job_server_is_told_from_one(monkeypatch, job_server):
    monkeypatch.setattr(engine, "PATIENCE", 0.5)
    assert require_runner(_config(master=None, job_server=job_server)) is None
    with _port() as silent, pytest.raises(engine.NotThere, match="does not answer as Beam's job server") as refused:
        require_runner(_config(master=None, job_server=silent))
    assert (refused.value.exit_code, refused.value.may_pass) == (2, True)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("job_server", "http://localhost:8099"),
        ("job_server", "localhost"),
        ("worker_pool", "me@localhost:1"),
        ("master", "localhost:8081"),
        ("master", "http://name:secret@host:8081"),
    ],
)
def test_address_that_is_none_is_refused_by_its_key(key, value):
    with pytest.raises(UsageError, match=f"runner.flink.{key}"):
        load(None, [f"runner.flink.{key}={value}"])


def test_addresses_of_every_kind_are_taken():
    for place in ("[::1]:80", "10.0.0.1:80", "jobs.example.org:80"):
        assert load(None, [f"runner.flink.job_server='{place}'"]).runner.flink.job_server == place


def test_nothing_is_staged_for_workers_which_have_everything():
    for options in (
        {},
        {"workers": "docker", "worker_image": "graft:1"},
        {"workers": "process", "worker_command": "/b"},
    ):
        arguments = local_arguments(_config(**options))
        assert make_beam_dependency_flags(arguments) == arguments
        told = PipelineOptions(arguments)
        assert PipelineOptionsValidator(told, PortableRunner()).validate() == []
        assert not PortableRunner._create_environment(told)._artifacts
        assert not told.get_all_options()["save_main_session"]


def test_worker_for_every_core_does_one_thing_at_a_time(monkeypatch):
    monkeypatch.setattr(parallel, "cores", lambda: 7)
    assert parallel.threads_of_a_worker(local_arguments(Config())) == 7
    assert parallel.threads_of_a_worker(local_arguments(_config())) == 1
    assert parallel.threads_of_a_worker(BEAM_ARGUMENTS["processes"]) == 1
