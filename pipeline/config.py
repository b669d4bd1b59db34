"""The configuration: one schema, every default in it, unknown keys refused."""

import contextlib
import difflib
import re
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from components.conversion import FILES
from components.errors import UsageError
from components.gate_terms import COMPARABLE
from components.slices import SLICERS
from components.splits import SplitRules
from components.steps import STEPS
from pipeline import dataflow, metadata_store
from pipeline.schedule.secrets import check_address, check_headers
from trainer.backbones import BACKBONES, BUNDLED, IDENTITY, block_count

Share = Annotated[float, Field(ge=0, le=1)]
# In runner.resources: what the steps get that are not named there.
DEFAULT_RESOURCES = "default"
# A name or an address (IPv6 in brackets), and a port.
HOST_AND_PORT = re.compile(r"([^\s:/@\[\]]+|\[[0-9a-fA-F:.]+\]):[0-9]{1,5}")


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", validate_default=True, allow_inf_nan=False)


def _check_expression(expression: str, named: str) -> None:
    """That it is a regular expression with a group, around what `named` says."""
    try:
        groups = re.compile(expression).groups
    except re.error as error:
        raise ValueError(f"not a regular expression ({error}). Received: {expression!r}") from None
    if not groups:
        raise ValueError(f"the expression needs a group in parentheses around {named}. Received: {expression!r}")


class SplitConfig(Section):
    train: Share = 0.8  # share of the images
    eval: Share = 0.1  # share of the images; steers training
    test: Share = 0.1  # share of the images; judges
    # another value reshuffles the images: old test images may then be trained on
    salt: Annotated[str, Field(coerce_numbers_to_str=True)] = ""
    # regular expression searched in an image's path; what its first group matches names the thing photographed, and all
    # images of one thing share a split. Another expression reshuffles, as another salt does
    group: str | None = None

    @field_validator("group")
    @classmethod
    def _has_a_group(cls, group: str | None) -> str | None:
        if group is not None:
            _check_expression(group, "what names the thing photographed, such as '([^/]+)_[0-9]+[.]jpg$'")
        return group

    @model_validator(mode="after")
    def _sums_to_one(self):
        if abs(self.train + self.eval + self.test - 1) > 1e-6 or min(self.train, self.eval, self.test) == 0:
            raise ValueError("train, eval and test must each be above 0 and sum to 1")
        return self


class DataConfig(Section):
    split: SplitConfig = SplitConfig()
    spans: Annotated[int, Field(ge=1)] = 1  # newest spans that are read where --images holds {SPAN}
    max_bad_fraction: Share = 0.1  # of all images, and of each class, that may be quarantined
    min_images_per_class: Annotated[int, Field(ge=3)] = 3  # usable, distinct images
    max_pixels: Annotated[int, Field(gt=0)] = 100_000_000  # width x height that a header may claim
    max_bytes: Annotated[int, Field(gt=0)] = 200_000_000  # size of one file
    follow_symlinks: bool = False  # read links that leave the image folder
    on_anomaly: Literal["warn", "stop"] = "warn"  # when the metadata breaks the kept schema, or drifts
    drift_threshold: Share = 0.15  # change against the last published run that counts as drift


class TransformConfig(Section):
    image_size: Annotated[int, Field(gt=0)] | Literal["auto"] = "auto"  # pixels; auto: the backbone's own
    resize: Literal["stretch", "crop", "pad"] = "stretch"
    storage: Literal["png", "jpeg", "float"] = "png"
    normalisation: Literal["backbone", "dataset"] = "backbone"  # dataset: mean and variance of the train split


class HeadConfig(Section):
    pooling: Literal["average", "max", "flatten"] = "average"
    hidden: list[Annotated[int, Field(gt=0)]] = [256]  # units of each hidden layer
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5  # share of the last layer's inputs, in training


class ModelConfig(Section):
    backbone: Literal[tuple(BACKBONES)] = "mobilenet_v2"
    alpha: Annotated[float, Field(gt=0)] = 1.0  # width multiplier of mobilenet, _v2 and _v3
    weights: str = "imagenet"  # imagenet, bundled, none, or the path of a .keras, .weights.h5 or .h5 file
    head: HeadConfig = HeadConfig()

    @model_validator(mode="after")
    def _fits(self):
        alphas = BACKBONES[self.backbone].alphas
        if self.weights == "imagenet" and alphas and self.alpha not in alphas:
            raise ValueError(f"alpha of {self.backbone} must be one of {alphas}. Received: {self.alpha}")
        if not alphas and self.alpha != 1.0:
            raise ValueError(f"alpha does not apply to {self.backbone}: leave it out. Received: {self.alpha}")
        if (self.backbone == BUNDLED) != (self.weights == "bundled") and self.weights in ("bundled", "imagenet"):
            raise ValueError(
                f"weights: bundled belongs to backbone: {BUNDLED}, imagenet to the others. "
                f"Received: {self.weights} with {self.backbone}"
            )
        return self


class AugmentationConfig(Section):
    flip: Literal["none", "horizontal", "vertical", "both"] = "none"
    rotation: Annotated[float, Field(ge=0, le=180)] = 0.0  # degrees, at most, either way
    translation: Annotated[float, Field(ge=0, lt=1)] = 0.0  # share of the side, at most, each way
    zoom: Annotated[float, Field(ge=0, lt=1)] = 0.0  # share of the side, at most, in or out
    brightness: Share = 0.0  # share of the whole range, at most, up or down
    contrast: Annotated[float, Field(ge=0, lt=1)] = 0.0  # share of the contrast, at most, more or less

    @property
    def changes_colours(self) -> bool:
        return bool(self.brightness or self.contrast)


class FrozenConfig(Section):
    epochs: Annotated[int, Field(gt=0)] = 40
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    patience: Annotated[int, Field(gt=0)] = 10  # epochs without a better one before the phase ends
    # augmented views of each image whose features are computed once, besides the image itself; every_epoch: a new view,
    # and a pass through the backbone, in every epoch. Without augmentation there are none
    views: Annotated[int, Field(ge=0)] | Literal["every_epoch"] = 4


class FineTuneConfig(Section):
    epochs: Annotated[int, Field(ge=0)] = 20  # 0 leaves the phase out
    learning_rate: Annotated[float, Field(gt=0)] = 5e-4  # at its peak
    # cosine: rises over the first tenth of the steps and falls to zero; from three quarters of the epochs on one may be
    # kept. constant: stays, and any epoch may be kept
    schedule: Literal["cosine", "constant"] = "cosine"
    patience: Annotated[int, Field(gt=0)] = 5  # with a constant rate, epochs without a better one before the phase ends
    clip_norm: Annotated[float, Field(gt=0)] | None = None  # longest gradient of all weights together; null: any
    block_decay: Annotated[float, Field(gt=0, le=1)] = 1.0  # learning rate of a block over that of the one above it
    augment: bool = True  # as training.augmentation says, in every epoch anew
    # all; a number of blocks from the top, such as 2 blocks (residual units, Inception modules …); a layer's name or
    # the beginning of one; the index of the first layer; the share of the layers from the top
    unfreeze: str | Annotated[int, Field(strict=True)] | Annotated[float, Field(gt=0, le=1)] = 0.35


class TrainingConfig(Section):
    batch_size: Annotated[int, Field(gt=0)] = 32
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 1
    # backbone: a new head on the backbone's weights; in_service: the model in service, where there is one: same classes
    # are fine-tuned only, otherwise the head's rows are carried over by class name and both phases run; both: from each
    # of them, and the eval split chooses
    start_from: Literal["backbone", "in_service", "both"] = "backbone"
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1  # share of each label that is spread over all classes
    # every class counts the same, however small: weights in the loss, or sampling as often as the others
    balance: Literal["none", "weights", "sampling"] = "none"
    # bring the published probabilities to the temperature at which the eval split's loss is lowest
    calibrate: bool = True
    precision: Literal["float32", "mixed_float16", "mixed_bfloat16"] = (
        "float32"  # mixed: faster on recent GPUs and TPUs
    )
    devices: Literal["one", "all"] = "one"  # all: a replica of the network on each GPU (MirroredStrategy)
    augmentation: AugmentationConfig = AugmentationConfig()
    frozen: FrozenConfig = FrozenConfig()
    fine_tune: FineTuneConfig = FineTuneConfig()

    @model_validator(mode="after")
    def _trains(self):
        if self.start_from != "backbone" and not self.fine_tune.epochs:
            raise ValueError(
                f"start_from: {self.start_from} needs fine_tune.epochs above 0: there is nothing else to train"
            )
        return self


class EvaluationConfig(Section):
    default_rules: bool = True  # the statistical floor and no-regression rules (docs/gate.md)
    # what the default rules compare with the model in service; more of them leave each a smaller share of the 5 %
    no_regression: list[Literal[COMPARABLE]] = ["accuracy", "recall"]
    # floors of your own are on the plain value; null: none
    min_accuracy: Share | None = None
    min_class_recall: Share | None = None  # of the images of a class, that are called so
    min_class_precision: Share | None = None  # of the images that are called a class, that are of it
    min_slice_accuracy: Share | None = None  # in every slice that is judged
    max_log_loss: Annotated[float, Field(gt=0)] | None = None  # nats, mean over the images
    max_calibration_error: Share | None = None  # expected calibration error in ten ranges of the score
    max_accuracy_drop: Share | None = None  # against the model in service
    # what the test images are sliced by besides classes: size, orientation, format, channels, folder, or a name and a
    # regular expression searched in the path, whose first group names the slice: {camera: '(cam[0-9]+)_'}
    slices: list[Literal[tuple(SLICERS)] | dict[str, str]] = []
    min_examples: Annotated[int, Field(gt=0)] = 20  # test images, under which the gate refuses to judge
    min_class_examples: Annotated[int, Field(gt=0)] = 20  # test images, under which a class or slice is not judged

    @field_validator("slices")
    @classmethod
    def _names_slices(cls, slices: list[str | dict[str, str]]) -> list[str | dict[str, str]]:
        for one in slices:
            if isinstance(one, dict):
                if len(one) != 1:
                    raise ValueError(f"a slice takes one name and one expression. Received: {one!r}")
                _check_expression(*one.values(), "what names the slice, such as '(cam[0-9]+)_'")
        names = [one if isinstance(one, str) else next(iter(one)) for one in slices]
        if len(set(names)) < len(names):
            raise ValueError(f"every slice needs a name of its own. Received: {', '.join(names)}")
        return slices

    @model_validator(mode="after")
    def _checks_something(self):
        floors = ("min_accuracy", "min_class_recall", "min_class_precision", "max_log_loss", "max_calibration_error")
        if self.min_slice_accuracy is not None and not self.slices:
            raise ValueError("min_slice_accuracy needs slices, such as [size]")
        # A share of nothing is reached by any model, an error of all by any, too.
        empty = {"max_calibration_error": 1.0}
        set_floors = [name for name in floors if getattr(self, name) not in (None, empty.get(name, 0.0))]
        if not self.default_rules and not set_floors and not self.min_slice_accuracy:
            raise ValueError(
                f"a gate must check something: leave default_rules on, or set {', '.join(floors[:-1])} or {floors[-1]}"
            )
        return self


class PushConfig(Section):
    keep: Annotated[int, Field(ge=1)] = 5  # published models that stay
    # folder or URI, such as gs://bucket/serving, that versions are published to; null: serving/ in the output folder
    destination: Annotated[str, Field(min_length=1)] | None = None
    license: str | None = None  # of the model, for its card: an SPDX identifier such as CC-BY-4.0, or text
    # formats besides the SavedModel that are published with it, each checked against it on test images; onnx needs the
    # extra of that name
    formats: list[Literal[tuple(FILES)]] = ["keras"]
    # share of the test images that a quantised format may get right less than the SavedModel, rounded up to an image
    max_format_accuracy_drop: Share = 0.02

    @field_validator("formats")
    @classmethod
    def _each_once(cls, formats: list[str]) -> list[str]:
        return list(dict.fromkeys(formats))


class NoticesConfig(Section):
    # what is told of; failing: schedule.max_failures in a row. (Not `on`, which YAML takes for true.)
    events: list[Literal["published", "refused", "failed", "failing", "recovered", "drift"]] = [
        "published",
        "refused",
        "failed",
        "failing",
        "recovered",
        "drift",
    ]
    # URL that gets a JSON POST; here and in headers ${NAME} stands for an environment variable, for secrets
    webhook: str | None = None
    headers: dict[str, str] = {}  # of that POST, such as {Authorization: 'Bearer ${TOKEN}'}
    command: list[str] = []  # program and its arguments, which gets the JSON on its standard input; no shell
    timeout_seconds: Annotated[float, Field(gt=0)] = 10.0  # for each try
    retries: Annotated[int, Field(ge=0)] = 3  # within a tick; what was not delivered is tried again at the next

    @field_validator("webhook")
    @classmethod
    def _is_an_address(cls, webhook: str | None) -> str | None:
        return webhook if webhook is None else check_address(webhook)

    @field_validator("headers")
    @classmethod
    def _hold_no_secrets(cls, headers: dict[str, str]) -> dict[str, str]:
        return check_headers(headers)


class RetentionConfig(Section):
    runs: Annotated[int, Field(ge=1)] = 20  # newest runs that stay, with what their steps left
    days: Annotated[float, Field(gt=0)] | None = None  # age over which a run or version goes; null: any
    disk_gib: Annotated[float, Field(gt=0)] | None = None  # GiB of the output folder over which the oldest go
    ticks: Annotated[int, Field(ge=1)] = 10_000  # newest lines of runs/ticks.jsonl that stay


class ScheduleConfig(Section):
    # what a tick trains for, any of them. new_configuration: configuration, code or packages, too; new_span: a newer
    # one than the last run read; drift: over data.drift_threshold from the images of the model in service
    train_on: list[Literal["new_data", "new_span", "new_configuration", "drift", "always"]] = [
        "new_data",
        "new_configuration",
    ]
    max_age_days: Annotated[float, Field(gt=0)] | None = (
        None  # of the model in service, over which a tick trains anyhow
    )
    retries: Annotated[int, Field(ge=0)] = 2  # within a tick, of what may pass, such as a full memory
    retry_seconds: Annotated[float, Field(ge=0)] = 60.0  # wait before the first of them; doubles with each
    max_failures: Annotated[int, Field(ge=1)] = 3  # failed ticks in a row, after which a tick does not retry
    max_hours: Annotated[float, Field(gt=0)] | None = 24.0  # after which a run is ended; the next tick goes on with it
    min_free_gib: Annotated[float, Field(ge=0)] = 1.0  # GiB that must be free on the disk for a run to start
    notices: NoticesConfig = NoticesConfig()
    retention: RetentionConfig = RetentionConfig()

    @field_validator("train_on")
    @classmethod
    def _for_something(cls, train_on: list[str]) -> list[str]:
        if not train_on:
            raise ValueError("name what to train for, such as [new_data]")
        return list(dict.fromkeys(train_on))


class ResourcesConfig(Section):
    cpu: Annotated[float, Field(gt=0)] | None = None  # cores; null: what the cluster gives
    memory_gib: Annotated[float, Field(gt=0)] | None = None  # GiB; null: what the cluster gives
    # Kubeflow: a resource's name such as nvidia.com/gpu; Vertex: a type such as NVIDIA_TESLA_T4
    accelerator: Annotated[str, Field(min_length=1)] | None = None
    accelerators: Annotated[int, Field(ge=1)] = 1  # how many of them, where there is an accelerator
    # Kubeflow: labels of the nodes that it may run on, such as {cloud.google.com/gke-accelerator: nvidia-tesla-t4}
    node_labels: dict[str, str] = {}
    retries: Annotated[int, Field(ge=0)] | None = None  # null: runner.retries


class MountConfig(Section):
    name: Annotated[str, Field(min_length=1)]  # of the persistent volume claim, or of the secret
    path: Annotated[str, Field(pattern="^/")]  # where the steps find it


class EngineConfig(Section):
    # address at which the engine is asked whether there is room for a job; null: it is not asked
    master: str | None
    job_server: str = "localhost:8099"  # HOST:PORT of Beam's job server, which hands pipelines to the engine
    # parts of a step's work; null: what the job server takes, which is one a slot or core for those of scripts/
    parallelism: Annotated[int, Field(ge=1)] | None = None
    # how the processes that run Graft are started on the cluster's machines: external (by a worker pool on each),
    # process (by a boot program on each), docker (as containers of an image)
    workers: Literal["external", "process", "docker"] = "external"
    worker_pool: str = "localhost:50000"  # external: HOST:PORT of the worker pool, as the cluster's machines see it
    worker_command: str | None = None  # process: path of Beam's boot program on the cluster's machines
    worker_image: str | None = None  # docker: the image; null: runner.image
    worker_processes: Annotated[int, Field(ge=1)] = 1  # that run Graft, for each task manager or executor

    @field_validator("master")
    @classmethod
    def _is_a_web_address(cls, master: str | None) -> str | None:
        if master is not None and not re.fullmatch(r"https?://[^\s/@]+(/\S*)?", master):
            raise ValueError("must be an address such as http://localhost:8081")
        return master

    @field_validator("job_server", "worker_pool")
    @classmethod
    def _is_an_address(cls, place: str) -> str:
        if not HOST_AND_PORT.fullmatch(place):
            raise ValueError("must be HOST:PORT, such as localhost:8099")
        return place


class FlinkConfig(EngineConfig):
    master: str | None = "http://localhost:8081"  # REST address of Flink's job manager


class SparkConfig(EngineConfig):
    master: str | None = "http://localhost:8080"  # web page of Spark's standalone master


class DataflowConfig(Section):
    project: Annotated[str, Field(coerce_numbers_to_str=True)] | None = None  # id of the Google Cloud project
    region: str | None = None  # such as europe-west4
    staging_location: str | None = None  # folder on gs:// that jobs are laid in; null: staging under the pipeline root
    temp_location: str | None = None  # for what is on its way; null: temporary under the pipeline root
    image: str | None = None  # of the workers, with this version of Graft; null: the one that the steps run in
    machine_type: str | None = None  # of a worker, such as n2-standard-4; null: Dataflow's default
    workers: Annotated[int, Field(ge=1)] | None = None  # that a job begins with; null: Dataflow's choice
    max_workers: Annotated[int, Field(ge=1)] | None = None  # that a job grows to; null: no bound but the quota's
    # throughput_based: as many workers as keep busy; none: `workers` of them all the time; null: Dataflow's default
    autoscaling: Literal["throughput_based", "none"] | None = None
    disk_gib: Annotated[int, Field(ge=1)] | None = None  # GiB of a worker's disk; null: Dataflow's default
    disk_type: Literal["pd-standard", "pd-balanced", "pd-ssd", "hyperdisk-balanced"] | None = None  # null: the default
    zone: str | None = None  # that workers run in; null: where there is room in the region
    network: str | None = None  # name of a VPC network; null: default
    subnetwork: str | None = None  # regions/REGION/subnetworks/NAME, or with the whole address before it
    public_ips: bool | None = None  # of workers; false needs Private Google Access. null: Dataflow's default, true
    service_account: str | None = None  # that workers run as; null: runner.service_account

    @field_validator("*")
    @classmethod
    def _has_its_form(cls, value: Any, about: ValidationInfo) -> Any:
        return dataflow.checked(about.field_name, value)

    @model_validator(mode="after")
    def _goes_together(self):
        dataflow.check_together(self)
        return self


class RunnerConfig(Section):
    # in this process, in one worker process a core, on a Flink or Spark cluster, or (compiled pipelines only) on
    # Dataflow: in compiled pipelines ingestion, statistics, Transform and evaluation, with the image as Dataflow's
    # workers' container
    beam: Literal["local", "processes", "flink", "spark", "dataflow"] = "local"
    flink: FlinkConfig = FlinkConfig()
    spark: SparkConfig = SparkConfig()
    dataflow: DataflowConfig = DataflowConfig()
    beam_options: list[str] = []  # further options of Apache Beam, such as --number_of_worker_harness_threads=4
    # of runs here: a MySQL or MariaDB database for ML Metadata, such as mysql://user@host:3306/database, its password
    # in the environment variable GRAFT_METADATA_PASSWORD; null: metadata.db in the output folder
    metadata: str | None = None
    # the rest is for compiled pipelines (docs/kubeflow.md, docs/vertex.md)
    image: str | None = None  # that every step runs in; null: graft:VERSION, which `make image` builds
    pipeline_root: str | None = None  # folder or URI that artifacts go to; null: NAME beside the images
    # a step's id, such as Trainer, or default: what it asks for
    resources: dict[str, ResourcesConfig] = {}
    retries: Annotated[int, Field(ge=0)] = 1  # times that a step that failed is started again
    retry_seconds: Annotated[int, Field(ge=0)] = 60  # wait before the first of them; doubles with each
    cache: bool = True  # of steps whose inputs are the same; ingestion and what asks what is in service never
    service_account: str | None = None  # that the steps run as
    labels: dict[str, str] = {}  # of the run and, on Kubeflow, of its pods
    env: dict[str, str] = {}  # environment variables of every step; no secrets, as they are in the specification
    volumes: list[MountConfig] = []  # Kubeflow: persistent volume claims that every step mounts
    secrets: list[MountConfig] = []  # Kubeflow: secrets that every step mounts
    # configuration keys that a run may be given other values for without compiling again, dots as underscores
    parameters: list[str] = [
        "data.spans",
        "training.frozen.epochs",
        "training.fine_tune.epochs",
        "evaluation.min_accuracy",
        "evaluation.min_class_recall",
        "evaluation.max_accuracy_drop",
    ]

    @field_validator("metadata")
    @classmethod
    def _is_a_server(cls, metadata: str | None) -> str | None:
        return None if metadata is None else metadata_store.parse(metadata).url

    @field_validator("resources")
    @classmethod
    def _of_steps(cls, resources: dict[str, ResourcesConfig]) -> dict[str, ResourcesConfig]:
        for name in resources:
            if name not in (DEFAULT_RESOURCES, *STEPS):
                close = difflib.get_close_matches(name, [DEFAULT_RESOURCES, *STEPS], 1)
                hint = f"did you mean {close[0]}" if close else f"allowed: {DEFAULT_RESOURCES}, {', '.join(STEPS)}"
                raise ValueError(f"there is no step {name} ({hint})")
        # Here, as nobody can tell later what a person said of a step and what is a default.
        general = resources.get(DEFAULT_RESOURCES, ResourcesConfig()).model_dump(exclude_unset=True)
        return {
            name: ResourcesConfig(**general | asked.model_dump(exclude_unset=True)) for name, asked in resources.items()
        }


def field_of(key: str) -> Any:
    """The field of a configuration key with dots, one of those that steps read.

    Raises:
      ValueError: there is no such key, or no step reads it.
    """
    fields, field = Config.model_fields, None
    sections, _, last = key.rpartition(".")
    for name in sections.split("."):
        section = fields[name].annotation if name in fields else None
        if not (isinstance(section, type) and issubclass(section, Section)) or key.startswith(("runner.", "name.")):
            raise ValueError(f"no step reads {key}; give a key such as training.frozen.epochs")
        fields = section.model_fields
    field = fields.get(last)
    annotation = field.annotation if field else Section
    if isinstance(annotation, type) and issubclass(annotation, Section):
        raise ValueError(f"no step reads {key}; give a key such as training.frozen.epochs")
    return field


class Config(Section):
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")] = "graft"
    data: DataConfig = DataConfig()
    transform: TransformConfig = TransformConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    push: PushConfig = PushConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    runner: RunnerConfig = RunnerConfig()

    @model_validator(mode="after")
    def _image_size(self):
        row = BACKBONES[self.model.backbone]
        if self.transform.normalisation == "dataset" and row.normalisation == IDENTITY:
            raise ValueError(
                f"{self.model.backbone} rescales its input itself: transform.normalisation must be backbone"
            )
        size = self.transform.image_size
        if size != "auto" and size < row.min_size:
            raise ValueError(
                f"transform.image_size of {self.model.backbone} must be at least {row.min_size}. Received: {size}"
            )
        return self

    @model_validator(mode="after")
    def _stored_colours(self):
        if self.transform.storage == "float" and self.training.augmentation.changes_colours:
            raise ValueError(
                "training.augmentation.brightness and contrast need pixels: set transform.storage to png or jpeg"
            )
        return self

    @model_validator(mode="after")
    def _blocks(self):
        unfreeze, number = self.training.fine_tune.unfreeze, len(BACKBONES[self.model.backbone].blocks)
        count = block_count(unfreeze)
        if count is not None and not 1 <= count <= number:
            raise ValueError(
                f"training.fine_tune.unfreeze: {self.model.backbone} has {number} blocks, so it takes 1 block to "
                f"{number} blocks. Received: {unfreeze}"
            )
        return self

    @model_validator(mode="after")
    def _parameters(self):
        for key in self.runner.parameters:
            try:
                field_of(key)
            except ValueError as error:
                raise ValueError(f"runner.parameters: {error}") from None
        return self

    @property
    def split_rules(self) -> SplitRules:
        """How ingestion divides the images, and what it refuses."""
        data = self.data
        shares = (data.split.train, data.split.eval, data.split.test)
        return SplitRules(
            shares,
            data.split.salt,
            data.max_bad_fraction,
            data.min_images_per_class,
            data.split.group,
            rolling=data.spans > 1,
        )

    @property
    def image_size(self) -> int:
        """Side of the network's input in pixels, `auto` resolved."""
        size = self.transform.image_size
        return BACKBONES[self.model.backbone].size if size == "auto" else size

    @property
    def resolved(self) -> dict[str, Any]:
        """All of it as JSON, `auto` resolved: for what is kept about a run."""
        settings = self.model_dump(mode="json")
        settings["transform"]["image_size"] = self.image_size
        return settings


def load(path: Path | None, overrides: list[str]) -> Config:
    """Reads a YAML file and applies `key.path=value` overrides, as `changed` does.

    Args:
      path: the file; None for the defaults.
      overrides: values are YAML, so `epochs=5` is a number and `hidden=[128]` a list.

    Raises:
      UsageError: the file cannot be read, or a key or value is not allowed.
    """
    values: dict[str, Any] = {}
    if path is not None:
        try:
            values = yaml.safe_load(path.read_text()) or {}
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"The configuration {path} cannot be read ({error}).") from None
        except yaml.YAMLError as error:
            raise UsageError(f"The configuration {path} is not YAML: {' '.join(str(error).split())}.") from None
        if not isinstance(values, dict):
            raise UsageError(f"The configuration {path} must hold sections such as `data:`. Received: {values!r}.")
    return changed(values, overrides)


def changed(values: dict[str, Any], overrides: list[str]) -> Config:
    """A configuration with some keys overridden.

    Args:
      values: of its keys; changed.
      overrides: `key.path=value`, as for `load`.

    Raises:
      UsageError: a key or value is not allowed.
    """
    for override in overrides:
        _override(values, override)
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise UsageError(_sentence(error)) from None


def dump(config: Config) -> str:
    """The whole configuration as YAML, in the order of the schema."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def _override(values: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise UsageError(f"--set takes key.path=value, such as training.batch_size=16. Received: {override!r}.")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise UsageError(f"--set {key}: {text!r} is not a YAML value.") from None
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            value = float(text)  # YAML 1.1 reads 1e-4 as text
    *sections, last = key.split(".")
    for section in sections:
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            raise UsageError(f"--set {key}: {section} is a value, not a section.")
    values[last] = value


def _sentence(error: ValidationError) -> str:
    first = error.errors()[0]
    if first["type"] == "extra_forbidden":
        *sections, key = map(str, first["loc"])
        where = ".".join([*sections, key])
        allowed = _keys(sections)
        close = difflib.get_close_matches(key, allowed, 1)
        hint = f"did you mean {'.'.join([*sections, close[0]])}?" if close else f"allowed: {', '.join(allowed)}."
        return f"Unknown configuration key {where}; {hint}"
    where = _place(first)
    if first["type"] == "literal_error" and isinstance(first["input"], str):
        close = difflib.get_close_matches(first["input"], re.findall("'([^']+)'", first["ctx"]["expected"]), 1)
        if close:
            return f"Configuration key {where}: there is no {first['input']!r}; did you mean {close[0]}?"
    # A union has an error a branch; each says what would have been allowed.
    message = ", or ".join(row["msg"].removeprefix("Value error, ") for row in error.errors() if _place(row) == where)
    received = "" if "Received" in message or first["type"] == "value_error" else f" Received: {first['input']!r}."
    return f"Configuration{f' key {where}' if where else ''}: {message}.{received}"


def _place(error: Any) -> str:
    return ".".join(str(part) for part in error["loc"] if not _is_union_branch(part))


def _is_union_branch(part: Any) -> bool:
    """Pydantic adds the tried type to the path of a union, such as `constrained-int`."""
    return isinstance(part, str) and (part in ("int", "str", "float") or "[" in part or "-" in part)


def _keys(sections: list[str]) -> list[str]:
    model: Any = Config
    for section in sections:
        # Of a dictionary, such as runner.resources, each value is a section.
        model = model.model_fields[section].annotation if hasattr(model, "model_fields") else get_args(model)[1]
    return list(model.model_fields)
