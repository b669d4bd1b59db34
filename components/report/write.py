"""The report of a run, written whole or not at all."""

from pathlib import Path
from typing import Any

from components.files import write_whole
from components.report.gather import gather
from components.report.page import render
from components.run_summary import Produced


def write_report(
    destination: Path,
    summary: dict[str, Any],
    left: Produced,
    kept_out: list[dict] | None = None,
    folder: Path | None = None,
) -> None:
    """Writes the page.

    Args:
      destination: of the page; links in it start from its folder.
      summary: of the run, with what there is of it (docs/summary.md).
      left: by the steps.
      kept_out: rows of `quarantine.jsonl`; None where `left.catalog` has them.
      folder: of the run; None where the page is in it.

    Raises:
      OSError: the page cannot be written.
    """
    # File names may be no text, and surrogates have no place in UTF-8.
    page = render(gather(summary, left, destination, kept_out, folder))
    write_whole(destination, page.encode("utf-8", "backslashreplace"))
