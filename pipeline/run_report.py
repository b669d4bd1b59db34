"""The report in the folder of a run; whatever goes wrong with it, the run is what it was."""

import contextlib
import traceback
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from components import data_report, progress
from components.data_findings import ANOMALIES_FILE
from components.files import read_json_lines
from components.run_summary import Produced
from components.steps import REPORT_FILE


@contextlib.contextmanager
def never_fatal(node_id: str) -> Iterator[None]:
    """Lets nothing out of the step that writes the report, not even an interruption: what matters is done by then."""
    try:
        yield
    except BaseException as error:
        if node_id != "Report":
            raise
        logged(error)


def with_folder(folder: Path, left: Produced) -> tuple[Produced, list[dict[str, Any]] | None]:
    """What the steps left and what was kept out, from the run's folder where a step that stopped the run left it."""
    if (folder / ANOMALIES_FILE).is_file():
        left = replace(left, data_gate=folder)
    listed = folder / data_report.QUARANTINE_FILE
    return left, read_json_lines(listed) if left.catalog is None and listed.is_file() else None


def write(folder: Path, summary: dict[str, Any], left: Produced) -> Path | None:
    """Writes the report of a run, however it ended.

    Args:
      folder: of the run; holds the summary, and what was kept out.
      summary: of the run.
      left: by its steps.

    Returns:
      The page; None where it could not be written, of which the person is warned.
    """
    page = folder / REPORT_FILE
    try:
        # Matplotlib takes a moment to import.
        from components.report.write import write_report

        write_report(page, summary, *with_folder(folder, left))
    # Also where the person does not want to wait for it.
    except BaseException as error:
        progress.warn(f"The report {page} could not be written ({logged(error)}); graft report {folder} tries again.")
        return None
    return page


def logged(error: BaseException) -> str:
    """Puts an error that ends nothing into the log; returns it in a few words."""
    # The log may be what the full disk has no room for.
    with contextlib.suppress(OSError):
        traceback.print_exception(error)
    return "it was interrupted" if isinstance(error, KeyboardInterrupt) else f"{type(error).__name__}: {error}"
