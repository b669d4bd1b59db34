"""`checksums.sha256`: what a published version was made of, in the format that `sha256sum -c` reads."""

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

CHECKSUMS_FILE = "checksums.sha256"


@dataclass(frozen=True)
class Findings:
    """What differs from the checksums; names are relative, with forward slashes, and untrusted.

    Attributes:
      damaged: files with other contents.
      missing: files that are not there.
      extra: files that nobody published.
    """

    damaged: list[str]
    missing: list[str]
    extra: list[str]

    @property
    def usable(self) -> bool:
        """Whether everything that was published is there as it was."""
        return not self.damaged and not self.missing

    @property
    def clean(self) -> bool:
        """Whether there is that and nothing else."""
        return self.usable and not self.extra


def digest(content: Path | bytes) -> str:
    """Hexadecimal SHA-256 of a file or of bytes."""
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()
    with open(content, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def dump(digests: Mapping[str, str]) -> bytes:
    """The file's content for digests by name."""
    return os.fsencode("".join(f"{value}  {name}\n" for name, value in sorted(digests.items())))


def parse(content: bytes) -> dict[str, str]:
    """Digests by name; what is no such line is passed over, and then a file is missing or too many."""
    pairs = (line.partition("  ") for line in os.fsdecode(content).split("\n"))
    return {name: value for value, separator, name in pairs if separator}


def files_of(folder: Path) -> dict[str, Path]:
    """Every file in a folder and below, by relative name with forward slashes; links to folders are not followed.

    Raises:
      OSError: a folder cannot be read.
    """
    found = {}
    for parent, _, names in os.walk(folder, onerror=_raise):
        for name in names:
            path = Path(parent, name)
            found[path.relative_to(folder).as_posix()] = path
    return dict(sorted(found.items()))


def _raise(error: OSError) -> None:
    raise error


def compare_names(published: Iterable[str], found: Iterable[str]) -> Findings:
    """Missing and extra files; whether a file is damaged cannot be told from its name."""
    expected, there = set(published), set(found) - {CHECKSUMS_FILE}
    return Findings([], sorted(expected - there), sorted(there - expected))


def verify(folder: Path) -> Findings | None:
    """Compares a version's files with its checksums.

    Only files that lie in the folder are opened, whatever names the checksums hold.

    Args:
      folder: the version.

    Returns:
      None where it has no checksums: nothing can be said about it.
    """
    file = folder / CHECKSUMS_FILE
    if not file.is_file():
        return None
    published, found = parse(file.read_bytes()), files_of(folder)
    names = compare_names(published, found)
    both = sorted(published.keys() & found.keys())
    return Findings([name for name in both if not _is(found[name], published[name])], names.missing, names.extra)


def _is(path: Path, value: str) -> bool:
    # A link that leads nowhere, or a file that cannot be read, is not what was published either.
    try:
        return digest(path) == value
    except OSError:
        return False
