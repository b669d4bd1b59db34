"""What is said of a cluster's workers before anything starts on them."""

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from components.source import LOADED, worker_source
from pipeline import cli, config, predict_file, probe
from pipeline.engine import NotThere
from pipeline.runners import ENGINES
from tests.conftest import ROOT
from tests.pipeline.exported import exported

PACKAGES = dict.fromkeys(probe.PACKAGES, "1.2")
FOUND = {"python": "3.11", "packages": PACKAGES, "graft": "same", "folder": "", "unseen": []}
WHERE = {"host": "machine", "executable": "/usr/bin/python"}


def closed() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize("command", ["run", "tune", "check"])
def test_where_no_engine_answers_nothing_was_started(tmp_path, command):
    for number in range(8):
        place = tmp_path / "images" / "ab"[number % 2] / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 9), (30 * number, 0, 0)).save(place)
    words = [command, "--images", tmp_path / "images", "--output", tmp_path / "out"]
    words += ["--recipe", tmp_path / "recipe.yaml"] if command == "tune" else []
    settings = ["model.backbone=graft_tiny", "model.weights=bundled", "runner.beam=flink"]
    settings.append(f"runner.flink.master=http://{closed()}")
    words += [word for setting in settings for word in ("--set", setting)]
    with pytest.raises(NotThere, match="does not answer at"):
        cli.graft.main([str(word) for word in words], standalone_mode=False)
    assert not list(tmp_path.glob("out/runs/*")) and not list(tmp_path.glob("out/tune/*"))


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ({"python": "3.12"}, "has Python 3.12, and this command 3.11"),
        ({"packages": FOUND["packages"] | {"tfx": None}}, "has tfx not at all, and this command 1.2"),
        ({"graft": None, "folder": "not seen"}, "has no Graft, and needs version"),
        (
            {"graft": "other", "folder": "not seen"},
            "another source of Graft than this command .*start the worker pools",
        ),
        ({"folder": "not seen", "unseen": ["/images"]}, "does not see the folder /shared/out: put it on"),
        ({"folder": "another"}, "does not see the folder /shared/out"),
        (
            {"folder": "cannot be written (Permission denied)"},
            r"it cannot be written \(Permission denied\): let its user",
        ),
        ({"unseen": ["/images"]}, "does not see /images: put the images"),
    ],
)
def test_what_a_worker_lacks_is_told_in_a_sentence_the_first_cause_first(found, words):
    text = f"lines\nRuntimeError: {probe.MARK}{json.dumps(FOUND | WHERE | found)} [while running 'Look']\nlines"
    sentence = probe._lack(ENGINES["spark"], probe._told(text), FOUND, Path("/shared/out"))
    assert sentence.startswith("A worker of Spark on machine (/usr/bin/python) ")
    assert re.search(words, sentence) and "\n" not in sentence


def test_error_that_no_worker_reported_is_not_taken_for_a_finding():
    assert probe._told("java.lang.Exception: no slot") is None
    assert probe._told(f"cut off {probe.MARK}{{'x") is None


def test_worker_of_a_pool_says_what_the_pool_loaded_and_not_what_was_edited_since(monkeypatch):
    on_disk = worker_source()
    monkeypatch.setenv(LOADED, "as it was")
    assert worker_source() == "as it was" != on_disk


def look(monkeypatch, places: list, token: Path | None, **other) -> dict | None:
    """What a worker in this process finds where it expected something else."""
    monkeypatch.setitem(os.environ, LOADED, "here")
    expected = probe._expected() | other
    try:
        probe._looker(expected, [str(place) for place in places], token and str(token))(0)
    except RuntimeError as error:
        return probe._told(str(error))
    return None


def test_worker_looks_for_the_images_and_leaves_a_sign_in_the_folder(tmp_path, monkeypatch):
    (tmp_path / "images").mkdir()
    with probe._token(tmp_path / "to" / "be" / "made") as token:
        assert look(monkeypatch, [tmp_path / "images"], token) is None
        assert len(list(token.glob("worker-*"))) == 1
        found = look(monkeypatch, [tmp_path / "images", tmp_path / "none", "gone://bucket/images"], token)
        assert found["unseen"] == [str(tmp_path / "none"), "gone://bucket/images"] and found["folder"] == ""
        (token / "token").write_text("of another machine")
        assert look(monkeypatch, [], token)["folder"] == "another"
    assert look(monkeypatch, [], token)["folder"] == "not seen"
    assert look(monkeypatch, [], None) is None
    assert look(monkeypatch, [], None, graft="other")["graft"] == "here"
    assert {path.name for path in tmp_path.iterdir()} == {"images"}


# A worker without Graft: its environment has all but our packages.
WITHOUT_GRAFT = """
import pickle, sys

class Without:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("components", "pipeline", "trainer"):
            raise ModuleNotFoundError(f"No module named {name!r}")

sys.meta_path.insert(0, Without())
pickle.load(sys.stdin.buffer)(0)
"""


def test_worker_without_graft_can_be_asked_and_says_so():
    from apache_beam.internal import cloudpickle_pickler

    asked = probe._looker(probe._expected(), [], None)
    sent = cloudpickle_pickler.cloudpickle.dumps(asked)
    done = subprocess.run([sys.executable, "-c", WITHOUT_GRAFT], input=sent, capture_output=True, cwd="/")
    found = probe._told(done.stderr.decode())
    assert found | {"graft": worker_source()} == probe._expected() | {
        "host": socket.gethostname(),
        "executable": sys.executable,
    }
    assert found["graft"] is None, "it has the libraries all the same"


# With fewer imports than the command has: what statistics and Transform need takes ten seconds.
POOL = """
from pipeline import worker_pool
worker_pool.PRELOADED = ["apache_beam.runners.worker.sdk_worker_main", "pipeline.batch"]
worker_pool.main()
"""


@contextlib.contextmanager
def started(*words: object):
    """A process that is there until the body ends."""
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    command = [sys.executable, *map(str, words)]
    process = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, cwd="/", **silent)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


def wait_for(ready, *processes: subprocess.Popen) -> None:
    until = time.monotonic() + 120
    while not ready():
        assert time.monotonic() < until and all(process.poll() is None for process in processes)
        time.sleep(0.05)


def _listens(place: str) -> bool:
    try:
        socket.create_connection(place.split(":"), 1).close()
    except OSError:
        return False
    return True


def test_p6_cluster_of_processes_is_proved_and_predicts_as_this_machine_does(tmp_path, monkeypatch, capsys):
    """Beam's job service and a worker pool, processes of their own: ten seconds, nearly all of them imports."""
    port, pool, images = tmp_path / "port", closed(), tmp_path / "images"
    images.mkdir()
    for number in range(6):
        Image.new("RGB", (16, 16), (40 * number, 0, 99)).save(images / f"{number}.png")
    with (
        started("-m", "apache_beam.runners.portability.local_job_service_main", "--port_file", port) as service,
        started("-c", POOL, "--host=127.0.0.1", f"--port={pool.split(':')[1]}") as workers,
    ):
        model = exported(tmp_path / "serving" / "1", ["red", "green", "blue"])
        predict_file.predict_to_file(model, [str(images)], tmp_path / "here.csv", config.Config())
        wait_for(lambda: port.is_file() and port.read_text() and _listens(pool), service, workers)
        options = {"master": None, "job_server": f"localhost:{port.read_text()}", "worker_pool": pool}
        chosen = config.Config.model_validate({"runner": {"beam": "flink", "flink": options}})
        monkeypatch.setattr(predict_file, "FEW", 0)
        capsys.readouterr()
        assert predict_file.predict_to_file(model, [str(images)], tmp_path / "there.csv", chosen) == 0
    said = capsys.readouterr().out
    assert re.search("Look at the cluster .* 1 worker has Graft .* and sees the images and the output folder", said)
    assert (tmp_path / "there.csv").read_bytes() == (tmp_path / "here.csv").read_bytes()
    assert {path.name for path in tmp_path.iterdir()} - {"port"} == {"images", "serving", "here.csv", "there.csv"}
