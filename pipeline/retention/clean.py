"""`graft clean`: applies `schedule.retention` to an output folder, and says what went, or would go."""

import contextlib
import json
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path
from typing import Any

from components.errors import UsageError
from components.sentences import counted
from components.serving_places import LocalServing, open_serving
from pipeline import terminal
from pipeline.config import Config
from pipeline.failure import size
from pipeline.output import Output, read_summary
from pipeline.retention import needed, recorded, stays
from pipeline.retention.plan import ARTIFACT, CACHE, LEFTOVER, RUN, SEARCH, STATISTICS, TICKS, VERSION, Planner
from pipeline.retention.remove import remove
from pipeline.run_folder import find_output
from trainer.cache_names import FEATURES_PREFIX

TITLES = {
    RUN: "folder of a run",
    SEARCH: "folder of a search",
    ARTIFACT: "artifact",
    VERSION: "version",
    CACHE: "cache",
    LEFTOVER: "leftover",
    STATISTICS: "statistics",
    TICKS: "ticks",
}


def clean(folder: Path, config: Config, dry_run: bool, as_json: bool) -> None:
    """Removes what the retention lets go, and prints it.

    Args:
      folder: the output folder.
      config: of which `schedule.retention` and `push.destination` are read.
      dry_run: whether everything stays, and only what would go is printed.
      as_json: one JSON object, as `apply` gives it.

    Raises:
      UsageError: it is no output folder, or its history cannot be read.
      OutputBusy: a run holds it.
    """
    output = find_output(folder)
    if not (output.root / ".lock").is_file():
        raise UsageError(f"{folder} was not made by graft run; give its --output.")
    done = apply(config, Output(output.root.absolute()), dry_run)
    if as_json:
        print(json.dumps(done))
        return
    out = terminal.console()
    for line in _lines(done):
        terminal.say_whole(out, line)


def apply(config: Config, output: Output, dry_run: bool = False) -> dict[str, Any]:
    """Removes what the retention lets go.

    Returns:
      `dry_run`; `removed`, each with `kind`, `path`, `why` and `bytes`; `bytes` of all of it; `size` of the output
      folder after it, `budget` and whether it `fits`; `left`, what would go and does not, with `path` and `why`;
      `problems`. All sizes are bytes on the disk.

    Raises:
      UsageError: what ML Metadata knows cannot be read or written.
      OutputBusy: a run holds the output folder.
    """
    with output.held(), recorded.of(output) as known:
        retention = config.schedule.retention
        staying = stays.look(output, config.push.destination, retention)
        plan = Planner(config, output, staying, known).make()
        gone = plan.items if dry_run else remove(plan, output, known, retention.ticks)
        if not dry_run:
            _note_needed(config, output, known)
    freed = sum(item.bytes for item in gone)
    after = plan.size - freed
    return {
        "dry_run": dry_run,
        "removed": [{key: value for key, value in asdict(item).items() if key != "number"} for item in gone],
        "bytes": freed,
        "size": after,
        "budget": plan.budget,
        "fits": plan.budget is None or after <= plan.budget,
        "left": [{"path": path, "why": why} for path, why in plan.left.items()],
        "problems": plan.problems,
    }


def _note_needed(config: Config, output: Output, known: recorded.Recorded) -> None:
    run = output.last_finished()
    if run is None:
        return
    used = [known.artifacts[number] for number in known.uses.get(run.name, ()) if number in known.artifacts]
    folders = [each.folder for each in used if each.folder]
    folders += output.cache.glob(f"{FEATURES_PREFIX}*")
    path = (read_summary(run).get("model") or {}).get("path")
    serving = open_serving(output.serving_place(config.push.destination))
    published = serving.location(int(path.rpartition("/")[2])) if path and isinstance(serving, LocalServing) else None
    # It is for the next look at the disk, which may be full.
    with contextlib.suppress(OSError):
        needed.note(output, run, folders, published)


# ---- what a person sees ---------------------------------------------------------------------------------------------


def sentence(done: dict[str, Any]) -> str:
    """What `apply` did, for a log."""
    count = len(done["removed"])
    what = f"{counted(count, 'thing')}, {size(done['bytes'])}" if count else "nothing"
    line = f"{'Would remove' if done['dry_run'] else 'Removed'} {what}; {size(done['size'])} are left."
    if not done["fits"]:
        line += (
            f" That is more than schedule.retention.disk_gib allows ({size(done['budget'])}), and what is left always "
            "stays: allow more."
        )
    return line


def _lines(done: dict[str, Any]) -> list[str]:
    groups: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for item in done["removed"]:
        groups[item["kind"], item["why"]].append(item)
    lines = []
    for (kind, why), items in groups.items():
        lines.append(f"{TITLES[kind]}: {len(items)}, {size(sum(item['bytes'] for item in items))} ({why})")
        lines += [f"  {item['path']}  {size(item['bytes'])}" for item in items]
    lines += [f"left: {each['path']}: {each['why']}" for each in done["left"]]
    return [*lines, *done["problems"], sentence(done)]
