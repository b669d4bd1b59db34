"""What later runs compare their images with: the schema of the metadata, and the statistics of what was published.

They are kept by the publication, in a folder or under a URI: the schema once, for a person may edit it; the statistics
for every version that can be in service again.
"""

from components import storage
from components.publishing import original
from components.serving_places import open_serving

STATISTICS_FOLDER = "published_statistics"
KEPT_SCHEMA_FILE = "metadata.pbtxt"


def statistics_of(serving: str, folder: str) -> str | None:
    """Statistics of what the model in service was trained on: after a rollback those of the model that came back.

    Args:
      serving: base path or URI of published versions.
      folder: path or URI; holds a file for each version that a run published.

    Returns:
      The file's place, where there may be none; None where nothing is in service.
    """
    place = open_serving(serving)
    in_service = place.in_service()
    return None if in_service is None else _statistics(folder, original(place, in_service))


def keep(serving: str, version: int, statistics: bytes, folder: str, schema: bytes, kept_schema: str) -> None:
    """Keeps what a version that was just published was made of, and drops what no version stands for any more.

    Args:
      serving: base path or URI of published versions.
      version: that was published.
      statistics: of the train split's metadata, serialised.
      folder: path or URI, as for `statistics_of`.
      schema: of the metadata, as text.
      kept_schema: path or URI; stays as it is where there is one.

    Raises:
      OSError: something cannot be written or removed.
    """
    storage.write(_statistics(folder, version), statistics)
    if not storage.exists(kept_schema):
        storage.write(kept_schema, schema)
    place = open_serving(serving)
    storage.delete(unwanted(folder, {original(place, number) for number in place.versions()}))


def unwanted(folder: str, versions: set[int]) -> list[str]:
    """Statistics of versions that are gone.

    Args:
      folder: path or URI, as for `statistics_of`.
      versions: in which the models that are there first went out.
    """
    wanted = {_statistics(folder, version) for version in versions}
    return [file for file in storage.files_in(folder, ".pb") if file not in wanted]


def _statistics(folder: str, version: int) -> str:
    return storage.join(folder, f"{version}.pb")
