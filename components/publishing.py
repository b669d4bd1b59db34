"""Publication into a TensorFlow Serving base path: numeric version folders that never exist half-written.

A version is copied under a name that no model server reads, flushed to disk, and renamed; on one file system a rename
is atomic. What an interrupted publication left behind has a non-numeric name and is removed by the next one.
"""

import os
import shutil
import time
from pathlib import Path

UNFINISHED = ".unfinished-"
RETIRED = ".retired-"


def versions(serving: Path) -> list[int]:
    """Published versions, oldest first; what is not a numeric folder is not one."""
    if not serving.is_dir():
        return []
    return sorted(int(entry.name) for entry in serving.iterdir() if _is_version(entry.name) and entry.is_dir())


def _is_version(name: str) -> bool:
    """Whether TensorFlow Serving would take the name for a version: ASCII digits without leading zeros."""
    return name.isascii() and name.isdecimal() and str(int(name)) == name


def newest(serving: Path) -> Path | None:
    """The version in service, which is the newest one; None where nothing was published."""
    published = versions(serving)
    return serving / str(published[-1]) if published else None


def publish(model: Path, serving: Path, keep: int) -> Path:
    """Copies a SavedModel into a new version folder, atomically.

    Args:
      model: folder of the SavedModel.
      serving: base path; made where it is missing.
      keep: how many versions stay, this one included; at least 1. Older ones are removed.

    Returns:
      The version folder. Versions are Unix seconds, but always greater than every earlier one, so that two publications
      in a second, or a clock that goes backwards, cannot collide.
    """
    serving.mkdir(parents=True, exist_ok=True)
    for leftover in serving.iterdir():
        if leftover.name.startswith((UNFINISHED, RETIRED)) and leftover.is_dir():
            shutil.rmtree(leftover)
    version = max([int(time.time()), *(number + 1 for number in versions(serving)[-1:])])
    unfinished = serving / f"{UNFINISHED}{version}"
    shutil.copytree(model, unfinished)
    _flush(unfinished)
    os.rename(unfinished, serving / str(version))
    _sync(serving)
    for number in versions(serving)[:-keep]:
        # Renamed first: a reader sees a whole version or none.
        retired = serving / f"{RETIRED}{number}"
        os.rename(serving / str(number), retired)
        shutil.rmtree(retired)
    return serving / str(version)


def _flush(folder: Path) -> None:
    """Forces files, then folders, to disk, so that a power cut after the rename cannot leave empty files."""
    for parent, _, names in os.walk(folder, topdown=False):
        for name in names:
            _sync(Path(parent, name))
        _sync(Path(parent))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
