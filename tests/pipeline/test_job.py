"""A job on a cluster is not left alone, whoever ends first: the command, the job, or the job server."""

import _thread
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import apache_beam as beam
import grpc
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability.api import beam_job_api_pb2 as api
from apache_beam.portability.api import beam_job_api_pb2_grpc
from apache_beam.runners.runner import PipelineState

from components.errors import GraftError, Passing
from components.parallel import PORTABLE_RUNNER
from pipeline import job

# Beam's thread that reads messages has nobody to tell.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")


class JobServer(beam_job_api_pb2_grpc.JobServiceServicer):
    """Takes jobs and does nothing of them; a test says how they end."""

    def __init__(self):
        self.running, self.looked, self.ended = (threading.Event() for _ in range(3))
        self.cancelled = []
        self.end, self.text, self.is_silent = api.JobState.DONE, "", False
        self.breaks, self.refuses = False, False

    def DescribePipelineOptions(self, request, context):
        return api.DescribePipelineOptionsResponse()

    def Prepare(self, request, context):
        if self.refuses:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "a streaming pipeline")
        return api.PrepareJobResponse(preparation_id="prepared")

    def Run(self, request, context):
        return api.RunJobResponse(job_id="job-1")

    def GetState(self, request, context):
        self.looked.set()
        if self.is_silent:
            context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "")
        return api.JobStateEvent(state=api.JobState.RUNNING)

    def GetStateStream(self, request, context):
        if request.job_id == "prepared":
            context.abort(grpc.StatusCode.NOT_FOUND, "no such job")
        yield api.JobStateEvent(state=api.JobState.RUNNING)
        self.running.set()
        self.ended.wait()
        if self.breaks:
            context.abort(grpc.StatusCode.UNAVAILABLE, "a proxy went away")
        yield api.JobStateEvent(state=self.end)

    def GetMessageStream(self, request, context):
        self.ended.wait()
        if self.text:
            message = api.JobMessage(importance=api.JobMessage.JOB_MESSAGE_ERROR, message_text=self.text)
            yield api.JobMessagesResponse(message_response=message)

    def Cancel(self, request, context):
        if self.is_silent:
            context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "")
        if request.job_id == "gone":
            context.abort(grpc.StatusCode.NOT_FOUND, "no such job")
        self.cancelled.append(request.job_id)
        return api.CancelJobResponse(state=api.JobState.CANCELLED)


@pytest.fixture
def server():
    """(what answers, its address, what ends it at once)"""
    answers = JobServer()
    listening = grpc.server(ThreadPoolExecutor(8))
    beam_job_api_pb2_grpc.add_JobServiceServicer_to_server(answers, listening)
    port = listening.add_insecure_port("localhost:0")
    listening.start()
    yield answers, f"localhost:{port}", lambda: listening.stop(0)
    answers.ended.set()
    listening.stop(0).wait()


def _run(address: str):
    options = [PORTABLE_RUNNER, f"--job_endpoint={address}", "--job_server_timeout=1", "--environment_type=EXTERNAL"]
    pipeline = beam.Pipeline(options=PipelineOptions([*options, "--environment_config=localhost:1"]))
    _ = pipeline | beam.Create([0])
    return pipeline.run().wait_until_finish()


def _when_running(answers: JobServer, act) -> None:
    threading.Thread(target=lambda: (answers.running.wait(), act()), daemon=True).start()


def test_job_that_ends_well_is_noted_no_more_and_not_cancelled(server, tmp_path):
    answers, address, _ = server
    seen = []
    note = tmp_path / "job.json"

    def look() -> None:
        while not note.exists():
            time.sleep(0.01)
        seen.append(json.loads(note.read_text()))
        answers.ended.set()

    _when_running(answers, look)
    with job.noted_in(note):
        assert _run(address) == PipelineState.DONE
    assert seen == [{"job_server": address, "job": "job-1"}]
    assert not note.exists() and answers.cancelled == []


def test_job_is_cancelled_where_the_wait_is_interrupted(server, tmp_path, monkeypatch):
    answers, address, _ = server
    monkeypatch.setattr(job, "INTERVAL", 0.1)
    _when_running(answers, lambda: (answers.looked.wait(), _thread.interrupt_main()))
    with pytest.raises(KeyboardInterrupt), job.noted_in(tmp_path / "job.json"):
        _run(address)
    assert answers.cancelled == ["job-1"]
    assert not (tmp_path / "job.json").exists()


def test_job_of_a_killed_run_is_cancelled_by_the_next_one(server, tmp_path):
    answers, address, _ = server
    note = tmp_path / "job.json"
    note.write_text(json.dumps({"job_server": address, "job": "job-0"}))
    with job.noted_in(note):
        assert answers.cancelled == ["job-0"]
        assert not note.exists()


def test_note_of_a_job_that_the_server_does_not_know_is_removed(server, tmp_path):
    _, address, _ = server
    (tmp_path / "job.json").write_text(json.dumps({"job_server": address, "job": "gone"}))
    with job.noted_in(tmp_path / "job.json"):
        assert not (tmp_path / "job.json").exists()


@pytest.mark.parametrize("left", ["{", "[]", '{"job_server": 5}'])
def test_damaged_note_stops_no_run(left, tmp_path):
    (tmp_path / "job.json").write_text(left)
    with job.noted_in(tmp_path / "job.json"):
        assert not (tmp_path / "job.json").exists()


def test_note_stays_until_the_job_is_known_to_have_ended(server, tmp_path, monkeypatch):
    answers, address, _ = server
    monkeypatch.setattr(job, "INTERVAL", 0.1)
    note = tmp_path / "job.json"
    _when_running(answers, lambda: setattr(answers, "is_silent", True))
    with pytest.raises(Passing), job.noted_in(note):
        _run(address)
    assert json.loads(note.read_text()) == {"job_server": address, "job": "job-1"}
    answers.is_silent = False
    with job.noted_in(note):
        assert answers.cancelled == ["job-1"] and not note.exists()


def test_job_is_cancelled_where_its_stream_breaks_and_its_server_goes_on(server, tmp_path):
    answers, address, _ = server
    answers.breaks = True
    _when_running(answers, answers.ended.set)
    with pytest.raises(Passing, match="went away while a job ran"), job.noted_in(tmp_path / "job.json"):
        _run(address)
    assert answers.cancelled == ["job-1"]


def test_pipeline_that_the_job_server_refuses_is_told_with_its_reason_and_not_tried_again(server):
    answers, address, _ = server
    answers.refuses = True
    with pytest.raises(GraftError, match=r"refused the job \(INVALID_ARGUMENT: a streaming pipeline\)\.$") as caught:
        _run(address)
    assert not caught.value.may_pass


@pytest.mark.parametrize(("state", "word"), [(api.JobState.FAILED, "FAILED"), (api.JobState.CANCELLED, "CANCELLED")])
def test_job_that_fails_is_told_with_its_last_words(server, state, word):
    answers, address, _ = server
    answers.end, answers.text = state, "java.lang.Exception: no slot"
    _when_running(answers, answers.ended.set)
    with pytest.raises(RuntimeError, match=f"failed in state {word}: java.lang.Exception: no slot"):
        _run(address)
    assert answers.cancelled == []


def test_job_server_that_ends_is_told_at_once(server):
    answers, address, end = server
    _when_running(answers, end)
    began = time.monotonic()
    with pytest.raises(Passing, match=f"^Beam's job server at {address} went away while a job ran"):
        _run(address)
    assert time.monotonic() - began < job.INTERVAL


def test_job_server_that_answers_no_more_is_given_up(server, monkeypatch):
    answers, address, _ = server
    monkeypatch.setattr(job, "INTERVAL", 0.1)
    _when_running(answers, lambda: setattr(answers, "is_silent", True))
    with pytest.raises(Passing, match=r"went away while a job ran \(DEADLINE_EXCEEDED\)"):
        _run(address)


def test_job_server_that_takes_no_job_is_named():
    with pytest.raises(Passing, match=r"^Beam's job server at localhost:1 took no job"):
        _run("localhost:1")
