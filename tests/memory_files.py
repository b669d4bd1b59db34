"""A Beam file system in memory: what an object store looks like, without one."""

import io
import posixpath
import time

from apache_beam.io.filesystem import BeamIOError, FileMetadata, FileSystem


class MemoryFiles(FileSystem):
    """`mem://bucket/name`: objects without folders, as `{uri: (bytes, seconds of the last update)}`.

    Attributes:
      files: the objects; a test clears them.
      reads: URIs in the order in which they were opened.
      broken: URIs that are listed and cannot be read.
      changes: what was written and deleted, in that order.
      before_change: called with what is about to be written or deleted; may raise.
    """

    files: dict[str, tuple[bytes, float]] = {}
    reads: list[str] = []
    broken: set[str] = set()
    changes: list[str] = []
    before_change = staticmethod(lambda change: None)

    @classmethod
    def put(cls, uri: str, data: bytes, updated: float = 1.0) -> str:
        cls.files[uri] = (data, updated)
        return uri

    @classmethod
    def clear(cls) -> None:
        cls.files.clear()
        cls.reads.clear()
        cls.broken.clear()
        cls.changes.clear()
        cls.before_change = staticmethod(lambda change: None)

    @classmethod
    def _change(cls, change: str) -> None:
        cls.before_change(change)
        cls.changes.append(change)

    @classmethod
    def scheme(cls):
        return "mem"

    def has_dirs(self):
        return False

    def _list(self, dir_or_prefix):
        if dir_or_prefix.startswith("mem://denied"):
            raise BeamIOError("List failed", {dir_or_prefix: PermissionError("403 not yours\nread the manual")})
        for uri, (data, updated) in sorted(self.files.items()):
            if uri.startswith(dir_or_prefix):
                yield FileMetadata(uri, len(data), updated)

    def open(self, path, mime_type="application/octet-stream", compression_type="auto"):
        self.reads.append(path)
        if path in self.broken:
            # As a client library may do: neither an OSError nor one line.
            raise RuntimeError("503 try again\nlater")
        if path not in self.files:
            raise BeamIOError("Open failed", {path: FileNotFoundError(f"404 {path}")})
        assert compression_type == "uncompressed"
        return io.BytesIO(self.files[path][0])

    def exists(self, path):
        return path in self.files

    def metadata(self, path):
        data, updated = self.files[path]
        return FileMetadata(path, len(data), updated)

    def size(self, path):
        return self.metadata(path).size_in_bytes

    def last_updated(self, path):
        return self.metadata(path).last_updated_in_seconds

    def join(self, basepath, *paths):
        return posixpath.join(basepath, *paths)

    def split(self, path):
        return posixpath.split(path)

    def mkdirs(self, path):
        raise NotImplementedError

    def create(self, path, mime_type="application/octet-stream", compression_type="auto"):
        assert compression_type == "uncompressed"
        self._change(f"write {path}")
        return Upload(path)

    def copy(self, source_file_names, destination_file_names):
        raise NotImplementedError

    def rename(self, source_file_names, destination_file_names):
        raise NotImplementedError

    def delete(self, paths):
        for path in paths:
            self._change(f"delete {path}")
            # As in a bucket, one that is not there is no error.
            self.files.pop(path, None)


class Upload(io.BytesIO):
    """An object that is there once it is closed."""

    def __init__(self, uri: str):
        super().__init__()
        self._uri = uri

    def close(self) -> None:
        if not self.closed:
            MemoryFiles.put(self._uri, self.getvalue(), time.time())
        super().close()
