"""Whole runs on a real Flink cluster: job manager, two task managers, job server and worker pool as processes."""

import shutil

import pytest

from tests.e2e import cluster
from tests.e2e.graft import ROOT, Graft, write_shapes

FAULTS = ROOT / "tests" / "faults"
# Whoever opens it crashes, but for the command.
POISON = "poison.jpg"

pytestmark = pytest.mark.skipif(
    not (shutil.which("java") and shutil.which("mvn")), reason="Java and Maven are needed for a Flink cluster"
)


@pytest.fixture(scope="module")
def flink(tmp_path_factory):
    faults = {"PYTHONPATH": str(FAULTS), "GRAFT_TEST_CRASH": POISON}
    with cluster.started("flink", "--rest-port", tmp_path_factory.mktemp("flink"), **faults) as started:
        yield started


@pytest.fixture
def images(tmp_path):
    write_shapes(tmp_path / "shapes", 40)
    return tmp_path / "shapes"


def test_p9_image_that_crashes_every_worker_is_named_and_nothing_is_published(flink, images, tmp_path):
    shutil.copy(images / "circle" / "circle-007.jpg", images / "circle" / POISON)
    graft = Graft(tmp_path)
    words = ("run", "--images", images, "--output", graft.output, *cluster.FAST, *flink.options)
    process = graft.start(*words, path=(FAULTS,), GRAFT_TEST_CRASH=POISON)
    out, error = process.communicate(timeout=300)
    assert process.returncode == 1, out + error
    named = f"circle/{POISON} cannot be checked (a process that tries to ends by SIGSEGV)."
    assert f"failed in Ingest images: {named}\n" in out
    assert not any((graft.output / "serving").glob("*"))


def test_p6_run_on_a_cluster_whose_task_manager_is_killed_ends_as_a_local_one(flink, images, tmp_path):
    before = flink.said("/overview")["jobs-finished"]

    def begun() -> bool:
        jobs = flink.said("/overview")
        return bool(jobs["jobs-running"] and jobs["jobs-finished"] > before)

    cluster.assert_run_ends_as_a_local_one(flink, images, tmp_path, begun, lambda: flink.process("task-manager-1"))
