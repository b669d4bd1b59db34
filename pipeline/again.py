"""The summary of a run that left none, from what its steps left; and `graft report`, which writes its page again."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import click

from components import run_summary
from components.errors import UsageError
from components.image_files import images_digest
from components.run_summary import About, Produced
from components.steps import LOG_FILE, NOTES_FILE, REPORT_FILE, Notes
from pipeline import lineage, run_report
from pipeline.run_folder import RUNNING, Run, find_folder, read_run


def report(given: Path, to: Path | None) -> None:
    """Writes the page of a run again and prints its path.

    Args:
      given: as `find_folder` takes it.
      to: where to; must not be there yet. None for `report.html` in the run's folder, which is replaced.

    Raises:
      UsageError: there is no such run, it is still running, or the page cannot be written there.
    """
    run = read_run(find_folder(given))
    if run.state == RUNNING:
        raise UsageError(f"The run {run.folder} is still running ({run.step}); its page is written when it ends.")
    destination = to or run.folder / REPORT_FILE
    if to is not None and os.path.lexists(to):
        raise UsageError(f"{to} is there already; give --to a file that is not.")
    if not destination.absolute().parent.is_dir():
        raise UsageError(f"There is no folder {destination.absolute().parent}; give --to a file in one that is there.")
    with lineage.of(run.output) as history:
        steps = history.run(run.run_id)
    left, kept_out = run_report.with_folder(run.folder, left_by(run, steps))
    # Matplotlib takes a moment to import.
    from components.report.write import write_report

    write_report(destination, _whole(run, steps), left, kept_out, run.folder)
    click.echo(destination)


def left_by(run: Run, steps: dict[str, lineage.Execution]) -> Produced:
    """What the steps left, wherever the output folder is by now."""
    outputs = {name: step.outputs for name, step in steps.items() if step.done}
    left = run_summary.produced(outputs)
    found = {
        name: lineage.place_of(outputs[component][key], run.output.artifacts)
        for name, (component, key) in run_summary.OUTPUTS.items()
        if getattr(left, name) is not None
    }
    return dataclasses.replace(left, **found)


def with_summary(run: Run, steps: dict[str, lineage.Execution]) -> Run:
    """The run; one that left no summary gets what there is of it."""
    return run if run.summary else dataclasses.replace(run, summary=summary_again(run, steps))


def _whole(run: Run, steps: dict[str, lineage.Execution]) -> dict[str, Any]:
    """The summary; fields that an earlier release did not write are filled in."""
    again = summary_again(run, steps)
    return again | {"step": None} | run.summary if run.summary else again


def summary_again(run: Run, steps: dict[str, lineage.Execution]) -> dict[str, Any]:
    """The summary of a run that runs or was killed, as if it had failed where it is.

    It has no `versions`, as those of today need not be those of then, and lasted until something was last written.
    """
    notes = run.notes or Notes(run.folder.name)
    began = notes.began or _began(run, steps)
    notes = dataclasses.replace(notes, began=began)
    where = notes.step or "before its first step"
    error = f"The run is at: {where}."
    if run.state != RUNNING:
        error = f"The run was killed ({where}); run the same command again, finished steps come from the cache."
    summary = run_summary.collect(left_by(run, steps), about(steps), notes, error)
    times = [path.stat().st_mtime for name in (LOG_FILE, NOTES_FILE) if (path := run.folder / name).is_file()]
    return summary | {"seconds": round(max([began, *times]) - began, 1), "versions": {}}


def _began(run: Run, steps: dict[str, lineage.Execution]) -> float:
    return min((step.began for step in steps.values()), default=run.folder.stat().st_mtime)


def about(steps: dict[str, lineage.Execution]) -> About:
    """What was to be run, as far as ML Metadata was told of it: the Trainer and the Pusher are told most."""
    ingestion, trainer, pusher = (steps.get(name) for name in ("ImageExampleGen", "Trainer", "AtomicPusher"))
    told = (pusher.setting("custom_config") or {}).get("about") or {} if pusher else {}
    trained = trainer.setting("custom_config") or {} if trainer else {}
    sections = {name: trained[name] for name in ("model", "training") if name in trained}
    return About(
        images=(ingestion.setting("images") if ingestion else None) or [],
        digest=images_digest(str(ingestion.properties.get("digest", ""))) or None if ingestion else None,
        code=told.get("code"),
        configuration=told.get("configuration") or sections,
    )
