"""What goes, in the order in which it goes, and why."""

import re
from dataclasses import dataclass, field
from pathlib import Path

from components import comparison
from components.errors import GraftError
from components.publishing import in_use, original
from components.serving_places import LocalServing, open_serving
from components.storage import is_uri
from pipeline.config import Config
from pipeline.output import Output
from pipeline.retention import disk
from pipeline.retention.recorded import Artifact, Execution, Recorded, own_folder
from pipeline.retention.stays import ID, TOLD, Stays, contents, older
from trainer.cache_names import FEATURES_PREFIX, IN_SERVICE_FOLDER, SCRATCH_PREFIX, UNFINISHED_PREFIX

GIB = 2**30
# TFX's own folder beside the outputs of a component; the names of an execution's folders there and here: its number, or
# a UUID.
SYSTEM, NAMED_BY_TFX = ".system", r"[0-9a-f-]+"
# An execution is noted as ended after its last file was written, but a file server may have a clock of its own.
TOLERANCE_SECONDS = 60.0
LEFTOVER, CACHE, ARTIFACT, RUN, SEARCH, VERSION = "leftover", "cache", "artifact", "run", "search", "version"
STATISTICS, TICKS = "statistics", "ticks"
DEAD, BEFORE = "left by a step that failed or was killed", "left by a removal that was cut short"
OVER = "over schedule.retention.disk_gib"
NEWER = "something in it is newer than the step that made it"


@dataclass(frozen=True)
class Item:
    """Something that goes.

    Attributes:
      kind: one of the words above.
      path: of the folder or file; a URI for what is remote.
      why: in a few words.
      bytes: on the disk; 0 for what is remote.
      number: of an artifact in ML Metadata, or of a version.
    """

    kind: str
    path: str
    why: str
    bytes: int = 0
    number: int | None = None


@dataclass
class Plan:
    """What goes.

    Attributes:
      items: in order.
      left: what would go and does not, with the reason.
      marks: artifacts that ML Metadata is told of.
      size: bytes of the output folder as it is.
      budget: bytes that it may have; None for any number.
      problems: what could not be asked.
    """

    items: list[Item] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)
    marks: set[int] = field(default_factory=set)
    size: int = 0
    budget: int | None = None
    problems: list[str] = field(default_factory=list)

    @property
    def after(self) -> int:
        """Bytes of the output folder when all of it is gone."""
        return self.size - sum(item.bytes for item in self.items)

    @property
    def fits(self) -> bool:
        return self.budget is None or self.after <= self.budget


class Planner:
    """Finds what goes of an output folder that the caller holds."""

    def __init__(self, config: Config, output: Output, stays: Stays, recorded: Recorded):
        self._config, self._output, self._stays, self._recorded = config, output, stays, recorded
        self._retention = config.schedule.retention
        gib = self._retention.disk_gib
        self.plan = Plan(size=disk.size(output.root), budget=int(gib * GIB) if gib else None)
        self.plan.problems += stays.problems
        self._seen: set[str] = set()

    def make(self) -> Plan:
        """What count and age let go, and then what the disk needs."""
        self._leftovers()
        self._unfinished()
        for folder, why in self._stays.too_old.items():
            self._run(folder, why)
        kept = {folder.name for folder in self._stays.runs}
        self._artifacts(kept, "no run that stays uses it")
        self._versions()
        self._for_the_disk(kept)
        self._statistics()
        self._ticks()
        return self.plan

    def _add(self, kind: str, path: Path, why: str, number: int | None = None) -> None:
        if str(path) not in self._seen:
            self._seen.add(str(path))
            self.plan.items.append(Item(kind, str(path), why, disk.size(path), number))

    # ---- what is of no use to anybody --------------------------------------------------------------------------------

    def _leftovers(self) -> None:
        output = self._output
        cut_short = [*disk.half_removed(output.runs, ID), *disk.half_removed(output.tunes, ID)]
        cut_short += disk.half_removed(
            output.cache, f"({FEATURES_PREFIX}|{UNFINISHED_PREFIX}|{SCRATCH_PREFIX}).*|{IN_SERVICE_FOLDER}"
        )
        for component in {each.component for each in self._recorded.executions if each.component}:
            for parent in [output.artifacts / component, output.artifacts / component / SYSTEM]:
                for folder in _folders(parent):
                    cut_short += disk.half_removed(folder, NAMED_BY_TFX)
        for path in cut_short:
            self._add(LEFTOVER, path, BEFORE)
        for each in self._recorded.executions:
            if each.component and not each.done:
                self._of_execution(each)
        for path in _matching(output.cache, f"{SCRATCH_PREFIX}*"):
            self._add(LEFTOVER, path, DEAD)

    def _of_execution(self, execution: Execution) -> None:
        artifacts, component, number = self._output.artifacts, execution.component, str(execution.number)
        keys = [key.name for key in _folders(artifacts / component) if not key.name.startswith(".")]
        found = [own_folder(artifacts, component, key, number) for key in keys]
        found += [own_folder(artifacts, component, SYSTEM, "executor_execution", number)]
        if execution.working and re.fullmatch(NAMED_BY_TFX, execution.working):
            found += [own_folder(artifacts, component, SYSTEM, "stateful_working_dir", execution.working)]
        for folder in filter(None, found):
            self._leftover(folder, execution, DEAD)

    def _leftover(self, folder: Path, execution: Execution, why: str) -> None:
        if execution.ended is not None and disk.written(folder) > execution.ended + TOLERANCE_SECONDS:
            self.plan.left[str(folder)] = NEWER
        else:
            self._add(LEFTOVER, folder, why)

    def _unfinished(self) -> None:
        """Downloads that every run makes anew; checkpoints, unless the next run goes on with them."""
        cache = self._output.cache
        for path in _matching(cache, IN_SERVICE_FOLDER):
            self._add(CACHE, path, "downloaded anew by every run")
        newest = next(iter(self._stays.runs), None)
        # A run that failed is made again, and a search goes on.
        if newest is None or newest != self._output.last_finished():
            return
        for path in _matching(cache, f"{UNFINISHED_PREFIX}*"):
            self._add(CACHE, path, "no training goes on with it")

    # ---- runs and what their steps left ------------------------------------------------------------------------------

    def _run(self, folder: Path, why: str) -> None:
        ours, foreign = contents(folder)
        kind = RUN if folder.parent == self._output.runs else SEARCH
        if not foreign:
            self._add(kind, folder, why)
            return
        self.plan.left[str(folder)] = f"{foreign[0].name} in it is not Graft's"
        # Without them it would pass for a run that was killed.
        for path in ours:
            if path.name not in TOLD:
                self._add(kind, path, why)

    def _artifacts(self, kept: set[str], why: str) -> None:
        """What no run of `kept` uses, nor one that always stays."""
        # Runs that were moved away look like runs that were removed.
        if not self._stays.runs:
            return
        wanted = set().union(*(self._recorded.uses.get(run, set()) for run in kept | set(self._stays.always)))
        for number, artifact in self._recorded.artifacts.items():
            if number not in wanted:
                self._artifact(artifact, why)
            elif artifact.deleted and artifact.folder:
                self._artifact(artifact, BEFORE)
        for each in self._recorded.executions:
            if each.component and each.run_id not in kept | set(self._stays.always):
                system = (each.component, SYSTEM, "executor_execution", str(each.number))
                if folder := own_folder(self._output.artifacts, *system):
                    self._leftover(folder, each, why)

    def _artifact(self, artifact: Artifact, why: str) -> None:
        if str(artifact.folder) in self._seen or str(artifact.folder) in self.plan.left:
            return
        if artifact.folder is None:
            if not artifact.elsewhere and not artifact.deleted:
                self.plan.marks.add(artifact.number)
            return
        if artifact.ended is None or disk.written(artifact.folder) > artifact.ended + TOLERANCE_SECONDS:
            self.plan.left[str(artifact.folder)] = NEWER
            return
        self.plan.marks.add(artifact.number)
        self._add(ARTIFACT, artifact.folder, why, artifact.number)

    # ---- versions ----------------------------------------------------------------------------------------------------

    def _versions(self) -> None:
        """Those that are too old, and in nobody's use."""
        for number in self._free_versions():
            if why := older(number, self._retention.days):
                self._version(number, why)

    def _free_versions(self) -> list[int]:
        """Oldest first; what is not as it was published, or was copied there from elsewhere, is not among them."""
        serving, pushed = open_serving(self._place), self._recorded.pushed
        try:
            used = in_use(serving)
            free = [number for number in serving.versions() if number not in used]
            # Rollbacks are not in ML Metadata, but what they are copies of is.
            ours = [number for number in free if number in pushed or original(serving, number) in pushed]
            return [number for number in ours if serving.untouched(number)]
        except (GraftError, OSError):
            # It is among the problems already.
            return []

    @property
    def _place(self) -> str:
        return self._output.serving_place(self._config.push.destination)

    def _version(self, number: int, why: str) -> None:
        location = open_serving(self._place).location(number)
        if isinstance(location, Path):
            within = location.resolve().is_relative_to(self._output.root.resolve())
            item = Item(VERSION, str(location), why, disk.size(location) if within else 0, number)
        else:
            item = Item(VERSION, location, why, 0, number)
        if item.path not in self._seen:
            self._seen.add(item.path)
            self.plan.items.append(item)

    def _statistics(self) -> None:
        """Those of models of which no version is left."""
        if self._stays.originals is None or is_uri(self._place):
            return
        there = self._stays.originals - {item.number for item in self.plan.items if item.kind == VERSION}
        folder = str(self._output.schema / comparison.STATISTICS_FOLDER)
        for file in comparison.unwanted(folder, there):
            if Path(file).stem.isdecimal():
                self._add(STATISTICS, Path(file), "its version is gone")

    def _ticks(self) -> None:
        try:
            lines = self._output.ticks.read_bytes().splitlines(keepends=True)
        except OSError:
            return
        if old := lines[: -self._retention.ticks]:
            why = f"{len(old)} lines over schedule.retention.ticks ({self._retention.ticks})"
            self.plan.items.append(Item(TICKS, str(self._output.ticks), why, sum(map(len, old))))

    # ---- what the disk needs -----------------------------------------------------------------------------------------

    def _for_the_disk(self, kept: set[str]) -> None:
        """The oldest, until it fits: caches, what steps left, folders of runs, versions."""
        for path in _matching(self._output.cache, f"{FEATURES_PREFIX}*"):
            if self.plan.fits:
                return
            self._add(CACHE, path, OVER)
        oldest = [folder for folder in reversed(self._stays.runs) if folder.name not in self._stays.always]
        stripped = set(kept)
        for folder in oldest:
            if self.plan.fits:
                return
            stripped.discard(folder.name)
            self._artifacts(stripped, OVER)
        for folder in oldest:
            if self.plan.fits:
                return
            self._run(folder, OVER)
        if isinstance(open_serving(self._place), LocalServing) and self._serves_within:
            for number in self._free_versions():
                if self.plan.fits:
                    return
                self._version(number, OVER)

    @property
    def _serves_within(self) -> bool:
        return Path(self._place).resolve().is_relative_to(self._output.root.resolve())


def _folders(parent: Path) -> list[Path]:
    return [path for path in sorted(parent.iterdir()) if disk.is_folder(path)] if disk.is_folder(parent) else []


def _matching(parent: Path, pattern: str) -> list[Path]:
    return [path for path in sorted(parent.glob(pattern)) if disk.is_folder(path)]
