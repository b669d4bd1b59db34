"""Batch prediction on Beam: numbers of chunks in, a part of the answers in the scratch folder for each.

Only the numbers go through Beam: neither image bytes nor names ever cross a shuffle.
"""

from pathlib import Path

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.utils import shared

from components import parallel
from pipeline.answer_files import AnswerFile
from pipeline.chunks import Chunks
from pipeline.config import Config
from pipeline.predict import Limits, Loaded, classifier, share_cores
from pipeline.runners import local_arguments, notice_dead_workers


class AnswerChunk(beam.DoFn):
    """The number of a chunk -> its part. Doing it again changes nothing, so that a runner may."""

    def __init__(self, folder: Path, form: type[AnswerFile], limits: Limits, model: shared.Shared, alone: bool):
        self._folder, self._form, self._limits = folder, form, limits
        self._model, self._alone = model, alone

    def setup(self):
        # Counted here: a cluster's machines need not have as many cores as the one that the command runs on.
        self._at_once = share_cores(1 if self._alone else parallel.cores())
        self._chunks = Chunks(self._folder)
        self._loaded = self._model.acquire(lambda: classifier(self._chunks.model))
        self._answers = self._form(self._loaded.names)

    def process(self, number: int):
        self._chunks.answer(number, self._loaded, self._answers, self._limits, self._at_once)


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
    """
    model = shared.Shared()
    model.acquire(lambda: loaded)
    work = AnswerChunk(folder, form, limits, model, alone=config.runner.beam == "local")
    if config.runner.beam == "processes":
        notice_dead_workers()
    with beam.Pipeline(options=PipelineOptions(local_arguments(config))) as pipeline:
        _ = (
            pipeline
            | "Chunks" >> beam.Create(range(len(chunks.sizes)), reshuffle=True)
            | "Classify" >> beam.ParDo(work)
        )
