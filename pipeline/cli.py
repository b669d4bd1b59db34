"""The command `graft`. Heavy imports wait until a subcommand needs them: `--help` must be instant."""

import errno
import sys
from pathlib import Path

import click

from components.errors import GraftError

EXIT_CODES = """\b
Exit codes:
  0  done: published, or nothing new to do
  1  unexpected failure
  2  usage or configuration, a missing image folder, weights that cannot be had, an output that cannot be written
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
def run(images: tuple[str, ...], output: Path, config_file: Path | None, overrides: tuple[str, ...]) -> None:
    """Train on IMAGES, and publish the model if it is good enough."""
    from pipeline import config, local

    sys.exit(local.run(config.load(config_file, list(overrides)), list(images), output)["exit_code"])


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
def tune(
    images: tuple[str, ...],
    output: Path,
    config_file: Path | None,
    overrides: tuple[str, ...],
    trials: int,
    recipe: Path,
) -> None:
    """Search for a better configuration, judged by the eval split.

    Head, learning rates, unfreezing and augmentation are searched from the given configuration on; the rest stays as it
    is. Nothing is published. A search that was stopped goes on when it is started again.
    """
    from pipeline import config
    from pipeline.tune import tune as run_tune

    run_tune(config.load(config_file, list(overrides)), list(images), output, trials, recipe)


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
def demo(output: Path, overrides: tuple[str, ...]) -> None:
    """Run the pipeline on bundled images and a bundled backbone, with no network."""
    from pipeline import config, local
    from pipeline.demo import write_digits

    settings = ["model.backbone=graft_tiny", "model.weights=bundled", *overrides]
    loaded = config.load(None, settings)
    try:
        write_digits(output / "images")
    except OSError as error:
        raise click.ClickException(f"The output folder {output} cannot be written ({error.strerror}).") from None
    sys.exit(local.run(loaded, [str(output / "images")], output)["exit_code"])


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
        raise click.UsageError("Give --json or --output FILE, not both; FILE.jsonl holds the same as --json prints.")
    else:
        from pipeline import config
        from pipeline.predict_file import predict_to_file

        failed = predict_to_file(model, list(paths), output, config.load(config_file, list(overrides)))
    sys.exit(1 if failed else 0)


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
        sys.exit(1)
    except OSError as error:
        click.echo(f"graft: {error.filename or 'A file'}: {error.strerror or error}.", err=True)
        sys.exit(2 if error.errno in (errno.EACCES, errno.EROFS, errno.ENOSPC, errno.EDQUOT) else 1)
    # The last resort. What goes wrong inside a run never gets here: its traceback is in the run's log.
    except Exception as error:
        lines = str(error).splitlines() or [""]
        click.echo(f"graft: unexpected {type(error).__name__}: {lines[0]}", err=True)
        sys.exit(1)
