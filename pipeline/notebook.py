"""Run the pipeline and look at its report from a notebook.

    from pipeline import notebook as graft

    run = graft.run("images", "out", {"model.alpha": 0.35})
    run

The first prints the lines of `graft run` while it runs, the second shows the report in the cell.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from components.errors import GraftError
from components.steps import REPORT_FILE, SUMMARY_FILE
from pipeline.output import read_summary
from pipeline.run_folder import find_run

HEIGHT = 800  # pixels of the report in a cell
# What a kernel sets for its own output: escape sequences where there is no terminal, and its way to draw pictures.
KERNELS_OWN = ("FORCE_COLOR", "CLICOLOR_FORCE", "MPLBACKEND")


class NotebookError(GraftError):
    """One sentence; a notebook shows it without a traceback.

    Attributes:
      exit_code: what the command would have ended with.
    """

    def __init__(self, sentence: str, exit_code: int):
        super().__init__(sentence)
        self.exit_code = exit_code

    def _render_traceback_(self) -> list[str]:
        """What IPython shows of an exception that has such a method."""
        return [f"graft: {self}"]


@dataclass(frozen=True)
class Run:
    """A run that has ended. As the last line of a cell it shows its report.

    Attributes:
      folder: `runs/<run id>` of the output folder.
      summary: `summary.json` (docs/summary.md names its fields); `status` is `unchanged` where nothing was to do.
    """

    folder: Path
    summary: dict[str, Any] = field(repr=False)

    @property
    def status(self) -> str:
        """`published`, `refused`, `unchanged` or `failed`."""
        return self.summary["status"]

    @property
    def accuracy(self) -> float | None:
        """Of the test images, 0 to 1; None where it did not come to that."""
        return (self.summary["metrics"]["test"] or {}).get("accuracy")

    @property
    def model(self) -> str | None:
        """Folder or URI of the published version; None where nothing was published."""
        return self.summary["model"]["path"]

    @property
    def report(self) -> Path:
        """The page, for a browser."""
        return self.folder / REPORT_FILE

    def __repr__(self) -> str:
        judged = "" if self.accuracy is None else f", test accuracy {self.accuracy:.3f}"
        report = f"; {self.report}" if self.report.is_file() else "; it has no report"
        return f"<run {self.folder.name}: {self.status}{judged}{report}>"

    def _repr_html_(self) -> str | None:
        """The report in a frame, whose scripts cannot reach the notebook; None where there is none to be shown."""
        try:
            page = self.report.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            return None
        # In a frame of its own a page's links count from the notebook: those to its parts would leave it, and those to
        # files beside it would lead nowhere.
        page = page.replace("<head>", '<head><base href="about:srcdoc">', 1)
        escaped = page.replace("&", "&amp;").replace('"', "&quot;")
        style = f"width: 100%; height: {HEIGHT}px; border: 1px solid #8886"
        return f'<iframe title="Report" sandbox="allow-scripts" style="{style}" srcdoc="{escaped}"></iframe>'


def run(
    images: str | Path | Iterable[str | Path],
    output: str | Path,
    settings: Mapping[str, Any] | None = None,
    config: str | Path | None = None,
) -> Run:
    """Runs the pipeline as `graft run` does, and prints the same lines.

    It runs in a process of its own: nothing of TFX gets into the notebook's, its memory is free again afterwards, and
    interrupting the cell ends it as Ctrl-C ends the command. It ends with the notebook, too.

    Args:
      images: folder of class folders, manifest, or URI, or several of them, as `--images` takes them.
      output: where everything goes.
      settings: values by key, such as `{"training.batch_size": 16}`, as `--set` takes them.
      config: a configuration file, as `--config` takes it.

    Returns:
      What became of it. A model that the gate refused is no error: `status` says so.

    Raises:
      GraftError: in one sentence, why nothing was started or which step failed. `show(output)` has the report of a run
        that failed.
    """
    sources = [images] if isinstance(images, str | Path) else list(images)
    request = {
        "images": [str(source) for source in sources],
        "output": str(output),
        "config": None if config is None else str(config),
        "overrides": [f"{key}={_as_yaml(value)}" for key, value in (settings or {}).items()],
    }
    answer = _ask(request)
    if answer.get("error"):
        raise NotebookError(answer["error"], answer["exit_code"])
    return Run(Path(output, "runs", answer["run_id"]), answer)


def show(output: str | Path) -> Run:
    """An earlier run.

    Args:
      output: an output folder, which means its newest run, or the folder of a run in it.

    Raises:
      GraftError: there is no such run, or it left no summary.
    """
    try:
        folder = find_run(Path(output))
    except GraftError as error:
        raise NotebookError(str(error), error.exit_code) from None
    return Run(folder, read_summary(folder))


def _as_yaml(value: Any) -> str:
    """JSON is YAML."""
    return json.dumps(value, ensure_ascii=False, default=str)


def _ask(request: dict[str, Any]) -> dict[str, Any]:
    """Lets `pipeline.notebook_run` run it, prints its lines as they come, and gives its answer."""
    with tempfile.TemporaryDirectory(prefix="graft-notebook-") as folder:
        answer = Path(folder, SUMMARY_FILE)
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "pipeline.notebook_run", json.dumps(request), str(answer)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="backslashreplace",
            env=_environment(),
            # Some front ends interrupt a kernel's whole group and some the kernel alone; it must be told once.
            process_group=0,
        )
        try:
            _print_lines(process)
        except KeyboardInterrupt:
            process.stdin.close()
            _print_lines(process)
            raise
        finally:
            process.kill()
            process.communicate()
        if not answer.is_file():
            ended = f"signal {-process.returncode}" if process.returncode < 0 else f"exit code {process.returncode}"
            runs = Path(request["output"], "runs")
            raise NotebookError(
                f"The run ended without an answer ({ended}); the newest folder in {runs} has the log.", 1
            )
        return json.loads(answer.read_text())


def _environment() -> dict[str, str]:
    """What a process needs to run the same code as this one."""
    # Without the notebook's folder, which is an empty text here: a file there may have the name of a module.
    path = os.pathsep.join(filter(None, sys.path))
    return {name: value for name, value in os.environ.items() if name not in KERNELS_OWN} | {"PYTHONPATH": path}


def _print_lines(process: subprocess.Popen) -> None:
    for line in process.stdout:
        print(line, end="", flush=True)
    process.wait()
