"""Raw examples read piece by piece: which class or key a record has is found out without reading its image.

TensorFlow's reader hands out whole records. A data set may have a hundred gigabytes of them, and the report wants a few
hundred.

The formats: https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details and
https://protobuf.dev/programming-guides/encoding.
"""

import contextlib
import mmap
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

# Of a record: its length and that number's checksum, then the example, then the example's checksum; bytes.
BEFORE, BEHIND = 12, 4
# How the first entry of an example begins, as ingestion writes them (sorted by name); a record is recognised by it.
FIRST_ENTRY = b"\n\x0eimage/channels"
# Of a file. In each some records are looked at, whatever the limit on their number.
SECTIONS = 64
LONGEST_NUMBER = 10  # bytes

Bytes = bytes | mmap.mmap


@dataclass(frozen=True, order=True)
class Record:
    """Where a serialised example lies.

    Attributes:
      checksum: of the example; in this order, records are drawn as by lot, whatever order a runner wrote them in.
      path: of the file.
      start: of the example in it, bytes.
      end: behind the example.
    """

    checksum: int
    path: Path
    start: int
    end: int

    def bytes_of(self, name: str) -> bytes | None:
        """The first value of a bytes feature."""
        with mapped(self.path) as data:
            return feature(data, self, name)


@contextlib.contextmanager
def mapped(path: Path) -> Iterator[Bytes]:
    """A file's content, of which only what is looked at is read."""
    with open(path, "rb") as file:
        if not path.stat().st_size:
            yield b""
            return
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            yield data


def walk(paths: Sequence[Path], most: int) -> Iterator[tuple[Bytes, Record]]:
    """The records of files with the content of their file; some of each file where there are more than `most`."""
    for path in paths:
        with mapped(path) as data:
            for record in _records(data, path, most // len(paths)):
                yield data, record


def _records(data: Bytes, path: Path, most: int) -> Iterator[Record]:
    """The records of a file in their order; where there are more than `most`, some of each section of the file.

    A runner may write class after class, so that the beginning of a file is no sample of it. What follows a damaged
    length is passed over up to the next section.
    """
    share, position = max(1, most // SECTIONS), 0
    for section in range(SECTIONS):
        begin, end = (len(data) * number // SECTIONS for number in (section, section + 1))
        if position < begin:
            position = _first(data, begin, end)
        count = 0
        while position < end and count < share and (length := _length(data, position)) is not None:
            start = position + BEFORE
            (checksum,) = struct.unpack_from("<I", data, start + length)
            yield Record(checksum, path, start, start + length)
            position, count = start + length + BEHIND, count + 1


def _length(data: Bytes, position: int) -> int | None:
    """Of the example whose record begins there; None where no whole one can."""
    if position + BEFORE + BEHIND > len(data):
        return None
    (length,) = struct.unpack_from("<Q", data, position)
    return length if position + BEFORE + length + BEHIND <= len(data) else None


def _first(data: Bytes, begin: int, end: int) -> int:
    """Where the first record of a section begins; its end where none does."""
    found = begin
    while (found := data.find(FIRST_ENTRY, found + 1, end)) >= 0:
        # Before it: a tag and the length of all entries, in one to five digits, then a tag and the length of this one.
        for start in range(found - 8, found - 3):
            with contextlib.suppress(IndexError):
                length, first = _number(data, start + 1)
                whole = first - start + length
                if start - BEFORE >= begin and first == found - 2 and _length(data, start - BEFORE) == whole:
                    return start - BEFORE
    return end


def feature(data: Bytes, record: Record, name: str) -> bytes | None:
    """The first value of a bytes feature; None where there is none, or the record is damaged.

    Args:
      data: content of the record's file.
      record: the example.
      name: of the feature.
    """
    wanted = name.encode()
    with contextlib.suppress(IndexError):
        position, end = _field(data, record.start, record.end)
        while position < end:
            begin, position = _field(data, position, end)
            key, behind = _field(data, begin, position)
            if data[key:behind] == wanted:
                place = behind, position
                # The feature, the list in it, the first value in that.
                for _ in range(3):
                    place = _field(data, *place)
                return data[place[0] : place[1]]
    return None


def _field(data: Bytes, position: int, end: int) -> tuple[int, int]:
    """Where the content of a length-delimited field begins and ends."""
    length, begin = _number(data, position + 1)
    if begin + length > end:
        raise IndexError(f"a field of {length} bytes at {position} reaches beyond what it lies in")
    return begin, begin + length


def _number(data: Bytes, position: int) -> tuple[int, int]:
    """A number, and where it ends."""
    value = 0
    for digit in range(LONGEST_NUMBER):
        byte = data[position + digit]
        value |= (byte & 0x7F) << 7 * digit
        if byte < 0x80:
            return value, position + digit + 1
    raise IndexError(f"no number at {position}")
