"""A whole run on a real Flink cluster: job manager, two task managers, job server and worker pool as processes."""

import shutil

import pytest

from tests.e2e import cluster
from tests.e2e.graft import write_shapes

pytestmark = pytest.mark.skipif(
    not (shutil.which("java") and shutil.which("mvn")), reason="Java and Maven are needed for a Flink cluster"
)


def test_p6_run_on_a_cluster_whose_task_manager_is_killed_ends_as_a_local_one(tmp_path):
    write_shapes(tmp_path / "shapes", 40)
    with cluster.started("flink", "--rest-port", tmp_path / "flink") as flink:

        def begun() -> bool:
            jobs = flink.said("/overview")
            return bool(jobs["jobs-running"] and jobs["jobs-finished"])

        cluster.assert_run_ends_as_a_local_one(
            flink, tmp_path / "shapes", tmp_path, begun, lambda: flink.process("task-manager-1")
        )
