"""TFRecord files, record by record, at paths and at URIs."""

import struct
from collections.abc import Iterator, Sequence

from components import storage

# A record is its length, a checksum of that, its bytes, and a checksum of those.
_HEADER, _FOOTER = struct.Struct("<QI"), struct.Struct("<I")


def read(places: Sequence[str]) -> Iterator[bytes]:
    """Yields the records of files, one file after the other.

    Args:
      places: files that are not compressed, all paths or all URIs.

    Raises:
      OSError, tf.errors.OpError: a file cannot be read, or is cut off.
    """
    if not any(storage.is_uri(place) for place in places):
        import tensorflow as tf

        yield from tf.data.TFRecordDataset(list(places)).as_numpy_iterator()
        return
    for place in places:
        with storage.open_binary(place) as stream:
            while header := stream.read(_HEADER.size):
                length, _ = _HEADER.unpack(_whole(header, _HEADER.size, place))
                yield _whole(stream.read(length), length, place)
                _whole(stream.read(_FOOTER.size), _FOOTER.size, place)


def _whole(data: bytes, size: int, place: str) -> bytes:
    if len(data) < size:
        raise OSError(f"{place} is cut off")
    return data
