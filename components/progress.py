"""How far a running step is, told to whoever listens in this process.

Steps call `advance` or `say`; the command's console sets the listener. In a worker process or a container nobody
listens, and the calls cost nothing.
"""

import logging
import threading
from collections.abc import Callable

Listener = Callable[[int, int | None, str], None]

_lock = threading.Lock()
_listener: Listener | None = None
_done = 0
_total: int | None = None
_text = ""


def listen(listener: Listener | None) -> None:
    """Sets who is told `(done, total or None, text)`; None for nobody. Starts the count anew."""
    global _listener
    _listener = listener
    start(None)


def start(total: int | None, text: str = "") -> None:
    """Begins a count of `total` things; None where the number is not known."""
    global _done, _total, _text
    with _lock:
        _done, _total, _text = 0, total, text
    _tell()


def advance(count: int = 1) -> None:
    """Adds to the count; safe from several threads."""
    global _done
    with _lock:
        _done += count
    _tell()


def say(text: str) -> None:
    """A few words about where the step is, such as `fine-tune, epoch 2 of 5`."""
    global _text
    _text = text
    _tell()


def warn(sentence: str) -> None:
    """Tells the person something that matters although the run goes on."""
    logging.getLogger("graft").warning("%s", sentence)


def _tell() -> None:
    if _listener is not None:
        _listener(_done, _total, _text)
