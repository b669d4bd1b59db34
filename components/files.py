"""Files that exist whole or not at all, JSON and JSON Lines."""

import contextlib
import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

# What a file system says that has no hard links.
NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


@contextlib.contextmanager
def whole(path: Path, temporary: Path | None = None, new: bool = False) -> Iterator[IO[bytes]]:
    """A file to write that replaces another atomically when the body ends without an error.

    Args:
      path: in an existing folder.
      temporary: what is used on the way, on the same file system; None for a hidden file beside `path`.
      new: whether another is not replaced but an error, also one that appeared while the body ran.

    Raises:
      FileExistsError: it is there, and was to be new.
      OSError: it names the file, whatever could not be done.
    """
    temporary = temporary or path.with_name(f".{path.name}-{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            yield file
        if new:
            _name_new(temporary, path)
        else:
            os.replace(temporary, path)
    except BaseException as error:
        # What there is of it may be large, and the disk full.
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)
        raise


def _name_new(temporary: Path, path: Path) -> None:
    try:
        # Unlike a rename it fails where there is a file.
        os.link(temporary, path)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        # The best that there is: one that appears between these two lines is replaced.
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
        os.replace(temporary, path)
    else:
        temporary.unlink()


def write_whole(path: Path, content: str | bytes) -> None:
    """Replaces a file atomically: a reader, or the next run after a crash, sees the old content or the new one.

    Args:
      path: in an existing folder; a hidden file beside it is used on the way.
      content: text is written as UTF-8.
    """
    with whole(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def read_json(folder: Path | None, name: str, otherwise: Any = None) -> Any:
    """What a JSON file of an artifact holds; `otherwise` where its step was not reached, or did not write it."""
    path = folder / name if folder else None
    return json.loads(path.read_text()) if path and path.is_file() else otherwise


def write_json_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    """One object a line."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a file that Beam or `write_json_lines` wrote; JSON escapes what else would end a line."""
    return [json.loads(line) for line in path.read_text().splitlines()]
