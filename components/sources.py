"""Where images come from: folders, manifests and spans, several of them together."""

import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from components import manifests, storage
from components.errors import UsageError
from components.image_files import ImageFile, Listing, scan
from components.sentences import some

SPAN = re.compile(r"\{SPAN(?::([1-9][0-9]*))?\}")


@dataclass(frozen=True)
class Sources:
    """What `--images` stands for.

    Attributes:
      places: folders and manifests; absolute paths or URIs, spans resolved.
      spans: (pattern, numbers of the spans that are read, ascending) of each source that holds `{SPAN}`.
    """

    places: list[str]
    spans: list[tuple[str, list[int]]] = field(default_factory=list)

    @property
    def folders(self) -> list[str]:
        """The local folders among the places: everything in them may become an image."""
        return [place for place in self.places if not storage.is_uri(place) and not is_manifest(place)]


def resolve(images: Iterable[str | Path], spans: int = 1) -> Sources:
    """Makes paths absolute and picks spans.

    Args:
      images: folders, manifests, and span patterns of either: `{SPAN}` stands for a number in a name, `{SPAN:3}` for
        one of three digits.
      spans: how many of the newest spans (the highest numbers) are read of each pattern.

    Raises:
      UsageError: a source is empty, a pattern is malformed, or no span matches.
    """
    places: list[str] = []
    read: list[tuple[str, list[int]]] = []
    for source in map(absolute, images):
        span = span_field(source)
        if span is None:
            places.append(source)
            continue
        found = _spans(source, span)
        numbers = sorted(found)[-spans:]
        places += [found[number] for number in numbers]
        read.append((source, numbers))
    return Sources(places, read)


def is_manifest(place: str) -> bool:
    """Whether a source is a list of images; a local folder may be named as it likes."""
    return place.lower().endswith(manifests.EXTENSIONS) and (storage.is_uri(place) or not os.path.isdir(place))


def list_images(places: list[str], follow_symlinks: bool = False, group: str | None = None) -> Listing:
    """Lists every source; classes of one name are one class.

    Args:
      places: of `Sources`.
      follow_symlinks: whether links that leave a folder are read.
      group: a regular expression; its first group, found in the path relative to the source, names what is shown. It
        speaks where a manifest does not.

    Raises:
      UsageError: a source cannot be listed, or two hold the same file.
      DataRefused: a source holds no class.
    """
    pattern = re.compile(group) if group is not None else None
    listings = [_list(place, follow_symlinks) for place in places]
    files: dict[str, ImageFile] = {}
    origin: dict[str, str] = {}
    whole = Listing()
    for place, listing in zip(places, listings, strict=True):
        for file in listing.files:
            if file.location in files:
                raise UsageError(
                    f"{file.location} is listed by {origin[file.location]} and by {place}: give --images each image "
                    "once."
                )
            origin[file.location] = place
            files[file.location] = replace(
                file,
                group=file.group or _group(pattern, file.path),
                path=file.path if len(places) == 1 else file.location,
            )
        # Relative paths would not say which source they are of.
        several = len(places) > 1
        whole.skipped += [(storage.join(_base(place), path) if several else path, why) for path, why in listing.skipped]
    whole.files = sorted(files.values())
    whole.skipped.sort()
    whole.classes = sorted({name for listing in listings for name in listing.classes})
    return whole


def location(path: str, places: list[str]) -> str:
    """Where a file lies whose path a listing of these places told."""
    return path if len(places) > 1 else storage.join(_base(places[0]), path)


def _base(place: str) -> str:
    """Where the relative paths of a source begin."""
    return place.rpartition("/")[0] if is_manifest(place) else place


def spans_text(numbers: list[int]) -> str:
    """`span 14`, `spans 12 to 14` or, with gaps, `spans 3, 7 and 9`."""
    if len(numbers) == 1:
        return f"span {numbers[0]}"
    if numbers[-1] - numbers[0] == len(numbers) - 1:
        return f"spans {numbers[0]} to {numbers[-1]}"
    return f"spans {', '.join(map(str, numbers[:-1]))} and {numbers[-1]}"


def absolute(source: str | Path) -> str:
    """A source as an absolute path, or as a URI; `UsageError` where it is empty."""
    text = str(source).removeprefix("file://")
    if not text:
        raise UsageError("--images is empty; give it a folder of class folders, or a manifest.")
    return text.rstrip("/") if storage.is_uri(text) else str(Path(text).absolute())


def _list(place: str, follow_symlinks: bool) -> Listing:
    if is_manifest(place):
        return manifests.read_manifest(place, follow_symlinks)
    if os.path.isfile(place):
        raise UsageError(
            f"--images {place} is neither a folder nor a manifest (a file whose name ends with "
            f"{', '.join(manifests.EXTENSIONS)})."
        )
    return scan(place, follow_symlinks)


def _group(pattern: re.Pattern[str] | None, path: str) -> str | None:
    found = pattern.search(path) if pattern else None
    # A group that took no part, or matched nothing, names nothing.
    return found.group(1) or None if found else None


# ---- spans ----------------------------------------------------------------------------------------------------------


def span_field(pattern: str) -> re.Match[str] | None:
    """Where `{SPAN}` stands in a source; None where it has none, and `UsageError` where it is not well written."""
    fields = list(SPAN.finditer(pattern))
    if len(fields) > 1 or pattern.count("{SPAN") != len(fields):
        raise UsageError(
            f"--images {pattern} must hold {{SPAN}} once, or {{SPAN:width}} with the number of digits, such as "
            "{SPAN:3}."
        )
    return fields[0] if fields else None


def _spans(pattern: str, field: re.Match[str]) -> dict[int, str]:
    """Folders, or manifests, by the number that stands in the place of `{SPAN}`."""
    before, after = pattern[: field.start()], pattern[field.end() :]
    parent, _, head = before.rpartition("/")
    tail, _, rest = after.partition("/")
    digits = f"{{{field.group(1)}}}" if field.group(1) else "+"
    name_pattern = re.compile(f"{re.escape(head)}([0-9]{digits}){re.escape(tail)}")
    found: dict[int, str] = {}
    names, exists = _candidates(before, parent or "/")
    for name in names:
        place = "/".join([parent, name, rest] if rest else [parent, name])
        match = name_pattern.fullmatch(name)
        if not match or not exists(place):
            continue
        number = int(match.group(1))
        if number in found:
            raise UsageError(
                f"--images {pattern}: {found[number]} and {place} are both span {number}; remove one, or give the "
                "number of digits, such as {SPAN:3}."
            )
        found[number] = place
    if not found:
        raise UsageError(f"--images {pattern} matches no span: {parent or '/'} holds {some(names, 10) or 'nothing'}.")
    return found


def _candidates(before: str, parent: str) -> tuple[list[str], Callable[[str], bool]]:
    """(names in the parent folder, whether a place is a manifest or a folder)."""
    if not storage.is_uri(before):
        try:
            names = sorted(os.listdir(parent))
        except OSError as error:
            raise UsageError(f"The folder of spans {parent} cannot be read ({error.strerror}).") from None
        return names, lambda place: os.path.isdir(place) or (is_manifest(place) and os.path.isfile(place))
    # Object stores list names by their beginning, and have no folders of their own.
    paths = {entry.path for entry in storage.find(before, "**")}
    names = sorted({path.removeprefix(f"{parent}/").partition("/")[0] for path in paths})
    folders = {path[: end.start()] for path in paths for end in re.finditer("/", path)}
    return names, lambda place: place in paths if is_manifest(place) else place in folders
