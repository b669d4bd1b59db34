"""The command `graft`. Heavy imports wait until a subcommand needs them: `--help` must be instant."""

import errno
import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from components.errors import GraftError

if TYPE_CHECKING:
    from pipeline.console import Detail
    from pipeline.schedule.plan import Asked

EXIT_CODES = """\b
Exit codes:
  0  done: published, or nothing new to do
  1  unexpected failure, or a service that failed or gave no answer in time
  2  usage or configuration, a missing image folder, weights that cannot be had, an output that cannot be written,
     a service that is not reached or refuses
  3  data refused: no usable image, fewer than two classes, over a budget
  4  model refused by the gate
  5  another run holds this output folder
"""

config_option = click.option(
    "--config", "config_file", type=click.Path(path_type=Path), metavar="FILE", help="Configuration (YAML)."
)
set_option = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override one key, such as training.batch_size=16."
)


def detail_options(command: Callable) -> Callable:
    """`--verbose` and `--quiet`; the command gets `detail`, a `pipeline.console.Detail`."""

    @click.option("--verbose", is_flag=True, help="Show what the libraries log, too; the run's log.txt has it anyhow.")
    @click.option("--quiet", is_flag=True, help="Print only warnings and how it ended, for cron.")
    @functools.wraps(command)
    def with_detail(*args: Any, verbose: bool, quiet: bool, **options: Any) -> Any:
        if verbose and quiet:
            raise click.UsageError("Give --verbose or --quiet, not both.")
        from pipeline.console import Detail

        detail = Detail.VERBOSE if verbose else Detail.QUIET if quiet else Detail.NORMAL
        return command(*args, detail=detail, **options)

    return with_detail


def images_option(required: bool):
    """`--images`, as often as wanted: a tuple of text, as URIs are no paths."""
    return click.option(
        "--images",
        multiple=True,
        required=required,
        metavar="SOURCE",
        help="Folder of class folders, or manifest (.csv, .jsonl; columns path,label[,split][,group]); a path or a URI "
        "such as gs://. May hold {SPAN} for a number: data.spans says how many of the newest are read. May be given "
        "several times.",
    )


@click.group(epilog=EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="graft-pipeline", prog_name="graft")
def graft() -> None:
    """From a directory of labelled images to a gated, published, retrainable classifier."""


@graft.command(epilog=EXIT_CODES)
@images_option(required=True)
@click.option("--output", type=click.Path(path_type=Path), required=True, metavar="DIR", help="Where everything goes.")
@config_option
@set_option
@detail_options
def run(
    images: tuple[str, ...], output: Path, config_file: Path | None, overrides: tuple[str, ...], detail: "Detail"
) -> None:
    """Train on IMAGES, and publish the model if it is good enough."""
    from pipeline import config, local, stopping

    stopping.stop_at_sigterm()
    sys.exit(local.run(config.load(config_file, list(overrides)), list(images), output, detail)["exit_code"])


@graft.command(epilog=EXIT_CODES)
@images_option(required=True)
@click.option("--output", type=click.Path(path_type=Path), required=True, metavar="DIR", help="As for `graft run`.")
@config_option
@set_option
@click.option(
    "--trials",
    type=click.IntRange(min=2),
    default=12,
    show_default=True,
    metavar="N",
    help="Configurations that are tried; the first is the one given.",
)
@click.option(
    "--recipe",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FILE",
    help="Takes the best configuration, for `graft run --config`; must not be there yet.",
)
@detail_options
def tune(
    images: tuple[str, ...],
    output: Path,
    config_file: Path | None,
    overrides: tuple[str, ...],
    trials: int,
    recipe: Path,
    detail: "Detail",
) -> None:
    """Search for a better configuration, judged by the eval split.

    Head, learning rates, unfreezing and augmentation are searched from the given configuration on; the rest stays as it
    is. Nothing is published. A search that was stopped goes on when it is started again.
    """
    from pipeline import config, stopping
    from pipeline.tune import tune as run_tune

    stopping.stop_at_sigterm()
    run_tune(config.load(config_file, list(overrides)), list(images), output, trials, recipe, detail)


@graft.command(epilog=EXIT_CODES)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    default=Path("graft-demo"),
    show_default=True,
    metavar="DIR",
    help="Where images and results go.",
)
@set_option
@detail_options
def demo(output: Path, overrides: tuple[str, ...], detail: "Detail") -> None:
    """Run the pipeline on bundled images and a bundled backbone, with no network."""
    from pipeline import config, local, stopping
    from pipeline.demo import write_digits

    stopping.stop_at_sigterm()
    settings = ["model.backbone=graft_tiny", "model.weights=bundled", *overrides]
    loaded = config.load(None, settings)
    try:
        write_digits(output / "images")
    except OSError as error:
        raise click.ClickException(f"The output folder {output} cannot be written ({error.strerror}).") from None
    sys.exit(local.run(loaded, [str(output / "images")], output, detail)["exit_code"])


@graft.command(epilog=EXIT_CODES)
@images_option(required=False)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Output folder of the run that is meant: images keep the splits that it remembers. Nothing is written there.",
)
@config_option
@set_option
@click.option("--print-config", is_flag=True, help="Print the whole configuration, defaults included.")
@click.option("--json", "as_json", is_flag=True, help="The data report as one JSON object: counts, and a line a file.")
def check(
    images: tuple[str, ...],
    output: Path | None,
    config_file: Path | None,
    overrides: tuple[str, ...],
    print_config: bool,
    as_json: bool,
) -> None:
    """Check configuration, images and weights before any compute.

    Reports what a run would keep, convert and quarantine, and how it would split the images.
    """
    from pipeline import config
    from pipeline.check import check as run_check

    loaded = config.load(config_file, list(overrides))
    if print_config:
        click.echo(config.dump(loaded), nl=False)
    if images:
        run_check(loaded, list(images), as_json, output)
    elif not print_config:
        raise click.UsageError("Give --images SOURCE, --print-config, or both.")


@graft.command(epilog=EXIT_CODES)
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("paths", nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a file, with every class's probability.")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Takes a row for each image, with every class's probability: .csv, .jsonl or .parquet; must not be there yet. "
    "For any number of images.",
)
@config_option
@set_option
def predict(
    model: Path,
    paths: tuple[str, ...],
    as_json: bool,
    output: Path | None,
    config_file: Path | None,
    overrides: tuple[str, ...],
) -> None:
    """Classify files or folders (PATHS; a path or a URI such as gs://) with an exported MODEL.

    Ends with 1 when a file could not be classified; the others are answered all the same.
    """
    if output is None:
        from pipeline.predict_printed import predict_printed

        failed = predict_printed(model, list(paths), as_json, config_file, list(overrides))
    elif as_json:
        raise click.UsageError("Give --json or --output FILE, not both; FILE may be one of JSON Lines (.jsonl).")
    else:
        from pipeline import config
        from pipeline.predict_file import predict_to_file

        failed = predict_to_file(model, list(paths), output, config.load(config_file, list(overrides)))
    sys.exit(1 if failed else 0)


@graft.command(epilog=EXIT_CODES)
@click.argument("output", type=click.Path(path_type=Path), default=Path())
@click.option(
    "--last", type=click.IntRange(min=1), metavar="N", help="Only the newest N; otherwise 30, with --json all."
)
@click.option("--json", "as_json", is_flag=True, help="Everything as one JSON object.")
def runs(output: Path, last: int | None, as_json: bool) -> None:
    """List what was run in OUTPUT (the current folder), newest first, and which model is in service."""
    from pipeline.runs import runs as list_runs

    list_runs(output, last, as_json)


@graft.command(epilog=EXIT_CODES)
@click.argument("run", type=click.Path(path_type=Path), required=False)
@click.option(
    "--model",
    metavar="VERSION",
    help="Explain what made a published version instead: its number, its folder or URI, or in-service. RUN is then the "
    "output folder.",
)
@click.option("--json", "as_json", is_flag=True, help="Everything as one JSON object.")
def show(run: Path | None, model: str | None, as_json: bool) -> None:
    """Explain what a run did and why the gate let its model pass or refused it, or what made a model.

    RUN is a run's folder, such as OUTPUT/runs/latest, a run's id in the current output folder, or an output folder,
    which means its newest run; the current folder if it is left out.
    """
    if model is not None:
        from pipeline.show_version import show_version

        show_version(model, run, as_json)
    else:
        from pipeline.show import show as show_decision

        show_decision(run or Path(), as_json)


@graft.command(epilog=EXIT_CODES)
@click.argument("first", type=click.Path(path_type=Path), metavar="RUN")
@click.argument("second", type=click.Path(path_type=Path), metavar="RUN")
@click.option("--json", "as_json", is_flag=True, help="Everything as one JSON object.")
def diff(first: Path, second: Path, as_json: bool) -> None:
    """Say what differs between two runs: configuration, data, code, metrics, classes, decision.

    RUN is as for `graft show`. Changes are of the second from the first.
    """
    from pipeline.diff import diff as compare_runs

    compare_runs(first, second, as_json)


@graft.command(epilog=EXIT_CODES)
@click.argument("run", type=click.Path(path_type=Path), default=Path())
@click.option(
    "--to",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Takes the page; must not be there yet. Otherwise it is report.html in the run's folder, which is replaced.",
)
def report(run: Path, to: Path | None) -> None:
    """Write the page of RUN again from what its steps left, such as that of a run that was killed, and print its path.

    RUN is as for `graft show`.
    """
    from pipeline.again import report as write_again

    write_again(run, to)


def compiled_options(images_required: bool) -> Callable:
    """What is compiled, for which platform: options of `graft compile` and `graft deploy`."""

    def with_options(command: Callable) -> Callable:
        for option in reversed(
            (
                click.option("--target", type=click.Choice(["kubeflow", "vertex"]), required=True, help="Platform."),
                images_option(required=images_required),
                click.option(
                    "--image",
                    metavar="REF",
                    help="Container image that every step runs in; otherwise runner.image, or graft:VERSION, which "
                    "`make image` builds.",
                ),
                click.option(
                    "--pipeline-root",
                    metavar="URI",
                    help="Where artifacts, models and what is kept for later runs go; otherwise runner.pipeline_root, "
                    "or a folder beside the images.",
                ),
                config_option,
                set_option,
            )
        ):
            command = option(command)
        return command

    return with_options


@graft.command(name="compile", epilog=EXIT_CODES)
@compiled_options(images_required=True)
@click.option(
    "-o",
    "output",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    metavar="FILE",
    help="Takes the specification: YAML for Kubeflow, JSON for Vertex; replaced if it is there.",
)
def compile_command(
    target: str,
    images: tuple[str, ...],
    image: str | None,
    pipeline_root: str | None,
    config_file: Path | None,
    overrides: tuple[str, ...],
    output: Path,
) -> None:
    """Write the pipeline as a specification that Kubeflow Pipelines or Vertex AI runs.

    IMAGES are URIs, or paths that every step can read. Nothing is looked at there: `graft check` does that.
    """
    from pipeline import config
    from pipeline.compile import compile_to

    compile_to(output, target, config.load(config_file, list(overrides)), list(images), image, pipeline_root)


def platform_options(command: Callable) -> Callable:
    """Where the platform of `--target` is; the command gets `where`, a dictionary of what `deploy.Where` takes."""

    @click.option(
        "--host",
        metavar="URL",
        help="Kubeflow: address of Kubeflow Pipelines; otherwise KF_PIPELINES_ENDPOINT, or what kfp finds in the "
        "cluster or by kubeconfig.",
    )
    @click.option("--namespace", metavar="NAME", help="Kubeflow: yours, where several people share it.")
    @click.option("--project", metavar="ID", help="Vertex: Google Cloud project.")
    @click.option("--region", metavar="NAME", help="Vertex: such as europe-west4.")
    @click.option(
        "--endpoint",
        metavar="URL",
        help="Vertex: address of the API where it is not REGION-aiplatform.googleapis.com, as with Private Service "
        "Connect; otherwise CLOUDSDK_API_ENDPOINT_OVERRIDES_AIPLATFORM, as for gcloud.",
    )
    @functools.wraps(command)
    def with_where(*args: Any, host: str, namespace: str, project: str, region: str, endpoint: str, **options: Any):
        where = {"host": host, "namespace": namespace, "project": project, "region": region, "endpoint": endpoint}
        return command(*args, where=where, **options)

    return with_where


@graft.command(epilog=EXIT_CODES)
@compiled_options(images_required=False)
@platform_options
@click.option(
    "--parameter",
    "parameters",
    multiple=True,
    metavar="NAME=VALUE",
    help="Value of a run-time parameter, such as training_frozen_epochs=5. May be given several times.",
)
@click.option(
    "--cron",
    metavar="EXPRESSION",
    help="Make a schedule instead of starting a run: minute, hour, day of the month, month, day of the week, such as "
    "'0 3 * * 1'. It takes the place of the one that Graft made for this pipeline before.",
)
@click.option("--time-zone", metavar="NAME", help="Vertex: that --cron counts in, such as Europe/Paris; otherwise UTC.")
@click.option("--list", "listing", is_flag=True, help="Only list the schedules that Graft made.")
@click.option("--pause", metavar="NAME|ID", help="Only pause that schedule.")
@click.option("--resume", metavar="NAME|ID", help="Only let it go on; runs that it missed are not made up for.")
@click.option("--delete", metavar="NAME|ID", help="Only remove it; runs that go on do so.")
@click.option("--dry-run", is_flag=True, help="Print what would be sent, as JSON. No network, no credentials.")
def deploy(
    target: str,
    images: tuple[str, ...],
    image: str | None,
    pipeline_root: str | None,
    config_file: Path | None,
    overrides: tuple[str, ...],
    where: dict[str, str | None],
    parameters: tuple[str, ...],
    cron: str | None,
    time_zone: str | None,
    listing: bool,
    pause: str | None,
    resume: str | None,
    delete: str | None,
    dry_run: bool,
) -> None:
    """Run the pipeline on Kubeflow Pipelines or Vertex AI, now or by a schedule.

    Credentials are those that kfp's client and Google's libraries find in the environment; none is stored.
    """
    acts = {"--list": listing or None, "--pause": pause, "--resume": resume, "--delete": delete}
    # What is given and empty, as by a variable that is not set, must not start a run.
    asked = [name for name, value in acts.items() if value is not None]
    what = {
        "--images": images or None,
        "--image": image,
        "--pipeline-root": pipeline_root,
        "--config": config_file,
        "--set": overrides or None,
        "--parameter": parameters or None,
        "--cron": cron,
        "--time-zone": time_zone,
    }
    given = [name for name, value in what.items() if value is not None]
    if len(asked) > 1:
        raise click.UsageError(f"Give {' or '.join(asked)}, one at a time.")
    if asked and given:
        raise click.UsageError(f"{asked[0]} is about schedules that are there: give it no {given[0]}.")
    if not asked and not images:
        raise click.UsageError("Missing option '--images'.")
    if time_zone is not None and cron is None:
        raise click.UsageError("--time-zone is for --cron.")
    from pipeline import config
    from pipeline import deploy as deploying

    place = deploying.Where(target, **where)
    if listing:
        deploying.list_schedules(place, dry_run)
    elif asked:
        deploying.act(place, asked[0].removeprefix("--"), acts[asked[0]], dry_run)
    else:
        loaded = config.load(config_file, list(overrides))
        when = deploying.When(cron, time_zone) if cron is not None else None
        deploying.deploy(place, loaded, list(images), image, pipeline_root, list(parameters), when, dry_run)


@graft.group(epilog=EXIT_CODES)
def schedule() -> None:
    """Retrain unattended on this machine: by a cron expression, or a tick at a time."""


def plan_options(command: Callable) -> Callable:
    """What a schedule runs, and when; the command gets `asked`, a `pipeline.schedule.plan.Asked`."""

    @images_option(required=False)
    @click.option(
        "--cron",
        metavar="EXPRESSION",
        help="Minute, hour, day of the month, month, day of the week (0 is Sunday), such as '0 3 * * 1'.",
    )
    @click.option("--time-zone", metavar="NAME", help="That --cron is read in, such as Europe/Paris; otherwise UTC.")
    @config_option
    @set_option
    @functools.wraps(command)
    def with_plan(
        *args: Any,
        images: tuple[str, ...],
        cron: str | None,
        time_zone: str | None,
        config_file: Path | None,
        overrides: tuple[str, ...],
        **options: Any,
    ) -> Any:
        if time_zone is not None and cron is None:
            raise click.UsageError("--time-zone is for --cron.")
        from pipeline.schedule.plan import Asked

        return command(*args, asked=Asked(images, cron, time_zone, config_file, overrides), **options)

    return with_plan


@schedule.command(name="run", epilog=EXIT_CODES)
@click.option("--output", type=click.Path(path_type=Path), required=True, metavar="DIR", help="As for `graft run`.")
@plan_options
@click.option("--once", is_flag=True, help="One tick now, for cron and systemd timers; no --cron.")
@click.option(
    "--metrics-port",
    type=click.IntRange(0, 65535),
    metavar="N",
    help="Answer Prometheus at that port of this machine alone; 0 for any free one.",
)
def schedule_run(output: Path, asked: "Asked", once: bool, metrics_port: int | None) -> None:
    """Keep a model fresh: run the pipeline on IMAGES at every tick, if the policy of `schedule` says so.

    What is asked for is kept in OUTPUT: with --output alone the same schedule goes on. SIGTERM or Ctrl-C ends it; a run
    that it cuts short is resumed at the next start.
    """
    if once and (asked.cron is not None or metrics_port is not None):
        raise click.UsageError(f"Give {'--cron' if asked.cron is not None else '--metrics-port'} or --once, not both.")
    from pipeline.schedule import run

    sys.exit(run.run_once(asked, output) if once else run.keep(asked, output, metrics_port))


@schedule.command(name="status", epilog=EXIT_CODES)
@click.argument("output", type=click.Path(path_type=Path), default=Path())
@click.option("--last", type=click.IntRange(min=1), default=10, show_default=True, metavar="N", help="Ticks to list.")
@click.option("--json", "as_json", is_flag=True, help="Everything as one JSON object.")
def schedule_status(output: Path, last: int, as_json: bool) -> None:
    """Say how the last ticks of OUTPUT (the current folder) ended, when the next is due, and what is in service."""
    from pipeline.schedule.status import status

    status(output, last, as_json)


@schedule.command(name="install", epilog=EXIT_CODES)
@click.option("--output", type=click.Path(path_type=Path), required=True, metavar="DIR", help="As for `graft run`.")
@plan_options
@click.option(
    "--systemd", is_flag=True, help="Print a service unit that keeps the schedule; otherwise a crontab's line."
)
def schedule_install(output: Path, asked: "Asked", systemd: bool) -> None:
    """Print what makes this machine run the schedule: a unit of systemd, or a line of a crontab. Nothing is changed.

    The line runs one tick (--once) at the times of --cron, in the machine's own time zone.
    """
    from pipeline.schedule.install import install

    install(asked, output, systemd)


@schedule.command(name="notify", epilog=EXIT_CODES)
@click.option("--output", type=click.Path(path_type=Path), required=True, metavar="DIR", help="As for `graft run`.")
@config_option
@set_option
def schedule_notify(output: Path, config_file: Path | None, overrides: tuple[str, ...]) -> None:
    """Try the notices: send one of the event `test` every way that `schedule.notices` sets up."""
    from pipeline import config
    from pipeline.schedule.notices import notify

    for way in notify(config.load(config_file, list(overrides)), output):
        click.echo(f"delivered by {way}")


@graft.command(epilog=EXIT_CODES)
@click.argument("output", type=click.Path(path_type=Path))
@config_option
@set_option
@click.option("--dry-run", is_flag=True, help="Remove nothing, and print what would go and why.")
@click.option("--json", "as_json", is_flag=True, help="Everything as one JSON object.")
def clean(output: Path, config_file: Path | None, overrides: tuple[str, ...], dry_run: bool, as_json: bool) -> None:
    """Remove what `schedule.retention` of the configuration no longer keeps in OUTPUT.

    Old runs, what their steps left, caches and versions; never the model in service or what it was compared with, nor
    what Graft did not make.
    """
    from pipeline import config
    from pipeline.retention.clean import clean as run_clean

    run_clean(output, config.load(config_file, list(overrides)), dry_run, as_json)


@graft.command(epilog=EXIT_CODES)
@click.argument("serving")
@click.option("--to", type=int, metavar="VERSION", help="Version to go back to; otherwise the one in service before.")
def rollback(serving: str, to: int | None) -> None:
    """Put an earlier version into service again.

    SERVING is a serving folder such as OUTPUT/serving, or a URI. The version's checksums are verified and a copy of it
    is published as the newest. Nothing is removed.
    """
    from pipeline.rollback import rollback as run_rollback

    run_rollback(serving, to)


@graft.command(epilog=EXIT_CODES)
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--name", default="model", show_default=True, metavar="NAME", help="The model's name in the API's paths.")
@click.option("--host", default="127.0.0.1", show_default=True, metavar="HOST", help="Address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8501, show_default=True, metavar="PORT", help="0 for any free one."
)
@click.option(
    "--max-request",
    "max_request_mib",
    type=click.IntRange(1, 1024),
    default=32,
    show_default=True,
    metavar="MIB",
    help="Size of the largest request; eight times as much is held in memory at most.",
)
def serve(model: Path, name: str, host: str, port: int, max_request_mib: int) -> None:
    """Answer TensorFlow Serving's REST API with MODEL, and show a page to try it on.

    MODEL is a serving folder such as OUTPUT/serving, whose new versions are taken up as they are published, or one
    version folder in it. SIGTERM or Ctrl-C ends it when the requests that wait are answered.
    """
    from pipeline.serve import serve as run_server

    run_server(model, name, host, port, max_request_mib)


def main() -> None:
    """Runs the command; an error is one sentence and its exit code, never a traceback."""
    for stream in (sys.stdout, sys.stderr):
        # A file name may be no text in the terminal's encoding; it is shown escaped, and nothing fails over it.
        stream.reconfigure(errors="backslashreplace")
    try:
        graft.main(standalone_mode=False)
    except GraftError as error:
        click.echo(f"graft: {error}", err=True)
        sys.exit(error.exit_code)
    except click.UsageError as error:
        error.show()
        sys.exit(2)
    except click.ClickException as error:
        click.echo(f"graft: {error.format_message()}", err=True)
        sys.exit(2)
    except (KeyboardInterrupt, click.Abort):
        # Threads of Beam that outlive this one would tell at length that their worker processes were interrupted.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        sys.exit(1)
    except BrokenPipeError:
        # Whoever read has enough, as `head` has; nothing more can be said, and nothing must be tried at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(1)
    except OSError as error:
        click.echo(f"graft: {error.filename or 'A file'}: {error.strerror or error}.", err=True)
        sys.exit(2 if error.errno in (errno.EACCES, errno.EROFS, errno.ENOSPC, errno.EDQUOT) else 1)
    # The last resort. What goes wrong inside a run never gets here: its traceback is in the run's log.
    except Exception as error:
        lines = str(error).splitlines() or [""]
        click.echo(f"graft: unexpected {type(error).__name__}: {lines[0]}", err=True)
        sys.exit(1)
