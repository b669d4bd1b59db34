"""Local folders for the artifacts of a step that runs in a container.

The steps read and write folders. Where artifacts lie under URIs, a step gets a copy of what it reads, and what it
writes is stored when it has ended. Training reads its images many times, from the container's own disk then.
"""

import os
from pathlib import Path

from components import storage

# Where Kubeflow Pipelines' launcher puts what a step reads, and from where it stores what a step wrote, by scheme. It
# knows the cluster's own object store, and has its credentials.
LAUNCHER_FOLDERS = {"gs://": "/gcs/", "minio://": "/minio/", "s3://": "/s3/"}
# Set where that launcher has started this process.
LAUNCHED = "KFP_POD_NAME"


class Copies:
    """Copies by URI.

    Args:
      scratch: takes the copies; a new, empty folder.
    """

    def __init__(self, scratch: Path):
        self._scratch = scratch
        self._launched = LAUNCHED in os.environ
        self._folders: dict[str, str] = {}
        self._written: dict[str, str] = {}

    def read(self, uri: str) -> str:
        """A local folder with what lies there; empty where there is nothing.

        Raises:
          UsageError: no file system knows the URI, or it cannot be listed.
          OSError: something cannot be read.
        """
        folder = self._folder(uri)
        if self._is_ours(uri):
            storage.download_folder(uri, Path(folder))
        return folder

    def write(self, uri: str) -> str:
        """A local, empty folder whose files `store` puts there."""
        folder = self._folder(uri)
        storage.empty(folder)
        os.makedirs(folder, exist_ok=True)
        if self._is_ours(uri):
            self._written[uri] = folder
        return folder

    def store(self) -> None:
        """Stores everything that was written; `OSError` where that is not possible."""
        for uri, folder in self._written.items():
            storage.empty(uri)
            storage.upload_folder(Path(folder), uri)

    def uri_of(self, place: str) -> str:
        """What stands for a copy, or for something in one, outside of this container; other text as it is."""
        for uri, folder in self._folders.items():
            if place == folder or place.startswith(f"{folder}/"):
                return uri + place[len(folder) :]
        return place

    def _folder(self, uri: str) -> str:
        if not storage.is_uri(uri):
            return uri
        if uri not in self._folders:
            self._folders[uri] = self._launchers(uri) or str(self._scratch / str(len(self._folders)))
        return self._folders[uri]

    def _is_ours(self, uri: str) -> bool:
        """Whether nobody else moves what lies there."""
        return storage.is_uri(uri) and self._launchers(uri) is None

    def _launchers(self, uri: str) -> str | None:
        scheme, _, rest = uri.partition("://")
        folder = LAUNCHER_FOLDERS.get(f"{scheme}://") if self._launched else None
        return folder and folder + rest.rstrip("/")
