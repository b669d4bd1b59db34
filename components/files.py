"""Files that exist whole or not at all, and JSON Lines."""

import json
import os
from pathlib import Path
from typing import Any


def write_whole(path: Path, content: str | bytes) -> None:
    """Replaces a file atomically: a reader, or the next run after a crash, sees the old content or the new one.

    Args:
      path: in an existing folder; a hidden file beside it is used on the way.
      content: text is written as UTF-8.
    """
    temporary = path.with_name(f".{path.name}-{os.getpid()}")
    temporary.write_bytes(content.encode() if isinstance(content, str) else content)
    os.replace(temporary, path)


def write_json_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    """One object a line."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a file that Beam or `write_json_lines` wrote; JSON escapes what else would end a line."""
    return [json.loads(line) for line in path.read_text().splitlines()]
