"""Small pictures for the report, from raw examples and from a user's files, within a budget of bytes."""

import contextlib
import heapq
import io
import itertools
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from components import features, inspection, parallel, sources, splits, storage
from components.report.facts import Picture
from components.report.raw_examples import Record, feature, walk

SIDE = 112  # pixels, of the longer side
LARGE = 256  # of the answers, which are looked at one by one
# Shares of the side and qualities of JPEG: the first whose file is small enough.
ENCODINGS = ((1, 70), (1, 50), (1, 30), (0.5, 50), (0.25, 50))
# What is decoded takes memory and time by what its header claims. A JPEG is decoded at a fraction of its size.
MOST_PIXELS = {"jpeg": 50_000_000}
MOST_PIXELS_OTHERWISE = 25_000_000
MOST_BYTES_READ = 20_000_000  # of one of a user's files
MOST_RECORDS = 200_000  # of a split that are looked at, which takes 2 s

# The page holds these as base64, four thirds of it, and must stay under 5 MB with everything else.
PICTURE_BYTES = 8_000
LARGE_BYTES = 20_000
EXAMPLE_BYTES = 1_900_000
EXAMPLES = 240
EXAMPLES_OF_A_CLASS = 8
CLASSES = 1_000
KEPT_OUT = 24
KEPT_OUT_TRIED = 100
THREADS = 8
END_OF_JPEG = b"\xff\xd9"


def thumbnail(data: bytes, most: int = PICTURE_BYTES, side: int = SIDE) -> Picture | None:
    """An image file made small and upright.

    Args:
      data: the file; anything.
      most: bytes of the picture.
      side: pixels of its longer side, at most.

    Returns:
      None for what is no image, claims too many pixels, or cannot be decoded. What is missing of a JPEG that is cut off
      is grey.
    """
    header = inspection.checked_header(data)
    if header is None or not 0 < header.unpacked <= MOST_PIXELS.get(header.format, MOST_PIXELS_OTHERWISE):
        return None
    if header.format == "jpeg":
        # Pillow reports one that is cut off as an error, unless it ends as it should.
        data += END_OF_JPEG
    # Pillow's plugins raise whatever broken bytes lead them into.
    with contextlib.suppress(Exception):
        return _encoded(_small(data, header.format, side), most)
    return None


def _small(data: bytes, kind: str, side: int):
    """A Pillow image, RGB."""
    from PIL import Image

    with Image.open(io.BytesIO(data), formats=[kind.upper()]) as image:
        # What Pillow finds elsewhere, or behind the pixels, ingestion does not obey.
        exif = image.info.get("exif")
        image.draft("RGB", (2 * side, 2 * side))
        small = _eight_bits(image).convert("RGB")
    small.thumbnail((side, side))
    small.info = {"exif": exif} if exif else {}
    return _upright(small)


def _eight_bits(image):
    """16-bit grey as 8-bit grey, which Pillow would clip to white."""
    return image.convert("I").point(lambda value: value / 256).convert("L") if image.mode.startswith("I") else image


def _upright(image):
    from PIL import ImageOps

    # A broken block says nothing, as in ingestion.
    with contextlib.suppress(Exception):
        return ImageOps.exif_transpose(image)
    return image


def _encoded(image, most: int) -> Picture | None:
    side = max(image.size)
    for share, quality in ENCODINGS:
        image.thumbnail((max(1, side * share), max(1, side * share)))
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality, optimize=True)
        if file.tell() <= most:
            return Picture(file.getvalue(), *image.size)
    return None


# ---- raw examples ---------------------------------------------------------------------------------------------------


def of_classes(examples: Path, classes: Iterable[str]) -> dict[str, list[Picture]]:
    """Pictures of the train split: fewer of each class where there are more classes.

    They are drawn by a checksum, so that neither the order of files nor a folder's first series decides.

    Args:
      examples: the artifact.
      classes: names of all of them.
    """
    names = sorted(classes)[:CLASSES]
    wanted = max(1, min(EXAMPLES_OF_A_CLASS, EXAMPLES // max(1, len(names))))
    most = min(PICTURE_BYTES, EXAMPLE_BYTES // max(1, len(names) * wanted))
    drawn = _draw(_files(examples, "train"), wanted)
    found = {name: _decoded(drawn.get(os.fsencode(name), ()), most) for name in names}
    return {name: pictures for name, pictures in found.items() if pictures}


def _draw(files: list[Path], wanted: int) -> dict[bytes, list[Record]]:
    """The records with the smallest checksums, by name of the class."""
    smallest: dict[bytes, list[tuple[int, Record]]] = defaultdict(list)
    for data, record in walk(files, MOST_RECORDS):
        name = feature(data, record, features.CLASS_NAME)
        if name is not None:
            heap = smallest[name]
            (heapq.heappush if len(heap) < wanted else heapq.heappushpop)(heap, (-record.checksum, record))
    return {name: [record for _, record in sorted(heap, reverse=True)] for name, heap in smallest.items()}


def _decoded(drawn: Iterable[Record], most: int) -> list[Picture]:
    contents = (record.bytes_of(features.ENCODED) for record in drawn)
    return [picture for content in contents if content and (picture := thumbnail(content, most))]


def by_key(examples: Path, keys: Iterable[str]) -> dict[str, Picture]:
    """Pictures of the test split by content hash; reads no further than the last of them."""
    missing, found = {key.encode() for key in keys}, {}
    if not missing:
        return found
    for data, record in walk(_files(examples, "test"), MOST_RECORDS):
        key = feature(data, record, features.SHA256)
        if key in missing:
            missing.remove(key)
            if picture := thumbnail(feature(data, record, features.ENCODED) or b"", LARGE_BYTES, LARGE):
                found[key.decode()] = picture
            if not missing:
                break
    return found


def _files(examples: Path, split: str) -> list[Path]:
    return sorted((examples / f"Split-{split}").glob("*"))


# ---- a user's files -------------------------------------------------------------------------------------------------


def of_kept_out(rows: Iterable[Mapping[str, Any]], places: list[str]) -> dict[str, Picture]:
    """Pictures of quarantined files that may be looked at, by path.

    Args:
      rows: of `quarantine.jsonl`.
      places: where the images come from (`images` of the summary); the files may be gone by now.
    """
    shown = itertools.islice(filter(_may_be_shown, rows), KEPT_OUT_TRIED if places else 0)
    paths = [row["path"] for row in shown]
    # Remote ones are waited for side by side; to decode side by side would take memory.
    with parallel.pool(THREADS) as pool:
        contents = parallel.ordered(pool, lambda path: _read(sources.location(path, places)), paths, THREADS)
        made = ((path, thumbnail(content)) for path, content in zip(paths, contents, strict=True))
        return dict(itertools.islice(((path, picture) for path, picture in made if picture), KEPT_OUT))


def _may_be_shown(row: Mapping[str, Any]) -> bool:
    """Whether ingestion read the file and found its size to be harmless."""
    reason = str(row.get("reason"))
    return row.get("outcome") == "quarantined" and (
        reason.startswith(splits.LABEL_CONFLICT) or reason == f"jpeg {inspection.UNDECODABLE}"
    )


def _read(location: str) -> bytes:
    """A file's content; empty for what is no file any more, cannot be read, or is too large."""
    # What became a pipe since would be waited for.
    if not storage.is_uri(location) and not os.path.isfile(location):
        return b""
    with contextlib.suppress(OSError, ValueError):
        content = storage.read_bytes(location, MOST_BYTES_READ + 1)
        return content if len(content) <= MOST_BYTES_READ else b""
    return b""
