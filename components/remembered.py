"""`schema/splits.jsonl`: the choices that runs made for small classes, and that later runs must not undo.

Only the standard library where it is a local file, so that the command can read it without importing TFX.
"""

import json

from components import storage
from components.errors import UsageError
from components.splits import CLASS_KEY, GROUP_KEY, SplitRules

SPLITS_FILE = "splits.jsonl"


def read_remembered(place: str, rules: SplitRules) -> dict[str, str]:
    """`Catalog.remembered` of earlier runs with the same `rules.shuffle`; empty where there is no file.

    Args:
      place: path or URI of the file.
      rules: of the run.

    Raises:
      UsageError: a line is damaged.
    """
    return {key: split for shuffle, key, split in _read(place) if shuffle == rules.shuffle}


def write_remembered(place: str, remembered: dict[str, str], rules: SplitRules) -> None:
    """Replaces what is remembered under `rules.shuffle` atomically; no file is made for nothing."""
    if not remembered or remembered == read_remembered(place, rules):
        return
    # Whoever goes back to an earlier salt finds the splits of then.
    rows = [row for row in _read(place) if row[0] != rules.shuffle]
    rows += [(rules.shuffle, key, split) for key, split in remembered.items()]
    storage.write(place, "".join(_line(*row) for row in sorted(rows)).encode())


def _read(place: str) -> list[tuple[str, str, str]]:
    """(shuffle, key, split) of every line."""
    rows = []
    content = storage.read_bytes(place) if storage.exists(place) else b""
    for number, line in enumerate(content.splitlines(), start=1):
        try:
            rows.append(_parsed(line))
        except (ValueError, RecursionError):
            raise UsageError(
                f"{place}, line {number} is damaged: restore the file, or remove that line, after which images of a "
                "small class may change their split."
            ) from None
    return rows


def _parsed(line: bytes) -> tuple[str, str, str]:
    """Raises ValueError for what no run has written."""
    row = json.loads(line)
    match row:
        case {"class": str(name)}:
            key, split = CLASS_KEY + name, ""
        case {"group": str(name), "split": "train" | "eval" | "test" as split}:
            key = GROUP_KEY + name
        case {"sha256": str(key), "split": "train" | "eval" | "test" as split}:
            pass
        case _:
            raise ValueError
    return str(row.get("shuffle", "")), key, split


def _line(shuffle: str, key: str, split: str) -> str:
    if key.startswith(CLASS_KEY):
        row = {"class": key.removeprefix(CLASS_KEY)}
    elif key.startswith(GROUP_KEY):
        row = {"group": key.removeprefix(GROUP_KEY), "split": split}
    else:
        row = {"sha256": key, "split": split}
    return json.dumps(row | ({"shuffle": shuffle} if shuffle else {})) + "\n"
