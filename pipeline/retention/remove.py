"""Takes away what goes. A kill at any moment leaves what the next removal goes on with, and nothing that is used.

ML Metadata is told of artifacts before they go, so that no run takes them from the cache any more. The rest goes first,
as a full disk has no room even for that note. A folder is renamed before it is emptied.
"""

from pathlib import Path

from components.errors import GraftError
from components.publishing import in_use
from components.serving_places import open_serving
from pipeline.output import Output
from pipeline.retention import disk
from pipeline.retention.plan import ARTIFACT, TICKS, VERSION, Item, Plan
from pipeline.retention.recorded import Recorded


def remove(plan: Plan, output: Output, recorded: Recorded, ticks: int) -> list[Item]:
    """Takes away what a plan says; what cannot be removed is left, and said in it.

    Args:
      plan: of this moment; whoever calls it held the output folder since before it was made.
      output: the folder.
      recorded: of it.
      ticks: lines that stay of `runs/ticks.jsonl`.

    Returns:
      What is gone.
    """
    gone = [item for item in plan.items if item.kind != ARTIFACT and _removed(item, plan, output, ticks)]
    recorded.mark(plan.marks)
    gone += [item for item in plan.items if item.kind == ARTIFACT and _removed(item, plan, output, ticks)]
    return gone


def _removed(item: Item, plan: Plan, output: Output, ticks: int) -> bool:
    try:
        if item.kind == TICKS:
            output.keep_ticks(ticks)
        elif item.kind == VERSION:
            return _remove_version(item)
        else:
            disk.remove(Path(item.path))
    except (GraftError, OSError) as error:
        plan.left[item.path] = f"cannot be removed ({getattr(error, 'strerror', None) or error})"
        return False
    return True


def _remove_version(item: Item) -> bool:
    serving = open_serving(item.path.rpartition("/")[0])
    with serving.held():
        # A rollback may have come meanwhile.
        if item.number in in_use(serving) or not serving.untouched(item.number):
            return False
        serving.remove(item.number)
    return True
