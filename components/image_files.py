"""Which files an image folder holds, what class and split each belongs to, and a digest of it all.

Only the standard library: the command lists and digests the images before it imports TFX.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from components.errors import DataRefused, UsageError
from components.files import write_whole

SPLIT_FOLDERS = {
    "train": "train",
    "training": "train",
    "eval": "eval",
    "val": "eval",
    "valid": "eval",
    "validation": "eval",
    "test": "test",
    "testing": "test",
}
IMAGE_EXTENSIONS = frozenset(
    [
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".png",
        ".gif",
        ".bmp",
        ".dib",
        ".webp",
        ".tif",
        ".tiff",
        ".avif",
        ".jp2",
        ".j2k",
        ".ppm",
        ".pgm",
        ".pbm",
        ".pnm",
        ".ico",
        ".mpo",
    ]
)
SYSTEM_NAMES = frozenset({"thumbs.db", "desktop.ini", "__macosx"})
# The first bytes of the formats above, for files whose name does not say that they are images.
MAGIC = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"II*\0", b"MM\0*", b"\0\0\0\x0cjP")


@dataclass(frozen=True, order=True)
class ImageFile:
    """One candidate: a file that its name or its first bytes call an image.

    Attributes:
      path: relative to the image root, forward slashes; bytes that are no UTF-8 as surrogates (`os.fsdecode`).
      class_name: the folder that labels it.
      split: `train`, `eval` or `test` when a folder says so, else None.
      size: bytes.
      mtime_ns: modification time in nanoseconds.
      ctime_ns: time of the last change to content, name or permissions, which no tool sets back.
    """

    path: str
    class_name: str
    split: str | None
    size: int
    mtime_ns: int
    ctime_ns: int


@dataclass
class Listing:
    """What a scan found: candidates sorted by path, the class folders, and what was passed over with the reason."""

    files: list[ImageFile] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)


def scan(root: Path, follow_symlinks: bool = False) -> Listing:
    """Lists `root/<class>/**` or `root/<split>/<class>/**`.

    Args:
      root: the image folder.
      follow_symlinks: whether links are read; links that leave the root are otherwise skipped and counted.

    Raises:
      UsageError: there is no such folder, it cannot be read, or split folders stand beside class folders.
      DataRefused: the folder holds no class folder.
    """
    if not os.path.isdir(root):
        raise UsageError(f"The image folder {root} does not exist; give --images a folder that holds class folders.")
    try:
        folders = _folders(root, follow_symlinks)
        splits = _split_folders(root, folders, follow_symlinks)
        inside = {split: _folders(root / split, follow_symlinks) for split in splits}
    except OSError as error:
        raise UsageError(f"The image folder {error.filename} cannot be read ({error.strerror}).") from None
    listing = Listing()
    for path, stat in _walk(root, follow_symlinks, listing.skipped):
        parts = path.split("/")
        split = SPLIT_FOLDERS[parts[0].lower()] if splits and len(parts) > 1 else None
        labelled = parts[1:] if split else parts
        if len(labelled) < 2:
            listing.skipped.append((path, "not in a class folder"))
        elif not _looks_like_image(root / path):
            listing.skipped.append((path, "not an image by name or content"))
        else:
            times = stat.st_mtime_ns, stat.st_ctime_ns
            listing.files.append(ImageFile(path, labelled[0], split, stat.st_size, *times))
    classes = sorted({name for names in inside.values() for name in names} if splits else folders)
    if not classes:
        raise DataRefused(
            f"{root} holds no class folders: put the images of each class into a folder named after the class."
        )
    for name in classes:
        if not _is_utf8(name):
            raise DataRefused(f"The name of the class folder {name!r} is not valid UTF-8: rename it.")
    listing.files.sort()
    listing.skipped.sort()
    listing.classes = classes
    return listing


def _folders(path: Path, follow: bool) -> list[str]:
    return sorted(
        entry.name
        for entry in os.scandir(path)
        if not _is_system_name(entry.name) and os.path.isdir(entry.path) and (follow or not entry.is_symlink())
    )


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _split_folders(root: Path, folders: list[str], follow: bool) -> list[str]:
    """The top folders, when they are splits: one of them is a train folder that holds folders of its own."""
    named = [name for name in folders if name.lower() in SPLIT_FOLDERS]
    if not any(SPLIT_FOLDERS[name.lower()] == "train" and _folders(root / name, follow) for name in named):
        return []
    others = [name for name in folders if name not in named]
    if others:
        raise UsageError(
            f"{root} holds split folders ({', '.join(named)}) beside others ({', '.join(others[:5])}): keep either "
            "class folders, or train, eval and test folders with class folders inside."
        )
    return named


def _is_system_name(name: str) -> bool:
    return name.startswith(".") or name.lower() in SYSTEM_NAMES


def _walk(root: Path, follow: bool, skipped: list[tuple[str, str]]) -> Iterator[tuple[str, os.stat_result]]:
    """Yields (relative path, stat) of every file; notes hidden files, links and other things that it passes over."""
    visited = {os.path.realpath(root)}
    waiting = [""]
    while waiting:
        folder = waiting.pop()
        try:
            entries = sorted(os.scandir(root / folder), key=lambda entry: entry.name)
        except OSError as error:
            skipped.append((folder, f"folder cannot be read ({error.strerror})"))
            continue
        for entry in entries:
            path = f"{folder}/{entry.name}" if folder else entry.name
            if _is_system_name(entry.name):
                skipped.append((path, "hidden or system file"))
            elif entry.is_symlink() and not follow and not _inside(root, entry.path):
                skipped.append((path, "symbolic link out of the image folder"))
            elif entry.is_symlink() and not os.path.exists(entry.path):
                # Before `is_dir`, which raises where a link leads to itself.
                skipped.append((path, "broken link"))
            elif entry.is_symlink() and entry.is_dir() and not follow:
                skipped.append((path, "symbolic link to a folder"))
            elif entry.is_dir():
                real = os.path.realpath(entry.path)
                if real in visited:
                    skipped.append((path, "folder already read through another path"))
                else:
                    visited.add(real)
                    waiting.append(path)
            elif entry.is_file():
                try:
                    yield path, entry.stat()
                except OSError as error:
                    skipped.append((path, f"cannot be read ({error.strerror})"))
            else:
                skipped.append((path, "not a regular file"))


def _inside(root: Path, path: str) -> bool:
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root))


def _looks_like_image(path: Path) -> bool:
    if path.suffix.lower() in IMAGE_EXTENSIONS:
        return True
    try:
        with open(path, "rb") as file:
            start = file.read(16)
    except OSError:
        # Neither its name nor its content says that it is an image.
        return False
    # "BM" alone begins many a text; a bitmap has four reserved zero bytes after its size.
    is_bitmap = start[:2] == b"BM" and start[6:10] == b"\0\0\0\0"
    return is_bitmap or start.startswith(MAGIC) or start[8:12] == b"WEBP" or start[4:12] in (b"ftypavif", b"ftypavis")


# ---- digest ---------------------------------------------------------------------------------------------------------


def content_digest(
    root: Path,
    files: Iterable[ImageFile],
    memory: Path | None = None,
    advance: Callable[[], None] = lambda: None,
    classes: Iterable[str] = (),
) -> str:
    """Digest of paths and contents: a moved, renamed or overwritten image changes it, `touch` alone does not.

    Args:
      root: the image folder.
      files: what `scan` found.
      memory: a JSON file of earlier content hashes by path, size and times; only files that changed since are read
        again (two files of one size and age that swap names differ in nothing but `ctime_ns`). Written anew,
        atomically.
      advance: called once a file.
      classes: the class folders; an empty one has no file that would tell.

    Returns:
      Hexadecimal SHA-256.
    """
    known: dict[str, list] = {}
    if memory is not None and memory.is_file():
        try:
            remembered = json.loads(memory.read_text())
            known = remembered["files"] if remembered["root"] == str(root) else {}
        except (ValueError, KeyError, TypeError):
            known = {}

    def hashed(file: ImageFile) -> str:
        *stamp, value = known.get(file.path, (None,))
        if stamp != [file.size, file.mtime_ns, file.ctime_ns]:
            try:
                with open(root / file.path, "rb") as stream:
                    value = hashlib.file_digest(stream, "sha256").hexdigest()
            except OSError as error:
                # Ingestion will quarantine it; that it cannot be read is part of what this digest stands for.
                value = f"unreadable: {error.errno}"
        advance()
        return value

    files = list(files)
    with ThreadPoolExecutor(8) as pool:
        values = list(pool.map(hashed, files))
    digest = hashlib.sha256(json.dumps(list(classes)).encode())
    for file, value in zip(files, values, strict=True):
        digest.update(json.dumps([file.path, value]).encode())
    if memory is not None:
        memory.parent.mkdir(parents=True, exist_ok=True)
        fresh = {
            file.path: [file.size, file.mtime_ns, file.ctime_ns, value]
            for file, value in zip(files, values, strict=True)
            if not value.startswith("unreadable")
        }
        write_whole(memory, json.dumps({"root": str(root), "files": fresh}))
    return digest.hexdigest()
