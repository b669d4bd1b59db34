"""What ML Metadata recorded of the runs of an output folder. It is only read, also while a run writes to it."""

import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.errors import UsageError
from components.files import read_json
from components.run_summary import PUSHED_DESTINATION, PUSHED_VERSION, text
from components.steps import run_id_of
from pipeline import metadata_store
from pipeline.output import Output

RUN, NODE, PUSHED_MODEL = "pipeline_run", "node", "PushedModel"


@dataclass(frozen=True)
class Execution:
    """A component in a run.

    Attributes:
      component: its id in the graph.
      run_id: of the run.
      began: seconds since 1970.
      seconds: until ML Metadata heard of its end.
      done: whether it gave its outputs; if not, it runs, failed or was killed.
      cached: whether they came from the cache.
      properties: what it was given, and what else is in its cache key; the inputs are not among them.
      outputs: artifacts by key.
    """

    component: str
    run_id: str
    began: float
    seconds: float
    done: bool
    cached: bool
    properties: dict[str, Any]
    outputs: dict[str, Any]

    @property
    def code(self) -> str | None:
        """Digest of the source that it ran, of those components whose cache key has one."""
        return self.properties.get("code") or (self.setting("custom_config") or {}).get("code")

    def setting(self, name: str) -> Any:
        """A property that holds JSON; None where there is none."""
        try:
            return json.loads(self.properties[name])
        except (KeyError, TypeError, ValueError):
            return None


@contextlib.contextmanager
def of(output: Output) -> Iterator["History"]:
    """Opens the history of an output folder, wherever it is kept, for reading.

    Raises:
      UsageError: it is missing or damaged, or the server that has it cannot be asked.
    """
    from ml_metadata import errors

    store = metadata_store.of(output)
    if store.server is None:
        with opened(store.database) as history:
            yield history
        return
    known = metadata_store.connect(store)
    try:
        yield History(known, store.suffix)
    except errors.StatusError as error:
        raise UsageError(f"{store.place} could not be asked ({metadata_store.cause(str(error))}).") from None


@contextlib.contextmanager
def opened(database: Path) -> Iterator["History"]:
    """Opens a `metadata.db` for reading.

    Raises:
      UsageError: it is missing, or not to be read as such a database.
    """
    from ml_metadata import errors

    if not database.is_file():
        raise UsageError(f"There is no {database}, which held what ML Metadata knew of the runs.")
    with contextlib.ExitStack() as stack:
        try:
            try:
                store = open_store(database)
            except RuntimeError:
                journal = database.with_name(f"{database.name}-journal")
                if not journal.is_file():
                    raise
                # What was killed in the middle of writing is undone by whoever opens the database next. That takes
                # writing, so it is done to a copy.
                scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
                for path in (database, journal):
                    shutil.copyfile(path, scratch / path.name)
                store = open_store(scratch / database.name, writable=True)
            yield History(store)
        except (RuntimeError, errors.StatusError) as error:
            raise UsageError(
                f"{database} cannot be read as a database of ML Metadata ({cause(error)}); without it, only what lies "
                "in the folders of runs and versions can be shown."
            ) from None


def cause(error: Exception) -> str:
    """SQLite's words, without the query."""
    words = str(error).removeprefix("Error when executing query: ").partition(" query:")[0]
    # It would make the tables.
    return "it holds no tables" if "readonly" in words else (words.splitlines() or [type(error).__name__])[0][:200]


def open_store(database: Path, writable: bool = False):
    """ML Metadata's `MetadataStore` of a `metadata.db` that is there."""
    from ml_metadata.metadata_store import metadata_store
    from ml_metadata.proto import metadata_store_pb2 as mlmd

    modes = mlmd.SqliteMetadataSourceConfig
    config = mlmd.ConnectionConfig()
    config.sqlite.filename_uri = str(database)
    config.sqlite.connection_mode = modes.READWRITE if writable else modes.READONLY
    return metadata_store.MetadataStore(config)


def artifacts_of_run(database: Path, run_id: str) -> dict[str, dict[str, Any]]:
    """The artifacts of a run: component id -> output key -> artifact.

    What came from the cache is among them; a step that did not end is not.

    Raises:
      UsageError: the database is missing, or not to be read.
    """
    with opened(database) as history:
        return {name: execution.outputs for name, execution in history.run(run_id).items() if execution.done}


class History:
    """Answers from ML Metadata, for as long as it is open."""

    def __init__(self, store, suffix: str = ""):
        """An open store; what a suffix is given for is all that is read of it: see `metadata_store.Store`."""
        self._store, self._suffix = store, suffix

    def run_ids(self) -> list[str]:
        """Of every run that it knows, oldest first."""
        names = [context.name for context in self._own_contexts(RUN)]
        return sorted(map(run_id_of, names))

    def _own_contexts(self, kind: str) -> list[Any]:
        return [each for each in self._store.get_contexts_by_type(kind) if each.name.endswith(self._suffix)]

    def run(self, run_id: str) -> dict[str, Execution]:
        """The executions of a run by component id, in the order in which they began; empty for a run it does not know.

        A component that was started again in the same run is there as it ended.
        """
        context = self._store.get_context_by_type_and_name(RUN, f"{run_id}{self._suffix}")
        found = self._store.get_executions_by_context(context.id) if context else []
        executions = self._executions(sorted(found, key=lambda execution: execution.id))
        return {execution.component: execution for execution in executions}

    def pushed(self, version: int, destination: str | None = None) -> Any:
        """The `pushed_model` of a version, None where it is not known.

        Args:
          version: its number.
          destination: the version's place; two places may have a version of one number.
        """
        found = [
            artifact for artifact in self._own_artifacts(PUSHED_MODEL) if text(artifact, PUSHED_VERSION) == str(version)
        ]
        there = [artifact for artifact in found if text(artifact, PUSHED_DESTINATION) == destination]
        # An output folder may have been moved: then the number, which is a time, has to be enough.
        return next(iter([*there, *found]), None)

    def _own_artifacts(self, kind: str) -> list[Any]:
        found = self._store.get_artifacts_by_type(kind)
        if not self._suffix:
            return found
        pipelines = self._own_contexts(metadata_store.PIPELINE)
        own = {artifact.id for each in pipelines for artifact in self._store.get_artifacts_by_context(each.id)}
        return [artifact for artifact in found if artifact.id in own]

    def origins(self, artifact: Any) -> dict[str, Execution]:
        """Everything that an artifact was made of: by component id, the execution that really ran.

        That may have been in an earlier run, whose result came from the cache.
        """
        found: dict[int, Any] = {}
        waiting = {artifact.id}
        while waiting:
            events = self._store.get_events_by_artifact_ids(sorted(waiting))
            makers = self._store.get_executions_by_id({event.execution_id for event in events if event.type == _OUTPUT})
            new = {execution.id: execution for execution in makers if execution.last_known_state == _COMPLETE}
            new = {number: execution for number, execution in new.items() if number not in found}
            found |= new
            inputs = self._store.get_events_by_execution_ids(sorted(new)) if new else []
            waiting = {event.artifact_id for event in inputs if event.type == _INPUT}
        made = self._executions(found[number] for number in sorted(found))
        return {execution.component: execution for execution in made}

    def _executions(self, executions: Iterable[Any]) -> Iterator[Execution]:
        executions = list(executions)
        events = self._store.get_events_by_execution_ids([each.id for each in executions]) if executions else []
        outputs = [event for event in events if event.type == _OUTPUT]
        artifacts = {each.id: each for each in self._store.get_artifacts_by_id({each.artifact_id for each in outputs})}
        for execution in executions:
            names = {each.type: each.name for each in self._store.get_contexts_by_execution(execution.id)}
            yield Execution(
                # A node's context is named after pipeline and node, and the name of a node has no dot.
                component=names.get(NODE, execution.type).rpartition(".")[2],
                run_id=run_id_of(names.get(RUN, "unknown")),
                began=execution.create_time_since_epoch / 1000,
                seconds=(execution.last_update_time_since_epoch - execution.create_time_since_epoch) / 1000,
                done=execution.last_known_state in (_COMPLETE, _CACHED),
                cached=execution.last_known_state == _CACHED,
                properties={name: _plain(value) for name, value in execution.custom_properties.items()},
                outputs={
                    event.path.steps[0].key: artifacts[event.artifact_id]
                    for event in outputs
                    if event.execution_id == execution.id
                },
            )


# `Execution.State` and `Event.Type` of ML Metadata, whose import waits until something is read.
_COMPLETE, _CACHED = 3, 5
_INPUT, _OUTPUT = 3, 4


def _plain(value: Any) -> Any:
    kind = value.WhichOneof("value")
    return getattr(value, kind) if kind else None


def place_of(artifact: Any, artifacts: Path) -> Path:
    """The folder of an artifact.

    Args:
      artifact: of a run.
      artifacts: `artifacts/` of the output folder. It may have been moved or copied since, and the database still says
        where it was; the last three parts of the path are the component, the key and the execution.
    """
    recorded = Path(artifact.uri)
    here = artifacts.joinpath(*recorded.parts[-3:])
    return recorded if recorded.exists() or not here.exists() else here


def folder_of(steps: dict[str, Execution], component: str, key: str, artifacts: Path) -> Path | None:
    """The folder of what a component left; None where it is gone, or was never known.

    Args:
      steps: executions by component id.
      component: its id.
      key: of the output.
      artifacts: as for `place_of`.
    """
    artifact = steps[component].outputs.get(key) if component in steps else None
    folder = place_of(artifact, artifacts) if artifact else None
    return folder if folder and folder.is_dir() else None


def read_left(folder: Path | None, name: str) -> dict[str, Any]:
    """A JSON file of what a component left; empty where it is gone or damaged."""
    try:
        return read_json(folder, name, {})
    except (OSError, ValueError):
        return {}
