"""The jobs that the steps of a compiled pipeline give to Dataflow, from the steps' own arguments, without Dataflow.

Beam's runner for Dataflow makes every job, lays it in a bucket and sends it; the edge is `tests.dataflow_service`,
which does what the workers would, from what lies in the bucket.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
from google.cloud.dataflow import AutoscalingAlgorithm, JobType, WorkerIPAddressConfiguration

from components.publishing import publish
from pipeline import batch, compiled, dataflow
from pipeline.answer_files import Csv
from pipeline.config import load
from pipeline.console import Steps
from pipeline.predict import Limits
from pipeline.step import Step, _parser
from tests.components.test_evaluation import NAMES, export_model, png
from tests.dataflow_service import DataflowService, Submitted
from tests.gcs_server import Store, google_storage
from tests.launcher import Launcher

IMAGE = "europe-west4-docker.pkg.dev/project/graft/graft:1"
OVERRIDES = [
    "name=signs",
    "model.backbone=graft_tiny",
    "model.weights=bundled",
    "transform.image_size=32",
    "runner.beam=dataflow",
    "runner.dataflow={project: project, region: europe-west4, machine_type: n2-standard-4, workers: 2, max_workers: 9}",
    "runner.dataflow.autoscaling=throughput_based",
    "runner.dataflow.disk_gib=50",
    "runner.dataflow.disk_type=pd-ssd",
    "runner.dataflow.subnetwork=regions/europe-west4/subnetworks/private",
    "runner.dataflow.public_ips=false",
    "runner.service_account=runner@project.iam.gserviceaccount.com",
    "runner.labels={team: vision}",
]
IMAGES_A_CLASS = 40
# What is in the names of all images, and nowhere else.
MARK = "picture-of"
STEPS = ("ImageExampleGen", "StatisticsGen", "Transform", "GatedEvaluator")
# Dataflow's own limits: of the request as JSON, and of the graph.
MOST_REQUEST, MOST_GRAPH = 20_000_000, 10_000_000


SHUFFLES = {
    # Numbers of chunks of the two lists, records of checked files, and names of files that were written: no images.
    "ImageExampleGen": {
        "Files/Chunks",
        "WriteRecords/Write",
        "Kept/Chunks",
        "Write examples/Files",
        "Write metadata/Files",
        "WriteLost/Write",
    },
    "StatisticsGen": {"GenerateStatistics/RunStatsGenerators", "WriteStatsOutput/WriteStats"},
    "Transform": {"Write/Files"},
    # Metrics and names of files.
    "GatedEvaluator": {
        "ExtractAndEvaluate/EvaluateMetricsAndPlots",
        "ExtractAndEvaluate/TrackInputBytes",
        "ExtractAndEvaluate/WritePredictions",
        "WriteResults/WriteEvalConfig",
        "WriteResults/WriteMetricsAndPlots",
    },
}


class InThisProcess(Launcher):
    """Runs tasks as the platform does, but for the container."""

    def run(self, name: str, scratch: Path) -> None:
        task = self.spec["root"]["dag"]["tasks"][name]
        component = self.spec["components"][task["componentRef"]["name"]]
        container = self.spec["deploymentSpec"]["executors"][component["executorLabel"]]["container"]
        asked = self._executor_input(name, task, component, {})
        options, arguments = _parser().parse_known_args([self._word(word, asked) for word in container["args"]])
        scratch.mkdir()
        Step(options, arguments, scratch).run(Steps())
        self.outputs[name] = self._told(asked)


class Nothing:
    """In the place of a model that no worker asks for."""


@dataclass
class Story:
    """What was run: the steps on Beam, one after the other, from ingestion on.

    Attributes:
      objects: in the bucket, in the end.
      jobs: by step.
      launcher: has the artifacts.
    """

    objects: dict[tuple[str, str], bytes]
    jobs: dict[str, list[Submitted]]
    launcher: Launcher

    def files(self, step: str, key: str) -> dict[str, bytes]:
        """Of an artifact."""
        start = f"root/signs/1/{step}/{key}/"
        return {name.removeprefix(start): data for (_, name), data in self.objects.items() if name.startswith(start)}


@pytest.fixture(scope="module")
def story(tmp_path_factory) -> Story:
    folder = tmp_path_factory.mktemp("dataflow")
    with pytest.MonkeyPatch.context() as monkeypatch, google_storage(monkeypatch, folder) as objects:
        service = DataflowService(objects)
        service.stand_in(monkeypatch)
        _store_what_was_there_before(objects, folder)
        bound = compiled.bind(load(None, OVERRIDES), ["gs://bucket/images"], "gs://bucket/root")
        spec = compiled.specification("vertex", bound, IMAGE)

        def read(uri: str) -> bytes:
            return objects["bucket", uri.removeprefix("gs://bucket/")]

        launcher = InThisProcess(spec, "gs://bucket/root", {}, folder, kubeflow=False, run_id="1", read=read)
        launcher.outputs["Trainer"] = {"model": {"name": "1", "uri": "gs://bucket/trained", "metadata": {}}}
        jobs = {}
        for name in STEPS:
            # None of the others reads statistics.
            service.works = name != "StatisticsGen"
            launcher.run(name, folder / name)
            jobs[name], service.jobs = service.jobs, []
        service.works = False
        jobs["graft predict"] = [_prediction(service, monkeypatch, folder, chunks) for chunks in (10, 10_000)]
        return Story(dict(objects), jobs, launcher)


def _store_what_was_there_before(objects: Store, folder: Path) -> None:
    """Images, the candidate, and a better model in service."""
    for class_name in NAMES:
        for number in range(IMAGES_A_CLASS):
            picture = png(class_name, "faint" if number % 2 else "strong", number)
            objects["bucket", f"images/{class_name}/{MARK}-{number}.png"] = picture
    candidate = export_model(folder / "candidate", shy="blue")
    for path in [path for path in candidate.rglob("*") if path.is_file()]:
        objects["bucket", f"trained/Format-Serving/{path.relative_to(candidate)}"] = path.read_bytes()
    publish(export_model(folder / "in_service"), "gs://bucket/root/signs/serving", keep=5)


def _prediction(service: DataflowService, monkeypatch, folder: Path, chunks: int) -> Submitted:
    """The job of `graft predict`, which does not take dataflow yet: its chunks lie in a folder of this machine."""
    arguments = dataflow.arguments(load(None, OVERRIDES), "gs://bucket/root", IMAGE)
    monkeypatch.setattr(batch, "local_arguments", lambda config: arguments)
    divided = SimpleNamespace(sizes=[100] * chunks)
    batch.answer_all(divided, folder, Csv, Nothing(), Limits(1, 1), load(None, OVERRIDES))
    return service.jobs.pop()


def test_ingestion_and_transform_are_two_jobs_each_and_statistics_and_evaluation_one(story):
    numbers = {"ImageExampleGen": 2, "StatisticsGen": 1, "Transform": 2, "GatedEvaluator": 1}
    assert {name: len(jobs) for name, jobs in story.jobs.items() if name in STEPS} == numbers
    assert {path.partition("/")[0] for path in story.files("ImageExampleGen", "examples")} == {
        "Split-train",
        "Split-eval",
        "Split-test",
    }
    assert "transform_fn/saved_model.pb" in story.files("Transform", "transform_graph")


@pytest.mark.parametrize("step", SHUFFLES)
def test_job_asks_for_the_machines_that_were_chosen_and_runs_in_the_image_alone(story, step):
    for submitted in story.jobs[step]:
        request, pool = submitted.request, submitted.pool
        job, environment = request.job, request.job.environment
        assert (request.project_id, request.location) == ("project", "europe-west4")
        assert job.name.startswith(f"signs-{step.lower()}-") and job.type_ == JobType.JOB_TYPE_BATCH
        assert job.labels["team"] == "vision"
        assert environment.service_account_email == "runner@project.iam.gserviceaccount.com"
        assert environment.temp_storage_prefix.startswith("storage.googleapis.com/bucket/root/temporary/signs-")
        assert (pool.machine_type, pool.num_workers, pool.disk_size_gb) == ("n2-standard-4", 2, 50)
        assert pool.disk_type == "compute.googleapis.com/projects//zones//diskTypes/pd-ssd"
        assert pool.autoscaling_settings.max_num_workers == 9
        assert pool.autoscaling_settings.algorithm == AutoscalingAlgorithm.AUTOSCALING_ALGORITHM_BASIC
        assert pool.subnetwork == "regions/europe-west4/subnetworks/private"
        assert pool.ip_configuration == WorkerIPAddressConfiguration.WORKER_IP_PRIVATE
        assert {each.container_image for each in pool.sdk_harness_container_images} == {IMAGE}
        assert submitted.images == {IMAGE}


@pytest.mark.parametrize(("step", "shuffles"), SHUFFLES.items())
def test_only_these_bring_elements_together_by_a_key_and_no_images_are_among_them(story, step, shuffles):
    names = [name for submitted in story.jobs[step] for name in submitted.shuffles]
    assert {_alike(name) for name in names} == shuffles


def _alike(name: str) -> str:
    """What is said of a shuffle above: the two parts of its name that tell most, and no split."""
    name = name.removeprefix("ExtractEvaluateAndWriteResults/")
    return "/".join(re.sub(r"\[\w+\]| (train|eval|test)\b", "", part) for part in name.split("/")[:2])


@pytest.mark.parametrize("step", SHUFFLES)
def test_graph_does_not_grow_with_the_images_as_it_says_nothing_of_a_single_one(story, step):
    for submitted in story.jobs[step]:
        assert b"apache_beam" in submitted.functions
        assert MARK.encode() not in submitted.functions + submitted.pipeline.SerializeToString()


@pytest.mark.parametrize("step", SHUFFLES)
def test_job_is_far_below_the_limits_of_dataflow(story, step):
    for submitted in story.jobs[step]:
        assert submitted.size < MOST_GRAPH / 10 and submitted.request_size < MOST_REQUEST / 1000


def test_workers_find_both_models_and_the_step_decides_on_what_they_wrote(story):
    written = story.files("GatedEvaluator", "evaluation")
    decision = json.loads(written["decision.json"])
    assert (decision["baseline_status"], decision["blessed"]) == ("compared", False)
    measured = decision["metrics"]
    assert measured["per_class"]["blue"]["recall"] < measured["baseline"]["per_class"]["blue"]["recall"] == 1.0
    lines = [line for name, data in written.items() if name.startswith("predictions/") for line in data.splitlines()]
    assert len(lines) == measured["examples"] and "eval_config.json" in written
    assert "NOT_BLESSED" in story.files("GatedEvaluator", "blessing")


def test_nothing_that_was_on_its_way_stays_beside_the_artifacts(story):
    assert [name for _, name in story.objects if "-temporary/" in name] == []
    # Of the staged jobs; Beam leaves them there.
    assert any(name.startswith("root/staging/signs-transform-") for _, name in story.objects)


def test_prediction_brings_numbers_of_chunks_together_and_does_not_grow_with_them(story):
    few, many = story.jobs["graft predict"]
    assert {_alike(name) for name in many.shuffles} == {"Chunks/MaybeReshuffle"}
    # 10,000 chunks are millions of images.
    assert many.images == {IMAGE} and many.size < 2 * few.size
