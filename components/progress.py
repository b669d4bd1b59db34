"""How far a running step is, and what a person should be warned of.

Steps count and say; whoever shows it looks now and then (`now`), so that counting costs next to nothing. In a worker
process or a container nobody looks. A warning is told at once to who heeds them, and logged where nobody does.
"""

import contextlib
import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class State:
    """Where a step is.

    Attributes:
      count: which count this is; a new one begins with every `start`.
      done: things that are done.
      total: how many there are; None where that is not known.
      unit: what is counted, in the plural.
      at_most: whether the step may end before `total`.
      text: what it does, such as `resizing`, or where it is, such as `fine-tune, epoch 2 of 5`.
      said: whether the text says where it is, better than the count would.
      within: where it is in that, such as `step 45 of 90`; empty where that goes by quickly.
      detail: what is worth knowing where there is room, such as `eval accuracy 0.944`.
    """

    count: int = 0
    done: int = 0
    total: int | None = None
    unit: str = "images"
    at_most: bool = False
    text: str = ""
    said: bool = False
    within: str = ""
    detail: str = ""


_lock = threading.Lock()
_state = State()
# Beside the state, as it changes for every image.
_done = 0


def now() -> State:
    """Where the running step is."""
    with _lock:
        return replace(_state, done=_done)


def start(total: int | None, text: str = "", unit: str = "images", at_most: bool = False) -> None:
    """Begins to count.

    Args:
      total: how many things there are; None where that is not known.
      text: what is done with them.
      unit: what they are, in the plural.
      at_most: whether the step may end before `total`.
    """
    global _state, _done
    with _lock:
        _state, _done = State(_state.count + 1, 0, total, unit, at_most, text), 0


def advance(count: int = 1) -> None:
    """Adds to the count; safe from several threads."""
    global _done
    with _lock:
        _done += count


def say(text: str, detail: str = "") -> None:
    """Where the step is, in words that say it better than the count, which goes on.

    Args:
      text: such as `fine-tune, epoch 2 of 5`.
      detail: what is worth knowing where there is room, such as `eval accuracy 0.944`.
    """
    _change(text=text, said=True, within="", detail=detail)


def within(text: str) -> None:
    """Where the step is inside of what `say` said, such as `step 45 of 90`."""
    _change(within=text)


def _change(**values: str | bool) -> None:
    global _state
    with _lock:
        _state = replace(_state, **values)


# ---- warnings -------------------------------------------------------------------------------------------------------

_heeding: Callable[[str], None] | None = None
_warned: set[str] = set()


def warn(sentence: str) -> None:
    """Tells the person something that matters although the run goes on; the same sentence once a run.

    Args:
      sentence: what is the matter and what to do about it. It may hold names of files and classes as they are.
    """
    with _lock:
        if sentence in _warned:
            return
        _warned.add(sentence)
        heed = _heeding
    if heed is None:
        logging.getLogger("graft").warning("%s", sentence)
    else:
        heed(sentence)


def warn_of(sentences: Iterable[str]) -> None:
    """Each of them."""
    for sentence in sentences:
        warn(sentence)


@contextlib.contextmanager
def heeded(by: Callable[[str], None]) -> Iterator[None]:
    """Sets who is told of warnings while the body runs; each is told anew."""
    global _heeding
    before, _heeding = _heeding, by
    _warned.clear()
    try:
        yield
    finally:
        _heeding = before
        _warned.clear()
