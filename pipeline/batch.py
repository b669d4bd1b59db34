"""Batch prediction on Beam: numbers of chunks in, a part of the answers in the scratch folder for each.

Only the numbers go through Beam: neither image bytes nor names ever cross a shuffle.
"""

import functools
import operator
from collections.abc import Callable, Iterator
from pathlib import Path

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.utils import shared

from components import broken_image, in_hand, parallel
from components.errors import ImageFailed
from pipeline.answer_files import AnswerFile
from pipeline.chunks import Chunks
from pipeline.config import Config
from pipeline.predict import Limits, Loaded, classifier, classify, share_cores
from pipeline.runners import local_arguments, notice_dead_workers


class AnswerChunk(beam.DoFn):
    """The number of a chunk -> its part. Doing it again changes nothing, so that a runner may."""

    def __init__(
        self,
        folder: Path,
        form: type[AnswerFile],
        limits: Limits,
        model: shared.Shared,
        alone: bool,
        notes: str | None,
    ):
        self._folder, self._form, self._limits = folder, form, limits
        self._model, self._alone, self._notes = model, alone, notes

    def setup(self):
        # Counted here: a cluster's machines need not have as many cores as the one that the command runs on.
        self._at_once = share_cores(1 if self._alone else parallel.cores())
        self._chunks = Chunks(self._folder)
        self._loaded = self._model.acquire(lambda: classifier(self._chunks.model))
        self._answers = self._form(self._loaded.names)
        self._hand = in_hand.InHand(self._notes)

    def process(self, number: int):
        with self._hand.holding([number]):
            self._chunks.answer(number, self._loaded, self._answers, self._limits, self._at_once)

    def teardown(self):
        self._hand.close()


def _again(folder: Path, limits: Limits, numbers: list[int]) -> Iterator[tuple[str, Callable[[], object]]]:
    """The files of some chunks, and what is done to each."""
    chunks = Chunks(folder)
    loaded = classifier(chunks.model)
    for number in numbers:
        for path in chunks.listed(number):
            yield path, lambda path=path: list(classify(loaded, [path], limits, 1))


def _named(item: str | int, happened: str) -> ImageFailed | None:
    # Of a chunk that workers ended with, nobody knows by which file.
    if isinstance(item, int):
        return None
    return broken_image.of_path(item, f"{happened} Leave it out. No image should do this: please report it.")


def answer_all(
    chunks: Chunks, folder: Path, form: type[AnswerFile], loaded: Loaded, limits: Limits, config: Config
) -> None:
    """Makes every part.

    Args:
      chunks: what was divided.
      folder: its scratch folder.
      form: the format of the parts.
      loaded: the model that was copied there; workers in this process use it, others load it once each.
      limits: what a file may cost.
      config: `runner` says where the work is done.

    Raises:
      ImageFailed: a file ends whoever works on it.
    """
    model = shared.Shared()
    model.acquire(lambda: loaded)
    arguments = local_arguments(config)
    notes = in_hand.folder(str(folder), "classified", arguments)
    work = AnswerChunk(folder, form, limits, model, alone=config.runner.beam == "local", notes=notes)
    if config.runner.beam == "processes":
        notice_dead_workers()
    with (
        in_hand.blamed(notes, operator.call, _named, "cannot be classified", functools.partial(_again, folder, limits)),
        beam.Pipeline(options=PipelineOptions(arguments)) as pipeline,
    ):
        _ = (
            pipeline
            | "Chunks" >> beam.Create(range(len(chunks.sizes)), reshuffle=True)
            | "Classify" >> beam.ParDo(work)
        )
