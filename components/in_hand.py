"""What workers had in hand when they ended without a word.

A library that crashes on an image, or asks for more memory than there is, ends its process: no error says on which
image. So workers that are processes of their own note what they begin, and where a step fails, what was in the hands of
those that died is tried again, in a process that may die, too.
"""

import contextlib
import json
import multiprocessing
import os
import signal
import socket
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from components import causes, parallel, storage
from components.broken_image import LIMIT
from components.errors import GraftError, ImageFailed

# Items that are tried, at most: of those that most workers had.
MOST = 2000
# Workers that must have ended over an image where it does no harm here.
OFTEN = 3
# A note begins with its length.
_LENGTH = 10

# Works on a value as a worker did.
Attempt = Callable[[Any], object]
# Items -> (item, value) for each that is found.
Fetch = Callable[[list[Any]], Iterable[tuple[Any, Any]]]


class InHand:
    """The note of one thread of a worker.

    Its file stays open, and what is written there comes over what was: no round trip where the folder is on a network.
    """

    def __init__(self, folder: str | None):
        """Nothing is noted where `folder` is None."""
        self._file: int | None = None
        if folder is not None:
            os.makedirs(folder, exist_ok=True)
            name = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex}"
            self._file = os.open(os.path.join(folder, name), os.O_CREAT | os.O_WRONLY)

    @contextlib.contextmanager
    def holding(self, items: Sequence[Any]) -> Iterator[None]:
        """Notes items, which JSON can say, while the body works on them; an error of the body speaks for itself."""
        self._write(items)
        try:
            yield
        finally:
            self._write([])

    def _write(self, items: Sequence[Any]) -> None:
        if self._file is not None:
            text = json.dumps(items).encode()
            os.pwrite(self._file, f"{len(text):0{_LENGTH}}".encode() + text, 0)

    def close(self) -> None:
        """Nothing is noted from now on."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def folder(scratch: str, name: str, beam_arguments: Iterable[str] | None) -> str | None:
    """Where workers leave their notes; None where no worker could end alone, or their folder has no local path.

    Args:
      scratch: the step's temporary folder, which workers see.
      name: of what they do.
      beam_arguments: the step's.
    """
    if storage.is_uri(scratch) or not parallel.has_worker_processes(beam_arguments or []):
        return None
    return os.path.join(scratch, f"in_hand_{name}")


def left(folder: str | Path) -> list[list[Any]]:
    """What each worker that ended without a word had in hand."""
    found = []
    for file in sorted(Path(folder).iterdir()) if os.path.isdir(folder) else []:
        # One that was begun as the machine went down may be cut off.
        with contextlib.suppress(OSError, ValueError):
            text = file.read_bytes()
            items = json.loads(text[_LENGTH : _LENGTH + int(text[:_LENGTH])])
            if items:
                found.append(items)
    return found


def as_noted(items: list[Any]) -> Iterable[tuple[Any, Any]]:
    """Where a note has all that it takes to work on an item."""
    return zip(items, items, strict=True)


@contextlib.contextmanager
def blamed(
    folder: str | None,
    attempt: Attempt,
    named: Callable[[Any, str], ImageFailed | None],
    fails: str,
    fetch: Fetch = as_noted,
) -> Iterator[None]:
    """Where the body fails, looks for an image that ends whoever works on it.

    Args:
      folder: that workers' `InHand` were given; None where they noted nothing.
      attempt: called in a process that may die of it, as is `fetch`: both are pickled.
      named: makes the error from an item and what happened; None for an item that is no image.
      fails: what could not be done, such as `cannot be checked`.
      fetch: what `attempt` is given for items.

    Raises:
      ImageFailed: an image was found.
      Exception: the body's own error otherwise.
    """
    try:
        yield
    except Exception as error:
        failed = None
        # What stops the search, Ctrl-C too, is no news: the error is.
        with contextlib.suppress(Exception, KeyboardInterrupt):
            if folder is not None and not _is_told(error) and (found := _found(folder, attempt, fetch)):
                item, how = found
                failed = named(item, f"{fails} ({how}).")
        if failed is not None:
            raise failed from error
        raise


def _is_told(error: Exception) -> bool:
    """Whether it is known what happened: workers are ended then, whatever they have in hand.

    A worker lived to say it, the command found it, or somebody cancelled the job.
    """
    texts = (causes.STACK, "failed in state CANCELLED")
    return isinstance(error, GraftError) or causes.saying(causes.links(error), texts) is not None


def _found(folder: str, attempt: Attempt, fetch: Fetch) -> tuple[Any, str] | None:
    """The item that is to blame, and what it did."""
    notes = left(folder)
    counts = Counter(json.dumps(item) for items in notes for item in items)
    items = [json.loads(text) for text, _ in counts.most_common(MOST)]
    if not items:
        return None
    if died := _tried((items, attempt, fetch), os.path.join(folder, "again")):
        return died
    # Here there may be more memory, or another processor. That so many workers ended over one image alone is no chance.
    alone = Counter(json.dumps(note[0]) for note in notes if len(note) == 1)
    (text, count), *others = alone.most_common(2) or [("", 0)]
    if count >= OFTEN and (not others or others[0][1] < count):
        return json.loads(text), f"{count} worker processes ended, one after the other, while they worked on it"
    return None


def _tried(work: tuple[list[Any], Attempt, Fetch], folder: str) -> tuple[Any, str] | None:
    process = multiprocessing.get_context("spawn").Process(target=_try, args=(*work, folder), daemon=True)
    process.start()
    process.join(LIMIT)
    if process.exitcode is None:
        process.kill()
        process.join()
        return None
    if process.exitcode >= 0:
        return None
    ((item,),) = left(folder)
    name = signal.Signals(-process.exitcode).name
    return item, f"a process that tries to ends by {name}{', as when memory runs out' * (name == 'SIGKILL')}"


def _try(items: list[Any], attempt: Attempt, fetch: Fetch, folder: str) -> None:
    hand = InHand(folder)
    for item, value in fetch(items):
        with hand.holding([item]), contextlib.suppress(Exception):
            attempt(value)
