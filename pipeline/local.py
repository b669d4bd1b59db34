"""One run on this machine: the cheap checks, the `unchanged` short cut, then the graph under TFX's local launcher."""

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from components import data_report, progress, run_summary
from components.comparison import KEPT_SCHEMA_FILE, STATISTICS_FOLDER, statistics_of
from components.conversion import package_versions, require_packages
from components.data_findings import DRIFT_FILE
from components.errors import GraftError, UsageError
from components.features import TENSORBOARD_FOLDER, TRAINING_FILE
from components.files import read_json, read_json_lines, write_json_lines, write_whole
from components.image_files import Digest, content_digest
from components.inspection import IO_ERROR
from components.publishing import original, read_card, stands_for
from components.remembered import SPLITS_FILE
from components.serving_places import open_serving
from components.source import ROOT, code_digest, source_digest
from components.sources import Sources, list_images, resolve, spans_text
from components.steps import LOG_FILE, STEPS, SUMMARY_FILE, Notes
from components.storage import exists, is_uri
from pipeline import failure as failures
from pipeline import metadata_store, run_report
from pipeline import summary as summaries
from pipeline.config import Config, ScheduleConfig
from pipeline.console import Detail, Steps, telling
from pipeline.engine import Cluster
from pipeline.in_service import at as in_service_at
from pipeline.inputs import Inputs, Started, read_started
from pipeline.output import Output, read_summary, write_json
from pipeline.probe import proved
from pipeline.runners import engine_of, local_arguments, notice_dead_workers, require_runner
from pipeline.schedule import policy as policies
from pipeline.schedule.places import Places
from pipeline.schedule.policy import Decision, Last, Situation
from trainer import backbones

MARK_FILE = "fingerprint"
READ_AGAIN_FILE = "read_again"
# In the cache folder: the job on a cluster that is being waited for.
JOB_FILE = "cluster_job.json"
MEMORY_FILE = "memory.json"
GROWTHS = 100  # of schema/splits.jsonl that are told from a person's changes


def run(
    config: Config,
    images: list[str],
    output_folder: Path,
    detail: Detail = Detail.NORMAL,
    policy: ScheduleConfig | None = None,
) -> dict[str, Any]:
    """Runs the pipeline and prints what happens.

    Args:
      config: everything that a person chooses.
      images: folders, manifests and span patterns, as `--images` takes them.
      output_folder: where everything goes.
      detail: how much is printed.
      policy: decides whether there is something to train for (`graft schedule`), and `runs/ticks.jsonl` is left to the
        caller; without one, whatever is new since the last finished run is.

    Returns:
      The summary (docs/summary.md names its fields); `exit_code` in it is what the command ends with. Where nothing was
      trained, that of the run that stands for it, with the `status` and `reason` of this one.

    Raises:
      GraftError: nothing was started, for a reason that the person can mend.
    """
    began = time.time()
    require_packages(config.push.formats)
    local_arguments(config)
    with _opened(config, images, output_folder, detail) as (output, sources, digest, steps):
        if config.push.destination is not None:
            open_serving(output.serving_place(config.push.destination)).prepare()
        inputs = _inputs(config, sources, digest)
        if policy is not None:
            decision = policies.decide(policy, _situation(config, output, inputs, policy))
        else:
            same = _same_run(output, inputs.fingerprint, config.push.destination)
            decision = Decision(same is None, "")
        summary = None
        if decision.train is not False:
            # Before there is a run, but not where nothing is new: what it needs may have to be started first.
            cluster = require_runner(config)
            started = _Run(config, sources, digest, output, output.new_run(), began, cluster)
            summary = started.execute(inputs, detail, decision, scheduled=policy is not None)
            decision = started.decision
        if summary is None:
            summary = _unchanged(config, output, decision, steps, began, tick=policy is None)
        return summary | {"drift": list(dict.fromkeys([*summary["drift"], *decision.drift]))}


@contextlib.contextmanager
def up_to(
    last: str, config: Config, images: list[str], output_folder: Path, detail: Detail = Detail.NORMAL
) -> Iterator[tuple["_Run", Steps]]:
    """Runs the steps up to one of them as `run` does, with the same checks and the same cache.

    There is no summary and `runs/` is left alone, as nothing was trained, judged or published. While the body runs,
    too, the output folder is held and what libraries print goes to the log.

    Args:
      last: id of the last step that is run.
      config: as for `run`.
      images: as for `run`.
      output_folder: as for `run`; log and quarantine go to a new folder under `tune/` in it.
      detail: how much is printed.

    Yields:
      What ran (its folder, artifacts and timings), and where to tell the person.

    Raises:
      GraftError: nothing was started, for a reason that the person can mend.
      SystemExit: with the exit code, when the person has been told what went wrong in a step or in the body.
      KeyboardInterrupt: the person has been told so, too.
    """
    began = time.time()
    with _opened(config, images, output_folder, detail) as (output, sources, digest, _):
        cluster = require_runner(config)
        started = _Run(config, sources, digest, output, output.new_tune(), began, cluster)
        with telling(started.log, detail, started.notes.warnings.append) as steps:
            try:
                started.run_steps(steps, last)
                yield started, steps
            except BaseException as error:
                started.keep_error(error)
                summaries.print_failure(started.explain(error), started, steps)
                if isinstance(error, KeyboardInterrupt):
                    raise
                raise SystemExit(getattr(error, "exit_code", 1)) from error


@contextlib.contextmanager
def _opened(
    config: Config, images: list[str], output_folder: Path, detail: Detail
) -> Iterator[tuple[Output, Sources, Digest, Steps]]:
    """Makes the cheap checks, holds the output folder while the body runs, and looks at the images."""
    output = Output(output_folder.absolute())
    sources = resolve(images, config.data.spans)
    serving = output.serving_place(config.push.destination)
    for folder in sources.folders:
        if output.root.resolve().is_relative_to(Path(folder).resolve()):
            raise UsageError(
                f"The output folder {output.root} lies inside the image folder {folder}; give --output another place."
            )
        if not is_uri(serving) and Path(serving).resolve().is_relative_to(Path(folder).resolve()):
            raise UsageError(
                f"push.destination ({serving}) lies inside the image folder {folder}; give it another place."
            )
    listing = list_images(sources.places, config.data.follow_symlinks, config.data.split.group)
    output.prepare()
    with output.held():
        metadata_store.settle(config.runner.metadata, output)
        steps = Steps(detail=detail)
        if ended := output.ended_without_a_word():
            steps.say(f"The run before, {ended.run_id}, ended in {ended.step} without a word: was it killed?")
        with steps.step("Look at the images") as result:
            progress.start(len(listing.files), unit="files")
            memory = output.cache / "digests.json"
            digest = content_digest(listing.files, memory, progress.advance, listing.classes)
            found = f"{len(listing.files)} files in {len(listing.classes)} classes"
            result["note"] = ", ".join([found, *(spans_text(numbers) for _, numbers in sources.spans)])
        # Ingestion lists them itself, and would hold them twice while the body runs.
        del listing
        yield output, sources, _not_the_failed_one(output, digest), steps


def _not_the_failed_one(output: Output, digest: Digest) -> Digest:
    """Another digest than that under which ingestion met errors that may have passed, so that it reads again."""
    met = output.cache / READ_AGAIN_FILE
    if not met.is_file():
        return digest
    return digest._replace(value=hashlib.sha256(f"{digest.value} {met.read_text()}".encode()).hexdigest())


def _inputs(config: Config, sources: Sources, digest: Digest) -> Inputs:
    """Everything that a run's outcome depends on."""
    return Inputs(
        places=sources.places,
        digest=digest.value,
        # Where and when it is computed, and what for clusters, changes no outcome.
        configuration=config.model_dump(mode="json", exclude={"runner", "schedule"}),
        # The last is reached by import path, which no import statement shows.
        code=source_digest("pipeline.local", "pipeline.graph", "trainer.run"),
        weights=backbones.weights_digest(config.model.weights),
        packages=[*package_versions(config.push.formats), _file_digest(ROOT / "requirements.lock")],
        files=digest.files,
        classes=list(digest.classes),
        spans=sources.spans,
    )


def _mark(output: Output, fingerprint: str, destination: str | None = None, published: bool = True) -> str:
    """What must still hold for a run to say no more than the last: its inputs, what is in service, what is kept.

    Args:
      output: where the run was.
      fingerprint: of its inputs.
      destination: `push.destination`.
      published: how it ended. What was published may have been rolled back from since; a run to which nothing is new
        must not put it back, so that the version of a rollback stands for it. What was refused was refused in
        comparison with what was in service, and after a rollback deserves another one.
    """
    place = open_serving(output.serving_place(destination))
    in_service = place.in_service()
    if published:
        in_service = stands_for(place, in_service)
    kept = [_file_digest(output.schema / name) for name in (KEPT_SCHEMA_FILE, SPLITS_FILE)]
    return "\n".join([fingerprint, "" if in_service is None else str(in_service), *kept])


def _file_digest(path: Path) -> str:
    """Empty where there is no file."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


class _Memory:
    """Tells whether a cached ingestion still agrees with `schema/splits.jsonl`, which ingestion reads and adds to.

    What the ingestion of the same inputs added is in its cached result. What it added for other inputs is not, nor what
    anybody else changed: then ingestion runs again.

    Attributes:
      name: of the state that ingestion starts from, for its cache key.
    """

    def __init__(self, output: Output, inputs: str, run_id: str):
        self._file, self._splits = output.cache / MEMORY_FILE, output.schema / SPLITS_FILE
        self._inputs, self._before = inputs, _file_digest(self._splits)
        self.name, self._added_for, self._grown = run_id, "", [self._before]
        # Where the note is missing or damaged, ingestion runs once more.
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            left = json.loads(self._file.read_text())
            if left["splits"] == self._before:
                self._grown = left.get("grown", self._grown)[-GROWTHS:]
                if left["added_for"] in ("", inputs):
                    self.name, self._added_for = left["name"], left["added_for"]

    def keep(self) -> None:
        """Notes what ingestion left."""
        after = _file_digest(self._splits)
        same = after == self._before
        note = {"name": self.name, "splits": after, "added_for": self._added_for if same else self._inputs}
        write_whole(self._file, json.dumps(note | {"grown": self._grown if same else [*self._grown, after]}))


def _only_grew(output: Output, then: str, now: str) -> bool:
    """Whether ingestion alone changed `schema/splits.jsonl` between two digests: it adds to it, also where no training
    comes of it."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        grown = json.loads((output.cache / MEMORY_FILE).read_text())["grown"]
        return grown[-1:] == [now] and then in grown
    return False


def _same_run(output: Output, fingerprint: str, destination: str | None) -> dict[str, Any] | None:
    """The summary of the last finished run, if its mark still holds."""
    run_folder = output.last_finished()
    if run_folder is None:
        return None
    left, summary = run_folder / MARK_FILE, read_summary(run_folder)
    mark = _mark(output, fingerprint, destination, summary["status"] == "published")
    return summary if left.is_file() and left.read_text() == mark else None


def _situation(config: Config, output: Output, inputs: Inputs, policy: ScheduleConfig) -> Situation:
    """What is known for the decision whether to train, without reading an image or importing TFX."""
    serving = output.serving_place(config.push.destination)
    there = in_service_at(serving)
    at = Situation(
        today=inputs,
        now=time.time(),
        last=_last(output, inputs.fingerprint, config.push.destination),
        in_service=there.original if there else None,
    )
    newest = next(iter(output.all_runs()), None)
    # That it is the last finished one, the mark says.
    if newest is not None and (at.last is None or newest.name != at.last.run_id) and (noted := read_started(newest)):
        at = dataclasses.replace(at, unfinished=(newest.name, noted))
    if there is None or "drift" not in policy.train_on:
        return at
    place = open_serving(serving)
    statistics = statistics_of(serving, str(output.schema / STATISTICS_FOLDER))
    return dataclasses.replace(
        at,
        classes=read_card(place, original(place, there.version))["classes"],
        images_known=statistics is not None and exists(statistics),
        no_drift=_read_looked(output) == _looked_at(inputs, there.original),
    )


def _last(output: Output, fingerprint: str, destination: str | None) -> Last | None:
    """The last finished run, and what is still as it was then."""
    folder = output.last_finished()
    if folder is None:
        return None
    summary, noted = read_summary(folder), folder / MARK_FILE
    if not noted.is_file():
        return Last(folder.name, noted=False)
    now = _mark(output, fingerprint, destination, summary["status"] == "published").split("\n")
    then = noted.read_text().split("\n")
    started = read_started(folder)
    return Last(
        folder.name,
        same_inputs=now[0] == then[0],
        same_service=now[1:2] == then[1:2],
        same_schema=now[2:3] == then[2:3] and (now[3:] == then[3:] or _only_grew(output, *then[3:], *now[3:])),
        inputs=started.inputs if started else None,
    )


def _looked_at(inputs: Inputs, in_service: int) -> dict[str, Any]:
    """What the finding that there is no drift holds for."""
    return {"inputs": inputs.fingerprint, "version": in_service}


def _read_looked(output: Output) -> dict[str, Any] | None:
    with contextlib.suppress(OSError, ValueError):
        return json.loads(Places(output).looked.read_text())
    return None


def in_service_line(serving: str) -> str:
    """What is in service, and that it is there by a rollback, if it is."""
    there = in_service_at(serving)
    return there.sentence if there else "Nothing is in service."


def _unchanged(
    config: Config, output: Output, decision: Decision, steps: Steps, began: float, tick: bool
) -> dict[str, Any]:
    """Says that the last finished run stands, and adds a line to `runs/ticks.jsonl` where nobody else does."""
    earlier = read_summary(output.last_finished())
    published = earlier["status"] == "published"
    status, code = ("unchanged", 0) if published else ("refused", 4)
    if tick:
        output.record_tick({"time": run_summary.timestamp(began), "status": status, "run_id": earlier["run_id"]})
    steps.say()
    if published:
        same = "images, configuration and code are those of run"
        steps.say(f"unchanged: {f'{decision.why} since run' if decision.why else same} {earlier['run_id']}.")
        steps.say(in_service_line(output.serving_place(config.push.destination)))
    else:
        what = decision.why or "nothing changed"
        steps.say(f"refused: {what} since run {earlier['run_id']}, which the gate refused:")
        summaries.print_refusal(earlier, steps)
    ended = {"status": status, "exit_code": code, "seconds": round(time.time() - began, 1)}
    return earlier | ended | {"reason": decision.why or None, "drift": []}


class _Run:
    """One execution of the graph."""

    def __init__(
        self,
        config: Config,
        sources: Sources,
        digest: Digest,
        output: Output,
        folder: Path,
        began: float,
        cluster: Cluster | None = None,
    ):
        self.config, self.sources, self.digest = config, sources, digest
        self.output, self.folder, self.cluster = output, folder, cluster
        self.log = folder / LOG_FILE
        self.notes = Notes(folder.name, began)
        self.artifacts: dict[str, dict[str, Any]] = {}
        self.decision, self.started = Decision(True, ""), None

    def execute(
        self, inputs: Inputs, detail: Detail, decision: Decision, scheduled: bool = False
    ) -> dict[str, Any] | None:
        """Runs every step; whatever happens, a summary is written and `runs/latest` points here.

        Args:
          inputs: what it reads.
          detail: how much is printed.
          decision: whether it trains; where that is open, the statistics decide.
          scheduled: whether a policy decided.

        Returns:
          The summary; None, and nothing is left of it, where there was no drift to train for.
        """
        self.decision, self.started = decision, Started(inputs)
        if scheduled and decision.train:
            self._note_started()
        elif not scheduled:
            self._write_started()
        error: BaseException | None = None
        failure: failures.Failure | None = None
        with telling(self.log, detail, self.notes.warnings.append) as steps:
            try:
                self.run_steps(steps)
            # A person gets one sentence and an exit code for whatever went wrong; the log has the rest.
            except BaseException as caught:
                self.keep_error(caught)
                error, failure = caught, self.explain(caught)
            if error is None and self.decision.train is False:
                self._forget()
                return None
            summary = self._summary(error, failure)
            warned = len(self.notes.warnings)
            # What could not be written because the disk is full or the folder gone, the person has been told of.
            with contextlib.suppress(OSError) if error else contextlib.nullcontext():
                write_json(self.folder / SUMMARY_FILE, summary)
                self.output.point_latest(self.folder)
            if error is None:
                self._note_finished(summary, inputs.fingerprint)
            self._report(summary, warned)
            if failure:
                summaries.print_failure(failure, self, steps)
            else:
                summaries.print_end(summary, self, steps)
        if isinstance(error, KeyboardInterrupt):
            raise error
        return summary

    def _summary(self, error: BaseException | None, failure: failures.Failure | None) -> dict[str, Any]:
        left = run_summary.produced(self.artifacts)
        if failure is None:
            return run_summary.collect(left, self.about, self.notes)
        code = getattr(error, "exit_code", 1)
        summary = run_summary.collect(
            left, self.about, self.notes, failure.sentence, code, failure.advice, failure.may_pass
        )
        # Where the data gate stopped the run, it left no artifact.
        found = read_json(self.folder, DRIFT_FILE, [])
        return summary | {"drift": run_summary.drifted(found) or summary["drift"]}

    def _note_started(self) -> None:
        """Notes why it trains, and that it began to: the next tick goes on with it, should it be killed."""
        self.notes.reason = self.decision.why
        before, afresh = self.decision.resumes, self.folder.name if self.decision.afresh else None
        if before:
            self.started = dataclasses.replace(before, reason=before.reason or self.decision.why)
        else:
            self.started = Started(self.started.inputs, self.decision.why, afresh)
        self._write_started()

    def _write_started(self) -> None:
        # What a full disk has no room for stops the run where the person is told of it.
        with contextlib.suppress(OSError):
            self.started.write(self.folder)

    def _decide(self, result: Path) -> None:
        """After the data gate: whether what was left open is to be trained for."""
        if self.decision.train is None:
            self.decision = policies.of_drift(read_json(result, DRIFT_FILE, []), self.decision)
            if self.decision.train:
                self._note_started()

    def _forget(self) -> None:
        """Remembers that these images have not drifted, and leaves nothing else of having looked."""
        there = in_service_at(self.output.serving_place(self.config.push.destination))
        looked = Places(self.output).looked
        with contextlib.suppress(OSError):
            looked.parent.mkdir(exist_ok=True)
            write_json(looked, _looked_at(self.started.inputs, there.original if there else 0))
        shutil.rmtree(self.folder, ignore_errors=True)

    def explain(self, error: BaseException) -> failures.Failure:
        """What to tell the person of an error that ended this run."""
        scene = failures.Scene(
            step=self.notes.step,
            output=self.output.root,
            log=self.log,
            artifacts=[each.uri for outputs in self.artifacts.values() for each in outputs.values()],
            catalog=run_summary.produced(self.artifacts).catalog,
            processes=self.config.runner.beam == "processes",
            cluster=(lambda: require_runner(self.config)) if engine_of(self.config) else None,
            destination=self.output.serving_place(self.config.push.destination),
        )
        return failures.explain(error, scene)

    def _note_finished(self, summary: dict[str, Any], fingerprint: str) -> None:
        """The next run knows by it that nothing is new. The model is out by now, or refused, whatever becomes of it."""
        try:
            # Last, so that a run that was killed before it is not taken for a finished one.
            mark = _mark(self.output, fingerprint, self.config.push.destination, summary["status"] == "published")
            write_whole(self.folder / MARK_FILE, mark)
        except BaseException as error:
            cause = run_report.logged(error)
            progress.warn(f"That this run is finished could not be noted ({cause}); the next one will run again.")

    def _report(self, summary: dict[str, Any], warned: int) -> None:
        """Writes the page, with the summary that it tells of beside it, which has the first `warned` warnings."""
        run_report.write(self.folder, summary, run_summary.produced(self.artifacts))
        self._write_notes()
        if len(self.notes.warnings) > warned:
            # What was not kept, or the page could not show, is told there.
            with contextlib.suppress(OSError):
                write_json(self.folder / SUMMARY_FILE, summary | {"warnings": self.notes.warnings})

    @property
    def about(self) -> run_summary.About:
        """What was to be run."""
        return run_summary.About(self.sources.places, self.digest.value, code_digest(), self.config.resolved)

    def begin(self, step: str) -> None:
        """Notes which step runs now."""
        self.notes.step = step
        self._write_notes()

    def _write_notes(self) -> None:
        # They are for whoever looks; a disk that is full now may do for what is left to do.
        with contextlib.suppress(OSError):
            self.notes.write(self.folder)

    def keep_error(self, error: BaseException) -> None:
        """Puts an error into the log, and what it says was kept out beside it."""
        # The full disk may have no room for any of it.
        with contextlib.suppress(OSError):
            traceback.print_exception(error)
            if rows := data_report.quarantined_lines(getattr(error, "quarantined", [])):
                write_json_lines(self.folder / data_report.QUARANTINE_FILE, rows)
            if found := getattr(error, "found", None):
                found.write(self.folder)

    def run_steps(self, steps: Steps, last: str | None = None) -> None:
        """Runs every step, or those up to the one of that id."""
        with self._jobs_noted():
            self._run_steps(steps, last)

    def _jobs_noted(self) -> contextlib.AbstractContextManager[None]:
        note = self.output.cache / JOB_FILE
        # A killed run may have left one, whatever does the work now.
        if not engine_of(self.config) and not note.exists():
            return contextlib.nullcontext()
        from pipeline.job import noted_in

        return noted_in(note)

    def _run_steps(self, steps: Steps, last: str | None) -> None:
        self._warn_of_full_disk()
        self.begin("Find the weights")
        model, fine_tune = self.config.model, self.config.training.fine_tune
        with steps.step(self.notes.step):
            if fine_tune.epochs:
                backbones.require_start(model.backbone, model.alpha, fine_tune.unfreeze)
            backbones.require_weights(model.backbone, model.alpha, model.weights, self.config.image_size)
        if engine_of(self.config):
            self.begin("Look at the cluster")
            with steps.step(self.notes.step) as result:
                result["note"] = proved(self.config, self.cluster, self.sources.places, self.output.root)
        self.begin("Load TFX")
        with steps.step(self.notes.step):
            os.environ.setdefault("KERAS_BACKEND", "tensorflow")
            from tfx.dsl.compiler import compiler

            from pipeline import graph

            if self.config.runner.beam == "processes":
                notice_dead_workers()
        inputs = json.dumps([self.sources.places, self.digest.value, graph.ingestion_settings(self.config)])
        memory = _Memory(self.output, inputs, self.folder.name)
        store = metadata_store.of(self.output)
        pipeline = graph.create_pipeline(
            self.config,
            images=self.sources.places,
            digest=f"{self.digest.value} {memory.name}",
            root=str(self.output.artifacts),
            serving=self.output.serving_place(self.config.push.destination),
            schema_folder=str(self.output.schema),
            cache=str(self.output.cache),
            notes=str(self.folder),
            name=store.pipeline_name(self.config.name),
            enable_cache=True,
            beam_pipeline_args=local_arguments(self.config),
            afresh=self.started.afresh if self.started else None,
        )
        compiled = compiler.Compiler().compile(pipeline)
        run_name = f"{self.folder.name}{store.suffix}"
        for launch, node_id in _launchers(compiled, store.connection(), run_name, graph.NEVER_CACHED):
            self.begin(STEPS[node_id])
            with steps.step(self.notes.step) as result, run_report.never_fatal(node_id):
                step_began = time.monotonic()
                execution = launch()
                self.notes.timings[node_id] = round(time.monotonic() - step_began, 2)
                outputs, cached = _outputs_of(store.connection(), execution.execution_id)
                self.artifacts[node_id] = outputs
                if cached:
                    self.notes.cached.append(node_id)
                    progress.warn_of(summaries.concerns_of(node_id, outputs))
                if node_id == "ImageExampleGen":
                    memory.keep()
                    self._keep_data_report(Path(outputs["catalog"].uri))
                if node_id == "Trainer":
                    self._keep_curves(Path(outputs["model_run"].uri))
                result["note"] = "from the cache" if cached else summaries.note(node_id, outputs)
            if node_id == "DataGate":
                self._decide(Path(outputs["result"].uri))
            if node_id == last or self.decision.train is False:
                return

    def _warn_of_full_disk(self) -> None:
        """There will be the images as they are, resized ones (as large as pixels, at most), and room for a model."""
        size, count = self.digest.size, self.digest.files
        needed = size + count * self.config.image_size**2 * 3 + 2**28
        free = shutil.disk_usage(self.output.root).free
        if free < needed:
            progress.warn(
                f"{failures.size(free)} are free where {self.output.root} is, and these images may need "
                f"{failures.size(needed)}; free some space, or give --output another place."
            )

    def _keep_data_report(self, catalog: Path) -> None:
        """Puts the list of what was kept out beside the log, and sees to it that files are tried again (D14)."""
        shutil.copyfile(catalog / data_report.QUARANTINE_FILE, self.folder / data_report.QUARANTINE_FILE)
        rows = read_json_lines(catalog / data_report.QUARANTINE_FILE)
        failed = [
            row for row in rows if row["reason"].startswith(IO_ERROR) and row["path"] not in self.digest.unreadable
        ]
        # They could be read a moment before: without this, the cache would keep them out for good. The same files
        # failing again change nothing more, so that they are tried once and not in every run.
        if failed:
            write_whole(self.output.cache / READ_AGAIN_FILE, hashlib.sha256(json.dumps(failed).encode()).hexdigest())

    def _keep_curves(self, model_run: Path) -> None:
        """Puts both phases' history beside the log: JSON, and what TensorBoard reads."""
        shutil.copyfile(model_run / TRAINING_FILE, self.folder / TRAINING_FILE)
        shutil.copytree(model_run / TENSORBOARD_FOLDER, self.folder / TENSORBOARD_FOLDER)


# ---- TFX's local launcher, node by node -----------------------------------------------------------------------------


def _launchers(compiled: Any, connection: Any, run_name: str, never_cached: tuple[str, ...]):
    """Yields (launch, node id) in topological order.

    The same calls as TFX's LocalDagRunner makes; it runs all nodes in one go, so that no progress could be shown, and
    has one cache switch for all of them. The connection is no part of what was compiled: there may be a password in it.
    """
    from tfx.dsl.compiler import constants
    from tfx.orchestration import metadata
    from tfx.orchestration.local import runner_utils
    from tfx.orchestration.portable import launcher, runtime_parameter_utils

    runtime_parameter_utils.substitute_runtime_parameter(compiled, {constants.PIPELINE_RUN_ID_PARAMETER_NAME: run_name})
    deployment = runner_utils.extract_local_deployment_config(compiled)
    for node in compiled.nodes:
        pipeline_node = node.pipeline_node
        node_id = pipeline_node.node_info.id
        if node_id in never_cached:
            pipeline_node.execution_options.caching_options.enable_cache = False
        yield (
            launcher.Launcher(
                pipeline_node=pipeline_node,
                mlmd_connection=metadata.Metadata(connection),
                pipeline_info=compiled.pipeline_info,
                pipeline_runtime_spec=compiled.runtime_spec,
                executor_spec=runner_utils.extract_executor_spec(deployment, node_id),
                custom_driver_spec=runner_utils.extract_custom_driver_spec(deployment, node_id),
            ).launch,
            node_id,
        )


def _outputs_of(connection: Any, execution_id: int) -> tuple[dict[str, Any], bool]:
    """The output artifacts of an execution by key, and whether they came from the cache."""
    import ml_metadata
    from ml_metadata.proto import metadata_store_pb2 as mlmd

    store = ml_metadata.MetadataStore(connection)
    (execution,) = store.get_executions_by_id([execution_id])
    if execution.last_known_state not in (mlmd.Execution.COMPLETE, mlmd.Execution.CACHED):
        raise GraftError("The step did not run: its inputs could not be resolved.")
    events = [event for event in store.get_events_by_execution_ids([execution_id]) if event.type == mlmd.Event.OUTPUT]
    artifacts = {a.id: a for a in store.get_artifacts_by_id([event.artifact_id for event in events])}
    outputs = {event.path.steps[0].key: artifacts[event.artifact_id] for event in events}
    return outputs, execution.last_known_state == mlmd.Execution.CACHED
