"""What the commands that look at runs print: lines, and tables that fit the terminal; names are escaped."""

import sys
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from components.errors import printable
from components.sentences import some

NOTHING = "-"
LONGEST_NAME = 60  # characters


def console() -> Console:
    """Standard output; colours only on a terminal."""
    return Console(file=sys.stdout, highlight=False)


def say(out: Console, line: str = "", style: str = "") -> None:
    """A line, folded between words."""
    out.print(Text(printable(line), style), soft_wrap=False)


def say_whole(out: Console, line: str) -> None:
    """A line with a path: the terminal may fold it, but nothing is put into it, so that it can be copied."""
    out.print(Text(printable(line)), soft_wrap=True)


def say_problems(out: Console, problems: list[str]) -> None:
    """What could not be read, set apart."""
    if problems:
        out.print()
    for problem in problems:
        say_whole(out, problem)


def heading(out: Console, title: str) -> None:
    """A title with space above."""
    out.print()
    out.print(Text(printable(title), "bold"))


def table(*columns: tuple[str, str]) -> Table:
    """An empty table.

    Args:
      *columns: title, and `left` or `right`; what is right holds numbers and is never folded.
    """
    made = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for title, justify in columns:
        made.add_column(Text(printable(title)), justify=justify, overflow="fold", no_wrap=justify == "right")
    return made


def pairs() -> Table:
    """A table of names and what they are, without a head."""
    made = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    made.add_column(style="dim", no_wrap=True)
    made.add_column(overflow="fold")
    return made


def cell(value: Any, style: str = "") -> Text:
    """Text of a table."""
    return Text(NOTHING if value is None else printable(str(value)), style)


def number(value: float | None) -> str:
    """Counts as they are, everything else to four digits."""
    if value is None:
        return NOTHING
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def share(value: float | None) -> str:
    """Of 0 to 1, such as an accuracy."""
    return NOTHING if value is None else f"{value:.3f}"


def short(name: str) -> str:
    """A name of which the middle may be missing; JSON has the whole."""
    shown = printable(name)
    return shown if len(shown) <= LONGEST_NAME else f"{shown[: LONGEST_NAME // 2]}…{shown[1 - LONGEST_NAME // 2 :]}"


def listed(names: list[str], most: int) -> str:
    """Names in a sentence, and how many more there are."""
    return some(list(map(short, names[:most])) + names[most:], most)
