"""A job on a cluster is not left alone: cancelled where nobody waits for it any more, and its server looked after.

Beam submits a pipeline to a job server and waits for its end. Who stops waiting leaves the job on the cluster, with
hours of work before it, and a job server that is gone without a word would be waited for as long as that may take.
"""

import contextlib
import json
import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
from apache_beam.options.pipeline_options import PortableOptions
from apache_beam.portability.api import beam_job_api_pb2, beam_job_api_pb2_grpc
from apache_beam.runners.portability import portable_runner

from components import causes
from components.errors import GraftError, Passing
from components.files import write_whole

# Seconds between two looks at the job server, and those that it has to answer; it is given up after two misses.
INTERVAL = 10
PATIENCE = 10
UNREACHABLE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)

_LOGGER = logging.getLogger(__name__)
# Where jobs are noted while somebody waits for them.
_notes: Path | None = None


class Runner(portable_runner.PortableRunner):
    """Beam's runner for job servers, with a `Job` as the result."""

    def run_portable_pipeline(self, pipeline, options):
        """Submits a pipeline.

        Raises:
          Passing: the job server does not answer.
          GraftError: it refuses the pipeline.
        """
        job_server = options.view_as(PortableOptions).job_endpoint
        try:
            submitted = super().run_portable_pipeline(pipeline, options)
        except (grpc.RpcError, grpc.FutureTimeoutError) as error:
            if isinstance(error, grpc.RpcError) and error.code() not in UNREACHABLE:
                said = f"{_said(error)}: {causes.said(error.details() or '').rstrip('.')}"
                raise GraftError(f"Beam's job server at {job_server} refused the job ({said}).") from error
            raise Passing(
                f"Beam's job server at {job_server} took no job ({_said(error)}): see that it runs, and run the same "
                "command again."
            ) from error
        return Job(submitted, job_server)


class Job(portable_runner.PipelineResult):
    """A pipeline that a job server took."""

    def __init__(self, submitted: portable_runner.PipelineResult, job_server: str):
        super().__init__(
            submitted._job_service,
            submitted._job_id,
            submitted._message_stream,
            submitted._state_stream,
            submitted._cleanup_callbacks,
        )
        self._job_server = job_server
        self._note = _notes
        if self._note is not None:
            write_whole(self._note, json.dumps({"job_server": job_server, "job": self._job_id}) + "\n")

    def wait_until_finish(self, duration=None):
        """Waits for the end of the work; the job is cancelled where that is interrupted.

        Raises:
          Passing: the job server ended, or cannot be reached any more.
          RuntimeError: the job failed, or somebody cancelled it.
        """
        ended: list[BaseException | str] = []
        over = threading.Event()

        def wait() -> None:
            try:
                ended.append(super(Job, self).wait_until_finish(duration))
            # Told by the thread that asked.
            except BaseException as error:
                ended.append(error)
            over.set()

        # In a thread: a stream of a server that is gone without a word is waited for, whatever signal comes.
        threading.Thread(target=wait, daemon=True).start()
        try:
            self._look_after(over)
            (end,) = ended
            # A stream may break where the job goes on.
            if isinstance(end, grpc.RpcError):
                raise self._gone(end) from end
        except BaseException:
            self.cancel()
            raise
        self._forget()
        if isinstance(end, BaseException):
            raise end
        return end

    def _look_after(self, over: threading.Event) -> None:
        misses = 0
        while not over.wait(INTERVAL):
            try:
                self._job_service.GetState(beam_job_api_pb2.GetJobStateRequest(job_id=self._job_id), timeout=PATIENCE)
                misses = 0
            except grpc.RpcError as error:
                misses += 1
                if misses == 2 and not over.is_set():
                    raise self._gone(error) from error

    def _gone(self, error: grpc.RpcError) -> Passing:
        return Passing(
            f"Beam's job server at {self._job_server} went away while a job ran ({_said(error)}): see that it runs and "
            "that the cluster's page shows no such job any more, and run the same command again."
        )

    def cancel(self) -> None:
        """Has the job end; where the job server does not answer, the note of it stays for the next run."""
        if _cancelled(self._job_service, self._job_id):
            self._forget()

    def _forget(self) -> None:
        if self._note is not None:
            self._note.unlink(missing_ok=True)


def _said(error: Exception) -> str:
    return error.code().name if isinstance(error, grpc.RpcError) else "no answer in time"


def _cancelled(service: beam_job_api_pb2_grpc.JobServiceStub, job: str) -> bool:
    """Cancels a job; whether it is known that there is none any more."""
    try:
        service.Cancel(beam_job_api_pb2.CancelJobRequest(job_id=job), timeout=PATIENCE)
    except grpc.RpcError as error:
        _LOGGER.warning("the job %s could not be cancelled: %s", job, error)
        return error.code() == grpc.StatusCode.NOT_FOUND
    return True


@contextlib.contextmanager
def noted_in(file: Path) -> Iterator[None]:
    """While the body runs, notes jobs in a file; one that was left there is cancelled, at the beginning and the end.

    Args:
      file: to be used by one process at a time.
    """
    global _notes
    _cancel_left(file)
    _notes = file
    try:
        yield
    finally:
        _notes = None
        _cancel_left(file)


def _cancel_left(file: Path) -> None:
    try:
        left = json.loads(file.read_text())
        server, job = str(left["job_server"]), str(left["job"])
    except FileNotFoundError:
        return
    # Of a damaged note nothing follows.
    except (OSError, ValueError, KeyError, TypeError):
        file.unlink(missing_ok=True)
        return
    with grpc.insecure_channel(server) as channel:
        if _cancelled(beam_job_api_pb2_grpc.JobServiceStub(channel), job):
            file.unlink(missing_ok=True)
