"""What `graft compile` writes: for every step what a person asked for, and nothing that a platform would misread."""

import json
import re

import pytest
import yaml
from google.protobuf import json_format

from components.errors import UsageError
from components.parallel import PORTABLE_RUNNER
from components.steps import STEPS
from pipeline import compiled
from pipeline.bound import Bound, parameter_name
from pipeline.compile import described
from pipeline.config import changed, load
from pipeline.runners import BY_WORKERS

IMAGE = "europe-docker.pkg.dev/project/graft:0.1.0"
SETTINGS = """
name: week-ly
model: {backbone: graft_tiny, weights: bundled}
data: {spans: 3}
training: {balance: weights}
push: {license: CC-BY-4.0}
runner:
  resources:
    default: {cpu: 2, memory_gib: 7.5}
    Trainer:
      cpu: 7.5
      accelerator: nvidia.com/gpu
      accelerators: 2
      node_labels: {cloud.google.com/gke-accelerator: nvidia-tesla-t4}
      retries: 0
    ImageExampleGen: {memory_gib: 16, retries: 3}
  retries: 2
  retry_seconds: 30
  service_account: runner@project.iam.gserviceaccount.com
  labels: {team: vision}
  env: {HTTPS_PROXY: 'http://proxy:3128', A: b}
  volumes: [{name: images, path: /data}]
  secrets: [{name: account, path: /secrets}]
  parameters: [data.spans, training.frozen.learning_rate, data.follow_symlinks, evaluation.min_accuracy, push.formats,
    training.fine_tune.unfreeze]
"""
CACHED = {"StatisticsGen", "ExampleValidator", "Transform", "Trainer"}
PARAMETERS = {
    "images": ("STRING", "gs://bucket/days/{SPAN}"),
    "data_spans": ("NUMBER_INTEGER", 3),
    "training_frozen_learning_rate": ("NUMBER_DOUBLE", 0.001),
    "data_follow_symlinks": ("BOOLEAN", False),
    "evaluation_min_accuracy": ("STRING", "null"),
    "push_formats": ("STRING", '["keras"]'),
    "training_fine_tune_unfreeze": ("STRING", "0.35"),
}
# Apache Beam's options where it runs in the step.
LOCAL = ["--runner=FnApiRunner", "--sdk_container_image=none"]
# What Vertex calls an accelerator.
T4 = "runner.resources.Trainer.accelerator=NVIDIA_TESLA_T4"
# What Kubernetes or Argo would expand in commands, arguments and constants.
EXPANDED = re.compile(r"\{\{|\$\(|\$\$")
PLACEHOLDERS = ("{{$}}", "{{$.pipeline_job_uuid}}")


def bound_to(settings: str = SETTINGS, *images: str, overrides: tuple[str, ...] = (), **options) -> Bound:
    config = changed(yaml.safe_load(settings), list(overrides))
    return compiled.bind(config, list(images or ("gs://bucket/days/{SPAN}",)), **options)


@pytest.fixture(scope="module")
def bound() -> Bound:
    return bound_to()


@pytest.fixture(scope="module")
def text(bound) -> str:
    """For Kubeflow, as it is written."""
    return compiled.dump("kubeflow", bound, IMAGE)


@pytest.fixture(scope="module")
def spec(text) -> dict:
    return next(yaml.safe_load_all(text))


@pytest.fixture(scope="module")
def platform(text) -> dict:
    """The second document."""
    _, second = yaml.safe_load_all(text)
    return second["platforms"]["kubernetes"]["deploymentSpec"]["executors"]


@pytest.fixture(scope="module")
def job() -> dict:
    """For Vertex."""
    return json.loads(compiled.dump("vertex", bound_to(overrides=(T4,)), IMAGE))


def task(spec: dict, step: str) -> dict:
    return spec["root"]["dag"]["tasks"][step]


def component(spec: dict, step: str) -> dict:
    return spec["components"][task(spec, step)["componentRef"]["name"]]


def container(spec: dict, step: str) -> dict:
    return spec["deploymentSpec"]["executors"][component(spec, step)["executorLabel"]]["container"]


def strings(value) -> list[str]:
    """Every text in a structure."""
    if isinstance(value, dict):
        return [text for each in value.values() for text in strings(each)]
    if isinstance(value, list):
        return [text for each in value for text in strings(each)]
    return [value] if isinstance(value, str) else []


# ---- every step -----------------------------------------------------------------------------------------------------


def test_steps_are_those_of_the_graph_each_a_container(spec):
    assert set(spec["root"]["dag"]["tasks"]) == set(STEPS)
    assert spec["schemaVersion"] == "2.1.0"
    assert spec["pipelineInfo"] == {"name": "week-ly"}
    assert all(list(each) == ["container"] for each in spec["deploymentSpec"]["executors"].values()), "no importer"
    assert len(spec["deploymentSpec"]["executors"]) == len(spec["components"]) == len(STEPS)


@pytest.mark.parametrize("step", STEPS)
def test_command_and_image(spec, step):
    found = container(spec, step)
    assert (found["image"], found["command"]) == (IMAGE, ["python", "-P", "-m", "pipeline.step"])
    given = dict(zip(found["args"][:10:2], found["args"][1:10:2], strict=True))
    assert given["--json_serialized_invocation_args"] == "{{$}}"
    assert given["--step"] == step
    assert json.loads(given["--json_serialized_inputs_spec_args"]) == component(spec, step)["inputDefinitions"]
    assert Bound.parse(given["--bound"]) == bound_to()
    assert found["args"][10:] == LOCAL


@pytest.mark.parametrize("step", STEPS)
def test_resources_are_given_in_both_forms(spec, step):
    cpu, memory = (7.5 if step == "Trainer" else 2), (16 if step == "ImageExampleGen" else 7.5)
    found = container(spec, step)["resources"]
    number = round(memory * 2**30 / 1e9, 3)
    assert {name: found[name] for name in found if name != "accelerator"} == {
        "cpuLimit": cpu,
        "cpuRequest": cpu,
        "memoryLimit": number,
        "memoryRequest": number,
        "resourceCpuLimit": f"{cpu:g}",
        "resourceCpuRequest": f"{cpu:g}",
        "resourceMemoryLimit": f"{memory:g}Gi",
        "resourceMemoryRequest": f"{memory:g}Gi",
    }
    wanted = {"type": "nvidia.com/gpu", "count": "2", "resourceType": "nvidia.com/gpu", "resourceCount": "2"}
    assert found.get("accelerator") == (wanted if step == "Trainer" else None)


@pytest.mark.parametrize("step", STEPS)
def test_retries_and_cache(spec, job, step):
    count = {"Trainer": 0, "ImageExampleGen": 3}.get(step, 2)
    policy = {"maxRetryCount": count, "backoffDuration": "30s", "backoffFactor": 2.0}
    # Kubeflow counts the time that a step runs.
    assert task(spec, step)["retryPolicy"] == policy | {"backoffMaxDuration": "604800s"}
    assert task(job["pipelineSpec"], step)["retryPolicy"] == policy | {"backoffMaxDuration": "3600s"}
    # Relabelled images must not be answered with old labels, nor what is in service with what was.
    assert task(spec, step)["cachingOptions"] == ({"enableCache": True} if step in CACHED else {})


@pytest.mark.parametrize("step", STEPS)
def test_environment(spec, step):
    pairs = [{"name": "A", "value": "b"}, {"name": "HTTPS_PROXY", "value": "http://proxy:3128"}]
    assert container(spec, step)["env"] == pairs


@pytest.mark.parametrize(("target", "accelerator"), [("kubeflow", "NVIDIA_TESLA_T4"), ("vertex", "nvidia.com/gpu")])
def test_accelerator_of_the_other_platform_is_refused(target, accelerator):
    bound = bound_to("{}", overrides=(f"runner.resources={{Transform: {{accelerator: {accelerator}}}}}",))
    with pytest.raises(UsageError, match=f"Transform asks for the accelerator {accelerator}, but "):
        compiled.specification(target, bound, IMAGE)


def test_vertex_is_told_its_own_name_of_the_accelerator(job):
    assert container(job["pipelineSpec"], "Trainer")["resources"]["accelerator"]["type"] == "NVIDIA_TESLA_T4"


def test_cache_can_be_off_everywhere():
    found = compiled.specification("kubeflow", bound_to(overrides=("runner.cache=false",)), IMAGE)
    assert all(each["cachingOptions"] == {} for each in found["root"]["dag"]["tasks"].values())


def test_run_time_parameters_are_declared_with_types_and_defaults(spec, job):
    declared = {
        name: (given["parameterType"], given["defaultValue"])
        for name, given in spec["root"]["inputDefinitions"]["parameters"].items()
    }
    assert declared == PARAMETERS
    assert job["runtimeConfig"]["parameterValues"] == {name: value for name, (_, value) in PARAMETERS.items()}


@pytest.mark.parametrize("step", STEPS)
def test_every_step_is_given_every_run_time_parameter(spec, step):
    for name, (kind, _) in PARAMETERS.items():
        assert component(spec, step)["inputDefinitions"]["parameters"][f"set_{name}"] == {"parameterType": kind}
        assert task(spec, step)["inputs"]["parameters"][f"set_{name}"] == {"componentInputParameter": name}


@pytest.mark.parametrize("step", STEPS)
def test_steps_that_write_down_the_run_are_told_it_and_the_others_can_be_cached(spec, step):
    given = task(spec, step)["inputs"]["parameters"].get("run_id")
    told = {"runtimeValue": {"constant": "{{$.pipeline_job_uuid}}"}}
    assert given == (told if step in ("AtomicPusher", "Report") else None)


@pytest.mark.parametrize("step", STEPS)
def test_every_parameter_of_a_component_is_bound(spec, step):
    """An unbound one would let Kubeflow's driver fail."""
    assert set(component(spec, step)["inputDefinitions"]["parameters"]) == set(task(spec, step)["inputs"]["parameters"])


def test_every_own_artifact_type_is_known_to_the_command(spec):
    from tfx.orchestration.kubeflow.v2 import compiler_utils
    from tfx.utils import import_utils

    from pipeline.step import ARTIFACTS

    titles = set(re.findall(r"title: ([\w.]+)", "\n".join(strings(spec["components"]))))
    assert {title for title in titles if title.startswith("graft.")} == set(ARTIFACTS)
    assert titles - set(ARTIFACTS) <= set(compiler_utils.TITLE_TO_CLASS_PATH)
    for title, path in ARTIFACTS.items():
        assert title == import_utils.import_class_by_path(path).TYPE_NAME


# ---- what only one platform has -------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", STEPS)
def test_kubernetes_is_told_of_labels_volumes_secrets_and_nodes(spec, platform, step):
    found = platform[component(spec, step)["executorLabel"]]
    assert found["podMetadata"] == {"labels": {"team": "vision"}}
    constant = {"runtimeValue": {"constant": "images"}}
    assert found["pvcMount"] == [{"constant": "images", "pvcNameParameter": constant, "mountPath": "/data"}]
    constant = {"runtimeValue": {"constant": "account"}}
    assert found["secretAsVolume"] == [
        {"secretName": "account", "secretNameParameter": constant, "mountPath": "/secrets"}
    ]
    labels = {"labels": {"cloud.google.com/gke-accelerator": "nvidia-tesla-t4"}}
    tolerated = [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    expected = (labels, tolerated) if step == "Trainer" else (None, None)
    assert (found.get("nodeSelector"), found.get("tolerations")) == expected


def test_second_document_is_left_out_where_nothing_is_asked_of_kubernetes():
    assert len(list(yaml.safe_load_all(compiled.dump("kubeflow", bound_to("{}"), IMAGE)))) == 1


def test_vertex_job_names_account_labels_and_folder(job, spec):
    assert (job["displayName"], job["labels"]) == ("week-ly", {"team": "vision"})
    assert job["serviceAccount"] == "runner@project.iam.gserviceaccount.com"
    assert job["runtimeConfig"]["gcsOutputDirectory"] == spec["defaultPipelineRoot"] == "gs://bucket/days/week-ly"


# ---- what others read -----------------------------------------------------------------------------------------------


def test_kfp_reads_it(text):
    from kfp.components import load_component_from_text

    read = load_component_from_text(text)
    assert set(read.pipeline_spec.root.input_definitions.parameters) == set(PARAMETERS)


def test_no_field_is_unknown_to_the_protobuf(spec, job):
    from kfp.pipeline_spec import pipeline_spec_pb2

    for each in (spec, job["pipelineSpec"]):
        json_format.ParseDict(each, pipeline_spec_pb2.PipelineSpec())


def test_client_of_vertex_takes_it(job, tmp_path):
    from google.auth.credentials import AnonymousCredentials
    from google.cloud.aiplatform import PipelineJob

    file = tmp_path / "job.json"
    file.write_text(json.dumps(job))
    made = PipelineJob(
        display_name="x",
        template_path=str(file),
        parameter_values={"data_spans": 4},
        project="project",
        location="europe-west4",
        credentials=AnonymousCredentials(),
    )
    values = made.runtime_config.parameter_values if hasattr(made, "runtime_config") else {}
    assert set(values or PARAMETERS) == set(PARAMETERS)


@pytest.mark.parametrize(("target", "overrides"), [("kubeflow", ()), ("vertex", (T4,))])
def test_the_same_is_compiled_to_the_same_bytes(target, overrides):
    first, second = (compiled.dump(target, bound_to(overrides=overrides), IMAGE) for _ in range(2))
    assert first == second


# ---- what is expanded on the way ------------------------------------------------------------------------------------

HOSTILE = (
    "{{workflow.name}} {{=1+1}} {{ $$ $(KFP_POD_NAME) $(date) {{$.inputs.parameters['set_images']}} 'quoted' \"twice\" "
    "back\\slash\nnew line é \u2028 }}"
)


@pytest.mark.parametrize("target", compiled.TARGETS)
def test_nothing_in_a_configuration_is_expanded_on_the_way(target):
    group = "^(.{2}){{workflow.name}}$$(?:$(KFP_POD_NAME))$"
    config = load(
        None,
        [
            f"data.split.salt={json.dumps(HOSTILE)}",
            f"data.split.group={json.dumps(group)}",
            f"push.license={json.dumps(HOSTILE)}",
            f"evaluation.slices={json.dumps([{HOSTILE: group}])}",
        ],
    )
    spec = compiled.specification(target, compiled.bind(config, ["gs://bucket/a b/ü'\"%20;$HOME/x"]), IMAGE)
    for text in strings(spec):
        assert text in PLACEHOLDERS or not EXPANDED.search(text), text
    args = container(spec, "AtomicPusher")["args"]
    there = Bound.parse(args[args.index("--bound") + 1]).config
    assert there == config
    constant = task(spec, "ImageExampleGen")["inputs"]["parameters"]["settings"]["runtimeValue"]["constant"]
    assert json.loads(constant)["rules"]["group"] == group


@pytest.mark.parametrize(
    ("images", "options", "overrides"),
    [
        ("gs://bucket/{{x}}", {}, ()),
        ("gs://bucket/x", {"pipeline_root": "gs://bucket/$(HOME)"}, ()),
        ("gs://bucket/x", {}, ("push.destination=gs://bucket/$$",)),
        ("gs://bucket/x", {}, ("push.license='{{x}}'", "runner.parameters=[push.license]")),
        ("gs://bucket/x", {}, ("runner.env={A: '{{x}}'}",)),
    ],
)
def test_what_would_be_expanded_and_cannot_be_escaped_is_refused(images, options, overrides):
    with pytest.raises(UsageError, match=r"Kubernetes or Argo would expand"):
        compiled.dump("kubeflow", bound_to("{}", images, overrides=overrides, **options), IMAGE)


# ---- Dataflow -------------------------------------------------------------------------------------------------------

DATAFLOW = (
    "runner.beam=dataflow",
    "runner.dataflow={project: project, region: europe-west4}",
    "runner.dataflow.machine_type=n2-standard-4",
    "runner.dataflow.max_workers=9",
    "runner.dataflow.disk_gib=50",
    "runner.beam_options=[--number_of_worker_harness_threads=4]",
)


@pytest.mark.parametrize("step", STEPS)
def test_dataflow_does_the_work_of_four_steps_in_the_same_image(step):
    spec = compiled.specification("vertex", bound_to(overrides=(*DATAFLOW, T4)), IMAGE)
    options = container(spec, step)["args"][10:]
    if step not in BY_WORKERS:
        assert options == LOCAL
        return
    assert options == [
        "--runner=DataflowRunner",
        "--project=project",
        "--region=europe-west4",
        "--temp_location=gs://bucket/days/week-ly/temporary",
        "--staging_location=gs://bucket/days/week-ly/staging",
        f"--sdk_container_image={IMAGE}",
        "--sdk_location=container",
        "--worker_machine_type=n2-standard-4",
        "--max_num_workers=9",
        "--disk_size_gb=50",
        "--service_account_email=runner@project.iam.gserviceaccount.com",
        "--labels=team=vision",
        "--number_of_worker_harness_threads=4",
    ]


@pytest.mark.parametrize(("engine", "root"), [("flink", "gs://bucket/runs"), ("spark", "/volume/runs")])
def test_engine_does_the_work_of_four_steps_with_the_image_that_the_steps_run_in(engine, root):
    overrides = (f"runner.beam={engine}", f"runner.{engine}.workers=docker", "runner.beam_options=[--parallelism=7]")
    spec = compiled.specification("kubeflow", bound_to("{}", pipeline_root=root, overrides=overrides), IMAGE)
    for step in STEPS:
        options = container(spec, step)["args"][10:]
        if step not in BY_WORKERS:
            assert options == LOCAL
            continue
        assert options[0] == PORTABLE_RUNNER
        assert f"--environment_config={IMAGE}" in options and f"--sdk_container_image={IMAGE}" in options
        assert options[-1] == "--parallelism=7"


def test_options_of_beam_reach_every_step_where_it_runs_there():
    found = compiled.specification(
        "kubeflow", bound_to(overrides=("runner.beam=processes", "runner.beam_options=[--x=1]")), IMAGE
    )
    processes = ["--direct_running_mode=multi_processing", "--direct_num_workers=0"]
    wanted = [LOCAL[0], *processes, LOCAL[1], "--x=1"]
    assert all(container(found, step)["args"][10:] == wanted for step in STEPS)


# ---- where things go ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("images", "root"),
    [
        ("gs://bucket/images", "gs://bucket/graft"),
        ("gs://bucket/images/", "gs://bucket/graft"),
        ("gs://bucket/days/{SPAN}", "gs://bucket/days/graft"),
        ("gs://bucket/days/day-{SPAN:3}/images", "gs://bucket/days/graft"),
        ("gs://bucket/{SPAN}", "gs://bucket/graft"),
        ("gs://bucket/list.csv", "gs://bucket/graft"),
        ("/data/images", "/data/graft"),
        ("/images", "/graft"),
        ("file:///data/images", "/data/graft"),
    ],
)
def test_what_is_not_told_lies_beside_the_images(images, root):
    bound = bound_to("{}", images)
    assert (bound.root, bound.serving, bound.schema_folder) == (root, f"{root}/serving", f"{root}/schema")


def test_pipelines_that_are_given_one_root_publish_beside_each_other():
    first, second = (bound_to(f"name: {name}", pipeline_root="gs://a/runs") for name in ("signs", "flowers"))
    assert (first.serving, first.schema_folder) == ("gs://a/runs/signs/serving", "gs://a/runs/signs/schema")
    assert second.serving == "gs://a/runs/flowers/serving"


def test_places_that_are_told_win():
    overrides = ("runner.pipeline_root=gs://a/root/", "push.destination=s3://b/serving")
    bound = bound_to("{}", "gs://bucket/images", "gs://other/images", overrides=overrides)
    assert (bound.root, bound.serving, bound.schema_folder) == (
        "gs://a/root",
        "s3://b/serving",
        "s3://b/serving-schema",
    )
    assert bound_to("{}", overrides=overrides, pipeline_root="minio://c").root == "minio://c"


@pytest.mark.parametrize(
    ("images", "root", "overrides", "words"),
    [
        ("gs://bucket/images", None, ("name=Weekly",), "lower case letters"),
        ("gs://bucket/images", None, ("name=a_b",), "lower case letters"),
        ("gs://bucket/images", None, (f"name={64 * 'a'}",), "at most 63 lower case letters"),
        ("gs://bucket", None, (), "whole bucket"),
        ("gs://bucket/images", None, ("push.destination=gs://models",), "give a folder in it"),
        ("gs://bucket/images", None, ("push.destination=gs://models/",), "give a folder in it"),
        ("gs://bucket/images", None, ("push.destination=/",), "give a folder in it"),
        ("gs://bucket/images", "gs://bucket/images/graft", (), "inside the image folder"),
        ("gs://bucket/images", "gs://bucket/images", (), "inside the image folder"),
        ("/data", "/data/graft", (), "inside the image folder"),
        (
            "gs://bucket/images",
            "gs://a",
            ("push.destination=gs://bucket/images/models",),
            "give push.destination another",
        ),
        ("minio://bucket/images", "gs://a", (), "only Kubeflow's launcher has the key"),
        ("gs://bucket/images", "minio://bucket", (), "only Kubeflow's launcher has the key"),
        ("", None, (), "--images is empty"),
        ("gs://bucket/{SPAN}/{SPAN}", None, (), "must hold {SPAN} once"),
        ("gs://bucket/{SPAN:x}", None, (), "must hold {SPAN} once"),
        ("gs://bucket/images", None, ("model.backbone=mobilenet_v2", "model.weights=mine.keras"), "absolute path"),
        ("gs://bucket/images", None, ("push.destination=serving",), "absolute path"),
        ("gs://bucket/images", None, ("runner.beam=dataflow",), "needs runner.dataflow.project"),
        (
            "gs://bucket/images",
            None,
            ("runner.beam=dataflow", "runner.dataflow.project=project"),
            "needs runner.dataflow.region",
        ),
        ("/data/images", None, DATAFLOW, "needs a pipeline root on gs://"),
        ("gs://a/images", "minio://a", ("runner.beam=flink",), "needs a pipeline root that its workers reach"),
        ("gs://a/images", "s3://a/runs", ("runner.beam=spark",), "needs a pipeline root that its workers reach"),
        ("gs://a/images", None, ("runner.beam=flink", "runner.flink.workers=process"), "runner.flink.worker_command"),
    ],
)
def test_what_no_cluster_takes_is_refused_in_a_sentence(images, root, overrides, words):
    with pytest.raises(UsageError, match=re.escape(words)) as refused:
        bound_to("{}", images, overrides=overrides, pipeline_root=root)
    assert "\n" not in str(refused.value)


KUBERNETES = (
    "runner.secrets=[{name: a, path: /a}]",
    "runner.resources={Trainer: {node_labels: {a: b}}, Report: {cpu: 1}}",
)


@pytest.mark.parametrize(
    ("target", "images", "overrides", "notes"),
    [
        ("vertex", "gs://bucket/images", (), []),
        ("vertex", "/gcs/bucket/images", (), []),
        ("vertex", "/data/images", (), ["find /data/images in its container; give URIs."]),
        ("kubeflow", "/data/images", ("runner.volumes=[{name: a, path: /data/}]",), []),
        (
            "vertex",
            "gs://bucket/images",
            KUBERNETES,
            ["runner.secrets, runner.resources.Trainer.node_labels; left out."],
        ),
        ("kubeflow", "gs://bucket/images", KUBERNETES, []),
        ("kubeflow", "/data/images", (), ["or name a volume that holds it in runner.volumes."]),
    ],
)
def test_places_that_no_step_would_find_and_keys_that_mean_nothing_there_are_told(target, images, overrides, notes):
    bound = bound_to("{}", images, overrides=overrides, pipeline_root="gs://bucket/root")
    found = [line for line in described(target, bound, IMAGE) if line.startswith("Note: ")]
    assert [line.endswith(note) for line, note in zip(found, notes, strict=True)] == [True] * len(notes)


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("kubeflow", "Kubeflow Pipelines keeps artifacts on gs://, s3://, minio:// only"),
        ("vertex", "Vertex AI keeps artifacts on gs:// only"),
    ],
)
def test_artifacts_lie_on_no_volume(target, words):
    (*_, last) = described(target, bound_to("{}", "/data/images"), IMAGE)
    assert last.startswith(f"Note: {words}")


def test_image_is_the_one_that_was_given_or_configured_or_built():
    config = changed({}, ["runner.image=configured:1"])
    assert compiled.image_of(config, "given:1") == "given:1"
    assert compiled.image_of(config) == "configured:1"
    assert re.fullmatch(r"graft:[0-9.]+", compiled.image_of(load(None, [])))


# ---- values that a run is given -------------------------------------------------------------------------------------


def test_what_a_pipeline_is_bound_to_goes_to_its_steps_and_back(bound):
    assert Bound.parse(bound.dump()) == bound
    assert Bound.parse(compiled.escaped(bound.dump())) == bound


def test_defaults_change_nothing_however_a_platform_writes_numbers(bound):
    values = {name: float(value) if name == "data_spans" else value for name, (_, value) in PARAMETERS.items()}
    assert values["data_spans"] == 3.0 and isinstance(values["data_spans"], float)
    assert bound.given(values) is None
    assert bound.given({}) is None


@pytest.mark.parametrize(
    ("name", "value", "key", "wanted"),
    [
        ("data_spans", 5.0, "data.spans", 5),
        ("training_frozen_learning_rate", 1e-07, "training.frozen.learning_rate", 1e-07),
        ("training_frozen_learning_rate", 1.0, "training.frozen.learning_rate", 1.0),
        ("data_follow_symlinks", True, "data.follow_symlinks", True),
        ("evaluation_min_accuracy", "0.9", "evaluation.min_accuracy", 0.9),
        ("push_formats", '["keras", "tflite"]', "push.formats", ["keras", "tflite"]),
        ("training_fine_tune_unfreeze", "2 blocks", "training.fine_tune.unfreeze", "2 blocks"),
    ],
)
def test_value_of_a_run_is_a_value_of_the_configuration(bound, name, value, key, wanted):
    found = bound.given({name: value}).configuration
    for part in key.split("."):
        found = found[part]
    assert found == wanted and type(found) is type(wanted)
    assert bound == bound_to(), "the one that was compiled stays"


def test_value_that_may_be_null_can_be_made_null():
    bound = bound_to(overrides=("evaluation.min_accuracy=0.5",))
    assert bound.parameters()["evaluation_min_accuracy"] == ("STRING", "0.5")
    assert bound.given({"evaluation_min_accuracy": "null"}).config.evaluation.min_accuracy is None


@pytest.mark.parametrize(
    ("given", "images"),
    [
        ("gs://b/other/", ["gs://b/other"]),
        ("/data/{SPAN}", ["/data/{SPAN}"]),
        ('["gs://b/x", "/y"]', ["gs://b/x", "/y"]),
    ],
)
def test_run_may_be_given_other_images(bound, given, images):
    other = bound.given({"images": given})
    assert (other.images, other.root) == (images, bound.root)


def test_several_images_are_one_parameter():
    several = bound_to("{}", "gs://b/x", "gs://b/y", pipeline_root="gs://c")
    assert several.parameters()["images"] == ("STRING", '["gs://b/x", "gs://b/y"]')
    assert several.given({"images": '["gs://b/x", "gs://b/y"]'}) is None


def test_models_go_where_a_run_is_told():
    bound = bound_to(overrides=("runner.parameters=[push.destination]",))
    assert bound.given({"push_destination": "gs://b/serving"}).serving == "gs://b/serving"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"data_spans": 0}, "data.spans"),
        ({"data_spans": 2.5}, "data.spans"),
        ({"data_spans": None}, "data.spans"),
        ({"evaluation_min_accuracy": "1.5"}, "evaluation.min_accuracy"),
        ({"evaluation_min_accuracy": "high"}, "evaluation.min_accuracy"),
        ({"evaluation_min_accuracy": "[0.5"}, "is not a YAML value"),
        ({"push_formats": '["hdf5"]'}, "push.formats"),
        ({"training_epochs": 3}, "no run-time parameter training_epochs; it has images, data_spans"),
        ({"images": ""}, "images takes"),
        ({"images": "relative"}, "images takes"),
        ({"images": "[]"}, "images takes"),
        ({"images": '["x'}, "images takes"),
        ({"images": "[1]"}, "images takes"),
        ({"images": "gs://bucket/days"}, "inside the image folder"),
        ({"images": "gs://b/{SPAN}/{SPAN}"}, "must hold {SPAN} once"),
    ],
)
def test_value_that_is_not_allowed_is_refused_in_a_sentence(bound, values, words):
    with pytest.raises(UsageError, match=re.escape(words)) as refused:
        bound.given(values)
    assert "\n" not in str(refused.value)


def test_parameter_names_are_those_of_the_keys():
    assert parameter_name("training.fine_tune.epochs") == "training_fine_tune_epochs"


def test_step_is_given_what_follows_from_other_values(bound):
    from pipeline.step import compiled_properties

    other = bound.given({"data_spans": 5.0, "images": "gs://b/x"})
    properties = compiled_properties(other, "ImageExampleGen")
    assert json.loads(properties["images"]) == ["gs://b/x"]
    assert json.loads(properties["settings"])["spans"] == 5
    assert compiled_properties(other, "Trainer") == compiled_properties(bound, "Trainer")
