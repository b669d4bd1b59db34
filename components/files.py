"""Files that exist whole or not at all."""

import os
from pathlib import Path


def write_whole(path: Path, content: str | bytes) -> None:
    """Replaces a file atomically: a reader, or the next run after a crash, sees the old content or the new one.

    Args:
      path: in an existing folder; a hidden file beside it is used on the way.
      content: text is written as UTF-8.
    """
    temporary = path.with_name(f".{path.name}-{os.getpid()}")
    temporary.write_bytes(content.encode() if isinstance(content, str) else content)
    os.replace(temporary, path)
