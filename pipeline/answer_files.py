"""Answers as CSV, JSON Lines or Parquet: parts that are written apart, and joined without being held in memory.

A part is a file with some rows: the bytes of the finished file for the two text formats, and Arrow's stream format for
Parquet, whose row groups would be too small otherwise.
"""

import csv
import io
import json
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, Protocol

from components.errors import UsageError

COLUMNS = ("path", "label", "score", "error")
# Before a class's name, so that no name can be that of another column.
PROBABILITY = "probability_"
# Bytes of probabilities in a row group, and rows.
ROW_GROUP_BYTES = 32_000_000
ROW_GROUP_ROWS = 65_536

Row = dict[str, Any]


class AnswerFile(Protocol):
    """A format. Rows are what `pipeline.predict.classify` yields; the class names are those of its model."""

    def __init__(self, names: list[str]): ...

    def write_part(self, rows: list[Row], file: IO[bytes]) -> None:
        """Writes some rows."""

    def join(self, parts: Iterable[Path], file: IO[bytes]) -> None:
        """Writes the whole file: what comes before the rows, and the rows of every part."""


def answer_file(path: Path) -> type[AnswerFile]:
    """The format that a file's name asks for.

    Raises:
      UsageError: none.
    """
    try:
        return FORMATS[path.suffix.lower()]
    except KeyError:
        raise UsageError(
            f"--output takes a file whose name ends with {', '.join(FORMATS)}, which chooses its format. "
            f"Received: {path}."
        ) from None


def as_text(path: str) -> str:
    """A path as text: bytes of a file name that are no UTF-8 become `\\udc80` to `\\udcff`, as in other output."""
    return path.encode(errors="backslashreplace").decode()


class Csv:
    """RFC 4180, UTF-8: a column a class; a line break in a name stands in quotes."""

    def __init__(self, names: list[str]):
        self._names = names

    def write_part(self, rows: list[Row], file: IO[bytes]) -> None:
        file.write(self._encoded(map(self._cells, rows)))

    def join(self, parts: Iterable[Path], file: IO[bytes]) -> None:
        file.write(self._encoded([[*COLUMNS, *(PROBABILITY + name for name in self._names)]]))
        _concatenate(parts, file)

    def _cells(self, row: Row) -> list[str]:
        import numpy as np

        path = as_text(row["path"])
        if "error" in row:
            return [path, "", "", row["error"], *[""] * len(self._names)]
        # float32, in as few digits as tell it from its neighbours.
        numbers = np.array([row["score"], *row["probabilities"].values()], np.float32).astype(str).tolist()
        return [path, row["label"], numbers[0], "", *numbers[1:]]

    def _encoded(self, rows: Iterable[list[str]]) -> bytes:
        text = io.StringIO(newline="")
        # With \r\n both of these characters put a cell into quotes.
        csv.writer(text, lineterminator="\r\n").writerows(rows)
        return text.getvalue().encode()


class JsonLines:
    """An object a line with all of `COLUMNS`, null for what there is not; the probabilities are an object."""

    def __init__(self, names: list[str]):
        pass

    def write_part(self, rows: list[Row], file: IO[bytes]) -> None:
        for row in rows:
            cells = {name: row.get(name) for name in (*COLUMNS, "probabilities")} | {"path": as_text(row["path"])}
            file.write(json.dumps(cells).encode() + b"\n")

    def join(self, parts: Iterable[Path], file: IO[bytes]) -> None:
        _concatenate(parts, file)


class Parquet:
    """Columns as in CSV; score and probabilities as float32, null where there is an error."""

    def __init__(self, names: list[str]):
        import pyarrow as pa

        fields = [("path", pa.string()), ("label", pa.string()), ("score", pa.float32()), ("error", pa.string())]
        self._names = names
        self._schema = pa.schema([*fields, *((PROBABILITY + name, pa.float32()) for name in names)])

    def write_part(self, rows: list[Row], file: IO[bytes]) -> None:
        import pyarrow as pa

        columns = [[as_text(row["path"]) for row in rows], *([row.get(name) for row in rows] for name in COLUMNS[1:])]
        columns += [[row.get("probabilities", {}).get(name) for row in rows] for name in self._names]
        arrays = [pa.array(column, field.type) for column, field in zip(columns, self._schema, strict=True)]
        with pa.ipc.new_stream(file, self._schema) as stream:
            stream.write(pa.record_batch(arrays, schema=self._schema))

    def join(self, parts: Iterable[Path], file: IO[bytes]) -> None:
        import pyarrow as pa
        from pyarrow import parquet

        with parquet.ParquetWriter(file, self._schema) as writer:
            for batches in self._groups(parts):
                writer.write_table(pa.Table.from_batches(batches), row_group_size=ROW_GROUP_ROWS)

    def _groups(self, parts: Iterable[Path]) -> Iterator[list[Any]]:
        import pyarrow as pa

        most = min(ROW_GROUP_ROWS, max(1, ROW_GROUP_BYTES // (4 * len(self._schema))))
        batches: list[Any] = []
        for part in parts:
            with pa.ipc.open_stream(part.read_bytes()) as stream:
                batches += list(stream)
            if sum(batch.num_rows for batch in batches) >= most:
                yield batches
                batches = []
        if batches:
            yield batches


FORMATS: dict[str, type[AnswerFile]] = {".csv": Csv, ".jsonl": JsonLines, ".parquet": Parquet}


def _concatenate(parts: Iterable[Path], file: IO[bytes]) -> None:
    for part in parts:
        with open(part, "rb") as source:
            shutil.copyfileobj(source, file)
