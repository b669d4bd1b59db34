"""The worker pool of a machine on which several task managers run."""

import queue
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import grpc
import pytest
from apache_beam.portability.api import beam_fn_api_pb2, beam_fn_api_pb2_grpc, endpoints_pb2

from pipeline.worker_pool import WorkerPool


class Process:
    """Stands for a worker that ends when it is told to, or is killed."""

    pid = 1
    exitcode = -9

    def __init__(self, target, args, daemon):
        self._over = threading.Event()

    @property
    def ended(self) -> bool:
        return self._over.is_set()

    def start(self):
        pass

    def terminate(self):
        self._over.set()

    def join(self):
        self._over.wait()


@pytest.fixture
def started(monkeypatch):
    """A pool, and the workers that it started."""
    pool, made = WorkerPool(), []
    monkeypatch.setattr(
        pool, "_context", SimpleNamespace(Process=lambda **given: made.append(Process(**given)) or made[-1])
    )
    return pool, made


class Control(beam_fn_api_pb2_grpc.BeamFnControlServicer):
    """A runner that waits for its workers."""

    def __init__(self):
        self.told = queue.Queue()

    def Control(self, responses, context):
        worker = dict(context.invocation_metadata())["worker_id"]
        self.told.put((worker, list(responses)))
        return iter(())


def test_runner_hears_of_a_worker_that_was_killed_before_they_were_connected(started):
    """It would wait for it without an end."""
    pool, made = started
    control = Control()
    server = grpc.server(ThreadPoolExecutor(2))
    beam_fn_api_pb2_grpc.add_BeamFnControlServicer_to_server(control, server)
    place = endpoints_pb2.ApiServiceDescriptor(url=f"localhost:{server.add_insecure_port('localhost:0')}")
    server.start()
    task_manager = SimpleNamespace(peer=lambda: "ipv4:127.0.0.1:1")
    for worker in ("1-1", "2-1"):
        request = beam_fn_api_pb2.StartWorkerRequest(worker_id=worker, control_endpoint=place)
        pool.StartWorker(request, task_manager)
    pool.StopWorker(beam_fn_api_pb2.StopWorkerRequest(worker_id="1-1"), task_manager)
    made[1].terminate()
    assert control.told.get(timeout=10) == ("2-1", [])
    assert control.told.empty(), "who asked for a worker's end is not told of it"
    server.stop(0).wait()


def test_end_of_one_task_managers_worker_leaves_that_of_another_with_the_same_id(started):
    pool, made = started
    first, second, third = (SimpleNamespace(peer=lambda port=port: f"ipv4:127.0.0.1:{port}") for port in (1, 2, 3))
    for task_manager in (first, second):
        pool.StartWorker(beam_fn_api_pb2.StartWorkerRequest(worker_id="1-1"), task_manager)
    stop = beam_fn_api_pb2.StopWorkerRequest(worker_id="1-1")
    for task_manager, ended in ((third, [False, False]), (first, [True, False]), (first, [True, False])):
        pool.StopWorker(stop, task_manager)
        assert [process.ended for process in made] == ended
    pool.stop()
    assert [process.ended for process in made] == [True, True]
