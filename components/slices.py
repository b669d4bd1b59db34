"""Parts of the test images besides the classes, by what is known of an image: `evaluation.slices`."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from components.gate_terms import Check
from components.image_files import SPLIT_FOLDERS

if TYPE_CHECKING:
    import numpy as np

# More of them would leave each too small a share of the gate's level, and nobody reads them.
MAX_SLICES = 20
SMALLEST_SIZE, LARGEST_SIZE = 64, 4096


def _size(row: dict[str, Any], _: str) -> str:
    """A range of the shorter side, from a power of two to the next."""
    shorter = min(row["height"], row["width"])
    if shorter < SMALLEST_SIZE:
        return f"under {SMALLEST_SIZE} px"
    low = min(1 << (shorter.bit_length() - 1), LARGEST_SIZE)
    return f"from {low} px" if low == LARGEST_SIZE else f"{low}-{2 * low - 1} px"


def _orientation(row: dict[str, Any], _: str) -> str:
    if row["height"] == row["width"]:
        return "square"
    return "portrait" if row["height"] > row["width"] else "landscape"


def _folder(row: dict[str, Any], class_name: str) -> str:
    """The folders of the path without those that name the class or the split."""
    parts = PurePosixPath(row["filename"]).parent.parts
    return "/".join(part for part in parts if part != class_name and part.lower() not in SPLIT_FOLDERS) or "."


SLICERS: dict[str, Callable[[dict[str, Any], str], str]] = {
    "channels": lambda row, _: str(row["channels"]),
    "folder": _folder,
    "format": lambda row, _: row["format"],
    "orientation": _orientation,
    "size": _size,
}


def slices_of(
    rows: Sequence[dict[str, Any]], class_names: Sequence[str], features: Sequence[str | dict[str, str]]
) -> tuple[dict[str, "np.ndarray"], list[Check]]:
    """Which images are in which slice.

    Args:
      rows: prediction lines.
      class_names: by id.
      features: names in `SLICERS`, or `{name: regular expression}`; the expression is searched in the path, and what
        its first group matches names the slice. Images without a match are in none.

    Returns:
      bool [examples] by the slice's name (such as `format=jpeg`) for the largest `MAX_SLICES`; and for each feature
      that has further ones, a check that says how many were not judged.
    """
    import numpy as np

    found: dict[tuple[str, str], list[int]] = {}
    for feature in features:
        name, slicer = _slicer(feature)
        for at, row in enumerate(rows):
            value = slicer(row, class_names[row["label"]])
            if value is not None:
                found.setdefault((name, value), []).append(at)
    # The largest first; of equal ones the order of their names, so that no runner's order matters.
    ordered = sorted(found, key=lambda key: (-len(found[key]), key))
    slices = {}
    for name, value in sorted(ordered[:MAX_SLICES]):
        slices[f"{name}={value}"] = members = np.zeros(len(rows), bool)
        members[found[name, value]] = True
    left = Counter(name for name, _ in ordered[MAX_SLICES:])
    return slices, [Check(f"slices_beyond_{MAX_SLICES}", name, count, None, None) for name, count in left.items()]


def _slicer(feature: str | dict[str, str]) -> tuple[str, Callable[[dict[str, Any], str], str | None]]:
    if isinstance(feature, str):
        return feature, SLICERS[feature]
    ((name, expression),) = feature.items()
    pattern = re.compile(expression)

    def matched(row: dict[str, Any], _: str) -> str | None:
        match = pattern.search(row["filename"])
        return match and match[1]

    return name, matched
