"""The documentation is true where a machine can tell: commands run, sentences are the program's, links and names exist.

Every command of README.md, docs/ and the heads of configs/ goes through a rule of this file. What is cheap runs as it is, in
a folder with what the pages talk about; what trains is checked by `graft check` with the same images, configuration and
settings; what needs another machine is recognised, part by part. A command without a rule fails.
"""

import ast
import asyncio
import configparser
import contextlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import click
import nbformat
import pytest
import yaml
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

from components.publishing import publish
from components.serving_places import open_serving
from pipeline import cli, config
from tests.conftest import ROOT
from tests.documentation import Text, anchors, blocks, links, pages, sentences, words
from tests.e2e.graft import TINY, draw, write_shapes
from tests.pipeline.served import serving

PAGES = pages()
NOTEBOOK = ROOT / "docs" / "notebook.ipynb"


# ---- what the pages talk about --------------------------------------------------------------------------------------


@dataclass
class Scratch:
    """A folder with images, an output of a run in which several versions were published, photos and recipes.

    Attributes:
      folder: the working directory of the pages' commands.
      notebook: docs/notebook.ipynb with its outputs, whose run made the output folder.
      server: address of `graft serve out/serving`.
    """

    folder: Path
    notebook: nbformat.NotebookNode
    server: str = ""

    @property
    def run(self) -> str:
        return os.readlink(self.folder / "out" / "runs" / "latest")

    @property
    def version(self) -> str:
        """One that is not in service."""
        return str(open_serving(str(self.folder / "out" / "serving")).versions()[0])

    def adapted(self, text: str) -> str:
        """With versions, runs and places that there are."""
        text = re.sub(r"\b1[67]\d{8}\b", self.version, text)
        text = re.sub(r"\b20\d{6}-\d{6}\b", self.run, text)
        return text.replace("/srv/signs/", "").replace("/opt/graft/.venv/bin/", "")


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    folder = tmp_path_factory.mktemp("docs")
    write_shapes(folder / "images", 100)
    scratch = Scratch(folder, _executed(folder))
    _write_what_pages_name(folder)
    versions = folder / "out" / "serving"
    model = shutil.copytree(versions / scratch.version, folder / "model", ignore=lambda *_: ["checksums.sha256"])
    for _ in range(2):
        publish(model, str(versions), 5)
    with contextlib.chdir(folder), serving(versions) as server:
        scratch.server = server.url
        yield scratch


def _executed(folder: Path) -> nbformat.NotebookNode:
    """The notebook, run from top to bottom in that folder by this Python."""

    class OurKernel(KernelSpecManager):
        def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
            argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
            return KernelSpec(argv=argv, display_name="Python", language="python")

    notebook = nbformat.read(NOTEBOOK, as_version=4)
    state = folder.with_name(f"{folder.name}-kernel")
    state.mkdir()
    places = {name: str(state) for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR")}
    kernel = AsyncKernelManager(kernel_spec_manager=OurKernel(), connection_file=str(state / "kernel.json"))
    client = NotebookClient(notebook, km=kernel, timeout=300, resources={"metadata": {"path": str(folder)}})
    return asyncio.run(client.async_execute(env=os.environ | places | {"PYTHONPATH": str(ROOT)}))


def _write_what_pages_name(folder: Path) -> None:
    import keras

    from trainer import backbones

    for name in ("configs", "benchmarks", "Makefile", "Dockerfile"):
        (folder / name).symlink_to(ROOT / name)
    draw("circle", 900).save(folder / "photo.jpg")
    for week in (1, 2):
        write_shapes(folder / "photos" / f"week-{week}", 8, first=week * 100)
    for fold, count, first in (("train", 20, 0), ("validation", 5, 50)):
        write_shapes(folder / "folders" / fold, count, first)
    shutil.copytree(folder / "photos" / "week-1", folder / "flower_photos")
    rows = [f"{path.relative_to(folder)},{path.parent.name}" for path in sorted(folder.glob("photos/week-*/*/*.jpg"))]
    (folder / "images.csv").write_text("\n".join(["path,label", *rows, ""]))
    (folder / "mine.yaml").write_text(yaml.safe_dump({"training": {"frozen": {"epochs": 20}}}))
    backbones.build("mobilenet_v2", 1.0, "none", 224).save_weights(folder / "backbone.weights.h5")
    keras.utils.clear_session()


# ---- the notebook ---------------------------------------------------------------------------------------------------


def _cell(notebook: nbformat.NotebookNode, source: str) -> nbformat.NotebookNode:
    (cell,) = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.startswith(source)]
    return cell


def _printed(cell: nbformat.NotebookNode) -> str:
    return "".join(output.text for output in cell.outputs if output.output_type == "stream")


def test_notebook_prints_the_lines_of_the_run_and_nothing_of_the_libraries(scratch):
    lines = _printed(_cell(scratch.notebook, "run = graft.run(")).splitlines()
    assert [line for line in lines if re.match(r"\d\d:\d\d:\d\d  Train  ", line)]
    assert [line for line in lines if line.startswith("published: test accuracy")]
    for line in lines:
        assert "\x1b" not in line
        assert not re.search(r"WARNING|ERROR|INFO|Traceback|cuda|absl|^[IWE]\d{4} ", line), line
    for cell in scratch.notebook.cells:
        for output in cell.get("outputs", []):
            assert output.output_type != "error"
            assert output.get("name") != "stderr", output.text


def test_notebook_shows_the_report_in_the_cell(scratch):
    for source in ("run", 'graft.show("out")'):
        (cell,) = [cell for cell in scratch.notebook.cells if cell.cell_type == "code" and cell.source == source]
        (output,) = cell.outputs
        assert f"run {scratch.run}" in output.data["text/plain"]
        if (scratch.folder / "out" / "runs" / "latest" / "report.html").is_file():
            assert output.data["text/html"].startswith("<iframe")


def test_notebook_runs_twice_and_the_second_time_there_is_nothing_to_do(scratch):
    (*_, status) = _cell(scratch.notebook, "graft.run(").outputs
    assert status.data["text/plain"] == "'unchanged'"


def test_notebook_is_told_in_one_sentence_what_stopped_a_run(scratch):
    printed = _printed(_cell(scratch.notebook, "try:"))
    assert printed.splitlines()[-1].startswith("The image folder ")


def test_notebook_is_committed_without_outputs():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert (cell.outputs, cell.execution_count) == ([], None)


# ---- commands -------------------------------------------------------------------------------------------------------

PROGRAMS = ("graft", "make", "docker", "python", "pip", "source", "curl", "echo", "cd", "systemctl", "journalctl")
PROGRAMS += ("rsync", "ssh", "tensorboard")
CRON = re.compile(r"(?:[\d*/,-]+ +){5}(?P<command>.+)")
ASSIGNMENT = re.compile(r"[A-Z0-9]+=")
# How lines begin that stand below a command and are its answer.
ANSWERS = re.compile(r"\{|Run \d{8}-\d{6}|Version \d+ ")
# Blocks that are no commands, by their first line.
PYTHON = re.compile(r"(import|from|def) |\w+ = ")
OPTIONS = re.compile(r"--\w")
UNIT = re.compile(r"\[Unit\]")
PROXY = re.compile(r"server \{")
FOLDERS = re.compile(r"\w+/( |$)")
MORE_SETTINGS = re.compile("… --set ")
SPOKEN = re.compile(r"graft( setup)?: |(refused|failed|unchanged|published): |\d\d:\d\d:\d\d  ")
# Not Graft's: it is fetched, installed or run elsewhere.
IMAGES_OF_OTHERS = ("tensorflow/serving",)
UNITS = ("graft-serve.service", "retrain.timer", "retrain.service", "retrain")


def is_command(line: str) -> bool:
    known = line.split()[:1] and line.split()[0] in PROGRAMS
    return bool((known or ASSIGNMENT.match(line) or CRON.fullmatch(line)) and not SPOKEN.match(line))


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_the_page_runs(page, scratch):
    for block in blocks(page):
        follow(block, scratch)


def follow(block: Text, scratch: Scratch) -> None:
    """Does what a block says, by the rule for its first line."""
    lines = [line for line in block.lines if line.text.strip()]
    first = lines[0].text.strip()
    if is_command(first):
        _type(block, scratch)
    elif OPTIONS.match(first):
        for line in lines:
            options = shlex.split(line.text, comments=True)
            _graft(line, ["check", *([] if "--images" in options else ["--images", "images"]), *options], scratch)
    elif PYTHON.match(first):
        ast.parse(block.text)
    elif UNIT.match(first):
        _unit(block, scratch)
    elif MORE_SETTINGS.match(first):
        for setting in re.findall(r"--set (\S+)", first):
            _graft(lines[0], ["check", "--images", "images", "--set", setting], scratch)
    else:
        assert FOLDERS.match(first) or PROXY.match(first) or _is_said(block), f"no rule for the block at {block}"


def _type(block: Text, scratch: Scratch) -> None:
    """Commands, and below them what they answer."""
    script, answered = [], False
    for line in block.lines:
        text = line.text.strip()
        if is_command(text):
            answered = False
            if shell := _command(Text(line.page, line.line, text), scratch):
                script.append(shell)
        elif ANSWERS.match(text):
            answered = True
        elif text and not text.startswith("#"):
            assert answered, f"no rule for {line}"
    if script:
        _shell(block, script, scratch)


def _command(line: Text, scratch: Scratch) -> str | None:
    """Obeys a command by its rule, or gives it back for the shell."""
    text = scratch.adapted(line.text)
    if cron := CRON.fullmatch(text):
        directory, separator, text = cron["command"].partition(" && ")
        assert separator and directory.startswith("cd "), f"no rule for {line}"
        text = text.split(">>")[0]
    if text.split()[0] in ("curl", "echo", "cd") or ASSIGNMENT.match(text):
        return text
    program, *arguments = shlex.split(text, comments=True)
    RULES[program](line, arguments, scratch)
    return None


def _shell(block: Text, script: list[str], scratch: Scratch) -> None:
    """Runs lines of a block in one shell, against the server that is there."""
    if any("curl" in line for line in script) and not shutil.which("curl"):
        pytest.skip("needs curl")
    (scratch.folder / ".curlrc").write_text("fail\nsilent\nshow-error\n")
    text = "\n".join(["set -euo pipefail", *script]).replace("http://127.0.0.1:8501", scratch.server)
    environment = os.environ | {"CURL_HOME": str(scratch.folder)}
    done = subprocess.run(["bash", "-c", text], cwd=scratch.folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{block}{done.stderr}"


def _graft(line: Text, arguments: list[str], scratch: Scratch) -> None:
    """Runs a command of Graft; where it would train, `graft check` with the same images and settings."""
    name, *rest = arguments
    parsed = _parsed(line, name, rest)
    if any("://" in word for word in rest) or name in ("demo",):
        return
    if name == "serve":
        assert (scratch.folder / parsed["model"]).is_dir() or parsed["host"] == "0.0.0.0", line
        return
    if name in ("run", "tune", "check") and (parsed["images"] or not parsed["print_config"]):
        assert name != "tune" or not parsed["recipe"].exists() or parsed["recipe"].name == "mine.yaml", line
        images = parsed["images"]
        if line.page == "configs/vgg16_directories.yaml":
            images = ("folders",)
        rest = [word for image in images for word in ("--images", image)]
        rest += ["--config", str(parsed["config_file"])] if parsed["config_file"] else []
        settings = list(parsed["overrides"])
        # No weights are downloaded here. A file's are looked at.
        if not any(setting.startswith("model.weights=") for setting in settings):
            settings.append("model.weights=none")
        name, rest = "check", rest + [word for setting in settings for word in ("--set", setting)]
    key = (name, *rest)
    if key in _done:
        return
    if parsed.get("output") is not None and name == "predict":
        parsed["output"].unlink(missing_ok=True)
    try:
        cli.graft.main([name, *rest], standalone_mode=False)
    except SystemExit as ended:
        assert not ended.code, line
    except Exception as error:
        raise AssertionError(f"{line}\n{' '.join(key)}\n{error}") from error
    _done.add(key)


_done: set[tuple[str, ...]] = set()


def _parsed(line: Text, name: str, arguments: list[str]) -> dict:
    assert name in cli.graft.commands, f"there is no graft {name}: {line}"
    try:
        return cli.graft.commands[name].make_context(name, list(arguments)).params
    except click.UsageError as error:
        raise AssertionError(f"{line}\n{error.format_message()}") from None


def _make(line: Text, arguments: list[str], scratch: Scratch) -> None:
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(arguments) <= set(targets), line


def _docker(line: Text, arguments: list[str], scratch: Scratch) -> None:
    """`docker build` of our Dockerfile; `docker run` of our image with a command of ours, or of somebody else's."""
    if arguments[0] == "build":
        assert arguments == ["build", "-t", "graft", "."] and (ROOT / "Dockerfile").is_file(), line
        return
    assert arguments[0] == "run", line
    for mounted in re.findall(r"\$PWD/?([^: ]*):", " ".join(arguments)):
        assert (scratch.folder / mounted).is_dir(), line
    if not set(IMAGES_OF_OTHERS) & set(arguments):
        ours = arguments[arguments.index("graft") + 1 :]
        if ours[1:] != ["…"]:
            _graft(line, ours, scratch)


def _python(line: Text, arguments: list[str], scratch: Scratch) -> None:
    """A script of the repository that knows the options."""
    if arguments[0] == "-m":
        assert arguments[1] in ("ipykernel", "pipeline", "pytest"), line
        return
    script = ROOT / arguments[0]
    assert script.is_file(), line
    for option in re.findall(r"--[a-z-]+", " ".join(arguments[1:])):
        assert f'"{option}"' in script.read_text(), f"{option}: {line}"


def _pip(line: Text, arguments: list[str], scratch: Scratch) -> None:
    """An extra of ours, or of a package that we depend on."""
    command, package = arguments
    name, _, extra = package.rstrip("]").partition("[")
    project = (ROOT / "pyproject.toml").read_text()
    assert command == "install", line
    assert f"\n{extra} = [" in project if name == "graft-pipeline" else f'"{name}' in project, line


def _source(line: Text, arguments: list[str], scratch: Scratch) -> None:
    assert arguments == [".venv/bin/activate"], line


def _systemd(line: Text, arguments: list[str], scratch: Scratch) -> None:
    assert arguments[-1] in UNITS, line


def _copy(line: Text, arguments: list[str], scratch: Scratch) -> None:
    """To another machine; what is copied is there."""
    for word in arguments:
        assert not word.startswith("out/") or (scratch.folder / word).exists(), line


RULES = {
    "graft": _graft,
    "make": _make,
    "docker": _docker,
    "python": _python,
    "pip": _pip,
    "source": _source,
    "systemctl": _systemd,
    "journalctl": _systemd,
    "rsync": _copy,
    "ssh": _copy,
}


def _unit(block: Text, scratch: Scratch) -> None:
    """A systemd unit whose command is one of ours."""
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str
    unit.read_string(block.text)
    if unit.has_section("Service"):
        program, *arguments = shlex.split(scratch.adapted(unit["Service"]["ExecStart"]))
        assert program == "graft", block
        _graft(block, arguments, scratch)


# ---- what the program says ------------------------------------------------------------------------------------------


def _is_said(block: Text) -> bool:
    """Whether a block is what the program prints. Of the troubleshooting page, every paragraph must be."""
    paragraphs = [" ".join(part.split()) for part in block.text.split("\n\n")]
    if not block.page.endswith("troubleshooting.md"):
        return bool(SPOKEN.match(block.text)) or any(_says(part) for part in paragraphs)
    return all(_says(part) for part in paragraphs)


def _says(text: str) -> bool:
    return any(sentence.search(text) for sentence in _sentences)


_sentences = sentences()


def test_a_sentence_that_the_program_does_not_say_is_noticed():
    said = "graft: Class 'square' has 2 usable distinct images and needs 3 (data.min_images_per_class): "
    said += "add images, or remove the class."
    assert _says(said)
    assert not _says("graft: Class 'square' has too few images, it needs 3")


# ---- options, keys, links -------------------------------------------------------------------------------------------

# In backticks, and options of other programs.
FOREIGN = {"--model_base_path", "--max_num_load_retries", "--load_retry_interval_micros", "--logdir", "--user"}
FILES = ("json", "jsonl", "tflite", "onnx", "keras", "h5", "py", "md", "txt", "csv", "pb")


def _options_of(name: str) -> set[str]:
    command = cli.graft.commands[name]
    return {option for parameter in command.params for option in parameter.opts} | {"--help", "-h"}


@pytest.mark.parametrize("page", PAGES)
def test_every_option_that_the_page_names_exists(page):
    every = set().union(*(_options_of(name) for name in cli.graft.commands)) | {"--version", "--help"}
    benchmarks = "".join(path.read_text() for path in (ROOT / "benchmarks").glob("*.py"))
    for word in words(page):
        named = re.findall(r"(?<![\w-])--[a-z][a-z_-]*", word.text)
        command = re.search(r"(?:^| )graft ([a-z]+)", word.text)
        if command:
            assert command[1] in cli.graft.commands, f"there is no graft {command[1]}: {word}"
            if not word.page.endswith(".yaml"):
                assert {option for option in named if option not in FOREIGN} <= _options_of(command[1]), word
        for option in named:
            assert option in every | FOREIGN or f'"{option}"' in benchmarks, word


def test_every_configuration_key_and_field_of_a_summary_that_a_page_names_exists(scratch):
    summary = json.loads((scratch.folder / "out" / "runs" / "latest" / "summary.json").read_text())
    known = [config.Config().model_dump(), summary]
    key = re.compile(rf"(?<![\w./-])((?:{'|'.join({*known[0], *summary})})(?:\.[a-z_*]+)+)")
    for page in PAGES:
        for word in words(page):
            for name in key.findall(word.text):
                if name.rpartition(".")[2] not in FILES:
                    assert any(_holds(values, name.split(".")) for values in known), f"{name}: {word}"


def _holds(values: object, parts: list[str]) -> bool:
    if not parts:
        return True
    if not isinstance(values, dict):
        return False
    name, *rest = parts
    if name == "*":
        return any(_holds(value, rest) for value in values.values())
    return name in values and _holds(values[name], rest)


@pytest.mark.parametrize("page", PAGES)
def test_every_link_of_the_page_leads_somewhere(page):
    for link in links(page):
        place, _, anchor = link.text.partition("#")
        if "://" in place:
            continue
        target = (ROOT / page).parent / place if place else ROOT / page
        assert target.exists(), f"there is no such file: {link}"
        if anchor:
            assert anchor in anchors(target.resolve().relative_to(ROOT).as_posix()), f"there is no such heading: {link}"


def test_every_page_is_in_the_index():
    listed = {link.text for link in links("docs/README.md")}
    assert {Path(page).name for page in PAGES if page.startswith("docs/")} - {"README.md"} <= listed


def test_every_page_that_the_code_names_exists():
    for package in ("benchmarks", "components", "configs", "pipeline", "tests", "trainer"):
        for file in (path for path in (ROOT / package).rglob("*.[py][ya]*") if path.suffix in (".py", ".yaml")):
            for name in re.findall(r"docs/[a-z_]+\.(?:md|ipynb)", file.read_text()):
                assert (ROOT / name).is_file(), f"{file} names {name}"
