"""`make setup`: one sentence for what is missing, nothing lost, and no work done twice."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT

NEEDED = ("requirements.lock", "pyproject.toml", "setup.py", "scripts/setup", "scripts/bootstrap.lock")
TOOLS = ["awk", "cat", "cksum", "dirname", "env", "getconf", "grep", "head", "mkdir", "rm", "sed", "sort"]


@pytest.fixture
def checkout(tmp_path) -> Path:
    """What the set-up reads, in a folder of its own."""
    folder = tmp_path / "graft"
    for name in NEEDED:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    return folder


def setup(folder: Path, **environment) -> subprocess.CompletedProcess:
    return subprocess.run(
        ["bash", "scripts/setup"], cwd=folder, capture_output=True, text=True, env=os.environ | environment
    )


def tools(folder: Path, **fakes: str) -> str:
    """A PATH of the few tools that the set-up calls, some of them replaced by scripts."""
    folder.mkdir()
    for name in TOOLS:
        (folder / name).symlink_to(shutil.which(name))
    for name, script in fakes.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    (folder / "bash").symlink_to(shutil.which("bash"))
    return str(folder)


def base_python() -> str:
    return os.path.join(sys.base_prefix, "bin", "python3.11")


def test_missing_python_is_one_sentence(checkout, tmp_path):
    done = setup(checkout, PATH=tools(tmp_path / "bin"), PYTHON="")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "Python 3.11 was not found" in done.stderr
    assert not (checkout / ".venv").exists()


def test_a_system_that_tfx_has_no_packages_for_is_shown_the_docker_way(checkout, tmp_path):
    path = tools(tmp_path / "bin", uname='[ "$1" = -s ] && echo FreeBSD || echo amd64')
    done = setup(checkout, PATH=path, PYTHON=base_python())
    assert done.returncode == 2
    assert "docker build -t graft ." in done.stderr
    assert done.stderr.count("\n") == 1


def test_no_network_is_one_sentence_and_leaves_no_finished_environment(checkout):
    nowhere = "http://127.0.0.1:9/simple"
    done = setup(checkout, PIP_INDEX_URL=nowhere, PIP_FIND_LINKS="", PIP_RETRIES="0", PIP_NO_CACHE_DIR="1")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "could not be fetched" in done.stderr
    assert not (checkout / ".venv" / ".graft-setup").exists()


def test_an_environment_that_somebody_else_made_is_left_alone(checkout):
    (checkout / ".venv").mkdir()
    (checkout / ".venv" / "pyvenv.cfg").write_text("home = /usr/bin")
    (checkout / ".venv" / "mine").write_text("precious")
    done = setup(checkout)
    assert done.returncode == 2
    assert "was not made by this set-up" in done.stderr
    assert (checkout / ".venv" / "mine").read_text() == "precious"


@pytest.mark.skipif(
    not (ROOT / ".venv" / ".graft-setup").is_file(), reason="the tests do not run in the project's .venv"
)
def test_second_call_does_nothing_and_takes_under_two_seconds():
    began = time.monotonic()
    done = setup(ROOT)
    assert time.monotonic() - began < 2
    assert (done.returncode, done.stdout) == (0, "")
