"""Lines for a person: on a terminal with a live line under them, elsewhere one after the other.

Plain escape sequences, two of them, and no hidden cursor: whatever ends the process, Ctrl-C or `kill -9`, the terminal
is as it was.
"""

import contextlib
import os
import threading
from typing import TextIO

from rich.cells import cell_len, set_cell_size

COLUMNS = 80  # where the terminal does not say
# To the beginning of the line; and erase from there to its end.
BEGIN, ERASE = "\r", "\x1b[K"
YELLOW, PLAIN = "\x1b[33m", "\x1b[0m"


class Screen:
    """A stream that somebody reads, or no longer: then what is written is dropped, and the run goes on.

    Attributes:
      live: whether a line can be written over.
    """

    def __init__(self, stream: TextIO):
        self._stream = stream
        self._lock = threading.Lock()
        self._shown = ""
        self.live = _is_terminal(stream) and os.environ.get("TERM", "dumb") != "dumb"
        self.colours = self.live and not os.environ.get("NO_COLOR")

    @property
    def columns(self) -> int:
        """The terminal's width now; it may be changed at any time."""
        with contextlib.suppress(OSError, ValueError):
            return os.get_terminal_size(self._stream.fileno()).columns or COLUMNS
        return COLUMNS

    def line(self, text: str) -> None:
        """One line that stays, above the live line."""
        with self._lock:
            erase = BEGIN + ERASE if self._shown else ""
            self._write(f"{erase}{text}\n{self._shown}")

    def show(self, text: str) -> None:
        """Writes over the live line; of text that is too wide, what fits."""
        with self._lock:
            # The cursor goes back to the beginning, so that a ^C that the terminal shows is written over, too.
            self._shown = BEGIN + self.fitted(text, self.columns - 1) + ERASE + BEGIN
            self._write(self._shown)

    def clear(self) -> None:
        """Takes the live line away."""
        with self._lock:
            if self._shown:
                self._write(BEGIN + ERASE)
            self._shown = ""

    def fitted(self, text: str, columns: int) -> str:
        """As much of the text as fits, with an ellipsis where it was cut; as the stream can encode it."""
        text = self.encodable(text)
        if cell_len(text) <= columns:
            return text
        ellipsis = "…" if self.encodable("…") == "…" else "..."
        return set_cell_size(text, max(columns - cell_len(ellipsis), 0)).rstrip() + ellipsis

    def wrapped(self, head: str, text: str, indent: int) -> str:
        """Head and text in lines that fit, broken at spaces, all but the first indented.

        No word is cut, as it may be a path. Where there is no terminal it is one line.
        """
        if not self.live:
            return head + text
        lines, begun = [head], False
        # Two spaces in a file's name stay two.
        for word in self.encodable(text).split(" "):
            longer = f"{lines[-1]} {word}" if begun else lines[-1] + word
            begun = True
            if cell_len(longer) < self.columns:
                lines[-1] = longer
            else:
                lines.append(" " * indent + word)
        return "\n".join(line.rstrip() for line in lines)

    def encodable(self, text: str) -> str:
        """The text with escapes for what the stream's encoding lacks, so that its width is known."""
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        return text.encode(encoding, "backslashreplace").decode(encoding)

    def _write(self, text: str) -> None:
        # Where nobody reads any more (`graft run | head -1`, a terminal that was closed): a training of hours need not
        # end over that.
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)
            self._stream.flush()


def _is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty()
    except (AttributeError, ValueError):
        return False
