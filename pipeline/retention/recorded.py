"""Which artifacts ML Metadata says were made here, for which runs they are, and whether they may be used again."""

import contextlib
import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from components.errors import UsageError
from components.run_summary import PUSHED_VERSION, text
from components.steps import STEPS, run_id_of
from pipeline import lineage, metadata_store
from pipeline.output import Output

# Custom property of an execution in which TFX notes the name of its working folder.
WORKING_DIR = "__stateful_working_dir_index__"
# `Artifact.State`, `Execution.State` and `Event.Type` of ML Metadata, whose import waits until something is read.
_DELETED = 4
_COMPLETE, _CACHED, _NOT_ENDED = 3, 5, (0, 1, 2)
_OUTPUT = 4


@dataclass(frozen=True)
class Artifact:
    """A folder that a step made.

    Attributes:
      number: in ML Metadata.
      folder: where it is in this output folder; None where it is gone, or lies elsewhere.
      ended: when its step ended, in seconds since 1970; None where that is not known.
      deleted: whether ML Metadata says that it is gone, or on its way out. TFX's cache passes it over, then.
      elsewhere: whether it lies in another output folder, of which this one is a copy.
    """

    number: int
    folder: Path | None
    ended: float | None
    deleted: bool
    elsewhere: bool


@dataclass(frozen=True)
class Execution:
    """A step in a run.

    Attributes:
      number: in ML Metadata; the folders that it writes to are named by it.
      component: id in the graph.
      run_id: of the run.
      done: whether it gave its outputs. If not, it failed or was killed: whoever holds the output folder knows that it
        does not run.
      working: name of TFX's working folder for it.
      ended: it wrote nothing later, in seconds since 1970; None where that is not known of one that was killed.
    """

    number: int
    component: str
    run_id: str
    done: bool
    working: str | None
    ended: float | None = None


@dataclass
class Recorded:
    """What is known of one output folder.

    Attributes:
      artifacts: by number.
      executions: of every run and search.
      uses: numbers of the artifacts that a run made, took from the cache or read, by its id.
      pushed: numbers of the versions that runs of it published.
    """

    artifacts: dict[int, Artifact] = field(default_factory=dict)
    executions: list[Execution] = field(default_factory=list)
    uses: dict[str, set[int]] = field(default_factory=dict)
    pushed: set[int] = field(default_factory=set)
    _store: Any = None

    def mark(self, numbers: set[int]) -> None:
        """Tells ML Metadata that artifacts are gone, all at once, so that no run uses them from now on."""
        known = self._store.get_artifacts_by_id(sorted(numbers)) if numbers else []
        for artifact in known:
            artifact.state = _DELETED
        if known:
            self._store.put_artifacts(known, field_mask_paths=["state"])


@contextlib.contextmanager
def of(output: Output) -> Iterator[Recorded]:
    """What ML Metadata knows of an output folder, which the caller holds; nothing where there is no database.

    Raises:
      UsageError: the database is damaged or full, the server that has it cannot be asked, or what it has is the history
        of another folder, of which this one is a copy.
    """
    from ml_metadata import errors

    store = metadata_store.to_change(output)
    try:
        if store.server is not None:
            yield _read(metadata_store.connect(store), store.suffix, output.artifacts)
        elif store.database.is_file():
            yield _read(lineage.open_store(store.database, writable=True), store.suffix, output.artifacts)
        else:
            yield Recorded()
    except (RuntimeError, errors.StatusError) as error:
        raise UsageError(
            f"{store.place} could not be read or written ({lineage.cause(error)}); what it is needed for stays where "
            "it is."
        ) from None


def _read(store: Any, suffix: str, artifacts: Path) -> Recorded:
    found = Recorded(_store=store)
    components = _components(store, suffix)
    ended: dict[int, float] = {}
    began: list[tuple[int, str, float]] = []
    for context in store.get_contexts_by_type(lineage.RUN):
        # On a server that people share only those of this folder are ours.
        if not context.name.endswith(suffix):
            continue
        run_id = run_id_of(context.name)
        executions = store.get_executions_by_context(context.id)
        events = store.get_events_by_execution_ids([each.id for each in executions]) if executions else []
        found.uses[run_id] = {event.artifact_id for event in events}
        really = {each.id: each for each in executions if each.last_known_state == _COMPLETE}
        for event in events:
            if event.type == _OUTPUT and event.execution_id in really:
                ended[event.artifact_id] = really[event.execution_id].last_update_time_since_epoch / 1000
        found.executions += [_execution(each, components.get(each.id, ""), run_id) for each in executions]
        began += [(each.id, run_id, each.create_time_since_epoch / 1000) for each in executions]
    found.executions = [_bounded(each, began) for each in found.executions]
    numbers = sorted(set().union(*found.uses.values()))
    for artifact in store.get_artifacts_by_id(numbers) if numbers else []:
        found.artifacts[artifact.id] = _artifact(artifact, artifacts, ended.get(artifact.id))
        if (version := text(artifact, PUSHED_VERSION)) and version.isdecimal():
            found.pushed.add(int(version))
    return found


def _components(store: Any, suffix: str) -> dict[int, str]:
    """Component by the number of an execution; only those of this graph."""
    found = {}
    for context in store.get_contexts_by_type(lineage.NODE):
        pipeline, _, component = context.name.rpartition(".")
        if component in STEPS and pipeline.endswith(suffix):
            found |= dict.fromkeys((each.id for each in store.get_executions_by_context(context.id)), component)
    return found


def _execution(execution: Any, component: str, run_id: str) -> Execution:
    properties, running = execution.custom_properties, execution.last_known_state in _NOT_ENDED
    return Execution(
        execution.id,
        component,
        run_id,
        done=execution.last_known_state in (_COMPLETE, _CACHED),
        working=properties[WORKING_DIR].string_value if WORKING_DIR in properties else None,
        ended=None if running else execution.last_update_time_since_epoch / 1000,
    )


def _bounded(execution: Execution, began: list[tuple[int, str, float]]) -> Execution:
    """Of a step that was killed ML Metadata knows no end; but the next run began after it, as one holds the folder."""
    if execution.ended is not None:
        return execution
    later = [time for number, run_id, time in began if number > execution.number and run_id != execution.run_id]
    return dataclasses.replace(execution, ended=min(later, default=None))


def _artifact(artifact: Any, artifacts: Path, ended: float | None) -> Artifact:
    # The output folder may have been moved or copied: its own folder is the one that the last three parts name.
    recorded = PurePath(artifact.uri)
    parts = recorded.parts[-3:]
    folder = own_folder(artifacts, *parts) if len(parts) == 3 and parts[2].isdecimal() else None
    elsewhere = folder is None and Path(recorded).exists()
    return Artifact(artifact.id, folder, ended, artifact.state == _DELETED, elsewhere)


def own_folder(artifacts: Path, *parts: str) -> Path | None:
    """A folder under `artifacts/`; None where there is none, or a link leads to another place."""
    folder = artifacts.joinpath(*parts)
    real = folder.is_dir() and folder.resolve() == artifacts.resolve().joinpath(*parts)
    return folder if real else None
