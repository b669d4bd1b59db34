"""How the report writes numbers, times and names; the same everywhere on the page."""

import datetime
import math
import unicodedata
from collections.abc import Iterable
from typing import Any

NO_BREAK = "\N{NO-BREAK SPACE}"
MINUS = "\N{MINUS SIGN}"
TIMES = "\N{MULTIPLICATION SIGN}"
NONE = "\N{EN DASH}"
ELLIPSIS = "\N{HORIZONTAL ELLIPSIS}"
# Joins emoji; everything else that cannot be printed would change how the text around it is read.
_JOINER = "\N{ZERO WIDTH JOINER}"


def visible(text: str) -> str:
    """Untrusted text with every control and direction character, and what is no Unicode, written out as an escape."""
    if text.isprintable():
        return text
    return "".join(c if _is_plain(c) else c.encode("unicode_escape").decode() for c in text)


def _is_plain(character: str) -> bool:
    return character.isprintable() or character == _JOINER or unicodedata.category(character) == "Zs"


def shortened(text: str, most: int = 48) -> str:
    """A name of at most that many characters: its middle goes, as names often differ in their beginning or end."""
    text = visible(text)
    if len(text) <= most:
        return text
    end = most // 3
    return f"{text[: most - end - 1]}{ELLIPSIS}{text[-end:]}"


def number(value: Any) -> float | None:
    """A finite number, or None: JSON written by Python may hold NaN."""
    return value if isinstance(value, int | float) and math.isfinite(value) else None


def percent(share: float | None) -> str:
    """0.989 as `98.9 %`; what is not all or nothing is not written as if it were."""
    if number(share) is None:
        return NONE
    value = round(100 * share, 9)
    digits = 1
    if (0 < value < 0.05) or (99.95 <= value < 100):
        digits = 2
        value = min(max(value, 0.01), 99.99)
    return f"{value:.{digits}f}{NO_BREAK}%"


def points(difference: float | None) -> str:
    """A difference of two shares, signed."""
    if number(difference) is None:
        return NONE
    value = round(100 * difference, 1)
    return f"{sign(value)}{abs(value):.1f}"


def sign(value: float) -> str:
    """What stands before the absolute value of a difference."""
    return "+" if value > 0 else MINUS if value < 0 else "±"


def count(value: float | None) -> str:
    """1000 as `1,000`."""
    return NONE if number(value) is None else f"{value:,.0f}"


def counted(value: float, one: str, many: str = "") -> str:
    """`1 image`, `2 images`."""
    return f"{count(value)}{NO_BREAK}{one if value == 1 else many or one + 's'}"


def digits(value: float | None) -> str:
    """A number of no particular unit to three significant digits."""
    if number(value) is None:
        return NONE
    if isinstance(value, int):
        return count(value)
    if value == 0:
        return "0"
    exponent = math.floor(math.log10(abs(value)))
    if exponent < -4:
        power = str(exponent).replace("-", MINUS).translate(_RAISED)
        return f"{value / 10**exponent:.1f}{NO_BREAK}{TIMES}{NO_BREAK}10{power}"
    text = f"{value:.{max(0, 2 - exponent)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def loss(value: float | None) -> str:
    """A log loss in nats; always three decimals, so that those below one another can be compared."""
    return NONE if number(value) is None else f"{value:.3f}"


_RAISED = str.maketrans("0123456789" + MINUS, "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")


def seconds(value: float | None) -> str:
    """A duration."""
    if number(value) is None:
        return NONE
    if value < 0.1:
        return f"< 0.1{NO_BREAK}s"
    if value < 59.5:
        return f"{value:.1f}{NO_BREAK}s" if value < 9.95 else f"{value:.0f}{NO_BREAK}s"
    minutes, rest = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes}{NO_BREAK}min {rest}{NO_BREAK}s"
    return f"{minutes // 60}{NO_BREAK}h {minutes % 60}{NO_BREAK}min"


def size(value: float | None) -> str:
    """Bytes."""
    if number(value) is None:
        return NONE
    for unit in ("B", "kB", "MB"):
        if value < 999.5:
            return f"{value:.0f}{NO_BREAK}{unit}" if unit == "B" or value >= 99.5 else f"{value:.1f}{NO_BREAK}{unit}"
        value /= 1000
    return f"{value:.1f}{NO_BREAK}GB"


def moment(iso: str | None) -> str:
    """`2026-11-24T10:04:45+00:00` as `24 November 2026, 10:04 UTC`; what is no time as it is."""
    try:
        at = datetime.datetime.fromisoformat(iso or "").astimezone(datetime.UTC)
    except ValueError:
        return iso or NONE
    return f"{at.day} {_MONTHS[at.month - 1]} {at.year}, {at:%H:%M} UTC"


# strftime's depend on the locale.
_MONTHS = [
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
]


def listed(words: Iterable[str], most: int = 6) -> str:
    """`a, b and c`; of many the first ones and how many more."""
    words = list(words)
    if len(words) > most:
        words = [*words[:most], f"{count(len(words) - most)} more"]
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def sentence(text: str) -> str:
    """With a capital and a full stop."""
    text = text.strip()
    return text and text[0].upper() + text[1:] + ("" if text[-1] in ".!?:" else ".")


def version_of(path: str | None) -> str | None:
    """`serving/1795514747` is version `1795514747`."""
    return path.rstrip("/").rpartition("/")[2] if path else None
