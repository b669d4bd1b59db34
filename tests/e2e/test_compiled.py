"""What `graft compile` writes, executed: every task in a process of its own, as a cluster would, without one.

Graft is installed as in an image, and the source is not there. `tests/launcher.py` stands for the platforms: Kubeflow
Pipelines over a folder that every step mounts, and Vertex AI over a bucket, which a server on loopback holds.
"""

import copy
import json
import shutil
import subprocess
import sysconfig
import time
import venv
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import yaml

from components.image_files import content_digest, images_digest
from components.sources import list_images
from tests.conftest import ROOT
from tests.e2e.graft import write_shapes
from tests.gcs_server import GcsServer
from tests.launcher import Ended, Launcher, container_environment

PACKAGES = ("pipeline", "components", "trainer")
BUCKET = "gs://bucket"
# An image, and the folder of another class that it is moved to.
MOVED = ("circle/circle-007.jpg", "square/circle-007.jpg")
CONFIGURATION = {
    "name": "shapes",
    "data": {"split": {"train": 0.5, "eval": 0.2, "test": 0.3}},
    "model": {"backbone": "graft_tiny", "weights": "bundled"},
    "training": {"frozen": {"epochs": 20}, "fine_tune": {"epochs": 7}},
    "runner": {
        # Without it TensorFlow says which operations are on.
        "env": {"TF_ENABLE_ONEDNN_OPTS": "0"},
        "parameters": ["data.spans", "training.fine_tune.epochs", "evaluation.min_accuracy", "evaluation.min_examples"],
    },
}
# Where packages come from, what comes with them, and what else Python would look at.
WHENCE = """
import importlib.resources as resources, json, sys
import components.report.template, pipeline.serving, trainer
print(json.dumps({
    "modules": [sys.modules[name].__file__ for name in ("pipeline", "components", "trainer")],
    "data": [len(resources.files(package).joinpath(name).read_bytes()) for package, name in (
        ("trainer", "bundled/backbone.weights.h5"), ("pipeline.serving", "page.html"),
        ("components.report.template", "page.html"))],
    "path": sys.path,
}))
"""


@dataclass
class Image:
    """What stands for the container image: a Python environment with Graft, and a working folder.

    Attributes:
      folder: of both.
      env: of a process in it.
    """

    folder: Path
    env: dict[str, str] = field(init=False)

    def __post_init__(self):
        # As in an image that a person made from ours, with a project of their own in the working folder.
        for package in PACKAGES:
            (self.work / package).mkdir(parents=True)
            (self.work / package / "__init__.py").write_text("raise ImportError('not this one')\n")
        venv.create(self.folder / "python", symlinks=True)
        self.temporary.mkdir()
        self.env = container_environment(self.folder / "python" / "bin") | {"TMPDIR": str(self.temporary)}
        # What Graft needs is taken from here, but for what makes this source importable.
        (self.packages / "needed.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
        source = self.folder / "source"
        for package in PACKAGES:
            shutil.copytree(ROOT / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(ROOT / name, source / name)
        quiet = ("--quiet", "--disable-pip-version-check", "--no-index", "--no-deps", "--no-build-isolation")
        self.run("python", "-m", "pip", "install", *quiet, source)
        shutil.rmtree(source)

    @property
    def work(self) -> Path:
        """The working folder."""
        return self.folder / "work"

    @property
    def temporary(self) -> Path:
        """The folder for temporary files."""
        return self.folder / "temporary"

    @property
    def packages(self) -> Path:
        """Where Graft is installed."""
        return Path(sysconfig.get_path("purelib", vars={"base": str(self.folder / "python")}))

    def run(self, program: str, *arguments: str) -> subprocess.CompletedProcess:
        """Runs a program in the working folder; `AssertionError` where it fails."""
        command = [shutil.which(program, path=self.env["PATH"]), *map(str, arguments)]
        done = subprocess.run(command, cwd=self.work, env=self.env, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done


@pytest.fixture(scope="module")
def image(tmp_path_factory) -> Image:
    return Image(tmp_path_factory.mktemp("image"))


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    """40 shapes a class."""
    folder = tmp_path_factory.mktemp("images") / "shapes"
    write_shapes(folder, 40)
    return folder


@pytest.fixture(scope="module")
def bucket(image):
    """A server that stands for Google Cloud Storage, and the environment of who may use it."""
    with GcsServer() as server:
        server.credentials(image.folder / "account.json")
        yield server


@pytest.fixture(scope="module")
def specifications(image) -> dict[str, dict]:
    """By target, as the command writes them."""
    config = image.folder / "config.yaml"
    config.write_text(yaml.safe_dump(CONFIGURATION))
    # Compiled for other images than it will be run with.
    places = {
        "kubeflow": ("--images", "/images/of/another/day", "--pipeline-root", image.folder / "volume"),
        "vertex": ("--images", f"{BUCKET}/days/{{SPAN}}", "--pipeline-root", f"{BUCKET}/root"),
    }

    def compiled(target: str) -> dict:
        file = image.folder / f"{target}.json"
        image.run("graft", "compile", "--target", target, *places[target], "--config", config, "-o", file)
        first, *_ = yaml.safe_load_all(file.read_text())
        return first if target == "kubeflow" else first["pipelineSpec"]

    with ThreadPoolExecutor(2) as pool:
        return dict(zip(places, pool.map(compiled, places), strict=True))


# ---- what was executed ----------------------------------------------------------------------------------------------


@dataclass
class Run:
    """Tasks of one run of a compiled pipeline.

    Attributes:
      launcher: of them.
      logs: what those that succeeded printed, by task.
    """

    launcher: Launcher
    logs: dict[str, str] = field(default_factory=dict)

    def task(self, name: str, **parameters) -> None:
        """Executes one, which must succeed."""
        ended = self.launcher.run(name, parameters)
        assert ended.code == 0, f"{name}: {ended.log[-3000:]}"
        self.logs[name] = ended.log

    def folder(self, task: str, key: str) -> Path:
        """Of an artifact on the volume."""
        return Path(self.launcher.outputs[task][key]["uri"])

    def json(self, task: str, key: str, name: str) -> dict:
        """A file of an artifact."""
        return json.loads(self.launcher.read(f"{self.launcher.outputs[task][key]['uri']}/{name}"))


@dataclass
class Story:
    """All that was executed; the fixture tells in which order.

    Attributes:
      volume: Kubeflow, every step, on a folder.
      relabelled: the same again, ingestion alone, when one image lay in another class folder.
      one_class: how ingestion ended on images of one class.
      bucket: Vertex, what reads and writes a lot, in a bucket; trained on the volume.
      worse: the next run in the bucket, whose model the gate refuses.
      digest: what `graft run` calls the images of the first run.
      published: what lay in the bucket when the last run began.
    """

    volume: Run
    relabelled: Run
    bucket: Run
    worse: Run
    digest: str
    one_class: Ended | None = None
    published: dict[tuple[str, str], bytes] = field(default_factory=dict)


@pytest.fixture(scope="module")
def story(image, images, bucket, specifications) -> Story:
    def on_volume(run_id: str) -> Run:
        folder = str(image.folder / "volume")
        return Run(Launcher(specifications["kubeflow"], folder, image.env, image.work, kubeflow=True, run_id=run_id))

    def in_bucket(run_id: str) -> Run:
        env = image.env | {
            "STORAGE_EMULATOR_HOST": bucket.address,
            "GOOGLE_APPLICATION_CREDENTIALS": str(image.folder / "account.json"),
        }
        spec, root = specifications["vertex"], f"{BUCKET}/root"
        read = lambda uri: bucket.objects[_key(uri)]  # noqa: E731
        return Run(Launcher(spec, root, env, image.work, kubeflow=False, run_id=run_id, read=read))

    listing = list_images([str(images)])
    digest = content_digest(listing.files, classes=listing.classes).value
    runs = [on_volume("1111-aaaa"), on_volume("2222-bbbb"), in_bucket("3333-cccc"), in_bucket("4444-dddd")]
    story = Story(*runs, images_digest(digest))
    with ThreadPoolExecutor(1) as other:
        # One after the other, beside what follows.
        done = {name: other.submit(_on_volume, story.volume, name, images) for name in story.volume.launcher.order}
        _prepare_in_bucket(story.bucket, bucket, images)
        done["ImageExampleGen"].result()
        _change_images(story, images)
        done["ServingCheck"].result()
        _publish_in_bucket(story, bucket)
        for each in done.values():
            each.result()
    return story


def _on_volume(run: Run, name: str, images: Path) -> None:
    given = {"images": str(images), "training_fine_tune_epochs": 1}
    if name == "Trainer":
        _kill_trainer(run, given)
    run.task(name, **given)


def _kill_trainer(run: Run, given: dict) -> None:
    """Kills it while it exports; what it left has a file that no training writes."""
    with run.launcher.started("Trainer", given) as (process, _, asked):
        model = Path(asked["outputs"]["artifacts"]["model"]["artifacts"][0]["uri"])
        while not (model / "Format-Serving").is_dir():
            assert process.poll() is None, "it ended before it could be killed"
            time.sleep(0.02)
        process.kill()
    (model / "Format-Serving" / "half of something").touch()


def _prepare_in_bucket(run: Run, bucket: GcsServer, images: Path) -> None:
    """The newest of two days has an image in another class, and an earlier try of ingestion was killed."""
    for path in sorted(images.rglob("*.jpg")):
        name = str(path.relative_to(images))
        bucket.objects["bucket", f"days/1/{name}"] = b"of yesterday"
        bucket.objects["bucket", f"days/2/{name.replace(*MOVED)}"] = path.read_bytes()
    left = f"root/shapes/{run.launcher.run_id}/ImageExampleGen/examples/Split-train/data_tfrecord-00000-of-00007"
    bucket.objects["bucket", left] = b"half of something"
    for name in ("ImageExampleGen", "StatisticsGen", "MetadataSchemaGen", "Transform"):
        run.task(name)


def _change_images(story: Story, images: Path) -> None:
    old, new = MOVED
    (images / old).rename(images / new)
    story.relabelled.task("ImageExampleGen", images=str(images))
    write_shapes(images.parent / "one", 4)
    for name in ("square", "triangle"):
        shutil.rmtree(images.parent / "one" / name)
    again = replace(story.relabelled, launcher=copy.copy(story.relabelled.launcher))
    again.launcher.run_id = "5555-eeee"
    story.one_class = again.launcher.run("ImageExampleGen", {"images": str(images.parent / "one")})


def _publish_in_bucket(story: Story, bucket: GcsServer) -> None:
    """Publishes what was trained on the volume; then there is a next run, with it in service."""
    for task in ("DataGate", "Trainer", "GatedEvaluator", "ModelFormats", "ServingCheck"):
        story.bucket.launcher.outputs[task] = {}
        for key, artifact in story.volume.launcher.outputs[task].items():
            folder = Path(artifact["uri"])
            uri = f"{BUCKET}/root/trained/{task}/{key}"
            for path in [path for path in folder.rglob("*") if path.is_file()]:
                bucket.objects[_key(f"{uri}/{path.relative_to(folder)}")] = path.read_bytes()
            story.bucket.launcher.outputs[task][key] = artifact | {"uri": uri}
    story.bucket.task("AtomicPusher")
    story.published = dict(bucket.objects)
    story.worse.launcher.outputs |= story.bucket.launcher.outputs
    for name in ("MetadataSchemaGen", "GatedEvaluator", "AtomicPusher", "Report"):
        story.worse.task(name, evaluation_min_examples=1000)


def _key(uri: str) -> tuple[str, str]:
    bucket, _, name = uri.removeprefix("gs://").partition("/")
    return bucket, name


# ---- on a volume, as Kubeflow Pipelines would -----------------------------------------------------------------------


def test_everything_comes_from_the_installed_package(image):
    whence = json.loads(image.run("python", "-P", "-c", WHENCE).stdout)
    assert len(whence["modules"]) == 3
    assert all(Path(each).is_relative_to(image.folder / "python") for each in whence["modules"])
    assert all(size > 1000 for size in whence["data"])
    assert not any(Path(each, "pipeline").exists() for each in whence["path"] if Path(each) != image.packages)


def test_every_step_runs_and_the_model_that_is_published_answers(story, image, images):
    assert list(story.volume.logs) == story.volume.launcher.order and len(story.volume.logs) == 12
    assert all("Traceback" not in log and len(log) < 50_000 for log in story.volume.logs.values())
    assert "oneDNN custom operations are on" not in story.volume.logs["Trainer"]
    assert story.volume.logs["ImageExampleGen"].splitlines()[-1].endswith("120 images in 3 classes")
    (version,) = (image.folder / "volume" / "shapes" / "serving").glob("[0-9]*")
    picture = next((images / "circle").glob("*.jpg"))
    (line,) = image.run("graft", "predict", version, picture, "--json").stdout.splitlines()
    assert json.loads(line)["label"] in ("circle", "square", "triangle")


def test_report_and_card_tell_of_this_run_with_the_values_that_it_was_given(story, image, images):
    summary = story.volume.json("Report", "report", "summary.json")
    assert (summary["status"], summary["exit_code"], summary["run_id"]) == ("published", 0, "1111-aaaa")
    assert (summary["images"], summary["data"]["digest"]) == ([str(images)], story.digest)
    assert summary["configuration"]["training"]["fine_tune"]["epochs"] == 1
    assert summary["training"]["fine_tune"]["epochs"] == 1
    assert summary["training"]["frozen"]["epochs"] <= CONFIGURATION["training"]["frozen"]["epochs"]
    assert story.volume.logs["AtomicPusher"].splitlines()[-1].endswith(f"version {Path(summary['model']['path']).name}")
    assert story.volume.logs["Report"].splitlines()[-1].endswith(f"published: {summary['model']['path']}")
    card = json.loads(Path(summary["model"]["path"], "model_card.json").read_text())
    assert (card["run_id"], card["data"]["digest"]) == ("1111-aaaa", story.digest)
    assert story.volume.folder("Report", "report").joinpath("report.html").stat().st_size > 10_000
    kept = image.folder / "volume" / "shapes" / "schema"
    number = Path(summary["model"]["path"]).name
    assert (kept / "metadata.pbtxt").is_file() and (kept / "published_statistics" / f"{number}.pb").is_file()


def test_step_that_was_killed_runs_again_over_what_it_left(story):
    exported = story.volume.folder("Trainer", "model") / "Format-Serving"
    assert (exported / "saved_model.pb").is_file() and not (exported / "half of something").exists()


def test_relabelled_images_are_ingested_anew(story):
    before, after = (
        {row["sha256"]: row["class"] for row in map(json.loads, lines.decode().splitlines())}
        for lines in (
            run.launcher.read(str(run.folder("ImageExampleGen", "catalog") / "images.jsonl"))
            for run in (story.volume, story.relabelled)
        )
    )
    assert before.keys() == after.keys()
    assert [(before[key], after[key]) for key in before if before[key] != after[key]] == [("circle", "square")]


def test_refused_data_ends_the_step_with_3_and_the_log_with_a_sentence(story):
    assert story.one_class.code == 3
    last = story.one_class.log.splitlines()[-1]
    assert last.startswith("graft: Ingest images: ") and "circle" in last


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"evaluation_min_accuracy": "1.5"}, "evaluation.min_accuracy"),
        ({"training_fine_tune_epochs": 2.5}, "training.fine_tune.epochs"),
        ({"images": "not/absolute"}, "absolute paths that every step can read"),
    ],
)
def test_value_that_is_not_allowed_is_refused_in_a_sentence_before_anything_is_read(story, given, words):
    launcher = copy.copy(story.volume.launcher)
    launcher.run_id = "6666-ffff"
    ended = launcher.run("Trainer", given)
    assert ended.code == 2
    assert words in ended.log.splitlines()[-1]
    assert "tensorflow" not in ended.log.lower()


# ---- in a bucket, as Vertex AI would --------------------------------------------------------------------------------


def test_newest_span_is_chosen_when_ingestion_runs(story):
    catalog = story.bucket.json("ImageExampleGen", "catalog", "catalog.json")
    assert catalog["places"] == [f"{BUCKET}/days/2"]
    assert {name: sum(counts.values()) for name, counts in catalog["classes"].items()} == {
        "circle": 39,
        "square": 41,
        "triangle": 40,
    }


def test_artifacts_lie_in_the_bucket_and_leftovers_of_a_killed_try_do_not(story, bucket):
    folder = "root/shapes/3333-cccc"
    names = [name.removeprefix(f"{folder}/") for _, name in bucket.objects if name.startswith(folder)]
    written = {"/".join(name.split("/")[:2]) for name in names}
    assert {
        "ImageExampleGen/examples",
        "StatisticsGen/statistics",
        "MetadataSchemaGen/schema",
        "Transform/transform_graph",
        "Transform/transformed_examples",
    } <= written
    assert not any(name.endswith("-of-00007") for name in names)


def test_model_is_published_in_the_bucket_as_on_the_volume(story, bucket, image):
    latest = json.loads(story.published["bucket", "root/shapes/serving/latest.json"])
    (version,) = (image.folder / "volume" / "shapes" / "serving").glob("[0-9]*")
    for path in version.rglob("variables/*"):
        name = f"root/shapes/serving/{latest['version']}/{path.relative_to(version)}"
        assert story.published["bucket", name] == path.read_bytes()
    card = json.loads(story.published["bucket", f"root/shapes/serving/{latest['version']}/model_card.json"])
    assert card["run_id"] == "3333-cccc"
    assert ("bucket", f"root/shapes/schema/published_statistics/{latest['version']}.pb") in story.published


def test_next_run_is_held_to_what_was_kept_and_to_the_model_in_service(story):
    kept = story.published["bucket", "root/shapes/schema/metadata.pbtxt"]
    assert (
        story.worse.launcher.read(story.worse.launcher.outputs["MetadataSchemaGen"]["schema"]["uri"] + "/schema.pbtxt")
        == kept
    )
    decision = story.worse.json("GatedEvaluator", "evaluation", "decision.json")
    version = json.loads(story.published["bucket", "root/shapes/serving/latest.json"])["version"]
    assert (decision["baseline_status"], decision["baseline_version"]) == ("compared", version)


def test_model_that_the_gate_refuses_is_not_published_and_the_run_ends_well(story, bucket):
    summary = story.worse.json("Report", "report", "summary.json")
    assert (summary["status"], summary["exit_code"], summary["model"]["path"]) == ("refused", 4, None)
    assert story.worse.logs["AtomicPusher"].splitlines()[-1].endswith("nothing to be published")
    assert "the gate refuses to judge" in story.worse.logs["Report"]
    (failed,) = [check for check in summary["gate"]["checks"] if check["passed"] is False]
    assert (failed["metric"], failed["bound"]) == ("test_examples", 1000)
    serving = {key: data for key, data in bucket.objects.items() if key[1].startswith("root/shapes/serving/")}
    assert serving == {key: data for key, data in story.published.items() if key[1].startswith("root/shapes/serving/")}


def test_steps_leave_no_temporary_folders(story, image):
    # One is of the step that was killed.
    assert len(list(image.temporary.glob("graft-*"))) <= 2
