"""A terminal for tests: runs a command in a pseudo terminal, or takes what one wrote, and knows what it shows."""

import codecs
import contextlib
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import threading
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

from tests.conftest import ROOT

# What this project's output may contain; anything else is an error, so that no test passes over what it cannot show.
SEQUENCE = re.compile(r"\x1b\[(\d*(?:;\d+)*)([Km])")


class Terminal:
    """Rows of characters, with the behaviour of xterm at the right margin.

    Attributes:
      continued: numbers of the rows that were begun because the one before was full.
      written: all that was written.
      frames: what the screen showed after each piece that was written.
    """

    def __init__(self, columns: int):
        self.columns = columns
        self.cells: list[dict[int, str]] = [{}]
        self.column = 0
        self.continued: list[int] = []
        self.written = ""
        self.frames: list[list[str]] = []

    def resize(self, descriptor: int) -> None:
        """Gives a pseudo terminal this width."""
        fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", 24, self.columns, 0, 0))

    @property
    def rows(self) -> list[str]:
        """What is shown, without trailing spaces and empty rows."""
        rows = ["".join(row.get(at, " ") for at in range(max(row, default=-1) + 1)).rstrip() for row in self.cells]
        while rows and not rows[-1]:
            rows.pop()
        return rows

    def feed(self, text: str) -> None:
        """Shows what was written."""
        self.written += text
        at = 0
        while at < len(text):
            if text[at] == "\x1b":
                match = SEQUENCE.match(text, at)
                assert match, f"an escape sequence that no test expects: {text[at : at + 10]!r}"
                self._sequence(match)
                at = match.end()
                continue
            self._character(text[at])
            at += 1
        self.frames.append(self.rows)

    def _sequence(self, match: re.Match) -> None:
        numbers, kind = match.groups()
        if kind == "K":
            assert not numbers, f"an escape sequence that no test expects: {match.group()!r}"
            row = self.cells[-1]
            for column in [column for column in row if column >= self.column]:
                del row[column]

    def _character(self, character: str) -> None:
        if character == "\n":
            self.cells.append({})
            self.column = 0
        elif character == "\r":
            self.column = 0
        elif unicodedata.combining(character):
            pass
        else:
            assert character.isprintable(), f"a character that no test expects: {character!r}"
            width = 2 if unicodedata.east_asian_width(character) in "WF" else 1
            if self.column + width > self.columns:
                self.continued.append(len(self.cells))
                self.cells.append({})
                self.column = 0
            self.cells[-1][self.column] = character
            for more in range(1, width):
                self.cells[-1][self.column + more] = ""
            self.column += width


@contextlib.contextmanager
def pseudo_terminal(columns: int, encoding: str = "utf-8") -> Iterator[tuple[TextIO, Callable[[], Terminal]]]:
    """A stream that is a terminal of that width, and a function that gives the screen with all that was written."""
    master, slave = pty.openpty()
    terminal = Terminal(columns)
    terminal.resize(slave)
    decoder = codecs.getincrementaldecoder(encoding)()
    with os.fdopen(slave, "w", encoding=encoding, errors="backslashreplace") as stream:

        def shown() -> Terminal:
            stream.flush()
            while select.select([master], [], [], 0)[0]:
                terminal.feed(decoder.decode(os.read(master, 2**16)))
            return terminal

        yield stream, shown
    os.close(master)


def record(
    command: list[str],
    columns: int,
    keys: dict[str, str] | None = None,
    folder: Path = ROOT,
    limit: float = 600,
    **environment: str,
) -> tuple[int, Terminal]:
    """Runs a command in a terminal of that width.

    Args:
      command: with its arguments.
      columns: of the terminal.
      keys: what is typed as soon as a row contains a text, once each.
      folder: to run it in.
      limit: seconds after which it is killed, so that no test waits for ever.
      **environment: what differs from this process's.

    Returns:
      Exit code, and the terminal.
    """
    master, slave = pty.openpty()
    terminal, typed = Terminal(columns), dict(keys or {})
    terminal.resize(slave)
    process = subprocess.Popen(
        command,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        cwd=folder,
        env=os.environ | {"TERM": "xterm-256color", **environment},
        start_new_session=True,
        # So that Ctrl-C in it reaches the process.
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(slave)
    killing = threading.Timer(limit, process.kill)
    killing.start()
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    # Reading fails when the other end is closed.
    with contextlib.suppress(OSError):
        while piece := os.read(master, 2**16):
            terminal.feed(decoder.decode(piece))
            for text in [text for text in typed if any(text in row for row in terminal.rows)]:
                os.write(master, typed.pop(text).encode())
    os.close(master)
    killing.cancel()
    return process.wait(), terminal
