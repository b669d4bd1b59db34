"""A file that one process holds at a time, with a note of which; the system lets go of it however the process ends."""

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path


@contextlib.contextmanager
def held(path: Path, busy: Callable[[str], Exception]) -> Iterator[None]:
    """Holds a file, made where there is none, while the body runs.

    Args:
      path: of the file.
      busy: makes the error that is raised where another process holds it, of that one's id, or `unknown`.
    """
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+", errors="replace") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise busy(lock.read().strip() or "unknown") from None
        # A note for others. The disk may be full: what is there is written over, and cut only then.
        with contextlib.suppress(OSError):
            os.truncate(lock.fileno(), os.pwrite(lock.fileno(), str(os.getpid()).encode(), 0))
        yield


def holder(path: Path) -> int | None:
    """The process that holds a file; None for nobody.

    Raises:
      OSError: the file cannot be read.
    """
    with open(path, errors="replace") as lock:
        noted = lock.read().strip()
        # Asked first: whoever tries the lock has it for a moment, and a process that starts in it is sent away.
        if not _is_alive(noted):
            return None
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return int(noted)
    return None


def _is_alive(process: str) -> bool:
    try:
        os.kill(int(process), 0)
    except PermissionError:
        return True
    except (ValueError, OverflowError, ProcessLookupError):
        return False
    return True
