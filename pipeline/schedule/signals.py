"""A schedule is stopped by SIGTERM, Ctrl-C or a terminal that is closed."""

import os
import signal
import threading
from collections.abc import Callable

STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def on_stop(then: Callable[[str], None]) -> None:
    """Calls back once, with the signal's name, in a thread of its own.

    A handler would run in the main thread, which may be inside of an `Event`, and wait for that one's lock for ever.

    Args:
      then: what is done at the first of the signals; later ones are of no account, as that is under way.
    """
    read, write = os.pipe()
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    for number in STOPS:
        # What `nohup` said is not to end the process.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _nothing)
    threading.Thread(target=_wait, args=(read, then), daemon=True).start()


def _nothing(*_: object) -> None:
    """The byte that the interpreter writes is all that is wanted."""


def _wait(read: int, then: Callable[[str], None]) -> None:
    while (number := os.read(read, 1)[0]) not in STOPS:
        pass
    then(signal.Signals(number).name)
