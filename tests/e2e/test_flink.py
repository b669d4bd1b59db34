"""A whole run on a real Flink cluster: job manager, two task managers, job server and worker pool as processes."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request

import pytest
import tensorflow as tf

from components import features
from tests.e2e.graft import ROOT, TINY, Graft, write_shapes

PROGRAM = ROOT / "scripts" / "flink"
FAST = (
    *TINY,
    "--set",
    "training.frozen.epochs=10",
    "--set",
    "training.fine_tune.epochs=0",
    "--set",
    "evaluation.min_examples=5",
)

pytestmark = pytest.mark.skipif(
    not (shutil.which("java") and shutil.which("mvn")), reason="Java and Maven are needed for a Flink cluster"
)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images") / "shapes"
    write_shapes(folder, 40)
    return folder


def _is_free(port: int) -> bool:
    with socket.socket() as asked:
        return asked.connect_ex(("localhost", port)) != 0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Where the cluster keeps its logs, and the options by which a run uses it."""
    folder = tmp_path_factory.mktemp("flink")
    # Below those that the system gives to whoever asks for any, as Flink's processes do.
    free = (port for port in range(20000 + os.getpid() % 10000, 32768) if _is_free(port))
    ports = dict(zip(("rest", "job-server", "worker-pool"), free, strict=False))
    words = [word for name, port in ports.items() for word in (f"--{name}-port", str(port))]
    started = subprocess.run(
        [PROGRAM, "start", "--folder", folder, "--python", sys.executable, *words], capture_output=True, text=True
    )
    assert started.returncode == 0, started.stdout + started.stderr
    keys = {
        "master": f"http://localhost:{ports['rest']}",
        "job_server": f"localhost:{ports['job-server']}",
        "worker_pool": f"localhost:{ports['worker-pool']}",
    }
    yield (
        folder,
        [
            "--set",
            "runner.beam=flink",
            *(word for key, value in keys.items() for word in ("--set", f"runner.flink.{key}={value}")),
        ],
        keys["master"],
    )
    assert subprocess.run([PROGRAM, "stop", "--folder", folder]).returncode == 0


def _examples(graft: Graft, kind: str) -> dict:
    """Features of every example by split and file name or key."""
    found = {}
    for path in (graft.output / "artifacts").glob(f"*/{kind}/*/Split-*/*"):
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            values = tf.train.Example.FromString(record).features.feature
            # Protocol buffers keep no order of a map.
            row = {name: values[name].SerializeToString(deterministic=True) for name in values}
            key = (path.parent.name, row.get(features.KEY) or row[features.SHA256])
            assert key not in found, f"twice: {key}"
            found[key] = row
    return found


def test_p6_run_on_a_cluster_whose_task_manager_is_killed_ends_as_a_local_one(cluster, images, tmp_path_factory):
    folder, options, master = cluster
    local, remote = (Graft(tmp_path_factory.mktemp(name)) for name in ("local", "remote"))
    expected = local.run(images, *FAST)
    assert expected.code == 0, expected.out + expected.error
    killed = threading.Event()
    thread = threading.Thread(target=_kill_first_task_manager, args=(folder, master, killed), daemon=True)
    thread.start()
    result = remote.run(images, *FAST, *options)
    assert result.code == 0, result.out + result.error
    assert killed.is_set()
    assert result.summary["data"]["classes"] == expected.summary["data"]["classes"]
    for kind in ("examples", "transformed_examples"):
        assert len(_examples(local, kind)) == 120
        assert _examples(remote, kind) == _examples(local, kind)
    accuracies = [each.summary["metrics"]["test"]["accuracy"] for each in (expected, result)]
    assert accuracies[0] == pytest.approx(accuracies[1], abs=0.05)
    # Nothing of what was begun twice is left.
    assert not list((remote.output / "artifacts").glob("**/Split-*/.*"))


def _kill_first_task_manager(folder, master: str, killed: threading.Event) -> None:
    """As soon as it works on a job after the one that looks at the workers: most of the run is to come."""
    (process,) = [
        each for each in json.loads((folder / "cluster.json").read_text()) if each["name"] == "task-manager-1"
    ]
    while True:
        with urllib.request.urlopen(f"{master}/overview") as answer:
            jobs = json.load(answer)
        if jobs["jobs-running"] and jobs["jobs-finished"]:
            break
        time.sleep(0.05)
    time.sleep(0.5)
    os.kill(process["pid"], signal.SIGKILL)
    killed.set()
