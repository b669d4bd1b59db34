"""What a person sees while the pipeline runs: one line a step, everything else in the log file."""

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.live import Live
from rich.text import Text

from components import progress
from components.errors import printable


class Steps:
    """Prints steps as they run: a live line on a terminal, two plain lines elsewhere."""

    def __init__(self, stream: TextIO | None = None):
        self.console = Console(file=stream or sys.stdout, highlight=False, soft_wrap=True)

    def say(self, text: str = "") -> None:
        """One line, as it is."""
        self.console.print(text, markup=False)

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[dict[str, Any]]:
        """Shows a step while the body runs. The yielded dict takes `note`, a few words for the finished line."""
        began = time.monotonic()
        result: dict[str, Any] = {"note": ""}
        line = _LiveLine(name, began)
        if self.console.is_terminal:
            # Not redirected: rich would print what libraries write to the (already redirected) standard streams.
            live = Live(
                line,
                console=self.console,
                refresh_per_second=4,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            with live:
                progress.listen(line.update)
                try:
                    yield result
                finally:
                    progress.listen(None)
        else:
            self.say(f"{time.strftime('%H:%M:%S')}  {name} ...")
            yield result
        seconds = time.monotonic() - began
        # It may hold names of classes and files.
        note = f"  {printable(result['note'])}" if result["note"] else ""
        stamp = "" if self.console.is_terminal else f"{time.strftime('%H:%M:%S')}"
        self.say(f"{stamp}  {name:<28}{seconds:7.1f} s{note}")


class _LiveLine:
    def __init__(self, name: str, began: float):
        self._name, self._began = name, began
        self._done, self._total, self._text = 0, None, ""
        self._count_began = began

    def update(self, done: int, total: int | None, text: str) -> None:
        if done == 0:
            self._count_began = time.monotonic()
        self._done, self._total, self._text = done, total, text

    def __rich__(self) -> Text:
        now = time.monotonic()
        parts = [f"  {self._name:<28}{now - self._began:7.1f} s"]
        if self._text:
            parts.append(self._text)
        if self._total:
            rate = self._done / max(now - self._count_began, 1e-3)
            parts.append(f"{self._done} of {self._total} ({rate:.0f}/s)")
        return Text("  ".join(parts), no_wrap=True, overflow="ellipsis")


@contextlib.contextmanager
def noise_to(log: Path) -> Iterator[TextIO]:
    """Sends everything that this process and its libraries print to a file; yields the real standard output.

    On the level of file descriptors, because TensorFlow, gRPC and Beam's workers write past `sys.stderr`.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(1), os.dup(2)
    with open(log, "a") as file, os.fdopen(os.dup(saved[0]), "w", errors="backslashreplace") as person:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        try:
            yield person
        finally:
            person.flush()
            sys.stdout.flush()
            sys.stderr.flush()
            os.dup2(saved[0], 1)
            os.dup2(saved[1], 2)
            for descriptor in saved:
                os.close(descriptor)
