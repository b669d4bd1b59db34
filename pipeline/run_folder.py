"""A run as its folder tells of it: how it ended, or where it is."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.errors import UsageError
from components.steps import LOG_FILE, SUMMARY_FILE, Notes, read_notes
from components.storage import is_uri
from pipeline.output import Output, read_summary

RUNNING, KILLED = "running", "killed"


@dataclass(frozen=True)
class Run:
    """What lies in a run's folder.

    Attributes:
      folder: `runs/<run id>`.
      output: the output folder that it is in.
      summary: empty where it left none.
      notes: of the runner; None where there are none.
      state: `published`, `refused`, `failed`, `running` or `killed`.
    """

    folder: Path
    output: Output
    summary: dict[str, Any]
    notes: Notes | None
    state: str

    @property
    def run_id(self) -> str:
        return str(self.summary.get("run_id") or self.folder.name)

    @property
    def step(self) -> str | None:
        """Where it is, failed or was killed; None for a run that went through."""
        if self.summary:
            return self.summary.get("step")
        return self.notes.step or None if self.notes else None

    def part(self, *names: str) -> Any:
        """What the summary says under these keys; None where an older or shorter summary says nothing."""
        found: Any = self.summary
        for name in names:
            found = found.get(name) if isinstance(found, dict) else None
        return found

    @property
    def path(self) -> str | None:
        """The version that it published, None for none."""
        found = self.part("model", "path")
        return found if isinstance(found, str) else None

    @property
    def version(self) -> str | None:
        """Its number."""
        return self.path.rpartition("/")[2] if self.path else None

    @property
    def serving(self) -> str:
        """Where it published, or would have: a path or a URI. The output folder may have been moved since."""
        destination = self.part("configuration", "push", "destination")
        # A summary of an earlier release does not say where it was meant to go.
        within = destination is None and (self.part("configuration") or not self.path)
        if not within:
            recorded = self.path.rpartition("/")[0] if self.path else self.output.serving_place(destination)
            if is_uri(recorded) or os.path.isdir(recorded) or os.path.basename(recorded) != self.output.serving.name:
                return recorded
        return str(self.output.serving)


def read_run(folder: Path) -> Run:
    """A run by its folder, which must be one."""
    real = folder.resolve()
    output = Output(real.parent.parent)
    summary = read_summary(folder)
    state = summary.get("status") or (RUNNING if output.is_running(real) else KILLED)
    return Run(folder, output, summary, read_notes(folder), str(state))


def find_folder(given: Path) -> Path:
    """A run's folder: that folder, the newest in an output folder, or one of the current folder's `runs/` by its id.

    Raises:
      UsageError: there is no run.
    """
    if _is_run(given):
        return given
    if len(given.parts) == 1 and _is_run(Path("runs") / given):
        return Path("runs") / given
    output = Output(given)
    if output.runs.is_dir():
        newest = next(iter(output.all_runs()), None)
        if newest is None:
            raise UsageError(f"Nothing was run yet in {given}: graft run --images IMAGES --output {given}")
        return newest
    if re.fullmatch(r"\d{8}-\d{6}", given.name):
        raise UsageError(
            f"There is no folder {given}: if there was such a run, it was removed; graft runs OUTPUT lists what is "
            "still known of it."
        )
    raise UsageError(
        f"There is no run in {given}; give a run's folder, such as OUTPUT/runs/latest, or an output folder."
    )


def _is_run(folder: Path) -> bool:
    return any((folder / name).is_file() for name in (SUMMARY_FILE, LOG_FILE))


def find_run(given: Path) -> Path:
    """As `find_folder`, for what only a summary tells.

    Raises:
      UsageError: there is no run, or none that left a summary.
    """
    folder = find_folder(given)
    if not (folder / SUMMARY_FILE).is_file():
        raise UsageError(f"The run {folder} left no summary: it {_why(folder)}.")
    if not read_summary(folder):
        raise UsageError(f"{folder / SUMMARY_FILE} cannot be read as a summary.")
    return folder


def _why(folder: Path) -> str:
    run = read_run(folder)
    if not run.step:
        return "is still running, or was killed"
    if run.state == RUNNING:
        return f"is still running ({run.step})"
    return f"was killed ({run.step}); graft report {folder} makes a page of what there is"


def find_output(given: Path) -> Output:
    """An output folder.

    Raises:
      UsageError: it is none.
    """
    output = Output(given)
    if not output.runs.is_dir():
        raise UsageError(f"{given} is no output folder of graft run: it has no runs/.")
    return output
