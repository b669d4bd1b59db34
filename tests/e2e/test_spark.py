"""A whole run on a real Spark cluster: master, two workers, shuffle service, job server and worker pool as processes.

It takes a minute, so only where somebody asks for it: GRAFT_SPARK=1 pytest tests/e2e/test_spark.py
"""

import os
import subprocess

import pytest

from tests.e2e import cluster
from tests.e2e.graft import write_shapes

pytestmark = pytest.mark.skipif(not os.environ.get("GRAFT_SPARK"), reason="GRAFT_SPARK is not set")


def test_p6_run_on_a_cluster_whose_executor_is_killed_ends_as_a_local_one(tmp_path):
    write_shapes(tmp_path / "shapes", 40)
    with cluster.started("spark", "--page-port", tmp_path / "spark") as spark:
        log = spark.folder / "job-server.log"

        def begun() -> bool:
            return log.read_text().count("is a job group of Spark's") >= 2

        def executor() -> int:
            parent = str(spark.process("worker-1"))
            return int(subprocess.run(["pgrep", "-P", parent], capture_output=True, check=True).stdout)

        cluster.assert_run_ends_as_a_local_one(spark, tmp_path / "shapes", tmp_path, begun, executor)
