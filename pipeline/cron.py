"""Cron expressions of five fields and names of time zones, checked before a service gets them."""

import difflib
import re
import zoneinfo

from components.errors import UsageError

MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
DAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
LONGEST_MONTHS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
# What each field counts, its lowest and highest number, and names for the numbers from the lowest on.
FIELDS = (
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day of the month", 1, 31, ()),
    ("month", 1, 12, MONTHS),
    ("day of the week", 0, 6, DAYS),
)
# `*` or a number or name, up to another one, in steps.
ITEM = re.compile("(?:(?P<all>[*])|(?P<first>[0-9]+|[A-Z]+)(?:-(?P<last>[0-9]+|[A-Z]+))?)(?:/(?P<step>[0-9]+))?")


def check(expression: str) -> str:
    """A cron expression in the form that every service takes: names in capitals, fields one space apart.

    Args:
      expression: minute, hour, day of the month, month, day of the week (0 or SUN is Sunday), as in a crontab.

    Raises:
      UsageError: it is none, or no day is one that it names.
    """
    fields = expression.upper().split()
    if len(fields) != len(FIELDS):
        raise UsageError(
            "--cron takes five fields: minute, hour, day of the month, month, day of the week, such as '0 3 * * 1' for "
            f"Mondays at three. Received: {expression!r}."
        )
    numbers = [_numbers(text, field, expression) for text, field in zip(fields, FIELDS, strict=True)]
    days, months = numbers[2], numbers[3]
    if fields[4] == "*" and all(min(days) > LONGEST_MONTHS[month - 1] for month in months):
        raise UsageError(f"--cron: there is no such day in any year. Received: {expression!r}.")
    return " ".join(fields)


def _numbers(text: str, field: tuple[str, int, int, tuple[str, ...]], expression: str) -> set[int]:
    """The numbers that a field stands for."""
    named, lowest, highest, names = field
    allowed = f"{lowest} to {highest}" + (f", {names[0]} to {names[-1]}" if names else "")
    values = {name: lowest + index for index, name in enumerate(names)}
    found: set[int] = set()
    for item in text.split(","):
        parts = ITEM.fullmatch(item)
        try:
            first, last = _range(parts, lowest, highest, values) if parts else (highest, lowest)
        except (KeyError, ValueError):
            first, last = highest, lowest
        step = int(parts["step"] or 1) if parts else 0
        # A step without a range is read in two ways.
        if (
            not lowest <= first <= last <= highest
            or step < 1
            or (parts["step"] and parts["first"] and not parts["last"])
        ):
            raise UsageError(
                f"--cron: {item} is no {named}: *, a number or name of {allowed}, ranges as 1-5, steps as */2 or "
                f"1-9/2, commas between them. Received: {expression!r}."
            )
        found.update(range(first, last + 1, step))
    return found


def _range(parts: re.Match, lowest: int, highest: int, values: dict[str, int]) -> tuple[int, int]:
    if parts["all"]:
        return lowest, highest
    first, last = (
        values[text] if text in values else int(text) for text in (parts["first"], parts["last"] or parts["first"])
    )
    return first, last


def check_zone(name: str) -> str:
    """The name of a time zone.

    Raises:
      UsageError: there is none of that name.
    """
    known = zoneinfo.available_timezones()
    if name not in known:
        close = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {close[0]}?" if close else "give a name such as Europe/Paris or UTC."
        raise UsageError(f"There is no time zone {name!r}; {hint}")
    return name
