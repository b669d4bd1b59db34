"""SIGTERM, by which service managers, clusters and `graft schedule` end a run: it ends as on Ctrl-C."""

import signal
from types import FrameType


class Stopped(KeyboardInterrupt):
    """Somebody asked this process to end."""


def stop_at_sigterm() -> None:
    """From now on SIGTERM raises `Stopped` in the main thread, once: what is left to do then is not disturbed."""
    signal.signal(signal.SIGTERM, _stop)


def _stop(number: int, frame: FrameType | None) -> None:
    # Not `SIG_IGN`, which a process that is started now would inherit.
    signal.signal(signal.SIGTERM, lambda number, frame: None)
    raise Stopped
