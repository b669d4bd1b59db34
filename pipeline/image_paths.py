"""The files that `graft predict` is asked about: any number of them, in a fixed order, in bounded memory."""

import contextlib
import heapq
import itertools
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from components import storage
from components.errors import UsageError
from components.image_files import IMAGE_EXTENSIONS

# Names that are sorted in memory; more are sorted in files of so many.
SORTED_AT_ONCE = 100_000


def find_images(paths: Iterable[str]) -> Iterator[str]:
    """The given files, and the images in the given folders at any depth, by their names' endings.

    Args:
      paths: local paths or URIs. What they hold comes one after the other, and that of a folder sorted. Passed over are
        hidden files and those of operating systems, as in ingestion, and links to folders.

    Returns:
      Paths that begin as the given ones do. A folder that cannot be listed is one of them.

    Raises:
      UsageError: a path does not exist or cannot be listed, or there is no image.
    """
    paths = list(paths)
    for path in paths:
        if not storage.is_uri(path) and not os.path.exists(path):
            raise UsageError(f"There is no file or folder {path}.")
    found = itertools.chain.from_iterable([_images(path) for path in paths])
    first = next(found, None)
    if first is None:
        raise UsageError(f"No image was found in {', '.join(paths)}.")
    return itertools.chain([first], found)


def _images(path: str) -> Iterator[str]:
    if storage.is_uri(path):
        return _remote(path)
    local = str(Path(path))
    return _sorted(_walk(local)) if os.path.isdir(local) else iter([local])


def _walk(root: str) -> Iterator[str]:
    """Entries as the system gives them: a folder of millions is never in memory as a whole."""
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if storage.is_system_name(entry.name):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    elif _is_image(entry.name) and _may_be_read(entry):
                        yield entry.path
        except OSError:
            # Reading it will say so in its place among the answers.
            yield folder


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in IMAGE_EXTENSIONS


def _may_be_read(entry: os.DirEntry) -> bool:
    """A file, or a link that leads nowhere, for which there will be an error; no pipe, which might never end."""
    try:
        return entry.is_file() or (entry.is_symlink() and not os.path.exists(entry.path))
    except OSError:
        # A link to itself.
        return True


def _remote(uri: str) -> Iterator[str]:
    folder = uri.rstrip("/")
    start = len(folder) + 1
    found = [
        entry.path
        for entry in storage.find(f"{folder}/", "**")
        if _is_image(entry.path) and not any(map(storage.is_system_name, entry.path[start:].split("/")))
    ]
    if found:
        return iter(sorted(found))
    if uri not in storage.stat([uri]):
        raise UsageError(f"There is no file {uri}, and no image in a folder of that name.")
    return iter([uri])


# ---- sorting --------------------------------------------------------------------------------------------------------


def _sorted(paths: Iterator[str]) -> Iterator[str]:
    """Sorts any number of paths; only `SORTED_AT_ONCE` of them are in memory."""
    with contextlib.ExitStack() as stack:
        runs: list[Iterable[str]] = []
        while run := sorted(map(_line, itertools.islice(paths, SORTED_AT_ONCE))):
            if len(run) == SORTED_AT_ONCE:
                file = stack.enter_context(
                    tempfile.TemporaryFile("w+", encoding="utf-8", errors="surrogateescape", newline="\n")
                )
                file.writelines(run)
                file.seek(0)
                run = file
            runs.append(run)
        for line in heapq.merge(*runs):
            yield line[:-1].replace("\0", "\n")


def _line(path: str) -> str:
    """A name may hold a line break; what none can hold stands for it."""
    return path.replace("\n", "\0") + "\n"
