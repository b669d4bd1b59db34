"""The image: what its Dockerfile installs and who it runs as, and which program its entry point hands over to."""

import fnmatch
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import setuptools

from tests.conftest import ROOT

DOCKERFILE = re.sub(r"\\\n", "", (ROOT / "Dockerfile").read_text())
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK = dict(re.findall(r"^([a-z\d.-]+)==(\S+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE))
# glibc of Debian's releases.
GLIBC = {"bullseye": (2, 31), "bookworm": (2, 36), "trixie": (2, 41)}


def instructions(name: str) -> list[str]:
    return re.findall(rf"^{name} (.+)", DOCKERFILE, re.MULTILINE)


def stages() -> dict[str, str]:
    """Names of the stages, with what they are built on."""
    named = [re.fullmatch(r"(\S+)(?: AS (\S+))?", line).groups() for line in instructions("FROM")]
    return {name or "": base for base, name in named}


# ---- the Dockerfile -------------------------------------------------------------------------------------------------


def test_image_runs_as_a_user_that_kubernetes_can_tell_is_not_root():
    user, _, group = instructions("USER")[-1].partition(":")
    assert user.isdigit() and group.isdigit() and int(user) > 0 and int(group) > 0


def test_wheels_of_tfx_find_a_c_library_that_is_new_enough():
    for name in ("", "packages"):
        assert GLIBC[stages()[name].rpartition("-")[2]] >= (2, 39)


def test_python_of_every_stage_is_the_one_that_the_project_asks_for():
    assert PROJECT["requires-python"] == ">=3.11,<3.12"
    for name in ("", "packages"):
        assert stages()[name].startswith("python:3.11-")
    assert stages()["beam"].startswith("apache/beam_python3.11_sdk:")


def test_boot_program_of_beams_workers_is_of_the_version_of_the_lock():
    assert stages()["beam"].rpartition(":")[2] == LOCK["apache-beam"]
    assert {"--from=beam /opt/apache/beam /boot/opt/apache/beam", "--from=graft /boot /"} <= {*instructions("COPY")}


def test_nothing_is_installed_that_the_lock_has_no_hash_of():
    installs = re.findall(r"pip install (.*?)(?:&&|$)", DOCKERFILE, re.MULTILINE)
    assert len(installs) == 3
    for options in installs:
        assert "--require-hashes" in options or {"--no-deps", "--no-build-isolation"} <= set(options.split())


def test_image_takes_the_packages_of_setup_py_and_no_other_folder():
    packages = {name.partition(".")[0] for name in setuptools.find_packages(str(ROOT), include=_included())}
    copied = [line.split()[:-1] for line in instructions("COPY") if not line.startswith("--from")]
    assert {name for names in copied for name in names if (ROOT / name).is_dir()} == packages
    for names in copied:
        for name in names:
            assert (ROOT / name).exists()
            assert _sent(name), f".dockerignore holds {name} back"
    for name in ("tests", "data", "benchmarks", ".git", ".venv", "pipeline/__pycache__"):
        assert not _sent(name)


def _included() -> list[str]:
    (patterns,) = re.findall(r"include=\[(.+?)\]", (ROOT / "setup.py").read_text())
    return re.findall(r'"(.+?)"', patterns)


def _sent(path: str) -> bool:
    """Whether .dockerignore lets a path into the build; the last line that matches it or a folder above decides."""
    sent = True
    places = [path, *(str(parent) for parent in Path(path).parents if parent.name)]
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.removeprefix("!")
        if line and not line.startswith("#") and any(_matches(place, pattern) for place in places):
            sent = line.startswith("!")
    return sent


def _matches(path: str, pattern: str) -> bool:
    if pattern.startswith("**/"):
        return Path(path).name == pattern.removeprefix("**/")
    return fnmatch.fnmatch(path, pattern) and path.count("/") == pattern.count("/")


def test_packages_of_the_extra_dev_and_only_they_are_named_to_be_left_out():
    (folder,) = [path for path in sys.path if path.endswith("site-packages") and (Path(path) / "tfx").is_dir()]
    script = [sys.executable, "scripts/dev_packages", folder]
    named = set(subprocess.run(script, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split())
    assert {"pytest", "pytest-xdist", "iniconfig", "ruff", "nbclient", "ipykernel"} <= named
    for wanted in [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["onnx"]]:
        assert re.match(r"[\w-]+", wanted)[0].lower() not in named
    # By way of others, some through an extra of theirs.
    assert not named & {"ipython", "google-cloud-bigquery", "protobuf", "grpcio", "setuptools", "pyfarmhash"}


# ---- make image -----------------------------------------------------------------------------------------------------


def program(folder: Path, name: str) -> None:
    """Puts a program into the folder that says its name and, one a line, its arguments."""
    (folder / name).write_text(f'#!/bin/sh\nprintf "%s\\n" {name} "$@"\n')
    (folder / name).chmod(0o755)


@pytest.fixture
def programs(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("graft", "boot", "docker", "podman"):
        program(folder, name)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    return folder


def said(*command: str) -> list[str]:
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()


def test_make_image_names_the_image_after_the_version(programs):
    engine, verb, *options = said("make", "--no-print-directory", "image")
    assert (engine, verb, options[-1]) == ("docker", "build", ".")
    assert options[options.index("--tag") + 1] == f"graft:{PROJECT['version']}"
    assert f"org.opencontainers.image.version={PROJECT['version']}" in options


def test_make_image_takes_another_program_name_and_options(programs):
    engine, *options = said(
        "make",
        "--no-print-directory",
        "image",
        "ENGINE=podman",
        "IMAGE=eu/graft:7",
        "BUILD_FLAGS=--build-arg PIP_INDEX_URL",
    )
    assert engine == "podman"
    assert options[options.index("--tag") + 1] == "eu/graft:7"
    assert options[-3:] == ["--build-arg", "PIP_INDEX_URL", "."]


# ---- the entry point ------------------------------------------------------------------------------------------------


def entered(*arguments: str) -> list[str]:
    return said("sh", str(ROOT / "scripts" / "image_entrypoint"), *arguments)


@pytest.mark.parametrize(
    "arguments", [[], ["--help"], ["-h"], ["--version"], ["serve", "/serving", "--host", "0.0.0.0"]]
)
def test_image_is_the_command(programs, arguments):
    assert entered(*arguments) == ["graft", *arguments]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--id=1", "--provision_endpoint=localhost:8000"],
        ["--logging_endpoint=localhost:1", "--control_endpoint=localhost:2", "--id=a b"],
        ["-id", "1", "-provision_endpoint", "localhost:8000"],
        ["--worker_pool"],
        ["--setup_only", "--artifacts=/tmp/artifacts"],
    ],
)
def test_image_is_a_worker_where_a_runner_starts_one(programs, arguments):
    assert entered(*arguments) == ["boot", *arguments]


def test_worker_keeps_what_a_pipeline_stages_where_it_can_write(programs, tmp_path):
    fits = f"--semi_persist_dir={tmp_path / 'mine'}"
    assert entered("--id=1", fits) == ["boot", "--id=1", fits]
    (tmp_path / "file").touch()
    others = f"--semi_persist_dir={tmp_path / 'file' / 'theirs'}"
    assert entered("--id=1", others, "--x=y") == ["boot", "--id=1", others, "--x=y", "--semi_persist_dir=/tmp"]
