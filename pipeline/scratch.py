"""A folder beside a file that is being made: what was left by a killed process, the next one for that file removes."""

import contextlib
import errno
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
        raise _unwritable(file, error) from None
    try:
        # Held before it has its name, so that nobody takes it for an abandoned one.
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            folder = made.rename(made.with_name(made.name + ENDING))
        except OSError as error:
            made.rmdir()
            raise _unwritable(file, error) from None
        try:
            yield folder
        finally:
            # Whatever still writes into it must not keep an interruption from ending.
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(lock)


def _unwritable(file: Path, error: OSError) -> UsageError:
    if error.errno == errno.ENAMETOOLONG:
        return UsageError(
            f"The name {file.name} of --output is too long for what is made on the way; give a shorter one."
        )
    return UsageError(f"{file} cannot be written ({error.strerror}); give --output a folder that can.")


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
