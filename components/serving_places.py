"""Where versions are published: a local folder, or what lies under a URI.

Both are TensorFlow Serving base paths with a numeric folder a version, and answer the same questions. They differ in
how a version appears at once: a local one is put together under a name that no model server reads and renamed; an
object store knows no renaming, so there `saved_model.pb`, without which nothing loads, is written last, and then the
pointer `latest.json`, which says what is in service.
"""

import contextlib
import errno
import fcntl
import json
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from components import checksums, progress, storage
from components.errors import OutputBusy, Passing, UsageError

SAVED_MODEL = "saved_model.pb"
UNFINISHED = ".unfinished-"
RETIRED = ".retired-"
# Not `.lock`: that is how an output folder is known.
LOCK = ".publishing.lock"
POINTER = "latest.json"
PATIENCE_SECONDS = 30

# What a file of a version is made of.
Content = Path | bytes


def open_serving(place: Path | str) -> "LocalServing | RemoteServing":
    """A place to publish to; it need not exist.

    Raises:
      UsageError: a URI that cannot be one.
    """
    return RemoteServing(place) if isinstance(place, str) and storage.is_uri(place) else LocalServing(Path(place))


def is_version(name: str) -> bool:
    """Whether TensorFlow Serving would take the name for a version: ASCII digits without leading zeros."""
    return name.isascii() and name.isdecimal() and str(int(name)) == name


def changed_meanwhile(place: Path | str, expected: int | None, found: int | None) -> Passing:
    """Says that another version is in service than the one that was reckoned with."""
    said = ["nothing" if number is None else f"version {number}" for number in (expected, found)]
    return Passing(
        f"What is in service at {place} changed from {said[0]} to {said[1]} meanwhile, so that nothing was published; "
        "run again."
    )


class LocalServing:
    """A folder of this machine.

    Attributes:
      place: the folder.
    """

    def __init__(self, folder: Path):
        self.place = folder

    def versions(self) -> list[int]:
        """Published versions, oldest first; what is not a numeric folder is not one."""
        if not self.place.is_dir():
            return []
        return sorted(int(entry.name) for entry in self.place.iterdir() if is_version(entry.name) and entry.is_dir())

    def in_service(self) -> int | None:
        """The newest version; None where nothing was published."""
        return max(self.versions(), default=None)

    def location(self, version: int) -> Path:
        return self.place / str(version)

    def names(self, version: int) -> list[str]:
        """The version's files, relative, with forward slashes."""
        return list(checksums.files_of(self.location(version)))

    def read(self, version: int, name: str) -> bytes | None:
        """A file of a version; None where it has none of that name."""
        path = self.location(version) / name
        return path.read_bytes() if path.is_file() else None

    def untouched(self, version: int) -> bool:
        """Whether it holds what was published and nothing else."""
        folder = self.location(version)
        found = None if folder.is_symlink() else checksums.verify(folder)
        return found is not None and found.clean

    def fetch(self, version: int, folder: Path) -> Path:
        """A local folder of the version's files; `folder` is not used, as they lie in one."""
        return self.location(version)

    def prepare(self) -> None:
        """Makes the folder, so that one that cannot be written is found out before anything is trained.

        Raises:
          UsageError: it cannot be written.
        """
        try:
            self.place.mkdir(parents=True, exist_ok=True)
            (self.place / LOCK).touch()
        except OSError as error:
            raise UsageError(
                f"push.destination: {self.place} cannot be written ({error.strerror}); give a folder that can."
            ) from None

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keeps other publications and rollbacks out; the system lets go of it however the process ends.

        Raises:
          OutputBusy: another process holds it, and did for as long as this one was ready to wait.
        """
        self.place.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.place / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            self._wait_for(descriptor)
            # A note for those who wait; the disk may be full.
            with contextlib.suppress(OSError):
                os.truncate(descriptor, 0)
                os.pwrite(descriptor, str(os.getpid()).encode(), 0)
            yield
        finally:
            os.close(descriptor)

    def _wait_for(self, descriptor: int) -> None:
        until = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() < until:
                    time.sleep(0.02)
                    continue
            holder = os.pread(descriptor, 20, 0).decode(errors="replace") or "unknown"
            raise OutputBusy(f"Process {holder} is publishing to {self.place}; run again when it has ended.")

    def tidy(self) -> None:
        """Removes what publications that were killed left behind; what cannot be removed is in nobody's way."""
        for leftover in self.place.iterdir():
            if leftover.name.startswith((UNFINISHED, RETIRED)) and leftover.is_dir():
                shutil.rmtree(leftover, ignore_errors=True)

    def next_version(self) -> int:
        """Unix seconds, but always greater than every earlier version: neither two publications in a second nor a clock
        that goes backwards may collide."""
        return max([int(time.time()), *(number + 1 for number in self.versions()[-1:])])

    def add(self, version: int, files: Mapping[str, Content], after: int | None) -> None:
        """Puts a version into service, whole or not at all.

        Args:
          version: its number, greater than every other.
          files: by relative name.
          after: what is in service until then; the lock sees to it that this still holds.
        """
        unfinished = self.place / f"{UNFINISHED}{version}"
        progress.start(len(files), "copying", "files")
        try:
            unfinished.mkdir()
            for name, content in files.items():
                _put(content, unfinished / name)
                progress.advance()
            _flush(unfinished)
            os.rename(unfinished, self.location(version))
        except BaseException as error:
            # What there is of it may be large, and the disk full.
            shutil.rmtree(unfinished, ignore_errors=True)
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                # It names the file that was copied, which is not where the space is wanting.
                raise OSError(error.errno, error.strerror, str(self.place)) from error
            raise
        _sync(self.place)

    def remove(self, version: int) -> None:
        """Takes a version away; a reader sees all of it or nothing."""
        retired = self.place / f"{RETIRED}{version}"
        os.rename(self.location(version), retired)
        shutil.rmtree(retired, ignore_errors=True)


def _put(content: Content, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        shutil.copyfile(content, path)


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


class RemoteServing:
    """What lies under a URI that Beam's file systems write, such as `gs://bucket/serving`.

    There is no lock. An object `.unfinished-<version>` says that the version's files are on their way in or out: such a
    version is none, unless the pointer names it, and the next publication removes it.

    Attributes:
      place: the URI.
    """

    def __init__(self, root: str):
        if re.search(r"[*?\[\]]", root):
            raise UsageError(
                f"{root} cannot be published to: *, ?, [ and ] stand for other characters in a URI; leave them out."
            )
        self.place = root.rstrip("/")

    def _list(self) -> list[str]:
        entries = storage.find(f"{self.place}/", "**")
        return [entry.path.removeprefix(f"{self.place}/") for entry in entries]

    def _pointed(self, names: list[str]) -> int | None:
        """The version that the pointer names, whether it is there or not; None where there is no usable pointer."""
        if POINTER not in names:
            return None
        with contextlib.suppress(ValueError, TypeError, KeyError):
            return int(json.loads(storage.read_bytes(f"{self.place}/{POINTER}"))["version"])
        return None

    def _versions(self, names: list[str], pointed: int | None) -> list[int]:
        whole = {number for number, file in _files(names) if file == SAVED_MODEL}
        return sorted(whole - (_unfinished(names) - {pointed}))

    def versions(self) -> list[int]:
        """Published versions, oldest first; a folder without `saved_model.pb` is none."""
        names = self._list()
        return self._versions(names, self._pointed(names))

    def in_service(self) -> int | None:
        """The version that the pointer names; the newest where there is no such version or no pointer."""
        names = self._list()
        pointed = self._pointed(names)
        versions = self._versions(names, pointed)
        return pointed if pointed in versions else max(versions, default=None)

    def location(self, version: int) -> str:
        return f"{self.place}/{version}"

    def names(self, version: int) -> list[str]:
        """The version's files, relative, with forward slashes."""
        return [file for number, file in _files(self._list()) if number == version]

    def read(self, version: int, name: str) -> bytes | None:
        """A file of a version; None where it has none of that name."""
        if name not in self.names(version):
            return None
        return storage.read_bytes(f"{self.location(version)}/{name}")

    def untouched(self, version: int) -> bool:
        """Whether it holds the files that were published and no others; contents are not downloaded for that."""
        published = self.read(version, checksums.CHECKSUMS_FILE)
        return published is not None and checksums.compare_names(checksums.parse(published), self.names(version)).clean

    def fetch(self, version: int, folder: Path) -> Path:
        """Downloads a version.

        Args:
          version: one of `versions`.
          folder: takes it; made.

        Returns:
          `folder/<version>`.
        """
        target, names = folder / str(version), self.names(version)
        progress.start(len(names), "downloading the model in service", "files")
        for name in names:
            path = target / name
            path.parent.mkdir(parents=True, exist_ok=True)
            storage.download(f"{self.location(version)}/{name}", path)
            progress.advance()
        return target

    def prepare(self) -> None:
        """Lists the place, so that one that cannot be reached is found out before anything is trained.

        Raises:
          UsageError: it cannot be listed, or no file system knows the URI.
        """
        self._list()

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Nothing: an object store has no locks. `add` looks twice instead."""
        yield

    def tidy(self) -> None:
        """Removes what publications and removals that were killed left behind; nothing that Graft did not mark."""
        names = self._list()
        for version in sorted(_unfinished(names) - {self._pointed(names)}):
            self._delete(version)
        self._unmark(*_unfinished(names))

    def next_version(self) -> int:
        """As for a folder; unfinished versions count, too."""
        names = self._list()
        taken = {number for number, _ in _files(names)}
        return max([int(time.time()), *(number + 1 for number in taken | {self._pointed(names) or 0})])

    def add(self, version: int, files: Mapping[str, Content], after: int | None) -> None:
        """Puts a version into service: everything, then `saved_model.pb`, then the pointer.

        Args:
          version: its number, greater than every other.
          files: by relative name.
          after: what must be in service until then.

        Raises:
          Passing: somebody else published or removed something meanwhile; the pointer stays as it was.
        """
        progress.start(len(files), "uploading", "files")
        storage.write(self._mark(version), b"")
        for name in sorted(files, key=lambda name: (name == SAVED_MODEL, name)):
            storage.write(f"{self.location(version)}/{name}", files[name])
            progress.advance()
        # Looked at once more right before: between this and the next line lies all that two publishers can collide in.
        if (found := self.in_service()) != after:
            raise changed_meanwhile(self.place, after, found)
        if set(self.names(version)) != set(files):
            raise Passing(
                f"Files of version {version} at {self.place} were changed while they were written, so that nothing was "
                "published; publish from one place at a time, and run again."
            )
        pointer = {"version": version, "checksums": checksums.digest(files[checksums.CHECKSUMS_FILE])}
        pointer["published"] = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime())
        storage.write(f"{self.place}/{POINTER}", (json.dumps(pointer) + "\n").encode())
        self._unmark(version)

    def remove(self, version: int) -> None:
        """Takes a version away, `saved_model.pb` first."""
        storage.write(self._mark(version), b"")
        self._delete(version)
        self._unmark(version)

    def _mark(self, version: int) -> str:
        return f"{self.place}/{UNFINISHED}{version}"

    def _unmark(self, *versions: int) -> None:
        storage.delete([self._mark(version) for version in versions])

    def _delete(self, version: int) -> None:
        names = sorted(self.names(version), key=lambda name: (name != SAVED_MODEL, name))
        storage.delete([f"{self.location(version)}/{name}" for name in names])


def _files(names: list[str]) -> list[tuple[int, str]]:
    """Version and relative name of every object that lies in a version; what no folder could hold is passed over."""
    parts = (name.split("/") for name in names)
    return [
        (int(first), "/".join(rest))
        for first, *rest in parts
        if rest and is_version(first) and not {"", ".", ".."} & set(rest)
    ]


def _unfinished(names: list[str]) -> set[int]:
    marks = (name.removeprefix(UNFINISHED) for name in names if name.startswith(UNFINISHED))
    return {int(mark) for mark in marks if is_version(mark)}
