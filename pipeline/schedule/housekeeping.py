"""What the process that keeps a schedule knows of the disk: whether a run has room, and how what is old goes.

The work is done by another process, `pipeline.schedule.tidying`: ML Metadata takes memory that would never come back.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from components.storage import is_uri
from pipeline.config import Config
from pipeline.failure import size
from pipeline.output import Output
from pipeline.retention import needed

GIB = 2**30
# Images come in addition, and a run writes a little before it removes.
MARGIN = 1.2
# An hour for what takes seconds: it goes on with the next tick.
PATIENCE_SECONDS = 3600


def room_for_a_run(config: Config, output: Output) -> str | None:
    """Whether every disk that a run writes to has as much free as it may need.

    That is `schedule.min_free_gib`, or what the last run left there and a fifth more, if that is more.

    Args:
      config: of the run.
      output: prepared.

    Returns:
      A sentence that says what is wanting where; None where there is room.
    """
    least, last = config.schedule.min_free_gib * GIB, needed.read(output)
    destination = config.push.destination
    wanted = [(output.root, last.output if last else 0)]
    if destination is None or not is_uri(destination):
        wanted.append((Path(output.serving_place(destination)), last.version if last else 0))
    wanted.append((Path(tempfile.gettempdir()), 0))
    disks: dict[int, tuple[Path, int]] = {}
    for path, left in wanted:
        number = _existing(path).stat().st_dev
        first, before = disks.get(number, (path, 0))
        disks[number] = (first, before + left)
    for path, left in disks.values():
        found = os.statvfs(_existing(path))
        free, needs = found.f_bavail * found.f_frsize, max(least, left * MARGIN)
        if free < needs:
            return (
                f"{size(free)} are free where {path} is, and a run may need {size(needs)}: free some space, let "
                "schedule.retention keep less, or set schedule.min_free_gib lower "
                f"({config.schedule.min_free_gib:g})."
            )
    return None


def _existing(path: Path) -> Path:
    """It, or the folder above that there is."""
    return next(each for each in (path, *path.parents) if each.exists())


def tidy(config: Config, output: Output) -> str:
    """Applies `schedule.retention` in a process of its own, and waits for it; whatever happens, it only says so.

    Args:
      config: as `graft clean` takes it.
      output: the output folder; where a run holds it, nothing is removed until the next time.

    Returns:
      A sentence for the log.
    """
    # `-P`: what happens to lie in the current folder must not stand in for a package.
    command = [sys.executable, "-P", "-m", "pipeline.schedule.tidying", str(output.root), config.model_dump_json()]
    try:
        # It ends with this process: it waits for the end of a pipe that nothing is written to.
        child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
        )
    except OSError as error:
        return f"Housekeeping could not be started ({error.strerror or error})."
    with child:
        try:
            code = child.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            return f"Housekeeping took more than {PATIENCE_SECONDS} s, and goes on at the next tick."
        finally:
            child.kill()
        # One sentence, which a pipe holds until it is read.
        said = child.stdout.read().decode(errors="replace").strip()
    how = f"was ended by signal {-code}" if code < 0 else f"ended with {code}"
    return said or f"Housekeeping {how} without a word, and goes on at the next tick."
