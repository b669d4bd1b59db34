"""Which runs, searches and versions of an output folder stay, and which are too many or too old."""

import calendar
import contextlib
import os
import re
import time
from dataclasses import dataclass, field
from pathlib import Path

from components.data_findings import ANOMALIES_FILE, DRIFT_FILE
from components.data_report import QUARANTINE_FILE
from components.errors import GraftError
from components.features import TENSORBOARD_FOLDER, TRAINING_FILE
from components.publishing import in_use, original, read_card
from components.serving_places import LocalServing, RemoteServing, open_serving
from components.steps import LOG_FILE, NOTES_FILE, REPORT_FILE, SUMMARY_FILE
from pipeline import in_service
from pipeline.config import RetentionConfig
from pipeline.inputs import INPUTS_FILE
from pipeline.local import MARK_FILE
from pipeline.output import ENDINGS, RUN_ID, Output
from pipeline.retention.disk import is_folder
from pipeline.run_folder import Run, read_run
from pipeline.tune import TRIALS_FILE

ID = r"\d{8}-\d{6}"
DAY = 86400
# What a run or a search writes into its folder. A page, a list or a log is of no use without the summary.
TOLD = (SUMMARY_FILE, NOTES_FILE)
FILES = (
    LOG_FILE,
    REPORT_FILE,
    QUARANTINE_FILE,
    TRAINING_FILE,
    ANOMALIES_FILE,
    DRIFT_FILE,
    INPUTS_FILE,
    MARK_FILE,
    TRIALS_FILE,
)
CURVES = r"events\.out\.tfevents\..*"


@dataclass
class Stays:
    """What stays, and what need not.

    Attributes:
      runs: the folders of runs and searches that count and age let stay, newest first.
      too_old: why each of the others goes, by its folder.
      always: why a run stays whatever is configured, by its id.
      originals: versions in which the models that are published first went out; None where a place could not be asked.
      problems: what could not be asked.
    """

    runs: list[Path] = field(default_factory=list)
    too_old: dict[Path, str] = field(default_factory=dict)
    always: dict[str, str] = field(default_factory=dict)
    originals: set[int] | None = field(default_factory=set)
    problems: list[str] = field(default_factory=list)


def look(output: Output, destination: str | None, retention: RetentionConfig) -> Stays:
    """Looks at the runs of an output folder, which the caller holds, and at what is in service.

    Args:
      output: the folder.
      destination: `push.destination`.
      retention: how much stays.
    """
    folders = [path for path in output.all_runs() if _is_ours(path)]
    runs = [read_run(path) for path in folders]
    found = Stays()
    _always(output, runs, found)
    places = [*in_service.places(output, runs), output.serving_place(destination)]
    for place in dict.fromkeys(places):
        _of_place(place, runs, found)
    searches = [path for path in output.tunes.iterdir() if _is_ours(path)] if output.tunes.is_dir() else []
    for each in (folders, sorted(searches, reverse=True)):
        for index, folder in enumerate(each):
            if why := _too_old(folder, index, retention, found.always):
                found.too_old[folder] = why
            else:
                found.runs.append(folder)
    found.runs.sort(key=lambda folder: folder.name, reverse=True)
    return found


def _too_old(folder: Path, index: int, retention: RetentionConfig, always: dict[str, str]) -> str | None:
    if folder.name in always:
        return None
    if index >= retention.runs:
        return f"over schedule.retention.runs ({retention.runs})"
    return older(began(folder), retention.days)


def older(seconds: float, days: float | None) -> str | None:
    """Why something goes that is from then; None where it is not too old."""
    if days is None or time.time() - seconds <= days * DAY:
        return None
    return f"older than schedule.retention.days ({days:g})"


def began(folder: Path) -> int:
    """When a run or search began, by its id."""
    return calendar.timegm(time.strptime(folder.name, RUN_ID))


def _is_ours(folder: Path) -> bool:
    """Whether it has the name of a run, and holds what a run writes, or nothing yet."""
    with contextlib.suppress(ValueError):
        if re.fullmatch(ID, folder.name) and is_folder(folder) and began(folder) >= 0:
            ours, foreign = contents(folder)
            return bool(ours) or not foreign
    return False


def contents(folder: Path) -> tuple[list[Path], list[Path]]:
    """What Graft wrote in the folder of a run or a search, and what it did not."""
    names = {re.escape(name) for name in (*TOLD, *FILES)}
    # The second is what a process that was killed was writing.
    known = re.compile("|".join([*names, *(rf"\.{name}-\d+" for name in names)]))
    ours, foreign = [], []
    for path in sorted(folder.iterdir()):
        written = path.is_file() and not path.is_symlink() and known.fullmatch(path.name)
        (ours if written or _is_curves(path) else foreign).append(path)
    return ours, foreign


def _is_curves(folder: Path) -> bool:
    if folder.name != TENSORBOARD_FOLDER or not is_folder(folder):
        return False
    files = [Path(parent, name) for parent, _, names in os.walk(folder) for name in names]
    links = [Path(parent, name) for parent, names, _ in os.walk(folder) for name in names]
    return all(re.fullmatch(CURVES, path.name) for path in files) and all(map(is_folder, links))


# ---- what stays whatever is configured ------------------------------------------------------------------------------


def _always(output: Output, runs: list[Run], found: Stays) -> None:
    latest = output.runs / "latest"
    if latest.is_symlink():
        found.always[os.path.basename(os.readlink(latest))] = "runs/latest points at it"
    if finished := next((run for run in runs if run.state in ENDINGS), None):
        found.always[finished.folder.name] = "the newest finished run"
    if runs:
        found.always[runs[0].folder.name] = "the newest run"


def _of_place(place: str, runs: list[Run], found: Stays) -> None:
    """The runs that made what is in service at a place, and what it was compared with."""
    published = [run for run in runs if run.path and _same(run.serving, place)]
    if published:
        found.always.setdefault(published[0].folder.name, f"it published to {place} last")
    try:
        serving = open_serving(place)
        if published and not serving.versions():
            raise GraftError("nothing is there, though runs published to it; is it on a disk that is not mounted?")
        for version in in_use(serving):
            for run_id in _publishers(serving, version, published):
                found.always.setdefault(run_id, f"it published version {version}, which is in use")
        if found.originals is not None:
            found.originals |= {original(serving, version) for version in serving.versions()}
    except (GraftError, OSError) as error:
        found.originals = None
        # Which of them made what is in service there is not known.
        for run in published:
            found.always.setdefault(run.folder.name, f"it published to {place}, which could not be asked")
        found.problems.append(f"What is in service at {place} could not be asked: {error}")


def _publishers(serving: LocalServing | RemoteServing, version: int, published: list[Run]) -> set[str]:
    noted = read_card(serving, version)["run_id"]
    return {run.folder.name for run in published if run.version == str(version)} | ({noted} if noted else set())


def _same(place: str, other: str) -> bool:
    return place == other or Path(place).resolve() == Path(other).resolve()
