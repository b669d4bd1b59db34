"""What Dataflow would refuse minutes later is refused at once, in a sentence that names the key."""

import re

import pytest

from components.errors import UsageError
from components.steps import STEPS
from pipeline import compiled, dataflow
from pipeline.check import check
from pipeline.compile import described
from pipeline.config import load

IMAGE = "europe-west4-docker.pkg.dev/project/graft/graft:1"
PLACES = (["gs://bucket/images"], "gs://bucket/root")


def configured(*overrides: str):
    return load(None, ["runner.beam=dataflow", "runner.dataflow={project: project, region: europe-west4}", *overrides])


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("project", "123456789012", "the id of a project"),
        ("project", "My Project", "the id of a project"),
        ("project", "abc", "6 to 30"),
        ("region", "europe-west4-a", "a region"),
        ("region", "Europe West", "a region"),
        ("zone", "europe-west4", "a zone"),
        ("staging_location", "bucket/staging", "a folder in a bucket"),
        ("staging_location", "s3://bucket/staging", "a folder in a bucket"),
        ("temp_location", "gs://bucket", "a folder in a bucket"),
        ("temp_location", "gs://Bucket/x", "a folder in a bucket"),
        ("image", "graft:1.2", "an image in a registry"),
        ("image", "someone/graft:1.2", "an image in a registry"),
        ("image", "localhost:5000/graft:1.2", "an image in a registry"),
        ("image", "gcr.io/project/Graft", "an image in a registry"),
        ("machine_type", "n2", "a machine type"),
        ("machine_type", "N2-standard-4", "a machine type"),
        ("machine_type", "n2_standard_4", "a machine type"),
        ("disk_type", "ssd", "pd-ssd"),
        ("network", "projects/p/global/networks/private", "the name of a network"),
        ("subnetwork", "private", "regions/REGION/subnetworks/NAME"),
        ("subnetwork", "regions/us-east1/subnetworks/private", "the region of the workers, europe-west4"),
        ("service_account", "graft-runner", "a service account of Google Cloud"),
        ("workers", "0", "greater than or equal to 1"),
        ("autoscaling", "basic", "throughput_based"),
    ],
)
def test_value_that_has_another_form_is_refused_by_its_key(key, value, allowed):
    with pytest.raises(UsageError, match=re.escape(allowed)) as refused:
        configured(f"runner.dataflow.{key}={value}")
    sentence = str(refused.value)
    assert sentence.startswith("Configuration key runner.dataflow") and key in sentence and "\n" not in sentence


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("project", "example.com:old-project"),
        ("region", "northamerica-northeast1"),
        ("zone", "us-central1-f"),
        ("staging_location", "gs://a_bucket.example.com/some/where/"),
        ("image", f"gcr.io/project/graft@sha256:{'0' * 64}"),
        ("image", "docker.io/someone/graft:1.2"),
        ("image", "registry.example.com:5000/graft"),
        ("machine_type", "e2-custom-4-16384"),
        ("machine_type", "a2-highgpu-1g"),
        ("machine_type", "c3-standard-8-lssd"),
        ("network", "private"),
        (
            "subnetwork",
            "https://www.googleapis.com/compute/v1/projects/host/regions/europe-west4/subnetworks/private",
        ),
        ("service_account", "123456789012-compute@developer.gserviceaccount.com"),
    ],
)
def test_value_that_dataflow_takes_is_taken(key, value):
    assert getattr(configured(f"runner.dataflow.{key}='{value}'").runner.dataflow, key) == value


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (("runner.dataflow.workers=9", "runner.dataflow.max_workers=3"), "workers must be at most max_workers"),
        (("name=2signs",), "needs a name that begins with a letter"),
        (("runner.service_account=pipeline-runner",), "set runner.dataflow.service_account"),
        (("runner.labels={app.kubernetes.io/name: graft}",), "runner.labels: Dataflow takes labels"),
        (("runner.labels={team: Vision}",), "runner.labels: Dataflow takes labels"),
        (("runner.beam_options=[--number_of_worker_harness_threads=many]",), "invalid int value: 'many'"),
        (("runner.beam_options=[--worker_region=a, --worker_zone=b]",), "worker_region and worker_zone are mutually"),
        (("runner.beam_options=[--dataflow_endpoint=nowhere]",), "Invalid url (nowhere)"),
    ],
)
def test_what_does_not_go_together_or_apache_beam_refuses_is_refused_before_anything_is_compiled(overrides, words):
    with pytest.raises(UsageError, match=re.escape(words)) as refused:
        compiled.specification("vertex", compiled.bind(configured(*overrides), *PLACES), IMAGE)
    assert "\n" not in str(refused.value)


def test_image_that_was_built_and_not_pushed_is_refused():
    with pytest.raises(UsageError, match=r"in a registry .* Received: graft:[\d.]+; push it, and give --image"):
        compiled.image_of(configured())
    assert compiled.image_of(configured(), IMAGE) == IMAGE
    # Then it is no concern of the workers'.
    assert compiled.image_of(configured(f"runner.dataflow.image={IMAGE}"), "graft:1") == "graft:1"


def test_places_are_under_the_pipeline_root_unless_they_are_told():
    config = configured("runner.dataflow.temp_location=gs://other/temporary")
    given = dataflow.arguments(config, "gs://bucket/root", IMAGE)
    assert "--staging_location=gs://bucket/root/staging" in given
    assert "--temp_location=gs://other/temporary" in given


def test_check_refuses_it_before_it_looks_at_images():
    with pytest.raises(UsageError, match=r"needs runner\.dataflow\.project"):
        check(load(None, ["runner.beam=dataflow"]), ["/no/such/folder"])


def test_person_is_told_which_steps_are_jobs_and_in_which_image():
    config = configured(f"runner.dataflow.image={IMAGE}", "runner.dataflow.machine_type=n2-standard-4")
    lines = described("vertex", compiled.bind(config, *PLACES), "registry.example/steps:1")
    (line,) = [line for line in lines if line.startswith("Dataflow: ")]
    assert line == (
        "Dataflow: the work of ImageExampleGen, StatisticsGen, Transform, GatedEvaluator, in project (europe-west4), "
        f"on n2-standard-4, in {IMAGE}"
    )


@pytest.mark.parametrize("step", STEPS)
def test_names_of_jobs_say_what_they_are_of_and_are_never_the_same(step):
    for pipeline in ("signs", 63 * "a", f"{41 * 'a'}{22 * '-'}"):
        first, second = (dataflow.job_name(pipeline, step) for _ in range(2))
        assert first != second and len(first) <= 63
        assert re.fullmatch("[a-z]([-a-z0-9]*[a-z0-9])?", first) and step.lower() in first
