"""What libraries print: into a file, out of the person's sight, and from there to a person who wants to see it."""

import contextlib
import io
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

from components.errors import printable
from pipeline.repeated import repeatedly

# Seconds between two looks for new lines.
BETWEEN_LOOKS = 0.25


@contextlib.contextmanager
def noise_to(log: Path) -> Iterator[TextIO]:
    """Sends everything that this process and its libraries print to a file; yields where the person reads.

    On the level of file descriptors, because TensorFlow, gRPC and Beam's workers write past `sys.stderr`; and where
    Python's streams are others, as in a notebook, on theirs as well.
    """
    notebook = not _is_descriptor(sys.stdout, 1)
    _flush(sys.stdout, sys.stderr)
    saved = os.dup(1), os.dup(2)
    person = sys.stdout if notebook else os.fdopen(os.dup(1), "w", errors="backslashreplace")
    with open(log, "a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    try:
        with _python_streams_to_descriptors() if notebook else contextlib.nullcontext():
            yield person
    finally:
        _flush(person, sys.stdout, sys.stderr)
        if not notebook:
            with contextlib.suppress(OSError):
                person.close()
        for descriptor, before in zip((1, 2), saved, strict=True):
            os.dup2(before, descriptor)
            os.close(before)


def _flush(*streams: TextIO) -> None:
    """That whoever read is gone is no reason for another error."""
    for stream in streams:
        with contextlib.suppress(OSError, ValueError):
            stream.flush()


def _is_descriptor(stream: TextIO, descriptor: int) -> bool:
    try:
        return stream.fileno() == descriptor
    except (AttributeError, OSError, ValueError):
        return False


@contextlib.contextmanager
def _python_streams_to_descriptors() -> Iterator[None]:
    """Lets `sys.stdout` and `sys.stderr`, and the loggers that hold them, write to descriptors 1 and 2 for a while."""
    before = sys.stdout, sys.stderr
    # They are never closed: a logger that is made meanwhile may keep them.
    streams = [
        os.fdopen(descriptor, "w", buffering=1, errors="backslashreplace", closefd=False) for descriptor in (1, 2)
    ]
    moved = [
        (handler, to)
        for handler in _stream_handlers()
        for stream, to in zip(before, streams, strict=True)
        if handler.stream is stream
    ]
    for handler, to in moved:
        handler.stream = to
    sys.stdout, sys.stderr = streams
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        for handler in _stream_handlers():
            for stream, back in zip(streams, before, strict=True):
                if handler.stream is stream:
                    handler.stream = back
        _flush(*streams)


def _stream_handlers() -> list[logging.StreamHandler]:
    loggers = [logging.root, *(each for each in logging.root.manager.loggerDict.values() if hasattr(each, "handlers"))]
    handlers = [handler for logger in loggers for handler in logger.handlers]
    # Abseil's writes by way of another one.
    handlers += [handler.python_handler for handler in handlers if hasattr(handler, "python_handler")]
    # Those that have no stream of their own, such as the last resort, ask for `sys.stderr` each time.
    return [each for each in handlers if isinstance(each, logging.StreamHandler) and "stream" in vars(each)]


class Followed:
    """A file whose new lines a person is told as they come."""

    def __init__(self, file: TextIO, tell: Callable[[str], None]):
        self._file, self._tell = file, tell
        self._begun, self._lock = "", threading.Lock()
        file.seek(0, io.SEEK_END)

    def catch_up(self, last: bool = False) -> None:
        """Tells what is new; a line that has no end yet only if it is the last time."""
        _flush(sys.stdout)
        with self._lock:
            *lines, self._begun = (self._begun + self._file.read()).split("\n")
            for line in lines + [self._begun] * (last and self._begun != ""):
                # Of a line that was written over again and again, as progress bars are, the end.
                self._tell(printable(line.rstrip("\r").rpartition("\r")[2].expandtabs()))

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Looks again and again while the body runs."""
        try:
            with repeatedly(self.catch_up, BETWEEN_LOOKS):
                yield
        finally:
            self.catch_up(last=True)
