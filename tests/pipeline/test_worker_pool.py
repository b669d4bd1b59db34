"""The worker pool of a machine on which several task managers run."""

import threading
from types import SimpleNamespace

from apache_beam.portability.api import beam_fn_api_pb2

from pipeline.worker_pool import WorkerPool


class Process:
    """Stands for a worker that ends when it is told to."""

    pid = 1
    exitcode = -15

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


def test_end_of_one_task_managers_worker_leaves_that_of_another_with_the_same_id(monkeypatch):
    made = []
    pool = WorkerPool()
    monkeypatch.setattr(
        pool, "_context", SimpleNamespace(Process=lambda **given: made.append(Process(**given)) or made[-1])
    )
    first, second, third = (SimpleNamespace(peer=lambda port=port: f"ipv4:127.0.0.1:{port}") for port in (1, 2, 3))
    for task_manager in (first, second):
        pool.StartWorker(beam_fn_api_pb2.StartWorkerRequest(worker_id="1-1"), task_manager)
    stop = beam_fn_api_pb2.StopWorkerRequest(worker_id="1-1")
    for task_manager, ended in ((third, [False, False]), (first, [True, False]), (first, [True, False])):
        pool.StopWorker(stop, task_manager)
        assert [process.ended for process in made] == ended
    pool.stop()
    assert [process.ended for process in made] == [True, True]
