"""Dataflow as far as a submission goes, with Beam's own runner in front of it: no job leaves this process.

What Beam's runner lays in the bucket and what it would send are the real ones. The job is then done here, from what
lies in the bucket.
"""

import base64
import bz2
import contextlib
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability import common_urns, python_urns
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.runners.dataflow.internal import apiclient
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from google.cloud import dataflow

GROUP_BY_KEY = common_urns.primitives.GROUP_BY_KEY.urn


@dataclass
class Submitted:
    """A job.

    Attributes:
      request: of the API, `CreateJobRequest`.
      pipeline: that its workers are given.
      size: bytes of that as it lies in the bucket.
    """

    request: dataflow.CreateJobRequest
    pipeline: beam_runner_api_pb2.Pipeline
    size: int

    @property
    def pool(self) -> dataflow.WorkerPool:
        """The machines."""
        (pool,) = self.request.job.environment.worker_pools
        return pool

    @property
    def images(self) -> set[str]:
        """Containers that anything of the pipeline runs in."""
        environments = self.pipeline.components.environments.values()
        assert all(each.urn == common_urns.environments.DOCKER.urn for each in environments)
        return {beam_runner_api_pb2.DockerPayload.FromString(each.payload).container_image for each in environments}

    @property
    def functions(self) -> bytes:
        """What workers call, with the values that came along, as far as it is packed."""
        found = []
        for transform in self.pipeline.components.transforms.values():
            if transform.spec.urn == common_urns.primitives.PAR_DO.urn:
                packed = beam_runner_api_pb2.ParDoPayload.FromString(transform.spec.payload).do_fn.payload
                with contextlib.suppress(ValueError, zlib.error):
                    compressed = base64.b64decode(packed, validate=True)
                    found.append((bz2 if compressed.startswith(b"BZh") else zlib).decompress(compressed))
        return b"".join(found)

    @property
    def request_size(self) -> int:
        """Bytes of the request as JSON, which is how Dataflow counts them."""
        return len(dataflow.CreateJobRequest.to_json(self.request, indent=None))

    @property
    def shuffles(self) -> set[str]:
        """Names of what brings elements together by a key."""
        transforms = self.pipeline.components.transforms.values()
        return {each.unique_name for each in transforms if each.spec.urn == GROUP_BY_KEY}


class DataflowService:
    """Takes jobs and does them.

    Args:
      objects: in the bucket that jobs are laid in.

    Attributes:
      jobs: that were submitted.
      works: whether they are done.
    """

    def __init__(self, objects: Mapping[tuple[str, str], bytes]):
        self.jobs: list[Submitted] = []
        self.works = True
        self._objects = objects

    def stand_in(self, monkeypatch) -> None:
        """Has Beam's runner submit jobs here."""
        monkeypatch.setattr(apiclient, "get_service_credentials", lambda options: None)
        monkeypatch.setattr(
            apiclient.DataflowApplicationClient, "submit_job_description", lambda client, job: self._submit(client, job)
        )

    def _submit(self, client: apiclient.DataflowApplicationClient, job: apiclient.Job) -> dataflow.Job:
        options = client.google_cloud_options
        request = dataflow.CreateJobRequest(project_id=options.project, location=options.region, job=job.proto)
        url = job.proto.environment.sdk_pipeline_options["options"]["pipelineUrl"]
        bucket, _, name = url.removeprefix("gs://").partition("/")
        staged = self._objects[bucket, name]
        self.jobs.append(Submitted(request, beam_runner_api_pb2.Pipeline.FromString(staged), len(staged)))
        if self.works:
            self._work(beam_runner_api_pb2.Pipeline.FromString(staged))
        return dataflow.Job(id=f"job-{len(self.jobs)}", current_state=dataflow.JobState.JOB_STATE_DONE)

    def _work(self, pipeline: beam_runner_api_pb2.Pipeline) -> None:
        for environment in pipeline.components.environments.values():
            environment.urn, environment.payload = python_urns.EMBEDDED_PYTHON, b""
            del environment.dependencies[:]
        FnApiRunner().run_via_runner_api(pipeline, PipelineOptions(["--runner=FnApiRunner"])).wait_until_finish()
