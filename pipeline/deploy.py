"""`graft deploy`: a run or a schedule on a cluster, and its schedules looked after."""

import contextlib
import datetime
import difflib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import yaml

from components.errors import GraftError, UsageError
from pipeline import compiled, cron
from pipeline.bound import Bound
from pipeline.compile import described
from pipeline.config import Config
from pipeline.noise import noise_to
from pipeline.platforms import Deployment, Platform, Recorder, Schedule, Started, about

# What is done with a schedule that is there, and how that is told.
ACTIONS = {"pause": "Paused", "resume": "Resumed", "delete": "Removed"}
NOTES = {
    (
        compiled.KUBEFLOW,
        False,
    ): "as for a first deployment; where the pipeline is there, upload_version takes the place of upload",
    (compiled.KUBEFLOW, True): "as for a first deployment; where the pipeline is there, upload_version takes the place "
    "of upload, and where a schedule that Graft made has this name, it is paused before and removed after the new one "
    "is made",
    (compiled.VERTEX, True): "as for a first deployment; where a schedule that Graft made has this name, it is paused "
    "before and removed after the new one is made",
}


@dataclass(frozen=True)
class Where:
    """The platform that is meant, as the options say it.

    Attributes:
      target: one of `compiled.TARGETS`.
      host: of Kubeflow Pipelines; None for where its client finds it.
      namespace: of Kubeflow's, where several people share it.
      project: Google Cloud project.
      region: of Vertex AI's.
      endpoint: address of Vertex AI; None for the region's.
    """

    target: str
    host: str | None = None
    namespace: str | None = None
    project: str | None = None
    region: str | None = None
    endpoint: str | None = None

    def connect(self, recorder: Recorder | None) -> Platform:
        """The platform.

        Args:
          recorder: gets the requests instead of the platform, if not None.

        Raises:
          UsageError: an option is missing or belongs to the other platform, or nothing that fits answers.
        """
        alien = ("project", "region", "endpoint") if self.target == compiled.KUBEFLOW else ("host", "namespace")
        for name in alien:
            if getattr(self, name) is not None:
                raise UsageError(f"--{name} is not for --target {self.target}.")
        if self.target == compiled.KUBEFLOW:
            from pipeline.kubeflow import Kubeflow

            return Kubeflow(self.host, self.namespace, recorder)
        from pipeline.vertex import Vertex

        return Vertex(self.project, self.region, self.endpoint, recorder)


@dataclass(frozen=True)
class When:
    """The schedule that is asked for: five fields of cron, and the name of a time zone or None for the platform's."""

    cron: str
    zone: str | None

    def expression(self, target: str) -> str:
        """As the platform takes it, checked.

        Raises:
          UsageError: it is none, or the platform knows no time zones.
        """
        expression = cron.check(self.cron)
        if self.zone is None:
            return expression
        if target == compiled.KUBEFLOW:
            raise UsageError(
                "--time-zone is not for --target kubeflow: its schedules follow the time zone of the cluster, which "
                "CRON_SCHEDULE_TIMEZONE in its ConfigMap pipeline-install-config sets (UTC otherwise)."
            )
        return f"TZ={cron.check_zone(self.zone)} {expression}"


def deploy(
    where: Where,
    config: Config,
    images: list[str],
    image: str | None,
    pipeline_root: str | None,
    given: list[str],
    when: When | None,
    dry_run: bool,
) -> None:
    """Compiles the pipeline and starts a run of it, or makes a schedule, and says what was made.

    Args:
      where: the platform.
      config: everything that a person chooses.
      images: as `--images` takes them.
      image: as for `graft compile`.
      pipeline_root: as for `graft compile`.
      given: `NAME=VALUE` of run-time parameters.
      when: None for a run now.
      dry_run: whether to print what would be sent, and send nothing.

    Raises:
      UsageError: something is not what the platform takes, or it is not reached or does not let us in.
      ServiceError: the platform failed.
    """
    expression = when.expression(where.target) if when else None
    bound, image = compiled.bind(config, images, pipeline_root), compiled.image_of(config, image)
    if where.target == compiled.VERTEX and not bound.root.startswith(compiled.ROOTS[where.target]):
        raise UsageError(
            f"Vertex AI keeps artifacts on gs:// only; give --pipeline-root such a place. Received: {bound.root}."
        )
    parameters = _parameters(bound, given)
    recorder = Recorder() if dry_run else None
    with noise_to(Path(os.devnull)):
        # Whether it can be reached is known sooner than what the specification is.
        platform = where.connect(recorder)
        deployment = _deployment(where.target, bound, image, parameters)
        uploaded = platform.upload(deployment)
        if expression:
            made, replaced = _schedule(platform, deployment.name, uploaded, expression)
        else:
            made, replaced = platform.run(uploaded), []
    if recorder:
        file = {"specification": about(deployment.text.encode())}
        _print_requests(recorder, file, NOTES.get((where.target, when is not None)))
        return
    values = ", ".join(f"{name}={value}" for name, value in parameters.items())
    for line in described(where.target, bound, image, f"Parameters: {values}"):
        click.echo(line)
    _say(where.target, deployment, made, expression, replaced)


def _deployment(target: str, bound: Bound, image: str, parameters: dict[str, Any]) -> Deployment:
    name, now = bound.config.name, datetime.datetime.now(datetime.UTC)
    return Deployment(
        name,
        f"{name}-{now:%Y%m%d-%H%M%S}{now.microsecond // 1000:03}",
        compiled.dump(target, bound, image),
        parameters,
        bound.root,
        bound.config.runner.service_account,
    )


def _say(target: str, deployment: Deployment, made: Started, expression: str | None, replaced: list[Schedule]) -> None:
    if not deployment.root.startswith(compiled.ROOTS[target]):
        click.echo(f"Note: artifacts go to the cluster's own pipeline root, and not to {deployment.root}.")
    if expression:
        click.echo(f"Schedule: {deployment.name} ({expression}), id {made.id}")
        for each in replaced:
            paused = ", which was paused" if each.paused else ""
            click.echo(f"Replaced: schedule {each.id} ({each.cron}){paused}")
    else:
        click.echo(f"Run: {deployment.version}, id {made.id}")
    click.echo(f"Watch it: {made.page}")


# ---- parameters -----------------------------------------------------------------------------------------------------


def _parameters(bound: Bound, given: list[str]) -> dict[str, Any]:
    """The values of all run-time parameters.

    Args:
      bound: what is compiled.
      given: `NAME=VALUE`, for those that are not the default.

    Raises:
      UsageError: there is no such parameter, or it does not take the value.
    """
    known, values = bound.parameters(), {}
    for one in given:
        name, separator, text = one.partition("=")
        if not separator:
            raise UsageError(f"--parameter takes NAME=VALUE, such as training_frozen_epochs=5. Received: {one!r}.")
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}."
            raise UsageError(f"The pipeline has no parameter {name}; {hint} (runner.parameters adds more.)")
        values[name] = _typed(name, known[name][0], text)
    # What the steps will make of them is found out here.
    bound.given(values)
    return {name: values.get(name, default) for name, (_, default) in known.items()}


def _typed(name: str, kind: str, text: str) -> Any:
    """A value of the parameter's type."""
    if kind == "STRING":
        return text
    allowed = {"NUMBER_INTEGER": (int, "a whole number"), "NUMBER_DOUBLE": (float, "a number"), "BOOLEAN": (bool, "")}
    type_, called = allowed[kind]
    with contextlib.suppress(ValueError):
        if type_ is not bool:
            return type_(text)
        value = yaml.safe_load(text)
        if isinstance(value, bool):
            return value
    raise UsageError(f"--parameter {name} takes {called or 'true or false'}. Received: {text!r}.")


# ---- schedules ------------------------------------------------------------------------------------------------------


def _schedule(platform: Platform, name: str, uploaded: Any, expression: str) -> tuple[Started, list[Schedule]]:
    """Makes a schedule in the place of ours of the same name. No two of them ever start runs at the same time."""
    before = [each for each in platform.schedules() if each.ours and each.name == name]
    try:
        for each in before:
            if not each.paused:
                platform.pause(each.id)
        made = platform.schedule(uploaded, expression)
    except BaseException as error:
        raise _put_back(platform, name, before, error) from None
    try:
        for each in before:
            platform.delete(each.id)
    except GraftError as error:
        raise type(error)(
            f"The schedule {made.id} was made, but one that it replaces stays there, paused: {error}"
        ) from None
    return made, before


def _put_back(platform: Platform, name: str, before: list[Schedule], error: BaseException) -> BaseException:
    """Lets the schedules go on that were paused for a new one that was not made; the error to raise."""
    going, ids = [each for each in before if not each.paused], {each.id for each in before}
    try:
        there = platform.schedules() if going else []
        for each in there:
            # Where no answer came, it may have been made all the same.
            if each.ours and each.name == name and each.id not in ids:
                platform.delete(each.id)
        paused = {each.id for each in there if each.paused}
        for each in going:
            if each.id in paused:
                platform.resume(each.id)
    except GraftError as another:
        said = error if isinstance(error, GraftError) else another
        return type(said)(
            f"{said} The schedule before it may be paused now: look what is there with --list, and let it go on with "
            f"--resume {name}."
        )
    return error


def list_schedules(where: Where, dry_run: bool) -> None:
    """Prints the schedules that Graft made, a line each, and how many others there are."""
    recorder = Recorder() if dry_run else None
    with noise_to(Path(os.devnull)):
        found = where.connect(recorder).schedules()
    if recorder:
        _print_requests(recorder)
        return
    ours = sorted((each for each in found if each.ours), key=lambda each: (each.name, each.id))
    for each in ours:
        click.echo(f"{each.name}  {'paused' if each.paused else 'active'}  {each.cron}  id {each.id}")
    if not ours:
        click.echo("There is no schedule that Graft made.")
    if len(found) > len(ours):
        click.echo(f"Not made by Graft, and left alone: {len(found) - len(ours)}")


def act(where: Where, action: str, which: str, dry_run: bool) -> None:
    """Pauses, resumes or removes a schedule.

    Args:
      where: the platform.
      action: one of `ACTIONS`.
      which: the schedule's name or id.
      dry_run: whether to print what would be sent, and send nothing.

    Raises:
      UsageError: Graft made no such schedule; and as for `deploy`.
      ServiceError: the platform failed.
    """
    recorder = Recorder(schedule=which) if dry_run else None
    with noise_to(Path(os.devnull)):
        platform = where.connect(recorder)
        found = _named(platform.schedules(), which)
        for each in found:
            getattr(platform, action)(each.id)
    if recorder:
        _print_requests(recorder)
        return
    for each in found:
        click.echo(f"{ACTIONS[action]}: {each.name} ({each.cron}), id {each.id}")


def _named(schedules: list[Schedule], which: str) -> list[Schedule]:
    """The schedules of ours that a name or an id names."""
    ours = [each for each in schedules if each.ours]
    found = [each for each in ours if which in (each.id, each.name)]
    if found:
        return found
    if any(which in (each.id, each.name) for each in schedules):
        raise UsageError(f"The schedule {which} is not one that Graft made, and is left alone.")
    names = sorted({each.name for each in ours})
    close = difflib.get_close_matches(which, names, 1)
    hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(names)}." if names else "there is none."
    raise UsageError(f"There is no schedule {which} that Graft made; {hint}")


def _print_requests(recorder: Recorder, about_file: dict[str, Any] | None = None, note: str | None = None) -> None:
    """What would be sent, as one JSON object."""
    found = ({"note": note} if note else {}) | (about_file or {}) | {"requests": recorder.requests}
    click.echo(json.dumps(found, indent=2, ensure_ascii=False))
