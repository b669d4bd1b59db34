"""Google Cloud Dataflow: what Apache Beam is told of it, and what is refused before anything is sent there.

Dataflow itself refuses most of this, too, but minutes later, when a step of a run is on already, and in words for
whoever wrote the program. Nothing heavy is imported until a pipeline is compiled.
"""

import re
import secrets
from collections.abc import Sequence
from typing import TYPE_CHECKING

from components.errors import UsageError

if TYPE_CHECKING:
    from pipeline.config import Config, DataflowConfig

DATAFLOW = "dataflow"
# By this a step knows that its work is done on machines of Dataflow's.
DATAFLOW_RUNNER = "--runner=DataflowRunner"

# ---- forms ----------------------------------------------------------------------------------------------------------

# Of the keys of runner.dataflow: an expression for the whole value, and what is allowed, in words. What Google lets a
# name be changes seldom; what there is (regions, machine types) changes often, so that only the form is looked at.
_NAME = "[a-z]([-a-z0-9]{0,61}[a-z0-9])?"
_PLACE = (
    r"gs://[a-z0-9][-_.a-z0-9]{1,220}[a-z0-9]/[^\s]*[^\s/]/?",
    "a folder in a bucket, such as gs://bucket/temporary",
)
FORMS = {
    "project": (
        r"([a-z][-.a-z0-9]*[a-z0-9]:)?[a-z][-a-z0-9]{4,28}[a-z0-9]",
        "the id of a project (6 to 30 lower case letters, digits and hyphens), and neither its name nor its number",
    ),
    "region": ("[a-z]+-[a-z]+[0-9]+", "a region, such as europe-west4"),
    "zone": ("[a-z]+-[a-z]+[0-9]+-[a-z]", "a zone, such as europe-west4-a"),
    "staging_location": _PLACE,
    "temp_location": _PLACE,
    # A registry's host, of which Docker Hub's may not be left out, and a repository in it.
    "image": (
        r"([-a-z0-9]+\.)+[a-z]+(:[0-9]+)?/[a-z0-9][-._/a-z0-9]*"
        r"(:[A-Za-z0-9_][-.A-Za-z0-9_]{0,127})?(@sha256:[0-9a-f]{64})?",
        "an image in a registry that the workers reach, such as europe-west4-docker.pkg.dev/PROJECT/graft/graft:1",
    ),
    "machine_type": (
        "[a-z][a-z0-9]*(-[a-z0-9]+)+",
        "a machine type of Compute Engine, such as n2-standard-4",
    ),
    "network": (_NAME, "the name of a network"),
    "subnetwork": (
        rf"(https://www\.googleapis\.com/compute/v1/projects/[^/\s]+/)?regions/[-a-z0-9]+/subnetworks/{_NAME}",
        "regions/REGION/subnetworks/NAME, or https://www.googleapis.com/compute/v1/projects/PROJECT/ before that for "
        "one of another project",
    ),
    "service_account": (
        r"[-a-z0-9.]+@[-a-z0-9.]+\.gserviceaccount\.com",
        "a service account of Google Cloud, such as graft-runner@PROJECT.iam.gserviceaccount.com",
    ),
}
_DISK_TYPES = "compute.googleapis.com/projects//zones//diskTypes"
_LABEL_KEY, _LABEL_VALUE = "[a-z][-_a-z0-9]{0,62}", "[-_a-z0-9]{0,63}"


def checked(name: str, value: object) -> object:
    """A value of a key of `runner.dataflow`, whose form is looked at where Dataflow asks for one.

    Raises:
      ValueError: it has another form.
    """
    if name in FORMS and isinstance(value, str):
        form, allowed = FORMS[name]
        if not re.fullmatch(form, value):
            raise ValueError(f"must be {allowed}. Received: {value}")
    return value


def check_together(chosen: "DataflowConfig") -> None:
    """What no key can be refused for alone; `ValueError`."""
    if chosen.workers and chosen.max_workers and chosen.workers > chosen.max_workers:
        raise ValueError(
            f"workers must be at most max_workers. Received: {chosen.workers} and {chosen.max_workers}; lower one or "
            "raise the other"
        )
    if chosen.subnetwork:
        where = chosen.zone.rpartition("-")[0] if chosen.zone else chosen.region
        there = re.search("regions/([^/]+)/", chosen.subnetwork)[1]
        if where and there != where:
            raise ValueError(f"subnetwork must lie in the region of the workers, {where}. Received: {there}")


# ---- what is refused ------------------------------------------------------------------------------------------------


def require(config: "Config") -> None:
    """Refuses what a job could not be made of, as far as the configuration alone says it.

    Raises:
      UsageError: an option is missing, or what the whole run shares with Dataflow is nothing for it.
    """
    chosen, runner = config.runner.dataflow, config.runner
    missing = [name for name in ("project", "region") if getattr(chosen, name) is None]
    if missing:
        raise UsageError(f"runner.beam: dataflow needs runner.dataflow.{missing[0]}; set it.")
    if not config.name[0].isalpha():
        raise UsageError(
            f"runner.beam: dataflow needs a name that begins with a letter, as its jobs are called so. Received: "
            f"{config.name}; set name."
        )
    if account := _account(config):
        try:
            checked("service_account", account)
        except ValueError as error:
            raise UsageError(
                f"runner.service_account, which Dataflow's workers run as, {error}; set "
                "runner.dataflow.service_account."
            ) from None
    for key, value in runner.labels.items():
        if not (re.fullmatch(_LABEL_KEY, key) and re.fullmatch(_LABEL_VALUE, value)):
            raise UsageError(
                "runner.labels: Dataflow takes labels of at most 63 lower case letters, digits, hyphens and "
                f"underscores, whose names begin with a letter. Received: {key}={value}; change it."
            )


def require_root(config: "Config", root: str) -> None:
    """Refuses a pipeline root, or a place for models, that Dataflow's workers do not reach.

    Raises:
      UsageError: it is on no bucket of Google Cloud's.
    """
    if not root.startswith("gs://"):
        raise UsageError(
            f"runner.beam: dataflow needs a pipeline root on gs://, which Dataflow's workers reach. Received: {root}."
        )
    for name, place in (("staging_location", "staging"), ("temp_location", "temporary")):
        try:
            checked(name, getattr(config.runner.dataflow, name) or f"{root}/{place}")
        except ValueError as error:
            raise UsageError(f"runner.dataflow.{name}, which is under the pipeline root, {error}; set it.") from None


def require_image(config: "Config", image: str) -> None:
    """Refuses an image that workers could not pull.

    Args:
      config: everything that a person chooses.
      image: that the steps run in.

    Raises:
      UsageError: it is in no registry, as one that was built and not pushed.
    """
    try:
        checked("image", config.runner.dataflow.image or image)
    except ValueError as error:
        raise UsageError(
            f"The image of Dataflow's workers {error}; push it, and give --image or set runner.image or "
            "runner.dataflow.image."
        ) from None


def require_arguments(given: Sequence[str]) -> None:
    """Has Apache Beam look at its options as it does before it submits a job. Imports Beam.

    Args:
      given: what `arguments` gives, and `runner.beam_options` after it.

    Raises:
      UsageError: Beam refuses one.
    """
    import contextlib
    import io

    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.options.pipeline_options_validator import PipelineOptionsValidator
    from apache_beam.runners.runner import create_runner

    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            # A dry run: Beam would look at the bucket otherwise.
            options = PipelineOptions([*given, "--dry_run=True"])
            errors = PipelineOptionsValidator(options, create_runner("DataflowRunner")).validate()
    except SystemExit:
        # argparse's way to refuse a value.
        errors = [said.getvalue().strip().splitlines()[-1].partition("error: ")[2]]
    if errors:
        raise UsageError(
            f"Apache Beam refuses the options for Dataflow: {' '.join(errors[0].split()).rstrip('.')}; mend "
            "runner.dataflow or runner.beam_options."
        )


# ---- what Beam is told ----------------------------------------------------------------------------------------------


def arguments(config: "Config", root: str, image: str) -> list[str]:
    """Apache Beam's arguments for a step whose work Dataflow does; `runner.beam_options` are not among them.

    Args:
      config: everything that a person chooses.
      root: URI that artifacts go to.
      image: that the steps run in, and the workers unless they are told another one.
    """
    chosen = config.runner.dataflow
    named = {
        "project": chosen.project,
        "region": chosen.region,
        "temp_location": chosen.temp_location or f"{root}/temporary",
        "staging_location": chosen.staging_location or f"{root}/staging",
        "sdk_container_image": chosen.image or image,
        # Graft is in the image, at the version of this specification.
        "sdk_location": "container",
        "worker_machine_type": chosen.machine_type,
        "num_workers": chosen.workers,
        "max_num_workers": chosen.max_workers,
        "autoscaling_algorithm": chosen.autoscaling and chosen.autoscaling.upper(),
        "disk_size_gb": chosen.disk_gib,
        "worker_disk_type": chosen.disk_type and f"{_DISK_TYPES}/{chosen.disk_type}",
        "worker_zone": chosen.zone,
        "network": chosen.network,
        "subnetwork": chosen.subnetwork,
        "service_account_email": _account(config),
    }
    given = [f"--{name}={value}" for name, value in named.items() if value is not None]
    addresses = {None: [], True: ["--use_public_ips"], False: ["--no_use_public_ips"]}[chosen.public_ips]
    labels = [f"--labels={name}={value}" for name, value in sorted(config.runner.labels.items())]
    return [DATAFLOW_RUNNER, *given, *addresses, *labels]


def told(config: "Config", image: str) -> str:
    """What Dataflow does and with what, in a few words: it is what costs.

    Args:
      config: everything that a person chooses.
      image: that the steps run in.
    """
    from pipeline.runners import BY_WORKERS

    chosen = config.runner.dataflow
    machine = chosen.machine_type or "machines of its choice"
    most = f" (at most {chosen.max_workers})" if chosen.max_workers else ""
    where = f"in {chosen.project} ({chosen.region}), on {machine}{most}, in {chosen.image or image}"
    return f"the work of {', '.join(BY_WORKERS)}, {where}"


def _account(config: "Config") -> str | None:
    return config.runner.dataflow.service_account or config.runner.service_account


def job_name(pipeline: str, step: str) -> str:
    """A name for the jobs of one try of a step, by which a person finds them in the console.

    No two jobs that run at the same time may be called the same, and a step that is tried again may have left one.

    Args:
      pipeline: name of the pipeline, at least a letter and then letters, digits and hyphens.
      step: the step's id.
    """
    rest = f"-{step.lower()}-{secrets.token_hex(4)}"
    return f"{pipeline[: 63 - len(rest)].rstrip('-')}{rest}"
