"""A folder beside a file that is being made: what was left by a killed process, the next one for that file removes."""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from components.errors import UsageError

ENDING = ".unfinished"


@contextlib.contextmanager
def scratch_beside(file: Path) -> Iterator[Path]:
    """A new folder on the file's file system; it is gone when the body ends, whichever way.

    Args:
      file: where the result will be; it names the folder, which is hidden.

    Raises:
      UsageError: nothing can be written beside the file.
    """
    _remove_abandoned(file)
    try:
        made = Path(tempfile.mkdtemp(prefix=f".{file.name}-", dir=file.parent))
        lock = os.open(made, os.O_RDONLY)
    except OSError as error:
        raise UsageError(f"{file} cannot be written ({error.strerror}); give --output a folder that can.") from None
    try:
        # Held before it has its name, so that nobody takes it for an abandoned one.
        fcntl.flock(lock, fcntl.LOCK_EX)
        folder = made.rename(made.with_name(made.name + ENDING))
        try:
            yield folder
        finally:
            # Whatever still writes into it must not keep an interruption from ending.
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(lock)


def _remove_abandoned(file: Path) -> None:
    """Removes folders of earlier processes for the same file that nobody holds any more."""
    with contextlib.suppress(OSError):
        for entry in os.scandir(file.parent):
            if entry.name.startswith(f".{file.name}-") and entry.name.endswith(ENDING):
                lock = os.open(entry.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(entry.path, ignore_errors=True)
                except BlockingIOError:
                    continue
                finally:
                    os.close(lock)
