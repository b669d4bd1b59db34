"""A real cluster for a test, started by its program in `scripts`, and a whole run on it."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import tensorflow as tf

from components import features
from tests.e2e.graft import ROOT, TINY, Graft

FAST = (
    *TINY,
    "--set",
    "training.frozen.epochs=10",
    "--set",
    "training.fine_tune.epochs=0",
    "--set",
    "evaluation.min_examples=5",
)


@dataclass(frozen=True)
class Cluster:
    """Processes on this machine.

    Attributes:
      folder: of their logs.
      master: address of what is asked about the cluster.
      options: by which a run uses it.
    """

    folder: Path
    master: str
    options: list[str]

    def said(self, path: str) -> dict:
        """What the master answers there."""
        with urllib.request.urlopen(f"{self.master}{path}") as answer:
            return json.load(answer)

    def process(self, name: str) -> int:
        """Number of the process of that name."""
        (process,) = [each for each in json.loads((self.folder / "cluster.json").read_text()) if each["name"] == name]
        return process["pid"]


def _is_free(port: int) -> bool:
    with socket.socket() as asked:
        return asked.connect_ex(("localhost", port)) != 0


@contextlib.contextmanager
def started(engine: str, master_option: str, folder: Path, **environment: str) -> Iterator[Cluster]:
    """A cluster as long as the body runs.

    Args:
      engine: of it.
      master_option: by which its program takes the port of what is asked.
      folder: for its logs.
      environment: of its processes, besides what this one has.
    """
    program = ROOT / "scripts" / engine
    # Below those that the system gives to whoever asks for any, as the engines' processes do.
    free = (port for port in range(20000 + os.getpid() % 10000, 32768) if _is_free(port))
    ports = dict(zip((master_option, "--job-server-port", "--worker-pool-port"), free, strict=False))
    words = [word for option, port in ports.items() for word in (option, str(port))]
    command = [program, "start", "--folder", folder, "--python", sys.executable, *words]
    made = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)
    assert made.returncode == 0, made.stdout + made.stderr
    master, job_server, pool = ports.values()
    keys = {
        "master": f"http://localhost:{master}",
        "job_server": f"localhost:{job_server}",
        "worker_pool": f"localhost:{pool}",
    }
    options = ["--set", f"runner.beam={engine}"]
    options += [word for key, value in keys.items() for word in ("--set", f"runner.{engine}.{key}={value}")]
    try:
        yield Cluster(folder, keys["master"], options)
    finally:
        assert subprocess.run([program, "stop", "--folder", folder]).returncode == 0


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


def assert_run_ends_as_a_local_one(
    cluster: Cluster, images: Path, folder: Path, begun: Callable[[], bool], victim: Callable[[], int]
) -> None:
    """A run on the cluster, one of whose processes is killed, has the splits, examples and accuracy of one here.

    Args:
      cluster: of two.
      images: 120.
      folder: for the outputs.
      begun: whether the cluster works on a job after the one that looks at the workers: most of the run is to come.
      victim: number of the process that is killed.
    """
    local, remote = (Graft(folder / name) for name in ("local", "remote"))
    expected = local.run(images, *FAST)
    assert expected.code == 0, expected.out + expected.error
    killed = threading.Event()

    def kill() -> None:
        while not begun():
            time.sleep(0.05)
        time.sleep(0.5)
        os.kill(victim(), signal.SIGKILL)
        killed.set()

    threading.Thread(target=kill, daemon=True).start()
    result = remote.run(images, *FAST, *cluster.options)
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
