"""A list in files: nothing of it is lost or said twice, and what the graph holds does not grow with it."""

import json
import os

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.testing.util import assert_that, equal_to

from components.chunked_list import ReadChunks, write_chunks
from pipeline.runners import BEAM_ARGUMENTS
from tests.memory_files import MemoryFiles

BY_BYTES = os.fsdecode(b"caf\xe9\n.jpg")


@pytest.fixture(params=["local", "remote"])
def folder(request, tmp_path):
    MemoryFiles.clear()
    yield str(tmp_path / "list") if request.param == "local" else "mem://bucket/list"
    MemoryFiles.clear()


@pytest.mark.parametrize("count", [0, 1, 33, 100])
def test_every_row_is_read_once_whatever_bytes_a_name_has(folder, count):
    rows = [{"path": f"{number}{BY_BYTES}", "size": number} for number in range(count)]
    chunks = write_chunks(rows, folder)
    read = [json.loads(line) for number in range(chunks.count) for line in chunks.read(number)]
    assert sorted(read, key=lambda row: row["size"]) == rows


@pytest.mark.parametrize(("count", "chunks"), [(33, 2), (20_000, 625), (1_000_001, 1001)])
def test_chunks_are_many_for_workers_and_few_for_the_graph(tmp_path, monkeypatch, count, chunks):
    monkeypatch.setattr("components.storage.write", lambda place, content: None)
    assert write_chunks(range(count), str(tmp_path)).count == chunks


def test_neighbours_are_in_different_chunks_of_one_size(tmp_path):
    chunks = write_chunks(list(range(70)), str(tmp_path))
    assert chunks.read(0)[:2] == ["0", "3"]
    assert [len(chunks.read(number)) for number in range(chunks.count)] == [24, 23, 23]


@pytest.mark.parametrize("count", [0, 1, 70])
def test_workers_read_what_was_written(tmp_path, count):
    rows = list(range(count))
    with beam.Pipeline(options=PipelineOptions(BEAM_ARGUMENTS["local"])) as pipeline:
        read = pipeline | ReadChunks(write_chunks(rows, str(tmp_path))) | beam.FlatMap(lambda lines: map(int, lines))
        assert_that(read, equal_to(rows))
