"""Faults go into real runs, one after the other, in one output folder on a small disk with a model in service."""

import errno
import hashlib
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from components.checksums import verify
from components.steps import read_notes
from pipeline.output import Output
from tests.e2e.graft import ROOT, TINY, Graft, Result, draw, write_shapes

FAST = (*TINY, "--set", "training.frozen.epochs=20", "--set", "training.fine_tune.epochs=1")
FAST += ("--set", "evaluation.min_examples=5")
FAULTS = ROOT / "tests" / "faults"
# A network with nobody in it but this machine.
ALONE = ("unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh")


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("images") / "shapes"
    write_shapes(folder, 40)
    return folder


@pytest.fixture(scope="module")
def graft(tmp_path_factory):
    """Its output folder is a disk of 200 MB."""
    made = Graft(tmp_path_factory.mktemp("faults"))
    made.output.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=200m", "tmpfs", made.output]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs root, to mount a small disk")
    yield made
    subprocess.run(["umount", "--lazy", made.output], check=True)


class Story:
    """Runs of the same command, each with another fault."""

    def __init__(self, graft: Graft, images: Path):
        self.graft, self.output, self._images = graft, Output(graft.output), images

    def start(self, *options: str, prefix: tuple[str, ...] = (), **environment: str) -> subprocess.Popen:
        arguments = ("run", "--images", self._images, "--output", self.output.root, *FAST, *options)
        self._before = self.output.all_runs()[:1]
        return self.graft.start(*arguments, prefix=prefix, path=(FAULTS,), **environment)

    def ended(self, process: subprocess.Popen) -> Result:
        out, error = process.communicate(timeout=300)
        newest = self.output.all_runs()[0] / "summary.json"
        summary = json.loads(newest.read_text()) if newest.is_file() else {}
        return Result(process.returncode, out, error, summary)

    def run(self, *options: str, **environment: str) -> Result:
        return self.ended(self.start(*options, **environment))

    def is_in(self, step: str) -> bool:
        """Whether the run that was started last has come to that step."""
        newest = self.output.all_runs()[:1]
        notes = read_notes(newest[0]) if newest != self._before else None
        return notes is not None and notes.step == step

    def killed_when(self, step: str, condition: Callable[[], bool], *options: str) -> None:
        """Runs until something is seen in a step, and kills that run."""
        process = self.start(*options)
        wait_for(process, lambda: self.is_in(step) and condition())
        process.send_signal(signal.SIGKILL)
        process.communicate()
        self.was_killed_in(process, step)

    def was_killed_in(self, process: subprocess.Popen, step: str) -> None:
        assert process.returncode == -signal.SIGKILL
        row = self.graft.told("runs", self.output.root)["runs"][0]
        assert (row["status"], row["step"]) == ("killed", step), "and the metadata can be read"

    def full_from(self, step: str) -> Result:
        """Runs, with a disk that is full from the beginning of that step on, and has room again after the run."""
        process = self.start()
        filler = self.output.root / "filler"
        try:
            wait_for(process, lambda: self.is_in(step))
            fill(filler)
            return self.ended(process)
        finally:
            filler.unlink()

    def in_service(self) -> dict[str, str]:
        """What a model server would see."""
        versions = [path for path in self.output.serving.iterdir() if path.name.isdecimal()]
        files = [path for version in versions for path in version.rglob("*") if path.is_file()]
        return {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}

    def writing(self, step: str) -> bool:
        """Whether the execution of a step that goes on has written a file."""
        executions = [path for path in self.output.artifacts.glob(f"{step}/*/*") if path.name.isdecimal()]
        newest = max((int(path.name) for path in executions), default=0)
        return any(path.is_file() for each in executions if int(each.name) == newest for path in each.rglob("*"))


def wait_for(process: subprocess.Popen, condition: Callable[[], bool]) -> None:
    while not condition():
        assert process.poll() is None, f"it ended before that: {process.communicate()}"
        time.sleep(0.005)


def fill(filler: Path) -> None:
    with open(filler, "wb", buffering=0) as file:
        for size in (2**20, 2**12):
            try:
                while True:
                    file.write(bytes(size))
            except OSError as error:
                assert error.errno == errno.ENOSPC


@pytest.fixture(scope="module")
def story(graft, images) -> Story:
    return Story(graft, images)


@pytest.fixture(scope="module")
def published(story, tmp_path_factory) -> tuple[Result, list[Result], Path]:
    """The first run, alone on the network; what others were told who came while it went on; and whom it called."""
    calls = tmp_path_factory.mktemp("calls") / "calls.txt"
    calls.touch()
    process = story.start(prefix=ALONE, GRAFT_TEST_CONNECTIONS=str(calls))
    wait_for(process, lambda: story.is_in("Load TFX"))
    said = [story.ended(story.start())]
    (run,), seen = story.output.all_runs(), None
    while process.poll() is None:
        # Once in each step: more would take the processor from the run.
        if (step := read_notes(run).step) == seen:
            time.sleep(0.05)
            continue
        seen = step
        said.append(story.graft.command("runs", story.output.root))
        said.append(story.graft.command("show", story.output.root))
    return story.ended(process), said, calls


def test_p8_run_without_a_network_completes_and_wants_nothing_of_it(published):
    result, _, calls = published
    assert result.code == 0, result.out + result.error
    assert result.summary["status"] == "published"
    assert calls.read_text() == ""


def test_p4_second_run_is_sent_away_with_the_process_id_and_whoever_reads_meanwhile_disturbs_nobody(story, published):
    result, (second, *readers), _ = published
    assert second.code == 5
    assert f"Another run (process {(story.output.root / '.lock').read_text()}) holds" in second.error
    assert len(readers) >= 8
    assert {reader.code for reader in readers[::2]} == {0}
    told = [reader.out + reader.error for reader in readers]
    log = (story.output.root / "runs" / "latest" / "log.txt").read_text()
    assert "locked" not in "".join([result.out, result.error, log, *told])


# ---- what becomes of new images, fault by fault ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def changed(story, images, published) -> dict[str, str]:
    """There are new images; the files of the version in service."""
    draw("circle", 950).save(images / "circle" / "circle-000.jpg", quality=90)
    return story.in_service()


def is_full(result: Result, story: Story, step: str) -> bool:
    """Whether a run told of a full disk in a step, and of a path on it."""
    said = f"failed in {step}: {story.output.root}"
    (line,) = [line for line in result.out.splitlines() if line.startswith("failed in ")]
    assert (result.code, result.summary.get("status", "failed")) == (1, "failed")
    return line.startswith(said) and f"could not be written: the disk of {story.output.root} was full" in line


def test_p3_output_that_cannot_be_written_is_named(story, changed):
    subprocess.run(["mount", "-o", "remount,ro", story.output.root], check=True)
    try:
        result = story.run()
    finally:
        subprocess.run(["mount", "-o", "remount,rw", story.output.root], check=True)
    assert result.code == 2
    assert f"The output folder {story.output.root} cannot be written (Read-only file system)" in result.error


def test_p1_ingestion_killed(story, changed):
    story.killed_when("Ingest images", lambda: story.writing("ImageExampleGen"))
    assert story.in_service() == changed


def test_p1_p3_transform_killed_and_on_a_full_disk(story, changed):
    """Ingestion writes in the same way, by Beam."""
    story.killed_when("Resize and normalise", lambda: story.writing("Transform"))
    assert "ImageExampleGen" not in read_notes(story.output.all_runs()[0]).cached, "what was half-written is not used"
    result = story.full_from("Resize and normalise")
    assert not result.ran("Ingest images")
    assert is_full(result, story, "Resize and normalise"), result.out
    assert story.in_service() == changed


def test_p1_p3_training_killed_and_on_a_full_disk(story, changed):
    story.killed_when("Train", lambda: any(story.output.cache.glob("training-*/frozen.npz")))
    result = story.full_from("Train")
    assert not result.ran("Resize and normalise")
    assert is_full(result, story, "Train"), result.out
    assert story.in_service() == changed


def test_p10_loss_that_is_no_number_ends_the_run_and_what_is_in_service_stays(story, changed):
    result = story.run("--set", "training.frozen.learning_rate=1e30")
    assert (result.code, result.summary["status"], result.summary["step"]) == (1, "failed", "Train")
    assert "The loss became nan (eval nan) in epoch 1 of the frozen phase at learning rate 1e+30" in result.out
    assert not result.ran("Resize and normalise")
    assert story.in_service() == changed


def test_p1_publishing_killed_when_all_of_the_version_is_there(story, changed):
    process = story.start(GRAFT_TEST_KILL=r"/serving/\d+$")
    out, _ = process.communicate()
    assert "gone on with after frozen epoch" in out
    story.was_killed_in(process, "Publish")
    assert story.in_service() == changed
    assert any(story.output.serving.glob(".unfinished-*"))


def test_p3_disk_that_is_full_from_the_start(story, changed):
    filler = story.output.root / "filler"
    fill(filler)
    result = story.run()
    filler.unlink()
    assert result.code == 2
    assert re.search(rf"^graft: {story.output.root}/\S+: No space left on device", result.error)
    assert story.in_service() == changed


def test_p1_p3_run_after_all_of_that_completes_with_what_was_finished(story, images, changed):
    result = story.run()
    assert result.code == 0, result.out + result.error
    finished = ("Ingest images", "Compute statistics", "Resize and normalise", "Train")
    assert [step for step in finished if result.ran(step)] == []
    assert result.ran("Evaluate"), "it is judged beside what is in service now, whatever was said of it before"
    versions = [path for path in story.output.serving.iterdir() if path.is_dir()]
    assert len(versions) == 2
    assert all(path.name.isdecimal() and verify(path).clean for path in versions)
    model = story.graft.told("show", story.output.root, "--model", "in-service")
    assert (model["version"], model["checksums"]["intact"]) == (max(int(path.name) for path in versions), True)
    answer = story.graft.command("predict", story.output.serving, images / "circle" / "circle-001.jpg", "--json")
    assert json.loads(answer.out)["label"] in ("circle", "square", "triangle"), answer.error
