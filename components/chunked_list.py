"""A list that workers read from files: the graph of a pipeline, in which `beam.Create` puts its elements, has a limit.

Dataflow takes graphs of up to 10 MB, and any runner sends its graph around. Here, numbers of files are in the graph.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import apache_beam as beam

from components import parallel, storage

# Rows of a chunk: few, so that every worker gets some of a short list, until there are `MANY` chunks, and at most so
# many that the numbers of the chunks of ten million rows are 100 KB of a graph.
FEWEST, MOST = 32, 1000
MANY = 1000


@dataclass(frozen=True)
class Chunks:
    """A list in files.

    Attributes:
      folder: path or URI.
      count: of the files in it, `0.jsonl` and so on.
    """

    folder: str
    count: int

    def read(self, number: int) -> list[str]:
        """The rows of a chunk, each as JSON; `OSError` where it cannot be read."""
        return storage.read_bytes(self.place(number)).decode().splitlines()

    def place(self, number: int) -> str:
        """Where a chunk lies."""
        return storage.join(self.folder, f"{number}.jsonl")


def write_chunks(rows: Sequence[Any], folder: str) -> Chunks:
    """Writes a list down.

    Neighbours go into different chunks: they are of one class and often alike in size, and chunks should be alike.

    Args:
      rows: what JSON can say; texts may hold bytes that are no UTF-8 as surrogates.
      folder: path or URI that every worker reaches; nothing is there yet.

    Raises:
      OSError: it cannot be written.
    """
    chunks = Chunks(folder, max(min(_parts(len(rows), FEWEST), MANY), _parts(len(rows), MOST)))

    def write(number: int) -> None:
        lines = (json.dumps(row) + "\n" for row in rows[number :: chunks.count])
        storage.write(chunks.place(number), "".join(lines).encode())

    with parallel.pool(storage.TRANSFERS) as pool:
        # What one could not write is raised where its result is asked for.
        list(pool.map(write, range(chunks.count)))
    return chunks


def _parts(rows: int, size: int) -> int:
    return -(-rows // size)


class ReadChunks(beam.PTransform):
    """Nothing -> the rows of each chunk, in no particular order.

    Rows are JSON, as what a runner puts away between two stages must be UTF-8.
    """

    def __init__(self, chunks: Chunks):
        super().__init__()
        self._chunks = chunks

    def expand(self, begin: beam.pvalue.PBegin) -> beam.PCollection:
        numbers = begin | "Chunks" >> beam.Create(range(self._chunks.count), reshuffle=True)
        return numbers | "Read" >> beam.Map(self._chunks.read)
