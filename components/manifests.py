"""Manifests: images listed in a file, with their labels and, where somebody decided them, splits and groups.

A CSV file with a header (RFC 4180) or JSON Lines, both UTF-8, with the columns `path,label[,split][,group]`.
"""

import csv
import io
import json
import os
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass

from components import storage
from components.errors import DataRefused, UsageError
from components.image_files import SPLIT_FOLDERS, ImageFile, Listing, is_utf8

EXTENSIONS = (".csv", ".jsonl", ".ndjson")
REQUIRED = ("path", "label")
COLUMNS = (*REQUIRED, "split", "group")


@dataclass(frozen=True)
class Row:
    """One line: `path` as it is written, but without `.` and `//`; `split` and `group` are None where empty."""

    line: int
    path: str
    label: str
    split: str | None
    group: str | None

    @property
    def says(self) -> tuple[str, str | None, str | None]:
        """What it says of the path."""
        return self.label, self.split, self.group


def read_manifest(place: str, follow_symlinks: bool = False) -> Listing:
    """Lists what a manifest names; whether those files are there and are images turns out when they are read.

    Relative paths start at the manifest's folder; absolute ones and URIs stand for themselves.

    Args:
      place: a local path or a URI that ends with one of `EXTENSIONS`.
      follow_symlinks: whether relative paths may leave the manifest's folder; they are otherwise skipped.

    Raises:
      UsageError: the manifest cannot be read, or a line says something that is not allowed.
      DataRefused: it lists nothing, or all of it is skipped.
    """
    try:
        text = storage.read_bytes(place).decode("utf-8-sig")
    except OSError as error:
        raise UsageError(f"The manifest {place} cannot be read ({error.strerror}).") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"The manifest {place} is not UTF-8 (byte {error.start}): save it as UTF-8.") from None
    lines = _csv(place, text) if place.lower().endswith(".csv") else _json_lines(place, text)
    folder = place.rpartition("/")[0] or "/"
    listing = Listing()
    rows: dict[str, Row] = {}
    labels = set()
    for row in (_row(place, line, values) for line, values in lines):
        labels.add(row.label)
        location = _location(folder, row.path)
        earlier = rows.setdefault(location, row)
        if earlier.says != row.says:
            other = "another split or group" if earlier.label == row.label else f"label {earlier.label!r}"
            raise UsageError(
                f"{place}, line {row.line}: {row.path!r} with label {row.label!r} is on line {earlier.line} already, "
                f"with {other}; keep one of the two."
            )
        if earlier is not row:
            listing.skipped.append((row.path, "listed twice"))
        elif not follow_symlinks and _leaves(folder, row.path):
            listing.skipped.append((row.path, "outside the manifest's folder"))
            del rows[location]
    if not labels:
        raise DataRefused(f"The manifest {place} lists no image: give it a line for each, with path and label.")
    listing.files = sorted(_files(rows, listing.skipped))
    listing.skipped.sort()
    if not listing.files:
        path, reason = listing.skipped[0]
        raise DataRefused(
            f"The manifest {place} lists nothing that is read: {path} is {reason}"
            f"{f', and {len(listing.skipped) - 1} more are skipped, too' if len(listing.skipped) > 1 else ''}."
        )
    listing.classes = sorted(labels)
    return listing


def _files(rows: dict[str, Row], skipped: list[tuple[str, str]]) -> Iterator[ImageFile]:
    """Of rows by location."""
    found = storage.stat(list(rows))
    for location, row in rows.items():
        # A missing file stays in: it is quarantined when it cannot be read.
        entry = found.get(location, storage.Entry(location, 0, 0, 0))
        if location in found and not storage.is_uri(location) and not os.path.isfile(location):
            # A pipe could be read for ever.
            skipped.append((row.path, "not a regular file"))
            continue
        stamp = entry.size, entry.mtime_ns, entry.ctime_ns
        yield ImageFile(row.path, row.label, row.split, *stamp, location, row.group)


def _location(folder: str, path: str) -> str:
    location = storage.join(folder, path)
    if storage.is_uri(path) or path.split("/")[0] != "..":
        return location
    scheme, separator, rest = location.rpartition("://")
    return scheme + separator + posixpath.normpath(rest)


def _leaves(folder: str, path: str) -> bool:
    if storage.is_uri(path) or os.path.isabs(path):
        return False
    if storage.is_uri(folder):
        return path.split("/")[0] == ".."
    return not storage.is_inside(folder, storage.join(folder, path))


# ---- lines ----------------------------------------------------------------------------------------------------------


def _csv(place: str, text: str) -> Iterator[tuple[int, dict[str, str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] | None = None
    try:
        for cells in reader:
            # People put spaces behind commas; a label with one would be another class.
            fields = [cell.strip() for cell in cells]
            if not fields:
                continue
            if header is None:
                _check_columns(place, reader.line_num, fields)
                header = fields
                continue
            if len(fields) != len(header):
                raise UsageError(
                    f"{place}, line {reader.line_num}: {len(fields)} fields under {len(header)} columns "
                    f"({','.join(header)}); put fields that hold commas into double quotes."
                )
            yield reader.line_num, dict(zip(header, fields, strict=True))
    except csv.Error as error:
        raise UsageError(f"{place}, line {reader.line_num}: not CSV ({error}).") from None


def _json_lines(place: str, text: str) -> Iterator[tuple[int, dict[str, str]]]:
    # Not `splitlines`, which also splits at characters that JSON strings may hold.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UsageError(f"{place}, line {number}: not JSON ({error}); give one object a line.") from None
        if not isinstance(values, dict):
            raise UsageError(f'{place}, line {number}: not an object such as {{"path": …, "label": …}}.')
        _check_columns(place, number, list(values))
        for key, value in values.items():
            if not isinstance(value, str) and (value is not None or key in REQUIRED):
                raise UsageError(f"{place}, line {number}: {key} must be text. Received: {json.dumps(value)}.")
        yield number, {key: value or "" for key, value in values.items()}


def _check_columns(place: str, line: int, names: list[str]) -> None:
    unknown = [name for name in names if name not in COLUMNS]
    missing = [name for name in REQUIRED if name not in names]
    if unknown or missing or len(set(names)) < len(names):
        fault = (
            f"unknown column {unknown[0]!r}"
            if unknown
            else f"no column {missing[0]!r}"
            if missing
            else "a column twice"
        )
        raise UsageError(
            f"{place}, line {line}: {fault}; the columns are path and label, and where needed split and group. "
            f"Received: {', '.join(names)}."
        )


def _row(place: str, line: int, values: dict[str, str]) -> Row:
    path, label, split, group = (values.get(name, "") for name in COLUMNS)
    label, split, group = label.strip(), split.strip(), group.strip()
    for name, value in (("path", path.strip()), ("label", label)):
        if not value:
            raise UsageError(f"{place}, line {line}: {name} is empty; every image needs a path and a label.")
    if split and split.lower() not in SPLIT_FOLDERS:
        raise UsageError(
            f"{place}, line {line}: unknown split {split!r}; allowed are {', '.join(SPLIT_FOLDERS)}, and nothing where "
            "a hash of the content shall decide."
        )
    for name, value in values.items():
        if "\0" in value or not is_utf8(value):
            raise UsageError(
                f"{place}, line {line}: {name} holds a character that cannot be written. Received: {value!r}."
            )
    if not storage.is_uri(path):
        path = posixpath.normpath(path)
    return Row(line, path, label, SPLIT_FOLDERS[split.lower()] if split else None, group or None)
