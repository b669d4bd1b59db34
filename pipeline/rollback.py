"""`graft rollback`: what a person types when the newest model turns out to be bad."""

from pathlib import Path

import click

from components import publishing
from components.errors import UsageError, printable
from components.serving_places import SAVED_MODEL
from components.storage import is_uri
from pipeline.output import LOCK, Output, read_summary


def rollback(serving: str, to: int | None) -> None:
    """Publishes a copy of an earlier version and says so in a line.

    Args:
      serving: base path or URI.
      to: the version; None for the one that was in service before.

    Raises:
      GraftError: nothing was changed, for a reason that the person can mend.
    """
    if not is_uri(serving):
        _require_serving(Path(serving))
    done = publishing.rollback(serving, to)
    said = f"Version {done.version} is in service: the model of version {done.of} instead of {done.instead_of}."
    if not done.verified:
        said += " It has no checksums, so that it could not be verified."
    if done.left_out:
        said += f" Not copied, as they were not published with it: {', '.join(map(printable, done.left_out))}."
    click.echo(said)


def _require_serving(folder: Path) -> None:
    if (folder / SAVED_MODEL).is_file():
        raise UsageError(
            f"{folder} is a version; give the serving folder that holds it: "
            f"graft rollback {folder.absolute().parent} --to {folder.absolute().name}."
        )
    output = Output(folder)
    if (folder / LOCK).is_file() and output.runs.is_dir():
        runs = sorted(output.runs.glob("*/summary.json"), reverse=True)
        path = next((path for run in runs if (path := read_summary(run.parent).get("model", {}).get("path"))), None)
        place = path.rpartition("/")[0] if path else str(output.serving)
        raise UsageError(f"{folder} is an output folder; its serving folder is {place}: graft rollback {place}.")
