"""How files are listed and read: local folders through the operating system, URIs through Apache Beam's file systems.

Beam takes more than a second to import, so it is imported only where a URI is given.
"""

import contextlib
import errno
import glob
import io
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from components import parallel
from components.errors import UsageError
from components.files import write_whole

URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
COPY_BYTES = 1 << 20  # at a time
TRANSFERS = 16  # of files of a folder at a time
SYSTEM_NAMES = frozenset({"thumbs.db", "desktop.ini", "__macosx"})


@dataclass(frozen=True)
class Entry:
    """One file in a folder.

    Attributes:
      path: relative to the folder, forward slashes; bytes that are no UTF-8 as surrogates (`os.fsdecode`).
      size: bytes.
      mtime_ns: modification time in nanoseconds; 0 where a remote file system does not tell.
      ctime_ns: time of the last change to content, name or permissions; 0 for a URI.
    """

    path: str
    size: int
    mtime_ns: int
    ctime_ns: int


def is_uri(place: str) -> bool:
    """Whether Beam's file systems are to read it, as `gs://bucket/images`, rather than the operating system."""
    return URI.match(place) is not None


def join(folder: str, path: str) -> str:
    """The place of `path` in `folder`; a path that is absolute or a URI stands for itself."""
    return path if is_uri(path) or os.path.isabs(path) else f"{folder.rstrip('/')}/{path}"


def open_binary(location: str) -> BinaryIO:
    """A stream over the bytes as they are stored; `OSError` where there is no such file or it cannot be read."""
    if not is_uri(location):
        return open(location, "rb")
    from apache_beam.io.filesystem import CompressionTypes
    from apache_beam.io.filesystems import FileSystems

    with _os_errors(location):
        # By default Beam would unpack what is named .gz.
        return FileSystems.open(location, compression_type=CompressionTypes.UNCOMPRESSED)


def read_bytes(location: str, size: int = -1) -> bytes:
    """The first `size` bytes, or the whole file; what goes wrong is an `OSError` with a text in `strerror` (D14)."""
    with open_binary(location) as stream:
        if not is_uri(location):
            return stream.read(size)
        with _os_errors(location):
            return stream.read(size)


def download(location: str, path: Path) -> None:
    """Copies what lies under a URI into a local file."""
    with open_binary(location) as source, open(path, "wb") as target, _os_errors(location):
        shutil.copyfileobj(source, target, COPY_BYTES)


def write(location: str, content: Path | bytes) -> None:
    """Stores a file, whole or not at all; what goes wrong is an `OSError` with a text in `strerror`.

    Args:
      location: local path, whose folder is made where it is missing, or URI.
      content: bytes, or the local file that holds them.
    """
    if not is_uri(location):
        Path(location).parent.mkdir(parents=True, exist_ok=True)
        write_whole(Path(location), content if isinstance(content, bytes) else content.read_bytes())
        return
    from apache_beam.io.filesystem import CompressionTypes
    from apache_beam.io.filesystems import FileSystems

    with _os_errors(location), contextlib.ExitStack() as opened:
        source = io.BytesIO(content) if isinstance(content, bytes) else opened.enter_context(open(content, "rb"))
        # By default Beam would pack what is named .gz.
        target = FileSystems.create(location, compression_type=CompressionTypes.UNCOMPRESSED)
        shutil.copyfileobj(source, opened.enter_context(contextlib.closing(target)), COPY_BYTES)


def delete(locations: list[str]) -> None:
    """Removes files, at paths or at URIs in which no character stands for others; `OSError` where one stays."""
    for location in locations:
        if not is_uri(location):
            os.unlink(location)
            continue
        from apache_beam.io.filesystems import FileSystems

        with _os_errors(location):
            FileSystems.delete([location])


def empty(place: str) -> None:
    """Removes all files of a folder, a path or URI: what an earlier try of a step, which was killed, left where it was
    to write. A platform tries again with the same places, and half of what was written by one belongs to nothing that
    another writes."""
    if is_uri(place):
        delete([entry.path for entry in find(f"{place.rstrip('/')}/", "**")])
        if place.startswith("gs://"):
            remove_folder_objects(place)
    else:
        shutil.rmtree(place, ignore_errors=True)


def download_folder(uri: str, folder: Path) -> None:
    """Copies every object under a URI into a local folder, which is made.

    Raises:
      UsageError: an object has a name that no file can have; and as for `find`.
      OSError: one cannot be read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    start = len(uri.rstrip("/")) + 1
    places = {entry.path: folder / entry.path[start:] for entry in find(f"{uri.rstrip('/')}/", "**")}
    for place, path in places.items():
        if not path.resolve().is_relative_to(folder.resolve()):
            raise UsageError(f"{place} has a name that no file can have; remove it.")
        path.parent.mkdir(parents=True, exist_ok=True)
    with parallel.pool(TRANSFERS) as pool:
        for copied in [pool.submit(download, place, path) for place, path in places.items()]:
            copied.result()


def upload_folder(folder: Path, uri: str) -> None:
    """Stores every file of a local folder under a path or URI; `OSError` where that is not possible."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    with parallel.pool(TRANSFERS) as pool:
        stored = [pool.submit(write, f"{uri.rstrip('/')}/{path.relative_to(folder)}", path) for path in paths]
        for each in stored:
            each.result()


def remove_folder_objects(uri: str) -> None:
    """Removes the empty objects under a `gs://` URI that stand for folders; what lies in the folders stays."""
    from apache_beam.io.filesystems import FileSystems
    from apache_beam.io.gcp.gcsio import GcsIO

    with _os_errors(uri):
        (found,) = FileSystems.match([f"{glob.escape(uri.rstrip('/'))}/**"])
        store = GcsIO()
        for file in found.metadata_list:
            if file.path.endswith("/"):
                # Not by way of `FileSystems.delete`: it takes all that lies below.
                store.delete(file.path)


def exists(location: str) -> bool:
    """Whether there is a file at a path or URI.

    Raises:
      UsageError: no file system knows the URI, or its folder cannot be listed.
    """
    return location in stat([location])


def files_in(folder: str, ending: str = "") -> list[str]:
    """The files right in a folder, a path or URI, whose names end so, sorted; none where there is no such folder.

    Raises:
      UsageError: as for `exists`.
    """
    if is_uri(folder):
        found = [entry.path for entry in find(f"{folder.rstrip('/')}/", "*")]
    else:
        found = [str(path) for path in Path(folder).glob("*") if path.is_file()]
    return sorted(path for path in found if path.endswith(ending))


def stat(locations: list[str]) -> dict[str, Entry]:
    """Sizes and times by location; a file that is not there is left out. Remote folders are listed once each.

    Raises:
      UsageError: no file system knows a URI, or its folder cannot be listed.
    """
    found: dict[str, Entry] = {}
    for location in locations:
        if not is_uri(location):
            with contextlib.suppress(OSError):
                found[location] = _entry(location, os.stat(location))
    parents = {location.rpartition("/")[0] for location in locations if is_uri(location)}
    for parent in sorted(parents):
        found |= {entry.path: entry for entry in find(f"{parent}/", "*")}
    return found


def find(prefix: str, pattern: str) -> list[Entry]:
    """The remote files at `prefix` followed by `pattern` (`*`: in one folder, `**`: at any depth), paths in full.

    Raises:
      UsageError: no file system knows the scheme, or the place cannot be listed.
    """
    from apache_beam.io.filesystems import FileSystems

    scheme = prefix.partition("://")[0]
    try:
        FileSystems.get_filesystem(prefix)
    except ValueError:
        raise UsageError(
            f"{prefix} cannot be read: no file system for {scheme}:// is installed; give a local path, or install the "
            "extra of Apache Beam that brings it, such as apache-beam[gcp] for gs:// or apache-beam[aws] for s3://."
        ) from None
    try:
        with _os_errors(prefix):
            (result,) = FileSystems.match([glob.escape(prefix) + pattern])
    except OSError as error:
        refused = UsageError(f"{prefix} cannot be listed ({error.strerror}); {how_to_look(prefix)}.")
        # The network may be back in a minute.
        refused.may_pass = not isinstance(error, PermissionError | FileNotFoundError)
        raise refused from None
    return [
        Entry(file.path, file.size_in_bytes, int(file.last_updated_in_seconds * 1e9), 0)
        for file in result.metadata_list
        # An object that stands for a folder.
        if not file.path.endswith("/")
    ]


def how_to_look(uri: str) -> str:
    """What to check where a place that a URI names cannot be used."""
    if not uri.startswith("gs://"):
        return "look whether this machine reaches it, and whether its credentials are set and may use it"
    bucket = "/".join(uri.split("/")[:3])
    return (
        f"look whether this machine reaches it and its credentials may use it: gcloud storage ls {bucket}; gcloud auth "
        "application-default login, or GOOGLE_APPLICATION_CREDENTIALS, gives credentials"
    )


@contextlib.contextmanager
def _os_errors(location: str) -> Iterator[None]:
    """Clients of remote file systems raise what they like; callers get an `OSError` that says it in one line."""
    try:
        yield
    except Exception as error:
        cause = error
        # Beam wraps what happened in a dictionary by path, and that again.
        while details := getattr(cause, "exception_details", None):
            cause = next(iter(details.values()))
        lines = str(cause).strip().splitlines() or [type(cause).__name__]
        raise OSError(errno.EIO, lines[0][:300], location) from error


def _entry(path: str, status: os.stat_result) -> Entry:
    return Entry(path, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def is_system_name(name: str) -> bool:
    """Hidden, or left behind by an operating system."""
    return name.startswith(".") or name.lower() in SYSTEM_NAMES


# ---- folders --------------------------------------------------------------------------------------------------------


def open_folder(root: str, follow_symlinks: bool = False) -> "LocalFolder | RemoteFolder":
    """A folder to list.

    Args:
      root: a local path or a URI.
      follow_symlinks: whether local links are read; without it, links that leave the root are passed over.

    Raises:
      UsageError: there is no such folder, or nothing here can list it.
    """
    return RemoteFolder(root) if is_uri(root) else LocalFolder(root, follow_symlinks)


class LocalFolder:
    """A folder of this machine."""

    def __init__(self, root: str, follow_symlinks: bool):
        if not os.path.isdir(root):
            raise UsageError(
                f"The image folder {root} does not exist; give --images a folder that holds class folders."
            )
        self.root, self._follow = root, follow_symlinks

    def folders(self, within: str = "") -> list[str]:
        """Names of the folders in the root, or in one of its folders; `OSError` where that cannot be read."""
        return sorted(
            entry.name
            for entry in os.scandir(os.path.join(self.root, within) if within else self.root)
            if not is_system_name(entry.name) and os.path.isdir(entry.path) and (self._follow or not entry.is_symlink())
        )

    def files(self, skipped: list[tuple[str, str]]) -> Iterator[Entry]:
        """Yields every file; notes hidden files, links and other things that it passes over."""
        visited = {os.path.realpath(self.root)}
        waiting = [""]
        while waiting:
            folder = waiting.pop()
            try:
                entries = sorted(os.scandir(os.path.join(self.root, folder)), key=lambda entry: entry.name)
            except OSError as error:
                skipped.append((folder, f"folder cannot be read ({error.strerror})"))
                continue
            for entry in entries:
                path = f"{folder}/{entry.name}" if folder else entry.name
                if is_system_name(entry.name):
                    skipped.append((path, "hidden or system file"))
                elif entry.is_symlink() and not self._follow and not is_inside(self.root, entry.path):
                    skipped.append((path, "symbolic link out of the image folder"))
                elif entry.is_symlink() and not os.path.exists(entry.path):
                    # Before `is_dir`, which raises where a link leads to itself.
                    skipped.append((path, "broken link"))
                elif entry.is_symlink() and entry.is_dir() and not self._follow:
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
                        yield _entry(path, entry.stat())
                    except OSError as error:
                        skipped.append((path, f"cannot be read ({error.strerror})"))
                else:
                    skipped.append((path, "not a regular file"))


def is_inside(root: str, path: str) -> bool:
    """Whether a local path, links resolved, lies in `root`."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root))


class RemoteFolder:
    """What lies under a URI. Folders are but parts of names there: none is empty."""

    def __init__(self, root: str):
        self.root = root.rstrip("/")
        start = len(self.root) + 1
        self._entries = [
            Entry(entry.path[start:], entry.size, entry.mtime_ns, 0) for entry in find(f"{self.root}/", "**")
        ]
        if not self._entries:
            raise UsageError(f"There is no file under {root}; give --images a folder that holds class folders.")

    def folders(self, within: str = "") -> list[str]:
        """Names of the folders in the root, or in one of its folders."""
        prefix = f"{within}/" if within else ""
        rest = [entry.path.removeprefix(prefix) for entry in self._entries if entry.path.startswith(prefix)]
        names = {path.partition("/")[0] for path in rest if "/" in path}
        return sorted(name for name in names if name and not is_system_name(name))

    def files(self, skipped: list[tuple[str, str]]) -> Iterator[Entry]:
        """Yields every file; notes hidden ones, and names that no folder structure explains."""
        hidden: set[str] = set()
        for entry in self._entries:
            parts = entry.path.split("/")
            system = [index for index, name in enumerate(parts) if is_system_name(name)]
            if "" in parts:
                skipped.append((entry.path, "a folder without a name"))
            elif not system:
                yield entry
            elif (path := "/".join(parts[: system[0] + 1])) not in hidden:
                # A hidden folder counts once, as it does on a disk.
                hidden.add(path)
                skipped.append((path, "hidden or system file"))
