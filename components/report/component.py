"""Report: the last step, which writes what happened as a page for people and as `summary.json` for programs."""

import json
import traceback
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tfx import types
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter

from components import run_summary
from components.data_gate import DataGateResult
from components.files import write_whole
from components.formats import FormatFiles
from components.ingestion import ImageCatalog
from components.report.write import write_report
from components.run_summary import About
from components.steps import REPORT_FILE, SUMMARY_FILE, Notes, read_notes


class RunReport(types.Artifact):
    """`report.html` and `summary.json` (docs/summary.md)."""

    TYPE_NAME = "graft.RunReport"


class Executor(base_executor.BaseExecutor):
    def Do(self, input_dict, output_dict, exec_properties) -> None:
        folder = Path(artifact_utils.get_single_uri(output_dict["report"]))
        artifacts: dict[str, dict] = defaultdict(dict)
        for component, key in run_summary.OUTPUTS.values():
            artifacts[component][key] = artifact_utils.get_single_instance(input_dict[key]).mlmd_artifact
        # The model is out by now, or refused: whatever cannot be read or written must not make that a failed run.
        try:
            self._write(folder, run_summary.produced(artifacts), exec_properties)
        except Exception:
            traceback.print_exc()

    def _write(self, folder: Path, left: run_summary.Produced, exec_properties: dict[str, Any]) -> None:
        """The summary, then the page."""
        run_id = self._context.pipeline_run_id if self._context else ""
        notes = read_notes(Path(exec_properties["notes"])) if exec_properties["notes"] else None
        about = About(**json.loads(exec_properties["about"]))
        notes = notes or Notes(run_id, warnings=run_summary.warned_of(left, about))
        summary = run_summary.collect(left, about, notes)
        write_whole(folder / SUMMARY_FILE, json.dumps(summary, indent=1) + "\n")
        write_report(folder / REPORT_FILE, summary, left)


class ReportSpec(ComponentSpec):
    PARAMETERS = {
        "about": ExecutionParameter(type=str),
        "notes": ExecutionParameter(type=str),
    }
    INPUTS = {
        "catalog": ChannelParameter(type=ImageCatalog),
        "examples": ChannelParameter(type=standard_artifacts.Examples),
        "result": ChannelParameter(type=DataGateResult),
        "model_run": ChannelParameter(type=standard_artifacts.ModelRun),
        "evaluation": ChannelParameter(type=standard_artifacts.ModelEvaluation),
        "formats": ChannelParameter(type=FormatFiles),
        "infra_blessing": ChannelParameter(type=standard_artifacts.InfraBlessing),
        "pushed_model": ChannelParameter(type=standard_artifacts.PushedModel),
    }
    OUTPUTS = {"report": ChannelParameter(type=RunReport)}


class Report(base_component.BaseComponent):
    """Writes the report of a run that came to its end.

    Output: `report` (`RunReport`). Where the page cannot be written, it holds the summary alone; or nothing.

    Args:
      catalog: of the ingestion.
      examples: of the ingestion; the pictures come from there.
      result: of DataGate.
      model_run: of the Trainer.
      evaluation: of the gate.
      formats: of ModelFormats.
      infra_blessing: of ServingCheck.
      pushed_model: of the Pusher.
      about: what was to be run.
      notes: folder in which the runner keeps `steps.json`; empty where it keeps none, and the summary has no times.
    """

    SPEC_CLASS = ReportSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(
        self,
        catalog,
        examples,
        result,
        model_run,
        evaluation,
        formats,
        infra_blessing,
        pushed_model,
        about: About,
        notes: str,
    ):
        spec = ReportSpec(
            catalog=catalog,
            examples=examples,
            result=result,
            model_run=model_run,
            evaluation=evaluation,
            formats=formats,
            infra_blessing=infra_blessing,
            pushed_model=pushed_model,
            about=json.dumps(asdict(about), sort_keys=True),
            notes=notes,
            report=types.Channel(type=RunReport),
        )
        super().__init__(spec=spec)
