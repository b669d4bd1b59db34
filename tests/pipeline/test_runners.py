"""What becomes of a pipeline whose worker process dies."""

import os
import subprocess
import sys

import pytest

from components import causes
from pipeline.failure import Scene, explain
from tests.conftest import ROOT

# In a process of its own: Beam would wait for ever for the worker's answer, and cannot be interrupted.
SCRIPT = """
import os, signal, sys
import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from pipeline.runners import BEAM_ARGUMENTS, notice_dead_workers

def killed(number):
    os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    notice_dead_workers()
    notice_dead_workers()
    if sys.argv[1] == "before it comes up":
        sys.executable = "false"
    try:
        with beam.Pipeline(options=PipelineOptions(BEAM_ARGUMENTS["processes"])) as pipeline:
            _ = pipeline | beam.Create([0]) | beam.Map(killed)
    except RuntimeError as error:
        print(error)
"""


@pytest.mark.parametrize("when", ["while it works", "before it comes up"])
def test_worker_process_that_ends_too_early_ends_the_pipeline_with_an_error(when, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(script), when]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == 0
    assert causes.WORKER_ENDED in done.stdout


@pytest.mark.parametrize("text", [causes.WORKER_ENDED, "Channel closed prematurely."])
def test_dead_worker_is_told_with_what_takes_less_memory(text, tmp_path):
    error = RuntimeError(text)
    scene = Scene("Resize and normalise", tmp_path, tmp_path / "log.txt", processes=True)
    assert explain(error, scene).advice.startswith("Set runner.beam: local (one process instead of one a core), lower ")
    assert causes.of_the_machine(error), "the image that crashed it would crash what looks for it, too"
