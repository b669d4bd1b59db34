"""Folders on the disk: how large they are, when something in them was written last, and how they go."""

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

# What is on its way out. Nobody reads what has such a name, so that it may be half there.
GONE = ".removed-"


def size(*places: Path) -> int:
    """Bytes on the disk; what has several names counts once, and no link is followed."""
    seen: dict[tuple[int, int], int] = {}
    for place in places:
        for found in _all(place):
            seen[found.st_dev, found.st_ino] = found.st_blocks * 512
    return sum(seen.values())


def written(folder: Path) -> float:
    """When something in a folder was written, added or removed last; seconds since 1970."""
    return max((found.st_mtime for found in _all(folder)), default=0.0)


def _all(place: Path) -> Iterator[os.stat_result]:
    """Of a file, or of a folder and everything in it; what disappears meanwhile is passed over."""
    waiting = [str(place)]
    while waiting:
        path = waiting.pop()
        try:
            yield os.lstat(path)
            if os.path.isdir(path) and not os.path.islink(path):
                waiting += [entry.path for entry in os.scandir(path)]
        except OSError:
            continue


def remove(path: Path) -> None:
    """Takes a folder or file away; whoever looks sees all of it or nothing.

    Raises:
      OSError: it, or something in it, cannot be removed.
    """
    if path.is_dir() and not path.is_symlink():
        aside = path if path.name.startswith(GONE) else path.with_name(f"{GONE}{path.name}")
        if aside != path:
            if aside.exists():
                shutil.rmtree(aside)
            os.rename(path, aside)
        shutil.rmtree(aside)
    else:
        path.unlink(missing_ok=True)


def half_removed(folder: Path, pattern: str) -> list[Path]:
    """What a removal that was killed left in a folder.

    Args:
      folder: that held it; there may be none.
      pattern: regular expression of what its name was.
    """
    if not folder.is_dir():
        return []
    return [
        path
        for path in sorted(folder.iterdir())
        if path.name.startswith(GONE) and re.fullmatch(pattern, path.name.removeprefix(GONE)) and is_folder(path)
    ]


def is_folder(path: Path) -> bool:
    """Whether it is a folder, and no link to one."""
    return path.is_dir() and not path.is_symlink()
