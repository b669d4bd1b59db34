"""`python -m pipeline.worker_pool`: starts the processes in which a cluster runs Graft's part of a pipeline.

Beam's own pool (`apache_beam.runners.worker.worker_pool_main`) does the same, with a new interpreter for each worker of
each job: ten seconds of imports every time. Here a process that has imported everything forks the workers, which are
there at once and share its memory. Whatever happens to one, the next is a fresh one.
"""

import argparse
import contextlib
import json
import logging
import multiprocessing
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
from apache_beam.portability.api import (
    beam_fn_api_pb2,
    beam_fn_api_pb2_grpc,
    beam_provision_api_pb2,
    beam_provision_api_pb2_grpc,
    endpoints_pb2,
)
from google.protobuf import json_format, text_format

from components.source import LOADED, ON_WORKERS, worker_source

# What the steps on Beam import.
PRELOADED = ["apache_beam.runners.worker.sdk_worker_main", *ON_WORKERS, "tfx.components.statistics_gen.executor"]
PATIENCE = 10  # seconds that a worker is given to end, or a runner to say what it wants


class WorkerPool(beam_fn_api_pb2_grpc.BeamFnExternalWorkerPoolServicer):
    """Beam's service for environments of the type EXTERNAL: a process for each worker that a runner asks for."""

    def __init__(self):
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(PRELOADED)
        # By who asked for it, too: every task manager of a machine gives its first worker the same id. Each asks for a
        # worker, and for its end, by a connection of its own.
        self._workers: dict[tuple[str, str], tuple[multiprocessing.Process, threading.Thread]] = {}
        self._lock = threading.Lock()

    def warm_up(self) -> None:
        """Has everything imported; the first worker waits for it otherwise.

        Workers then know of which source it was: the files may be edited while the pool runs.
        """
        os.environ[LOADED] = worker_source()
        process = self._context.Process(target=_nothing)
        process.start()
        process.join()

    def StartWorker(self, request, context):
        """Starts a worker, which connects to the runner by itself."""
        worker = (request.worker_id, context.peer())
        process = self._context.Process(target=_work, args=(request.SerializeToString(),), daemon=True)
        watch = threading.Thread(target=self._watch, args=(worker, process, request), daemon=True)
        with self._lock:
            process.start()
            self._workers[worker] = process, watch
        watch.start()
        logging.info("worker %s is process %d", request.worker_id, process.pid)
        return beam_fn_api_pb2.StartWorkerResponse()

    def StopWorker(self, request, context):
        """Ends a worker, by force where it does not heed.

        One that was asked for by another connection is left alone: it ends by itself when its runner is gone.
        """
        with self._lock:
            watched = self._workers.pop((request.worker_id, context.peer()), None)
        if watched is not None:
            _end(*watched)
        return beam_fn_api_pb2.StopWorkerResponse()

    def stop(self) -> None:
        """Ends all workers."""
        with self._lock:
            workers = list(self._workers.values())
            self._workers.clear()
        for watched in workers:
            _end(*watched)

    def _watch(
        self,
        worker: tuple[str, str],
        process: multiprocessing.Process,
        request: beam_fn_api_pb2.StartWorkerRequest,
    ) -> None:
        """Forgets a worker that ended; the runner is told of one that was killed, or crashed.

        It waits without end for a worker that ended before they were connected.
        """
        process.join()
        with self._lock:
            was_stopped = self._workers.get(worker, (None, None))[0] is not process
            if not was_stopped:
                del self._workers[worker]
        if was_stopped or process.exitcode == 0:
            return
        logging.warning("worker %s, process %d, ended with %d", request.worker_id, process.pid, process.exitcode)
        with grpc.insecure_channel(request.control_endpoint.url) as channel, contextlib.suppress(grpc.RpcError):
            control = beam_fn_api_pb2_grpc.BeamFnControlStub(channel)
            # A connection in its name that ends at once. Had it one of its own, that has ended, too.
            list(control.Control(iter(()), timeout=PATIENCE, metadata=[("worker_id", request.worker_id)]))


def _nothing() -> None:
    pass


def _end(process: multiprocessing.Process, watch: threading.Thread) -> None:
    # The thread alone asks whether it has ended: the answer can be read once.
    process.terminate()
    watch.join(PATIENCE)
    if watch.is_alive():
        process.kill()
        watch.join()


def _work(serialised: bytes) -> None:
    """Is a worker until the runner has no more for it; the process ends with it, whatever its threads are at."""
    from apache_beam.runners.worker import sdk_worker_main

    status = 1
    try:
        handler, harness, _ = sdk_worker_main.create_harness(_environment(serialised))
        try:
            harness.run()
            status = 0
        finally:
            if handler:
                handler.close()
    except Exception:
        logging.exception("the worker ended")
    finally:
        os._exit(status)


def _environment(serialised: bytes) -> dict[str, str]:
    """What Beam's boot program tells a worker in environment variables."""
    request = beam_fn_api_pb2.StartWorkerRequest.FromString(serialised)
    with grpc.insecure_channel(request.provision_endpoint.url) as channel:
        provision = beam_provision_api_pb2_grpc.ProvisionServiceStub(channel)
        metadata = [("worker_id", request.worker_id)]
        asked = beam_provision_api_pb2.GetProvisionInfoRequest()
        info = provision.GetProvisionInfo(asked, timeout=PATIENCE, metadata=metadata).info
    told = {
        "WORKER_ID": request.worker_id,
        "CONTROL_API_SERVICE_DESCRIPTOR": _text(request.control_endpoint),
        "PIPELINE_OPTIONS": json.dumps(json_format.MessageToDict(info.pipeline_options)),
        "RUNNER_CAPABILITIES": " ".join(info.runner_capabilities),
    }
    if request.logging_endpoint.url:
        told["LOGGING_API_SERVICE_DESCRIPTOR"] = _text(request.logging_endpoint)
    return told


def _text(endpoint: endpoints_pb2.ApiServiceDescriptor) -> str:
    return text_format.MessageToString(endpoints_pb2.ApiServiceDescriptor(url=endpoint.url))


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.worker_pool", description="Starts the workers that a cluster asks for."
    )
    parser.add_argument("--host", default="localhost", help="Address to listen at (default: localhost).")
    parser.add_argument("--port", type=int, default=50000, help="Port to listen at (default: 50000).")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    pool = WorkerPool()
    pool.warm_up()
    server = grpc.server(ThreadPoolExecutor())
    beam_fn_api_pb2_grpc.add_BeamFnExternalWorkerPoolServicer_to_server(pool, server)
    server.add_insecure_port(f"{options.host}:{options.port}")
    server.start()
    logging.info("listening at %s:%d", options.host, options.port)
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    with contextlib.ExitStack() as stack:
        stack.callback(pool.stop)
        stack.callback(lambda: server.stop(0).wait())
        stopped.wait()


if __name__ == "__main__":
    main()
