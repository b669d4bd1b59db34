"""The worker pool of a machine on which several task managers run."""

from types import SimpleNamespace

from apache_beam.portability.api import beam_fn_api_pb2

from pipeline.worker_pool import WorkerPool


class Process:
    """Stands for a worker that ends when it is told to."""

    pid = 1

    def __init__(self, target, args, daemon):
        self.ended = False

    def start(self):
        pass

    def is_alive(self):
        return not self.ended

    def terminate(self):
        self.ended = True

    def join(self, timeout=None):
        pass


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
