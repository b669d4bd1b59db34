"""What is an image, what class and split it belongs to, and a digest of it all.

Nothing heavy is imported for local folders: the command lists and digests the images before it imports TFX.
"""

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from components import parallel, storage
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
# The first bytes of the formats above, for files whose name does not say that they are images.
MAGIC = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"II*\0", b"MM\0*", b"\0\0\0\x0cjP")


@dataclass(frozen=True, order=True)
class ImageFile:
    """One candidate: a file that its name, its first bytes or a manifest call an image.

    Attributes:
      path: unique in a run. With one source relative to its folder, forward slashes; with several the location. Bytes
        that are no UTF-8 as surrogates (`os.fsdecode`).
      class_name: what labels it: a folder's name, or what a manifest says.
      split: `train`, `eval` or `test` when a folder or a manifest says so, else None.
      size: bytes; 0 where the file is missing.
      mtime_ns: modification time in nanoseconds.
      ctime_ns: time of the last change to content, name or permissions, which no tool sets back; 0 for a URI.
      location: local path or URI where the bytes are.
      group: the thing it shows, of which there are more images; they share a split. None for an image by itself.
    """

    path: str
    class_name: str
    split: str | None
    size: int
    mtime_ns: int
    ctime_ns: int
    location: str
    group: str | None = None


@dataclass
class Listing:
    """What a scan found: candidates sorted by path, the classes, and what was passed over with the reason."""

    files: list[ImageFile] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)


def scan(root: str | Path, follow_symlinks: bool = False) -> Listing:
    """Lists `root/<class>/**` or `root/<split>/<class>/**`.

    Args:
      root: the image folder, a local path or a URI.
      follow_symlinks: whether links are read; links that leave the root are otherwise skipped and counted.

    Raises:
      UsageError: there is no such folder, it cannot be read, or split folders stand beside class folders.
      DataRefused: the folder holds no class folder.
    """
    root = str(root)
    folder = storage.open_folder(root, follow_symlinks)
    try:
        folders = folder.folders()
        splits = _split_folders(folder, folders)
        inside = {split: folder.folders(split) for split in splits}
    except OSError as error:
        raise UsageError(f"The image folder {error.filename} cannot be read ({error.strerror}).") from None
    listing = Listing()
    for entry in folder.files(listing.skipped):
        parts = entry.path.split("/")
        split = SPLIT_FOLDERS[parts[0].lower()] if splits and len(parts) > 1 else None
        labelled = parts[1:] if split else parts
        location = storage.join(root, entry.path)
        if len(labelled) < 2:
            listing.skipped.append((entry.path, "not in a class folder"))
        elif not _looks_like_image(location):
            listing.skipped.append((entry.path, "not an image by name or content"))
        else:
            stamp = entry.size, entry.mtime_ns, entry.ctime_ns
            listing.files.append(ImageFile(entry.path, labelled[0], split, *stamp, location))
    classes = sorted({name for names in inside.values() for name in names} if splits else folders)
    if not classes:
        raise DataRefused(
            f"{root} holds no class folders: put the images of each class into a folder named after the class."
        )
    for name in classes:
        if not is_utf8(name):
            raise DataRefused(f"The name of the class folder {name!r} is not valid UTF-8: rename it.")
    listing.files.sort()
    listing.skipped.sort()
    listing.classes = classes
    return listing


def is_utf8(name: str) -> bool:
    """Whether it can be written as text; a file name from bytes that are none cannot."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _split_folders(folder: storage.LocalFolder | storage.RemoteFolder, names: list[str]) -> list[str]:
    """The top folders, when they are splits: one of them is a train folder that holds folders of its own."""
    named = [name for name in names if name.lower() in SPLIT_FOLDERS]
    if not any(SPLIT_FOLDERS[name.lower()] == "train" and folder.folders(name) for name in named):
        return []
    others = [name for name in names if name not in named]
    if others:
        raise UsageError(
            f"{folder.root} holds split folders ({', '.join(named)}) beside others ({', '.join(others[:5])}): keep "
            "either class folders, or train, eval and test folders with class folders inside."
        )
    return named


def _looks_like_image(location: str) -> bool:
    if PurePosixPath(location).suffix.lower() in IMAGE_EXTENSIONS:
        return True
    try:
        start = storage.read_bytes(location, 16)
    except OSError:
        # Neither its name nor its content says that it is an image.
        return False
    # "BM" alone begins many a text; a bitmap has four reserved zero bytes after its size.
    is_bitmap = start[:2] == b"BM" and start[6:10] == b"\0\0\0\0"
    return is_bitmap or start.startswith(MAGIC) or start[8:12] == b"WEBP" or start[4:12] in (b"ftypavif", b"ftypavis")


# ---- digest ---------------------------------------------------------------------------------------------------------


class Digest(NamedTuple):
    """What `content_digest` says.

    Attributes:
      value: hexadecimal SHA-256.
      unreadable: paths of files that could not be read for it, which is part of what it stands for.
      files: how many there are.
      size: bytes of all of them.
      classes: names, sorted.
    """

    value: str
    unreadable: frozenset[str]
    files: int = 0
    size: int = 0
    classes: tuple[str, ...] = ()


def images_digest(given: str) -> str:
    """What `content_digest` said, of ImageExampleGen's property: the state of the splits stands behind it."""
    return given.partition(" ")[0]


def content_digest(
    files: Iterable[ImageFile],
    memory: Path | None = None,
    advance: Callable[[], None] = lambda: None,
    classes: Iterable[str] = (),
) -> Digest:
    """Digest of paths, labels and contents: a moved, relabelled or overwritten image changes it, `touch` does not.

    The content of a remote file is not downloaded for this: its size and time of change stand for it.

    Args:
      files: what was listed.
      memory: a JSON file of earlier content hashes by location, size and times; only files that changed since are read
        again (two files of one size and age that swap names differ in nothing but `ctime_ns`). Written anew,
        atomically.
      advance: called once a file.
      classes: all of them; an empty class folder has no file that would tell.

    """
    known: dict[str, list] = {}
    if memory is not None and memory.is_file():
        try:
            known = dict(json.loads(memory.read_text())["files"])
        except (ValueError, KeyError, TypeError):
            known = {}

    def remembered(file: ImageFile) -> str | None:
        if storage.is_uri(file.location):
            # A manifest may name what is not there.
            missing = file.size == file.mtime_ns == 0
            return "unreadable: missing" if missing else f"{file.size} bytes at {file.mtime_ns}"
        *stamp, value = known.get(file.location, (None,))
        return value if stamp == [file.size, file.mtime_ns, file.ctime_ns] else None

    def hashed(file: ImageFile) -> str:
        try:
            with storage.open_binary(file.location) as stream:
                value = hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError as error:
            # Ingestion will quarantine it; that it cannot be read is part of what this digest stands for.
            value = f"unreadable: {error.errno}"
        advance()
        return value

    files, classes = list(files), sorted(classes)
    values = []
    with parallel.pool(8) as pool:
        for file in files:
            value = remembered(file)
            values.append(pool.submit(hashed, file) if value is None else value)
            if value is not None:
                advance()
        values = [value if isinstance(value, str) else value.result() for value in values]
    digest = _digest(files, values, classes)
    if memory is not None:
        memory.parent.mkdir(parents=True, exist_ok=True)
        fresh = {
            file.location: [file.size, file.mtime_ns, file.ctime_ns, value]
            for file, value in zip(files, values, strict=True)
            if not storage.is_uri(file.location) and not value.startswith("unreadable")
        }
        write_whole(memory, json.dumps({"files": fresh}))
    unreadable = {file.path for file, value in zip(files, values, strict=True) if value.startswith("unreadable")}
    size = sum(file.size for file in files)
    return Digest(digest, frozenset(unreadable), len(files), size, tuple(classes))


def records_digest(records: Iterable[dict[str, Any]], listing: Listing) -> str:
    """What `content_digest` would have said of local files, from what ingestion read of them, wherever they are.

    Args:
      records: with `path` and `sha256`, which is empty for a file that could not be read.
      listing: the files that they are of.
    """
    read = {record["path"]: record["sha256"] or f"unreadable: {record['reason']}" for record in records}
    return _digest(listing.files, [read[file.path] for file in listing.files], listing.classes)


def _digest(files: Iterable[ImageFile], values: Iterable[str], classes: Iterable[str]) -> str:
    digest = hashlib.sha256(json.dumps(list(classes)).encode())
    for file, value in zip(files, values, strict=True):
        # In a folder the path implies class and split; in a manifest it does not.
        digest.update(json.dumps([file.path, file.class_name, file.split, file.group, value]).encode())
    return digest.hexdigest()
